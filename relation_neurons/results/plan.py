"""Planned: what a run's options imply for its tables, so that stages and verification cannot disagree."""

from __future__ import annotations

from typing import Any

import pandas as pd

from relation_neurons.ablation.collateral import largest_dose
from relation_neurons.ablation.sets import Condition, plan_sweep
from relation_neurons.neurons import resolve_doses
from relation_neurons.ranking.table import Ranking
from relation_neurons.results.options import Options

__all__ = [
    "block_count",
    "checked_contrasts",
    "judged_dose",
    "kept_neurons",
    "middle_dose",
    "planned_sets",
    "sweep_controls",
]


def middle_dose(options: Options, neurons: int) -> int:
    """The dose that is judged where no budget chooses another."""
    counts = resolve_doses(options.doses, neurons)
    return counts[len(counts) // 2]


def judged_dose(options: Options, ranking: Ranking, collateral: pd.DataFrame) -> int:
    """The middle dose, or the largest whose collateral damage stays within `max_collateral`.

    Raises:
        DoseError: no dose stays within it.
    """
    if options.max_collateral is None:
        return middle_dose(options, len(ranking.neurons))
    return largest_dose(collateral, float(options.max_collateral))


def kept_neurons(options: Options, neurons: int) -> int:
    """How many neurons each ranking keeps: what the largest dose and the blocks need, 1,000 at least."""
    largest = resolve_doses(options.doses, neurons)[-1]
    return max(1000, largest, options.blocks * middle_dose(options, neurons))


def sweep_controls(options: Options, dose: int) -> dict[str, Any]:
    """The draws of each control in the sweep over all doses, more of them at the judged one."""
    return {
        "control_draws": {
            "control_contribution": options.draws,
            "control_layer": options.layer_draws,
        },
        "draws_at": {dose: max(options.draws, options.judged_draws) if options.draws else 0},
    }


def checked_contrasts(options: Options, ranking: Ranking) -> list[str]:
    """The rankings that are ablated beside the contrast's, at the judged dose, as far as there are any."""
    return [contrast for contrast in options.checks if (ranking.frame["score"] == contrast).any()]


def block_count(options: Options, ranking: Ranking, dose: int) -> int:
    """How many disjoint blocks of the judged dose the ranking holds; below two none is ablated."""
    return min(options.blocks, int(ranking.frame["rank"].max()) // dose)


def planned_sets(ranking: Ranking, options: Options, dose: int) -> list[Condition]:
    """Every ablated set of the table `effects`."""
    counts = resolve_doses(options.doses, len(ranking.neurons))
    controls = sweep_controls(options, dose)
    planned = plan_sweep(
        ranking, counts, contrasts=(options.contrast,), seed=options.seed, **controls
    )
    return planned + plan_sweep(
        ranking,
        (dose,),
        contrasts=checked_contrasts(options, ranking),
        control_draws=options.check_draws,
        control_kinds=("control_contribution",),
        seed=options.seed,
    )
