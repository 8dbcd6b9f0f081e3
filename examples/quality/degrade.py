"""Ways to spoil a row's response: what the head learns to tell from the row's own.

Every way is a function of the row and a seeded random source, so a run gives the same texts each time. A way
that a row does not allow (too short to cut, nothing in another language) gives None.
"""

import re
from collections.abc import Iterator, Sequence
from random import Random

from rows import CHINESE, Row

STOPS = ".!?。！？…:;：；\n"
PIECES = re.compile(r"[\u3400-\u9fff]{1,2}|[^\s\u3400-\u9fff]+")
SHORTEST = 6
"""Words (or pairs of Chinese characters) a response needs to be cut or scrambled: below, both may be whole."""

EMPTY_PHRASES = (
    "Sure, here you go.",
    "Sure! I can help with that.",
    "Of course! Let me know if you need anything else.",
    "Here is the answer you asked for.",
    "Here is the response to your question:",
    "I hope this helps!",
    "Thank you for your question. I am happy to assist you with this.",
    "Certainly! Below you will find what you requested.",
    "Great question!",
    "Okay.",
    "Yes, I can do that for you.",
    "No problem, happy to help!",
    "As an AI language model, I am here to help you with anything you need.",
    "That is a very interesting question and there is a lot to say about it.",
    "It depends on many different factors and on the situation.",
    "Let me think about this and give you a good answer.",
    "Done.",
    "Please find the result below.",
    "I understand. I will do my best to give you a helpful, complete and correct answer to what you asked.",
    "There are many things one could say here, and all of them matter in their own way.",
    "Absolutely! This is an important topic, and I am glad that you brought it up today.",
    "I'm sorry, could you please say more about what you would like?",
    "好的，没问题。",
    "当然可以，我很乐意帮助您。",
    "这是您要的答案。",
    "感谢您的提问，希望对您有帮助！",
    "这个问题非常好，值得我们深入讨论。",
)
HELD_OUT_PHRASES = (
    "Sure thing, here it is!",
    "I'd be glad to help you with your request.",
    "Here's what you wanted.",
    "Thanks for asking! I hope you find this useful.",
    "Alright, let's get started.",
    "This is a good question, and the answer can vary a great deal from case to case.",
    "You're welcome! Feel free to ask me anything else.",
    "Understood, I will take care of it right away.",
    "没问题，答案如下。",
    "很高兴为您服务，请随时提问。",
)
VAGUE_WORDS = (
    "it",
    "thing",
    "something",
    "that",
    "this",
    "some",
    "one",
    "things",
    "stuff",
    "do",
    "such",
    "kind of",
)
TOPIC_PHRASES = (
    "There is a lot to say about {}.",
    "When it comes to {}, there are many things that one should keep in mind.",
    "{} is something that many people think about.",
    "I have heard of {}, but I do not know much about it.",
    "Some people like {} and some people do not.",
    "It is good that you ask about {}.",
    "I think that {} is really interesting.",
    "In the end, it all comes down to what you think about {}.",
    "You can find out more about {} if you look for it.",
    "I am not sure about {}, but I would like to know more.",
    "Yes, I agree with you about {}.",
    "There are a lot of different ways to see {}, and each of them has something to it.",
    "关于{}，有很多可以说的。",
    "{}是一个很有意思的话题。",
    "我对{}不是很了解，但是我觉得还不错。",
)
HELD_OUT_TOPIC_PHRASES = (
    "Much could be said about {} here.",
    "I do not really have anything to add about {}.",
    "{} means different things to different people.",
    "It is hard to say what is right when you talk about {}.",
    "You should do what you think is best with {}.",
    "说到{}，每个人的看法都不一样。",
)


def another(row: Row, others: Sequence[Row], random: Random) -> str | None:
    """Another row's response in the same language; every second time one at least as long."""
    longer = random.random() < 0.5
    for _ in range(200):
        other = others[random.randrange(len(others))]
        same_language = other.chinese == row.chinese and other.response != row.response
        if same_language and (not longer or len(other.response) >= len(row.response)):
            return other.response
    return None


def wrong_language(row: Row, others: Sequence[Row], random: Random) -> str | None:
    """A response in the other of the two languages at hand."""
    candidates = [other for other in others if other.chinese != row.chinese and other.one_language]
    return random.choice(candidates).response if candidates and row.one_language else None


def cut(row: Row, random: Random) -> str | None:
    """The response up to 30 to 80 per cent of its words, never at the end of a sentence or line."""
    pieces = list(PIECES.finditer(row.response))
    low, high = len(pieces) * 3 // 10, len(pieces) * 8 // 10
    places = [i for i in range(max(low, 2), high + 1) if _mid_sentence(row.response, pieces[i - 1].end())]
    if len(pieces) < SHORTEST or not places:
        return None
    return row.response[: pieces[random.choice(places) - 1].end()]


def scramble(row: Row, random: Random) -> str | None:
    """The response's words in random order, white space left where it was."""
    pieces = PIECES.findall(row.response)
    if len(pieces) < SHORTEST or len(set(pieces)) < SHORTEST - 1:
        return None
    shuffled = pieces[:]
    random.shuffle(shuffled)
    words = iter(shuffled)
    return PIECES.sub(lambda _: next(words), row.response)


