"""What the Hub's client raises → whether to try again, how long to wait, and one line that says what to do."""

import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from im_datasets.common.errors import HubError

ATTEMPTS = 6
"""How often a request or a commit is tried before this gives up."""

LONGEST_WAIT = 120.0
"""Seconds that are waited at most before trying again."""

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}|(?<=Bearer )\S+")
_MOVED = (409, 412)
_PASSING = (408, 429, 500, 502, 503, 504)
_ADVICE = {
    401: "the token is not accepted or there is none; run: hf auth login",
    403: "this token may not write there; run hf auth login with one that may, or open a pull request: "
    "create_pr=True (--create-pr)",
    404: "it is not there, or this token may not see it; check the name, or run: hf auth login",
    413: "too much for one commit",
    429: "too many requests; try again later",
    **dict.fromkeys((500, 502, 503, 504), "the Hub is in trouble; nothing is wrong here, try again later"),
}
_FOOTNOTE = re.compile(r" for url:? '?[^\s']+'?|\s*For more information check: \S+")
"""What httpx says beside a status: the address, which may be a signed one, and where the number is explained."""


def client_errors() -> tuple[type[Exception], ...]:
    """What the Hub's client raises: an upload that fails in a thread comes as a RuntimeError."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    return (HfHubHTTPError, httpx.HTTPError, LocalTokenNotFoundError, ConnectionError, RuntimeError, ValueError)


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error; None where the Hub gave no answer."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        if response is not None and isinstance(getattr(response, "status_code", None), int):
            return int(response.status_code)
    return None


def is_worth_retrying(error: BaseException) -> bool:
    """Whether the same request may well succeed in a moment."""
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    if isinstance(error, LocalEntryNotFoundError):
        return False  # the client says so after it has tried several times itself
    status = status_of(error)
    if status is not None:
        return status in (*_MOVED, *_PASSING)
    return any(isinstance(one, httpx.TransportError) for one in _chain(error))


def may_have_landed(error: BaseException) -> bool:
    """Whether what was asked may have been done all the same: only the answer is lost, or a server broke off."""
    status = status_of(error)
    return status is None or status >= 500


def is_out_of_reach(error: BaseException) -> bool:
    """Whether the Hub gave no answer at all, or may not be asked."""
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    return status_of(error) is None and any(
        isinstance(one, (httpx.TransportError, OfflineModeIsEnabled)) for one in _chain(error)
    )


def try_again(ask: Callable[[], Answer], what: str, attempts: int = ATTEMPTS) -> Answer:
    """Ask, and ask again while the Hub or the way to it fails in passing.

    Args:
        ask: Sends one or several requests that may be sent twice.
        what: What is asked, for the log.
        attempts: How often at most.

    Raises:
        Exception: What the client raised, where it is not worth a retry or the last attempt failed too.
    """
    for attempt in range(1, attempts + 1):
        try:
            return ask()
        except client_errors() as error:
            if status_of(error) in _MOVED or not is_worth_retrying(error) or attempt == attempts:
                raise
            wait_before_retry(error, attempt, f"the Hub did not answer for {what}")
    raise AssertionError("unreachable")  # pragma: no cover


def wait_before_retry(error: BaseException, attempt: int, what: str) -> None:
    """Wait as long as ``seconds_to_wait`` says, and put what failed into the log."""
    wait = seconds_to_wait(error, attempt)
    brief = status_of(error) or type(error).__name__
    logger.warning("%s (%s); trying again in %.0f s", what, brief, wait)
    _sleep(wait)


def seconds_to_wait(error: BaseException, attempt: int) -> float:
    """How long to wait before the next attempt.

    Args:
        error: What went wrong; a ``Retry-After`` in its answer is honoured.
        attempt: How many attempts there were.

    Returns:
        0 after somebody else's commit, else seconds that grow with the attempts, at most ``LONGEST_WAIT``.
    """
    if status_of(error) in _MOVED:
        return 0.0
    for one in _chain(error):
        headers = getattr(getattr(one, "response", None), "headers", {})
        told = headers.get("Retry-After", "")
        if told.isdecimal():
            return min(float(told), LONGEST_WAIT)
    return min(2.0 ** (attempt - 1) + random.random(), LONGEST_WAIT)  # noqa: S311 - so that not all return at once


@contextmanager
def explained(repo_id: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one clear line without a token in it.

    Raises:
        HubError: The client raised.
    """
    try:
        yield
    except client_errors() as error:
        # The cause would repeat the message with whatever the server put into it.
        raise HubError(explain(error, repo_id)) from None


def explain(error: BaseException, repo_id: str) -> str:
    """One line that says what went wrong and what to do, without any token.

    Args:
        error: What the client raised.
        repo_id: Where the push went.
    """
    status = status_of(error)
    if is_out_of_reach(error):
        return f"{repo_id}: the Hub cannot be reached, or broke off ({type(error).__name__}); try again"
    told = _FOOTNOTE.sub("", " ".join(" ".join(str(one) for one in _told(error)).split()))[:400]
    advice = _ADVICE.get(status or 0, "")
    return without_tokens(f"{repo_id}: {f'{advice} ({told})' if advice else told}")


def without_tokens(text: str) -> str:
    """A text in which nothing looks like a token.

    >>> without_tokens("refused: hf_abcdefghijkl")
    'refused: hf_…'
    """
    from huggingface_hub import get_token

    if token := get_token():
        text = text.replace(token, "hf_…")
    return _TOKEN.sub("hf_…", text)


_sleep = time.sleep


def _told(error: BaseException) -> list[BaseException]:
    """The error, and what lies behind it where it is one of a thread that only says that it failed."""
    first = [error]
    return [*first, error.__cause__] if isinstance(error, RuntimeError) and error.__cause__ else first


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
