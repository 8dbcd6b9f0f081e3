"""Finetuning runs go in; a rule of one's own comes out, the subset size, and how the selected rows compare.

Names are imported when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
