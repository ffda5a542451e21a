"""A data directory without room: on a small file system of its own, which only the server's processes see."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from acceptance.serving import Serve, Server, until
from modelcatalog_client import DatabaseUnavailableError, refresh_error
from upstream_server import SNAPSHOT

pytest_plugins = "acceptance.fixtures"

SIZE = 400 * 1024 * 1024
#: In a namespace of mounts, which ends with the process; who is not root becomes that there.
APART = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "sh", "-c"]
MOUNT = f'mount -t tmpfs -o size={SIZE},mode=755 tmpfs "$0" && exec "$@"'


@pytest.fixture
def full(serve: Serve, work_dir: Path) -> Server:
    """A server with the recorded catalog."""
    disk, upstream = work_dir / "disk", work_dir / "full-upstream"
    for folder in (disk, upstream):
        folder.mkdir()
    shutil.copy(SNAPSHOT / "catalog-2026-07-02.json.gz", upstream / "catalog.json.gz")
    flags = ["--listen", "127.0.0.1:0", "--upstream-url", upstream.as_uri(), "--log-format", "json"]
    return serve(*flags, data=disk / "data", prefix=[*APART, MOUNT, str(disk)])


def fill(server: Server, *, room: int) -> Path:
    """Take all the room that the disk has but so many bytes. Returns the file that does."""
    assert server.data is not None
    filler = Path(f"/proc/{server.process.pid}/root{server.data.parent}/filler")
    with filler.open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(bytes(65536)):
                pass
        file.truncate(max(file.tell() - room, 0))
    return filler


def test_a_full_disk_fails_writes_with_a_reason_and_no_read(full: Server) -> None:
    for room in (0, 4 * 1024 * 1024):  # the one is no room for a row, the other none for all that a run writes
        filler = fill(full, room=room)
        until(lambda: "no room left on its disk" in run_in_full(full))
        with full.client() as client:
            assert client.get_model("openai/gpt-5").model.revision == 1
            assert next(iter(client.list_models(filter=f'name != "{room}"'))).id
        assert full.is_serving()
        filler.unlink()
        assert run_in_full(full) == ""
    assert full.stop() == 0


def run_in_full(server: Server) -> str:
    """Have every row written again; return what that failed with, nothing if it did not."""
    with server.client() as client:
        try:
            refresh = client.start_refresh(type="full").refresh
        except DatabaseUnavailableError as error:
            return error.message
        with client.watch_refresh_status(refresh.id, timeout=60) as watch:
            *_, last = watch
        failure = refresh_error(last.refresh)
        return "" if failure is None else failure.message
