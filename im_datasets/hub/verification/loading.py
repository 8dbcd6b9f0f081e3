"""What `load_dataset` makes of a repository's card: whether it gives the rows that are checked here.

The card is compared as text first: what leads out of the repository is told, not followed. Then `datasets` reads it in
a folder of its own, beside empty files of the names that the card knows. So nothing is fetched, and no file of this
machine is seen.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import load_dataset_builder

from im_datasets.common.errors import ConflictError, HubError, UntrustedError, message_of
from im_datasets.common.storage import temporary_folder
from im_datasets.common.untrusted import check_unique, leads_outside, parse_json, parse_yaml, shown
from im_datasets.data.hub_repository import CARD, INFOS, STANDALONE
from im_datasets.hub.card_merge import read_front_matter, split_card
from im_datasets.hub.parquet_configs import SPLIT
from im_datasets.hub.published import PublishedSelection
from im_datasets.hub.verification.checks import Check, few, verdict
from im_datasets.report.configs import Config

_NAMED_FILES = 1000
"""Files of other configs that are put in place of those in the repository, so that it can be said which one is read."""

_LONGEST_PATH = 200
"""Of such a file, in characters."""

_BLANK_LINES = 1000
"""Empty lines in a row: the readers of front matter take the square of their number."""


def check_loading(published: PublishedSelection) -> Iterator[Check]:
    """Whether ``load_dataset`` gives the rows that were checked here, whatever else the repository holds."""
    manifest = published.manifest
    if manifest is None:
        return
    texts = _texts(published)
    if not (wrong := _outside(texts)):
        with temporary_folder() as folder:
            root = folder.resolve() / "repository"
            _lay_out(root, texts, published)
            for number, (name, config) in enumerate(manifest.configs.items()):
                wrong += _wrong_loading(published, root, name, config, is_default=number == 0)
    yield verdict("loading", wrong, f"load_dataset gives these rows: {', '.join(manifest.configs)}")


def _texts(published: PublishedSelection) -> dict[str, bytes]:
    """The texts that `datasets` reads, each within bounds.

    Raises:
        HubError: One is not what `datasets` can read, or would read as something else than is read here.
    """
    texts = {name: content for name in (CARD, STANDALONE, INFOS) if (content := published.content(name)) is not None}
    try:
        if CARD in texts:
            texts[CARD] = _front_matter(texts[CARD]).encode()
        if STANDALONE in texts:
            parse_yaml(texts[STANDALONE], STANDALONE)
            check_unique(texts[STANDALONE], STANDALONE)
        if INFOS in texts:
            parse_json(texts[INFOS], INFOS)
    except (UntrustedError, ConflictError) as error:
        raise HubError(f"load_dataset cannot open it: {error}") from error
    return texts


def _front_matter(card: bytes) -> str:
    """A card's front matter between its fences, where every reader sees the same."""
    text = card.decode("utf-8", errors="replace").replace("\r\n", "\n")
    front, body = split_card(text)
    read_front_matter(front, f"the front matter of {CARD}")
    check_unique(front, f"the front matter of {CARD}")
    fenced = f"---\n{front}---\n"
    if front and (not f"{text}\n".startswith(fenced) or "\r" in front):
        raise UntrustedError(f"the front matter of {CARD} has fences that not every reader takes for such")
    if not front and body.lstrip().startswith("---"):
        raise UntrustedError(f"{CARD} begins with what only some readers take for front matter")
    if "\n" * _BLANK_LINES in front:
        raise UntrustedError(f"the front matter of {CARD} holds {_BLANK_LINES} empty lines in a row")
    return fenced if front else ""


def _configs(texts: dict[str, bytes]) -> list[dict[str, Any]]:
    """Every config that the card names, or the file that overrules it."""
    fronts = [split_card(texts[CARD].decode())[0]] if CARD in texts else []
    fronts += [texts[STANDALONE].decode()] if STANDALONE in texts else []
    values = [read_front_matter(front).get("configs") for front in fronts]
    return [config for value in values if isinstance(value, list) for config in value if isinstance(config, dict)]


def _outside(texts: dict[str, bytes]) -> list[str]:
    """What leads out of the repository, or leaves the format of its files to whatever lies in it."""
    configs = _configs(texts)
    wrong = [
        f"the config {shown(config.get('config_name'))!r} reads {shown(path)!r}, which is no file of the repository"
        for config in configs
        for path in _paths([config.get("data_files"), config.get("data_dir")])
        if leads_outside(path)
    ]
    if configs and "data_files" not in configs[0]:
        name = shown(configs[0].get("config_name"))
        wrong.append(f"the first config, {name!r}, names no files, so load_dataset takes any that lie there")
    return wrong


def _paths(value: Any) -> list[str]:
    """Every text in the files that a config names, but the names of splits."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [path for name, inner in value.items() if name != "split" for path in _paths(inner)]
    return [path for inner in value for path in _paths(inner)] if isinstance(value, list) else []


def _lay_out(root: Path, texts: dict[str, bytes], published: PublishedSelection) -> None:
    """The texts, and an empty file for each that they or the claims name; which file is read is what is asked."""
    named = [path for config in _configs(texts) for path in _paths(config.get("data_files"))][:_NAMED_FILES]
    configs = published.manifest.configs if published.manifest else {}
    claimed = [path for config in configs.values() for path in config.files]
    root.mkdir()
    for path, content in texts.items():
        (root / path).write_bytes(content)
    for path in [*claimed, *named]:
        if not set(path) & set("*?[") and len(path) < _LONGEST_PATH and not (root / path).exists():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()


def _wrong_loading(
    published: PublishedSelection, root: Path, name: str, config: Config, *, is_default: bool
) -> list[str]:
    """What `datasets` makes of one config, by its own reading of the card, that is not as claimed."""
    call = f"load_dataset({published.name!r}{'' if is_default else f', {name!r}'})"
    # A cache of its own: a dataset that was prepared before would bring its own features and sizes.
    with temporary_folder() as cache:
        try:
            # The default config is asked for without a name, as most people would.
            builder = load_dataset_builder(str(root), None if is_default else name, cache_dir=str(cache))
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody else could open it either
            return [f"load_dataset cannot open it: {message_of(error, 300).replace(f'{root}', published.name)}"]
    rows, info, base = published.tables[name], builder.info, f"{root.as_posix()}/"
    data_files = (builder.config.data_files or {}).items()
    files = {split: [file.removeprefix(base) for file in paths] for split, paths in data_files}
    if builder.config.name != name or files != {SPLIT: config.files}:
        read = few([file for paths in files.values() for file in paths])
        return [f"{call} gives the config {builder.config.name!r} from {read}, not {name!r} as claimed"]
    wrong = [f"{call} reads {key}" for key in ("columns", "filters") if getattr(builder.config, key, None)]
    if builder.name != "parquet":
        wrong.append(f"{call} reads the files as {builder.name}, not as Parquet")
    # By their Arrow types: features of the same columns may differ in what they say beside.
    expected, schema = info.features and info.features.arrow_schema, rows.features.arrow_schema
    if expected is not None and (expected.names, expected.types) != (schema.names, schema.types):
        wrong.append(f"{call} gives other columns or types than the files hold")
    sizes = {split: size.num_examples for split, size in (info.splits or {}).items()}
    if sizes not in ({}, {SPLIT: len(rows)}):
        wrong.append(f"{call} expects {sizes}, the files hold {len(rows)} rows")
    return wrong
