"""The ablation sweep: one table, a row for each (ablated set, dose, draw, held-out prompt).

Beside every ranked set stand its controls. Cumulativity, versatility and interference are all read
from this table, so they cannot disagree (method 9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from relation_neurons.ablation import ablated
from relation_neurons.batches import Batch
from relation_neurons.chunks import Chunks, chunk_key
from relation_neurons.controls import CONTROL_KINDS, draw_control, largest_matched
from relation_neurons.errors import DoseError, TooFewFactsError, UnknownOptionError, near_matches
from relation_neurons.models import HookedTransformer
from relation_neurons.progress import progress_bar
from relation_neurons.prompts import Prompts
from relation_neurons.ranking import SCORES, Ranking, resolve_doses
from relation_neurons.recall import (
    BATCH_SIZE,
    Outcomes,
    TeacherForcing,
    answer_prompts,
    plan_passes,
)

__all__ = ["Condition", "ablation_sweep", "block_sweep", "plan_sweep"]


@dataclass(frozen=True)
class Condition:
    """One set of neurons to ablate."""

    ablated: str
    language: str
    kind: str
    score: str
    dose: int
    draw: int
    neurons: pd.DataFrame

    def labels(self) -> dict[str, object]:
        """The columns of `effects` that name it."""
        return {
            "ablated": self.ablated,
            "ablated_language": self.language,
            "kind": self.kind,
            "score": self.score,
            "dose": self.dose,
            "draw": self.draw,
        }


def plan_sweep(
    ranking: Ranking,
    doses: Sequence[int | float | str],
    *,
    scores: Sequence[str] = ("specific",),
    control_draws: int | Mapping[str, int] = 2,
    control_kinds: Sequence[str] = CONTROL_KINDS,
    draws_at: Mapping[int, int] | None = None,
    seed: int = 0,
) -> list[Condition]:
    """Lists every ablation of a sweep: for each relation and dose the ranked set and its controls.

    Above the dose at which more than half of a layer is ranked there is no disjoint match in that
    layer, and so no control: the ranked set is ablated alone (see `controls.largest_matched`).

    Raises:
        DoseError: a dose above what the ranking holds or the model has.
    """
    counts = resolve_doses(doses, len(ranking.neurons))
    conditions: list[Condition] = []
    for score in scores:
        if score not in SCORES:
            raise UnknownOptionError(f"No score {score!r}. {near_matches(score, SCORES)}")
        ranked_here = ranking.frame[ranking.frame["score"] == score]
        for relation, language in (
            ranked_here[["relation", "language"]].drop_duplicates().itertuples(index=False)
        ):
            ranked = ranking.top(relation, counts[-1], score=score, language=language)
            matched = min(counts[-1], largest_matched(ranked, ranking.width))
            sets = [("ranked", 0, ranked)]
            for kind in control_kinds:
                most = max(_draws(kind, dose, control_draws, draws_at) for dose in counts)
                for draw in range(most if matched else 0):
                    control = draw_control(
                        ranked.head(matched),
                        ranking.neurons,
                        kind=kind,
                        draw=draw,
                        seed=seed,
                        label=f"{score}/{relation}/{language}",
                    )
                    sets.append((kind, draw, control))
            conditions += [
                Condition(relation, language, kind, score, dose, draw, neurons.head(dose))
                for dose in counts
                for kind, draw, neurons in sets
                if kind == "ranked"
                or (dose <= matched and draw < _draws(kind, dose, control_draws, draws_at))
            ]
    return conditions


def _draws(
    kind: str,
    dose: int,
    control_draws: int | Mapping[str, int],
    draws_at: Mapping[int, int] | None,
) -> int:
    """Draws of one kind of control at one dose."""
    if kind == "control_contribution" and draws_at and dose in draws_at:
        return draws_at[dose]
    return control_draws if isinstance(control_draws, int) else control_draws.get(kind, 0)


def ablation_sweep(
    model: HookedTransformer,
    prompts: Prompts,
    ranking: Ranking,
    doses: Sequence[int | float | str] = ("0.05%", "0.2%", "0.8%"),
    *,
    scores: Sequence[str] = ("specific",),
    control_draws: int | Mapping[str, int] = 2,
    control_kinds: Sequence[str] = CONTROL_KINDS,
    draws_at: Mapping[int, int] | None = None,
    mode: str = "zero",
    value: float | None = None,
    positions: str = "no_first",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    chunks: Chunks | None = None,
) -> pd.DataFrame:
    """Ablates every relation's ranked sets and controls and asks every held-out prompt again.

    Args:
        model: what `load_model` gives.
        prompts: `prompts.held_out`, in every language; those of left-out relations are not asked.
        ranking: what `rank_neurons` gives; its site is the one ablated.
        doses: neurons ablated, as counts or as shares of all (`"0.2%"`).
        scores: the rankings that are ablated.
        control_draws: draws of each kind of control, or a number for each kind.
        control_kinds: matched on contribution, on layer.
        draws_at: doses (counts) with another number of draws of the contribution-matched control.
        mode: `zero`, `mean` (each neuron's mean over the detection prompts) or `scale`.
        value: the factor of `scale`.
        positions: see `ablated`.
        batch_size: prompts a pass; it changes log-probabilities by no more than rounding.
        seed: of the control draws.
        chunks: where each ablated set's rows are kept as soon as they are there, and read again.

    Returns:
        The table `effects`: ablated, ablated_language, kind, score, dose, draw, prompt_id, relation,
        language, fact, template_held_out, correct_intact, correct, margin_intact, margin,
        logprob_intact, logprob, predicted.
    """
    _check_scale(mode, value)
    named = pd.MultiIndex.from_frame(prompts.frame[["relation", "language"]])
    asked = _judged(prompts, named.isin(ranking.pairs))
    conditions = plan_sweep(
        ranking,
        doses,
        scores=scores,
        control_draws=control_draws,
        control_kinds=control_kinds,
        draws_at=draws_at,
        seed=seed,
    )
    _check_planned(conditions, scores)
    tables = _ablate(
        model,
        asked,
        ranking,
        conditions,
        mode=mode,
        value=value,
        positions=positions,
        batch_size=batch_size,
        chunks=chunks,
    )
    return _tabled(tables)


def block_sweep(
    model: HookedTransformer,
    prompts: Prompts,
    ranking: Ranking,
    size: int | float | str,
    *,
    blocks: int = 4,
    score: str = "specific",
    control_draws: int = 0,
    control_kinds: Sequence[str] = CONTROL_KINDS[:1],
    mode: str = "zero",
    value: float | None = None,
    positions: str = "no_first",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    chunks: Chunks | None = None,
) -> pd.DataFrame:
    """Ablates disjoint blocks of each ranking, alone and all at once, on the relation's own facts.

    Block b holds the ranks (b - 1) size + 1 to b size. Read through `joint_effect`.

    Args:
        model: what `load_model` gives.
        prompts: `prompts.held_out`.
        ranking: what `rank_neurons` gives.
        size: neurons a block, as a count or as a share of all.
        blocks: how many, two or more; all at once are the ranked set at the dose size x blocks.
        score: the ranking that is ablated.
        control_draws: draws of random neurons, in blocks too: the sweep's own at that dose.
        control_kinds: how they are matched.
        mode: as in `ablation_sweep`, and so are value, positions and batch_size.
        seed: of the control draws.
        chunks: as in `ablation_sweep`.

    Returns:
        The columns of `ablation_sweep` and block: 1, 2, … with the dose `size`, and 0, all at once.

    Raises:
        DoseError: fewer than two blocks, more neurons than the ranking holds, or nothing to judge on.
    """
    _check_scale(mode, value)
    if blocks < 2:
        raise DoseError(f"blocks is {blocks}; expected two or more, to be compared with their sum.")
    each = resolve_doses([size], len(ranking.neurons))[0]
    conditions = plan_sweep(
        ranking,
        [each * blocks],
        scores=(score,),
        control_draws=control_draws,
        control_kinds=control_kinds,
        seed=seed,
    )
    _check_planned(conditions, (score,))
    sets: dict[tuple[str, str], list[Condition]] = {}
    for condition in conditions:
        sets.setdefault((condition.ablated, condition.language), []).append(condition)
    tables = []
    for (relation, language), joint in sets.items():
        frame = prompts.frame
        home = (frame["relation"] == relation) & (frame["language"] == language)
        planned = [
            (block, part) for whole in joint for block, part in _in_blocks(whole, each, blocks)
        ]
        answered = _ablate(
            model,
            _judged(prompts, home),
            ranking,
            [part for _, part in planned],
            mode=mode,
            value=value,
            positions=positions,
            batch_size=batch_size,
            chunks=chunks,
        )
        tables += [
            table.assign(block=block) for (block, _), table in zip(planned, answered, strict=True)
        ]
    return _tabled(tables)


def _in_blocks(whole: Condition, size: int, blocks: int) -> list[tuple[int, Condition]]:
    """All blocks at once, as block 0, and each on its own."""
    parts = [
        replace(whole, dose=size, neurons=whole.neurons.iloc[i * size : (i + 1) * size])
        for i in range(blocks)
    ]
    return list(enumerate([whole, *parts]))


def _check_scale(mode: str, value: float | None) -> None:
    if mode == "scale" and value is None:
        raise UnknownOptionError("mode='scale' needs a value, the factor.")


def _check_planned(conditions: Sequence[Condition], scores: Sequence[str]) -> None:
    if not conditions:
        raise TooFewFactsError(
            f"No relation has a ranking of the score {', '.join(scores)}. `specific` tells a relation "
            "from others, so it takes two; with one relation use the score `background`."
        )


def _judged(prompts: Prompts, which: pd.Series | np.ndarray) -> Prompts:
    """The facts' prompts among `which`, and an error where there are none."""
    asked = prompts.take(which & (prompts.frame["kind"] == "fact"))
    if len(asked) == 0:
        raise DoseError(
            "There is no held-out prompt of a ranked relation to judge the ablation on."
        )
    return asked


def _ablate(
    model: HookedTransformer,
    asked: Prompts,
    ranking: Ranking,
    conditions: Sequence[Condition],
    *,
    mode: str,
    value: float | None,
    positions: str,
    batch_size: int,
    chunks: Chunks | None,
) -> list[pd.DataFrame]:
    """Asks every prompt under each condition, and once of the intact model; a table per condition."""
    passes = plan_passes(asked)
    batches = passes.batches(batch_size, next(model.parameters()).device)
    chunks = chunks or Chunks()
    intact = answer_prompts(model, passes, batches=batches)
    tables = []
    with progress_bar(len(conditions) * len(passes.sequences), "ablation sweep", "row") as bar:
        for place, condition in enumerate(conditions):
            ask = partial(
                _ask_ablated,
                model,
                asked,
                ranking,
                condition,
                passes=passes,
                batches=batches,
                intact=intact,
                mode=mode,
                value=value,
                positions=positions,
            )
            key = _key(condition, asked, mode, value, positions)
            tables.append(chunks.make(place, key, ask))
            bar.update(len(passes.sequences))
    return tables


def _key(
    condition: Condition, asked: Prompts, mode: str, value: float | None, positions: str
) -> str:
    """Names a condition's chunk by all that decides it, but for what the run's manifest says."""
    neurons = condition.neurons[["layer", "neuron"]].to_numpy().tolist()
    asked_ids = asked.frame["prompt_id"].tolist()
    return chunk_key(condition.labels(), neurons, asked_ids, mode, value, positions)


def _ask_ablated(
    model: HookedTransformer,
    asked: Prompts,
    ranking: Ranking,
    condition: Condition,
    *,
    passes: TeacherForcing,
    batches: list[Batch],
    intact: Outcomes,
    mode: str,
    value: float | None,
    positions: str,
) -> pd.DataFrame:
    """Asks every prompt under one condition."""
    places = condition.neurons["layer"] * ranking.width + condition.neurons["neuron"]
    mean = torch.tensor(ranking.neurons["mean"].to_numpy()[places.to_numpy()])
    with ablated(
        model,
        condition.neurons,
        site=ranking.site,
        mode=mode,
        positions=positions,
        value=mean if mode == "mean" else value,
    ) as ablation:
        after = answer_prompts(model, passes, batches=batches, before_batch=ablation.start)
    return _rows(condition, asked.frame, intact, after)


def _tabled(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    effects = pd.concat(tables, ignore_index=True)
    for column in ("ablated", "ablated_language", "kind", "score", "relation", "language", "fact"):
        effects[column] = effects[column].astype("category")
    return effects


def _rows(
    condition: Condition, asked: pd.DataFrame, intact: Outcomes, after: Outcomes
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            **condition.labels(),
            "prompt_id": asked["prompt_id"].to_numpy(),
            "relation": asked["relation"].to_numpy(),
            "language": asked["language"].to_numpy(),
            "fact": asked["fact"].to_numpy(),
            "template_held_out": asked["template_held_out"].to_numpy(),
            "correct_intact": intact.correct,
            "correct": after.correct,
            "margin_intact": intact.margin.astype(np.float32),
            "margin": after.margin.astype(np.float32),
            "logprob_intact": intact.logprob.astype(np.float32),
            "logprob": after.logprob.astype(np.float32),
            "predicted": list(after.predicted),
        }
    )
