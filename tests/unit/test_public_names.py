"""The public names of the package: stated once, resolved lazily, and old keywords that still work."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import relation_neurons as rn

MODULES = {"errors", "plots"}
"""Public names that are modules and not objects."""


def type_checking_imports() -> dict[str, str]:
    """The names under `if TYPE_CHECKING`, each with the module it is imported from."""
    tree = ast.parse(Path(rn.__file__).read_text(encoding="utf-8"))
    block = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {
        alias.asname or alias.name: node.module or ""
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_three_lists_of_public_names_agree():
    typed = type_checking_imports()
    homes = {
        name: f"relation_neurons.{home}" for home, names in rn._HOMES.items() for name in names
    }
    assert sum(map(len, rn._HOMES.values())) == len(homes), "a name has two homes"
    assert {name: typed[name] for name in typed if name not in MODULES} == homes
    assert typed.keys() & MODULES == MODULES
    assert list(rn.__all__) == sorted(typed)
    assert set(rn.__all__) == homes.keys() | MODULES


@pytest.mark.parametrize("name", rn.__all__)
def test_a_public_name_resolves_to_what_its_home_defines(name):
    found = getattr(rn, name)
    if name in MODULES:
        assert inspect.ismodule(found)
    else:
        assert found is getattr(
            importlib.import_module(f"relation_neurons.{rn._HOME_OF[name]}"), name
        )
    assert name in dir(rn)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = rn.no_such_name


@pytest.mark.parametrize(
    "code",
    [
        "import relation_neurons",
        "import relation_neurons as rn; assert rn.load_relations('demo')",
        "import relation_neurons.cli",
        "import relation_neurons.cli.app",
    ],
)
def test_looking_at_relations_loads_no_torch(code):
    check = "import sys; found = {'torch', 'transformer_lens'} & set(sys.modules); assert not found, found"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{check}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def effects() -> pd.DataFrame:
    """Two relations, one ranked set each, and two held-out prompts of each relation."""
    rows = [
        {
            "ablated": ablated,
            "ablated_language": "en",
            "kind": kind,
            "score": "background",
            "dose": 10,
            "draw": 0,
            "prompt_id": 2 * (relation == "b") + prompt,
            "relation": relation,
            "language": "en",
            "fact": f"{relation}{prompt}",
            "correct_intact": True,
            "correct": ablated != relation or kind != "ranked",
            "margin_intact": 1.0,
            "margin": -1.0 if ablated == relation and kind == "ranked" else 1.0,
        }
        for ablated in ("a", "b")
        for kind in ("ranked", "control_contribution")
        for relation in ("a", "b")
        for prompt in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_an_earlier_keyword_works_and_warns(effects):
    with pytest.warns(DeprecationWarning, match=r"dose_curves.*'score'.*'contrast'"):
        old = rn.dose_curves(effects, score="background")
    pd.testing.assert_frame_equal(old, rn.dose_curves(effects, contrast="background"))


def test_both_keywords_at_once_are_a_type_error(effects):
    with pytest.raises(TypeError, match=r"dose_curves.*'score'.*'contrast'.*one of them"):
        rn.dose_curves(effects, score="background", contrast="background")


def test_every_function_with_a_contrast_takes_its_earlier_keyword():
    functions = [getattr(rn, name) for name in rn.__all__ if name not in MODULES]
    functions += [getattr(rn.plots, name) for name in rn.plots.__all__ if name != "TEMPLATES"]
    now = [one for one in functions if {"contrast", "contrasts"} & set(parameters(one))]
    assert len(now) > 10
    for one in now:
        assert hasattr(one, "__wrapped__"), f"{one.__name__} does not know the earlier keyword"


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters) if inspect.isfunction(function) else []
