"""Each criterion against scikit-learn, scipy or brute force, and the two ends of a ranking."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

import relation_neurons as rn
from helpers.paths import ROOT
from relation_neurons.activations.table import ActivationTable
from relation_neurons.errors import (
    ActivationError,
    DoseError,
    TooFewFactsError,
    UnknownOptionError,
)
from relation_neurons.ranking.criteria import CRITERIA, activation_entropy, applicable_contrasts
from relation_neurons.scoring.scores import family_auroc
from relation_neurons.storage.files import read_table

RELATIONS = ("a", "b", "c")
FACTS = 20
LAYERS, WIDTH = 2, 40


@pytest.fixture(scope="module")
def made():
    """Three relations of 20 prompts (five of them unknown), 12 neutral and 12 nonsense prompts each."""
    rng = np.random.default_rng(0)
    kinds = ["fact"] * FACTS * 3 + ["background"] * 12 + ["nonsense"] * 36
    relations = [r for r in RELATIONS for _ in range(FACTS)] + ["(background)"] * 12
    relations += [r for r in RELATIONS for _ in range(12)]
    count = len(kinds)
    frame = pd.DataFrame(
        {
            "prompt_id": range(count),
            "kind": kinds,
            "relation": relations,
            "language": "en",
            "subject": [f"s{i}" for i in range(count)],
            "side": "detection",
        }
    )
    values = torch.from_numpy(rng.normal(size=(count, LAYERS, WIDTH))).float()
    for i, relation in enumerate(RELATIONS):
        here = np.flatnonzero(frame["relation"] == relation)
        values[here, 0, 5 * i : 5 * i + 5] += torch.linspace(0.5, 3, 5)
        values[here, 1, 5 * i : 5 * i + 3] -= 6.0
    values[:, 0, 30] = values[:, 0, 30].round()  # ties
    values[:, 1, 39] = 0.25  # constant
    tokens = torch.from_numpy(rng.integers(4, 9, count))
    odds = torch.sigmoid(values.double() - 1)
    fired = torch.from_numpy(rng.binomial(tokens.numpy()[:, None, None], odds.numpy()))
    ones = torch.ones(LAYERS, WIDTH)
    table = ActivationTable(
        values,
        frame,
        ones * 0,
        ones,
        ones,
        "mean",
        "post",
        active=(fired / tokens[:, None, None]).float(),
        token_counts=tokens,
    )
    facts = frame[frame["kind"] == "fact"]
    recall = facts.assign(known=np.arange(len(facts)) % 4 != 0, margin=1.0)
    recall = pd.concat(
        [recall, recall.assign(side="held_out", prompt_id=recall["prompt_id"] + 1000)]
    )
    attribution = torch.from_numpy(rng.normal(size=values.shape)).float()
    attribution[frame["kind"].to_numpy() != "fact"] = torch.nan
    return table, recall, attribution


def rank(made, by, **options):
    table, recall, attribution = made
    options = {"keep": 80, "min_known": 5, **options}
    return rn.rank_neurons(table, recall, by=by, attribution=attribution, **options)


def members(made, relation, contrast="specific"):
    """Positive, negative and neither of a family, by its definition."""
    table, recall, _ = made
    frame = table.prompts
    known = frame["prompt_id"].map(recall.set_index("prompt_id")["known"]).eq(True)
    fact, here = frame["kind"] == "fact", frame["relation"] == relation
    positive = {
        "specific": here & fact & known,
        "background": here & fact & known,
        "unknown": here & fact & ~known,
        "nonsense": here & (frame["kind"] == "nonsense"),
    }[contrast]
    negative = frame["kind"] == "background" if contrast == "background" else fact & ~here
    return positive.to_numpy(copy=True), negative.to_numpy(copy=True)


def by_neuron(ranking, relation, column="value", contrast="specific"):
    """A column of one family's ranking, in the order of neurons."""
    frame = ranking.frame
    rows = frame[(frame["relation"] == relation) & (frame["score"] == contrast)]
    return rows.sort_values(["layer", "neuron"])[column].to_numpy()


