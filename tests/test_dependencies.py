"""What `pyproject.toml` declares is what the code imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
USED_AS_PROGRAMS = {  # by `make lab`, and in its pages; nbclient's version is in records too
    *("jupyterlab", "nbclient", "ipywidgets"),
}


def declared(extra: str | None = None) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {normal(re.split(r"[\[<>=]", line)[0]) for line in lines}


def imported() -> set[str]:
    """Return the top names that the package imports, wherever in a module."""
    names = set()
    for path in (ROOT / "workbench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - {"workbench", *sys.stdlib_module_names}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_imported_is_declared_and_the_reverse() -> None:
    known = packages_distributions()
    needed = {normal(known[name][0]) for name in imported()}
    alone = needed - declared() - {"pytest"}  # whose plugin is loaded by pytest itself
    assert alone <= declared("export")
    assert declared() - needed <= USED_AS_PROGRAMS


def test_what_make_runs_comes_with_the_test_extra() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for tool in ("pytest", "ruff", "mypy", "nbconvert"):
        assert tool in makefile
        assert tool in declared("test") | declared()
