"""`open_lab`: JupyterLab on a folder, with the workbench's start notebook in front."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from workbench.errors import RequestError, RunEnvironmentError

__all__ = ["EXTENSIONS", "START", "open_lab", "write_start"]

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
