"""One process that serves a version: with or without what watches it, by either engine.

    python -m operate_service lenet@1 [--unwatched] [--torch]

Its first line is its URL, as that of `workbench serve` is.
"""

from __future__ import annotations

import os
import sys
import threading

from workbench.serving import hosting
from workbench.serving.challenging import Challenging
from workbench.serving.monitoring import Monitor
from workbench.serving.probes import Probed
from workbench.serving.served import served_from


def main(ref: str, *options: str) -> None:
    """Serve until a signal."""
    if "--unwatched" in options:
        Monitor.start = lambda self: None  # type: ignore[method-assign]
        Challenging.note = lambda *_: None  # type: ignore[method-assign]
    served = served_from(ref, probe="--torch" not in options)
    if isinstance(served.source, Probed):
        served.source.wait()
    log = None if "--unwatched" in options else sys.stderr
    server = hosting.Server(host="127.0.0.1", token=os.environ["SERVING_TOKEN"], access_log=log)
    server.shelf.put(served)
    server.start()
    print(server.url, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
