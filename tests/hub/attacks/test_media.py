"""A row may name any file or address: none is opened, asked or published that the user did not hand over."""

import builtins
import io
import json
import os
import socket
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Audio, Dataset, Features, Image, LargeList, List, Nifti, Pdf, Value, Video, concatenate_datasets
from datasets import features as feature_types
from pushing import REPO, push
from report_sample import make_record, make_selection

from im_datasets import load_selection, mine, verify
from im_datasets.cli.main import run
from im_datasets.common.errors import ColumnsError, HubError
from im_datasets.data.arrow import is_media, stored, write_parquet
from im_datasets.data.prepare import prepare, read_texts
from im_datasets.data.request import SourceRequest
from im_datasets.data.source import read_source
from im_datasets.hub.media import last_part
from im_datasets.hub.parquet_configs import write_data_files
from im_datasets.pipeline import score_files, select_files
from im_datasets.report.result_folder import describe_selection, load_result
from im_datasets.scoring.request import RunRequest, ScoringRequest
from im_datasets.selection.request import SelectionRequest

SECRET = b"-----BEGIN OPENSSH PRIVATE KEY----- of this machine"
NAMED = {"bytes": None, "path": "PATH"}
PLACES = {
    "image": (Image(), NAMED),
    "audio": (Audio(), NAMED),
    "video": (Video(), NAMED),
    "pdf": (Pdf(), NAMED),
    "nifti": (Nifti(), NAMED),
    "undecoded": (Image(decode=False), NAMED),
    "list": (List(Image()), [{"bytes": b"x", "path": None}, NAMED]),
    "large list": (LargeList(Image()), [NAMED]),
    "pair": (List(Image(), length=2), [NAMED, {"bytes": b"x", "path": None}]),
    "struct": ({"caption": Value("string"), "image": Image()}, {"caption": "c", "image": NAMED}),
    "turns": (
        List({"role": Value("string"), "content": List({"type": Value("string"), "image": Image()})}),
        [{"role": "user", "content": [{"type": "image", "image": NAMED}]}],
    ),
}
"""Where a row may name a file."""


def named(value, path):
    """The value with the path in its place."""
    if isinstance(value, dict):
        return {key: path if inner == "PATH" else named(inner, path) for key, inner in value.items()}
    return [named(inner, path) for inner in value] if isinstance(value, list) else value


def rows_of(features, rows):
    """A dataset written by somebody else: straight from Arrow, without the library's own checks."""
    features = Features(features)
    plain = pa.Table.from_pylist(rows, schema=stored(features).arrow_schema)
    return Dataset(plain.cast(features.arrow_schema).replace_schema_metadata(features.arrow_schema.metadata))


def with_column(feature, values, name="media", **options):
    """A selection whose kept rows have one more column."""
    selection = make_selection(len(values), len(values), unscorable=0, duplicates=0, **options)
    column = rows_of({name: feature}, [{name: value} for value in values])
    return replace(selection, kept=concatenate_datasets([selection.kept, column], axis=1))


def published(selection, folder, **options):
    """The kept rows as they would be published."""
    parts = write_data_files(selection, folder, **options)
    return parts, pq.read_table(folder / parts.configs["kept"].files[0])


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "home" / "id_ed25519"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def handed(tmp_path):
    """A folder that the user hands over."""
    folder = tmp_path / "handed"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "cat.png").write_bytes(b"a cat")
    return folder


def test_every_kind_of_media_is_known():
    """A kind that `datasets` adds is found by what it does; this fails where one is of another shape."""
    kinds = [kind for kind in vars(feature_types).values() if hasattr(kind, "embed_storage")]
    assert len(kinds) >= 8
    assert all(is_media(kind()) and kind.pa_type == Image.pa_type for kind in kinds)


@pytest.mark.parametrize("place", PLACES)
def test_a_file_that_a_row_names_is_refused_wherever_it_is_named(place, secret, handed, tmp_path):
    feature, value = PLACES[place]
    selection = with_column(feature, [named(value, str(secret))])
    dotted = {"struct": "media.image", "turns": "media.content.image"}.get(place, "media")
    for media_from in (None, handed):
        with pytest.raises(HubError) as caught:
            write_data_files(selection, tmp_path / "out", media_from=media_from)
        row = selection.kept["im_row"][0]
        assert str(caught.value).startswith(f"row {row} of kept: column '{dotted}' names {str(secret)!r} without its")
        assert "--media-from" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", PLACES)
