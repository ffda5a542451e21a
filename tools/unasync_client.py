"""Generates ``modelcatalog_client/_sync`` from ``modelcatalog_client/_async``.

``--check`` changes nothing and fails when what is there is not what would be generated.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import tempfile
from pathlib import Path

import unasync

PACKAGE = Path(__file__).resolve().parent.parent / "client" / "modelcatalog_client"
FIRST_LINE = "# Generated from ../_async by tools/unasync_client.py: do not edit.\n"

NAMES = {
    "_async": "_sync",
    "_aio": "_blocking",
    "AsyncModelCatalogClient": "ModelCatalogClient",
    "AsyncCatalogMethods": "CatalogMethods",
    "AsyncRefreshMethods": "RefreshMethods",
    "AsyncAdminMethods": "AdminMethods",
    "AsyncCalls": "Calls",
    "AsyncConnection": "Connection",
    "AsyncPager": "Pager",
    "AsyncRefreshWatch": "RefreshWatch",
}


def generate(into: Path) -> None:
    """Writes the modules of ``_sync`` into a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        source = shutil.copytree(PACKAGE / "_async", Path(scratch) / "_async", ignore=_not_modules)
        rule = unasync.Rule(fromdir="/_async/", todir="/_sync/", additional_replacements=NAMES)
        unasync.unasync_files([str(path) for path in source.glob("*.py")], [rule])
        for path in (Path(scratch) / "_sync").glob("*.py"):
            (into / path.name).write_text(FIRST_LINE + path.read_text("utf-8"), "utf-8")
    (into / "__init__.py").write_text(FIRST_LINE + '"""The synchronous client."""\n', "utf-8")


def differences(generated: Path, present: Path) -> list[str]:
    """Names of modules that are missing, left over or different."""
    names = {path.name for folder in (generated, present) for path in folder.glob("*.py")}
    _, different, unreadable = filecmp.cmpfiles(generated, present, names, shallow=False)
    return sorted(different + unreadable)


def main() -> int:
    """Generates or checks; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    target = PACKAGE / "_sync"
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        stale = differences(Path(scratch), target)
        if check:
            return _complain(stale)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(scratch, target)
    return 0


def _complain(stale: list[str]) -> int:
    if stale:
        sys.stderr.write(f"_sync is not what _async gives: {', '.join(stale)}. Run tools/unasync_client.py.\n")
    return 1 if stale else 0


def _not_modules(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if not name.endswith(".py")}


if __name__ == "__main__":
    sys.exit(main())
