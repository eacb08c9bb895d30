"""The report is self-contained, escapes what data says, and claims no more than its intervals."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from helpers.fake_results import EVIL, NAMES, PROMPTS, make_results
from relation_neurons.ranking.table import Ranking
from relation_neurons.report.page import build_report, make_figures
from relation_neurons.report.sentences import answer as answer_of
from relation_neurons.report.summary import claims, summarise
from relation_neurons.report.tables import fact_rows, flip_rows, home_counts, neuron_rows
from relation_neurons.results.results import Results


class _Page(HTMLParser):
    """Tags with their attributes, and the visible text, scripts apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.words = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.words += data


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results()


@pytest.fixture(scope="module")
def text(results: Results) -> str:
    return build_report(results)


@pytest.fixture(scope="module")
def page(text: str) -> _Page:
    return _Page(text)


def test_it_is_one_file_that_loads_nothing(text: str, page: _Page) -> None:
    assert len(text.encode()) < 8e6
    loads = [v for _, a in page.tags for k, v in a.items() if k in ("src", "href", "action")]
    assert loads and all(v.startswith(("#", "data:")) for v in loads)
    assert "@import" not in text.split("</style>")[0] and "url(" not in text.split("</style>")[0]


def test_no_button_uploads_a_figure(page: _Page) -> None:
    assert 'modeBarButtonsToRemove: ["sendChartToCloud"' in page.scripts[-1]


def test_plotly_is_embedded_once(page: _Page) -> None:
    assert sum(len(script) > 1_000_000 for script in page.scripts) == 1


def test_text_from_data_stays_text(text: str, page: _Page) -> None:
    assert "<script>alert(1)" not in text
    assert EVIL in page.words, "the subject is shown as it is written"
    assert "<i>other</i>" in page.words, "so is what the model said"
    assert len(page.scripts) == 2 + len([s for s in page.scripts if s.startswith("{")])


def test_figures_are_json_that_parses(page: _Page) -> None:
    holders = {a["id"] for tag, a in page.tags if tag == "div" and a.get("class") == "plot"}
    drawn = {a["data-plot"] for tag, a in page.tags if tag == "script" and "data-plot" in a}
    assert holders == drawn
    assert holders == {
        f"plot-{name}"
        for name in [
            "headline",
            "cumulativity",
            "overlap_background",
            "overlap_specific",
            "intersections",
            "interference",
            "specificity",
            "scores",
            "layers",
        ]
    }
    for script in page.scripts:
        if script.startswith("{"):
            assert "<" not in script
            assert json.loads(script)["data"]


def test_anchors_lead_somewhere_and_headers_have_a_scope(page: _Page) -> None:
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"][1:] for tag, a in page.tags if tag == "a"]
    assert set(links) <= set(ids)
    assert all(a.get("scope") in ("col", "row") for tag, a in page.tags if tag == "th")


def test_the_answer_holds_the_summary(results: Results, page: _Page) -> None:
    home = next(
        row
        for row in results.summary["headline"]
        if row["relation"] == "all relations" and row["what"] == "home"
    )
    first = answer_of(results)[0]
    assert f"\N{MINUS SIGN}{abs(home['effect']):.2f}" in first
    assert "smollm2-135m" in first and "92 neurons" in first and f"{home['n']} prompts" in first
    assert first in page.words


def test_flipped_prompts_are_those_of_the_table(results: Results, page: _Page) -> None:
    effects = results.effects
    cell = effects[
        (effects["ablated"] == "city_country")
        & (effects["relation"] == "city_country")
        & (effects["kind"] == "ranked")
        & (effects["score"] == "specific")
        & (effects["dose"] == 92)
    ]
    lost = int((cell["correct_intact"] & ~cell["correct"]).sum())
    won = int((~cell["correct_intact"] & cell["correct"]).sum())
    assert lost > 0
    assert f"city country: {lost} lost, {won} won of {PROMPTS} prompts" in page.words


def test_neurons_and_left_out_relations_are_listed(results: Results, page: _Page) -> None:
    best = results.ranking.top("word_opposite", 1).iloc[0]
    assert f"L{best.layer}N{best.neuron}" in page.words
    assert "star constellation: knows only 3 held_out facts, 10 are needed." in re.sub(
        r"\s+", " ", page.words
    )


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({"unknown": -0.45}, "question rather than its recall", "as neurons of recall would"),
        ({"unknown": -0.05}, "not yet evidence of recall", "question rather than its recall"),
        ({"unknown": None}, "it is open", "question rather than its recall"),
        ({}, "also more than the other relations' sets do", "not shown to be more harm"),
        ({"home": -0.03}, "not shown to be more harm than matched", "also more than"),
        ({"home": -0.03}, "the checks on recall say nothing", "rather than its recall"),
        ({"home": -0.09}, "not shown to be", "also more than"),
    ],
)
def test_the_answer_claims_no_more_than_its_intervals(changes, said, unsaid) -> None:
    answer = " ".join(answer_of(make_results(**changes)))
    assert said in answer and unsaid not in answer


