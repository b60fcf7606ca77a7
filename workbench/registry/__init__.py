"""The registry: `publish` a model, find a `version`, `list_models`."""

from workbench.registry.versions import (
    ModelVersion,
    list_models,
    publish,
    signature_of,
    version,
)

__all__ = ["ModelVersion", "list_models", "publish", "signature_of", "version"]
