"""What does a graph of items' texts cost and find, against looking at all vectors?

    python benchmarks/nearest_items.py DATA --work DIR [--sizes 50000 100000 300000 1000000] [--texts N] [--precision bf16]

DATA holds the folders retrotech, amazon_beauty, crowdflower, online_retail, womens_clothing and esci_ubi. Texts are first the titles of
their products and of Complete Journey's, each once, then the sentences of their descriptions and of reviews, each once, in an order by
hash; they are read with the packaged language model into vectors of 384 numbers. Sizes above the number of texts are filled up with
vectors that nobody wrote: a read one with noise added, so that the cosine to it is about .9; the table says how many. Queries
are what people searched for: CrowdFlower's, ESCI's and RetroTech's, 500 of them by hash. Times are of the processor, one thread and one query at a
time, so that other work on the machine does not count; recall@10 and recall@100 are shares of the nearest ten and hundred, what is as near as the last counting as one of them.
`--work` keeps the vectors between runs.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import duckdb
import numpy as np

from ecom_pipeline.arrays import Singles
from ecom_pipeline.recommend.item_graph import ItemGraph, build
from ecom_pipeline.recommend.nearest_items import ExactItems, NearestItems
from ecom_pipeline.sources.complete_journey import ADAPTER

N_QUERIES, BLOCK, NOISE = 500, 20_000, 0.48
PRODUCTS = {
    "retrotech": ("select name as title, long_description || '. ' || short_description as told", "products.parquet"),
    "amazon_beauty": ("select title, '' as told", "items.parquet"),
    "crowdflower": ("select product_title as title, product_description as told", "train.parquet"),
    "online_retail": ("select Description as title, '' as told", "*.parquet"),
    "womens_clothing": ('select Title as title, "Review Text" as told', "womens_clothing_reviews.parquet"),
}
QUERIES = {"retrotech": ("query", "sessions.parquet"), "crowdflower": ("query", "train.parquet")}


def texts(folder: Path) -> tuple[list[str], int, list[str]]:
    """Texts, how many of them are titles, and queries."""
    parts = [f"{select} from '{folder / name / file}'" for name, (select, file) in PRODUCTS.items()]
    journey = ADAPTER.folder() / "products.parquet"
    parts.append(
        f"select concat_ws(' ', brand, product_category, product_type, package_size) as title, '' as told from '{journey}'"
    )
    asked = [f"select {column} as query from '{folder / name / file}'" for name, (column, file) in QUERIES.items()]
    asked.append(f"""select unnest(judgmentRatings).query as query
        from read_json('{folder / "esci_ubi" / "esci_us_judgments.json"}', maximum_object_size = 100000000)""")
    with duckdb.connect() as db:
        db.execute(f"create table told as {' union all '.join(parts)}")
        titles = db.execute(
            """select distinct trim(title) as text from told where length(trim(title)) > 2 order by md5(text)"""
        ).fetchnumpy()["text"]
        sentences = db.execute(r"""
            with said as (
                select distinct trim(text) as text from (
                    select unnest(regexp_split_to_array(left(told, 4000), '[.!?;]\s+')) as text from told))
            select text from said anti join (select trim(title) as text from told) using (text)
            where length(text) between 15 and 200 order by md5(text)""").fetchnumpy()["text"]
        queries = db.execute(f"""select query from (select distinct lower(trim(query)) as query from ({" union all ".join(asked)}))
            order by md5(query) limit {N_QUERIES}""").fetchnumpy()["query"]
    return [*titles.tolist(), *sentences.tolist()], len(titles), queries.tolist()


def read(folder: Path, work: Path, n: int, precision: str) -> tuple[Singles, Singles, dict[str, int]]:
    """(n, 384) vectors, those of the queries, and how many are of titles, of sentences, and of nothing that was written."""
    told = work / "read.json"
    if not told.is_file():
        _encode(folder, work, n, precision)
    counts = json.loads(told.read_text())
    vectors, queries = np.load(work / "texts.npy", mmap_mode="r"), np.load(work / "queries.npy")
    return vectors, queries, counts


def _encode(folder: Path, work: Path, n: int, precision: str) -> None:
    from ecom_pipeline.language.encoder import PACKAGED, encode, load_encoder
    from ecom_pipeline.language.quantised import quantised

    found, n_titles, queries = texts(folder)
    found = found[:n]
    print(f"{n_titles:,} titles, {len(found):,} texts, {len(queries)} queries", flush=True)
    encoder = load_encoder(PACKAGED, 64, "cpu")
    encoder = quantised(encoder) if precision == "bf16" else encoder
    work.mkdir(parents=True, exist_ok=True)
    np.save(work / "queries.npy", encode(encoder, queries, 4096).embedding)
    parts, started = [], time.monotonic()
    for start in range(0, len(found), BLOCK):
        parts.append(encode(encoder, found[start : start + BLOCK], 4096).embedding)
        print(
            f"read {start + len(parts[-1]):,}, {(start + len(parts[-1])) / (time.monotonic() - started):.0f} a second",
            flush=True,
        )
    np.save(work / "texts.npy", np.concatenate(parts))
    (work / "read.json").write_text(json.dumps({"titles": min(n_titles, n), "texts": len(found)}))


def filled(vectors: Singles, n: int) -> Singles:
    """The first n, with as many more as are wanted: read ones with noise."""
    if n <= len(vectors):
        return np.array(vectors[:n])
    draw, found = np.random.default_rng(0), np.empty((n, vectors.shape[1]), np.float32)
    found[: len(vectors)] = vectors
    for start in range(len(vectors), n, BLOCK):
        rows = slice(start, min(start + BLOCK, n))
        k = rows.stop - rows.start
        noise = draw.normal(size=(k, vectors.shape[1])).astype(np.float32) * np.float32(NOISE / vectors.shape[1] ** 0.5)
        near = vectors[draw.integers(len(vectors), size=k)] + noise
        found[rows] = near / np.linalg.norm(near, axis=1, keepdims=True)
    return found


def timed(items: NearestItems, queries: Singles, k: int) -> tuple[float, list[np.ndarray]]:
    """Median milliseconds a query, and the cosines that were found."""
    took, found = [], []
    for query in queries:
        started = time.process_time()
        _, cosine = items.ask(query[None]).nearest(k)
        took.append(time.process_time() - started)
        found.append(cosine[0])
    return float(np.median(took) * 1000), found


def recall(found: list[np.ndarray], exact: list[np.ndarray]) -> float:
    """Share of the nearest that were found."""
    return float(np.mean([(one >= all_[-1] - 1e-6).mean() for one, all_ in zip(found, exact, strict=True)]))


def measure(vectors: Singles, queries: Singles, folder: Path) -> dict[str, float]:
    """Every figure of one size."""
    exact, before = ExactItems(vectors), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    all_10, all_100 = timed(exact, queries, 10), timed(exact, queries, 100)
    started = time.process_time()
    build(folder, vectors, queries)
    told = {
        "built_s": time.process_time() - started,
        "more_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }
    graph = ItemGraph(vectors, folder)
    few, many = timed(graph, queries, 10), timed(graph, queries, 100)
    allowed = np.random.default_rng(1).random(len(vectors)) < 0.1
    some, some_exact = (
        [items.ask(query[None]).nearest(100, allowed=allowed)[1][0] for query in queries[:100]]
        for items in (graph, exact)
    )
    return told | {
        "texts": graph.n_texts,
        "width": graph.told["width"],
        "recall_at_10": graph.told["recall_at_10"],
        "recall_at_100": recall(many[1], all_100[1]),
        "recall_at_100_of_a_tenth": recall(some, some_exact),
        "exact_10_ms": all_10[0],
        "graph_10_ms": few[0],
        "exact_100_ms": all_100[0],
        "graph_100_ms": many[0],
        "vectors_mib": vectors.nbytes / 2**20,
        "graph_mib": sum(file.stat().st_size for file in folder.iterdir()) / 2**20,
    }


def main() -> None:
    """Print a line of figures for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50_000, 100_000, 300_000, 1_000_000])
    parser.add_argument("--texts", type=int, default=400_000, help="That are read, at most.")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    told = parser.parse_args()
    vectors, queries, counts = read(told.data, told.work, min(told.texts, max(told.sizes)), told.precision)
    for n in told.sizes:
        folder = told.work / f"graph-{n}-{time.time_ns()}"
        written = {"titles": min(n, counts["titles"]), "sentences": max(0, min(n, counts["texts"]) - counts["titles"])}
        figures = {"items": n, **written, "nobody_wrote": max(0, n - counts["texts"])}
        figures |= measure(filled(vectors, n), queries, folder)
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}), flush=True)


if __name__ == "__main__":
    main()
