"""The inputs of the compiled code: activations as raw bits, prompts in groups, and threads over neurons."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int8, UInt64
from torch import Tensor

from relation_neurons.progress import progress_bar

__all__ = ["Columns", "PromptGroups", "group_prompts", "in_threads"]

_EXACT = (torch.float32, torch.int8, torch.uint8, torch.int16, torch.bool)  # as float32


class Columns:
    """Activations of any dtype, as the compiled code reads them; nothing is copied in advance.

    float32 and half precision are read in place, also from a memory-mapped file. Other layouts and
    dtypes are converted a few neurons at a time: what float32 holds exactly (8 and 16 bits) to float32,
    the rest to ranks among the neuron's values, because only their order counts.
    """

    def __init__(self, activations: Float[Tensor, "prompt neuron"] | Int[Tensor, "prompt neuron"]):
        self.activations = activations.detach()
        self.prompts, self.neurons = activations.shape
        dtype = activations.dtype
        self._halved = dtype in (torch.float16, torch.bfloat16)
        self._wide = not self._halved and dtype not in _EXACT
        self._table = None
        if self._halved:
            every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)
            self._table = every.float().numpy().view(np.uint32)

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray | None, Any, int, int]:
        """Reads neurons start to stop as raw bits.

        Returns:
            bits; the float32 of each half-precision pattern, or None; the float64 values that ranks
            stand for, or None; and the first and last column of the neurons in `bits`.
        """
        given = self.activations
        if given.is_contiguous() and (self._halved or given.dtype == torch.float32):
            return self._bits(given), self._table, None, start, stop
        part = given[:, start:stop].contiguous()
        if self._wide:
            values = part.numpy()
            ranks = torch.from_numpy(_ranks(values))
            return self._bits(ranks), None, values.astype(np.float64), 0, stop - start
        if not self._halved:
            part = part.float()
        return self._bits(part), self._table, None, 0, stop - start

    @staticmethod
    def _bits(values: Tensor) -> np.ndarray:
        if values.element_size() == 2:
            return values.view(torch.int16).numpy().view(np.uint16)
        return values.view(torch.int32).numpy().view(np.uint32)


def _ranks(values: np.ndarray) -> Float[np.ndarray, "prompt neuron"]:
    """Ranks each column's distinct values from the lowest; Inf and NaN become NaN."""
    order = values.argsort(axis=0)
    ordered = np.take_along_axis(values, order, axis=0)
    ranks = np.zeros(values.shape, dtype=np.float32)
    steps = (np.diff(ordered, axis=0) != 0).cumsum(axis=0)  # below 2^24 prompts, float32 is exact
    np.put_along_axis(ranks, order[1:], steps.astype(np.float32), axis=0)
    if values.dtype.kind == "f":
        ranks[~np.isfinite(values)] = np.nan
    return ranks


def in_threads(work: Callable[[int, int], bool], neurons: int, step: int, what: str) -> bool:
    """Calls `work(start, stop)` on `step` neurons at a time, in as many threads as torch uses.

    numba's own threads would do too, but its OpenMP layer changes the number of threads that torch uses
    afterwards.

    Returns:
        Whether all calls returned True.
    """
    starts = range(0, neurons, step)

    def part(start: int) -> tuple[int, bool]:
        stop = min(start + step, neurons)
        return stop - start, work(start, stop)

    threads = min(torch.get_num_threads(), len(starts))
    fine = True
    with progress_bar(neurons, what, "neuron") as bar, ExitStack() as stack:
        run: Callable = map
        if threads > 1:
            run = stack.enter_context(ThreadPoolExecutor(threads)).map
        for count, good in run(part, starts):
            bar.update(count)
            fine = fine and good
    return fine


@dataclass(frozen=True)
class PromptGroups:
    """Prompts by class, and whether each class is positive or negative in each detection task.

    Prompts of one class are positives and negatives of the same tasks.
    """

    labels: UInt64[np.ndarray, " prompt"]
    """The class of each prompt."""
    positive: Bool[np.ndarray, "task class"]
    negative: Bool[np.ndarray, "task class"]
    sizes: Int[np.ndarray, " class"]
    """Number of prompts in each class."""
    hit: Int[np.ndarray, "class hits"]
    """The tasks that each class is a positive of; rows are filled up with one task too many."""
    counted: Int[np.ndarray, "class group"]
    """1 if a class is counted, as a positive or a negative, in the tasks of a group."""
    groups: Int[np.ndarray, " task_and_one"]
    """The group of each task, and of the one too many."""


def group_prompts(membership: Int8[Tensor, "task prompt"]) -> PromptGroups:
    """Groups the prompts that are positives and negatives of the same detection tasks."""
    member = membership.numpy()
    kinds, labels, sizes = np.unique(member, axis=1, return_inverse=True, return_counts=True)
    counted, groups = np.unique(kinds >= 0, axis=0, return_inverse=True)
    per_class = (kinds == 1).sum(axis=0)
    hit = np.full((len(sizes), max(1, int(per_class.max()))), len(member), dtype=np.int64)
    classes, tasks = np.nonzero(kinds.T == 1)
    hit[classes, np.arange(len(classes)) - (per_class.cumsum() - per_class)[classes]] = tasks
    return PromptGroups(
        labels=labels.reshape(-1).astype(np.uint64),
        positive=np.ascontiguousarray(kinds == 1),
        negative=np.ascontiguousarray(kinds == 0),
        sizes=sizes.astype(np.int64),
        hit=hit,
        counted=np.ascontiguousarray(counted.T.astype(np.int32)),
        groups=np.append(groups, 0).astype(np.int64),
    )
