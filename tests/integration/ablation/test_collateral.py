"""Collateral damage against plain Hugging Face, and the text that it is read on."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import relation_neurons as rn
from relation_neurons.ablation.collateral import collateral_damage, largest_dose
from relation_neurons.ablation.sets import plan_sweep
from relation_neurons.errors import (
    ActivationError,
    AnswerError,
    DoseError,
    TooFewFactsError,
    UnknownOptionError,
)
from relation_neurons.models.checkpoints import packaged_checkpoint
from relation_neurons.relations.shipped import neutral_text

TEXT = (
    "The capital is not far from here, and what we name it is of no matter.",
    "What is there to name? The food.",
    "It rained for we know not how long",
    "The capital is not far from here, and so is the food.",  # begins as the first does
)
COLUMNS = (
    *("ablated", "ablated_language", "kind", "score", "dose", "draw"),
    *("tokens", "logloss_intact", "logloss", "logloss_change", "kl"),
)


def hugging_face(folder, tokenizer, text, change=None):
    """Next-token log-probabilities of plain Hugging Face, each piece on its own, and the targets."""
    hf_model = AutoModelForCausalLM.from_pretrained(folder).eval()
    if change is not None:
        for number, layer in enumerate(hf_model.model.layers):
            layer.mlp.down_proj.register_forward_pre_hook(
                lambda _m, a, n=number: (change(n, a[0].clone()),)
            )
    size, found = hf_model.config.max_position_embeddings, []
    for paragraph in text:
        tokens = tokenizer(paragraph)["input_ids"]
        for start in range(0, len(tokens), size):
            piece = torch.tensor([tokens[start : start + size]])
            with torch.inference_mode():
                logits = hf_model(piece).logits[0, :-1]
            found.append((logits.log_softmax(dim=1), piece[0, 1:]))
    return torch.cat([one for one, _ in found]), torch.cat([two for _, two in found])


@pytest.mark.parametrize("text", [TEXT, neutral_text()[:2]])  # the second in several pieces
@pytest.mark.parametrize(
    ("mode", "positions"),
    [("zero", "no_first"), ("zero", "all"), ("zero", "last"), ("mean", "all")],
)
@pytest.mark.parametrize("trees", [True, False], ids=["trees", "padded"])
def test_equals_hugging_face_with_forward_hooks(
    model, tiny_folder, ranking, mode, positions, text, trees, monkeypatch
):
    if not trees:
        monkeypatch.setattr("relation_neurons.inference.forward.takes_trees", lambda _model: False)
    found = collateral_damage(
        model, ranking, (24, 60), text=text, mode=mode, positions=positions, batch_size=2
    )
    assert tuple(found.columns) == COLUMNS
    conditions = plan_sweep(
        ranking, (24, 60), control_draws=1, control_kinds=["control_contribution"]
    )
    assert len(conditions) == len(found) == 3 * 2 * 2
    means = ranking.neurons.set_index(["layer", "neuron"])["mean"]
    intact, targets = hugging_face(tiny_folder, model.tokenizer, text)
    loss = torch.nn.functional.cross_entropy(intact, targets).item()
    for condition, row in zip(conditions, found.itertuples(), strict=True):
        sets = list(condition.neurons[["layer", "neuron"]].itertuples(index=False, name=None))

        def change(layer, hidden, sets=sets):
            for own_layer, neuron in sets:
                if own_layer == layer:
                    start = 1 if positions == "no_first" else 0
                    new = float(means[own_layer, neuron]) if mode == "mean" else 0.0
                    hidden[:, start:, neuron] = new
            return hidden

        changed, _ = hugging_face(tiny_folder, model.tokenizer, text, change)
        expected = torch.nn.functional.cross_entropy(changed, targets).item()
        kl = torch.nn.functional.kl_div(changed, intact, log_target=True, reduction="batchmean")
        assert (row.ablated, row.kind, row.dose) == (
            condition.ablated,
            condition.kind,
            condition.dose,
        )
        assert row.tokens == len(targets)
        assert row.logloss_intact == pytest.approx(loss, abs=1e-4)
        assert row.logloss == pytest.approx(expected, abs=1e-4)
        assert row.logloss_change == pytest.approx(expected - loss, abs=1e-4)
        assert row.kl == pytest.approx(kl.item(), abs=1e-4)
        assert row.kl > 1e-3


def test_pitfall_2_batch_sizes_agree(model, ranking):
    text = (*TEXT, *neutral_text()[:3])  # of very different lengths
    one, three, eight = (
        collateral_damage(model, ranking, (20,), text=text, batch_size=size) for size in (1, 3, 8)
    )
    for other in (three, eight):
        pd.testing.assert_frame_equal(one, other, check_exact=False, atol=1e-4, rtol=0)


def test_pitfall_17_same_seed_same_bytes(model, ranking):
    first, again, other = (
        collateral_damage(model, ranking, (20,), text=TEXT, control_draws=2, seed=seed)
        for seed in (3, 3, 4)
    )
    assert first.to_csv() == again.to_csv()
    ranked = first["kind"] == "ranked"
    pd.testing.assert_frame_equal(first[ranked], other[ranked])
    assert not first[~ranked]["kl"].equals(other[~ranked]["kl"])
    assert first[~ranked]["draw"].tolist() == [0, 1] * 3


def test_the_intact_model_has_no_divergence_from_itself(model, ranking):
    found = collateral_damage(model, ranking, (20,), text=TEXT, mode="scale", value=1.0)
    assert found["kl"].eq(0.0).all() and found["logloss_change"].eq(0.0).all()


def test_neurons_that_write_nothing_cost_nothing(tiny_folder, ranking):
    """And a KL of nothing but rounding never falls below zero."""
    silent = rn.load_model(tiny_folder, device="cpu")
    quiet = ranking.frame["neuron"] < 20
    with torch.no_grad():
        for block in silent.blocks:
            block.mlp.W_out[:20] = 0.0
    found = collateral_damage(
        silent, replace(ranking, frame=ranking.frame[quiet]), (30,), text=TEXT, control_draws=0
    )
    assert found["kind"].eq("ranked").all() and len(found) == 3
    assert found["kl"].between(0.0, 1e-6).all()
    assert found["logloss_change"].abs().max() < 1e-6
    loud = replace(ranking, frame=ranking.frame[~quiet])
    assert collateral_damage(silent, loud, (30,), text=TEXT)["kl"].min() > 1e-3


def test_pitfall_20_no_hook_is_left_and_the_intact_loss_stays(model, ranking):
    before = sum(len(m._forward_hooks) for m in model.modules())
    first = collateral_damage(model, ranking, (20,), text=TEXT)
    assert sum(len(m._forward_hooks) for m in model.modules()) == before
    assert "forward" not in vars(model)
    assert first["logloss_intact"].nunique() == 1
    again = collateral_damage(model, ranking, (20,), text=TEXT)
    assert again["logloss_intact"].equals(first["logloss_intact"])


def test_pitfall_4_logits_that_are_no_numbers_are_an_error(tiny_folder, ranking):
    broken = rn.load_model(tiny_folder, device="cpu")
    with torch.no_grad():
        broken.unembed.W_U[0, 0] = float("nan")
    with pytest.raises(ActivationError, match="NaN or Inf"):
        collateral_damage(broken, ranking, (4,), text=TEXT)


def test_chunks_of_positions_do_not_change_the_numbers(model, ranking, monkeypatch):
    whole = collateral_damage(model, ranking, (20,), text=TEXT)
    monkeypatch.setattr("relation_neurons.inference.logits._READ_AT_ONCE", 5)
    parts = collateral_damage(model, ranking, (20,), text=TEXT)
    pd.testing.assert_frame_equal(whole, parts, check_exact=False, atol=1e-6, rtol=0)


def test_intact_numbers_that_do_not_fit_are_made_anew(model, ranking, monkeypatch):
    kept = collateral_damage(model, ranking, (20,), text=TEXT)
    monkeypatch.setattr("relation_neurons.ablation.text_job.INTACT_BYTES", 0)
    anew = collateral_damage(model, ranking, (20,), text=TEXT)
    pd.testing.assert_frame_equal(kept, anew, check_exact=False, atol=1e-6, rtol=0)


def test_wrong_options_say_what_was_expected(model, ranking):
    with pytest.raises(UnknownOptionError, match="needs a value"):
        collateral_damage(model, ranking, (4,), text=TEXT, mode="scale")
    with pytest.raises(AnswerError, match="no token to predict"):
        collateral_damage(model, ranking, (4,), text=["", "a"])
    with pytest.raises(DoseError):
        collateral_damage(model, ranking, (100_000,), text=TEXT)
    only = replace(ranking, frame=ranking.frame[ranking.frame["score"] == "specific"])
    with pytest.raises(TooFewFactsError, match="background"):
        collateral_damage(model, only, (4,), contrast="background", text=TEXT)
    one = collateral_damage(model, ranking, (4,), text=TEXT[0], control_draws=0)
    assert one.equals(collateral_damage(model, ranking, (4,), text=TEXT[:1], control_draws=0))


def test_largest_dose_is_the_last_one_whose_mean_stays_within_the_budget():
    rng = np.random.default_rng(0)
    doses = np.repeat([10, 30, 100], 8)
    kl = np.repeat([0.01, 0.05, 0.4], 8) * rng.uniform(0.5, 1.5, 24)
    table = pd.DataFrame({"kind": ["ranked", "control_contribution"] * 12, "dose": doses, "kl": kl})
    table.loc[table["kind"] != "ranked", "kl"] = 9.0  # controls do not count
    mean = table[table["kind"] == "ranked"].groupby("dose")["kl"].mean()
    assert largest_dose(table, mean[30]) == 30
    assert largest_dose(table, mean[30] - 1e-9) == 10
    assert largest_dose(table.sample(frac=1, random_state=0), 5.0) == 100
    with pytest.raises(DoseError, match=f"smallest KL is {mean[10]:.4g}, at a dose of 10"):
        largest_dose(table, mean[10] / 2)
    with pytest.raises(DoseError, match="no ranked set"):
        largest_dose(table[table["kind"] != "ranked"], 1.0)
    table.loc[(table["dose"] == 30) & (table["kind"] == "ranked"), "kl"] = 2.0
    assert largest_dose(table, 1.0) == 10  # a smaller dose that is over the budget bars larger ones


def test_the_shipped_text_is_long_enough_and_names_no_one():
    text = neutral_text()
    tokenizer = AutoTokenizer.from_pretrained(packaged_checkpoint("smollm2-135m"))
    assert len(text) == 10
    assert 500 <= sum(len(tokenizer(one)["input_ids"]) for one in text) <= 620
    for paragraph in text:
        assert paragraph.isascii()
        assert set(re.findall(r"(?<![.!?] )(?<!^)\b[A-Z]\w*", paragraph)) <= {"I"}


@pytest.mark.parametrize("name", ["demo", "atlas"])
def test_pitfall_27_the_shipped_text_states_and_asks_no_fact_of_a_shipped_relation(name):
    for relation in rn.load_relations(name):
        starts = [template.text.split("{}")[0].strip() for template in relation.templates]
        for paragraph in neutral_text():
            assert not [s for s in starts if len(s.split()) > 2 and s in paragraph]
            words = set(re.findall(r"\w+", paragraph.lower()))
            for fact in relation.facts:
                said = [o for o in fact.objects if o.lower() in words]
                assert not (fact.subject.lower() in words and said), (relation.name, fact)


def test_the_token_that_fills_rows_up_changes_nothing(model, ranking, monkeypatch):
    monkeypatch.setattr("relation_neurons.inference.forward.takes_trees", lambda _model: False)
    found = []
    for token in (0, 5):
        monkeypatch.setattr(
            "relation_neurons.ablation.text_job.padding_token",
            lambda _tokenizer, token=token: token,
        )
        found.append(collateral_damage(model, ranking, (24,), text=TEXT, batch_size=8))
    pd.testing.assert_frame_equal(*found, check_exact=True)
