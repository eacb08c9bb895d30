"""The tables of a neuron card, from one neuron's activations, its logit weights and two outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from relation_neurons.ablation.hooks import ablated
from relation_neurons.ablation.plan import read_neurons, require_neurons
from relation_neurons.activations.collect import collect_activations, collect_neuron
from relation_neurons.activations.pooling import pool
from relation_neurons.activations.table import ActivationTable
from relation_neurons.analysis.effects import estimate, fact_keys
from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.neuron_sites import (
    logit_weights,
    neuron_count,
    output_direction,
    output_norms,
)
from relation_neurons.errors import ResultsError, UnknownOptionError
from relation_neurons.inference.recall import (
    BATCH_SIZE,
    Outcomes,
    answer_prompts,
    measure_recall,
    plan_passes,
)
from relation_neurons.neurons import neuron_name
from relation_neurons.ranking.rank import rank_neurons
from relation_neurons.ranking.table import Ranking
from relation_neurons.relations.prompts import Prompts
from relation_neurons.relations.relation import MIN_KNOWN
from relation_neurons.report.neuron_card import _KEYS, NeuronCard
from relation_neurons.results.results import Results, read_prompts
from relation_neurons.version import renamed

__all__ = [
    "detection_scores",
    "effects_alone",
    "extreme_prompts",
    "extreme_tokens",
    "neuron_card",
    "pool_tokens",
    "token_texts",
    "typical_activation",
]

_ANCHOR = "x"

_SINK_PROMPTS = 64

_SAME_MEAN = 0.05  # of the mean |activation|: room for rounding, not for other weights

_ABLATION = {"mode": "zero", "positions": "no_first"}


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
    """Returns the mean activation and mean |activation| over the facts' tokens but the first ones."""
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
    """Scores one neuron as a detector in every detection task of `rank_neurons`.

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
    """Returns the prompts at one end of the pooled activation, with the activation at each token."""
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
    """Returns the tokens at one end of the logit weights: token_id, token, weight."""
    values = weights.numpy()
    ids = np.argsort(-values if largest else values, kind="stable")[:count]
    return pd.DataFrame(
        {"token_id": ids, "token": token_texts(tokenizer, ids.tolist()), "weight": values[ids]}
    )


def token_texts(tokenizer: Any, tokens: Sequence[int]) -> list[str]:
    """Returns each token's text with its leading space, whichever way the tokenizer marks one.

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


def effects_alone(prompts: pd.DataFrame, intact: Outcomes, after: Outcomes) -> pd.DataFrame:
    """Sums up what an ablation changed, per relation, over its held-out prompts.

    Returns:
        relation, language, n, won, lost, net_flips (won minus lost, per prompt) and margin_change (logits,
        the median over facts), both with a 95% interval over facts (see `intervals`): flips_low,
        flips_high, margin_low, margin_high. The margin's is NaN below six facts.
    """
    changes = prompts[["relation", "language"]].assign(
        fact=fact_keys(prompts),
        flip=after.correct.astype(int) - intact.correct.astype(int),
        margin=after.margin - intact.margin,
    )
    rows = []
    for (relation, language), cell in changes.groupby(["relation", "language"], sort=False):
        flips, margins = (cell[name].to_numpy(dtype=float) for name in ("flip", "margin"))
        net = estimate(flips, cell["fact"])
        margin = estimate(margins, cell["fact"], "margin")
        rows.append(
            {
                "relation": relation,
                "language": language,
                "n": len(cell),
                "won": int((flips > 0).sum()),
                "lost": int((flips < 0).sum()),
                "net_flips": net.value,
                "flips_low": net.low,
                "flips_high": net.high,
                "margin_change": margin.value,
                "margin_low": margin.low,
                "margin_high": margin.high,
            }
        )
    return pd.DataFrame(rows)


