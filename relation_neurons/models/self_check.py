"""The self-check of a loaded model: its neurons and logits must be those of Hugging Face's own model.

On a few tokens, for every layer: the hook point `hook_post` is there and fires once; it has the shape
[batch, pos, d_mlp]; the down projection's output follows from the hook's value; and changing that
value changes the logits. Where the model was made from a Hugging Face one, its logits, padded rows
included, and the inputs of its down projections are compared with that one's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.installed import BACKEND
from relation_neurons.backends.neuron_sites import site_hook
from relation_neurons.errors import ModelLoadError
from relation_neurons.inference.batches import make_batches
from relation_neurons.inference.forward import attach_to, final_residual, unembed
from relation_neurons.models.checkpoints import architecture_of, down_projection_path

__all__ = ["Evidence", "record_reference", "self_check"]

LENGTHS = (6, 4)
"""Tokens of the rows that are run; the shorter is padded."""


@dataclass(frozen=True)
class Evidence:
    """What a Hugging Face model computes for the rows, each run alone and unpadded."""

    logits: tuple[Float[Tensor, "_ d_vocab"], ...]
    received: tuple[tuple[Float[Tensor, "_ d_mlp"], ...], ...]
    """For each row, what each layer's down projection received; empty where it was not found."""
    tolerance: float


def record_reference(hf_model: Any) -> Evidence:
    """Runs the Hugging Face model itself, before anything is put around it."""
    device, count = _device(hf_model), int(hf_model.get_input_embeddings().weight.shape[0])
    training = hf_model.training
    hf_model.eval()  # without dropout
    received: dict[int, Tensor] = {}
    logits, inputs = [], []
    with contextlib.ExitStack() as stack, torch.inference_mode():
        for layer, module in enumerate(_down_projections(hf_model)):
            stack.callback(module.register_forward_pre_hook(_store_input(received, layer)).remove)
        for row in _rows(count, device):
            out = hf_model(row[None], attention_mask=torch.ones_like(row)[None], use_cache=False)
            logits.append(out.logits[0].float().cpu())
            inputs.append(tuple(received[layer][0].float().cpu() for layer in sorted(received)))
    hf_model.train(training)
    return Evidence(tuple(logits), tuple(inputs), _tolerance(next(hf_model.parameters()).dtype))


def self_check(model: HookedModel, evidence: Evidence | None = None) -> None:
    """Refuses a model whose hooks do not show its neurons as they are.

    Raises:
        ModelLoadError: with the layer and what failed.
    """
    tolerance = _tolerance(model.cfg.dtype)
    tokens, mask = _padded(int(model.cfg.d_vocab), _device(model))
    with torch.inference_mode():
        posts, outputs, logits = _look(model, tokens, mask)
        for layer, post in enumerate(posts):
            _require_received(model, layer, post, outputs[layer], tolerance)
        _require_effects(model, tokens[:1, -3:])
        if evidence is not None:
            _require_same(model, evidence, posts, logits, mask, max(tolerance, evidence.tolerance))


def _look(
    model: HookedModel, tokens: Int[Tensor, "row pos"], mask: Bool[Tensor, "row pos"]
) -> tuple[list[Tensor], dict[int, Tensor], Float[Tensor, "row pos d_vocab"]]:
    """Each layer's neurons, what its down projection puts out, and the logits."""
    layers = int(model.cfg.n_layers)
    seen: dict[int, list[Tensor]] = {layer: [] for layer in range(layers)}
    outputs: dict[int, Tensor] = {}
    with contextlib.ExitStack() as stack:
        for layer in range(layers):
            point = _point(model, layer)
            place = BACKEND.hook_points(model)[point]
            stack.callback(attach_to(place, point, _store_value(seen[layer])).remove)
            module = BACKEND.down_projection(model, layer).module
            stack.callback(module.register_forward_hook(_store_output(outputs, layer)).remove)
        residual = final_residual(model, tokens, mask)
    width = int(model.cfg.d_mlp)
    for layer, values in seen.items():
        shapes = [list(value.shape) for value in values]
        if shapes != [[*tokens.shape, width]]:
            raise _failed(
                model,
                layer,
                f"fired with {shapes or 'nothing'}; expected once, with {[*tokens.shape, width]}",
            )
    logits = unembed(model, residual.flatten(0, 1)).unflatten(0, tokens.shape)
    return [values[0] for values in seen.values()], outputs, logits


def _point(model: HookedModel, layer: int) -> str:
    try:
        return site_hook(model, "post", layer)
    except KeyError as error:
        raise _failed(model, layer, "is not there") from error


def _require_received(
    model: HookedModel,
    layer: int,
    post: Float[Tensor, "row pos d_mlp"],
    output: Float[Tensor, "row pos d_model"] | None,
    tolerance: float,
) -> None:
    down = BACKEND.down_projection(model, layer)
    if output is None:
        raise _failed(model, layer, "cannot be compared: the down projection did not run")
    expected = post.float() @ down.weight.float()
    if down.bias is not None:
        expected = expected + down.bias.float()
    if not _close(output.float(), expected, tolerance):
        raise _failed(
            model,
            layer,
            "is not what the down projection receives: its output differs by "
            f"{_difference(output.float(), expected):.2g} of its size from what the hook's value makes",
        )


