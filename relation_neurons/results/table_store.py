"""The tables of a run in progress: each is written whole, or read where it is already there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from relation_neurons.storage.chunks import Chunks
from relation_neurons.storage.files import read_json, read_table, write_json, write_table
from relation_neurons.storage.run_folder import check_file, record, record_if_missing

__all__ = ["TableStore"]


def _silent(line: str) -> None:
    """Says nothing."""


@dataclass(frozen=True)
class TableStore:
    """The results folder of a run in progress, or none."""

    folder: Path | None = None
    log: Callable[[str], None] = _silent
    """Called with a line for each finished stage."""
    memory: str | int | None = None
    """What the activation table may take in memory; not part of what identifies a run, so not in the manifest."""

    @property
    def is_logging(self) -> bool:
        """Whether anything reads the log."""
        return self.log is not _silent

    def path(self, name: str) -> Path | None:
        """Returns where a table is kept."""
        return self.folder / f"{name}.parquet" if self.folder else None

    def has(self, *names: str) -> bool:
        """Says whether every one of these tables is there."""
        paths = [self.path(name) for name in names]
        return all(path is not None and path.exists() for path in paths)

    def read(self, name: str, reader: Callable[[Path], Any] = read_table) -> Any:
        """Reads a table that is there."""
        path = self.path(name)
        assert path is not None and self.folder is not None
        check_file(self.folder, path)
        record_if_missing(self.folder, path)
        return reader(path)

    def read_or_empty(self, name: str) -> pd.DataFrame:
        """Reads a table, or returns one without rows where it is not there."""
        return self.read(name) if self.has(name) else pd.DataFrame()

    def write(
        self, name: str, made: Any, writer: Callable[[Path, Any], None] = write_table
    ) -> None:
        """Writes a table, where there is a folder."""
        path = self.path(name)
        if path is not None and self.folder is not None:
            writer(path, made)
            record(self.folder, path)

    def chunks(self, name: str) -> Chunks:
        """Returns where the parts of a table are kept until it is complete."""
        return Chunks(self.folder / "parts" / name if self.folder else None)

    def get_or_make(
        self,
        name: str,
        make: Callable[[], Any],
        writer: Callable[[Path, Any], None] = write_table,
        reader: Callable[[Path], Any] = read_table,
    ) -> Any:
        """Makes a table and keeps it, or reads the one that is there."""
        if self.has(name):
            self.log(f"{name}: read from {self.folder}")
            found = self.read(name, reader)
            self.chunks(name).drop()  # of a run that was killed between its table and this
            return found
        started = time.monotonic()
        there = self.chunks(name).count()
        if there:
            self.log(f"{name}: going on after {there:,} finished parts")
        made = make()
        self.write(name, made, writer)
        self.chunks(name).drop()
        self.done(name, started)
        return made

    def note_engine(self, description: dict[str, Any] | None) -> None:
        """Notes where tables were computed in `engines.json`, which is not part of what identifies a run."""
        if self.folder is None or description is None:
            return
        path = self.folder / "engines.json"
        noted = read_json(path)["engines"] if path.exists() else []
        if description not in noted:
            write_json(path, {"engines": [*noted, description]})

    def done(self, name: str, started: float) -> None:
        """Logs how long a stage took."""
        self.log(f"{name}: {time.monotonic() - started:.0f} s")
