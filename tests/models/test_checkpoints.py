"""The loader: what opens, at which commit, and every refusal as one line that says what to do."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import HubServer
from safetensors.torch import load_file, save_file
from tiny_reward import TEXTS, chat_tokenizer, pair_tokenizer, save_deberta, save_decoder, save_pythia
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from im_datasets.common.errors import ModelError
from im_datasets.models.checkpoints import Checkpoint, Kind, Loaded
from im_datasets.models.devices import choose_device

TINY: dict[str, Any] = {"vocab_size": 360, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}


def opened(folder: Path | str, kind: Kind = "sequence-classification", **settings: Any) -> Loaded:
    return Checkpoint(kind, str(folder), device="cpu", **settings).load()


def t5(**settings: Any) -> T5ForConditionalGeneration:
    config = {"vocab_size": 360, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
    return T5ForConditionalGeneration(T5Config(**{**config, **settings}))


def llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**TINY, intermediate_size=64))


# Weights.


class Malicious:
    """Unpickled by a trusting reader, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    folder, left_behind = save_pythia(tmp_path / "model", pickled=True), tmp_path / "left-behind"
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({**weights, "extra": Malicious(left_behind)}, folder / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"^.*model holds weights in a pickle that is damaged or more than a table of tensors"
    ) as told:
        opened(folder)
    assert "\n" not in str(told.value)
    assert not left_behind.exists()


def test_safetensors_come_before_a_pickle(tmp_path: Path) -> None:
    folder = save_pythia(tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"not a pickle")
    assert opened(folder).model.config.num_labels == 1


def test_weights_that_cannot_be_read_are_one_clear_line(tmp_path: Path) -> None:
    folder = save_pythia(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelError, match=r"model could not be loaded \(.*\); pass a model id"):
        opened(folder)


@pytest.mark.parametrize("lost", ["out_proj.weight", "out_proj.bias", "gpt_neox.layers.1.attention.dense.weight"])
def test_checkpoint_without_some_weights_is_refused(lost: str, tmp_path: Path) -> None:
    folder = save_pythia(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights[lost]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=f"not a sequence-classification model with all its weights.*{re.escape(lost)}"
    ):
        opened(folder)


# Kinds.


@pytest.mark.parametrize(
    ("made", "kind", "message"),
    [
        (llama, "sequence-classification", "is not a sequence-classification model with all its weights.*score.weight"),
        (llama, "seq2seq", "is of type Llama, not an encoder-decoder model; pass the id or the folder of one that is"),
        (t5, "causal", "is of type T5, not a causal language model; pass the id or the folder of one that is"),
        (t5, "sequence-classification", "is not a sequence-classification model with all its weights.*head"),
    ],
)
def test_model_of_another_kind_is_refused(
    made: Callable[[], torch.nn.Module], kind: Kind, message: str, tmp_path: Path
) -> None:
    folder = save_decoder(tmp_path / "model", made())
    with pytest.raises(ModelError, match=message) as told:
        opened(folder, kind)
    assert "\n" not in str(told.value)


def test_reward_model_is_no_causal_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is of type \w+, not a causal language model"):
        opened(save_pythia(tmp_path / "model"), "causal")


@pytest.mark.parametrize("name", ["/nowhere/model", "a b/c d", "../up/there"])
def test_name_that_is_neither_folder_nor_id_is_said_to_be_none(name: str) -> None:
    with pytest.raises(
        ModelError, match=r"is no folder here and cannot be a model id of the Hub either; check the path"
    ):
        Checkpoint("causal", name).resolve()


@pytest.mark.parametrize("device", ["cpu:x", "gpu", ""])
def test_device_that_is_none_is_refused(device: str) -> None:
    with pytest.raises(ModelError, match="is not available here; available: cpu"):
        choose_device(device)


