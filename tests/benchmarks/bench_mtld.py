"""MTLD against lexicalrichness on the same responses: ``python tests/benchmarks/bench_mtld.py --data FILE``.

Responses without a word are left out, since lexicalrichness divides by zero on them.
"""

from common import arguments, compare, read_rows, report
from lexicalrichness import LexicalRichness

from im_datasets.data.columns import Columns
from im_datasets.indicators.mtld import MTLD, mtld, words

BATCH_SIZE = 1000


def main() -> None:
    """Time both, and count equal values."""
    options = arguments("MTLD against lexicalrichness").parse_args()
    rows = read_rows(options.data, options.rows)
    batch = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    texts = [text for text in Columns.detect(list(batch)).pairs(batch).responses if words(text)]

    def package() -> list[float]:
        return [LexicalRichness(text).mtld(0.72) for text in texts]

    def one_by_one() -> list[float]:
        return [mtld(words(text), 0.72) for text in texts]

    def indicator() -> list[float]:
        batches = (texts[start : start + BATCH_SIZE] for start in range(0, len(texts), BATCH_SIZE))
        return [value for batch in batches for value in MTLD().score([], batch)["im_mtld"]]

    expected = package()
    report(
        "mtld",
        compare(
            {
                "lexicalrichness, text by text": package,
                "mtld(words(text)), text by text": one_by_one,
                f"MTLD(), batches of {BATCH_SIZE}": indicator,
            },
            items=len(texts),
            rounds=options.rounds,
        ),
        data=f"{options.data.name}, {len(texts)} responses, {sum(len(words(text)) for text in texts)} words",
        covers="text to value: lower-casing, splitting into words, both readings",
        clock="cpu",
        packages=("lexicalrichness",),
        out=options.out,
        facts={
            "equal values, text by text": sum(a == b for a, b in zip(expected, one_by_one(), strict=True)),
            "equal values, batches": sum(a == b for a, b in zip(expected, indicator(), strict=True)),
        },
    )


if __name__ == "__main__":
    main()
