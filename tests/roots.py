"""A container's root file system built from its Containerfile, and run, without an engine.

mmdebstrap makes what stands in for the base image: the same Debian with its own Python in the place
of the image's. bubblewrap executes the steps in it, and later the command, as an engine would: in
namespaces of its own, as the user of the file, with the root read-only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

import psutil

__all__ = ["TOOLS", "Container", "Image", "build", "steps"]

TOOLS = ("mmdebstrap", "bwrap", "nsenter")  # that this needs, and root
_PACKAGES = "python3.11-minimal,libpython3.11-stdlib,python3.11-venv,ca-certificates"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Image:
    """What a Containerfile comes to.

    Args:
        root: folder of its files.
        env: variables of its processes.
        user: number of user and of group.
        workdir: where they start.
        words: of its other instructions, the last of each.
    """

    root: Path
    env: Mapping[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    user: tuple[str, str] = ("0", "0")
    workdir: str = "/"
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def entrypoint(self) -> list[str]:
        """The command, in exec form."""
        return list(json.loads(self.words["ENTRYPOINT"]))

    @property
    def healthcheck(self) -> list[str]:
        """What asks whether it lives, in exec form."""
        return list(json.loads(self.words["HEALTHCHECK"].partition("CMD")[2]))

    @property
    def size(self) -> int:
        """Bytes on the disk; a file of several names counts once."""
        told = subprocess.run(
            ["du", "-sx", "--block-size=1", self.root], check=True, capture_output=True, text=True
        )
        return int(told.stdout.split()[0])

    def files(self) -> Iterator[Path]:
        """Yield every folder and file of it that is no link."""
        for folder, _, names in os.walk(self.root):
            yield Path(folder)
            yield from (path for n in names if not (path := Path(folder, n)).is_symlink())


class Container:
    """A process in an image, the first of its own namespaces, without a network.

    Args:
        image: whose root it sees, read-only.
        words: of the command.
        volume: folder that it may write, at `/var/lib/workbench`.
        env: more variables.
    """

    def __init__(
        self, image: Image, words: Sequence[str], volume: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self._image = replace(image, env={**image.env, **(env or {})})
        more = ["--unshare-net", "--bind", str(volume), "/var/lib/workbench"]
        self.log = volume.with_suffix(".log")  # an engine keeps what is said on stderr too
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                _inside(self._image, "--ro-bind", words, *more),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def first(self) -> psutil.Process:
        """Return its first process, to which an engine sends its signals."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def end(self) -> None:
        """Kill what is left of it."""
        with contextlib.suppress(ValueError, psutil.NoSuchProcess):
            self.first().kill()
        self.process.communicate()

    def begin(self, words: Sequence[str]) -> subprocess.Popen[str]:
        """Begin a command beside its first process, as `podman exec` does."""
        user, group = self._image.user
        told = [f"{name}={value}" for name, value in self._image.env.items()]
        entered = ["nsenter", f"--target={self.first().pid}", "--mount", "--net", "--pid", "--ipc"]
        entered += [f"--setuid={user}", f"--setgid={group}", "env", "-i", *told]
        return subprocess.Popen(
            [*entered, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def execute(self, words: Sequence[str]) -> str:
        """Return what a command says that is executed beside its first process.

        Raises:
            AssertionError: it fails.
        """
        process = self.begin(words)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
        return said


def steps(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Containerfile: the word and the rest, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [line.partition(" ") for line in joined.splitlines() if line]
    return [(word, rest) for word, _, rest in found]


def build(containerfile: Path, context: Path, folder: Path) -> Image:
    """Return the image of a Containerfile.

    Args:
        containerfile: to build.
        context: folder that COPY copies from.
        folder: an empty one, for the roots.

    Raises:
        subprocess.CalledProcessError: a step failed.
    """
    base = folder / "base"
    made = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}"]
    subprocess.run([*made, "bookworm", base], check=True)
    for name in ("python", "python3"):
        (base / "usr/local/bin" / name).symlink_to("/usr/bin/python3.11")
    stages: dict[str, Image] = {}
    image = Image(base)
    for word, rest in steps(containerfile.read_text(encoding="utf-8")):
        if word == "FROM":
            _, _, name = rest.partition(" AS ")
            image = Image(folder / (name or "final"))
            subprocess.run(["cp", "--archive", base, image.root], check=True)
            stages[name] = image
        else:
            image = _step(image, word, rest, context, stages)
    return image


def _step(image: Image, word: str, rest: str, context: Path, stages: Mapping[str, Image]) -> Image:
    """Return what an image is after one instruction."""
    if word == "RUN":
        lent, more = _lent()
        shell = replace(image, env={**image.env, **lent})
        subprocess.run(_inside(shell, "--bind", ["sh", "-c", rest], *more), check=True)
    elif word == "COPY":
        _copy(image, rest.split(), context, stages)
    elif word == "ENV":
        pairs = re.findall(r"(\w+)=(\S+)", rest)
        told = {name: Template(value).safe_substitute(image.env) for name, value in pairs}
        return replace(image, env={**image.env, **told})
    elif word == "USER":
        user, _, group = rest.partition(":")
        return replace(image, user=(user, group))
    elif word == "WORKDIR":
        (image.root / rest[1:]).mkdir(parents=True, exist_ok=True)
        return replace(image, workdir=rest)
    return replace(image, words={**image.words, word: rest})


def _copy(image: Image, words: Sequence[str], context: Path, stages: Mapping[str, Image]) -> None:
    source = context
    if words[0].startswith("--from="):
        source, words = stages[words[0].removeprefix("--from=")].root, words[1:]
    *names, to = words
    place = image.root / image.workdir[1:] / to if not to.startswith("/") else image.root / to[1:]
    for name in names:
        found = source / name.lstrip("/")
        if found.is_dir():  # its content goes, as COPY has it
            ignored = shutil.ignore_patterns("__pycache__") if source is context else None
            shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True, ignore=ignored)
        else:
            shutil.copy2(found, place)


def _inside(image: Image, how: str, words: Sequence[str], *more: str) -> list[str]:
    """Return the command that executes `words` in an image, as process 1 of its namespaces.

    Args:
        image: the root, variables, user and folder.
        how: the root is mounted, `"--bind"` or `"--ro-bind"`.
        words: of the command.
        more: options of bubblewrap.
    """
    user, group = image.user
    told = [word for pair in image.env.items() for word in ("--setenv", *pair)]
    return [
        *("bwrap", how, str(image.root), "/", "--dev", "/dev", "--proc", "/proc"),
        *("--perms", "1777", "--tmpfs", "/tmp", "--perms", "1777", "--tmpfs", "/dev/shm"),
        *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1"),
        *("--cap-add", "ALL", "--clearenv", *told, *more),
        *("--chdir", image.workdir, "--", "setpriv", "--reuid", user, "--regid", group),
        *("--clear-groups", *(("--no-new-privs",) if user != "0" else ()), "--", *words),
    ]


def _lent() -> tuple[dict[str, str], list[str]]:
    """Return what a build has of this machine's pip, of which nothing stays: variables, mounts."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    )
    found = re.findall(r"^(?::env:|global)\.([\w-]+)='(.*)'$", told.stdout, flags=re.MULTILINE)
    lent = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in found}
    mounts = []
    for word in {word for value in lent.values() for word in value.split()}:
        path = Path(urlsplit(word).path).parent if word.startswith("file:") else Path(word)
        if path.is_absolute() and path.exists():
            mounts += ["--ro-bind", str(path), str(path)]
    return lent, [*mounts, "--ro-bind", "/etc/resolv.conf", "/etc/resolv.conf"]
