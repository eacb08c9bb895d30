"""Finished parts of a long table, each saved as soon as it is made, so that a killed run goes on there.

A chunk is a parquet file named after its index in the plan, what it holds, and the checksum of its bytes:
`00012-<key>-<sha256>.parquet`. One rename makes it exist, so a chunk is whole or is not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from relation_neurons.errors import ResultsError
from relation_neurons.storage.files import plain, write_bytes

__all__ = ["Chunks", "chunk_key", "packed", "unpacked"]


@dataclass(frozen=True)
class Chunks:
    """Where the chunks of one stage are kept; nowhere without a folder."""

    folder: Path | None = None

    def make(self, index: int, key: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Makes a chunk and saves it, or reads the one that is saved.

        Args:
            index: of the chunk in the plan.
            key: what `chunk_key` returns of all that decides its content.
            make: called where it is not there, or is damaged.
        """
        if self.folder is None:
            return make()
        found = self.read(index, key)
        if found is not None:
            return found
        data = packed(make())
        digest = hashlib.sha256(data).hexdigest()
        write_bytes(self.folder / f"{_stem(index, key)}-{digest}.parquet", data)
        return unpacked(data)  # as it is read back, so that a resumed run has the same bytes

    def read(self, index: int, key: str) -> pd.DataFrame | None:
        """Reads a chunk, if it is there and whole; a damaged one is deleted."""
        if self.folder is None:
            return None
        for path in sorted(self.folder.glob(f"{_stem(index, key)}-*.parquet")):
            try:
                data = path.read_bytes()
            except OSError as error:
                raise ResultsError(f"{path} cannot be read: {error.strerror or error}.") from error
            if hashlib.sha256(data).hexdigest() == path.stem.rsplit("-", 1)[1]:
                return unpacked(data)
            path.unlink()
        return None

    def count(self) -> int:
        """How many chunks are there."""
        return 0 if self.folder is None else len(list(self.folder.glob("*.parquet")))

    def drop(self) -> None:
        """Removes the chunks, once the table that was made of them is whole."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in [*self.folder.glob("*.parquet"), *self.folder.glob(".*.part")]:
            path.unlink(missing_ok=True)
        for folder in (self.folder, self.folder.parent):
            with contextlib.suppress(OSError):  # holds something else
                folder.rmdir()


def chunk_key(*what: Any) -> str:
    """Returns 16 hexadecimal digits of a hash of all that decides a chunk's content.

    >>> chunk_key("country_capital", 92) == chunk_key("country_capital", 92)
    True
    """
    text = json.dumps(plain(list(what)), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _stem(index: int, key: str) -> str:
    return f"{index:05d}-{key}"


def packed(table: pd.DataFrame) -> bytes:
    """Returns a table as the bytes of a parquet file."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def unpacked(data: bytes) -> pd.DataFrame:
    """Reads what `packed` returned."""
    return pd.read_parquet(io.BytesIO(data))
