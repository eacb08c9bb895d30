"""The results folder under a run: one owner, checksums, what is damaged, what is moved aside."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time

import numpy as np
import pandas as pd
import pytest
from helpers.small_options import small
from typer.testing import CliRunner

import relation_neurons as rn
from relation_neurons.cli.app import app
from relation_neurons.errors import ResultsError
from relation_neurons.results.completeness import CONDITION
from relation_neurons.results.manifest import require_ranked_by
from relation_neurons.results.recompute import recompute_sample
from relation_neurons.results.results import load_results
from relation_neurons.results.verification import verify_folder
from relation_neurons.storage.chunks import Chunks, chunk_key
from relation_neurons.storage.files import read_json
from relation_neurons.storage.run_folder import (
    CHECKSUMS,
    locked,
    move_aside,
    open_run_folder,
    record,
)

OPTIONS = small()


@pytest.fixture(scope="module")
def source():
    return rn.planted_model(relations=3, seed=0)


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    rn.run(source.model, source.relations, out=out, **OPTIONS)
    return out


MANY = small(
    checks=("background",), blocks=2, permutations=19, overlap_deals=19, repeats=1
)


@pytest.fixture(scope="module")
def many_tables(source, tmp_path_factory):
    """A run that leaves every table there is."""
    out = tmp_path_factory.mktemp("tables") / "run"
    rn.run(source.model, source.relations, out=out, **MANY)
    return out


def _first(prompts, kind):
    return prompts.loc[prompts["kind"] == kind, "prompt_id"].iloc[0]


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def _again(source, out, **options):
    said: list[str] = []
    rn.run(source.model, source.relations, out=out, log=said.append, **{**OPTIONS, **options})
    return said


def test_a_finished_run_says_so_and_does_nothing(source, folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.name not in (".lock",)}
    assert any("nothing to do" in line for line in _again(source, folder))
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.name != ".lock"}


def test_another_run_is_refused_and_force_new_moves_the_old_one_aside(source, folder):
    with pytest.raises(ResultsError, match=r"holds another run: options\.doses.*--force-new"):
        _again(source, folder, doses=(4,))
    old = (folder / "effects.parquet").read_bytes()
    said = _again(source, folder, doses=(4,), force_new=True)
    aside = folder.with_name("run.old-1")
    assert any(str(aside) in line for line in said)
    assert (aside / "effects.parquet").read_bytes() == old
    assert set(pd.read_parquet(folder / "effects.parquet")["dose"]) == {4}


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("versions", "relation_neurons"),
        ("versions", "transformer_lens"),
        ("versions", "torch"),
        ("model", "dtype"),
        ("model", "device"),
        ("model", "weight_hash"),
    ],
)
def test_a_folder_that_was_ranked_otherwise_is_not_ablated(source, finished, part, name):
    manifest = read_json(finished / "manifest.json")
    there = {**manifest, part: {**manifest[part], name: "another"}}
    with pytest.raises(ResultsError, match=rf"ranked otherwise: {part}\.{name} is 'another' there"):
        require_ranked_by(finished, there, source.model)
    both = {**there, "model": {**there["model"], "weight_hash": "another"}}
    with pytest.raises(ResultsError, match=rf"ranked otherwise: {part}\."):  # versions come first
        require_ranked_by(finished, both, source.model)


def test_a_model_that_moved_is_still_the_one_that_was_ranked(source, finished):
    manifest = read_json(finished / "manifest.json")
    moved = {**manifest["model"], "name": "elsewhere"}
    require_ranked_by(finished, {**manifest, "model": moved}, source.model)


@pytest.mark.parametrize("how", ["cut", "flipped"])
def test_a_damaged_table_is_an_error_and_is_made_anew_once_it_is_deleted(source, folder, how):
    path, whole = folder / "effects.parquet", (folder / "effects.parquet").read_bytes()
    middle = len(whole) // 2
    broken = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes(whole[:middle] if how == "cut" else broken)
    (folder / "report.html").unlink()
    with pytest.raises(ResultsError, match=r"effects\.parquet is damaged.*Delete it"):
        _again(source, folder)
    path.unlink()
    _again(source, folder)
    assert path.read_bytes() == whole


def test_a_manifest_cut_in_half_is_restored_by_the_same_run_only(source, folder):
    manifest = folder / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ResultsError, match=r"not whole JSON.*--force-new"):
        _again(source, folder, doses=(4,))
    _again(source, folder)
    assert manifest.read_bytes() == whole


def test_a_damaged_chunk_is_computed_again_and_the_others_are_not(tmp_path):
    chunks, made = Chunks(tmp_path / "parts" / "effects"), []

    def make(value):
        return lambda: made.append(value) or pd.DataFrame({"x": [value], "name": ["ü"]})

    keys = [chunk_key("set", n) for n in range(3)]
    tables = [chunks.make(n, key, make(n)) for n, key in enumerate(keys)]
    assert made == [0, 1, 2] and chunks.count() == 3
    path = next(chunks.folder.glob("00001-*"))
    path.write_bytes(path.read_bytes()[:-7])
    again = [chunks.make(n, key, make(n)) for n, key in enumerate(keys)]
    assert made == [0, 1, 2, 1]
    for one, other in zip(tables, again, strict=True):
        pd.testing.assert_frame_equal(one, other)
    chunks.drop()
    assert not (tmp_path / "parts").exists()


def _hold(folder, ready):
    with locked(folder):
        ready.set()
        time.sleep(60)


def test_two_processes_cannot_write_one_folder_and_a_dead_one_holds_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready))
    other.start()
    assert ready.wait(120)
    with (
        pytest.raises(ResultsError, match=f"being written by process {other.pid}"),
        locked(tmp_path),
    ):
        pass
    with pytest.raises(ResultsError, match="being written"):
        move_aside(tmp_path)
    other.kill()
    other.join()
    with locked(tmp_path):
        pass


def test_what_a_killed_writer_left_is_cleared_and_a_strange_folder_is_refused(tmp_path):
    (tmp_path / ".manifest.json.123.part").write_text("{")
    open_run_folder(tmp_path, {"options": {}, "model": {}})
    assert not list(tmp_path.glob(".*.part"))
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.tex").write_text("")
    with pytest.raises(ResultsError, match="not empty"):
        open_run_folder(strange, {})


def test_verify_passes_a_whole_folder_and_names_what_is_wrong(folder):
    assert all(verify_folder(folder))
    page = folder / "report.html"
    page.write_text(page.read_text(encoding="utf-8") + " ", encoding="utf-8")
    assert [c.what for c in verify_folder(folder) if not c] == ["report.html"]
    page.unlink()
    assert [c.problem for c in verify_folder(folder) if not c] == ["is missing"]


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("effects", lambda t: t.assign(correct=~t["correct"]), "correct is margin"),
        ("effects", lambda t: t.iloc[1:], "asked every held-out prompt"),
        ("effects", lambda t: t[t["prompt_id"] != t["prompt_id"].max()], "asked every held-out"),
        ("effects", lambda t: pd.concat([t, t.iloc[:1]]), "asked every held-out prompt"),
        ("effects", lambda t: t[t["draw"] == 0], "effects: every ablated set"),
        ("effects", lambda t: t[t["ablated"] != t["ablated"].iloc[0]], "effects: every ablated"),
        ("effects", lambda t: t[t["score"] != "background"], "effects: every ablated set"),
        ("effects", lambda t: t.assign(margin_intact=t["margin_intact"] + 1), "the intact model"),
        ("effects", lambda t: t[t["dose"] == 4], "doses"),
        ("recall", lambda t: t.iloc[1:], "the same prompts"),
        ("recall", lambda t: pd.concat([t, t.iloc[:1]]), "the same prompts"),
        ("prompts", lambda t: t.iloc[:-1], "every fact in every template"),
        ("prompts", lambda t: t[t["prompt_id"] != _first(t, "nonsense")], "every fact"),
        ("prompts", lambda t: t.assign(template=t["template"].iloc[0]), "every fact in every"),
        ("ranking", lambda t: t[t["rank"] < t["rank"].max()], "equally deep"),
        ("ranking", lambda t: t[t["score"] != "nonsense"], "every relation and contrast"),
        ("collateral", lambda t: t.iloc[1:], "collateral: every ablated set"),
        ("blocks", lambda t: t.iloc[1:], "blocks: every block"),
        ("blocks", lambda t: t[t["block"] != 2], "blocks: every block"),
        ("null", lambda t: t.iloc[1:], "null: every relation"),
        ("stability", lambda t: t.iloc[:-1], "stability: every comparison"),
        ("overlap", lambda t: t[t["deal"] != 7], "overlap: every set of every deal"),
        ("overlap", lambda t: pd.concat([t, t.iloc[:1]]), "overlap: every set of every deal"),
        ("ranking", lambda t: t.assign(neuron=t["neuron"] + 10_000), "layers and neurons"),
    ],
)
def test_verify_finds_tables_that_do_not_agree(many_tables, tmp_path, name, change, what):
    folder = shutil.copytree(many_tables, tmp_path / "run")
    path = folder / f"{name}.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    record(folder, path)  # so that no checksum gives it away
    assert any(what in check.what for check in verify_folder(folder) if not check)


@pytest.mark.parametrize(
    "changes",
    [{"by": "attribution"}, {"shots": 1, "min_known": 1}, {"max_collateral": 100.0, "blocks": 2}],
)
def test_verify_counts_the_rows_of_other_options(source, tmp_path, changes):
    rn.run(source.model, source.relations, out=tmp_path / "run", **small(**changes))
    assert [check for check in verify_folder(tmp_path / "run") if not check] == []


@pytest.mark.parametrize(
    "name", ["collateral", "effects", "blocks", "null", "stability", "overlap", "recall"]
)
def test_verify_finds_a_table_that_is_gone_with_its_checksum(many_tables, tmp_path, name):
    folder = shutil.copytree(many_tables, tmp_path / "run")
    (folder / f"{name}.parquet").unlink()
    known = json.loads((folder / CHECKSUMS).read_text())
    del known[f"{name}.parquet"]
    (folder / CHECKSUMS).write_text(json.dumps(known))
    problems = [f"{check.what}: {check.problem}" for check in verify_folder(folder) if not check]
    assert len(problems) == 1 and name in problems[0]


def test_verify_finds_a_file_that_no_run_noted(many_tables, tmp_path):
    folder = shutil.copytree(many_tables, tmp_path / "run")
    assert all(verify_folder(folder))
    (folder / "note.txt").write_text("of the user's own")
    (folder / "engines.json").write_text('{"engines": []}')
    assert all(verify_folder(folder))
    for name in ("figures/another.json", "strange.parquet"):
        (folder / name).write_text("{}")
    found = {check.what: check.problem for check in verify_folder(folder) if not check}
    assert set(found) == {"figures/another.json", "strange.parquet"}
    assert all("not in checksums.json" in problem for problem in found.values())


def test_a_run_makes_its_deals_once_and_again_the_same_where_they_are_gone(
    source, many_tables, tmp_path
):
    folder = shutil.copytree(many_tables, tmp_path / "run")
    path, page = folder / "overlap.parquet", folder / "report.html"
    whole = path.read_bytes()
    page.unlink()
    assert any(line.startswith("report:") for line in _again(source, folder, **MANY))
    assert path.read_bytes() == whole
    path.unlink()
    page.unlink()
    assert any(line.startswith("overlap:") for line in _again(source, folder, **MANY))
    assert path.read_bytes() == whole
    ranking = load_results(folder).ranking
    assert ranking.overlap_null is not None and not rn.overlap_matrix(ranking, dose=8).attrs["no_null"]


def test_verify_expects_no_deals_of_a_run_from_before_them(many_tables, tmp_path):
    folder = shutil.copytree(many_tables, tmp_path / "run")
    path = folder / "manifest.json"
    manifest = read_json(path)
    del manifest["options"]["overlap_deals"]
    path.write_text(json.dumps(manifest))
    record(folder, path)
    (folder / "overlap.parquet").unlink()
    known = json.loads((folder / CHECKSUMS).read_text())
    del known["overlap.parquet"]
    (folder / CHECKSUMS).write_text(json.dumps(known))
    assert [check for check in verify_folder(folder) if not check] == []


def test_verify_says_that_options_of_another_version_are_not_known(many_tables, tmp_path):
    folder = shutil.copytree(many_tables, tmp_path / "run")
    path = folder / "manifest.json"
    manifest = read_json(path)
    manifest["options"]["volume"] = 11
    path.write_text(json.dumps(manifest))
    record(folder, path)
    (problem,) = [check.problem for check in verify_folder(folder) if not check]
    assert "another version" in problem and "volume" in problem


def test_recomputing_every_ablated_set_gives_the_same_bits(source, folder):
    results = load_results(folder)
    there = len(results.effects.groupby(CONDITION, observed=True))
    assert there > 10
    checks = recompute_sample(results, source.model, 10_000)
    assert all(checks) and len(checks) == 1 + there
    assert checks[0].what == f"{there} of {there} ablated sets recomputed"
    two = [recompute_sample(results, source.model, 2, seed=seed) for seed in (0, 0, 1)]
    assert len(two[0]) == 3 and two[0] == two[1] != two[2]


@pytest.mark.parametrize(
    ("apart", "strict", "elsewhere"),
    [
        (0.0, "", ""),
        (2e-5, "equal but for rounding", ""),
        (0.1, "other outcomes", "other outcomes"),
    ],
)
def test_recomputing_finds_one_value_that_differs(source, folder, apart, strict, elsewhere):
    path = folder / "effects.parquet"
    table = pd.read_parquet(path)
    table.loc[table.index[-1], "logprob"] -= np.float32(apart)
    table.to_parquet(path, index=False)
    record(folder, path)  # so that no checksum gives it away
    assert all(verify_folder(folder))
    for other_machine, expected in ((False, strict), (True, elsewhere)):
        checks = recompute_sample(
            load_results(folder), source.model, 10_000, elsewhere=other_machine
        )
        wrong = [check.problem for check in checks if not check]
        assert len(wrong) == bool(expected) and all(expected in problem for problem in wrong)


def test_recomputing_refuses_another_model_and_another_ranking(source, folder):
    other = rn.planted_model(relations=3, seed=1)
    (check,) = recompute_sample(load_results(folder), other.model, 1)
    assert "weights are not those" in check.problem
    path = folder / "ranking.parquet"
    table = pd.read_parquet(path)
    first = (table["score"] == "specific") & (table["rank"] <= 4)
    table.loc[first, "neuron"] = table.loc[first, "neuron"].to_numpy()[::-1]
    table.to_parquet(path, index=False)
    assert not all(recompute_sample(load_results(folder), source.model, 10_000))


def test_verify_says_how_many_sets_it_recomputed_or_why_none(source, folder, tmp_path):
    rn.planted_model(tmp_path / "model", relations=3, seed=0)

    def said(*arguments):
        found = CliRunner().invoke(app, ["verify", *map(str, arguments)])
        return found.exit_code, found.output + str(found.exception or "")

    code, text = said(folder)
    assert code == 0 and "nothing was recomputed: the model" in text and "checks passed" in text
    code, text = said(folder, "--sample", 2, "--model", tmp_path / "model")
    assert code == 0 and "2 of 21 ablated sets recomputed" in text
    code, text = said(folder, "--sample", 0)
    assert code == 0 and "nothing was recomputed, as asked for" in text
    assert "Give one results folder" in said()[1]


def test_checksums_name_every_file_of_the_run(folder):
    known = json.loads((folder / CHECKSUMS).read_text())
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert there - set(known) == {CHECKSUMS, ".lock"}
