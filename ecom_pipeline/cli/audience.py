"""`ecom audience`: whom to ask."""

from pathlib import Path
from typing import Annotated

import typer

from ecom_pipeline.cli.app import DEFAULT_HOME, HomeOption, app, finished, writing
from ecom_pipeline.errors import InputError


@app.command()
def audience(
    home: HomeOption = DEFAULT_HOME,
    item: Annotated[str, typer.Option(help="An item_id: who buys it next.")] = "",
    category: Annotated[str, typer.Option(help="A path that an item's category begins with: who buys of it.")] = "",
    campaign: Annotated[str, typer.Option(help="A campaign_id: who answers it.")] = "",
    top: Annotated[int, typer.Option(help="How many users.", min=1)] = 20,
    days: Annotated[int, typer.Option(help="After the end of the data, for an item or a category.", min=1)] = 28,
    share: Annotated[
        float, typer.Option(help="Of all responses: how many users must be asked for it.", min=0, max=1)
    ] = 0.5,
    csv: Annotated[Path | None, typer.Option(help="Write them to this file instead.")] = None,
) -> None:
    """List users, the likeliest to respond first, with the probability; for a campaign also what it adds."""
    from ecom_pipeline.audiences.gains import smallest_list
    from ecom_pipeline.audiences.lists import item_list, items_of, list_of, until

    if sum(map(bool, (item, category, campaign))) != 1:
        raise InputError(
            f"audience: {sum(map(bool, (item, category, campaign)))} of --item, --category and --campaign are given; first: "
            f"{item or category or campaign!r}. Exactly 1 must be: say whom to ask about what."
        )
    with finished(home, "audiences" if campaign else "campaign_users") as db:
        if campaign:
            users, told = list_of(db, campaign), "by campaigns that had ended before it"
        else:
            asked = item_list(db, items_of(db, item=item, category=category), days=days)
            users, told = asked.users, f"{until(db, days)}, {asked.told}"
    n = smallest_list(users.response_probability.to_numpy(float), share)
    if csv:
        writing(csv, lambda: users.head(top).to_csv(csv, index=False))
        print(f"{min(top, len(users))} users: {csv}")
    print(told)
    print(
        f"{users.response_probability.sum():.0f} of {len(users):,} users are expected to respond; the best {n:,} give {share:.0%} of that"
    )
    for row in [] if csv else users.head(top).itertuples():
        more = f"  adds {row.uplift:+.3f}" if campaign and row.uplift == row.uplift else ""
        print(f"{row.response_probability:.3f}  {row.user_id}{more}")
