"""A folder in place of the site: ``catalog.json``, or ``api.json`` and ``models.json``, each perhaps with ``.gz``."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from modelcatalog_server.domain.errors import UpstreamUnavailableError
from modelcatalog_server.domain.models import Source
from modelcatalog_server.domain.refresh import Payload
from modelcatalog_server.modelsdev.body import BoundedBody

_CHUNK_BYTES = 256 * 1024


def read_folder(folder: Path, max_bytes: int) -> Payload:
    """Return what the folder holds; the ETag is the content's. ``catalog.json`` goes first. Blocks.

    Raises:
        UpstreamUnavailableError: A file is missing or cannot be read.
        UpstreamInvalidError: A file is empty, too large or corrupt.
    """
    if catalog := _find(folder, "catalog.json"):
        body = read_file(catalog, max_bytes)
        return _payload(catalog, body, catalog=body)
    api, models = _find(folder, "api.json"), _find(folder, "models.json")
    if api is None:
        raise UpstreamUnavailableError("the upstream folder has neither catalog.json nor api.json, nor either with .gz")
    api_body = read_file(api, max_bytes)
    models_body = read_file(models, max_bytes) if models else None
    return _payload(api, api_body + (models_body or b""), api=api_body, models=models_body)


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return a file's content, inflated where its name ends in ``.gz``. Blocks.

    Raises:
        UpstreamUnavailableError: It is missing or cannot be read.
        UpstreamInvalidError: It is empty, too large or corrupt.
    """
    body = BoundedBody(path.name, "gzip" if path.suffix == ".gz" else "", max_bytes)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise UpstreamUnavailableError(f"{path.name} is not a file")
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                body.feed(chunk)
    except OSError as error:
        raise UpstreamUnavailableError(f"{path.name} cannot be read: {error.strerror}") from error
    return body.finish()


def sha256(body: bytes) -> str:
    """Return a document's identity."""
    return hashlib.sha256(body).hexdigest()


def _payload(
    first: Path, whole: bytes, *, catalog: bytes | None = None, api: bytes | None = None, models: bytes | None = None
) -> Payload:
    snapshot = sha256(whole)
    source = Source(url=first.as_uri(), snapshot=snapshot)
    return Payload(source=source, catalog=catalog, api=api, models=models, etag=f'"sha256-{snapshot}"')


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
