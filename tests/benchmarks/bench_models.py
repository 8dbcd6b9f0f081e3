"""The indicators with a model beside how others score, and beside the bare model in full batches.

``python tests/benchmarks/bench_models.py --data FILE --cache FOLDER --part perplexity --rows 300``. The rows are a
random sample of the file with a fixed seed. Models have honest shapes and seeded random weights, built once into the
cache (see ``seeded.py``); how others score stands in ``peers.py``. Every subject of a part meets the same rows in
the same process, and its values are compared with the one-row-a-call loop's. With ``--memory N`` each subject also
runs N of the rows, the longest among them, in a process of its own, and its peak is reported.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import peers
import torch
from seeded import END, made

from im_datasets.data.columns import Columns
from im_datasets.indicators import IFD, Perplexity, Reward, UniEval
from im_datasets.indicators.unieval import DIMENSIONS
from im_datasets.models.checkpoints import Checkpoint, Kind, Loaded
from im_datasets.models.prompts import TEMPLATES
from im_datasets.models.value_store import using_store

PACKAGES = ("torch", "transformers", "tokenizers")
OURS, LOOP, BARE = "ours", "one row a call", "bare model, full batches"
WARM_UP = 8
"""Rows of the round that is not timed."""

SHORT = 700
"""Tokens of an input at most, so that every way of scoring reads it whole; few rows are longer."""

WINDOW = 1024
"""Tokens that GPT-2 reads."""

LONG = 200
"""Rows of the most characters, of which the one of the most tokens is taken for the longest."""


@dataclass(frozen=True)
class Row:
    """One pair."""

    instruction: str
    response: str


Call = Callable[[Sequence[Row]], Sequence[float] | None]
"""All the work on some rows: one value per row, or per row and question; None where it computes no values."""


@dataclass(frozen=True, eq=False)
class Part:
    """What is compared on one indicator.

    Attributes:
        subjects: Name → call; the first one is the baseline.
        tokens: Real tokens of some rows as the one-row-a-call loop reads them.
        multiplications: Multiply-adds of the model's body a token.
        most: Tokens of a row at most, in all its inputs.
    """

    subjects: dict[str, Call]
    tokens: Callable[[Sequence[Row]], int]
    multiplications: int
    most: int = SHORT


@dataclass
class Subject:
    """A call for ``common.compare``: the first round warms up on a few rows; the values of the last one stay."""

    call: Call
    rows: Sequence[Row]
    values: Sequence[float] | None = None
    _warm: bool = field(default=False, repr=False)

    def __call__(self) -> None:
        self.values = self.call(self.rows if self._warm else self.rows[:WARM_UP])
        self._warm = True


def main() -> None:
    """Run the parts in turn."""
    options = _options()
    with using_store(None):
        _main(options)


def _main(options: argparse.Namespace) -> None:
    if options.memory_of:
        print(json.dumps(_peak(options)))
        return
    for part in options.part:
        out = options.out and options.out.with_stem(f"{options.out.stem}-{part}")
        _run(replace_option(options, part=[part], out=out), part)


def _options() -> argparse.Namespace:
    parser = common.arguments(__doc__.partition("\n")[0], rounds=2)
    parser.set_defaults(rows=200)
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER", help="where the built models are kept")
    parser.add_argument("--part", nargs="+", choices=[*PARTS], default=[*PARTS], help="indicators (all)")
    parser.add_argument("--model", choices=["gpt2", "pythia-160m"], default="gpt2", help="for perplexity and IFD")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--bfloat16", action="store_true", help="add bfloat16, with its rank agreement")
    parser.add_argument("--skip", nargs="+", default=[], metavar="SUBJECT", help="leave out subjects with such names")
    parser.add_argument("--with-longest", action="store_true", help="the longest row of the file is one of the rows")
    parser.add_argument("--memory", type=int, default=0, metavar="N", help="peak memory of each subject on N rows")
    parser.add_argument("--memory-of", metavar="SUBJECT", help="only this subject's peak memory, in this process")
    return parser.parse_args()


def replace_option(options: argparse.Namespace, **changes: Any) -> argparse.Namespace:
    """The same options with some changed."""
    return argparse.Namespace(**{**vars(options), **changes})


def _run(options: argparse.Namespace, name: str) -> None:
    part = PARTS[name](options)
    rows = drawn(part, options)
    subjects = {
        title: Subject(call, rows)
        for title, call in part.subjects.items()
        if not any(title.startswith(skipped) for skipped in options.skip)
    }
    tokens = part.tokens(rows)
    results = common.compare(dict(subjects), items=tokens, rounds=options.rounds, clock="wall")
    seconds = {result.subject: result.seconds for result in results}
    values = {title: subject.values for title, subject in subjects.items() if subject.values is not None}
    common.report(
        name,
        results,
        data=f"{options.data.name}, {len(rows)} rows drawn at random, {tokens} tokens, {tokens // len(rows)} a row",
        covers="texts to values, tokenising included, no loading; for the bare model its forward passes alone",
        clock="wall",
        packages=PACKAGES,
        out=options.out,
        facts={
            "items": "real tokens of the one-row-a-call loop",
            "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu",
            "threads": torch.get_num_threads(),
            **_ratios(seconds),
            **_agreement(values),
            **_rates(part, tokens, seconds, options.device),
            **({"peak memory, MiB": _memory(options, name, [*subjects])} if options.memory else {}),
        },
    )


def _ratios(seconds: dict[str, float]) -> dict[str, float]:
    """How many times as fast as each other subject ours is; below 1 for the bare model is the share reached."""
    return {
        f"{OURS}{dtype} over {title}": round(taken / seconds[f"{OURS}{dtype}"], 3)
        for dtype in ("", BFLOAT16)
        if f"{OURS}{dtype}" in seconds
        for title, taken in seconds.items()
        if not title.startswith(OURS) and title.endswith(BFLOAT16) == bool(dtype)
    }


def _agreement(values: dict[str, Sequence[float]]) -> dict[str, float]:
    """Largest relative difference from the loop's values in float32; in bfloat16 the rank agreement too."""
    if LOOP not in values:
        return {}
    expected = np.array(values[LOOP])
    facts: dict[str, float] = {}
    for title, found in values.items():
        if title != LOOP:
            difference = np.abs(np.array(found) - expected) / np.maximum(np.abs(expected), 1e-6)
            facts[f"largest relative difference, {title}"] = float(f"{difference.max():.2g}")
        if title.endswith(BFLOAT16):
            facts[f"Spearman with float32, {title}"] = round(peers.spearman(found, expected.tolist()), 6)
    facts["spread of the values (standard deviation over mean)"] = float(f"{expected.std() / abs(expected.mean()):.2g}")
    return facts


