"""Numbers that pages state about the reference run, recomputed from its committed tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import relation_neurons as rn
from relation_neurons.analysis.cell_tests import claim_families, false_discovery
from relation_neurons.analysis.contrasts import headline
from relation_neurons.analysis.draw_tests import ALPHA
from relation_neurons.analysis.effects import effect_cells, paired_changes
from relation_neurons.analysis.flips import NEAR_TIE, turned_right
from relation_neurons.formatting import interval, number
from relation_neurons.plots.claims import claim_sentences
from relation_neurons.results.verification import verify_folder

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


def test_the_sentences_of_the_readme_on_all_relations(results, matrix):
    said, dose = text("README.md"), results.summary["dose"]
    rows = {
        row["against"]: row
        for row in results.summary["contrasts"]
        if row["relation"] == "all relations"
    }
    for against, written in (
        ("others", "on the same prompts ({}, {})"),
        ("unknown", "gets wrong differ by {} ({})"),
        ("nonsense", "nonsense subjects by {} ({})"),
    ):
        row = rows[against]
        ends = interval(row["low"], row["high"])
        assert written.format(number(row["difference"]), ends) in said, against
    (curve,) = (
        row
        for row in results.summary["cumulativity"]
        if (row["ablated"], row["where"]) == ("all relations", "home")
    )
    assert f"random sets of the same doses (p = {curve['p_trend']:.2g})" in said
    assert f"half of the last is reached at {curve['half_dose']:.0f} neurons" in said
    first, middle, last = (
        number(
            headline(results.effects, dose=one)
            .set_index(["relation", "what"])
            .loc[("all relations", "home"), "effect"]
        )
        for one in (23, dose, 369)
    )
    assert f"{first}, {middle} and {last} at 0.05%, 0.2% and 0.8%" in said
    alone = []
    for one in (dose, 369):
        paired = paired_changes(results.effects)
        cells = effect_cells(paired[paired["dose"] == one], ["ablated", "relation"])
        alone.append(int((false_discovery(cells["p_sign_flip"]) <= ALPHA).sum()))
    assert alone == [5, 14]
    assert "five cells of the matrix would have a star at this dose, and 14 at 0.8%" in said


def test_what_the_readme_says_of_random_sets_beside_large_cells(effects, matrix):
    said = text("README.md")
    here = effects[effects["dose"] == 92]
    random = here[here["kind"] == "control_contribution"]
    drawn = random.groupby(["relation", "ablated", "draw"])["correct_change"].mean()
    opposites = drawn["word_opposite"]
    cells = matrix.set_index(["ablated", "relation"])["effect"]
    worse = opposites[opposites < cells["word_opposite", "word_opposite"]]
    assert len(opposites) == 80 and len(worse) == 1
    own = number(cells["word_opposite", "word_opposite"])
    assert f"more harm to opposites ({number(worse.item())}) than their own ({own})" in said
    large = [number(cells["country_neighbor", name]) for name in ("word_opposite", "city_country")]
    beside = [
        number(drawn[name, "country_neighbor"].min()) for name in ("word_opposite", "city_country")
    ]
    assert f"{large[0]} on opposites and {large[1]} on city" in said
    assert f"do {beside[0]} and {beside[1]} at most" in said


def test_what_the_readme_says_of_overlap_and_collateral_damage(results):
    said, dose = text("README.md"), results.summary["dose"]
    total = rn.overlap_total(results.ranking, dose=dose).set_index("pairs").loc["all"]
    assert (
        f"{total['shared']:.0f} over all pairs of `background` sets where {total['expected']:.0f} are "
        f"shared by chance (p = {total['p_value']:.2g})" in said
    )
    pairs = rn.overlap_matrix(results.ranking, dose=dose)
    top = pairs[pairs["relation"] < pairs["other"]].nlargest(1, "shared").iloc[0]
    assert (top["relation"], top["other"]) == ("city_country", "landmark_country")
    assert f"the cities and the landmarks, {top['shared']}" in said
    damage = {(row["dose"], row["kind"]): row for row in results.summary["collateral"]}
    ranked, control = damage[dose, "ranked"]["kl"], damage[dose, "control_contribution"]["kl"]
    assert f"{ranked:.3f} nats of KL a token on neutral text, against {control:.3f} under" in said
    worst = damage[369, "ranked"]
    assert worst["worst"] == "country_language" and f"costs {worst['worst_kl']:.2f}" in said


@pytest.mark.parametrize(
    ("positives", "above", "bound"),
    [(10, 10, 0.331), (48, 48, 0.312), (60, 10, 0.683), (200, 4 * 200 / 11, 0.521)],
)
def test_the_bound_on_a_second_relations_average_precision(positives, above, bound):
    places = np.arange(1, positives + 1)
    assert np.mean(places / (above + places)) == pytest.approx(bound, abs=5e-4)
    assert f"{bound}" in text("docs/method.md")


def test_the_folder_holds_what_its_options_imply(results):
    """Draws at home among it: they go on as the rule has it, to the last row."""
    wrong = [str(check) for check in verify_folder(results.folder) if not check]
    assert [one for one in wrong if "report.html" not in one] == [], "the report is made, not kept"
