"""How a version says what its model is: by builder, by importable class, or as a program."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from workbench.attached import attached
from workbench.devices import device_of
from workbench.errors import RequestError, TamperedError
from workbench.evaluation.calls import Rows
from workbench.models import construct
from workbench.registry.programs import load_program
from workbench.registry.twins import made_alike
from workbench.types import JSON

__all__ = ["architecture_of", "load_state", "rebuild"]


def architecture_of(
    model: nn.Module, answers: Callable[[nn.Module], Mapping[str, Rows]]
) -> JSON | None:
    """Return the model's architecture as data, or None where only a program can hold it.

    `{"builder": name, "sizes": {...}}` for a built model; `{"class": "module:Name"}` for one whose
    class can be imported and called without arguments. Either way what it makes must have the
    model's modules and attributes and, given its weights, answer as it does: layers may have been
    replaced since it was built, and arguments of its class given.

    Args:
        model: to be stored.
        answers: what it, or its twin, answers to a few rows to compare by.
    """
    expected = answers(model)
    device = device_of(model)
    name = f"{type(model).__module__}:{type(model).__qualname__}"
    for way in (attached(model).architecture, {"class": name}):
        if way is None:
            continue
        try:
            twin = construct(way) if "builder" in way else _imported(name)
            load_state(twin, model.state_dict())
            if not made_alike(model, twin):
                continue
            found = answers(twin.to(device))
        except Exception:  # whatever a stranger's module or constructor raises, this is no way
            continue
        if list(found) == list(expected) and all(_same(found[k], expected[k]) for k in found):
            return way
    return None


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load tensors into a model that was just made, which takes their precision too.

    Raises:
        RuntimeError: they do not fit it.
    """
    precisions = {value.dtype for value in state.values() if value.is_floating_point()}
    if len(precisions) == 1:
        model.to(precisions.pop())  # with what is no part of the state
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if name in state:
            value.data = value.data.to(state[name].dtype)
    model.load_state_dict(state, strict=True)


def rebuild(architecture: JSON, folder: Path) -> nn.Module:
    """Return the model an architecture speaks of; its weights are still to be loaded.

    Args:
        architecture: of a version.
        folder: of the version, where a program's archive lies.

    Raises:
        RequestError: there is no such builder, or the class cannot be imported and made here.
        TamperedError: the architecture is of no known kind, or the program could run code.
    """
    if "builder" in architecture:
        return construct(architecture)
    if "class" in architecture:
        try:
            return _imported(architecture["class"])
        except Exception as error:  # a stranger's module or constructor raises what it likes
            raise RequestError(
                f"the model's class {architecture['class']!r} cannot be imported and made here: "
                f"{type(error).__name__}: {error}. Install or add to the path the module that "
                "defines it, as it was when the model was published"
            ) from error
    if "program" in architecture:
        return load_program(folder / "program.pt2")
    raise TamperedError(f"an architecture of no known kind: {sorted(architecture)}")


def _same(a: Rows, b: Rows) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return a == b
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.allclose(a, b, equal_nan=True) if a.is_floating_point() else torch.equal(a, b)


def _imported(name: str) -> nn.Module:
    """Return a fresh instance of `module:Class`, which must be a torch module's class."""
    module_name, _, qualified = name.partition(":")
    if module_name == "__main__":
        raise ImportError("a class of a notebook or script cannot be imported elsewhere")
    found = importlib.import_module(module_name)
    for part in qualified.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise TypeError(f"{name} is no torch module")
    with torch.random.fork_rng(devices=[]):
        return found()
