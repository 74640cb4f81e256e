"""How the language model is adapted.

On the floor of `language`.
"""

from dataclasses import asdict, dataclass

OBJECTIVES = ("language", "query", "history", "attribute")


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What is learnt, how much and how.

    Attributes:
        n_steps: steps of the optimizer, all objectives together; 0: the model stays as it was published.
        language: share of the steps that guess words: masked ones, or for decoders the next one.
        query: share of the steps that bring queries near to what was clicked or judged relevant.
        history: share of the steps that bring histories near to what was taken next.
        attribute: share of the steps that bring titles near to brand and category.
        from_samples: whether the training samples' own pairs are taught too. Their out-of-fold scores have then seen
            their labels.
        history_items: earlier items that a history tells of.
        n_top: layers that learn, from the top.
        learning_rate: peak of the schedule.
        batch_pairs: pairs of a step; each is a negative for the others.
        batch_texts: texts of a step that guesses words.
        mask_share: of the tokens, to be guessed.
        temperature: cosines are divided by it before the softmax.
        correct_popularity: whether a right that is often in the pairs is pushed away less: it is in more batches.
        hard_negatives: near items that are no positives, for each pair.
        pool_items: items that hard negatives are looked for among, at most.
        skipped: nearest items that are not taken as hard negatives, as they may be right.
        warmup_share: share of the steps in which the rate rises; then it falls to 0 in a straight line.
        seed: order, masks and hard negatives.
    """

    n_steps: int
    language: float
    query: float
    history: float
    attribute: float
    from_samples: bool
    history_items: int
    n_top: int
    learning_rate: float
    batch_pairs: int
    batch_texts: int
    mask_share: float
    temperature: float
    correct_popularity: bool
    hard_negatives: int
    pool_items: int
    skipped: int
    warmup_share: float
    seed: int

    @property
    def shares(self) -> dict[str, float]:
        """Objective to share of the steps, before what has no data is left out."""
        return {name: getattr(self, name) for name in OBJECTIVES}

    def needs(self, objective: str) -> int:
        """Rows that an objective can read in its steps, each row once; a tenth more, as some fall out."""
        total = sum(self.shares.values())
        batch = self.batch_texts if objective == "language" else self.batch_pairs
        return int(1.1 * self.n_steps * self.shares[objective] / total * batch) + batch if total else 0

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        return asdict(self)


def schedule(shares: dict[str, float], n_steps: int) -> list[str]:
    """Which objective each step has: shares are kept at any moment as well as whole steps can.

    >>> schedule({"query": 2.0, "language": 1.0}, 6)
    ['query', 'language', 'query', 'query', 'language', 'query']
    """
    total, done, result = sum(shares.values()), dict.fromkeys(shares, 0), []
    for step in range(n_steps):
        behind = {name: share / total * (step + 1) - done[name] for name, share in shares.items()}
        chosen = max(behind, key=lambda name: behind[name])
        done[chosen] += 1
        result.append(chosen)
    return result
