"""What a cell says, and how much of it a notebook keeps: floods are cut, and it is said where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nbformat.v4 import new_output

from workbench.types import JSON

__all__ = ["CUT_SHOWN", "MOST_SHOWN", "Told", "print_into", "shorten", "size_of"]

MOST_SHOWN = 20_000_000  # characters of a cell's results and pictures
_MOST_TEXT = 1_000_000  # characters that one cell may print
_MOST_RAISED = 100_000  # characters of what it raises, each of text and traceback

_CUT_TEXT = f"\n[what the cell printed beyond {_MOST_TEXT:,} characters was left out]\n"
CUT_SHOWN = (
    f"\n[what the cell showed beyond {MOST_SHOWN:,} characters was left out, "
    "but for the last that fits]\n"
)
_CUT_RAISED = "\n[the middle of a long traceback was left out]\n"


@dataclass
class Told:
    """What a cell has said that is still there.

    Args:
        printed: characters of text.
        shown: characters of results and pictures.
        full: whether more was shown than is kept.
        last: place of the last that was shown beyond, among the outputs.
        clears: whether the next output takes the place of all.
    """

    printed: int = 0
    shown: int = 0
    full: bool = False
    last: int | None = None
    clears: bool = False

    def forget(self) -> None:
        """Begin anew: nothing of it is there any more."""
        self.printed, self.shown, self.full, self.last, self.clears = 0, 0, False, None, False


def print_into(
    content: JSON, told: Told, into: list[Any], outs: list[Any], take: Callable[[], Any]
) -> Any:
    """Take a text, going on with the line that is not finished, as far as there may be more."""
    if told.printed > _MOST_TEXT:
        return None
    line = _unfinished(into, content["name"])
    text = _collapsed(line + content["text"])
    left = _MOST_TEXT - told.printed + len(line)
    told.printed += len(text) - len(line)
    content["text"] = text[:left]
    taken = take()
    if len(text) > left:
        outs.append(new_output("stream", name="stderr", text=_CUT_TEXT))
    return taken


def _unfinished(outs: list[Any], name: str) -> str:
    """Take out the line that a stream is in the middle of, and return it."""
    if not outs or outs[-1]["output_type"] != "stream" or outs[-1]["name"] != name:
        return ""
    lines, end, line = outs[-1]["text"].rpartition("\n")
    if end:
        outs[-1]["text"] = lines + end
    else:
        del outs[-1]
    return str(line)


def _collapsed(text: str) -> str:
    """Return a text without what carriage returns have overwritten, as a progress bar's."""
    return "\n".join(map(_written_last, text.split("\n"))) if "\r" in text else text


def _written_last(line: str) -> str:
    kept = line.rstrip("\r")
    return kept.rpartition("\r")[2] + ("\r" if len(kept) < len(line) else "")


def shorten(content: JSON) -> None:
    """Cut an error to a size that a notebook bears."""
    content["evalue"] = content["evalue"][:_MOST_RAISED]
    text, half = "\n".join(content["traceback"]), _MOST_RAISED // 2
    if len(text) > _MOST_RAISED:
        content["traceback"] = [text[:half], _CUT_RAISED, text[-half:]]


def size_of(content: JSON) -> int:
    """Return how many characters an output has."""
    data = content.get("data")
    values = data.values() if isinstance(data, dict) else [content.get("text", "")]
    return sum(len(value) if isinstance(value, str) else len(str(value)) for value in values)
