"""Which neurons of which row are set to what, at each hook point.

A set that all rows share is a plan of one row. With a set per row, a layer's neurons are the union
over the rows, and a mask marks those of each row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.neuron_sites import site_hook, site_width
from relation_neurons.errors import AblationError, UnknownOptionError
from relation_neurons.neurons import neuron_name, parse_neuron

__all__ = [
    "HookPointPlan",
    "Neurons",
    "Values",
    "plan_ablation",
    "read_neurons",
    "require_neurons",
    "rows_of",
]

Neurons: TypeAlias = pd.DataFrame | Iterable[str | tuple[int, int]]
"""Rows with layer and neuron, names such as `L16N302`, or (layer, neuron) pairs."""

Values: TypeAlias = float | Tensor | Sequence[float | Tensor] | None
"""A number, one per neuron, or with sets per row one of these for each row."""


@dataclass(frozen=True)
class HookPointPlan:
    """What is ablated at one hook point."""

    index: Int[Tensor, " k"]
    """The neurons there, over all rows."""
    member: Bool[Tensor, "rows k"]
    """Whose neurons they are; one row where all rows share a set."""
    target: Float[Tensor, "rows k"]
    """The value set, or the factor."""


def plan_ablation(
    model: HookedModel,
    sets: Sequence[Neurons],
    site: str,
    mode: str,
    values: Sequence[Values],
) -> dict[str, HookPointPlan]:
    """Plans the ablation of one set of neurons per row.

    Args:
        model: what `load_model` returns.
        sets: one per row; all of them empty is an error, some are not.
        site: see `ablated`.
        mode: see `ablated`.
        values: one per row; for `mean` and `scale` a number or one per neuron of the row's set.

    Returns:
        A plan for each hook point with an ablated neuron, by the hook point's name.

    Raises:
        AblationError: a neuron that does not exist or comes twice in a set, or no neuron at all.
    """
    pairs = [read_neurons(neurons) for neurons in sets]
    targets = [_targets(mode, value, len(row)) for row, value in zip(pairs, values, strict=True)]
    if not any(pairs):
        raise AblationError("No neuron was given; expected at least one.")
    for row in pairs:
        if len(set(row)) < len(row):
            raise AblationError(
                "A neuron comes twice in the set, so the dose would be less than it says; "
                "expected each neuron once."
            )
    require_neurons(model, [pair for row in pairs for pair in row], site)
    parts = {}
    for layer in sorted({layer for row in pairs for layer, _ in row}):
        index = sorted({neuron for row in pairs for at, neuron in row if at == layer})
        device = next(model.blocks[layer].parameters()).device
        column = {neuron: k for k, neuron in enumerate(index)}
        member = torch.zeros(len(pairs), len(index), dtype=torch.bool)
        target = torch.zeros(len(pairs), len(index))
        for i, (row, row_target) in enumerate(zip(pairs, targets, strict=True)):
            mine = [n for n, (at, _) in enumerate(row) if at == layer]
            columns = [column[row[n][1]] for n in mine]
            member[i, columns] = True
            target[i, columns] = row_target[mine]
        parts[site_hook(model, site, layer)] = HookPointPlan(
            torch.tensor(index, device=device), member.to(device), target.to(device)
        )
    return parts


def read_neurons(neurons: Neurons) -> list[tuple[int, int]]:
    """Returns (layer, neuron) pairs from a table, names or pairs.

    >>> read_neurons(["L16N302", (3, 7)])
    [(16, 302), (3, 7)]
    """
    if isinstance(neurons, pd.DataFrame):
        return [(int(a), int(b)) for a, b in zip(neurons["layer"], neurons["neuron"], strict=True)]
    if isinstance(neurons, str):
        neurons = [neurons]
    return [parse_neuron(n) if isinstance(n, str) else (int(n[0]), int(n[1])) for n in neurons]


def require_neurons(
    model: HookedModel, pairs: Iterable[tuple[int, int]], site: str = "post"
) -> None:
    """Refuses neurons that the model does not have.

    Raises:
        AblationError: the first one that does not exist; the layers and widths are named.
    """
    width, layers = site_width(model, site), model.cfg.n_layers
    for layer, neuron in pairs:
        if not (0 <= layer < layers and 0 <= neuron < width):
            raise AblationError(
                f"{neuron_name(layer, neuron)} does not exist: this model has layers 0 to {layers - 1} "
                f"with {width} {site} neurons each."
            )


def rows_of(
    neurons: Neurons | None, per_row: Sequence[Neurons] | None, value: Values
) -> tuple[list[Neurons], list[Values]]:
    """Returns the sets of neurons and their values, one per row, or one that all rows share."""
    if (neurons is None) == (per_row is None):
        raise UnknownOptionError("Give either neurons, or a set for each row as per_row.")
    if per_row is None:
        assert neurons is not None
        return [neurons], [value]
    sets = list(per_row)
    if value is None or isinstance(value, (int, float)) or getattr(value, "ndim", 1) == 0:
        return sets, [value] * len(sets)
    values: list[Values] = list(value)
    if len(values) != len(sets):
        raise UnknownOptionError(
            f"{len(values)} values for {len(sets)} rows; expected one number, or an item for each row."
        )
    return sets, values


def _targets(mode: str, value: Values, count: int) -> Float[Tensor, " neuron"]:
    """One value or factor per neuron of a set."""
    if mode == "zero":
        if value is not None:
            raise UnknownOptionError("mode='zero' takes no value; use mode='mean' or 'scale'.")
        return torch.zeros(count)
    if value is None:
        raise UnknownOptionError(f"mode={mode!r} needs a value: one number, or one per neuron.")
    targets = torch.as_tensor(value, dtype=torch.float32).cpu()
    if not bool(torch.isfinite(targets).all()):
        raise UnknownOptionError("A value is NaN or Inf; expected finite numbers.")
    if targets.ndim == 0:
        return targets.expand(count)
    if targets.shape != (count,):
        raise UnknownOptionError(f"{len(targets)} values for {count} neurons; expected one each.")
    return targets
