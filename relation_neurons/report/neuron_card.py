"""`NeuronCard`: one neuron, from what it writes to the effect of ablating it alone, and how it is shown.

    tokens       logit weights of the direction it writes (`backends.neuron_sites.logit_weights`)
    prompts      where its pooled activation is most positive and most negative
    relations    how well it detects each relation: average precision beside its floor
    effects      net flips and change of margin on held-out facts with this neuron alone ablated

A card describes and does not test. A single neuron is compared with the intact model and not with a
control, and a neuron from a ranking was chosen for its AP.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment
from rich.console import Group
from rich.table import Table
from rich.text import Text

from relation_neurons.formatting import MINUS, number, three_figures
from relation_neurons.neurons import neuron_name
from relation_neurons.notebook_html import make_environment

__all__ = ["NeuronCard", "card_html", "card_table"]

_KEYS = ["relation", "language"]

_SHOWN = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}

_SHOWN_PROMPTS = 3


@dataclass(frozen=True)
class NeuronCard:
    """What one neuron writes, when it is active, and the effect of ablating it alone."""

    layer: int
    neuron: int
    model: str
    site: str
    promoted: pd.DataFrame
    """token_id, token, weight: the highest logit weights first. They hold for a positive activation; if
    it is negative (a gated MLP allows either sign), the tokens in `demoted` are promoted."""
    demoted: pd.DataFrame
    """The same for the lowest logit weights, the lowest first."""
    mean: float
    """Mean activation over the tokens of the detection facts' prompts, without the first position."""
    contribution: float
    """Mean |activation| over the same tokens, times the norm of the neuron's output row."""
    is_sink: bool
    """Whether it writes the attention sink at the first position."""
    pool: str
    highest: pd.DataFrame
    """Detection prompts with the most positive pooled activation, best first: prompt_id, relation,
    language, kind, subject, text, activation, and tokens with token_activations."""
    lowest: pd.DataFrame
    """The same for the most negative activations, the most negative first."""
    relations: pd.DataFrame
    """A row per contrast and relation: score, relation, language, ap, floor (AP of an uninformative
    neuron: the share of positives), d_prime, mean_positive, mean_negative, rank (missing without a
    ranking or beyond its end)."""
    effects: pd.DataFrame | None
    """A row per relation, over its held-out prompts: relation, language, n, won, lost, net_flips (won
    minus lost, per prompt), flips_low, flips_high, margin_change (logits, the median over facts),
    margin_low, margin_high; 95% intervals over facts (see `effects_alone`). None where nothing was
    ablated."""
    ablation: dict[str, str]
    """How it was ablated: mode and positions; empty if it was not."""

    def __repr__(self) -> str:
        best = self.relations.sort_values("ap", ascending=False, kind="stable").iloc[0]
        return f"NeuronCard({self.name} of {self.model}: {best.relation}, {best.score} AP {best.ap:.2f})"

    @property
    def name(self) -> str:
        """The neuron's name, such as `L16N302`."""
        return neuron_name(self.layer, self.neuron)

    @property
    def contrast(self) -> str:
        """The contrast that the card shows first: `specific`, or `background` with only one relation."""
        return "specific" if (self.relations["score"] == "specific").any() else "background"

    @property
    def score(self) -> str:
        """The earlier name of `contrast`."""
        return self.contrast

    def to_frame(self) -> pd.DataFrame:
        """Returns a row per relation under `contrast`, with its effects, the best AP first."""
        rows = self.relations[self.relations["score"] == self.contrast]
        if self.effects is not None:
            rows = rows.merge(self.effects, on=_KEYS, how="left")
        return rows.sort_values("ap", ascending=False, kind="stable").reset_index(drop=True)

    def to_html(self, *, page: bool = False) -> str:
        """Returns the card as self-contained HTML, or as a whole page."""
        return card_html(self, page=page)

    def table(self) -> Any:
        """Returns the card for a terminal, to be printed by rich."""
        return card_table(self)

    def _repr_html_(self) -> str:
        return self.to_html()


def card_html(card: NeuronCard, *, page: bool = False) -> str:
    """Returns the card as HTML with its own style, without scripts or outside files."""
    rows = card.to_frame()
    return (
        _environment()
        .get_template("neuron_card.html.j2")
        .render(
            card=card,
            page=page,
            sign=_sign_note(card),
            ends=[
                (title, _prompts(found, card.pool))
                for title, found in (
                    ("Most positive", card.highest),
                    ("Most negative", card.lowest),
                )
            ],
            tokens=[
                (title, token_rows.to_dict("records"), token_rows["weight"].abs().max() or 1.0)
                for title, token_rows in (("Promotes", card.promoted), ("Demotes", card.demoted))
            ],
            rows=rows.to_dict("records"),
            several=rows["language"].nunique() > 1,
            widest=_widest(card),
        )
    )


