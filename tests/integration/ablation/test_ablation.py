"""Ablation against plain Hugging Face, and everything that must not happen silently."""

from __future__ import annotations

import contextlib
import copy
from functools import partial

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import relation_neurons as rn
from relation_neurons.backends.installed import BACKEND
from relation_neurons.errors import (
    AblationError,
    DoseError,
    HookError,
    TooFewFactsError,
    UnknownOptionError,
)
from relation_neurons.inference.forward import final_residual
from relation_neurons.inference.recall import answer_prompts, plan_passes
from relation_neurons.report.page import build_report

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
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_pitfall_15_gate_and_up_kill_the_same_neuron_and_out_does_not(
    tiny_folder, model, site, equal, dtype
):
    """Pitfall 15: one neuron has several sites. Pitfall 4: in half precision as well."""
    loaded = model if dtype == "float32" else rn.load_model(tiny_folder, dtype=dtype, device="cpu")
    neurons = [n for n in NEURONS if n[1] < 48]
    with rn.ablated(loaded, neurons):
        post = logits(loaded, TOKENS)
    with rn.ablated(loaded, neurons, site=site):
        other = logits(loaded, TOKENS)
    assert torch.equal(post, other) is equal
    assert not torch.equal(post, logits(loaded, TOKENS))


@pytest.mark.parametrize("mode", ["zero", "mean", "scale"])
@pytest.mark.parametrize("site", ["post", "gate", "up", "out"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_value_at_each_site_is_the_one_asked_for(tiny_folder, dtype, site, mode):
    """Pitfall 4: a half-precision model holds the value rounded once, and that is no error."""
    loaded = rn.load_model(tiny_folder, dtype=dtype, device="cpu")
    neurons, seen = [(1, 7), (1, 8)], {}
    name = {"post": "mlp.hook_post", "gate": "mlp.hook_pre", "up": "mlp.hook_pre_linear"}
    point = f"blocks.1.{name.get(site, 'hook_mlp_out')}"
    value = {"zero": None, "mean": torch.tensor([0.3, -0.7]), "scale": torch.tensor([0.3, -3.0])}[
        mode
    ]

    def look(tensor, hook, under):
        seen[under] = tensor[0, 1:, 7:9].clone()

    with torch.inference_mode():
        loaded.run_with_hooks(TOKENS, fwd_hooks=[(point, partial(look, under="intact"))])
        with rn.ablated(loaded, neurons, site=site, mode=mode, value=value):
            loaded.run_with_hooks(TOKENS, fwd_hooks=[(point, partial(look, under="ablated"))])
    wanted = {
        "zero": torch.zeros(5, 2),
        "mean": torch.tensor([0.3, -0.7]).expand(5, 2),
        "scale": seen["intact"].float() * torch.tensor([0.3, -3.0]),
    }[mode]
    assert torch.equal(seen["ablated"], wanted.to(dtype))


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


def test_where_nested_contexts_hold_the_same_neuron_the_inner_one_stands(model):
    shared = [(1, 7), (1, 8)]
    for outer, inner, alone in (
        ({"mode": "zero"}, {"mode": "mean", "value": 0.4}, {"mode": "mean", "value": 0.4}),
        ({"mode": "mean", "value": 0.4}, {"mode": "zero"}, {"mode": "zero"}),
        (
            {"mode": "mean", "value": 0.5},
            {"mode": "scale", "value": 0.5},
            {"mode": "mean", "value": 0.25},
        ),
        ({"mode": "zero"}, {"mode": "scale", "value": 2.0}, {"mode": "zero"}),
        (
            {"mode": "scale", "value": 0.5},
            {"mode": "scale", "value": 0.5},
            {"mode": "scale", "value": 0.25},
        ),
    ):
        with rn.ablated(model, shared, **alone):
            expected = logits(model, TOKENS)
        with rn.ablated(model, shared, **outer), rn.ablated(model, shared, **inner):
            found = logits(model, TOKENS)
        assert torch.equal(found, expected), (outer, inner)


def test_nested_contexts_may_differ_in_neurons_positions_and_site(model):
    """The outer one keeps what the inner one leaves alone: one neuron, and the last position."""
    with rn.ablated(model, [(1, 7), (1, 8)]):  # noqa: SIM117
        with rn.ablated(model, [(1, 8)], mode="mean", value=0.4, positions="last"), torch.no_grad():
            _, cache = model.run_with_cache(TOKENS)
    post = cache["blocks.1.mlp.hook_post"][0]
    assert (post[1:, 7] == 0).all() and (post[1:-1, 8] == 0).all() and post[-1, 8] == 0.4
    with rn.ablated(model, [(1, 7)], mode="mean", value=0.4):
        expected = logits(model, TOKENS)
        with rn.ablated(model, [(1, 7)], site="gate"):  # earlier in the pass, so it is overruled
            assert torch.equal(logits(model, TOKENS), expected)


def test_three_contexts_nest_in_every_order_of_layers(model):
    with (
        rn.ablated(model, [(0, 3)]),
        rn.ablated(model, [(0, 3), (1, 7)], mode="mean", value=0.1),
        rn.ablated(model, [(0, 3)], mode="mean", value=-0.2),
    ):
        found = logits(model, TOKENS)
    with rn.ablated(model, [(0, 3), (1, 7)], mode="mean", value=torch.tensor([-0.2, 0.1])):
        assert torch.equal(found, logits(model, TOKENS))


def everywhere(model):
    """The hooks at each hook point and whether the forward pass is the class's own."""
    hooks = {name: len(point._forward_hooks) for name, point in model.hook_dict.items()}
    return hooks, count_hooks(model), model.forward == type(model).forward.__get__(model)


def test_pitfall_20_no_hook_is_left_after_an_exception(model):
    """Pitfall 20: in the body, at entering, in another hook, in the check, in nested contexts."""
    clean = everywhere(model)
    assert clean[2]
    with pytest.raises(ZeroDivisionError), rn.ablated(model, NEURONS):
        assert count_hooks(model) == clean[1] + 2  # one at each of two layers
        assert "forward" in vars(model)
        _ = 1 / 0
    assert everywhere(model) == clean and "forward" not in vars(model)
    with pytest.raises(AblationError), rn.ablated(model, [(0, 9999)]):
        pass
    assert everywhere(model) == clean
    with pytest.raises(ZeroDivisionError), rn.ablated(model, NEURONS):
        with rn.ablated(model, NEURONS[:3], mode="mean", value=0.1):
            _ = 1 / 0
        pytest.fail("the exception was swallowed")
    assert everywhere(model) == clean

    def broken(value, hook):
        raise RuntimeError("broken hook")

    with rn.ablated(model, NEURONS):
        inside = everywhere(model)
        for point in ("blocks.0.hook_resid_pre", "blocks.1.mlp.hook_post", "ln_final.hook_scale"):
            with pytest.raises(RuntimeError, match="broken hook"):
                model.run_with_hooks(TOKENS, fwd_hooks=[(point, broken)])
            assert everywhere(model) == inside
        with pytest.raises(AblationError):
            model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.1.mlp.hook_post", undo)])
        assert everywhere(model) == inside
        logits(model, TOKENS)
    assert everywhere(model) == clean


def test_pitfall_20_no_hook_is_left_where_entering_fails_half_way(model, monkeypatch):
    """Pitfall 20: the first layer is hooked when the second one cannot be."""
    clean = everywhere(model)
    point = model.hook_dict["blocks.1.mlp.hook_post"]

    def refuse(*args, **kwargs):
        raise RuntimeError("no hooks here")

    monkeypatch.setattr(point, "register_forward_hook", refuse)
    with pytest.raises(RuntimeError, match="no hooks here"), rn.ablated(model, NEURONS):
        pytest.fail("entered")
    assert everywhere(model) == clean and "forward" not in vars(model)


def undo(value, hook):
    return value + 1.0


@pytest.mark.parametrize("mode", ["zero", "mean", "scale"])
def test_pitfall_18_values_that_are_put_back_are_an_error(model, mode):
    """Pitfall 18: by a hook set before, inside, or for one run; in every mode."""
    value = {"zero": None, "mean": 0.3, "scale": 0.5}[mode]
    point = model.hook_dict["blocks.1.mlp.hook_post"]
    match = r"blocks\.1\.mlp\.hook_post still holds other values"
    with rn.ablated(model, NEURONS, mode=mode, value=value) as hooks:
        with pytest.raises(AblationError, match=match):
            model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.1.mlp.hook_post", undo)])
        handle = point.register_forward_hook(lambda _m, _i, out: out + 1.0)
        with pytest.raises(AblationError, match=match):
            logits(model, TOKENS)
        with rn.ablated(model, NEURONS[:1]), pytest.raises(AblationError, match=match):
            logits(model, TOKENS)
        handle.remove()
        logits(model, TOKENS)
    assert hooks.calls == 4


@pytest.mark.parametrize("place", ["between", "after"])
def test_pitfall_18_nesting_hides_no_hook_that_undoes_the_outer_ablation(model, place):
    """Pitfall 18: what the inner context set is known from what a foreign hook put back."""
    point = model.hook_dict["blocks.1.mlp.hook_post"]

    def put_back(_m, _i, out):
        out = out.clone()
        out[:, 2:, 7] = 1.0
        return out

    with (
        pytest.raises(AblationError, match="ablation of 3 neurons"),
        contextlib.ExitStack() as stack,
    ):
        stack.enter_context(rn.ablated(model, [(1, 7), (1, 8), (1, 90)]))
        if place == "between":
            stack.callback(point.register_forward_hook(put_back).remove)
        stack.enter_context(rn.ablated(model, [(1, 8)], mode="mean", value=0.4))
        if place == "after":
            stack.callback(point.register_forward_hook(put_back).remove)
        logits(model, TOKENS)


def test_a_hook_that_leaves_the_ablated_values_alone_is_no_error(model):
    def elsewhere(value, hook):
        value = value.clone()
        value[:, :, 20:30] += 1.0
        value[:, 0] += 1.0
        return value

    with rn.ablated(model, NEURONS):
        found = model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.1.mlp.hook_post", elsewhere)])
        assert not torch.equal(found, logits(model, TOKENS))


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
        ({"mode": "mean", "value": float("nan")}, "NaN or Inf"),
        ({"per_row": [NEURONS]}, "either neurons, or a set for each row"),
    ):
        with pytest.raises(UnknownOptionError, match=match), rn.ablated(model, NEURONS, **options):
            pass


def test_padding_that_no_mask_explains_is_masked_as_the_model_does_or_an_error(model):
    pad = model.tokenizer.pad_token_id
    rows = torch.tensor([[pad, pad, 270, 280, 290], [270, 280, 290, 300, 310]])
    other = copy.deepcopy(model)
    other.tokenizer.padding_side = "right"
    for tokens in (rows, rows[:1]):
        if BACKEND.name == "HookedTransformer":  # it masks padding on the left by itself
            with rn.ablated(model, NEURONS):
                found = logits(model, tokens)
                expected = logits(model, tokens, tokens != pad)
                alone = logits(model, torch.tensor([[270, 280, 290]]))
            torch.testing.assert_close(found[:, 2:], expected[:, 2:])
            torch.testing.assert_close(found[:1, 2:], alone, atol=1e-4, rtol=1e-4)
        with pytest.raises(AblationError, match="attention_mask"), rn.ablated(other, NEURONS):
            logits(other, tokens)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("positions", ["no_first", "all"])
def test_generate_equals_a_loop_over_full_passes(model, positions, cache):
    texts = ["The capital of Aldor is", "For Brenin we name the food, which is"]
    neurons = [(layer, neuron) for layer in range(2) for neuron in range(96)]
    how = {"max_new_tokens": 5, "do_sample": False, "stop_at_eos": False, "verbose": False}
    how["use_past_kv_cache"] = cache

    def loop(ids):
        for _ in range(5):
            ids = [*ids, int(logits(model, torch.tensor([ids]))[0, -1].argmax())]
        return ids

    starts = [model.tokenizer(text)["input_ids"] for text in texts]
    intact = [loop(ids) for ids in starts]
    with rn.ablated(model, neurons, positions=positions):
        expected = [loop(ids) for ids in starts]
        one = model.generate(texts[0], **how)
        tokens = model.generate(torch.tensor([starts[0]]), **how)
        several = model.generate(texts, **how)
    assert expected != intact
    assert tokens.tolist() == expected[:1]
    assert one == model.tokenizer.decode(expected[0])
    assert several == [model.tokenizer.decode(ids) for ids in expected]


@pytest.mark.parametrize("cache", [True, False])
def test_generate_spares_the_first_position_and_no_other(model, cache):
    ids = model.tokenizer("The capital of Aldor is")["input_ids"]
    seen = []
    with rn.ablated(model, [(1, 7)]):
        point = model.hook_dict["blocks.1.mlp.hook_post"]
        handle = point.register_forward_hook(lambda _m, _i, out: seen.append(out[0, :, 7].clone()))
        try:
            model.generate(
                torch.tensor([ids]),
                max_new_tokens=4,
                do_sample=False,
                stop_at_eos=False,
                verbose=False,
                use_past_kv_cache=cache,
            )
        finally:
            handle.remove()
    sizes = [len(values) for values in seen]
    assert sizes == ([len(ids), 1, 1, 1] if cache else [len(ids) + n for n in range(4)])
    for number, values in enumerate(seen):
        spared = values.nonzero().flatten().tolist()
        assert spared == ([] if cache and number else [0])


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
    with pytest.raises(TooFewFactsError, match="contrast `background`"):
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
        contrast="background",
    )
    assert results.ranking.relations == [relations[0].name]
    assert "plot-headline" in build_report(results)


