"""Files of a stranger's that would end, hang or fill the process that reads them: refused in one line, or read."""

import bz2
import gzip
import json
import lzma
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from im_datasets.common.errors import ImDatasetsError
from im_datasets.data.prepare import prepare
from im_datasets.data.source import load_source

ROW = '{"instruction": "a", "output": "b"}\n'
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
READ = {
    "numbers beyond all": ("rows.jsonl", row("1e99999"), 2),
    "no numbers": ("rows.jsonl", '{"instruction": NaN, "output": -Infinity}\n', 1),
    "900 levels": ("rows.jsonl", row("[" * 900 + "]" * 900), 2),
    "lists of null": ("rows.json", '[\n{"output": "b", "instruction": [\nnull,\nnull\n]\n}\n]', 1),
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