def _rates(part: Part, tokens: int, seconds: dict[str, float], device: str) -> dict[str, float]:
    """The measured matrix-product rate, and the share of it that the body's products over all tokens come to."""
    facts: dict[str, float] = {}
    for dtype, suffix in ((torch.float32, ""), (torch.bfloat16, BFLOAT16)):
        if f"{OURS}{suffix}" not in seconds:
            continue
        rate = matrix_rate(device, dtype)
        facts[f"matrix products{suffix}, GFLOP/s"] = round(rate / 1e9, 1)
        for title in (OURS, BARE):
            if f"{title}{suffix}" in seconds:
                reached = 2 * part.multiplications * tokens / seconds[f"{title}{suffix}"]
                facts[f"share of it, {title}{suffix}"] = round(reached / rate, 3)
    return facts


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a square matrix product: the best of five, of a size that takes a tenth of a second or is 8192."""
    size, seconds = 256, 0.0
    while seconds < 0.1 and size < 8192:
        size *= 2
        one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        torch.mm(one, other)
        seconds = _product_seconds(one, other, device)
    return 2 * size**3 / min(_product_seconds(one, other, device) for _ in range(5))


def _product_seconds(one: torch.Tensor, other: torch.Tensor, device: str) -> float:
    _wait(device)
    start = time.perf_counter()
    torch.mm(one, other)
    _wait(device)
    return time.perf_counter() - start


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def _memory(options: argparse.Namespace, name: str, subjects: Sequence[str]) -> dict[str, float]:
    """Peak memory above the loaded model, of each subject in a process of its own."""
    peaks = {}
    for subject in subjects:
        command = [sys.executable, __file__, *sys.argv[1:], "--part", name, "--memory-of", subject]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks[subject] = round(json.loads(done.stdout.splitlines()[-1]) / 2**20, 1)
    return peaks


def _peak(options: argparse.Namespace) -> int:
    """Bytes that one subject takes at its peak, beyond those that are taken once the model has run a few rows."""
    part = PARTS[options.part[0]](options)
    rows = drawn(part, options)
    longest = max(rows, key=lambda row: len(row.instruction) + len(row.response))
    some = [longest, *rows[: options.memory - 1]]
    shortest = sorted(rows, key=lambda row: len(row.instruction) + len(row.response))[:2]
    call = part.subjects[options.memory_of]
    call(shortest)
    if options.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call(some)
        return torch.cuda.max_memory_allocated() - before
    # Linux forgets the peak so far, that of loading, when told to.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    call(some)
    return _status("VmHWM") - before


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def drawn(part: Part, options: argparse.Namespace) -> list[Row]:
    """Rows drawn at random that every subject reads whole, as many as were asked for at most."""
    rows = _rows(options.data)
    spare = options.rows // 10 + 1
    sample = random.Random(0).sample(rows, min(len(rows), options.rows + spare))
    if options.with_longest:
        long = sorted(rows, key=lambda row: len(row.instruction) + len(row.response))[-LONG:]
        sample = [max(fitting(part, long), key=lambda row: part.tokens([row])), *sample]
    return fitting(part, sample)[: options.rows]


def fitting(part: Part, rows: Sequence[Row]) -> list[Row]:
    """The rows that every subject reads whole."""
    return [row for row in rows if part.tokens([row]) <= part.most]


def _rows(data: Path) -> list[Row]:
    raw = common.read_rows(data)
    batch = {name: [row.get(name) for row in raw] for name in dict.fromkeys(name for row in raw for name in row)}
    _, pairs = Columns.detect(list(batch)).pairs(batch).scorable()
    return list(dict.fromkeys(map(Row, pairs.instructions, pairs.responses)))


def _model(options: argparse.Namespace, name: str, kind: Kind, dtype: str) -> tuple[str, Loaded]:
    """A built model's folder, and the model as ours loads it, shared by all subjects of a dtype."""
    texts = [text for row in _rows(options.data) for text in (row.instruction, row.response)]
    folder = str(made(name, options.cache, options.data.stem, texts))
    return folder, Checkpoint(kind, folder, dtype=dtype, device=options.device).load()


