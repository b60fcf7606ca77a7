"""The house of DESIGN §2 as data: a module imports only from below, and each file has its place."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import workbench

PACKAGE = Path(workbench.__file__).parent

ROWS: Sequence[Sequence[str]] = (
    # the ground alone has an order within its row
    ("errors", "types", "listings", "machines", "home", "determinism", "devices", "beginnings",
     "probing", "journal", "progress", "pictures", "attached", "modes"),
    ("preprocessing",),
    ("datasets", "models"),
    ("evaluation",),
    ("training", "compression", "privacy"),
    ("registry",),
    ("runs",),
    ("serving",),
    ("remote", "supervision", "lab"),
    ("cli", "widgets"),
    ("__main__",),
)  # fmt: skip

FOLDERS: Mapping[str, Sequence[str]] = {
    "datasets": ("folders", "readers", "splits", "overviews", "sources", "store", "bundled", "line",
                 "cifar10", "fashion_mnist", "wide", "catalogue"),
    "models": ("linear", "mlp", "images", "lenet", "starts", "norms", "convnet", "catalogue",
               "leaves", "summaries"),
    "evaluation": ("metrics", "losses", "inference", "calls", "significance", "curves",
                   "calibration", "given", "answers", "examples", "plots", "curve_plots",
                   "intervals", "slicing", "panels", "comparing", "evaluations", "diagnosing",
                   "corruptions", "activations", "layers", "surveys",
                   "insides"),
    "training": ("schedules", "augmentations", "averages", "histories", "phases", "settings",
                 "checkpoints", "reins", "trainings", "live", "clocks", "callbacks", "batches",
                 "dropout", "optimizers", "objectives", "pulses", "jobs", "scores", "watchers",
                 "loop", "budgets", "folders", "attempts", "checks", "planning", "rewinding",
                 "blaming", "branching", "pasts", "finding", "gradients", "fitting", "recorded"),
    "registry": ("programs", "twins", "architectures", "folders", "lineage", "aliases",
                 "references", "verdicts", "scores", "drifts", "tables", "ledgers", "records",
                 "versions", "promotions", "signatures", "publishing", "bundles"),
    "runs": ("notebooks", "narration", "redaction", "envelopes", "environment", "annotations",
             "parameters", "outputs", "records", "jobs", "index", "queries", "queueing", "warm",
             "kernels",
             "floods", "engine", "outcomes", "execution", "forking", "verification",
             "requirements", "junit", "webhooks", "judging", "retention", "pages", "reports",
             "comparisons", "spaces", "executors", "halving", "sweeps", "sweeping", "background",
             "plugin"),
    "serving": ("answers", "tensors", "protocol", "v1", "bodies", "client", "live", "engines",
                "probes", "served", "contests", "photos", "rows", "tallies", "batching", "examples",
                "schemas", "operations", "jobpaths", "watchpaths", "openapi", "docs", "cards",
                "pages", "security", "connections", "requests", "shelf", "describing", "monitoring",
                "challenging", "answering", "orders", "fleets", "repository", "metrics", "watching",
                "access", "jobevents", "jobs", "app", "listening", "hosting", "server"),
    "remote": ("wire", "views", "jobs", "services"),
    "supervision": ("following", "jobhost", "stderr", "workers", "supervising"),
    "lab": ("opening",),
    "cli": ("data", "doctor", "lab", "models", "runs", "services", "storage", "sweeps",
            "trainings"),
    "widgets": ("curves", "stills", "pump", "subshells", "faces", "figures", "images",
                "training_rewind", "training_view", "inputs", "dataset_view", "model_moments",
                "model_still", "model_view",
                "evaluation_rows", "evaluation_parts", "evaluation_stills",
                "evaluation_view", "descent_paths", "descent_view", "service_reach",
                "service_traffic", "service_watch", "service_view", "try_drawings",
                "try_subjects", "try_view", "links", "run_faces",
                "form_sweeps", "form_fields", "form_view", "run_curves", "run_parallels",
                "run_details", "runs_view", "home_gallery", "home_view"),
}  # fmt: skip

ONLY_IN = {
    "papermill": r"runs/",
    "starlette": r"serving/",
    "uvicorn": r"serving/|supervision/",
    "onnxruntime": r"serving/engines\.py",
    "prometheus_client": r"serving/metrics\.py",
    "ipywidgets": r"widgets/",
    "anywidget": r"widgets/",
    "matplotlib": r"pictures\.py|evaluation/plots\.py|training/histories\.py|widgets/",
}


def modules(package: Path) -> dict[str, Path]:
    """Return every module of the package by its dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(p for p in parts if p != "__init__")] = path
    return found


def public_names(package: Path) -> dict[str, str]:
    """Return the public names and the modules they come from, as the stub of the root says."""
    tree = ast.parse((package / "__init__.pyi").read_text())
    imports = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module]
    return {a.name: f"{package.name}.{n.module}" for n in imports for a in n.names}


def at_runtime(node: ast.AST, within: str = "") -> Iterator[ast.AST]:
    """Yield everything under `node` but what only a type checker reads.

    Left out too is the one exception of the house: inside `show` an object may import its widget.
    """
    if within == "show" and isinstance(node, ast.ImportFrom) and node.module == "workbench.widgets":
        return
    yield node
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for other in node.orelse:
            yield from at_runtime(other, within)
        return
    within = node.name if isinstance(node, ast.FunctionDef) else within
    for child in ast.iter_child_nodes(node):
        yield from at_runtime(child, within)


