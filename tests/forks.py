"""What is done to the registry by processes that are killed, or by many of them at once.

They are forked from one that has torch ready and has computed nothing, which runs this file.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

__all__ = ["ACTIONS", "prepared", "storm"]

_CHANGING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "os.link")


def _model() -> Any:
    from workbench.datasets import load
    from workbench.models import build

    return build("linear", load("line"), seed=0)


def prepared(home: Path) -> None:
    """Fill the current home with net@1, which is champion, net@2, and a file of other@1."""
    from workbench.registry import export_version, promote, publish

    for name in ("net", "net", "other"):
        publish(_model(), name)
    promote("net@1", "champion")
    export_version("other@1", home / "other@1.zip")
    shutil.rmtree(home / "models" / "other")


def _publish() -> None:
    from workbench.registry import publish

    publish(_model(), "net")


def _promote() -> None:
    from workbench.registry import promote

    promote("net@2", "champion")


def _retire() -> None:
    from workbench.registry import retire

    retire("net@2")


def _import() -> None:
    from workbench.registry import import_version

    import_version(Path(os.environ["WORKBENCH_HOME"]) / "other@1.zip")


ACTIONS: dict[str, Callable[[], None]] = {
    "publish": _publish,
    "promote": _promote,
    "retire": _retire,
    "import": _import,
}


def storm(places: Path, actions: Iterable[str], processes: int, times: int) -> None:
    """Do each action in copies of the home `template`, and many in the home `together`.

    In the folder of the action the first home is that in which it was killed before its first
    operation on a file, and so on; in the last of them it came to its end.

    Args:
        places: has and gets the homes.
        actions: of `ACTIONS`.
        processes: that publish and promote at once.
        times: that each of them does so.
    """
    words = (str(places), str(processes), str(times), *actions)
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def _kill_everywhere(action: str, places: Path) -> None:
    for n in itertools.count(1):
        home = places / action / f"{n:03d}"
        shutil.copytree(places / "template", home)
        os.environ["WORKBENCH_HOME"] = str(home)
        child = os.fork()
        if child == 0:
            _die_at(n, str(home))
            ACTIONS[action]()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            return
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def _die_at(n: int, home: str) -> None:
    """Let this process end by SIGKILL before its nth operation below home, or amid a write."""
    left = itertools.count(n - 1, -1)

    def die() -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        changes = event in _CHANGING or (event == "open" and given[2] & writes)
        if (changes and any(home in str(word) for word in given)) or event == "os.truncate":
            die()

    def write(handle: int, content: bytes, write: Any = os.write) -> int:
        half = write(handle, content[: len(content) // 2])
        die()
        return int(half + write(handle, content[half:]))

    def fsync(handle: int, fsync: Any = os.fsync) -> None:
        die()
        fsync(handle)

    os.write, os.fsync = write, fsync  # type: ignore[assignment]
    sys.addaudithook(hook)


def _together(home: Path, processes: int, times: int) -> None:
    from workbench.registry import promote, publish

    os.environ["WORKBENCH_HOME"] = str(home)
    children = []
    for worker in range(processes):
        children.append(os.fork())
        if children[-1] == 0:
            for _ in range(times):
                made = publish(_model(), "net")
                promote(made.ref, "champion", why=f"by {worker}")
            os._exit(0)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    import torch

    import workbench.datasets
    import workbench.models
    import workbench.registry  # noqa: F401 - so that no fork has to

    torch.set_num_threads(1)
    for word in sys.argv[4:]:
        _kill_everywhere(word, Path(sys.argv[1]))
    _together(Path(sys.argv[1]) / "together", int(sys.argv[2]), int(sys.argv[3]))