def _require_effects(model: HookedModel, tokens: Int[Tensor, "1 pos"]) -> None:
    """One pass: row l has layer l's neurons changed, the first and the last row none."""
    layers = int(model.cfg.n_layers)
    rows = tokens.expand(layers + 2, -1)
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (int(model.cfg.d_mlp),), generator=generator) * 2.0 - 1.0
    with contextlib.ExitStack() as stack:
        for layer in range(layers):
            change, point = _changer(layer + 1, signs), _point(model, layer)
            place = BACKEND.hook_points(model)[point]
            stack.callback(attach_to(place, point, change).remove)
        residual = final_residual(model, rows, torch.ones_like(rows, dtype=torch.bool))
    logits = unembed(model, residual[:, -1])
    moved = (logits - logits[0]).abs().amax(dim=1)
    noise = max(10 * float(moved[-1]), 1e-5 * float(logits[0].abs().max()))
    for layer in range(layers):
        writes = bool(BACKEND.down_projection(model, layer).weight.any())
        if writes and not float(moved[layer + 1]) > noise:  # NaN is no effect either
            raise _failed(
                model, layer, "does nothing: changing its values leaves the logits as they are"
            )


def _require_same(
    model: HookedModel,
    evidence: Evidence,
    posts: list[Tensor],
    logits: Float[Tensor, "row pos d_vocab"],
    mask: Bool[Tensor, "row pos"],
    tolerance: float,
) -> None:
    for row, (expected, received) in enumerate(
        zip(evidence.logits, evidence.received, strict=True)
    ):
        for layer, inputs in enumerate(received):
            found = posts[layer][row][mask[row]].float().cpu()
            if found.shape != inputs.shape or not _close(found, inputs, tolerance):
                raise _failed(
                    model,
                    layer,
                    "is not what Hugging Face's own down projection receives: it differs by "
                    f"{_difference(found, inputs):.2g} of its size",
                )
        found = logits[row][mask[row]].float().cpu()[:, : expected.shape[1]]
        if not _close(found, expected, tolerance):
            kind = "" if bool(mask[row].all()) else "padded "
            raise ModelLoadError(
                f"{model.cfg.model_name} failed its self-check: the logits of a {kind}row differ from "
                f"Hugging Face's by {_difference(found, expected):.2g} of their size. This "
                "architecture, or an option of its config, works differently from what is expected here."
            )


def _failed(model: HookedModel, layer: int, what: str) -> ModelLoadError:
    return ModelLoadError(
        f"{model.cfg.model_name} failed its self-check: hook_post of layer {layer} {what}. What is "
        "read there would not be its neurons; see docs/models.md for the models that were verified."
    )


def _down_projections(hf_model: Any) -> Iterator[Any]:
    """Yields Hugging Face's down projections, as long as they are where this architecture keeps them."""
    modules = dict(hf_model.named_modules())
    architecture = architecture_of(hf_model.config)
    layer = 0
    while (path := down_projection_path(architecture, layer)) in modules:
        yield modules[path]
        layer += 1


def _rows(vocab: int, device: torch.device) -> list[Int[Tensor, " pos"]]:
    """Tokens spread over the vocabulary."""
    return [
        torch.tensor([(7 + 13 * i + 5 * row) * 31 % vocab for i in range(length)], device=device)
        for row, length in enumerate(LENGTHS)
    ]


def _padded(
    vocab: int, device: torch.device
) -> tuple[Int[Tensor, "row pos"], Bool[Tensor, "row pos"]]:
    """The rows as one batch, padded on the left."""
    rows = [row.tolist() for row in _rows(vocab, device)]
    (batch,) = make_batches(rows, batch_size=len(rows), pad_id=0, device=device)
    return batch.tokens, batch.mask


def _store_value(kept: list[Tensor]) -> Callable[[Tensor, str], None]:
    return lambda value, _name: kept.append(value.clone())


def _store_output(kept: dict[int, Tensor], layer: int) -> Callable[..., None]:
    return lambda _module, _inputs, output: kept.__setitem__(layer, output)


def _store_input(kept: dict[int, Tensor], layer: int) -> Callable[..., None]:
    return lambda _module, inputs: kept.__setitem__(layer, inputs[0])


def _changer(row: int, signs: Float[Tensor, " d_mlp"]) -> Callable[[Tensor, str], Tensor]:
    def change(value: Tensor, _name: str) -> Tensor:
        size = value[row].float().square().mean().sqrt()
        size = size if float(size) > 0 else torch.ones_like(size)
        changed = value.clone()
        changed[row] += (size * signs.to(value.device)).to(value.dtype)
        return changed

    return change


def _close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    return _difference(found, expected) <= tolerance


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference at any position, as a share of its largest value; infinite where shapes differ.

    Each position is measured by itself, as the first may dwarf the others. One with less than a
    thousandth of the largest is measured by that, which rounding reaches.
    """
    if found.shape != expected.shape:
        return float("inf")
    size = expected.abs().amax(dim=-1)
    size = size.clamp(min=1e-3 * float(size.max()))
    apart = (found - expected).abs().amax(dim=-1)
    return float((apart / torch.where(size > 0, size, 1.0)).max())


def _tolerance(dtype: torch.dtype) -> float:
    """Sums in another order differ by this much of the largest value, with room."""
    return {torch.float64: 1e-6, torch.float32: 1e-3}.get(dtype, 5e-2)


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device