def imported(path: Path, root: str) -> Iterator[str]:
    """Yield the dotted name of everything a file imports, and of what it takes from the root."""
    for node in at_runtime(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from (f"{start}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == root:
            yield f"{root}.{node.attr}"  # `import workbench` gives all of it, also what is above


def resolve(name: str, known: Mapping[str, Path], public: Mapping[str, str]) -> str:
    """Return the module that a dotted name of the package comes from."""
    root, _, rest = name.partition(".")
    name = public.get(rest, name)
    while name not in known and "." in name:
        name = name.rpartition(".")[0]
    return name or root


def allowed(importer: str, target: str) -> bool:
    """Return whether the table lets module `importer` import module `target`."""
    _, unit, *file = importer.split(".")
    if "." not in target:
        return True  # the root itself, which imports nothing
    _, other, *other_file = target.split(".")
    if unit == other:
        order = [*FOLDERS[unit], ""]  # the folder's __init__ comes last
        return order.index("".join(other_file)) < order.index("".join(file))
    rows = {name: number for number, row in enumerate(ROWS) for name in row}
    if rows[unit] == rows[other] == 0:
        return ROWS[0].index(other) < ROWS[0].index(unit)
    return rows[other] < rows[unit]


def violations(package: Path) -> list[str]:
    """Return what breaks the house: files without a place, and arrows that do not point down."""
    known, public = modules(package), public_names(package)
    placed = {f"{package.name}.{name}" for row in ROWS for name in row}
    placed |= {f"{package.name}.{folder}.{f}" for folder, files in FOLDERS.items() for f in files}
    wrong = [f"{name} has no place" for name in known if "." in name and name not in placed]
    for name in known.keys() & placed:
        for target in imported(known[name], package.name):
            if target.startswith("."):
                wrong.append(f"{name} imports {target}, relatively")
            elif target.split(".")[0] == package.name:
                module = resolve(target, known, public)
                if not allowed(name, module):
                    wrong.append(f"{name} imports {module}")
    return wrong


def test_every_arrow_points_down() -> None:
    assert violations(PACKAGE) == []


def test_the_root_imports_nothing_of_the_house() -> None:
    names = list(imported(PACKAGE / "__init__.py", "workbench"))
    assert names == ["lazy_loader"]


def test_no_public_name_is_a_modules_name() -> None:
    stems = {name.rpartition(".")[2] for name in modules(PACKAGE)}
    assert stems & public_names(PACKAGE).keys() == set()


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_heavy_library_stays_in_its_room(library: str) -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules(PACKAGE).values()
        if any(name.split(".")[0] == library for name in imported(path, "workbench"))
    }
    assert [user for user in users if not re.match(ONLY_IN[library], user)] == []


@pytest.mark.parametrize(
    ("file", "source", "wrong"),
    [
        ("home.py", "import workbench.errors", []),
        ("home.py", "from workbench import errors", []),
        ("home.py", "from workbench import __version__", []),
        ("errors.py", "from workbench import home", ["workbench.errors imports workbench.home"]),
        (
            "preprocessing.py",
            "def f():\n    from workbench.training.loop import train",
            ["workbench.preprocessing imports workbench.training.loop"],
        ),
        ("models/mlp.py", "from workbench import datasets", ["workbench.models.mlp imports "]),
        ("models/mlp.py", "import workbench\nworkbench.fit()", ["workbench.models.mlp imports "]),
        ("models/mlp.py", "from workbench import fit", ["workbench.models.mlp imports "]),
        ("models/catalogue.py", "from workbench.models.mlp import MLP", []),
        ("models/mlp.py", "from workbench.models.catalogue import build", ["workbench.models.mlp"]),
        ("models/mlp.py", "from workbench.models import build", ["workbench.models.mlp imports "]),
        ("models/mlp.py", "from .linear import Linear", ["workbench.models.mlp imports .linear"]),
        ("training/loop.py", "def show():\n    from workbench.widgets import view", []),
        (
            "training/loop.py",
            "def plot():\n    from workbench.widgets import view",
            ["workbench.training.loop imports workbench.widgets"],
        ),
        ("models/rest.py", "", ["workbench.models.rest has no place"]),
        ("utils.py", "", ["workbench.utils has no place"]),
        (
            "attached.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import workbench.training",
            [],
        ),
    ],
)
def test_the_checker_sees_a_wrong_arrow(
    tmp_path: Path, file: str, source: str, wrong: list[str]
) -> None:
    files = (
        *("errors.py", "home.py", "datasets/__init__.py", "models/__init__.py"),
        *("models/catalogue.py", "models/mlp.py", "training/__init__.py", "training/loop.py"),
        "widgets/__init__.py",
    )
    for name in (*files, file):
        path = tmp_path / "workbench" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source if name == file else "")
    (tmp_path / "workbench" / "__init__.py").touch()
    (tmp_path / "workbench" / "__init__.pyi").write_text("from .training import fit as fit\n")
    found = violations(tmp_path / "workbench")
    assert len(found) == len(wrong)
    assert all(text.startswith(start) for text, start in zip(found, wrong, strict=True))
