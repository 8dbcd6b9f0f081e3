"""Plain data: what is of its declared type passes, whatever is not is named."""

from typing import Any, TypedDict

import pytest

from im_datasets.common.errors import UntrustedError
from im_datasets.common.plain_types import check_fields


class Inner(TypedDict):
    quota: int


class Declared:
    text: str
    count: int
    share: float
    maybe: float | None
    names: list[str]
    counts: dict[str, int]
    inner: Inner | None
    free: dict[str, Any]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"text": "", "count": -1, "share": 1, "maybe": None, "names": ["a"], "counts": {"a": 1}},
        {"inner": None, "free": {"a": [{"b": [True, None, 1e50]}]}},
        {"inner": {"quota": 1, "other": ["x"]}, "undeclared": [1, "a"]},
    ],
)
def test_check_fields_passes_what_is_declared(data):
    check_fields(data, Declared, "it")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], r"it is \[\]; it must be an object"),
        ({"text": None}, "text of it is None; it must be a text"),
        ({"count": True}, "count of it is True; it must be a whole number up to 1e"),
        ({"count": 1.0}, "it must be a whole number"),
        ({"share": float("nan")}, "share of it is nan; it must be a finite number"),
        ({"maybe": 10**51}, "it must be a finite number up to 1e.50 or null"),
        ({"names": [1]}, "it must be a list of texts"),
        ({"counts": {"a": None}}, "it must be an object of whole numbers"),
        ({"inner": {"quota": "a"}}, "it must be an object with quota or null"),
        ({"free": {"a": [{"b": float("inf")}]}}, "it must be an object of plain data"),
        ({"undeclared": 10**51}, "it must be plain data, its numbers finite"),
        ({"a\nb": float("nan")}, "a b of it is nan"),
    ],
)
def test_check_fields_names_what_is_not(data, message):
    with pytest.raises(UntrustedError, match=message):
        check_fields(data, Declared, "it")
