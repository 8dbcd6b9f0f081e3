"""What can be read off a pair's characters and words: how it ends, repeats, overlaps, and its scripts.

Leaves meaning to embeddings and judgement to ``Quality``. Every feature is a plain count or share of one text
pair, with Chinese, Japanese kana and the like counted one character as one word.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import log1p
from typing import NamedTuple

_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+(?:['’][^\W\d_]+)?"
)
_SENTENCE_END = re.compile(r"[.!?。！？]+[\"'”’)\]]*(?=\s|$)|[。！？]|\n+")
_LOWER_AFTER_STOP = re.compile(r"(?<![.\d\s][a-zA-Z])[.!?][\"'”’)]? +(?=[a-z])")
_STOP_INSIDE = re.compile(r"[.!?][\"'”’)]*\s+(?=\S)|[。！？](?=.)")
_CAPITAL_INSIDE = re.compile(
    r"(?<=[a-z,;] )(?:The|A|An|It|This|That|These|In|On|He|She|They|We|You|If|When|There|To|For|And|But|As|Its|His"
    r"|Her)\b"
)
_FINAL_STOP = ".!?。！？…؟।"
_CLOSERS = "\"'”’)]}》」』）】`*_"
_OPENERS = ",;:-–—(/[{&+=<，、；：（"
_PAIRS = (("(", ")"), ("[", "]"), ("{", "}"), ("（", "）"), ("《", "》"), ("“", "”"))
_MODIFIERS = ("ly", "al", "ous", "ive", "ful", "ic", "ing", "ed", "ble", "ent", "ant", "less", "ary", "'s", "’s")
_TRANSLATION = re.compile(
    r"\b(?:translat\w*|in (?:another|any other|a foreign) language|english|chinese|mandarin|cantonese|japanese|"
    r"korean|french|german|spanish|italian|portuguese|russian|ukrainian|arabic|hebrew|hindi|greek|latin|turkish|thai|"
    r"vietnamese|romanian|polish|dutch|pinyin|kanji|emoji|unicode)\b"
    r"|翻译|译成|译为|英文|英语|中文|汉语|日语|日文|法语|德语|韩语|俄语|西班牙语|拼音|单词",
    re.IGNORECASE,
)
_SCRIPTS = re.compile(
    r"(?P<latin>[A-Za-zÀ-ɏ]+)|(?P<han>[\u3400-\u9fff]+)|(?P<kana>[\u3040-\u30ff]+)|(?P<hangul>[\uac00-\ud7af]+)"
    r"|(?P<cyrillic>[\u0400-\u052f]+)|(?P<arabic>[\u0600-\u06ff]+)|(?P<greek>[\u0370-\u03ff]+)"
    r"|(?P<hebrew>[\u0590-\u05ff]+)|(?P<devanagari>[\u0900-\u097f]+)|(?P<thai>[\u0e00-\u0e7f]+)"
)
_LATIN = re.compile("[A-Za-z]")
FUNCTION_WORDS = frozenset(
    """
    a an the this that these those my your his her its our their of in on at by for with from to into onto about as
    than and or but nor so if because while when where which who whose whom what how is are was were be been being
    am do does did has have had can could will would shall should may might must not no it he she they we you i
    there
    的 了 和 是 在 与 及 或 而 但 把 被 对 从 以 为 于 也 都 就 不 这 那 有 会 可 能
    """.split()  # noqa: SIM905 - readable as it stands
)
DANGLING = frozenset(
    """
    a an the my your his its our their of in at by for with from to into onto as than and or but nor if because
    while when where which who whose is are was were be been has have had can could will would shall should may
    might must not no very such each every between through during including like also both either
    的 和 是 在 与 及 或 而 但 把 被 对 从 以 为 于 也 就 不 这 那 可 使 让 个 一
    """.split()  # noqa: SIM905 - readable as it stands
)
"""Words after which a sentence goes on."""


class Surface(NamedTuple):
    """The features of one pair, each between 0 and 1 unless its comment says otherwise."""

    length: float  # log(1 + words of the response)
    question_length: float  # log(1 + words of the instruction)
    final_stop: float  # ends in a sentence's final punctuation, closing quotes and brackets apart
    asks: float  # ends in a question mark
    final_closer: float  # ends in a closing quote, bracket or code fence without such punctuation
    final_opener: float  # ends in a comma, colon, dash, opening bracket: something must follow
    dangling: float  # the last word is one after which a sentence goes on
    stop_missing: float  # no final stop, though the response has stops elsewhere: their share of its lines
    modifier: float  # no final stop, and the last word is an adverb, adjective, participle or genitive by its ending
    unclosed: float  # log(1 + brackets, quotes and fences left open)
    lower_start: float  # begins with a lower-case letter, though it has capitals
    lower_after_stop: float  # share of the stops inside that a lower-case word follows, though it has capitals
    capital_inside: float  # words like "The" inside a sentence, per word
    function_share: float  # function words, per word
    function_pairs: float  # two function words in a row, per function word
    repeated_words: float  # 1 - distinct words / words
    repeated_4grams: float  # share of the 4-word sequences that came before
    repeated_sentences: float  # share of sentences and lines that came before
    in_instruction: float  # share of the response's distinct words, function words apart, that the instruction has
    of_instruction: float  # share of the instruction's distinct words, function words apart, that the response has
    same: float  # distinct words shared / distinct words of both, function words apart
    copied: float  # share of the response's 4-word sequences that the instruction has
    covered: float  # share of the instruction's 4-word sequences that the response has
    echoed: float  # copied times covered: 1 for the instruction itself
    other_script: float  # share of letters in scripts the instruction lacks, where it asks for no other language
    word_length: float  # mean characters per word, unbounded
    lines: float  # log(1 + line breaks)


def surface(instruction: str, response: str) -> Surface:
    """Read the features off a pair.

    Args:
        instruction: Any text.
        response: Any text.

    Returns:
        Finite numbers only; shares of nothing are 0.

    >>> surface("Name a fruit.", "An apple.").final_stop
    1.0
    """
    asked, words = split_words(instruction), split_words(response)
    values = (
        log1p(len(words)),
        log1p(len(asked)),
        *_ending(response, words),
        *_order(response, words),
        *_repetition(response, words),
        *_overlap(asked, words),
        _other_script(instruction, response),
        _share(sum(map(len, words)), len(words)),
        log1p(response.strip().count("\n")),
    )
    return Surface._make(values)


def split_words(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters and digits, and single Chinese and kana characters."""
    return _WORD.findall(text.lower())


