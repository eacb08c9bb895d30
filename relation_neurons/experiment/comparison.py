"""Compare criteria, sites and ends by one and the same held-out ablation.

Each contender ranks on the detection prompts; its top sets are ablated at one dose and judged on all
held-out facts, with controls of matched contribution. The measure is specificity, so a contender does
not win by breaking the model (see `standings`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from relation_neurons.ablation.sweep import ablation_sweep
from relation_neurons.activations.attribution import collect_attribution
from relation_neurons.activations.collect import collect_activations
from relation_neurons.analysis.standings import comparison_standings, comparison_table, count_valued
from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.neuron_sites import neuron_count
from relation_neurons.errors import TooFewFactsError, UnknownOptionError
from relation_neurons.formatting import number
from relation_neurons.inference.recall import BATCH_SIZE
from relation_neurons.neurons import resolve_doses
from relation_neurons.notebook_html import table_view
from relation_neurons.ranking.criteria import CRITERIA, applicable_contrasts
from relation_neurons.ranking.rank import rank_neurons
from relation_neurons.ranking.table import Ranking
from relation_neurons.relations.prompts import Prompts
from relation_neurons.relations.relation import MIN_KNOWN
from relation_neurons.results.table_store import TableStore
from relation_neurons.version import renamed

__all__ = [
    "Comparison",
    "Contender",
    "compare_criteria",
    "compare_scores",
    "plan_contenders",
]


@dataclass(frozen=True)
class Contender:
    """One way of choosing neurons."""

    by: str
    site: str = "post"
    end: str = "top"

    @property
    def name(self) -> str:
        """The name of its part in a results folder."""
        return f"{self.by}-{self.site}-{self.end}"


@dataclass(frozen=True)
class Comparison:
    """Contenders judged by one held-out ablation."""

    standings: pd.DataFrame
    """A row per contender, the most specific first; see `comparison_standings`."""
    table: pd.DataFrame
    """A row per contender and relation; see `comparison_table`. Beside it, with_value: how many neurons
    of the set the criterion itself chose (the rest had no value, or the probe's 0, and were chosen by
    the order of ties)."""
    effects: pd.DataFrame
    """The sweeps' tables, with the contender's by, site and end."""
    sets: pd.DataFrame
    """The neurons ablated: by, site, end, and the rows of the ranking."""

    def __repr__(self) -> str:
        order = ", ".join(f"{r.by} ({r.site}, {r.end})" for r in self.standings.itertuples())
        return f"Comparison({order})"

    def _repr_html_(self) -> str:
        """Contenders, the most specific first."""
        rows = [
            (
                f"{r.by.replace('_', ' ')} ({r.site}, {r.end})",
                f"{r.dose:,}",
                f"{number(r.specificity)} ({number(r.low)} to {number(r.high)})",
                number(r.home),
                number(r.control),
            )
            for r in self.standings.itertuples()
        ]
        head = ("Ranked by", "Neurons", "Specificity (95% interval)", "Home", "Control")
        note = "The most specific first: home minus elsewhere, so negative is specific harm."
        title = f"{len(rows)} contender{'' if len(rows) == 1 else 's'}"
        return table_view(title, note, (head, rows))


def plan_contenders(
    by: Sequence[str] = CRITERIA,
    sites: Sequence[str] = ("post",),
    *,
    bottom: bool = True,
    contrast: str = "specific",
) -> list[Contender]:
    """Lists every criterion at the first site, then AP at the other sites, then AP's bottom.

    Criteria that cannot rank the contrast are left out (see `criteria`).

    Raises:
        UnknownOptionError: an unknown criterion, no site, or nothing left to compare.

    >>> [c.name for c in plan_contenders(("auroc",), ("post", "up"), bottom=False)]
    ['auroc-post-top', 'average_precision-up-top']
    """
    if not sites:
        raise UnknownOptionError("No site was given; expected one at least, such as post.")
    able = [one for one in by if applicable_contrasts(one, (contrast,))]
    found = [Contender(one, sites[0]) for one in able]
    found += [Contender("average_precision", site) for site in sites[1:]]
    found += [Contender("average_precision", sites[0], "bottom")] if bottom else []
    if not found:
        fit = [one for one in CRITERIA if contrast in applicable_contrasts(one, (contrast,))]
        raise UnknownOptionError(
            f"None of the criteria {', '.join(by) or '(none)'} ranks the contrast {contrast!r}; expected "
            f"at least one of {', '.join(fit)}."
        )
    return list(dict.fromkeys(found))


@renamed(score="contrast", stages="store")
def compare_criteria(
    model: HookedModel,
    prompts: Prompts,
    recall: pd.DataFrame,
    *,
    by: Sequence[str] = CRITERIA,
    sites: Sequence[str] = ("post",),
    bottom: bool = True,
    dose: int | float | str = "0.2%",
    contrast: str = "specific",
    control_draws: int = 2,
    quantity: str = "correct",
    pool: str = "mean",
    mode: str = "zero",
    positions: str = "no_first",
    min_known: int = MIN_KNOWN,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    store: TableStore | None = None,
) -> Comparison:
    """Ranks by every criterion and judges each ranking's top sets by the same held-out ablation.

    Args:
        model: what `load_model` returns.
        prompts: of both sides; neurons are found on detection and judged on held-out prompts.
        recall: what `measure_recall` returns for them.
        by: criteria, compared at the first site.
        sites: where to read and ablate; at those after the first, by average precision.
        bottom: also ablates the neurons with the lowest AP at the first site (pitfall 14).
        dose: neurons ablated; a share is one of the site's own neurons, so at `out`, which has
            d_model of them a layer, it is fewer.
        contrast: the contrast that is ranked and ablated.
        control_draws: draws of the contribution-matched control beside each set.
        quantity: `correct` (net flips per prompt) or `margin` (logits).
        pool: of activations and attribution.
        mode: `zero` or `mean`.
        positions: see `ablated`.
        min_known: known facts a relation needs on either side.
        batch_size: prompts a pass.
        seed: of the control draws.
        store: a results folder; a contender's part that is there is read instead of computed.

    Raises:
        TooFewFactsError: fewer than two relations can be ranked.
        UnknownSiteError: a site that the model does not have.
    """
    store = store or TableStore()
    contenders = plan_contenders(by, sites, bottom=bottom, contrast=contrast)
    doses = {c.site: resolve_doses([dose], neuron_count(model, c.site))[0] for c in contenders}
    left_out = [one for one in by if one not in {c.by for c in contenders}]
    if left_out:
        store.log(f"left out: {', '.join(left_out)} cannot rank the contrast {contrast}")
    found = {c: _read(c, store) for c in contenders if _is_done(c, store)}
    for site, count in doses.items():
        found |= _judge_site(
            model,
            prompts,
            recall,
            [c for c in contenders if c.site == site and c not in found],
            collect={"pool": pool, "site": site, "batch_size": batch_size},
            rank={"contrasts": (contrast,), "keep": count, "min_known": min_known},
            sweep={
                "doses": (count,),
                "contrasts": (contrast,),
                "control_draws": control_draws,
                "control_kinds": ("control_contribution",),
                "mode": mode,
                "positions": positions,
                "batch_size": batch_size,
                "seed": seed,
            },
            store=store,
        )
    effects, sets = (
        pd.concat([found[c][i] for c in contenders], ignore_index=True) for i in range(2)
    )
    shown: dict[str, Any] = {"quantity": quantity, "contrast": contrast}
    table = comparison_table(effects, **shown).merge(count_valued(sets), how="left")
    return Comparison(comparison_standings(effects, **shown), table, effects, sets)


compare_scores = compare_criteria
"""The earlier name of `compare_criteria`."""


def _judge_site(
    model: HookedModel,
    prompts: Prompts,
    recall: pd.DataFrame,
    contenders: Sequence[Contender],
    *,
    collect: dict[str, Any],
    rank: dict[str, Any],
    sweep: dict[str, Any],
    store: TableStore,
) -> dict[Contender, tuple[pd.DataFrame, pd.DataFrame]]:
    """Collects activations once at a site, and ranks and ablates by each contender there."""
    if not contenders:
        return {}
    active = any(c.by == "activation_entropy" for c in contenders)
    detection = prompts.detection.take(
        prompts.detection.frame["kind"].isin(
            ("fact", *rank["contrasts"])
        )  # what the contrast looks at
    )
    table = collect_activations(model, detection, active=active, **collect)
    found = {}
    for contender in contenders:
        started = time.monotonic()
        given: dict[str, Any] = {"by": contender.by, "bottom": contender.end == "bottom", **rank}
        if contender.by == "attribution":
            given["attribution"] = collect_attribution(model, detection, **collect)
        ranking = rank_neurons(table, recall, **given)
        _require_two(ranking)
        effects = ablation_sweep(model, prompts.held_out, ranking, **sweep)
        effects = effects.astype(dict.fromkeys(effects.select_dtypes("category"), str))
        parts = (_named(contender, effects), _named(contender, ranking.frame))
        for kind, part in zip(("effects", "sets"), parts, strict=True):
            store.write(_part(contender, kind), part)
        store.done(contender.name, started)
        found[contender] = parts
    return found


def _require_two(ranking: Ranking) -> None:
    if len(ranking.pairs) < 2:
        raise TooFewFactsError(
            f"Only {', '.join(ranking.relations)} can be ranked; specificity compares the effects of two "
            "relations at least. Add relations, or facts that the model knows."
        )


def _named(contender: Contender, table: pd.DataFrame) -> pd.DataFrame:
    names = {"by": contender.by, "site": contender.site, "end": contender.end}
    return pd.concat([pd.DataFrame(names, index=table.index), table], axis=1)


def _part(contender: Contender, kind: str) -> str:
    return f"parts/{contender.name}-{kind}"


def _is_done(contender: Contender, store: TableStore) -> bool:
    return store.has(_part(contender, "effects"), _part(contender, "sets"))


def _read(contender: Contender, store: TableStore) -> tuple[pd.DataFrame, pd.DataFrame]:
    store.log(f"{contender.name}: read from {store.folder}")
    return store.read(_part(contender, "effects")), store.read(_part(contender, "sets"))
