"""The registry: `publish` a model, find a `version`, `promote` one, take it elsewhere.

The names are imported when they are first used: a ledger alone loads no torch.
"""

from typing import TYPE_CHECKING

import lazy_loader as lazy

if TYPE_CHECKING:
    from workbench.registry.bundles import export_version, import_version
    from workbench.registry.promotions import demote, history, promote, restore, retire, rollback
    from workbench.registry.publishing import publish
    from workbench.registry.references import Histogram, Reference
    from workbench.registry.signatures import signature_of
    from workbench.registry.versions import ModelVersion, list_models, resolve, version

__all__ = [
    "Histogram",
    "ModelVersion",
    "Reference",
    "demote",
    "export_version",
    "history",
    "import_version",
    "list_models",
    "promote",
    "publish",
    "resolve",
    "restore",
    "retire",
    "rollback",
    "signature_of",
    "version",
]

__getattr__, __dir__, _ = lazy.attach(
    __name__,
    submod_attrs={
        "bundles": ["export_version", "import_version"],
        "promotions": ["demote", "history", "promote", "restore", "retire", "rollback"],
        "publishing": ["publish"],
        "references": ["Histogram", "Reference"],
        "signatures": ["signature_of"],
        "versions": ["ModelVersion", "list_models", "resolve", "version"],
    },
)
