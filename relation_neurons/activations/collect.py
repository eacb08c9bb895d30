"""Activations: one pooled value per prompt and neuron, and what each neuron typically does.

Pooling happens inside the hook; only pooled values leave it. Pads are masked, answers are never
pooled, and the first attended position - an attention sink, BOS or not - is left out unless asked
for (method 5; pitfalls 1 and 3).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relation_neurons.activations.collector import Collector
from relation_neurons.activations.pooling import POOLS
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
from relation_neurons.inference.forward import attach, takes_trees, tree_residual
from relation_neurons.inference.out_of_memory import as_they_fit
from relation_neurons.inference.prefix_trees import TreeBatch, make_tree_batches
from relation_neurons.inference.recall import BATCH_SIZE
from relation_neurons.neurons import neuron_name
from relation_neurons.notebook_html import ROWS, table_view
from relation_neurons.progress import progress_bar
from relation_neurons.relations.prompts import KIND_PHRASES, Prompts
from relation_neurons.relations.relation import relation_label
from relation_neurons.storage.memmap import parse_size, room_for_table

__all__ = ["ActivationTable", "collect_activations", "collect_neuron"]

SINK_RATIO = 10.0
"""A sink neuron contributes this many times more at the first position than the loudest neuron of the
whole model does elsewhere (SmolLM2 has seven; the loudest, L11N1229, writes 200 times that much)."""


@dataclass(frozen=True)
class ActivationTable:
    """Pooled activations with the prompts they belong to."""

    values: Float[Tensor, "prompt layer d_mlp"]
    """float32, whatever the model's dtype (pitfall 4)."""
    prompts: pd.DataFrame
    """The frame of `Prompts`, aligned with the first axis."""
    mean: Float[Tensor, "layer d_mlp"]
    """Mean activation over the tokens of the detection facts' prompts, first position apart."""
    contribution: Float[Tensor, "layer d_mlp"]
    """Mean |activation| over the same tokens, times the norm of the neuron's output row."""
    first_contribution: Float[Tensor, "layer d_mlp"]
    """The same at the first attended position."""
    pool: str
    site: str
    active: Float[Tensor, "prompt layer d_mlp"] | None = None
    """Share of each prompt's pooled tokens (see `token_counts`) at which the activation function's
    output is above 0; None unless asked for."""
    token_counts: Int[Tensor, " prompt"] | None = None
    """Tokens that `active` is a share of: those that the mean is over, whatever the pooling."""

    def __repr__(self) -> str:
        prompts, layers, width = self.values.shape
        shape = f"{prompts} prompts, {layers} layers x {width}"
        return f"ActivationTable({shape}, pool={self.pool}, site={self.site})"

    def _repr_html_(self) -> str:
        """An activation table: whose prompts its rows are, and its loudest neurons, sinks first."""
        count, layers, width = self.values.shape
        frame, sinks = self.prompts, self.is_sink
        several = frame["language"].nunique() > 1
        asked = [
            (
                relation_label(relation, language, several=several),
                KIND_PHRASES.get(kind, kind),
                f"{len(part):,}",
                part["template"].nunique(),
            )
            for (relation, language, kind), part in frame.groupby(
                ["relation", "language", "kind"], sort=False
            )
        ]
        louder = (self.contribution + sinks * self.first_contribution).flatten()
        places = louder.topk(min(ROWS, len(louder))).indices.tolist()
        loud = [
            (
                neuron_name(place // width, place % width),
                f"{self.contribution.flatten()[place]:.3g}",
                f"{self.first_contribution.flatten()[place]:.3g}",
                "sink" if sinks.flatten()[place] else "",
            )
            for place in places
        ]
        note = (
            f"One value per prompt and neuron at {self.site}, pooled by {self.pool.replace('_', ' ')}. "
            "Below, the loudest neurons: mean |activation| times the norm of what they write."
        )
        title = f"Activations of {count:,} prompts, {layers} layers of {width:,} neurons"
        return table_view(
            title,
            note,
            (("Relation", "Prompts", "Count", "Templates"), asked),
            (("Neuron", "Elsewhere", "At the first position", "Flag"), loud),
        )

    @property
    def is_sink(self) -> Bool[Tensor, "layer d_mlp"]:
        """Neurons that write the attention sink at the first position."""
        return self.first_contribution > SINK_RATIO * self.contribution.max()

    def take(self, keep: np.ndarray | pd.Series) -> ActivationTable:
        """Gives some of the prompts; the neurons' typical values stay as they are."""
        rows = np.flatnonzero(np.asarray(keep))
        return replace(
            self,
            values=self.values[rows],
            prompts=self.prompts.iloc[rows].reset_index(drop=True),
            active=None if self.active is None else self.active[rows],
            token_counts=None if self.token_counts is None else self.token_counts[rows],
        )


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
        model: what `load_model` gives.
        prompts: those to run.
        pool: one of `POOLS`.
        site: `post`, `gate`, `up` or `out`.
        active: also count how often each neuron is active (`activation_entropy` needs it). Every
            activation function here has the sign of its input, so that is read at `hook_pre`.
        batch_size: prompts a pass.
        memory: what the table may take in memory, such as `2GB`; past it, its values lie in a
            memory-mapped file that goes when they do. They are the same.
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
        for batch, _ in as_they_fit(model, batches, collect):
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
    """The prompts without their answers: as prefix trees where the model takes them."""
    longest = max(map(len, prompts.tokens))
    if longest > model.cfg.n_ctx:
        raise ContextLengthError(
            f"The longest prompt has {longest} tokens; this model reads {model.cfg.n_ctx}. "
            "Shorten its template, drop the fact, or show fewer solved examples."
        )
    device = next(model.parameters()).device
    kinds: Any = {"batch_size": batch_size, "pad_id": prompts.pad_id, "device": device}
    if takes_trees(model):
        return [*make_tree_batches(prompts.tokens, **kinds)]
    return [*make_batches(prompts.tokens, **kinds)]


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
    """Runs the model up to one layer and gives one neuron's activation at each token of each prompt.

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
        for batch, _ in as_they_fit(model, batches, collect):
            bar.update(len(batch.rows))
    if not all(bool(torch.isfinite(values).all()) for values in by_token):
        raise ActivationError(
            f"Neuron L{layer}N{neuron} ({site}) is NaN or Inf at some token. float16 overflows in some "
            "models: load with dtype='bfloat16' or 'float32'."
        )
    return tuple(by_token)
