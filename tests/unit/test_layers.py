"""The layers of the package: each imports only what stands below it, and from where it is defined."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import relation_neurons as rn
from helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from architecture import LAYERS

PACKAGE = Path(rn.__file__).parent
FILES = {path: path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py")}


def package(parts: tuple[str, ...]) -> str:
    return parts[0] if len(parts) > 1 else ""


def dotted(parts: tuple[str, ...]) -> str:
    return ".".join(part for part in ("relation_neurons", *parts) if part != "__init__")


MODULES = {dotted(parts): path for path, parts in FILES.items()}


def imports(path: Path) -> list[tuple[str, str]]:
    """Each import of this package in a file, late and type-only ones included: module and name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("relation_neurons"):
            assert node.level == 0
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            assert not any(a.name.startswith("relation_neurons") for a in node.names), path
    return found


def target(module: str, name: str) -> str:
    """The module that an import reads: a name may be a module itself."""
    return f"{module}.{name}" if f"{module}.{name}" in MODULES else module


def definitions(path: Path) -> set[str]:
    """The names that a module defines."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: dotted(FILES[path]))
def test_a_module_imports_what_stands_below_it_from_where_it_is_defined(path):
    here = package(FILES[path])
    for module, name in imports(path):
        there = package(FILES[MODULES[target(module, name)]])
        if here:  # the package itself and `python -m` stand above all of them
            assert there in ("", here) or LAYERS.index(there) < LAYERS.index(here), (module, name)
        if target(module, name) == module:
            assert name in definitions(MODULES[module]), f"{module} does not define {name}"


def test_no_module_imports_itself_by_way_of_others():
    graph = {
        dotted(parts): {target(*one) for one in imports(path)}
        for path, parts in FILES.items()
        if path.name != "__init__.py"
    }
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_a_package_fits_in_ones_head():
    assert {package(parts) for parts in FILES.values()} == {"", *LAYERS}
    for layer in ("", *LAYERS):
        assert sum(package(parts) == layer for parts in FILES.values()) <= (14 if layer else 8)
