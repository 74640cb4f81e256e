"""`ecom simulate`: shoppers of known taste drive a running service, and the true effect of an experiment is told."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import typer

from ecom_pipeline.cli.app import DEFAULT_HOME, HomeOption, app, enter, finished
from ecom_pipeline.errors import InputError

_SECONDS = 30


@app.command()
def simulate(
    name: Annotated[str, typer.Argument(help="Of an experiment in experiments.yaml of the home that changes lists.")],
    home: HomeOption = DEFAULT_HOME,
    url: Annotated[str, typer.Option(help="Of a running `ecom serve` of this home.")] = "http://127.0.0.1:8000",
    key: Annotated[
        str, typer.Option(envvar="ECOM_API_KEY", help="With the scopes read and events, if keys are made.")
    ] = "",
    users: Annotated[int, typer.Option(help="Shoppers, of the home's own users.", min=2)] = 200,
    visits: Annotated[int, typer.Option(help="Of each shopper.", min=1)] = 3,
    attention: Annotated[
        float, typer.Option(help="The n-th item is looked at with n to the power of minus this.", min=0)
    ] = 0.7,
    novelty: Annotated[float, typer.Option(help="Share by which the new is looked at more at first.", min=0)] = 0.0,
    bots: Annotated[float, typer.Option(help="Share of the shoppers that only click.", min=0, max=1)] = 0.0,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.", min=0)] = 0,
) -> None:
    """Let shoppers of known taste use the service, and tell what an experiment's arms truly sell.

    The service keeps what they do as it keeps everything: use a copy of the home. Afterwards `ecom run` and `ecom experiment`
    read it as they read any day, and may be held against the truth.
    """
    enter(home)
    from ecom_pipeline import definitions
    from ecom_pipeline.experiments.plan import named, read_experiments
    from ecom_pipeline.experiments.shoppers import read_shoppers
    from ecom_pipeline.experiments.simulator import Habits, walk

    with finished(home, "cleaned_interactions") as db:
        asked = named(read_experiments(definitions.HOME.experiments), name)
        found = read_shoppers(db, users, seed=seed)
    systems = {arm.name: arm.system or "weighted" for arm in asked.arms}
    if asked.changes != "lists":
        raise InputError(
            f"simulate: 1 experiment changes {asked.changes}: {name!r}. Shoppers look at lists alone: name one that changes lists."
        )
    at = [""]

    def ask(path: str, body: object = None) -> tuple[Mapping, str]:
        return _ask(url.rstrip("/") + path, key, body)

    def listed(shopper: str, system: str = "") -> tuple[list[str], str]:
        more = f"&system={system}" if system else ""
        answer, header = ask(f"/users/{urllib.parse.quote(shopper)}/recommendations?top=10{more}")
        return [row["item_id"] for row in answer["results"]], header

    def answer(shopper: str) -> tuple[list[str], str]:
        at[0] = shopper
        items, header = listed(shopper)
        arms = dict(one.split("=", 1) for one in header.split("; ") if one)
        if name not in arms:
            raise InputError(
                f"simulate: 1 shopper is in no arm of {name!r}; first: {shopper!r}. The service must run it on its day, for users "
                "and all of the traffic: see its days and `/ready`, or start the service on this home."
            )
        return items, arms[name]

    def tell(events: Sequence[Mapping[str, object]]) -> None:
        ask("/events", {"events": [{"user_id": at[0], **event} for event in events]})

    walked = walk(
        found.ids,
        found.taste,
        found.prices,
        answer=answer,
        lists=lambda shopper, arm: listed(shopper, systems[arm])[0],
        tell=tell,
        arms=tuple(systems),
        n_visits=visits,
        habits=Habits(attention, novelty, bots),
        seed=seed,
    )
    rows, control = walked.shoppers, asked.control.name
    print(f"{len(rows):,} shoppers, {walked.n_events:,} events kept")
    for arm in systems:
        of_arm = rows[rows.arm == arm]
        error = 1.96 * of_arm.revenue.std() / np.sqrt(max(len(of_arm), 1))
        print(
            f"  {arm:<20}{len(of_arm):>7,} shoppers, spent {of_arm.revenue.mean():8.3f} ± {error:.3f}; "
            f"all would spend {rows[f'expected_{arm}'].mean():8.3f}"
        )
    for arm in [arm for arm in systems if arm != control]:
        print(f"true effect of {arm}: {walked.effect(arm, control):+.4f} a shopper")


def _ask(url: str, key: str, body: object) -> tuple[Mapping, str]:
    if not url.startswith(("http://", "https://")):
        raise InputError(
            f"--url: 1 address is none: {url!r}. It must begin with http:// or https://: give that of the service."
        )
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=_SECONDS) as answer:
            return json.load(answer), answer.headers.get("X-Experiment", "")
    except (OSError, ValueError) as error:
        told = error.read().decode(errors="replace")[:300] if isinstance(error, urllib.error.HTTPError) else str(error)
        raise InputError(
            f"simulate: 1 request failed: {url!r}: {told}. A service of this home must answer there: start `ecom serve`, and give "
            "its address with --url and a key with --key."
        ) from error
