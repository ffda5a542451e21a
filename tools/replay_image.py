"""Replays the Dockerfile in a bare Debian, where there is no container engine, and tries what comes out of it.

Run by ``make test-image``: as root, with debootstrap. What it cannot show is what an engine adds: the base image
(Debian's own Python of the same minor version stands in for it), layers, its own rules for COPY, and limits.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from subprocess import DEVNULL
from tempfile import TemporaryDirectory
from typing import Self

ROOT = Path(__file__).resolve().parents[1]
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
#: What pip and apt need to reach a registry from here; what is not set is not passed on.
PASSED_ON = re.compile(r"(?i)(https?|no)_proxy|PIP_(CERT|INDEX_URL)")


@dataclass
class Stage:
    """A stage of the Dockerfile: a root directory, and what the instructions have set."""

    root: Path
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    )
    directory: str = "/"
    user: str = "0:0"
    command: dict[str, list[str]] = field(default_factory=dict)

    def run(self, *command: str) -> None:
        """Run a command in the root, as a RUN does."""
        passed_on = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
        entered = ["chroot", str(self.root), "sh", "-c", f'cd "{self.directory}" && exec "$@"', "sh", *command]
        subprocess.run(entered, check=True, env={**passed_on, **self.environment})


class Replay:
    """Carries out the instructions that our Dockerfile has, and refuses others."""

    def __init__(self, base: Path, work: Path) -> None:
        self._base = base
        self._work = work
        self._stages: dict[str, Stage] = {}
        self.stage = Stage(base)

    def carry_out(self, line: str) -> None:
        """Carry out one instruction, written on one line."""
        name, _, rest = line.partition(" ")
        print(f"== {line[:110]}", flush=True)
        getattr(self, f"_do_{name.lower()}")(rest)

    def _do_from(self, rest: str) -> None:
        image, _, name = rest.partition(" AS ")
        origin = self._stages[image].root if image in self._stages else self._base
        root = self._work / (name or "final")
        subprocess.run(["cp", "--archive", origin, root], check=True)
        self.stage = self._stages[name] = Stage(root)

    def _do_run(self, rest: str) -> None:
        self.stage.run("sh", "-c", rest)

    def _do_env(self, rest: str) -> None:
        for pair in shlex.split(rest):
            key, _, value = pair.partition("=")
            self.stage.environment[key] = self._filled_in(value)

    def _do_arg(self, rest: str) -> None:
        self._do_env(rest)  # its default, as nobody gives another

    def _do_copy(self, rest: str) -> None:
        words = shlex.split(self._filled_in(rest))
        flags = dict(word[2:].split("=") for word in words if word.startswith("--"))
        *sources, target = [word for word in words if not word.startswith("--")]
        into = self.stage.root / Path(self.stage.directory, target).relative_to("/")
        origin = self._stages[flags["from"]].root if "from" in flags else None
        for source in sources:
            copied = _copy(origin, source, into / Path(source).name if target.endswith("/") else into)
            if "chmod" in flags:
                copied.chmod(int(flags["chmod"], 8))

    def _filled_in(self, text: str) -> str:
        return Template(text).safe_substitute(self.stage.environment)

    def _do_workdir(self, rest: str) -> None:
        self.stage.directory = rest
        (self.stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _do_user(self, rest: str) -> None:
        self.stage.user = rest

    def _do_healthcheck(self, rest: str) -> None:
        self.stage.command["healthcheck"] = json.loads(rest.partition("CMD ")[2])

    def _do_entrypoint(self, rest: str) -> None:
        self.stage.command["entrypoint"] = json.loads(rest)

    def _do_cmd(self, rest: str) -> None:
        self.stage.command["cmd"] = json.loads(rest)

    def _do_volume(self, rest: str) -> None:
        """Nothing: the container below has it."""

    _do_expose = _do_stopsignal = _do_volume


def _copy(origin: Path | None, source: str, target: Path) -> Path:
    if origin is not None:
        return Path(shutil.copytree(origin / source.lstrip("/"), target, symlinks=True, dirs_exist_ok=True))
    files = [name for name in _context() if name == source or name.startswith(f"{source}/")]
    assert files, f"{source} is not in the context: see .dockerignore"
    for name in files:
        place = target if name == source else target / Path(name).relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place)
    return target


def _context() -> list[str]:
    """Return the committed files that .dockerignore lets in, which leaves out all that it does not name."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files"], check=True, capture_output=True, text=True).stdout
    return [
        name for name in tracked.splitlines() if any(name == each or name.startswith(f"{each}/") for each in allowed)
    ]


def read_instructions(dockerfile: Path) -> Iterator[str]:
    """Yield the instructions, each on one line, without comments."""
    lines = [line for line in dockerfile.read_text().splitlines() if line.strip() and not line.startswith("#")]
    yield from (re.sub(r"\s+", " ", line) for line in re.sub(r"\\\n", " ", "\n".join(lines)).split("\n"))


