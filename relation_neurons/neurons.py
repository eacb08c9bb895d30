"""Names of neurons (`L16N302`), and doses: how many neurons are ablated, as counts or shares."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from relation_neurons.errors import AblationError, DoseError

__all__ = ["check_doses", "neuron_name", "parse_neuron", "resolve_doses"]


def neuron_name(layer: int, neuron: int) -> str:
    """Returns a neuron's name.

    >>> neuron_name(16, 302)
    'L16N302'
    """
    return f"L{layer}N{neuron}"


def parse_neuron(name: str) -> tuple[int, int]:
    """Parses a neuron's name into its layer and index.

    >>> parse_neuron("L16N302")
    (16, 302)
    """
    match = re.fullmatch(r"L(\d+)N(\d+)", name.strip(), flags=re.IGNORECASE)
    if match is None:
        raise AblationError(f"{name!r} is not the name of a neuron; expected the form L16N302.")
    return int(match[1]), int(match[2])


def check_doses(doses: Sequence[int | float | str]) -> None:
    """Checks the form of doses, before it is known how many neurons a model has.

    Raises:
        DoseError: no dose, or one that is neither a count from 1 nor a share above 0%.
    """
    for dose in doses:
        if _parsed(dose) <= 0:
            raise DoseError(f"A dose of {dose} ablates nothing; expected at least 1 neuron.")
    if not doses:
        raise DoseError("No dose was given; expected at least one.")


def resolve_doses(doses: Sequence[int | float | str], neurons: int) -> tuple[int, ...]:
    """Converts doses (counts, or shares such as `"0.2%"`) to counts in increasing order.

    Raises:
        DoseError: no dose, or one below 1 or above the number of neurons.

    >>> resolve_doses(["0.2%", 10], 46080)
    (10, 92)
    """
    check_doses(doses)
    counts = set()
    for dose in doses:
        count = round(_parsed(dose) * neurons) if _is_share(dose) else int(_parsed(dose))
        if not 1 <= count <= neurons:
            raise DoseError(f"A dose of {dose} means {count} neurons; this model has {neurons}.")
        counts.add(count)
    return tuple(sorted(counts))


def _is_share(dose: int | float | str) -> bool:
    return isinstance(dose, str) and dose.strip().endswith("%")


def _parsed(dose: int | float | str) -> int | float:
    """Returns a share as a fraction, and a count as it is."""
    try:
        number = float(str(dose).strip()[:-1]) / 100 if _is_share(dose) else int(dose)
    except (ValueError, TypeError, OverflowError) as error:
        raise DoseError(
            f"{dose!r} is not a dose; expected a count or a share such as 0.2%."
        ) from error
    if math.isnan(number) or math.isinf(number):
        raise DoseError(f"{dose!r} is not a dose; expected a count or a share such as 0.2%.")
    return number