def test_it_takes_a_summary_that_went_through_json(results: Results) -> None:
    from relation_neurons.storage.files import dumps

    loaded = json.loads(dumps(results.summary))
    again = Results(
        results.manifest,
        results.prompts,
        results.recall,
        results.ranking,
        results.effects,
        loaded,
    )
    assert "plot-scores" in build_report(again)


def test_a_run_without_controls_or_neutral_prompts_is_reported() -> None:
    full = make_results(NAMES[:2], unknown=None)
    frame = full.ranking.frame
    frame = frame[frame["score"] == "specific"].reset_index(drop=True)
    ranking = Ranking(frame, full.ranking.neurons)
    effects = full.effects[full.effects["kind"] == "ranked"]
    effects = effects[effects["score"] == "specific"].reset_index(drop=True)
    summary = summarise(full.manifest, full.recall, ranking, effects)
    page = _Page(
        build_report(Results(full.manifest, full.prompts, full.recall, ranking, effects, summary))
    )
    assert "No matched control was run" in page.words
    assert "overlap cannot be read from this run" in page.words
    assert "No relation was left out." in page.words


def test_a_card_says_what_the_tables_say_of_its_neuron(results: Results) -> None:
    frame = results.ranking.frame
    rows = neuron_rows(results, "specific", 92)
    assert len(rows) == 50 * len(NAMES)
    shared = next(row for row in rows if len(row["card"]["shared"].get("background", [])) > 1)
    for row in (rows[0], shared):
        own = frame[(frame["layer"] == row["layer"]) & (frame["neuron"] == row["neuron"])]
        card = row["card"]
        assert sorted((p["score"], p["relation"], p["rank"], p["ap"]) for p in card["found"]) == (
            sorted(own[["score", "relation", "rank", "ap"]].itertuples(index=False, name=None))
        )
        for contrast, names in card["shared"].items():
            top = own[(own["score"] == contrast) & (own["rank"] <= 92)]
            assert sorted(names) == sorted(top["relation"])
    first = rows[0]["card"]["sets"][0]
    effects = results.effects
    cell = effects[
        (effects[["ablated", "relation"]] == first["label"]).all(axis=1)
        & (effects["kind"] == "ranked")
        & (effects["score"] == "specific")
        & (effects["dose"] == first["dose"])
    ]
    change = cell["correct"].astype(float) - cell["correct_intact"].astype(float)
    assert first["dose"] == 23 and first["n"] == len(cell) == PROMPTS
    assert first["effect"] == pytest.approx(change.mean())


def test_every_fact_is_listed_with_what_its_own_set_does(results: Results) -> None:
    rows = fact_rows(results, 92, "specific")
    facts = results.prompts[["relation", "side", "subject"]].drop_duplicates()
    assert len(rows) == len(facts)
    judged = [row for row in rows if row["side"] == "held_out"]
    counts = home_counts(results, 92, "specific")
    for name in NAMES:
        own = [row for row in judged if row["relation"] == name]
        count = next(row for row in counts if row["label"] == name)
        assert (sum(r["lost"] for r in own), sum(r["won"] for r in own)) == (
            count["lost"],
            count["won"],
        )
    assert all(pd.isna(row["lost"]) for row in rows if row["side"] == "detection")
    known = results.recall["known"].sum()
    assert sum(row["known"] for row in rows) == known


def test_answers_that_change_are_those_of_the_effects_at_home_first(results: Results) -> None:
    rows = flip_rows(results, 92, "specific")
    places = [row["where"] for row in rows]
    assert places == sorted(places, key=lambda where: where != "home")
    home = [row for row in rows if row["where"] == "home"]
    counts = home_counts(results, 92, "specific")
    assert len(home) == sum(row["lost"] + row["won"] for row in counts)


def test_the_runs_seed_reaches_every_test_of_the_report(monkeypatch):
    """Another seed draws other signs, and moves neither a mean nor an interval."""
    made, original, found = make_results(NAMES[:3]), np.random.default_rng, {}
    for seed in (0, 7):
        seeds = set()

        def spied(given, seeds=seeds):
            if not isinstance(given, np.random.Generator):
                seeds.add(given[0] if isinstance(given, list) else given)
            return original(given)

        results = replace(made, manifest=made.manifest | {"seed": seed}, summary={})
        with monkeypatch.context() as patch:
            patch.setattr(np.random, "default_rng", spied)
            summary = summarise(results.manifest, results.recall, results.ranking, results.effects)
            table = claims(results, summary["dose"])["specificity"]
            figures = make_figures(replace(results, summary=summary))
        assert seeds == {seed}
        found[seed] = (
            pd.DataFrame(summary["headline"]),
            pd.DataFrame(table),
            figures["cumulativity"],
        )
    for one, other in zip(found[0][:2], found[7][:2], strict=True):
        pd.testing.assert_frame_equal(one, other)
    assert found[0][2] == found[7][2]
