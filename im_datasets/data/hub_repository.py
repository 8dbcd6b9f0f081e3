"""A dataset repository of the Hub, opened as `datasets` does and held to its own files before anything is loaded."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from datasets import DatasetBuilder, load_dataset_builder
from datasets.exceptions import DatasetNotFoundError
from datasets.load import HubDatasetModuleFactory

from im_datasets.common.errors import SourceError
from im_datasets.common.untrusted import TEXT_BYTES, leads_outside, parse_json, parse_yaml, read_bytes, read_text, shown
from im_datasets.data.parquet_bounds import check_parquet
from im_datasets.data.text_bounds import check_packed

CARD, STANDALONE, INFOS = "README.md", ".huggingface.yaml", "dataset_infos.json"
"""Where `datasets` reads how to load a repository: what the second says counts before the card, the third after it."""

LOADERS = {
    *("parquet", "json", "csv", "text", "arrow", "xml", "conll", "webdataset", "cache"),
    *(f"{kind}folder" for kind in ("image", "audio", "video", "pdf", "nifti", "mesh")),
}
"""The loaders of `datasets` that read what lies in the files themselves.

Others follow what a file names: HDF5 has links and raw data in other files, Lance has other folders.
"""


TEXTS = ("json", "csv", "text", "xml", "conll")
"""Those that read texts."""

PLAIN_ENCODINGS = ("utf-8", "utf8", "utf-8-sig", "ascii", "us-ascii", "latin-1", "latin1", "iso-8859-1", "cp1252")
"""Encodings in which brackets are the bytes that they are in UTF-8."""


VALUES = 2**20
"""How many values a row may be stated to have in lists of fixed length, which are made even where none is."""


def open_repository(name: str, config: str | None, revision: str | None) -> DatasetBuilder:
    """The builder of a repository at one commit, none of whose data files lies outside of it.

    Args:
        name: Its id.
        config: As for ``load_dataset``.
        revision: Branch, tag or commit; None is ``main``.

    Returns:
        The builder; of what was downloaded before, where the Hub is out of reach.

    Raises:
        SourceError: It names data files elsewhere, or is loaded in a way that could reach other files.
        UntrustedError: What it says of itself is too large, too deep or no YAML or JSON.
        DatasetNotFoundError: It is not there, or may not be seen.
    """
    commit = _commit(name, revision)
    if commit is None:
        with _offline():
            return load_dataset_builder(name, name=config, revision=revision)
    _check_settings(name, commit, config)
    builder = load_dataset_builder(name, name=config, revision=commit)
    loader = type(builder).__module__.rpartition(".")[2]
    if loader == "cache" and builder.hash != commit:
        # What `datasets` falls back on, whatever went wrong: rows of another commit than was asked for.
        HubDatasetModuleFactory(name, commit_hash=commit).get_module()
        raise SourceError(f"{name} cannot be loaded at {commit}; pass another --revision (revision=)")
    # Once more, by what `datasets` itself made of it.
    base = f"hf://datasets/{name}@{commit}/"
    for files in (getattr(builder.config, "data_files", None) or {}).values():
        for file in map(str, files):
            if not file.startswith(base) or leads_outside(file.removeprefix(base)):
                raise _elsewhere(name, str(builder.config.name), file)
    if loader not in LOADERS:
        raise SourceError(
            f"{name} is read by the loader {shown(loader)} of datasets, which may follow what its files name to other "
            "files; convert it to Parquet, or pass its rows as a local file"
        )
    _check_options(name, builder)
    if builder.info.features and _values(builder.info.features.to_dict()) > VALUES:
        raise SourceError(
            f"{name} states lists of more than {VALUES:,} values in each row; pass its rows as a local file"
        )
    return builder


def check_files(name: str, builder: DatasetBuilder) -> None:
    """Refuse files that would end the process that reads them, or come to more than they should.

    Fetches them where `datasets` will find them.

    Args:
        name: The repository's id.
        builder: From ``open_repository``; of what was downloaded before there is nothing to look at.

    Raises:
        UntrustedError: Names the file, and the line where it has one.
    """
    from huggingface_hub import hf_hub_download

    base, loader, tables = str(builder.base_path), type(builder).__module__.rpartition(".")[2], {}
    for paths in (getattr(builder.config, "data_files", None) or {}).values() if loader in (*TEXTS, "parquet") else ():
        for path in map(str, paths):
            if not (parts := _ADDRESS.fullmatch(path)) or not path.startswith(base):
                continue
            place = Path(hf_hub_download(name, parts["path"], revision=parts["commit"], repo_type="dataset"))
            what = f"{shown(parts['path'])} of {name}"
            if loader == "parquet":
                tables[what] = place
            else:
                separator = getattr(builder.config, "sep", None) if loader == "csv" else None
                check_packed(what, place, is_json=loader == "json", separator=separator)
    check_parquet(tables)


def _check_options(name: str, builder: DatasetBuilder) -> None:
    """Refuse settings of a card under which a text takes no end of time, or is not what was looked at."""
    loader, config = type(builder).__module__.rpartition(".")[2], builder.config
    encoding = str(getattr(config, "encoding", None) or "utf-8").lower().replace("_", "-")
    if loader == "json" and encoding not in PLAIN_ENCODINGS:
        raise SourceError(f"{name} states the encoding {shown(encoding)} for JSON, which is UTF-8; pass a local file")
    if loader == "csv":
        # Longer ones are regular expressions, but for this one.
        for separator in (getattr(config, option, None) for option in ("sep", "delimiter")):
            if separator != r"\s+" and len(str(separator or "")) > 1:
                raise SourceError(
                    f"{name} separates its columns by {shown(repr(separator))}; pass them as a local file"
                )


def _values(feature: Any) -> int:
    """How many values features in plain data make of a row where nothing stands."""
    if isinstance(feature, dict):
        sizes = [feature.get("length"), *(shape if isinstance(shape := feature.get("shape"), list | tuple) else ())]
        fixed = math.prod(size for size in sizes if isinstance(size, int) and size > 1)
        return fixed * sum(map(_values, feature.values()))
    return sum(map(_values, feature)) if isinstance(feature, list | tuple) else 1


_ADDRESS = re.compile(r"hf://datasets/[^@]+@(?P<commit>[0-9a-f]{40})/(?P<path>.+)")


def _commit(name: str, revision: str | None) -> str | None:
    """The commit that a revision stands for now; None where the Hub is out of reach."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        info = HfApi().dataset_info(name, revision=revision)
    except (httpx.TransportError, OfflineModeIsEnabled):
        return None
    except GatedRepoError as error:
        raise DatasetNotFoundError(f"Dataset {name!r} is a gated dataset on the Hub.") from error
    except RevisionNotFoundError as error:
        raise DatasetNotFoundError(f"Revision {revision!r} doesn't exist for dataset {name!r} on the Hub.") from error
    except RepositoryNotFoundError as error:
        raise DatasetNotFoundError(f"Dataset {name!r} doesn't exist on the Hub or cannot be accessed.") from error
    return info.sha


