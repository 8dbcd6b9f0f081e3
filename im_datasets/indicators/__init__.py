"""Pairs go in; one column of floats or more comes out of each indicator, one value per row, in row order.

Classes are imported when first used, so that importing the package stays quick.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
