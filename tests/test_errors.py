"""One tree of errors, each also the builtin that people catch, each with its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import errors


@pytest.mark.parametrize(
    ("name", "builtin", "code"),
    [
        ("WorkbenchError", Exception, 1),
        ("RequestError", ValueError, 2),
        ("UnknownNameError", LookupError, 2),
        ("SourceError", OSError, 4),
        ("DivergedError", ArithmeticError, 1),
        ("RunError", RuntimeError, 1),
        ("RunEnvironmentError", RuntimeError, 4),
        ("RunInterruptedError", RuntimeError, 3),
        ("TamperedError", ValueError, 1),
        ("ServiceError", RuntimeError, 1),
    ],
)
def test_an_error_is_a_builtin_with_an_exit_code(
    name: str, builtin: type[Exception], code: int
) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.WorkbenchError)
    assert issubclass(error, builtin)
    assert error.exit_code == code


def test_the_drawn_tree_names_every_error() -> None:
    drawn = str(errors.__doc__)
    assert [n for n in errors.__all__ if n.endswith("Error") and n not in drawn] == []


def test_an_unknown_name_lists_what_there_is() -> None:
    error = errors.UnknownNameError("dataset", "zebra", ["mnist", "cifar10"])
    assert str(error) == "unknown dataset 'zebra': There are: cifar10, mnist."
    assert (error.kind, error.name, error.known) == ("dataset", "zebra", ["cifar10", "mnist"])


def test_an_unknown_name_says_when_there_is_nothing() -> None:
    error = errors.UnknownNameError("model", "net", [])
    assert str(error) == "unknown model 'net': There is no model yet."


def test_a_run_error_knows_its_folder(tmp_path: Path) -> None:
    assert errors.RunError("cell 3 raised", folder=tmp_path).folder == tmp_path
    assert errors.RunEnvironmentError("the kernel died").folder is None


def test_of_very_many_names_the_last_are_listed() -> None:
    known = [f"run-{number:03d}" for number in range(100)]
    said = str(errors.UnknownNameError("run", "xyz", known))
    assert said.startswith("unknown run 'xyz': There are 100, the last of them: run-070, ")
