"""The ablation sweep: one table with a row for each (ablated set, dose, draw, held-out prompt).

Every ranked set has its controls in the same table. Cumulativity, versatility and interference are all
read from it, so they cannot disagree (method 9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from relation_neurons.ablation.controls import CONTROL_KINDS
from relation_neurons.ablation.jobs import Engine, run_job
from relation_neurons.ablation.prompt_job import (
    PromptJob,
    check_planned,
    check_scale,
    judged,
    tabled,
)
from relation_neurons.ablation.sets import AblatedSets, Condition, control_spread, plan_sweep
from relation_neurons.backends.base import HookedModel
from relation_neurons.errors import DoseError
from relation_neurons.inference.recall import BATCH_SIZE
from relation_neurons.neurons import resolve_doses
from relation_neurons.ranking.table import Ranking
from relation_neurons.relations.prompts import Prompts
from relation_neurons.storage.chunks import Chunks
from relation_neurons.version import renamed

__all__ = ["ablate_blocks", "ablate_sets", "ablation_sweep", "block_sweep"]


@renamed(scores="contrasts")
def ablation_sweep(
    model: HookedModel,
    prompts: Prompts,
    ranking: Ranking,
    doses: Sequence[int | float | str] = ("0.05%", "0.2%", "0.8%"),
    *,
    contrasts: Sequence[str] = ("specific",),
    control_draws: int | Mapping[str, int] = 2,
    control_kinds: Sequence[str] = CONTROL_KINDS,
    draws_at: Mapping[int, int] | None = None,
    mode: str = "zero",
    value: float | None = None,
    positions: str = "no_first",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    chunks: Chunks | None = None,
    engine: Engine | None = None,
) -> pd.DataFrame:
    """Ablates every relation's ranked sets and controls, and asks every held-out prompt each time.

    Args:
        model: what `load_model` returns.
        prompts: `prompts.held_out`, in every language; those of left-out relations are not asked.
        ranking: what `rank_neurons` returns; its site is the one ablated.
        doses: neurons ablated, as counts or as shares of all (`"0.2%"`).
        contrasts: the rankings that are ablated.
        control_draws: draws of each kind of control, or a number for each kind.
        control_kinds: matched on contribution, on layer.
        draws_at: doses (counts) with another number of draws of the contribution-matched control.
        mode: `zero`, `mean` (each neuron's mean over the detection prompts) or `scale`.
        value: the factor of `scale`.
        positions: see `ablated`.
        batch_size: prompts a pass, or 16 times as many tokens where prompts share a prefix (see
            `prefix_trees`); it changes log-probabilities by no more than rounding.
        seed: of the control draws.
        chunks: where each ablated set's rows are kept as soon as they are computed, and read on resuming.
        engine: where it is computed; in this process by default, see `RayEngine`.

    Returns:
        The table `effects`: ablated, ablated_language, kind, score, dose, draw, prompt_id, relation,
        language, fact, template_held_out, correct_intact, correct, margin_intact, margin,
        logprob_intact, logprob, predicted, and of each set layer_share and draw_overlap (see
        `control_spread`).
    """
    check_scale(mode, value)
    conditions = plan_sweep(
        ranking,
        doses,
        contrasts=contrasts,
        control_draws=control_draws,
        control_kinds=control_kinds,
        draws_at=draws_at,
        seed=seed,
    )
    check_planned(conditions, contrasts)
    return ablate_sets(
        model,
        prompts,
        ranking,
        conditions,
        mode=mode,
        value=value,
        positions=positions,
        batch_size=batch_size,
        chunks=chunks,
        engine=engine,
    )


def ablate_sets(
    model: HookedModel,
    prompts: Prompts,
    ranking: Ranking,
    conditions: Sequence[Condition],
    *,
    mode: str = "zero",
    value: float | None = None,
    positions: str = "no_first",
    batch_size: int = BATCH_SIZE,
    chunks: Chunks | None = None,
    engine: Engine | None = None,
    what: str = "ablation sweep",
) -> pd.DataFrame:
    """Ablates sets that were planned before, as `ablation_sweep` does.

    Args:
        model: what `load_model` returns.
        prompts: `prompts.held_out`.
        ranking: the one that the sets are of.
        conditions: what `plan_sweep` returns, one set or more.
        mode: as in `ablation_sweep`, and so are value, positions, batch_size, chunks and engine.
        what: names the sets in the progress bar.

    Returns:
        The columns of `ablation_sweep`.

    Raises:
        DoseError: there is no held-out prompt of a ranked relation.
    """
    named = pd.MultiIndex.from_frame(prompts.frame[["relation", "language"]])
    asked = judged(prompts, named.isin(ranking.pairs))
    sets = AblatedSets.of(conditions, ranking, mode=mode, value=value, positions=positions)
    job = PromptJob(sets, asked, batch_size)
    answered = run_job(model, job, what, engine=engine, chunks=chunks)
    spread = control_spread(conditions, ranking.width).itertuples()
    noted = {tuple(row)[1:6]: (row.layer_share, row.draw_overlap) for row in spread}
    tables = []
    for one, table in zip(conditions, answered, strict=True):
        share, overlap = noted[one.ablated, one.language, one.kind, one.contrast, one.dose]
        tables.append(table.assign(layer_share=np.float32(share), draw_overlap=np.float32(overlap)))
    return tabled(tables)


@renamed(score="contrast")
def block_sweep(
    model: HookedModel,
    prompts: Prompts,
    ranking: Ranking,
    size: int | float | str,
    *,
    blocks: int = 4,
    contrast: str = "specific",
    control_draws: int = 0,
    control_kinds: Sequence[str] = CONTROL_KINDS[:1],
    mode: str = "zero",
    value: float | None = None,
    positions: str = "no_first",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    chunks: Chunks | None = None,
    engine: Engine | None = None,
) -> pd.DataFrame:
    """Ablates disjoint blocks of each ranking, alone and all at once, on the relation's own facts.

    Block b holds the ranks (b - 1) size + 1 to b size. `joint_effect` summarises the table.

    Args:
        model: what `load_model` returns.
        prompts: `prompts.held_out`.
        ranking: what `rank_neurons` returns.
        size: neurons a block, as a count or as a share of all.
        blocks: how many, two or more; all at once, they are the ranked set at the dose size x blocks.
        contrast: the ranking that is ablated.
        control_draws: draws of random neurons, in blocks too: the sweep's own at that dose.
        control_kinds: how they are matched.
        mode: as in `ablation_sweep`, and so are value, positions and batch_size.
        seed: of the control draws.
        chunks: where each ablated set's rows are kept as soon as they are computed, and read on resuming.
        engine: where it is computed; in this process by default, see `RayEngine`.

    Returns:
        The columns of `ablation_sweep` and block: 1, 2, … with the dose `size`, and 0, all at once.

    Raises:
        DoseError: fewer than two blocks, more neurons than the ranking holds, or nothing to judge on.
    """
    check_scale(mode, value)
    if blocks < 2:
        raise DoseError(f"blocks is {blocks}; expected two or more, to be compared with their sum.")
    each = resolve_doses([size], len(ranking.neurons))[0]
    conditions = plan_sweep(
        ranking,
        [each * blocks],
        contrasts=(contrast,),
        control_draws=control_draws,
        control_kinds=control_kinds,
        seed=seed,
    )
    check_planned(conditions, (contrast,))
    return ablate_blocks(
        model,
        prompts,
        ranking,
        conditions,
        blocks=blocks,
        mode=mode,
        value=value,
        positions=positions,
        batch_size=batch_size,
        chunks=chunks,
        engine=engine,
    )


def ablate_blocks(
    model: HookedModel,
    prompts: Prompts,
    ranking: Ranking,
    conditions: Sequence[Condition],
    *,
    blocks: int,
    mode: str = "zero",
    value: float | None = None,
    positions: str = "no_first",
    batch_size: int = BATCH_SIZE,
    chunks: Chunks | None = None,
    engine: Engine | None = None,
) -> pd.DataFrame:
    """Ablates the blocks of sets that were planned before, as `block_sweep` does.

    Args:
        model: what `load_model` returns.
        prompts: `prompts.held_out`.
        ranking: the one that the sets are of.
        conditions: all blocks at once, so their dose is the size of a block x blocks.
        blocks: how many each of them is divided into.
        mode: as in `ablation_sweep`, and so are value, positions, batch_size, chunks and engine.

    Returns:
        The columns of `block_sweep`.
    """
    wholes: dict[tuple[str, str], list[Condition]] = {}
    for condition in conditions:
        wholes.setdefault((condition.ablated, condition.language), []).append(condition)
    tables = []
    for (relation, language), joint in wholes.items():
        frame = prompts.frame
        home = (frame["relation"] == relation) & (frame["language"] == language)
        planned = [
            (block, part)
            for whole in joint
            for block, part in _in_blocks(whole, whole.dose // blocks, blocks)
        ]
        sets = AblatedSets.of(
            [part for _, part in planned], ranking, mode=mode, value=value, positions=positions
        )
        job = PromptJob(sets, judged(prompts, home), batch_size)
        answered = run_job(model, job, f"blocks of {relation}", engine=engine, chunks=chunks)
        tables += [
            table.assign(block=block) for (block, _), table in zip(planned, answered, strict=True)
        ]
    return tabled(tables)


def _in_blocks(whole: Condition, size: int, blocks: int) -> list[tuple[int, Condition]]:
    """Returns all blocks at once, as block 0, and each on its own."""
    parts = [
        replace(whole, dose=size, neurons=whole.neurons.iloc[i * size : (i + 1) * size])
        for i in range(blocks)
    ]
    return list(enumerate([whole, *parts]))
