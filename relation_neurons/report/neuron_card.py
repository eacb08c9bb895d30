"""Neuron cards: one neuron at a time, from what it writes to what ablating it alone does.

    tokens       logit weights of the direction it writes (`models.logit_weights`)
    prompts      where its pooled activation is most positive and most negative
    relations    how well it detects each relation: average precision, beside its floor
    effects      net flips and change of margin on held-out facts with this neuron alone ablated

A card describes; it does not test. A single neuron is compared with the intact model and with no
control, and a neuron picked from a ranking was picked for its AP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from relation_neurons.ablation.hooks import ablated
from relation_neurons.ablation.plan import read_neurons, require_neurons
from relation_neurons.activations.collect import collect_activations, collect_neuron
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
    answer_prompts,
    measure_recall,
    plan_passes,
)
from relation_neurons.neurons import neuron_name
from relation_neurons.ranking.table import Ranking
from relation_neurons.relations.prompts import Prompts
from relation_neurons.relations.relation import MIN_KNOWN
from relation_neurons.report.build_card import (
    detection_scores,
    effects_alone,
    extreme_prompts,
    extreme_tokens,
    pool_tokens,
    typical_activation,
)
from relation_neurons.results.results import Results, read_prompts

__all__ = ["NeuronCard", "neuron_card"]

_SINK_PROMPTS = 64
_SAME_MEAN = 0.05  # of the mean |activation|: room for rounding, not for other weights
_ABLATION = {"mode": "zero", "positions": "no_first"}
_KEYS = ["relation", "language"]


@dataclass(frozen=True)
class NeuronCard:
    """What one neuron writes, when it is active, and what ablating it alone does."""

    layer: int
    neuron: int
    model: str
    site: str
    promoted: pd.DataFrame
    """token_id, token, weight: the highest logit weights first. For tokens of a neuron with a
    positive activation; where it is negative (a gated MLP gives either sign), `demoted` is promoted."""
    demoted: pd.DataFrame
    """The same, the lowest first."""
    mean: float
    """Mean activation over the tokens of the detection facts' prompts, first position apart."""
    contribution: float
    """Mean |activation| over the same tokens, times the norm of the neuron's output row."""
    is_sink: bool
    """Whether it writes the attention sink at the first position."""
    pool: str
    highest: pd.DataFrame
    """Detection prompts with the most positive pooled activation, best first: prompt_id, relation,
    language, kind, subject, text, activation, and tokens with token_activations."""
    lowest: pd.DataFrame
    """The same, the most negative first."""
    relations: pd.DataFrame
    """A row per score and relation: score, relation, language, ap, floor (AP of a neuron that tells
    nothing: the share of positives), d_prime, mean_positive, mean_negative, rank (missing without a
    ranking or below its end)."""
    effects: pd.DataFrame | None
    """A row per relation, over its held-out prompts: relation, language, n, won, lost, net_flips (won
    minus lost, per prompt), flips_low, flips_high, margin_change (logits), margin_low, margin_high;
    95% bootstrap intervals over facts. None where nothing was ablated."""
    ablation: dict[str, str]
    """How it was ablated: mode and positions; nothing where it was not."""

    def __repr__(self) -> str:
        best = self.relations.sort_values("ap", ascending=False, kind="stable").iloc[0]
        return f"NeuronCard({self.name} of {self.model}: {best.relation}, {best.score} AP {best.ap:.2f})"

    @property
    def name(self) -> str:
        """The neuron's name, such as `L16N302`."""
        return neuron_name(self.layer, self.neuron)

    @property
    def score(self) -> str:
        """The score that the card leads with: `specific`, or `background` for one relation."""
        return "specific" if (self.relations["score"] == "specific").any() else "background"

    def to_frame(self) -> pd.DataFrame:
        """Gives a row per relation under the leading score, with its effects, the best AP first."""
        rows = self.relations[self.relations["score"] == self.score]
        if self.effects is not None:
            rows = rows.merge(self.effects, on=_KEYS, how="left")
        return rows.sort_values("ap", ascending=False, kind="stable").reset_index(drop=True)

    def to_html(self, *, page: bool = False) -> str:
        """Gives the card as HTML that needs nothing else, or as a whole page."""
        from relation_neurons.report.card_view import card_html

        return card_html(self, page=page)

    def table(self) -> Any:
        """Gives the card for a terminal, to be printed by rich."""
        from relation_neurons.report.card_view import card_table

        return card_table(self)

    def _repr_html_(self) -> str:
        return self.to_html()


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
    seed: int = 0,
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
        seed: of the bootstrap.

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
        effects = effects_alone(held_out.frame, intact, after, seed=seed)
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
