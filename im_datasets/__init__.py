"""im-datasets: which rows of an instruction dataset are worth training on?

InstructMining (arXiv 2307.06290) for Hugging Face datasets. Names are imported when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
