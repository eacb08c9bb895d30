"""The ablation stage of a run: collateral damage, the sweep, and disjoint blocks of neurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from relation_neurons.ablation.collateral import collateral_damage
from relation_neurons.ablation.jobs import Engine
from relation_neurons.ablation.sets import plan_sweep
from relation_neurons.ablation.sweep import ablation_sweep, block_sweep
from relation_neurons.backends.base import HookedModel
from relation_neurons.neurons import resolve_doses
from relation_neurons.ranking.table import Ranking
from relation_neurons.relations.prompts import Prompts
from relation_neurons.results.options import Options
from relation_neurons.results.plan import (
    block_count,
    checked_contrasts,
    judged_dose,
    sweep_controls,
)
from relation_neurons.results.table_store import TableStore

__all__ = ["Ablations", "ablate_stage", "read_ablate_stage"]

_NAMES = ("ablated", "ablated_language", "kind", "score", "relation", "language", "fact")


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

    Each set is worked off by the engine; in this process by default.
    """
    counts = resolve_doses(options.doses, len(ranking.neurons))
    shared: dict[str, Any] = {
        "mode": options.mode,
        "positions": options.positions,
        "seed": options.seed,
        "engine": engine,
    }
    collateral = store.get_or_make(
        "collateral",
        lambda: collateral_damage(
            model,
            ranking,
            counts,
            contrast=options.contrast,
            chunks=store.chunks("collateral"),
            **shared,
        ),
    )
    dose = judged_dose(options, ranking, collateral)
    shared["batch_size"] = options.batch_size
    effects = store.get_or_make(
        "effects", lambda: _sweep(model, prompts, ranking, options, dose, store, shared)
    )
    blocks = pd.DataFrame()
    count = block_count(options, ranking, dose)
    if count > 1:
        blocks = store.get_or_make(
            "blocks",
            lambda: block_sweep(
                model,
                prompts.held_out,
                ranking,
                dose,
                blocks=count,
                contrast=options.contrast,
                control_draws=min(options.draws, 1),
                chunks=store.chunks("blocks"),
                **shared,
            ),
        )
    return Ablations(effects, collateral, blocks, dose)


def read_ablate_stage(options: Options, ranking: Ranking, store: TableStore) -> Ablations:
    """Reads what `ablate_stage` left in a folder; what an older run did not make is empty."""
    collateral = store.read_or_empty("collateral")
    dose = judged_dose(options, ranking, collateral)
    return Ablations(store.read("effects"), collateral, store.read_or_empty("blocks"), dose)


def _sweep(
    model: HookedModel,
    prompts: Prompts,
    ranking: Ranking,
    options: Options,
    dose: int,
    store: TableStore,
    shared: dict[str, Any],
) -> pd.DataFrame:
    """The contrast's sets at every dose with their controls, and the checks at the judged dose."""
    counts = resolve_doses(options.doses, len(ranking.neurons))
    controls = sweep_controls(options, dose)
    planned = plan_sweep(
        ranking, counts, contrasts=(options.contrast,), seed=options.seed, **controls
    )
    asked = pd.MultiIndex.from_frame(prompts.held_out.frame[["relation", "language"]])
    held_out = int(asked.isin(ranking.pairs).sum())
    store.log(f"sweep: {len(planned):,} ablations and the checks, {held_out:,} prompts each")
    _say_unmatched(ranking, planned, counts, options, store)
    parts = [
        ablation_sweep(
            model,
            prompts.held_out,
            ranking,
            counts,
            contrasts=(options.contrast,),
            chunks=store.chunks("effects"),
            **controls,
            **shared,
        )
    ]
    checks = checked_contrasts(options, ranking)
    if checks:
        parts.append(
            ablation_sweep(
                model,
                prompts.held_out,
                ranking,
                (dose,),
                contrasts=checks,
                control_draws=options.check_draws,
                control_kinds=("control_contribution",),
                chunks=store.chunks("effects"),
                **shared,
            )
        )
    plain = [part.astype(dict.fromkeys(part.select_dtypes("category"), str)) for part in parts]
    return pd.concat(plain, ignore_index=True).astype(dict.fromkeys(_NAMES, "category"))


def _say_unmatched(
    ranking: Ranking, planned: Any, counts: tuple[int, ...], options: Options, store: TableStore
) -> None:
    """Says which sets have no control because more than half of a layer is ranked."""
    if not options.draws:
        return
    matched = {(c.ablated, c.language, c.dose) for c in planned if c.kind != "ranked"}
    for one in planned:
        if one.kind == "ranked" and (one.ablated, one.language, one.dose) not in matched:
            store.log(
                f"note: {one.ablated} at a dose of {one.dose:,} has no control: more than half of a "
                "layer is ranked, which leaves no disjoint match in it"
            )
