"""Contenders judged by one held-out ablation, against the sweep and the measures they are made of."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

import relation_neurons as rn
from helpers import tiny
from relation_neurons.activations.attribution import collect_attribution
from relation_neurons.analysis.interference import (
    interference_matrix,
    specificity,
    specificity_intervals,
)
from relation_neurons.analysis.standings import CONTENDER, comparison_standings, comparison_table
from relation_neurons.cli.compare import compare_criteria as command
from relation_neurons.errors import (
    DoseError,
    RelationNeuronsError,
    ResultsError,
    TooFewFactsError,
    UnknownOptionError,
    UnknownSiteError,
)
from relation_neurons.experiment import comparison
from relation_neurons.experiment.comparison import Contender, compare_criteria, plan_contenders
from relation_neurons.results.table_store import TableStore

DOSE = "4%"
CRITERIA = ("average_precision", "auroc", "activation_entropy", "probe", "attribution")


@pytest.fixture(scope="module")
def compared(model, prompts, recall):
    return compare_criteria(
        model,
        prompts,
        recall,
        by=CRITERIA,
        sites=("post", "gate", "out"),
        dose=DOSE,
        control_draws=1,
        min_known=5,
    )


def of(table, by="average_precision", site="post", end="top"):
    return table[(table["by"] == by) & (table["site"] == site) & (table["end"] == end)]


def test_every_contender_is_there_with_every_relation_and_its_control(compared, relations):
    expected = [
        *((by, "post", "top") for by in CRITERIA),
        ("average_precision", "gate", "top"),
        ("average_precision", "out", "top"),
        ("average_precision", "post", "bottom"),
    ]
    found = compared.table[CONTENDER].drop_duplicates().itertuples(index=False, name=None)
    assert list(found) == expected
    assert sorted(compared.standings[CONTENDER].itertuples(index=False, name=None)) == sorted(
        expected
    )
    names = [relation.name for relation in relations]
    for by, site, end in expected:
        rows = of(compared.table, by, site, end)
        assert rows["relation"].tolist() == [*sorted(names), "all relations"]
        judged = rows.iloc[:-1]
        assert judged[["home", "row", "column", "control", "difference_low"]].notna().all(None)
        np.testing.assert_allclose(judged["home"] - judged["control"], judged["difference"])
        assert (judged["row_low"] <= judged["row"]).all() and (
            judged["row"] <= judged["row_high"]
        ).all()


def test_a_share_is_one_of_the_sites_own_neurons(compared):
    doses = compared.standings.set_index("site")["dose"].to_dict()
    assert doses == {"post": 8, "gate": 8, "out": 4}
    sizes = compared.sets.groupby([*CONTENDER, "relation"]).size()
    assert (sizes == sizes.index.get_level_values("site").map(doses)).all()


def test_pitfall_23_all_held_out_facts_judge_known_or_not(compared, prompts, recall):
    asked = set(prompts.held_out.frame["prompt_id"])
    held_out = recall[recall["side"] == "held_out"]
    assert not held_out["known"].all()
    for _, rows in compared.effects.groupby([*CONTENDER, "ablated", "kind", "draw"]):
        assert set(rows["prompt_id"]) == asked


def test_a_contender_is_the_sweep_of_its_own_ranking(compared, model, prompts, recall, table):
    given = {
        "average_precision": {},
        "attribution": {"attribution": collect_attribution(model, prompts.detection)},
    }
    for by, options in given.items():
        for bottom in (False, True) if by == "average_precision" else (False,):
            ranking = rn.rank_neurons(table, recall, by=by, bottom=bottom, min_known=5, **options)
            effects = rn.ablation_sweep(
                model,
                prompts.held_out,
                ranking,
                (8,),
                control_draws=1,
                control_kinds=("control_contribution",),
            )
            found = of(compared.effects, by, end="bottom" if bottom else "top")
            np.testing.assert_allclose(found["margin"], effects["margin"], atol=1e-4)
            assert found["kind"].tolist() == effects["kind"].astype(str).tolist()
            table_here = of(compared.table, by, end="bottom" if bottom else "top")
            intervals = specificity_intervals(effects)
            for column in ("home", "elsewhere", "others_here", "row", "column", "row_low"):
                np.testing.assert_allclose(table_here[column], intervals[column], atol=1e-9)


def test_pitfall_14_the_bottom_is_a_contender_of_its_own_and_disjoint_from_the_top(compared):
    """Pitfall 14: "both" is not "top"."""
    for _, rows in compared.sets.groupby("relation"):
        top, bottom = (of(rows, end=end) for end in ("top", "bottom"))
        pairs = [set(zip(t["layer"], t["neuron"], strict=True)) for t in (top, bottom)]
        assert not pairs[0] & pairs[1]
        assert top["ap"].min() >= bottom["ap"].max()
    assert "both" not in set(compared.effects["end"])
    without = plan_contenders(("average_precision",), bottom=False)
    assert [c.end for c in without] == ["top"]


def test_the_standings_are_the_mean_of_row_and_of_column_specificity(compared):
    """Pitfall 24: averaged over relations both are one number, with one interval."""
    standings = comparison_standings(compared.effects)
    assert (np.diff(standings["specificity"]) >= 0).all()
    for row in standings.itertuples():
        effects = of(compared.effects, row.by, row.site, row.end)
        both = specificity(interference_matrix(effects))
        assert row.specificity == pytest.approx(both["row"].mean(), abs=1e-9)
        assert row.specificity == pytest.approx(both["column"].mean(), abs=1e-9)
        assert row.home == pytest.approx(both["home"].mean(), abs=1e-9)


@pytest.mark.parametrize("quantity", ["correct", "margin"])
def test_the_standings_are_the_last_row_of_the_intervals(compared, quantity):
    standings = comparison_standings(compared.effects, quantity=quantity)
    for row in standings.itertuples():
        effects = of(compared.effects, row.by, row.site, row.end)
        whole = specificity_intervals(effects, quantity=quantity).iloc[-1]
        assert whole["ablated"] == "all relations"
        assert row.home == pytest.approx(whole["home"], abs=1e-9)
        for both_ways in ("row", "column"):
            expected = whole[[both_ways, f"{both_ways}_low", f"{both_ways}_high"]].tolist()
            assert [row.specificity, row.low, row.high] == pytest.approx(expected, abs=1e-9)


def test_what_stands_against_the_first_is_paired(compared):
    standings = compared.standings.set_index(CONTENDER)
    first = standings.loc["average_precision", "post", "top"]
    assert first["against_first"] == 0
    assert first[["against_first_low", "against_first_high"]].isna().all()
    np.testing.assert_allclose(
        standings["against_first"], standings["specificity"] - first["specificity"], atol=1e-12
    )
    # a contender that does the same to every fact differs by nothing; another fact might show more
    twin = of(compared.effects).assign(by="twin")
    two = comparison_standings(pd.concat([of(compared.effects), twin], ignore_index=True))
    again = two.set_index("by").loc["twin"]
    assert again["against_first"] == 0
    assert again["against_first_low"] == -again["against_first_high"] < 0


def made_up(by, home, elsewhere):
    """Effects of two relations' sets on 40 facts each, all of them known before."""
    rows = []
    for ablated in ("a", "b"):
        for kind in ("ranked", "control_contribution"):
            for relation in ("a", "b"):
                lost = 0.0 if kind != "ranked" else home if ablated == relation else elsewhere
                for fact in range(40):
                    rows.append(
                        {
                            "by": by,
                            "site": "post",
                            "end": "top",
                            "ablated": ablated,
                            "ablated_language": "en",
                            "kind": kind,
                            "score": "specific",
                            "dose": 5,
                            "draw": 0,
                            "prompt_id": fact + (100 if relation == "b" else 0),
                            "relation": relation,
                            "language": "en",
                            "fact": f"{relation}{fact}",
                            "correct_intact": True,
                            "correct": fact >= 40 * lost,
                            "margin_intact": 1.0,
                            "margin": 1.0 - lost,
                        }
                    )
    return pd.DataFrame(rows)


