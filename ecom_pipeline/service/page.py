"""The page for people at `/`: search, a user, a new item, and suspects to rate.

On the floor of `service`. Pages hold no data and need no key: a browser asks for them without one. Their parts are HTML made of
the same answers as the API gives, and bring the key that it asks for. What a page changes goes to the API as JSON, which no
page of another origin can send.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import jinja2
import numpy as np
import pandas as pd
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic import ConfigDict

from ecom_pipeline.recommend.interactions import day_of
from ecom_pipeline.schema.samples import SuspectOrder
from ecom_pipeline.service import answers
from ecom_pipeline.service.guards import require
from ecom_pipeline.service.live import Live
from ecom_pipeline.service.messages import Id, Results, SearchRequest, TextRequest
from ecom_pipeline.service.published import SYSTEMS, PublishedModel

if TYPE_CHECKING:
    from ecom_pipeline.service.app import House

_HERE = Path(__file__).parent
_PAGES = {"/": "search", "/page/user": "user", "/page/new-item": "new_item", "/page/suspects": "suspects"}
_POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
N_LISTED, N_HISTORY, N_PEOPLE, N_CATEGORIES = 10, 50, 8, 300


class Asked(SearchRequest):
    """A query of the page, whose address holds text alone."""

    model_config = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)

    side_by_side: bool = False


def add_page(app: FastAPI, house: "House") -> None:
    """Put the page for people at `/`, its parts below `/page` and its files below `/static`."""
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
    pages, look = APIRouter(include_in_schema=False), Look()
    for path, name in _PAGES.items():
        pages.add_api_route(path, _shell(house, look, name), response_class=HTMLResponse)
    _add_search(pages, house, look)
    _add_people(pages, house, look)
    _add_suspects(pages, house, look)
    app.include_router(pages)


class Look:
    """Templates, and how numbers are written in them; whatever comes from data is escaped."""

    def __init__(self) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {"score": _score, "share": _share}

    def page(self, template: str, **told: Any) -> HTMLResponse:
        """A page, or a part of one."""
        text = self._environment.get_template(f"{template}.html.j2").render(**told)
        return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY})

    def part(self, template: str, request: Request, address: str, **told: Any) -> HTMLResponse:
        """A part, and the address under which its page shows it again."""
        response = self.page(f"parts/{template}", **told)
        if not request.headers.get("HX-Current-URL", "").endswith(address):
            response.headers["HX-Push-Url"] = address
        return response


def _score(value: float) -> str:
    """A score to three digits; what is nearly nothing is not written as a power of ten."""
    return "< 0.001" if 0 < value < 0.001 else f"{value:.3g}"


def _share(value: float) -> str:
    """A share in [0, 1] in per cent; what is nearly certain is not written as certain."""
    if 0 < value < 0.001 or 0.999 < value < 1:
        return "< 0.1 %" if value < 0.5 else "> 99.9 %"
    return f"{100 * value:.3g} %"


def _shell(house: "House", look: Look, name: str) -> Any:
    def page(request: Request) -> HTMLResponse:
        model = house.serving.model
        return look.page(
            name,
            asked=defaultdict(str, request.query_params),
            model=model.name,
            day=day_of(model.told["day"]),
            refused=house.serving.refused,
        )

    return page


def _add_search(pages: APIRouter, house: "House", look: Look) -> None:
    read = [require("read", house.keys)]

    @pages.get("/page/parts/found", dependencies=read)
    def found(request: Request, asked: Annotated[Asked, Query()]) -> HTMLResponse:
        model = house.serving.model
        systems = (*SYSTEMS, "none") if asked.side_by_side else (asked.by or "weighted",)
        each = [asked.model_copy(update={"by": system, "explain": True}) for system in systems]
        told = [(one.by, _with_items(model, answers.search(model, one))) for one in each]
        address = "/?" + urlencode(asked.model_dump(exclude_defaults=True))
        return look.part("found", request, address, lists=told, query=asked.query)

    @pages.get("/page/parts/categories", dependencies=read)
    def categories() -> HTMLResponse:
        known = house.serving.model.items.category.value_counts().index[:N_CATEGORIES]
        return look.page("parts/categories", categories=sorted(known))

    @pages.get("/page/parts/alike", dependencies=read)
    def alike(request: Request, asked: Annotated[TextRequest, Query()]) -> HTMLResponse:
        model = house.serving.model
        rows = _with_items(model, answers.like_text(model, asked))
        address = "/page/new-item?" + urlencode(asked.model_dump(exclude_defaults=True))
        return look.part("alike", request, address, rows=rows, text=asked.text)


def _with_items(model: PublishedModel, results: Results) -> list[tuple[Any, Any]]:
    """Each result, and the item that it is."""
    return [(one, model.items.iloc[model.place[one.item_id]]) for one in results.results]


def _add_people(pages: APIRouter, house: "House", look: Look) -> None:
    read = [require("read", house.keys)]

    @pages.get("/page/parts/people", dependencies=read)
    def people() -> HTMLResponse:
        return look.page("parts/people", people=_some_people(house.serving.model))

    @pages.get("/page/parts/lists", dependencies=read)
    def lists(request: Request, user: Id) -> HTMLResponse:
        live, actor = house.serving.live, house.user(user)
        known = actor if actor in live.model.user else user  # so that a link to a known user holds no id
        return look.part(
            "lists",
            request,
            f"/page/user?{urlencode({'user': known})}",
            user=known,
            anything=live.knows(actor),
            history=answers.weights(live, actor, system="weighted", top=N_HISTORY),
            lists=[(system, _listed(live, actor, system)) for system in SYSTEMS],
        )


def _listed(live: Live, actor: str, system: str) -> list[tuple[Any, Any]]:
    return _with_items(live.model, answers.recommend(live, actor, top=N_LISTED, system=system))


def _some_people(model: PublishedModel) -> list[tuple[str, int]]:
    """A few users, from the longest history to the shortest, and how many days with an item each has."""
    n_rows = np.bincount(model.acts.user, minlength=model.acts.n_users)
    order = np.argsort(-n_rows, kind="stable")[: np.count_nonzero(n_rows)]
    if not len(order):
        return []
    spread = np.unique(np.linspace(0, len(order) - 1, min(N_PEOPLE, len(order))).astype(int))
    return [(str(model.acts.user_ids[code]), int(n_rows[code])) for code in order[spread]]


def _add_suspects(pages: APIRouter, house: "House", look: Look) -> None:
    label = [require("label", house.keys)]

    @pages.get("/page/parts/card", dependencies=label)
    def card(
        order: SuspectOrder = "probability", skipped: Annotated[str, Query(max_length=40_000)] = ""
    ) -> HTMLResponse:
        """The first suspect that nobody has rated and this rater has not left aside; ids are parted by commas."""
        model, rated = house.serving.model, house.serving.rated
        aside = set(filter(None, skipped.split(",")))
        found = answers.suspects(model, top=len(aside) + 1, order=order, rated=rated)
        listed = model.suspects if model.suspects.empty else model.suspects[model.suspects[f"by_{order}"].notna()]
        return look.page(
            "parts/card",
            one=next((one for one in found.suspects if one.sample_id not in aside), None),
            told=found,
            n_aside=sum(one.sample_id in aside for one in found.suspects),
            n_all=len(listed),
            n_done=int(listed.sample_id.isin(list(rated)).sum()),
            n_changed=_n_changed(listed, rated),
            effect=model.told.get("rating_effect"),
        )


def _n_changed(listed: pd.DataFrame, rated: Mapping[str, float]) -> int:
    """Suspects whose grade is another than raters gave."""
    if listed.empty:
        return 0
    given = listed.sample_id.map(rated)
    return int((given.notna() & (given != listed.relevance)).sum())
