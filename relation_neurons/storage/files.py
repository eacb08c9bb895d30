"""Atomic writes and readable read errors for the files of a results folder, and the cache folder.

No file is a pickle.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import platformdirs

from relation_neurons.errors import ResultsError

__all__ = [
    "cache_folder",
    "dumps",
    "plain",
    "read_json",
    "read_table",
    "share",
    "write_bytes",
    "write_json",
    "write_table",
    "write_text",
]


def cache_folder() -> Path:
    """The user's cache folder, or what `RELATION_NEURONS_CACHE` says."""
    override = os.environ.get("RELATION_NEURONS_CACHE")
    return Path(override) if override else Path(platformdirs.user_cache_dir("relation_neurons"))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Writes a parquet file whole or not at all."""
    _whole(path, lambda temporary: table.to_parquet(temporary, index=False, compression="zstd"))


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    _whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a binary file whole or not at all."""
    _whole(path, lambda temporary: temporary.write_bytes(data))


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Writes a JSON file whole or not at all."""
    write_text(path, dumps(data))


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object of a results folder.

    Raises:
        ResultsError: it is missing or cut off.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        needed = {"options", "model"} if path.name == "manifest.json" else set()
        if not isinstance(data, dict) or not needed <= set(data):
            raise ResultsError(
                f"{path} is not the manifest of a run; expected options and model in it."
            )
        return data
    except FileNotFoundError as error:
        raise ResultsError(
            f"{path.parent} has no {path.name}; expected a folder that `relation-neurons run` left behind."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        manifest = path.name in ("manifest.json", "comparison.json")
        mend = "Run with --force-new" if manifest else "Delete it, then run again"
        raise ResultsError(f"{path} is not whole JSON: {error}. {mend}.") from error
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}.") from error


def read_table(path: Path) -> pd.DataFrame:
    """Reads a table of a results folder.

    Raises:
        ResultsError: it is missing or damaged.
    """
    if not path.exists():
        raise ResultsError(
            f"{path.parent} has no {path.name}: the run is not finished. Run the same command again; "
            "it goes on after the files that are there."
        )
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} is damaged: {error}. Delete it, then run again.") from error


def share(path: Path) -> None:
    """Sets a file's permissions to the user's umask; `tempfile` and others close files to everyone else."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def _whole(path: Path, write: Callable[[Path], Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise ResultsError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Has the system write a file, or a folder's entries, to the disk."""
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def dumps(data: dict[str, Any]) -> str:
    """Returns an object as the JSON text that is written: keys sorted, NaN as null."""
    return (
        json.dumps(plain(data), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        + "\n"
    )


def plain(value: Any) -> Any:
    """Turns numpy scalars and tuples into JSON's types, and NaN into null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
