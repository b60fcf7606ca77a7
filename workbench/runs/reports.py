"""The report of a run: one HTML page to show, which says where its figures come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from workbench.home import read_json, write_file
from workbench.runs.notebooks import headings, read_notebook
from workbench.runs.pages import (
    Html,
    Outline,
    cleaned,
    facts,
    fold,
    join,
    lasted,
    moment,
    page,
    picture,
    scroll,
    table,
    tag,
)
from workbench.runs.records import Run
from workbench.types import JSON

__all__ = ["report", "said", "standing"]

_LOOKS = {
    "done": "good",
    "interrupted": "warn",
    "failed": "bad",
    "killed": "bad",
    "timed out": "bad",
}
_ENDS = {
    "failed": "The run failed",
    "interrupted": "The run was interrupted",
    "killed": "The run was killed",
    "timed out": "The run ran out of time",
    "running": "The run is still going",
    "queued": "The run has not begun",
}
_TITLE = re.compile(r"\s*#[ \t]+(.+?)[ \t]*#*[ \t]*(?:\n|$)")
_PICTURES = ("image/svg+xml", "image/png", "image/jpeg", "image/gif", "image/webp")
_LIKE_ALIGN = re.compile(r"\\(begin|end)\{(?:aligned|gathered|gather\*?|eqnarray\*?)\}")
_EQUATION = re.compile(r"\\(?:begin|end)\{equation\*?\}")


def report(run: Run, path: Path | None = None) -> Path:
    """Write the report of a run as one HTML file that needs no other, and return its path.

    Args:
        run: in whatever state.
        path: where to; by default `report.html` in the run's folder.

    Raises:
        RequestError: its executed notebook cannot be read.
    """
    document = read_notebook(run.notebook) if run.notebook.exists() else None
    title = _take_title(document) or run.source.stem
    main = join(_trouble(run), _provenance(run), document and _notebook(run, document))
    target = path or run.folder / "report.html"
    write_file(target, page(title, header=_header(run, title), main=main))
    return target


def standing(state: str) -> Html:
    """Return the state of a run, with the look of one that is good or bad news."""
    return tag("span", state, class_=f"state {_LOOKS.get(state, '')}".strip())


def said(value: Any) -> str:
    """Return a value of a record as a person reads it.

    >>> said(0.1 + 0.2), said("adam"), said([1, None])
    ('0.3', 'adam', '[1, None]')
    """
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _take_title(document: Any) -> str | None:
    """Return the heading that the notebook begins with, which the page then has instead."""
    for cell in document.cells if document else []:
        if cell.cell_type == "markdown":
            found = _TITLE.match(cell.source)
            if found:
                cell.source = cell.source[found.end() :]
            return re.sub(r"[*`$]", "", found[1]) if found else None
    return None


def _header(run: Run, title: str) -> Html:
    took = lasted(run.seconds)
    details = (
        standing(run.state),
        moment(run.record["started"]),
        tag("span", f"took {took}") if took else None,
        tag("code", run.id),
    )
    kicker = tag("p", "Report of a run of ", tag("code", run.source.name))
    return join(kicker, tag("h1", title), tag("p", *details, class_="facts"))


def _trouble(run: Run) -> Html | None:
    """Return what went wrong and where, of a run that is not done."""
    if run.state == "done":
        return None
    error: JSON = run.record.get("error") or {}
    where = _where(error, len(run.record["cells"])) if "cell" in error else None
    title = tag("h2", _ENDS.get(run.state, f"The run is {run.state}"), where, id="trouble")
    why = tag("p", tag("strong", error["name"]), f": {error['value']}") if "name" in error else None
    traceback = error.get("traceback")
    more = fold("traceback", _text(traceback, "traceback")) if traceback else None
    return tag("section", title, why, more, class_="trouble", aria_labelledby="trouble")


def _where(error: JSON, cells: int) -> Html:
    link = tag("a", f"cell {error['cell']} of {cells}", href=f"#cell-{error['cell']}")
    return join(" in ", link, f" ({error['heading']})" if error.get("heading") else None)


def _provenance(run: Run) -> Html:
    """Return what came out of the run, and all that it depends on."""
    cards = {
        "Metrics": _metrics(run),
        "Parameters": _parameters(run),
        "Verification": _verification(run),
        "Requirements": _requirements(run),
        "Published": tag("p", ", ".join(run.published)) if run.published else None,
        "Data": facts((d["name"], _code(d["fingerprint"])) for d in run.record["datasets"]),
    }
    made = (tag("div", tag("h3", k), c, class_="card") for k, c in cards.items() if c)
    packages = (run.record.get("environment") or {}).get("packages") or {}
    return tag(
        "section",
        tag("h2", "Provenance", id="provenance"),
        tag("div", *made, class_="cards"),
        fold("Code, machine and environment", facts(_explanation(run.record)), kind="card more"),
        fold(f"{len(packages)} packages", facts(packages.items()), kind="card more packages"),
        aria_labelledby="provenance",
    )


def _metrics(run: Run) -> Html | None:
    tolerances = run.record.get("tolerances") or {}
    rows = [
        (name, said(value), "" if (t := tolerances.get(name)) is None else f"± {said(t)}")
        for name, value in run.metrics.items()
    ]
    return table(["name", "value", "tolerance"], rows, "metrics") if rows else None


def _parameters(run: Run) -> Html | None:
    given = run.record.get("given") or []
    rows = [
        (name, said(value), "given" if name in given else "default")
        for name, value in run.parameters.items()
    ]
    return table(["name", "value", "from"], rows, "parameters") if rows else None


def _verification(run: Run) -> Html:
    """Return what `verify` found, or how to ask it."""
    try:
        found = read_json(run.folder / "verification.json")
    except FileNotFoundError:
        return tag("p", "Not verified yet: ", _code(f"workbench verify {run.id}"))
    look = "good" if found["verdict"] == "identical" else "bad"
    verdict = tag("span", found["verdict"], class_=f"state {look}")
    told = [d["text"] for d in found.get("differences") or []]
    changed = [f"changed since: {text}" for text in found.get("changed") or []]
    return join(
        tag("p", verdict, ", executed again ", moment(found["time"])), _list(told + changed)
    )


def _requirements(run: Run) -> Html | None:
    return _list(
        join(
            tag("span", "holds" if r["holds"] else "fails", class_=f"state {look}"),
            f": {r['text']}",
            None if r.get("found") is None else f", found {said(r['found'])}",
        )
        for r in run.record.get("requirements") or []
        for look in ["good" if r["holds"] else "bad"]
    )


def _explanation(record: JSON) -> Iterator[tuple[str, str | None]]:
    """Yield what decides the figures of a run besides what the cards say."""
    notebook, around = record["notebook"], record.get("environment") or {}
    git, hardware = around.get("git"), around.get("hardware") or {}
    envelope, attempts = record.get("envelope") or {}, record.get("attempts") or []
    yield "run", _code(record["id"])
    yield "notebook", _code(notebook["path"])
    yield "its SHA-256", _code(notebook.get("sha256"))
    yield "executed SHA-256", _code(notebook.get("executed_sha256"))
    yield "commit", _code(git["commit"]) if git else "not under git"
    if git and git["dirty"]:
        yield "not committed", _code(git.get("diff_sha256")) or "some changes"
    yield "seed", _told(record.get("seed"))
    yield "began", moment(record["started"])
    yield "ended", moment(record.get("ended"))
    yield "attempts", _list(join(a["state"], " ", moment(a["started"])) for a in attempts)
    yield "sweep", _told((record.get("sweep") or {}).get("id"))
    yield "reproducible", ": ".join(envelope[k] for k in ("level", "note") if envelope.get(k))
    yield "threads", _told(hardware.get("threads") or around.get("threads"))
    yield (
        "processor",
        " ".join(
            str(hardware[k]) for k in ("processor", "machine", "instruction_set") if hardware.get(k)
        ),
    )
    yield "GPUs", ", ".join(hardware.get("gpus") or ["none"])
    yield "platform", around.get("platform")
    yield "Python", around.get("python")
    yield "torch", (around.get("packages") or {}).get("torch")


def _told(value: Any) -> str | None:
    return None if value is None else said(value)


def _code(text: str | None) -> Html | None:
    return tag("code", text) if text else None


def _list(items: Iterable[str]) -> Html | None:
    lines = [tag("li", item) for item in items]
    return tag("ul", *lines, class_="plain") if lines else None


def _text(text: str, label: str) -> Html:
    """Return what a program has printed, without colours, each line as it was last overwritten."""
    from nbconvert.filters import strip_ansi

    lines = (line.rstrip("\r").rpartition("\r")[2] for line in strip_ansi(text).split("\n"))
    return scroll(tag("pre", "\n".join(lines).rstrip("\n")), label)


def _notebook(run: Run, document: Any) -> Html:
    """Return the executed notebook: its prose, its code folded, what came out of it."""
    scribe = _Scribe(run.source.parent)
    known = {cell["index"]: (n, cell) for n, cell in enumerate(run.record["cells"], 1)}
    parts = []
    for index, (cell, heading) in enumerate(zip(document.cells, headings(document), strict=True)):
        if cell.cell_type == "markdown":
            parts.append(scribe.prose(cell.source, cell.get("attachments", {})))
        elif cell.cell_type == "code" and index in known and cell.source.strip():
            parts.append(scribe.cell(cell, *known[index], heading or "the beginning"))
    title = tag("h2", "Notebook", id="notebook")
    return tag("section", title, *parts, aria_labelledby="notebook")


class _Scribe:
    """Writes the cells of one notebook.

    Args:
        folder: of the notebook, for pictures that its prose shows.
    """

    def __init__(self, folder: Path) -> None:
        from nbconvert.filters import Highlight2HTML

        self._folder, self._outline = folder, Outline()
        self._highlight = Highlight2HTML()

    def prose(self, source: str, attachments: Any = None, *, alt: str = "") -> Html:
        """Return markdown as HTML, its maths as MathML."""
        from nbconvert.filters.markdown_mistune import MarkdownWithMath

        renderer = _renderer()(
            escape=False,  # what HTML there is, is cleaned below
            embed_images=True,
            exclude_anchor_links=True,
            attachments=attachments or {},
            path=str(self._folder),
        )
        whole = MarkdownWithMath(renderer=renderer).render(source)
        return tag("div", cleaned(whole, self._outline, alt=alt), class_="prose")

    def cell(self, cell: Any, number: int, record: JSON, heading: str) -> Html:
        """Return a code cell and what came out of it."""
        state = record["state"]
        took = lasted(record["seconds"]) if state == "done" else state
        about = f"cell {number}"
        code = scroll(Html(self._highlight(cell.source)), f"code of {about}")
        summary = f"code of {about}" + (f" · {took}" if took else "")
        outputs = (self._output(output, about, heading) for output in cell.outputs)
        opened = state not in ("done", "skipped", "pending")
        return tag(
            "div",
            fold(summary, code, opened=opened, kind="code"),
            *outputs,
            class_="cell",
            id=f"cell-{number}",
        )

    def _output(self, output: Any, about: str, heading: str) -> Html:
        if output.output_type == "stream":
            kind = "output" if output.name == "stdout" else "output aside"
            return tag("div", _text(output.text, f"{output.name} of {about}"), class_=kind)
        if output.output_type == "error":
            what = tag("p", tag("strong", output.ename), f": {output.evalue}")
            trace = _text("\n".join(output.traceback), f"traceback of {about}")
            return tag("div", what, trace, class_="output wrong")
        return tag("div", self._data(output.data, about, heading), class_="output")

    def _data(self, data: Any, about: str, heading: str) -> Html:
        """Return the richest form of an output that a page without scripts can show."""
        plain = data.get("text/plain", "")
        telling = plain if plain and not plain.startswith("<") else f"picture under “{heading}”"
        if "text/html" in data:
            html = cleaned(data["text/html"], self._outline, alt=telling)
            if "<img" in html or re.sub(r"<[^>]*>", "", html).strip():
                return html
        for kind in _PICTURES:
            if kind in data:
                content = data[kind].encode() if kind == "image/svg+xml" else data[kind]
                return picture(content, kind, telling[:300])
        for kind in ("text/markdown", "text/latex"):
            if kind in data:
                return self.prose(data[kind], alt=telling)
        return _text(plain or f"shown by scripts alone: {', '.join(data)}", f"output of {about}")


@cache
def _renderer() -> Any:
    """Return nbconvert's renderer with maths that needs no script."""
    from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer

    class Renderer(IPythonRenderer):
        def inline_math(self, body: str) -> str:
            return _maths(body, "inline")

        def block_math(self, body: str) -> str:
            return _maths(body, "block")

        def latex_environment(self, name: str, body: str) -> str:
            return _maths(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")

        def image(self, text: str, url: str, title: str | None = None) -> str:
            try:
                return str(super().image(text, url, title))
            except (InvalidNotebook, OSError):  # an attachment or a file that is not there
                return escape(text)

    return Renderer


def _maths(latex: str, display: str) -> str:
    """Return LaTeX as MathML; what cannot be converted, as it was written."""
    from latex2mathml.converter import convert

    known = _LIKE_ALIGN.sub(r"\\\1{align*}", _EQUATION.sub("", latex))
    try:
        made: str = convert(known, display=display)
    except Exception:  # it has no root error, and also trips over its own feet
        made = "\\"
    return f"<code>{escape(latex)}</code>" if "\\" in made or "<mi>&</mi>" in made else made
