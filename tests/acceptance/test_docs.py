"""The documents are true: what they show is run and compared, what they list is held against the code.

In every page but docs/client.md:

* ``console``: lines that begin with ``$`` are run, what follows is what must come. JSON is cut down as one likes: what
  it says must be there. Other text: each line must come, in this order. ``…`` stands for anything, and ``<name>`` in a
  command for the value of that name in the answer before. make is only asked whether it would.
* ``python`` is run, and the ``text`` after it is what it must print.

Blocks in another language (``sh``, ``sql``) are not run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from acceptance.serving import COMMAND, GRPCURL, Serve, Server, command, run
from conftest import SNAPSHOT, Services
from modelcatalog.v1 import catalog_admin_service_pb2, model_catalog_service_pb2, refresh_service_pb2
from modelcatalog.v1.error_reason_pb2 import ErrorReason
from modelcatalog_client import RefreshNotFoundError
from modelcatalog_server.__main__ import cli
from modelcatalog_server.commands.server_options import VARIABLES
from modelcatalog_server.rpc.errors import TABLE
from modelcatalog_server.settings import PREFIX, Settings

pytest_plugins = "acceptance.fixtures"

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
PROTOS = (model_catalog_service_pb2, refresh_service_pb2, catalog_admin_service_pb2)
DEPLOY = [ROOT / "Dockerfile", *(path for path in sorted(ROOT.glob("deploy/**/*")) if path.is_file())]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_ROW = re.compile(r"^\| `(\w+)` \|(.*)\|$", re.MULTILINE)
_SETTING = re.compile(rf"(?<!_){PREFIX}[A-Z]+(?:_[A-Z]+)*")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Step:
    """A command of a block and what the page says that it prints."""

    command: str
    output: str


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2]) for match in _BLOCK.finditer(text)]


def read_steps(block: Block) -> list[Step]:
    parts = re.split(r"^\$ ((?:.*\\\n)*.*\n)", block.text, flags=re.MULTILINE)
    return [Step(command.strip(), output.strip()) for command, output in zip(parts[1::2], parts[2::2], strict=True)]


BLOCKS = [block for page in PAGES if page.name != "client.md" for block in read_blocks(page)]
(OWN_SERVERS,) = (block for block in BLOCKS if block.text.startswith("$ export "))
CONSOLE = [block for block in BLOCKS if block.language == "console" and block is not OWN_SERVERS]
PYTHON = [(block, following) for block, following in pairwise(BLOCKS) if block.language == "python"]


# --- examples ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(services: Services, serve_for_module: Serve, work_dir: Path) -> Iterator[Server]:
    """The service, started as README says for somebody's own servers. Its upstream is the bundled snapshot."""
    yield from start_as_documented(services, serve_for_module, work_dir)


@pytest.fixture(scope="module")
def changed_service(services: Services, serve_for_module: Serve, work_dir: Path) -> Iterator[Server]:
    """Another one, for what changes the catalog: the other pages show the first revision."""
    yield from start_as_documented(services, serve_for_module, work_dir)


@pytest.fixture
def service_of(block: Block, request: pytest.FixtureRequest) -> Server:
    """The one that a block is tried on."""
    server: Server = request.getfixturevalue("changed_service" if "UpdateProvider" in block.text else "service")
    return server


def start_as_documented(services: Services, serve_for_module: Serve, work_dir: Path) -> Iterator[Server]:
    name = f"mc_{uuid4().hex}"
    services.execute(f"CREATE DATABASE {name}")
    own = {"MODELCATALOG_DATABASE_URL": services.url_of(name), "MODELCATALOG_REDIS_URL": services.redis_url}
    *exports, migrate, serve = read_steps(OWN_SERVERS)
    assert {export.command.removeprefix("export ").partition("=")[0] for export in exports} == own.keys()
    check(migrate.output, run([*COMMAND, *shlex.split(migrate.command)[1:]], **own))
    upstream = work_dir / "upstream-of-docs"
    upstream.mkdir(exist_ok=True)
    shutil.copy(SNAPSHOT, upstream / "catalog.json.gz")
    never = "0 0 29 2 *"  # but in leap years
    flags = ["--listen", "127.0.0.1:0", "--upstream-url", upstream.as_uri()]
    flags += ["--refresh-full-cron", never, "--refresh-incremental-cron", never]
    server = serve_for_module(*shlex.split(serve.command)[2:], *flags, **own)
    check_ready_line(serve.output, server)
    with server.client() as client, suppress(RefreshNotFoundError):
        client.cancel_refresh(str(uuid4()))  # an event that is older than those of the pages
    yield server
    assert server.stop() == 0
    services.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("block", CONSOLE, ids=str)
