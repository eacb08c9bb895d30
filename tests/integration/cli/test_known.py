"""`relations check --model`: the model is asked what `run` would ask it, and the verdict is the run's."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

import relation_neurons as rn
from relation_neurons.cli.app import app
from relation_neurons.errors import UnknownOptionError

QUICK = {
    "judged_draws": 1,
    "home_draws": 0,
    "checks": (),
    "blocks": 0,
    "permutations": 0,
    "repeats": 0,
}


@pytest.fixture(scope="module")
def planted():
    return rn.planted_model(relations=3, seed=0)


@pytest.fixture
def check(planted, monkeypatch, tmp_path):
    """The command on a file of planted relations, the answers of one of which are mostly others."""
    spoilt, *others = rn.load_relations(planted.relations)
    objects = [fact.objects for fact in spoilt.facts]
    keep = len(objects) // 3
    facts = tuple(
        rn.Fact(fact.subject, objects[i] if i < keep else objects[(i + 1) % len(objects)])
        for i, fact in enumerate(spoilt.facts)
    )
    relations = [rn.Relation("spoilt", facts, spoilt.templates), *others]
    path = tmp_path / "facts.csv"
    rn.save_relations(relations, path)
    monkeypatch.setattr("relation_neurons.models.loading.load_model", lambda name: planted.model)

    def run(*more):
        return CliRunner().invoke(app, ["relations", "check", str(path), *map(str, more)])

    return path, run


@pytest.mark.parametrize("options", [{}, {"shots": 2, "seed": 3, "held_out": 12, "min_known": 4}])
def test_it_counts_and_judges_as_a_run_with_the_same_options(planted, check, options):
    path, run = check
    words = [part for name, value in options.items() for part in (_option(name), value)]
    done = run("--model", "planted", *words)
    assert done.exit_code == 0, done.output
    results = rn.run(planted.model, path, doses=(4,), draws=1, **QUICK, **options)
    left_out, ranked = set(results.ranking.left_out), set(results.ranking.relations)
    assert "spoilt" in left_out and ranked
    said = dict(re.findall(r"^(\w+): (LEFT OUT|ranked)", done.output, flags=re.MULTILINE))
    assert {name for name, verdict in said.items() if verdict == "LEFT OUT"} == left_out
    assert {name for name, verdict in said.items() if verdict == "ranked"} == ranked
    assert f"{len(ranked)} would be ranked, {len(left_out)} left out" in done.output
    table = rn.known_facts(
        results.prompts, results.recall, min_known=results.manifest["options"]["min_known"]
    )
    for name, rows in table.groupby("relation"):
        spare = int((rows["known_on_side"] - rows["needed"]).min())
        assert (f"{name}: ranked, with few to spare" in done.output) is (0 <= spare < 5)
    for row in table.itertuples():
        assert f"    {row.known} of {row.facts} in {row.template!r}" in done.output
        assert f"  {row.side}: needs {row.needed}, has {row.known_on_side}" in done.output
    assert ("--shots 3" in done.output) is (not options), "no advice to those who use some"
    assert "what helps" in done.output


def test_where_nothing_would_be_ranked_a_run_would_stop(check):
    _, run = check
    done = run("--model", "planted", "--min-known", 1000)
    assert done.exit_code == 1 and "0 would be ranked, 3 left out" in done.output


def test_without_a_model_it_says_how_one_is_asked(check, planted, monkeypatch):
    def loaded(name):
        raise AssertionError("no model is to be loaded")

    monkeypatch.setattr("relation_neurons.models.loading.load_model", loaded)
    _, run = check
    (line,) = [line for line in run().output.splitlines() if "--model" in line]
    assert line.startswith("nothing would stop a run")
    refused = run("--shots", 3, "--seed", 1)
    assert isinstance(refused.exception, UnknownOptionError)
    assert "--shots, --seed" in str(refused.exception) and "--model" in str(refused.exception)
    wrong = run("--model", "planted", "--held-out", 0)
    assert isinstance(wrong.exception, UnknownOptionError) and "held_out" in str(wrong.exception)


def test_what_stops_a_run_is_said_before_a_model_is_asked(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("relation,subject,object,template\nx,a,b,no hole\n", encoding="utf-8")
    done = CliRunner().invoke(app, ["relations", "check", str(path), "--model", "no-such-model"])
    assert done.exit_code == 1 and "mend what STOPS" in done.output
    assert isinstance(done.exception, SystemExit), "it ends there, before anything is loaded"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
