"""Collateral damage: what an ablation costs language as such, on neutral text.

A set that hurts its relation only because it hurts everything is no relation's set. So the model
reads ordinary prose, and two numbers say how far the ablation changes what it expects next:

    log-loss = mean over tokens of -log q(token),  KL = mean over tokens of sum_v p(v) log(p(v) / q(v))

with p the intact model's next-token distribution over the whole vocabulary and q the ablated one's,
in nats per token, in float32 whatever the model's dtype. Every token is predicted but the first of
each paragraph. The text that comes with the package is English; give your own for other languages.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from relation_neurons.ablation import Ablation, ablated
from relation_neurons.batches import Batch, make_batches
from relation_neurons.errors import (
    ActivationError,
    AnswerError,
    DoseError,
    TooFewFactsError,
    UnknownOptionError,
)
from relation_neurons.models import HookedTransformer, final_residual, unembed
from relation_neurons.progress import progress_bar
from relation_neurons.ranking import Ranking
from relation_neurons.sweep import Condition, plan_sweep

__all__ = ["collateral_damage", "largest_dose", "neutral_text"]

_READ_AT_ONCE = 128
INTACT_BYTES = 1 << 29
"""What the intact model's log-probabilities may take (the package's own text takes 0.1 GB with a
vocabulary of 49,152); above it they are made anew for every ablated set."""


def neutral_text() -> tuple[str, ...]:
    """Gives the paragraphs of plain English that come with the package."""
    path = resources.files("relation_neurons") / "data" / "neutral_text.json"
    return tuple(json.loads(path.read_text(encoding="utf-8"))["paragraphs"])


def collateral_damage(
    model: HookedTransformer,
    ranking: Ranking,
    doses: Sequence[int | float | str],
    *,
    score: str = "specific",
    control_draws: int = 1,
    text: str | Sequence[str] | None = None,
    mode: str = "zero",
    value: float | None = None,
    positions: str = "no_first",
    seed: int = 0,
    batch_size: int = 8,
) -> pd.DataFrame:
    """Reads neutral text under every relation's ranked set and its contribution-matched controls.

    Args:
        model: what `load_model` gives.
        ranking: what `rank_neurons` gives; its site is the one ablated.
        doses: neurons ablated, as counts or as shares of all (`"0.2%"`).
        score: the ranking that is ablated.
        control_draws: draws of the contribution-matched control; 0 for none.
        text: paragraphs, each read on its own; `neutral_text()` by default. One longer than the
            model's context is read in pieces of that length.
        mode: `zero`, `mean` or `scale`, as in `ablation_sweep`.
        value: the factor of `scale`.
        positions: see `ablated`. Text has no answer, so `last` counts every position as one.
        seed: of the control draws, which are those of a sweep with the same seed.
        batch_size: paragraphs a pass; it changes the numbers by no more than rounding.

    Returns:
        A row per ablated set: ablated, ablated_language, kind, score, dose, draw, tokens (how many
        are predicted), logloss_intact, logloss, logloss_change, kl (nats per token).

    Raises:
        DoseError: a dose above what the ranking holds.
        TooFewFactsError: no relation has a ranking of that score.
        AnswerError: no tokenizer, or a text without a token to predict.
        ActivationError: logits with NaN or Inf.
    """
    if mode == "scale" and value is None:
        raise UnknownOptionError("mode='scale' needs a value, the factor.")
    conditions = plan_sweep(
        ranking,
        doses,
        scores=(score,),
        control_draws=control_draws,
        control_kinds=("control_contribution",),
        seed=seed,
    )
    if not conditions:
        raise TooFewFactsError(f"No relation has a ranking of the score {score!r} to ablate.")
    reading = _Reading.start(model, text, batch_size)
    typical = torch.tensor(ranking.neurons["mean"].to_numpy(copy=True))
    rows = []
    with progress_bar(len(conditions), "collateral damage", "set") as bar:
        for condition in conditions:
            with ablated(
                model,
                condition.neurons,
                site=ranking.site,
                mode=mode,
                positions=positions,
                value=typical[_flat(condition, ranking)] if mode == "mean" else value,
            ) as ablation:
                rows.append({**condition.labels(), **reading.compare(model, ablation)})
            bar.update(1)
    return pd.DataFrame(rows)


def largest_dose(collateral: pd.DataFrame, budget: float) -> int:
    """Gives the largest dose whose ranked sets change the model's expectations little enough.

    What counts is KL at a dose, averaged over the ranked sets of all relations; every smaller dose
    has to stay within the budget too.

    Args:
        collateral: what `collateral_damage` gives.
        budget: KL (nats per token) that may not be exceeded.

    Raises:
        DoseError: no dose stays within the budget, or the table has no ranked set.

    >>> table = pd.DataFrame({"kind": "ranked", "dose": [10, 30, 100], "kl": [0.01, 0.04, 0.3]})
    >>> largest_dose(table, 0.1)
    30
    """
    ranked = collateral[collateral["kind"] == "ranked"]
    if ranked.empty:
        raise DoseError("The table has no ranked set; expected what collateral_damage gives.")
    kl = ranked.groupby("dose")["kl"].mean().sort_index()
    within = (kl <= budget).cumprod().astype(bool)
    if not within.any():
        raise DoseError(
            f"No dose stays within {budget} nats of KL per token: the smallest KL is "
            f"{kl.min():.4g}, at a dose of {kl.idxmin()}. Give a smaller dose or a larger budget."
        )
    return int(kl.index[within][-1])


@dataclass(frozen=True)
class _Reading:
    """The text in batches, with what the intact model makes of it."""

    batches: tuple[Batch, ...]
    intact: tuple[Float[Tensor, "_ d_model"], ...]
    """Per batch, the final residual at every position that predicts a token."""
    logprobs: tuple[Float[Tensor, "_ d_vocab"], ...] | None
    """Per batch, the next-token log-probabilities there; None where they are too many to keep."""

    @classmethod
    def start(
        cls, model: HookedTransformer, text: str | Sequence[str] | None, batch_size: int
    ) -> _Reading:
        """Tokenises the text and reads it with the intact model."""
        device = next(model.parameters()).device
        pieces = _pieces(model, text)
        batches = tuple(
            make_batches(
                pieces,
                batch_size=batch_size,
                pad_id=model.tokenizer.pad_token_id or 0,
                device=device,
            )
        )
        intact = tuple(_read(model, batch) for batch in batches)
        size = 4 * sum(map(len, intact)) * model.cfg.d_vocab
        logprobs = None
        if size <= INTACT_BYTES:
            logprobs = tuple(_logprobs(model, residual) for residual in intact)
        return cls(batches, intact, logprobs)

    def compare(self, model: HookedTransformer, ablation: Ablation) -> dict[str, int | float]:
        """Reads the text again under an ablation."""
        total = torch.zeros(3, dtype=torch.float64)
        tokens = 0
        for number, (batch, before) in enumerate(zip(self.batches, self.intact, strict=True)):
            firsts = batch.tokens.shape[1] - batch.lengths
            ablation.start(batch, firsts)
            after = _read(model, batch)
            targets = batch.tokens[:, 1:][_predicting(batch)]
            kept = None if self.logprobs is None else self.logprobs[number]
            total += _compare(model, before, kept, after, targets)
            tokens += len(targets)
        intact, ablated_, kl = (float(part) / tokens for part in total)
        return {
            "tokens": tokens,
            "logloss_intact": intact,
            "logloss": ablated_,
            "logloss_change": ablated_ - intact,
            "kl": kl,
        }


def _pieces(model: HookedTransformer, text: str | Sequence[str] | None) -> list[list[int]]:
    """Tokenises each paragraph, in pieces that the model's context can hold."""
    if model.tokenizer is None:
        raise AnswerError(
            "The model has no tokenizer; give one with load_model(model, tokenizer=…)."
        )
    paragraphs = neutral_text() if text is None else (text,) if isinstance(text, str) else text
    size = model.cfg.n_ctx
    whole = [list(model.tokenizer(one)["input_ids"]) for one in paragraphs]
    cut = [ids[at : at + size] for ids in whole for at in range(0, len(ids), size)]
    pieces = [ids for ids in cut if len(ids) > 1]
    if not pieces:
        raise AnswerError("The text has no token to predict; expected a paragraph or more.")
    return pieces


