"""What docs/two_models.md shows of `two_models.csv`: its tables and its figure."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from relation_neurons.formatting import number
from relation_neurons.plots.export import save
from relation_neurons.plots.style import BLUE, INK, RED, finish

QUANTITIES = {"correct": "net flips", "margin": "logits"}
COLOURS = (BLUE, RED)
UNJUDGED = "not judged: no deals"
TOO_FEW = "not judged: too few draws"
FORMER = ("overlap", "relation, times chance")
"""Numbers of runs from before chance was counted: multiples of dose^2 / neurons."""


def read(path: Path) -> pd.DataFrame:
    """The table, one row for each model and number."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    return table.fillna({"score": "", "quantity": ""})


class Numbers:
    """One model's numbers, by name."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table

    def row(
        self,
        of: str,
        what: str,
        contrast: str = "specific",
        quantity: str = "",
        dose: int | None = None,
    ) -> pd.Series | None:
        """The row of that name; None where the run has no such number."""
        t = self._table
        found = t[(t["property"] == of) & (t["what"] == what)]
        found = found[(found["score"] == contrast) & (found["quantity"] == quantity)]
        if dose is not None:
            found = found[found["dose"] == dose]
        return None if found.empty else found.iloc[0]

    def doses(self) -> list[int]:
        """The swept ones."""
        found = self._table[self._table["property"] == "cumulativity"]["dose"].dropna()
        return sorted({int(dose) for dose in found})


def models(table: pd.DataFrame) -> dict[str, Numbers]:
    """Each model's numbers."""
    return {name: Numbers(table[table["model"] == name]) for name in dict.fromkeys(table["model"])}


def interval(row: pd.Series | None) -> str:
    """A number with its interval, or a dash."""
    if row is None or pd.isna(row["value"]):
        return "\N{EN DASH}"
    if pd.isna(row["low"]):
        return number(row["value"])
    return f"{number(row['value'])} ({number(row['low'])} to {number(row['high'])})"


def plain(row: pd.Series | None, form: str) -> str:
    """A number without a sign, or a dash."""
    return "\N{EN DASH}" if row is None or pd.isna(row["value"]) else format(row["value"], form)


def of_count(row: pd.Series | None) -> str:
    """`2 of 12`."""
    return "\N{EN DASH}" if row is None else f"{int(row['value'])} of {int(row['n'])}"


def below(row: pd.Series | None) -> bool | None:
    """Whether an interval lies below 0; None where there is none."""
    return None if row is None or pd.isna(row["high"]) else bool(row["high"] < 0)


def holds(one: Numbers) -> dict[str, bool | None]:
    """Which property a run shows, by the rules that stand on the page; None where it cannot say.

    Runs from before draws were counted had three, of which no cell can be significant.
    """
    area = one.row("cumulativity", "area minus control", quantity="correct")
    grows = area is not None and bool(area["p"] <= 0.05)
    overlap = one.row("overlap", "relation, shared", contrast="background")
    more = None if overlap is None or pd.isna(overlap["p"]) else bool(overlap["p"] <= 0.05)
    transfer = one.row("transfer", "language minus both", "background", "correct")
    cells = [
        one.row("interference", f"elsewhere, cells {how}", quantity="correct")
        for how in ("harmed", "improved")
    ]
    needed = one.row("interference", "elsewhere, draws needed", quantity="correct")
    enough = needed is not None and needed["value"] == 0
    clear = any(row is not None and row["value"] > 0 for row in cells)
    return {
        "cumulativity": below(area) and grows,
        "versatility, relations": more,
        "versatility, languages": below(transfer),
        "interference": clear if enough else None,
    }


def tables(path: Path) -> list[str]:
    """The page's tables, in its order."""
    found = models(read(path))
    words = {True: "holds", False: "not shown", None: "cannot be asked"}
    said = {name: holds(one) for name, one in found.items()}
    verdicts = [
        (
            name,
            *(
                UNJUDGED
                if name == "versatility, relations" and one.row(*FORMER, "background") is not None
                else TOO_FEW
                if name == "interference" and said[model][name] is None
                else words[said[model][name]]
                for model, one in found.items()
            ),
        )
        for name in next(iter(said.values()))
    ]
    return [
        _markdown(("property", *found), verdicts),
        _markdown(("", *found), _knowledge(found)),
        _markdown(("", *found), _effects(found)),
        _markdown(("", *found), _shared(found)),
        _markdown(("", *found), _depth(found)),
    ]


def _knowledge(found: dict[str, Numbers]) -> list[tuple[str, ...]]:
    rows = []
    for language in ("en", "de", "fr"):
        if all(one.row("knowledge", f"answered, {language}", "") is None for one in found.values()):
            continue
        answered = (one.row("knowledge", f"answered, {language}", "") for one in found.values())
        sets = (one.row("knowledge", f"sets, {language}", "") for one in found.values())
        rows.append((f"answered, {language}", *(plain(row, ".0%") for row in answered)))
        rows.append((f"relations ranked, {language}", *map(of_count, sets)))
    return rows


