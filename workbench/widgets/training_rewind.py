"""`Rewind`: what a page asks of the steps of a training, done in a thread while cells go on."""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch

from workbench.determinism import apart
from workbench.errors import RequestError, WorkbenchError
from workbench.training import Training
from workbench.types import JSON
from workbench.widgets.figures import plain_row
from workbench.widgets.images import address_of, brightest

__all__ = ["ASKS", "Rewind"]

ASKS = ("weights", "blame", "branch", "cancel")
_HARDEST = 10  # rows of a batch that are shown
_PIXELS = 96  # of an image's longer side


class _CancelledError(Exception):
    """Somebody does not want it any more."""


class Rewind:
    """Goes back in one training for a page: one thing at a time, in a thread of its own.

    Args:
        training: to go back in.
        join: called with a branch before its first step, to show it beside.
    """

    def __init__(self, training: Training, join: Callable[[Training], None]) -> None:
        self._training, self._join = training, join
        self._doing = self._problem = ""
        self._done = (0, 0)
        self._found: JSON = {}
        self._is_told, self._cancelled = True, False
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether something is being done, or its end was not told yet."""
        return bool(self._doing) or not self._is_told

    def do(self, asked: JSON) -> None:
        """Begin what the page asks for; what comes while something is done is not heard."""
        if asked["ask"] == "cancel":
            self._cancelled = True
        elif not self._doing:
            self._doing, self._problem, self._done, self._cancelled = (
                asked["ask"],
                "",
                (0, 0),
                False,
            )
            usual = torch.get_num_threads()
            self._thread = threading.Thread(target=self._work, args=(asked, usual), daemon=True)
            self._thread.start()

    def news(self, *, everything: bool) -> JSON:
        """Return how it stands; what was found only once, unless everything is asked for."""
        t, (done, of) = self._training, self._done
        is_new, self._is_told = everything or not self._is_told, True  # first: it may end meanwhile
        told = {
            "first": t.branched_from.step if t.branched_from else 0,
            "kept": sorted(int(p.stem) for p in t.folder.glob("checkpoints/[0-9]*.safetensors")),
            "lr": t.settings.lr,
            "can": t.can_go_back,
            "doing": self._doing,
            "done": done,
            "of": of,
            "problem": self._problem,
            "called": "" if t.can_go_back else _called(t),
        }
        if is_new:
            told["found"] = self._found
        return told

    def _work(self, asked: JSON, threads: int) -> None:
        torch.set_num_threads(threads)  # a new thread begins with what any thread set last
        try:
            with apart():
                self._found = getattr(self, f"_{asked['ask']}")(int(asked["step"]), asked)
        except _CancelledError:
            pass
        except WorkbenchError as error:
            self._found, self._problem = {}, str(error)
        except Exception as error:
            logging.getLogger(__name__).exception("going back failed")
            self._found, self._problem = {}, f"{type(error).__name__}: {error}"
        finally:
            self._is_told, self._doing = False, ""

    def _tell(self, done: int, of: int) -> None:
        self._done = (done, of)
        if self._cancelled:
            raise _CancelledError

    def _weights(self, step: int, _: JSON) -> JSON:
        t = self._training
        figures = _past(t).figures(t, step, told=self._tell)
        return {"kind": "weights", "step": step, "figures": plain_row(figures),
                "code": f"model = {_called(t)}.at({step})"}  # fmt: skip

    def _blame(self, step: int, _: JSON) -> JSON:
        t = self._training
        found = _past(t).blame(t, step, _HARDEST, told=self._tell)
        images = found.images
        white = 255 if images is None else brightest(images)
        rows = [_row(row) for row in found.hardest.to_dict("records")]
        for row, image in zip(rows, [] if images is None else images, strict=False):
            apart = math.ceil(max(image.shape[:2]) / _PIXELS)
            row["image"] = address_of(image[::apart, ::apart], white)
        return {
            "kind": "blame",
            "step": step,
            "epoch": found.epoch,
            "size": len(found.table),
            **plain_row({"loss": found.loss, "norm": found.norm, "usual": found.usual_norm}),
            "rows": rows,
            "code": f"{_called(t)}.blame({step}).table",
        }

    def _branch(self, step: int, asked: JSON) -> JSON:
        t = self._training
        lr = asked.get("lr")
        if lr is not None and not 0 < lr < math.inf:  # before steps are taken again for nothing
            raise RequestError(f"the learning rate is {lr:g}, expected more than 0")
        changes = {} if lr is None else {"lr": lr}
        branch = _past(t).branch(
            t, step, None, None, None, changes, told=self._tell, made=self._join
        )
        code = f"branch = wb.list_trainings()[{branch.name!r}]"
        return {"kind": "branch", "step": step, "name": branch.name, "code": code}


def _past(training: Training) -> Any:
    assert training.past is not None  # else the page has no button to press
    return training.past


def _called(training: Training) -> str:
    """Return by what a cell reaches a training: a variable that holds it, or its name."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    known = list(shell.user_ns.items()) if shell else []
    names = [name for name, value in known if value is training and not name.startswith("_")]
    return names[0] if names else f"wb.list_trainings()[{training.name!r}]"


def _row(row: JSON) -> JSON:
    """Return a row of a blame in words: what it is, and what was said of it."""

    def text(key: str) -> str:
        values = [value for name, value in row.items() if str(name).startswith(key)]
        return ", ".join(v if isinstance(v, str) else f"{v:.4g}" for v in values)

    figures = {"loss": row["loss"], "sure": row.get("p_predicted", math.nan)}
    return {"row": str(row["row"]), "true": text("true"), "said": text("predicted"),
            **plain_row(figures)}  # fmt: skip
