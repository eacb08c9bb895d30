"""A model that was changed is measured as it now is, against its own forward pass, prompt by prompt."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from torch import nn

import relation_neurons as rn
from relation_neurons.errors import RelationNeuronsError
from relation_neurons.inference.forward import takes_trees

NEURONS = [(0, 5), (1, 7), (1, 30), (1, 90)]
PROMPTS = 6


class Halved(nn.Module):
    """A module around another one."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return 0.5 * self.inner(*args, **kwargs)


class Smaller(nn.Module):
    """In the place of a hook point, as a sparse autoencoder would be."""

    def forward(self, x):
        return 0.7 * x


def at(model, path):
    for name in path.split("."):
        model = getattr(model, name)
    return model


def put(model, path, module):
    *parents, name = path.split(".")
    setattr(at(model, ".".join(parents)) if parents else model, name, module)


def halved(out):
    if isinstance(out, tuple):
        return tuple(halved(part) for part in out)
    return None if out is None else 0.5 * out


def replaced_forward(model, path):
    module = at(model, path)
    own = module.forward
    module.forward = lambda *args, **kwargs: 0.5 * own(*args, **kwargs)


def wrapped(model, path):
    put(model, path, Halved(at(model, path)))


def subclassed(model, path):
    module = at(model, path)
    own = type(module)

    class Sub(own):
        def forward(self, *args, **kwargs):
            return 0.5 * own.forward(self, *args, **kwargs)

    module.__class__ = Sub


def another_of_a_subclass(model, path):
    """A new object, with hook points of its own and the old one's weights."""
    subclassed(model, path)
    put(model, path, copy.deepcopy(at(model, path)))


def put_in_its_place(model, path):
    put(model, path, Smaller())


def plain_hook(model, path):
    at(model, path).register_forward_hook(lambda _m, _i, out: 0.5 * out)


def plain_pre_hook(model, path):
    at(model, path).register_forward_pre_hook(
        lambda _m, args, kwargs: (
            tuple(0.5 * a for a in args),
            {k: 0.5 * v if k.endswith("_input") else v for k, v in kwargs.items()},
        ),
        with_kwargs=True,
    )


def replaced_method(model, path):
    *parents, name = path.split(".")
    module = at(model, ".".join(parents)) if parents else model
    own = getattr(module, name)
    setattr(module, name, lambda *args, **kwargs: halved(own(*args, **kwargs)))


def parametrised(model, path):
    class Half(nn.Module):
        def forward(self, weight):
            return 0.5 * weight

    *parents, name = path.split(".")
    nn.utils.parametrize.register_parametrization(at(model, ".".join(parents)), name, Half())


def class_patched(model, path):
    """Undone by the fixture."""
    kind = type(at(model, path))
    own = kind.forward
    kind.forward = functools.wraps(own)(lambda *args, **kwargs: 0.5 * own(*args, **kwargs))


MODULES = (
    "blocks.0",
    "blocks.1",
    "blocks.0.attn",
    "blocks.1.attn",
    "blocks.1.mlp",
    "blocks.1.ln1",
    "blocks.0.ln2",
    "ln_final",
    "embed",
    "unembed",
)
POINTS = (
    "hook_embed",
    "blocks.1.hook_resid_pre",
    "blocks.0.hook_resid_mid",
    "blocks.1.hook_resid_post",
    "blocks.0.hook_attn_out",
    "blocks.1.hook_mlp_out",
    "blocks.1.attn.hook_q",
    "blocks.1.attn.hook_rot_k",
    "blocks.1.attn.hook_z",
    "blocks.1.attn.hook_pattern",
    "blocks.1.mlp.hook_pre",
    "blocks.1.mlp.hook_post",
    "blocks.1.ln1.hook_scale",
    "blocks.0.ln2.hook_normalized",
    "ln_final.hook_normalized",
    "unembed.hook_out",
)
METHODS = (
    "blocks.1.apply_mlp",
    "blocks.1.attn.calculate_z_scores",
    "blocks.0.attn.apply_rotary",
    "get_residual",
)
WEIGHTS = ("blocks.1.attn.W_O", "blocks.1.mlp.W_out", "ln_final.w", "unembed.W_U")
CHANGES = [
    *((replaced_forward, path) for path in (*MODULES, "hook_embed", "blocks.1.attn.hook_z")),
    *((subclassed, path) for path in ("blocks.1", "blocks.0.attn", "unembed", "unembed.hook_out")),
    *(
        (wrapped, path)
        for path in ("blocks.0", "blocks.1.attn", "blocks.1.mlp", "ln_final", "embed")
    ),
    *((another_of_a_subclass, path) for path in ("blocks.1", "blocks.1.attn", "blocks.0.mlp")),
    *((put_in_its_place, path) for path in POINTS),
    *((plain_hook, path) for path in ("blocks.1.attn", "unembed", "blocks.1.attn.hook_z")),
    *((plain_pre_hook, path) for path in ("blocks.1.attn", "ln_final")),
    *((replaced_method, path) for path in METHODS),
    *((parametrised, path) for path in WEIGHTS),
    *((class_patched, path) for path in ("blocks.1.attn", "blocks.1.mlp", "unembed")),
]


