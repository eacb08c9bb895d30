"""The tables of a neuron card, from one neuron's activations, its logit weights and two outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from relation_neurons.activations.pooling import pool
from relation_neurons.activations.table import ActivationTable
from relation_neurons.analysis.resampling import bootstrap_interval, by_fact
from relation_neurons.inference.recall import Outcomes
from relation_neurons.ranking.rank import rank_neurons
from relation_neurons.ranking.table import Ranking
from relation_neurons.relations.prompts import Prompts

__all__ = [
    "detection_scores",
    "effects_alone",
    "extreme_prompts",
    "extreme_tokens",
    "pool_tokens",
    "token_texts",
    "typical_activation",
]

_ANCHOR = "x"


def pool_tokens(
    by_token: Sequence[Float[Tensor, " _"]], how: str, context: Sequence[int] = ()
) -> Float[Tensor, " prompt"]:
    """Pools what `collect_neuron` gives as `collect_activations` does."""
    width = max(map(len, by_token))
    values, mask = torch.zeros(len(by_token), width, 1), torch.zeros(len(by_token), width)
    for row, activations in enumerate(by_token):
        values[row, width - len(activations) :, 0] = activations
        mask[row, width - len(activations) :] = 1
    return pool(values, mask.bool(), how, torch.tensor(context) if context else None)[:, 0]


def typical_activation(
    by_token: Sequence[Float[Tensor, " _"]], prompts: pd.DataFrame
) -> tuple[float, float]:
    """Gives the mean activation and mean |activation| over the facts' tokens but the first ones."""
    is_fact = prompts["kind"] == "fact"
    rest = torch.cat([a[1:] for a, fact in zip(by_token, is_fact, strict=True) if fact]).double()
    return float(rest.mean()), float(rest.abs().mean())


def detection_scores(
    pooled: Float[Tensor, " prompt"],
    prompts: pd.DataFrame,
    recall: pd.DataFrame,
    *,
    min_known: int,
    ranking: Ranking | None = None,
    neuron: tuple[int, int] = (0, 0),
) -> pd.DataFrame:
    """Scores one neuron as a detector of every relation, by the families of `rank_neurons`.

    Beside it stands a neuron that is always 0: its AP is the share of positives, the floor.

    Returns:
        score, relation, language, ap, floor, d_prime, mean_positive, mean_negative, and rank: the
        neuron's place in `ranking`, missing below its end.
    """
    beside = torch.stack([pooled, torch.zeros_like(pooled)], dim=1)[:, None, :]
    nothing = torch.zeros(1, 2)
    table = ActivationTable(beside, prompts, nothing, nothing, nothing, pool="", site="")
    frame = rank_neurons(table, recall, keep=2, min_known=min_known).frame
    keys = ["score", "relation", "language"]
    floor = frame.loc[frame["neuron"] == 1, [*keys, "ap"]].rename(columns={"ap": "floor"})
    own = frame.loc[
        frame["neuron"] == 0, [*keys, "ap", "d_prime", "mean_positive", "mean_negative"]
    ]
    scores = own.merge(floor, on=keys)
    if ranking is None:
        ranks = pd.Series(pd.NA, index=scores.index)
    else:
        layer, index = neuron
        rows = ranking.frame[(ranking.frame["layer"] == layer) & (ranking.frame["neuron"] == index)]
        ranks = scores[keys].merge(rows[[*keys, "rank"]], on=keys, how="left")["rank"]
    return scores.assign(rank=ranks.astype("Int64"))


def extreme_prompts(
    prompts: Prompts,
    by_token: Sequence[Float[Tensor, " _"]],
    pooled: Float[Tensor, " prompt"],
    tokenizer: Any,
    count: int,
    *,
    largest: bool,
) -> pd.DataFrame:
    """Gives the prompts at one end of the pooled activation, with the activation at each token."""
    values = pooled.numpy()
    rows = np.argsort(-values if largest else values, kind="stable")[:count]
    columns = ["prompt_id", "relation", "language", "kind", "subject", "text"]
    return (
        prompts.frame.iloc[rows][columns]
        .reset_index(drop=True)
        .assign(
            activation=values[rows].astype(np.float64),
            tokens=[token_texts(tokenizer, prompts.tokens[row]) for row in rows],
            token_activations=[by_token[row].tolist() for row in rows],
        )
    )


def extreme_tokens(
    weights: Float[Tensor, " d_vocab"], tokenizer: Any, count: int, *, largest: bool
) -> pd.DataFrame:
    """Gives the tokens at one end of the logit weights: token_id, token, weight."""
    values = weights.numpy()
    ids = np.argsort(-values if largest else values, kind="stable")[:count]
    return pd.DataFrame(
        {"token_id": ids, "token": token_texts(tokenizer, ids.tolist()), "weight": values[ids]}
    )


def token_texts(tokenizer: Any, tokens: Sequence[int]) -> list[str]:
    """Gives each token's text with its leading space, whichever way the tokenizer marks one.

    Part of a character has no text of its own; it is shown as the vocabulary spells it.
    """
    if tokenizer is None:
        return [f"<{token}>" for token in tokens]
    anchor = tokenizer(_ANCHOR, add_special_tokens=False)["input_ids"]
    before = tokenizer.decode(anchor)
    texts = []
    for token in tokens:
        text = tokenizer.decode([*anchor, token], clean_up_tokenization_spaces=False)
        text = text[len(before) :] if text.startswith(before) else text
        if not text or "\ufffd" in text:
            text = str(tokenizer.convert_ids_to_tokens(token) or f"<{token}>")
        texts.append(text)
    return texts


def effects_alone(
    prompts: pd.DataFrame, intact: Outcomes, after: Outcomes, *, seed: int = 0
) -> pd.DataFrame:
    """Averages what an ablation changed, per relation, over its held-out prompts.

    Returns:
        relation, language, n, won, lost, net_flips (won minus lost, per prompt) and margin_change
        (logits), both with a 95% bootstrap interval over facts: flips_low, flips_high, margin_low,
        margin_high.
    """
    changes = prompts[["relation", "language", "fact"]].assign(
        flip=after.correct.astype(int) - intact.correct.astype(int),
        margin=after.margin - intact.margin,
    )
    rows = []
    for (relation, language), cell in changes.groupby(["relation", "language"], sort=False):
        flips, margins = (cell[name].to_numpy(dtype=float) for name in ("flip", "margin"))
        flips_low, flips_high = bootstrap_interval(by_fact(flips, cell["fact"]), seed=seed)
        margin_low, margin_high = bootstrap_interval(by_fact(margins, cell["fact"]), seed=seed)
        rows.append(
            {
                "relation": relation,
                "language": language,
                "n": len(cell),
                "won": int((flips > 0).sum()),
                "lost": int((flips < 0).sum()),
                "net_flips": float(flips.mean()),
                "flips_low": flips_low,
                "flips_high": flips_high,
                "margin_change": float(margins.mean()),
                "margin_low": margin_low,
                "margin_high": margin_high,
            }
        )
    return pd.DataFrame(rows)