def test_media_that_may_be_published_lie_inside_and_name_no_folder(place, handed, tmp_path):
    feature, value = PLACES[place]
    selection = with_column(feature, [named(value, str(handed / "images" / "cat.png")), None])
    _, table = published(selection, tmp_path / "out", media_from=handed)
    content = json.dumps(table["media"].to_pylist(), default=bytes.decode)
    assert '"a cat"' in content
    assert '"cat.png"' in content
    assert str(tmp_path) not in content
    assert Features.from_arrow_schema(table.schema)["media"] == selection.kept.features["media"]
    assert table["media"].to_pylist()[1] is None


@pytest.mark.parametrize("place", PLACES)
def test_dropped_media_are_null_and_counted(place, secret, tmp_path):
    feature, value = PLACES[place]
    selection = with_column(feature, [named(value, str(secret)), None])
    parts, table = published(selection, tmp_path / "out", drop_media=True)
    assert parts.dropped_media == 1
    content = json.dumps(table["media"].to_pylist(), default=bytes.decode)
    assert "PRIVATE" not in content
    assert secret.name not in content
    assert table.num_rows == 2


def at_link(secret, handed):
    (handed / "link.png").symlink_to(secret)
    return handed / "link.png"


def at_folder_link(secret, handed):
    (handed / "inside").symlink_to(secret.parent)
    return f"inside/{secret.name}"


def at_pipe(_, handed):
    os.mkfifo(handed / "pipe.png")
    return handed / "pipe.png"


def at_hidden(_, handed):
    (handed / ".git").mkdir()
    (handed / ".git" / "config").write_bytes(SECRET)
    return handed / ".git" / "config"


NOT_HANDED = {
    "absolute": lambda secret, _: secret,
    "climbing": lambda secret, _: f"images/../../home/{secret.name}",
    "a link": at_link,
    "a link of a folder": at_folder_link,
    "a pipe": at_pipe,
    "a hidden file": at_hidden,
    "a folder": lambda _, handed: handed / "images",
    "a device": lambda *_: "/dev/zero",
    "memory": lambda *_: "/proc/self/environ",
    "nothing": lambda *_: "no-such.png",
    "a zero byte": lambda secret, _: f"{secret}\0.png",
    "file://": lambda secret, _: f"file://{secret}",
    "local://": lambda secret, _: f"local://{secret}",
    "http://": lambda *_: "http://127.0.0.1:9/latest/meta-data",
    "https://": lambda *_: "https://127.0.0.1:9/x.png",
    "s3://": lambda *_: "s3://private/x.png",
    "chained": lambda *_: "zip://a.png::http://127.0.0.1:9/x.zip",
    "chained, local": lambda secret, _: f"simplecache::file://{secret}",
    "a private dataset": lambda *_: "hf://datasets/me/private@main/x.png",
    "a bucket": lambda *_: "hf://buckets/me/private/x.png",
}
"""What a row names → none of it is inside the folder that was handed over."""


