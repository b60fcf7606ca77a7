"""The shipped notebooks for tests: which there are, their small size, their code run here."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib.pyplot as plt
import nbformat
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from workbench.serving import Service

__all__ = ["COURSE", "NOTEBOOKS", "SMALL", "code_cells", "play"]

NOTEBOOKS = sorted(
    path
    for path in (Path(__file__).parent.parent / "notebooks").glob("*.ipynb")
    if path.stem != "workbench"  # the start page, which `make lab` writes
)
COURSE = [path for path in NOTEBOOKS if path.stem < "06"]  # from linear regression to CIFAR-10
SMALL: dict[str, dict[str, Any]] = {
    **{path.stem: {"scale": 0.02} for path in COURSE},
    "gallery": {"epochs": 2.0},
    "13_serve_and_monitor": {"epochs": 12, "n_labels": 150},
}


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def play(path: Path, old: str = "", new: str = "") -> None:
    """Execute a notebook's code at its small size here, up to what it raises, one text replaced."""
    sources = [cell.source for cell in code_cells(path)]
    assert not old or sum(source.count(old) for source in sources) == 1, f"not once there: {old}"
    names: dict[str, Any] = {"__name__": "__main__"}
    one = threadpool_limits(1)  # two would wait for each other while other tests run
    with one, warnings.catch_warnings(), plt.rc_context(), contextlib.chdir(path.parent):
        warnings.simplefilter("ignore")  # a planted bug may well be warned of
        try:
            for number, source in enumerate(sources):
                exec(compile(source.replace(old, new), f"{path.name}:{number}", "exec"), names)
                names.update(SMALL[path.stem] if number == 0 else {})  # after the parameters' cell
        finally:
            plt.close("all")
            _end(names)


def _end(names: Mapping[str, Any]) -> None:
    """Stop and remove what a notebook that was cut short had begun."""
    for value in names.values():
        if isinstance(value, Service):
            value.stop()
        elif isinstance(value, TemporaryDirectory):
            value.cleanup()
