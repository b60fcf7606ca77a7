"""The container and the unit of docs/: what an engine would build is built, asked and ended."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from roots import TOOLS, Container, Image, build, steps

from workbench.serving.listening import DRAIN

DOCS = Path(__file__).parents[1] / "docs"
PUBLISH = """
import numpy, workbench as wb
x = numpy.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=numpy.uint8)
model = wb.build("convnet", wb.dataset("noise", train=(x, numpy.arange(64) % 10)), seed=0)
wb.promote(wb.publish(model, "noise", example=x[:2]).ref, "champion")
"""
ASK = """
import sys, threading, urllib.request, numpy
from workbench.serving import find_service
found = find_service("noise")
def ask():
    rows = numpy.zeros((int(sys.argv[1]), 32, 32, 3), numpy.uint8)
    print(found.client().infer("noise", {"input": rows})["output"].shape, flush=True)
asking = threading.Thread(target=ask)
asking.start()
told = urllib.request.Request(f"{found.url}/metrics", headers={"X-Workbench-Token": found.token})
waiting = False
while asking.is_alive() and not waiting:
    waiting = b"workbench_requests_waiting 1.0" in urllib.request.urlopen(told).read()
print("under way" if waiting else "over", flush=True)
"""
FILTER = """
import ctypes, os, sys
library = ctypes.CDLL("libseccomp.so.2")
library.seccomp_init.restype = ctypes.c_void_p
rules = ctypes.c_void_p(library.seccomp_init(0x00050001))  # EPERM for all others
for name in sys.argv[1].split():
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number >= 0:
        assert library.seccomp_rule_add(rules, 0x7FFF0000, number, 0) == 0
assert library.seccomp_load(rules) == 0
try:
    os.chown(".", -1, -1)  # which the owner of a folder may, and no filter lets him
    print("no filter")
