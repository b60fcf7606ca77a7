"""Self-contained HTML pages: their elements, foreign HTML made harmless, one look for all.

A page loads nothing and runs nothing: pictures are data in it, and its policy forbids the rest.
What a cell has put out is foreign. It is taken apart and written anew from elements and attributes
that are known to be harmless; the cleaning that nbconvert has would lose tables and maths.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from html.parser import HTMLParser
from pathlib import Path

from workbench import __version__, journal

__all__ = [
    "Html",
    "Outline",
    "cleaned",
    "facts",
    "fold",
    "join",
    "lasted",
    "moment",
    "page",
    "picture",
    "scroll",
    "table",
    "tag",
]

_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
_VOID = {"br", "hr", "img", "input", "link", "meta", "mprescripts", "mspace", "wbr"}
_LOST = {  # with all that is in them
    *("script", "style", "template", "iframe", "object", "noscript", "svg", "title", "textarea"),
    *("select", "button", "noembed", "noframes", "video", "audio", "canvas", "annotation"),
}
_KNOWN = {
    *("a", "abbr", "b", "blockquote", "br", "code", "dd", "del", "details", "div", "dl", "dt"),
    *("em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "ins", "kbd", "li", "mark"),
    *("ol", "p", "pre", "q", "s", "samp", "small", "span", "strong", "sub", "summary", "sup"),
    *("table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "u", "ul", "var", "wbr"),
    *("math", "menclose", "merror", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover"),
    *("mpadded", "mphantom", "mprescripts", "mroot", "mrow", "ms", "mspace", "msqrt", "mstyle"),
    *("msub", "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover"),
}
_OF_MATHS = {
    *("accent", "columnalign", "columnlines", "columnspacing", "depth", "display", "fence"),
    *("form", "linebreak", "linethickness", "lspace", "mathvariant", "maxsize", "minsize"),
    *("movablelimits", "notation", "rowlines", "rowspacing", "rspace", "separator", "stretchy"),
}
# The pattern that the whole of an attribute's value must have.
_VALUES: Mapping[str, str] = {
    "href": r"(https?://|mailto:).*",
    "src": r"data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]*",
    **dict.fromkeys(("alt", "title"), r".*"),
    "class": r"highlight|[a-z][a-z0-9]{0,2}",  # of highlighted code, and of nothing of ours
    "style": r"\s*text-align:\s*(left|right|center);?\s*",
    **dict.fromkeys(("colspan", "rowspan", "start"), r"\d{1,4}"),
    **dict.fromkeys(("width", "height"), r"[\d.]{1,6}(em|ex|px|%)?"),
    **dict.fromkeys(_OF_MATHS, r"[\w .%+-]*"),
}


_NUMBER = re.compile(r"[-+−±]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?|")  # or nothing


class Html(str):
    """Markup that may stand in a page as it is; any other text is escaped first."""

    __slots__ = ()


def tag(name: str, /, *content: str | None, **attributes: str | int | None) -> Html:
    """Return an element.

    Args:
        name: of the element.
        content: what is in it; None is left out.
        attributes: `class_` is written `class`, and `aria_label` `aria-label`; one that is None is
            left out.

    >>> tag("p", "1 < 2", class_="note")
    '<p class="note">1 &lt; 2</p>'
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    end = "" if name in _VOID else f"</{name}>"
    return Html(f"<{name}{said}>{join(*content)}{end}")


def join(*parts: str | None) -> Html:
    """Return the parts one after the other, escaped where they are not `Html`."""
    there = (part for part in parts if part is not None)
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in there))


def page(title: str, *, header: str, main: str) -> bytes:
    """Return a whole page, which needs no other file.

    Args:
        title: what the browser calls it.
        header: what stands above the rest, the one `h1` in it.
        main: the rest.
    """
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(style)),
    )
    made = tag("p", f"Written by workbench {__version__}, ", moment(journal.now()))
    body = join(tag("header", header), tag("main", main), tag("footer", made))
    whole = tag("html", tag("head", head), tag("body", body), lang="en")
    return f"<!doctype html>\n{whole}\n".encode()


