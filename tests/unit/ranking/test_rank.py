"""What a ranking holds: its order, its positives and negatives, and what is left out."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import relation_neurons as rn
from relation_neurons.activations.table import ActivationTable
from relation_neurons.errors import (
    DoseError,
    LeftOutWarning,
    TooFewFactsError,
    UnknownOptionError,
    UnknownRelationError,
)
from relation_neurons.ranking.detection_tasks import detection_tasks


def detection_table(values, known):
    """A table of two relations with 12 known prompts each and 6 neutral ones, one layer."""
    count = len(values)
    kind = ["fact"] * (count - 6) + ["background"] * 6
    half = (count - 6) // 2
    frame = pd.DataFrame(
        {
            "prompt_id": range(count),
            "kind": kind,
            "relation": ["a"] * half + ["b"] * half + ["(background)"] * 6,
            "language": "en",
            "subject": [f"s{i}" for i in range(count)],
            "side": "detection",
        }
    )
    recall = frame.iloc[: count - 6].assign(known=known, margin=1.0)
    recall = pd.concat(
        [recall, recall.assign(side="held_out", prompt_id=recall["prompt_id"] + 1000)]
    )
    plain = torch.ones(1, values.shape[2])
    return ActivationTable(values, frame, plain * 0, plain, plain, "mean", "post"), recall


def test_pitfall_11_saturated_ap_is_ordered_by_the_standardised_difference():
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal(size=(30, 1, 40)) * 0.1).float()
    values[:12, 0, 30] += 1.0  # AP = 1, well apart
    values[:12, 0, 35] += 5.0  # AP = 1, further apart
    values[:12, 0, 2] = values[12:24, 0, 2].max() + 0.01 + values[:12, 0, 2].abs()  # AP = 1, barely
    table, recall = detection_table(values, [True] * 24)
    assert rn.rank_neurons(table, recall).top("a", 3)["neuron"].tolist()[:2] == [35, 30]
    by_index = rn.rank_neurons(table, recall, order="index").top("a", 3)
    saturated = by_index[by_index["ap"] == 1]["neuron"].tolist()
    assert saturated == sorted(saturated) and saturated[0] == 2


@pytest.mark.parametrize(("subjects", "there"), [(9, False), (10, True)])
@pytest.mark.parametrize("kind", ["unknown", "nonsense"])
def test_a_ranking_needs_enough_subjects_however_many_prompts_they_have(kind, subjects, there):
    """Relation a: 20 known facts, and some that are unknown or nonsense, each in three templates."""
    rows = [("fact", "a", f"a{i}", True) for i in range(20)]
    rows += [("fact", "b", f"b{i}", True) for i in range(20)]
    other = "fact" if kind == "unknown" else "nonsense"
    rows += [(other, "a", f"x{i}", False) for i in range(subjects) for _ in range(3)]
    prompts = pd.DataFrame(rows, columns=["kind", "relation", "subject", "known"])
    prompts = prompts.assign(prompt_id=range(len(rows)), language="en", side="detection")
    recall = prompts[prompts["kind"] == "fact"]
    tasks = {task.key for task in detection_tasks(prompts, recall, min_known=10, left_out=())}
    assert ((kind, "a", "en") in tasks) is there
    assert ("specific", "a", "en") in tasks


def test_specific_and_background_have_their_own_negatives():
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal(size=(30, 1, 10)) * 0.01).float()
    values[:24, 0, 4] += 1.0  # both relations, no neutral prompt: shared
    values[:12, 0, 7] += 1.0  # relation a and neutral prompts
    values[24:, 0, 7] += 1.0
    table, recall = detection_table(values, [True] * 24)
    ranking = rn.rank_neurons(table, recall, min_known=6)
    assert rn.rank_neurons(table, recall).frame["score"].eq("specific").all()  # 6 are too few
    assert ranking.top("a", 1, contrast="background")["neuron"].item() == 4
    assert ranking.top("b", 1, contrast="background")["neuron"].item() == 4
    assert ranking.top("a", 1)["neuron"].item() == 7
    shared = rn.overlap_matrix(ranking, dose=1).set_index(["relation", "other"])["shared"]
    assert shared["a", "b"] == 1


def test_only_known_prompts_detect_and_the_unknown_ones_have_a_ranking_of_their_own():
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal(size=(46, 1, 10)) * 0.01).float()
    values[:10, 0, 3] += 1.0  # the prompts of a that are known
    values[10:20, 0, 6] += 1.0  # those that are not
    known = [True] * 10 + [False] * 10 + [True] * 20
    table, recall = detection_table(values, known)
    ranking = rn.rank_neurons(table, recall)
    assert ranking.top("a", 1)["neuron"].item() == 3
    assert ranking.top("a", 1, contrast="unknown")["neuron"].item() == 6
    with pytest.raises(UnknownRelationError, match="too few such prompts"):
        ranking.top("b", 1, contrast="unknown")


def test_a_relation_that_the_model_hardly_knows_is_left_out_by_name():
    values = torch.randn(30, 1, 10, generator=torch.Generator().manual_seed(0))
    table, recall = detection_table(values, [True] * 9 + [False] * 3 + [True] * 12)
    with pytest.raises(TooFewFactsError, match=r"a: knows 9 of 12 .*; b: knows 12 of 12"):
        rn.rank_neurons(table, recall, min_known=13)
    ranking = rn.rank_neurons(table, recall)
    assert ranking.relations == ["b"]
    assert (
        "knows 9 of 12 detection and 9 of 12 held_out facts, 10 are needed" in ranking.left_out["a"]
    )
    with pytest.raises(UnknownRelationError, match="was left out"):
        ranking.top("a", 1)


def test_what_is_left_out_is_warned_of_with_reasons_and_what_helps():
    values = torch.randn(30, 1, 10, generator=torch.Generator().manual_seed(0))
    table, recall = detection_table(values, [True] * 9 + [False] * 3 + [True] * 12)
    with pytest.warns(LeftOutWarning) as caught:
        rn.rank_neurons(table, recall)
    (warning,) = [one for one in caught if one.category is LeftOutWarning]
    said = str(warning.message)
    assert said.startswith("1 of 2 relations is left out") and "figures made from it" in said
    assert "(a: knows 9 of 12 detection and 9 of 12 held_out facts, 10 are needed" in said
    assert said.index("known_facts") < said.index("shots=3") < said.index("more facts")
    with pytest.raises(TooFewFactsError) as refused:
        rn.rank_neurons(table, recall, min_known=13)
    for text in (said, str(refused.value)):
        assert "min_known" not in text and "follow at once" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rn.rank_neurons(*detection_table(values, [True] * 24))


def test_nothing_to_tell_a_relation_from_is_said_as_such():
    values = torch.randn(30, 1, 10, generator=torch.Generator().manual_seed(0))
    table, recall = detection_table(values, [True] * 24)
    alone = table.take((table.prompts["relation"] == "a") & (table.prompts["kind"] == "fact"))
    with pytest.raises(TooFewFactsError, match="second relation, or neutral prompts"):
        rn.rank_neurons(alone, recall[recall["relation"] == "a"])


def test_an_overlap_knows_which_relations_it_lacks():
    values = torch.randn(30, 1, 10, generator=torch.Generator().manual_seed(0))
    table, recall = detection_table(values, [True] * 9 + [False] * 3 + [True] * 12)
    with pytest.warns(LeftOutWarning):
        ranking = rn.rank_neurons(table, recall)
    asked = {"dose": 2, "score": "specific"}
    for made in (rn.overlap_matrix(ranking, **asked), rn.set_intersections(ranking, **asked)):
        assert list(made.attrs["left_out"]) == ["a"]
        assert made.attrs["left_out"]["a"].startswith("knows 9 of 12 detection")
    figure = rn.plots.overlap(rn.overlap_matrix(ranking, **asked))
    assert "</b>, too little known to be ranked: a." in figure.layout.title.subtitle.text


def test_a_relation_without_a_ranking_of_the_score_is_missing_from_its_overlap():
    values = torch.randn(46, 1, 10, generator=torch.Generator().manual_seed(0))
    known = [True] * 10 + [False] * 10 + [True] * 20
    ranking = rn.rank_neurons(*detection_table(values, known))
    assert ranking.missing("specific") == {}
    assert list(ranking.missing("unknown")) == ["b"]
    assert list(rn.overlap_matrix(ranking, dose=2, contrast="unknown").attrs["left_out"]) == ["b"]


def test_a_dose_beyond_the_ranking_says_how_many_there_are():
    values = torch.randn(30, 1, 10, generator=torch.Generator().manual_seed(0))
    ranking = rn.rank_neurons(*detection_table(values, [True] * 24), keep=5)
    with pytest.raises(DoseError, match="holds 5 of the model's 10"):
        ranking.top("a", 6)
    with pytest.raises(UnknownRelationError, match="Known: a, b"):
        ranking.top("zzz", 1)


def test_wrong_options_name_their_choices():
    values = torch.randn(30, 1, 10, generator=torch.Generator().manual_seed(0))
    table, recall = detection_table(values, [True] * 24)
    with pytest.raises(UnknownOptionError, match="d_prime"):
        rn.rank_neurons(table, recall, order="d_prim")
