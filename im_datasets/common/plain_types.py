"""Plain data that a stranger wrote, held to the types that its fields are declared with."""

from collections.abc import Mapping
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

from im_datasets.common.errors import UntrustedError
from im_datasets.common.untrusted import shown

LARGEST = 1e50
"""The largest number that is counted with, up or down: those of rows and rules are told by means and squares."""


def check_fields(data: Any, declared: type, what: str, **other: Any) -> None:
    """Refuse plain data in which a field is not of its declared type, wherever it is nested.

    Args:
        data: Field → value; what is not declared may be any plain data.
        declared: A class whose annotations are types of JSON, unions of them, ``Any``, or typed dictionaries.
        what: What it is, for the error.
        other: Field → type, in place of what the class declares.

    Raises:
        UntrustedError: Names the field and what stands there; numbers must be finite and up to ``LARGEST``.

    >>> from typing import TypedDict
    >>> check_fields({"rows": 3, "name": "a"}, TypedDict("Source", {"rows": int}), "the source")
    """
    if not isinstance(data, Mapping):
        raise UntrustedError(f"{what} is {shown(repr(data))}; it must be an object")
    kinds = get_type_hints(declared) | other
    for name, value in data.items():
        kind = kinds.get(name, Any)
        if not _is_of(value, kind):
            raise UntrustedError(f"{shown(name)} of {what} is {shown(repr(value))}; it must be {_in_words(kind)}")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that can be counted with; True and False are whole numbers to Python alone."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _is_of(value: Any, kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
        is_plain = value is None or isinstance(value, str | bool | Mapping | list | tuple) or is_number(value)
        return is_plain and all(_is_of(each, Any) for each in inner)
    if is_typeddict(kind):
        kinds = get_type_hints(kind)
        return isinstance(value, Mapping) and all(_is_of(each, kinds.get(name, Any)) for name, each in value.items())
    if origin is dict:
        return isinstance(value, Mapping) and all(_is_of(each, arguments[1]) for each in value.values())
    if origin is list:
        return isinstance(value, list | tuple) and all(_is_of(each, arguments[0]) for each in value)
    if arguments:
        return any(_is_of(value, each) for each in arguments)
    if kind in (int, float):
        return is_number(value) and isinstance(value, int | kind)
    return isinstance(value, kind)


def _in_words(kind: Any) -> str:
    """A type for people."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        return f"an object with {', '.join(get_type_hints(kind))}"
    if origin is dict:
        return f"an object of {_MANY.get(arguments[1], 'plain data')}"
    if origin is list:
        return f"a list of {_MANY.get(arguments[0], 'plain data')}"
    if arguments:
        return " or ".join(map(_in_words, arguments))
    return _ONE[kind]


_ONE: dict[Any, str] = {str: "a text", bool: "true or false", NoneType: "null"}
_ONE |= {int: f"a whole number up to {LARGEST:g}", float: f"a finite number up to {LARGEST:g}"}
_ONE |= {Any: f"plain data, its numbers finite and up to {LARGEST:g}"}
_MANY = {str: "texts", int: "whole numbers", float: "numbers"}
