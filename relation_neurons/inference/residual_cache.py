"""The intact model's residual streams, kept so that ablated passes can start from them.

Up to the MLP of its lowest ablated layer an ablated model does what the intact one did. So a sweep keeps
the intact stream there, in bounded memory, and runs only the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from relation_neurons.backends.base import HookedModel
from relation_neurons.inference.batches import Batch
from relation_neurons.inference.forward import tree_residual
from relation_neurons.inference.prefix_trees import TreeBatch

__all__ = ["IntactStreams", "run_from"]

STREAM_BYTES = 1 << 30
"""What the kept streams may take on the model's device."""
_ATTENTION = 1 / 3
"""What attention costs of a layer."""


class IntactStreams:
    """The stream that enters the MLP of chosen layers, for every batch of a plan.

    Args:
        model: whose stream it is.
        batches: those of the plan; streams of padded rows are not kept.
        first_layers: for each coming ablation, the first layer that it changes. Where they do not
            all fit, those are kept that save most.
        limit: bytes.
    """

    def __init__(
        self,
        model: HookedModel,
        batches: Sequence[Batch | TreeBatch],
        first_layers: Iterable[int],
        *,
        limit: int = STREAM_BYTES,
    ) -> None:
        trees = [batch for batch in batches if isinstance(batch, TreeBatch)]
        size = torch.empty(0, dtype=model.cfg.dtype).element_size() * model.cfg.d_model
        each = size * sum(batch.tokens.numel() for batch in trees)
        wanted = Counter(first_layers)
        saved = sorted(wanted, key=lambda layer: (-(layer + _ATTENTION) * wanted[layer], -layer))
        self.layers = frozenset(saved[: limit // each] if each else ())
        self._kept: WeakKeyDictionary[TreeBatch, dict[int, Tensor]] = WeakKeyDictionary()
        self._open = True

    def keep(self, batch: TreeBatch, kept: dict[int, Float[Tensor, "batch pos d_model"]]) -> None:
        """Keeps the streams of one batch of the intact pass."""
        if self._open:
            self._kept[batch] = kept

    def close(self) -> None:
        """Ends the intact pass: a batch that is not kept by now is run from its tokens."""
        self._open = False

    def drop(self) -> bool:
        """Forgets everything, to free memory; returns whether there was anything."""
        there, self.layers = bool(self._kept), frozenset()
        self._kept.clear()
        return there

    def holds(self, batch: TreeBatch) -> bool:
        """Whether the intact streams of this batch are kept."""
        return batch in self._kept

    def wanted(self) -> frozenset[int]:
        """The layers whose streams the current pass stores."""
        return self.layers if self._open else frozenset()

    def start(self, layer: int) -> int | None:
        """The highest layer to start in for an ablation that begins at `layer`, if there is one."""
        return max((at for at in self.layers if at <= layer), default=None)

    def at(self, batch: TreeBatch, layer: int) -> Float[Tensor, "batch pos d_model"]:
        """The stream that enters a layer's MLP."""
        return self._kept[batch][layer]


def run_from(
    model: HookedModel,
    batch: TreeBatch,
    streams: IntactStreams | None,
    first_layer: int,
    read: Int[Tensor, " read"],
) -> Float[Tensor, "read d_model"]:
    """Returns the final residual stream at some positions, starting in the highest layer that is kept."""
    if streams is not None and not streams.holds(batch):
        residual, kept = tree_residual(model, batch, keep=streams.wanted(), read=read)
        streams.keep(batch, kept)
        return residual[0]
    start = None if streams is None else streams.start(first_layer)
    if streams is None or start is None:
        return tree_residual(model, batch, read=read)[0][0]
    stream = streams.at(batch, start)
    return tree_residual(model, batch, start=start, residual=stream, read=read)[0][0]