def test_pitfall_24_a_set_that_breaks_every_relation_does_not_win():
    effects = pd.concat(
        [made_up("loud", 0.9, 0.85), made_up("specific", 0.4, 0.0)], ignore_index=True
    )
    standings = comparison_standings(effects)
    assert standings["by"].tolist() == ["specific", "loud"]
    assert standings["specificity"].tolist() == pytest.approx([-0.4, -0.05])
    winner = standings.iloc[0]
    assert winner["against_first"] == pytest.approx(-0.35) and winner["against_first_high"] < 0
    table = comparison_table(effects).set_index(["by", "relation"])
    assert table.loc[("loud", "a"), "difference"] == pytest.approx(-0.9)
    assert table.loc[("loud", "all relations"), "row"] == pytest.approx(-0.05)


def test_with_value_counts_what_the_criterion_itself_chose(compared):
    table = compared.table.dropna(subset="with_value")
    counts = table.set_index([*CONTENDER, "relation"])["with_value"].sort_index()
    assert (counts["average_precision", "post", "top"] == 8).all()
    sets = of(compared.sets, "probe")
    expected = sets[sets["value"] != 0].groupby("relation").size()
    assert counts["probe", "post", "top"].to_dict() == expected.to_dict()
    assert (counts >= 0).all() and (counts <= 8).all()


