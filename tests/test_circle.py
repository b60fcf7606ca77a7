"""The circle, driven from another process that has nothing but an address and a token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from points import publish_both
from supervised import serving
from writing import write_notebook

import workbench as wb
from workbench.registry import history

ADMIN = "a" * 32
PARAMETERS = "offset: float = 0.0  # 0 <= offset <= 5; of the sensor"
TRAIN = """\
import torch
import workbench as wb

draw = torch.Generator().manual_seed(8)
rows = torch.randn(1200, 2, generator=draw)
above = (rows.sum(1) > 0).long()
data = wb.dataset(
    "off", train=(rows + offset, above), validation=200, classes=("below", "above")
)
model = wb.build("linear", data, seed=0)
wb.fit(model, data, epochs=20, lr=0.3, seed=0)
wb.record("accuracy", wb.evaluate(model, data.validation).accuracy)
wb.publish(model, "points", evaluation=wb.evaluate(model, data.validation)).ref
"""
DRIVER = """\
import json, os
import numpy as np
import workbench as wb

service = wb.connect(os.environ["URL"], os.environ["TOKEN"])
draw = np.random.default_rng(3)
told = {}

def day(offset, labelled=True):
    for _ in range(6):
        rows = draw.normal(size=(100, 2))
        answer = service.predict((rows + offset).astype("float32"))
        names = ["above" if row.sum() > 0 else "below" for row in rows]
        if labelled:
            service.feedback(answer, names, group=f"offset {offset}")
        now = service.monitor()
    return now

told["calm"] = day(0.0)
told["alarmed"] = day(1.5, labelled=False)
told["worse"] = day(1.5)
job = service.train("retrain", offset=1.5).wait(120)
told["job"] = [job.id, job.state, job.published, job.metrics]
service.challenge(job.published[0].partition("@")[2])
told["shadowed"] = day(1.5)
told["promoted"] = service.promote(labels=500)
told["restored"] = day(1.5)
told["models"] = sorted(set(service.answers(last=5)["version"]))
print(json.dumps(told))
"""


def accuracy(told: dict[str, object], group: str) -> float:
    part = told["accuracy"]["groups"][group]  # type: ignore[index]
    assert part["labels"] % 600 == 0
    return float(part["accuracy"])


@pytest.mark.full  # notebook 13 goes the same way in `make test`, with one worker
def test_from_drift_to_a_better_version_over_the_wire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, champion = publish_both()
    wb.promote(champion.ref, "champion")
    notebook = write_notebook(tmp_path / "retrain.ipynb", "# Retrain", TRAIN, parameters=PARAMETERS)
    monkeypatch.setenv("WORKBENCH_ADMIN_TOKEN", ADMIN)
    words = ("points@champion", "--reload", "--workers", "2", "--jobs", str(notebook))
    with serving(*words) as serve:
        elsewhere = {"URL": serve.service().url, "TOKEN": ADMIN, "PATH": os.environ["PATH"]}
        elsewhere |= {"WORKBENCH_HOME": str(tmp_path / "elsewhere"), "HOME": str(tmp_path)}
        command = [sys.executable, "-W", "error", "-c", DRIVER]
        driven = subprocess.run(command, env=elsewhere, capture_output=True, text=True, check=False)
        assert driven.returncode == 0, driven.stderr + serve.said()
        assert serve.stop() is not None
    told = json.loads(driven.stdout)
    assert told["calm"]["drift"]["alarm"] == []
    assert "input feature_0" in told["alarmed"]["drift"]["alarm"]
    assert accuracy(told["calm"], "offset 0.0") > 0.97
    assert accuracy(told["worse"], "offset 1.5") < 0.7
    identity, state, (published,), metrics = told["job"]
    assert (state, published, told["promoted"]) == ("done", "points@3", "points@3")
    assert metrics["accuracy"] > 0.97
    assert accuracy(told["restored"], "offset 1.5") > 0.97
    assert told["models"] == ["3"]
    assert wb.version("points@champion").lineage["run"] == identity
    assert history("points")[-1]["evidence"]["challenger"]["accuracy"] > 0.97
