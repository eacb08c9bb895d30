"""Objects show themselves in a notebook: what they hold, in little, and with no markup from data."""

from __future__ import annotations

import sys
import types
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.fake_results import EVIL
from helpers.paths import ROOT
from relation_neurons.activations.table import ActivationTable
from relation_neurons.experiment.comparison import Comparison
from relation_neurons.progress import progress_bar
from relation_neurons.ranking.table import Ranking
from relation_neurons.relations.relation import Fact, Relation, Template
from relation_neurons.results.results import load_results, read_prompts

REFERENCE = ROOT / "results" / "reference"
ALLOWED = {"div", "style", "strong", "p", "table", "thead", "tbody", "tr", "th", "td"}


class _Parts(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.words += " "  # between cells

    def handle_data(self, data):
        self.words += "" if self.tags[-1] == "style" else data


def shown(thing: object) -> str:
    """What a notebook shows, checked to hold no tag but the view's own."""
    page = thing._repr_html_()
    parts = _Parts(page)
    assert set(parts.tags) <= ALLOWED and len(page) < 30_000
    return " ".join(parts.words.split())


def make_relation(count: int = 40) -> Relation:
    facts = [Fact(EVIL, ("Paris", "Lutetia"))]
    facts += [Fact(f"subject {i}", ("Rome" if i % 2 else f"answer {i}",)) for i in range(count - 1)]
    templates = (Template("The capital of {} is"), Template("<b>{}</b>?", "question", "held_out"))
    return Relation("country_<i>capital</i>", tuple(facts), templates, description=EVIL)


@pytest.fixture(scope="module")
def results():
    return load_results(REFERENCE)


def test_a_relation_shows_its_templates_and_first_facts() -> None:
    words = shown(make_relation())
    assert "country <i>capital</i>" in words and "The capital of {} is" in words
    assert "40 facts in en; the commonest answer, Rome, would be right for 48%" in words
    assert " ".join(EVIL.split()) in words and "Lutetia" in words
    assert "and 34 more" in words and "subject 30" not in words


def test_prompts_show_the_split_and_an_example() -> None:
    prompts = read_prompts(REFERENCE / "prompts.parquet")
    words = shown(prompts)
    facts = int((prompts.frame["kind"] == "fact").sum())
    assert f"{len(prompts):,} prompts" in words and f"{facts:,} on facts" in words
    own = prompts.frame[prompts.frame["relation"] == "city_country"]
    own = own[(own["kind"] == "fact") & (own["side"] == "held_out")]
    counts = f"{own['subject'].nunique()} {own['template'].nunique()}"
    assert f"city_country held out {counts} {own['text'].iloc[0]}" in words


def test_activations_show_whose_rows_they_are_and_the_loudest_neurons() -> None:
    prompts = pd.DataFrame(
        {
            "relation": ["country_capital"] * 3 + [EVIL],
            "language": "en",
            "kind": ["fact", "fact", "nonsense", "fact"],
            "template": ["The capital of {} is", "<b>{}</b>?", "<b>{}</b>?", EVIL],
        }
    )
    elsewhere = torch.full((2, 20), 0.5)
    elsewhere[1, 3] = 2.0
    first = torch.zeros(2, 20)
    first[0, 7] = 40.0  # a sink: more than ten times the loudest elsewhere
    first[1, 5] = 19.0  # none: not ten times as much
    table = ActivationTable(
        torch.zeros(4, 2, 20), prompts, torch.zeros(2, 20), elsewhere, first, "mean", "post"
    )
    words = shown(table)
    assert "Activations of 4 prompts, 2 layers of 20 neurons" in words
    assert "at post, pooled by mean" in words
    assert "country_capital on facts 2 2 country_capital with nonsense subjects 1 1" in words
    assert f"{' '.join(EVIL.split())} on facts 1 1" in words
    assert "Flag L0N7 0.5 40 sink L1N3 2 0 L" in words, "sinks first, then the loudest"
    assert words.count("sink") == 1
    nothing = table.take(np.zeros(4, bool))
    assert "Activations of 0 prompts" in shown(nothing)


def test_a_ranking_shows_the_first_neurons_of_every_score(results) -> None:
    words = shown(results.ranking)
    for contrast in ("specific", "background"):
        top = results.ranking.top("country_capital", 4, contrast=contrast)
        names = ", ".join(f"L{r.layer}N{r.neuron}" for r in top.itertuples())
        assert f"country_capital {contrast} {top['ap'].iloc[0]:.3f} {names}" in words
    assert "of 46,080 neurons at post" in words and "Ranking of 8 relations" in words
    renamed = results.ranking.frame.assign(relation=EVIL)
    hostile = Ranking(renamed, results.ranking.neurons, left_out={EVIL: "too few"})
    words = shown(hostile)
    assert "Ranking of 1 relation " in words and words.count(" ".join(EVIL.split())) == 5
    empty = Ranking(results.ranking.frame.iloc[:0], results.ranking.neurons)
    assert "Ranking of 0 relations" in shown(empty)


def test_results_show_the_headline(results) -> None:
    words = shown(results)
    home = next(
        row
        for row in results.summary["headline"]
        if row["relation"] == "all relations" and row["what"] == "home"
    )
    said = f"all relations {home['effect']:+.2f}".replace("-", "\N{MINUS SIGN}")
    assert said in words and "A run of smollm2-135m" in words
    assert f"{len(results.effects):,} rows of effects; 92 neurons ablated" in words


def test_a_comparison_shows_its_standings() -> None:
    row = {"place": 1, "by": "auroc", "site": "post", "end": "top", "dose": 1000, "home": -0.4}
    row |= {"control": float("nan"), "specificity": -0.3, "low": -0.5, "high": 0.001}
    nothing = pd.DataFrame()
    words = shown(Comparison(pd.DataFrame([row]), nothing, nothing, nothing))
    minus = "\N{MINUS SIGN}"
    assert f"auroc (post, top) 1,000 {minus}0.30 ({minus}0.50 to 0.00) {minus}0.40 n/a" in words


@pytest.mark.parametrize("config", [{"IPKernelApp": {}}, {}], ids=["notebook", "shell"])
def test_a_bar_is_shown_in_a_notebook_though_its_output_is_no_terminal(config, monkeypatch) -> None:
    shell = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(config=config))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.delenv("RELATION_NEURONS_QUIET")
    with progress_bar(3, "recall") as bar:
        assert bar.disable is ("IPKernelApp" not in config)
    monkeypatch.setenv("RELATION_NEURONS_QUIET", "1")
    with progress_bar(3, "recall") as bar:
        assert bar.disable
