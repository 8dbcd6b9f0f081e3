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
# In every pattern a run of characters is entered at its beginning only: of n stops or blank lines it takes n steps.
_SENTENCE_END = re.compile(r"(?<![.!?。！？])[.!?。！？]+[\"'”’)\]]*(?=\s|$)|[。！？]|\n+")
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
_ASKS_FOR = (
    re.compile(
        r"\b(?:lists?|name (?:some|a few|\d+|two|three|four|five|ten|the)|suggest|examples?|bullets?|bulleted"
        r"|brainstorm|give (?:me )?(?:some|\d+|two|three|four|five|ten)|come up with|what are)\b|列出|列举|推荐|哪些",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?:who|whom|whose|which|where|what is the name"
        r"|what(?:'s| was| is) the (?:name|first|last|capital|largest))\b|谁|哪里|哪个",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?:how (?:many|much|old|long|far|tall|big|often)|when|what (?:year|date|time|day|percent\w*)|calculate|sum"
        r"|number)\b|多少|几|什么时候",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?:classif\w+|identify|categori\w+|decide|sentiment|true or false|yes or no|which of|extract|select|choose"
        r"|pick|(?:is|are|was|were|does|do|did|can) (?:it|this|they|the|these|he|she|i|you))\b|分类|判断|是不是|是否",
        re.IGNORECASE,
    ),
    re.compile(
        r"\b(?:code|function|python|java\w*|sql|html|css|regex|script|program|query|command|terminal|c\+\+|algorithm"
        r"|json|api)\b|代码|程序",
        re.IGNORECASE,
    ),
)
"""What a question asks for: a list, a name, a number, a choice, code."""
# Where a line is no item the match is the blank before it, so that no later line of a blank run is tried.
_BULLET = re.compile(r"^\s*((?:[-*•–]|\d{1,2}[.):])\s*\S)?", re.MULTILINE)
_COMMA = re.compile("[,、;]")
_DIGIT = re.compile(r"\d")
_NAME = re.compile(r"(?<![.!?:\n] )(?<!^)\b[A-Z][\w'’]*", re.MULTILINE)
_CODE = re.compile(r"[{}<>=;_$\\#|`\[\]]|\w\(|\*\*|/\w")
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

COMMON = frozenset(
    """
    write give list lists name names tell explain describe following paragraph text sentence sentences story example
    examples difference best ways make made some using use used create find identify classify provide passage reference
    given based like need want know think most many much more first good different people did does one two three four
    five 10
    """.split()  # noqa: SIM905 - readable as it stands
)
"""Words of instructions that say little about their topic."""
_COMMON_TERMS = frozenset(word[:5] for word in COMMON)


class TextFeatures(NamedTuple):
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
    asks_list: float  # the question, which is the instruction's first paragraph, asks for several things
    asks_name: float  # it asks who, which or where
    asks_number: float  # it asks how many, how much or when
    asks_choice: float  # it asks to classify, pick or say yes or no
    asks_code: float  # it asks for code, a command or a format
    bullets: float  # share of the response's lines that begin with a bullet or a number
    commas: float  # commas and semicolons, per word, at most 1
    digits: float  # share of the words that have a digit
    names: float  # capitalised words inside sentences, per word, at most 1
    code: float  # signs of code, per word, at most 1
    rare_of_instruction: float  # share of the instruction's long words, numbers and names that the response has
    rare_of_response: float  # share of the response's that the instruction has
    of_question: float  # share of the question's terms, common words of instructions apart, that the response has
    in_question: float  # share of the response's terms that they are
    few: float  # 1 / words of the response, split at white space


def text_features(instruction: str, response: str) -> TextFeatures:
    """Read the features off a pair.

    Args:
        instruction: Any text.
        response: Any text.

    Returns:
        Finite numbers only; shares of nothing are 0.

    >>> text_features("Name a fruit.", "An apple.").final_stop
    1.0
    """
    instruction_words, words = split_words(instruction), split_words(response)
    question = instruction.split("\n\n")[0]
    values = (
        log1p(len(words)),
        log1p(len(instruction_words)),
        *_ending(response, words),
        *_order(response, words),
        *_repetition(response, words),
        *_overlap(instruction_words, words),
        _other_script(instruction, response),
        _share(sum(map(len, words)), len(words)),
        log1p(response.strip().count("\n")),
        *(float(bool(pattern.search(question))) for pattern in _ASKS_FOR),
        *_form(response),
        *_topic(instruction, question, response, words),
        1 / max(1, len(response.split())),
    )
    return TextFeatures._make(values)


