"""The Open-Assistant Pythia class: the published files load unchanged, and padding changes nothing."""

import json
from pathlib import Path

import pytest
import torch
from tiny_reward import pythia_config, pythia_reference, save_pythia
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from im_datasets.common.errors import ModelError
from im_datasets.models.checkpoints import Checkpoint, Loaded
from im_datasets.models.oasst_reward import GPTNeoXRewardModel, GPTNeoXRewardModelConfig, register

PAD, LONG = 1, 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pythia(tmp_path_factory.mktemp("pythia"))


def opened(folder: Path) -> Loaded:
    return Checkpoint("sequence-classification", str(folder), device="cpu").load()


def sequences(seed: int = 3) -> list[list[int]]:
    """Real tokens only, but padding and end tokens among them, at the end too."""
    drawn = torch.Generator().manual_seed(seed)
    texts = [torch.randint(0, 300, (n,), generator=drawn).tolist() for n in (1, 2, 7, 16, LONG)]
    return [*texts, [5, 6, PAD], [5, PAD, 6, 0], [PAD]]


def padded(texts: list[list[int]], side: str) -> dict[str, torch.Tensor]:
    ids, mask = torch.full((len(texts), LONG), PAD), torch.zeros(len(texts), LONG, dtype=torch.long)
    for row, text in enumerate(texts):
        place = slice(0, len(text)) if side == "right" else slice(LONG - len(text), LONG)
        ids[row, place], mask[row, place] = torch.tensor(text), 1
    return {"input_ids": ids, "attention_mask": mask}


def reference(texts: list[list[int]], **changed: object) -> torch.Tensor:
    """transformers' own body and a plain linear layer, a text at a time: shape (n, 1)."""
    body, head = pythia_reference(pythia_config(**changed))
    with torch.inference_mode():
        hidden = [body(torch.tensor([text])).last_hidden_state[0] for text in texts]
        pooled = [h.mean(0) if changed.get("pooling") == "mean" else h[-1] for h in hidden]
        return head(torch.stack(pooled))


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "pytorch_model.bin"])
def test_published_files_load_unchanged(tmp_path: Path, pickled: bool) -> None:
    loaded = opened(save_pythia(tmp_path, pickled=pickled))
    assert type(loaded.model) is GPTNeoXRewardModel
    assert (loaded.model.config.num_labels, loaded.model.config.pooling) == (1, "last")
    assert loaded.model.dtype == torch.float32
    body, head = pythia_reference(pythia_config())
    for name, weights in body.named_parameters(prefix="gpt_neox"):
        assert torch.equal(loaded.model.get_parameter(name), weights)
    for name, weights in head.named_parameters(prefix="out_proj"):
        assert torch.equal(loaded.model.get_parameter(name), weights)
    assert loaded.tokenizer.tokenize("<|prompter|>a<|endoftext|>") == ["<|prompter|>", "a", "<|endoftext|>"]
    assert loaded.max_tokens == 256


@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_are_the_same_padded_alone_and_in_a_batch(folder: Path, side: str) -> None:
    model, texts = opened(folder).model, sequences()
    expected = reference(texts)
    with torch.inference_mode():
        alone = torch.cat([model(torch.tensor([text])).logits for text in texts])
        batch = model(**padded(texts, side)).logits
        one_by_one = torch.cat([model(**padded([text], side)).logits for text in texts])
    assert expected.std() > 0.1
    for found in (alone, batch, one_by_one):
        assert found.shape == (len(texts), 1)
        assert torch.allclose(found, expected, rtol=0, atol=1e-5)


def test_mean_pooling_leaves_padding_out(tmp_path: Path) -> None:
    model, texts = opened(save_pythia(tmp_path, pooling="mean")).model, sequences()
    with torch.inference_mode():
        for side in ("left", "right"):
            found = model(**padded(texts, side)).logits
            assert torch.allclose(found, reference(texts, pooling="mean"), rtol=0, atol=1e-5)


def test_rotary_settings_under_their_old_names_count(tmp_path: Path) -> None:
    changed = {"rotary_pct": 0.5, "rotary_emb_base": 300}
    model, texts = opened(save_pythia(tmp_path, **changed)).model, sequences()
    with torch.inference_mode():
        found = torch.cat([model(torch.tensor([text])).logits for text in texts])
    assert torch.allclose(found, reference(texts, **changed), rtol=0, atol=1e-5)
    assert not torch.allclose(found, reference(texts), rtol=0, atol=1e-3)


def test_unknown_pooling_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="could not be loaded"):
        opened(save_pythia(tmp_path, pooling="first"))


def test_config_without_pooling_pools_the_last_token() -> None:
    config = GPTNeoXRewardModelConfig(hidden_size=32, num_attention_heads=4, pooling=None)
    assert (config.pooling, config.num_labels) == ("last", 1)


def test_register_twice_and_save_and_load_again(folder: Path, tmp_path: Path) -> None:
    register()
    register()
    assert type(AutoConfig.from_pretrained(folder)) is GPTNeoXRewardModelConfig
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["model_type"], saved["architectures"]) == ("gpt_neox_reward_model", ["GPTNeoXRewardModel"])
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        assert torch.equal(opened(tmp_path).model(ids).logits, model.eval()(ids).logits)


def test_tokenizer_of_no_named_class_loads(tmp_path: Path) -> None:
    save_pythia(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": None}))
    assert opened(tmp_path).tokenizer.tokenize("<|assistant|>a") == ["<|assistant|>", "a"]