SETS = [[(0, 3), (1, 7)], [], [(1, 90), (1, 7), (0, 50)]]


@pytest.mark.parametrize("positions", ["no_first", "all", "last"])
@pytest.mark.parametrize("mode", ["zero", "mean", "scale"])
def test_a_set_per_row_equals_each_set_alone(model, mode, positions):
    """Pitfall 2: rows of different length, left-padded, one of them with nothing ablated."""
    tokens = torch.cat([TOKENS, TOKENS.flip(1), TOKENS + 3])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0, :2] = mask[2, :1] = False
    values = [torch.tensor([0.4, -0.3]), 0.5, torch.tensor([0.1, 0.2, 0.3])]
    kinds = {"mode": mode, "positions": positions}
    value = None if mode == "zero" else values
    with rn.ablated(model, per_row=SETS, value=value, **kinds):
        found = logits(model, tokens, mask).log_softmax(-1)
    for row, neurons in enumerate(SETS):
        own = tokens[row : row + 1, mask[row].nonzero()[0, 0] :]
        alone = (
            rn.ablated(model, neurons, value=None if value is None else value[row], **kinds)
            if neurons
            else contextlib.nullcontext()
        )
        with alone:
            expected = logits(model, own).log_softmax(-1)
        torch.testing.assert_close(found[row, mask[row]], expected[0], atol=1e-4, rtol=0)
    assert not torch.allclose(found[2], logits(model, tokens, mask).log_softmax(-1)[2], atol=1e-3)


