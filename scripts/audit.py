"""Known vulnerabilities in what this package builds on, as tested and at the oldest versions allowed.

    python scripts/audit.py PIP_AUDIT

Exit code 1 where there is one. Where the service does not answer, or does not know a package, that is said
by name and is no verdict: the exit code is 0.
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
    """Asks the service about exact versions; None where it cannot be reached."""
    with tempfile.TemporaryDirectory() as folder:
        listed, report = Path(folder) / "pins.txt", Path(folder) / "report.json"
        listed.write_text("\n".join(pins) + "\n")
        command = [pip_audit, "-r", str(listed), "--no-deps", "--disable-pip", "--timeout", "10"]
        command += ["--progress-spinner", "off", "-f", "json", "-o", str(report)]
        try:
            subprocess.run(command, capture_output=True, timeout=600)
            return json.loads(report.read_text())
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return None


def main() -> None:
    pip_audit = sys.argv[1]
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    tested = [line.split(";")[0].strip() for line in constraints if "==" in line]
    least = oldest((ROOT / "pyproject.toml").read_text())
    failed = False
    for what, pins in (("tested environment", tested), ("oldest versions allowed", least)):
        # A well-known one first: where the service is out of reach, nothing else is asked of it.
        first = audit(pip_audit, [pin for pin in pins if pin.lower().startswith("jinja2==")])
        reached = any("vulns" in one for one in (first or {}).get("dependencies", []))
        said, bad = verdict(audit(pip_audit, pins) if reached else first, len(pins))
        print(f"{what}: {said}")
        failed |= bad
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