class Container:
    """A process of the image: its user, no capabilities, no network, a root that cannot be written; a context manager.

    ``mounted`` are directories of this machine by the place where they are, with "rw" or "ro".
    """

    def __init__(self, stage: Stage, *arguments: str, mounted: dict[str, tuple[Path, str]], **environment: str) -> None:
        self._stage = stage
        self._environment = {**stage.environment, **environment}
        root = stage.root
        steps = [f"mount --bind {root} {root}"]
        for place, (directory, mode) in mounted.items():
            steps += [f"mount --bind {directory} {root}{place}", f"mount -o remount,bind,{mode} {root}{place}"]
        steps += [
            f"mount -o remount,bind,ro {root}",
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
        ]
        # What a network of its own lacks is its loopback.
        steps += ["ip link set lo up", 'exec "$@"']
        command = [*stage.command["entrypoint"], *stage.command["cmd"], *arguments]
        self._start = ["unshare", "--mount", "--net", "sh", "-ec", " && ".join(steps), "sh", *self._as_user(command)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._start, env=self._environment, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        began = time.monotonic()
        line = self._process.stdout.readline()
        if " ready on " not in line:
            raise SystemExit(f"it did not start: {line}")
        print(f"   after {time.monotonic() - began:.1f} s: {line.strip()}", flush=True)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        code = self._process.wait(60)
        print(f"   exit code {code} on SIGTERM", flush=True)
        if code:
            raise SystemExit(1)

    def run(self, command: list[str]) -> str:
        """Run a command where the process is; a failure ends it all."""
        entered = ["nsenter", "--target", str(self._process.pid), "--mount", "--net", *self._as_user(command)]
        return subprocess.run(entered, check=True, env=self._environment, stdout=subprocess.PIPE, text=True).stdout

    def _as_user(self, command: list[str]) -> list[str]:
        uid, gid = self._stage.user.split(":")
        fewer = ["--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"]
        who = ["--reuid", uid, "--regid", gid, "--clear-groups"]
        return [
            "chroot",
            str(self._stage.root),
            "setpriv",
            *fewer,
            *who,
            "env",
            "--chdir",
            self._stage.directory,
            *command,
        ]


def main() -> None:
    """Build the image and try it, with its own servers and with given ones."""
    if os.geteuid():
        raise SystemExit("it needs root, for chroot")
    with TemporaryDirectory(prefix="modelcatalog-image-") as work:
        build = Replay(make_base(Path(work)), Path(work))
        for instruction in read_instructions(ROOT / "Dockerfile"):
            build.carry_out(instruction)
        try_out(build.stage, Path(work))


def make_base(work: Path) -> Path:
    """Return a bare Debian of the release that the base image has, with Debian's own Python."""
    release = re.search(r"^FROM python:\S+-slim-(\w+) ", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert release is not None
    packages = "--include=python3,python3-venv,ca-certificates"
    base = work / "debian"
    print(f"== debootstrap {release[1]}", flush=True)
    subprocess.run(["debootstrap", "--variant=minbase", packages, release[1], base, MIRROR], check=True, stdout=DEVNULL)
    (base / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    for name in ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt"):  # how registries are reached from here
        shutil.copy(name, base / name.lstrip("/"))
    return base


def try_out(image: Stage, work: Path) -> None:
    """Have the image serve: with servers of its own in its volume, then with those as if they were somebody else's."""
    data, home = work / "data", "/var/lib/modelcatalog"
    shutil.copytree(image.root / home.lstrip("/"), data)
    os.chown(data, *map(int, image.user.split(":")))
    work.chmod(0o755)
    print("== serve, with its own servers", flush=True)
    with Container(image, "--offline", mounted={home: (data, "rw")}) as own:
        ask(own, image)
        print("== serve, with servers that are given, and nothing that it may write", flush=True)
        given = {
            "MODELCATALOG_DATABASE_URL": f"postgresql://modelcatalog@/modelcatalog?host={home}/run",
            "MODELCATALOG_REDIS_URL": f"unix://{home}/run/valkey.sock",
            "MODELCATALOG_DATA_DIR": "/nowhere",
            "MODELCATALOG_UPSTREAM_URL": "file:///mnt",
        }
        mounted = {home: (data, "ro"), "/mnt": (make_upstream(work), "ro")}
        with Container(image, mounted=mounted, **given) as container:
            ask(container, image)
            print(f"   {container.run(['modelcatalog', 'refresh', '--full', '--force']).splitlines()[0]}", flush=True)
    size = subprocess.run(["du", "-sm", image.root / "opt/modelcatalog"], check=True, capture_output=True, text=True)
    print(f"== the image adds {size.stdout.split()[0]} MB to its base")


def make_upstream(work: Path) -> Path:
    """Return a folder that serves as the upstream, since there is no network."""
    (snapshot,) = ROOT.glob("server/modelcatalog_server/modelsdev/snapshot/*.json.gz")
    upstream = work / "upstream"
    upstream.mkdir()
    shutil.copy(snapshot, upstream / "catalog.json.gz")
    return upstream


def ask(container: Container, image: Stage) -> None:
    """Run the health check and a command in the container, and see that it cannot write."""
    container.run(image.command["healthcheck"])
    answer = container.run(["modelcatalog", "models", "get", "openai/gpt-5"]).splitlines()
    print(f"   healthy; {answer[0]}", flush=True)
    container.run(["sh", "-c", "! touch /tmp/x /etc/x 2>/dev/null"])
    capabilities = container.run(["grep", "CapBnd", "/proc/self/status"]).split()[1]
    assert int(capabilities, 16) == 0, capabilities


if __name__ == "__main__":
    main()
