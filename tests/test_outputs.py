"""What of two executions of a notebook counts as different, and what is stored of one."""

from __future__ import annotations

from typing import Any

import pytest
from nbformat import NotebookNode, validate
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from workbench.runs.outputs import OutputDifference, compare_outputs, take_outputs


def notebook(*outputs: NotebookNode, source: str = "f()", tags: tuple[str, ...] = ()) -> Any:
    """Return a notebook of a heading and one cell with these outputs."""
    cell = new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})
    return new_notebook(cells=[new_markdown_cell("# Learn"), cell])


def said(text: str, name: str = "stdout") -> Any:
    return new_output("stream", name=name, text=text)


def shown(**data: Any) -> Any:
    names = {name: name.replace("_", "/", 1) for name in data}
    return new_output("display_data", data={names[name]: data[name] for name in data})


SVG = {"image/svg+xml": "<svg/>"}
VIEW = {"application/vnd.jupyter.widget-view+json": {"model_id": "ab"}}
BAR = "train: 100%|████| 3/3 [00:00<00:00, 61984.79it/s]"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([said("a\n"), said("b\n")], [said("a\nb\n")]),
        ([said("a"), said("warned", "stderr"), said("b")], [said("ab")]),
        ([said("10 %\r20 %\rdone\n")], [said("10 %\rdone\n")]),
        ([said(f"a\n{BAR}\nb")], [said("a\n3it [00:01, 2.92s/it, loss=1]\nb")]),
        ([shown(text_plain="<f at 0x7f52b5ba7210>")], [shown(text_plain="<f at 0x55d0c8aa10>")]),
        ([shown(text_plain="9 steps in 1.2 s")], [shown(text_plain="9 steps in 3.4 s")]),
        ([shown(text_html='<td id="T_5e3ea_row0">')], [shown(text_html='<td id="T_d2608_row0">')]),
        ([shown(image_png="aGk=", text_plain="<Figure>")], [shown(text_plain="<Figure>")]),
        ([new_output("display_data", data=SVG)], []),
        ([new_output("display_data", data=VIEW)], []),
        ([shown(text_plain=BAR)], []),
        (
            [new_output("execute_result", data={"text/plain": "3"}, execution_count=3)],
            [shown(text_plain="3")],
        ),
        (
            [new_output("error", ename="E", evalue="no", traceback=["\x1b[31m/home/a"])],
            [new_output("error", ename="E", evalue="no", traceback=[])],
        ),
    ],
)
def test_what_a_reader_would_not_see_is_no_difference(
    before: list[NotebookNode], after: list[NotebookNode]
) -> None:
    assert compare_outputs(notebook(*before), notebook(*after)) == []
    assert compare_outputs(notebook(*after), notebook(*before)) == []


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ([said("a\nb")], [said("a\nc")], "stdout, line 2: 'b' became 'c'"),
        ([said("a\nb\n")], [said("a\n")], "stdout, line 2: 'b' is gone"),
        ([], [said("a")], "stdout, line 1: 'a' is new"),
        ([said("0xdeadbeef")], [said("0xdeadbee0")], "line 1: '0xdeadbeef' became '0xdeadbee0'"),
        ([shown(text_plain="1")], [shown(text_plain="2")], "text/plain, line 1: '1' became '2'"),
        ([shown(text_html="<b>")], [], "text/html, line 1: '<b>' is gone"),
        ([shown(text_latex="x")], [shown(text_latex="y")], "text/latex, line 1: 'x' became 'y'"),
        (
            [shown(application_json={"b": 1, "a": 2})],
            [shown(application_json={"a": 3, "b": 1})],
            """application/json, line 2: ' "a": 2,' became ' "a": 3,'""",
        ),
        (
            [new_output("error", ename="E", evalue="no")],
            [new_output("error", ename="E", evalue="yes")],
            "error, line 1: 'E: no' became 'E: yes'",
        ),
    ],
)
def test_what_a_reader_would_see_is_a_difference(
    before: list[NotebookNode], after: list[NotebookNode], text: str
) -> None:
    (found,) = compare_outputs(notebook(*before), notebook(*after))
    assert (found.cell, found.heading) == (1, "Learn")
    assert found.text.startswith("cell 1 (Learn), ")
    assert found.text.endswith(text)


