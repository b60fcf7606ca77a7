"""Remote: `connect` asks a service that runs anywhere, over HTTP; loads no torch."""

from workbench.remote.jobs import JobListing, RemoteJob
from workbench.remote.services import RemoteService, connect
from workbench.remote.views import RemotePrediction, Trial, Vitals
from workbench.remote.wire import Heard

__all__ = [
    "Heard",
    "JobListing",
    "RemoteJob",
    "RemotePrediction",
    "RemoteService",
    "Trial",
    "Vitals",
    "connect",
]