except PermissionError:
    os.execvp(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.getuid() != 0 or missing:
        pytest.skip(f"needs root, and {', '.join(missing) or 'nothing else'}")
    folder = tmp_path_factory.mktemp("roots")
    yield build(DOCS / "Containerfile", DOCS.parent, folder)
    shutil.rmtree(folder)  # gigabytes, which pytest would keep


@pytest.fixture
def volume(image: Image, tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    shutil.copytree(image.root / "var/lib/workbench", folder)
    os.chown(folder, *map(int, image.user))
    publishing = Container(image, ["python", "-c", PUBLISH], folder)
    assert publishing.process.communicate(timeout=120)[0] == "", publishing.log.read_text()
    assert publishing.process.returncode == 0, publishing.log.read_text()
    return folder


@contextmanager
def serving(
    image: Image, words: list[str], volume: Path, **env: str
) -> Iterator[tuple[Container, list[str]]]:
    container = Container(image, words, volume, env)
    out = container.process.stdout
    assert out is not None
    try:
        yield container, [out.readline().strip(), out.readline().strip()]
    finally:
        container.end()


def unit() -> list[tuple[str, str]]:
    text = (DOCS / "workbench.service").read_text(encoding="utf-8").replace("\\\n", "")
    found = re.findall(r"^(\w+)=(.*)$", text, flags=re.MULTILINE)
    return [(name, value) for name, value in found]


@pytest.mark.full
def test_a_model_is_served_from_a_read_only_root_and_drained(image: Image, volume: Path) -> None:
    words = [*image.entrypoint, "noise@champion", "--workers", "2", "--reload"]
    with serving(image, words, volume) as (container, said):
        assert said == ["http://127.0.0.1:8000", "noise@1; its token: workbench token noise"]
        assert container.execute(image.healthcheck) == ""
        assert {"1"} == set(
            re.findall(r"process (\d+)", container.execute(["workbench", "services"]))
        )
        asking = container.begin(["python", "-c", ASK, "8000"])
        assert asking.stdout is not None
        assert asking.stdout.readline() == "under way\n"
        container.first().terminate()
        assert asking.communicate(timeout=60)[0] == "(8000, 10)\n"
        container.process.communicate(timeout=60)
        assert container.process.returncode == 0
    assert not list((volume / "services").glob("*.json"))


@pytest.mark.full
def test_after_kill_9_the_next_start_is_clean(image: Image, volume: Path) -> None:
    words = [*image.entrypoint, "noise"]
    with serving(image, words, volume) as (container, _):
        container.first().kill()
        container.process.wait(timeout=20)
    assert (volume / "services/noise.json").exists()  # with process 1, which the next one is too
    with serving(image, words, volume) as (container, said):
        assert said[0] == "http://127.0.0.1:8000"
        assert "(2, 10)" in container.execute(["python", "-c", ASK, "2"]).splitlines()


@pytest.mark.full
def test_nothing_in_the_image_is_secret_or_can_be_changed(image: Image) -> None:
    user = int(image.user[0])
    for path in image.files():
        found, name = path.lstat(), str(path.relative_to(image.root))
        if name == "var/lib/workbench":
            assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (user, 0o700)
            assert list(path.iterdir()) == []
        elif not stat.S_ISCHR(found.st_mode):
            assert found.st_uid != user, name
            assert not found.st_mode & stat.S_IWOTH or found.st_mode & stat.S_ISVTX, name
    lines = (DOCS / "Containerfile").read_text(encoding="utf-8")
    assert not [name for name in image.env if "TOKEN" in name or name.startswith("PIP_")]
    assert "TOKEN" not in "".join(rest for _, rest in steps(lines))
    assert not list(image.root.glob("opt/workbench/lib/*/site-packages/pip"))


@pytest.mark.full
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_the_command_of_the_unit_serves_with_its_system_calls_alone(
    image: Image, volume: Path
) -> None:
    for name in ("token", "admin-token"):
        (volume / name).write_text(f"{name}-of-a-file\n")
    told = dict(unit())
    command = shlex.split(told["ExecStart"].replace("$$", "$"))
    allowed = calls("@system-service") - calls("@privileged")
    words = ["python", "-c", FILTER, " ".join(sorted(allowed)), *command]
    env = {"CREDENTIALS_DIRECTORY": "/var/lib/workbench", "MODEL": "noise"}
    with serving(image, words, volume, **env, OPTIONS="--workers 2 --reload") as (container, said):
        assert said[1] == "noise@1; its token: workbench token noise"
        assert "(300, 10)" in container.execute(["python", "-c", ASK, "300"]).splitlines()
        processes = [container.first(), *container.first().children(recursive=True)]
        assert len(processes) > 2
        assert "of-a-file" not in str([process.cmdline() for process in processes])
        assert container.execute(["workbench", "token", "noise"]) == "token-of-a-file\n"
        container.first().terminate()
        container.process.communicate(timeout=60)
        assert container.process.returncode == 0


def calls(name: str) -> set[str]:
    """Return the system calls of one of systemd's sets."""
    told = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], check=True, capture_output=True, text=True
    )
    words = [
        line.strip() for line in told.stdout.splitlines()[1:] if not line.strip().startswith("#")
    ]
    inner = [calls(word) for word in words if word.startswith("@")]
    return {word for word in words if not word.startswith("@")}.union(*inner)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit_and_finds_little_exposed() -> None:
    told = subprocess.run(
        ["systemd-analyze", "verify", DOCS / "workbench.service"], check=True, capture_output=True
    )
    assert (told.stdout, told.stderr) == (b"", b"")
    looked = ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager"]
    subprocess.run([*looked, DOCS / "workbench.service"], check=True, capture_output=True)


def test_the_unit_gives_a_service_the_time_to_end() -> None:
    told = dict(unit())
    assert int(told["TimeoutStopSec"]) > DRAIN + 15 + 20  # of the supervisor, and of its jobs
    assert f"/var/lib/{told['StateDirectory']}" == told["WorkingDirectory"]
    assert "TOKEN=" not in " ".join(value for name, value in unit() if name == "Environment")


def test_the_container_runs_one_command_as_a_numbered_user() -> None:
    found = steps((DOCS / "Containerfile").read_text(encoding="utf-8"))
    words = [word for word, _ in found]
    bases = [rest.split()[0] for word, rest in found if word == "FROM"]
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base) for base in bases)
    assert dict(found)["ENTRYPOINT"].startswith('["workbench", "serve",')  # SIGTERM arrives
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", dict(found)["USER"])
    assert words.index("USER") < words.index("ENTRYPOINT")
