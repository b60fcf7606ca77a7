"""The parent of warm runs: `python -m workbench.runs.forking ADDRESS` imports, then forks.

It does nothing else, so that nothing but imports is there to be inherited: no thread besides those
of OpenBLAS, which survive a fork, no socket of a kernel, no event loop.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import random
import selectors
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from workbench.beginnings import leave
from workbench.errors import WorkbenchError
from workbench.runs.execution import work
from workbench.types import JSON

__all__ = ["main"]

# What a notebook about deep learning and the process that runs it would import anyway.
_PRELOADED = (
    *("numpy", "pandas", "torch", "torch._dynamo", "torch.utils.data"),
    "matplotlib.pyplot",  # not its inline backend, which looks for IPython as it is imported
    *("papermill", "papermill.clientwrap", "nbformat", "ipykernel.ipkernel", "ipykernel.kernelapp"),
    *("workbench.training", "workbench.registry", "workbench.runs.engine"),
)
_NEEDED: dict[str, type] = {"environment": dict, "folder": str, "log": str}  # of every request
_KINDS: dict[str, tuple[str, type]] = {"kernel": ("arguments", list), "run": ("file", str)}
_LEAVING = 2.5  # seconds that the threads of a fork have to end


def main() -> None:
    """Import, say `ready`, fork as long as stdin is open; in a fork, become what was asked for."""
    address = sys.argv[1]
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder that this began in is no notebook's
    relative = _relative_paths()
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    before = set(os.environ)
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment] # as in the command line
    for name in _PRELOADED:
        importlib.import_module(name)
    del sys.modules["rfc3987_syntax"]  # for whoever wants it in a notebook
    imported = {name: os.environ[name] for name in os.environ if name not in before}
    if threading.active_count() > 1:
        sys.exit("an import has started a thread, so nothing can be forked")
    gc.collect()
    gc.freeze()  # else a collection in a fork would copy every page
    request = _Nursery(address).request()
    if request is not None:
        request["environment"] = {**imported, **request["environment"]}
        leave(_LEAVING, _become(request, address, relative))


class _Nursery:
    """Forks a process for each connection, and tells it the process id and later the exit code.

    Args:
        address: of the socket to listen at.
    """

    def __init__(self, address: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(64)
        self._ends, self._wakes = socket.socketpair()
        self._wakes.setblocking(False)
        self._ends.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        self._lines: dict[int, socket.socket] = {}  # by process id
        self._asking: dict[socket.socket, bytes] = {}  # and what has come of a request
        self._watched = selectors.DefaultSelector()
        for source in (self._listener, self._ends, sys.stdin):
            self._watched.register(source, selectors.EVENT_READ)

    def request(self) -> JSON | None:
        """Return what to become, in a fork; None in the parent, once stdin is closed."""
        print("ready", flush=True)
        while True:
            for key, _ in self._watched.select():
                source: Any = key.fileobj
                if source is sys.stdin:
                    signal.set_wakeup_fd(-1)  # nobody listens to it any more
                    self._kill_all()
                    return None
                if source is self._ends:
                    self._ends.recv(4096)
                    self._reap()
                elif source is self._listener:
                    line, _ = self._listener.accept()
                    line.setblocking(False)
                    self._asking[line] = b""
                    self._watched.register(line, selectors.EVENT_READ)
                elif source in self._asking:
                    asked = self._hear(source)
                    if asked is not None:
                        return asked
                else:  # whoever asked for it is gone, and needs it no more
                    self._kill(source)

    def _hear(self, line: socket.socket) -> JSON | None:
        """Take what has come of a request; return it in a fork, once it is whole."""
        try:
            came = line.recv(65536)
        except OSError:
            came = b""
        self._asking[line] += came
        if came and not came.endswith(b"\n"):
            return None
        request = _request(self._asking.pop(line))
        forked = request and self._fork(line)
        if forked is None:
            self._watched.unregister(line)
            line.close()
        return request if forked == 0 else None

    def _fork(self, line: socket.socket) -> int | None:
        """Fork; return 0 in the fork, its process id in the parent, None if there can be none."""
        try:
            pid = os.fork()
        except OSError:  # too many processes, or too little memory, by now
            return None
        if pid == 0:
            self._leave(line)
            return 0
        os.setpgid(pid, pid)
        self._lines[pid] = line
        self._tell(line, pid)
        return pid

    def _leave(self, line: socket.socket) -> None:
        """Let go of everything that is the parent's."""
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._watched.close()
        lines = (line, *self._lines.values(), *self._asking)
        for source in (self._listener, self._ends, self._wakes, *lines):
            source.close()

    def _reap(self) -> None:
        """Tell of every child that has ended."""
        while self._lines:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            line = self._lines.pop(pid, None)
            if line is not None:
                self._watched.unregister(line)
                self._tell(line, os.waitstatus_to_exitcode(status))
                line.close()

    def _tell(self, line: socket.socket, number: int) -> None:
        try:
            line.sendall(b"%d\n" % number)
        except OSError:
            return  # it is gone, and its line will say so

    def _kill(self, line: socket.socket) -> None:
        pid = next((pid for pid, theirs in self._lines.items() if theirs is line), None)
        if pid is None:  # it has ended in this very moment
            return
        self._watched.unregister(line)
        line.close()
        del self._lines[pid]
        _kill_group(pid)
        os.waitpid(pid, 0)

    def _kill_all(self) -> None:
        for pid in self._lines:
            _kill_group(pid)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _request(line: bytes) -> JSON | None:
    """Return a request if it is one that can be followed."""
    try:
        request = json.loads(line)
    except ValueError:
        return None
    if not isinstance(request, dict) or request.get("kind") not in [*_KINDS]:
        return None
    needed = [*_NEEDED.items(), _KINDS[request["kind"]]]
    return request if all(isinstance(request.get(name), kind) for name, kind in needed) else None


