"""A JupyterLab server of the tests' own: nothing that it reads or writes is the user's."""

from __future__ import annotations

import ast
import json
import os
import secrets
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import websocket

__all__ = ["FOLDERS", "LabServer", "lab_server", "write_settings"]

COMMAND = [
    *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
    *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"),  # 0: one that is free
    *("--expose-app-in-browser", "--JupyterNotebookApp.expose_app_in_browser=True"),
]
FOLDERS = {
    "IPYTHONDIR": "ipython",
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
}
SETTINGS = {
    "notification": {"fetchNews": "false", "checkForUpdates": False},
    "sessionDialogs": {"skipKernelRestartDialog": True},
    "themes": {"theme": "JupyterLab Light", "adaptive-theme": False},
}


class LabServer:
    """A running server and its kernels.

    Args:
        url: where it answers.
        token: what it wants to be shown.
        files: the folder it serves; a kernel works in the folder of its notebook.
        folder: its settings, kernels, workspaces and log.
    """

    def __init__(self, url: str, token: str, files: Path, folder: Path) -> None:
        self.url, self.token, self.files, self._folder = url, token, files, folder
        self._headers = {"Authorization": f"token {token}"}

    @property
    def log(self) -> str:
        """What it has said."""
        return (self._folder / "server.log").read_text()

    @property
    def kernels(self) -> str:
        """What it says of its kernels: whether each is idle, busy or gone."""
        return json.dumps(self._ask("GET", "kernels"), indent=1)

    def reset(self) -> None:
        """Shut every kernel down and forget the settings that a test has made."""
        for session in self._ask("GET", "sessions"):
            self._ask("DELETE", f"sessions/{session['id']}")
        write_settings(self._folder)

    def add_kernel(self, name: str, path: Path) -> None:
        """Offer the ipykernel that was installed into a folder, as it describes itself."""
        spec = json.loads((path / "share/jupyter/kernels/python3/kernel.json").read_text())
        self._offer(spec | {"display_name": name, "env": {"PYTHONPATH": str(path)}})

    def add_forked(self, name: str, address: str) -> None:
        """Offer kernels that the warm parent at an address forks."""
        argv = [sys.executable, "-m", "browser.forked", address, "-f", "{connection_file}"]
        there = {"PYTHONPATH": str(Path(__file__).parents[1])}
        self._offer({"argv": argv, "display_name": name, "language": "python", "env": there})

    def _offer(self, spec: dict[str, Any]) -> None:
        _write_json(self._folder / "data/kernels" / spec["display_name"] / "kernel.json", spec)

    def evaluate(self, notebook: Path, expression: str, seconds: float) -> Any:
        """Return the value of an expression in a notebook's kernel; both must fit into JSON.

        Nothing is displayed, and no execution is counted.
        """
        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3"}
        header |= {"session": uuid.uuid4().hex, "username": "", "date": ""}
        content = {
            "code": "",
            "silent": True,
            "user_expressions": {"value": f"__import__('json').dumps({expression})"},
        }
        told = {"channel": "shell", "header": header, "content": content}
        until = time.monotonic() + seconds
        late = suppress(websocket.WebSocketTimeoutException)
        with late, closing(self._channels(notebook, header["session"])) as channels:
            channels.send(json.dumps(told | {"parent_header": {}, "metadata": {}}))
            while (left := until - time.monotonic()) > 0:
                channels.settimeout(left)
                message = channels.recv()
                if isinstance(message, bytes):
                    continue  # buffers of a widget
                reply = json.loads(message)
                asked = reply["parent_header"].get("msg_id") == header["msg_id"]
                if asked and reply["msg_type"] == "execute_reply":
                    return _value(expression, reply["content"])
        raise TimeoutError(f"the kernel said nothing to {expression!r} within {seconds:g} s")

    def _channels(self, notebook: Path, session: str) -> websocket.WebSocket:
        path = notebook.relative_to(self.files).as_posix()
        kernels = {s["path"]: s["kernel"]["id"] for s in self._ask("GET", "sessions")}
        address = f"{self.url}api/kernels/{kernels[path]}/channels?session_id={session}"
        return websocket.create_connection(
            address.replace("http", "ws", 1), header=self._headers, timeout=60, http_no_proxy=["*"]
        )

    def _ask(self, method: str, path: str) -> Any:
        with httpx.Client(headers=self._headers, timeout=60, trust_env=False) as client:
            answer = client.request(method, f"{self.url}api/{path}").raise_for_status()
            return answer.json() if answer.content else None


@contextmanager
def lab_server(files: Path, folder: Path) -> Iterator[LabServer]:
    """Run a server for the while."""
    write_settings(folder)
    token = secrets.token_hex()
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, f"--ServerApp.root_dir={files}"],
            env=_environment(folder, token),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    with process:
        try:
            url = _url_of(process, folder)
            yield LabServer(url, token, files, folder)
        finally:
            process.terminate()  # the kernels end with it
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


def write_settings(folder: Path) -> None:
    """Write what a person has set who wants no news, no question before a restart, and light."""
    for name, values in SETTINGS.items():
        file = f"@jupyterlab/apputils-extension/{name}.jupyterlab-settings"
        _write_json(folder / "settings" / file, values)


def _environment(folder: Path, token: str) -> dict[str, str]:
    """Return what the server and its kernels find: a person's environment, in folders of ours.

    The workbench's home is the folder `home` beside each notebook.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")}
    for name in ("WORKBENCH_HEADLESS", "WORKBENCH_RUN"):
        kept.pop(name, None)
    own = {name: str(folder / place) for name, place in FOLDERS.items()}
    return kept | own | {"JUPYTER_TOKEN": token, "WORKBENCH_HOME": "home"}


def _url_of(process: subprocess.Popen[bytes], folder: Path) -> str:
    """Return where the server answers, as soon as it has said so."""
    told = folder / "runtime" / f"jpserver-{process.pid}.json"
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if told.exists() and told.read_text().endswith("}"):
            return str(json.loads(told.read_text())["url"])
        time.sleep(0.05)
    raise RuntimeError(f"JupyterLab did not start:\n{(folder / 'server.log').read_text()[-3000:]}")


def _value(expression: str, reply: dict[str, Any]) -> Any:
    value = reply.get("user_expressions", {}).get("value", reply)
    if value["status"] != "ok":
        told = f"{value['ename']}: {value['evalue']}" if "ename" in value else value["status"]
        raise AssertionError(f"{expression}: {told}")
    return json.loads(ast.literal_eval(value["data"]["text/plain"]))


def _write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
