"""Repositories that would take all memory or time, or lead out of themselves: each is told in one line.

Each row of the tables: what is changed in a publication → what must be said. The checksums are made right again, as a
careful attacker would.
"""

import json
import os
import re
from time import process_time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import invoke as run
from verifying import FAILED, KEPT, REPO, edit_manifest, told

from im_datasets import load_selection, push_selected, verify
from im_datasets.common.errors import HubError, ImDatasetsError
from im_datasets.common.untrusted import TEXT_BYTES
from im_datasets.hub.card_merge import _segments, split_card
from im_datasets.hub.manifest import Manifest
from im_datasets.report.card_blocks import find_blocks, replace_blocks
from im_datasets.report.configs import Published
from im_datasets.report.result_folder import load_result
from im_datasets.rules.linear import read_rule
from im_datasets.scoring.record import ScoringRecord


def claim(folder, path):
    """Make the claims of a file right again."""
    fresh = vars(Published.of_file(folder / path))
    edit_manifest(folder, lambda manifest: manifest["files"].update({path: fresh}))


def replace_rows(table, **options):
    def change(folder):
        pq.write_table(pa.table(table), folder / KEPT, **options)
        claim(folder, KEPT)

    return change


def repeated(value, times):
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(times, dtype=np.int32)), pa.array([value]))


def deep_metadata(folder):
    table = pq.read_table(folder / KEPT).replace_schema_metadata({"huggingface": '{"a":' * 100_000})
    pq.write_table(table, folder / KEPT)
    claim(folder, KEPT)


def lying_footer(folder):
    """A file that ends in the middle of what its footer tells of."""
    content = (folder / KEPT).read_bytes()
    (folder / KEPT).write_bytes(content[:4] + content[200:])
    claim(folder, KEPT)


