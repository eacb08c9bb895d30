"""Versatility across languages, on a model whose shared neurons are known by construction."""

from __future__ import annotations

import warnings

import pandas as pd
import pytest

import relation_neurons as rn
from helpers import bilingual
from relation_neurons.errors import LeftOutWarning
from relation_neurons.experiment.rank_stage import rank_stage
from relation_neurons.relations.prompts import BACKGROUND
from relation_neurons.relations.shipped import load_background
from relation_neurons.results.options import make_options
from relation_neurons.results.table_store import TableStore
from relation_neurons.results.verification import verify_folder
from relation_neurons.storage.run_folder import record

OPTIONS = {
    "held_out": 12,
    "nonsense": 4,
    "doses": (2, bilingual.PLANTED),
    "draws": 2,
    "home_draws": 24,
}


@pytest.fixture(scope="module")
def speaker(tmp_path_factory):
    return rn.load_model(bilingual.checkpoint(tmp_path_factory.mktemp("two") / "m"), device="cpu")


@pytest.fixture(scope="module")
def results(speaker, tmp_path_factory):
    out = tmp_path_factory.mktemp("languages") / "run"
    return rn.run(speaker, bilingual.relations(), out=out, **OPTIONS)


def test_the_planted_neurons_are_found_in_each_language(results):
    assert results.recall["known"].all()
    for contrast in ("specific", "background"):
        for relation, language in results.ranking.pairs:
            top = results.ranking.top(
                relation, bilingual.PLANTED, contrast=contrast, language=language
            )
            assert set(top["neuron"]) == bilingual.planted(relation, language), (contrast, relation)


def test_verify_counts_the_rows_of_every_language(results):
    assert [check for check in verify_folder(results.folder) if not check] == []
    path = results.folder / "effects.parquet"
    whole = path.read_bytes()
    table = pd.read_parquet(path)
    table[(table["ablated_language"] != "de") | (table["language"] != "en")].to_parquet(path)
    record(results.folder, path)
    wrong = [check.problem for check in verify_folder(results.folder) if not check]
    path.write_bytes(whole)
    record(results.folder, path)
    assert len(wrong) == 1 and "not whole" in wrong[0]


def test_a_fact_keeps_its_id_and_its_side_across_languages(results):
    facts = results.prompts[results.prompts["kind"] == "fact"]
    assert (facts.groupby("fact")["side"].nunique() == 1).all()
    assert (facts.groupby("fact")["language"].nunique() == 2).all()
    assert (facts.groupby("fact")["subject"].nunique() == 2).all()


def test_neutral_prompts_come_in_each_language_and_are_compared_within_it(results):
    neutral = results.prompts[results.prompts["relation"] == BACKGROUND]
    assert neutral.groupby("language").size().to_dict() == {
        language: len(load_background(language)) for language in ("de", "en")
    }


def test_overlap_between_languages_is_that_of_the_planted_neurons(results):
    cells = rn.overlap_matrix(results.ranking, dose=bilingual.PLANTED)
    cells = cells.set_index(["relation", "language", "other", "other_language"])
    shared = cells.loc[("capital", "en", "capital", "de")]
    assert shared["shared"] == bilingual.PLANTED and shared["p_value"] < 0.2
    assert 0 < shared["expected"] < bilingual.PLANTED, "the same facts share some neurons by chance"
    apart = cells.loc[("river", "en", "river", "de")]
    assert apart["shared"] == 0 and apart["p_value"] == 1.0
    assert cells.loc[("capital", "en", "river", "en"), "shared"] == 0


@pytest.mark.parametrize("contrast", ["background", "specific"])
def test_transfer_follows_the_shared_neurons_and_nothing_else(results, contrast):
    cells = rn.transfer_matrix(results.effects, dose=bilingual.PLANTED, contrast=contrast)
    cells = cells[cells["ablated"] == cells["relation"]]
    cells = cells.set_index(["relation", "ablated_language", "language"])["transfer"]
    for found, judged in (("en", "de"), ("de", "en")):
        assert cells["capital", found, judged] == 1.0
        assert cells["river", found, judged] == 0.0
        assert cells["river", found, found] == 1.0


def test_home_and_elsewhere_are_read_within_a_language(results):
    rows = {(r["relation"], r["what"]): r for r in results.summary["headline"]}
    names = {"capital (en)", "capital (de)", "river (en)", "river (de)", "all relations"}
    assert {name for name, _ in rows} == names
    matrix = rn.interference_matrix(results.effects)
    assert set(matrix["ablated"]) == names - {"all relations"}
    home = matrix[matrix["ablated"] == matrix["relation"]]
    assert (home["effect"] == -1.0).all()
    assert (matrix[matrix["ablated"] != matrix["relation"]]["effect"] == 0.0).all()
    assert len(matrix) == 8  # within a language only: what crosses is transfer
    curves = rn.dose_curves(results.effects)
    pairs = set(zip(curves["ablated"], curves["ablated_language"], strict=True))
    assert {f"{name} ({language})" for name, language in pairs} == names - {"all relations"}
    assert (curves[curves["where"] == "home"].groupby("dose")["n"].max() == 12).all()
    assert [row["share"] for row in results.summary["languages"]] == [1.0, 1.0]
    page = (results.folder / "report.html").read_text(encoding="utf-8")
    assert "capital (de)" in page and "transfer_background" in page