BFLOAT16 = ", bfloat16"


def _dtypes(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Each dtype that runs, and what its subjects' names end with."""
    return [("float32", ""), *([("bfloat16", BFLOAT16)] if options.bfloat16 else [])]


def _batch(rows: Sequence[Row]) -> dict[str, list[str]]:
    return {"instruction": [row.instruction for row in rows], "output": [row.response for row in rows]}


def _bare(loaded: Loaded, count: Callable[[Sequence[Row]], int], **inputs: int) -> Call:
    """Forward passes of the whole model over as many tokens, in full batches of the mean length, without padding.

    On a CPU each thread runs batches of its own, as ours does: threads that share small batches wait for each other.

    Args:
        loaded: The model.
        count: Real tokens of some rows.
        inputs: Further inputs of one token a sequence, name → id.
    """

    def run(rows: Sequence[Row]) -> None:
        tokens = count(rows)
        length = max(1, round(tokens / len(rows) / (3 if "decoder_input_ids" in inputs else 1)))
        size = max(1, loaded.budget.tokens // length)
        ids = torch.randint(10, 1000, (size, length), generator=torch.Generator().manual_seed(0)).to(loaded.device)
        further = {name: torch.full((size, 1), token, device=loaded.device) for name, token in inputs.items()}
        model: Any = loaded.model

        def forward(_: int) -> None:
            with torch.inference_mode():
                model(input_ids=ids, **further)

        threads = torch.get_num_threads()
        on_cpu = loaded.device == "cpu"
        torch.set_num_threads(1 if on_cpu else threads)
        with ThreadPoolExecutor(threads if on_cpu else 1) as pool:
            list(pool.map(forward, range(max(1, round(tokens / ids.numel())))))
        torch.set_num_threads(threads)
        _wait(loaded.device)

    return run


def _multiplications(body: torch.nn.Module) -> int:
    """Weights of all matrices but the embeddings: each is met once a token."""
    embeddings = {id(m.weight) for m in body.modules() if isinstance(m, torch.nn.Embedding)}
    return sum(p.numel() for p in body.parameters() if p.ndim == 2 and id(p) not in embeddings)


def _alone(options: argparse.Namespace) -> Part:
    """Perplexity of the response by itself, where ``evaluate``'s definition and ours meet."""
    subjects: dict[str, Call] = {}
    for dtype, end in _dtypes(options):
        folder, loaded = _model(options, options.model, "causal", dtype)
        count = partial(_tokens_alone, loaded.tokenizer)
        ours = Perplexity(model=folder, dtype=dtype, device=options.device, condition_on_instruction=False)
        if not end:
            subjects["evaluate's perplexity, batches of 16"] = partial(_evaluate, loaded)
        subjects |= {
            f"dataset order, batches of 16{end}": partial(_losses_alone, loaded, 16),
            f"{LOOP}{end}": partial(_losses_alone, loaded, 1),
            f"{OURS}{end}": partial(_column, ours),
            f"{BARE}{end}": _bare(loaded, count),
        }
    return Part(subjects, count, _multiplications(loaded.model.base_model), WINDOW)


def _perplexity(options: argparse.Namespace) -> Part:
    """Perplexity of the response after its instruction, in Alpaca's template."""
    subjects: dict[str, Call] = {}
    for dtype, end in _dtypes(options):
        folder, loaded = _model(options, options.model, "causal", dtype)
        count = partial(_tokens_after, loaded.tokenizer)
        ours = Perplexity(model=folder, dtype=dtype, device=options.device, template="alpaca")
        subjects |= {
            f"dataset order, batches of 16{end}": partial(_perplexities_after, loaded, 16),
            f"{LOOP}{end}": partial(_perplexities_after, loaded, 1),
            f"{OURS}{end}": partial(_column, ours),
            f"{BARE}{end}": _bare(loaded, count),
        }
    return Part(subjects, count, _multiplications(loaded.model.base_model))


def _ifd(options: argparse.Namespace) -> Part:
    """Both passes of IFD, in Alpaca's template with the instruction and without it."""
    subjects: dict[str, Call] = {}
    for dtype, end in _dtypes(options):
        folder, loaded = _model(options, options.model, "causal", dtype)
        tokenizer = loaded.tokenizer

        def count(rows: Sequence[Row], tokenizer: Any = tokenizer) -> int:
            return _tokens_after(tokenizer, rows) + _tokens_after(tokenizer, _without_instruction(rows))

        ours = IFD(model=folder, dtype=dtype, device=options.device, template="alpaca")
        subjects |= {
            f"{LOOP}{end}": partial(_ratios_of_rows, loaded, 1),
            f"dataset order, batches of 16{end}": partial(_ratios_of_rows, loaded, 16),
            f"{OURS}{end}": partial(_column, ours),
            f"{BARE}{end}": _bare(loaded, count),
        }
    return Part(subjects, count, _multiplications(loaded.model.base_model), 2 * SHORT)


def _unieval(options: argparse.Namespace) -> Part:
    """The three dimensions of the v3 rule."""
    subjects: dict[str, Call] = {}
    for dtype, end in _dtypes(options):
        folder, loaded = _model(options, "t5-base", "seq2seq", dtype)
        ours = UniEval(model=folder, dtype=dtype, device=options.device)

        def count(rows: Sequence[Row], tokenizer: Any = loaded.tokenizer) -> int:
            return sum(
                len(ids) for ids in tokenizer([text for texts in _questions(rows) for text in texts])["input_ids"]
            )

        subjects |= {
            f"the authors' way, batches of 8{end}": partial(_yes, loaded, 8),
            f"{LOOP}{end}": partial(_yes, loaded, 1),
            f"{OURS}{end}": partial(_column, ours),
            f"{BARE}{end}": _bare(loaded, count, decoder_input_ids=0),
        }
    return Part(subjects, count, _multiplications(loaded.model.get_encoder()), 3 * SHORT)


def _reward(shape: str, options: argparse.Namespace) -> Part:
    """A reward model of some shape."""
    subjects: dict[str, Call] = {}
    for dtype, end in _dtypes(options):
        folder, loaded = _model(options, shape, "sequence-classification", dtype)
        ours = Reward(model=folder, dtype=dtype, device=options.device)
        sequences = partial(_sequences, loaded.tokenizer)

        def count(rows: Sequence[Row], sequences: Callable[[Sequence[Row]], list[list[int]]] = sequences) -> int:
            return sum(map(len, sequences(rows)))

        def padded(rows: Sequence[Row], size: int | None, loaded: Loaded = loaded) -> list[float]:
            pad = int(loaded.tokenizer.pad_token_id)
            return peers.rewards(loaded.model, _sequences(loaded.tokenizer, rows), pad, size)

        subjects |= {
            f"the whole set in one batch{end}": partial(padded, size=None),
            f"dataset order, batches of 16{end}": partial(padded, size=16),
            f"{LOOP}{end}": partial(padded, size=1),
            f"{OURS}{end}": partial(_column, ours),
            f"{BARE}{end}": _bare(loaded, count),
        }
    return Part(subjects, count, _multiplications(loaded.model.base_model), 500)


PARTS: dict[str, Callable[[argparse.Namespace], Part]] = {
    "perplexity-alone": _alone,
    "perplexity": _perplexity,
    "ifd": _ifd,
    "unieval": _unieval,
    "reward-deberta": partial(_reward, "deberta-base"),
    "reward-pythia": partial(_reward, "pythia-160m-reward"),
}
"""Name → what is compared."""


def _column(indicator: Any, rows: Sequence[Row]) -> list[float]:
    """All that an indicator writes, column after column."""
    return [value for column in indicator(_batch(rows)).values() for value in column]


def _evaluate(loaded: Loaded, rows: Sequence[Row]) -> list[float]:
    return peers.evaluate_perplexity(loaded.model, loaded.tokenizer, [row.response for row in rows])


def _losses_alone(loaded: Loaded, size: int, rows: Sequence[Row]) -> list[float]:
    return _exp(_mean_losses(loaded, [""] * len(rows), rows, size))


def _perplexities_after(loaded: Loaded, size: int, rows: Sequence[Row]) -> list[float]:
    return _exp(_mean_losses(loaded, _prompts(rows), rows, size))


def _ratios_of_rows(loaded: Loaded, size: int, rows: Sequence[Row]) -> list[float]:
    after = np.array(_mean_losses(loaded, _prompts(rows), rows, size))
    empty = np.array(_mean_losses(loaded, _prompts(_without_instruction(rows)), rows, size))
    return _exp(after - empty)


def _mean_losses(loaded: Loaded, prompts: Sequence[str], rows: Sequence[Row], size: int) -> list[float]:
    return peers.mean_losses(loaded.model, loaded.tokenizer, prompts, [row.response for row in rows], size)


def _exp(values: Any) -> list[float]:
    found: list[float] = np.exp(np.asarray(values, dtype=np.float64)).tolist()
    return found


def _without_instruction(rows: Sequence[Row]) -> list[Row]:
    return [replace(row, instruction="") for row in rows]


def _prompts(rows: Sequence[Row]) -> list[str]:
    return [TEMPLATES["alpaca"].format(instruction=row.instruction) for row in rows]


def _tokens_alone(tokenizer: Any, rows: Sequence[Row]) -> int:
    return sum(1 + len(ids) for ids in tokenizer([row.response for row in rows], verbose=False)["input_ids"])


def _tokens_after(tokenizer: Any, rows: Sequence[Row]) -> int:
    return _tokens_alone(tokenizer, rows) + sum(map(len, tokenizer(_prompts(rows), verbose=False)["input_ids"]))


def _questions(rows: Sequence[Row]) -> list[list[str]]:
    """The inputs of each dimension, as UniEval's authors write them."""
    wanted = ("naturalness", "coherence", "understandability")
    return [
        [DIMENSIONS[name].format(response=row.response, instruction=row.instruction) for row in rows] for name in wanted
    ]


def _yes(loaded: Loaded, size: int, rows: Sequence[Row]) -> list[float]:
    return [
        score for texts in _questions(rows) for score in peers.yes_scores(loaded.model, loaded.tokenizer, texts, size)
    ]


def _sequences(tokenizer: Any, rows: Sequence[Row]) -> list[list[int]]:
    """Pairs as the model's kind reads them: Open-Assistant's format, or two texts."""
    texts: list[list[str]] = [[row.instruction for row in rows], [row.response for row in rows]]
    if "<|prompter|>" in tokenizer.get_vocab():
        texts = [[f"<|prompter|>{x}{END}<|assistant|>{y}{END}" for x, y in zip(*texts, strict=True)]]
    found: list[list[int]] = tokenizer(*texts, verbose=False)["input_ids"]
    return found


if __name__ == "__main__":
    main()
