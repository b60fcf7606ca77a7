"""Whether two modules were made alike: what a few rows do not exercise, their attributes tell."""

from __future__ import annotations

import math
from types import FunctionType
from typing import Any
from weakref import ReferenceType

import torch
from torch import Tensor, nn

__all__ = ["made_alike"]

_TORCHS_OWN = frozenset(vars(nn.Module()))  # state, children, hooks and the mode, not arguments


def made_alike(model: nn.Module, twin: nn.Module) -> bool:
    """Return whether both have the same modules of the same types with the same attributes.

    Arguments of a constructor live on in attributes: a rate of dropout, a cap, a list of widths.
    What cannot be compared counts as different.

    Args:
        model: whose state is loaded into `twin`; states are not compared here.
        twin: made by the class, or the builder, of `model`.
    """
    first, second = dict(model.named_modules()), dict(twin.named_modules())
    return list(first) == list(second) and all(
        _name(first[name]) == _name(second[name])
        and _equal(_attributes(first[name]), _attributes(second[name]))
        for name in first
    )


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {key: value for key, value in vars(module).items() if key not in _TORCHS_OWN}


def _name(value: object) -> tuple[str, str]:
    """Return what names the type; a parametrized layer's is made anew for each."""
    return type(value).__module__, type(value).__qualname__


def _equal(a: Any, b: Any) -> bool:
    if a is b or isinstance(a, ReferenceType):  # an LSTM holds such to its own weights
        return True
    if _name(a) != _name(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu())
    parts, others = _parts(a), _parts(b)
    if parts is None or others is None:
        return bool(a == b) or (isinstance(a, float) and math.isnan(a) and math.isnan(b))
    return parts.keys() == others.keys() and all(_equal(parts[k], others[k]) for k in parts)


def _parts(value: Any) -> dict[Any, Any] | None:
    """Return what a value is made of, or None where it says itself what it is equal to."""
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    if isinstance(value, nn.Module):  # one torch was not told of: its weights are not stored
        state = dict(value.state_dict())
        return {**_attributes(value), "its state": state, "its modules": list(value.children())}
    if isinstance(value, FunctionType):  # made in a constructor, it may keep arguments in cells
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return {"code": value.__code__, "cells": cells, "defaults": value.__defaults__}
    if isinstance(value, dict):
        return value
    owns_no_equality = not any("__eq__" in vars(cls) for cls in type(value).__mro__[:-1])
    return vars(value) if owns_no_equality and hasattr(value, "__dict__") else None
