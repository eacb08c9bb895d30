"""Known vulnerabilities in what this package builds on, as tested and at the oldest versions allowed.

    python scripts/audit.py PIP_AUDIT

Exit code 1 where there is one, and where pip-audit itself fails. Where the service does not answer, or does
not know a package, that is said by name and is no verdict: the exit code is 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
UNREACHED = (
    "requests.exceptions.",
    "urllib3.exceptions.",
    "pip_audit._service.interface.",
    "ERROR:pip_audit._cli:Tip: your network may be blocking this service.",
)
"""How the last line of pip-audit begins where the service is out of reach or gives no whole answer."""


class FailedAudit(Exception):
    """pip-audit is not there, or ended for a reason of its own."""


def pinned(constraints: str) -> list[str]:
    """The exact versions of a constraints file."""
    lines = (line.split(";")[0].strip() for line in constraints.splitlines())
    return [line for line in lines if "==" in line and not line.startswith("#")]


def oldest(pyproject: str) -> list[str]:
    """The oldest version that each dependency range allows, extras included, as pins."""
    project = tomllib.loads(pyproject)["project"]
    stated = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        stated += extra
    pins = []
    for requirement in map(Requirement, stated):
        if requirement.name == project["name"]:
            continue
        least = [s.version for s in requirement.specifier if s.operator in (">=", "==")]
        if not least:
            raise SystemExit(f"{requirement} has no oldest version; expected a range with >=.")
        pins.append(f"{requirement.name}=={least[0]}")
    return sorted(pins)


def verdict(report: dict[str, Any] | None, count: int) -> tuple[str, bool]:
    """What an audit says in words, and whether it is bad."""
    found = (report or {}).get("dependencies", [])
    known = [one for one in found if "vulns" in one]
    if not known:
        return f"not audited: the service gave no answer on any of {count} packages", False
    bad = [one for one in known if one["vulns"]]
    lines = [f"{len(known)} of {count} packages audited, {len(bad)} with known vulnerabilities"]
    for one in bad:
        for flaw in one["vulns"]:
            fixed = ", ".join(flaw.get("fix_versions", [])) or "no version"
            lines.append(f"  {one['name']} {one['version']}: {flaw['id']}, fixed in {fixed}")
    if len(known) < count:
        answered = {one["name"].lower() for one in known}
        unknown = sorted(one["name"] for one in found if one["name"].lower() not in answered)
        lines.append(f"  not audited: {', '.join(unknown) or 'not named by the service'}")
    return "\n".join(lines), bool(bad)


def audit(pip_audit: str, pins: list[str]) -> dict[str, Any] | None:
    """Asks the service about exact versions; None where it does not answer.

    Raises:
        FailedAudit: pip-audit cannot be run, or ended without a report though the service is not at fault.
    """
    with tempfile.TemporaryDirectory() as folder:
        listed, report = Path(folder) / "pins.txt", Path(folder) / "report.json"
        listed.write_text("\n".join(pins) + "\n")
        command = [pip_audit, "-r", str(listed), "--no-deps", "--disable-pip", "--timeout", "10"]
        command += ["--progress-spinner", "off", "-f", "json", "-o", str(report)]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
        except subprocess.TimeoutExpired:
            return None
        except OSError as error:
            raise FailedAudit(f"{pip_audit} cannot be run: {error.strerror or error}") from error
        said = [line for line in ended.stderr.splitlines() if line.strip()] or ["it said nothing"]
        try:
            return json.loads(report.read_text())
        except (OSError, ValueError) as error:
            if said[-1].startswith(UNREACHED):
                return None
            raise FailedAudit(
                f"{pip_audit} gave no report, exit code {ended.returncode}: {said[-1]}"
            ) from error


def main() -> None:
    pip_audit = sys.argv[1]
    tested, other = (
        pinned((ROOT / name).read_text()) for name in ("constraints.txt", "constraints-tl4.txt")
    )
    least = oldest((ROOT / "pyproject.toml").read_text())
    failed = False
    try:
        # A well-known one first: where the service is out of reach, nothing else is asked of it.
        first = audit(pip_audit, [pin for pin in tested if pin.lower().startswith("jinja2==")])
        reached = any("vulns" in one for one in (first or {}).get("dependencies", []))
        for what, pins in (
            ("tested environment", tested),
            ("what is other in constraints-tl4.txt", [pin for pin in other if pin not in tested]),
            ("oldest versions allowed", least),
        ):
            said, bad = verdict(audit(pip_audit, pins) if reached else None, len(pins))
            print(f"{what}: {said}")
            failed |= bad
    except FailedAudit as error:
        sys.exit(f"not audited: {error}")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
