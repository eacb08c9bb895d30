"""Closed doors: no pickle, no foreign code, no network unasked, names that are data, secrets, umask."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

import relation_neurons as rn
from helpers import tiny
from helpers.paths import PROGRAMS
from relation_neurons.backends.installed import BACKEND
from relation_neurons.errors import ModelLoadError, RelationNeuronsError, ResultsError, redacted
from relation_neurons.models.checkpoints import local_checkpoint
from relation_neurons.models.registry import known_models
from relation_neurons.relations.saving import save_relations
from relation_neurons.scoring.jit import own_folder
from relation_neurons.storage.files import read_table

PACKAGE = Path(rn.__file__).parent
SCRIPT = PROGRAMS / "watched_run.py"
NAMES = ("x/../../outside", "a/b\\c", "<script>alert(1)</script> {{ 7 * 7 }}")
TOKEN = "hf_" + "Zx9" * 8
SECRET = "s3cret-" + "value" * 3
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
READERS = {("torch", "load"), ("torch", "save"), ("pd", "read_pickle"), ("np", "save")}


def _sources():
    return [(path, ast.parse(path.read_text())) for path in sorted(PACKAGE.rglob("*.py"))]


def test_no_source_of_the_package_knows_a_pickle_or_lets_foreign_code_run():
    seen = 0
    for path, tree in _sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [one.name for one in node.names] + [getattr(node, "module", None) or ""]
                assert not {name.split(".")[0] for name in names} & PICKLES, path
            if isinstance(node, ast.Attribute):
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                assert (owner, node.attr) not in READERS, (path, node.lineno)
                assert node.attr not in ("to_pickle", "read_pickle"), (path, node.lineno)
            if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code"):
                seen += 1
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "trust_remote_code":
                        assert isinstance(value, ast.Constant) and value.value is False, path
    assert seen >= 3


class _Poison:
    """Makes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_poisoned_checkpoint_is_refused_and_does_not_act(tiny_folder, tmp_path):
    folder, mark = shutil.copytree(tiny_folder, tmp_path / "model"), tmp_path / "acted"
    state = AutoModelForCausalLM.from_pretrained(tiny_folder).state_dict()
    torch.save({**state, "poison": _Poison(mark)}, folder / "pytorch_model.bin")
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert mark.exists()  # it is poison
    mark.unlink()
    rn.load_model(folder, device="cpu")  # the safetensors beside it are what is read
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"as a pickle \(pytorch_model\.bin\).*safetensors"):
        rn.load_model(folder, device="cpu")
    assert not mark.exists()


def test_a_poisoned_table_does_not_act(tmp_path):
    """A bare pickle, and one in parquet's metadata, where old Arrow would look for a type."""
    mark, path = tmp_path / "acted", tmp_path / "effects.parquet"
    payload = pickle.dumps(_Poison(mark))
    path.write_bytes(payload)
    with pytest.raises(ResultsError, match="damaged"):
        read_table(path)
    extension = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": payload,
    }
    table = pa.table(
        [pa.array([1])], schema=pa.schema([pa.field("x", pa.int64(), True, extension)])
    )
    pyarrow.parquet.write_table(table, path)
    assert read_table(path)["x"].tolist() == [1]
    assert not mark.exists()


def test_models_that_would_open_a_door_are_refused_before_anything_is_fetched(monkeypatch):
    def fetch(*args, **kwargs):
        raise AssertionError("fetched")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", fetch)
    with pytest.raises(ModelLoadError, match="a pickle"):
        rn.load_model("solu-1l", device="cpu")
    assert "solu-1l" not in known_models() and "meta-llama/Llama-2-7b-hf" in known_models()


@pytest.mark.skipif(not BACKEND.needs_code(), reason="this TransformerLens asks for no code")
def test_a_model_that_transformer_lens_would_load_with_foreign_code_is_refused(monkeypatch):
    """Families that transformers reads by itself need none, so `Qwen/Qwen3-0.6B` is not refused."""
    reads: dict[str, object] = {"config": PretrainedConfig(architectures=["SomethingElse"])}
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: reads["config"])
    with pytest.raises(ModelLoadError, match="trust_remote_code"):
        rn.load_model("microsoft/phi-2", device="cpu")
    reads["config"] = PretrainedConfig(architectures=["PhiForCausalLM"])

    def read(name, dtype):
        raise ModelLoadError(f"transformers reads {name}")

    monkeypatch.setattr("relation_neurons.models.checkpoints.read_checkpoint", read)
    with pytest.raises(ModelLoadError, match="transformers reads microsoft/phi-2"):
        rn.load_model("microsoft/phi-2", device="cpu")


