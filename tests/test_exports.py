"""What is public is said to be, and a light import stays light."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import workbench

ROOT = Path(workbench.__file__).parents[1]
HEAVY = ("torch", "pandas", "matplotlib", "IPython", "papermill", "sklearn", "starlette")
MODULES = [
    module.name
    for module in pkgutil.walk_packages(workbench.__path__, "workbench.")
    if module.name != "workbench.__main__"  # importing it runs it
]


def defined(tree: ast.Module) -> set[str]:
    """Return the names without underscore that a module itself makes."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {t.id for t in targets if isinstance(t, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def passed_on(tree: ast.Module, package: str) -> set[str]:
    """Return the names that a folder's `__init__`, or its stub, imports from the folder's files."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    inner = [n for n in imports if n.level or (n.module or "").startswith(f"{package}.")]
    return {alias.asname or alias.name for node in inner for alias in node.names}


@pytest.mark.parametrize("name", MODULES)
def test_all_is_what_is_public(name: str) -> None:
    module = importlib.import_module(name)
    tree = ast.parse(Path(str(module.__file__)).read_text())
    public = defined(tree)
    if hasattr(module, "__path__"):
        stub = Path(str(module.__file__)).with_suffix(".pyi")
        public |= passed_on(ast.parse(stub.read_text()) if stub.exists() else tree, name)
    if name.startswith("workbench.cli."):
        public &= set(module.__all__)  # commands belong to the command line, not to importers
    assert sorted(module.__all__) == sorted(public)
    assert all(hasattr(module, exported) for exported in public)


def test_every_public_name_is_there_and_listed() -> None:
    tree = ast.parse((ROOT / "workbench" / "__init__.pyi").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    names = {alias.asname or alias.name for node in imports for alias in node.names}
    assert names == set(vars(workbench)["__all__"])
    assert names <= set(dir(workbench))
    for name in names:
        assert getattr(workbench, name).__name__.rpartition(".")[2] == name


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="No workbench attribute fitt"):
        workbench.fitt  # type: ignore[attr-defined]  # noqa: B018


def loaded(code: str) -> list[str]:
    """Return which heavy modules a fresh process has loaded after `code`."""
    report = f"import sys; print(*[m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stderr.split()


def test_import_workbench_loads_nothing_heavy() -> None:
    assert loaded("import workbench") == []
    assert loaded("import torch")[:1] == ["torch"]  # the check can fail


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["serve", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import contextlib, runpy, sys
sys.argv = ["workbench", *{arguments}]
with contextlib.suppress(SystemExit):
    runpy.run_module("workbench", run_name="__main__")
"""
    assert loaded(code) == []


def test_training_draws_nothing_before_it_is_asked_to() -> None:
    assert "matplotlib" not in loaded("import workbench.training")
    assert "matplotlib" in loaded("import workbench.evaluation.plots; import matplotlib")