@pytest.mark.parametrize("contrast", ["specific", "background", "unknown", "nonsense"])
def test_auroc_and_average_precision_equal_scikit_learn(made, contrast):
    for by, oracle in (("auroc", roc_auc_score), ("average_precision", average_precision_score)):
        ranking = rank(made, by)
        for relation in RELATIONS:
            positive, negative = members(made, relation, contrast)
            counted = positive | negative
            values = made[0].values.flatten(1).numpy()[counted]
            expected = [oracle(positive[counted], column) for column in values.T]
            found = by_neuron(ranking, relation, contrast=contrast)
            np.testing.assert_allclose(found, expected, atol=1e-6)
            np.testing.assert_allclose(
                by_neuron(ranking, relation, "ap", contrast),
                [average_precision_score(positive[counted], column) for column in values.T],
                atol=1e-6,
            )


def test_pitfall_10_tied_activations_are_half_right_in_auroc_whatever_the_row_order():
    member = torch.tensor([[1] * 5 + [0] * 25], dtype=torch.int8)
    activations = torch.ones(30, 1)
    for order in (torch.arange(30), torch.arange(30).flip(0)):
        assert family_auroc(activations[order], member[:, order]).item() == 0.5
    none = torch.zeros(1, 30, dtype=torch.int8)
    assert family_auroc(activations, none).isnan().all()


def test_the_differences_are_their_formulas(made):
    plain, standard = rank(made, "mean_difference"), rank(made, "d_prime")
    for relation in RELATIONS:
        positive, negative = members(made, relation)
        values = made[0].values.flatten(1).double().numpy()
        a, b = values[positive], values[negative]
        difference = a.mean(0) - b.mean(0)
        np.testing.assert_allclose(by_neuron(plain, relation), difference, atol=1e-9)
        with np.errstate(invalid="ignore"):
            expected = np.nan_to_num(difference / np.sqrt((a.var(0) + b.var(0)) / 2))
        np.testing.assert_allclose(by_neuron(standard, relation), expected, atol=1e-6)
        np.testing.assert_array_equal(
            by_neuron(standard, relation).astype(np.float32),
            by_neuron(standard, relation, "d_prime"),
        )


def entropy_by_brute_force(probability):
    """Tang et al.'s selection, a neuron at a time, with scipy's entropy."""
    ordered = sorted(probability.ravel())
    bar = ordered[round(len(ordered) * 0.95) - 1]
    found = np.full(probability.shape, np.nan)
    for neuron in range(probability.shape[1]):
        for relation in range(len(probability)):
            if probability[relation, neuron] > bar:
                found[relation, neuron] = scipy_entropy(probability[:, neuron])
    return found


@pytest.mark.parametrize("contrast", ["specific", "unknown", "nonsense"])
def test_activation_entropy_equals_brute_force_over_tokens(made, contrast):
    table = made[0]
    ranking = rank(made, "activation_entropy")
    probability = []
    for relation in RELATIONS:
        positive, _ = members(made, relation, contrast)
        fired = (table.active[positive] * table.token_counts[positive][:, None, None]).round()
        tokens = int(table.token_counts[positive].sum())
        probability.append(fired.double().sum(0).flatten().numpy() / tokens)
    expected = entropy_by_brute_force(np.array(probability))
    assert 0 < np.isfinite(expected).sum() < expected.size
    for i, relation in enumerate(RELATIONS):
        np.testing.assert_allclose(
            by_neuron(ranking, relation, contrast=contrast), -expected[i], atol=1e-6
        )


def test_entropy_ranks_the_specific_first_and_what_does_not_belong_last(made):
    ranking = rank(made, "activation_entropy")
    assert set(ranking.frame["score"]) == {"specific", "unknown", "nonsense"}
    for relation in RELATIONS:
        top = ranking.top(relation, 80)
        with_value = top["value"].notna().to_numpy()
        assert with_value[: with_value.sum()].all()
        values = top["value"][with_value].to_numpy()
        assert (np.diff(values) <= 0).all() and (values <= 0).all()
        rest = top[~with_value]["d_prime"].to_numpy()
        assert (np.diff(rest) <= 0).all()


