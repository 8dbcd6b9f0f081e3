"""Every module of metrics/: loaded each way, equal to its batch function, however rows come in."""

import doctest
import json
import subprocess
import sys
from inspect import Parameter, signature
from math import isnan

import evaluate
import numpy as np
import pytest
from datasets import Dataset
from evaluate.evaluator import Text2TextGenerationEvaluator
from hypothesis import given, settings
from hypothesis import strategies as st
from module_samples import INSTRUCTIONS, RESPONSES, ROOT, SAMPLES

import im_datasets
from im_datasets import InstructMining
from im_datasets.indicators import Reward, UniEval
from im_datasets.indicators.metric import module_names


@pytest.fixture(scope="module")
def modules():
    return {name: im_datasets.metric(name, keep_in_memory=True) for name in SAMPLES}


def dataset(name):
    instructions = ["Answer."] * len(RESPONSES) if name == "im_mtld" else [as_text(row) for row in INSTRUCTIONS]
    return Dataset.from_dict({"instruction": instructions, "response": RESPONSES})


def as_text(row):
    return row if isinstance(row, str) else json.dumps(row)


def same(first, second):
    return np.array_equal(np.asarray(first, float), np.asarray(second, float), equal_nan=True)


def test_every_module_has_a_sample():
    assert sorted(SAMPLES) == module_names()


@pytest.mark.parametrize("name", sorted(SAMPLES))
@pytest.mark.parametrize("form", ["metrics/{0}", "./metrics/{0}", "metrics/{0}/{0}.py"])
def test_load_finds_the_module_by_folder_and_by_file(name, form, monkeypatch):
    monkeypatch.chdir(ROOT)
    module = evaluate.load(form.format(name), keep_in_memory=True)
    assert (module.name, module.module_type) == (name, "metric")


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_compute_equals_the_batch_function_exactly(name, modules, samples):
    sample = samples[name]
    result = modules[name].compute(predictions=RESPONSES, references=INSTRUCTIONS, **sample.settings)
    expected = sample.expected(dataset(name))
    keys = [key for column in sample.columns for key in (column, f"mean_{column}", f"unscored_{column}")]
    assert list(result) == keys
    for column, values in expected.items():
        assert same(result[column], values)
        assert result[f"unscored_{column}"] == sample.unscored
        assert result[f"mean_{column}"] == pytest.approx(np.nanmean(values), rel=1e-12)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_values_do_not_depend_on_how_rows_are_added(name, modules, samples):
    module, settings = modules[name], samples[name].settings
    at_once = module.compute(predictions=RESPONSES, references=INSTRUCTIONS, **settings)
    module.add(prediction=RESPONSES[0], reference=INSTRUCTIONS[0])
    module.add_batch(predictions=RESPONSES[1:4], references=INSTRUCTIONS[1:4])
    module.add(predictions=RESPONSES[4], references=INSTRUCTIONS[4])
    rest = module.compute(predictions=RESPONSES[5:], references=INSTRUCTIONS[5:], **settings)
    assert rest.keys() == at_once.keys()
    assert all(same(rest[key], at_once[key]) for key in at_once)


@settings(max_examples=25)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=8), st.data())
def test_mtld_does_not_depend_on_how_rows_are_split(modules, responses, data):
    module = modules["im_mtld"]
    cut = data.draw(st.integers(0, len(responses)))
    at_once = module.compute(predictions=responses)
    module.add_batch(predictions=responses[:cut])
    for response in responses[cut:]:
        module.add(prediction=response)
    assert same(module.compute()["im_mtld"], at_once["im_mtld"])


@pytest.mark.parametrize("name", sorted(name for name, sample in SAMPLES.items() if sample.settings))
def test_settings_of_load_hold_and_those_of_compute_go_before(name, modules, samples):
    sample = samples[name]
    loaded = im_datasets.metric(name, keep_in_memory=True, **sample.settings)
    rows = {"predictions": RESPONSES, "references": INSTRUCTIONS}
    given_late = modules[name].compute(**rows, **sample.settings)
    given_early = loaded.compute(**rows)
    assert given_early.keys() == given_late.keys()
    assert all(same(given_early[key], given_late[key]) for key in given_late)


