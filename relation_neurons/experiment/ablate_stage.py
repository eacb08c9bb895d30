"""The ablation stage of a run: collateral damage, the sweep, and disjoint blocks of neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from relation_neurons.ablation.collateral import collateral_of_sets
from relation_neurons.ablation.jobs import Engine
from relation_neurons.ablation.prompt_job import check_planned
from relation_neurons.ablation.sweep import ablate_blocks, ablate_sets
from relation_neurons.backends.base import HookedModel
from relation_neurons.ranking.table import Ranking
from relation_neurons.relations.prompts import Prompts
from relation_neurons.results.options import Options
from relation_neurons.results.plan import AblationPlan, Plan
from relation_neurons.results.table_store import TableStore

__all__ = ["Ablations", "ablate_stage", "read_ablate_stage"]


@dataclass(frozen=True)
class Ablations:
    """What the ablation stage leaves."""

    effects: pd.DataFrame
    """The sweep's table."""
    collateral: pd.DataFrame
    """What the same sets, and one control draw each, do to neutral text."""
    blocks: pd.DataFrame
    """Disjoint blocks of the ranking, alone and jointly, at home; empty where none were asked for."""
    dose: int
    """The dose that the report judges."""


def ablate_stage(
    model: HookedModel,
    prompts: Prompts,
    ranking: Ranking,
    options: Options,
    store: TableStore,
    engine: Engine | None = None,
) -> Ablations:
    """Collateral damage of every set, the sweep over all doses, and the checks at the judged one.

    The engine computes each set; by default that is this process.
    """
    plan = Plan(options, len(ranking.neurons))
    how: dict[str, Any] = {
        "mode": options.mode,
        "positions": options.positions,
        "engine": engine,
    }

    def make_collateral() -> pd.DataFrame:
        sets = plan.collateral_sets(ranking)
        check_planned(sets, (options.contrast,))
        return collateral_of_sets(model, ranking, sets, chunks=store.chunks("collateral"), **how)

    collateral = store.get_or_make("collateral", make_collateral)
    planned = plan.ablations(ranking, collateral)
    asking: tuple[HookedModel, Prompts, Ranking] = (model, prompts.held_out, ranking)
    how["batch_size"] = options.batch_size

    def make_effects() -> pd.DataFrame:
        check_planned(planned.sweep, (options.contrast,))
        _announce(planned, prompts, store)
        chunks = store.chunks("effects")
        return ablate_sets(*asking, planned.effects, chunks=chunks, **how)

    def make_blocks() -> pd.DataFrame:
        joint, count = planned.joint_blocks, planned.block_count
        chunks = store.chunks("blocks")
        return ablate_blocks(*asking, joint, blocks=count, chunks=chunks, **how)

    effects = store.get_or_make("effects", make_effects)
    blocks = pd.DataFrame()
    if planned.block_count:
        blocks = store.get_or_make("blocks", make_blocks)
    return Ablations(effects, collateral, blocks, planned.dose)


def read_ablate_stage(options: Options, ranking: Ranking, store: TableStore) -> Ablations:
    """Reads what `ablate_stage` left in a folder; a table that an older run did not make is empty."""
    collateral = store.read_or_empty("collateral")
    dose = Plan(options, len(ranking.neurons)).judged_dose(collateral)
    return Ablations(store.read("effects"), collateral, store.read_or_empty("blocks"), dose)


def _announce(planned: AblationPlan, prompts: Prompts, store: TableStore) -> None:
    """Logs the size of the sweep, and the sets that have no control."""
    ranking, sweep = planned.ranking, planned.sweep
    asked = pd.MultiIndex.from_frame(prompts.held_out.frame[["relation", "language"]])
    held_out = int(asked.isin(ranking.pairs).sum())
    store.log(f"sweep: {len(sweep):,} ablations and the checks, {held_out:,} prompts each")
    if not planned.plan.options.draws:
        return
    matched = {(c.ablated, c.language, c.dose) for c in sweep if c.kind != "ranked"}
    for one in sweep:
        if one.kind == "ranked" and (one.ablated, one.language, one.dose) not in matched:
            store.log(
                f"note: {one.ablated} at a dose of {one.dose:,} has no control: more than half of a "
                "layer is ranked, which leaves no disjoint match in it"
            )