@contextmanager
def _offline() -> Iterator[None]:
    """Let `datasets` look for what it downloaded before, without asking the Hub that is out of reach once more."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _check_settings(name: str, commit: str, config: str | None) -> None:
    """Read how the repository says it is to be loaded, within bounds, and refuse what points elsewhere."""
    for path, content in _settings(name, commit):
        what = f"{path} of {name}"
        if path.endswith(".py"):
            raise SourceError(f"{what} is a program to load it with, which is never run; pass its rows as a local file")
        if path == INFOS:
            parse_json(content, what)
            continue
        text = read_text(content, what)
        fields = parse_yaml(text if path == STANDALONE else _front_matter(text), what)
        configs = fields.get("configs") if isinstance(fields, dict) else None
        for number, each in enumerate(configs if isinstance(configs, list) else []):
            if not isinstance(each, dict):
                continue
            # `datasets` reads the first one in any case, to see which loader is needed.
            if number and config is not None and each.get("config_name") != config:
                continue
            for place in _texts([each.get("data_files"), each.get("data_dir")]):
                if leads_outside(place):
                    raise _elsewhere(name, str(each.get("config_name")), place)


def _settings(name: str, commit: str) -> Iterator[tuple[str, bytes]]:
    """Path and content of the files that say how to load it; their sizes are asked first."""
    from huggingface_hub import HfApi, hf_hub_download

    paths = [CARD, STANDALONE, INFOS, f"{name.rpartition('/')[2]}.py"]
    for entry in HfApi().get_paths_info(name, paths, revision=commit, repo_type="dataset"):
        if (entry.size if hasattr(entry, "size") else 0) > TEXT_BYTES:
            raise SourceError(f"{entry.path} of {name} has more than {TEXT_BYTES:,} bytes, which no such file needs")
        place = hf_hub_download(name, entry.path, revision=commit, repo_type="dataset")
        yield entry.path, read_bytes(Path(place), f"{entry.path} of {name}")


def _front_matter(card: str) -> str:
    """The YAML of a card, found as `datasets` finds it."""
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    match = REGEX_YAML_BLOCK.search(card)
    return match[2] if match else ""


def _texts(value: Any) -> Iterator[str]:
    """Every text in plain data."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _elsewhere(name: str, config: str, place: str) -> SourceError:
    return SourceError(
        f"the config {shown(config)!r} of {name} names data outside of its repository, {shown(place)!r}; nothing of it "
        "was opened: pass another config, or download what you trust and pass it as a local file"
    )
