"""The earlier name of an option still works, and does not win over the present one."""

from __future__ import annotations

import pandas as pd
import pytest

import relation_neurons as rn
from relation_neurons.errors import RelationFormatError, UnknownOptionError
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


def test_a_keyword_that_says_nothing_any_more_is_taken_with_a_warning(as_a_user):
    empty = pd.DataFrame({"block": []})
    with (
        pytest.warns(DeprecationWarning, match="'seed' has no effect any more"),
        pytest.raises(RelationFormatError, match="no joint ablation"),
    ):
        rn.joint_effect(empty, seed=3)
