"""Which instructions repeat an evaluation text: overlap of word 8-grams.

A model that was finetuned on its own evaluation set looks good for the wrong reason. Knows nothing of
datasets: evaluation texts go in once, instructions are asked about one by one.
"""

import hashlib
import json
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa
from datasets import Dataset

from im_datasets.common.errors import ColumnsError, SelectionError, SourceError
from im_datasets.data.columns import Columns
from im_datasets.data.layouts import NAMES
from im_datasets.data.prepare import prepare, read_texts
from im_datasets.data.source import load_source

GRAM = 8
"""Words per n-gram."""

SHARE = 0.5
"""An instruction is contaminated when it holds more than this share of one evaluation text's n-grams."""

Gram = tuple[str, ...]

# Han, kana, Thai, Lao, Myanmar and Khmer are written without spaces between words.
_SPACELESS = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3005, 0x3007),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)
# Characters that may be accents upon accents, which NFKC sorts in n² steps; a joiner after so many parts the run.
_ACCENTS = re.compile(r"(?:[^\w\s\x00-\x7f]|[\uff9e\uff9f]){30}")
_JOINER = "\u2060"
_APOSTROPHES = dict.fromkeys(map(ord, "'’‘ʼ`´＇"))


class _Letters(dict[int, str]):
    """What each character becomes; filled as characters are met, for ``str.translate``."""

    def __missing__(self, code: int) -> str:
        kind = unicodedata.category(chr(code))
        if kind == "Cf":
            letter = ""
        elif kind[0] not in "LMN":
            letter = " "
        elif any(low <= code <= high for low, high in _SPACELESS):
            letter = f" {chr(code)} "
        else:
            letter = chr(code)
        return self.setdefault(code, letter)


_LETTERS = _Letters()


def words(text: str) -> list[str]:
    """Cut a text into words that survive a change of case, punctuation, spacing or Unicode form.

    Unicode NFKC, case folded; apostrophes and invisible format characters vanish, all other punctuation and
    symbols part words. In scripts written without spaces (Chinese, Japanese, Thai, Lao, Burmese, Khmer) every
    character is a word.

    Args:
        text: Any text.

    Returns:
        The words in order; none for a text without letters or digits.

    Example:
        >>> words("Don't   SHOUT, please! 你好")
        ['dont', 'shout', 'please', '你', '好']
    """
    # Apostrophes first: NFKC makes a space and an accent of some. Folding may undo the form, hence twice.
    parted = _ACCENTS.sub(rf"\g<0>{_JOINER}", text.translate(_APOSTROPHES))
    plain = unicodedata.normalize("NFKC", parted).casefold()
    return unicodedata.normalize("NFKC", plain).translate(_LETTERS).split()


@dataclass(frozen=True)
class EvaluationIndex:
    """Evaluation texts, ready to be looked for in instructions.

    Attributes:
        short: The words of the texts with fewer than ``GRAM`` words; they match as a whole only.
        grams: The distinct n-grams of each longer text.
        rare: N-gram → which of the longer texts to look at. Holds the rarest half of each text's n-grams: an
            instruction with more than half of them has at least one of these, and a phrase that all texts
            share then costs nothing.
        texts: How many evaluation texts there are.
        sha256: Of the texts as ASCII JSON (``json.dumps(list(texts))``).
    """

    short: frozenset[Gram]
    grams: tuple[frozenset[Gram], ...]
    rare: dict[Gram, list[int]]
    texts: int
    sha256: str

    @classmethod
    def build(cls, texts: Iterable[str]) -> Self:
        """Index evaluation texts, in time and memory linear in their words.

        Args:
            texts: The instructions of an evaluation set. One without any word (blank, only symbols) matches
                nothing.

        Raises:
            SelectionError: One text instead of several, a text that is not a string, or no words at all.
        """
        texts = _checked(texts)
        tokens = [words(text) for text in texts]
        if not any(tokens):
            raise SelectionError(
                f"exclude_contaminated holds {len(texts)} evaluation texts and no word in them; "
                "pass the instructions of an evaluation set, or None"
            )
        grams = tuple(frozenset(_grams(t)) for t in tokens if len(t) >= GRAM)
        short = frozenset(tuple(t) for t in tokens if 0 < len(t) < GRAM)
        digest = hashlib.sha256(json.dumps(texts).encode("ascii")).hexdigest()
        return cls(short, grams, _rarest_halves(grams), len(texts), digest)

    def is_repeated_by(self, instruction: str) -> bool:
        """Whether an instruction repeats an evaluation text.

        Args:
            instruction: Any text.

        Returns:
            True when it holds more than half of the distinct 8-grams of one evaluation text, or, for an
            evaluation text of fewer than 8 words, when its words are exactly that text's.

        Example:
            >>> index = EvaluationIndex.build(["Name three rivers that flow through the city of Vienna."])
            >>> index.is_repeated_by("Please NAME three rivers, that flow through the city of Vienna?")
            True
            >>> index.is_repeated_by("Name three rivers that flow through Austria.")
            False
        """
        tokens = words(instruction)
        if len(tokens) < GRAM:
            return tuple(tokens) in self.short
        grams = set(_grams(tokens))
        suspects = {text for gram in grams if gram in self.rare for text in self.rare[gram]}
        return any(len(self.grams[text] & grams) > SHARE * len(self.grams[text]) for text in suspects)


