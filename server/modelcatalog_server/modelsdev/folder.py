"""A folder in place of the site: ``catalog.json``, or ``api.json`` and ``models.json``, each perhaps with ``.gz``."""

from __future__ import annotations

import asyncio
import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path

from modelcatalog_server.domain.errors import UpstreamUnavailableError
from modelcatalog_server.domain.models import Source
from modelcatalog_server.domain.refresh import Payload
from modelcatalog_server.domain.tasks import run_in_slices
from modelcatalog_server.modelsdev.body import BoundedBody

_HASHED_BYTES = 256 * 1024


async def read_folder(folder: Path, max_bytes: int) -> Payload:
    """Return what the folder holds; the ETag is the content's. ``catalog.json`` goes first.

    Raises:
        UpstreamUnavailableError: A file is missing or cannot be read.
        UpstreamInvalidError: A file is empty, too large or corrupt.
    """
    if catalog := await asyncio.to_thread(_find, folder, "catalog.json"):
        body = await read_file(catalog, max_bytes)
        return await _payload(catalog, body, catalog=body)
    api = await asyncio.to_thread(_find, folder, "api.json")
    models = await asyncio.to_thread(_find, folder, "models.json")
    if api is None:
        raise UpstreamUnavailableError("the upstream folder has neither catalog.json nor api.json, nor either with .gz")
    api_body = await read_file(api, max_bytes)
    models_body = await read_file(models, max_bytes) if models else None
    return await _payload(api, api_body + (models_body or b""), api=api_body, models=models_body)


async def read_file(path: Path, max_bytes: int) -> bytes:
    """Return a file's content, inflated where its name ends in ``.gz``.

    Raises:
        UpstreamUnavailableError: It is missing or cannot be read.
        UpstreamInvalidError: It is empty, too large or corrupt.
    """
    body = BoundedBody(path.name, "gzip" if path.suffix == ".gz" else "", max_bytes)
    await run_in_slices(body.feed(await asyncio.to_thread(_read, path, max_bytes)))
    return body.finish()


async def sha256(body: bytes) -> str:
    """Return a document's identity."""
    digest = hashlib.sha256()

    def steps() -> Iterator[None]:
        for start in range(0, len(body), _HASHED_BYTES):
            digest.update(memoryview(body)[start : start + _HASHED_BYTES])
            yield

    await run_in_slices(steps())
    return digest.hexdigest()


async def _payload(
    first: Path, whole: bytes, *, catalog: bytes | None = None, api: bytes | None = None, models: bytes | None = None
) -> Payload:
    snapshot = await sha256(whole)
    source = Source(url=first.as_uri(), snapshot=snapshot)
    return Payload(source=source, catalog=catalog, api=api, models=models, etag=f'"sha256-{snapshot}"')


def _read(path: Path, max_bytes: int) -> bytes:
    """Return a file's bytes, but not many more than the bound."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise UpstreamUnavailableError(f"{path.name} is not a file")
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError as error:
        raise UpstreamUnavailableError(f"{path.name} cannot be read: {error.strerror}") from error


def _find(folder: Path, name: str) -> Path | None:
    """Return the file, also when it cannot be looked at: reading it says why."""
    for path in (folder / name, folder / f"{name}.gz"):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UpstreamUnavailableError(f"{path.name} cannot be read: {error.strerror}") from error
        return path
    return None
