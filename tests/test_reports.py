"""Reports of real runs, read as a browser without scripts and network would read them."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest
from writing import write_notebook

from workbench.errors import RequestError, RunError
from workbench.home import read_json, write_json
from workbench.runs import Run, run
from workbench.runs.pages import Html, Outline, cleaned, page, table, tag
from workbench.runs.queueing import queue
from workbench.runs.reports import report

PROSE = r"""# A *small* run

The loss is $L = \frac12 \sum_i e_i^2$, and nobody knows
$\nosuchthing{x}$ or $\left( x$.

$$\begin{aligned}a &= b \\ c &= d\end{aligned}$$

- [x] done

| unit | value |
|---|--:|
| s | 1 |

<script>document.title = "ran"</script><b onclick="x()">bold</b>

#### Deep
"""
OUTPUTS = """\
import os, sys
from IPython.display import HTML, Image, SVG, display
from workbench.journal import note, record
record("accuracy", 0.1 + 0.2, tolerance=0.01)
record("rows", 12)
note("load", dataset="line", fingerprint="ab12" * 16)
note("publish", ref="line@1", folder="somewhere")
print("\\r 10%\\r 90%\\r100%\\nsay < & \\x1b[31mred\\x1b[0m")
print("careful", file=sys.stderr)
display(HTML("<table><thead><tr><th></th><th>a</th></tr></thead><tbody><tr><th>r</th><td>1</td>"
             "</tr></tbody></table><script>document.title = 'ran'</script>"
             "<img src=x onerror=\\"document.title = 'ran'\\"><h1>Loud</h1>"))
display(SVG("<svg xmlns='http://www.w3.org/2000/svg'><script>x()</script></svg>"))
display(HTML("<script>plot()</script>"))
Image(bytes(range(9)), format="png")
"""


class Reader(HTMLParser):
    """Reads a page: its elements in order, the text in it, and which elements were left open."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open = "", list[str]()
        self.feed(content)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        if name not in ("meta", "img", "br", "hr", "mspace"):
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        self.text += data if self.open[-1:] != ["style"] else ""

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name in names]


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that is done and shows one of everything."""
    folder = tmp_path_factory.mktemp("good")
    cells = [PROSE, OUTPUTS, "", "# Twice\n\n## Below", "1 + 1"]
    notebook = write_notebook(folder / "small.ipynb", *cells, parameters="epochs = 1\nlr = 0.1")
    return run(notebook, out=folder / "out", epochs=3)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that failed in the second of three cells."""
    folder = tmp_path_factory.mktemp("bad")
    cells = ["print('before')", "# Divide", "1 / 0", "print('after')"]
    with pytest.raises(RunError):
        run(write_notebook(folder / "fails.ipynb", *cells), out=folder / "out")
    return Run.read(folder / "out")


@pytest.fixture
def copy(good: Run, tmp_path: Path) -> Callable[..., Run]:
    """Give a copy of the good run with other values in its record."""

    def changed(**changes: Any) -> Run:
        folder = tmp_path / "copy"
        shutil.copytree(good.folder, folder, dirs_exist_ok=True)
        write_json(folder / "run.json", {**read_json(folder / "run.json"), **changes})
        return Run.read(folder)

    return changed


def test_a_report_says_where_its_figures_come_from(good: Run) -> None:
    found = read(report(good))
    record, around = good.record, good.record["environment"]
    assert found.text.count("A small run") == 2  # the page's title and its heading
    for told in (
        *(good.id, "done", str(good.source), record["notebook"]["sha256"], "ab12" * 16, "line@1"),
        *(around["python"], around["platform"], *around["packages"].values()),
        f"workbench verify {good.id}",
    ):
        assert told in found.text
    assert re.search(r"epochs\s*3\s*given\s*lr\s*0\.1\s*default", found.text)
    assert re.search(r"accuracy\s*0\.3\s*± 0\.01\s*rows\s*12", found.text)
    assert f"took {good.seconds:.1f} s" in found.text


def test_a_report_is_whole_and_needs_nothing_else(good: Run) -> None:
    found = read(report(good))
    assert found.open == []
    assert found.all("script", "link", "iframe", "object", "base") == []
    sources = [attributes["src"] or "" for attributes in found.all("img")]
    assert len(sources) == 2
    assert all(source.startswith("data:image/") for source in sources)
    policies = [m["content"] for m in found.all("meta") if "http-equiv" in m]
    assert policies == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'"
    ]
    style = re.search("<style>(.*?)</style>", report(good).read_text(), re.DOTALL)
    assert style
    assert not re.search(r"url\(|@import|</", style[1])