def card_table(card: NeuronCard) -> Group:
    """Returns the card for a terminal."""
    head = Text.assemble(
        (card.name, "bold"),
        f" of {card.model}, site {card.site}: mean activation {three_figures(card.mean)}, contribution "
        f"{three_figures(card.contribution, sign=False)}{', a sink neuron' if card.is_sink else ''}",
    )
    words = Text()
    for title, found in (("promotes ", card.promoted), ("demotes  ", card.demoted)):
        words.append(title, "bold").append("  ".join(map(_visible, found["token"])) + "\n")
    words.append(_sign_note(card), "dim")
    parts: list[Any] = [head, words]
    for title, found in (("Most positive", card.highest), ("Most negative", card.lowest)):
        table = _table(f"{title} prompts (pool {card.pool})", "activation", "relation", "prompt")
        for row in found.head(_SHOWN_PROMPTS).itertuples():
            table.add_row(three_figures(row.activation), Text(_kind(row)), Text(row.text))
        parts.append(table)
    return Group(*parts, _relation_table(card))


def _relation_table(card: NeuronCard) -> Table:
    columns = ["relation", "AP", "floor", "rank", "d\N{PRIME}"]
    if card.effects is not None:
        columns += ["won, lost of n", "median margin", "95% interval"]
    table = _table(f"Detection ({card.contrast}){_effects_title(card)}", *columns)
    rows = card.to_frame()
    several = rows["language"].nunique() > 1
    for row in rows.to_dict("records"):
        name = f"{row['relation']} ({row['language']})" if several else row["relation"]
        numbers = [f"{row['ap']:.3f}", f"{row['floor']:.3f}", _rank(row["rank"])]
        numbers.append(number(row["d_prime"]))
        if card.effects is not None and not pd.isna(row["n"]):
            numbers.append(f"+{row['won']:.0f} {MINUS}{row['lost']:.0f} of {row['n']:.0f}")
            low, high = number(row["margin_low"]), number(row["margin_high"])
            numbers += [number(row["margin_change"]), f"[{low}, {high}]"]
        table.add_row(Text(name), *map(Text, numbers))
    return table


def _effects_title(card: NeuronCard) -> str:
    if card.effects is None:
        return ""
    return f", and held-out prompts with {card.name} alone ablated"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for name in columns:
        words = name in ("relation", "prompt")
        table.add_column(name, justify="left" if words else "right", no_wrap=not words)
    return table


def _sign_note(card: NeuronCard) -> str:
    """Returns a note on how the sign of the activation changes the tokens' meaning."""
    return (
        "Promoted and demoted if the activation is positive; if it is negative, which a gated MLP "
        f"allows, the two swap. Its mean over these prompts is {three_figures(card.mean)}."
    )


def _prompts(found: pd.DataFrame, how: str) -> list[dict[str, Any]]:
    """Returns rows with (token, shade, activation, pooled) per token; shades are relative to the largest."""
    skipped = 0 if how == "include_first" else 1
    loudest = max(
        (abs(a) for row in found["token_activations"] for a in row[skipped:]), default=0.0
    )
    rows = []
    for row in found.itertuples():
        tokens = [
            (
                text,
                activation / (loudest or 1.0) if at >= skipped else 0.0,
                activation,
                at >= skipped,
            )
            for at, (text, activation) in enumerate(
                zip(row.tokens, row.token_activations, strict=True)
            )
        ]
        rows.append({"activation": row.activation, "kind": _kind(row), "tokens": tokens})
    return rows


def _kind(row: Any) -> str:
    """Returns the relation of a prompt, and whether its subject is nonsense."""
    return f"{row.relation}, nonsense subject" if row.kind == "nonsense" else str(row.relation)


def _widest(card: NeuronCard) -> float:
    """Returns the end of the axis that margin changes are drawn on."""
    if card.effects is None:
        return 1.0
    ends = card.effects[["margin_low", "margin_high", "margin_change"]].abs()
    return float(ends.max(axis=None)) or 1.0


@functools.cache
def _environment() -> Environment:
    environment = make_environment()
    environment.filters.update(
        number=three_figures,
        fixed=number,
        visible=_visible,
        rank=_rank,
        spaced=lambda name: str(name).replace("_", " "),
    )
    return environment


def _visible(token: str) -> str:
    """Returns a token with its white space made visible."""
    return "".join(_SHOWN.get(character, character) for character in token)


def _rank(value: Any) -> str:
    return "\N{EN DASH}" if pd.isna(value) else f"{int(value):,}"
