"""What a reader sees of a notebook's cells: where two executions differ, and how one is stored."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from workbench.runs.notebooks import has_tag, headings

__all__ = ["OutputDifference", "compare_outputs", "parted", "take_outputs"]

_INJECTED = "injected-parameters"
_SKIPPED = "skip-execution"
_TAGS = ("nbval-ignore-output", "nbval-skip", _SKIPPED)
_MARKER = re.compile(r"^\s*#+\s*(NBVAL_IGNORE_OUTPUT|NBVAL_SKIP)\s*$", re.MULTILINE)
_ADDRESS = re.compile(r"(?<=\bat )0x[0-9A-Fa-f]{6,16}\b|\b0x7f[0-9a-f]{10}\b")
_STYLER = re.compile(r"(?<=[\"#]T_)[0-9a-f]{5}(?=[_\" ])")  # what pandas calls a styled table
# The line of a progress bar as tqdm writes it: "3/9 [00:01<00:02, 2.9it/s]", "3it [00:01, 2.9it/s]"
_PROGRESS = re.compile(r"\d\S* \[[\d:]+(<|, ).*(/s|s/).*\]")
_LASTED = re.compile(r"(?<=\d steps in )\d+\.\d s\b")  # what a training says of itself
_VIEW = "application/vnd.jupyter.widget-view+json"
_WIDTH = 60  # characters of a line that a message shows
_LINES = 1000  # of an output that are set side by side


@dataclass(frozen=True)
class OutputDifference:
    """One thing that a reader would see differently.

    Args:
        cell: its number among the code cells, from 1.
        heading: the last one above it, or None.
        what: "stdout", a type of text such as "text/plain", "error", or "source".
        before: all that was there of it, empty if nothing.
        after: all that is there now.
    """

    cell: int
    heading: str | None
    what: str
    before: str
    after: str

    @property
    def where(self) -> str:
        """Where it is: cell, heading and kind."""
        heading = f" ({self.heading})" if self.heading else ""
        return f"cell {self.cell}{heading}, {self.what}"

    @property
    def text(self) -> str:
        """Where it is, and the first line that differs.

        >>> OutputDifference(3, "Learn", "stdout", "epoch 1\\nloss 0.5", "epoch 1\\nloss 0.6").text
        "cell 3 (Learn), stdout, line 2: 'loss 0.5' became 'loss 0.6'"
        """
        for number, old, new in self.lines():
            if old != new:
                return f"{self.where}, line {number}: {_change(old, new)}"
        return f"{self.where}: the cell is in only one of the two"

    def lines(self) -> Iterator[tuple[int, str, str]]:
        """Yield number, old line and new line of what differs, and of three lines around it.

        A line that one side lacks is empty; past a thousand lines from the first that differs,
        nothing is given.
        """
        old, new = self.before.split("\n"), self.after.split("\n")
        start = max(0, _alike(old, new) - 3)
        old, new = old[start : start + _LINES], new[start : start + _LINES]
        for group in SequenceMatcher(None, old, new).get_grouped_opcodes(3):
            for _, a, b, c, d in group:
                pairs = zip_longest(old[a:b], new[c:d], fillvalue="")
                for number, (left, right) in enumerate(pairs, start + c + 1):
                    yield number, left, right


def compare_outputs(before: Any, after: Any) -> list[OutputDifference]:
    """Return what a reader would see differently in two executions of a notebook, in order.

    Compared are standard output as a terminal would show it, every type of text, and the name and
    value of an error. Left out are pictures, standard error, progress bars, views of widgets,
    addresses in memory, how long a training took, execution counts, metadata, tracebacks, and cells
    that nbval would not compare either: those tagged `nbval-ignore-output` or `nbval-skip`. A cell
    whose source differs is a difference, and its outputs say nothing.

    Args:
        before: a notebook of nbformat 4.
        after: another one, whose code cells correspond by position; cells tagged
            `injected-parameters` are left out of both.
    """
    found = []
    for number, (heading, old, new) in enumerate(_code_pairs(before, after), 1):
        if old is None or new is None or old.source != new.source:
            texts = [cell.source if cell is not None else "" for cell in (old, new)]
            found.append(OutputDifference(number, heading, "source", *texts))
        elif not _is_ignored(old) and not _is_ignored(new):
            left, right = _seen(old), _seen(new)
            both = {what: (left.get(what, ""), right.get(what, "")) for what in {**left, **right}}
            differing = [(what, *texts) for what, texts in both.items() if texts[0] != texts[1]]
            found += [OutputDifference(number, heading, *difference) for difference in differing]
    return found


def take_outputs(notebook: Any, executed: Any) -> None:
    """Put the outputs of an execution into a notebook, in place of those that a reader would miss.

    A cell keeps what it has where that says the same, or is not compared, so that a picture drawn
    anew changes no file. Views of widgets are left out, since their state is not stored, and so is
    when an output came. A cell tagged `injected-parameters` is taken out.

    Args:
        notebook: of nbformat 4; nothing else of it changes.
        executed: the same one, executed.
    """
    notebook.cells = [cell for cell in notebook.cells if not has_tag(cell, _INJECTED)]
    notebook.metadata.pop("widgets", None)
    for _, cell, made in _code_pairs(notebook, executed):
        same = _is_ignored(cell) or _seen(cell) == _seen(made)
        if has_tag(cell, _SKIPPED) or (cell.outputs and same):
            continue
        cell.outputs, cell.execution_count = made.outputs, made.execution_count
        cell.metadata.pop("execution", None)
        for output in cell.outputs:
            output.get("data", {}).pop(_VIEW, None)


def parted(old: str, new: str) -> tuple[str, str, str, str]:
    """Return what two lines begin with, what of each differs, and what they end with.

    >>> parted("loss 0.51 s", "loss 0.6 s")
    ('loss 0.', '51', '6', ' s')
    """
    start = _alike(old, new)
    end = _alike(old[start:][::-1], new[start:][::-1])
    return (
        old[:start],
        old[start : len(old) - end],
        new[start : len(new) - end],
        old[len(old) - end :],
    )


def _code_pairs(before: Any, after: Any) -> Iterator[tuple[str | None, Any, Any]]:
    """Yield heading, cell and cell of the code cells at the same position, None past an end."""
    lists = [_cells(notebook) for notebook in (before, after)]
    for old, new in zip_longest(*lists, fillvalue=(None, None)):
        yield old[0] if old[1] is not None else new[0], old[1], new[1]


def _cells(notebook: Any) -> list[tuple[str | None, Any]]:
    cells = zip(headings(notebook), notebook.cells, strict=True)
    return [
        (heading, cell)
        for heading, cell in cells
        if cell.cell_type == "code" and not has_tag(cell, _INJECTED)
    ]


def _is_ignored(cell: Any) -> bool:
    """Return whether the cell says that its outputs may differ, or is not even executed."""
    return any(has_tag(cell, tag) for tag in _TAGS) or bool(_MARKER.search(cell.source))


def _seen(cell: Any) -> dict[str, str]:
    """Return what a reader sees of the cell's outputs, by kind; kinds of nothing are left out."""
    parts: dict[str, list[str]] = {}
    for output in cell.outputs:
        if output.output_type == "stream":
            parts.setdefault(output.name, []).append(output.text)
        elif output.output_type == "error":
            parts.setdefault("error", []).append(f"{output.ename}: {output.evalue}")
        else:
            for mime, content in output.data.items():
                if mime.startswith("text/") or mime == "application/json":
                    parts.setdefault(mime, []).append(_written(content))
    parts.pop("stderr", None)
    joined = {what: ("" if what == "stdout" else "\n").join(parts[what]) for what in parts}
    return {what: text for what in joined if (text := _plain(joined[what]))}


