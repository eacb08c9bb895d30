"""The audit of dependencies: an answer, a bad answer and no answer are told apart."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "audit.py"
spec = importlib.util.spec_from_file_location("audit", SCRIPT)
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)

FLAW = {"id": "CVE-2024-1", "fix_versions": ["3.1.6"]}


@pytest.mark.parametrize(
    ("report", "said", "bad"),
    [
        (None, "not audited: the service gave no answer on any of 2 packages", False),
        ({"dependencies": [{"name": "a", "skip_reason": "not found"}] * 2}, "no answer", False),
        (
            {"dependencies": [{"name": n, "version": "1", "vulns": []} for n in "ab"]},
            "2 of 2 packages audited, 0 with",
            False,
        ),
        (
            {
                "dependencies": [
                    {"name": "a", "version": "3.1.4", "vulns": [FLAW]},
                    {"name": "b", "skip_reason": "not found"},
                ]
            },
            "a 3.1.4: CVE-2024-1, fixed in 3.1.6\n  not audited: b",
            True,
        ),
    ],
)
def test_no_answer_is_no_verdict(report, said, bad):
    words, failed = audit.verdict(report, 2)
    assert said in words and failed is bad


def test_every_range_has_an_oldest_version():
    pins = audit.oldest((SCRIPT.parents[1] / "pyproject.toml").read_text())
    assert "jinja2==3.1.6" in pins and not any("relation_neurons" in pin for pin in pins)
    with pytest.raises(SystemExit, match="no oldest version"):
        audit.oldest('[project]\nname="x"\ndependencies=["a"]\n[project.optional-dependencies]\n')


def test_a_program_that_is_not_there_or_fails_is_no_answer(tmp_path):
    assert audit.audit(str(tmp_path / "none"), ["a==1"]) is None
    assert audit.audit("false", ["a==1"]) is None
