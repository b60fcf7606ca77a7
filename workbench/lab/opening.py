"""`open_lab`: JupyterLab on a folder, with the workbench's start notebook in front."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from workbench.errors import RequestError, RunEnvironmentError

__all__ = ["EXTENSIONS", "START", "open_lab", "server_root", "write_start"]

START = "workbench.ipynb"  # its cell shows `wb.widgets.home()`
EXTENSIONS = Path(__file__).parent / "extensions"  # JupyterLab loads what lies here as it is
_TEMPLATE = EXTENSIONS / "workbench-home" / "static" / START  # the tile writes it too, in the page


def open_lab(folder: Path, options: Sequence[str] = ()) -> None:
    """Run JupyterLab on a folder until it is stopped, the start notebook in front.

    It is Jupyter's own server with its own settings, token and questions.

    Args:
        folder: whose notebooks are shown.
        options: of `jupyter lab`, such as `--no-browser`.

    Raises:
        RequestError: there is no such folder, or it cannot be written to.
        RunEnvironmentError: JupyterLab is not installed.
    """
    if find_spec("jupyterlab") is None:
        raise RunEnvironmentError(
            "JupyterLab is not installed in this environment: pip install jupyterlab"
        )
    write_start(folder)
    from jupyterlab.labapp import LabApp  # type: ignore[import-untyped]

    LabApp.launch_instance(
        [
            f"--ServerApp.root_dir={folder.resolve()}",
            f"--LabApp.default_url=/lab/tree/{START}",
            f"--LabApp.extra_labextensions_path={EXTENSIONS}",
            *options,
        ]
    )


def write_start(folder: Path) -> Path:
    """Return the start notebook of a folder, which is written if there is none.

    Raises:
        RequestError: there is no such folder, or it cannot be written to.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise RequestError(f"{str(folder)!r} is {found}: pass a folder, in which notebooks are")
    path = folder / START
    if not path.exists():
        try:
            shutil.copyfile(_TEMPLATE, path)
        except OSError as error:
            raise RequestError(
                f"{path} cannot be written ({error.strerror}): pass a folder of your own"
            ) from None
    return path


def server_root() -> Path | None:
    """Return the folder that the Jupyter server shows which started this kernel, if one did.

    Paths of notebooks that the page is to open are given from there.
    """
    from jupyter_core.paths import jupyter_runtime_dir

    told = Path(jupyter_runtime_dir()) / f"jpserver-{os.getppid()}.json"
    try:
        return Path(json.loads(told.read_text("utf-8"))["root_dir"])
    except (OSError, ValueError, KeyError):
        return None
