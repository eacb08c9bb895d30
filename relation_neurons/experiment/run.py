"""The whole experiment: relations in, tables and a report out.

relations -> prompts -> recall -> activations -> ranking -> ablation sweep -> effects -> report
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from relation_neurons.ablation.jobs import Engine
from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.neuron_sites import neuron_count
from relation_neurons.engines import make_engine
from relation_neurons.errors import TooFewFactsError
from relation_neurons.experiment.ablate_stage import ablate_stage
from relation_neurons.experiment.rank_stage import rank_stage
from relation_neurons.experiment.report_stage import report_stage
from relation_neurons.neurons import resolve_doses
from relation_neurons.relations.loading import load_relations
from relation_neurons.relations.relation import Relation
from relation_neurons.relations.selection import _common, draw_facts, drop_copied, limit_objects
from relation_neurons.relations.split import choose_templates, require_links
from relation_neurons.results.manifest import make_manifest
from relation_neurons.results.options import Options, make_options
from relation_neurons.results.results import Results, load_results
from relation_neurons.results.table_store import TableStore
from relation_neurons.storage.memmap import parse_size
from relation_neurons.storage.run_folder import (
    locked,
    move_aside,
    open_run_folder,
    read_checksums,
)

__all__ = ["across_languages", "choose_facts", "engine_for", "is_finished", "run"]


def run(
    model: HookedModel,
    relations: Any = "demo",
    *,
    out: str | Path | None = None,
    preset: str = "default",
    say: Callable[[str], None] | None = None,
    force_new: bool = False,
    engine: str | Engine = "local",
    address: str | None = None,
    workers: int | None = None,
    memory: str | int | None = None,
    **options: Any,
) -> Results:
    """Does all of it, from relations to the report.

    A folder with an unfinished run of the same options goes on after what is whole in it; a finished
    one is read.

    Args:
        model: what `load_model` gives.
        relations: anything that `load_relations` reads.
        out: the results folder; nothing is written without one.
        preset: `default` or `paper`.
        say: told what was done, a line a stage.
        force_new: moves a folder that is there aside (to `out.old-1`), and begins anew.
        engine: where ablated sets are worked off: `local`, this process; `ray`, the workers of a Ray
            cluster; or an engine, which stays open. It is no part of what a run is: a folder begun on
            one goes on on another.
        address: of a Ray cluster that runs; by default one is started here.
        workers: of the Ray engine, see `RayEngine`.
        memory: what the activation table may take in memory, such as `2GB`; see `collect_activations`.
        options: fields of `Options`.

    Raises:
        ResultsError: the folder holds another run, or another process writes it.
        EngineError: the engine cannot be had, or lost its workers; what is finished is kept.
    """
    chosen = make_options(preset, **options)
    folder = Path(out) if out is not None else None
    parse_size(memory)
    store = TableStore(folder, memory=memory, **({"log": say} if say else {}))
    loaded = choose_facts(load_relations(relations), chosen)
    chosen = across_languages(chosen, loaded, stated=options)
    resolve_doses(chosen.doses, neuron_count(model, chosen.site))
    for relation in loaded:
        detect, judge = choose_templates(
            relation, chosen.hold_out_templates, chosen.single_template
        )
        if judge == detect and not chosen.single_template:
            store.log(
                f"note: {relation.name} ({relation.language}) holds out no wording; it is judged on "
                "those it is found on"
            )
    manifest = make_manifest(model, loaded, chosen)
    with _opened(folder, manifest, force_new, store):
        if folder is not None and is_finished(folder):
            store.log(f"{folder} holds this very run, finished: nothing to do")
            return load_results(folder)
        with engine_for(model, engine, store, address=address, workers=workers) as opened:
            prompts, recall, ranking = rank_stage(model, loaded, chosen, store)
            ablations = ablate_stage(model, prompts, ranking, chosen, store, opened)
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
    """Opens the engine of a run for a model, notes in the folder that it was used, and closes it."""
    opened = (
        make_engine(engine, address=address, workers=workers, say=store.log)
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


@contextlib.contextmanager
def _opened(
    folder: Path | None, manifest: dict[str, Any], force_new: bool, store: TableStore
) -> Iterator[None]:
    """Holds the results folder of this run, where there is one."""
    if folder is None:
        yield
        return
    moved = move_aside(folder) if force_new else None
    if moved is not None:
        store.log(f"moved what was there to {moved}")
    with locked(folder):
        open_run_folder(folder, manifest)
        yield


def is_finished(folder: Path) -> bool:
    """Whether a run reached its end: the report, written last, is noted, and nothing noted is missing."""
    noted = read_checksums(folder)
    return "report.html" in noted and all((folder / name).exists() for name in noted)


def choose_facts(relations: Sequence[Relation], options: Options) -> tuple[Relation, ...]:
    """Leaves out the facts that the options leave out, the same in each language of a relation.

    Raises:
        RelationFormatError: a relation in several languages whose facts are not linked.
        TooFewFactsError: nothing is left, or one relation only where the contrast needs two.
    """
    require_links(relations)
    chosen = list(relations)
    if options.drop_copied:
        chosen = [drop_copied(relation) for relation in chosen]
    if options.max_object_share is not None:
        share = options.max_object_share
        chosen = [limit_objects(relation, share, seed=options.seed) for relation in _common(chosen)]
    if options.max_facts is not None:
        count = options.max_facts
        chosen = [draw_facts(one, count, seed=options.seed) for one in _common(chosen)]
    if (options.drop_copied, options.max_object_share, options.max_facts) != (False, None, None):
        chosen = _common(chosen)
    alone = [one for one in chosen if sum(one.language == o.language for o in chosen) < 2]
    if options.contrast == "specific" and len(alone) == len(chosen):
        raise TooFewFactsError(
            "The contrast `specific` tells a relation from others of its language, so it takes two. Add a "
            "relation, or use the contrast `background` (neutral prompts)."
        )
    return tuple(chosen)


def across_languages(
    options: Options, relations: Sequence[Relation], *, stated: Mapping[str, Any]
) -> Options:
    """With several languages, also ablates the `background` sets, with a control.

    Versatility is read from them, and so is transfer; unless the checks were stated.
    """
    several = len({relation.language for relation in relations}) > 1
    if not several or stated.get("checks") is not None or options.preset == "paper":
        return options
    checks = tuple(dict.fromkeys((*options.checks, "background")))
    checks = tuple(check for check in checks if check != options.contrast)
    draws = options.check_draws if stated.get("check_draws") is not None else 1
    return replace(options, checks=checks, check_draws=draws)
