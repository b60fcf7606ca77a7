"""KServe's own client, unmodified, from an environment of its own: it needs an older pandas."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch
from asking import ROWS, small_model

from workbench.serving import Service

_CACHE = Path(__file__).parent / ".kserve"
_VERSION = "0.21.0"
_CLIENT = """
import asyncio, json, sys
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

url, token, rows = json.loads(sys.argv[1])
headers = {"Authorization": f"Bearer {token}"}

async def ask():
    rows32 = np.array(rows, dtype=np.float32)
    said = {}
    for protocol in ("v1", "v2"):
        client = InferenceRESTClient(RESTConfig(protocol=protocol))
        said[f"live {protocol}"] = await client.is_server_live(url, headers)
        said[f"model {protocol}"] = await client.is_model_ready(url, "small", headers)
        if protocol == "v1":
            answer = await client.infer(url, {"instances": rows}, "small", dict(headers))
            said["v1"] = answer["predictions"]
            continue
        said["ready"] = await client.is_server_ready(url, headers)
        for binary in (False, True):
            given = InferInput("input", list(rows32.shape), "FP32")
            given.set_data_from_numpy(rows32, binary_data=binary)
            request = InferRequest("small", [given])
            answer = await client.infer(url, request, "small", dict(headers))
            said[f"v2 {binary}"] = answer.outputs[0].as_numpy().tolist()
    return said

print(json.dumps(asyncio.run(ask())))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """Return the interpreter of an environment with KServe's client, made once."""
    folder = _CACHE / _VERSION
    found = folder / "bin" / "python"
    if not (folder / "whole").exists():
        venv.create(folder, with_pip=True, clear=True)
        (_CACHE / ".gitignore").write_text("*\n")
        wanted = f"kserve=={_VERSION}"
        subprocess.run([str(found), "-m", "pip", "install", "--quiet", wanted], check=True)
        (folder / "whole").touch()
    return found


@pytest.mark.matrix
@pytest.mark.skipif(sys.platform == "win32", reason="KServe is not made for Windows")
def test_its_client_asks_by_both_protocols(python: Path, service: Service) -> None:
    given = json.dumps([service.url, service.token, ROWS.tolist()])
    ended = subprocess.run(
        [str(python), "-c", _CLIENT, given], capture_output=True, text=True, check=True
    )
    said = json.loads(ended.stdout.splitlines()[-1])
    expected = small_model()(ROWS).detach()
    for way in ("v1", "v2 False", "v2 True"):
        torch.testing.assert_close(torch.tensor(said.pop(way)), expected)
    assert set(said.values()) == {True}
