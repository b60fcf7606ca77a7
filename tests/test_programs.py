"""Models kept as programs: the same answers, and nothing that could run code gets to torch."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.errors import RequestError, TamperedError
from workbench.registry.programs import check_program, load_program, save_program
from workbench.types import JSON

MODEL = "archive/models/model.json"
CONSTANTS = "archive/data/constants/model_constants_config.json"
WEIGHTS = "archive/data/weights/model_weights_config.json"
SYSTEM = "__import__('os').system('echo pwned')"

Entries = dict[str, bytes]
Change = Callable[[Entries], object]


class Net(nn.Module):
    """A net with buffers, a size that depends on the rows, texts and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm(self.first(x)), approximate="tanh")
        x = self.drop(x).reshape(x.shape[0], 2, 3)
        return torch.einsum("bij,j->bi", x, torch.tensor([1.0, 2.0, 3.0]))


@pytest.fixture(scope="module")
def net() -> Net:
    return Net()


@pytest.fixture(scope="module")
def saved(net: Net) -> bytes:
    return save_program(net, torch.randn(2, 4))


def changed(archive: bytes, change: Change) -> bytes:
    """Return the archive with its entries changed."""
    with zipfile.ZipFile(io.BytesIO(archive)) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    change(entries)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as new:
        for name, content in entries.items():
            new.writestr(name, content)
    return made.getvalue()


def put(name: str, content: bytes) -> Change:
    return lambda entries: entries.update({name: content})


def edit(name: str, change: Callable[[JSON], object]) -> Change:
    """Change one JSON entry."""

    def apply(entries: Entries) -> None:
        data = json.loads(entries[name])
        change(data)
        entries[name] = json.dumps(data).encode()

    return apply


def swap(old: str, new: str) -> Change:
    """Replace one text of the model wherever it stands."""

    def apply(entries: Entries) -> None:
        text = entries[MODEL].decode()
        assert json.dumps(old) in text
        entries[MODEL] = text.replace(json.dumps(old), json.dumps(new)).encode()

    return apply


def calls(target: str) -> Change:
    def change(data: JSON) -> None:
        data["graph_module"]["graph"]["nodes"][0]["target"] = target

    return edit(MODEL, change)


def as_size(expression: str) -> Change:
    def change(data: JSON) -> None:
        sizes = data["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = expression

    return edit(MODEL, change)


def pickled(data: JSON) -> None:
    next(iter(data["config"].values()))["use_pickle"] = True


def imports(data: JSON) -> None:
    spec = '[1, {"type": "collections.defaultdict", "context": "os", "children_spec": []}]'
    data["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = spec


ATTACKS: dict[str, tuple[Change, str]] = {
    "sample inputs": (
        put("archive/data/sample_inputs/model.pt", pickle.dumps(print)),
        r"'archive/data/sample_inputs/model.pt' holds \d+ bytes of an unknown kind",
    ),
    "pickled weights": (edit(WEIGHTS, pickled), "holds a pickled tensor"),
    "pickled constants": (edit(CONSTANTS, pickled), "holds a pickled tensor"),
    "old pickled weights": (put("archive/data/weights/model.pt", b"x"), "1 bytes of an unknown"),
    "a library": (put("archive/data/aotinductor/model/a.so", b"x"), r"'.*a\.so' holds 1 bytes"),
    "an object": (put("archive/data/constants/custom_obj_0", b"x"), r"'.*custom_obj_0' holds 1"),
    "a path": (put("../evil.json", b"{}"), r"'\.\./evil\.json' holds 2 bytes of an unknown kind"),
    "another function": (calls("torch.hub.load"), "calls 'torch.hub.load'"),
    "a file's operator": (calls("torch.ops.aten.from_file.default"), r"calls 'torch.*from_file"),
    "a size": (as_size(SYSTEM), r'evaluates "__import__'),
    "an input's name": (swap("x", f"x={SYSTEM}"), r'says "x=__import__.* where a plain name'),
    "a weight's name": (swap("p_first_weight", f"p={SYSTEM}"), r'says "p=__import__'),
    "a key": (edit(MODEL, lambda data: data.update({SYSTEM: 1})), r'says "__import__'),
    "a guard": (
        edit(MODEL, lambda data: data["guards_code"].append("True")),
        "says 'True' where a plain name belongs",
    ),
    "an import": (edit(MODEL, imports), r"says '.*defaultdict.*' where a plain name belongs"),
    "no JSON": (put(MODEL, b"{"), "not an archive of torch.export"),
}


def test_a_program_answers_as_the_model_did(net: Net, saved: bytes, tmp_path: Path) -> None:
    (tmp_path / "program.pt2").write_bytes(saved)
    loaded = load_program(tmp_path / "program.pt2")
    net.eval()
    for rows in (1, 2, 9):
        x = torch.randn(rows, 4)
        assert torch.equal(loaded(x), net(x))


def test_saving_leaves_the_model_as_it_was() -> None:
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    save_program(net, torch.randn(2, 4))
    assert all(module.training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_program_names_no_file_of_this_machine(saved: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(saved)) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert b".py" not in content
    assert b"test_programs" not in content


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_could_run_code_never_reaches_torch(
    attack: str, saved: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: object) -> None:
        pytest.fail("torch.export.load was called")

    monkeypatch.setattr(torch.export, "load", reached)
    change, message = ATTACKS[attack]
    (tmp_path / "program.pt2").write_bytes(changed(saved, change))
    with pytest.raises(TamperedError, match=message):
        load_program(tmp_path / "program.pt2")


def test_what_is_no_archive_is_refused() -> None:
    with pytest.raises(TamperedError, match=r"is not an archive of torch\.export: File"):
        check_program(b"not a zip")


def test_the_check_lets_what_is_published_pass(saved: bytes) -> None:
    check_program(saved)
    check_program(changed(saved, lambda entries: None))  # so an attack fails for what it changes


def test_a_model_that_cannot_be_traced_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    message = r"Branching cannot be stored: its class cannot be .* export it: .*free of branches"
    with pytest.raises(RequestError, match=message):
        save_program(Branching(), torch.ones(2, 3))


def test_a_program_that_would_not_load_is_not_saved() -> None:
    class Shares(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x.shape[0] * 0.1

    message = r"as a program it is more than this workbench would load: .* evaluates .*Move the cl"
    with pytest.raises(RequestError, match=message):
        save_program(Shares(), torch.ones(2, 3))