@pytest.fixture(scope="module")
def asked(prompts):
    facts = (prompts.held_out.frame["kind"] == "fact").to_numpy()
    keep = np.flatnonzero(facts)[:: max(1, int(facts.sum()) // PROMPTS)][:PROMPTS]
    return prompts.held_out.take(np.isin(np.arange(len(facts)), keep))


@pytest.fixture
def changed(model):
    """A function that makes a changed model; classes are as before afterwards."""
    undo = []

    def make(change, path):
        other = copy.deepcopy(model)
        if change is class_patched:
            kind = type(at(other, path))
            undo.append((kind, vars(kind).get("forward")))
        change(other, path)
        return other

    yield make
    for kind, own in undo:
        if own is None:
            del kind.forward
        else:
            kind.forward = own


def expected_answers(model, asked):
    """Margin and log-probability of each prompt, from the model's own forward pass, alone in its row."""
    margins, logprobs = [], []
    for tokens, answers in zip(asked.tokens, asked.answers, strict=True):
        found = []
        for answer in answers:
            with torch.inference_mode():
                logits = model(torch.tensor([tokens + answer[:-1]]))[0, len(tokens) - 1 :].double()
            target = torch.tensor(answer)[:, None]
            own = logits.gather(1, target)[:, 0]
            others = logits.scatter(1, target, -torch.inf).amax(1)
            logprob = logits.log_softmax(1).gather(1, target).sum()
            found.append((float((own - others).min()), float(logprob)))
        best = max(found)
        margins.append(best[0])
        logprobs.append(best[1])
    return np.array(margins), np.array(logprobs)


def assert_is_measured(model, asked, ranking):
    """Recall, activations, sweep and collateral against `model(tokens)`; ours is an error of ours."""
    margins, logprobs = expected_answers(model, asked)
    recall = rn.measure_recall(model, asked)
    np.testing.assert_allclose(recall["margin"], margins, atol=2e-3)
    np.testing.assert_allclose(recall["logprob"], logprobs, atol=2e-3)

    try:
        table = rn.collect_activations(model, asked, pool="last")
    except RelationNeuronsError as problem:
        assert "hook" in str(problem)
        with pytest.raises(RelationNeuronsError):
            rn.ablation_sweep(model, asked, ranking, (4,), control_draws=0)
        with pytest.raises(RelationNeuronsError):
            rn.collateral_damage(model, ranking, (4,), control_draws=0, text=TEXT)
        return
    for row in range(0, len(asked), 3):
        seen = {}
        with torch.inference_mode():
            model.run_with_hooks(
                torch.tensor([asked.tokens[row]]),
                fwd_hooks=[
                    (f"blocks.{n}.mlp.hook_post", functools.partial(look, seen)) for n in (0, 1)
                ],
            )
        if len(seen) == 2:  # else TransformerLens itself does not see the new hook points
            values = torch.stack([seen[name] for name in sorted(seen)])
            torch.testing.assert_close(table.values[row], values, atol=1e-4, rtol=1e-3)

    effects = rn.ablation_sweep(model, asked, ranking, (4,), control_draws=0)
    for ablated, part in effects.groupby("ablated", observed=True):
        own = part.set_index("prompt_id").loc[asked.frame["prompt_id"]]
        np.testing.assert_allclose(own["margin_intact"], margins, atol=2e-3)
        with rn.ablated(model, ranking.top(str(ablated), 4)):
            under, under_logprobs = expected_answers(model, asked)
        np.testing.assert_allclose(own["margin"], under, atol=2e-3)
        np.testing.assert_allclose(own["logprob"], under_logprobs, atol=2e-3)

    collateral = rn.collateral_damage(model, ranking, (4,), control_draws=0, text=TEXT)
    np.testing.assert_allclose(collateral["logloss_intact"], loss(model), atol=2e-3)
    for row in collateral.itertuples():
        with rn.ablated(model, ranking.top(str(row.ablated), 4)):
            np.testing.assert_allclose(row.logloss, loss(model), atol=2e-3)


def look(seen, value, hook):
    seen[hook.name] = value[0, -1].float()


TEXT = ("The capital of Aldor is Paris", "What is the food of Brenin? The food is warm bread")


def loss(model):
    total, count = 0.0, 0
    for text in TEXT:
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            logprobs = model(ids)[0].double().log_softmax(1)
        total -= float(logprobs[:-1].gather(1, ids[0, 1:, None]).sum())
        count += ids.shape[1] - 1
    return total / count


@pytest.mark.parametrize(
    ("change", "path"), CHANGES, ids=[f"{change.__name__}-{path}" for change, path in CHANGES]
)
def test_a_changed_model_is_measured_as_it_now_is(changed, asked, ranking, model, change, path):
    other = changed(change, path)
    tokens = torch.tensor([asked.tokens[0]])
    with torch.inference_mode():
        assert change is class_patched or not torch.equal(other(tokens), model(tokens))
    assert_is_measured(other, asked, ranking)


def test_a_model_as_it_was_loaded_takes_the_lean_pass(tiny_folder, asked, ranking):
    model = rn.load_model(tiny_folder, device="cpu")
    assert takes_trees(model)
    assert takes_trees(copy.deepcopy(model))
    assert_is_measured(model, asked, ranking)
    assert takes_trees(model)
    with rn.ablated(model, NEURONS):
        assert takes_trees(model)
    own = model.blocks[0].attn.forward
    model.blocks[0].attn.forward = lambda *args, **kwargs: own(*args, **kwargs)
    assert not takes_trees(model)
    del model.blocks[0].attn.forward
    assert takes_trees(model)
