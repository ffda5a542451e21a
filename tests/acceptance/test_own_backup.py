"""The own PostgreSQL is backed up while it serves, and restored into another data directory."""

from __future__ import annotations

from pathlib import Path

from acceptance.serving import OFFLINE, Serve, command, refused
from small_catalog import SmallCatalog

pytest_plugins = "acceptance.fixtures"


def test_the_own_database_moves_to_another_directory(serve: Serve, work_dir: Path, tmp_path: Path) -> None:
    file, own, other = tmp_path / "catalog.dump", work_dir / "backed-up", work_dir / "restored"
    (tmp_path / "catalog.json").write_bytes(SmallCatalog().body)
    gates = ("--gate-min-models", "1", "--gate-min-providers", "1")
    server = serve("--listen", "127.0.0.1:0", "--upstream-url", tmp_path.as_uri(), *gates, data=own)
    with server.client() as client:
        hidden = client.update_provider("zeldoc", enabled=False)
    while_it_serves = command("backup", str(file), "--data-dir", str(own))
    assert (while_it_serves.returncode, while_it_serves.stderr) == (0, "")
    assert while_it_serves.stdout.startswith(f"wrote {file}, ")
    assert "in use by another modelcatalog" in refused("restore", str(file), "--data-dir", str(own))
    assert server.stop() == 0

    assert command("restore", str(file), "--data-dir", str(other)).stdout == f"restored {file}\n"
    restored = serve(*OFFLINE, data=other)
    assert restored.ready["revision"] == str(hidden.catalog_revision)
    assert restored.ready["models"] == server.ready["models"] == str(len(SmallCatalog().model_ids))
    with restored.client() as client:
        assert not client.get_provider("zeldoc").provider.enabled
    restored.kill()  # what it leaves behind is no server

    not_served = command("backup", str(tmp_path / "again.dump"), "--data-dir", str(other))
    assert not_served.returncode == 0, not_served.stderr
    assert "has a catalog already" in refused("restore", str(file), "--data-dir", str(other))
