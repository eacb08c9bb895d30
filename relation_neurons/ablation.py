"""Ablation: setting neurons to a value while the model runs.

`ablated(...)` is a context manager. It checks after its hooks that the values are what was asked
for, that every hook fired, and removes them whatever happens (pitfalls 18 and 20).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relation_neurons.activations import first_positions
from relation_neurons.batches import Batch
from relation_neurons.errors import AblationError, HookError, UnknownOptionError, near_matches
from relation_neurons.models import HookedTransformer, site_hook, site_width
from relation_neurons.ranking import neuron_name, parse_neuron

__all__ = ["MODES", "POSITIONS", "Ablation", "ablated"]

MODES = ("zero", "mean", "scale")
POSITIONS = ("no_first", "all", "last")


class Ablation:
    """The hooks of one ablation; what `ablated` yields.

    `start(batch, answers)` tells it which positions are real and where answers begin; a plain call
    of the model needs none: the mask is read from the call.
    """

    def __init__(
        self,
        model: HookedTransformer,
        per_layer: dict[int, tuple[Tensor, Tensor]],
        *,
        site: str,
        mode: str,
        positions: str,
    ) -> None:
        self._model, self._site, self._mode, self._positions = model, site, mode, positions
        self._per_layer = per_layer
        self._where: Bool[Tensor, "batch pos"] | None = None
        self._given: Batch | None = None
        self._answers: Int[Tensor, " batch"] | None = None
        self.calls = 0
        self.fired: set[int] = set()

    def start(self, batch: Batch, answers: Int[Tensor, " batch"]) -> None:
        """Announces the next batch and the position of each row's last prompt token."""
        self._given, self._answers = batch, answers

    def around(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps the model's forward pass, so that every way of running it says its positions."""

        @functools.wraps(forward)
        def aware(*args: Any, **kwargs: Any) -> Any:
            self._decide(args[0] if args else kwargs["input"], kwargs)
            try:
                return forward(*args, **kwargs)
            finally:
                self._where = None

        return aware

    def _decide(self, inputs: Any, kwargs: dict[str, Any]) -> None:
        """Decides which positions of the coming pass are ablated."""
        self.calls += 1
        cache = kwargs.get("past_kv_cache")
        continued = cache is not None and len(cache.entries) > 0 and cache[0].past_keys.shape[1] > 0
        mask = kwargs.get("attention_mask")
        if self._given is not None and inputs is self._given.tokens:
            mask = self._given.mask
        if mask is None:
            mask = self._inferred_mask(inputs)
        mask = mask.bool()
        if self._positions == "all":
            self._where = mask
        elif self._positions == "no_first":
            self._where = mask if continued else mask & ~first_positions(mask)
        elif self._given is not None and inputs is self._given.tokens and self._answers is not None:
            at = torch.arange(mask.shape[1], device=mask.device)
            self._where = mask & (at >= self._answers[:, None])
        else:
            self._where = torch.zeros_like(mask)
            self._where[:, -1] = True

    def hook(self, value: Float[Tensor, "batch pos d_mlp"], hook: Any, *, layer: int) -> Tensor:
        """Sets the values of one layer."""
        self.fired.add(layer)
        index, target = self._per_layer[layer]
        result = value.clone()
        result[:, :, index] = self._wanted(value[:, :, index], target)
        return result

    def check(self, value: Float[Tensor, "batch pos d_mlp"], hook: Any, *, layer: int) -> None:
        """Runs after `hook` on the same hook point and looks at what goes on from there."""
        if self._mode == "scale":
            return  # the values before are gone; the firing of the hook is what can be checked
        index, target = self._per_layer[layer]
        found = value[:, :, index]
        where = self._spread(found)
        if not bool((found == target.to(found.dtype))[where.expand_as(found)].all()):
            raise AblationError(
                f"After the ablation of {len(index)} neurons, layer {layer} still holds other values "
                f"at {self._site}. Another hook on the same point changed them back."
            )

    def _wanted(self, found: Float[Tensor, "batch pos k"], target: Float[Tensor, " k"]) -> Tensor:
        new = found * target if self._mode == "scale" else target.expand_as(found)
        return torch.where(self._spread(found), new.to(found.dtype), found)

    def _spread(self, found: Float[Tensor, "batch pos k"]) -> Bool[Tensor, "batch pos 1"]:
        where = self._where
        if where is None or where.shape != found.shape[:2]:
            raise HookError(
                "The ablation does not know the positions of this pass. Call the model itself, "
                "with tokens and, where rows are padded, attention_mask."
            )
        return where[..., None].to(found.device)

    def _inferred_mask(self, inputs: Any) -> Bool[Tensor, "batch pos"]:
        if isinstance(inputs, str) or (isinstance(inputs, list) and len(inputs) == 1):
            tokens = self._model.to_tokens(inputs)
        elif isinstance(inputs, Tensor) and not inputs.is_floating_point():
            tokens = inputs if inputs.ndim == 2 else inputs[None]
        else:
            raise AblationError(
                "Several texts at once are padded in ways the ablation cannot see. Give tokens with "
                "attention_mask, or one text at a time."
            )
        pad = getattr(self._model.tokenizer, "pad_token_id", None)
        if len(tokens) > 1 and pad is not None and bool((tokens == pad).any()):
            raise AblationError(
                "These rows hold the padding token and no attention_mask says what is padding. "
                "Pass attention_mask."
            )
        return torch.ones(tokens.shape, dtype=torch.bool, device=tokens.device)


@contextlib.contextmanager
def ablated(
    model: HookedTransformer,
    neurons: pd.DataFrame | Iterable[str | tuple[int, int]],
    *,
    site: str = "post",
    mode: str = "zero",
    positions: str = "no_first",
    value: float | Float[Tensor, " neuron"] | None = None,
) -> Iterator[Ablation]:
    """Ablates neurons for as long as the context is open; contexts nest.

    Args:
        model: what `load_model` gives.
        neurons: rows with layer and neuron, names such as `L16N302`, or (layer, neuron) pairs.
        site: `post`, `gate`, `up` or `out`.
        mode: `zero`; `mean` (each neuron set to its `value`); `scale` (multiplied by `value`).
        positions: `no_first` spares the first attended position, an attention sink; `all` is the
            paper's; `last` is the last prompt position and every answer position.
        value: for `mean`, one per neuron; for `scale`, a factor, or one per neuron.

    Raises:
        AblationError: a neuron that does not exist, or values that are not what was asked for.
        HookError: a hook that did not fire though the model ran.
    """
    for name, choice, choices in (("mode", mode, MODES), ("positions", positions, POSITIONS)):
        if choice not in choices:
            raise UnknownOptionError(f"No {name} {choice!r}. {near_matches(choice, choices)}")
    per_layer = _per_layer(model, _pairs(neurons), site, _values(mode, value))
    ablation = Ablation(model, per_layer, site=site, mode=mode, positions=positions)
    handles: list[Any] = []
    outer, wrapped_before = model.forward, "forward" in vars(model)
    try:
        model.forward = ablation.around(outer)
        for layer in per_layer:
            handles.extend(_attach(model, ablation, site_hook(model, site, layer), layer))
        yield ablation
        missed = sorted(set(per_layer) - ablation.fired)
        if ablation.calls and missed:
            raise HookError(
                f"The model ran, but the hook {site_hook(model, site, missed[0])} did not fire, so its "
                "neurons were not ablated. Run every layer that holds an ablated neuron."
            )
    finally:
        for handle in handles:
            handle.remove()
        if wrapped_before:
            model.forward = outer
        else:
            vars(model).pop("forward", None)


def _attach(model: HookedTransformer, ablation: Ablation, name: str, layer: int) -> list[Any]:
    """Hooks a hook point directly, so that nothing else resets or outlives it."""
    point = model.hook_dict[name]
    return [
        point.register_forward_hook(lambda _m, _i, out: ablation.hook(out, point, layer=layer)),
        point.register_forward_hook(lambda _m, _i, out: ablation.check(out, point, layer=layer)),
    ]


def _pairs(neurons: pd.DataFrame | Iterable[str | tuple[int, int]]) -> list[tuple[int, int]]:
    if isinstance(neurons, pd.DataFrame):
        return [(int(a), int(b)) for a, b in zip(neurons["layer"], neurons["neuron"], strict=True)]
    if isinstance(neurons, str):
        neurons = [neurons]
    return [parse_neuron(n) if isinstance(n, str) else (int(n[0]), int(n[1])) for n in neurons]


def _values(mode: str, value: float | Tensor | None) -> Tensor:
    if mode == "zero":
        if value is not None:
            raise UnknownOptionError("mode='zero' takes no value; use mode='mean' or 'scale'.")
        return torch.zeros(())
    if value is None:
        raise UnknownOptionError(f"mode={mode!r} needs a value: one number, or one per neuron.")
    return torch.as_tensor(value, dtype=torch.float32)


def _per_layer(
    model: HookedTransformer, pairs: list[tuple[int, int]], site: str, values: Tensor
) -> dict[int, tuple[Tensor, Tensor]]:
    """Groups neurons by layer: their indices and target values."""
    width, layers = site_width(model, site), model.cfg.n_layers
    if not pairs:
        raise AblationError("No neuron was given; expected at least one.")
    if len(set(pairs)) < len(pairs):
        raise AblationError("A neuron comes twice in the set; the dose would be less than it says.")
    for layer, neuron in pairs:
        if not (0 <= layer < layers and 0 <= neuron < width):
            raise AblationError(
                f"{neuron_name(layer, neuron)} does not exist: this model has layers 0 to {layers - 1} "
                f"with {width} {site} neurons each."
            )
    device = next(model.parameters()).device
    array = np.asarray(pairs)
    spread = values.expand(len(pairs)) if values.ndim == 0 else values
    if len(spread) != len(pairs):
        raise UnknownOptionError(
            f"{len(spread)} values for {len(pairs)} neurons; expected one each."
        )
    grouped = {}
    for layer in np.unique(array[:, 0]):
        rows = np.flatnonzero(array[:, 0] == layer)
        index = torch.from_numpy(array[rows, 1]).to(device)
        grouped[int(layer)] = (index, spread[torch.from_numpy(rows)].to(device))
    return grouped
