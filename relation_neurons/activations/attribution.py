"""`collect_attribution`: how much each neuron raises the log-probability of an answer, to first order.

    attribution = mean over the prompt's tokens t of  a_t * d log p(answer | prompt) / d a_t

where a_t is the neuron's activation at t. Summed instead of averaged, it is what ablation would take
away if the model were linear; it costs one backward pass instead of one ablation per neuron. The tokens
are those that activations are pooled over: not the first position, not demonstrations, not the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relation_neurons.activations.pooling import POOLS
from relation_neurons.activations.pooling import pool as pool_tokens
from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.neuron_sites import site_hook, site_width
from relation_neurons.errors import (
    ActivationError,
    AnswerError,
    HookError,
    UnknownOptionError,
    near_matches,
)
from relation_neurons.inference.batches import Batch, make_batches
from relation_neurons.inference.forward import final_residual, unembed
from relation_neurons.inference.out_of_memory import run_halving
from relation_neurons.inference.recall import BATCH_SIZE, answer_prompts, plan_passes
from relation_neurons.progress import progress_bar
from relation_neurons.relations.prompts import Prompts

__all__ = ["collect_attribution"]


@torch.inference_mode(False)
def collect_attribution(
    model: HookedModel,
    prompts: Prompts,
    *,
    pool: str = "mean",
    site: str = "post",
    batch_size: int = BATCH_SIZE,
) -> Float[Tensor, "prompt layer d_mlp"]:
    """Runs prompts with their answers forwards and backwards and pools gradient x activation.

    No parameter gets a gradient. Of several accepted answers, the one with the best margin is taken, as
    in `measure_recall`. Gradients of a float16 model may underflow to 0; float32 is safe.

    Args:
        model: what `load_model` returns.
        prompts: those of an activation table, in the same order.
        pool: as for the table; one of `POOLS`.
        site: as for the table.
        batch_size: prompts a pass.

    Returns:
        float32, in nats per token; NaN for a prompt without an answer (neutral, nonsense).

    Raises:
        AnswerError: no prompt has an answer.
        ActivationError: NaN or Inf; the first neuron is named.
        HookError: a layer whose hook did not fire.
        OutOfMemoryError: one prompt alone does not fit.
    """
    if pool not in POOLS:
        raise UnknownOptionError(f"No pooling {pool!r}. {near_matches(pool, POOLS)}")
    layers, width = model.cfg.n_layers, site_width(model, site)
    names = [site_hook(model, site, layer) for layer in range(layers)]
    result = torch.full((len(prompts), layers, width), torch.nan)
    asked = np.flatnonzero([len(answers) > 0 for answers in prompts.answers])
    if asked.size == 0:
        raise AnswerError("None of the prompts has an answer; expected those of facts.")
    answers = _best_answers(model, prompts, batch_size)
    batches = [
        *make_batches(
            [prompts.tokens[row] + answers[row][:-1] for row in asked],
            batch_size=batch_size,
            pad_id=prompts.pad_id,
            device=next(model.parameters()).device,
        )
    ]

    def collect(batch: Batch) -> None:
        rows = asked[batch.rows]
        tracked = _run_backwards(model, batch, [answers[row] for row in rows], names)
        index, mask = _right_aligned(batch, [len(answers[row]) - 1 for row in rows])
        context = (
            torch.tensor([prompts.context[row] for row in rows], device=mask.device)
            if prompts.context
            else None
        )
        for layer, product in enumerate(tracked):
            own = product.to(index.device)
            aligned = own.gather(1, index[..., None].expand_as(own))
            result[rows, layer] = pool_tokens(aligned, mask, pool, context).cpu()

    with progress_bar(len(asked), "attribution") as bar:
        for batch, _ in run_halving(model, batches, collect):
            bar.update(len(batch.rows))
    return _finite(result, asked, site)


@dataclass
class _Tracked:
    """The values at each layer's site, as parts of one pass that gradients flow through."""

    values: dict[int, Tensor] = field(default_factory=dict)

    def hook(self, value: Tensor, hook: Any, *, layer: int) -> Tensor:
        """Starts the gradient at the first layer; later ones are on its path already."""
        self.values[layer] = value if value.requires_grad else value.detach().requires_grad_(True)
        return self.values[layer]