@pytest.fixture(scope="module")
def watched(tiny_folder, relations, tmp_path_factory):
    """A run with hostile names, under watch."""
    top = tmp_path_factory.mktemp("watched")
    hostile = [replace(one, name=name) for one, name in zip(relations, NAMES, strict=True)]
    save_relations(hostile, top / "relations.jsonl")
    arguments = ["run", "--model", str(tiny_folder), "--relations", str(top / "relations.jsonl")]
    arguments += ["--out", str(top / "out" / "run"), "--held-out", "0.4", "--min-known", "5"]
    arguments += ["--doses", "2,4", "--draws", "1", "--judged-draws", "1", "--checks", ""]
    arguments += ["--blocks", "0", "--permutations", "0", "--repeats", "0", "--nonsense", "6"]
    arguments += ["--device", "cpu", "--memory", "1KB"]
    before = set(top.rglob("*"))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(top / "found.json"), *arguments],
        env={**os.environ, "HF_TOKEN": TOKEN, "MY_API_KEY": SECRET, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert (top / "out" / "run" / "report.html").exists(), done.stdout + done.stderr
    made = set(top.rglob("*")) - before
    return {**json.loads((top / "found.json").read_text()), "made": made, "top": top, "done": done}


def test_a_run_unpickles_nothing_but_what_numba_compiled_for_this_user(watched):
    for files in watched["pickled"]:
        assert any(Path(name).parts[-3:-1] == ("numba", "core") for name in files), files


def test_a_run_from_a_folder_reaches_for_no_network(watched):
    assert watched["reached"] == []


def test_names_choose_no_folder(watched):
    names = {path.relative_to(watched["top"]).parts[0] for path in watched["made"]}
    assert names == {"out", "found.json"}
    assert [path.name for path in (watched["top"] / "out").iterdir()] == ["run"]
    effects = pd.read_parquet(watched["top"] / "out" / "run" / "effects.parquet")
    assert set(effects["ablated"]) == set(NAMES)
    page = (watched["top"] / "out" / "run" / "report.html").read_text()
    assert "<script>alert(1)" not in page and "{{ 7 * 7 }}" in page


def test_files_carry_the_umask(watched):
    for path in watched["made"] - {watched["top"] / "found.json"}:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o750 if path.is_dir() else 0o640), (path, oct(mode))


def test_converted_checkpoints_carry_the_umask(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RELATION_NEURONS_CACHE", str(tmp_path / "cache"))
    path = tiny.write_gguf(tiny_folder, tmp_path / "tiny.gguf")
    before = os.umask(0o027)
    try:
        local_checkpoint(path)
    finally:
        os.umask(before)
    made = [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]
    assert len(made) > 4
    for one in made:
        assert stat.S_IMODE(one.stat().st_mode) == (0o750 if one.is_dir() else 0o640), one


def test_no_secret_is_in_a_file_or_a_line_of_a_run(watched):
    texts = [watched["done"].stdout.encode(), watched["done"].stderr.encode()]
    texts += [path.read_bytes() for path in watched["made"] if path.is_file()]
    assert not any(word.encode() in text for text in texts for word in (TOKEN, SECRET))


def test_the_mapped_activations_leave_no_file_and_change_nothing(watched, tiny_folder, relations):
    assert not [path for path in watched["made"] if path.name.startswith(".activations")]


def test_errors_hide_tokens(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(f"401 for https://user:{SECRET}@hub with Bearer {TOKEN}")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", refuse)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ModelLoadError, match=r"401.*\[hidden\]") as caught:
        rn.load_model("meta-llama/Llama-2-7b-hf")
    assert TOKEN not in str(caught.value) and SECRET not in str(caught.value)
    monkeypatch.setenv("SOME_PASSWORD", SECRET)
    assert SECRET not in str(RelationNeuronsError(f"found {SECRET}"))
    assert (
        redacted("a token of the prompt; the tokens: 12") == "a token of the prompt; the tokens: 12"
    )


@pytest.mark.parametrize("form", ["json", "lre"])
def test_relations_are_written_into_the_folder_whatever_they_are_called(relations, tmp_path, form):
    hostile = [replace(one, name=name) for one, name in zip(relations, NAMES, strict=True)]
    if form == "json":
        hostile = [replace(one, language="../x") for one in hostile]
    written = save_relations(hostile, tmp_path / "deep" / "down", format=form)
    assert {path.parent for path in written} == {tmp_path / "deep" / "down"}
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        path.name for path in written
    }


def test_compiled_code_is_kept_only_where_nobody_else_can_write(tmp_path):
    made = own_folder(tmp_path / "mine")
    assert made is not None and stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o777)
    assert own_folder(made) is None
    (tmp_path / "file").write_text("")
    assert own_folder(tmp_path / "file" / "below") is None