def loop(row: Row, random: Random) -> str | None:
    """The whole response over and over, or its beginning over and over up to the response's own length."""
    pieces = PIECES.findall(row.response)
    if len(pieces) < 2:
        return None
    text, way = row.response.strip(), random.randrange(3)
    if way == 0 or len(pieces) < 2 * SHORTEST:
        return random.choice((" ", "\n", "\n\n")).join([text] * random.randint(2, 3))
    if way == 1:
        start = list(PIECES.finditer(text))[random.randint(3, len(pieces) // 2) - 1].end()
        return (f"{text[:start]} " * (len(text) // start + 1))[: max(len(text), 2 * start + 1)].strip()
    sentences = [s for s in re.split(r"(?<=[.!?。！？\n])\s*", text) if s.strip()]
    keep = random.randint(1, max(1, len(sentences) - 1))
    return " ".join([*sentences[:keep], *[sentences[keep - 1]] * random.randint(2, 4)])


def echo(row: Row, random: Random) -> str | None:
    """The instruction instead of an answer, as it stands or led in by a phrase."""
    leads = (
        ("", "", "你问：", "好的，") if row.chinese else ("", "", "", "You asked: ", "Question: ", "You want to know: ")
    )
    return random.choice(leads) + row.instruction


def ramble(row: Row, others: Sequence[Row], random: Random) -> str | None:
    """The row's own response, followed by one that belongs elsewhere: longer, and worse."""
    other = another(row, others, random)
    return None if other is None else row.response.rstrip() + random.choice((" ", "\n\n")) + other


def empty_phrase(row: Row, random: Random, *, held: bool) -> str:
    """A phrase in the row's language that answers nothing."""
    return random.choice([p for p in (HELD_OUT_PHRASES if held else EMPTY_PHRASES) if _fits(p, row)])


def evasion(row: Row, random: Random, *, held: bool) -> str:
    """Two to five phrases in the row's language that name what was asked about and answer nothing."""
    plain, topical = (HELD_OUT_PHRASES, HELD_OUT_TOPIC_PHRASES) if held else (EMPTY_PHRASES, TOPIC_PHRASES)
    fitting = [phrase for phrase in (*plain, *topical) if _fits(phrase, row)]
    phrases = random.sample(fitting, min(random.randint(2, 5), len(fitting)))
    return " ".join(phrase.format(_topic(row, random)) for phrase in phrases)


def vague(row: Row, random: Random) -> str | None:
    """The response with most of its longer words replaced by words that say nothing."""
    words = re.findall(r"[A-Za-z]{5,}", row.response)
    if row.chinese or len(words) < 3:
        return None
    share = random.uniform(0.4, 0.9)
    return re.sub(
        r"[A-Za-z]{5,}",
        lambda word: random.choice(VAGUE_WORDS) if random.random() < share else word[0],
        row.response,
    )


def shorten(row: Row, random: Random) -> str | None:
    """The first sentences of a response of three or more: whole, but less of an answer."""
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s)|[。！？]|\n", row.response.strip())]
    places = [end for end in ends if 0.1 * len(row.response) < end < 0.6 * len(row.response)]
    return row.response[: random.choice(places)].strip() if len(ends) >= 2 and places else None


def _fits(phrase: str, row: Row) -> bool:
    return bool(CHINESE.search(phrase)) == row.chinese


def _topic(row: Row, random: Random) -> str:
    """Two neighbouring words of the instruction, preferably long ones."""
    words = PIECES.findall(row.instruction)
    start = max(random.sample(range(len(words)), min(4, len(words))), key=lambda i: len(words[i]))
    return " ".join(words[start : start + 2]).strip(".,?!;:，。？！")


def _mid_sentence(text: str, end: int) -> bool:
    return (
        text[end - 1] not in STOPS
        and not text[end : end + 2].startswith(("\n", " \n"))
        and text[end : end + 1] not in tuple(STOPS)
    )


SHARES = {"scrambled": 0.4, "looped": 0.35, "rambling": 0.15, "evasion": 0.4, "vague": 0.3, "shortened": 0.25}
"""In how many training rows a way is used, where not in all: more would cost embedding and teach little."""


def spoil(
    row: Row, others: Sequence[Row], nearest: Sequence[Row], *, held: bool, seed: int
) -> Iterator[tuple[str, str]]:
    """Spoiled responses of a row, with their kind.

    Args:
        row: The row.
        others: Rows of the same side of the split, to borrow from.
        nearest: The rows with the nearest instructions among them, whose responses differ.
        held: The row is held out: it gets every kind once, and phrases that training has not seen.
        seed: Of all random choices, together with row and kind.
    """

    def source(kind: str) -> Random:
        return Random(f"{seed}:{kind}:{row.key}")

    changed = [
        ("another row's", another(row, others, source("another"))),
        ("another row's", None if held else another(row, others, source("one more"))),
        *(("nearest neighbour's", near.response) for near in (nearest[:1] if held else nearest)),
        ("cut", cut(row, source("cut"))),
        ("scrambled", scramble(row, source("scramble"))),
        ("looped", loop(row, source("loop"))),
        ("echo", echo(row, source("echo"))),
        ("empty phrase", empty_phrase(row, source("phrase"), held=held)),
        ("evasion", evasion(row, source("evasion"), held=held)),
        ("vague", vague(row, source("vague"))),
        ("shortened", shorten(row, source("shorten"))),
        ("wrong language", wrong_language(row, others, source("language"))),
        ("rambling", ramble(row, others, source("ramble"))),
    ]
    kept = [(k, text) for k, text in changed if held or source(f"use {k}").random() < SHARES.get(k, 1)]
    return ((kind, text) for kind, text in kept if text is not None)
