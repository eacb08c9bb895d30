"""Average precision of every neuron where the parts that prompts play are dealt out anew.

A prompt's role says what it is to each detection task: positive, negative or neither. A deal gives the
roles to other prompts. Each neuron is sorted once for all deals (see `radix_sort`). Then a prompt is counted
for all tasks of all deals at once, and divided for only where it is a positive, as in `permutations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int8
from torch import Tensor

from relation_neurons.errors import ActivationError
from relation_neurons.scoring.inputs import Columns, in_threads
from relation_neurons.scoring.jit import compiled
from relation_neurons.scoring.radix_sort import sort_block

__all__ = ["DealtRoles", "dealt_precision"]

_CHUNK = 1 << 20  # activations that a thread takes at a time


@dataclass(frozen=True, eq=False)
class DealtRoles:
    """Some detection tasks, and who plays which role in each deal."""

    tasks: Int8[np.ndarray, "task role"]
    """1 where a role is a positive of the task, 0 where a negative, -1 where neither."""
    roles: Int[np.ndarray, "deal prompt"]
    """The role of each prompt, or -1."""


def dealt_precision(
    activations: Float[Tensor, "prompt neuron"] | Int[Tensor, "prompt neuron"],
    dealt: Sequence[DealtRoles],
) -> list[Float[np.ndarray, "deal task neuron"]]:
    """Scores every neuron in each detection task of every deal.

    Args:
        activations: one value per prompt and neuron, ties allowed (pitfall 10).
        dealt: detection tasks with their deals; any number of them, each with its own prompts.

    Returns:
        Average precision as `family_average_precision` computes it, for each of `dealt`; NaN for a task
        without positives.

    Raises:
        ActivationError: the activations contain NaN or Inf.

    >>> import torch
    >>> tasks = np.array([[1, 0, -1], [-1, 0, 1]], dtype=np.int8)
    >>> roles = np.array([[0, 1, 2], [1, 2, 0]])  # the second deal: a negative first
    >>> values = torch.tensor([[3.0], [2.0], [1.0]])
    >>> dealt_precision(values, [DealtRoles(tasks, roles)])[0].tolist()
    [[[1.0], [0.5]], [[0.5], [0.5]]]
    """
    prompts, neurons = activations.shape
    plans = [_plan(one) for one in dealt]
    found = [np.empty((one.roles.shape[0] * len(one.tasks), neurons)) for one in dealt]
    columns = Columns(activations.cpu())

    def work(start: int, stop: int) -> bool:
        bits, table, _, first, last = columns.read(start, stop)
        keys = np.empty((stop - start, prompts), dtype=np.uint64)
        number = np.arange(prompts, dtype=np.uint64)
        finite = bool(sort_block(bits, table, first, last, number, keys))
        for plan, ap in zip(plans, found, strict=True):
            _scan(keys, *plan, ap[:, start:stop])
        return finite

    if not in_threads(work, neurons, max(1, _CHUNK // max(prompts, 1)), "deals"):
        raise ActivationError("Activations contain NaN or Inf; expected finite values.")
    return [
        ap.reshape(one.roles.shape[0], len(one.tasks), neurons)
        for ap, one in zip(found, dealt, strict=True)
    ]


_Plan = tuple[np.ndarray, ...]


def _plan(dealt: DealtRoles) -> _Plan:
    """Returns which labellings count each prompt, and which call it positive.

    A labelling is a task in one deal, with the number deal x tasks + task.
    """
    tasks, roles = dealt.tasks, dealt.roles
    played = roles >= 0
    counted = (tasks >= 0)[:, roles] & played
    positive = (tasks == 1)[:, roles] & played
    counted, positive = (
        one.transpose(2, 1, 0).reshape(roles.shape[1], -1) for one in (counted, positive)
    )
    prompt, labelling = np.nonzero(positive)
    starts = np.searchsorted(prompt, np.arange(roles.shape[1] + 1))
    used = np.asarray(counted.any(axis=1))
    positives: np.ndarray = positive.sum(axis=0).astype(np.float64)
    return (
        used,
        np.ascontiguousarray(counted.view(np.int8)),
        starts.astype(np.uint64),  # an unsigned index needs no check for counting from the end
        labelling.astype(np.uint32),
        positives,
    )


@compiled
def _scan(keys, used, counted, starts, labelling, positives, ap):
    """Scans each neuron's sorted prompts; tied ones all count the hits at the end of their tie."""
    neurons, prompts = keys.shape
    low = np.uint64(0xFFFFFFFF)
    high = np.uint64(32)
    one = np.uint64(1)
    labels = len(positives)
    seen = np.empty(labels, dtype=np.int32)
    hits, total, gained = np.empty(labels), np.empty(labels), np.zeros(labels)
    for neuron in range(neurons):
        hits[:] = 0
        total[:] = 0
        seen[:] = 0
        at = 0
        while at < prompts:
            value = keys[neuron, at] >> high
            end = at + 1
            while end < prompts and keys[neuron, end] >> high == value:
                end += 1
            for i in range(at, end):
                prompt = keys[neuron, i] & low
                if used[prompt]:
                    for label in range(labels):
                        seen[label] += counted[prompt, label]
            if end == at + 1:  # not tied, the common case
                prompt = keys[neuron, at] & low
                for k in range(starts[prompt], starts[prompt + one]):
                    label = labelling[k]
                    so_far = hits[label] + 1.0
                    hits[label] = so_far
                    total[label] += so_far / seen[label]
                at = end
                continue
            for i in range(at, end):
                prompt = keys[neuron, i] & low
                for k in range(starts[prompt], starts[prompt + one]):
                    gained[labelling[k]] += 1.0
            for i in range(at, end):
                prompt = keys[neuron, i] & low
                for k in range(starts[prompt], starts[prompt + one]):
                    label = labelling[k]
                    if gained[label] > 0:
                        hits[label] += gained[label]
                        total[label] += gained[label] * (hits[label] / seen[label])
                        gained[label] = 0.0
            at = end
        for label in range(labels):
            ap[label, neuron] = total[label] / positives[label]