def test_compute_setting_goes_before_the_one_of_load():
    module = im_datasets.metric("mtld", threshold=0.5, keep_in_memory=True)
    rows = {"predictions": ["To be, or not to be, said he."]}
    assert module.compute(**rows)["im_mtld"] == [16.0]
    assert module.compute(**rows, threshold=0.72)["im_mtld"] == [8.48]


@pytest.mark.parametrize("name", sorted(SAMPLES))
@pytest.mark.usefixtures("stand_ins")
def test_doctests_of_the_module_pass(name):
    module = im_datasets.metric(name, keep_in_memory=True)
    result = doctest.testmod(sys.modules[type(module).__module__])
    assert (result.failed, result.attempted > 1) == (0, True)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_compute_names_its_settings_one_by_one_and_documents_them(name, modules):
    parameters = signature(modules[name]._compute).parameters
    assert all(parameter.kind != Parameter.VAR_KEYWORD for parameter in parameters.values())
    for parameter in parameters:
        assert f"\n    {parameter}: " in modules[name].inputs_description


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_module_describes_itself(name, modules):
    module = modules[name]
    assert module.description.strip()
    assert "@" in module.citation
    assert all(url.startswith("https://") for url in module.reference_urls)
    assert module.inputs_description in module.compute.__doc__
    for column in SAMPLES[name].columns:
        key = "im_knn_<k>" if name == "im_knn" else column
        assert all(f"{part}{key}" in module.inputs_description for part in ("", "mean_", "unscored_"))


def test_combine_gives_five_modules_the_same_rows():
    names = ["length", "mtld", "similarity", "quality", "knn"]
    settings = {"knn": {"k": 2}, "mtld": {"threshold": 0.6}}
    combined = evaluate.combine([im_datasets.metric(n, keep_in_memory=True, **settings.get(n, {})) for n in names])
    for response, instruction in zip(RESPONSES[:2], INSTRUCTIONS[:2], strict=True):
        combined.add(prediction=response, reference=instruction)
    combined.add_batch(predictions=RESPONSES[2:], references=INSTRUCTIONS[2:])
    added = combined.compute()
    at_once = combined.compute(predictions=RESPONSES, references=INSTRUCTIONS)
    assert len(added) == 18
    for name in names:
        for column, values in SAMPLES[f"im_{name}"].expected(dataset(f"im_{name}")).items():
            assert same(added[column], values)
            assert same(at_once[column], values)


def test_combine_tells_two_settings_of_one_module_apart():
    loaded = {
        name: im_datasets.metric("mtld", keep_in_memory=True, threshold=t) for name, t in (("a", 0.5), ("b", 0.72))
    }
    result = evaluate.combine(loaded, force_prefix=True).compute(predictions=["To be, or not to be, said he."])
    assert (result["a_im_mtld"], result["b_im_mtld"]) == ([16.0], [8.48])


@pytest.mark.parametrize("rule", ["v1", "v3"])
def test_log_loss_takes_indicators_for_the_published_rules(rule, modules, models):
    rows = Dataset.from_dict({"instruction": [f"Count to {n}." for n in range(9)], "response": ["One."] * 8 + [""]})
    indicators = [Reward(model=models["reward"])]
    if rule == "v3":
        indicators.append(UniEval(model=models["unieval"]))
    expected = InstructMining(rule, indicators=indicators).fit(rows)(rows[:])["im_log_loss"]
    result = modules["im_log_loss"].compute(
        predictions=rows["response"], references=rows["instruction"], rule=rule, indicators=indicators
    )
    assert same(result["im_log_loss"], expected)
    assert result["unscored_im_log_loss"] == 1


PROCESSES = """
import json, os, sys
import evaluate, im_datasets
# Forked after the imports, which take far longer than the rest.
number = 0 if os.fork() else 1
module = im_datasets.metric(sys.argv[2], num_process=2, process_id=number, experiment_id="two", cache_dir=sys.argv[1])
rows = [["one", "two words"], ["three whole words", ""]][number]
module.add_batch(predictions=rows, references=[f"Say {row}." for row in rows])
result = module.compute(**json.loads(sys.argv[3]))
with open(f"{sys.argv[1]}/{number}.json", "w") as file:
    json.dump(result, file)
if number == 0:
    os.wait()
"""


