"""The tables of a card, from made-up activations and outcomes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score

from helpers import tiny
from relation_neurons.activations.pooling import pool
from relation_neurons.inference.recall import Outcomes
from relation_neurons.report.build_card import (
    detection_scores,
    effects_alone,
    extreme_tokens,
    pool_tokens,
    token_texts,
    typical_activation,
)


@pytest.fixture
def asked():
    """Two relations of 30 detection and 20 held-out facts, and 25 neutral prompts."""
    rows = [
        {"kind": "fact", "relation": relation, "side": side, "subject": f"{relation} {side} {i}"}
        for relation in ("one", "two")
        for side, count in (("detection", 30), ("held_out", 20))
        for i in range(count)
    ]
    rows += [{"kind": "background", "relation": "", "side": "detection", "subject": ""}] * 25
    frame = pd.DataFrame(rows).assign(language="en")
    frame.insert(0, "prompt_id", np.arange(len(frame)))
    recall = frame[frame["kind"] == "fact"].drop(columns="kind")
    known = np.random.default_rng([0, 1]).random(len(recall)) < 0.7
    return frame[frame["side"] == "detection"].reset_index(drop=True), recall.assign(known=known)


def test_average_precision_is_scikit_learns_with_ties_and_the_floor_is_the_prevalence(asked):
    """Pitfalls 10 and 12: tied activations are one threshold, and chance stands beside."""
    frame, recall = asked
    values = np.random.default_rng([0, 2]).integers(-3, 4, len(frame)).astype(np.float32)
    found = detection_scores(torch.from_numpy(values), frame, recall, min_known=5)
    known = frame["prompt_id"].map(recall.set_index("prompt_id")["known"]) == True  # noqa: E712
    checked = 0
    for row in found[found["score"].isin(["specific", "background"])].itertuples():
        positive = (frame["relation"] == row.relation) & known
        negative = (
            frame["kind"] == "background"
            if row.score == "background"
            else (frame["kind"] == "fact") & (frame["relation"] != row.relation)
        )
        kept = positive | negative
        expected = average_precision_score(positive[kept], values[kept])
        assert row.ap == pytest.approx(expected, abs=1e-6)
        assert row.floor == pytest.approx(positive[kept].mean(), abs=1e-6)
        assert row.mean_positive == pytest.approx(values[positive].mean(), abs=1e-5)
        assert row.mean_negative == pytest.approx(values[negative].mean(), abs=1e-5)
        spread = np.sqrt((values[positive].var() + values[negative].var()) / 2)
        d_prime = (values[positive].mean() - values[negative].mean()) / spread
        assert row.d_prime == pytest.approx(d_prime, abs=1e-4)
        checked += 1
    assert checked == 4 and found["rank"].isna().all()


@pytest.mark.parametrize("how", ["mean", "last", "max", "include_first"])
@pytest.mark.parametrize("context", [(), (0, 2, 1)])
def test_pitfall_1_pooling_token_by_token_is_pooling_without_pads(how, context):
    """Pitfall 1: rows of unlike length, each also pooled alone."""
    by_token = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (3, 7, 5)]
    found = pool_tokens(by_token, how, context)
    for row, values in enumerate(by_token):
        alone = pool(
            values[None, :, None],
            torch.ones(1, len(values), dtype=torch.bool),
            how,
            torch.tensor(context[row : row + 1]) if context else None,
        )
        assert found[row] == pytest.approx(float(alone[0, 0]), abs=1e-6)


def test_pitfall_3_the_first_position_is_no_part_of_the_typical_activation():
    """Pitfall 3: nor are prompts that are no facts."""
    frame = pd.DataFrame({"kind": ["fact", "background", "fact"]})
    by_token = [torch.tensor([1e6, 1.0, -2.0]), torch.tensor([5.0, 5.0]), torch.tensor([-1e6, 4.0])]
    assert typical_activation(by_token, frame) == (1.0, pytest.approx(7 / 3))


def outcomes(margin):
    margin = np.asarray(margin, dtype=float)
    length = np.ones(len(margin), dtype=np.int64)
    return Outcomes(margin, -np.abs(margin), length, ("",) * len(margin))


def test_pitfall_23_effects_count_facts_won_and_lost_whether_known_or_not():
    """Pitfall 23: `one` loses two and wins one of four, `two` changes in margin only."""
    frame = pd.DataFrame(
        {"relation": ["one"] * 4 + ["two"] * 3, "language": "en", "fact": list("aabcabc")}
    )
    intact = outcomes([1.0, 2.0, -1.0, -3.0, 1.0, 1.0, -1.0])
    after = outcomes([-1.0, -0.5, 0.5, -3.0, 0.5, 0.5, -1.5])
    found = effects_alone(frame, intact, after).set_index("relation")
    one, two = found.loc["one"], found.loc["two"]
    assert (one.n, one.won, one.lost, one.net_flips) == (4, 1, 2, -0.25)
    assert one.margin_change == np.median([(-2 - 2.5) / 2, 1.5, 0]), "the median over facts"
    assert one.flips_low < one.net_flips < one.flips_high
    assert (two.won, two.lost, two.net_flips) == (0, 0, 0)
    assert two.flips_low < 0 < two.flips_high, "the next fact may change"
    assert two.margin_change == -0.5 and np.isnan(two.margin_low) and np.isnan(two.margin_high)


@pytest.mark.parametrize("kind", ["byte_level_tokenizer", "sentencepiece_tokenizer"])
def test_pitfall_5_tokens_show_their_leading_space_with_either_tokenizer(kind):
    """Pitfall 5: SentencePiece's decoder drops the space of a token that stands alone."""
    tokenizer = getattr(tiny, kind)()
    text = "The capital of Aldor is"
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    texts = token_texts(tokenizer, tokens)
    assert "".join(texts).strip() == text
    assert sum(part.startswith(" ") for part in texts) >= 4


def test_a_part_of_a_character_is_shown_as_the_vocabulary_spells_it():
    tokenizer = tiny.byte_level_tokenizer()
    token = tokenizer.convert_tokens_to_ids("\u00c3")  # the byte 0xC3, the first half of é
    assert token_texts(tokenizer, [token]) == ["\u00c3"]
    assert token_texts(None, [7]) == ["<7>"]


def test_extreme_tokens_come_in_order_and_ties_by_token():
    weights = torch.tensor([0.0, 3.0, -2.0, 3.0, -5.0])
    assert extreme_tokens(weights, None, 3, largest=True)["token_id"].tolist() == [1, 3, 0]
    lowest = extreme_tokens(weights, None, 2, largest=False)
    assert lowest["token"].tolist() == ["<4>", "<2>"] and lowest["weight"].tolist() == [-5.0, -2.0]
