"""What a server says of itself and of its models, in the words of V2 and V1."""

from __future__ import annotations

from collections.abc import Sequence

import workbench
from workbench.serving.batching import MAX_ROWS
from workbench.serving.served import Served
from workbench.types import JSON, TensorSpec

__all__ = ["config", "metadata", "server_metadata", "v1_metadata", "v1_status"]

_EXTENSIONS = (
    "binary_tensor_data", "classification", "generate", "model_configuration", "model_repository",
    "parameters", "statistics",
)  # fmt: skip

_TENSORFLOW = {  # its words, where they are others
    "FP16": "HALF", "FP32": "FLOAT", "FP64": "DOUBLE", "BF16": "BFLOAT16", "BYTES": "STRING",
}  # fmt: skip


def server_metadata() -> JSON:
    """Return what GET /v2 says."""
    return {"name": "workbench", "version": workbench.__version__, "extensions": _EXTENSIONS}


def metadata(served: Served, versions: Sequence[str]) -> JSON:
    """Return a model's metadata: what goes in and comes out, and the names of its classes.

    Args:
        served: the model.
        versions: of its name that are here.
    """
    classes = list(served.classes)
    return {
        "name": served.name,
        "versions": list(versions),
        "platform": _platform(served),
        **served.signature.to_json(),
        **({"classes": classes} if classes else {}),  # a regression has none
        "parameters": {
            "model": served.model,
            **({"engine": served.engine.to_json()} if served.engine else {}),
        },
    }


def config(served: Served) -> JSON:
    """Return a model's configuration in Triton's words; the axis of rows is left out there."""
    return {
        "name": served.name,
        "platform": _platform(served),
        "backend": "workbench",
        "version_policy": {"specific": {"versions": [int(served.version)]}},
        "max_batch_size": MAX_ROWS,
        "input": [_io(spec) for spec in served.signature.inputs],
        "output": [_io(spec) for spec in served.signature.outputs],
        "dynamic_batching": {},
        "model_transaction_policy": {"decoupled": served.can_stream},
    }


def v1_status(name: str, models: Sequence[Served]) -> JSON:
    """Return a model's status, for clients of TensorFlow Serving and of KServe alike."""
    status = {"error_code": "OK", "error_message": ""}
    states = [{"version": m.version, "state": "AVAILABLE", "status": status} for m in models]
    return {"name": name, "ready": True, "model_version_status": states}


def v1_metadata(served: Served) -> JSON:
    """Return a model's metadata in TensorFlow Serving's words."""
    definition = {
        "inputs": {spec.name: _v1_io(spec) for spec in served.signature.inputs},
        "outputs": {spec.name: _v1_io(spec) for spec in served.signature.outputs},
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": served.name, "signature_name": "", "version": served.version},
        "metadata": {"signature_def": {"signature_def": {"serving_default": definition}}},
    }


def _platform(served: Served) -> str:
    return served.engine.platform if served.engine else "pytorch"


def _io(spec: TensorSpec) -> JSON:
    word = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{word}", "dims": list(spec.shape[1:]) or [1]}


def _v1_io(spec: TensorSpec) -> JSON:
    dims = [{"size": str(size), "name": ""} for size in spec.shape]
    shape = {"dim": dims, "unknown_rank": False}
    dtype = f"DT_{_TENSORFLOW.get(spec.datatype, spec.datatype)}"
    return {"dtype": dtype, "tensor_shape": shape, "name": spec.name}
