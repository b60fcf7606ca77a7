"""Serving: `serve` puts a model behind HTTP, `list_services` finds who answers.

The names are imported when they are first used: asking a service, or which of them live, loads no
torch.
"""

from typing import TYPE_CHECKING

import lazy_loader as lazy

if TYPE_CHECKING:
    from workbench.serving.client import Listing, ServiceClient, find_service, list_services
    from workbench.serving.server import Service, serve

__all__ = [
    "Listing",
    "Service",
    "ServiceClient",
    "find_service",
    "list_services",
    "serve",
]

__getattr__, __dir__, _ = lazy.attach(
    __name__,
    submod_attrs={
        "client": ["Listing", "ServiceClient", "find_service", "list_services"],
        "server": ["Service", "serve"],
    },
)
