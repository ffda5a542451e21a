"""Identity as a user has it: tokens made by the command, a server with TLS and workers, and commands that call it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from acceptance.serving import GRPCURL, Serve, Server, command, refused, run, until
from certificates import Authority
from conftest import Services
from modelcatalog_client import InvalidTokenError, ModelCatalogClient, Tls

pytest_plugins = "acceptance.fixtures"

ROOT = Path(__file__).resolve().parents[2]
Result = subprocess.CompletedProcess[str]


@dataclass
class Site:
    """A server that knows its callers, and what they need."""

    server: Server
    tokens: Path
    ca: Path

    def create(self, *arguments: str) -> Result:
        return command("token", "create", "--file", str(self.tokens), *arguments)

    def token(self, role: str) -> tuple[str, str]:
        """Make a token of a role and return its id and itself."""
        made = self.create("--principal", f"{role}-person", "--role", role, "--json")
        assert made.returncode == 0, made.stderr
        document = json.loads(made.stdout)
        return document["id"], document["token"]

    def call(self, token: str, *arguments: str) -> Result:
        flags = ["--address", self.server.address, "--tls-ca", str(self.ca)]
        return command(*arguments, *flags, MODELCATALOG_TOKEN=token)

    def knows(self, token: str) -> bool:
        return self.call(token, "models", "get", "openai/gpt-5").returncode == 0

    def is_known_everywhere(self, token: str) -> bool:
        """Each connection goes to one of the workers by chance, and each of them looks at the file for itself."""
        try:
            for _ in range(20):
                with ModelCatalogClient(self.server.address, token=token, tls=Tls(self.ca)) as client:
                    client.get_model("openai/gpt-5")
        except InvalidTokenError:
            return False
        return True


@pytest.fixture(scope="module")
def database(templates: Services) -> Iterator[str]:
    url = templates.clone("mc_loaded")
    yield url
    templates.drop(url)


@pytest.fixture(scope="module")
def site(services: Services, database: str, serve_for_module: Serve, work_dir: Path) -> Site:
    folder = work_dir / "identity"
    folder.mkdir()
    authority = Authority()
    certificate, key = authority.sign("localhost", "127.0.0.1").write(folder, "server")
    ca, tokens = folder / "ca.crt", folder / "identities.toml"
    ca.write_bytes(authority.certificate)
    tokens.touch(0o600)
    server = serve_for_module(
        *("--offline", "--listen", "127.0.0.1:0", "--workers", "2", "--access-log-percent", "100"),
        *("--tls-cert", str(certificate), "--tls-key", str(key), "--tokens-file", str(tokens)),
        *("--rate-limit-failures", "off"),  # until all workers know of a token it is tried often
        MODELCATALOG_DATABASE_URL=database,
        MODELCATALOG_REDIS_URL=services.redis_url,
    )
    return Site(server, tokens, ca)


def test_a_token_is_printed_once_and_good_within_seconds(site: Site) -> None:
    made = site.create("--principal", "billing", "--role", "reader", "--expires-in", "90d")
    assert made.returncode == 0
    (token,) = made.stdout.splitlines()
    assert token.startswith("mcat_")
    assert made.stderr.startswith("modelcatalog: token ")
    assert token not in made.stderr
    until(lambda: site.is_known_everywhere(token))
    listed = command("token", "list", "--file", str(site.tokens))
    assert token not in listed.stdout
    row = next(line for line in listed.stdout.splitlines() if "billing" in line)
    assert row.split()[1:3] == ["billing", "reader"]
    assert row.endswith("active")


def test_commands_say_why_they_may_not_and_what_to_do(site: Site) -> None:
    _, reader = site.token("reader")
    until(lambda: site.is_known_everywhere(reader))
    stranger = site.call("", "models", "get", "openai/gpt-5")
    assert stranger.returncode == 2
    assert "[MISSING_TOKEN from GetModel" in stranger.stderr
    assert "set MODELCATALOG_TOKEN, or pass --token" in stranger.stderr
    for arguments, method in (
        (("providers", "disable", "zeldoc"), "UpdateProvider takes the role admin"),
        (("refresh",), "StartRefresh takes the role operator"),
    ):
        result = site.call(reader, *arguments)
        assert result.returncode == 2, result
        assert method in result.stderr
        assert "another role" in result.stderr
    by_flag = command(
        *("models", "get", "openai/gpt-5", "--token", reader),
        *("--address", site.server.address, "--tls-ca", str(site.ca)),
    )
    assert by_flag.returncode == 0, by_flag.stderr


def test_every_worker_refuses_a_revoked_token(site: Site) -> None:
    id_, token = site.token("operator")
    until(lambda: site.is_known_everywhere(token))
    assert command("token", "revoke", id_, "--file", str(site.tokens)).returncode == 0
    refused_in_a_row = 0

    def all_refuse() -> bool:
        nonlocal refused_in_a_row
        refused_in_a_row = 0 if site.knows(token) else refused_in_a_row + 1
        return refused_in_a_row == 12  # connections, of which each goes to one of two workers

    until(all_refuse)
    gone = command("token", "revoke", id_, "--file", str(site.tokens))
    assert gone.returncode == 1
    assert gone.stderr.startswith(f"modelcatalog: no token has the id {id_}")


def test_grpcurl_calls_with_a_token(site: Site) -> None:
    _, token = site.token("admin")
    until(lambda: site.is_known_everywhere(token))
    call = [GRPCURL, "-cacert", str(site.ca), "-H", f"authorization: Bearer {token}"]
    models = run(
        [*call, "-d", '{"model_id":"openai/gpt-5"}', site.server.address, "modelcatalog.v1.ModelCatalog/GetModel"]
    )
    assert json.loads(models.stdout)["model"]["id"] == "openai/gpt-5"
    without = run([GRPCURL, "-cacert", str(site.ca), site.server.address, "list"])
    assert without.returncode != 0
    assert "MISSING_TOKEN" in without.stderr or "send a token" in without.stderr


def test_the_health_check_of_the_image_needs_no_token(site: Site) -> None:
    check = [sys.executable, str(ROOT / "deploy/health_check.py"), site.server.address]
    assert run(check).returncode == 1
    assert run(check, MODELCATALOG_CLIENT_TLS_CA=str(site.ca)).returncode == 0
    elsewhere = {"MODELCATALOG_CLIENT_TLS_CA": str(site.ca), "MODELCATALOG_CLIENT_TLS_SERVER_NAME": "other.example"}
    assert run(check, **elsewhere).returncode == 1


def test_the_log_names_the_principal_and_never_a_token(site: Site) -> None:
    _, token = site.token("reader")
    until(lambda: site.is_known_everywhere(token))
    with ModelCatalogClient(site.server.address, token=token, tls=Tls(site.ca)) as client:
        client.get_model("openai/gpt-5")
    calls = until(lambda: [line for line in site.server.events if line.get("principal") == "reader-person"])
    assert {line["event"] for line in calls} == {"call"}
    assert "mcat_" not in site.server.stderr
    assert "mcat_" not in site.server.line


def test_a_bad_file_keeps_the_server_from_starting(database: str, services: Services, tmp_path: Path) -> None:
    file = tmp_path / "identities.toml"
    file.write_text('[[tokens]]\nid = "a"\nrole = "root"\n')
    own = {"MODELCATALOG_DATABASE_URL": database, "MODELCATALOG_REDIS_URL": services.redis_url}
    line = refused("serve", "--offline", "--listen", "127.0.0.1:0", "--tokens-file", str(file), **own)
    assert line.startswith(f"{file}: tokens[1].principal: Field required; tokens[1].role: ")


@pytest.mark.parametrize("life", ["90", "0d", "-1d", "1y", "4000d", "d", "1.5h", ""])
def test_a_life_that_is_none_is_refused(tmp_path: Path, life: str) -> None:
    file = tmp_path / "identities.toml"
    result = command(
        "token", "create", "--principal", "a", "--role", "reader", "--expires-in", life, "--file", str(file)
    )
    assert result.returncode == 2
    assert "must be like 30m, 12h or 90d" in result.stderr
    assert not file.exists()