def test_pitfall_19_a_part_that_is_whole_is_read_and_only_the_missing_one_is_made(
    model, prompts, recall, tmp_path, monkeypatch
):
    said, swept = [], []
    sweep = comparison.ablation_sweep
    monkeypatch.setattr(
        comparison, "ablation_sweep", lambda *a, **k: swept.append(a[2].by) or sweep(*a, **k)
    )
    options = {"dose": 8, "control_draws": 1, "min_known": 5, "bottom": False}
    store = TableStore(tmp_path, said.append)
    first = compare_criteria(model, prompts, recall, by=CRITERIA[:2], store=store, **options)
    assert swept == list(CRITERIA[:2])
    parts = tmp_path / "parts"
    assert sorted(path.name for path in parts.iterdir()) == sorted(
        f"{by}-post-top-{kind}.parquet" for by in CRITERIA[:2] for kind in ("effects", "sets")
    )
    (parts / "auroc-post-top-effects.parquet").unlink()
    (parts / ".auroc-post-top-effects.parquet.1.part").write_bytes(b"cut off")
    again = compare_criteria(model, prompts, recall, by=CRITERIA[:2], store=store, **options)
    assert swept == [*CRITERIA[:2], "auroc"]
    for name in ("standings", "table", "effects", "sets"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(again, name))


def test_what_cannot_be_compared_is_said_before_anything_runs(model, prompts, recall):
    for error, message, options in (
        (UnknownOptionError, "auroc", {"by": ("aurok",)}),
        (UnknownOptionError, "No site", {"sites": ()}),
        (UnknownSiteError, "post", {"sites": ("post", "pots"), "dose": 8}),
        (DoseError, "this model has 192", {"dose": 1000}),
        (
            UnknownOptionError,
            "None of the criteria",
            {"by": ("attribution",), "score": "background", "bottom": False},
        ),
    ):
        with pytest.raises(error, match=message):
            compare_criteria(model, prompts, recall, **options)
    lonely = recall.assign(known=recall["known"] & (recall["relation"] == "country_food"))
    with pytest.raises(TooFewFactsError, match="two"):
        compare_criteria(model, prompts, lonely, by=("auroc",), dose=4, min_known=5)


