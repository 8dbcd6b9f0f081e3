"""Training equals a plain loop with the loss on response tokens only, repeats itself, and leaves nothing behind."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from im_datasets.calibration.experiments import finetuning
from im_datasets.calibration.experiments.finetuning import (
    IGNORED,
    Training,
    base_checkpoint,
    finetune,
    save_model,
    training_rows,
)
from im_datasets.common.errors import CalibrationError, MissingExtraError
from im_datasets.data.pairs import Pairs
from im_datasets.models.checkpoints import Checkpoint
from im_datasets.models.prompts import TEMPLATES

PAIRS = Pairs.of(
    ["Name a fruit.", "Count.", "Say it.", "Write a line."], ["An apple.", "1, 2, 3", "it", "It goes on and ends."]
)
SETTINGS = Training(epochs=1, learning_rate=1e-3, batch_size=4, micro_batch_size=2, template="plain", max_tokens=64)


def weights(loaded):
    return {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}


@pytest.fixture(scope="module")
def base(base_model):
    return base_checkpoint(base_model, Training(device="cpu"))


def test_training_rows_count_the_response_and_its_end_only(base):
    loaded = base.load()
    row = training_rows(loaded, PAIRS, SETTINGS)[0]
    prompt = loaded.tokenizer(TEMPLATES["plain"].replace("{instruction}", "Name a fruit."))["input_ids"]
    answer = [*loaded.tokenizer("An apple.")["input_ids"], loaded.tokenizer.eos_token_id]
    assert row["input_ids"] == [0, *prompt, *answer]
    assert row["labels"] == [IGNORED] * (1 + len(prompt)) + answer


def test_training_rows_of_a_cut_response_have_no_end(base):
    loaded = base.load()
    (row,) = training_rows(loaded, Pairs.of(["Say."], ["on and on " * 40]), Training(max_tokens=32, template="plain"))
    assert len(row["input_ids"]) <= 32
    assert loaded.tokenizer.eos_token_id not in row["labels"]


def test_training_rows_of_a_cut_instruction_keep_the_end(base):
    loaded = base.load()
    settings = Training(max_tokens=32, template="plain")
    (row,) = training_rows(loaded, Pairs.of(["on and on " * 40], ["it"]), settings)
    answer = [*loaded.tokenizer("it")["input_ids"], loaded.tokenizer.eos_token_id]
    assert len(row["input_ids"]) == 32
    assert [label for label in row["labels"] if label != IGNORED] == answer


def test_training_rows_end_only_where_the_whole_response_is_read(base):
    loaded = base.load()
    # 31 tokens are read: of the response up to 31 - 31 // 4 = 24, whatever the instruction.
    token = loaded.tokenizer("a")["input_ids"]
    assert loaded.tokenizer("a" * 24)["input_ids"] == token * 24
    pairs = Pairs.of(["on and on " * 40, "on and on " * 40, "Say."], ["a" * 24, "a" * 25, "a" * 25])
    rows = training_rows(loaded, pairs, Training(max_tokens=32, template="plain"))
    assert [row["labels"][-1] == loaded.tokenizer.eos_token_id for row in rows] == [True, False, False]


def test_finetune_one_step_equals_a_plain_loop(base):
    model = base.load_anew().model.train()
    rows = training_rows(base.load(), PAIRS, SETTINGS)
    total, tokens = torch.zeros(()), 0
    for row in rows:
        logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:])
        total = total + torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        tokens += int((labels != IGNORED).sum())
    (total / tokens).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0).step()
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = weights(finetune(base, PAIRS, SETTINGS))
    # Adam's first step is the gradient's sign times the rate: compared as a whole, signs of tiny gradients aside.
    before = weights(base.load_anew())
    moved = torch.cat([(expected[name] - before[name]).ravel() for name in expected])
    gap = torch.cat([(expected[name] - found[name]).ravel() for name in expected])
    assert gap.abs().mean() < 0.01 * moved.abs().mean()


def test_finetune_repeats_itself_bit_for_bit_and_seeds_differ(base):
    settings = Training(epochs=2, learning_rate=1e-3, batch_size=2, micro_batch_size=2, template="plain")
    one, again, other = (weights(finetune(base, PAIRS, settings, seed=seed)) for seed in (3, 3, 4))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_finetune_leaves_the_base_and_no_files(base, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files = {path: path.stat().st_mtime_ns for path in Path(base.model).iterdir()}
    before = weights(base.load())
    finetune(base, PAIRS, SETTINGS)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(base.load()).items())
    assert files == {path: path.stat().st_mtime_ns for path in Path(base.model).iterdir()}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("device", "bf16", "dtype", "found"),
    [
        ("cpu", None, "float32", False),
        ("cuda:1", None, "float32", True),
        ("cuda", None, "bfloat16", False),
        ("cuda", False, "float32", False),
        ("cpu", True, "float32", True),
    ],
)
def test_training_on_a_device_says_whether_it_computes_in_bfloat16(device, bf16, dtype, found, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    training = Training(bf16=bf16, dtype=dtype).on(device)
    assert training.to_dict()["bf16"] is found


def test_finetune_by_lora_changes_weights_by_a_low_rank(base):
    settings = Training(epochs=1, learning_rate=1e-2, batch_size=4, method="lora", lora_rank=2, template="plain")
    before, after = weights(base.load_anew()), weights(finetune(base, PAIRS, settings))
    assert before.keys() == after.keys()
    name = "model.layers.0.mlp.up_proj.weight"
    assert np.linalg.matrix_rank((after[name] - before[name]).numpy(), tol=1e-5) in {1, 2}
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])


def test_save_model_is_loaded_back(base, tmp_path):
    loaded = finetune(base, PAIRS, SETTINGS)
    save_model(loaded, tmp_path / "model")
    again = Checkpoint("causal", str(tmp_path / "model"), device="cpu").load_anew()
    assert all(torch.equal(tensor, weights(again)[name]) for name, tensor in weights(loaded).items())


def test_finetune_without_its_extra_gives_the_pip_line(base, monkeypatch):
    monkeypatch.setattr(finetuning.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"needs accelerate.*pip install im-datasets\[calibrate\]"):
        finetune(base, PAIRS, SETTINGS)


def test_finetune_on_nothing_is_an_error(base):
    with pytest.raises(CalibrationError, match="none of 0 pairs has a response token to train on"):
        finetune(base, Pairs.of([], []), SETTINGS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "epochs=0; must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"max_tokens": 8}, "max_tokens=8.*at least 16"),
        ({"batch_size": 12}, "batch_size=12 is no multiple of micro_batch_size=8"),
        ({"method": "prompt"}, "method 'prompt' is unknown; 'full' or 'lora'"),
    ],
)
def test_training_refuses_settings_out_of_range(given, message):
    with pytest.raises(CalibrationError, match=message):
        Training(**given)
