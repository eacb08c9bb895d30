"""Ablation against plain Hugging Face, and everything that must not happen silently."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import relation_neurons as rn
from relation_neurons.errors import (
    AblationError,
    DoseError,
    HookError,
    TooFewFactsError,
    UnknownOptionError,
)
from relation_neurons.models import final_residual
from relation_neurons.recall import answer_prompts, plan_passes
from relation_neurons.report import build_report

NEURONS = [(0, 3), (0, 50), (1, 7), (1, 8), (1, 90)]
TOKENS = torch.tensor([[270, 280, 290, 300, 310, 261]])


def count_hooks(model):
    """Every hook anywhere in the model (pitfall 20)."""
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in model.modules()
    )


def hugging_face(tiny_folder, tokens, mask, change):
    """Logits of plain Hugging Face with `change(layer, hidden)` before each down_proj."""
    hf_model = AutoModelForCausalLM.from_pretrained(tiny_folder).eval()
    for number, layer in enumerate(hf_model.model.layers):
        layer.mlp.down_proj.register_forward_pre_hook(
            lambda _m, a, n=number: (change(n, a[0].clone()),)
        )
    with torch.inference_mode():
        return hf_model(
            tokens, attention_mask=mask.long(), position_ids=(mask.cumsum(1) - 1).clamp(min=0)
        ).logits


def logits(model, tokens, mask=None):
    with torch.inference_mode():
        return model(tokens, attention_mask=None if mask is None else mask.long())


@pytest.mark.parametrize("positions", ["no_first", "all", "last"])
@pytest.mark.parametrize("mode", ["zero", "mean", "scale"])
def test_equals_hugging_face_with_forward_hooks(model, tiny_folder, mode, positions):
    tokens = torch.cat([TOKENS, TOKENS.flip(1)])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, :2] = False
    where = {"all": mask.clone(), "no_first": mask.clone(), "last": torch.zeros_like(mask)}[
        positions
    ]
    if positions == "no_first":
        where[0, 0] = where[1, 2] = False
    if positions == "last":
        where[:, -1] = True
    value = {"zero": None, "mean": torch.linspace(-1, 1, 5), "scale": 0.5}[mode]

    def change(layer, hidden):
        for i, (own_layer, neuron) in enumerate(NEURONS):
            if own_layer == layer:
                new = {"zero": 0.0, "mean": float(torch.linspace(-1, 1, 5)[i]), "scale": None}[mode]
                column = hidden[..., neuron]
                column[where] = column[where] * 0.5 if new is None else new
        return hidden

    expected = hugging_face(tiny_folder, tokens, mask, change)
    with rn.ablated(model, NEURONS, mode=mode, positions=positions, value=value):
        found = logits(model, tokens, mask)
    torch.testing.assert_close(found[mask], expected[mask], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found[mask], logits(model, tokens, mask)[mask], atol=1e-4)


@pytest.mark.parametrize(("site", "equal"), [("gate", True), ("up", True), ("out", False)])
def test_pitfall_15_gate_and_up_kill_the_same_neuron_and_out_does_not(model, site, equal):
    neurons = [n for n in NEURONS if n[1] < 48]
    with rn.ablated(model, neurons):
        post = logits(model, TOKENS)
    with rn.ablated(model, neurons, site=site):
        other = logits(model, TOKENS)
    assert torch.allclose(post, other, atol=1e-5) is equal


def test_neurons_can_be_names_pairs_or_a_table(model, ranking):
    with rn.ablated(model, ["L0N3", "L0N50", "L1N7", "L1N8", "L1N90"]):
        named = logits(model, TOKENS)
    with rn.ablated(model, NEURONS):
        assert torch.equal(named, logits(model, TOKENS))
    with rn.ablated(model, ranking.top("country_capital", 3)):
        assert not torch.equal(named, logits(model, TOKENS))


def test_contexts_nest_and_leave_the_intact_model(model):
    intact = logits(model, TOKENS)
    with rn.ablated(model, NEURONS[:2]):
        with rn.ablated(model, NEURONS[2:]):
            both = logits(model, TOKENS)
        one = logits(model, TOKENS)
    with rn.ablated(model, NEURONS):
        assert torch.equal(both, logits(model, TOKENS))
    with rn.ablated(model, NEURONS[:2]):
        assert torch.equal(one, logits(model, TOKENS))
    assert torch.equal(intact, logits(model, TOKENS))


def test_pitfall_20_no_hook_is_left_after_an_exception(model):
    before = count_hooks(model)
    with pytest.raises(ZeroDivisionError), rn.ablated(model, NEURONS):
        assert count_hooks(model) == before + 4  # two at each of two layers
        assert "forward" in vars(model)
        _ = 1 / 0
    assert count_hooks(model) == before and "forward" not in vars(model)
    with pytest.raises(AblationError), rn.ablated(model, [(0, 9999)]):
        pass
    assert count_hooks(model) == before and "forward" not in vars(model)


def test_pitfall_18_values_that_are_put_back_are_an_error(model):
    point = model.hook_dict["blocks.1.mlp.hook_post"]
    with pytest.raises(AblationError, match="layer 1 still holds other values"):  # noqa: SIM117
        with rn.ablated(model, NEURONS) as hooks:
            undo = lambda _m, _i, out: out + 1.0  # noqa: E731
            handle = point.register_forward_hook(undo)
            # put the undoing hook between the setting and the checking one
            order = list(point._forward_hooks)
            point._forward_hooks.move_to_end(order[-2])
            try:
                logits(model, TOKENS)
            finally:
                handle.remove()
    assert hooks.calls == 1


def test_pitfall_18_a_hook_that_did_not_fire_is_an_error(model):
    with pytest.raises(HookError, match=r"blocks\.1\.mlp\.hook_post did not fire"):  # noqa: SIM117
        with rn.ablated(model, NEURONS), torch.inference_mode():
            model(TOKENS, stop_at_layer=1)


def test_a_context_in_which_nothing_ran_is_no_error(model):
    with rn.ablated(model, NEURONS):
        pass


def test_what_cannot_be_ablated_says_why(model):
    for wrong, match in (
        ([(2, 0)], "layers 0 to 1"),
        ([(0, 96)], "L0N96 does not exist"),
        ([], "No neuron"),
        ([(0, 1), (0, 1)], "comes twice"),
        (["N3"], "L16N302"),
    ):
        with pytest.raises(AblationError, match=match), rn.ablated(model, wrong):
            pass
    for options, match in (
        ({"mode": "zeros"}, "zero"),
        ({"positions": "first"}, "no_first"),
        ({"mode": "mean"}, "needs a value"),
        ({"value": 3.0}, "takes no value"),
        ({"mode": "mean", "value": torch.ones(2)}, "2 values for 5"),
    ):
        with pytest.raises(UnknownOptionError, match=match), rn.ablated(model, NEURONS, **options):
            pass


def test_padding_that_no_mask_explains_is_an_error(model):
    pad = model.tokenizer.pad_token_id
    tokens = torch.tensor([[pad, 270, 280], [270, 280, 290]])
    with pytest.raises(AblationError, match="attention_mask"), rn.ablated(model, NEURONS):
        logits(model, tokens)
    with rn.ablated(model, NEURONS):
        logits(model, tokens, tokens != pad)


def test_text_can_be_run_under_ablation(model):
    with rn.ablated(model, NEURONS), torch.inference_mode():
        text = model("The capital of Aldor is")
        tokens = model(torch.tensor([model.tokenizer("The capital of Aldor is")["input_ids"]]))
    assert torch.equal(text, tokens)


def test_last_means_the_last_prompt_position_and_every_answer_position(model, prompts):
    """Through the sweep's own pass, with answers of several tokens in one padded batch."""
    asked = prompts.held_out
    longest = max(len(a) for answers in asked.answers for a in answers)
    assert longest > 1
    with rn.ablated(model, NEURONS, positions="last") as hooks:
        found = answer_prompts(model, plan_passes(asked), before_batch=hooks.start)
    for row in range(0, len(asked), 7):
        tokens, (answer,) = asked.tokens[row], asked.answers[row]
        full = torch.tensor([tokens + answer])
        last = len(tokens) - 1

        def zero(value, hook, start=last):
            layer = int(hook.name.split(".")[1])
            for own, neuron in NEURONS:
                if own == layer:
                    value[:, start:, neuron] = 0
            return value

        with torch.inference_mode():
            out = model.run_with_hooks(full, fwd_hooks=[(lambda n: n.endswith("hook_post"), zero)])
        logprob = (
            out[0, len(tokens) - 1 : -1].log_softmax(-1)[range(len(answer)), list(answer)].sum()
        )
        assert found.logprob[row] == pytest.approx(float(logprob), abs=1e-4)


