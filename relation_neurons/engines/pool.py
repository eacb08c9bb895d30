"""The pool of workers: hands each set of a job to a free worker, and replaces workers that die.

A new worker is started on whatever machine has room; the set of the dead one goes to whichever worker is
free first.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from relation_neurons import errors
from relation_neurons.ablation.jobs import Job
from relation_neurons.engines.worker import job_message
from relation_neurons.errors import (
    EngineError,
    ModelLoadError,
    OutOfMemoryError,
    RelationNeuronsError,
)
from relation_neurons.storage.chunks import unpacked

__all__ = ["Pool"]

MOST_DEATHS = 3
"""Workers that may die over one set, or one after another while loading, before that stops."""
_PATIENCE = 60.0
"""Seconds without a worker after which the pool logs that it waits."""


@dataclass(frozen=True)
class _Task:
    """What a worker is doing: loading, where there is no job."""

    worker: Any
    job: str = ""
    index: int = -1
    deaths: int = 0
    """How many workers before this one, which it replaces, died while loading."""


class Pool:
    """Workers of a Ray cluster that hold the same model.

    Args:
        ray: the module.
        start: starts a `Worker` actor and gives its handle.
        workers: how many there are.
        source: what they load, for messages.
        log: called with each line of what happens.
    """

    def __init__(
        self,
        ray: Any,
        start: Callable[[], Any],
        workers: int,
        source: str,
        log: Callable[[str], None],
    ) -> None:
        self._ray, self._start, self._source, self._log = ray, start, source, log
        self._workers: list[Any] = []
        self._tasks: dict[Any, _Task] = {}
        self._free: list[Any] = []
        self._names = (f"job {number}" for number in itertools.count())
        self._processes: dict[Any, int] = {}
        self._last_death = ""
        for _ in range(workers):
            self._start_worker()

    @property
    def processes(self) -> list[int]:
        """The process of each worker that has loaded the model, on its own machine."""
        return list(self._processes.values())

    def work(self, job: Job, indices: Sequence[int]) -> Iterator[tuple[int, pd.DataFrame]]:
        """Yields each index with its table, in the order in which they are finished.

        Raises:
            ModelLoadError: a worker cannot load the model.
            OutOfMemoryError: it does not fit into memory there.
            EngineError: its weights differ, a set's workers die again and again, or none is left.
            RelationNeuronsError: what a set raised, as it would here.
        """
        name, message = next(self._names), self._ray.put(job_message(job))
        left, lost = deque(indices), Counter[int]()
        waiting = set(indices)
        while waiting:
            while left and self._free:
                worker, index = self._free.pop(), left.popleft()
                task = worker.make.remote(name, message, index)
                self._tasks[task] = _Task(worker, name, index)
            for task, answer in self._finished():
                mine = task.job == name
                if answer is None:
                    if mine:
                        lost[task.index] += 1
                        self._require_few(lost[task.index])
                        left.appendleft(task.index)
                    continue
                if "error" in answer and (mine or "loading" in answer):
                    raise _error(answer, self._source)
                self._free.append(task.worker)
                if not task.job:
                    self._processes[task.worker] = answer["process"]
                elif mine and task.index in waiting:
                    waiting.remove(task.index)
                    yield task.index, unpacked(answer["table"])

    def stop(self) -> None:
        """Ends the workers."""
        for worker in self._workers:
            self._ray.kill(worker, no_restart=True)
        self._tasks, self._free = {}, []

    def _start_worker(self, deaths: int = 0) -> None:
        """Starts a worker, which loads the model first."""
        worker = self._start()
        self._workers.append(worker)
        self._tasks[worker.load.remote()] = _Task(worker, deaths=deaths)

    def _finished(self) -> Iterator[tuple[_Task, dict[str, Any] | None]]:
        """Waits for a task to end; yields it with its answer, or with None where its worker died."""
        if not self._tasks:
            raise EngineError(
                f"No worker is left; the last one died: {self._last_death} The finished part of the "
                "run is kept, so the same command goes on. If memory ran out, take fewer --workers."
            )
        done: list[Any] = []
        while not done:
            done, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=_PATIENCE)
            if not done and not self._processes:
                self._log("ray: no worker is ready yet; waiting for the cluster, or for a model")
        for one in done:
            task = self._tasks.pop(one)
            try:
                yield task, self._ray.get(one)
            except self._ray.exceptions.RayTaskError as error:
                raise EngineError(f"A worker failed: {_last_line(error)}") from error
            except self._ray.exceptions.RayError as error:
                self._died(task, error)
                yield task, None

    def _died(self, task: _Task, error: Exception) -> None:
        """Replaces a worker, unless several in a row died while loading."""
        process = self._processes.pop(task.worker, None)
        self._workers.remove(task.worker)
        self._last_death = _first_line(error)
        deaths = 0 if task.job else task.deaths + 1
        if deaths >= MOST_DEATHS:
            self._log(f"ray: {deaths} workers died while loading; no other is started for them")
            return
        who = f"a worker (process {process})" if process else "a worker that was loading"
        self._log(f"ray: {who} died; another is started, and what it was at is done again")
        self._start_worker(deaths)

    def _require_few(self, times: int) -> None:
        if times >= MOST_DEATHS:
            raise EngineError(
                f"{times} workers died over the same ablated set; the last one: {self._last_death} If "
                "memory ran out, take fewer --workers or a smaller --batch-size."
            )


def _error(answer: dict[str, Any], source: str) -> RelationNeuronsError:
    """Turns a worker's failure into an error here: of its own type, or a failure to load."""
    kind = getattr(errors, answer["error"], None)
    known = isinstance(kind, type) and issubclass(kind, RelationNeuronsError)
    said = answer["message"] if known else f"{answer['error']}: {answer['message']}"
    found: RelationNeuronsError
    if "loading" in answer and kind is OutOfMemoryError:
        found = OutOfMemoryError(
            f"A worker on {answer['node']} runs out of memory while it loads {source}: {said} Take fewer "
            "--workers: each holds a model of its own."
        )
    elif "loading" in answer and kind is not EngineError:
        found = ModelLoadError(
            f"A worker on {answer['node']} cannot load {source}: {said} Every machine needs the model "
            "under the same name or path."
        )
    elif "loading" in answer:
        found = EngineError(f"A worker on {answer['node']} cannot take part: {said}")
    elif known and kind is not None:
        found = kind(said)
    else:
        found = EngineError(f"A worker on {answer['node']} failed: {said}")
    found.add_note(f"In the worker:\n{answer['trace']}")
    return found


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
