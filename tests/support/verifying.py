"""Rows to publish, ways to tamper with what was published, and what a verification said."""

import hashlib
import json

import pyarrow.parquet as pq
from datasets import Dataset

from im_datasets.hub.verification.checks import Outcome

REPO = "me/best"
PASSED, FAILED, NOT_CHECKED = Outcome
KEPT, DROPPED = "kept/train-00000-of-00001.parquet", "dropped/train-00000-of-00001.parquet"
ROWS = [
    ("What is the capital of Italy?", "The capital of Italy is Rome."),
    ("Name three primary colours.", "Red, yellow and blue are the primary colours."),
    ("How do bees make honey?", "Bees gather nectar and thicken it into honey inside the hive."),
    ("Why is the sky blue?", "Air scatters the blue part of sunlight more than the red part."),
    ("What does a thermometer measure?", "A thermometer measures temperature."),
    ("Explain what a verb is.", "Explain what a verb is."),
    ("Write a haiku about rain.", ""),
    ("How long is a marathon?", "Bees gather nectar and thicken it into honey inside the hive."),
    ("Name a fruit.", "An apple is a fruit that grows on trees."),
]


def failures(verification):
    return {check.name for check in verification.checks if check.outcome == FAILED}


def told(verification, outcome):
    return "\n".join(check.told for check in verification.checks if check.outcome == outcome)


def rewrite(folder, path, change):
    """Change one column of a shard and make its checksum right again, as a careful forger would."""
    rows = Dataset(pq.read_table(folder / path))
    change(rows).to_parquet(folder / path)
    manifest = json.loads((folder / "instructmining.json").read_text())
    content = (folder / path).read_bytes()
    manifest["files"][path].update(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    (folder / "instructmining.json").write_text(json.dumps(manifest))


def set_value(column, row, value):
    def change(rows):
        values = rows[column][:]
        values[row] = value
        features = rows.features
        return rows.map(lambda _, place: {column: values[place]}, with_indices=True, features=features)

    return change


def edit_manifest(folder, change):
    manifest = json.loads((folder / "instructmining.json").read_text())
    change(manifest)
    (folder / "instructmining.json").write_text(json.dumps(manifest))


EVIL = {"split": "train", "path": "extra/evil.parquet"}
