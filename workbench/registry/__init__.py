"""The registry: `publish` a model, find a `version`, `promote` one, take it elsewhere."""

from workbench.registry.bundles import export_version, import_version
from workbench.registry.promotions import demote, history, promote, restore, retire
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
    "signature_of",
    "version",
]