def test_entropy_of_a_neuron_that_is_never_active_is_no_value():
    probability = np.random.default_rng(0).random((3, 60)) * 0.5
    probability[:, 7] = 0.0
    probability[:, 8] = 1.0, 0.0, 0.0
    found = activation_entropy(probability)
    assert np.isnan(found[:, 7]).all()
    assert found[0, 8] == 0.0 and np.isnan(found[1:, 8]).all()
    np.testing.assert_allclose(found, entropy_by_brute_force(probability), atol=1e-12)


def test_probe_equals_scikit_learn_and_is_sparse(made):
    ranking = rank(made, "probe", contrasts=("specific",))
    for relation in RELATIONS:
        positive, negative = members(made, relation)
        counted = positive | negative
        values = made[0].values.flatten(1).double().numpy()[counted]
        scale = values.std(0)
        scaled = (values - values.mean(0)) / np.where(scale > 1e-9, scale, 1)
        probe = LogisticRegression(
            l1_ratio=1.0,
            solver="liblinear",
            class_weight="balanced",
            random_state=0,
            max_iter=1000,
        ).fit(scaled, positive[counted])
        found = by_neuron(ranking, relation)
        np.testing.assert_allclose(found, probe.coef_[0], atol=1e-3)
        assert 0 < (found == 0).sum() < 80, "L1 sets some coefficients to 0, not all"
        top = ranking.top(relation, 80)
        first_zero = int((top["value"] > 0).sum())
        tied = top.iloc[first_zero:][top["value"].iloc[first_zero:] == 0]
        assert (np.diff(tied["d_prime"]) <= 0).all()


