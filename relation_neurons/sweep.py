"""The ablation sweep: one table, a row for each (ablated set, dose, draw, held-out prompt).

Beside every ranked set stand its controls. Cumulativity, versatility and interference are all read
from this table, so they cannot disagree (method 9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from relation_neurons.ablation import ablated
from relation_neurons.controls import CONTROL_KINDS, draw_control
from relation_neurons.errors import DoseError, TooFewFactsError, UnknownOptionError, near_matches
from relation_neurons.models import HookedTransformer
from relation_neurons.progress import progress_bar
from relation_neurons.prompts import Prompts
from relation_neurons.ranking import SCORES, Ranking, resolve_doses
from relation_neurons.recall import BATCH_SIZE, Outcomes, answer_prompts, plan_passes

__all__ = ["Condition", "ablation_sweep", "plan_sweep"]


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
    control_draws: int = 2,
    control_kinds: Sequence[str] = CONTROL_KINDS,
    seed: int = 0,
) -> list[Condition]:
    """Lists every ablation of a sweep: for each relation and dose the ranked set and its controls.

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
            sets = [("ranked", 0, ranked)]
            for kind in control_kinds:
                for draw in range(control_draws):
                    control = draw_control(
                        ranked,
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
            ]
    return conditions


def ablation_sweep(
    model: HookedTransformer,
    prompts: Prompts,
    ranking: Ranking,
    doses: Sequence[int | float | str] = ("0.05%", "0.2%", "0.8%"),
    *,
    scores: Sequence[str] = ("specific",),
    control_draws: int = 2,
    control_kinds: Sequence[str] = CONTROL_KINDS,
    mode: str = "zero",
    value: float | None = None,
    positions: str = "no_first",
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
) -> pd.DataFrame:
    """Ablates every relation's ranked sets and controls and asks every held-out prompt again.

    Args:
        model: what `load_model` gives.
        prompts: `prompts.held_out`, in every language; those of left-out relations are not asked.
        ranking: what `rank_neurons` gives; its site is the one ablated.
        doses: neurons ablated, as counts or as shares of all (`"0.2%"`).
        scores: the rankings that are ablated.
        control_draws: draws of each kind of control.
        control_kinds: matched on contribution, on layer.
        mode: `zero`, `mean` (each neuron's mean over the detection prompts) or `scale`.
        value: the factor of `scale`.
        positions: see `ablated`.
        batch_size: prompts a pass; it changes log-probabilities by no more than rounding.
        seed: of the control draws.

    Returns:
        The table `effects`: ablated, ablated_language, kind, score, dose, draw, prompt_id, relation,
        language, template_held_out, correct_intact, correct, margin_intact, margin,
        logprob_intact, logprob, predicted.
    """
    if mode == "scale" and value is None:
        raise UnknownOptionError("mode='scale' needs a value, the factor.")
    named = pd.MultiIndex.from_frame(prompts.frame[["relation", "language"]])
    asked = prompts.take(named.isin(ranking.pairs) & (prompts.frame["kind"] == "fact"))
    if len(asked) == 0:
        raise DoseError(
            "There is no held-out prompt of a ranked relation to judge the ablation on."
        )
    conditions = plan_sweep(
        ranking,
        doses,
        scores=scores,
        control_draws=control_draws,
        control_kinds=control_kinds,
        seed=seed,
    )
    if not conditions:
        raise TooFewFactsError(
            f"No relation has a ranking of the score {', '.join(scores)}. `specific` tells a relation "
            "from others, so it takes two; with one relation use the score `background`."
        )
    passes = plan_passes(asked)
    batches = passes.batches(batch_size, next(model.parameters()).device)
    intact = answer_prompts(model, passes, batches=batches)
    typical = torch.tensor(ranking.neurons["mean"].to_numpy(copy=True))
    tables = []
    with progress_bar(len(conditions) * len(passes.sequences), "ablation sweep", "row") as bar:
        for condition in conditions:
            layers, indices = condition.neurons["layer"], condition.neurons["neuron"]
            mean = typical[torch.tensor((layers * ranking.width + indices).to_list())]
            with ablated(
                model,
                condition.neurons,
                site=ranking.site,
                mode=mode,
                positions=positions,
                value=mean if mode == "mean" else value,
            ) as ablation:
                after = answer_prompts(
                    model, passes, batches=batches, bar=bar, before_batch=ablation.start
                )
            tables.append(_rows(condition, asked.frame, intact, after))
    effects = pd.concat(tables, ignore_index=True)
    for column in ("ablated", "ablated_language", "kind", "score", "relation", "language"):
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