def in_two_processes(folder, name, **settings):
    """What each of two processes gets, of four rows that they share."""
    command = [sys.executable, "-c", PROCESSES, str(folder), name, json.dumps(settings)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    return (json.loads((folder / f"{number}.json").read_text()) for number in range(2))


@pytest.mark.slow
def test_several_processes_give_the_first_one_all_rows(tmp_path):
    first, second = in_two_processes(tmp_path, "mtld")
    assert second is None
    assert same(first["im_mtld"], [1, 2, 3, float("nan")])
    assert (first["mean_im_mtld"], first["unscored_im_mtld"]) == (2, 1)


@pytest.mark.slow
def test_several_processes_compare_each_row_with_the_rows_of_all(tmp_path, modules):
    first, second = in_two_processes(tmp_path, "knn", k=2)
    rows = ["one", "two words", "three whole words", ""]
    alone = modules["im_knn"].compute(predictions=rows, references=[f"Say {row}." for row in rows], k=2)
    assert second is None
    assert first["im_knn_2"][:3] == pytest.approx(alone["im_knn_2"][:3], rel=1e-6)
    assert isnan(first["im_knn_2"][3])
    assert first["unscored_im_knn_2"] == alone["unscored_im_knn_2"] == 1


@pytest.mark.parametrize("name", ["im_length", "im_mtld", "im_knn"])
def test_half_a_surrogate_pair_makes_a_row_unscored(name, modules):
    settings = {"k": 1} if name == "im_knn" else {}
    broken = [{"role": "user", "content": "b\ud800"}]
    result = modules[name].compute(
        predictions=["One, two.", "a\ud800", "Three and four."],
        references=["Count.", "Say a.", "Count on."],
        **settings,
    )
    assert all(value == 1 for key, value in result.items() if key.startswith("unscored_"))
    if name != "im_mtld":
        rows = {"predictions": ["One.", "Two.", "Three."], "references": ["Count.", broken, "Count on."]}
        again = modules[name].compute(**rows, **settings)
        assert all(value == 1 for key, value in again.items() if key.startswith("unscored_"))


def test_experiment_ids_keep_rows_apart(tmp_path):
    first, second = (im_datasets.metric("mtld", experiment_id=name, cache_dir=str(tmp_path)) for name in ("a", "b"))
    first.add(prediction="one two")
    second.add_batch(predictions=["one two three", ""])
    assert {path.name[0] for path in tmp_path.rglob("*.arrow")} == {"a", "b"}
    assert first.compute()["im_mtld"] == [2.0]
    assert second.compute()["im_mtld"][0] == 3.0


def test_save_keeps_a_result(tmp_path, modules):
    result = modules["im_length"].compute(predictions=RESPONSES, references=INSTRUCTIONS)
    stored = json.loads(evaluate.save(tmp_path / "result.json", **result, dataset="ours").read_text())
    assert stored["dataset"] == "ours"
    assert all(same(stored[key], result[key]) for key in result)


class Parrot:
    """A pipeline that repeats what it reads."""

    task = "text2text-generation"

    def __call__(self, texts, **settings):
        return [{"generated_text": f"{text} And {text}"} for text in texts]


class Evaluator(Text2TextGenerationEvaluator):
    """evaluate 0.4.6 looks for TensorFlow classes that transformers 5 has dropped, before it takes a pipeline."""

    def prepare_pipeline(self, model_or_pipeline, **settings):
        return model_or_pipeline


def test_evaluator_scores_what_a_pipeline_generates():
    data = Dataset.from_dict({"prompt": ["Name a fruit.", "Say hello."]})
    result = Evaluator().compute(
        model_or_pipeline=Parrot(),
        data=data,
        input_column="prompt",
        label_column="prompt",
        metric=im_datasets.metric("similarity", keep_in_memory=True),
    )
    assert len(result["im_similarity"]) == 2
    assert min(result["im_similarity"]) > 0.8
    assert result["unscored_im_similarity"] == 0


def test_all_rows_unscored_have_no_mean(modules):
    result = modules["im_mtld"].compute(predictions=["", None, "42"])
    assert all(isnan(value) for value in [*result["im_mtld"], result["mean_im_mtld"]])
    assert result["unscored_im_mtld"] == 3