def test_one_number_is_the_value_of_every_row(model):
    tokens = torch.cat([TOKENS, TOKENS.flip(1)])
    found = {}
    for name, value in (("number", 0.5), ("tensor", torch.tensor(0.5)), ("each", [0.5, 0.5])):
        with rn.ablated(model, per_row=[["L0N3"], NEURONS], mode="scale", value=value):
            found[name] = logits(model, tokens)
    assert torch.equal(found["number"], found["tensor"])
    assert torch.equal(found["number"], found["each"])
    with pytest.raises(UnknownOptionError, match="3 values for 2 rows"):  # noqa: SIM117
        with rn.ablated(model, per_row=[["L0N3"], NEURONS], mode="scale", value=[0.5] * 3):
            pytest.fail("entered")


def test_a_batch_of_another_size_than_the_sets_is_an_error(model):
    with rn.ablated(model, per_row=SETS):
        for rows in (1, 2, 4):
            with pytest.raises(AblationError, match=rf"3 sets .* a batch of {rows} rows"):
                logits(model, TOKENS.expand(rows, -1))
        logits(model, TOKENS.expand(3, -1))
    for wrong, match in (
        ([[], []], "No neuron"),
        ([], "No neuron"),
        ([[(0, 1)], [(0, 96)]], "L0N96 does not exist"),
        ([[(0, 1)], [(0, 1), (0, 1)]], "comes twice"),
    ):
        with pytest.raises(AblationError, match=match), rn.ablated(model, per_row=wrong):
            pytest.fail("entered")


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_pitfall_2_a_set_per_sequence_in_sorted_and_padded_batches(model, prompts, batch_size):
    """Pitfall 2: several ablations in one plan of passes equal one ablation after another."""
    asked = prompts.held_out.take(np.arange(len(prompts.held_out)) % 5 == 0)
    plan = plan_passes(asked)
    sets = [SETS[i % 3] for i in range(len(plan.sequences))]
    with rn.ablated(model, per_row=sets) as hooks:
        found = answer_prompts(model, plan, batch_size=batch_size, before_batch=hooks.start)
        with pytest.raises(AblationError, match="sequence"):
            more = plan_passes(prompts.held_out)
            answer_prompts(model, more, batch_size=batch_size, before_batch=hooks.start)
    for which, neurons in enumerate(SETS):
        with rn.ablated(model, neurons) if neurons else contextlib.nullcontext():
            alone = answer_prompts(model, plan)
        rows = [read[0][0] for i, read in enumerate(plan.reads) if i % 3 == which]
        np.testing.assert_allclose(found.logprob[rows], alone.logprob[rows], atol=1e-4)
        sure = np.abs(alone.margin[rows]) > 1e-3
        assert (found.correct[rows] == alone.correct[rows])[sure].all()


def test_sets_per_row_nest_with_a_set_for_all(model):
    tokens = torch.cat([TOKENS, TOKENS.flip(1)])
    with rn.ablated(model, [(1, 7)]), rn.ablated(model, per_row=[[(1, 8)], []]):
        found = logits(model, tokens)
    with rn.ablated(model, per_row=[[(1, 7), (1, 8)], [(1, 7)]]):
        assert torch.equal(found, logits(model, tokens))
