"""The whole run on a tiny model: files, resume, refusal, determinism, and the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import plotly.io
import pytest

import relation_neurons as rn
from helpers import tiny
from relation_neurons.cli import app as command_line
from relation_neurons.errors import (
    DoseError,
    RelationNeuronsError,
    ResultsError,
    UnknownOptionError,
)
from relation_neurons.report.summary import claims, summarise
from relation_neurons.results.manifest import make_manifest
from relation_neurons.results.options import Options, make_options
from relation_neurons.storage.run_folder import open_run_folder

OPTIONS = {
    "held_out": 10,
    "nonsense": 12,
    "min_known": 5,
    "doses": (3, 9),
    "draws": 1,
    "judged_draws": 3,
    "home_draws": 13,
    "checks": ("nonsense",),
    "blocks": 2,
    "permutations": 19,
    "overlap_deals": 19,
    "repeats": 1,
}
FILES = [
    ".lock",
    "blocks.parquet",
    "checksums.json",
    "collateral.parquet",
    "effects.parquet",
    "home_draws.parquet",
    "manifest.json",
    "neurons.parquet",
    "null.parquet",
    "overlap.parquet",
    "prompts.parquet",
    "ranking.parquet",
    "recall.parquet",
    "report.html",
    "stability.parquet",
    "summary.json",
]


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "results"
    rn.run(model, tiny.relations(), out=out, **OPTIONS)
    return out


def test_a_run_leaves_what_the_design_lists(folder):
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == FILES
    columns = {
        "prompts": "prompt_id relation language subject answer template text side",
        "recall": "prompt_id known margin logprob logprob_per_token predicted",
        "ranking": "score relation language rank layer neuron ap d_prime mean_positive mean_negative is_sink",
        "effects": "ablated ablated_language kind score dose draw prompt_id relation language "
        "template_held_out correct_intact correct margin_intact margin logprob_intact logprob predicted",
    }
    for name, needed in columns.items():
        assert set(needed.split()) <= set(pd.read_parquet(folder / f"{name}.parquet").columns)
    ranking = pd.read_parquet(folder / "ranking.parquet")
    assert set(ranking["score"]) >= {"specific", "background", "nonsense"}
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["seed"] == 0 and len(manifest["model"]["weight_hash"]) == 64
    recorded = {"score" if f == "contrast" else f for f in Options.__dataclass_fields__}
    assert set(manifest["options"]) == recorded - {"seed"}
    assert {"bos", "padding", "relation_data_hash", "versions"} <= set(manifest)
    assert manifest["versions"]["relation_neurons"] == rn.__version__
    assert not list(folder.glob(".*.part"))
    figures = {path.stem for path in (folder / "figures").iterdir()}
    assert {"headline", "cumulativity", "interference", "overlap_background"} <= figures
    assert plotly.io.read_json(folder / "figures" / "headline.json").data


def test_results_load_again_with_no_model(folder):
    results = rn.load_results(folder)
    assert results.ranking.relations == sorted(tiny.ANSWERS)
    matrix = rn.interference_matrix(results.effects)
    assert rn.plots.interference(matrix).data
    overlap = rn.overlap_matrix(results.ranking, dose=9)
    assert overlap.shape[0] == 9 and overlap.attrs["deals"] == 19
    pairs = overlap[overlap["relation"] != overlap["other"]]
    assert pairs[["expected", "p_value", "q_value"]].notna().all(axis=None)
    assert set(results.overlap["score"]) == {"specific", "background"}
    assert results.overlap.groupby("score")["rank"].max().eq(100).all()
    assert results.summary["doses"] == [3, 9]
    assert "top 192 of 192" in repr(results.ranking) and "effects" in repr(results)


def test_the_judged_dose_has_its_own_draws_and_the_tests_rest_on_them(folder):
    results = rn.load_results(folder)
    effects = results.effects
    draws = effects[effects["score"] == "specific"].groupby(["kind", "dose"], observed=True)["draw"]
    count = draws.nunique()
    assert count["control_contribution", 3] == 1 and count["control_contribution", 9] == 3
    assert (count["control_layer"] == 1).all()
    assert results.summary["dose"] == 9
    matrix = rn.interference_matrix(effects, results.home_draws, dose=9)
    assert (matrix.loc[matrix["family"] == "away", "draws"] == 3).all()
    assert matrix["p_value"].notna().all()
    at_home = matrix[matrix["ablated"] == matrix["relation"]].set_index("relation")
    for row in results.summary["relations"]:
        assert row["home_q"] == pytest.approx(at_home.loc[row["relation"], "q_value"])


def test_what_a_run_claims_beside_its_effects_is_in_its_tables(folder):
    results = rn.load_results(folder)
    claimed = results.summary
    assert set(results.blocks["block"]) == {0, 1, 2}
    assert {row["relation"] for row in claimed["null"]} == set(tiny.ANSWERS)
    assert {row["what"] for row in claimed["stability"]} >= {"halves", "templates", "relations"}
    assert {row["dose"] for row in claimed["collateral"]} == {3, 9}
    shared = pd.DataFrame(claimed["overlap"])
    for contrast, rows in shared.groupby("score"):
        total = rn.overlap_total(results.ranking, dose=9, contrast=contrast)
        assert rows["p_value"].tolist() == total["p_value"].tolist()
        assert rows["expected"].tolist() == total["expected"].tolist()
    assert len(claimed["joint"]) == 2 * len(tiny.ANSWERS), "ranked blocks and random ones"
    assert {row["ablated"] for row in claimed["specificity"]} == {*tiny.ANSWERS, "all relations"}
    assert {row["relation"] for row in claimed["recall"]} == {*tiny.ANSWERS, "all relations"}
    flips = pd.DataFrame(claimed["turned"])
    cell = results.effects.query("kind == 'ranked' and score == 'specific' and dose == 9")
    assert len(flips) == (cell["correct"] != cell["correct_intact"]).sum()


def test_claims_about_another_dose_are_not_those_of_the_summary(folder):
    results = rn.load_results(folder)
    results.summary["contrasts"] = [
        {**row, "difference": -1.0, "p_sign_flip": 0.0, "p_value": 0.0}
        for row in results.summary["contrasts"]
    ]
    anew = replace(results, summary={})
    assert claims(results, 3)["recall"] == claims(anew, 3)["recall"]


def test_a_folder_without_the_extra_tables_still_loads_and_reports(folder, tmp_path):
    import shutil

    older = tmp_path / "older"
    shutil.copytree(folder, older)
    for name in ("blocks", "collateral", "null", "stability", "overlap"):
        (older / f"{name}.parquet").unlink()
    results = rn.load_results(older)
    assert results.null.empty and results.blocks.empty and results.overlap.empty
    overlap = rn.overlap_matrix(results.ranking, dose=9)
    assert overlap[["expected", "ratio", "p_value", "q_value"]].isna().all(axis=None)
    assert overlap.attrs["no_null"] == "no null: the run has no overlap deals"
    from relation_neurons.report.page import build_report

    whole = build_report(rn.load_results(folder))
    assert "Collateral damage" in whole and "no overlap deals" not in whole
    assert "roles are dealt out anew" in whole
    manifest = {**results.manifest}
    again = replace(results, summary={}, manifest=manifest)
    summary = summarise(manifest, again.recall, again.ranking, again.effects, dose=9)
    page = build_report(replace(again, summary=summary | claims(again, 9)))
    assert "Collateral damage" not in page and "Specificity of each set" in page
    assert "is not known here (no null: the run has no overlap deals)" in page
    assert "roles are dealt out anew" not in page


def test_the_budget_for_collateral_damage_chooses_the_judged_dose(model, folder, tmp_path):
    kl = rn.load_results(folder).collateral.query("kind == 'ranked'").groupby("dose")["kl"].mean()
    assert kl[3] < kl[9]
    budget = float((kl[3] + kl[9]) / 2)
    results = rn.run(model, tiny.relations(), **OPTIONS, max_collateral=budget)
    assert results.summary["dose"] == 3
    swept = results.effects.query(
        "score == 'specific' and dose == 3 and kind == 'control_contribution'"
    )
    assert swept["draw"].nunique() == 3, "the judged dose has the draws"
    with pytest.raises(DoseError, match="No dose stays within"):
        rn.run(model, tiny.relations(), **OPTIONS, max_collateral=1e-12)


def test_the_same_seed_gives_the_same_bytes(model, folder, tmp_path):
    rn.run(model, tiny.relations(), out=tmp_path / "again", **OPTIONS)
    for name in (
        "ranking.parquet",
        "effects.parquet",
        "recall.parquet",
        "prompts.parquet",
        "summary.json",
    ):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_finished_run_is_read_and_not_computed_again(model, folder, monkeypatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix == ".parquet"}
    monkeypatch.setattr(
        "relation_neurons.experiment.ablate_stage.ablate_sets",
        lambda *a, **k: pytest.fail("ran again"),
    )
    said = []
    rn.run(model, tiny.relations(), out=folder, log=said.append, **OPTIONS)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix == ".parquet"} == before
    assert any("nothing to do" in line for line in said)


def test_pitfall_19_a_run_goes_on_after_whole_files_and_refuses_others(model, folder, tmp_path):
    import shutil

    partial = tmp_path / "partial"
    shutil.copytree(folder, partial)
    for name in ("effects.parquet", "report.html", "summary.json"):
        (partial / name).unlink()
    (partial / ".effects.parquet.123.part").write_bytes(b"half")
    rn.run(model, tiny.relations(), out=partial, **OPTIONS)
    assert (partial / "effects.parquet").read_bytes() == (folder / "effects.parquet").read_bytes()
    with pytest.raises(ResultsError, match=r"holds another run: options\.doses"):
        rn.run(model, tiny.relations(), out=folder, **{**OPTIONS, "doses": (3,)})
    with pytest.raises(ResultsError, match="holds another run: relation"):
        rn.run(model, tiny.relations()[:2], out=folder, **OPTIONS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ResultsError, match="is not empty"):
        rn.run(model, tiny.relations(), out=tmp_path / "mine", **OPTIONS)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_a_folder_with_shots_made_before_neutral_prompts_had_them_is_refused(model, tmp_path):
    few = (tiny.relations(), make_options(shots=2))
    manifest = make_manifest(model, *few)
    older = {name: part for name, part in manifest.items() if name != "neutral_prompts"}
    open_run_folder(tmp_path / "older", older)
    with pytest.raises(ResultsError, match="holds another run: neutral_prompts is None there"):
        open_run_folder(tmp_path / "older", manifest)
    assert "neutral_prompts" not in make_manifest(model, few[0], make_options())


def test_damaged_files_are_named(folder, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    path = broken / "effects.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ResultsError, match=r"effects\.parquet is damaged"):
        rn.load_results(broken)
    (broken / "manifest.json").write_text('{"options"')
    with pytest.raises(ResultsError, match="not whole JSON"):
        rn.load_results(broken)
    with pytest.raises(ResultsError, match=r"no manifest\.json"):
        rn.load_results(tmp_path)


def test_the_paper_preset_is_recorded_and_holds_no_template_out(model):
    results = rn.run(
        model,
        tiny.relations(),
        preset="paper",
        held_out=10,
        nonsense=0,
        min_known=5,
        doses=(3, 9),
        draws=1,
    )
    options = results.manifest["options"]
    assert (options["pool"], options["positions"], options["order"]) == (
        "include_first",
        "all",
        "index",
    )
    assert not results.effects["template_held_out"].any()
    assert "pooled and ablated" in results.manifest["padding"]
    facts = results.prompts[results.prompts["kind"] == "fact"]
    assert (facts.groupby("relation")["template"].nunique() == 1).all()


def test_options_that_do_not_exist_name_their_neighbours():
    for wrong, match in (
        ({"preset": "papr"}, "paper"),
        ({"dose": 3}, "doses"),
        ({"pool": "men"}, "mean"),
        ({"score": "specifc"}, "specific"),
        ({"doses": "10"}, "as a tuple"),
        ({"checks": ("unknwn",)}, "unknown"),
        ({"checks": ("specific",)}, "the contrast itself"),
        ({"held_out": float("nan")}, "held_out"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"draws": -1}, "draws"),
        ({"judged_draws": -1}, "judged_draws"),
        ({"max_collateral": 0}, "max_collateral"),
        ({"permutations": 10}, "permutations"),
        ({"overlap_deals": 18}, "overlap_deals is 18; expected 0, or 19 and more"),
        ({"overlap_deals": -1}, "overlap_deals"),
        ({"by": "average_precison"}, "average_precision"),
        ({"hold_out_templates": -1}, "hold_out_templates"),
        ({"shots": -1}, "shots"),
        ({"max_object_share": 2}, "max_object_share"),
    ):
        with pytest.raises(UnknownOptionError, match=match):
            make_options(**wrong)


def cli(*args):
    """Runs the command line as a user does, in a process of its own."""
    command = [sys.executable, "-m", "relation_neurons", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def main(monkeypatch, capsys):
    """Runs the command line in this process: its exit code, output and error output."""

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["relation-neurons", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    """The tiny relations in the shipped format."""
    folder = tmp_path_factory.mktemp("data")
    for relation in tiny.relations():
        data = {
            "name": relation.name,
            "templates": [
                {"text": t.text, "form": t.form, "side": t.side} for t in relation.templates
            ],
            "facts": [{"subject": f.subject, "objects": list(f.objects)} for f in relation.facts],
        }
        (folder / f"{relation.name}.json").write_text(json.dumps(data), encoding="utf-8")
    return folder


def test_the_stages_of_the_command_line_give_what_run_gives(tiny_folder, data_folder, tmp_path):
    shared = [
        "--model",
        tiny_folder,
        "--relations",
        data_folder,
        "--held-out",
        "10",
        "--doses",
        "3,9",
        "--draws",
        "1",
        "--checks",
        "nonsense",
        "--nonsense",
        "12",
        "--device",
        "cpu",
    ]
    whole = cli("run", "--out", tmp_path / "whole", *shared)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.strip().splitlines()[-1] == f"report: {tmp_path / 'whole' / 'report.html'}"
    assert whole.stderr == ""  # no bar, no warning where output is not a terminal
    first = cli("rank", "--out", tmp_path / "parts", *shared)
    assert first.returncode == 0, first.stderr
    assert not (tmp_path / "parts" / "effects.parquet").exists()
    second = cli("ablate", "--out", tmp_path / "parts")
    assert second.returncode == 0, second.stderr
    for name in ("ranking.parquet", "effects.parquet"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    (tmp_path / "parts" / "report.html").unlink()
    assert cli("report", "--out", tmp_path / "parts").returncode == 0
    assert (tmp_path / "parts" / "report.html").exists()


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (("run", "--out", "x", "--model", "smolm2-135m"), "Did you mean smollm2-135m"),
        (("run", "--out", "x", "--relations", "dem"), "Did you mean demo"),
        (("run", "--out", "x", "--site", "pst"), "Did you mean post"),
        (("run", "--out", "x", "--pool", "median"), "No pooling"),
        (("run", "--out", "x", "--doses", "many"), "is not a dose"),
        (("run", "--out", "x", "--preset", "papr"), "Did you mean paper"),
        (("run", "--out", "x", "--positions", "frist"), "No positions"),
        (("run", "--out", "x", "--mode", "zeros"), "No mode"),
        (("run", "--out", "x", "--held-out", "nan"), "held_out is nan"),
        (("run", "--out", "x", "--doses", "inf%"), "is not a dose"),
        (("run", "--out", "x", "--batch-size", "0"), "batch_size"),
        (("run", "--out", "x", "--device", "cuda:9"), "no device cuda:9"),
        (("run", "--out", "x", "--relations", ""), "not a shipped set"),
        (("run", "--out", "afile"), "is a file"),
        (("report", "--out", "afile"), "afile"),
        (("ablate", "--out", "nowhere"), "has no manifest.json"),
        (("report", "--out", "nowhere"), "has no manifest.json"),
        (("relations", "show", "country_captial"), "Did you mean country_capital"),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_code_2(args, match, main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "afile").write_text("precious")
    code, _, err = main(*args)
    assert code == 2
    assert match in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("command", ["run", "rank"])
def test_a_dose_above_the_size_of_the_model_is_refused_at_once(
    command, main, tiny_folder, data_folder, tmp_path
):
    """Before the folder exists, so before the model answers or activations are collected."""
    given = {"--model": tiny_folder, "--relations": data_folder, "--out": tmp_path / "out"}
    given |= {"--held-out": 10, "--doses": "3,100000", "--device": "cpu"}
    code, _, err = main(command, *(part for pair in given.items() for part in pair))
    assert code == 2 and "this model has" in err
    assert not (tmp_path / "out").exists()


def test_run_and_rank_have_the_same_options_but_for_the_engine_and_a_new_folder(main):
    shown = {
        command: re.findall(r"--[a-z][a-z-]+", main(command, "--help")[1])
        for command in ("run", "rank")
    }
    run, rank = (list(dict.fromkeys(shown[command])) for command in ("run", "rank"))
    assert [one for one in run if one not in rank] == [
        "--engine",
        "--address",
        "--workers",
        "--force-new",
    ]
    assert [one for one in run if one in rank] == rank


def test_a_mistake_shows_no_traceback_to_a_user(tmp_path):
    done = cli("report", "--out", tmp_path / "nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_what_there_is_can_be_listed(main):
    code, out, _ = main("relations", "list")
    assert code == 0 and "country_capital: " in out
    assert "The capital of {} is" in main("relations", "show", "country_capital")[1]
    models = main("models")[1]
    assert re.search(r"smollm2-135m: here \(SmolLM2-135M-Instruct\.Q4_1\.gguf\)", models)
    assert "meta-llama/Llama-2-7b-hf" in models
    assert re.search(r"Gemma 3 +Gemma3ForCausalLM +2e-06 +1e-06", models)
    assert "Find relation-specific neurons" in main("--help")[1]


def test_every_error_is_also_the_builtin_a_caller_expects():
    for name in rn.errors.__all__:
        kind = getattr(rn.errors, name)
        if kind is rn.errors.LeftOutWarning:
            assert issubclass(kind, UserWarning)
        elif isinstance(kind, type) and kind is not RelationNeuronsError:
            assert issubclass(kind, RelationNeuronsError)
            assert issubclass(kind, (ValueError, KeyError, RuntimeError, OSError, MemoryError))
            assert str(kind("a 'message'")) == "a 'message'"


def test_a_repeated_check_is_ablated_once():
    assert make_options(checks=("unknown", "unknown")).checks == ("unknown",)