def test_a_sink_at_the_first_position_is_spared_by_default(model):
    """Only positions after the first change; `all` changes the first as well."""
    mask = torch.ones_like(TOKENS, dtype=torch.bool)
    with torch.inference_mode():
        intact = final_residual(model, TOKENS, mask)
        with rn.ablated(model, NEURONS):
            spared = final_residual(model, TOKENS, mask)
        with rn.ablated(model, NEURONS, positions="all"):
            everywhere = final_residual(model, TOKENS, mask)
    assert torch.equal(intact[0, 0], spared[0, 0])
    assert not torch.equal(intact[0, 0], everywhere[0, 0])
    assert not torch.equal(intact[0, 1], spared[0, 1])


def test_the_sweep_has_every_row_once_and_is_the_same_again(model, prompts, ranking, effects):
    keys = ["ablated", "kind", "score", "dose", "draw", "prompt_id"]
    assert not effects.duplicated(keys).any()
    asked = len(prompts.held_out)
    assert len(effects) == 3 * 2 * (1 + 2 + 2) * asked
    again = rn.ablation_sweep(model, prompts.held_out, ranking, (4, 12), control_draws=2, seed=0)
    assert again.equals(effects)
    assert set(effects["kind"]) == {"ranked", "control_contribution", "control_layer"}
    assert effects["template_held_out"].all()


