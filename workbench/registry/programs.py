"""Models whose class cannot be imported, kept as a `torch.export` program: to serve, not to train.

Such an archive may hold pickled tensors, its size expressions are evaluated as Python, and its
names are pasted into Python source that torch runs. So it is checked before loading: raw weights
only, no sample inputs, operators of aten only, expressions of integers and plain symbols, and every
other text a plain name.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import RequestError, TamperedError
from workbench.modes import evaluating

__all__ = ["check_program", "load_program", "save_program"]

_ONE_TENSOR = '[1, {"type": null, "context": null, "children_spec": []}]'
_ONE_ARGUMENT = (  # forward(x), as torch's pytree writes it
    '[1, {"type": "builtins.tuple", "context": "null", "children_spec": [{"type": "builtins.tuple",'
    ' "context": "null", "children_spec": [{"type": null, "context": null, "children_spec": []}]}, '
    '{"type": "builtins.dict", "context": "[]", "children_spec": []}]}]'
)
# What torch.export.save writes, and nothing else; a sample input would be a pickle.
_ENTRIES = re.compile(
    r"[^/]+/(archive_format|archive_version|byteorder|\.data/\w+|models/model\.json"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json))"
)
_NO_SAMPLES = re.compile(r"[^/]+/data/sample_inputs/model\.pt")  # allowed when empty
_OPERATORS = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b)\w+\.\w+"  # that one maps files
    r"|_operator\.(getitem|add|sub|mul|neg|floordiv|truediv|mod|pow|eq|ne|lt|le|gt|ge)"
    r"|torch\.sym_(int|float|max|min|not|sqrt)"
)
_WORDS = {"Symbol", "Integer", "Add", "Mul", "Pow", "FloorDiv", "Mod", "Max", "Min", "ToFloat"}
_FLAGS = re.compile(r"(positive|integer|nonnegative)=(True|False)")
_SYMBOL = re.compile(r"'[A-Za-z]\w*'")
_PLAIN = re.compile(r"[-+*/(), 0-9]*")
_NAMES = re.compile(r"[\w.]*", re.ASCII)
_TEXTS = {  # what the text under a key may be; under any other key it is a name
    "as_operator": _OPERATORS,
    "as_string": re.compile(r"[\w ,.>+-]*", re.ASCII),  # "tanh", "bij,bjk->bik"
    "in_spec": re.compile(re.escape(_ONE_ARGUMENT)),
    "out_spec": re.compile(re.escape(_ONE_TENSOR)),
    "torch_version": re.compile(r"[\w.+]*", re.ASCII),
}


def save_program(model: nn.Module, batch: Tensor) -> bytes:
    """Return the archive of the model as a program for batches of any number of rows.

    Args:
        model: left as it was.
        batch: what `forward` takes, shaped (rows, ...), with two rows or more.

    Raises:
        RequestError: torch cannot trace the model; the message says where it stopped.
    """
    rows = torch.export.Dim("rows", min=1)
    try:
        with evaluating(model), torch.no_grad():
            program = torch.export.export(model, (batch,), dynamic_shapes=({0: rows},))
    except Exception as error:  # torch.export raises many kinds, none of them its own
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise RequestError(
            f"{type(model).__name__} cannot be stored: its class cannot be imported and built "
            f"without arguments, and torch cannot export it: {first}. Move the class into a "
            "module, or make its forward free of branches on values"
        ) from error
    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta = {"val": node.meta["val"]} if "val" in node.meta else {}  # the rest names files
    archive = io.BytesIO()
    torch.export.save(program, archive)
    try:
        check_program(archive.getvalue())
    except TamperedError as error:
        raise RequestError(
            f"{type(model).__name__} cannot be stored: its class cannot be imported and built "
            f"without arguments, and as a program it is more than this workbench would load: "
            f"{error}. Move the class into a module"
        ) from None
    return archive.getvalue()


def load_program(path: Path) -> nn.Module:
    """Return the program as a module that answers and cannot be trained.

    Raises:
        TamperedError: the archive holds something that could run code.
    """
    content = path.read_bytes()
    check_program(content)
    module: nn.Module = torch.export.load(io.BytesIO(content)).module()
    return module


def check_program(content: bytes) -> None:
    """Raise where an archive of `torch.export` holds anything but raw tensors and plain sizes.

    Raises:
        TamperedError: it does; the message names the entry.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                _check_entry(entry)
                if entry.filename.endswith(".json"):
                    _check_json(entry.filename, json.loads(archive.read(entry)))
    except (zipfile.BadZipFile, ValueError, RecursionError, RuntimeError, EOFError) as error:
        if isinstance(error, TamperedError):
            raise
        raise TamperedError(f"the program is not an archive of torch.export: {error}") from None


def _check_entry(entry: zipfile.ZipInfo) -> None:
    empty_samples = _NO_SAMPLES.fullmatch(entry.filename) and entry.file_size == 0
    if not (_ENTRIES.fullmatch(entry.filename) or empty_samples):
        raise _refused(entry.filename, f"holds {entry.file_size} bytes of an unknown kind")
    if entry.compress_type != zipfile.ZIP_STORED:  # nor could it be read without bound
        raise _refused(entry.filename, "is compressed")


def _check_json(entry: str, value: Any, key: str = "") -> None:
    """Walk everything a JSON entry holds; refuse what would be unpickled, called or evaluated."""
    if isinstance(value, list):
        for item in value:
            _check_json(entry, item, key)
    elif isinstance(value, dict):
        if value.get("use_pickle"):
            raise _refused(entry, "holds a pickled tensor")
        for name, item in value.items():
            _check_text(entry, name, "")
            _check_json(entry, item, name)
    elif isinstance(value, str):
        _check_text(entry, value, key)


def _check_text(entry: str, text: str, key: str) -> None:
    if key == "target":
        if not _OPERATORS.fullmatch(text):
            raise _refused(entry, f"calls {text!r}")
    elif key == "expr_str":
        if not _is_plain(text):
            raise _refused(entry, f"evaluates {text!r}")
    elif key == "guards_code" or not _TEXTS.get(key, _NAMES).fullmatch(text):
        raise _refused(entry, f"says {text!r:.80} where a plain name belongs")


def _is_plain(expression: str) -> bool:
    """Return whether a size is made of integers, quoted symbols and sympy's arithmetic only."""
    rest = _SYMBOL.sub("", _FLAGS.sub("", expression))
    words = re.findall(r"[A-Za-z_]\w*", rest)
    return set(words) <= _WORDS and bool(_PLAIN.fullmatch(re.sub(r"[A-Za-z_]\w*", "", rest)))


def _refused(entry: str, why: str) -> TamperedError:
    return TamperedError(f"the program's entry {entry!r} {why}: only what publish writes is loaded")
