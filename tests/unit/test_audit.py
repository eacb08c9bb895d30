"""The audit of dependencies: an answer, a bad answer and no answer are told apart."""

from __future__ import annotations

import importlib.util

import pytest

from helpers.paths import ROOT

SCRIPT = ROOT / "scripts" / "audit.py"
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


def _program(folder, lines):
    path = folder / f"pip-audit-{len(list(folder.iterdir()))}"
    path.write_text("#!/bin/sh\n" + lines)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    "last",
    [
        "requests.exceptions.ConnectionError: HTTPSConnectionPool: Max retries exceeded",
        "pip_audit._service.interface.ServiceError",
        "ERROR:pip_audit._cli:Tip: your network may be blocking this service. Try another service",
    ],
)
def test_a_service_out_of_reach_is_no_answer(tmp_path, last):
    program = _program(tmp_path, f"echo Traceback >&2; echo '{last}' >&2; exit 1\n")
    assert audit.audit(program, ["a==1"]) is None


def test_a_program_that_is_not_there_or_fails_is_a_failure(tmp_path, monkeypatch, capsys):
    for program, match in (
        (str(tmp_path / "none"), "cannot be run: No such file"),
        (_program(tmp_path, "echo 'KeyError: fixed_in' >&2; exit 1\n"), "exit code 1: KeyError"),
        (_program(tmp_path, "exit 0\n"), "exit code 0: it said nothing"),
    ):
        with pytest.raises(audit.FailedAudit, match=match):
            audit.audit(program, ["a==1"])
        monkeypatch.setattr(audit.sys, "argv", ["audit.py", program])
        with pytest.raises(SystemExit, match=r"^not audited: "):
            audit.main()
        assert "audited" not in capsys.readouterr().out


def test_the_other_transformer_lens_is_asked_about(tmp_path, monkeypatch, capsys):
    asked = []

    def answer(_program, pins):
        asked.extend(pins)
        names = [dict(zip(("name", "version"), pin.split("=="), strict=True)) for pin in pins]
        return {"dependencies": [{**name, "vulns": []} for name in names]}

    monkeypatch.setattr(audit, "audit", answer)
    monkeypatch.setattr(audit.sys, "argv", ["audit.py", "pip-audit"])
    with pytest.raises(SystemExit) as ended:
        audit.main()
    assert ended.value.code == 0
    for name in ("constraints.txt", "constraints-tl4.txt"):
        assert set(audit.pinned((SCRIPT.parents[1] / name).read_text())) <= set(asked)
    assert len([pin for pin in asked if pin.startswith("transformer-lens==4")]) == 1
    assert capsys.readouterr().out.count(", 0 with known vulnerabilities") == 3
