"""The tables of docs/calibration.md are those that its scripts kept."""

from __future__ import annotations

import re
import sys

import pytest

from helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import calibration_tables


@pytest.mark.parametrize("name", ["runs", "draws"])
def test_the_page_shows_the_numbers_that_the_script_kept(name):
    page = calibration_tables.PAGE.read_text(encoding="utf-8")
    shown = re.findall(rf"<!-- {name}: (\w+) -->\n\n(.*?)\n\n<!-- end -->", page, re.DOTALL)
    assert dict(shown) == calibration_tables.markdown(name)
