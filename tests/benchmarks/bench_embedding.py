"""Real tokens per second of Embedder, against ``encode`` as a user calls it and the bare encoder in full batches.

``python tests/benchmarks/bench_embedding.py --data FILE --rows 2000``. The texts are the instructions and the
responses of the rows, in their order. ``--bfloat16`` adds that precision, several times slower than float32 on a
processor without instructions for it.
"""

from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from common import arguments, compare, read_rows, report
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from im_datasets.data.columns import Columns
from im_datasets.models import embedder as embedding
from im_datasets.models.devices import choose_device
from im_datasets.models.embedder import TOKEN_BUDGET, Embedder
from im_datasets.models.hub_models import embedded_model_folder, quiet_loading

ENCODE = "encode(), batches of 32"
OURS, BARE = "Embedder, ", "bare encoder, full batches, "
PACKAGES = ("torch", "transformers", "sentence-transformers", "tokenizers")


def main() -> None:
    """Time them on the same texts, or for the bare encoder on as many tokens."""
    parser = arguments(__doc__.partition("\n")[0], rounds=3)
    parser.add_argument("--bfloat16", action="store_true", help="add bfloat16")
    options = parser.parse_args()
    texts = _texts(options)
    user = SentenceTransformer(str(embedded_model_folder()[0]), device=choose_device(None))
    lengths = [min(len(ids), user.max_seq_length) for ids in user.tokenizer(texts, verbose=False)["input_ids"]]
    tokens, mean = sum(lengths), round(sum(lengths) / len(lengths))
    subjects: dict[str, Callable[[], object]] = {ENCODE: lambda: user.encode(texts, show_progress_bar=False)}
    for dtype in ("float32", "bfloat16") if options.bfloat16 else ("float32",):
        subjects[OURS + dtype] = partial(_embed, dtype, texts)
        subjects[BARE + dtype] = _bare(dtype, tokens, mean)
    results = compare(subjects, items=tokens, rounds=options.rounds, clock="wall")
    report(
        "embedding",
        results,
        data=f"{options.data.name}, {len(texts)} distinct texts, {tokens} tokens, {mean} in the mean",
        covers="texts to vectors, tokenising included; for the bare encoder its forward passes alone",
        clock="wall",
        packages=PACKAGES,
        out=options.out,
        facts={
            "items": "real tokens",
            "threads": torch.get_num_threads(),
            "processor": torch.backends.cpu.get_cpu_capability(),
            **_shares({result.subject: result.seconds for result in results}),
            **_agreement(texts, user.encode(texts, show_progress_bar=False), options.bfloat16),
        },
    )


def _shares(seconds: dict[str, float]) -> dict[str, float]:
    """Our tokens per second over the bare encoder's, per precision."""
    return {
        f"share of the bare encoder, {dtype}": round(seconds[BARE + dtype] / seconds[OURS + dtype], 3)
        for dtype in ("float32", "bfloat16")
        if OURS + dtype in seconds
    }


def _agreement(texts: list[str], reference: NDArray[np.float32], bfloat16: bool) -> dict[str, float]:
    """How far our vectors are from those of ``encode``, and bfloat16 from float32."""
    single = _embed("float32", texts)
    facts = {"largest difference from encode()": float(f"{np.abs(single - reference).max():.2g}")}
    if bfloat16:
        cosines = np.einsum("ij,ij->i", single, _embed("bfloat16", texts))
        facts |= {"bfloat16 to float32, least cosine": round(float(cosines.min()), 6)}
        facts |= {"bfloat16 to float32, mean cosine": round(float(cosines.mean()), 6)}
    return facts


def _texts(options: Namespace) -> list[str]:
    """Distinct instructions and responses."""
    rows = read_rows(options.data, options.rows)
    batch = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    pairs = Columns.detect(list(batch)).pairs(batch)
    both = (text for pair in zip(pairs.instructions, pairs.responses, strict=True) for text in pair)
    return list(dict.fromkeys(text for text in both if text))


def _embed(dtype: str, texts: list[str]) -> NDArray[np.float32]:
    """All the work, as in a new process with the model loaded."""
    embedding._CACHE = embedding._Cache()
    return Embedder(dtype=dtype).embed(texts)


def _bare(dtype: str, tokens: int, length: int) -> Callable[[], None]:
    """Forward passes over as many tokens, each batch full and of the mean length, without padding or mask.

    On a CPU each thread runs batches of its own: threads that share small batches wait for each other.
    """
    from transformers import BertModel

    device = choose_device(None)
    folder = embedded_model_folder()[0]
    with quiet_loading():
        model = BertModel.from_pretrained(folder, dtype=getattr(torch, dtype), add_pooling_layer=False).to(device)
    rows = max(1, TOKEN_BUDGET[device.partition(":")[0]] // length)
    ids = torch.randint(1000, 20_000, (rows, length), generator=torch.Generator().manual_seed(0)).to(device)
    passes = max(1, round(tokens / ids.numel()))

    def forward(_: int) -> None:
        with torch.inference_mode():
            model(input_ids=ids)

    def run() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        with ThreadPoolExecutor(threads if device == "cpu" else 1) as pool:
            list(pool.map(forward, range(passes)))
        torch.set_num_threads(threads)
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    return run


if __name__ == "__main__":
    main()
