"""Names of neurons (`L16N302`), and doses: how many neurons are ablated, as counts or shares."""

from __future__ import annotations

import re
from collections.abc import Sequence

from relation_neurons.errors import AblationError, DoseError

__all__ = ["neuron_name", "parse_neuron", "resolve_doses"]


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


def resolve_doses(
    doses: Sequence[int | float | str], neurons: int | None = None
) -> tuple[int, ...]:
    """Converts doses (counts, or shares such as `"0.2%"`) to counts in increasing order.

    Without the number of neurons, only the form of the doses is checked.

    Raises:
        DoseError: a dose below 1 or above the number of neurons.

    >>> resolve_doses(["0.2%", 10], 46080)
    (10, 92)
    """
    counts = set()
    for dose in doses:
        try:
            if isinstance(dose, str) and dose.strip().endswith("%"):
                count = round(float(dose.strip()[:-1]) / 100 * (neurons or 1_000_000))
            else:
                count = int(dose)
        except (ValueError, TypeError, OverflowError) as error:
            raise DoseError(
                f"{dose!r} is not a dose; expected a count or a share such as 0.2%."
            ) from error
        if count < 1 or (neurons is not None and count > neurons):
            there = f"this model has {neurons}" if neurons else "expected at least 1"
            raise DoseError(f"A dose of {dose} means {count} neurons; {there}.")
        counts.add(count)
    if not counts:
        raise DoseError("No dose was given; expected at least one.")
    return tuple(sorted(counts))
