"""Compares runs of one design on several models: the three properties, and how deep the neurons lie.

    python scripts/two_models.py NAME=FOLDER NAME=FOLDER --out docs

Writes `two_models.csv`, a row per number, and `two_models.svg`. What is measured, of sets of the judged
dose against their contribution-matched controls on the same prompts (mean net flips, and median logits of
margin, with intervals over facts in which a subject of several relations counts once):

cumulativity   home, each dose and the trend over doses, all relations and languages together
transfer       sets on the same relation (`home`), on it in another language (`language`), on another
               relation of the language (`relation`), on another of another language (`both`), and the
               same prompts under `language` minus under `both`
overlap        neurons that two top sets share, and by chance (dealt roles), for the same three kinds of pairs
interference   cells beside home with a significant difference, and those that improved
depth          layer / (layers - 1) of the top sets: mean over relations with Student's interval, quartiles,
               and the share in each fifth of the depth
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import two_models_page
from scipy import stats

import relation_neurons as rn
from relation_neurons.analysis.effects import (
    QUANTITIES,
    effect_cells,
    estimate,
    paired_changes,
    same_language,
)
from relation_neurons.analysis.resampling import by_fact, sign_flip_test

COLUMNS = [
    "model",
    "property",
    "score",
    "what",
    "quantity",
    "dose",
    "value",
    "low",
    "high",
    "p",
    "n",
]
KINDS = {
    (True, True): "home",
    (True, False): "language",
    (False, True): "relation",
    (False, False): "both",
}
CONTRASTS = ("specific", "background")
FIFTHS = 5
Row = dict[str, Any]


def knowledge(results: rn.Results) -> Iterator[Row]:
    """Share of held-out prompts that the intact model answers, by language; and what was ranked."""
    asked = results.recall[results.recall["side"] == "held_out"]
    ranked = [language for _, language in results.ranking.labels("specific")]
    for language, cell in asked.groupby("language"):
        yield {"what": f"answered, {language}", "value": cell["known"].mean(), "n": len(cell)}
        count = cell["relation"].nunique()
        yield {"what": f"sets, {language}", "value": ranked.count(language), "n": count}


def cumulativity(results: rn.Results) -> Iterator[Row]:
    """Home at each dose, and the trend, of all languages together."""
    pooled = same_language(results.effects).assign(ablated_language="all", language="all")
    for quantity in QUANTITIES:
        paired = paired_changes(pooled).query("relation == ablated")
        for row in effect_cells(paired, ["dose"], quantity=quantity).itertuples():
            shared = {"quantity": quantity, "dose": row.dose, "n": row.n}
            yield {"what": "home", "value": row.effect, **shared}
            yield {"what": "control", "value": row.control, **shared}
            yield {
                "what": "home minus control",
                "value": row.difference,
                "low": row.low,
                "high": row.high,
                "p": row.p_sign_flip,
                **shared,
            }
        numbers = rn.dose_numbers(pooled, quantity=quantity)
        (row,) = numbers.query("ablated == 'all relations' and where == 'home'").to_dict("records")
        yield {
            "what": "area minus control",
            "quantity": quantity,
            "value": row["area_difference"],
            "low": row["difference_low"],
            "high": row["difference_high"],
            "p": row["p_trend"],
            "n": row["n"],
        }


def transfer(results: rn.Results, contrast: str) -> Iterator[Row]:
    """What sets do at home, in other languages, to other relations, and to others of other languages."""
    dose = results.summary["dose"]
    paired = paired_changes(results.effects, contrast=contrast).query("dose == @dose")
    same = zip(
        paired["ablated"] == paired["relation"],
        paired["ablated_language"] == paired["language"],
        strict=True,
    )
    paired = paired.assign(kind=[KINDS[bool(a), bool(b)] for a, b in same])
    for quantity in QUANTITIES:
        for row in effect_cells(paired, ["kind"], quantity=quantity).itertuples():
            yield {
                "what": row.kind,
                "quantity": quantity,
                "dose": dose,
                "value": row.difference,
                "low": row.low,
                "high": row.high,
                "p": row.p_sign_flip,
                "n": row.n,
            }
        each = paired.groupby(["prompt_id", "fact", "kind"])[f"{quantity}_difference"].mean()
        each = each.unstack("kind")
        for one, other in (("home", "relation"), ("language", "both")):
            if one in each and other in each:
                gap = (each[one] - each[other]).dropna()
                facts = gap.index.get_level_values("fact")
                value, low, high = estimate(gap.to_numpy(), facts, quantity)
                yield {
                    "what": f"{one} minus {other}",
                    "quantity": quantity,
                    "dose": dose,
                    "value": value,
                    "low": low,
                    "high": high,
                    "p": sign_flip_test(by_fact(gap.to_numpy(), facts)),
                    "n": len(gap),
                }


def overlap(results: rn.Results, contrast: str) -> Iterator[Row]:
    """Neurons that all pairs of a kind share, what the run's deals expect, and the p of that one test."""
    dose = results.summary["dose"]
    for row in rn.overlap_total(results.ranking, dose=dose, contrast=contrast).itertuples():
        if row.pairs == "all":
            continue
        shared = {"dose": dose, "n": row.n}
        yield {"what": f"{row.pairs}, shared", "value": row.shared, "p": row.p_value, **shared}
        yield {"what": f"{row.pairs}, by chance", "value": row.expected, **shared}