@renamed(seed=None)
def neuron_card(
    model: HookedModel,
    neuron: str | tuple[int, int],
    source: Results | Prompts,
    *,
    recall: pd.DataFrame | None = None,
    ranking: Ranking | None = None,
    top: int = 8,
    tokens: int = 10,
    pool: str | None = None,
    ablate: bool = True,
    min_known: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> NeuronCard:
    """Makes the card of one neuron.

    Args:
        model: what `load_model` gives; for saved results, the model that they were made with.
        neuron: its name (`L16N302`) or (layer, neuron).
        source: a saved run (prompts, recall, ranking and options are its own), or prompts.
        recall: of these prompts; measured where none is given.
        ranking: of these prompts; the card then says the neuron's ranks, and reads at its site.
        top: prompts shown at either end.
        tokens: promoted and demoted tokens shown.
        pool: as in `collect_activations`; the run's own by default, else `mean`.
        ablate: whether the neuron is ablated on the held-out facts, as the run did (else to zero, at
            `no_first` positions).
        min_known: as in `rank_neurons`.
        batch_size: prompts a pass.

    Raises:
        AblationError: a neuron that does not exist.
        ResultsError: results without saved prompts, or of another model.
        TooFewFactsError: no relation with enough known facts.
    """
    for name, count in (("top", top), ("tokens", tokens), ("batch_size", batch_size)):
        if count < 1:
            raise UnknownOptionError(f"{name} is {count}; expected a whole number from 1.")
    options: dict[str, Any] = {}
    if isinstance(source, Results):
        options, recall, ranking = source.manifest["options"], source.recall, source.ranking
    prompts = _saved_prompts(source) if isinstance(source, Results) else source
    site = ranking.site if ranking is not None else "post"
    layer, index = read_neurons([neuron])[0]
    require_neurons(model, [(layer, index)], site)
    _require_size(model, ranking)
    if recall is None:
        recall = measure_recall(model, prompts, batch_size=batch_size)
    asked, how = prompts.detection, pool or options.get("pool", "mean")
    by_token = collect_neuron(model, asked, layer, index, site=site, batch_size=batch_size)
    pooled = pool_tokens(by_token, how, asked.context)
    mean, mean_abs = typical_activation(by_token, asked.frame)
    _require_mean(ranking, layer, index, mean, mean_abs)
    scores = detection_scores(
        pooled,
        asked.frame,
        recall,
        min_known=min_known or options.get("min_known", MIN_KNOWN),
        ranking=ranking,
        neuron=(layer, index),
    )
    how_ablated = {name: options.get(name, default) for name, default in _ABLATION.items()}
    effects = None
    if ablate:
        value = mean if how_ablated["mode"] == "mean" else None
        held_out = _ranked(prompts.held_out, scores)
        plan = plan_passes(held_out)
        intact = answer_prompts(model, plan, batch_size=batch_size)
        with ablated(model, [(layer, index)], site=site, value=value, **how_ablated) as hooks:
            after = answer_prompts(model, plan, batch_size=batch_size, before_batch=hooks.start)
        effects = effects_alone(held_out.frame, intact, after)
    weights = logit_weights(model, output_direction(model, layer, index, site))
    ends = {"highest": True, "lowest": False}
    return NeuronCard(
        layer=layer,
        neuron=index,
        model=str(model.cfg.model_name),
        site=site,
        promoted=extreme_tokens(weights, model.tokenizer, tokens, largest=True),
        demoted=extreme_tokens(weights, model.tokenizer, tokens, largest=False),
        mean=mean,
        contribution=mean_abs * float(output_norms(model, site)[layer, index]),
        is_sink=_is_sink(model, asked, ranking, layer, index, batch_size),
        pool=how,
        relations=scores,
        effects=effects,
        ablation=how_ablated if ablate else {},
        **{
            end: extreme_prompts(asked, by_token, pooled, model.tokenizer, top, largest=largest)
            for end, largest in ends.items()
        },
    )


def _saved_prompts(results: Results) -> Prompts:
    """Reads the prompts of a run with their tokens, which only its folder holds."""
    if results.folder is None:
        raise ResultsError(
            "These results were not saved, and only a folder holds their prompts' tokens. Run with "
            "out=…, or give the prompts with recall=… and ranking=…."
        )
    return read_prompts(results.folder / "prompts.parquet")


def _require_size(model: HookedModel, ranking: Ranking | None) -> None:
    if ranking is not None and len(ranking.neurons) != neuron_count(model, ranking.site):
        raise ResultsError(
            f"The ranking is of a model with {len(ranking.neurons)} {ranking.site} neurons; this one "
            f"has {neuron_count(model, ranking.site)}. Load the model that it was made with."
        )


def _require_mean(
    ranking: Ranking | None, layer: int, neuron: int, mean: float, mean_abs: float
) -> None:
    """Compares the neuron with itself in the ranking: other weights give it another mean."""
    if ranking is None:
        return
    ranked = float(ranking.neurons["mean"].iloc[layer * ranking.width + neuron])
    if abs(ranked - mean) > _SAME_MEAN * mean_abs:
        raise ResultsError(
            f"{neuron_name(layer, neuron)} has a mean activation of {mean:.4g} here and of "
            f"{ranked:.4g} in the ranking. Load the model that the ranking was made with, and give "
            "the prompts that it was made from."
        )


def _ranked(prompts: Prompts, scores: pd.DataFrame) -> Prompts:
    """Keeps the facts of the relations that are scored."""
    pairs = pd.MultiIndex.from_frame(prompts.frame[_KEYS])
    scored = pd.MultiIndex.from_frame(scores[_KEYS].drop_duplicates())
    return prompts.take(pairs.isin(scored) & (prompts.frame["kind"] == "fact"))


def _is_sink(
    model: HookedModel,
    asked: Prompts,
    ranking: Ranking | None,
    layer: int,
    neuron: int,
    batch_size: int,
) -> bool:
    """Looks it up, or looks at every neuron on some prompts from all over: sinks are far apart."""
    if ranking is not None:
        return bool(ranking.neurons["is_sink"].iloc[layer * ranking.width + neuron])
    facts = np.flatnonzero(asked.frame["kind"] == "fact")
    some = np.linspace(0, len(facts) - 1, min(_SINK_PROMPTS, len(facts))).astype(int)
    keep = np.isin(np.arange(len(asked)), facts[some])
    table = collect_activations(
        model, asked.take(keep), pool="include_first", batch_size=batch_size
    )
    return bool(table.is_sink[layer, neuron])
