"""Numbers that pages state about the reference run, recomputed from its committed tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import relation_neurons as rn
from relation_neurons.analysis.contrasts import headline
from relation_neurons.analysis.families import claim_families, claim_sentences
from relation_neurons.analysis.flips import NEAR_TIE, turned_right
from relation_neurons.formatting import interval, number

ROOT = Path(__file__).parents[2]


def text(name: str) -> str:
    """A page on one line, as sentences are wrapped."""
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def results():
    return rn.load_results(ROOT / "results" / "reference")


@pytest.fixture(scope="module")
def effects(results):
    """Sets ranked by `specific` and their controls, with the change of each prompt."""
    rows = results.effects[results.effects["score"] == "specific"]
    names = ("ablated", "relation", "kind", "fact")
    return rows.assign(
        **{name: rows[name].astype(str) for name in names},
        correct_change=rows["correct"].astype(float) - rows["correct_intact"].astype(float),
        margin_change=rows["margin"].astype(float) - rows["margin_intact"].astype(float),
    )


@pytest.fixture(scope="module")
def matrix(results):
    """The tested cells of the reference run."""
    dose = results.summary["dose"]
    return rn.interference_matrix(results.effects, results.home_draws, dose=dose)


@pytest.mark.parametrize("dose", [92, 369])
def test_the_table_of_the_method(results, dose):
    found = headline(results.effects, dose=dose).set_index(["relation", "what"])
    row = found.loc["all relations"]
    home = row.loc["home"]
    cells = [
        f"{number(home['effect'])} ({interval(home['low'], home['high'])})",
        *(
            number(row.loc[what, "effect"])
            for what in ("elsewhere", "control_contribution", "control_layer")
        ),
        f"{int(home['n'])}, unseen wordings",
    ]
    assert f"| default, {dose} | {' | '.join(cells)} |" in text("docs/method.md")


def test_how_often_random_neurons_flip_near_ties(effects):
    rows = effects[effects["kind"] == "control_contribution"]
    rows = rows[rows["margin_intact"].abs() < NEAR_TIE]
    share = (rows["correct"] != rows["correct_intact"]).groupby(rows["dose"]).mean()
    *most, last = (f"{100 * value:.0f}" for value in share.sort_index())
    said = f"{', '.join(most)} and {last}% of near ties, by dose"
    assert said in text("relation_neurons/analysis/flips.py")


def test_near_ties_among_the_facts_turned_right(results):
    found = turned_right(results.effects, results.prompts, results.recall, dose=92)
    right = found[(found["flip"] == "right") & (found["where"] == "elsewhere")]
    near = right[right["near_tie"]]
    of_all, of_near = (f"{100 * part['control_share'].mean():.0f}%" for part in (right, near))
    assert len(right) == 17 and len(near) == 9
    said = f"random neurons flip {of_all} of the 17 too ({of_near} of the nine)"
    assert said in text("README.md")


@pytest.mark.parametrize(
    ("quantity", "said"),
    [
        ("correct", "correlate by {low} to {high} in single relations and by {pooled} over"),
        ("margin", "(margins: {low} to {high}, and {pooled})"),
    ],
)
def test_how_the_wordings_of_a_fact_correlate(effects, quantity, said):
    rows = effects[(effects["dose"] == 92) & (effects["ablated"] == effects["relation"])]
    keys = ["relation", "fact", "prompt_id", "kind"]
    changes = rows.groupby(keys)[f"{quantity}_change"].mean().unstack("kind")
    difference = changes["ranked"] - changes["control_contribution"]
    pairs = difference.groupby(level=["relation", "fact"]).apply(list)
    pairs = pairs[pairs.map(len) == 2]

    def correlation(part: pd.Series) -> float:
        return float(np.corrcoef(np.array(part.tolist()).T)[0, 1])

    alone = pairs.groupby(level="relation").apply(correlation)
    numbers = {"low": alone.min(), "high": alone.max(), "pooled": correlation(pairs)}
    written = {name: number(value).lstrip("+") for name, value in numbers.items()}
    assert said.format(**written) in text("docs/method.md")


def p_text(p: float) -> str:
    """A p-value as the README writes it."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def test_the_table_of_the_readme(results, matrix):
    """Every row: home, elsewhere, control, their difference, the random sets read, and p."""
    found = pd.DataFrame(results.summary["headline"]).set_index(["relation", "what"])["effect"]
    ends = pd.DataFrame(results.summary["headline"]).set_index(["relation", "what"])
    rows = []
    home = matrix[matrix["family"] == "home"].set_index("ablated")
    for name in home.index[np.argsort(home["effect"], kind="stable")]:
        cell, p = home.loc[name], p_text(home.loc[name, "p_value"])
        draws, said = f"{cell['draws']}", f"**{p}**" if cell["significant"] else p
        rows.append((name, cell["difference"], cell["low"], cell["high"], draws, said))
    (total,) = (
        row
        for row in results.summary["contrasts"]
        if (row["relation"], row["against"]) == ("all relations", "control_contribution")
    )
    ends_of = (total["difference"], total["low"], total["high"])
    rows.append(("all relations", *ends_of, "", f"**{p_text(total['p_value'])}**"))
    written = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, difference, low, high, draws, p in rows:
        own = ends.loc[(name, "home")]
        cells = [
            f"**{name}**" if name == "all relations" else name,
            f"{number(own['effect'])} ({interval(own['low'], own['high'])})",
            number(found[name, "elsewhere"]),
            number(found[name, "control_contribution"]),
            f"{number(difference)} ({interval(low, high)})",
            draws,
            p,
        ]
        assert f"| {' | '.join(cells)} |" in written


def test_what_the_readme_says_of_random_sets(results, matrix):
    """Opposites beside the random sets drawn for them; and what takes more draws."""
    said = text("README.md")
    home = matrix[matrix["family"] == "home"].set_index("ablated")
    drawn = results.home_draws
    drawn = drawn[drawn["ablated"].astype(str) == "word_opposite"]
    changes = drawn["correct"].astype(float) - drawn["correct_intact"].astype(float)
    worse = changes.groupby(drawn["draw"]).mean() <= home.loc["word_opposite", "effect"] + 1e-9
    cell = home.loc["word_opposite"]
    q = f"q = {cell['q_value']:.2g}"
    assert f"{int(worse.sum())} of {cell['draws']} random sets" in said and q in said
    for sentence in claim_sentences(claim_families(matrix)).values():
        assert sentence.rstrip(".") in said.replace("`", "")


@pytest.mark.parametrize(
    ("positives", "above", "bound"),
    [(10, 10, 0.331), (48, 48, 0.312), (60, 10, 0.683), (200, 4 * 200 / 11, 0.521)],
)
def test_the_bound_on_a_second_relations_average_precision(positives, above, bound):
    places = np.arange(1, positives + 1)
    assert np.mean(places / (above + places)) == pytest.approx(bound, abs=5e-4)
    assert f"{bound}" in text("docs/method.md")
