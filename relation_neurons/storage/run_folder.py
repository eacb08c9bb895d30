"""Lock, manifest identity and checksums of one results folder.

Every file is written under a temporary name, flushed, and renamed. Its checksum is in
`checksums.json`, so that a byte that changes later is noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from relation_neurons.errors import ResultsError
from relation_neurons.storage.files import dumps, plain, read_json, write_text

__all__ = [
    "CHECKSUMS",
    "check_file",
    "checksum",
    "first_difference",
    "locked",
    "move_aside",
    "open_run_folder",
    "read_checksums",
    "record",
    "record_if_missing",
    "require_folder",
]

CHECKSUMS = "checksums.json"
_LOCK, _OWNER = ".lock", ".owner"


def require_folder(folder: Path) -> None:
    """Refuses a path that cannot be a results folder, before anything is computed.

    Raises:
        ResultsError: it, or a folder above it, is a file.
    """
    for path in (folder, *folder.parents):
        if path.exists():
            if not path.is_dir():
                raise ResultsError(f"{path} is a file; expected a folder for the results.")
            return


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing a folder while the context is open.

    The lock is the operating system's: it ends with the process that holds it, however that ends.

    Raises:
        ResultsError: another process that is alive writes the folder, or it cannot be written.
    """
    require_folder(folder)
    lock = FileLock(folder / _LOCK)
    owner = folder / _OWNER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        who = owner.read_text(encoding="utf-8") if owner.exists() else "another process"
        raise ResultsError(
            f"{folder} is being written by {who}. Wait for it to end, or give another --out."
        ) from error
    except OSError as error:
        raise ResultsError(
            f"{folder} cannot be written: {error.strerror or error}. Give another --out."
        ) from error
    try:
        with contextlib.suppress(OSError):  # it only serves the message above
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


def open_run_folder(folder: Path, manifest: dict[str, Any]) -> None:
    """Starts a results folder, or finds that it already belongs to this run (pitfall 19).

    Raises:
        ResultsError: it holds another run (the first difference is named) or other files.
    """
    require_folder(folder)
    path = folder / "manifest.json"
    for left in folder.glob(".*.part"):  # of a writer that was killed
        left.unlink(missing_ok=True)
    text = dumps(manifest)
    if path.exists() and _was(path, text):
        return
    if path.exists():
        difference = first_difference(read_json(path), plain(manifest))
        if difference:
            raise ResultsError(
                f"{folder} holds another run: {difference}. Give another --out, or --force-new, which "
                "moves that folder aside."
            )
        record_if_missing(folder, path)
        return
    if folder.is_dir() and any(one.name not in (_LOCK, _OWNER) for one in folder.iterdir()):
        raise ResultsError(
            f"{folder} is not empty and holds no manifest.json; give an empty folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    record(folder, path)


def _was(path: Path, text: str) -> bool:
    """Restores a manifest that was damaged, if its checksum says that it held this very text."""
    expected = read_checksums(path.parent).get(path.name)
    same = expected == hashlib.sha256(text.encode()).hexdigest()
    if same and checksum(path) != expected:
        write_text(path, text)
    return same


def move_aside(folder: Path) -> Path | None:
    """Renames a results folder to the first free name after it; nothing is deleted.

    Returns:
        Where it is now, or None where there was nothing to move.

    Raises:
        ResultsError: another process writes it, or it cannot be renamed.
    """
    require_folder(folder)
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    with locked(folder):
        pass
    folder = folder.resolve()  # `.` has no name to put a number behind
    names = (folder.with_name(f"{folder.name}.old-{number}") for number in range(1, 10_000))
    target = next(name for name in names if not name.exists())
    try:
        return folder.rename(target)
    except OSError as error:
        raise ResultsError(f"{folder} cannot be moved aside: {error.strerror or error}.") from error


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        ResultsError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_checksums(folder: Path) -> dict[str, str]:
    """The checksums written so far, by file name below the folder."""
    path = folder / CHECKSUMS
    return {str(k): str(v) for k, v in read_json(path).items()} if path.exists() else {}


def record(folder: Path, *paths: Path) -> None:
    """Notes the checksums of files that were just written."""
    known = read_checksums(folder)
    known |= {path.relative_to(folder).as_posix(): checksum(path) for path in paths}
    write_text(folder / CHECKSUMS, dumps(known))


def record_if_missing(folder: Path, path: Path) -> None:
    """Notes the checksum of a file whose writer was stopped before it could: what exists is whole."""
    if path.relative_to(folder).as_posix() not in read_checksums(folder):
        record(folder, path)


def check_file(folder: Path, path: Path) -> None:
    """Compares a file with its checksum, where there is one.

    Raises:
        ResultsError: they differ.
    """
    expected = read_checksums(folder).get(path.relative_to(folder).as_posix())
    if expected is not None and path.exists() and checksum(path) != expected:
        raise ResultsError(
            f"{path} is damaged: its checksum is not the one in {CHECKSUMS}. Delete it, then run the "
            "same command again; what does not depend on it is kept."
        )


def first_difference(there: Any, here: Any, where: str = "") -> str:
    """Names the first key in which two manifests differ; empty where they do not.

    Versions come first: with another TransformerLens the weights have other names, and so another hash.
    """
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}, key=lambda key: (key != "versions", key)):
            found = first_difference(
                there.get(key), here.get(key), f"{where}.{key}" if where else key
            )
            if found:
                return found
        return ""
    return "" if there == here else f"{where} is {there!r} there and {here!r} here"
