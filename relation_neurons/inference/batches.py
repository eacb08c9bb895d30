"""Left-padded batches of sequences, sorted by length, with their mask.

The mask always travels with the tokens: nothing downstream infers it from the padding token
(pitfall 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

__all__ = ["Batch", "left_padded", "make_batches"]


@dataclass(frozen=True)
class Batch:
    """Left-padded sequences of like length."""

    rows: Int[np.ndarray, " batch"]
    """Where each sequence stands in the list that was batched."""
    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    """True where a token is real."""

    @property
    def lengths(self) -> Int[Tensor, " batch"]:
        """Real tokens per row."""
        return self.mask.sum(dim=1)

    def paths(self) -> list[range]:
        """Where each sequence's tokens stand in the flattened batch."""
        width = self.tokens.shape[1]
        ends = range(width, width * len(self.rows) + 1, width)
        return [
            range(end - length, end)
            for end, length in zip(ends, self.lengths.tolist(), strict=True)
        ]

    @property
    def half_batch_size(self) -> int:
        """The batch size with which no batch has more rows than its halves."""
        return (len(self.rows) + 1) // 2

    def halves(self) -> tuple[Batch, Batch] | None:
        """Returns both halves, without the padding that they do not need; None for one row."""
        if len(self.rows) < 2:
            return None
        middle = len(self.rows) // 2
        return self._part(slice(middle)), self._part(slice(middle, None))

    def _part(self, rows: slice) -> Batch:
        start = self.tokens.shape[1] - int(self.mask[rows].sum(dim=1).max())
        return Batch(self.rows[rows], self.tokens[rows, start:], self.mask[rows, start:])


def make_batches(
    sequences: Sequence[Sequence[int]], *, batch_size: int, pad_id: int, device: Any = "cpu"
) -> Iterator[Batch]:
    """Yields left-padded batches, longest first (an out-of-memory shows at once).

    Rows of equal length keep their order, so the plan is the same every time.
    """
    order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        tokens, mask = left_padded([sequences[row] for row in rows], pad_id)
        yield Batch(
            np.asarray(rows), torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device)
        )


def left_padded(
    rows: Sequence[Sequence[int]], filling: int
) -> tuple[Int[np.ndarray, "row longest"], Bool[np.ndarray, "row longest"]]:
    """Puts rows of different lengths into one table, their ends aligned, with a mask of what is real.

    >>> table, mask = left_padded([[5, 6], [7]], 0)
    >>> table.tolist(), mask.tolist()
    ([[5, 6], [0, 7]], [[True, True], [False, True]])
    """
    longest = max(map(len, rows))
    table = np.full((len(rows), longest), filling, dtype=np.int64)
    mask = np.zeros(table.shape, dtype=bool)
    for i, row in enumerate(rows):
        table[i, longest - len(row) :] = row
        mask[i, longest - len(row) :] = True
    return table, mask