def _ending(text: str, words: Sequence[str]) -> tuple[float, ...]:
    text = text.rstrip()
    bare = text.rstrip(_CLOSERS + " ")
    stop = bare.endswith(tuple(_FINAL_STOP))
    sentences = len(_STOP_INSIDE.findall(bare[:-1]))
    lines = bare.count("\n")
    return (
        float(stop),
        float(bare.endswith(("?", "？"))),
        float(not stop and bare != text),
        float(bare == text and text.endswith(tuple(_OPENERS))),
        float(not stop and bool(words) and words[-1] in DANGLING),
        0.0 if stop else sentences / (sentences + lines + 1),
        float(not stop and bool(words) and len(words[-1]) > 4 and words[-1].endswith(_MODIFIERS)),
        _unclosed(text),
    )


def _unclosed(text: str) -> float:
    opened = sum(max(0, text.count(left) - text.count(right)) for left, right in _PAIRS)
    return log1p(opened + text.count("```") % 2 + text.count('"') % 2)


def _order(text: str, words: Sequence[str]) -> tuple[float, ...]:
    stops = len(_STOP_INSIDE.findall(text))
    flags = [word in FUNCTION_WORDS for word in words]
    function = sum(flags)
    pairs = sum(a and b for a, b in pairwise(flags))
    capitals = not text.islower()
    return (
        float(capitals and text.lstrip()[:1].islower()),
        _share(len(_LOWER_AFTER_STOP.findall(text)), stops) if capitals else 0.0,
        _share(len(_CAPITAL_INSIDE.findall(text)), len(words)),
        _share(function, len(words)),
        _share(pairs, function),
    )


def _repetition(text: str, words: Sequence[str]) -> tuple[float, ...]:
    sentences = [part for piece in _SENTENCE_END.split(text) if (part := piece.strip().lower())]
    grams = _grams(words)
    return (
        1 - _share(len(set(words)), len(words)) if words else 0.0,
        1 - len(set(grams)) / len(grams) if grams else 0.0,
        1 - len(set(sentences)) / len(sentences) if sentences else 0.0,
    )


def _overlap(asked: Sequence[str], words: Sequence[str]) -> tuple[float, ...]:
    left, right = _terms(asked), _terms(words)
    shared = len(left & right)
    left_grams, right_grams = set(_grams(asked)), set(_grams(words))
    both = len(left_grams & right_grams)
    return (
        _share(shared, len(right)),
        _share(shared, len(left)),
        _share(shared, len(left | right)),
        (copied := _share(both, len(right_grams))),
        (covered := _share(both, len(left_grams))),
        copied * covered,
    )


def _terms(words: Sequence[str]) -> set[str]:
    """Distinct beginnings of words that carry meaning: no function words, and Chinese characters two by two."""
    terms = {word[:5] for word in words if word not in FUNCTION_WORDS and not "\u3040" <= word[0] <= "\u9fff"}
    return terms | {a + b for a, b in pairwise(words) if "\u3040" <= a[0] <= "\u9fff" and "\u3040" <= b[0] <= "\u9fff"}


def _grams(words: Sequence[str], length: int = 4) -> list[tuple[str, ...]]:
    """Runs of that many words; of a shorter text the whole, so that short texts can be compared too."""
    return [tuple(words[i : i + length]) for i in range(max(1, len(words) - length + 1))] if words else []


def _other_script(instruction: str, response: str) -> float:
    if _TRANSLATION.search(instruction):
        return 0.0
    if response.isascii() and _LATIN.search(instruction):
        return 0.0
    asked, answered = _scripts(instruction), _scripts(response)
    total = sum(answered.values())
    return _share(sum(count for script, count in answered.items() if script not in asked), total) if asked else 0.0


def _scripts(text: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for match in _SCRIPTS.finditer(text):
        counts[match.lastgroup or ""] += len(match[0])
    return counts


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