@pytest.mark.parametrize("device", ["cuda:2", "meta", "cpu:1", "mps"])
def test_device_that_is_not_there_is_refused(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert choose_device("cuda:1") == "cuda:1"
    with pytest.raises(ModelError, match=r"is not available here; available: cpu, cuda:0 to cuda:1$"):
        choose_device(device)


@pytest.mark.parametrize(("kind", "made"), [("causal", llama), ("seq2seq", t5)])
def test_model_of_its_kind_opens(kind: Kind, made: Callable[[], torch.nn.Module], tmp_path: Path) -> None:
    loaded = opened(save_decoder(tmp_path / "model", made()), kind)
    assert not loaded.model.training
    assert (loaded.device, loaded.model.dtype) == ("cpu", torch.float32)


def test_folder_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is on this machine and has no revision 'main'; leave it out"):
        opened(save_pythia(tmp_path / "model"), revision="main")


def test_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = save_pythia(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        opened(folder)


def test_folder_with_a_tokenizer_file_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = save_pythia(tmp_path / "model")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"holds no readable tokenizer .*; save one beside the model"):
        opened(folder)


# How far a model reads.


def bert(config: type, model: type, **settings: Any) -> torch.nn.Module:
    return model(config(**{**TINY, "intermediate_size": 64, "num_labels": 1, **settings}))


@pytest.mark.parametrize(
    ("kind", "made", "limit"),
    [
        (
            "causal",
            lambda: GPT2LMHeadModel(GPT2Config(vocab_size=360, n_embd=32, n_layer=1, n_head=4, n_positions=96)),
            96,
        ),
        ("seq2seq", lambda: t5(n_positions=96), None),
        (
            "sequence-classification",
            lambda: bert(BertConfig, BertForSequenceClassification, max_position_embeddings=50),
            50,
        ),
        (
            "sequence-classification",
            lambda: bert(RobertaConfig, RobertaForSequenceClassification, max_position_embeddings=50, pad_token_id=1),
            48,
        ),
        (
            "sequence-classification",
            lambda: bert(DebertaV2Config, DebertaV2ForSequenceClassification, max_position_embeddings=50),
            50,
        ),
        (
            "sequence-classification",
            lambda: bert(
                DebertaV2Config,
                DebertaV2ForSequenceClassification,
                relative_attention=True,
                position_biased_input=False,
            ),
            None,
        ),
    ],
    ids=["gpt2", "t5", "bert", "roberta", "deberta-absolute", "deberta-relative"],
)
def test_max_tokens_is_what_the_positions_reach(
    kind: Kind, made: Callable[[], torch.nn.Module], limit: int | None, tmp_path: Path
) -> None:
    loaded = opened(save_decoder(tmp_path / "model", made(), pair_tokenizer()), kind)
    assert loaded.max_tokens == limit
    ids = torch.full((1, limit or 300), 5)
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids[:, :1]} if kind == "seq2seq" else {})
    with torch.inference_mode():
        loaded.model(**inputs)
        if limit is not None:
            with pytest.raises((IndexError, RuntimeError)):
                loaded.model(input_ids=torch.full((1, limit + 1), 5))


# Code in a repository.

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path({mark!r}).touch()

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_in_the_folder_runs_only_when_asked_for(tmp_path: Path) -> None:
    folder, mark = save_decoder(tmp_path / "model", llama()), tmp_path / "ran"
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": own}))
    with pytest.raises(ModelError, match="trust_remote_code=True") as told:
        opened(folder, "causal")
    assert "\n" not in str(told.value)
    assert not mark.exists()
    assert type(opened(folder, "causal", trust_remote_code=True).model).__name__ == "OwnModel"
    assert mark.exists()


# Tokenizers that exist only as SentencePiece files.


def train_sentencepiece(path: Path, **special: Any) -> Any:
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_prefix=str(path),
        model_type="unigram",
        vocab_size=120,
        hard_vocab_limit=False,
        minloglevel=2,
        **special,
    )
    path.with_suffix(".vocab").unlink()
    return sentencepiece.SentencePieceProcessor(model_file=str(path.with_suffix(".model")))


def only_sentencepiece(folder: Path, tokenizer_class: str) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class}))


