"""How many workers a cluster holds, and how many threads each of them has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relation_neurons.errors import EngineError

__all__ = ["MOST_THREADS", "Size", "choose_size"]

MOST_THREADS = 4
"""Threads of a worker on a large machine: small models gain little from more, and more workers do."""


@dataclass(frozen=True)
class Size:
    """The workers of a pool."""

    workers: int
    threads: int
    """CPU threads of each; a core is reserved for each thread."""
    gpus: int
    """GPUs of each, 0 or 1."""


def choose_size(
    nodes: Sequence[Mapping[str, float]], *, gpu: bool, workers: int | None, threads: int
) -> Size:
    """Chooses how many workers there are: one per GPU, else one per `threads` cores.

    Where a number of workers is asked for, each has as many threads as then fit, up to `threads`.

    Args:
        nodes: what each machine has, as Ray reports it: CPU and GPU.
        gpu: whether each worker needs a GPU.
        workers: how many are asked for; as many as fit by default.
        threads: the most that a worker may have.

    Raises:
        EngineError: there is no room for them.

    >>> choose_size([{"CPU": 16.0}], gpu=False, workers=None, threads=4)
    Size(workers=4, threads=4, gpus=0)
    >>> choose_size([{"CPU": 2.0}], gpu=False, workers=2, threads=2)
    Size(workers=2, threads=1, gpus=0)
    """
    room = {each: _room(nodes, each, gpu) for each in range(1, threads + 1)}
    wanted = workers
    if wanted is None:
        wanted = room[1] if gpu else max(1, room[threads])
    fitting = [each for each in room if room[each] >= wanted]
    if not fitting or wanted < 1:
        have = ", ".join(
            f"{sum(node.get(kind, 0) for node in nodes):.0f} {kind}s" for kind in ("CPU", "GPU")
        )
        need = "a GPU and a core" if gpu else "a core"
        raise EngineError(
            f"{max(wanted, 1)} workers were asked for, each needs {need}; the cluster has {have} on "
            f"{len(nodes)} machines. Ask for fewer with --workers{', or --device cpu' if gpu else ''}."
        )
    return Size(wanted, max(fitting), int(gpu))


def _room(nodes: Sequence[Mapping[str, float]], threads: int, gpu: bool) -> int:
    """How many workers of so many threads fit; a worker is on one machine."""
    return sum(
        int(min(node.get("CPU", 0) // threads, node.get("GPU", 0) if gpu else math.inf))
        for node in nodes
    )
