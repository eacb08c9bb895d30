"""`relation-neurons run --relations SOURCE` on every source format, to the same end."""

from __future__ import annotations

import pandas as pd
import pytest
from typer.testing import CliRunner

import relation_neurons as rn
from helpers import tiny
from relation_neurons.cli.app import app

OPTIONS = {
    "held-out": 8,
    "doses": 3,
    "draws": 1,
    "min-known": 3,
    "nonsense": 4,
    "checks": "unknown",
}


def run(model, source, out, *more):
    stated = [part for name, value in OPTIONS.items() for part in (f"--{name}", value)]
    command = ["run", "--model", model, "--relations", source, "--out", out, *stated, *more]
    result = CliRunner().invoke(app, [str(part) for part in command], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert (out / "report.html").is_file()
    return pd.read_parquet(out / "effects.parquet")


@pytest.fixture(scope="module")
def expected(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    rn.save_relations(tiny.relations(), folder / "json")
    return run(tiny_folder, folder / "json", folder / "out")


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl"])
def test_a_run_on_a_table_is_the_run_on_json(tiny_folder, expected, tmp_path, form):
    path = tmp_path / f"mine.{form}"
    rn.save_relations(tiny.relations(), path)
    found = run(tiny_folder, path, tmp_path / "out")
    # Tables are read in the order of relations' names, as folders are.
    pd.testing.assert_frame_equal(found, expected)


def test_a_run_on_lre_json(tiny_folder, tmp_path):
    """LRE holds out one template at most, so it is asked for two here."""
    rn.save_relations(tiny.relations(), tmp_path / "lre", format="lre")
    effects = run(tiny_folder, tmp_path / "lre", tmp_path / "out", "--hold-out-templates", "2")
    assert effects["template_held_out"].all() and effects["relation"].nunique() == 3
    prompts = pd.read_parquet(tmp_path / "out" / "prompts.parquet")
    facts = prompts[prompts["kind"] == "fact"].groupby(["relation", "side"])["template"].nunique()
    assert facts.groupby("side").unique().map(list).to_dict() == {"detection": [2], "held_out": [2]}
    one = next((tmp_path / "lre").glob("*.json"))
    alone = run(tiny_folder, one, tmp_path / "one", "--score", "background", "--checks", "")
    assert set(alone["ablated"]) == {one.stem}


def test_a_run_on_a_list_of_files_and_on_some_of_the_names(tiny_folder, tmp_path):
    rn.save_relations(tiny.relations(), tmp_path / "json")
    files = sorted((tmp_path / "json").glob("*.json"))[:2]
    effects = run(tiny_folder, ",".join(map(str, files)), tmp_path / "out")
    assert set(effects["relation"]) == {path.stem for path in files}
    names = ",".join(path.stem for path in files)
    again = run(tiny_folder, tmp_path / "json", tmp_path / "again", "--names", names)
    pd.testing.assert_frame_equal(again, effects)


def test_the_paper_preset_runs_on_lre_json(tiny_folder, tmp_path):
    rn.save_relations(tiny.relations(), tmp_path / "lre", format="lre")
    effects = run(
        tiny_folder, tmp_path / "lre", tmp_path / "out", "--preset", "paper", "--shots", "2"
    )
    assert not effects["template_held_out"].any()
