"""Files of a stranger's that would end, hang or fill the process that reads them: refused in one line, or read."""

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from im_datasets.common.errors import ImDatasetsError, SourceError
from im_datasets.data.prepare import prepare
from im_datasets.data.source import load_source

ROW = '{"instruction": "a", "output": "b"}\n'
WIDE_CSV = ",".join(["instruction", "output", *map(str, range(20_000))]) + "\na,b" + ",1" * 20_000 + "\n"
WIDE_JSON = ROW + json.dumps(dict.fromkeys(map(str, range(20_000)), 1)) + "\n"
NOT_UTF8 = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.py_buffer(struct.pack("<ii", 0, 2)), pa.py_buffer(b"\xff\xfe")]
)


def row(value):
    """A good row, and one that holds this as JSON."""
    return f'{ROW}{{"instruction": {value}, "output": "b"}}\n'


def parquet(columns, names=("instruction", "output"), cut=0, **metadata):
    sink = pa.BufferOutputStream()
    table = pa.table([pa.array(column) for column in columns], names=names)
    pq.write_table(table.replace_schema_metadata(metadata or None), sink)
    content = sink.getvalue().to_pybytes()
    return content[:-cut] if cut else content


def features(**kinds):
    return json.dumps({"info": {"features": {name: {"_type": kind} for name, kind in kinds.items()}}})


TEXTS = [["a"], ["b"]]
FOOTER = parquet(TEXTS)[:-8]
BOMB = b'{"instruction": "' + b"a" * 2**27 + b'", "output": "b"}\n'
REFUSED = {
    "deep arrays": ("rows.jsonl", row("[" * 20_000 + "]" * 20_000), "line 2 of rows.jsonl is nested too deeply"),
    "deep objects": ("rows.jsonl", row('{"a":' * 20_000 + "1" + "}" * 20_000), "line 2 .* nested too deeply"),
    "deep behind brackets in texts": ("rows.jsonl", row('{"}":' * 20_000 + "1" + "}" * 20_000), "nested too deeply"),
    "deep over lines": ("rows.jsonl", '{"}}":\n' * 20_000 + "1" + "}" * 20_000, "nested too deeply"),
    "deep without end": ("rows.json", "[" * 100_000, "line 1 of rows.json is nested too deeply"),
    "null": ("rows.json", "null", "line 1 of rows.json is null; each row must be an object"),
    "null behind a byte order mark": ("rows.jsonl", f"\ufeff \tnull\n{ROW}", "line 1 of rows.jsonl is null"),
    "null below a row": ("rows.jsonl", f"{ROW}null\n", "line 2 of rows.jsonl is null"),
    "a number of 5,000 digits": ("rows.jsonl", row("1" * 5000), "line 2 of rows.jsonl holds a number with more digits"),
    "such a number in an array": ("rows.json", f'[{{"output": {"1" * 5000}}}]', "rows.json holds a number with more"),
    "no UTF-8": ("rows.jsonl", b'{"instruction": "\xff", "output": "b"}\n', "line 1 of rows.jsonl is not UTF-8"),
    "UTF-16": ("rows.jsonl", ROW.encode("utf-16"), "line 1 of rows.jsonl is not UTF-8"),
    "no UTF-8 in CSV": ("rows.csv", b"instruction,output\n\xff,b\n", "line 2 of rows.csv is not UTF-8"),
    "no UTF-8 in Parquet": ("rows.parquet", parquet([NOT_UTF8, ["b"]]), "column 'instruction' holds what is no UTF-8"),
    "a bomb in gzip": ("rows.jsonl.gz", gzip.compress(BOMB * 3), "unfolds to more than 268,435,456 bytes"),
    "a bomb in bzip2": ("rows.jsonl.bz2", bz2.compress(BOMB[: 2**24]) * 20, "unfolds to more than 268,435,456 bytes"),
    "a bomb in xz": ("rows.csv.xz", lzma.compress(BOMB[: 2**24], preset=0) * 20, "unfolds to more than 268,435,456"),
    "more columns than anybody reads, CSV": (
        "rows.csv",
        WIDE_CSV,
        r"rows.csv has 20,002 columns; more than 10,000 are not",
    ),
    "more columns than anybody reads, JSON": (
        "rows.jsonl",
        WIDE_JSON,
        "rows.jsonl has 20,000 columns; more than 10,000",
    ),
    "half a gzip": (
        "rows.jsonl.gz",
        gzip.compress(ROW.encode())[:-6],
        "cannot read rows.jsonl.gz: Compressed file ended",
    ),
    "no gzip": ("rows.jsonl.gz", ROW, "cannot read rows.jsonl.gz: Not a gzipped file"),
    "a footer of two gigabytes": ("rows.parquet", FOOTER + struct.pack("<I", 2**31 - 1) + b"PAR1", "cannot read rows"),
    "a footer beyond the file": ("rows.parquet", b"PAR1PAR1", "cannot read rows.parquet"),
    "half a footer": ("rows.parquet", FOOTER[:-30] + parquet(TEXTS)[-8:], "cannot read rows.parquet"),
    "half a file": ("rows.parquet", parquet(TEXTS, cut=300), "cannot read rows.parquet"),
    "a column twice": (
        "rows.parquet",
        parquet([*TEXTS, ["c"]], ("instruction", "output", "output")),
        "cannot read rows",
    ),
    "a name with NUL": (
        "rows.parquet",
        parquet([*TEXTS, ["c"]], ("instruction", "output", "x\0y")),
        "cannot read rows",
    ),
    "metadata that is no JSON": ("rows.parquet", parquet(TEXTS, huggingface="{"), "into rows.parquet is not JSON"),
    "metadata of another kind": ("rows.parquet", parquet(TEXTS, huggingface='{"info": 5}'), "cannot read rows.parquet"),
    "a feature that is not there": (
        "rows.parquet",
        parquet(TEXTS, huggingface=features(instruction="Evil", output="Evil")),
        "cannot read rows.parquet: Feature type 'Evil' not found",
    ),
}
REPEATED = parquet([pa.array(["a" * 1000] * 100_000).dictionary_encode()] * 2)
READ = {
    "numbers beyond all": ("rows.jsonl", row("1e99999"), 2),
    "no numbers": ("rows.jsonl", '{"instruction": NaN, "output": -Infinity}\n', 1),
    "900 levels": ("rows.jsonl", row("[" * 900 + "]" * 900), 2),
    "lists of null": ("rows.json", '[\n{"output": "b", "instruction": [\nnull,\nnull\n]\n}\n]', 1),
    "a conversation of 20,000 turns": ("rows.jsonl", row(json.dumps([{"a": 1}] * 20_000)), 2),
    "20,000 colons in a text": ("rows.jsonl", row(json.dumps(":" * 20_000)), 2),
    "brackets in texts": ("rows.json", json.dumps([{"instruction": "{[" * 5000, "output": '\\"}' * 9}]), 1),
    "columns of every kind": ("rows.jsonl", f'{ROW}{{"instruction": {{"a": 1}}, "output": ["b"]}}\n', 2),
    "fields of megabytes": ("rows.csv", f'instruction,output\n"{"x" * 2**22}",b\n', 1),
    "no end of quotes": ("rows.csv", "instruction,output\n" + '"a,b\n' * 100, 50),
    "NUL in CSV": ("rows.csv", "instruction,output\na\0,b\n\0,\0\n", 2),
}


