"""A Jupyter-centric research workbench for deep learning.

`import workbench as wb` loads none of torch, Jupyter or matplotlib: each public name is imported
when it is first used (SPEC 1).
"""

import lazy_loader as lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
