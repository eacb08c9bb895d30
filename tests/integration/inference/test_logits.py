"""Logits a part of the vocabulary at a time: what is read off them against the whole, by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from relation_neurons.errors import ActivationError, AnswerError
from relation_neurons.inference import forward as passes
from relation_neurons.inference import logits as expectation
from relation_neurons.inference import logits as margins
from relation_neurons.inference.forward import unembed, unembed_parts
from relation_neurons.inference.logits import IntactPredictions, score_reads

pytestmark = pytest.mark.backends

SIZES = (1, 7, 10_000)


@pytest.fixture
def residual(model):
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(40, model.cfg.d_model, generator=generator)


@pytest.fixture(params=SIZES)
def size(request, monkeypatch):
    """The rooms read few positions at once, and as many tokens as this."""
    monkeypatch.setattr(passes, "_VOCABULARY_AT_ONCE", request.param)
    for room in (expectation, margins):
        monkeypatch.setattr(room, "_READ_AT_ONCE", 6)
    return request.param


def test_parts_are_the_whole(model, residual, size):
    with torch.inference_mode():
        parts = [(place, part.clone()) for place, part in unembed_parts(model, residual)]
        whole = unembed(model, residual)
    assert len(parts) == -(-model.cfg.d_vocab // min(size, model.cfg.d_vocab))
    assert [place.start for place, _ in parts] == list(range(0, model.cfg.d_vocab, size))
    assert parts[-1][0].stop == model.cfg.d_vocab
    torch.testing.assert_close(torch.cat([part for _, part in parts], 1), whole, atol=1e-4, rtol=0)


def test_a_hook_of_others_sees_all_logits(model, residual, size):
    seen = []
    handle = model.unembed.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[-1]))
    try:
        with torch.inference_mode():
            parts = list(unembed_parts(model, residual))
    finally:
        handle.remove()
    assert len(parts) == 1 and seen == [model.cfg.d_vocab]


def test_margins_against_brute_force(model, residual, size):
    with torch.inference_mode():
        logits = unembed(model, residual).double().numpy()
        best = logits.argmax(axis=1)
        at = torch.tensor([0, 0, 3, 39, 17, 3, *range(40)])
        tokens = torch.tensor([1, 5, 2, int(best[39]), 4, 2, *best.tolist()])
        found = score_reads(model, residual, at, tokens)
    for place, token, margin, logprob, greedy in zip(at, tokens, *found, strict=True):
        row = logits[place]
        assert margin == pytest.approx(row[token] - np.delete(row, token).max(), abs=1e-4)
        assert logprob == pytest.approx(row[token] - np.logaddexp.reduce(row), abs=1e-4)
        assert row[greedy] == pytest.approx(row.max(), abs=1e-4)


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_of_equal_logits_the_first_is_greedy_and_the_margin_is_0(monkeypatch, model, width):
    logits = torch.tensor([[1.0, 4.0, 0.0, 4.0, 4.0], [2.0, 2.0, 2.0, 2.0, 2.0], [0.0, 1, 2, 3, 9]])

    def parts(_model, residual):
        for start in range(0, 5, width):
            yield (
                slice(start, min(start + width, 5)),
                logits[: len(residual), start : start + width].clone(),
            )

    monkeypatch.setattr(margins, "unembed_parts", parts)
    at, tokens = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([1, 4, 0, 3, 4, 3])
    found, logprob, greedy = score_reads(model, torch.zeros(3, 4), at, tokens)
    assert found.tolist() == [0, 0, 0, 0, 6, -6]
    assert greedy.tolist() == [1, 1, 0, 0, 4, 4]
    expected = logits.double().log_softmax(1)[at, tokens].numpy()
    np.testing.assert_allclose(logprob, expected, atol=1e-6)


def test_a_sure_answer_keeps_its_small_doubt(monkeypatch, model):
    """1e-9 beside 1 would be lost in float32."""
    logits = torch.tensor([[0.0, 0.0, 20.7, 0.0]])
    monkeypatch.setattr(
        margins,
        "unembed_parts",
        lambda *_: ((slice(i, i + 1), logits[:, i : i + 1].clone()) for i in range(4)),
    )
    _, logprob, _ = score_reads(model, torch.zeros(1, 4), torch.tensor([0]), torch.tensor([2]))
    # What float32 leaves of the logit itself is 2e-6, so the sum's part is looked at alone.
    found = margins._Best.of_nothing(torch.zeros(1, 4))
    for i in range(4):
        found = found.beside(logits[:, i : i + 1].clone(), i)
    assert float(found.others) == pytest.approx(3 * np.exp(-20.7), rel=1e-4)
    assert logprob[0] == pytest.approx(0, abs=4e-6)


@pytest.mark.parametrize("keep", [True, False])
def test_expectation_against_brute_force(model, residual, size, keep):
    after = residual + 0.3 * torch.randn(residual.shape, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(40) % model.cfg.d_vocab
    with torch.inference_mode():
        intact, changed = (unembed(model, r).double().log_softmax(1) for r in (residual, after))
        made = IntactPredictions.of(model, residual, targets, keep=keep)
    found = made.compare(model, after)
    rows = torch.arange(40)
    kl = torch.nn.functional.kl_div(changed, intact, log_target=True, reduction="sum")
    expected = [-intact[rows, targets].sum(), -changed[rows, targets].sum(), kl]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-3, rtol=0)
    assert kl > 0.1
    assert (made.probabilities is not None) == keep
    itself = made.compare(model, residual)
    assert itself[2] == 0.0 and itself[0] == itself[1]


@pytest.mark.parametrize("keep", [True, False])
def test_halves_of_an_expectation_add_up(model, residual, keep):
    targets = torch.arange(40) % model.cfg.d_vocab
    after = residual.flip(0)
    with torch.inference_mode():
        made = IntactPredictions.of(model, residual, targets, keep=keep)
        halves = [(slice(23), after[:23]), (slice(23, None), after[23:])]
        found = sum(made.at(here).compare(model, part) for here, part in halves)
        torch.testing.assert_close(found, made.compare(model, after), atol=1e-4, rtol=0)


def test_pitfall_4_what_is_no_number_is_an_error(model, residual, size):
    broken = residual.clone()
    broken[20, 0] = float("nan")
    targets = torch.zeros(40, dtype=torch.int64)
    with torch.inference_mode():
        made = IntactPredictions.of(model, residual, targets, keep=True)
    with pytest.raises(ActivationError, match="NaN or Inf"):
        made.compare(model, broken)
    with pytest.raises(ActivationError, match="NaN or Inf"), torch.inference_mode():
        score_reads(model, broken, torch.arange(40), targets)


@pytest.mark.parametrize("width", [1, 2, 7])
def test_tokens_that_are_never_said_may_have_no_probability_at_all(monkeypatch, model, width):
    """A part of the vocabulary that is -inf throughout counts for nothing, wherever it stands."""
    low = -torch.inf
    logits = torch.tensor([[low, low, 1.0, low, low, 3.0, low], [0.0, 1, 2, low, low, low, low]])
    monkeypatch.setattr(
        margins,
        "unembed_parts",
        lambda *_: (
            (slice(i, i + width), logits[:, i : i + width].clone()) for i in range(0, 7, width)
        ),
    )
    at, tokens = torch.tensor([0, 0, 1]), torch.tensor([5, 2, 0])
    found, logprob, greedy = score_reads(model, torch.zeros(2, 4), at, tokens)
    assert found.tolist() == [2, -2, -2] and greedy.tolist() == [5, 5, 2]
    np.testing.assert_allclose(logprob, logits.double().log_softmax(1)[at, tokens], atol=1e-6)
    with pytest.raises(ActivationError, match="NaN or Inf"):
        score_reads(model, torch.zeros(2, 4), at, torch.tensor([0, 2, 0]))


def test_an_answer_outside_the_vocabulary_is_an_error(model, residual, size):
    """The last token of an answer is read and never fed, so the embedding does not stop at it."""
    beyond = model.cfg.d_vocab
    said = rf"token {beyond}, .* vocabulary at {beyond - 1}"
    with pytest.raises(AnswerError, match=said):
        score_reads(model, residual, torch.tensor([0, 1]), torch.tensor([2, beyond]))
    with pytest.raises(AnswerError, match=said):
        IntactPredictions.of(model, residual[:2], torch.tensor([2, beyond]), keep=True)
