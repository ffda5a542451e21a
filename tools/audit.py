"""Asks what is known against the pinned versions, and says plainly what came of it.

    python tools/audit.py requirements/server.txt requirements/floor.txt

Exit code 1 where something is known, and 2 where nobody could be asked, which says nothing of the requirements.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: pip-audit is strict: what the service does not know is a failure and not a note.
OPTIONS = ("--strict", "--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json")

#: What is asked, of each package and version.
SERVICES = {"pypi": "https://pypi.org/pypi/NAME/VERSION/json", "osv": "https://api.osv.dev/v1/query"}


def main() -> int:
    """Audit each file; return the exit code."""
    parser = argparse.ArgumentParser(prog="audit", description=__doc__.partition("\n")[0])
    parser.add_argument("requirements", nargs="+")
    parser.add_argument("--service", choices=SERVICES, default="pypi")
    parser.add_argument("--program", default=str(Path(sys.executable).with_name("pip-audit")))
    options = parser.parse_args()
    return max(audit(options.program, options.service, requirements) for requirements in options.requirements)


def audit(program: str, service: str, requirements: str) -> int:
    """Audit one file, print what came of it, and return the exit code."""
    command = [program, *OPTIONS, "--vulnerability-service", service, "-r", requirements]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    answer = _parse(run.stdout)
    if answer is None:
        print(f"{requirements}: {_explain(service, run.stderr)}", file=sys.stderr)
        return 2
    known = list(_list_known(answer))
    for line in known:
        print(f"{requirements}: {line}", file=sys.stderr)
    print(f"{requirements}: {len(known)} known against {len(answer['dependencies'])} packages")
    return 1 if known or run.returncode else 0


def _parse(text: str) -> dict[str, Any] | None:
    """Return what was answered of every package, if it was."""
    try:
        answer: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return answer


def _list_known(answer: dict[str, Any]) -> Iterator[str]:
    for package in answer["dependencies"]:
        for known in package["vulns"]:
            mended = ", ".join(known["fix_versions"]) or "no version yet"
            yield f"{package['name']} {package['version']}: {known['id']}, mended in {mended}"


def _explain(service: str, errors: str) -> str:
    last = (errors.strip().splitlines() or ["it said nothing"])[-1]
    (other,) = SERVICES.keys() - {service}
    return (
        f"nobody could be asked, so this says nothing of what is pinned. pip-audit: {last}\n"
        f"It asks {SERVICES[service]}, which a mirror of packages does not answer. Run `make audit` where that can be"
        f" reached (HTTPS_PROXY is obeyed), or with AUDIT_SERVICE={other}, which asks {SERVICES[other]}."
    )


if __name__ == "__main__":
    sys.exit(main())
