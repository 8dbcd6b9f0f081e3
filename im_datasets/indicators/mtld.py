"""Lexical diversity of the response: MTLD, the measure of textual lexical diversity.

MTLD is the mean number of consecutive words over which a text keeps its type-token ratio (distinct words over
words) above a threshold, read once forwards and once backwards. Values equal those of ``lexicalrichness``
0.5.1, which this module does not need.

Source: McCarthy and Jarvis (2010), "MTLD, vocd-D, and HD-D: A validation study of sophisticated approaches to
lexical diversity assessment", Behavior Research Methods 42(2); threshold from their page 385.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import ClassVar

from numpy.typing import ArrayLike
from typing_extensions import override

from im_datasets.common.errors import IndicatorError
from im_datasets.indicators.base import Indicator

DELETED = "0123456789-–—"
"""Characters that vanish, so that the parts beside them join: ASCII digits, hyphen, en dash, em dash."""

BLANKED = string.punctuation.replace("-", "")
"""Characters that separate words."""

_ASCII_DELETED = DELETED.encode("ascii", "ignore")
_ASCII_BLANKED = bytes.maketrans(BLANKED.encode(), b" " * len(BLANKED))
_REPLACEMENTS = dict.fromkeys(DELETED, "") | dict.fromkeys(BLANKED, " ")


@dataclass(frozen=True)
class MTLD(Indicator):
    """Writes ``im_mtld``: the lexical diversity of the response, in words, above 0, higher is more varied.

    A response without a single word is NaN; one whose words are all distinct has its word count. There is no
    upper bound: a text that repeats itself late or hardly at all can reach many times its length.

    Attributes:
        threshold: Type-token ratio at or below which a stretch is closed; above 0 and below 1.

    Raises:
        IndicatorError: The threshold is out of its range.

    Example:
        >>> MTLD()({"instruction": ["Say it."], "output": ["To be, or not to be, said he."]})
        {'im_mtld': [8.48]}
    """

    version: ClassVar[str] = "1"

    threshold: float = 0.72

    def __post_init__(self) -> None:
        _check(self.threshold)

    @property
    @override
    def writes(self) -> tuple[str, ...]:
        return ("im_mtld",)

    @override
    def score(self, instructions: Sequence[str], responses: Sequence[str]) -> Mapping[str, ArrayLike]:
        values = {text: mtld(words(text), self.threshold) for text in dict.fromkeys(responses)}
        return {"im_mtld": [values[text] for text in responses]}


def words(text: str) -> list[str]:
    """Lower-case words of a text, digits and hyphens deleted, punctuation taken for blanks.

    Args:
        text: Any text; only ASCII punctuation counts as such.

    Returns:
        The words in order; empty for a text of digits, punctuation and white space.

    Example:
        >>> words("It's a well-known fact: 42!")
        ['it', 's', 'a', 'wellknown', 'fact']
    """
    text = text.lower()
    if text.isascii():
        return text.encode().translate(_ASCII_BLANKED, _ASCII_DELETED).decode().split()
    # Outside ASCII str.translate looks up every single character: replacing the few that occur is faster.
    for character in _REPLACEMENTS.keys() & set(text):
        text = text.replace(character, _REPLACEMENTS[character])
    return text.split()


def mtld(words: Sequence[str], threshold: float = 0.72) -> float:
    """Words per factor, the mean of a forward and a backward reading.

    A reading closes a factor, and starts anew, at the word that brings distinct words over words to the
    threshold or below. What is left open at the end counts as ``(1 - ratio) / (1 - threshold)`` of a factor.

    Args:
        words: The words of a text in order.
        threshold: Type-token ratio that closes a factor; above 0 and below 1.

    Returns:
        The measure in words; NaN without words; the number of words where all are distinct.

    Raises:
        IndicatorError: The threshold is out of its range.

    Example:
        Forwards ``to be or not to be`` falls to 4/6 = 0.67, one factor; ``said he`` adds none: 8/1 = 8.
        Backwards the ratio ends at 6/8 = 0.75, which is 0.25/0.28 of a factor: 8 / (0.25/0.28) = 8.96.
        The mean is 8.48.

        >>> mtld("to be or not to be said he".split())
        8.48
    """
    _check(threshold)
    if not words:
        return nan
    forward = _factors(words, threshold)
    if not forward:
        return float(len(words))
    backward = _factors(words[::-1], threshold)
    return (len(words) / forward + len(words) / backward) / 2


def _factors(words: Sequence[str], threshold: float) -> float:
    """Factors in one reading; 0 exactly when all words are distinct."""
    closed, start = 0, 0
    seen: set[str] = set()
    for position, word in enumerate(words, 1):
        # A new word never lowers the ratio, so only a repeated one can close a factor.
        if word not in seen:
            seen.add(word)
        elif len(seen) / (position - start) <= threshold:
            closed, start = closed + 1, position
            seen.clear()
    left = len(words) - start
    return closed + (1 - len(seen) / left) / (1 - threshold) if left else closed


def _check(threshold: float) -> None:
    if not 0 < threshold < 1:
        raise IndicatorError(
            f"MTLD threshold {threshold!r} is out of range; pass a number above 0 and below 1, such as 0.72"
        )