def split_words(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters and digits, and single Chinese and kana characters."""
    return _WORD.findall(text.lower())


def _ending(text: str, words: Sequence[str]) -> tuple[float, ...]:
    text = text.rstrip()
    bare = text.rstrip(_CLOSERS + " ")
    stop = bare.endswith(tuple(_FINAL_STOP))
    sentences = len(_STOP_INSIDE.findall(bare[:-1]))
    lines = bare.count("\n")
    opened = sum(max(0, text.count(left) - text.count(right)) for left, right in _PAIRS)
    return (
        float(stop),
        float(bare.endswith(("?", "？"))),
        float(not stop and bare != text),
        float(bare == text and text.endswith(tuple(_OPENERS))),
        float(not stop and bool(words) and words[-1] in DANGLING),
        0.0 if stop else sentences / (sentences + lines + 1),
        float(not stop and bool(words) and len(words[-1]) > 4 and words[-1].endswith(_MODIFIERS)),
        log1p(opened + text.count("```") % 2 + text.count('"') % 2),
    )


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


def _overlap(instruction: Sequence[str], response: Sequence[str]) -> tuple[float, ...]:
    left, right = _terms(instruction), _terms(response)
    shared = len(left & right)
    left_grams, right_grams = set(_grams(instruction)), set(_grams(response))
    both = len(left_grams & right_grams)
    return (
        _share(shared, len(right)),
        _share(shared, len(left)),
        _share(shared, len(left | right)),
        (copied := _share(both, len(right_grams))),
        (covered := _share(both, len(left_grams))),
        copied * covered,
    )


def _form(text: str) -> tuple[float, ...]:
    """Is it a list, an enumeration, numbers, names or code?"""
    words = text.split()
    lines = sum(bool(line.strip()) for line in text.splitlines())
    return (
        _share(sum(map(bool, _BULLET.findall(text))), lines),
        min(1.0, _share(len(_COMMA.findall(text)), len(words))),
        _share(sum(bool(_DIGIT.search(word)) for word in words), len(words)),
        min(1.0, _share(len(_NAME.findall(text)), len(words))),
        min(1.0, _share(len(_CODE.findall(text)), len(words))),
    )


def _topic(instruction: str, question: str, response: str, words: Sequence[str]) -> tuple[float, ...]:
    """What instruction and response share of the words that tell one topic from another."""
    left, right = _rare(instruction), _rare(response)
    question_terms, response_terms = _terms(split_words(question)) - _COMMON_TERMS, _terms(words)
    rare, shared = len(left & right), len(question_terms & response_terms)
    return (
        _share(rare, len(left)),
        _share(rare, len(right)),
        _share(shared, len(question_terms)),
        _share(shared, len(response_terms)),
    )


def _rare(text: str) -> set[str]:
    """Beginnings of long words, numbers, and words capitalised inside a sentence."""
    long = (word for word in split_words(text) if len(word) >= 6 or word.isdigit())
    names = (word for word in map(str.lower, _NAME.findall(text)) if word not in FUNCTION_WORDS)
    return {word[:5] for word in (*long, *names) if word not in COMMON}


def _terms(words: Sequence[str]) -> set[str]:
    """Distinct beginnings of words that carry meaning: no function words, and Chinese characters two by two."""
    # Five letters stand for a stem, so that inflected forms of a word meet.
    terms = {word[:5] for word in words if word not in FUNCTION_WORDS and not "\u3040" <= word[0] <= "\u9fff"}
    return terms | {a + b for a, b in pairwise(words) if "\u3040" <= a[0] <= "\u9fff" and "\u3040" <= b[0] <= "\u9fff"}


def _grams(words: Sequence[str], length: int = 4) -> list[tuple[str, ...]]:
    """Runs of that many words; of a shorter text the whole, so that short texts can be compared too."""
    return [tuple(words[i : i + length]) for i in range(max(1, len(words) - length + 1))] if words else []


def _other_script(instruction: str, response: str) -> float:
    # The second is for speed: it answers for most pairs without a look at their scripts.
    if _TRANSLATION.search(instruction) or (response.isascii() and _LATIN.search(instruction)):
        return 0.0
    left, right = _scripts(instruction), _scripts(response)
    other = sum(count for script, count in right.items() if script not in left)
    return _share(other, right.total()) if left else 0.0


def _scripts(text: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for match in _SCRIPTS.finditer(text):
        counts[match.lastgroup or ""] += len(match[0])
    return counts


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
