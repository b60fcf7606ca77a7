"""Which version answers where two are tried, and asking the other one too, unheard."""

from __future__ import annotations

import asyncio
import contextlib
import time

from workbench.serving.batching import Batcher
from workbench.serving.monitoring import Monitor, Note, Shadow
from workbench.serving.requests import Request
from workbench.serving.served import Served
from workbench.serving.shelf import Shelf
from workbench.serving.tensors import Array
from workbench.types import JSON

__all__ = ["Challenging"]

_MOST_SHADOWS = 64  # requests that the challenger is being asked at once
_BUSY = 64  # requests in the line, from which on it is not asked: those who wait come first


class Challenging:
    """Picks the version of a request, and has its answer noted with what the challenger says.

    Args:
        shelf: of the server.
        batcher: whose thread the models work in.
        monitor: that takes the notes.
    """

    def __init__(self, shelf: Shelf, batcher: Batcher, monitor: Monitor) -> None:
        self._shelf, self._batcher, self._monitor = shelf, batcher, monitor
        self._shadows: set[asyncio.Task[None]] = set()

    def pick(self, request: Request) -> Served:
        """Return what answers a request, drawn where traffic is split and no version is named.

        Raises:
            Refusal: nothing does.
        """
        named = request.params.get("version")
        served = self._shelf.find(request.params["model"], named)
        challenge = self._shelf.challenge(served.name) if named is None else None
        if challenge is not None and challenge.mode == "split":
            request.drawn = True
            served = challenge.served if request.draw < challenge.share else served
        request.model = served.ref
        return served

    def kept(self, request: Request, served: Served, inputs: dict[str, Array]) -> dict[str, Array]:
        """Return inputs as they are now, whatever the model that is asked first does to them."""
        known = served.preprocessing
        shadowed = self._is_shadowed(request, served)
        if shadowed or (known is not None and known.kind == "tensor"):
            return {k: rows.copy() if rows.flags.writeable else rows for k, rows in inputs.items()}
        return inputs

    def note(
        self,
        request: Request,
        served: Served,
        inputs: dict[str, Array],
        outputs: dict[str, Array],
        weights: JSON,
    ) -> None:
        """Have an answer noted, and the challenger asked the same where one is tried.

        Args:
            request: that was answered.
            served: what answered.
            inputs: as `kept` returned them.
            outputs: by name.
            weights: of a live model.
        """
        seconds = time.perf_counter() - request.begun
        told = weights.get("hash")
        note = Note(
            request.id, time.time(), served, inputs, outputs, told, seconds, drawn=request.drawn
        )
        self._monitor.answered(note)
        idle = len(self._shadows) < _MOST_SHADOWS and self._batcher.waiting < _BUSY
        if idle and self._is_shadowed(request, served):
            task = asyncio.get_running_loop().create_task(self._shadow(note))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)

    def _is_shadowed(self, request: Request, served: Served) -> bool:
        challenge = self._shelf.challenge(served.name)
        return (
            challenge is not None
            and challenge.mode == "shadow"
            and "version" not in request.params
            and request.draw < challenge.share
        )

    async def _shadow(self, note: Note) -> None:
        """Ask the challenger what the default was asked; whatever it does, nobody hears of it."""
        challenge = self._shelf.challenge(note.served.name)
        if challenge is not None:
            served = challenge.served
            with contextlib.suppress(Exception):  # a full line, or its own fault: its tally has it
                outputs, _ = await self._batcher.answer(
                    served, note.inputs, self._shelf.tally(served)
                )
                self._monitor.shadowed(Shadow(note.id, served, outputs))
