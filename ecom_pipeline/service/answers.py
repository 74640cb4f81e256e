"""Answers made of a live model: frames and codes in, messages out.

On the floor of `service`.
"""

import json
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ecom_pipeline.arrays import Bools
from ecom_pipeline.ranking.baselines import words
from ecom_pipeline.recommend.interactions import day_of
from ecom_pipeline.recommend.list_maker import ListRules
from ecom_pipeline.schema.samples import SuspectOrder
from ecom_pipeline.service.live import Live
from ecom_pipeline.service.messages import (
    Result,
    Results,
    SearchRequest,
    Suspect,
    Suspects,
    TextRequest,
    UserWeights,
    WeightedAct,
)
from ecom_pipeline.service.published import PublishedModel
from ecom_pipeline.service.search import Found


def search(model: PublishedModel, asked: SearchRequest) -> Results:
    """Items for a query."""
    found = model.search.find(asked.query, top=asked.top, allowed=_allowed(model, asked), by=asked.by or "weighted")
    wanted = dict.fromkeys(words(asked.query))
    results = []
    for row in range(len(found.item)):
        place = int(found.item[row])
        said = set(words(str(model.search.texts[place])))
        matched = [word for word in wanted if word in said]
        explain = _explained(found, row, matched) if asked.explain else None
        results.append(_result(model, place, float(found.score[row]), _why(found, row, matched), explain))
    return Results(results=results, model=model.name)


def recommend(live: Live, actor: str, *, top: int, system: str) -> Results:
    """A list for somebody's next visit."""
    frame = live.lists(actor, system, ListRules(top))
    rows = zip(frame.item.tolist(), frame.score.tolist(), frame.reason, strict=True)
    return Results(results=[_result(live.model, item, score, why) for item, score, why in rows], model=live.model.name)


def similar(model: PublishedModel, place: int, top: int) -> Results:
    """Items that are like an item; of one that is not ranked, by its text."""
    if place >= model.acts.n_items or model.first_similar[place] == model.first_similar[place + 1]:
        return _by_text(model, str(model.search.texts[place])[:1000], top, but=place)
    rows = model.similar.iloc[model.first_similar[place] : model.first_similar[place + 1]]
    rows = rows[~model.items.withdrawn.to_numpy()[rows.similar_item]].head(top)
    title = model.search.titles[place]
    results = [
        _result(model, item, score, f"like {title}" if by_text else f"taken by those who took {title}")
        for item, score, by_text in zip(rows.similar_item.tolist(), rows.score.tolist(), rows.by_text, strict=True)
    ]
    return Results(results=results, model=model.name)


def like_text(model: PublishedModel, asked: TextRequest) -> Results:
    """Items whose texts are like a text: by meaning, or by words where nothing was read."""
    return _by_text(model, asked.text, asked.top)


def _by_text(model: PublishedModel, text: str, top: int, but: int = -1) -> Results:
    allowed = ~model.items.withdrawn.to_numpy()
    found, score, by_meaning = model.search.like(text, top=top + 1, allowed=allowed)
    why = "like the text" if by_meaning else "has words of the text"
    rows = [row for row in zip(found.tolist(), score.tolist(), strict=True) if row[0] != but]
    results = [_result(model, place, cosine, why) for place, cosine in rows[:top]]
    return Results(results=results, model=model.name)


def weights(live: Live, actor: str, *, system: str, top: int) -> UserWeights:
    """What somebody's history weighs, and why."""
    frame = live.weights(actor, system).head(top)
    maker = live.model.makers.get(system)
    by = ", ".join(maker.index.weighting.reasons) if maker else "none"
    day = live.model.told["day"]
    rows = [
        WeightedAct(
            item_id=str(live.model.items.item_id.iat[row.item]),
            title=str(live.model.search.titles[row.item]),
            day=str(day_of(row.day)),
            times=row.n_acts,
            weight=row.weight,
            counts=row.counts,
            why=_reason(row, day),
        )
        for row in frame.itertuples()
    ]
    return UserWeights(weights=rows, weighed_by=by, model=live.model.name)


def suspects(model: PublishedModel, *, top: int, order: SuspectOrder, rated: Mapping[str, float]) -> Suspects:
    """Samples to look at that nobody has rated yet."""
    frame = model.suspects[~model.suspects.sample_id.isin(list(rated))]
    if len(frame):
        frame = frame[frame[f"by_{order}"].notna()].sort_values(f"by_{order}")
    found = [
        Suspect(
            sample_id=row.sample_id,
            query=row.context_text,
            item_id=row.item_id,
            title=row.title,
            label=row.label,
            relevance=None if pd.isna(row.relevance) else row.relevance,
            wrong_probability=row.wrong_probability,
            worth=row.worth_of_asking,
            why=row.why,
            agreeing=json.loads(row.agreeing),
            disagreeing=json.loads(row.disagreeing),
        )
        for row in frame.head(top).itertuples()
    ]
    return Suspects(suspects=found, grades=model.grades, n_rated=len(rated), model=model.name)


def _allowed(model: PublishedModel, asked: SearchRequest) -> Bools:
    allowed = ~model.items.withdrawn.to_numpy()
    if asked.category:
        allowed &= model.items.category.fillna("").str.lower().str.startswith(asked.category.lower()).to_numpy()
    price = model.items.price.to_numpy(float)
    if asked.min_price is not None:
        allowed &= price >= asked.min_price
    if asked.max_price is not None:
        allowed &= price <= asked.max_price
    return allowed


def _result(
    model: PublishedModel, place: int, score: float, why: str, explain: dict[str, object] | None = None
) -> Result:
    item_id, title = str(model.items.item_id.iat[place]), str(model.search.titles[place])
    return Result.model_construct(item_id=item_id, title=title, score=score, why=why, explain=explain)


def _why(found: Found, row: int, matched: list[str]) -> str:
    parts = []
    if matched and found.word_rank[row]:
        parts.append(f"has {', '.join(matched)}")
    if found.meaning_rank[row]:
        parts.append(f"near in meaning ({found.cosine[row]:.2f})")
    if found.ranked_by in ("weighted", "unweighted"):
        parts.append(f"{found.score[row]:.0%} by the {found.ranked_by} ranker")
    return "; ".join(parts)


def _explained(found: Found, row: int, matched: list[str]) -> dict[str, object]:
    cosine = float(found.cosine[row])
    return {
        "words": matched,
        "word_rank": int(found.word_rank[row]),
        "meaning_rank": int(found.meaning_rank[row]),
        "cosine": cosine if np.isfinite(cosine) else None,
        "fused": float(found.fused[row]),
        "ranked_by": found.ranked_by,
    }


def _reason(row: object, day: int) -> str:
    age = day - row.day  # type: ignore[attr-defined]  # a row of a frame
    told = ["yesterday or today" if age <= 1 else f"{age} days old"]
    if row.by_age < 1:  # type: ignore[attr-defined]
        told.append(f"of which {row.by_age:.0%} is left")  # type: ignore[attr-defined]
    if row.returned:  # type: ignore[attr-defined]
        told.append("it went back")
    if row.times_shown:  # type: ignore[attr-defined]
        told.append(f"shown {row.times_shown} times since and left")  # type: ignore[attr-defined]
    if not row.counts:  # type: ignore[attr-defined]
        told.append("somebody said that it shall not count")
    return ", ".join(told)