def test_commands_print_what_the_page_says(block: Block, service_of: Server) -> None:
    service = service_of
    answer: Any = None
    for step in read_steps(block):
        if step.command.startswith("make "):
            result = make(*shlex.split(step.command)[1:])
            if step.output.startswith("modelcatalog "):
                check_ready_line(step.output, service)
            else:
                check(step.output, result)
            continue
        result = run_example(fill_in(at(service, step.command), answer), service)
        check(step.output, result)
        answer = read_documents(result.stdout)


def run_example(example: str, service: Server) -> subprocess.CompletedProcess[str]:
    """Run what a page shows as a shell does; of the command alone no shell is needed, nor a Python that starts."""
    told = {"MODELCATALOG_ADDRESS": service.address}
    words = shlex.split(example)
    if words[0] == ".venv/bin/modelcatalog" and not set(words) & {"|", ">", "&&"}:
        return command(*words[1:], **told)
    in_place = example.replace(".venv/bin/grpcurl", GRPCURL).replace(".venv/bin/", f"{BIN}/")
    return run(["sh", "-c", in_place], **told)


@pytest.mark.parametrize(("block", "output"), PYTHON, ids=str)
def test_programs_print_what_the_page_says(block: Block, output: Block, service: Server) -> None:
    assert output.language == "text"
    check(output.text.strip(), run([sys.executable, "-c", at(service, block.text)]))


def test_readme_says_what_is_not_there(service: Server) -> None:
    section = README.read_text().partition("## What is not there yet\n")[2].partition("\n##")[0]
    methods = [
        method for file in PROTOS for each in file.DESCRIPTOR.services_by_name.values() for method in each.methods
    ]
    said = {
        method for method in methods if {method.name, method.containing_service.name} & {*re.findall(r"\w+", section)}
    }
    assert {method.full_name for method in said} - {"modelcatalog.v1.RefreshService.StartRefresh"} == {
        method.full_name for method in methods if is_not_there(service, method)
    }


def test_the_health_check_of_the_image_tells_a_service_that_serves(service: Server) -> None:
    def health_check(*target: str) -> subprocess.CompletedProcess[str]:
        return run([sys.executable, str(ROOT / "deploy/health_check.py"), *target])

    assert health_check(service.address).returncode == 0
    assert health_check(service.address, "modelcatalog.accepting").returncode == 0
    assert health_check(service.address, "nothing").stderr.startswith("NOT_FOUND: ")
    nobody = health_check("127.0.0.1:1")
    assert nobody.returncode == 1
    assert nobody.stderr.startswith("UNAVAILABLE: ")
    assert len(nobody.stderr.splitlines()) == 1


def is_not_there(service: Server, method: MethodDescriptor) -> bool:
    path = f"/{method.containing_service.full_name}/{method.name}"
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    # On the wire the answer to a unary call is a stream of one.
    ask = service.channel.unary_stream(
        path, request_serializer=request.SerializeToString, response_deserializer=response.FromString
    )
    call = ask(request(), timeout=10)
    try:
        next(call)
    except grpc.RpcError as error:
        return bool(error.code() is grpc.StatusCode.UNIMPLEMENTED)
    finally:
        call.cancel()
    return False


def make(target: str) -> subprocess.CompletedProcess[str]:
    """Ask whether there is such a target. What it would do, it is not to do here; `help` does nothing else."""
    dry_run = ["--dry-run"] if target != "help" else []
    return run(["make", "--no-print-directory", *dry_run, "-C", str(ROOT), target])


def at(service: Server, text: str) -> str:
    """Have an example ask this service."""
    return text.replace("localhost:50051", service.address)


def check_ready_line(documented: str, server: Server) -> None:
    assert fits(documented.replace("127.0.0.1:50051", server.address), server.line), server.line


def check(documented: str, result: subprocess.CompletedProcess[str]) -> None:
    """Fail unless a command did what the page says."""
    came = result.stdout + result.stderr
    assert (result.returncode != 0) == documented.startswith(("ERROR:", "modelcatalog:")), came
    if documented.startswith("{"):
        answers = iter(read_documents(result.stdout))
        for wanted in read_documents(documented):
            assert any(covers(wanted, answer) for answer in answers), f"not in it: {wanted}\n{came}"
    else:
        lines = iter(came.splitlines())
        for wanted in documented.splitlines():
            assert any(fits(wanted, line) for line in lines), f"not in it: {wanted}\n{came}"


def covers(wanted: Any, answer: Any) -> bool:
    """Tell whether an answer has all that is wanted. A list must have just so many members."""
    match wanted:
        case dict():
            return isinstance(answer, dict) and all(
                key in answer and covers(value, answer[key]) for key, value in wanted.items()
            )
        case list():
            return isinstance(answer, list) and len(answer) == len(wanted) and all(map(covers, wanted, answer))
        case str():
            return isinstance(answer, str) and fits(wanted, answer)
        case _:
            return bool(wanted == answer)


def fits(wanted: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, wanted.split("…"))), text) is not None