def test_a_language_in_which_too_little_is_known_is_left_out_by_name(speaker, tmp_path):
    from dataclasses import replace

    made = bilingual.relations()
    unknown = [
        replace(one, facts=tuple(replace(f, objects=("[UNK]",)) for f in one.facts))
        if (one.name, one.language) == ("river", "de")
        else one
        for one in made
    ]
    with pytest.warns(
        LeftOutWarning, match=r"1 of 4 relations is left out .*\(river \(de\): knows 0"
    ):
        results = rn.run(speaker, unknown, out=tmp_path / "run", **OPTIONS)
    assert list(results.ranking.left_out) == ["river (de)"]
    assert ("river", "de") not in results.ranking.pairs
    assert ("river", "en") in results.ranking.pairs
    asked = set(zip(results.effects["relation"], results.effects["language"], strict=True))
    assert ("river", "de") not in asked
    assert results.summary["left_out"].keys() == {"river (de)"}
    said = []
    with warnings.catch_warnings():  # who is told line by line is not warned as well
        warnings.simplefilter("error", LeftOutWarning)
        options = make_options("default", **OPTIONS)
        rank_stage(speaker, unknown, options, TableStore(log=said.append))
    assert [line for line in said if line.startswith("left out: river (de), knows 0 of ")]


def test_one_language_alone_is_named_without_it(speaker):
    english = [one for one in bilingual.relations() if one.language == "en"]
    results = rn.run(speaker, english, **OPTIONS)
    assert set(rn.interference_matrix(results.effects)["ablated"]) == {"capital", "river"}
    assert results.manifest["options"]["checks"] == ("unknown",)


def test_negatives_are_those_of_the_same_language(speaker):
    """Each language is ranked as if it were alone: the other's prompts are no negatives."""
    relations = bilingual.relations()
    prompts = rn.make_prompts(relations, speaker.tokenizer, held_out=12, nonsense=4)
    recall = rn.measure_recall(speaker, prompts)
    table = rn.collect_activations(speaker, prompts.detection)
    both = rn.rank_neurons(table, recall).frame
    for language in ("en", "de"):
        alone = rn.rank_neurons(
            table.take(table.prompts["language"] == language),
            recall[recall["language"] == language],
        ).frame
        here = both[both["language"] == language]
        assert set(alone["score"]) >= {"specific", "background"}
        # By neuron and not by rank, as planted neurons are alike to the last bits.
        keys = ["score", "relation", "layer", "neuron"]
        one, other = (
            frame.set_index(keys)[["ap", "d_prime", "mean_negative"]].sort_index()
            for frame in (here, alone)
        )
        pd.testing.assert_frame_equal(one, other, check_exact=False, atol=1e-6, rtol=1e-6)


def test_facts_that_are_not_linked_between_languages_are_refused(speaker):
    """Without ids a fact could detect in one language and judge in another (pitfall 16)."""
    from dataclasses import replace

    unlinked = [
        replace(one, facts=tuple(replace(fact, id="") for fact in one.facts))
        for one in bilingual.relations()
    ]
    with pytest.raises(rn.errors.RelationFormatError, match="only 0 of its 30 facts"):
        rn.run(speaker, unlinked, **OPTIONS)
    findings = rn.check_relations(unlinked)
    row = findings[findings["finding"] == "facts that are not linked between languages"]
    assert row["stops"].all() and len(row) == 1


def test_shots_are_the_same_facts_in_each_language(speaker):
    made = rn.make_prompts(
        bilingual.relations(), speaker.tokenizer, held_out=12, shots=2, nonsense=0
    )
    asked = made.frame[made.frame["kind"] == "fact"]
    ids = asked.groupby(["relation", "language"])["fact"].agg(set)
    assert ids["capital", "en"] == ids["capital", "de"] and len(ids["capital", "en"]) == 28


def test_a_relation_without_others_in_its_language_is_not_counted_as_judged(speaker):
    made = [o for o in bilingual.relations() if (o.name, o.language) != ("river", "de")]
    results = rn.run(speaker, made, **OPTIONS)
    assert "capital (de)" in results.summary["left_out"]
    ranked = {(r["relation"], r["language"]): r["ranked"] for r in results.summary["relations"]}
    assert ranked == {("capital", "en"): True, ("river", "en"): True, ("capital", "de"): False}
    with pytest.raises(rn.errors.TooFewFactsError, match="it takes two"):
        rn.run(speaker, [o for o in made if o.name == "capital"], **OPTIONS)
