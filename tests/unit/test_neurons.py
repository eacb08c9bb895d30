"""Names of neurons, and doses as counts or shares."""

from __future__ import annotations

import pytest

import relation_neurons as rn
from relation_neurons.errors import AblationError, DoseError
from relation_neurons.neurons import resolve_doses


def test_doses():
    assert resolve_doses(["0.05%", "0.2%", "0.8%"], 46080) == (23, 92, 369)
    assert resolve_doses([30, 10, 30], 100) == (10, 30)
    for wrong in (0, 101, "0%", "many"):
        with pytest.raises(DoseError):
            resolve_doses([wrong], 100)
    with pytest.raises(DoseError, match="No dose"):
        resolve_doses([], 100)


def test_neuron_names():
    assert rn.neuron_name(16, 302) == "L16N302"
    assert rn.parse_neuron("L16N302") == (16, 302)
    with pytest.raises(AblationError, match="expected the form L16N302"):
        rn.parse_neuron("16.302")