@pytest.mark.parametrize("what", NOT_HANDED)
def test_what_is_not_inside_the_folder_is_refused(what, secret, handed, tmp_path, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it was asked for"))
    selection = with_column(Image(), [{"bytes": None, "path": str(NOT_HANDED[what](secret, handed))}])
    with pytest.raises(HubError, match=r"without its bytes, and that file was not handed over"):
        write_data_files(selection, tmp_path / "out", media_from=handed)


def test_bytes_in_a_row_are_enough_and_their_path_opens_nothing(secret, tmp_path):
    paths = [str(secret), "http://127.0.0.1:9/dog.png?key=hidden", "C:\\Users\\me\\cow.png", None]
    selection = with_column(Image(), [{"bytes": b"mine", "path": path} for path in paths])
    _, table = published(selection, tmp_path / "out")
    assert table["media"].to_pylist() == [
        {"bytes": b"mine", "path": path} for path in (secret.name, "dog.png", "cow.png", None)
    ]


def test_a_struct_of_ones_own_is_plain_data(secret, tmp_path):
    plain = {"bytes": Value("binary"), "path": Value("string")}
    selection = with_column(plain, [{"bytes": None, "path": str(secret)}])
    _, table = published(selection, tmp_path / "out")
    assert table["media"].to_pylist() == [{"bytes": None, "path": str(secret)}]


def test_every_config_is_looked_at(secret, tmp_path):
    selection = with_column(Image(), [{"bytes": b"x", "path": None}])
    column = rows_of({"media": Image()}, [{"media": {"bytes": None, "path": str(secret)}}] * len(selection.dropped))
    selection = make_selection(2, 1, unscorable=0, duplicates=0)
    column = rows_of({"media": Image()}, [{"media": {"bytes": None, "path": str(secret)}}])
    selection = replace(selection, dropped=concatenate_datasets([selection.dropped, column], axis=1))
    write_data_files(selection, tmp_path / "kept alone")
    with pytest.raises(HubError, match="of dropped: column 'media'"):
        write_data_files(selection, tmp_path / "both", include_dropped=True)


@pytest.mark.parametrize("media_from", ["no such folder", "me/data", "me/data@main", "me/data@abc"])
def test_media_from_is_a_folder_or_a_dataset_at_its_commit(media_from, tmp_path):
    with pytest.raises(HubError, match="neither a folder nor owner/name@commit"):
        write_data_files(make_selection(), tmp_path, media_from=media_from)


def test_files_of_the_hub_dataset_that_was_handed_over(hub, tmp_path):
    hub.store.put("me/pictures", {"a.png": b"a picture"})
    hub.store.create("dataset", "me/private", private=True)
    hub.store.put("me/private", {"a.png": SECRET})
    commit = hub.store.repos["dataset", "me/pictures"].commit_at("main").sha
    other = hub.store.repos["dataset", "me/private"].commit_at("main").sha
    given = {"media_from": f"me/pictures@{commit}"}
    selection = with_column(Image(), [{"bytes": None, "path": f"hf://datasets/me/pictures@{commit}/a.png"}])
    _, table = published(selection, tmp_path / "out", **given)
    assert table["media"].to_pylist() == [{"bytes": b"a picture", "path": "a.png"}]
    from huggingface_hub import hf_hub_download

    cached = hf_hub_download("me/pictures", "a.png", repo_type="dataset", revision=commit)
    _, table = published(with_column(Image(), [{"bytes": None, "path": cached}]), tmp_path / "cached", **given)
    assert table["media"].to_pylist() == [{"bytes": b"a picture", "path": "a.png"}]
    private = hf_hub_download("me/private", "a.png", repo_type="dataset", revision=other)
    for path in (
        f"hf://datasets/me/private@{other}/a.png",
        f"hf://datasets/me/pictures@{other}/a.png",
        "hf://datasets/me/pictures@main/a.png",
        f"hf://datasets/me/pictures@{commit}/../../private/a.png",
        f"hf://datasets/me/pictures@{commit}//etc/passwd",
        private,
        cached.replace(commit, f"{commit}/../{commit}/../../../datasets--me--private/snapshots/{other}"),
    ):
        with pytest.raises(HubError, match="was not handed over"):
            write_data_files(with_column(Image(), [{"bytes": None, "path": path}]), tmp_path / "no", **given)


def test_last_part_of_an_address_keeps_no_signature():
    assert last_part("https://x.org/a/b.png?token=1#x") == "b.png"
    assert last_part("/a/b/") == "b"
    assert last_part("what?.png") == "what?.png"


def test_push_says_what_was_left_out(hub, secret, capsys, quick_figures):
    from im_datasets.cli.printing import print_pushed

    selection = with_column(Image(), [{"bytes": None, "path": str(secret)}, {"bytes": b"mine", "path": "a.png"}])
    with pytest.raises(HubError, match="was not handed over"):
        push(selection)
    assert ("dataset", REPO) not in hub.store.repos
    pushed = push(selection, drop_media=True)
    assert pushed.dropped_media == 1
    print_pushed(pushed)
    assert "Left out 1 images, sounds or the like" in capsys.readouterr().out
    everything = b"".join(hub.store.read(REPO, path) for path in hub.store.paths(REPO))
    assert SECRET not in everything
    assert b"mine" in everything


# Every stage over rows that name a secret, a pipe that would hang whoever opens it, and an address.

QUESTIONS = [
    ("What is the capital of Italy?", "The capital of Italy is Rome."),
    ("Name three primary colours.", "Red, yellow and blue are the primary colours."),
    ("How do bees make honey?", "Bees gather nectar and thicken it into honey inside the hive."),
    ("Why is the sky blue?", "Air scatters the blue part of sunlight more than the red part."),
    ("What does a thermometer measure?", "A thermometer measures temperature."),
]
MEDIA = {
    "image": Image(),
    "audio": Audio(),
    "video": Video(),
    "pdf": Pdf(),
    "messages": List(
        {"role": Value("string"), "content": List({"type": Value("string"), "text": Value("string"), "image": Image()})}
    ),
}


def hostile_rows(paths):
    """Rows with media of every kind; who converses does so with pictures in between."""
    rows = []
    for number, (question, answer) in enumerate(QUESTIONS):
        media = {"bytes": None, "path": paths[number % len(paths)]}
        parts = [{"type": "text", "text": question, "image": media}]
        turns = [{"role": "user", "content": parts}]
        turns.append({"role": "assistant", "content": [{"type": "text", "text": answer, "image": media}]})
        rows.append(dict.fromkeys(("image", "audio", "video", "pdf"), media) | {"messages": turns})
    return rows_of(MEDIA, rows)


def refusing(connect, forbidden):
    """``connect`` that fails at once for an address among those planted, instead of waiting for its answer."""

    def refuse(self, address):
        assert not any(str(address[-1]) in each for each in forbidden if "http" in each), address
        return connect(self, address)

    return refuse


@contextmanager
def spied(monkeypatch, forbidden):
    """Fail whatever opens or asks for one of the planted names."""

    def is_planted(name):
        text = os.fsdecode(name) if isinstance(name, bytes | os.PathLike) else name
        return isinstance(text, str) and any(each in text for each in forbidden)

    def guard(original):
        def guarded(place, *arguments, **options):
            assert not is_planted(place), f"{original} was asked for {place}"
            return original(place, *arguments, **options)

        return guarded

    import PIL.Image

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", guard(builtins.open))
        patch.setattr(io, "open", guard(io.open))
        patch.setattr(os, "open", guard(os.open))
        patch.setattr(fsspec, "open", guard(fsspec.open))
        patch.setattr(fsspec.core, "url_to_fs", guard(fsspec.core.url_to_fs))
        patch.setattr(socket.socket, "connect", refusing(socket.socket.connect, forbidden))
        patch.setattr(PIL.Image, "open", lambda *_: pytest.fail("an image was decoded"))
        for kind in vars(feature_types).values():
            if hasattr(kind, "embed_storage"):
                patch.setattr(kind, "decode_example", lambda *_, **__: pytest.fail("media were decoded"))
                patch.setattr(kind, "embed_storage", lambda *_, **__: pytest.fail("media were embedded"))
        yield


@pytest.fixture
def planted(tmp_path, secret):
    """What hostile rows name: a secret, a pipe and an address of this machine, which hears of no connection."""
    os.mkfifo(tmp_path / "home" / "pipe")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/x.png"
        yield [str(secret), str(tmp_path / "home" / "pipe"), address, f"zip://x.png::{address}"]
        with pytest.raises(BlockingIOError):
            listening.accept()


@pytest.mark.parametrize("kind", ["file", "folder", "saved", "stream", "dataset"])
def test_no_kind_of_source_is_opened_further_than_its_own_files(kind, planted, tmp_path, monkeypatch):
    rows, place = hostile_rows(planted), tmp_path / "source"
    if kind == "saved":
        Dataset(rows.data.table.replace_schema_metadata(None)).save_to_disk(place)
        info = json.loads((place / "dataset_info.json").read_text())
        (place / "dataset_info.json").write_text(json.dumps(info | {"features": rows.features.to_dict()}))
    else:
        place.mkdir()
        pq.write_table(rows.data.table, place / "rows.parquet")
    data = {"file": place / "rows.parquet", "stream": place / "rows.parquet", "dataset": rows}.get(kind, place)
    with spied(monkeypatch, [*planted, "id_ed25519", "home/pipe"]):
        source = read_source(SourceRequest(data, streaming=kind == "stream"))
        expanded, columns = prepare(source.dataset, every_turn=True)
        assert read_texts(expanded, columns)[:]
        write_parquet(expanded, tmp_path / "out.parquet")
    assert source.dataset.features == rows.features
    assert source.dataset.data.table.to_pylist() == rows.data.table.to_pylist()


def test_mine_opens_nothing_that_a_row_names(planted, tmp_path, monkeypatch):
    pq.write_table(hostile_rows(planted).data.table, tmp_path / "rows.parquet")
    with spied(monkeypatch, [*planted, "id_ed25519", "home/pipe"]):
        mined = mine(tmp_path / "rows.parquet", tmp_path / "out", top_k=2, progress=False)
        again = load_result(tmp_path / "out")
        assert {check.name for check in verify(tmp_path / "out", sample=4).checks} >= {"sample"}
    assert not mined.record.unscorable
    for kept in (mined.selection.kept, again.kept):
        assert {name: kept.features[name] for name in MEDIA} == MEDIA
    assert not any(path in (tmp_path / "out" / "report.html").read_text() for path in planted)


def test_score_select_push_and_verify_open_nothing_that_a_row_names(
    planted, tmp_path, monkeypatch, hub, capsys, quick_figures
):
    pq.write_table(hostile_rows(planted).data.table, tmp_path / "rows.parquet")
    with spied(monkeypatch, [*planted, "id_ed25519", "home/pipe"]):
        scoring = ScoringRequest(SourceRequest(tmp_path / "rows.parquet"), "embedded")
        score_files(scoring, tmp_path / "scored", RunRequest(progress=False))
        asked = SelectionRequest(top_k=2, near_duplicates=0.99, exclude_contaminated=["Name a fruit."])
        selected = select_files(tmp_path / "scored", tmp_path / "out", asked, run=RunRequest(progress=False))
        with pytest.raises(HubError, match=r"names .* without its bytes"):
            push(selected.selection, report=True)
        pushed = push(selected.selection, drop_media=True, include_dropped=True, report=True)
        assert pushed.dropped_media == (4 + 2) * len(QUESTIONS)
        checks = verify(REPO, sample=4).checks
        assert "failed" not in {check.outcome for check in checks if check.name in ("files", "sample", "loading")}
        selection = load_selection(REPO)
        assert selection.kept.features["image"] == Image()
        assert run(["select", str(tmp_path / "scored"), "--out", str(tmp_path / "again"), "--top-k", "2"]) == 0
    assert "Kept 2 of 5 rows" in capsys.readouterr().out


def test_our_own_columns_hold_no_media(secret, tmp_path):
    selection = with_column(Image(), [{"bytes": None, "path": str(secret)}], name="im_extra")
    write_data_files(selection, tmp_path, drop_media=True)
    place = tmp_path / "kept.parquet"
    pq.write_table(pq.read_table(next(tmp_path.glob("kept/*.parquet"))), place)
    pq.write_table(selection.dropped.data.table, tmp_path / "dropped.parquet")
    record = make_record(selection=describe_selection(selection))
    (tmp_path / "record.json").write_text(record.to_json())
    with pytest.raises(HubError, match=r"column im_extra of kept holds Image.*, not numbers or texts"):
        load_selection(tmp_path)


@pytest.mark.parametrize("feature", [Image(), List(Image()), Audio()])
def test_a_column_of_media_is_no_instruction(feature, secret, tmp_path):
    value = {"bytes": None, "path": str(secret)}
    value = [value] if isinstance(feature, List) else value
    rows = rows_of({"instruction": feature, "output": Value("string")}, [{"instruction": value, "output": "x"}])
    with pytest.raises(ColumnsError, match=r"column 'instruction' holds .*, not text; name columns of text"):
        mine(rows, tmp_path / "out", top_k=1, progress=False)


def test_who_mines_a_folder_hands_it_over_and_who_mines_a_file_does_not(secret, tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "cat.png").write_bytes(b"a cat")
    pictures = [{"image": {"bytes": None, "path": "cat.png"}, "instruction": q, "output": a} for q, a in QUESTIONS]
    shape = {"image": Image(), "instruction": Value("string"), "output": Value("string")}
    pq.write_table(rows_of(shape, pictures).data.table, folder / "rows.parquet")
    options = {"top_k": 2, "progress": False}
    mined = mine(folder, tmp_path / "a", **options)
    for selection in (mined.selection, mine(folder, tmp_path / "a", **options).selection):
        _, table = published(selection, tmp_path / "out")
        assert table["image"].to_pylist() == [{"bytes": b"a cat", "path": "cat.png"}] * 2
    written = [path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert not any(str(folder).encode() in content for content in written)
    for selection in (
        mine(folder / "rows.parquet", tmp_path / "b", **options).selection,
        load_result(Path(tmp_path / "a")),
        replace(mined.selection, media_from=str(secret.parent)),
    ):
        with pytest.raises(HubError, match="was not handed over"):
            write_data_files(selection, tmp_path / "no")
