"""Subshells: the threads of a kernel in which it answers its pages, each named by its page."""

from __future__ import annotations

import anywidget

__all__ = ["answer_where_asked"]


def answer_where_asked(widget: anywidget.AnyWidget) -> None:
    """Let a widget hear what a page asks in the subshell that this page names.

    ipykernel 7.4 prefers the subshell that the widget last spoke in. While a page is being loaded
    that may be one which JupyterLab needs for that alone and ends at once, and the widget would
    never hear anything again.

    Args:
        widget: that was just made.
    """
    comm = widget.comm
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda _, named: named
