"""Ablation: setting neurons to a value while the model runs.

`ablated(...)` is a context manager. It checks, after every other hook on the same point, that the
values that go on are those it set, and that every hook fired; and it removes its hooks whatever
happens (pitfalls 18 and 20).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from relation_neurons.ablation.hooks import Ablation
from relation_neurons.ablation.plan import Neurons, Values, plan_ablation, rows_of
from relation_neurons.backends.base import HookedModel
from relation_neurons.errors import HookError, UnknownOptionError, near_matches
from relation_neurons.inference.forward import attach

__all__ = ["MODES", "POSITIONS", "ablated"]

MODES = ("zero", "mean", "scale")
POSITIONS = ("no_first", "all", "last")


@contextlib.contextmanager
def ablated(
    model: HookedModel,
    neurons: Neurons | None = None,
    *,
    per_row: Sequence[Neurons] | None = None,
    site: str = "post",
    mode: str = "zero",
    positions: str = "no_first",
    value: Values = None,
) -> Iterator[Ablation]:
    """Ablates neurons for as long as the context is open.

    Contexts nest. At one site the inner context acts on what the outer one leaves: where both hold
    a neuron, the inner's zero or mean stands and two factors multiply. Across sites the later one
    in the forward pass has the last word.

    Args:
        model: what `load_model` gives.
        neurons: rows with layer and neuron, names such as `L16N302`, or (layer, neuron) pairs; the
            same for every row of a batch.
        per_row: instead of `neurons`, a set for each row of the batches that are run, in order;
            a row's set may be empty. It equals ablating each row's set on its own.
        site: `post`, `gate`, `up` or `out`.
        mode: `zero`; `mean` (each neuron set to its `value`); `scale` (multiplied by `value`).
        positions: `no_first` spares the first attended position, an attention sink; `all` is the
            paper's; `last` is the last prompt position and every answer position.
        value: for `mean`, one per neuron; for `scale`, a factor, or one per neuron. With `per_row`,
            a number for all, or an item for each row, itself a number or one per neuron.

    Raises:
        AblationError: a neuron that does not exist, values that are not what was asked for (another
            hook changed them), or a batch with more or fewer rows than `per_row`.
        HookError: a hook that did not fire though the model ran.
    """
    for name, choice, choices in (("mode", mode, MODES), ("positions", positions, POSITIONS)):
        if choice not in choices:
            raise UnknownOptionError(f"No {name} {choice!r}. {near_matches(choice, choices)}")
    sets, values = rows_of(neurons, per_row, value)
    parts = plan_ablation(model, sets, site, mode, values)
    rows = None if per_row is None else len(sets)
    forward, wrapped_before = model.forward, "forward" in vars(model)
    outer = getattr(forward, "ablation", None)
    ablation = Ablation(model, parts, mode=mode, positions=positions, rows=rows, outer=outer)
    handles: list[Any] = []
    try:
        model.forward = ablation.around(forward)
        for point in parts:
            handles.append(attach(model, point, ablation.hook))
        yield ablation
        missed = [point for point in parts if point not in ablation.fired]
        if ablation.calls and missed:
            raise HookError(
                f"The model ran, but the hook {missed[0]} did not fire, so its neurons were not "
                "ablated. Run every layer that holds an ablated neuron."
            )
    finally:
        for handle in handles:
            handle.remove()
        if wrapped_before:
            model.forward = forward
        else:
            vars(model).pop("forward", None)