def _relative_paths() -> dict[str, str]:
    """Return the entries of PYTHONPATH that are others in another folder, by what they are here."""
    given = os.environ.get("PYTHONPATH")
    entries = given.split(os.pathsep) if given else []
    return {os.path.abspath(entry): entry for entry in entries if not os.path.isabs(entry)}


def _become(request: JSON, address: str, relative: dict[str, str]) -> int:
    """Become a kernel or a run, as a cold process of its own would be; return its exit code."""
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[:] = [os.path.abspath(relative[p]) if p in relative else p for p in sys.path]
    _read_matplotlibrc()
    _say_into(request["log"])
    _seed_anew()
    if request["kind"] == "kernel":
        return _become_kernel(request["arguments"])
    return _become_run(Path(request["file"]), address)


def _become_kernel(arguments: list[str]) -> int:
    from ipykernel.kernelapp import launch_new_instance

    launcher = importlib.util.find_spec("ipykernel_launcher")
    parent = str(os.getppid())
    os.environ.setdefault("JPY_PARENT_PID", parent)
    sys.argv = [str(launcher and launcher.origin), *arguments]
    sys.modules["pandas"].set_option("display.max_columns", 20)  # what it chooses in a kernel
    # of which ipykernel has taken note as it was imported, in the parent
    launch_new_instance(argv=[*arguments, f"--IPKernelApp.parent_handle={parent}"])
    return 0


def _become_run(folder: Path, address: str) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        work(folder, warm=address)
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 3
    except Exception:  # a defect, which is told as Python would
        traceback.print_exc()
        return 1
    return 0


def _say_into(log: str) -> None:
    """Let stdout and stderr go to a file, and stdin come from nowhere."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for given, number in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(given, number)
    os.close(nothing)
    os.close(file)


def _read_matplotlibrc() -> None:
    """Let the matplotlibrc of this folder count, as where matplotlib is imported in it."""
    matplotlib = sys.modules["matplotlib"]
    found = matplotlib.rc_params()
    for params in (matplotlib.rcParams, matplotlib.rcParamsOrig):
        params.update({name: found[name] for name in found if name != "backend"})


def _seed_anew() -> None:
    """Give this process random numbers that no other fork has, as a cold one would."""
    import numpy

    random.seed()
    numpy.random.seed()


if __name__ == "__main__":
    main()
