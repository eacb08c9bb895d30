"""The collector: takes pooled values and running sums out of each layer's hook.

Only pooled values leave the model's device, once per batch.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from relation_neurons.batches import Batch
from relation_neurons.errors import HookError
from relation_neurons.pooling import first_positions, pool, pool_paths, pooled_positions
from relation_neurons.prefixes import TreeBatch

__all__ = ["Collector"]


class Collector:
    """What `collect_activations` collects, layer by layer and batch by batch."""

    def __init__(
        self,
        prompts: int,
        layers: int,
        width: int,
        how: str,
        context: tuple[int, ...],
        is_fact: np.ndarray,
    ) -> None:
        self.values = torch.empty(prompts, layers, width)
        self.sum, self.sum_abs, self.first_abs = (
            torch.zeros(layers, width, dtype=torch.float64) for _ in range(3)
        )
        self.tokens = self.firsts = 0
        self.how = how
        self.contexts = np.asarray(context, dtype=np.int64)
        self.is_fact = is_fact
        self.pooled: dict[int, Tensor] = {}
        self.sums: dict[int, Tensor] = {}
        self.active: Tensor | None = None
        self.shares: dict[int, Tensor] = {}
        self.token_counts = torch.zeros(prompts, dtype=torch.int64)

    def count_active(self) -> None:
        """Makes room for the shares of active tokens."""
        self.active = torch.empty_like(self.values)

    def start(self, batch: Batch | TreeBatch) -> None:
        """Prepares the masks of one batch."""
        self.rows = batch.rows
        for seen in (self.pooled, self.sums, self.shares):
            seen.clear()
        self.shared = isinstance(batch, TreeBatch)
        if isinstance(batch, TreeBatch):
            self.paths, self.mask = batch.paths()
        else:
            self.mask = batch.mask
            count = batch.tokens.numel()
            self.paths = torch.arange(count, device=self.mask.device).view(self.mask.shape)
        self.context = (
            torch.from_numpy(self.contexts[batch.rows]).to(self.mask.device)
            if len(self.contexts)
            else None
        )
        self.keep = pooled_positions(self.mask, self.how, self.context)
        self.token_counts[batch.rows] = self.keep.sum(dim=1).cpu()
        first = first_positions(self.mask)
        fact = torch.from_numpy(self.is_fact[batch.rows]).to(self.mask.device)[:, None]
        self.rest_at, self.rest_times = _times(self.paths[self.mask & ~first & fact])
        self.first_at, self.first_times = _times(self.paths[first & fact])
        self.tokens += int(self.rest_times.sum())
        self.firsts += int(self.first_times.sum())

    def hook(self, value: Float[Tensor, "batch pos d_mlp"], *, layer: int) -> None:
        """Pools one layer."""
        self.pooled[layer] = self._pool(value, self.how)
        flat = value.flatten(0, 1)
        rest, first = flat[self.rest_at].float(), flat[self.first_at].float()
        self.sums[layer] = torch.stack(
            [
                self.rest_times @ rest,
                self.rest_times @ rest.abs_(),
                self.first_times @ first.abs_(),
            ]
        )

    def count(self, value: Float[Tensor, "batch pos d_mlp"], *, layer: int) -> None:
        """Takes the share of active tokens in one layer."""
        how = "include_first" if self.how == "include_first" else "mean"
        self.shares[layer] = self._pool((value > 0).float(), how)

    def finish(self, names: dict[str, int]) -> None:
        """Takes the batch in, and makes sure that every layer was seen (pitfall 18)."""
        for name, layer in names.items():
            if layer not in self.pooled or (self.active is not None and layer not in self.shares):
                raise HookError(f"The hook {name} did not fire; its neurons would be missing.")
        order = range(len(self.pooled))
        self.values[self.rows] = torch.stack([self.pooled[i] for i in order], dim=1).cpu()
        sums = torch.stack([self.sums[i] for i in order], dim=1).cpu().double()
        for total, part in zip((self.sum, self.sum_abs, self.first_abs), sums, strict=True):
            total += part
        if self.active is not None:
            self.active[self.rows] = torch.stack([self.shares[i] for i in order], dim=1).cpu()

    def _pool(
        self, value: Float[Tensor, "batch pos d_mlp"], how: str
    ) -> Float[Tensor, "prompt d_mlp"]:
        if self.shared:
            keep = self.keep
            if how != self.how:
                keep = pooled_positions(self.mask, how, self.context)
            return pool_paths(value.flatten(0, 1), self.paths, keep, how)
        return pool(value, self.mask, how, self.context)


def _times(
    at: Int[Tensor, " token"],
) -> tuple[Int[Tensor, " distinct"], Float[Tensor, " distinct"]]:
    """Each token once, and how many prompts have it."""
    distinct, times = torch.unique(at, return_counts=True)
    return distinct, times.float()
