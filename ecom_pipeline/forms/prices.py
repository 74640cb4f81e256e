"""Numbers and prices: signs of currencies, groups of thousands, and the comma or the point before decimals.

`1.099` and `1,099` alone could be either. What else the column of a file has decides; where it decides nothing, they are
not read.
"""

from collections.abc import Mapping

from duckdb import DuckDBPyConnection

from ecom_pipeline.forms.texts import knows
from ecom_pipeline.quoting import literal

_SIGN = r"(?:[A-Z]{0,3}\p{Sc}|[A-Z]{3}|[Kk]r\.?|Kč|zł|Rs\.?|Ft|Fr\.?|lei)"
# the figures of a price in group 1; blanks and apostrophes part thousands
_PRICE = rf"^{_SIGN}?\s*([+-]?(?:[0-9]{{1,3}}(?:[ '’][0-9]{{3}})+|[0-9][0-9.,]*)(?:[.,][0-9]+)?)\s*(?:,-|\.-|,–)?\s*{_SIGN}?$"
_EITHER = r"^[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}$"
_WHOLE = r"^[+-]?[0-9]+$"
_COMMA = r"^[+-]?(?:[0-9]+|[1-9][0-9]{0,2}(?:\.[0-9]{3})+),[0-9]+$|^[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3}){2,}$"
_POINT = (
    r"^[+-]?(?:[0-9]+|[1-9][0-9]{0,2}(?:,[0-9]{3})+|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3})\.[0-9]+$"
    r"|^[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3}){2,}$|^[+-]?[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}$"
)


def make_macros(db: DuckDBPyConnection, forms: Mapping[str, str]) -> None:
    """Give a connection macros for numbers, currencies and prices: null where they cannot be read.

    Args:
        db: a connection with the macros of `texts`.
        forms: of the files whose prices are not all plain numbers, what `EVIDENCE` tells.
    """
    of_file = " ".join(f"when {literal(file)} then {literal(form)}" for file, form in forms.items())
    form = f"case file {of_file} else 'plain' end" if forms else "'plain'"
    db.execute(f"create or replace temp macro price_form(file) as {form}")
    if not knows(db, "nonnegative(null)"):
        _make_constant(db)


def _make_constant(db: DuckDBPyConnection) -> None:
    """The macros that are the same for all files; `price_form`, which `read_price` asks, is not among them."""
    db.execute(
        "create or replace temp macro finite(n) as case when isfinite(n) then n end;"
        "create or replace temp macro read_number(t) as finite(coalesce(try_cast(t as double), try_cast(filled(t) as double)));"
        # a position such as 1.5 must not be rounded to an integer
        "create or replace temp macro whole(n) as case when n % 1 = 0 then try_cast(n as integer) end;"
        "create or replace temp macro nonnegative(n) as case when n >= 0 then n end"
    )
    figures = f"regexp_replace(regexp_extract(spaced(filled(t)), {literal(_PRICE)}, 1), '[ ''’]', '', 'g')"
    db.execute(f"create or replace temp macro figures(t) as {figures}")
    comma, point, either, whole = (f"regexp_matches(f, {literal(p)})" for p in (_COMMA, _POINT, _EITHER, _WHOLE))
    with_comma = "try_cast(replace(replace(f, '.', ''), ',', '.') as double)"
    with_point = "try_cast(replace(f, ',', '') as double)"
    db.execute(
        f"""create or replace temp macro figures_form(f) as case when {whole} then 'whole' when {either} then 'either'
            when {comma} then 'comma' when {point} then 'point' end;
        create or replace temp macro figures_number(f, form) as case figures_form(f)
            when 'whole' then try_cast(f as double) when 'comma' then {with_comma} when 'point' then {with_point}
            when 'either' then case form when 'comma' then {with_comma} when 'point' then {with_point} end end"""
    )
    db.execute(
        "create or replace temp macro read_currency(t) as case when regexp_full_match(upper(filled(t)), '[A-Z]{3}') "
        "then upper(filled(t)) else case filled(t) when '€' then 'EUR' when '£' then 'GBP' when '₹' then 'INR' end end"
    )
    # a column of plain numbers, as most are, is cast and nothing more
    plain = "case when price_form(file) in ('plain', 'point') then try_cast(t as double) end"
    db.execute(
        f"create or replace temp macro read_price(t, file) as finite(coalesce({plain}, "
        "case when price_form(file) <> 'plain' then figures_number(figures(t), price_form(file)) end))"
    )


# an SQL expression over the column t of a file: how its prices are written
EVIDENCE = """
    case when count(filled(t)) = count(try_cast(filled(t) as double)) then 'plain'
        when bool_or(figures_form(figures(t)) = 'comma') and bool_or(figures_form(figures(t)) = 'point') then 'both'
        when bool_or(figures_form(figures(t)) = 'comma') then 'comma'
        when bool_or(figures_form(figures(t)) = 'point' or regexp_matches(t, '[£₹¥₩₪]|GBP|INR|JPY|Rs')) then 'point'
        when bool_or(try_cast(filled(t) as double) is null and figures(t) <> '') then 'either'
        else 'point' end"""
