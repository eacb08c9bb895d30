"""The scores of `kernels` computed with torch, for activations on a GPU.

    AP = sum over positives of (hits / prompts seen at the end of its tie) / number of positives

Nothing here needs CUDA; `scores` uses it for activations on such a device, where torch's sort along rows
is the fastest available.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relation_neurons.scoring.inputs import PromptGroups
from relation_neurons.scoring.kernels import FLOOR, Scores

__all__ = ["score"]

_CELLS = 1 << 24  # activations at a time: about 1.5 GB with all intermediate tensors


@torch.inference_mode()
def score(
    activations: Float[Tensor, "prompt neuron"] | Int[Tensor, "prompt neuron"],
    classes: PromptGroups,
    found: Scores,
) -> bool:
    """Scores all neurons into `found`, on the activations' device; returns whether all are finite."""
    prompts, neurons = activations.shape
    step = max(1, _CELLS // prompts)
    finite = True
    for start in range(0, neurons, step):
        part = activations[:, start : start + step]
        here = slice(start, start + part.shape[1])
        if part.is_floating_point():
            finite = finite and bool(torch.isfinite(part).all())
        if found.d_prime.shape[1]:
            moments = _standardised(part.double(), classes)
            for kept, made in zip(
                (found.d_prime, found.mean_positive, found.mean_negative), moments, strict=True
            ):
                kept[:, here] = made.cpu().numpy()
        if found.average_precision.shape[1] or found.auroc.shape[1]:
            _ranked(part, classes, found, here)
    return finite


def _ranked(part: Tensor, classes: PromptGroups, found: Scores, here: slice) -> None:
    """Sorts each neuron once, then scores it in each task."""
    device = part.device
    ordered, order = part.T.contiguous().sort(dim=1, descending=True)
    first, last = _ties(ordered)
    label = torch.from_numpy(classes.labels.astype(np.int64)).to(device)[order]
    counted = torch.from_numpy(classes.counted).to(device)
    positive = torch.from_numpy(classes.positive).to(device)
    seen_by_group: dict[int, Tensor] = {}
    for task, group in enumerate(classes.groups[:-1].tolist()):
        if group not in seen_by_group:
            seen_by_group = {group: counted[:, group][label].cumsum(1, dtype=torch.int32)}
        seen = seen_by_group[group]
        hit = positive[task][label]
        hits = hit.cumsum(1, dtype=torch.int32)
        total = hits[:, -1].double()
        if found.average_precision.shape[1]:
            precision = hits.gather(1, last).double() / seen.gather(1, last).clamp(min=1)
            ap = (precision * hit).sum(1) / total
            found.average_precision[task, here] = ap.cpu().numpy()
        if found.auroc.shape[1]:
            misses = seen - hits
            missed = (seen - hits - (counted[:, group][label] - hit.int())).gather(1, first)
            above = ((misses.gather(1, last) + missed).double() / 2 * hit).sum(1)
            area = 1 - above / (total * misses[:, -1])
            found.auroc[task, here] = area.cpu().numpy()


def _ties(
    ordered: Tensor,
) -> tuple[Int[Tensor, "neuron prompt"], Int[Tensor, "neuron prompt"]]:
    """Returns, for each place, the first and the last place with the same activation."""
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    final: Bool[Tensor, "neuron prompt"] = torch.ones_like(new)
    final[:, :-1] = new[:, 1:]
    place = torch.arange(ordered.shape[1], device=ordered.device).expand_as(ordered)
    first = torch.where(new, place, 0).cummax(1).values
    last = torch.where(final, place, ordered.shape[1]).flip(1).cummin(1).values.flip(1)
    return first, last


def _standardised(
    values: Float[Tensor, "prompt neuron"], classes: PromptGroups
) -> tuple[Float[Tensor, "task neuron"], ...]:
    """Computes the standardised difference and the two means from the means and spreads of the classes."""
    label = torch.from_numpy(classes.labels.astype(np.int64)).to(values.device)
    sizes = torch.from_numpy(classes.sizes).to(values)
    empty = values.new_zeros(len(classes.sizes), values.shape[1])
    centre = empty.index_add(0, label, values) / sizes[:, None]
    within = empty.index_add(0, label, (values - centre[label]).square())
    sides = []
    for members in (classes.positive, classes.negative):
        chosen = torch.from_numpy(members).to(values)
        count = (chosen @ sizes).clamp(min=1)[:, None]
        mean = (chosen * sizes) @ centre / count
        apart = torch.stack(
            [(row * sizes) @ (centre - one).square() for row, one in zip(chosen, mean, strict=True)]
        )
        sides.append((mean, (chosen @ within + apart) / count))
    (above, above_var), (below, below_var) = sides
    spread = ((above_var + below_var) / 2).sqrt()
    known = spread > FLOOR * (above.abs() + below.abs())
    return torch.where(known, (above - below) / spread, 0.0), above, below
