"""Jobs: many ablated sets, a table for each, worked off by an engine and kept as they come."""

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
    """What a model does with each of several ablated sets; each set is a place of the plan."""

    def keys(self) -> list[str]:
        """Names each place's table by all that decides it, but for what the run's manifest says."""
        ...

    def begin(self, model: HookedModel) -> Callable[[int], pd.DataFrame]:
        """Does what all places share, and gives the function that makes the table of a place."""
        ...

    def to_message(self) -> dict[str, Any]:
        """Gives the job as plain data, which a worker elsewhere can read."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Where the places of a job are worked off."""

    def check(self, model: HookedModel) -> None:
        """Refuses a model that it cannot work with, before anything is computed."""
        ...

    def work(
        self, model: HookedModel, job: Job, places: Sequence[int]
    ) -> Iterator[tuple[int, pd.DataFrame]]:
        """Gives each place with its table, in whatever order they get done."""
        ...

    def describe(self) -> dict[str, Any] | None:
        """Says where tables were computed; nothing where that was this process alone."""
        ...

    def close(self) -> None:
        """Lets go of what it holds."""
        ...


class LocalEngine:
    """This process, one place after another."""

    def check(self, model: HookedModel) -> None:
        """Any model will do."""

    def work(
        self, model: HookedModel, job: Job, places: Sequence[int]
    ) -> Iterator[tuple[int, pd.DataFrame]]:
        """Gives each place with its table, in order."""
        make = job.begin(model)
        for place in places:
            yield place, make(place)

    def describe(self) -> None:
        """Says nothing: every run can be computed here."""

    def close(self) -> None:
        """Holds nothing."""


def run_job(
    model: HookedModel,
    job: Job,
    what: str,
    *,
    engine: Engine | None = None,
    chunks: Chunks | None = None,
) -> list[pd.DataFrame]:
    """Gives the table of every place, in the plan's order.

    A table is kept as a chunk as soon as it is there, and read where it is there already.

    Args:
        model: what `load_model` gives.
        job: what is to be done.
        what: names the job in the progress bar.
        engine: where it is done; in this process by default.
        chunks: where tables are kept; nowhere by default.
    """
    chunks = Chunks() if chunks is None else chunks
    keys = job.keys()
    tables = {place: chunks.read(place, key) for place, key in enumerate(keys)}
    missing = [place for place, table in tables.items() if table is None]
    with progress_bar(len(keys), what, "set") as bar:
        bar.update(len(keys) - len(missing))
        if missing:
            for place, table in (engine or LocalEngine()).work(model, job, missing):
                tables[place] = chunks.make(place, keys[place], partial(_given, table))
                bar.update(1)
    left = [place for place, table in tables.items() if table is None]
    if left:
        raise EngineError(
            f"The engine gave no table for {len(left)} of {len(keys)} sets. What is finished is kept; run "
            "the same command again."
        )
    return [table for _, table in sorted(tables.items()) if table is not None]


def _given(table: pd.DataFrame) -> pd.DataFrame:
    return table
