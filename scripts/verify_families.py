"""Measures each family with the TransformerLens that is installed, into relation_neurons/data/families.json.

Tiny random checkpoints are loaded (so they pass the self-check) and run over ragged, left-padded rows; the
largest differences from plain Hugging Face, one unpadded row at a time, are written down.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import relation_neurons as rn
from helpers import tiny_families
from relation_neurons.backends.installed import BACKEND
from relation_neurons.backends.neuron_sites import site_hook
from relation_neurons.inference.forward import final_residual, unembed
from relation_neurons.models.checkpoints import down_projection_path

TABLE = Path(rn.__file__).parent / "data" / "families.json"
VOCAB = 300
LENGTHS = (14, 11, 6, 1)


def measure(name: str) -> dict[str, float | str]:
    """Largest differences of logits and of neurons over all layers and real tokens."""
    hf_model = tiny_families.family(name, VOCAB)
    architecture = type(hf_model).__name__
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(0, VOCAB, (length,), generator=generator) for length in LENGTHS]
    expected = [hugging_face(hf_model, row) for row in rows]
    model = rn.load_model(hf_model, device="cpu")
    tokens = torch.zeros(len(rows), max(LENGTHS), dtype=torch.long)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, -len(row) :], mask[i, -len(row) :] = row, True
    neurons: dict[int, torch.Tensor] = {}
    hooks = [
        (site_hook(model, "post", layer), lambda v, hook, at=layer: neurons.__setitem__(at, v))
        for layer in range(model.cfg.n_layers)
    ]
    with torch.inference_mode(), model.hooks(fwd_hooks=hooks):
        logits = unembed(model, final_residual(model, tokens, mask).flatten(0, 1))
    logits = logits.unflatten(0, tokens.shape)
    of_logits, of_neurons = [], []
    for i, (own_logits, own_neurons) in enumerate(expected):
        of_logits.append(float((logits[i][mask[i]] - own_logits).abs().max()))
        of_neurons += [
            float((neurons[layer][i][mask[i]] - value).abs().max())
            for layer, value in own_neurons.items()
        ]
    return {
        "architecture": architecture,
        "logits": float(f"{max(of_logits):.1e}"),
        "neurons": float(f"{max(of_neurons):.1e}"),
    }


def hugging_face(hf_model, row) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """Logits and the down projections' inputs of one unpadded row."""
    kept: dict[int, torch.Tensor] = {}
    modules = dict(hf_model.named_modules())
    handles = [
        modules[down_projection_path(type(hf_model).__name__, layer)].register_forward_pre_hook(
            lambda _m, inputs, at=layer: kept.__setitem__(at, inputs[0][0].clone())
        )
        for layer in range(hf_model.config.num_hidden_layers)
    ]
    with torch.inference_mode():
        logits = hf_model(row[None]).logits[0]
    for handle in handles:
        handle.remove()
    return logits, kept


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    table = json.loads(TABLE.read_text(encoding="utf-8")) if TABLE.is_file() else {}
    table[BACKEND.name] = {
        "transformer_lens": importlib.metadata.version("transformer-lens"),
        "transformers": importlib.metadata.version("transformers"),
        "families": {name: measure(name) for name in tiny_families.FAMILIES},
    }
    TABLE.write_text(json.dumps(table, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps(table[BACKEND.name], indent=2))


if __name__ == "__main__":
    main()
