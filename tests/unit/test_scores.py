"""Average precision against scikit-learn, with ties, in every dtype."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

import relation_neurons as rn
from relation_neurons.errors import ActivationError
from relation_neurons.scores import family_average_precision, standardised_difference


def oracle(activations, labels, relations):
    scores = activations.double().numpy().reshape(len(activations), -1)
    return np.array(
        [
            [
                average_precision_score(labels.numpy() == r, scores[:, n])
                for n in range(scores.shape[1])
            ]
            for r in range(relations)
        ]
    )


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64]
)
def test_equals_scikit_learn_in_every_dtype(dtype):
    rng = np.random.default_rng(0)
    activations = torch.from_numpy(rng.normal(size=(200, 5, 8)) * 3).to(dtype)
    activations[:, 0, 0] = 1  # a constant column
    activations[:50, 1, 1] = 0.0
    activations[50:90, 1, 1] = -0.0  # a tie with the 0.0 above
    labels = torch.from_numpy(rng.integers(-1, 4, 200))
    found = rn.average_precision(activations, labels)
    assert found.shape == (4, 5, 8)
    np.testing.assert_allclose(found.reshape(4, -1), oracle(activations, labels, 4), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=6, max_size=40))
def test_equals_scikit_learn_under_many_ties(rows):
    activations = torch.tensor([[float(value)] for value, _ in rows])
    labels = torch.tensor([label for _, label in rows] + [])
    relations = int(labels.max()) + 1
    present = [r for r in range(relations) if (labels == r).any()]
    found = rn.average_precision(activations, labels)
    expected = oracle(activations, labels, relations)
    np.testing.assert_allclose(found[present], expected[present], atol=1e-6)


def test_pitfall_10_tied_activations_are_one_threshold_whatever_the_row_order():
    labels = torch.tensor([0] * 500 + [-1] * 2500)
    activations = torch.ones(3000, 1)
    for order in (torch.arange(3000), torch.arange(3000).flip(0)):
        found = rn.average_precision(activations[order], labels[order])
        assert found.item() == pytest.approx(500 / 3000, abs=1e-12)


def test_the_order_of_prompts_does_not_matter():
    rng = np.random.default_rng(1)
    activations = torch.from_numpy(rng.integers(0, 5, (80, 30))).half()
    labels = torch.from_numpy(rng.integers(-1, 3, 80))
    order = torch.from_numpy(rng.permutation(80))
    assert torch.equal(
        rn.average_precision(activations, labels),
        rn.average_precision(activations[order], labels[order]),
    )


def test_chunks_do_not_change_the_scores(monkeypatch):
    rng = np.random.default_rng(2)
    activations = torch.from_numpy(rng.normal(size=(50, 101))).float()
    membership = torch.from_numpy(rng.integers(-1, 2, (4, 50)).astype(np.int8))
    whole = (
        family_average_precision(activations, membership),
        *standardised_difference(activations, membership),
    )
    monkeypatch.setattr("relation_neurons.scores._CHUNK", 700)
    parts = (
        family_average_precision(activations, membership),
        *standardised_difference(activations, membership),
    )
    assert torch.equal(whole[0], parts[0])
    for a, b in zip(whole[1:], parts[1:], strict=True):
        torch.testing.assert_close(a, b)


def test_families_ignore_what_is_neither_positive_nor_negative():
    rng = np.random.default_rng(3)
    activations = torch.from_numpy(rng.normal(size=(60, 7))).float()
    membership = rng.integers(-1, 2, 60).astype(np.int8)
    kept = membership >= 0
    found = family_average_precision(activations, torch.from_numpy(membership[None]))[0]
    expected = [
        average_precision_score(membership[kept], activations[kept, n].numpy()) for n in range(7)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_theorem_behind_disjoint_specific_sets():
    """Pitfall 21: where AP = 1 for one relation, another of equal size has at most 1 - ln 2."""
    size = 50
    labels = torch.tensor([0] * size + [1] * size)
    best_case = torch.cat([torch.linspace(2, 3, size), torch.linspace(0, 1, size)])[:, None]
    first, second = rn.average_precision(best_case, labels)
    assert first.item() == 1.0
    assert second.item() == pytest.approx(np.mean([i / (size + i) for i in range(1, size + 1)]))
    assert second.item() < 1 - np.log(2) + 0.01


def test_standardised_difference_is_its_formula():
    rng = np.random.default_rng(4)
    activations = torch.from_numpy(rng.normal(size=(40, 6))).float()
    membership = rng.integers(-1, 2, 40).astype(np.int8)
    d, positive, negative = standardised_difference(activations, torch.from_numpy(membership[None]))
    a, b = (
        activations[membership == 1].double().numpy(),
        activations[membership == 0].double().numpy(),
    )
    np.testing.assert_allclose(
        d[0], (a.mean(0) - b.mean(0)) / np.sqrt((a.var(0) + b.var(0)) / 2), rtol=1e-9
    )
    np.testing.assert_allclose(positive[0], a.mean(0))
    np.testing.assert_allclose(negative[0], b.mean(0))


def test_a_constant_neuron_has_no_standardised_difference():
    d, *_ = standardised_difference(
        torch.full((6, 1), 0.3), torch.tensor([[1, 1, 1, 0, 0, 0]], dtype=torch.int8)
    )
    assert d.item() == 0.0


def test_pitfall_4_nan_is_an_error():
    activations = torch.zeros(4, 3)
    activations[1, 2] = float("nan")
    with pytest.raises(ActivationError, match="NaN"):
        rn.average_precision(activations, torch.tensor([0, 0, 1, 1]))


def test_scoring_leaves_torch_threads_alone():
    """numba's OpenMP layer would set the number of threads that torch uses from then on."""
    before = torch.get_num_threads()
    rn.average_precision(torch.randn(30, 100), torch.randint(0, 2, (30,)))
    assert torch.get_num_threads() == before
