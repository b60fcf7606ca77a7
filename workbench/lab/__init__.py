"""JupyterLab, opened on the workbench: a start notebook, and a tile in the launcher."""

from workbench.lab.opening import EXTENSIONS, START, open_lab, write_start

__all__ = ["EXTENSIONS", "START", "open_lab", "write_start"]
