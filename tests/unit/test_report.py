"""The report is self-contained, escapes what data says, and claims no more than its intervals."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from relation_neurons.ranking import Ranking
from relation_neurons.report import build_report
from relation_neurons.report_words import answer as answer_of
from relation_neurons.results import Results
from relation_neurons.summary import summarise

NAMES = [
    "city_country",
    "country_capital",
    "country_continent",
    "country_language",
    "country_neighbor",
    "landmark_country",
    "thing_kind",
    "word_opposite",
]
EVIL = "<script>alert(1)</script> & <b>Co</b>"
DOSES, LAYERS, WIDTH, PROMPTS = (23, 92, 369), 30, 1536, 16


def make_results(names=NAMES, *, home=-0.45, unknown=-0.40, seed=0, sinks=4) -> Results:
    """A run as it would be, with chosen effects and no model."""
    rng = np.random.default_rng(seed)
    rows = []
    for relation in names:
        for side, count in (("detection", 30), ("held_out", PROMPTS)):
            for i in range(count):
                subject = EVIL if i == 0 else f"{relation} subject {i}"
                rows.append((relation, "en", subject, f"answer {i % 7}", side, i))
    prompts = pd.DataFrame(rows, columns=["relation", "language", "subject", "answer", "side", "i"])
    prompts.insert(0, "prompt_id", range(len(prompts)))
    prompts["kind"] = "fact"
    prompts["template"] = "The answer for {} is"
    prompts["text"] = [f"The answer for {subject} is" for subject in prompts["subject"]]
    known = rng.random(len(prompts)) < 0.75
    known[prompts["i"] == 0] = True
    recall = prompts[["prompt_id", "relation", "language", "subject", "side"]].assign(
        known=known, margin=rng.normal(1, 2, len(prompts)), logprob=-1.0, logprob_per_token=-1.0
    )
    recall["predicted"] = [
        " " + a if k else " wrong" for a, k in zip(prompts.answer, known, strict=True)
    ]
    asked = prompts[prompts["side"] == "held_out"]
    intact = known[asked["prompt_id"]]

    def condition(relation, kind, score, dose, draw, base):
        rate = {23: 0.45, 92: 1.0, 369: 1.5}[dose]
        at_home = (asked["relation"] == relation).to_numpy()
        drop = np.where(at_home, base[0], base[1]) * rate / intact.mean()
        correct = intact & (rng.random(len(asked)) > -drop)
        correct |= ~intact & (rng.random(len(asked)) < 0.04)
        if kind == "ranked" and home < -0.1:
            correct[at_home & (asked["i"] == 0).to_numpy()] = False
        return pd.DataFrame(
            {
                "ablated": relation,
                "ablated_language": "en",
                "kind": kind,
                "score": score,
                "dose": dose,
                "draw": draw,
                "prompt_id": asked["prompt_id"].to_numpy(),
                "relation": asked["relation"].to_numpy(),
                "language": "en",
                "template_held_out": True,
                "correct_intact": intact,
                "correct": correct,
                "margin_intact": 1.0,
                "margin": 1.0 + (correct.astype(float) - intact),
                "logprob_intact": -1.0,
                "logprob": -1.2,
                "predicted": np.where(correct, "right", " <i>other</i>"),
            }
        )

    parts = []
    for relation in names:
        for dose in DOSES:
            parts.append(condition(relation, "ranked", "specific", dose, 0, (home, -0.07)))
            for draw in range(2):
                for kind, base in (("control_contribution", -0.03), ("control_layer", -0.01)):
                    parts.append(condition(relation, kind, "specific", dose, draw, (base, base)))
        if unknown is not None:
            parts.append(condition(relation, "ranked", "unknown", 92, 0, (unknown, -0.07)))
    effects = pd.concat(parts, ignore_index=True)

    tops = []
    for score in ("specific", "background", "unknown"):
        for k, relation in enumerate(names):
            peak = rng.normal(12 + k % 8, 4, 2400).clip(0, LAYERS - 1).round().astype(int)
            pool = 60 if score == "background" else WIDTH
            pairs = dict.fromkeys(zip(peak, rng.integers(0, pool, 2400), strict=True))
            pairs = list(pairs)[:400]
            tops.append(
                pd.DataFrame(
                    {
                        "score": score,
                        "relation": relation,
                        "language": "en",
                        "rank": np.arange(1, len(pairs) + 1),
                        "layer": [a for a, _ in pairs],
                        "neuron": [b for _, b in pairs],
                        "ap": np.linspace(1, 0.8, len(pairs)),
                        "d_prime": np.linspace(6, 2, len(pairs)),
                        "mean_positive": 1.0,
                        "mean_negative": 0.0,
                        "is_sink": np.arange(len(pairs)) % 97 < (sinks > 0),
                    }
                )
            )
    neurons = pd.DataFrame(
        {"layer": np.repeat(range(LAYERS), WIDTH), "neuron": np.tile(range(WIDTH), LAYERS)}
    )
    ranking = Ranking(pd.concat(tops, ignore_index=True), neurons, "post")
    ranking.left_out["star_constellation"] = "knows only 3 held_out facts, 10 are needed"
    manifest = {
        "model": {
            "name": "smollm2-135m",
            "weight_hash": "ab" * 32,
            "n_layers": LAYERS,
            "d_mlp": WIDTH,
            "n_neurons": LAYERS * WIDTH,
            "dtype": "float32",
            "device": "cpu",
        },
        "options": {"score": "specific", "site": "post", "min_known": 10},
        "seed": 0,
        "versions": {"relation_neurons": "0.1.0", "torch": "2.9"},
        "relations": [
            {
                "name": name,
                "language": "en",
                "description": f"About {name}. {EVIL}",
                "facts": 46,
                "templates": [{"text": "The {} is", "form": "statement", "side": "detection"}],
                "source": "https://example.org/data",
                "copied": 1,
                "rows": {"duplicates": 2},
                "majority_object": "answer 0",
                "majority_share": 0.15,
            }
            for name in names
        ],
        "bos": "none",
        "padding": "left, masked",
    }
    summary = summarise(manifest, recall, ranking, effects)
    return Results(manifest, prompts, recall, ranking, effects, summary)


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
        ({"unknown": -0.05}, "no evidence of recall yet", "question rather than its recall"),
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
    from relation_neurons.files import dumps

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
