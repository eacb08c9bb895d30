"""The ablation stage of a run: collateral damage, the sweep, and disjoint blocks of neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from relation_neurons.ablation.collateral import collateral_of_sets
from relation_neurons.ablation.jobs import Engine
from relation_neurons.ablation.prompt_job import check_planned, tabled
from relation_neurons.ablation.sets import Condition
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
    home_draws: pd.DataFrame
    """Further control draws at the judged dose, on the own facts of relations whose answer was not clear."""
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

    def make_home_draws() -> pd.DataFrame:
        found, chunks = effects.iloc[:0], store.chunks("home_draws")
        while conditions := planned.next_home_draws(effects, found):
            rounds = [found]
            for (relation, language), draws in _by_relation(conditions).items():
                frame = prompts.held_out.frame
                home = (frame["relation"] == relation) & (frame["language"] == language)
                own = prompts.held_out.take(home)
                what = f"random sets for {relation}"
                rounds.append(
                    ablate_sets(model, own, ranking, draws, chunks=chunks, what=what, **how)
                )
            found = tabled(rounds)
        return found

    def make_blocks() -> pd.DataFrame:
        joint, count = planned.joint_blocks, planned.block_count
        chunks = store.chunks("blocks")
        return ablate_blocks(*asking, joint, blocks=count, chunks=chunks, **how)

    effects = store.get_or_make("effects", make_effects)
    home_draws = blocks = pd.DataFrame()
    if planned.draws_at_home:
        home_draws = store.get_or_make("home_draws", make_home_draws)
    if planned.block_count:
        blocks = store.get_or_make("blocks", make_blocks)
    return Ablations(effects, collateral, home_draws, blocks, planned.dose)


def read_ablate_stage(options: Options, ranking: Ranking, store: TableStore) -> Ablations:
    """Reads what `ablate_stage` left in a folder; a table that an older run did not make is empty."""
    collateral = store.read_or_empty("collateral")
    dose = Plan(options, len(ranking.neurons)).judged_dose(collateral)
    home_draws, blocks = (store.read_or_empty(name) for name in ("home_draws", "blocks"))
    return Ablations(store.read("effects"), collateral, home_draws, blocks, dose)


def _by_relation(conditions: list[Condition]) -> dict[tuple[str, str], list[Condition]]:
    """Groups sets by the relation and language that they belong to."""
    groups: dict[tuple[str, str], list[Condition]] = {}
    for one in conditions:
        groups.setdefault((one.ablated, one.language), []).append(one)
    return groups


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
