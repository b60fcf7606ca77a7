"""Widgets: thin views over objects that exist without them.

The names are imported when they are first used: the view of a training, which `fit` shows, loads
none of what runs and services need.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
