"""What the Hub's client raises → whether to try again, how long to wait, and one line that says what to do."""

import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from im_datasets.common.errors import HubError

ATTEMPTS = 6
"""How often a request or a commit is tried before this gives up."""

LONGEST_WAIT = 120.0
"""Seconds that are waited at most before trying again."""

Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)

_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}|(?<=Bearer )\S+")
# Somebody else's commit came first.
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
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, LocalTokenNotFoundError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    return (
        HfHubHTTPError,
        httpx.HTTPError,
        LocalTokenNotFoundError,
        LocalEntryNotFoundError,
        ConnectionError,
        RuntimeError,
        ValueError,
    )


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error; None where the Hub gave no answer."""
    statuses = [getattr(response, "status_code", None) for response in _responses(error)]
    return next((status for status in statuses if isinstance(status, int)), None)


def is_worth_retrying(error: BaseException) -> bool:
    """Whether the same request may well succeed in a moment."""
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    if isinstance(error, LocalEntryNotFoundError):
        return False  # the client says so after it has tried several times itself
    status = status_of(error)
    if status is not None:
        return status in (*_MOVED, *_PASSING)
    return any(isinstance(cause, httpx.TransportError) for cause in _chain(error))


def is_out_of_reach(error: BaseException) -> bool:
    """Whether the Hub gave no answer at all, or may not be asked."""
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    unreachable = (httpx.TransportError, OfflineModeIsEnabled)
    return status_of(error) is None and any(isinstance(cause, unreachable) for cause in _chain(error))


def is_of_the_hub(error: BaseException) -> bool:
    """Whether the Hub refused, broke off or was not there: it says nothing of what a repository holds."""
    return status_of(error) is not None or is_out_of_reach(error) or isinstance(error, ConnectionError | TimeoutError)


@dataclass
class Attempt:
    """One of ``attempts``: ``with attempt:`` keeps a failure in passing as its ``error``, after waiting a while."""

    number: int
    is_last: bool
    failure: str
    merges_anew: bool
    error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, client_errors()) or self.is_last or not is_worth_retrying(error):
            return False
        status = status_of(error)
        if status in _MOVED and not self.merges_anew:
            return False
        self.error = error
        wait = seconds_to_wait(error, self.number)
        logger.warning("%s (%s); trying again in %.0f s", self.failure, status or type(error).__name__, wait)
        time.sleep(wait)
        return True

    @property
    def may_have_landed(self) -> bool:
        """Whether what failed may have been done all the same: the answer was lost, or a server broke off."""
        status = status_of(self.error) if self.error else None
        return self.error is not None and (status is None or status >= 500)


def attempts(failure: str, most: int = ATTEMPTS, *, merges_anew: bool = False) -> Iterator[Attempt]:
    """Attempts to go through until one succeeds; the error of the last one is raised.

    Args:
        failure: What is logged of one that fails.
        most: How many at most.
        merges_anew: Whether each reads again what is there, so that somebody else's commit is worth another.
    """
    for number in range(1, most + 1):
        yield Attempt(number, number == most, failure, merges_anew)


def try_again(request: Callable[[], Answer], name: str, most: int = ATTEMPTS) -> Answer:
    """Ask, and ask again while the Hub or the way to it fails in passing.

    Args:
        request: Sends one or several requests that may be sent twice.
        name: Of what is asked for, for the log.
        most: How often at most.

    Raises:
        Exception: What the client raised, where it is not worth a retry or the last attempt failed too.
    """
    for attempt in attempts(f"the Hub did not answer for {name}", most):
        with attempt:
            return request()
    raise AssertionError("unreachable")  # pragma: no cover


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
    delays = [getattr(response, "headers", {}).get("Retry-After", "") for response in _responses(error)]
    if delay := next(filter(str.isdecimal, delays), None):
        return min(float(delay), LONGEST_WAIT)
    # The random part keeps several pushes from coming back at the same moment.
    return min(2.0 ** (attempt - 1) + random.random(), LONGEST_WAIT)  # noqa: S311


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
    if is_out_of_reach(error):
        return f"{repo_id}: the Hub cannot be reached, or broke off ({type(error).__name__}); try again"
    errors = [error]
    if isinstance(error, RuntimeError) and error.__cause__:
        errors.append(error.__cause__)  # an upload in a thread says only that it failed
    # One line, though a server may answer with a page.
    message = _FOOTNOTE.sub("", " ".join(" ".join(map(str, errors)).split()))[:400]
    advice = _ADVICE.get(status_of(error) or 0)
    return without_tokens(f"{repo_id}: {f'{advice} ({message})' if advice else message}")


def without_tokens(text: str) -> str:
    """A text in which nothing looks like a token.

    >>> without_tokens("refused: hf_abcdefghijkl")
    'refused: hf_…'
    """
    from huggingface_hub import get_token

    if token := get_token():
        text = text.replace(token, "hf_…")
    return _TOKEN.sub("hf_…", text)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    # The client raises errors of its own over those of httpx, with a `from` and without.
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _responses(error: BaseException) -> list[Any]:
    """The HTTP answers that an error and its causes carry; the client's own errors and httpx's name them alike."""
    return [cause.response for cause in _chain(error) if getattr(cause, "response", None) is not None]  # type: ignore[attr-defined]
