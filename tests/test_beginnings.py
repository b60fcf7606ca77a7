"""What a run's kernel begins with: seeds, also of what is imported later."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy
import torch


def said(code: str) -> str:
    """Return what a Python of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


DRAW = "print(random.random(), numpy.random.rand(), torch.rand(1).item())"


def drawn(seed: int) -> str:
    """Return what this process draws where each library is seeded as its manual says."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
    return f"{random.random()} {numpy.random.rand()} {torch.rand(1).item()}"


def test_a_seed_decides_what_is_drawn_whenever_a_library_is_imported() -> None:
    begin = "from workbench.beginnings import begin\n"
    before = f"import random, numpy, numpy.random, torch\n{begin}begin(3)\n{DRAW}"
    after = f"{begin}begin(4)\nimport random, numpy, torch\n{DRAW}"
    assert (said(before), said(after)) == (drawn(3), drawn(4))


def test_nothing_is_imported_for_it() -> None:
    code = "import sys\nfrom workbench.beginnings import begin\nbegin(0)\n"
    assert said(f"{code}print({{'numpy', 'torch'}} & {{*sys.modules}})") == "set()"


def test_torch_is_deterministic_fills_no_memory_and_the_way_of_an_import_is_left_as_it_was() -> (
    None
):
    """Whoever looks at sys.meta_path afterwards finds nobody there, and the modules are whole."""
    code = (
        "import sys\nfrom workbench.beginnings import begin\nbefore = [*sys.meta_path]\nbegin(0)\n"
        "import torch, numpy.random\nprint(sys.meta_path == before)\n"
        "for found in torch, numpy.random:\n"
        "    print(found.__spec__.name, found.__file__ is not None)\n"
        "print(torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,\n"
        "    torch.utils.deterministic.fill_uninitialized_memory)"
    )
    assert said(code).split("\n") == ["True", "torch True", "numpy.random True", "True False False"]
