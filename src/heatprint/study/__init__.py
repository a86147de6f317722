"""Floor 6: the experiment from images to report: a recipe, the straight line, and the steps it is made of.

What is imported is loaded when it is first used: a worker that computes parts needs neither recipe nor report.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
