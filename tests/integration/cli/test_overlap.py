"""`relation-neurons overlap`: from a spreadsheet to the heatmap, with what it takes to read it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from typer.testing import CliRunner

import relation_neurons as rn
from relation_neurons.cli.app import app
from relation_neurons.errors import DoseError, ResultsError, UnknownOptionError


@pytest.fixture(scope="module")
def planted():
    return rn.planted_model(relations=3, seed=0)


@pytest.fixture
def overlap(planted, monkeypatch, tmp_path):
    """The command on a file of planted relations."""
    path = tmp_path / "facts.csv"
    rn.save_relations(planted.relations, path)
    monkeypatch.setattr("relation_neurons.models.loading.load_model", lambda name: planted.model)

    def run(*more):
        words = ["overlap", str(path), "--out", str(tmp_path / "mine.html"), *map(str, more)]
        return CliRunner().invoke(app, words)

    return run, path, tmp_path / "mine.html"


@pytest.mark.parametrize("options", [{}, {"seed": 3, "held_out": 16}])
def test_it_draws_and_says_what_the_functions_give(planted, overlap, options):
    run, path, page = overlap
    words = [
        part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)
    ]
    done = run("--dose", 6, *words)
    assert done.exit_code == 0, done.output
    relations = rn.load_relations(path)
    prompts = rn.make_prompts(relations, planted.model.tokenizer, **options)
    recall = rn.measure_recall(planted.model, prompts)
    table = rn.collect_activations(planted.model, prompts.detection)
    null = rn.overlap_null(
        table, recall, keep=6, contrasts=("background",), seed=options.get("seed", 0)
    )
    matrix = rn.overlap_matrix(rn.rank_neurons(table, recall), dose=6, null=null)
    said = r"^  (\w+) and (\w+): (\d+) \(by chance (\S+), p = (\S+)\)"
    pairs = re.findall(said, done.output, flags=re.MULTILINE)
    cells = matrix.set_index(["relation", "other"])
    assert len(pairs) == 3
    for one, other, count, expected, p in pairs:
        row = cells.loc[(one, other)]
        assert int(count) == row["shared"]
        assert (expected, p) == (f"{row['expected']:.2g}", f"{row['p_value']:.2g}")
    total = matrix.attrs
    assert (
        f"all pairs: {total['shared_total']:,.0f} (by chance {total['expected_total']:.3g}"
        in done.output
    )
    assert f"p = {total['p_total']:.2g}; chance is 99 deals" in done.output
    stability = rn.ranking_stability(
        table, recall, dose=6, contrasts=("background",), seed=options.get("seed", 0)
    )
    halves = stability[stability["what"] == "halves"]
    halves = halves.groupby("relation", sort=False)["shared"].mean() / 6
    assert halves.isna().all() == (not options), "9 facts in a half are too few"
    for name, share in halves.items():
        said = "" if np.isnan(share) else f"{share:.0%} from the other half of the facts, "
        assert re.search(rf"  {name}: {said}\d+% from the other wording", done.output)
    text = page.read_text(encoding="utf-8")
    assert "Overlap of the top 6 neurons" in text and "cdn" not in text.split("plotly.js v")[0]
    assert "3 would be ranked, 0 left out" in done.output and f"written: {page}" in done.output


def test_one_relation_alone_makes_no_heatmap(overlap):
    run, _, page = overlap
    done = run("--min-known", 1000)
    assert done.exit_code == 1 and "takes two relations; nothing is written" in done.output
    assert not page.exists()


def test_what_cannot_be_done_is_said_before_a_model_is_loaded(overlap, monkeypatch, tmp_path):
    def loaded(name):
        raise AssertionError("no model is to be loaded")

    monkeypatch.setattr("relation_neurons.models.loading.load_model", loaded)
    run, _, page = overlap
    assert isinstance(run("--held-out", 0).exception, UnknownOptionError)
    assert isinstance(run("--dose", "many").exception, DoseError)
    page.write_text("mine")
    done = run()
    assert isinstance(done.exception, ResultsError) and "is there already" in str(done.exception)
    assert page.read_text() == "mine"
    other = run("--out", tmp_path / "mine.png")
    assert isinstance(other.exception, ResultsError) and ".html" in str(other.exception)
    lost = run("--out", tmp_path / "no folder" / "mine.html")
    assert isinstance(lost.exception, ResultsError) and "no folder" in str(lost.exception)
