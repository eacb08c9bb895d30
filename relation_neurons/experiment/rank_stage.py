"""The ranking stage of a run: prompts, recall, activations, ranking, and how far to trust it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from relation_neurons.activations.attribution import collect_attribution
from relation_neurons.activations.collect import collect_activations
from relation_neurons.activations.table import ActivationTable
from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.neuron_sites import neuron_count
from relation_neurons.errors import LeftOutWarning
from relation_neurons.inference.recall import measure_recall
from relation_neurons.ranking.known import left_out_relations
from relation_neurons.ranking.null import null_maximum
from relation_neurons.ranking.overlap_null import overlap_null
from relation_neurons.ranking.rank import rank_neurons
from relation_neurons.ranking.stability import ranking_stability
from relation_neurons.ranking.table import Ranking
from relation_neurons.relations.prompts import Prompts, make_prompts
from relation_neurons.relations.relation import Relation
from relation_neurons.results.manifest import read_options
from relation_neurons.results.options import Options
from relation_neurons.results.plan import Plan
from relation_neurons.results.results import read_prompts, write_prompts
from relation_neurons.results.table_store import TableStore

__all__ = ["planned_prompts", "rank_stage", "read_rank_stage"]

Check = Callable[[ActivationTable], pd.DataFrame]


def planned_prompts(model: HookedModel, relations: Sequence[Relation], options: Options) -> Prompts:
    """Makes the prompts of a run."""
    return make_prompts(
        relations,
        model.tokenizer,
        held_out=options.held_out,
        seed=options.seed,
        hold_out_templates=options.hold_out_templates,
        nonsense=options.nonsense,
        shots=options.shots,
        single_template=options.single_template,
    )


def rank_stage(
    model: HookedModel, relations: Sequence[Relation], options: Options, store: TableStore
) -> tuple[Prompts, pd.DataFrame, Ranking]:
    """Makes the prompts, recall, activations and ranking, with its nulls and its stability.

    A table that is there already is read.
    """
    prompts = store.get_or_make(
        "prompts",
        lambda: planned_prompts(model, relations, options),
        write_prompts,
        read_prompts,
    )
    recall = store.get_or_make(
        "recall",
        lambda: measure_recall(
            model, prompts, batch_size=options.batch_size, chunks=store.chunks("recall")
        ),
    )
    plan = Plan(options, neuron_count(model, options.site))
    checks = _checks(recall, plan)
    if store.has("ranking", "neurons", *checks):
        return prompts, recall, _read_ranking(recall, options, store)
    started = time.monotonic()
    table = collect_activations(
        model,
        prompts.detection,
        pool=options.pool,
        site=options.site,
        active=options.by == "activation_entropy",
        batch_size=options.batch_size,
        memory=store.memory,
        folder=store.folder,
    )
    with warnings.catch_warnings():
        if store.is_logging:  # then they are logged below, a line each
            warnings.simplefilter("ignore", LeftOutWarning)
        ranking = _rank(model, prompts, recall, table, plan)
    for name, reason in ranking.left_out.items():
        store.log(f"left out: {name}, {reason}")
    store.write("neurons", ranking.neurons)
    store.write("ranking", ranking.frame)
    store.done("ranking", started)
    made = {name: store.get_or_make(name, partial(check, table)) for name, check in checks.items()}
    return prompts, recall, replace(ranking, overlap_null=made.get("overlap"))


def read_rank_stage(
    manifest: dict[str, Any], store: TableStore
) -> tuple[Options, Prompts, pd.DataFrame, Ranking]:
    """Reads what `rank_stage` left in a folder, with the options it was made with."""
    options = read_options(manifest)
    recall = store.read("recall")
    ranking = _read_ranking(recall, options, store)
    return options, store.read("prompts", read_prompts), recall, ranking


def _rank(
    model: HookedModel,
    prompts: Prompts,
    recall: pd.DataFrame,
    table: ActivationTable,
    plan: Plan,
) -> Ranking:
    """Ranks by the run's criterion, and keeps the neurons that the largest dose and the blocks need."""
    options, attribution = plan.options, None
    if options.by == "attribution":
        attribution = collect_attribution(
            model,
            prompts.detection,
            pool=options.pool,
            site=options.site,
            batch_size=options.batch_size,
        )
    return rank_neurons(
        table,
        recall,
        by=options.by,
        order=options.order,
        min_known=options.min_known,
        keep=plan.kept,
        attribution=attribution,
    )


def _checks(recall: pd.DataFrame, plan: Plan) -> dict[str, Check]:
    """Returns how to make each table of `plan.evidence`."""
    options = plan.options
    shared: dict[str, Any] = {"min_known": options.min_known, "seed": options.seed}

    def null(table: ActivationTable) -> pd.DataFrame:
        return null_maximum(table, recall, permutations=options.permutations, **shared)

    def stability(table: ActivationTable) -> pd.DataFrame:
        dose = plan.middle_dose
        return ranking_stability(table, recall, dose=dose, repeats=options.repeats, **shared)

    def overlap(table: ActivationTable) -> pd.DataFrame:
        return overlap_null(
            table,
            recall,
            keep=plan.dealt,
            deals=options.overlap_deals,
            order=options.order,
            **shared,
        )

    makers: dict[str, Check] = {"null": null, "stability": stability, "overlap": overlap}
    return {name: makers[name] for name in plan.evidence}


def _read_ranking(recall: pd.DataFrame, options: Options, store: TableStore) -> Ranking:
    left_out = left_out_relations(recall, options.min_known)
    frame, neurons = store.read("ranking"), store.read("neurons")
    overlap = store.read_or_empty("overlap")
    return Ranking(
        frame,
        neurons,
        options.site,
        left_out,
        by=options.by,
        shots=options.shots > 0,
        overlap_null=None if overlap.empty else overlap,
    )
