"""Runs: one execution of a parameterized notebook, and the honest record of it."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