def test_criteria_that_cannot_rank_the_score_are_left_out_by_name(model, prompts, recall):
    assert plan_contenders(CRITERIA, contrast="nonsense", bottom=False) == [
        Contender("average_precision"),
        Contender("auroc"),
        Contender("activation_entropy"),
        Contender("probe"),
    ]
    said: list[str] = []
    found = compare_criteria(
        model,
        prompts,
        recall,
        by=("attribution", "d_prime"),
        contrast="background",
        dose=4,
        control_draws=1,
        min_known=5,
        bottom=False,
        store=TableStore(None, said.append),
    )
    assert set(found.effects["score"]) == {"background"}
    assert found.standings["by"].tolist() == ["d_prime"]
    assert said[0] == "left out: attribution cannot rank the contrast background"


def invoke(tmp_path, tiny_folder, *more):
    if not (tmp_path / "relations").exists():
        rn.save_relations(tiny.relations(), tmp_path / "relations")
    app = typer.Typer()
    app.command()(command)
    given = {
        "--model": tiny_folder,
        "--relations": tmp_path / "relations",
        "--out": tmp_path / "out",
        "--by": "average_precision,d_prime",
        "--sites": "post",
        "--dose": 6,
        "--held-out": 0.4,
        "--draws": 1,
        "--min-known": 5,
        "--device": "cpu",
    }
    given |= dict(zip(more[::2], more[1::2], strict=True))
    flat = [str(part) for pair in given.items() for part in pair]
    return CliRunner().invoke(app, flat, catch_exceptions=True)


def test_the_command_leaves_tables_and_a_manifest_and_says_who_wins(tmp_path, tiny_folder):
    result = invoke(tmp_path, tiny_folder)
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        "checksums.json",
        "comparison.json",
        "comparison.parquet",
        "comparison_effects.parquet",
        "comparison_sets.parquet",
        "comparison_standings.parquet",
        "parts",
    }
    standings = pd.read_parquet(out / "comparison_standings.parquet")
    for row in standings.itertuples():
        assert f"{row.specificity:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" in result.output
    manifest = json.loads((out / "comparison.json").read_text())
    assert manifest["comparison"]["by"] == ["average_precision", "d_prime"]
    assert manifest["model"]["weight_hash"] and manifest["seed"] == 0
    assert manifest["options"]["doses"] == ["6"]

    more = invoke(tmp_path, tiny_folder, "--by", "average_precision,d_prime,auroc")
    assert more.exit_code == 0, more.output
    assert "average_precision-post-top: read from" in more.output
    assert "auroc-post-top: read from" not in more.output
    grown = pd.read_parquet(out / "comparison_standings.parquet")
    assert set(grown["by"]) == {"average_precision", "d_prime", "auroc"}


def test_the_command_refuses_a_dose_above_the_neurons_of_a_site_at_once(tmp_path, tiny_folder):
    result = invoke(tmp_path, tiny_folder, "--sites", "post,out", "--dose", 190)  # out has fewer
    assert isinstance(result.exception, DoseError)
    assert not (tmp_path / "out").exists()


def test_pitfall_19_a_folder_of_other_options_is_refused(tmp_path, tiny_folder):
    assert invoke(tmp_path, tiny_folder, "--by", "d_prime").exit_code == 0
    other = invoke(tmp_path, tiny_folder, "--by", "d_prime", "--draws", 2)
    assert isinstance(other.exception, ResultsError)
    assert "another draws (1 there, 2 here)" in str(other.exception)
    (tmp_path / "out" / "comparison.json").unlink()
    orphaned = invoke(tmp_path, tiny_folder, "--by", "d_prime")
    assert isinstance(orphaned.exception, ResultsError)
    assert "no comparison.json" in str(orphaned.exception)


def test_the_command_refuses_what_it_cannot_do_before_a_model_loads(tmp_path):
    result = invoke(tmp_path, tmp_path / "no-such-model", "--by", "aurok")
    assert isinstance(result.exception, RelationNeuronsError)
    assert "auroc" in str(result.exception)
    assert not (tmp_path / "out").exists()