def test_headings_are_in_order_and_parts_have_names(good: Run) -> None:
    found = read(report(good))
    levels = [int(name[1]) for name, _ in found.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert 1 not in levels[1:]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(found.all("main")) == len(found.all("header")) == len(found.all("footer")) == 1
    ids = {attributes.get("id") for _, attributes in found.elements}
    assert {section["aria-labelledby"] for section in found.all("section")} <= ids
    assert all(th["scope"] in ("row", "col") for th in found.all("th"))
    assert found.all("html") == [{"lang": "en"}]


def test_code_is_folded_and_coloured(good: Run) -> None:
    content = report(good).read_text()
    summaries = re.findall(r"<summary>(code of .*?)</summary>", content)
    assert [re.sub(r"\d+\.\d s", "S", text) for text in summaries] == [
        f"code of cell {n} · S" for n in (1, 2, 3, 5)
    ]
    assert '<span class="kn">import</span>' in content
    assert not re.search(r'<details class="code" open', content)


def test_outputs_are_shown_as_text_tables_and_pictures(good: Run) -> None:
    content = report(good).read_text()
    kept = nbformat.read(good.notebook, as_version=4).cells[3].outputs
    assert ">100%\nsay &lt; &amp; red</pre>" in content
    assert ">careful</pre>" in content
    assert '<tr><td class="empty"></td><th scope="col">a</th></tr>' in content
    assert '<tr><th scope="row">r</th><td>1</td></tr>' in content
    sources = [attributes["src"] or "" for attributes in read(report(good)).all("img")]
    svg, png = (base64.b64decode(source.partition(",")[2]) for source in sources)
    assert png == bytes(range(9)) == base64.b64decode(kept[-1].data["image/png"])
    assert svg.decode() == kept[3].data["image/svg+xml"]
    assert 'alt="picture under “Deep”"' in content


def test_what_needs_scripts_falls_back_to_text(good: Run) -> None:
    content = report(good).read_text()
    assert "&lt;IPython.core.display.HTML object&gt;" in content
    assert "document.title" not in re.sub("<pre>.*?</pre>", "", content, flags=re.DOTALL)
    assert "onclick" not in content


def test_maths_needs_no_script(good: Run) -> None:
    content = report(good).read_text()
    assert '<math display="inline"><mrow><mi>L</mi><mo>=</mo><mfrac>' in content
    assert '<math display="block"><mrow><mtable' in content
    assert r"<code>\nosuchthing{x}</code> or <code>\left( x</code>" in content


def test_a_failed_run_opens_with_what_failed_and_where(bad: Run) -> None:
    content = report(bad).read_text()
    found = Reader(content)
    assert content.index('class="trouble"') < content.index(">Provenance<")
    assert "The run failed in cell 2 of 3 (Divide)ZeroDivisionError: division by zero" in found.text
    assert {"href": "#cell-2"} in found.all("a")
    assert {"class": "cell", "id": "cell-2"} in found.all("div")
    assert re.search(r'<details class="code" open=""><summary>code of cell 2 · failed<', content)
    assert "----&gt; 1 1 / 0" in content
    assert "\x1b" not in content


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"state": "killed", "error": None}, "The run was killed"),
        ({"state": "interrupted", "error": None}, "The run was interrupted"),
        ({"state": "timed out", "error": None}, "The run ran out of time"),
        ({"state": "running", "seconds": None, "ended": None}, "The run was killed"),
        ({"state": "queued", "started": None, "seconds": None}, "The run has not begun"),
    ],
)
def test_a_run_in_any_state_has_a_report(
    copy: Callable[..., Run], changes: dict[str, Any], told: str
) -> None:
    assert told in read(report(copy(**changes))).text


def test_a_report_says_whether_the_run_was_verified(copy: Callable[..., Run]) -> None:
    run = copy()
    verified = {"format": 1, "time": "2026-01-02T03:04:05+00:00", "differences": [], "changed": []}
    write_json(run.folder / "verification.json", {**verified, "verdict": "identical"})
    found = read(report(run)).text
    assert "identical, executed again 2026-01-02 03:04:05 UTC" in found
    assert "workbench verify" not in found
    differences = [{"what": "metric", "name": "rows", "cell": 2, "text": "rows was 12, is 13"}]
    more = {"verdict": "differs", "differences": differences, "changed": ["python 3.11, now 3.12"]}
    write_json(run.folder / "verification.json", {**verified, **more})
    found = read(report(run)).text
    assert "differs, executed again" in found
    assert "rows was 12, is 13changed since: python 3.11, now 3.12" in found


def test_a_report_tells_what_else_is_recorded(copy: Callable[..., Run]) -> None:
    begun = "2026-01-02T03:04:05+00:00"
    run = copy(
        requirements=[
            {"text": "accuracy>=0.2", "holds": True, "found": 0.3},
            {"text": "accuracy>=0.9", "holds": False, "found": 0.3},
            {"text": "f1>=0.9", "holds": False, "found": None},
        ],
        envelope={"level": "any-x86", "variables": {}, "note": "not verified"},
        attempts=[
            {"started": begun, "ended": begun, "state": state} for state in ("killed", "done")
        ],
        sweep={"id": "sweep-1", "point": {}},
    )
    found = read(report(run)).text
    assert "holds: accuracy>=0.2, found 0.3fails: accuracy>=0.9, found 0.3fails: f1>=0.9" in found
    assert "reproducibleany-x86: not verified" in found
    assert "killed 2026-01-02 03:04:05 UTCdone 2026-01-02 03:04:05 UTC" in found
    assert "sweepsweep-1" in found