def _predicting(batch: Batch) -> Tensor:
    """Marks the positions that predict a token: real ones, the last apart."""
    return batch.mask[:, :-1]


def _read(model: HookedTransformer, batch: Batch) -> Float[Tensor, "read d_model"]:
    with torch.inference_mode():
        return final_residual(model, batch.tokens, batch.mask)[:, :-1][_predicting(batch)]


def _logprobs(
    model: HookedTransformer, residual: Float[Tensor, "read d_model"]
) -> Float[Tensor, "read d_vocab"]:
    """Next-token log-probabilities, a bounded number of logits at once."""
    with torch.inference_mode():
        parts = [unembed(model, part).log_softmax(1) for part in residual.split(_READ_AT_ONCE)]
        return torch.cat(parts)


def _compare(
    model: HookedTransformer,
    before: Float[Tensor, "read d_model"],
    kept: Float[Tensor, "read d_vocab"] | None,
    after: Float[Tensor, "read d_model"],
    targets: Int[Tensor, " read"],
) -> Float[Tensor, " 3"]:
    """Sums over tokens: log-loss of the intact model, of the ablated one, and KL between them."""
    total = torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(targets), _READ_AT_ONCE):
        here = slice(start, start + _READ_AT_ONCE)
        target = targets[here]
        with torch.inference_mode():
            intact = _logprobs(model, before[here]) if kept is None else kept[here]
            changed = _logprobs(model, after[here])
            losses = [-part.gather(1, target[:, None])[:, 0] for part in (intact, changed)]
            kl = (intact.exp() * (intact - changed)).sum(dim=1).clamp(min=0)  # but for rounding
            total += torch.stack([*losses, kl]).cpu().double().sum(dim=1)
    if not all(math.isfinite(part) for part in total.tolist()):
        raise ActivationError(
            "The model's logits hold NaN or Inf. float16 overflows in some models: load it with "
            "dtype='bfloat16' or 'float32'."
        )
    return total


def _flat(condition: Condition, ranking: Ranking) -> Tensor:
    """Where a set's neurons stand among all."""
    places = condition.neurons["layer"] * ranking.width + condition.neurons["neuron"]
    return torch.tensor(places.to_list())
