"""Activation tables larger than the memory budget, in a memory-mapped file.

The file is safetensors, float32 like the table in memory, so that nothing downstream differs. It has
its full size before the first value is written, so a full disk is an error and not a crash.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from pydantic import ByteSize, TypeAdapter, ValidationError
from torch import Tensor

from relation_neurons.errors import ResultsError, UnknownOptionError
from relation_neurons.formatting import gigabytes

__all__ = ["mapped_table", "parse_size", "room_for_table"]

_NAME = "activations"


def parse_size(text: str | int | None) -> int | None:
    """Reads a size in bytes: a number, or a text such as `2GB` or `512MiB`; None stays None.

    Raises:
        UnknownOptionError: not a size, or not above 0.

    >>> parse_size("2GB"), parse_size("1.5 GiB")
    (2000000000, 1610612736)
    """
    if text is None:
        return None
    try:
        size = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError as error:
        raise UnknownOptionError(
            f"memory is {text!r}; expected a size such as 2GB or 512MiB."
        ) from error
    if size < 1:
        raise UnknownOptionError(f"memory is {text!r}; expected a size above 0.")
    return size


def room_for_table(
    shape: tuple[int, int, int], *, memory: int | None = None, folder: Path | None = None
) -> Float[Tensor, "prompt layer d_mlp"]:
    """Makes room for a table: in memory, or past `memory` in a file that is deleted with the table.

    Args:
        shape: prompts, layers, neurons a layer.
        memory: bytes that the table may take in memory; None for any number.
        folder: of the file; the system's folder for temporary files by default.

    Raises:
        ResultsError: the disk has no room for the file.
    """
    if memory is None or 4 * math.prod(shape) <= memory:
        return torch.empty(shape)
    parent = Path(tempfile.gettempdir()) if folder is None else folder
    path = parent / f".{_NAME}.{os.getpid()}-{os.urandom(4).hex()}.part"
    table = mapped_table(path, shape)
    with contextlib.suppress(PermissionError):  # Windows: in use; cleared by the next run
        path.unlink()  # the mapping holds it until the table goes, however the process ends
    return table


def mapped_table(path: Path, shape: tuple[int, int, int]) -> Float[Tensor, "prompt layer d_mlp"]:
    """Creates a safetensors file of one float32 tensor, zeros, and maps it for writing.

    Raises:
        ResultsError: it cannot be created, or the disk has no room for it.
    """
    size = 4 * math.prod(shape)
    entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}
    head = json.dumps({_NAME: entry}).encode()
    head += b" " * (-len(head) % 8)
    start = 8 + len(head)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            _reserve(file.fileno(), start, size)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise ResultsError(
            f"{path.parent} has no room for {gigabytes(size)} of activations: "
            f"{error.strerror or error}. Free some, give more --memory, or fewer facts."
        ) from error
    values = np.memmap(path, dtype="<f4", mode="r+", offset=start, shape=shape)
    return torch.from_numpy(values)


def _reserve(handle: int, start: int, size: int) -> None:
    """Takes the room on the disk now: a mapped file that finds none later ends the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, start, size)
        return
    zeros = bytes(1 << 20)
    for at in range(0, size, len(zeros)):
        os.write(handle, zeros[: size - at])
