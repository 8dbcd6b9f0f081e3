"""The loss of an evaluation set equals a plain loop over the whole model's logits."""

import json
import math

import numpy as np
import pytest
import torch
from tiny_models import CHAT_TEMPLATE, save_causal
from transformers import AutoModelForCausalLM, AutoTokenizer

from im_datasets.calibration.experiments.evaluation import (
    Evaluation,
    Losses,
    evaluate_losses,
    load_evaluation,
    load_evaluations,
)
from im_datasets.common.errors import CalibrationError
from im_datasets.data.pairs import Pairs
from im_datasets.models.checkpoints import Checkpoint
from im_datasets.models.prompts import TEMPLATES

PAIRS = Pairs.of(
    ["Name a fruit.", "Count.", "Write a long line."], ["An apple.", "1, 2, 3", "It goes on and on and on, and ends."]
)


def plain_loop(folder, pairs):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    found = []
    for instruction, response in zip(pairs.instructions, pairs.responses, strict=True):
        prompt = [0, *tokenizer(TEMPLATES["alpaca"].replace("{instruction}", instruction))["input_ids"]]
        answer = tokenizer(response)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0].double().log_softmax(-1)
        places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        found.append((-sum(logits[p, t].item() for p, t in zip(places, answer, strict=True)), len(answer)))
    return found


def test_evaluate_losses_equals_a_plain_loop(tmp_path):
    folder = save_causal(tmp_path / "model", "llama", positions=512)
    losses = evaluate_losses(Checkpoint("causal", str(folder), device="cpu").load_anew(), Evaluation("e", PAIRS))
    expected = plain_loop(folder, PAIRS)
    assert losses.tokens.tolist() == [tokens for _, tokens in expected]
    assert losses.sums == pytest.approx([nats for nats, _ in expected], rel=1e-4)
    assert losses.mean == pytest.approx(sum(n for n, _ in expected) / sum(t for _, t in expected), rel=1e-4)
    assert losses.truncated == 0


def test_evaluate_losses_of_a_changed_model_are_its_own(tmp_path):
    checkpoint = Checkpoint("causal", str(save_causal(tmp_path / "model", "llama", positions=512)), device="cpu")
    evaluation = Evaluation("e", PAIRS)
    before = evaluate_losses(checkpoint.load_anew(), evaluation).mean
    loaded = checkpoint.load_anew()
    with torch.no_grad():
        loaded.model.get_output_embeddings().weight.zero_()
    after = evaluate_losses(loaded, evaluation).mean
    assert after == pytest.approx(math.log(400), rel=1e-5)
    assert evaluate_losses(checkpoint.load_anew(), evaluation).mean == before != after


def test_examples_that_the_template_refuses_count_for_nothing(tmp_path):
    folder = save_causal(tmp_path / "model", "llama", positions=512, chat_template=CHAT_TEMPLATE)
    loaded = Checkpoint("causal", str(folder), device="cpu").load_anew()
    refused = Pairs([(("critic", "Bad."),), (("user", "Name a fruit."),)], ["no", "An apple."], ["", ""])
    losses = evaluate_losses(loaded, Evaluation("e", refused))
    assert losses.tokens[0] == 0
    assert losses.mean == pytest.approx(losses.sums[1] / losses.tokens[1])


def test_mean_of_losses_weighs_tokens_and_is_nan_where_one_is():
    assert Losses(np.array([2.0, 9.0]), np.array([1, 9])).mean == pytest.approx(1.1)
    assert math.isnan(Losses(np.array([2.0, np.nan]), np.array([1, 9])).mean)
    assert math.isnan(Losses(np.array([2.0, np.inf]), np.array([1, 9])).mean)
    assert math.isnan(Losses(np.array([0.0]), np.array([0])).mean)


def test_load_evaluation_reads_references_and_counts_what_it_leaves_out(tmp_path):
    path = tmp_path / "held.jsonl"
    path.write_text(
        json.dumps({"instruction": "Name a fruit.", "instances": [{"input": "red", "output": "An apple."}]})
        + "\n"
        + json.dumps({"instruction": "Nothing.", "instances": [{"input": "", "output": ""}]})
        + "\n"
    )
    evaluation = load_evaluation(f"self-instruct={path}")
    assert (evaluation.name, evaluation.left_out) == ("self-instruct", 1)
    assert (evaluation.pairs.instructions, evaluation.pairs.responses) == (["Name a fruit.\n\nred"], ["An apple."])


def test_load_evaluation_without_references_is_an_error(tmp_path):
    path = tmp_path / "held.jsonl"
    path.write_text(json.dumps({"instruction": "Say.", "response": " "}) + "\n")
    with pytest.raises(CalibrationError, match="has an instruction and a reference response"):
        load_evaluation(str(path))
    with pytest.raises(CalibrationError, match="no evaluation set; pass --evaluation DATA"):
        load_evaluations([])
    with pytest.raises(CalibrationError, match="two datasets called 'held'"):
        load_evaluations([str(path), f"held={path}"])