BOMBS = {
    "two thousand million bytes in a small file": (
        replace_rows({"instruction": repeated("x" * 10_000, 210_000)}),
        "would come to more than 26[0-9],[0-9,]+ bytes in memory",
    ),
    "ten million rows of nothing": (replace_rows({"a": pa.nulls(10_000_000)}), "would come to more than"),
    "pages that expand without end": (
        replace_rows({"a": ["x" * 10_000_000]}, compression="zstd", use_dictionary=False),
        "is compressed by ZSTD, which no push uses",
    ),
    "a type of somebody else": (
        replace_rows({"a": pa.ExtensionArray.from_storage(pa.opaque(pa.binary(), "\x1b[2Kx", "v"), pa.array([b"x"]))}),
        "the column 'a' of .* is of the type arrow.opaque",
    ),
    "metadata that is nested without end": (deep_metadata, "nested deeper than 64 levels"),
    "a footer that lies": (lying_footer, "cannot be read as Parquet"),
    "more columns than anybody reads": (
        replace_rows({f"c{number}": [1] for number in range(10_001)}),
        "has 10,001 columns; more than 10,000 are not read",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_verify_and_load_selection_tell_of_a_bomb_in_one_line(published, name):
    change, match = BOMBS[name]
    folder = published(include_dropped=True)
    change(folder)
    before = pa.default_memory_pool().bytes_allocated()
    verification = verify(folder, sample=4)
    assert not verification.ok
    assert re.search(match, told(verification, FAILED))
    with pytest.raises(HubError, match=match) as error:
        load_selection(folder)
    assert "\n" not in str(error.value)
    assert pa.default_memory_pool().bytes_allocated() - before < 2**28


def test_load_result_tells_of_a_bomb(mined, tmp_path):
    folder = tmp_path / "mined"
    folder.mkdir()
    for path in mined.folder.glob("*.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    pq.write_table(pa.table({"instruction": repeated("x" * 10_000, 210_000)}), folder / "kept.parquet")
    with pytest.raises(ImDatasetsError, match="would come to more than"):
        load_result(folder)
    (folder / "kept.parquet").unlink()
    (folder / "kept.parquet").symlink_to(mined.folder / "kept.parquet")
    with pytest.raises(ImDatasetsError, match=r"kept\.parquet leads out of mined"):
        load_result(folder)


PATHS = [
    *("/etc/passwd", "../x.parquet", "kept/../../x", "..", ".", "", "kept\\x", "C:/x", "C:x", "a\0b", "~/x", "kept/.x"),
    *("http://h/x", "hf://datasets/o/n/x", "zip://a::http://h/b", "file:///etc/passwd", "*", "**/*", "kept/*.parquet"),
    *("kept/[a-z]", "kept/?", "kept//x", "kept/", "a\nb", "$HOME/x", 7),
]


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("place", ["files", "configs"])
def test_a_path_that_no_push_writes_is_refused_before_anything_is_opened(hub, published, place, path):
    folder = published(include_dropped=True)
    manifest = json.loads((folder / "instructmining.json").read_text())
    if place == "files":
        manifest["files"] = {path: manifest["files"][KEPT]} | manifest["files"]
    else:
        manifest["configs"]["kept"]["files"] = [path]
    if place == "files" and path == 7:
        return  # JSON knows no such name
    text = json.dumps(manifest).encode()
    with pytest.raises(HubError, match=r"is not one of im-datasets: it names the file .*, which no push writes"):
        Manifest.from_json(text)
    hub.store.put("me/paths", {"instructmining.json": text})
    hub.requests.clear()
    with pytest.raises(HubError, match="which no push writes"):
        verify("me/paths")
    fetched = [request.path for request in hub.requests if "/resolve/" in request.path]
    assert all(path.endswith("instructmining.json") for path in fetched)


def link_file(folder, secret):
    (folder / KEPT).unlink()
    (folder / KEPT).symlink_to(secret)


def link_folder(folder, secret):
    (folder / "kept").rename(secret.parent / "moved")
    (folder / "kept").symlink_to(secret.parent / "moved")


def link_card(folder, secret):
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(secret)


@pytest.mark.parametrize("change", [link_file, link_folder, link_card])
def test_a_link_out_of_the_folder_is_not_followed(published, tmp_path_factory, change):
    folder, secret = published(include_dropped=True), tmp_path_factory.mktemp("elsewhere") / "secret"
    secret.write_text("SECRET")
    change(folder, secret)
    verification = verify(folder, sample=0)
    assert "leads out of" in told(verification, FAILED)
    assert "SECRET" not in str(verification)


@pytest.mark.parametrize("name", ["instructmining.json", "record.json"])
def test_a_link_in_place_of_what_is_claimed_is_not_followed(tmp_path, name):
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / name).symlink_to(tmp_path / "secret")
    with pytest.raises(HubError, match=f"{name} leads out of copy"):
        verify(tmp_path / "copy")


def test_a_pipe_is_waited_for_by_nobody(published):
    folder = published(include_dropped=True)
    for path in (KEPT, "README.md", "figures/indicators.png"):
        (folder / path).unlink()
        os.mkfifo(folder / path)
    assert f"{KEPT} is missing" in told(verify(folder, sample=0), FAILED)


def test_the_files_of_the_hubs_cache_are_read_through_their_links(hub, mined):
    push_selected(mined.selection, REPO, license="cc0-1.0", language="en", include_dropped=True)
    folder = verify(REPO, sample=0)
    assert folder.ok


LARGE = {
    KEPT: (rf"{KEPT} has 5,000,000 bytes, claimed are [0-9,]+; it was not fetched", True),
    "README.md": ("README.md has 5,000,000 bytes, which is more than the 4,194,304", True),
    ".huggingface.yaml": (".huggingface.yaml has 5,000,000 bytes, which is more than the 4,194,304", True),
    "dataset_infos.json": ("dataset_infos.json has 5,000,000 bytes, which is more than the 4,194,304", True),
    "instructmining.json": ("instructmining.json of me/best has 5,000,000 bytes; more than 4,194,304 are not", False),
}


@pytest.mark.parametrize("path", LARGE)
def test_a_file_larger_than_it_may_be_is_not_fetched(hub, mined, path):
    match, is_checked = LARGE[path]
    push_selected(mined.selection, REPO, license="cc0-1.0", language="en", include_dropped=True)
    hub.store.put(REPO, {path: b" " * 5_000_000})
    hub.requests.clear()
    if is_checked:
        assert re.search(match, told(verify(REPO, sample=0), FAILED))
    else:
        with pytest.raises(HubError, match=match):
            verify(REPO, sample=0)
    assert not [request for request in hub.requests if request.method == "GET" and request.path.endswith(f"/{path}")]


def test_no_picture_is_opened(published, monkeypatch):
    folder = published(include_dropped=True)
    monkeypatch.setattr("PIL.Image.open", lambda *_, **__: pytest.fail("a picture was opened"))
    (folder / "figures/indicators.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    claim(folder, "figures/indicators.png")
    assert verify(folder, sample=4).checks[0].told.endswith("files have the sha256 that was claimed")


JSONS = {
    "nested without end": b"[" * 100_000,
    "nested without end, whole": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "no UTF-8": b'{"schema_version": 1, "a": "\xff"}',
    "a page of a server": b"<html><body>503</body></html>",
    "nothing": b"",
    "a list": b"[1]",
    "a number": b"7",
    "too long": b" " * (TEXT_BYTES + 1),
    "a number without end": b'{"schema_version": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("name", JSONS)
def test_a_json_that_is_none_is_told_in_one_line(tmp_path, name):
    readers = {
        "instructmining.json": verify,
        "record.json": verify,
        "rule.json": lambda folder: read_rule(folder / "rule.json"),
    }
    for file, read in readers.items():
        (tmp_path / file).write_bytes(JSONS[name])
        with pytest.raises(ImDatasetsError) as error:
            read(tmp_path)
        assert len(str(error.value).splitlines()) == 1
        (tmp_path / file).unlink()
    (tmp_path / "record.json").write_bytes(JSONS[name])
    with pytest.raises(ImDatasetsError, match=r"record\.json is not a scoring record"):
        ScoringRecord.load(tmp_path / "record.json")


FORGED = "Quality\npassed       sample      all 9 rows agree\r\x1b[2K\x1b[1A\u2028passed \u202eok"


def test_a_name_makes_no_line_of_its_own(published):
    folder = published(include_dropped=True)

    def change(manifest):
        manifest["record"]["indicators"][0]["name"] = FORGED
        manifest["record"]["rule"]["name"] = FORGED
        manifest["package_version"] = FORGED

    edit_manifest(folder, change)
    lines = run("verify", folder, "--sample", 3).stdout.split("\n")
    names = {check.name for check in verify(folder, sample=3).checks}
    assert all(re.match(rf"(passed|failed|not checked) +({'|'.join(names)}) ", line) for line in lines[:-2])
    assert not any(re.match(r"passed +sample +all", line) for line in lines)
    assert not re.search("[\x00-\x08\x0b-\x1f\u2028\u202e]", "".join(lines))
    data = run("verify", folder, "--sample", 3, "--json").stdout
    assert "\x1b" not in data
    assert "\u202e" not in data
    assert json.loads(data)["checks"]


def lines_of(part):
    return lambda length: part * (length // len(part))


BEGIN, END = "<!-- im-datasets:begin a -->\n", "<!-- im-datasets:end a -->\n"
TEXTS = {
    "begins without an end": lambda n: "".join(f"<!-- im-datasets:begin a{i} -->\n" for i in range(n // 40)),
    "begins of one name": lines_of("<!-- im-datasets:begin a -->\n"),
    "ends before begins": lambda n: (
        "<!-- im-datasets:end a -->\n" * (n // 60) + "<!-- im-datasets:begin a -->\n" * (n // 60)
    ),
    "one begin and ends of others": lambda n: (
        "<!-- im-datasets:begin a -->\n" + "<!-- im-datasets:end b -->\n" * (n // 30)
    ),
    "a marker's name without an end": lambda n: "<!-- im-datasets:begin " + "a" * n,
    "fences": lambda n: "---\n" + "--- x\n" * (n // 6),
    "a fence and blanks": lambda n: "---\n---" + " " * n + "x",
    "blanks": lambda n: "---\na" + " " * n + "x\n---\n",
    "quotes": lambda n: "---\n" + '"' * n + "\n---\n",
    "colons": lambda n: "---\n" + "a:" * n + "\n---\n",
    "line breaks": lambda n: "\n" * n,
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_card_is_read_in_time_of_its_length(name):
    def seconds(length):
        text = TEXTS[name](length)
        clock = process_time()
        front, body = split_card(text)
        _segments(front)
        find_blocks(text)
        replace_blocks(body, {"a": "x"})
        return process_time() - clock

    # Four times as long: sixteen times the time, if it took the square.
    assert min(seconds(200_000) for _ in range(2)) < 8 * min(seconds(50_000) for _ in range(2)) + 0.05
