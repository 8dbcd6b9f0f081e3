"""A source of a stranger's, on the Hub or in a folder: it leads nowhere beyond itself, and says so in one line."""

import json
import os
import re
import shutil
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset, DatasetDict, Features, Image, Value

from im_datasets.common.errors import ImDatasetsError, SourceError
from im_datasets.data.source import load_source

ROWS = [{"instruction": f"What is {n}?", "output": f"The number {n}."} for n in range(4)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
SECRET = json.dumps({"instruction": "ssh", "output": "PRIVATE KEY"})
EVIL = "me/evil"


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Of its own for each test: `datasets` falls back on what it has of a repository."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def secret(tmp_path):
    """A file that nobody handed over, which would be read as rows."""
    path = tmp_path / "home" / "private.jsonl"
    path.parent.mkdir()
    path.write_text(SECRET + "\n")
    return path


@pytest.fixture
def address():
    """A web server of a stranger's, which hears of no connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(BlockingIOError):
            listening.accept()


def card(*configs, **fields):
    return ("---\n" + yaml.safe_dump({"configs": list(configs), **fields}) + "---\n# Rows\n").encode()


def put(hub, files):
    files = {path: content if isinstance(content, bytes) else content.encode() for path, content in files.items()}
    return hub.store.put(EVIL, {"rows.jsonl": LINES.encode(), **files})


def told_of(call):
    with pytest.raises(ImDatasetsError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 1000
    return text


PLACES = {
    "absolute": "{secret}",
    "climbing": "../../../../../../{secret}",
    "climbing within": "data/../../private/rows.jsonl",
    "home": "~/private.jsonl",
    "file://": "file://{secret}",
    "local://": "local://{secret}",
    "http://": "{address}/rows.jsonl",
    "s3://": "s3://bucket/rows.jsonl",
    "another repository": "hf://datasets/me/private/rows.jsonl",
    "another repository's address": "{hub}/datasets/me/private/resolve/main/rows.jsonl",
    "chained": "zip://rows.jsonl::{address}/rows.zip",
    "chained, local": "simplecache::file://{secret}",
    "chained, within": "zip://rows.jsonl::rows.zip",
    "backslashes": "..\\..\\private.jsonl",
}
WAYS = {
    "data_files": lambda place: {"data_files": place},
    "list": lambda place: {"data_files": ["rows.jsonl", place]},
    "splits": lambda place: {"data_files": [{"split": "train", "path": place}]},
    "splits of lists": lambda place: {"data_files": [{"split": "train", "path": ["rows.jsonl", place]}]},
    "data_dir": lambda place: {"data_dir": place},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_config_that_points_out_of_its_repository_is_refused(place, streaming, hub, secret, address):
    hub.store.create("dataset", "me/private", private=True)
    hub.store.put("me/private", {"rows.jsonl": SECRET.encode()})
    place = PLACES[place].format(secret=secret, address=address, hub=hub.endpoint)
    put(hub, {"README.md": card({"config_name": "default", **WAYS["data_files"](place)})})
    told = told_of(lambda: load_source(EVIL, streaming=streaming))
    assert "names data outside of its repository" in told
    assert place[:60] in told or "\\" in place
    assert not [call for call in hub.calls("GET") + hub.calls("HEAD") if "private" in call.path]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("file", ["README.md", ".huggingface.yaml"])
def test_whichever_field_of_whichever_file_says_so(way, file, hub, address):
    fields = {"configs": [{"config_name": "default", **WAYS[way](f"{address}/rows.jsonl")}]}
    text = yaml.safe_dump(fields)
    put(hub, {file: text if file != "README.md" else f"---\n{text}---\n"})
    assert "names data outside of its repository" in told_of(lambda: load_source(EVIL))


def test_another_config_of_such_a_repository_can_still_be_read(hub, address):
    good = {"config_name": "good", "data_files": "rows.jsonl"}
    bad = {"config_name": "bad", "data_files": f"{address}/x.jsonl"}
    put(hub, {"README.md": card(good, bad)})
    assert load_source(EVIL, config="good").dataset.to_list() == ROWS
    assert "'bad'" in told_of(lambda: load_source(EVIL, config="bad"))
    # The first one is what datasets looks at to choose a loader.
    put(hub, {"README.md": card(bad, good)})
    assert "'bad'" in told_of(lambda: load_source(EVIL, config="good"))


def test_honest_configs_are_read_as_before(hub):
    splits = [{"split": "train", "path": ["rows.jsonl", "data/*.jsonl"]}]
    commit = put(hub, {"data/a.jsonl": LINES, "README.md": card({"config_name": "default", "data_files": splits})})
    source = load_source(EVIL)
    assert source.dataset.to_list() == ROWS * 2
    assert source.info["revision"] == commit.sha
    assert source.media_from == f"{EVIL}@{commit.sha}"
    put(hub, {"README.md": card({"config_name": "default", "data_dir": "data"})})
    assert load_source(EVIL).dataset.to_list() == ROWS


BOMBS = {
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)),
    "depth": "a: " + "[" * 5000 + "]" * 5000,
    "no YAML": "a: [",
    "code": "a: !!python/object/apply:os.system ['true']",
    "size": "a: " + "x" * 5_000_000,
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("file", ["README.md", ".huggingface.yaml"])
def test_settings_that_are_too_much_are_one_line(bomb, file, hub):
    text = BOMBS[bomb] if file != "README.md" else f"---\n{BOMBS[bomb]}\n---\n"
    put(hub, {file: text})
    assert re.search(r"of me/evil (is|has|stands)", told_of(lambda: load_source(EVIL)))


ODD = {
    "infos of another kind": {"dataset_infos.json": "[1]"},
    "infos that are no JSON": {"dataset_infos.json": "{"},
    "infos of a class": {"dataset_infos.json": json.dumps({"default": {"features": {"a": {"_type": "Features"}}}})},
    "deep infos": {"dataset_infos.json": "[" * 5000 + "]" * 5000},
    "configs that are none": {"README.md": card("x")},
    "a config that is a list": {"README.md": card([1])},
    "features of no kind": {"README.md": card({"config_name": "a", "data_files": "rows.jsonl", "features": 5})},
    "a card that is no UTF-8": {"README.md": b"---\na: \xff\n---\n"},
    "a script": {"evil.py": "import os\nos.system('touch /tmp/im-datasets-was-here')"},
    "HDF5": {"rows.jsonl": "", "a.h5": b"x", "b.h5": b"x"},
}


@pytest.mark.parametrize("odd", ODD)
def test_whatever_else_a_repository_says_is_one_line(odd, hub):
    put(hub, ODD[odd])
    told = told_of(lambda: load_source(EVIL))
    if odd == "a script":
        assert "evil.py of me/evil is a program to load it with, which is never run" in told
    if odd == "HDF5":
        assert "read by the loader hdf5" in told
    assert not Path("/tmp/im-datasets-was-here").exists()


@pytest.mark.parametrize("odd", ["a script", "features of no kind", "infos of another kind"])
def test_an_older_commit_in_the_cache_is_not_taken_for_what_was_asked(odd, hub):
    put(hub, {})
    assert load_source(EVIL).dataset.to_list() == ROWS
    put(hub, ODD[odd])
    assert told_of(lambda: load_source(EVIL))


@pytest.mark.parametrize("place", ["file", "folder", "hub"])
def test_parquet_that_would_come_to_gigabytes_is_not_read(place, hub, tmp_path):
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 60_000, pa.int32()), pa.array(["x" * 10_000]))
    file = tmp_path / "rows" / "train.parquet"
    file.parent.mkdir()
    pq.write_table(pa.table({"instruction": text, "output": text}), file)
    source = {"file": file, "folder": file.parent, "hub": EVIL}[place]
    if place == "hub":
        put(hub, {"train.parquet": file.read_bytes()})
        hub.store.put(EVIL, {"rows.jsonl": None})
    assert "would come to more than 26" in told_of(lambda: load_source(source))


def test_honest_parquet_of_the_hub_is_fetched_once(hub, tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    put(hub, {"data/train.parquet": (tmp_path / "rows.parquet").read_bytes()})
    hub.store.put(EVIL, {"rows.jsonl": None})
    assert load_source(EVIL).dataset["output"][:] == [row["output"] for row in ROWS]
    assert len([call for call in hub.calls("GET") if call.path.startswith("/storage/")]) == 1


def test_a_repository_with_pictures_is_mined_without_opening_them(hub, secret, tmp_path):
    """Texts in metadata beside the pictures; a picture that is none would fail whoever opened it."""
    metadata = [{"file_name": f"{n}.png", **row} for n, row in enumerate(ROWS)]
    files = {f"{n}.png": b"no picture" for n in range(len(ROWS))}
    files["metadata.jsonl"] = "".join(json.dumps(row) + "\n" for row in metadata)
    put(hub, {"rows.jsonl": "", **files})
    hub.store.put(EVIL, {"rows.jsonl": None})
    for streaming in (False, True):
        source = load_source(EVIL, streaming=streaming)
        assert source.dataset.features["image"] == Image()
        assert source.dataset["output"][:] == [row["output"] for row in ROWS]
    metadata[0]["file_name"] = str(secret)
    put(hub, {"metadata.jsonl": "".join(json.dumps(row) + "\n" for row in metadata)})
    hub.store.put(EVIL, {"rows.jsonl": None})
    assert "cannot load me/evil from the Hub" in told_of(lambda: load_source(EVIL))


def as_link(secret, folder):
    (folder / "rows.jsonl").symlink_to(secret)


def as_climbing_link(secret, folder):
    (folder / "rows.jsonl").symlink_to(os.path.relpath(secret, folder))


def as_link_to_nothing(_, folder):
    (folder / "rows.jsonl").symlink_to(folder / "gone.jsonl")


def as_endless_link(_, folder):
    (folder / "rows.jsonl").symlink_to(folder / "rows.jsonl")


def as_pipe(_, folder):
    os.mkfifo(folder / "rows.jsonl")


def as_socket(_, folder):
    with socket.socket(socket.AF_UNIX) as made, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made.bind("rows.jsonl")


FOLDERS = {
    as_link: "leads out of the folder .*, and is not followed; pass that file by its own path",
    as_climbing_link: "leads out of the folder",
    as_link_to_nothing: "leads nowhere",
    as_endless_link: "leads nowhere",
    as_pipe: "no plain file, and is not opened",
    as_socket: "no plain file, and is not opened",
}


@pytest.mark.parametrize("way", FOLDERS, ids=lambda way: way.__name__)
def test_a_folder_gives_the_files_that_lie_in_it(way, secret, tmp_path):
    folder = tmp_path / "given"
    (folder / "data").mkdir(parents=True)
    way(secret, folder / "data")
    for data in (folder, folder / "data" / "*.jsonl", folder / "**" / "*.jsonl"):
        assert re.search(FOLDERS[way], told_of(lambda data=data: load_source(data)))
    if way in (as_pipe, as_socket):
        assert "no plain file" in told_of(lambda: load_source(folder / "data" / "rows.jsonl"))
    if way in (as_link, as_climbing_link):
        # Its own path was handed over by who writes it.
        assert load_source(folder / "data" / "rows.jsonl").dataset["output"][:] == ["PRIVATE KEY"]


def test_a_linked_folder_is_not_walked_into(secret, tmp_path):
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "more").symlink_to(secret.parent)
    assert "no data files in the folder" in told_of(lambda: load_source(folder))
    assert "leads out of the folder" in told_of(lambda: load_source(folder / "*" / "*.jsonl"))


def test_a_snapshot_in_the_cache_of_the_hub_is_a_folder_like_others(hub, secret):
    from huggingface_hub import snapshot_download

    put(hub, {"data/more.jsonl": LINES})
    folder = Path(snapshot_download(EVIL, repo_type="dataset"))
    assert (folder / "rows.jsonl").is_symlink()
    assert load_source(folder).dataset.to_list() == ROWS * 2
    assert load_source(folder / "data").dataset.to_list() == ROWS
    (folder / "data" / "evil.jsonl").symlink_to(secret)
    assert "leads out of the folder" in told_of(lambda: load_source(folder))


def test_a_saved_dataset_in_the_cache_of_the_hub_is_one_like_others(tmp_path):
    copy, cached = tmp_path / "copy", tmp_path / "datasets--a--b" / "snapshots" / ("a" * 40)
    DatasetDict(train=Dataset.from_list(ROWS)).save_to_disk(copy)
    blobs = cached.parent.parent / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(file for file in copy.rglob("*") if file.is_file()):
        link = cached / file.relative_to(copy)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blobs / str(number))
        link.symlink_to(blobs / str(number))
    sources = [load_source(place) for place in (cached, copy)]
    assert [source.dataset.to_list() for source in sources] == [ROWS, ROWS]
    # Not the names of the blobs: a copy elsewhere is the same source.
    for fact in ("files", "fingerprint"):
        assert sources[0].info[fact] == sources[1].info[fact]


@pytest.fixture
def saved(tmp_path):
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def edited(folder, name, **changes):
    data = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(data | changes))


@pytest.mark.parametrize("way", ["absolute", "climbing", "link", "address", "hidden scheme"])
def test_a_saved_dataset_is_made_of_its_own_files(way, saved, tmp_path, address):
    Dataset.from_list([json.loads(SECRET)]).save_to_disk(tmp_path / "home")
    (private,) = (tmp_path / "home").glob("*.arrow")
    names = {
        "absolute": str(private),
        "climbing": f"../home/{private.name}",
        "link": "link.arrow",
        "address": f"{address}/x.arrow",
        "hidden scheme": f"file://{private}",
    }
    (saved / "link.arrow").symlink_to(private)
    edited(saved, "state.json", _data_files=[{"filename": names[way]}])
    assert re.search("cannot read the saved dataset saved: .* leads out of", told_of(lambda: load_source(saved)))


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
def test_what_describes_a_saved_dataset_is_a_file_of_it(name, saved, tmp_path):
    (saved / name).rename(tmp_path / name)
    (saved / name).symlink_to(tmp_path / name)
    assert "leads out of" in told_of(lambda: load_source(saved))


@pytest.mark.parametrize("split", ["../home", "/etc", "link", ".", "a/b", "train\n# passed"])
def test_a_split_is_a_folder_of_its_own(split, tmp_path):
    folder = tmp_path / "two"
    DatasetDict(train=Dataset.from_list(ROWS)).save_to_disk(folder)
    Dataset.from_list([json.loads(SECRET)]).save_to_disk(tmp_path / "home")
    (folder / "link").symlink_to(tmp_path / "home")
    edited(folder, "dataset_dict.json", splits=["train", split])
    assert load_source(tmp_path / "home").info["rows"] == 1
    assert told_of(lambda: load_source(folder, split=split))


@pytest.mark.parametrize(
    "change",
    [
        {"_format_type": "tensorflow"},
        {"_format_type": "torch", "_format_kwargs": {"device": "cuda:9"}},
        {"_format_type": "custom", "_format_kwargs": {"transform": "os.system"}},
        {"_format_type": 5, "_format_columns": ["gone"]},
        {"_fingerprint": "0000000000000000"},
    ],
)
def test_neither_a_format_nor_a_fingerprint_is_taken_over(change, saved):
    edited(saved, "state.json", **change)
    rows = load_source(saved).dataset
    assert rows.to_list() == ROWS
    assert rows.format["type"] is None
    assert rows._fingerprint != "0000000000000000"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.json", "[]"),
        ("state.json", "{"),
        ("state.json", "{}"),
        ("state.json", '{"_data_files": 5}'),
        ("state.json", '{"_data_files": [{"filename": 5}]}'),
        ("state.json", "[" * 5000 + "]" * 5000),
        ("dataset_info.json", "[]"),
        ("dataset_info.json", '{"features": {"instruction": {"_type": "Features"}}}'),
        ("dataset_info.json", '{"features": {"instruction": {"_type": "os"}}}'),
        ("dataset_info.json", '{"features": 5}'),
        ("dataset_info.json", '{"splits": 5}'),
        ("dataset_info.json", b"\xff"),
        ("data-00000-of-00001.arrow", b"ARROW1"),
    ],
)
def test_a_saved_dataset_that_is_none_is_one_line(name, content, saved):
    (saved / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert "cannot read the saved dataset saved" in told_of(lambda: load_source(saved))


def test_classes_named_in_a_file_are_not_read(saved, secret):
    """A class label may name a file of its names, and these would stand on the published card."""
    label = {"instruction": {"_type": "ClassLabel", "names_file": str(secret)}, "output": {"_type": "Value"}}
    edited(saved, "dataset_info.json", features=label)
    assert "PRIVATE" not in told_of(lambda: load_source(saved))
    schema = pa.schema({"instruction": pa.int64(), "output": pa.string()})
    shape = Features({"instruction": Value("int64"), "output": Value("string")}).to_dict() | label
    metadata = {"huggingface": json.dumps({"info": {"features": shape}})}
    table = pa.table({"instruction": [1], "output": ["x"]}, schema=schema.with_metadata(metadata))
    pa.parquet.write_table(table, saved.parent / "rows.parquet")
    with pytest.raises(SourceError, match="num_classes, names or names_file"):
        load_source(saved.parent / "rows.parquet")