def _checked(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise SelectionError("exclude_contaminated is one string; pass a list of evaluation texts: [text]")
    texts = list(texts)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise SelectionError(
                f"exclude_contaminated holds a {type(text).__name__} at place {place}; every evaluation text "
                "must be a string"
            )
    return texts


def _grams(tokens: list[str]) -> Iterable[Gram]:
    return zip(*(tokens[start:] for start in range(GRAM)), strict=False)


def _rarest_halves(grams: tuple[frozenset[Gram], ...]) -> dict[Gram, list[int]]:
    frequency = Counter(gram for text in grams for gram in text)
    rare: defaultdict[Gram, list[int]] = defaultdict(list)
    for text, members in enumerate(grams):
        # Rounded up, so that more than half of a text's n-grams cannot all be among the others.
        for gram in sorted(members, key=frequency.__getitem__)[: (len(members) + 1) // 2]:
            rare[gram].append(text)
    return dict(rare)


EVALUATION_COLUMNS = (*NAMES["instruction"], "turns", *NAMES["messages"], "text")
"""Where an evaluation set without responses keeps its instructions, first match first."""


_NO_RESPONSE = "im_response"
"""A column without values, in place of the responses that an evaluation set lacks."""


def evaluation_texts(data: str) -> list[str]:
    """The instructions of an evaluation set, for ``exclude_contaminated``.

    They are read as those of rows to be scored, so that equal rows give equal texts; what the responses are does not
    matter. Without responses, an input follows the instruction all the same. Rows of which none can be read are
    counted in a warning.

    Args:
        data: Anything that ``mine`` reads; responses are not needed. Of several turns that nobody answers the first
            counts.

    Returns:
        One text per row that can be read, none of them empty.

    Raises:
        SourceError: It cannot be read, no column of it is known to hold instructions, or no row holds one.
    """
    rows = load_source(data).dataset
    try:
        rows, columns = prepare(rows)
    except ColumnsError:
        rows, columns = _without_responses(rows, data)
    batches = read_texts(rows, columns).iter(batch_size=1000)
    read = [columns.questions(_first_turns(batch, columns.instruction)) for batch in batches]
    reasons = [reason for pairs in read for reason in pairs.reasons]
    if unread := [row for row, reason in enumerate(reasons) if reason]:
        names = ", ".join(name for name in columns.mapping.values() if name != _NO_RESPONSE)
        problem = (
            f"no instruction can be read in {len(unread)} of the {len(reasons)} rows of the evaluation set {data} "
            f"(columns {names}; row {unread[0]}: {reasons[unread[0]]})"
        )
        if len(unread) == len(reasons):
            raise SourceError(f"{problem}; name the column of the instructions {EVALUATION_COLUMNS[0]!r}")
        warnings.warn(f"{problem}; rows that repeat these are not dropped", stacklevel=2)
    return [text for pairs in read for text in pairs.scorable()[1].instructions]


def _without_responses(rows: Dataset, data: str) -> tuple[Dataset, Columns]:
    """The rows of an evaluation set whose responses cannot be told, and columns that read the instructions alone.

    Raises:
        SourceError: No column is known to hold instructions.
    """
    by_name = {name.strip().lower(): name for name in reversed(rows.column_names)}
    name = next((by_name[name] for name in EVALUATION_COLUMNS if name in by_name), None)
    if name is None:
        raise SourceError(
            f"no instructions in the evaluation set {data}: it has the columns {rows.column_names}; "
            f"name one of them {EVALUATION_COLUMNS[0]!r}"
        )
    if name.strip().lower() in NAMES["messages"]:
        return rows, Columns(messages=name)
    context = next((by_name[name] for name in NAMES["input"] if name in by_name), None)
    rows = rows.add_column(_NO_RESPONSE, pa.nulls(len(rows)))
    return rows, Columns(instruction=name, input=context, response=_NO_RESPONSE)


def _first_turns(batch: dict[str, list[Any]], instruction: str | None) -> dict[str, list[Any]]:
    """A batch in which a list of texts, asked one after another, is the first of them."""
    if instruction is None:
        return batch
    # A list of messages is a conversation, which the columns read; an empty one has no instruction.
    are_texts = [
        isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)
        for value in batch[instruction]
    ]
    values = [value[0] if is_list else value for value, is_list in zip(batch[instruction], are_texts, strict=True)]
    return {**batch, instruction: values}
