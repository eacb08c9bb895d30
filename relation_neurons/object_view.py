"""How objects show themselves in a notebook: a heading, a line, and a small table.

Whatever comes from data is escaped by Jinja.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from relation_neurons.neuron_names import neuron_name
from relation_neurons.relations import ALL_RELATIONS, relation_label

if TYPE_CHECKING:
    from relation_neurons.activations import ActivationTable
    from relation_neurons.comparison import Comparison
    from relation_neurons.prompts import Prompts
    from relation_neurons.ranking_table import Ranking
    from relation_neurons.relations import Relation
    from relation_neurons.results import Results

__all__ = [
    "activations_html",
    "comparison_html",
    "prompts_html",
    "ranking_html",
    "relation_html",
    "results_html",
]

_ROWS = 12
_NAMES = 4
_MINUS = "\N{MINUS SIGN}"
_KINDS = {"fact": "on facts", "nonsense": "with nonsense subjects", "background": "neutral"}


def relation_html(relation: Relation) -> str:
    """A relation: its templates and first facts."""
    majority, share = relation.majority()
    note = (
        f"{len(relation.facts)} facts in {relation.language}; the commonest answer, {majority}, would "
        f"be right for {share:.0%}. {relation.description}"
    )
    asked = [(t.text, t.form, t.side.replace("_", " ")) for t in relation.templates]
    facts = [
        (fact.subject, fact.objects[0], ", ".join(fact.objects[1:])) for fact in relation.facts
    ]
    return _view(
        relation.name,
        note,
        (("Template", "Form", "Side"), asked),
        (("Subject", "Answer", "Also accepted"), facts),
        shown=_ROWS // 2,
    )


def prompts_html(prompts: Prompts) -> str:
    """Prompts: the sizes that the split reached, and an example of each relation."""
    frame = prompts.frame
    several = frame["language"].nunique() > 1
    examples = frame[frame["kind"] == "fact"].drop_duplicates(["relation", "language", "side"])
    said = examples.set_index(["relation", "language", "side"])["text"]
    rows = [
        (
            relation_label(row.relation, row.language, several=several),
            row.side.replace("_", " "),
            row.facts,
            row.templates,
            said[row.relation, row.language, row.side],
        )
        for row in prompts.split_sizes().itertuples()
    ]
    counts = frame["kind"].value_counts()
    note = ", ".join(f"{counts[kind]:,} {_KINDS.get(kind, kind)}" for kind in counts.index)
    head = ("Relation", "Side", "Facts", "Templates", "Such as")
    return _view(f"{len(prompts):,} prompts", note, (head, rows), shown=2 * _ROWS)


def activations_html(table: ActivationTable) -> str:
    """An activation table: whose prompts its rows are, and its loudest neurons, sinks first."""
    count, layers, width = table.values.shape
    frame, sinks = table.prompts, table.is_sink
    several = frame["language"].nunique() > 1
    asked = [
        (
            relation_label(relation, language, several=several),
            _KINDS.get(kind, kind),
            f"{len(part):,}",
            part["template"].nunique(),
        )
        for (relation, language, kind), part in frame.groupby(
            ["relation", "language", "kind"], sort=False
        )
    ]
    louder = (table.contribution + sinks * table.first_contribution).flatten()
    places = louder.topk(min(_ROWS, len(louder))).indices.tolist()
    loud = [
        (
            neuron_name(place // width, place % width),
            f"{table.contribution.flatten()[place]:.3g}",
            f"{table.first_contribution.flatten()[place]:.3g}",
            "sink" if sinks.flatten()[place] else "",
        )
        for place in places
    ]
    note = (
        f"One value per prompt and neuron at {table.site}, pooled by {table.pool.replace('_', ' ')}. "
        "Below, the loudest neurons: mean |activation| times the norm of what they write."
    )
    title = f"Activations of {count:,} prompts, {layers} layers of {width:,} neurons"
    return _view(
        title,
        note,
        (("Relation", "Prompts", "Count", "Templates"), asked),
        (("Neuron", "Elsewhere", "At the first position", "Flag"), loud),
        shown=2 * _ROWS,
    )


def ranking_html(ranking: Ranking) -> str:
    """A ranking: the first neurons of each relation under each score."""
    frame = ranking.frame
    several = frame["language"].nunique() > 1
    rows = []
    for (score, relation, language), part in frame.groupby(
        ["score", "relation", "language"], sort=False
    ):
        best = part.nsmallest(_NAMES, "rank")
        names = [f"L{r.layer}N{r.neuron}" for r in best.itertuples()]
        label = relation_label(relation, language, several=several)
        rows.append((label, score, f"{best['ap'].iloc[0]:.3f}", ", ".join(names)))
    kept = int(frame["rank"].max()) if len(frame) else 0
    note = (
        f"The {ranking.end} {kept:,} of {len(ranking.neurons):,} neurons at {ranking.site}, by "
        f"{ranking.by.replace('_', ' ')}."
    )
    if ranking.left_out:
        note += f" Left out: {', '.join(ranking.left_out)}."
    head = ("Relation", "Score", "First AP", "First neurons")
    count = len(ranking.relations)
    title = f"Ranking of {count} relation{'' if count == 1 else 's'}"
    return _view(title, note, (head, rows), shown=2 * _ROWS)


def results_html(results: Results) -> str:
    """A finished run: the effect at home, elsewhere and of the control."""
    model = results.manifest["model"]
    summary = results.summary
    table = pd.DataFrame(summary.get("headline") or [], columns=["relation", "what", *_CELL])
    note = f"{len(results.effects):,} rows of effects"
    if "dose" in summary:
        note += f"; {summary['dose']:,} neurons ablated, change in the share of correct answers"
    note += f". In {results.folder}." if results.folder else "."
    rows = []
    names = sorted(dict.fromkeys(table["relation"]), key=lambda name: name == ALL_RELATIONS)
    for name in names:
        cells = table[table["relation"] == name].set_index("what")
        home = cells.loc["home"]
        shown = f"{_signed(home.effect)} ({_signed(home.low)} to {_signed(home.high)})"
        others = (
            _signed(cells["effect"].get(what)) for what in ("elsewhere", "control_contribution")
        )
        rows.append((name, shown, *others))
    head = ("Relation", "Home (95% interval)", "Elsewhere", "Control")
    return _view(f"A run of {model['name']}", note, (head, rows), shown=4 * _ROWS)


def comparison_html(comparison: Comparison) -> str:
    """Contenders, the most specific first."""
    rows = [
        (
            f"{r.by.replace('_', ' ')} ({r.site}, {r.end})",
            f"{r.dose:,}",
            f"{_signed(r.specificity)} ({_signed(r.low)} to {_signed(r.high)})",
            _signed(r.home),
            _signed(r.control),
        )
        for r in comparison.standings.itertuples()
    ]
    head = ("Ranked by", "Neurons", "Specificity (95% interval)", "Home", "Control")
    note = "The most specific first: home minus elsewhere, so negative is specific harm."
    title = f"{len(rows)} contender{'' if len(rows) == 1 else 's'}"
    return _view(title, note, (head, rows), shown=2 * _ROWS)


_CELL = ["effect", "low", "high", "n"]


def _view(
    title: str, note: str, *tables: tuple[Sequence[str], Iterable[Sequence[Any]]], shown: int
) -> str:
    """A heading with tables below it, each cut to its first rows."""
    parts = [(head, list(rows)) for head, rows in tables]
    return (
        _environment()
        .get_template("object_view.html.j2")
        .render(
            title=title.replace("_", " "),
            note=note,
            tables=[
                {"head": head, "rows": rows[:shown], "more": len(rows) - shown}
                for head, rows in parts
                if rows
            ],
        )
    )


def _signed(value: float | None) -> str:
    """A change to two decimals, with a true minus."""
    if value is None or pd.isna(value):
        return "n/a"
    rounded = round(float(value), 2) + 0.0
    return f"{rounded:+.2f}".replace("-", _MINUS) if rounded else "0.00"


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("relation_neurons"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
