"""Faults under a run: a full disk, a folder that turns read-only, damaged chunks, Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

import relation_neurons as rn
from helpers.small_options import small, small_arguments
from relation_neurons.cli.app import app
from relation_neurons.errors import ResultsError
from relation_neurons.storage.chunks import Chunks
from relation_neurons.storage.memmap import room_for_table

OPTIONS = small(nonsense=0, judged_draws=1, home_draws=9, blocks=2)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return rn.planted_model(tmp_path_factory.mktemp("planted"), relations=2, seed=0)


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """What an undisturbed run leaves, and how many chunks it makes."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with watched() as made:
        _run(source, out)
    return out, len(made)


def _run(source, out):
    return rn.run(source.model, source.relations, out=out, **OPTIONS)


@contextlib.contextmanager
def watched(after=None, then=None):
    """Notes every chunk of an ablated set that is computed; `then` is called after so many."""
    made, original = [], Chunks.make

    def make(self, place, key, compute):
        def computed():
            table = compute()
            if self.folder.name != "recall":
                made.append(key)
            return table

        table = original(self, place, key, computed)
        if then is not None and len(made) == after:
            then()
        return table

    Chunks.make = make
    try:
        yield made
    finally:
        Chunks.make = original


def _require_same(out, whole):
    for path in whole.rglob("*"):
        if path.is_file() and path.name != ".lock":
            assert (out / path.relative_to(whole)).read_bytes() == path.read_bytes(), path


def _kept(out):
    return sorted(path.name for path in out.glob("parts/*/*.parquet"))


def _goes_on(source, out, whole):
    """What was kept is kept, and the rest is made to the same bytes."""
    path, total = whole
    kept = _kept(out)
    with watched() as made:
        _run(source, out)
    _require_same(out, path)
    assert not (out / "parts").exists()
    return kept, made, total


@contextlib.contextmanager
def small_disk(folder: Path, size: str):
    """A file system of its own, or a skip that says why there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here ({error}); a file-size limit stands in")
    try:
        yield lambda options: subprocess.run(
            ["mount", "-o", f"remount,{options}", str(folder)], check=True
        )
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: Path):
    """Lays a read-only view of a folder over it; what is open already stays as it is."""
    try:
        for options in (["--bind", str(folder)], ["-o", "remount,bind,ro"]):
            subprocess.run(["mount", *options, str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no folder can be made read-only here ({error}); a file-size limit stands in")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def files_of_at_most(size: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_an_error_and_what_was_good_stays(source, whole, tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, "1m") as remount:
        out = disk / "run"
        filler = disk / "filler"

        def fill():
            with contextlib.suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()

        with watched(5, fill), pytest.raises(ResultsError, match=r"cannot be written.*[Nn]o space"):
            _run(source, out)
        assert len(_kept(out)) == 5 and not list(out.rglob(".*.part"))
        remount("size=64m")
        kept, made, total = _goes_on(source, out, whole)
        assert len(made) == total - len(kept)


def test_a_folder_that_turns_read_only_is_an_error_and_goes_on(source, whole, tmp_path):
    out = tmp_path / "run"
    with contextlib.ExitStack() as stack:
        with (
            watched(5, lambda: stack.enter_context(read_only(out))),
            pytest.raises(ResultsError, match=r"cannot be written.*[Rr]ead-only"),
        ):
            _run(source, out)
        with pytest.raises(ResultsError, match=r"cannot be written.*[Rr]ead-only"):
            _run(source, out)
    kept, made, total = _goes_on(source, out, whole)
    assert len(kept) == 5 and len(made) == total - 5


def test_a_limit_on_files_is_an_error_and_goes_on(source, whole, tmp_path):
    """Where nothing can be mounted: the table of all chunks is the first file above the limit."""
    out = tmp_path / "run"
    limit = (whole[0] / "ranking.parquet").stat().st_size - 1
    with (
        files_of_at_most(limit),
        pytest.raises(ResultsError, match=r"cannot be written.*[Ff]ile too large"),
    ):
        _run(source, out)
    assert not list(out.rglob(".*.part"))
    _goes_on(source, out, whole)


def test_activations_that_find_no_room_on_the_disk_are_an_error(tmp_path):
    """Before the first value: a mapped file without room ends the process when it is written."""
    with files_of_at_most(1 << 16), pytest.raises(ResultsError, match=r"no room for 0\.01 GB"):
        room_for_table((100, 2, 10_000), memory=1000, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_damaged_chunks_are_made_again_and_no_other(source, whole, tmp_path):
    out = tmp_path / "run"

    def stop():
        raise KeyboardInterrupt

    with watched(8, stop), pytest.raises(KeyboardInterrupt):
        _run(source, out)
    kept = [out / path for path in sorted(out.glob("parts/*/*.parquet"))]
    data = kept[1].read_bytes()
    kept[0].write_bytes(b"")
    kept[1].write_bytes(data[: len(data) // 2])
    flipped = bytearray(kept[2].read_bytes())
    flipped[len(flipped) // 3] ^= 4
    kept[2].write_bytes(bytes(flipped))
    _, made, total = _goes_on(source, out, whole)
    assert len(kept) == 8 and len(made) == total - 8 + 3


def test_ctrl_c_says_what_it_leaves_and_the_same_command_goes_on(source, tmp_path):
    rn.save_relations(source.relations, tmp_path / "relations.jsonl")
    arguments = ["run", "--model", source.folder, "--relations", tmp_path / "relations.jsonl"]
    arguments += ["--out", tmp_path / "run", "--device", "cpu"]
    arguments += small_arguments(nonsense=0, judged_draws=1)
    arguments = [str(one) for one in arguments]
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a job in the background ignores it
    try:
        with watched(3, lambda: os.kill(os.getpid(), signal.SIGINT)) as first:
            stopped = CliRunner().invoke(app, arguments)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.exit_code == 130
    assert "stopped; the same command continues after the finished parts" in stopped.output
    assert len(first) == 3
    with watched() as made:
        again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0, again.output
    assert not set(first) & set(made)
    assert (tmp_path / "run" / "report.html").exists()


def test_a_file_whose_writer_was_stopped_before_its_checksum_is_noted(source, whole, tmp_path):
    out = shutil.copytree(whole[0], tmp_path / "run")
    for name in ("checksums.json", "report.html"):
        (out / name).unlink()
    _run(source, out)
    _require_same(out, whole[0])
