"""The contributor's map, docs/architecture.md and its picture, is drawn again and compared."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET

from helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import architecture

HINT = "run `make docs-map` and commit docs/architecture.md and docs/architecture.svg"


def test_the_map_names_packages_functions_and_files_that_there_are():
    architecture.check()


def test_the_page_and_the_picture_are_those_of_the_code():
    assert architecture.PAGE.read_text(encoding="utf-8") == architecture.page(), HINT
    assert architecture.PICTURE.read_text(encoding="utf-8") == architecture.picture(), HINT


def test_every_module_is_on_the_page_and_in_the_picture():
    page, picture = architecture.page(), architecture.picture()
    for path in architecture.PACKAGE.rglob("*.py"):
        if not path.stem.startswith("__"):
            assert f"- `{path.stem}`: " in page and f">{path.stem}</text>" in picture


def test_nothing_in_the_picture_lies_outside_of_it():
    root = ET.fromstring(architecture.picture())
    wide, high = float(root.get("width")), float(root.get("height"))
    for part in root.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(part.get("x", 0)) + float(part.get("width")) <= wide
        assert float(part.get("y", 0)) + float(part.get("height")) <= high