def interference(results: rn.Results) -> Iterator[Row]:
    """Cells of the matrix that stand out."""
    for quantity in QUANTITIES:
        cells = rn.interference_matrix(results.effects, quantity=quantity)
        home = cells["ablated"] == cells["relation"]
        for name, part in (("home", cells[home]), ("elsewhere", cells[~home])):
            needed = int(part["draws_needed"].max())
            yield {"what": f"{name}, draws needed", "quantity": quantity, "value": needed}
            clear = part[part["significant"]]
            for sign, found in (
                ("harmed", clear["difference"] < 0),
                ("improved", clear["difference"] > 0),
            ):
                yield {
                    "what": f"{name}, cells {sign}",
                    "quantity": quantity,
                    "value": int(found.sum()),
                    "n": len(part),
                }


def depth(results: rn.Results, contrast: str) -> Iterator[Row]:
    """Where the top sets lie; a set spread evenly over the layers has the mean 0.5."""
    dose, layers = results.summary["dose"], results.manifest["model"]["n_layers"]
    frame = results.ranking.frame
    top = frame[(frame["score"] == contrast) & (frame["rank"] <= dose)]
    share = top["layer"] / (layers - 1)
    means = share.groupby(top["relation"].astype(str)).mean()
    low, high = stats.t.interval(0.95, len(means) - 1, means.mean(), stats.sem(means))
    yield {
        "what": "mean",
        "dose": dose,
        "value": share.mean(),
        "low": low,
        "high": high,
        "n": len(means),
    }
    for quartile in (0.25, 0.5, 0.75):
        yield {"what": f"quantile {quartile}", "dose": dose, "value": share.quantile(quartile)}
    every = np.arange(layers) / (layers - 1)
    edges = np.linspace(0, 1, FIFTHS + 1)
    edges[-1] = 1.01
    found, even = (np.histogram(values, edges)[0] / len(values) for values in (share, every))
    for fifth in range(FIFTHS):
        yield {"what": f"fifth {fifth + 1}", "dose": dose, "value": found[fifth]}
        yield {"what": f"fifth {fifth + 1}, spread evenly", "value": even[fifth]}


def measure(name: str, results: rn.Results) -> list[Row]:
    """Every number of one model."""
    rows = []
    parts: list[tuple[str, str, Any]] = [
        ("knowledge", "", knowledge(results)),
        ("cumulativity", "specific", cumulativity(results)),
        ("interference", "specific", interference(results)),
    ]
    for contrast in CONTRASTS:
        parts += [
            ("transfer", contrast, transfer(results, contrast)),
            ("overlap", contrast, overlap(results, contrast)),
            ("depth", contrast, depth(results, contrast)),
        ]
    for what, contrast, found in parts:
        rows += [{"model": name, "property": what, "score": contrast, **row} for row in found]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    rows = []
    for run in given.runs:
        name, _, folder = run.partition("=")
        rows += measure(name, rn.load_results(folder))
    table = pd.DataFrame(rows, columns=COLUMNS)
    table.to_csv(given.out / "two_models.csv", index=False, float_format="%.4f")
    print("\n\n".join(two_models_page.tables(given.out / "two_models.csv")))
    two_models_page.draw(given.out)


if __name__ == "__main__":
    main()
