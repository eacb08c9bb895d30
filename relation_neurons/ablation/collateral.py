"""Collateral damage: what an ablation costs language as such, on neutral text.

A set that hurts its relation only because it hurts everything is not specific to it. So the model
reads ordinary prose, and two numbers say how far the ablation changes what it predicts next:

    log-loss = mean over tokens of -log q(token),  KL = mean over tokens of sum_v p(v) log(p(v) / q(v))

with p the intact model's next-token distribution over the whole vocabulary and q the ablated one's,
in nats per token, in float32 whatever the model's dtype. Every token is predicted except the first of
each paragraph. The text that comes with the package is English; pass your own for other languages.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from relation_neurons.ablation.jobs import Engine, run_job
from relation_neurons.ablation.sets import AblatedSets, Condition, plan_sweep
from relation_neurons.ablation.text_job import TextJob
from relation_neurons.backends.base import HookedModel
from relation_neurons.errors import DoseError, TooFewFactsError, UnknownOptionError
from relation_neurons.ranking.table import Ranking
from relation_neurons.relations.shipped import neutral_text
from relation_neurons.storage.chunks import Chunks
from relation_neurons.version import renamed

__all__ = ["collateral_damage", "collateral_of_sets", "largest_dose"]


@renamed(score="contrast")
def collateral_damage(
    model: HookedModel,
    ranking: Ranking,
    doses: Sequence[int | float | str],
    *,
    contrast: str = "specific",
    control_draws: int = 1,
    text: str | Sequence[str] | None = None,
    mode: str = "zero",
    value: float | None = None,
    positions: str = "no_first",
    seed: int = 0,
    batch_size: int = 16,
    chunks: Chunks | None = None,
    engine: Engine | None = None,
) -> pd.DataFrame:
    """Reads neutral text under every relation's ranked set and its contribution-matched controls.

    Args:
        model: what `load_model` returns.
        ranking: what `rank_neurons` returns; its site is the one ablated.
        doses: neurons ablated, as counts or as shares of all (`"0.2%"`).
        contrast: the ranking that is ablated.
        control_draws: draws of the contribution-matched control; 0 for none.
        text: paragraphs, each read on its own; `neutral_text()` by default. One longer than the
            model's context is read in pieces of that length.
        mode: `zero`, `mean` or `scale`, as in `ablation_sweep`.
        value: the factor of `scale`.
        positions: see `ablated`. Text has no answer, so `last` takes every position as an answer position.
        seed: of the control draws, which are those of a sweep with the same seed.
        batch_size: paragraphs a pass; it changes the numbers by no more than rounding.
        chunks: where each ablated set's row is kept as soon as it is computed, and read on resuming.
        engine: where it is computed; in this process by default, see `RayEngine`.

    Returns:
        A row per ablated set: ablated, ablated_language, kind, score, dose, draw, tokens (how many
        are predicted), logloss_intact, logloss, logloss_change, kl (nats per token).

    Raises:
        DoseError: a dose above what the ranking holds.
        TooFewFactsError: no relation has a ranking of that contrast.
        AnswerError: no tokenizer, or a text without a token to predict.
        ActivationError: logits with NaN or Inf.
        OutOfMemoryError: one paragraph alone does not fit.
    """
    if mode == "scale" and value is None:
        raise UnknownOptionError("mode='scale' needs a value, the factor.")
    conditions = plan_sweep(
        ranking,
        doses,
        contrasts=(contrast,),
        control_draws=control_draws,
        control_kinds=("control_contribution",),
        seed=seed,
    )
    if not conditions:
        raise TooFewFactsError(f"No relation has a ranking of the contrast {contrast!r} to ablate.")
    return collateral_of_sets(
        model,
        ranking,
        conditions,
        text=text,
        mode=mode,
        value=value,
        positions=positions,
        batch_size=batch_size,
        chunks=chunks,
        engine=engine,
    )


def collateral_of_sets(
    model: HookedModel,
    ranking: Ranking,
    conditions: Sequence[Condition],
    *,
    text: str | Sequence[str] | None = None,
    mode: str = "zero",
    value: float | None = None,
    positions: str = "no_first",
    batch_size: int = 16,
    chunks: Chunks | None = None,
    engine: Engine | None = None,
) -> pd.DataFrame:
    """Reads neutral text under sets that were planned before, as `collateral_damage` does.

    Args:
        model: what `load_model` returns.
        ranking: the one that the sets are of.
        conditions: what `plan_sweep` returns, one set or more.
        text: as in `collateral_damage`, and so are mode, value, positions, batch_size, chunks and engine.

    Returns:
        The columns of `collateral_damage`.
    """
    sets = AblatedSets.of(conditions, ranking, mode=mode, value=value, positions=positions)
    read = neutral_text() if text is None else (text,) if isinstance(text, str) else tuple(text)
    job = TextJob(sets, read, batch_size)
    rows = run_job(model, job, "collateral damage", engine=engine, chunks=chunks)
    return pd.concat(rows, ignore_index=True)


def largest_dose(collateral: pd.DataFrame, budget: float) -> int:
    """Returns the largest dose whose ranked sets change the model's predictions by no more than a budget.

    The measure is the KL at a dose, averaged over the ranked sets of all relations; every smaller dose
    has to stay within the budget too.

    Args:
        collateral: what `collateral_damage` returns.
        budget: the largest KL allowed, in nats per token.

    Raises:
        DoseError: no dose stays within the budget, or the table has no ranked set.

    >>> table = pd.DataFrame({"kind": "ranked", "dose": [10, 30, 100], "kl": [0.01, 0.04, 0.3]})
    >>> largest_dose(table, 0.1)
    30
    """
    ranked = collateral[collateral["kind"] == "ranked"]
    if ranked.empty:
        raise DoseError("The table has no ranked set; expected what collateral_damage returns.")
    kl = ranked.groupby("dose")["kl"].mean().sort_index()
    within = (kl <= budget).cumprod().astype(bool)
    if not within.any():
        raise DoseError(
            f"No dose stays within {budget} nats of KL per token: the smallest KL is "
            f"{kl.min():.4g}, at a dose of {kl.idxmin()}. Give a smaller dose or a larger budget."
        )
    return int(kl.index[within][-1])
