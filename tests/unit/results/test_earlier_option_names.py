"""The earlier name of an option still works, and does not win over the present one."""

from __future__ import annotations

import pytest

import relation_neurons as rn
from relation_neurons.errors import UnknownOptionError
from relation_neurons.results.options import make_options


def test_an_earlier_name_sets_the_option_and_its_none_sets_nothing():
    assert make_options(score="background").contrast == "background"
    assert make_options(contrast="background", score=None).contrast == "background"


def test_both_names_together_are_refused():
    with pytest.raises(UnknownOptionError, match="give contrast alone"):
        make_options(score="background", contrast="unknown")
    with pytest.raises(TypeError, match="both"):
        rn.run(None, score="background", contrast="unknown")


def test_a_run_warns_of_the_earlier_name(as_a_user):
    with (
        pytest.warns(DeprecationWarning, match="'score' is now called 'contrast'"),
        pytest.raises(UnknownOptionError),
    ):
        rn.run(None, score="no contrast")


def test_a_run_refuses_what_only_the_loader_of_relations_takes(as_a_user):
    with pytest.raises(UnknownOptionError, match="names"):
        rn.run(None, names=["country_capital"])