def table(head: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> Html:
    """Return a table that scrolls if it must; the first cell of a row heads it.

    Args:
        head: of the columns.
        rows: a text for each column. Numbers are aligned as such, and a column with nothing in it
            is left out.
        label: what it is a table of, for those who do not see it.
    """
    columns = [(title, c) for title, *c in zip(head, *rows, strict=True) if any(c)]
    looks = ["number" if all(map(_NUMBER.fullmatch, column)) else None for _, column in columns]
    titles = (tag("th", t, scope="col", class_=k) for (t, _), k in zip(columns, looks, strict=True))
    lines = []
    for first, *rest in zip(*(column for _, column in columns), strict=True):
        cells = (tag("td", text, class_=k) for text, k in zip(rest, looks[1:], strict=True))
        lines.append(tag("tr", tag("th", first, scope="row"), *cells))
    inner = join(tag("thead", tag("tr", *titles)), tag("tbody", *lines))
    return scroll(tag("table", inner), label)


def scroll(content: str, label: str, kind: str = "scroll") -> Html:
    """Return content in a box that scrolls where it is too wide, with the keyboard too.

    Args:
        content: of the box.
        label: what it is, for those who do not see it.
        kind: the box's class.
    """
    return tag("div", content, class_=kind, tabindex="0", role="group", aria_label=label)


def facts(pairs: Iterable[tuple[str, str | None]]) -> Html | None:
    """Return names and what is to be said of each, if anything; None where nothing is."""
    rows = [tag("div", tag("dt", name), tag("dd", said)) for name, said in pairs if said]
    return tag("dl", *rows) if rows else None


def fold(summary: str, *content: str | None, opened: bool = False, kind: str = "more") -> Html:
    """Return content that is unfolded by a click on its summary."""
    inside = join(tag("summary", summary), *content)
    return tag("details", inside, class_=kind, open="" if opened else None)


def picture(content: bytes | str, kind: str, alt: str) -> Html:
    """Return a picture that is part of the page.

    Args:
        content: of its file; as text it is in base64.
        kind: its MIME type.
        alt: what it shows.
    """
    data = content if isinstance(content, str) else base64.b64encode(content).decode()
    return tag("img", src=f"data:{kind};base64,{''.join(data.split())}", alt=alt)


def moment(iso: str | None) -> Html | None:
    """Return a moment of a record to the second, in UTC.

    >>> moment("2026-01-02T03:04:05.678+00:00")
    '<time datetime="2026-01-02T03:04:05.678+00:00">2026-01-02 03:04:05 UTC</time>'
    """
    if not iso:
        return None
    when = datetime.fromisoformat(iso).astimezone(UTC)
    return tag("time", f"{when:%Y-%m-%d %H:%M:%S} UTC", datetime=iso)


def lasted(seconds: float | None) -> str | None:
    """Return a duration as one says it.

    >>> lasted(3.21), lasted(75.2), lasted(7322)
    ('3.2 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds is None:
        return None
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Outline:
    """The levels of a page's headings, below an `h2` of the page's own; none is skipped."""

    def __init__(self) -> None:
        self._last = 2

    def level(self, wanted: int) -> int:
        """Return the level at which a heading stands that is written as `wanted`, from 1."""
        self._last = min(max(wanted, 2) + 1, self._last + 1, 6)
        return self._last


def cleaned(html: str, outline: Outline, *, alt: str) -> Html:
    """Return foreign HTML without what could run, load, or spoil the page; every element closed.

    Args:
        html: from a cell.
        outline: of the page; its headings take their place there.
        alt: what a picture shows that does not say so itself.
    """
    cleaner = _Cleaner(outline, alt)
    cleaner.feed(html)
    cleaner.close()
    cleaner.close_all()
    whole = "".join(cleaner.parts)
    return Html(re.sub(r"<th[^>]*>\s*</th>", '<td class="empty"></td>', whole))


class _Cleaner(HTMLParser):
    """Writes what it reads anew, known elements and attributes alone."""

    def __init__(self, outline: Outline, alt: str) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._open: list[tuple[str, str]] = []  # the element as it was read, and its end
        self._lost = 0
        self._outline, self._alt = outline, alt

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        """Write the beginning of a known element."""
        if self._lost or name in _LOST:
            self._lost += name in _LOST
            return
        given = {key: value or "" for key, value in attributes}
        if name == "input" and given.get("type") == "checkbox":
            self.parts.append("☑ " if "checked" in given else "☐ ")
        elif name == "img" and not _allowed("src", given.get("src", "")):
            self.parts.append(escape(given.get("alt", "")))
        elif name in _KNOWN:
            self._begin(name, given)

    def _begin(self, name: str, given: dict[str, str]) -> None:
        kept = {key: value for key, value in given.items() if _allowed(key, value)}
        written, end = name, ""
        if re.fullmatch("h[1-6]", name):
            written = f"h{self._outline.level(int(name[1]))}"
        elif name == "th":
            kept["scope"] = "row" if self._is_in("tbody") else "col"
        elif name == "img":
            kept.setdefault("alt", self._alt)
        elif name == "table" and not self._is_in("table"):
            self.parts.append('<div class="scroll" tabindex="0" role="group" aria-label="table">')
            end = "</div>"
        said = "".join(f' {key}="{escape(value)}"' for key, value in kept.items())
        self.parts.append(f"<{written}{said}>")
        if name not in _VOID:
            self._open.append((name, f"</{written}>{end}"))

    def handle_endtag(self, name: str) -> None:
        """Write the end of an element, and before it of those left open in it."""
        if self._lost:
            self._lost -= name in _LOST
        elif self._is_in(name):
            while self._close_one() != name:
                pass

    def handle_data(self, data: str) -> None:
        """Write text."""
        if not self._lost:
            self.parts.append(escape(data, quote=False))

    def close_all(self) -> None:
        """Write the ends that were never read."""
        while self._open:
            self._close_one()

    def _close_one(self) -> str:
        name, end = self._open.pop()
        self.parts.append(end)
        return name

    def _is_in(self, name: str) -> bool:
        return any(name == opened for opened, _ in self._open)


def _allowed(attribute: str, value: str) -> bool:
    pattern = _VALUES.get(attribute)
    return bool(pattern and re.fullmatch(pattern, value, re.DOTALL | re.IGNORECASE))
