"""Material: a model with its prompts, small (planted) or full (SmolLM2-135M and the demo relations)."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers import AutoModelForCausalLM

import relation_neurons as rn
from relation_neurons.backends.neuron_sites import neuron_count
from relation_neurons.models.checkpoints import packaged_checkpoint
from relation_neurons.relations.prompts import Prompts

MODEL = "smollm2-135m"
SHARE = 0.002


@cache
def planted() -> tuple[Any, Path]:
    """The planted model with its relations, and its folder in Hugging Face format."""
    folder = Path(tempfile.mkdtemp(prefix="planted-"))
    return rn.planted_model(folder), folder


@cache
def model(size: str, dtype: str = "float32") -> Any:
    """The hooked model."""
    name = planted()[1] if size == "small" else MODEL
    return rn.load_model(name, device="cpu", dtype=dtype)


@cache
def hugging_face(size: str) -> Any:
    """The same weights as plain Hugging Face."""
    folder = planted()[1] if size == "small" else packaged_checkpoint(MODEL)
    return AutoModelForCausalLM.from_pretrained(folder).float().eval()


@cache
def prompts(size: str, shots: int = 0) -> Prompts:
    """The prompts of `make demo`, or of the planted relations."""
    if size == "small":
        return rn.make_prompts(
            planted()[0].relations, model(size).tokenizer, held_out=0.4, shots=shots
        )
    return rn.make_prompts(
        rn.load_relations("demo"),
        model(size).tokenizer,
        held_out=16,
        hold_out_templates=1,
        nonsense=10,
        shots=shots,
    )


def some(asked: Prompts, count: int) -> Prompts:
    """Evenly spaced prompts with an answer."""
    facts = np.flatnonzero(asked.frame["kind"] == "fact")
    chosen = facts[np.linspace(0, len(facts) - 1, min(count, len(facts))).astype(int)]
    return asked.take(np.isin(np.arange(len(asked)), chosen))


def neurons(size: str, seed: int = 0) -> pd.DataFrame:
    """0.2% of all neurons, drawn over all layers: a set as large as the judged ones."""
    hooked = model(size)
    width = hooked.cfg.d_mlp
    flat = np.random.default_rng(seed).choice(
        neuron_count(hooked), max(int(neuron_count(hooked) * SHARE), 2), replace=False
    )
    return pd.DataFrame({"layer": flat // width, "neuron": flat % width})