def test_a_long_line_is_cut_to_where_it_differs() -> None:
    old, new = ("a" * 200 + middle + "z" * 200 for middle in "bc")
    (found,) = compare_outputs(notebook(said(old)), notebook(said(new)))
    cut = "..." + "a" * 20 + "{}" + "z" * 39 + "..."
    assert found.text == f"cell 1 (Learn), stdout, line 1: {cut.format('b')!r} became " + repr(
        cut.format("c")
    )
    assert (found.before, found.after) == (old, new)


@pytest.mark.parametrize("tag", ["nbval-ignore-output", "nbval-skip", "skip-execution"])
def test_a_tagged_cell_may_put_out_anything(tag: str) -> None:
    before, after = (notebook(said(text), tags=(tag,)) for text in "ab")
    assert compare_outputs(before, after) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("# NBVAL_IGNORE_OUTPUT\nf()", 0),
        ("f()\n  # NBVAL_SKIP", 0),
        ("f()  # NBVAL_IGNORE_OUTPUT", 1),  # which nbval does not accept either
        ("# NBVAL_CHECK_OUTPUT\nf()", 1),
    ],
)
def test_a_comment_says_the_same_as_a_tag(source: str, found: int) -> None:
    before, after = (notebook(said(text), source=source) for text in "ab")
    assert len(compare_outputs(before, after)) == found


def test_a_changed_source_is_the_difference_and_its_outputs_are_not() -> None:
    before, after = (notebook(said(text), source=f"f()\n{text}") for text in "ab")
    (found,) = compare_outputs(before, after)
    assert found.what == "source"
    assert found.text == "cell 1 (Learn), source, line 2: 'a' became 'b'"


def test_a_cell_that_one_side_lacks_is_a_difference() -> None:
    before, after = notebook(), notebook()
    after.cells += [new_code_cell("new()"), new_code_cell("")]
    assert [found.text for found in compare_outputs(before, after)] == [
        "cell 2 (Learn), source, line 1: 'new()' is new",
        "cell 3 (Learn), source: the cell is in only one of the two",
    ]
    assert compare_outputs(after, before)[0].text.endswith("'new()' is gone")


def test_injected_parameters_are_left_out_on_both_sides() -> None:
    before, after = notebook(said("a")), notebook(said("b"))
    after.cells.insert(0, new_code_cell("x = 1", metadata={"tags": ["injected-parameters"]}))
    assert [(found.cell, found.what) for found in compare_outputs(before, after)] == [(1, "stdout")]


def test_differing_lines_come_with_their_surroundings() -> None:
    old = [f"line {n}" for n in range(5000)]
    new = [*old[:2000], "other", *old[2001:]]
    found = OutputDifference(1, None, "stdout", "\n".join(old), "\n".join(new))
    lines = list(found.lines())
    assert [number for number, _, _ in lines] == list(range(1998, 2005))
    assert [pair for pair in lines if pair[1] != pair[2]] == [(2001, "line 2000", "other")]
    assert found.text == "cell 1, stdout, line 2001: 'line 2000' became 'other'"


def test_taking_outputs_changes_nothing_else() -> None:
    stored = notebook(said("old"))
    stored.cells[1].metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    stored.cells.append(new_code_cell("off()", outputs=[said("kept")]))
    stored.cells[2].metadata["tags"] = ["skip-execution"]
    stored.cells.append(new_code_cell("x = 1", metadata={"tags": ["injected-parameters"]}))
    stored.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    executed = notebook(said("new"), shown(text_plain="'view'"))
    executed.cells[1].execution_count = 7
    executed.cells[1].outputs[1].data.update(VIEW)
    executed.cells.append(new_code_cell("off()"))
    ids = [cell.id for cell in stored.cells]
    take_outputs(stored, executed)
    validate(stored)
    assert [cell.id for cell in stored.cells] == ids[:3]
    assert stored.cells[1].outputs == [said("new"), shown(text_plain="'view'")]
    assert stored.cells[1].execution_count == 7
    assert stored.cells[1].metadata == {"tags": []}
    assert stored.cells[2].outputs == [said("kept")]
    assert "widgets" not in stored.metadata
