"""What every test stands on: no network beyond this machine, throw-away caches, small models built here.

The environment is set before any Hugging Face library is imported, since they read it once.
"""

import contextlib
import faulthandler
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from hypothesis import settings

HUB = HubServer()
HF_HOME = tempfile.mkdtemp(prefix="im-datasets-tests-")
os.environ |= {
    "HF_HOME": HF_HOME,
    "HF_ENDPOINT": HUB.endpoint,
    "HF_DATASETS_CACHE": f"{HF_HOME}/datasets",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
    "MKL_DISABLE_FAST_MM": "1",  # as im_datasets.models.devices sets it, here before any test imports torch
    "IM_DATASETS_STORE": "off",
}

collect_ignore_glob = ["benchmarks", "support", "conftest.py", "*/conftest.py"]
"""Benchmarks are programs to run, and fixtures are no modules, to search for tests and doctests."""

# The first example of a property often pays for an import, on a machine that may be busy.
settings.register_profile("im_datasets", deadline=None)
settings.load_profile("im_datasets")

STUCK_AFTER = 360.0
"""Seconds of one test after which its process is ended: more than the timeout by which it fails."""

_ROOT = Path(__file__).resolve().parents[1]
_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo
_blocked = True


def pytest_configure() -> None:
    """Guard the sockets for doctests and tests alike, and heed Ctrl-C."""
    # A suite that a shell starts in the background ignores it, and so would every program it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    socket.socket.connect = _guarded_connect
    socket.socket.connect_ex = _guarded_connect_ex
    socket.getaddrinfo = _guarded_getaddrinfo


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the tests of Ray to the end: its threads stay in a process, which none may be forked from then."""
    items.sort(key=lambda item: item.path.name == "test_ray.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """End the process of a test that hangs where no signal reaches it; xdist calls it failed, and ends the run."""
    timer = threading.Timer(STUCK_AFTER, _end, (item.config.pluginmanager.getplugin("capturemanager"),))
    timer.daemon = True
    timer.start()
    try:
        return (yield)
    finally:
        timer.cancel()


def _end(capture: Any) -> None:
    """End this process with all that it started: a forked child would hold xdist's pipe open for ever."""
    import psutil

    if capture is not None:
        capture.suspend_global_capture(in_=True)
    faulthandler.dump_traceback(file=sys.__stderr__)
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(1)


def pytest_unconfigure() -> None:
    """Give the sockets back and remove the caches of this run."""
    HUB.stop()
    socket.socket.connect = _connect
    socket.socket.connect_ex = _connect_ex
    socket.getaddrinfo = _getaddrinfo
    shutil.rmtree(HF_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def network_guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """Block connections beyond loopback, except in a test marked ``network``."""
    global _blocked
    _blocked = request.node.get_closest_marker("network") is None
    yield
    _blocked = True


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put ``os.environ`` back: ``Dataset.map(num_proc=2)`` replaces it by a copy, in which nothing would be undone."""
    own = os.environ
    yield
    os.environ = own  # noqa: B003 - the same object as before


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real datasets, which are no part of this repository."""
    folder = Path(os.environ.get("IM_SHARED_DATA") or _ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real datasets in {folder}; set IM_SHARED_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, one for all tests: playwright starts once in a process."""
    from browser import CHROMIUM, FLAGS

    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The Hub of this machine, emptied; the real client may ask it, logged in as ``me``."""
    import datasets.config
    from huggingface_hub import constants

    HUB.start()
    HUB.reset()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", HUB.login())
    return HUB


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A word-level tokenizer whose files ask for truncation, padding and special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "name", "a", "fruit", "an", "apple", "."]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_truncation(max_length=4)
    tokenizer.enable_padding(length=8)
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=4, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    return folder


def _guarded_connect(self: socket.socket, address: Any) -> None:
    _refuse_beyond_loopback(address)
    return _connect(self, address)


def _guarded_connect_ex(self: socket.socket, address: Any) -> int:
    _refuse_beyond_loopback(address)
    return _connect_ex(self, address)


def _guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    _refuse_beyond_loopback((host,))
    return _getaddrinfo(host, *args, **kwargs)


def _refuse_beyond_loopback(address: Any) -> None:
    """Let through Unix sockets (a path, not a tuple) and this machine's own addresses."""
    if not _blocked or not isinstance(address, tuple):
        return
    host = address[0].decode() if isinstance(address[0], bytes) else address[0]
    if host not in {None, "", "localhost", "::1", "0.0.0.0", "::"} and not host.startswith("127."):
        raise PermissionError(f"a test asked the network for {host}; mark it `network` if it must")


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny causal model to finetune."""
    from tiny_models import save_causal

    return str(save_causal(tmp_path_factory.mktemp("base"), "llama"))


@pytest.fixture(scope="session")
def learning_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One with weights drawn as narrowly as usual, which learns in a few steps."""
    import torch
    from tiny_models import byte_level_tokenizer, causal_config
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("learning")
    texts = ["apple", "plum", "pear", "fig", "grape", "Write it once and once more."]
    tokenizer = byte_level_tokenizer(300, texts=texts)
    config = causal_config("llama", len(tokenizer))
    config.initializer_range = 0.05
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