def pairs_of(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    dataset, columns = prepare(load_source(str(path)).dataset)
    return columns.pairs(dataset[:])


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path, case):
    name, content, told = REFUSED[case]
    with pytest.raises(ImDatasetsError, match=told) as caught:
        pairs_of(tmp_path, name, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", READ)
def test_an_odd_file_is_read(tmp_path, case):
    name, content, rows = READ[case]
    assert len(pairs_of(tmp_path, name, content)) == rows


def zipped(**files):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"{name}.jsonl", content)
    return sink.getvalue()


def tarred(content):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        member = tarfile.TarInfo("a.jsonl")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return sink.getvalue()


def card(**config):
    return f"---\nconfigs:\n- {json.dumps({'config_name': 'default', **config})}\n---\n".encode()


def features_of(kind):
    texts = [{"name": name, "dtype": "string"} for name in ("instruction", "output")]
    fields = {"dataset_info": {"features": [*texts, {"name": "x", **kind}]}}
    return f"---\n{json.dumps(fields)}\n---\n".encode()


DEEP = row("[" * 20_000 + "]" * 20_000).encode()
SMALL_BOMB = BOMB[: 2**22]
ON_THE_HUB = {
    "deep": ({"rows.jsonl": DEEP}, "line 2 of rows.jsonl of me/evil is nested too deeply"),
    "null": ({"rows.json": b"null"}, "line 1 of rows.json of me/evil is null"),
    "null above rows": ({"rows.jsonl": b"null\n" + ROW.encode()}, "line 1 of rows.jsonl of me/evil is null"),
    "deep in gzip": ({"rows.jsonl.gz": gzip.compress(DEEP)}, "line 2 of rows.jsonl.gz of me/evil is nested"),
    "gzip by its bytes alone": ({"rows.json": gzip.compress(DEEP)}, "line 2 of rows.json of me/evil is nested"),
    "null in zip": ({"rows.zip": zipped(a=ROW, b="null")}, "line 1 of 'b.jsonl' in rows.zip of me/evil is null"),
    "null in tar": ({"rows.json": tarred(b"null")}, "line 1 of 'a.jsonl' in rows.json of me/evil is null"),
    "a bomb in gzip": ({"rows.csv.gz": gzip.compress(SMALL_BOMB)}, "rows.csv.gz of me/evil unfolds to more than 1,04"),
    "a bomb in zip": ({"rows.zip": zipped(a=SMALL_BOMB)}, "rows.zip of me/evil unfolds to more than 1,048,576 bytes"),
    "a bomb in tar": ({"rows.json": tarred(SMALL_BOMB)}, "rows.json of me/evil unfolds to more than 1,048,576 bytes"),
    "more columns than anybody reads, CSV": ({"rows.csv": WIDE_CSV.encode()}, "rows.csv of me/evil has 20,002 columns"),
    "more columns than anybody reads, JSON": (
        {"rows.jsonl": WIDE_JSON.encode()},
        "rows.jsonl of me/evil has 20,000 columns",
    ),
    "more columns than anybody reads, apart by spaces": (
        {"rows.csv": WIDE_CSV.replace(",", "  ").encode(), "README.md": card(data_files="rows.csv", sep="\\s+")},
        "rows.csv of me/evil has 20,002 columns",
    ),
    "half a gzip": ({"rows.txt.gz": gzip.compress(DEEP)[:-6]}, "rows.txt.gz of me/evil cannot be unpacked"),
    "7z": ({"rows.jsonl": b"7z\xbc\xaf\x27\x1c"}, "rows.jsonl of me/evil is packed by 7z"),
    "brackets in UTF-16": (
        {
            "rows.jsonl": DEEP.decode().encode("utf-16-le"),
            "README.md": card(data_files="rows.jsonl", encoding="utf-16-le"),
        },
        "me/evil states the encoding utf-16-le for JSON",
    ),
    "a pattern without end": (
        {"rows.csv": b"a" * 40 + b"!", "README.md": card(data_files="rows.csv", sep="(a|a)*b")},
        r"me/evil separates its columns by '\(a\|a\)\*b'",
    ),
    "lists without end": (
        {"rows.jsonl": ROW.encode(), "README.md": features_of({"list": "int64", "length": 10**9})},
        "me/evil states lists of more than 1,048,576 values in each row",
    ),
    "a table without end": (
        {
            "rows.jsonl": ROW.encode(),
            "README.md": features_of({"dtype": {"array2_d": {"shape": [10**6, 10**6], "dtype": "int64"}}}),
        },
        "me/evil states lists of more than 1,048,576 values in each row",
    ),
    "Parquet by another name": ({"rows.geoparquet": REPEATED}, "rows.geoparquet of me/evil.* would come to more than"),
}
READ_ON_THE_HUB = {
    "gzip": ({"rows.jsonl.gz": gzip.compress(ROW.encode())}, 1),
    "zip": ({"rows.zip": zipped(a=ROW, b=ROW * 2)}, 3),
    "TSV": ({"rows.tsv": b"instruction\toutput\na\tb\n"}, 1),
    "spaces": ({"rows.csv": b"instruction output\na  b\n", "README.md": card(data_files="rows.csv", sep="\\s+")}, 1),
    "Latin-1": (
        {
            "rows.csv": "instruction,output\né,b\n".encode("latin-1"),
            "README.md": card(data_files="rows.csv", encoding="latin-1"),
        },
        1,
    ),
}


@pytest.fixture
def on_the_hub(hub, tmp_path, monkeypatch):
    """Load what lies in a repository; bombs are small here."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("im_datasets.data.text_bounds.UNFOLDED_BYTES", 2**20)
    monkeypatch.setattr("im_datasets.data.parquet_bounds.FLOOR_BYTES", 2**24)

    def load(files):
        hub.store.put("me/evil", files)
        return prepare(load_source("me/evil").dataset)[0]

    return load


@pytest.mark.parametrize("case", ON_THE_HUB)
def test_a_file_of_the_hub_is_looked_at_before_it_is_read(on_the_hub, case):
    files, told = ON_THE_HUB[case]
    with pytest.raises(SourceError, match=told) as caught:
        on_the_hub(files)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", READ_ON_THE_HUB)
def test_an_honest_file_of_the_hub_is_read(on_the_hub, case):
    files, rows = READ_ON_THE_HUB[case]
    assert len(on_the_hub(files)) == rows