def _written(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, indent=1, sort_keys=True)


def _plain(text: str) -> str:
    """Return the text as it stands on the screen, without what differs from run to run."""
    lines = [line for line in map(_overwritten, text.split("\n")) if not _PROGRESS.search(line)]
    plain = "\n".join(lines)
    for pattern, shown in ((_STYLER, "..."), (_ADDRESS, "0x..."), (_LASTED, "... s")):
        plain = pattern.sub(shown, plain)
    return plain.rstrip()


def _overwritten(line: str) -> str:
    r"""Return a line after its carriage returns.

    >>> _overwritten("10 %\r20 %\rdone")
    'done'
    >>> _overwritten("100 %\rdone")
    'done%'
    """
    shown = ""
    for part in line.split("\r"):
        shown = part + shown[len(part) :]
    return shown


def _alike(old: Sequence[str], new: Sequence[str]) -> int:
    """Return how many lines, or characters, two sequences have in common before they differ."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(old), len(new)))


def _change(old: str, new: str) -> str:
    """Return how a line changed, cut to where it did."""
    if not old or not new:
        return f"{_cut(new, 0)!r} is new" if new else f"{_cut(old, 0)!r} is gone"
    start = max(0, _alike(old, new) - _WIDTH // 3) if max(len(old), len(new)) > _WIDTH else 0
    return f"{_cut(old, start)!r} became {_cut(new, start)!r}"


def _cut(line: str, start: int) -> str:
    end = start + _WIDTH
    return ("..." if start else "") + line[start:end] + ("..." if end < len(line) else "")
