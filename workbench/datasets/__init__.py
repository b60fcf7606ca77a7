"""Datasets: named data that loads by name, or is made of your own arrays.

Names are imported when they are first used, so that listing the datasets needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from workbench.datasets.catalogue import fetch, list_datasets, load
    from workbench.datasets.splits import Card, Dataset, Split, dataset

__all__ = ["Card", "Dataset", "Split", "dataset", "fetch", "list_datasets", "load"]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "catalogue": ["fetch", "list_datasets", "load"],
        "splits": ["Card", "Dataset", "Split", "dataset"],
    },
)
