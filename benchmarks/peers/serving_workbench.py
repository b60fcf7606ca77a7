"""The workbench: a model in a cell, `wb.serve`."""

from __future__ import annotations

import os
import threading

import torch
from serving_task import PORT, SHAPE, served_net

import workbench as wb

if __name__ == "__main__":
    wb.serve(
        served_net(),
        name="lenet",
        port=PORT,
        token=os.environ["SERVING_TOKEN"],
        example=torch.zeros(1, *SHAPE),
    )
    threading.Event().wait()
