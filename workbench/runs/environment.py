"""What a run ran in, for the record: packages, code, processor; and the kernel's variables."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

from workbench.home import data_home, home
from workbench.journal import current_run
from workbench.machines import processor
from workbench.runs.envelopes import Envelope
from workbench.types import JSON

__all__ = ["changed_facts", "environment", "kernel_variables"]

_BY_TORCH = "instruction set"  # known only where the kernel had torch


def kernel_variables(folder: Path, envelope: Envelope) -> dict[str, str]:
    """Return the environment of a run's kernel: this process's, the run and its envelope.

    Args:
        folder: of the run.
        envelope: what decides its numbers.
    """
    fixed = {
        "WORKBENCH_RUN": str(folder),
        "WORKBENCH_RESUMED": "0",
        "WORKBENCH_HEADLESS": "1",
        "WORKBENCH_HOME": str(home()),  # given relative, it would be another one in the
        "WORKBENCH_DATA": str(data_home()),  # notebook's folder
    }
    not_ours = {"WORKBENCH_REPLAYED", "WORKBENCH_EDITED"}
    if current_run() is not None:  # a run inside another is not looked at by that one's sweep
        not_ours.add("WORKBENCH_STOP_AT")
    inherited = {k: v for k, v in os.environ.items() if k not in not_ours}
    return {**envelope.around(inherited), **fixed}


def environment(folder: Path, envelope: Envelope) -> tuple[JSON, str]:
    """Return what can be known before a run starts, and the code that is not committed, as a diff.

    Args:
        folder: of the notebook.
        envelope: of the run.
    """
    git, diff = _git(folder)
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _packages(),
        "git": git,
        "threads": envelope.threads,
        "hardware": {
            "machine": platform.machine(),
            "processor": processor(),
            "cores": os.cpu_count(),
        },
    }
    return facts, diff


def changed_facts(before: JSON, after: JSON) -> list[str]:
    """Return which recorded facts of two runs differ, one short line each.

    Args:
        before: the record of a run.
        after: the record of another.
    """
    lines = []
    theirs, ours = _facts(before), _facts(after)
    for name in [*theirs, *(name for name in ours if name not in theirs)]:
        then, now = theirs.get(name), ours.get(name)
        if then != now and not (name == _BY_TORCH and None in (then, now)):
            lines.append(f"{name} {_shown(then)}, now {_shown(now)}")
    return lines


def _facts(record: JSON) -> dict[str, object]:
    """Return what may explain a difference, by what it is called."""
    found = record["environment"]
    git, hardware = found.get("git") or {}, found.get("hardware") or {}
    return {
        **{f"data {d['name']}": d["fingerprint"][:12] for d in record["datasets"]},
        **{f"module {file}": h[:12] for file, h in (found.get("modules") or {}).items()},
        "commit": git.get("commit", "")[:12],
        "uncommitted code": (git.get("diff_sha256") or "")[:12],
        "notebook": record["notebook"]["sha256"][:12],
        "processor": hardware.get("processor"),
        _BY_TORCH: hardware.get("instruction_set"),
        "threads": found["threads"],
        "python": found["python"],
        "platform": found["platform"],
        **{f"package {name}": version for name, version in found["packages"].items()},
        **(record.get("envelope") or {}).get("variables", {}),
    }


def _shown(fact: object) -> str:
    return "none" if fact in (None, "") else str(fact)


def _packages() -> dict[str, str]:
    """Return every installed distribution with its version, by the names of their folders.

    Reading each one's metadata would take a second; the folders' names say the same.
    """
    found: dict[str, str] = {}
    for place in sys.path:
        for entry in _listed(place or "."):
            name, dash, version = entry.removesuffix(".dist-info").rpartition("-")
            if dash and entry.endswith(".dist-info"):
                found.setdefault(name.lower().replace("_", "-"), version)
    return dict(sorted(found.items()))


def _listed(place: str) -> list[str]:
    try:
        return os.listdir(place)
    except OSError:  # a zip file, or a folder that is not there
        return []


def _git(folder: Path) -> tuple[JSON | None, str]:
    """Return the commit that `folder` is at and the diff to it; None and nothing outside of git."""
    commit = _git_says(folder, "rev-parse", "HEAD")
    if not commit:
        return None, ""
    changed = _git_says(folder, "status", "--porcelain")
    diff = (_git_says(folder, "diff", "HEAD") or "") if changed else ""
    digest = hashlib.sha256(diff.encode(errors="surrogateescape")).hexdigest() if diff else None
    return {"commit": commit, "dirty": bool(changed), "diff_sha256": digest}, diff


def _git_says(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command],
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # a diff has whatever the files have
            timeout=10,  # seconds; a repository on a sleeping disk must not hold up a run
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
