"""X-Wines: wines, and ratings of them between 1 and 5 with their times (CC0)."""

from pathlib import Path

from ecom_pipeline.sources.source import PLACE, Adapter, Part, quoted


def _recognises(folder: Path) -> bool:
    return (folder / "wines.parquet").is_file() and (folder / "ratings.parquet").is_file()


def _parts(folder: Path) -> list[Part]:
    wines, ratings = folder / "wines.parquet", folder / "ratings.parquet"
    items = f"""
        select WineID::varchar as item_id, WineName as title, WineryName as brand,
            concat_ws(' > ', Type, Country, RegionName) as category, {PLACE}
        from read_parquet({quoted(wines)})"""
    events = f"""
        select Date as occurred_at, UserID::varchar as user_id, 'review' as action, WineID::varchar as item_id,
            Rating as rating, {PLACE}
        from read_parquet({quoted(ratings)})"""
    return [Part("items", wines, lambda db: items), Part("events", ratings, lambda db: events)]


ADAPTER = Adapter("x-wines", _recognises, _parts)
