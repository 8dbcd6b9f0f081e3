"""What the Hub's client raises: how long is waited, what is said, and that no token is told."""

import logging
import traceback
from types import SimpleNamespace

import pytest
from hub_server import READ
from huggingface_hub.errors import HfHubHTTPError
from pushing import REPO, push

from im_datasets.common.errors import HubError
from im_datasets.hub import client as hub_errors

pytestmark = pytest.mark.usefixtures("quick_figures")


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_push_waits_longer_each_time_the_hub_fails(hub, selection, waits, status):
    hub.fail("POST", "/commit/", status=status, times=3)
    push(selection)
    assert 1 <= waits[0] < 2 <= waits[1] < 3 < 4 <= waits[2] < 5


def test_push_honours_retry_after(hub, selection, waits):
    hub.fail("POST", "/commit/", status=429, headers={"Retry-After": "17"})
    push(selection)
    assert waits == [17]


def test_push_gives_up_on_a_request_that_always_fails(hub, selection, waits):
    hub.fail("GET", "/revision/main", status=503, times=99)
    with pytest.raises(HubError, match="the Hub is in trouble; nothing is wrong here, try again later") as caught:
        push(selection)
    assert len(hub.calls("GET", "/revision/main")) == hub_errors.ATTEMPTS
    assert "http" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "run: hf auth login"), (403, "may not write there.*--create-pr"), (413, "too much")]
)
def test_push_says_what_is_not_worth_a_retry(hub, selection, waits, status, advice):
    hub.fail("POST", "/commit/", status=status, times=99)
    with pytest.raises(HubError, match=advice):
        push(selection)
    assert len(hub.calls("POST", "/commit/")) == 1
    assert waits == []


def test_push_without_login_says_so(hub, selection, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="hf auth login"):
        push(selection)
    with pytest.raises(HubError, match="hf auth login"):
        push(selection, "best")


def test_push_with_a_wrong_token_says_so(hub, selection, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_notatokenofanybodyatall")
    with pytest.raises(HubError, match="not accepted"):
        push(selection)


def test_push_with_a_reading_token_says_so(hub, selection, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.login("me", READ))
    hub.store.create("dataset", REPO)
    with pytest.raises(HubError, match="may not write there"):
        push(selection)


PLANTED = "hf_plantedTokenThatMustNeverBeSeen0123"


def test_no_token_in_any_file_log_or_error(hub, selection, monkeypatch, caplog, capfd, waits):
    hub.store.users[PLANTED] = hub.store.users[hub.login()]
    monkeypatch.setenv("HF_TOKEN", PLANTED)
    with caplog.at_level(logging.DEBUG):
        for status in (500, 429, 403):
            hub.fail("POST", "/commit/", status=status, times=1)
        with pytest.raises(HubError) as caught:
            push(selection)
        push(selection)
    assert hub.requests[-1].token == PLANTED
    written = b"".join(
        file.content + path.encode()
        for commit in hub.store.repos["dataset", REPO].commits.values()
        for path, file in commit.files.items()
    )
    told = caplog.text + str(caught.value) + repr(caught.value) + "".join(capfd.readouterr())
    assert PLANTED.encode() not in written
    assert PLANTED not in told


def test_an_error_repeats_no_token_that_the_hub_sends_back(hub, selection, monkeypatch):
    hub.store.users[PLANTED] = hub.store.users[hub.login()]
    monkeypatch.setenv("HF_TOKEN", PLANTED)
    hub.fail("POST", "/commit/", status=403, message=f"Bearer {PLANTED} may not")
    with pytest.raises(HubError, match="Bearer hf_… may not") as caught:
        push(selection)
    assert PLANTED not in "".join(traceback.format_exception(caught.value))


def test_seconds_to_wait_never_exceed_the_longest():
    error = SimpleNamespace(response=SimpleNamespace(status_code=429, headers={"Retry-After": "9999"}))
    failure = HubError("x")
    failure.response = error.response
    assert hub_errors.seconds_to_wait(failure, 1) == hub_errors.LONGEST_WAIT
    assert hub_errors.seconds_to_wait(HubError("x"), 20) == hub_errors.LONGEST_WAIT


def failure(status):
    return HfHubHTTPError("failed", response=SimpleNamespace(status_code=status, headers={}, request=None))


@pytest.mark.parametrize(
    ("status", "merges_anew", "counts"),
    [(503, False, 3), (503, True, 3), (412, False, 1), (412, True, 3), (403, True, 1)],
)
def test_attempts_end_with_the_last_or_what_is_not_worth_another(waits, status, merges_anew, counts):
    numbers = []

    def fail_each_time():
        for attempt in hub_errors.attempts("it failed", 3, merges_anew=merges_anew):
            numbers.append(attempt.number)
            with attempt:
                raise failure(status)

    with pytest.raises(HfHubHTTPError):
        fail_each_time()
    assert numbers == list(range(1, counts + 1))
    assert len(waits) == counts - 1


@pytest.mark.parametrize(("status", "may_have_landed"), [(502, True), (429, False)])
def test_an_attempt_says_whether_it_may_have_landed(waits, status, may_have_landed):
    attempt = next(hub_errors.attempts("it failed"))
    assert not attempt.may_have_landed
    with attempt:
        raise failure(status)
    assert attempt.may_have_landed == may_have_landed


def test_try_again_gives_what_the_request_gives(waits):
    answers = [failure(500), failure(429), "done"]

    def request():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert hub_errors.try_again(request, "it") == "done"
    assert len(waits) == 2