def test_pitfall_17_the_probe_gives_the_same_bytes_again(made):
    first, again = (rank(made, "probe", contrasts=("specific",)).frame for _ in range(2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)


def test_attribution_is_the_difference_of_means_and_leaves_out_what_has_no_answers(made):
    ranking = rank(made, "attribution")
    assert set(ranking.frame["score"]) == {"specific", "unknown"}
    attribution = made[2].flatten(1).double().numpy()
    for contrast in ("specific", "unknown"):
        for relation in RELATIONS:
            positive, negative = members(made, relation, contrast)
            expected = attribution[positive].mean(0) - attribution[negative].mean(0)
            np.testing.assert_allclose(
                by_neuron(ranking, relation, contrast=contrast), expected, atol=1e-9
            )


def test_the_default_is_average_precision_and_nothing_of_it_has_changed(made):
    """Value, then standardised difference, then index: the order before there were rivals."""
    table, recall, _ = made
    ranking = rn.rank_neurons(table, recall, keep=80, min_known=5)
    assert (ranking.by, ranking.end) == ("average_precision", "top")
    assert set(ranking.frame["score"]) == {"specific", "background", "unknown", "nonsense"}
    np.testing.assert_array_equal(ranking.frame["value"], ranking.frame["ap"])
    for relation in RELATIONS:
        positive, negative = members(made, relation)
        counted = positive | negative
        values = table.values.flatten(1).numpy()[counted]
        ap = [round(average_precision_score(positive[counted], v), 6) for v in values.T]
        d_prime = by_neuron(ranking, relation, "d_prime")
        expected = sorted(range(80), key=lambda n: (-ap[n], -d_prime[n], n))
        top = ranking.top(relation, 80)
        assert (top["layer"] * WIDTH + top["neuron"]).tolist() == expected


@pytest.mark.parametrize("by", [by for by in CRITERIA if by != "activation_entropy"])
def test_pitfall_14_top_and_bottom_are_disjoint_and_never_mixed(made, by):
    """Pitfall 14: "both" is not "top"; the bottom is a named option, and says so."""
    top, bottom = rank(made, by), rank(made, by, bottom=True)
    assert (top.end, bottom.end) == ("top", "bottom")
    assert "bottom 40 of 80" in repr(bottom) and "top 80 of 80" in repr(top)
    for relation in RELATIONS:
        highest = top.top(relation, 40)
        lowest = bottom.top(relation, 40)
        pairs = [set(zip(t["layer"], t["neuron"], strict=True)) for t in (highest, lowest)]
        assert not pairs[0] & pairs[1] and len(pairs[0] | pairs[1]) == 80
        assert highest["value"].min() >= lowest["value"].max()
        assert (np.diff(lowest["value"]) >= 0).all()
        with pytest.raises(DoseError, match="holds 40"):
            bottom.top(relation, 41)
    # the planted anti-correlated neurons are at the bottom and nowhere near the top
    if by in ("average_precision", "auroc", "d_prime", "mean_difference"):
        for i, relation in enumerate(RELATIONS):
            planted = {(1, 5 * i + k) for k in range(3)}
            first = bottom.top(relation, 3)
            assert set(zip(first["layer"], first["neuron"], strict=True)) == planted


def test_pitfall_14_ties_of_many_neurons_do_not_put_one_at_both_ends(made):
    """Constant neurons are all tied; index order alone would put the same ones at both ends."""
    table, recall, _ = made
    flat = ActivationTable(
        torch.zeros_like(table.values),
        table.prompts,
        table.mean,
        table.mean,
        table.mean,
        "mean",
        "post",
    )
    top = rn.rank_neurons(flat, recall, min_known=5).top("a", 10)
    bottom = rn.rank_neurons(flat, recall, min_known=5, bottom=True).top("a", 10)
    assert not set(top["layer"] * WIDTH + top["neuron"]) & set(
        bottom["layer"] * WIDTH + bottom["neuron"]
    )


def test_scores_limits_the_families(made):
    ranking = rank(made, "auroc", contrasts=("unknown", "specific"))
    assert Counter(ranking.frame["score"]) == {"specific": 240, "unknown": 240}
    assert applicable_contrasts("attribution", ("nonsense", "unknown")) == ("unknown",)


def test_what_a_criterion_needs_and_lacks_is_said_with_the_way_to_get_it(made):
    table, recall, attribution = made
    bare = ActivationTable(
        table.values, table.prompts, table.mean, table.mean, table.mean, "mean", "post"
    )
    with pytest.raises(ActivationError, match="active=True"):
        rn.rank_neurons(bare, recall, by="activation_entropy", min_known=5)
    with pytest.raises(ActivationError, match="collect_attribution"):
        rn.rank_neurons(bare, recall, by="attribution", min_known=5)
    with pytest.raises(ActivationError, match="same prompts and site"):
        rn.rank_neurons(
            bare, recall, by="attribution", attribution=attribution[:, :, :3], min_known=5
        )
    holed = attribution.clone()
    holed[3] = torch.nan
    with pytest.raises(ActivationError, match="missing for prompts that the ranking uses"):
        rn.rank_neurons(bare, recall, by="attribution", attribution=holed, min_known=5)


def test_wrong_choices_name_what_there_is(made):
    for options, message in (
        ({"by": "aurok"}, "auroc"),
        ({"by": "auroc", "scores": ("specifc",)}, "specific"),
        ({"by": "attribution", "scores": ("background",)}, "ranks specific, unknown"),
        ({"by": "activation_entropy", "bottom": True}, "has no bottom"),
    ):
        with pytest.raises(UnknownOptionError, match=message):
            rank(made, **options)


def test_entropy_takes_two_relations(made):
    table, recall, _ = made
    recall = recall.assign(known=recall["known"] & (recall["relation"] == "a"))
    with pytest.raises(TooFewFactsError, match="not two to compare"):
        rn.rank_neurons(
            table, recall, by="activation_entropy", min_known=5, contrasts=("specific",)
        )


def test_a_ranking_of_before_there_was_a_value_still_loads():
    folder = ROOT / "results" / "reference"
    frame, neurons = (read_table(folder / f"{name}.parquet") for name in ("ranking", "neurons"))
    ranking = rn.Ranking(frame.drop(columns="value", errors="ignore"), neurons)
    assert ranking.by == "average_precision" and ranking.end == "top"
    assert len(ranking.top(ranking.relations[0], 92)) == 92
    assert rn.load_results(folder).ranking.top(ranking.relations[0], 5)["rank"].tolist() == [
        1,
        2,
        3,
        4,
        5,
    ]
