"""The whole experiment: relations in, tables and a report out.

relations -> prompts -> recall -> activations -> ranking -> ablation sweep -> effects -> report
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from relation_neurons.ablation.jobs import Engine
from relation_neurons.backends.base import HookedModel
from relation_neurons.engines import make_engine
from relation_neurons.experiment.ablate_stage import ablate_stage
from relation_neurons.experiment.opening import RunRequest, open_run, request_run
from relation_neurons.experiment.rank_stage import rank_stage
from relation_neurons.experiment.report_stage import report_stage
from relation_neurons.results.results import Results, load_results
from relation_neurons.results.table_store import TableStore
from relation_neurons.storage.run_folder import read_checksums
from relation_neurons.version import renamed

__all__ = ["engine_for", "is_finished", "run", "run_request"]


@renamed(say="log", score="contrast")
def run(
    model: HookedModel,
    relations: Any = "demo",
    *,
    out: str | Path | None = None,
    preset: str = "default",
    log: Callable[[str], None] | None = None,
    force_new: bool = False,
    engine: str | Engine = "local",
    address: str | None = None,
    workers: int | None = None,
    memory: str | int | None = None,
    **options: Any,
) -> Results:
    """Runs the whole experiment, from relations to the report.

    In a folder with an unfinished run of the same options, what is complete is kept and the rest
    computed; a finished run is read.

    Args:
        model: what `load_model` returns.
        relations: anything that `load_relations` reads.
        out: the results folder; nothing is written without one.
        preset: `default` or `paper`.
        log: called with a line for each finished stage.
        force_new: moves a folder that exists aside (to `out.old-1`), and starts a new one.
        engine: where ablated sets are computed: `local`, this process; `ray`, the workers of a Ray
            cluster; or an engine, which stays open. It is not part of what identifies a run: a folder
            begun on one engine may be finished on another.
        address: of a running Ray cluster; by default one is started here.
        workers: how many the Ray engine has, see `RayEngine`.
        memory: what the activation table may take in memory, such as `2GB`; see `collect_activations`.
        options: fields of `Options`.

    Raises:
        ResultsError: the folder holds another run, or another process is writing it.
        DoseError: a dose above the number of neurons.
        EngineError: the engine cannot be started, or lost its workers; finished parts are kept.
    """
    folder = Path(out) if out is not None else None
    request = request_run(relations, options, preset=preset, out=folder, memory=memory)
    store = TableStore(folder, memory=memory, **({"log": log} if log else {}))
    return run_request(
        model,
        request,
        store,
        force_new=force_new,
        engine=engine,
        address=address,
        workers=workers,
    )


def run_request(
    model: HookedModel,
    request: RunRequest,
    store: TableStore,
    *,
    force_new: bool = False,
    engine: str | Engine = "local",
    address: str | None = None,
    workers: int | None = None,
) -> Results:
    """Does all that was requested, as `run` does.

    Args:
        model: what `load_model` returns.
        request: what `request_run` returns.
        store: the results folder, if any.
        force_new: as in `run`, and so are engine, address and workers.

    Raises:
        DoseError: a dose above the number of neurons.
        ResultsError: the folder holds another run, or another process is writing it.
        EngineError: the engine cannot be started, or lost its workers; finished parts are kept.
    """
    options = request.options
    with open_run(model, request, store, force_new=force_new) as manifest:
        if store.folder is not None and is_finished(store.folder):
            store.log(f"{store.folder} holds this very run, finished: nothing to do")
            return load_results(store.folder)
        with engine_for(model, engine, store, address=address, workers=workers) as opened:
            prompts, recall, ranking = rank_stage(model, request.relations, options, store)
            ablations = ablate_stage(model, prompts, ranking, options, store, opened)
        return report_stage(manifest, prompts.frame, recall, ranking, ablations, store)


@contextlib.contextmanager
def engine_for(
    model: HookedModel,
    engine: str | Engine,
    store: TableStore,
    *,
    address: str | None = None,
    workers: int | None = None,
) -> Iterator[Engine]:
    """Opens the engine of a run for a model, records in the folder that it was used, and closes it."""
    opened = (
        make_engine(engine, address=address, workers=workers, log=store.log)
        if isinstance(engine, str)
        else engine
    )
    try:
        opened.check(model)
        yield opened
    finally:
        try:
            store.note_engine(opened.describe())
        finally:
            if isinstance(engine, str):
                opened.close()


def is_finished(folder: Path) -> bool:
    """Says whether a run is finished: its report, written last, has a checksum, and no file is missing."""
    noted = read_checksums(folder)
    return "report.html" in noted and all((folder / name).exists() for name in noted)
