"""Lengths of instruction and response in tokens, under a named tokenizer.

The method's authors do not name their tokenizer; the base model's own is the natural choice. The default is
the one of the packaged MiniLM, which needs no download; lengths under another one differ by a factor.

Source: Cao et al. (2023), "Instruction Mining", arXiv 2307.06290, table of indicators.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from numpy.typing import ArrayLike
from typing_extensions import override

from im_datasets.indicators.base import Indicator
from im_datasets.models.hub_models import EMBEDDED
from im_datasets.models.tokenizers import load_tokenizer


@dataclass(frozen=True)
class Length(Indicator):
    """Writes ``im_input_length`` and ``im_output_length``: tokens of the instruction and of the response, 0 or more.

    The whole text counts, however long; special tokens that a model puts around a text do not.

    Attributes:
        tokenizer: ``"embedded"``, a model id of the Hub, or a local folder with a tokenizer.
        revision: Branch, tag or commit of a Hub model; None is its default branch. Give a commit where the
            numbers have to be the same tomorrow.

    Example:
        >>> Length()({"instruction": ["Name a fruit."], "output": ["An apple."]})
        {'im_input_length': [4.0], 'im_output_length': [3.0]}
    """

    version: ClassVar[str] = "1"

    tokenizer: str = EMBEDDED
    revision: str | None = None

    @property
    @override
    def writes(self) -> tuple[str, ...]:
        return ("im_input_length", "im_output_length")

    @override
    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> Mapping[str, ArrayLike]:
        # Many rows share an instruction: equal texts are tokenised once.
        texts = list(dict.fromkeys([*instructions, *responses]))
        tokenize = load_tokenizer(self.tokenizer, self.revision)
        lengths = dict(zip(texts, map(len, tokenize(texts)), strict=True))
        return {
            "im_input_length": [lengths[text] for text in instructions],
            "im_output_length": [lengths[text] for text in responses],
        }