def test_t5_with_a_sentencepiece_file_alone_loads(tmp_path: Path) -> None:
    folder = save_decoder(tmp_path / "model", t5())
    pieces = train_sentencepiece(folder / "spiece", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    only_sentencepiece(folder, "T5Tokenizer")
    tokenizer = opened(folder, "seq2seq").tokenizer
    for text in TEXTS:
        assert tokenizer(text).input_ids == [*pieces.encode(text), 1]
    assert tokenizer("a </s> bee").input_ids == [*pieces.encode("a"), 1, *pieces.encode("bee"), 1]


@pytest.mark.parametrize("tokenizer_class", ["DebertaV2Tokenizer", "DebertaV2TokenizerFast"])
def test_deberta_with_a_sentencepiece_file_alone_loads_and_scores(tokenizer_class: str, tmp_path: Path) -> None:
    from im_datasets.indicators.reward.indicator import Reward

    folder = save_deberta(tmp_path / "model")
    names = {"bos_piece": "[CLS]", "eos_piece": "[SEP]", "pad_piece": "[PAD]", "unk_piece": "[UNK]"}
    pieces = train_sentencepiece(folder / "spm", pad_id=0, bos_id=1, eos_id=2, unk_id=3, **names)
    only_sentencepiece(folder, tokenizer_class)
    loaded = opened(folder)
    first, second = pieces.encode(TEXTS[0]), pieces.encode(TEXTS[1])
    assert loaded.tokenizer(TEXTS[0], TEXTS[1]).input_ids == [1, *first, 2, *second, 2]
    with torch.inference_mode():
        types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
        ids = torch.tensor([[1, *first, 2, *second, 2]])
        expected = loaded.model(ids, token_type_ids=torch.tensor([types])).logits.item()
    (found,) = Reward(model=str(folder), device="cpu").score(TEXTS[:1], TEXTS[1:2])["im_reward"]
    assert found == pytest.approx(expected, abs=1e-5)


# The Hub.

SCRIPT = """
import json, sys
from im_datasets.models.checkpoints import Checkpoint
from im_datasets.common.errors import ModelError

for call in json.loads(sys.argv[1]):
    checkpoint = Checkpoint("sequence-classification", device="cpu", **call)
    try:
        weight = checkpoint.load().model.out_proj.bias.item()
        print(json.dumps([checkpoint.describe()["revision"], weight]))
    except ModelError as error:
        print(json.dumps(str(error)))
"""


def from_hub(endpoint: str, home: Path, calls: list[dict[str, Any]], *, offline: bool = False) -> list[Any]:
    """What loading gives for each call, in a fresh process that talks to this Hub."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [sys.executable, "-c", SCRIPT, json.dumps(calls)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_models_of_a_hub(tmp_path: Path) -> None:
    with HubServer() as hub:
        old = hub.store.put("me/reward", files(save_pythia(tmp_path / "old", pickled=True)), kind="model").sha
        new = hub.store.put("me/reward", files(save_pythia(tmp_path / "new", pickled=True, seed=1)), kind="model").sha
        hub.store.put("me/walled", files(save_pythia(tmp_path / "walled")), kind="model")
        hub.store.put("me/empty", {"README.md": b"# Nothing"}, kind="model")
        hub.store.create("model", "me/gated", gated=True)
        # As on the real Hub: a gated repository may be looked up, its files not read.
        refusal = {"X-Error-Code": "GatedRepo"}
        for method in ("HEAD", "GET"):
            hub.fail(
                method, "^/me/walled/resolve/", status=403, headers=refusal, message="Access is restricted", times=99
            )
        latest, branch, pinned, *problems = from_hub(
            hub.endpoint,
            tmp_path / "home",
            [
                {"model": "me/reward"},
                {"model": "me/reward", "revision": "main"},
                {"model": "me/reward", "revision": old},
                {"model": "me/gated"},
                {"model": "me/walled"},
                {"model": "me/none"},
                {"model": "me/reward", "revision": "gone"},
                {"model": "me/empty"},
                {"model": "no folder/and no id"},
            ],
        )
        assert not hub.calls("GET", "discussions|convert")
        cached, unknown = from_hub(
            hub.endpoint, tmp_path / "home", [{"model": "me/reward"}, {"model": "me/other"}], offline=True
        )
    assert latest[0] == branch[0] == cached[0] == new
    assert latest[1] == branch[1] == cached[1] != pinned[1]
    assert pinned[0] == old
    for problem, match in zip(
        [*problems, unknown],
        [
            "^me/gated is gated: accept its terms on its page on the Hub, then run: hf auth login$",
            "^me/walled is gated: accept its terms on its page on the Hub, then run: hf auth login$",
            "^me/none is no folder here and no model on the Hub that you may see; .* hf auth login$",
            "^me/reward has no such branch, tag or commit on the Hub; pass revision= with one it has$",
            "^me/empty could not be loaded .*; pass a model id of the Hub or a local folder$",
            "^no folder/and no id is no folder here and cannot be a model id of the Hub either; check the path",
            "^me/other is not in the local cache and the Hub is out of reach; .* hf download me/other$",
        ],
        strict=True,
    ):
        assert re.search(match, problem), problem


def test_chat_tokenizer_of_a_folder_keeps_its_template(tmp_path: Path) -> None:
    folder = save_decoder(tmp_path / "model", llama())
    assert opened(folder, "causal").tokenizer.chat_template == chat_tokenizer().chat_template
