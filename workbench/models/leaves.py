"""A model's leaves, the modules without modules inside, and a look at each as it works."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

__all__ = ["After", "watched"]

# Called with the name of a leaf, the leaf, what it was given and what it answered.
After = Callable[[str, nn.Module, tuple[Any, ...], Any], None]


@contextlib.contextmanager
def watched(
    model: nn.Module, after: After, *, before: Callable[[], None] | None = None
) -> Iterator[None]:
    """Call `after` each time that a leaf of the model has answered, for the while.

    A leaf that is used twice is met twice, under its first name; a model that is a leaf itself is
    called `(model)`.

    Args:
        model: any module; it gets hooks, and loses them at the end.
        after: called with name, leaf, inputs and answer.
        before: called when a leaf begins.
    """
    leaves = {m: name or "(model)" for name, m in model.named_modules() if not any(m.children())}

    def begin(*_: Any) -> None:
        if before is not None:
            before()

    def end(module: nn.Module, given: tuple[Any, ...], answer: Any) -> None:
        after(leaves[module], module, given, answer)

    hooks = [leaf.register_forward_pre_hook(begin) for leaf in leaves]
    hooks += [leaf.register_forward_hook(end) for leaf in leaves]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