def fill_in(command: str, answer: Any) -> str:
    """Put what an answer says in the place of each ``<name>``."""
    return re.sub(r"<(\w+)>", lambda name: find(answer, name[1]), command)


def find(answer: Any, name: str) -> str:
    """Return the first value of a name, depth first."""
    found = list(_find_all(answer, name))
    assert found, f"{name} is not in {answer}"
    return str(found[0])


def _find_all(answer: Any, name: str) -> Iterator[Any]:
    if isinstance(answer, dict):
        if name in answer:
            yield answer[name]
        for value in answer.values():
            yield from _find_all(value, name)
    elif isinstance(answer, list):
        for value in answer:
            yield from _find_all(value, name)


def read_documents(text: str) -> list[Any]:
    """Return the JSON documents of a text, which may be one after the other."""
    documents, decoder, position = [], json.JSONDecoder(), 0
    while position < len(text) and text[position] == "{":
        document, end = decoder.raw_decode(text, position)
        documents.append(document)
        position = end + len(text[end:]) - len(text[end:].lstrip())
    return documents


# --- lists ------------------------------------------------------------------------------------------------------


def test_every_setting_is_in_the_table_as_it_is() -> None:
    rows = {name: cells.split(" | ") for name, cells in read_table(ROOT / "docs/configuration.md").items()}
    settings = {f"{PREFIX}{name.upper()}": (name, field) for name, field in Settings.model_fields.items()}
    assert {name: [flag.strip(), default] for name, (flag, default, _) in rows.items()} == {
        variable: [f"`--{name.replace('_', '-')}`", shown(field.default)]
        for variable, (name, field) in settings.items()
    }


def test_no_page_speaks_of_a_setting_that_is_not_there() -> None:
    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for page in [*PAGES, *DEPLOY]:
        assert set(_SETTING.findall(page.read_text())) <= settings | {*VARIABLES}, page


def test_every_command_and_every_variable_of_a_client_is_on_its_page() -> None:
    page = (ROOT / "docs/commands.md").read_text()
    groups = {name: command for name, command in cli.commands.items() if isinstance(command, click.Group)}
    names = [f"{group} {name}" for group, command in groups.items() for name in command.commands]
    for name in [*names, *(cli.commands.keys() - groups.keys())]:
        assert f"`{name}`" in page, name
    for variable in VARIABLES:
        assert f"`{variable}`" in page


def test_every_reason_is_in_the_table_with_its_code() -> None:
    rows = read_table(ROOT / "docs/errors.md")
    reasons = {name.removeprefix("ERROR_REASON_") for name, _ in ErrorReason.items()}
    assert rows.keys() == reasons - {"UNSPECIFIED"}
    for code, reason in TABLE.values():
        assert rows[reason].startswith(f" {code.name} |"), reason
        assert "not sent yet" not in rows[reason]


def test_what_to_do_about_every_reason_is_in_the_guide() -> None:
    rows = read_table(ROOT / "docs/troubleshooting.md")
    reasons = {name.removeprefix("ERROR_REASON_") for name, _ in ErrorReason.items()}
    assert rows.keys() == reasons - {"UNSPECIFIED"}
    for reason, row in rows.items():
        caller, operator = (cell.strip() for cell in row.split(" | "))
        assert {caller, operator} != {"—"}, reason


def test_every_rpc_is_in_the_reference() -> None:
    headings = anchors(ROOT / "docs/reference.md")
    for file in PROTOS:
        for service in file.DESCRIPTOR.services_by_name.values():
            assert {service.name.lower(), *(method.name.lower() for method in service.methods)} <= headings


def test_every_pinned_dependency_has_its_reason() -> None:
    reasons = (ROOT / "docs/decisions/0002-dependencies.md").read_text()
    for requirements in ROOT.glob("requirements/*.in"):
        for name in re.findall(r"^([a-z][\w-]*)(?:\[\w+\])?==", requirements.read_text(), re.MULTILINE):
            assert re.search(rf"\b{name}\b", reasons) or name.startswith("types-"), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = Path(os.path.normpath(page.parent / path)) if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_reached() -> None:
    linked = {
        os.path.normpath(page.parent / link.partition("#")[0])
        for page in PAGES
        for link in _LINK.findall(page.read_text())
    }
    assert {str(page) for page in PAGES} - linked <= {str(README)}


def anchors(page: Path) -> set[str]:
    """Return what the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def read_table(page: Path) -> dict[str, str]:
    """Return the rows of a page's tables whose first cell is a name, by that name."""
    return {match[1]: match[2].rstrip() for match in _ROW.finditer(page.read_text())}


def shown(default: Any) -> str:
    """Return a default as the table shows it."""
    match default:
        case None:
            return "unset"
        case bool():
            return f"`{str(default).lower()}`"
        case float():
            return f"`{default:g}`"
        case _:
            return f"`{default}`"