def test_a_record_of_an_older_workbench_is_enough(copy: Callable[..., Run], good: Run) -> None:
    run = copy()
    old = read_json(run.folder / "run.json")
    for key in ("tolerances", "given", "environment", "envelope", "attempts", "requirements"):
        old.pop(key, None)
    write_json(run.folder / "run.json", old)
    assert good.id in read(report(Run.read(run.folder))).text


def test_a_run_that_waits_has_a_report(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "small.ipynb", "1", parameters="epochs = 1")
    waiting = queue(notebook, {"epochs": 2}, out=tmp_path / "out")
    assert waiting.record["environment"] is None
    found = read(report(waiting))
    assert "The run has not begun" in found.text
    assert re.search(r"epochs\s*2\s*given", found.text)


def test_what_is_null_in_a_record_is_not_told(copy: Callable[..., Run], good: Run) -> None:
    nothing = dict.fromkeys(
        ("tolerances", "given", "envelope", "attempts", "requirements", "sweep", "error")
    )
    around = {"environment": {"packages": None, "hardware": None, "git": None}}
    assert good.id in read(report(copy(**nothing, **around))).text


def test_a_report_is_written_where_it_is_asked_for(good: Run, tmp_path: Path) -> None:
    assert report(good) == good.folder / "report.html"
    elsewhere = tmp_path / "new" / "for you.html"
    assert report(good, elsewhere) == report(good, elsewhere) == elsewhere
    assert [path.name for path in elsewhere.parent.iterdir()] == ["for you.html"]


def test_a_run_without_a_notebook_has_a_report_and_a_damaged_one_has_none(
    copy: Callable[..., Run],
) -> None:
    run = copy()
    run.notebook.write_text("{}")
    with pytest.raises(RequestError, match=r"notebook\.ipynb is not a notebook"):
        report(run)
    run.notebook.unlink()
    assert "small" in read(report(run)).text


@pytest.mark.parametrize(
    ("foreign", "harmless"),
    [
        ("<p>a<script>x()</script>b</p>", "<p>ab</p>"),
        ("<img src=x onerror=x()>", ""),
        ("<img src='https://a.example/b.png' alt='a <b>'>", "a &lt;b&gt;"),
        (
            "<img src='data:image/png;base64,AA=='>",
            '<img src="data:image/png;base64,AA==" alt="?">',
        ),
        ("<img src='data:text/html;base64,AA=='>", ""),
        ("<a href='javascript:x()'>a</a>", "<a>a</a>"),
        ("<a href=' https://a.example'>a</a>", "<a>a</a>"),
        ("<a href='https://a.example/?a&b'>a</a>", '<a href="https://a.example/?a&amp;b">a</a>'),
        ("<b style='position:fixed' id='notebook' class='trouble'>a", "<b>a</b>"),
        ("<td style='text-align: right'>1", '<td style="text-align: right">1</td>'),
        ("</div></main><i>a", "<i>a</i>"),
        ("<div><b>a</div>b", "<div><b>a</b></div>b"),
        ("<svg><style>a{}</style><a>b</a></svg>c", "c"),
        ("<style>a{}</style><iframe src='a'>b</iframe>c", "c"),
        ("<math><mtext><script>x()</script></mtext></math>", "<math><mtext></mtext></math>"),
        ("<!-- a --><!doctype html><?php a ?>b", "b"),
        ("<form action='a'><input name='a'>b</form>", "b"),
        ("<h1>a</h1><h6>b</h6><h2>c</h2>", "<h3>a</h3><h4>b</h4><h3>c</h3>"),
        ("1 &lt; 2 &amp;amp; <", "1 &lt; 2 &amp;amp; &lt;"),
    ],
)
def test_foreign_html_becomes_harmless(foreign: str, harmless: str) -> None:
    assert cleaned(foreign, Outline(), alt="?") == harmless


def test_cleaning_what_is_clean_changes_nothing() -> None:
    once = cleaned("<p>a<ul><li>b<li><code>c</ul><p>d &lt; e", Outline(), alt="")
    assert cleaned(once, Outline(), alt="") == once


def test_text_in_a_page_is_escaped() -> None:
    assert tag("p", "<i>", Html("<b>"), None, title='"', class_=None) == (
        '<p title="&quot;">&lt;i&gt;<b></p>'
    )
    assert b"<title>&lt;x&gt;</title>" in page("<x>", header="", main="")


def test_a_table_aligns_numbers_and_leaves_out_empty_columns() -> None:
    made = table(["name", "value", "note"], [("a", "-1.5e-06", ""), ("b", "12", "")], "values")
    assert 'tabindex="0" role="group" aria-label="values"' in made
    assert "note" not in made
    assert '<th scope="col" class="number">value</th>' in made
    assert '<tr><th scope="row">b</th><td class="number">12</td></tr>' in made
