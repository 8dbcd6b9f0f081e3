"""Which row is to blame where the work on several breaks or kills its process: found by halving, named in the error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from im_datasets.common.errors import ImDatasetsError, IndicatorError
from im_datasets.data.pairs import Pairs


def first_culprit(span: range, breaks: Callable[[range], bool]) -> int | None:
    """Search rows for the first one that breaks the work by itself.

    Args:
        span: The rows that broke it together.
        breaks: Whether some of them do.

    Returns:
        The row's number; None where only several together break it.

    Example:
        >>> first_culprit(range(20, 29), lambda rows: 24 in rows)
        24
        >>> first_culprit(range(9), lambda rows: len(rows) > 5) is None
        True
    """
    while len(span) > 1:
        middle = len(span) // 2
        span = span[:middle] if breaks(span[:middle]) else span[middle:]
    return span.start if span and breaks(span) else None


@contextmanager
def naming_the_row(who: str, pairs: Pairs, start: int, again: Callable[[Pairs], object]) -> Iterator[None]:
    """Turn whatever breaks over a chunk into an error that names the row.

    Args:
        who: What was at work.
        pairs: The chunk.
        start: Number of its first row.
        again: Does the same with fewer pairs; called to find the row.

    Raises:
        IndicatorError: Names the first row that breaks by itself, or the chunk where none does.
    """

    def breaks(rows: range) -> bool:
        some = slice(rows.start - start, rows.stop - start)
        try:
            again(Pairs(pairs.contexts[some], pairs.responses[some], pairs.reasons[some]))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException:  # noqa: BLE001 - whatever it is, it is asked only whether it comes
            return True
        return False

    try:
        yield
    except (ImDatasetsError, OSError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a tokenizer written in Rust panics with no Exception
        span = range(start, start + len(pairs))
        where = _name_rows(span, first_culprit(span, breaks))
        what = " ".join(str(error).split()) or "no message"
        advice = "pass max_tokens, or shorten or remove it" if isinstance(error, MemoryError) else "mend or remove it"
        raise IndicatorError(f"{who} broke on {where} ({type(error).__name__}: {what[:300]}); {advice}") from error


def died_over(tries: int, span: range, kills: Callable[[range], bool], why: str) -> IndicatorError:
    """The error over rows that several workers died over; names the one that kills by itself, where there is one.

    Args:
        tries: How many workers died.
        span: The rows.
        kills: Whether a worker of its own dies over some of them.
        why: What is known of their death.
    """
    row = first_culprit(span, kills)
    advice = "free memory or pass fewer workers" if row is None else "mend or remove it"
    return IndicatorError(
        f"{tries} workers died over {_name_rows(span, row)} ({why}); {advice} and run the same again: finished "
        "shards are kept"
    )


def _name_rows(span: range, row: int | None) -> str:
    return f"rows {span.start} to {span.stop - 1}" if row is None else f"row {row}"
