"""Random sets that are drawn for at home until the answer is clear."""

from __future__ import annotations

import pandas as pd
import pytest

import relation_neurons as rn
from helpers.small_options import small
from relation_neurons.report.page import build_report
from relation_neurons.results.verification import verify_folder
from relation_neurons.storage.run_folder import record

OPTIONS = small(doses=(8,), draws=1, judged_draws=4, home_draws=120)


@pytest.fixture(scope="module")
def source():
    return rn.planted_model(relations=4, seed=0)


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("home") / "run"
    return rn.run(source.model, source.relations, out=out, **OPTIONS)


def test_draws_go_on_at_home_until_each_answer_is_clear(source, finished):
    drawn = finished.home_draws
    assert len(drawn) and (drawn["relation"].astype(str) == drawn["ablated"].astype(str)).all()
    assert (drawn["draw"] >= 4).all() and (drawn["kind"] == "control_contribution").all()
    held_out = finished.effects.drop_duplicates("prompt_id").groupby("relation", observed=True)
    asked = held_out["prompt_id"].nunique()
    for (relation, _), part in drawn.groupby(["relation", "draw"], observed=True):
        assert part["prompt_id"].nunique() == len(part) == asked[relation]
    matrix = rn.interference_matrix(finished.effects, finished.home_draws)
    home = matrix[matrix["family"] == "home"].set_index("ablated")
    assert ((home["draws_needed"] == 0) | (home["draws"] == OPTIONS["home_draws"])).all()
    assert home["significant"].any(), "planted neurons harm more than any random set"
    assert (home["draws"] == 4).any(), "no more draws where the facts show no harm"
    said = finished.summary["families"][0]
    assert said["family"] == "home" and said["draws_needed"] == (
        home.loc[~home["significant"], "draws_needed"].max()
    )
    few = rn.interference_matrix(finished.effects)
    assert not few["significant"].any(), "four draws show nothing"
    assert few.query("family == 'home'")["draws_needed"].max() > 20


def test_each_draw_is_a_set_of_its_own_disjoint_from_the_ranked_one(finished):
    drawn = finished.home_draws
    changes = drawn.groupby(["ablated", "draw"], observed=True)["margin"].apply(tuple)
    assert changes.groupby(level=0, observed=True).nunique().min() > 1


def test_without_further_draws_the_report_says_what_is_missing(source, tmp_path):
    results = rn.run(source.model, source.relations, **{**OPTIONS, "home_draws": 0})
    assert results.home_draws.empty
    said = " ".join(build_report(results).split())
    assert "no relation alone is significant with 4 random sets, and 2 are open: that takes" in said
    assert "no cell can be significant with 4 random sets" in said


def test_the_same_bytes_again_and_after_a_table_was_lost(source, finished, tmp_path):
    whole = {
        name: (finished.folder / f"{name}.parquet").read_bytes()
        for name in ("effects", "home_draws")
    }
    again = rn.run(source.model, source.relations, out=tmp_path / "run", **OPTIONS)
    for name, data in whole.items():
        assert (again.folder / f"{name}.parquet").read_bytes() == data
    for name in ("home_draws.parquet", "report.html"):
        (again.folder / name).unlink()
    rn.run(source.model, source.relations, out=tmp_path / "run", **OPTIONS)
    assert (again.folder / "home_draws.parquet").read_bytes() == whole["home_draws"]


FAULTS = [
    "a draw is missing",
    "a prompt is missing",
    "a draw too many",
    "another relation's prompts",
]


@pytest.mark.parametrize("fault", FAULTS)
def test_verify_draws_again_and_finds_what_is_wrong(finished, fault):
    assert [check for check in verify_folder(finished.folder) if not check] == []
    path = finished.folder / "home_draws.parquet"
    whole, table = path.read_bytes(), pd.read_parquet(path)
    first = table.iloc[0]
    here = (table["ablated"] == first["ablated"]) & (table["draw"] == first["draw"])
    wrong = {
        "a draw is missing": table[~here],
        "a prompt is missing": table.drop(index=table.index[3]),
        "another relation's prompts": table.assign(
            relation=table["relation"].iloc[::-1].to_numpy()
        ),
        "a draw too many": pd.concat([table, table[here].assign(draw=table["draw"].max() + 1)]),
    }[fault]
    wrong.to_parquet(path)
    record(finished.folder, path)
    problems = [check for check in verify_folder(finished.folder) if not check]
    path.write_bytes(whole)
    record(finished.folder, path)
    assert len(problems) == 1 and "home draws" in problems[0].what
