"""What the hooks gather per batch: pooled values and running sums.

Only pooled values leave the model's device, once per batch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from relation_neurons.activations.pooling import first_positions, pool, pool_paths, pooled_positions
from relation_neurons.errors import HookError
from relation_neurons.inference.batches import Batch
from relation_neurons.inference.prefix_trees import TreeBatch

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
        room: Callable[[tuple[int, int, int]], Tensor] = torch.empty,
    ) -> None:
        self._room = room
        self.values = room((prompts, layers, width))
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
        self.active = self._room((len(self.values), *self.values.shape[1:]))

    def start(self, batch: Batch | TreeBatch) -> None:
        """Prepares the masks of one batch."""
        self.rows = batch.rows
        for seen in (self.pooled, self.sums, self.shares):
            seen.clear()
        self.shared = isinstance(batch, TreeBatch)
        if isinstance(batch, TreeBatch):
            self.paths, self.mask = batch.padded_paths()
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

    def hook(self, value: Float[Tensor, "batch pos d_mlp"], *, layer: int) -> None:
        """Pools one layer."""
        self.pooled[layer] = self._pool(value, self.how)
        flat, here = value.flatten(0, 1), value.device
        rest, first = (flat[at.to(here)].float() for at in (self.rest_at, self.first_at))
        rest_times, first_times = self.rest_times.to(here), self.first_times.to(here)
        self.sums[layer] = torch.stack(
            [rest_times @ rest, rest_times @ rest.abs_(), first_times @ first.abs_()]
        )

    def count(self, value: Float[Tensor, "batch pos d_mlp"], *, layer: int) -> None:
        """Takes the share of active tokens in one layer."""
        how = "include_first" if self.how == "include_first" else "mean"
        self.shares[layer] = self._pool((value > 0).float(), how)

    def finish(self, names: dict[str, int]) -> None:
        """Adds the batch to the table, and makes sure that every layer was seen (pitfall 18)."""
        for name, layer in names.items():
            if layer not in self.pooled or (self.active is not None and layer not in self.shares):
                raise HookError(f"The hook {name} did not fire; its neurons would be missing.")
        values, sums = self._stacked(self.pooled), self._stacked(self.sums).double()
        shares = None if self.active is None else self._stacked(self.shares)
        self.values[self.rows] = values  # nothing is taken in before all of it had room
        self.tokens += int(self.rest_times.sum())
        self.firsts += int(self.first_times.sum())
        for total, part in zip((self.sum, self.sum_abs, self.first_abs), sums, strict=True):
            total += part
        if self.active is not None and shares is not None:
            self.active[self.rows] = shares

    def _stacked(self, seen: dict[int, Tensor]) -> Float[Tensor, "row layer d_mlp"]:
        """All layers on the CPU, in one transfer where the model is on one device."""
        parts = [seen[layer] for layer in range(len(seen))]
        device = parts[0].device
        return torch.stack([part.to(device) for part in parts], dim=1).cpu()

    def _pool(
        self, value: Float[Tensor, "batch pos d_mlp"], how: str
    ) -> Float[Tensor, "prompt d_mlp"]:
        if self.shared:
            keep = self.keep
            if how != self.how:
                keep = pooled_positions(self.mask, how, self.context)
            return pool_paths(value.flatten(0, 1), self.paths, keep, how)
        context = None if self.context is None else self.context.to(value.device)
        return pool(value, self.mask.to(value.device), how, context)


def _times(
    at: Int[Tensor, " token"],
) -> tuple[Int[Tensor, " distinct"], Float[Tensor, " distinct"]]:
    """Each token once, and how many prompts have it."""
    distinct, times = torch.unique(at, return_counts=True)
    return distinct, times.float()