def _effects(found: dict[str, Numbers]) -> list[tuple[str, ...]]:
    rows = []
    for quantity, unit in QUANTITIES.items():
        for place, share in enumerate(("0.05%", "0.2%", "0.8%")):
            home = (
                one.row(
                    "cumulativity", "home minus control", "specific", quantity, one.doses()[place]
                )
                for one in found.values()
            )
            rows.append((f"home minus control at {share}, {unit}", *map(interval, home)))
        area = [
            one.row("cumulativity", "area minus control", "specific", quantity)
            for one in found.values()
        ]
        rows.append((f"mean over doses, minus control, {unit}", *map(interval, area)))
        trend = ("\N{EN DASH}" if a is None else _p_value(a["p"]) for a in area)
        rows.append((f"p of the trend over doses (Page's test, against no change), {unit}", *trend))
        for contrast in ("specific", "background"):
            for what, says in (
                ("home", "its own relation and language"),
                ("language", "its relation in the other language"),
                ("relation", "other relations of its language"),
                ("both", "other relations in the other language"),
                (
                    "language minus both",
                    "prompts of the other language: its relation's set minus other sets",
                ),
            ):
                cells = (one.row("transfer", what, contrast, quantity) for one in found.values())
                rows.append((f"`{contrast}` sets on {says}, {unit}", *map(interval, cells)))
    return rows


def _shared(found: dict[str, Numbers]) -> list[tuple[str, ...]]:
    rows = []
    for kind, says in (
        ("relation", "two relations of a language"),
        ("language", "a relation in two languages"),
        ("both", "two relations in two languages"),
    ):
        for what, form in (("shared", ".0f"), ("by chance", ".3g")):
            cells = [one.row("overlap", f"{kind}, {what}", "background") for one in found.values()]
            if any(cell is not None for cell in cells):
                rows.append((f"{says}: neurons {what}", *(plain(cell, form) for cell in cells)))
                if what == "shared":
                    ps = ("\N{EN DASH}" if c is None else _p_value(c["p"]) for c in cells)
                    rows.append((f"{says}: p", *ps))
        cells = [
            one.row("overlap", f"{kind}, times chance", "background") for one in found.values()
        ]
        if any(cell is not None for cell in cells):
            rows.append((f"{says}: times dose² / neurons", *(plain(cell, ".0f") for cell in cells)))
    for what in ("home", "elsewhere"):
        for how in ("harmed", "improved"):
            cells = (
                one.row("interference", f"{what}, cells {how}", quantity="correct")
                for one in found.values()
            )
            rows.append((f"cells of the matrix {how}, {what}", *map(of_count, cells)))
    return rows


def _depth(found: dict[str, Numbers]) -> list[tuple[str, ...]]:
    rows = []
    for contrast in ("specific", "background"):
        for what, says in (
            ("mean", "mean"),
            ("quantile 0.25", "a quarter lies below"),
            ("quantile 0.5", "half lies below"),
            ("quantile 0.75", "three quarters lie below"),
        ):
            cells = [one.row("depth", what, contrast) for one in found.values()]
            shown = [
                f"{plain(c, '.2f')} ({c['low']:.2f} to {c['high']:.2f})"
                if c is not None and not pd.isna(c["low"])
                else plain(c, ".2f")
                for c in cells
            ]
            rows.append((f"`{contrast}`: {says}", *shown))
    return rows


def draw(folder: Path) -> None:
    """Depth of the top sets as bars a fifth, both contrasts beside one another."""
    found = models(read(folder / "two_models.csv"))
    fig = go.Figure()
    names = [f"{20 * k}\N{EN DASH}{20 * k + 20}%" for k in range(5)]
    for (name, one), colour in zip(found.items(), COLOURS, strict=False):
        for contrast, opacity in (("specific", 1.0), ("background", 0.45)):
            rows = [one.row("depth", f"fifth {k + 1}", contrast) for k in range(5)]
            if any(row is None for row in rows):
                continue
            fig.add_bar(
                x=names,
                y=[row["value"] for row in rows if row is not None],
                name=f"{name}, {contrast}",
                marker={"color": _faded(colour, opacity)},
            )
    fig.add_hline(y=0.2, line={"color": INK, "dash": "dash", "width": 1.5})
    fig.update_layout(barmode="group", bargap=0.2)
    fig.update_xaxes(title_text="Depth: layer / (layers \N{MINUS SIGN} 1)", showgrid=False)
    fig.update_yaxes(title_text="Share of the top sets", tickformat=".0%", rangemode="tozero")
    title = "How deep the neurons of the top sets lie"
    subtitle = "Dashed: spread evenly over the depth."
    finish(fig, title, subtitle, height=320, width=860, legend=True)
    save(fig, folder / "two_models.svg", scale=1)


def _faded(colour: str, opacity: float) -> str:
    """As a colour of its own, which the legend shows too."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def _markdown(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " --- |" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
