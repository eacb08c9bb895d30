"""Jobs, which make a table for each of many ablated sets, and the engines that run them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import pandas as pd

from relation_neurons.backends.base import HookedModel
from relation_neurons.errors import EngineError
from relation_neurons.progress import progress_bar
from relation_neurons.storage.chunks import Chunks

__all__ = ["Engine", "Job", "LocalEngine", "run_job"]


@runtime_checkable
class Job(Protocol):
    """What a model does with each of several ablated sets; a set is named by its index in the plan."""

    def keys(self) -> list[str]:
        """Returns a key for each set: a hash of all that decides its table and is not in the manifest."""
        ...

    def begin(self, model: HookedModel) -> Callable[[int], pd.DataFrame]:
        """Does what all sets share, and returns the function that makes the table of the set at an index."""
        ...

    def to_message(self) -> dict[str, Any]:
        """Returns the job as plain data, which a worker in another process can read."""
        ...


@runtime_checkable
class Engine(Protocol):
    """What runs a job, here or in other processes."""

    def check(self, model: HookedModel) -> None:
        """Refuses a model that it cannot work with, before anything is computed."""
        ...

    def work(
        self, model: HookedModel, job: Job, indices: Sequence[int]
    ) -> Iterator[tuple[int, pd.DataFrame]]:
        """Yields each index with its table, in the order in which they are finished."""
        ...

    def describe(self) -> dict[str, Any] | None:
        """Returns where tables were computed; None where that was this process alone."""
        ...

    def close(self) -> None:
        """Releases workers and memory."""
        ...


class LocalEngine:
    """Runs jobs in this process, one set after another."""

    def check(self, model: HookedModel) -> None:
        """Accepts any model."""

    def work(
        self, model: HookedModel, job: Job, indices: Sequence[int]
    ) -> Iterator[tuple[int, pd.DataFrame]]:
        """Yields each index with its table, in order."""
        make = job.begin(model)
        for index in indices:
            yield index, make(index)

    def describe(self) -> None:
        """Returns None: nothing about this process needs recording."""

    def close(self) -> None:
        """Does nothing, as nothing is held."""


def run_job(
    model: HookedModel,
    job: Job,
    what: str,
    *,
    engine: Engine | None = None,
    chunks: Chunks | None = None,
) -> list[pd.DataFrame]:
    """Returns the table of every set, in the plan's order.

    Each table is saved as a chunk as soon as it is made; one that is saved already is read.

    Args:
        model: what `load_model` returns.
        job: what to do with each set.
        what: names the job in the progress bar.
        engine: what runs it; this process by default.
        chunks: where tables are saved; nowhere by default.

    Raises:
        EngineError: the engine left out a set.
    """
    chunks = Chunks() if chunks is None else chunks
    keys = job.keys()
    tables = {index: chunks.read(index, key) for index, key in enumerate(keys)}
    missing = [index for index, table in tables.items() if table is None]
    with progress_bar(len(keys), what, "set") as bar:
        bar.update(len(keys) - len(missing))
        if missing:
            for index, table in (engine or LocalEngine()).work(model, job, missing):
                tables[index] = chunks.make(index, keys[index], partial(_given, table))
                bar.update(1)
    left = [index for index, table in tables.items() if table is None]
    if left:
        raise EngineError(
            f"The engine returned no table for {len(left)} of {len(keys)} sets. What is finished is kept; "
            "run the same command again."
        )
    return [table for _, table in sorted(tables.items()) if table is not None]


def _given(table: pd.DataFrame) -> pd.DataFrame:
    return table
