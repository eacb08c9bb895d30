"""Stability of the top sets: on planted structure, on noise, and against `rank_neurons`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import relation_neurons as rn
from relation_neurons.activations.table import ActivationTable
from relation_neurons.errors import (
    DoseError,
    RelationFormatError,
    TooFewFactsError,
    UnknownOptionError,
)
from relation_neurons.plots import reliability as plot_stability
from relation_neurons.ranking.stability import (
    find_subjects,
    ranking_stability,
    redraw_subjects,
    split_halves,
    stability_summary,
    top_neurons,
)

RELATIONS = ("a", "b", "c")
PLANTED, DOSE = 6, 6
COLUMNS = [
    "relation",
    "language",
    "score",
    "dose",
    "what",
    "repeat",
    "left_out",
    "shared",
    "expected",
    "jaccard",
    "n_first",
    "n_second",
]


def make_table(*, strength, facts=30, neurons=400, seed=0, languages=("en",), unknown=4):
    """Three relations over shared and own subjects, two templates each, and 40 neutral prompts.

    Relation k's neurons are 6k to 6k + 5, raised by `strength` on its prompts.
    """
    rows = []
    for language in languages:
        for relation in RELATIONS:
            for i in range(facts):
                name = f"Shared {i}" if i < facts // 2 else f"{relation} {i}"
                subject = name if language == "en" else f"{name} {language}"
                for form in ("says", "asks"):
                    rows.append(("fact", relation, language, f"{relation}{i}", subject, form))
        rows += [("background", "(background)", language, "", "", f"t{i}") for i in range(40)]
    rows.append(("nonsense", "a", languages[0], "x", "x", "says"))
    columns = ["kind", "relation", "language", "fact", "subject", "template"]
    frame = pd.DataFrame(rows, columns=columns)
    frame.insert(0, "prompt_id", np.arange(len(frame)) + 100)
    frame["side"] = "detection"
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(len(frame), 2, neurons // 2)).astype(np.float32)
    flat = values.reshape(len(frame), neurons)
    for k, relation in enumerate(RELATIONS):
        here = np.flatnonzero((frame["relation"] == relation) & (frame["kind"] == "fact"))
        flat[here, PLANTED * k : PLANTED * (k + 1)] += strength
    recall = frame[frame["kind"] == "fact"].copy()
    recall["known"] = ~recall["fact"].str[1:].astype(int).between(0, unknown - 1)
    held_out = recall.assign(side="held_out", prompt_id=recall["prompt_id"] + 10_000)
    plain = torch.ones(2, neurons // 2)
    table = ActivationTable(torch.from_numpy(values), frame, plain, plain, plain, "mean", "post")
    return table, pd.concat([recall, held_out])


def known_rows(table, recall):
    return table.prompts["prompt_id"].isin(recall.loc[recall["known"], "prompt_id"]).to_numpy()


def test_planted_neurons_are_found_again_whatever_is_redrawn():
    frame = ranking_stability(*make_table(strength=4.0), dose=DOSE)
    assert list(frame.columns) == COLUMNS
    assert set(frame["what"]) == {"halves", "seeds", "templates", "relations"}
    assert set(frame["relation"]) == set(RELATIONS)
    assert frame.loc[frame["score"] == "specific", "shared"].ge(DOSE - 1).all()
    assert frame["expected"].eq(DOSE**2 / 400).all()
    np.testing.assert_allclose(frame["jaccard"], frame["shared"] / (2 * DOSE - frame["shared"]))
    summary = stability_summary(frame).set_index(["score", "what"])
    assert summary.loc[("specific", "halves"), "share"].min() > 0.95
    assert ("background", "relations") not in summary.index


def test_noise_is_found_again_about_as_often_as_chance_says():
    table, recall = make_table(strength=0.0, neurons=2000)
    frame = ranking_stability(table, recall, dose=200, repeats=8, contrasts=("specific",))
    halves = frame[frame["what"] == "halves"]
    assert halves["expected"].iloc[0] == 20
    assert halves["shared"].mean() == pytest.approx(20, abs=4)
    seeds = frame[frame["what"] == "seeds"]["shared"]
    assert seeds.mean() > 60  # two draws share facts, so even noise comes back


def test_each_ranking_is_that_of_rank_neurons_on_the_same_prompts():
    """Halves, templates and leave-one-out, each against a table that holds only their prompts."""
    table, recall = make_table(strength=0.6)
    frame = ranking_stability(table, recall, dose=40, repeats=1, seed=5)
    prompts = table.prompts
    half = split_halves(prompts, known_rows(table, recall), np.random.default_rng([5, 0, 0]))
    parts = {
        ("halves", 0): (half, ~half),
        ("relations", 0): (half | True, prompts["relation"] != "b"),
        ("relations", 1): (half | True, prompts["relation"] != "c"),
    }
    for contrast in ("specific", "background"):
        for (what, repeat), sides in parts.items():
            rows = frame[(frame["what"] == what) & (frame["repeat"] == repeat)]
            rows = rows[(rows["relation"] == "a") & (rows["score"] == contrast)]
            sets = [top_of(table.take(side), recall, contrast) for side in sides]
            expected = (
                []
                if what == "relations" and contrast == "background"
                else [len(set.__and__(*sets))]
            )
            assert rows["shared"].tolist() == expected
    left_out = frame[(frame["what"] == "relations") & (frame["relation"] == "a")]
    assert left_out["left_out"].tolist() == ["b", "c"]
    template = frame[(frame["what"] == "templates") & (frame["score"] == "specific")].iloc[0]
    others = prompts["relation"] != "a"
    sets = [
        top_of(table.take(others | (prompts["template"] == name)), recall)
        for name in ("says", "asks")
    ]
    assert template["shared"] == len(set.__and__(*sets))
    assert template["n_first"] == template["n_second"] == 26


def top_of(table, recall, contrast="specific"):
    top = rn.rank_neurons(table, recall).top("a", 40, contrast=contrast)
    return set(top["layer"] * 200 + top["neuron"])


def test_pitfall_11_the_order_is_that_of_rank_neurons_under_ties():
    rng = np.random.default_rng(0)
    table, recall = make_table(strength=0.0, neurons=60)
    rough = torch.from_numpy(rng.integers(0, 2, table.values.shape)).float()
    rough[:, 0, 5:12] = 0.0  # dead neurons tie in everything
    is_a = torch.tensor((table.prompts["relation"] == "a").to_list())
    rough[is_a, 1, 3:9] += 9.0 + torch.arange(6)  # AP is 1 in all six
    table = ActivationTable(
        rough, table.prompts, table.mean, table.contribution, table.mean, "mean", "post"
    )
    positive = is_a.numpy() & known_rows(table, recall)
    negative = (table.prompts["kind"] == "fact").to_numpy() & ~is_a.numpy()
    member = torch.from_numpy(np.where(positive, 1, np.where(negative, 0, -1)).astype(np.int8))
    ranked = rn.rank_neurons(table, recall, keep=60).top("a", 60)
    places = (ranked["layer"] * 30 + ranked["neuron"]).to_numpy()
    for dose in (1, 3, 6, 7, 40, 60):
        found = top_neurons(table.values.flatten(1), member[None], dose)[0]
        assert found.tolist() == places[:dose].tolist()


def test_pitfall_16_no_subject_is_in_both_halves_and_each_relation_parts_evenly():
    table, recall = make_table(strength=0.0, languages=("en", "de"))
    prompts, known = table.prompts, known_rows(table, recall)
    for seed in range(20):
        half = split_halves(prompts, known, np.random.default_rng(seed))
        facts = prompts[prompts["kind"] == "fact"]
        for names in (["subject"], ["relation", "fact"]):  # nor a fact in another language
            sides = facts.assign(half=half[facts.index]).groupby(names)["half"].nunique()
            assert sides.eq(1).all()
        rows = prompts.assign(half=half, known=known)
        for _, group in rows[rows["kind"] != "nonsense"].groupby(["relation", "language", "known"]):
            assert abs(group["half"].sum() * 2 - len(group)) <= 8
        aside = ~redraw_subjects(prompts, 0.2, np.random.default_rng(seed))
        kept_subjects = set(prompts.loc[~aside, "subject"]) - {""}
        assert not kept_subjects & set(prompts.loc[aside, "subject"])
        assert not aside[prompts["kind"] != "fact"].any()
        subjects = find_subjects(prompts)
        share = (
            np.unique(subjects[aside]).size / np.unique(subjects[prompts["kind"] == "fact"]).size
        )
        assert share == pytest.approx(0.2, abs=0.01)


def test_pitfall_17_same_seed_same_bytes_and_another_seed_another_draw():
    table, recall = make_table(strength=0.3)
    frame = ranking_stability(table, recall, dose=30, repeats=2, seed=1)
    again = ranking_stability(table, recall, dose=30, repeats=2, seed=1)
    pd.testing.assert_frame_equal(frame, again)
    assert frame.to_csv() == again.to_csv()
    other = ranking_stability(table, recall, dose=30, repeats=2, seed=2)
    drawn = frame["what"].isin(["halves", "seeds"])
    assert not frame[drawn].equals(other[drawn])
    pd.testing.assert_frame_equal(frame[~drawn], other[~drawn])
    more = ranking_stability(table, recall, dose=30, repeats=3, seed=1)
    first = more[~more["what"].isin(["halves", "seeds"]) | (more["repeat"] < 2)]
    pd.testing.assert_frame_equal(first.reset_index(drop=True), frame)


def test_chunks_of_tasks_do_not_change_the_sets(monkeypatch):
    table, recall = make_table(strength=0.3)
    whole = ranking_stability(table, recall, dose=30, repeats=2)
    monkeypatch.setattr("relation_neurons.ranking.stability._CELLS", 1700)
    pd.testing.assert_frame_equal(whole, ranking_stability(table, recall, dose=30, repeats=2))


def test_a_ranking_from_too_few_known_facts_gives_no_number():
    table, recall = make_table(strength=1.0, facts=18, unknown=1)  # 17 known: 8 or 9 a half
    frame = ranking_stability(table, recall, dose=DOSE, repeats=2)
    halves = frame[frame["what"] == "halves"]
    assert halves[["shared", "jaccard"]].isna().all(axis=None)
    assert halves["n_first"].add(halves["n_second"]).eq(34).all()
    assert frame.loc[frame["what"] == "templates", "shared"].notna().all()
    summary = stability_summary(frame).set_index("what")
    assert summary.loc["halves", "share"].isna().all()
    assert summary.loc["halves", "comparisons"].eq(0).all()
    with pytest.raises(TooFewFactsError, match="No relation can be ranked"):
        ranking_stability(table, recall, dose=DOSE, min_known=18)


def test_languages_have_their_own_positives_and_negatives():
    table, recall = make_table(strength=3.0, languages=("en", "de"))
    frame = ranking_stability(table, recall, dose=DOSE, repeats=1)
    assert set(zip(frame["relation"], frame["language"], strict=True)) == {
        (relation, language) for relation in RELATIONS for language in ("en", "de")
    }
    english = table.take(table.prompts["language"] == "en")
    alone = ranking_stability(english, recall[recall["language"] == "en"], dose=DOSE, repeats=1)
    fixed = frame[(frame["language"] == "en") & frame["what"].isin(["templates", "relations"])]
    pd.testing.assert_frame_equal(
        fixed.reset_index(drop=True),
        alone[alone["what"].isin(["templates", "relations"])].reset_index(drop=True),
    )


def test_wrong_options_say_what_was_expected():
    table, recall = make_table(strength=0.0)
    with pytest.raises(UnknownOptionError, match="specific"):
        ranking_stability(table, recall, dose=5, contrasts=("specifc",))
    with pytest.raises(UnknownOptionError, match="one repeat"):
        ranking_stability(table, recall, dose=5, repeats=0)
    with pytest.raises(DoseError, match="this model has 400"):
        ranking_stability(table, recall, dose=401)
    assert ranking_stability(table, recall, dose="1%", repeats=1)["dose"].eq(4).all()


def test_the_figure_shows_every_kind_of_comparison_and_chance():
    table, recall = make_table(strength=3.0)
    frame = ranking_stability(table, recall, dose=DOSE, repeats=2)
    figure = plot_stability.stability(frame)
    names = [trace.name for trace in figure.data]
    assert len(names) == 5 and "by chance" in names
    halves = figure.data[0]
    expected = stability_summary(frame[frame["what"] == "halves"])
    specific = expected[expected["score"] == "specific"]
    assert sorted(halves.x) == sorted(specific["share"])
    assert len(plot_stability.stability(frame, contrast="background").data) == 4
    with pytest.raises(RelationFormatError, match="ranking_stability"):
        plot_stability.stability(frame.drop(columns="shared"))
    with pytest.raises(RelationFormatError, match="no row"):
        plot_stability.stability(frame, contrast="unknown")
