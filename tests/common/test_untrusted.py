"""What comes from a stranger is read within bounds and shown as it is."""

import gc
import json
import os
from contextlib import suppress
from time import process_time

import pytest

from im_datasets.common.errors import UntrustedError
from im_datasets.common.untrusted import (
    DEPTH,
    HIDDEN,
    TEXT_BYTES,
    YAML_NODES,
    check_unique,
    escape_unseen,
    parse_json,
    parse_yaml,
    read_bytes,
    shown,
)


def _laughs(levels):
    """Each level stands for nine of the one before."""
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(["a0: &a0 [lol]", *lines])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, f"nested deeper than {DEPTH} levels"),
        ("[" * 500 + "]" * 500, f"nested deeper than {DEPTH} levels"),
        ('{"a":' * 65 + "1" + "}" * 65, f"nested deeper than {DEPTH} levels"),
        (b'{"a": "\xff"}', "is not UTF-8 text: invalid start byte at byte 7"),
        ("<html>503</html>", "is not JSON: Expecting value"),
        ("", "is not JSON: Expecting value"),
        ("9" * 5000, "is not JSON: Exceeds the limit"),
        (" " * (TEXT_BYTES + 1), "has more than 4,194,304 bytes"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_parse_json_refuses_what_is_beyond_its_bounds_in_one_sentence(content, message):
    with pytest.raises(UntrustedError, match=f"^the file .*{message}") as error:
        parse_json(content, "the file")
    assert "\n" not in str(error.value)


def test_parse_json_refuses_a_name_that_comes_twice_where_it_is_asked_to():
    assert parse_json('[{"a": 1}, {"a": 2}]', "it", unique=True) == [{"a": 1}, {"a": 2}]
    with pytest.raises(UntrustedError, match="it is not JSON: the name 'a' comes twice in one object"):
        parse_json('{"b": {"a": 1, "a": 1}}', "it", unique=True)


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "- {a: 1, b: 2, a: 3}", "x: &y {a: 1}\nz: {a: *y, a: *y}"])
def test_check_unique_refuses_a_name_that_comes_twice(text):
    with pytest.raises(UntrustedError, match="it has 'a' twice"):
        check_unique(text, "it")


def test_check_unique_takes_names_of_different_mappings_and_nothing():
    check_unique("a: &x {a: 1}\nb: [*x, {a: 1}]\n[1]: 2", "it")
    check_unique("", "it")


def test_parse_json_reads_up_to_its_bounds():
    assert parse_json("[" * DEPTH + "]" * DEPTH, "it")
    assert parse_json('{"a": NaN, "a": 2}', "it") == {"a": 2}
    assert parse_json(b'"\xc3\xa4"', "it") == "ä"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, f"nested deeper than {DEPTH} levels"),
        ("- " * 100_000, f"nested deeper than {DEPTH} levels"),
        ("? " * 100_000, f"nested deeper than {DEPTH} levels"),
        (_laughs(30), f"stands for more than {YAML_NODES:,} values"),
        ("a: &a [*a]", "stands for more than"),
        ("a: &a {b: *a}", "stands for more than"),
        ("a: *b", "stands for more than"),
        ("- x\n" * (YAML_NODES + 1), "stands for more than"),
        ("a: [1", "is not YAML"),
        ("a: 2020-99-99", "is not YAML: month must be in"),
        ("a: " + "9" * 5000, "is not YAML: a number in it"),
        ("a: 1" + ":00" * 100_000, "is not YAML: a number in it"),
        ("a: 1" + ":00" * 10_000 + ".5", "is not YAML"),
        ("a: !!python/object/apply:os.system [true]", "is not YAML"),
        ("? {a: 1}\n: 2", "is not YAML"),
        ("a: \x00", "is not YAML"),
        (b"a: \xff", "is not UTF-8 text"),
        ("#" * (TEXT_BYTES + 1), "has more than 4,194,304 bytes"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_parse_yaml_refuses_what_is_beyond_its_bounds_in_one_sentence(content, message):
    with pytest.raises(UntrustedError, match=f"^the file .*{message}") as error:
        parse_yaml(content, "the file")
    assert "\n" not in str(error.value)


def test_parse_yaml_reads_aliases_and_merges_within_its_bounds():
    assert parse_yaml("a: &a {b: 1}\nc: *a\nd: {<<: *a, e: 2}", "it")["d"] == {"b": 1, "e": 2}
    assert parse_yaml("", "it") is None
    assert parse_yaml("a: 1:30:00\nb: 0x1f", "it") == {"a": 5400, "b": 31}


@pytest.mark.parametrize(
    "part", ["a: b\n", "- a\n", "# a\n", "a\n", "'a", '"a\\\n', "&a ", "!a ", "a: 'x'\n\n", "{a: b},"]
)
def test_parse_yaml_takes_time_in_proportion_to_the_text(part):
    def seconds(length):
        # Garbage is looked for among all objects of the process, however many other tests have left.
        gc.collect()
        gc.disable()
        clock = process_time()
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("im_datasets.common.untrusted.YAML_NODES", 10**9)
                with suppress(UntrustedError):
                    parse_yaml(part * (length // len(part)), "it")
            return process_time() - clock
        finally:
            gc.enable()

    assert min(seconds(200_000) for _ in range(2)) < 8 * min(seconds(50_000) for _ in range(2)) + 0.1


def test_read_bytes_reads_no_more_than_was_said(tmp_path):
    (tmp_path / "big").touch()
    os.truncate(tmp_path / "big", 2**40)
    with pytest.raises(UntrustedError, match="it has more than 4,194,304 bytes"):
        read_bytes(tmp_path / "big", "it")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("quality\npassed  files  all well", "quality passed files all well"),
        ("a\r\x0bb\tc\x85d\u2028e\u2029f", "a b c d e f"),
        ("\x1b[2K\x1b[1Apassed", "␛[2K␛[1Apassed"),
        ("\x9b2Kpassed", "\ufffd2Kpassed"),
        ("a\u202egnp.exe", "a\ufffdgnp.exe"),
        ("\u2066a\u200b\u2060\ufeffb\u00adc\U000e0041", "\ufffda\ufffd\ufffd\ufffdb\ufffdc\ufffd"),
        ("pas\u200dsed", "pas\ufffdsed"),
        ("👩\u200d💻 می\u200cخواهم", "👩\u200d💻 می\u200cخواهم"),
        ("\udc80\x00", "\ufffd␀"),
    ],
)
def test_shown_is_one_line_in_which_nothing_hides(text, line):
    assert shown(text) == line


def test_shown_cuts_what_is_long_and_says_so():
    assert shown("x" * 300) == "x" * 199 + "…"
    assert shown("a" + " " * 10**7 + "b") == "a…"
    assert len(shown("y " * 10**7, 50)) == 50


def test_escape_unseen_says_the_same_in_json():
    data = {"a": "\x1b[2K\x9b\u202e\u2028\udc80é\x7f"}
    text = escape_unseen(json.dumps(data, ensure_ascii=False, indent=2))
    assert json.loads(text) == data
    assert not HIDDEN.search(text)
    assert text.isascii() is False
    assert all(char.isprintable() for line in text.split("\n") for char in line)
