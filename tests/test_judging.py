"""What is decided of a run once it has ended, and everything `workbench run` can be asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from test_runs_command import SLOW, begun, command
from typer.testing import CliRunner
from writing import write_notebook

from workbench.cli import app
from workbench.errors import RequestError, RunError
from workbench.home import home
from workbench.runs import Run, list_runs

pytestmark = pytest.mark.usefixtures("forked")

CELL = "from workbench.journal import record\nrecord('x', x)"


def write(folder: Path, cell: str = CELL) -> Path:
    return write_notebook(folder / "a.ipynb", cell, parameters="x = 1  # a number; 0 < x <= 9")


def until_running() -> None:
    """Wait until a cell of a run of this home runs."""
    for _ in range(600):
        if any(run.state == "running" and run.metrics for run in list_runs()):
            return
        time.sleep(0.05)
    raise AssertionError("no run has begun")


def ask(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    told: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", told
    server.shutdown()
    server.server_close()


def test_requirements_decide_the_exit_code_and_are_kept(
    tmp_path: Path, webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    notebook, (url, told) = write(tmp_path), webhook
    options = ["--require", "x>=last-0.5", "--on-failure", url, "--junit", tmp_path / "j.xml"]
    assert ask("run", notebook, *options).exit_code == 0
    notebook.write_text(notebook.read_text().replace("record('x', x)", "record('x', x - 0.6)"))
    said = ask("run", notebook, *options)
    assert isinstance(said.exception, RunError)
    assert said.exception.exit_code == 1
    assert "is done, and does not meet what is required of it:\n  x is 0.4" in str(said.exception)
    last = list_runs()["last"]
    assert (last.state, [r["holds"] for r in last.requirements]) == ("done", [False])
    assert said.stdout == f"{last.folder}\n"
    assert [line["failed_requirements"][0]["found"] for line in told] == [0.4]
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")


def test_a_folder_that_fails_is_told_and_reported_up_to_there(
    tmp_path: Path, webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    for name, cell in (("a", CELL), ("b", "1 / 0"), ("c", CELL)):
        write_notebook(tmp_path / "all" / f"{name}.ipynb", cell, parameters="x = 1")
    junit = tmp_path / "j.xml"
    said = ask("run", tmp_path / "all", "--on-failure", webhook[0], "--junit", junit)
    assert isinstance(said.exception, RunError)
    assert [line["error"]["name"] for line in webhook[1]] == ["ZeroDivisionError"]
    names = [suite.get("name") for suite in ElementTree.parse(junit).getroot()]
    assert names == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--require", "x=>1"], "requirement 'x=>1' is not understood"),
        (["--on-failure", "ftp://x"], "the webhook is not a URL"),
        (
            ["--deterministic", "same"],
            "unknown level of determinism 'same': There are: any-x86, same",
        ),
        (["--time-limit", "0"], "time_limit is 0.0, expected a number above 0"),
        (["-p", "x=10"], "parameter 'x' got int 10"),
    ],
)
def test_a_wrong_option_starts_nothing(tmp_path: Path, options: list[str], message: str) -> None:
    said = ask("run", write(tmp_path), *options)
    assert isinstance(said.exception, RequestError)
    assert message in str(said.exception)
    assert not home().exists()


def test_help_shows_the_notebooks_own_parameters_and_schema_gives_them(tmp_path: Path) -> None:
    said = ask("run", write(tmp_path), "--help")
    assert said.exit_code == 0
    assert all(text in said.stdout for text in ("x", "int", "0 < x <= 9", "a number"))
    schema = json.loads(ask("run", write(tmp_path), "--schema").stdout)
    assert schema["properties"]["x"]["type"] == "integer"
    assert "--require" in ask("run", "--help").stdout
    for options, message in ((["--schema"], "--schema of what"), ([], "run what?")):
        said = ask("run", *options)
        assert isinstance(said.exception, RequestError)
        assert message in str(said.exception)
    assert not home().exists()


def test_latest_names_the_newest_run(tmp_path: Path) -> None:
    notebook = write(tmp_path)
    ask("run", notebook)
    assert (home() / "latest").resolve() == list_runs()["last"].folder
    ask("run", notebook, "--out", tmp_path / "out")
    assert Run.read(home() / "latest").folder.resolve() == tmp_path / "out"


def test_an_exclusive_run_is_alone(tmp_path: Path) -> None:
    notebook = write(tmp_path, SLOW)
    first = command("run", notebook, "--exclusive", "--out", tmp_path / "out")
    begun(tmp_path / "out")
    said = ask("run", notebook, "--exclusive")
    assert isinstance(said.exception, RequestError)
    assert "is going on, and this one was to be alone" in str(said.exception)
    second = command("run", notebook)  # which does not ask to be alone
    until_running()
    Run.read(tmp_path / "out").stop()
    first.communicate(timeout=30)
    assert "was to be alone" in str(ask("run", notebook, "--exclusive").exception)
    list_runs()["last"].stop()
    second.communicate(timeout=30)
    first = command("run", notebook, "--exclusive", "--out", tmp_path / "again")
    begun(tmp_path / "again")
    Run.read(tmp_path / "again").stop()
    _, err = first.communicate(timeout=30)
    assert first.returncode == 3, err
    assert f"`workbench resume {Run.read(tmp_path / 'again').id}` goes on" in err
    with pytest.raises(RequestError, match="is interrupted: there is nothing to stop"):
        Run.read(tmp_path / "again").stop()


def test_stop_ends_a_run_by_its_id(tmp_path: Path) -> None:
    process = command("run", write(tmp_path, SLOW))
    until_running()
    run = list_runs()["last"]
    assert f"run {run.id} is told to end" in ask("stop", "last").stdout
    process.communicate(timeout=30)
    assert (process.returncode, list_runs()["last"].state) == (3, "interrupted")


def test_a_run_that_timed_out_is_given_more_time(tmp_path: Path) -> None:
    notebook = write(tmp_path, "import time; time.sleep(x)")
    assert ask("run", notebook, "-p", "x=2", "--time-limit", "1").exception.exit_code == 4
    assert list_runs()["last"].state == "timed out"
    assert ask("resume", "last", "--time-limit", "60").exit_code == 0
    assert list_runs()["last"].record["limits"]["seconds"] == 60


def test_runs_are_picked_from_the_shell(tmp_path: Path) -> None:
    notebook = write(tmp_path)
    for x in (3, 1, 2):
        ask("run", notebook, "-p", f"x={x}")
    lines = ask("runs", "--where", "x>=2", "--sort", "x").stdout.splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["2", "3"]
    assert ask("runs", "--notebook", "a", "--last", 1).stdout.count("\n") == 1
    none = ask("runs", "--state", "failed")
    assert (none.stdout, none.stderr) == ("", "no run for which state=failed\n")
    records = json.loads(ask("runs", "--where", "x=3", "--json").stdout)
    assert [record["parameters"]["x"] for record in records] == [3]


def test_compare_report_and_resume_are_there_in_the_shell(tmp_path: Path) -> None:
    notebook = write(tmp_path)
    for x in (1, 2):
        ask("run", notebook, "-p", f"x={x}")
    one, two = (run.id for run in list_runs())
    said = ask("compare", one, two, "--html", tmp_path / "c.html")
    assert said.stdout.splitlines()[-1] == str(tmp_path / "c.html")
    assert "x" in said.stdout
    report = Path(ask("report", two).stdout.strip())
    assert one not in report.read_text()
    assert two in report.read_text()
    said = ask("resume", two)
    assert isinstance(said.exception, RequestError)
    assert "is done: there is nothing to resume" in str(said.exception)


def test_resume_says_what_it_went_on_from(tmp_path: Path) -> None:
    cell = (
        "import os, torch\nimport workbench as wb\nx = torch.ones(8, 1)\n"
        "data = wb.dataset('p', train=(x, x), validation=0)\n"
        "wb.fit(wb.build('linear', data), data, steps=3)\n"
        "if os.environ['WORKBENCH_RESUMED'] == '0': os._exit(1)"
    )
    notebook = write(tmp_path, cell)
    assert ask("run", notebook).exception.exit_code == 4
    notebook.write_text(notebook.read_text() + " ")
    said = ask("resume", "last")
    assert said.exit_code == 0
    assert "has changed since: going on with the run's own copy; --edited takes" in said.stderr
    assert "training 01-linear was finished\n" in said.stderr
    assert said.stdout == f"{list_runs()['last'].folder}\n"