def _run_backwards(
    model: HookedModel, batch: Batch, answers: list[tuple[int, ...]], names: list[str]
) -> list[Float[Tensor, "batch pos d_mlp"]]:
    """Returns activation x gradient of the answers' log-probability at each layer, one pass for all rows.

    The rows of a batch do not touch one another, so the gradient of the sum is each row's own.
    """
    width = batch.tokens.shape[1]
    where = [(i, width - len(a) + k) for i, a in enumerate(answers) for k in range(len(a))]
    target = torch.tensor([token for a in answers for token in a])
    tracked = _Tracked()
    hooks: Any = [(name, partial(tracked.hook, layer=layer)) for layer, name in enumerate(names)]
    with torch.enable_grad():
        with model.hooks(fwd_hooks=hooks):
            residual = final_residual(model, batch.tokens, batch.mask)
        for layer, name in enumerate(names):
            if layer not in tracked.values:
                raise HookError(f"The hook {name} did not fire; its neurons would be missing.")
        at = torch.tensor(where, device=residual.device)
        logits = unembed(model, residual[at[:, 0], at[:, 1]])
        logprob = logits.log_softmax(dim=1).gather(1, target.to(logits.device)[:, None]).sum()
        values = [tracked.values[layer] for layer in range(len(names))]
        gradients = torch.autograd.grad(logprob, values)
    return [
        value.detach().float() * gradient.float()
        for value, gradient in zip(values, gradients, strict=True)
    ]


def _right_aligned(
    batch: Batch, fed: list[int]
) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """Moves each prompt to the right end of its row, its answer out of the mask.

    Args:
        batch: prompts with their answers.
        fed: how many answer tokens stand at the end of each row.

    Returns:
        For each position the one that its value comes from, and the mask of prompts.
    """
    width = batch.mask.shape[1]
    position = torch.arange(width, device=batch.mask.device)
    behind = torch.tensor(fed, device=batch.mask.device)[:, None]
    index = (position - behind) % width
    prompt = batch.mask & (position < width - behind)
    return index, prompt.gather(1, index)


def _best_answers(model: HookedModel, prompts: Prompts, batch_size: int) -> list[tuple[int, ...]]:
    """Of each prompt's accepted answers, the one with the best margin."""
    best = [answers[0] if answers else () for answers in prompts.answers]
    pairs = [
        (row, answer)
        for row, answers in enumerate(prompts.answers)
        if len(answers) > 1
        for answer in answers
    ]
    if not pairs:
        return best
    rows = [row for row, _ in pairs]
    alone = replace(
        prompts,
        frame=prompts.frame.iloc[rows].reset_index(drop=True),
        tokens=tuple(prompts.tokens[row] for row in rows),
        answers=tuple((answer,) for _, answer in pairs),
        context=(),
    )
    margins = answer_prompts(model, plan_passes(alone), batch_size=batch_size).margin
    found: dict[int, float] = {}
    for (row, answer), margin in zip(pairs, margins, strict=True):
        if margin > found.get(row, -np.inf):
            found[row], best[row] = margin, answer
    return best


def _finite(
    values: Float[Tensor, "prompt layer d_mlp"], asked: np.ndarray, site: str
) -> Float[Tensor, "prompt layer d_mlp"]:
    bad = ~torch.isfinite(values[asked])
    if bad.any():
        row, layer, neuron = (int(i) for i in bad.nonzero()[0])
        raise ActivationError(
            f"The attribution of L{layer}N{neuron} ({site}) is NaN or Inf on prompt row {asked[row]}. "
            "float16 overflows in some models: load with dtype='float32'."
        )
    return values
