"""`collect_activations` and `collect_neuron`: run the intact model and pool every neuron, or read one.

Pooling happens inside the hook; only pooled values leave it. Pads are masked, answers are never
pooled, and the first attended position - an attention sink, BOS or not - is left out unless asked
for (method 5; pitfalls 1 and 3).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from relation_neurons.activations.collector import Collector
from relation_neurons.activations.pooling import POOLS
from relation_neurons.activations.table import ActivationTable
from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.neuron_sites import output_norms, site_hook, site_width
from relation_neurons.errors import (
    ActivationError,
    ContextLengthError,
    HookError,
    UnknownOptionError,
    UnknownSiteError,
    near_matches,
)
from relation_neurons.inference.batches import Batch, make_batches
from relation_neurons.inference.forward import attach, model_batches, tree_residual
from relation_neurons.inference.out_of_memory import run_halving
from relation_neurons.inference.prefix_trees import TreeBatch
from relation_neurons.inference.recall import BATCH_SIZE
from relation_neurons.progress import progress_bar
from relation_neurons.relations.prompts import Prompts
from relation_neurons.storage.memmap import parse_size, room_for_table

__all__ = ["collect_activations", "collect_neuron"]


def collect_activations(
    model: HookedModel,
    prompts: Prompts,
    *,
    pool: str = "mean",
    site: str = "post",
    active: bool = False,
    batch_size: int = BATCH_SIZE,
    memory: str | int | None = None,
    folder: Path | None = None,
) -> ActivationTable:
    """Runs the intact model over prompts (never their answers) and pools every neuron.

    Args:
        model: what `load_model` returns.
        prompts: those to run.
        pool: one of `POOLS`.
        site: `post`, `gate`, `up` or `out`.
        active: also count how often each neuron is active (`activation_entropy` needs it). Every
            activation function here has the sign of its input, so that is read at `hook_pre`.
        batch_size: prompts a pass.
        memory: what the table may take in memory, such as `2GB`; past it, its values lie in a
            memory-mapped file that is deleted with them. The values are the same.
        folder: of that file; the system's for temporary files by default.

    Raises:
        UnknownSiteError: a site that the model does not have, or `active` at `out`.
        HookError: a layer whose hook did not fire.
        ActivationError: NaN or Inf; the first neuron is named.
        OutOfMemoryError: one prompt alone does not fit.
    """
    if pool not in POOLS:
        raise UnknownOptionError(f"No pooling {pool!r}. {near_matches(pool, POOLS)}")
    layers, width = model.cfg.n_layers, site_width(model, site)
    is_fact = np.asarray(prompts.frame["kind"] == "fact")
    limit = parse_size(memory)
    if limit is not None and active:
        limit //= 2  # two tables
    room = partial(room_for_table, memory=limit, folder=folder)
    collector = Collector(len(prompts), layers, width, pool, prompts.context, is_fact, room)
    names = {site_hook(model, site, layer): layer for layer in range(layers)}
    hooks = [(name, partial(collector.hook, layer=layer)) for name, layer in names.items()]
    if active:
        if site == "out":
            raise UnknownSiteError(
                "At `out` there is no activation function, so no neuron is active there. Use the site "
                "`post`, or active=False."
            )
        gates = {site_hook(model, "gate", layer): layer for layer in range(layers)}
        hooks += [(name, partial(collector.count, layer=layer)) for name, layer in gates.items()]
        collector.count_active()
    batches = _batches(model, prompts, batch_size)

    def collect(batch: Batch | TreeBatch) -> None:
        collector.start(batch)
        _run(model, batch)
        collector.finish(names)

    with (
        torch.inference_mode(),
        _attached(model, hooks),
        progress_bar(len(prompts), "activations") as bar,
    ):
        for batch, _ in run_halving(model, batches, collect):
            bar.update(len(batch.rows))
    norms = output_norms(model, site)
    tokens = max(collector.tokens, 1)
    return ActivationTable(
        values=_finite(collector.values, site),
        prompts=prompts.frame,
        mean=(collector.sum / tokens).float(),
        contribution=(collector.sum_abs / tokens).float() * norms,
        first_contribution=(collector.first_abs / max(collector.firsts, 1)).float() * norms,
        pool=pool,
        site=site,
        active=collector.active,
        token_counts=collector.token_counts if active else None,
    )


def _batches(model: HookedModel, prompts: Prompts, batch_size: int) -> list[Batch | TreeBatch]:
    """The prompts without their answers, in batches."""
    longest = max(map(len, prompts.tokens))
    if longest > model.cfg.n_ctx:
        raise ContextLengthError(
            f"The longest prompt has {longest} tokens; this model reads {model.cfg.n_ctx}. "
            "Shorten its template, drop the fact, or show fewer solved examples."
        )
    return model_batches(model, prompts.tokens, batch_size=batch_size, pad_id=prompts.pad_id)


@contextlib.contextmanager
def _attached(
    model: HookedModel, hooks: Sequence[tuple[str, Callable[..., None]]]
) -> Iterator[None]:
    """Hooks hook points for as long as the context is open."""
    with contextlib.ExitStack() as stack:
        for name, act in hooks:
            stack.callback(attach(model, name, partial(_look, act)).remove)
        yield


def _look(act: Callable[..., None], value: Tensor, _name: str) -> None:
    act(value)


def _run(model: HookedModel, batch: Batch | TreeBatch) -> None:
    if isinstance(batch, TreeBatch):
        tree_residual(model, batch)
    else:
        model(
            batch.tokens,
            attention_mask=batch.mask.long(),
            return_type=None,
            stop_at_layer=model.cfg.n_layers,
        )


def _finite(
    values: Float[Tensor, "prompt layer d_mlp"], site: str
) -> Float[Tensor, "prompt layer d_mlp"]:
    bad = [int((~torch.isfinite(row)).sum()) for row in values]  # the table may lie in a file
    if any(bad):
        prompt = next(row for row, count in enumerate(bad) if count)
        layer, neuron = (int(i) for i in (~torch.isfinite(values[prompt])).nonzero()[0])
        raise ActivationError(
            f"Neuron L{layer}N{neuron} ({site}) is NaN or Inf on prompt row {prompt}, and {sum(bad)} "
            "values are in all. float16 overflows in some models: load with dtype='bfloat16' or 'float32'."
        )
    return values


def collect_neuron(
    model: HookedModel,
    prompts: Prompts,
    layer: int,
    neuron: int,
    *,
    site: str = "post",
    batch_size: int = BATCH_SIZE,
) -> tuple[Float[Tensor, " _"], ...]:
    """Runs the model up to one layer and returns one neuron's activation at each token of each prompt.

    Raises:
        ActivationError: NaN or Inf.
        HookError: the layer's hook did not fire.
    """
    name = site_hook(model, site, layer)
    seen: list[Tensor] = []
    by_token: list[Tensor] = [torch.empty(0)] * len(prompts)
    device = next(model.parameters()).device
    batches = [
        *make_batches(prompts.tokens, batch_size=batch_size, pad_id=prompts.pad_id, device=device)
    ]

    def collect(batch: Batch) -> None:
        seen.clear()
        model.run_with_hooks(
            batch.tokens,
            attention_mask=batch.mask.long(),
            fwd_hooks=[(name, lambda value, hook: seen.append(value[:, :, neuron].float()))],
            return_type=None,
            stop_at_layer=layer + 1,
        )
        if not seen:
            raise HookError(f"The hook {name} did not fire; the neuron would be missing.")
        for row, values, mask in zip(batch.rows, seen.pop(), batch.mask, strict=True):
            by_token[row] = values.cpu()[mask.cpu()]

    with torch.inference_mode(), progress_bar(len(prompts), "one neuron") as bar:
        for batch, _ in run_halving(model, batches, collect):
            bar.update(len(batch.rows))
    if not all(bool(torch.isfinite(values).all()) for values in by_token):
        raise ActivationError(
            f"Neuron L{layer}N{neuron} ({site}) is NaN or Inf at some token. float16 overflows in some "
            "models: load with dtype='bfloat16' or 'float32'."
        )
    return tuple(by_token)
