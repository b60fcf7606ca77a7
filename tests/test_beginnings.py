"""What a run's kernel begins with: seeds, also of what is imported later."""

from __future__ import annotations

import subprocess
import sys

import pytest


def said(code: str) -> str:
    """Return what a Python of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


DRAW = "print(random.random(), numpy.random.rand(), torch.rand(1).item())"


def test_a_seed_decides_what_is_drawn_whenever_a_library_is_imported() -> None:
    before = "import random, numpy, numpy.random, torch\nfrom workbench.beginnings import begin\n"
    after = "from workbench.beginnings import begin\nbegin({})\nimport random, numpy, torch\n"
    first, second = said(f"{before}begin(3)\n{DRAW}"), said(f"{after.format(3)}{DRAW}")
    seeded = "import random, numpy, torch\nrandom.seed(3); numpy.random.seed(3)\n"
    assert first == second == said(f"{seeded}torch.manual_seed(3)\n{DRAW}")
    assert first.split() != said(f"{after.format(4)}{DRAW}").split()


def test_nothing_is_imported_for_it() -> None:
    code = "import sys\nfrom workbench.beginnings import begin\nbegin(0)\n"
    assert said(f"{code}print({{'numpy', 'torch'}} & {{*sys.modules}})") == "set()"


def test_torch_chooses_deterministic_algorithms_and_fills_no_memory() -> None:
    asked = "torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark"
    filled = "torch.utils.deterministic.fill_uninitialized_memory"
    code = "from workbench.beginnings import begin\nbegin(0)\nimport torch\n"
    assert said(f"{code}print({asked}, {filled})") == "True False False"


@pytest.mark.parametrize("name", ["numpy.random", "torch"])
def test_the_way_of_an_import_is_left_as_it_was(name: str) -> None:
    """Whoever looks at sys.meta_path afterwards finds nobody there, and the module is whole."""
    code = "import sys\nfrom workbench.beginnings import begin\nbefore = [*sys.meta_path]\nbegin(0)"
    look = f"import {name}, torch, numpy.random\nfound = sys.modules[{name!r}]"
    tell = "print(sys.meta_path == before, found.__spec__.name, found.__file__ is not None)"
    assert said(f"{code}\n{look}\n{tell}") == f"True {name} True"
