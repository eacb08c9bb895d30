"""Every pitfall in docs/pitfalls.md has a test that names it, by number, and the page names the test."""

from __future__ import annotations

import ast
import re

from helpers.paths import ROOT

NUMBERS = range(1, 28)


def named_tests() -> dict[int, set[str]]:
    """The tests that name each pitfall, in their name or at the start of their docstring."""
    found: dict[int, set[str]] = {number: set() for number in NUMBERS}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                words = f"{node.name} {ast.get_docstring(node) or ''}"
                for group in re.findall(r"[Pp]itfalls?[ _]([\d_, and]+)", words):
                    for number in re.findall(r"\d+", group):
                        if int(number) in found:
                            found[int(number)].add(node.name)
    return found


def test_each_pitfall_has_a_test_that_names_it():
    missing = [number for number, tests in named_tests().items() if not tests]
    assert not missing, f"no test names pitfall {missing}"


def test_the_page_names_a_test_of_each():
    page = (ROOT / "docs" / "pitfalls.md").read_text(encoding="utf-8")
    tests = named_tests()
    rows = dict(re.findall(r"^\| (\d+) \|(.+)\|$", page, flags=re.MULTILINE))
    assert set(map(int, rows)) == set(NUMBERS)
    for number, row in rows.items():
        shown = re.findall(r"`(test_\w+)`", row)
        assert shown and set(shown) <= tests[int(number)], f"pitfall {number}: {shown}"