def test_the_sweep_equals_ablating_by_hand(model, prompts, ranking, effects):
    with rn.ablated(model, ranking.top("country_food", 4)):
        out = answer_prompts(model, plan_passes(prompts.held_out))
    rows = effects[
        (effects["ablated"] == "country_food")
        & (effects["kind"] == "ranked")
        & (effects["dose"] == 4)
    ]
    np.testing.assert_allclose(rows["logprob"], out.logprob, atol=1e-4)


def test_another_seed_draws_other_controls_and_leaves_the_ranked_rows(
    model, prompts, ranking, effects
):
    other = rn.ablation_sweep(model, prompts.held_out, ranking, (4, 12), control_draws=2, seed=1)
    ranked = effects["kind"] == "ranked"
    assert other[ranked].equals(effects[ranked])
    assert not other[~ranked]["margin"].equals(effects[~ranked]["margin"])


def test_a_dose_above_the_number_of_neurons(model, prompts, ranking):
    with pytest.raises(DoseError, match="this model has 192"):
        rn.ablation_sweep(model, prompts.held_out, ranking, (193,))


def test_pitfall_23_every_held_out_prompt_is_judged_known_or_not(prompts, effects):
    one = effects[
        (effects["ablated"] == "country_food")
        & (effects["kind"] == "ranked")
        & (effects["dose"] == 4)
    ]
    assert sorted(one["prompt_id"]) == sorted(prompts.held_out.frame["prompt_id"])
    assert not one["correct_intact"].all() and one["correct_intact"].any()


def test_every_way_of_running_the_model_is_ablated_at_its_own_positions(model):
    """`run_with_hooks` calls `forward` itself; a mask of an earlier call must not stay."""
    tokens = torch.cat([TOKENS, TOKENS.flip(1)])
    masks = [torch.ones_like(tokens), torch.ones_like(tokens)]
    masks[1][1, :3] = 0
    with rn.ablated(model, NEURONS), torch.inference_mode():
        expected = model(tokens, attention_mask=masks[1])
        model(tokens, attention_mask=masks[0])
        found = model.run_with_hooks(tokens, attention_mask=masks[1])
        _, cache = model.run_with_cache(tokens, attention_mask=masks[1])
    assert torch.equal(found, expected)
    assert (cache["blocks.1.mlp.hook_post"][0, 1:, 90] == 0).all()


def test_activations_can_be_collected_under_ablation(model, prompts, table):
    with rn.ablated(model, [(0, 3)]):
        under = rn.collect_activations(model, prompts.detection)
    assert under.values[:, 0, 3].abs().max() == 0 < table.values[:, 0, 3].abs().max()


def test_last_holds_where_one_prompt_begins_another(model):
    """Each prompt is ablated from its own last position, alone or beside the other."""
    nested = rn.Relation(
        "x",
        tuple(rn.Fact(f"{name}", ("red",)) for name in ("Aldor", "Brenin", "Perth", "Orlan")),
        (rn.Template("The {} is"), rn.Template("The {} is in the town of")),
    )
    made = rn.make_prompts([nested], model.tokenizer, held_out=2, nonsense=0, background=False)
    found = {}
    for name, some in (
        ("both", made),
        *((t, made.take(made.frame["template"] == t)) for t in set(made.frame["template"])),
    ):
        with rn.ablated(model, NEURONS, positions="last") as hooks:
            out = answer_prompts(model, plan_passes(some), before_batch=hooks.start)
        found[name] = dict(zip(some.frame["prompt_id"], out.logprob, strict=True))
    for name in found:
        for prompt_id, logprob in found[name].items():
            assert logprob == pytest.approx(found["both"][prompt_id], abs=1e-5)


def test_one_relation_says_what_it_takes(model, relations):
    with pytest.raises(TooFewFactsError, match="score `background`"):
        rn.run(model, relations[:1], held_out=10, nonsense=0, min_known=5, doses=(3,), checks=())
    results = rn.run(
        model,
        relations[:1],
        held_out=10,
        nonsense=0,
        min_known=5,
        doses=(3,),
        draws=1,
        checks=(),
        score="background",
    )
    assert results.ranking.relations == [relations[0].name]
    assert "plot-headline" in build_report(results)
