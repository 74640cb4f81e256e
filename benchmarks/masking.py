"""How much of 1,000 planted entities `masked` finds, how much else it takes for one, and how many texts it reads a second.

    python benchmarks/masking.py [--texts 1000000]

The set: 1,000 entities of ten kinds, 100 each, drawn with a seed by this file: formats of a dozen countries, with names of
streets, cities and hosts from lists here, digits at random, and check digits that are right. Each is planted at the
beginning, in the middle or at the end of a title of the packaged catalogue, which is real, in a sentence that people write
around such things. The patterns were written by the same hand as the formats, so recall says that they do what they are
meant to, not how many ways there are to write an address. What is masked of 91,928 real titles, and of 1,000 numbers of
articles, sizes and dates that look like entities, is wrong. Seconds are of one thread, beside DuckDB's own over the same
texts with one expression of the forms without check digits and addresses, which is what stood here before.
"""

import argparse
import random
import time
from collections import Counter

import duckdb
import pyarrow as pa

from ecom_pipeline import forms, sources
from ecom_pipeline.quoting import literal
from ecom_pipeline.sources import masking, people

STREETS = (
    "Maple",
    "Washington",
    "King",
    "Church",
    "Oak Hill",
    "Lakeview",
    "Elm",
    "Victoria",
    "St. James",
    "Martin Luther",
)
KINDS_OF_STREET = ("Street", "St", "Avenue", "Ave.", "Road", "Rd", "Lane", "Drive", "Blvd", "Court", "Crescent")
CITIES = ("Springfield, IL 62704", "Leeds", "Portland, OR 97201", "Austin", "Bristol")
GERMAN = ("Haupt", "Bahnhof", "Schiller", "Goethe", "Linden", "Berliner ", "Garten", "Wald")
FRENCH = ("de la République", "des Lilas", "de l'Église", "Victor Hugo", "du Moulin", "Jean Jaurès")
LATIN = ("Calle Mayor {}", "Via Roma {}", "Avenida da Liberdade {}", "Piazza Garibaldi, {}", "Paseo de Gracia {}")
CHINESE = (
    "上海市黄浦区南京东路{}号",
    "北京市朝阳区建国路{}号",
    "广东省深圳市南山区科技园路{}号3栋502室",
    "杭州市西湖区文三路{}号",
    "台北市信義區信義路五段{}號",
    "成都市武侯区天府大道{}号",
    "重庆市渝中区解放碑民权路{}号12楼",
    "虹桥路{}弄6号",
)
JAPANESE = ("東京都新宿区西新宿{}丁目8-1", "大阪府大阪市北区梅田{}丁目1番3号", "京都市中京区河原町通{}-5")
HOSTS = ("example.org", "mail.example.com", "shop.example.co.uk", "example.de", "sub.example.fr", "example.cn")
AROUND = (
    "please send {title} to {entity}",
    "{entity} wants {title}",
    "{title}, call {entity} tomorrow",
    "{title} {entity}",
    "is {title} ok? {entity}. thanks",
    "re: {title} ({entity})",
    "{title} - {entity} - urgent",
)


def digits(draw: random.Random, n: int) -> str:
    """So many digits."""
    return "".join(draw.choice("0123456789") for _ in range(n))


def card(draw: random.Random) -> str:
    """A number with Luhn's digit, of four networks, with blanks, hyphens or nothing between."""
    start, n = draw.choice((("4", 16), ("52", 16), ("37", 15), ("62", 16)))
    body = start + digits(draw, n - 1 - len(start))
    number = next(body + last for last in "0123456789" if masking.is_card(body + last))
    mark = draw.choice(("", " ", "-"))
    return mark.join(number[place : place + 4] for place in range(0, n, 4))


def iban(draw: random.Random) -> str:
    """An account of three countries, in fours or in one."""
    country, body = draw.choice((("DE", digits(draw, 18)), ("GB", "WEST" + digits(draw, 14)), ("FR", digits(draw, 23))))
    number = next(f"{country}{n:02}{body}" for n in range(2, 99) if masking.is_iban(f"{country}{n:02}{body}"))
    return draw.choice((number, " ".join(number[place : place + 4] for place in range(0, len(number), 4))))


def phone(draw: random.Random) -> str:
    """A phone as eight countries write it."""
    form = draw.choice(
        (
            "+49 170 #######",
            "+1 (###) ###-####",
            "(###) ###-####",
            "###-###-####",
            "+33 6 ## ## ## ##",
            "06 ## ## ## ##",
            "020 7### ####",
            "0044 20 #### ####",
            "0171 #######",
            "030/#######",
        )
    )
    return "".join(draw.choice("23456789") if one == "#" else one for one in form)


def chinese_phone(draw: random.Random) -> str:
    """A mobile or a landline."""
    mobile = "1" + draw.choice("3456789") + digits(draw, 9)
    return draw.choice(
        (
            mobile,
            f"{mobile[:3]} {mobile[3:7]} {mobile[7:]}",
            f"+86 {mobile}",
            f"010-{draw.choice('5678')}{digits(draw, 7)}",
        )
    )


def english(draw: random.Random) -> str:
    """An English address, with its city or without."""
    street = f"{draw.randint(1, 9999)} {draw.choice(STREETS)} {draw.choice(KINDS_OF_STREET)}"
    return draw.choice(
        (
            street,
            street.lower() if street.endswith(("Street", "Road", "Lane")) else street,
            f"{street}, {draw.choice(CITIES)}",
        )
    )


def continental(draw: random.Random) -> str:
    """A German, French, Spanish, Italian or Portuguese one."""
    n = draw.randint(1, 250)
    name = draw.choice(GERMAN)
    german = (
        f"{name}Straße {n}" if name.endswith(" ") else f"{name}{draw.choice(('straße', 'str.', 'weg', 'allee'))} {n}"
    )
    return draw.choice(
        (german, f"{n} rue {draw.choice(FRENCH)}", draw.choice(LATIN).format(n), f"{german}, 10115 Berlin")
    )


ENTITIES = {
    "mail": lambda draw: (
        f"{draw.choice(('ann', 'bob.miller', 'li_wei', 'x+news'))}{digits(draw, 2)}@{draw.choice(HOSTS)}"
    ),
    "phone": phone,
    "Chinese phone": chinese_phone,
    "card": card,
    "account": iban,
    "address, English": english,
    "address, continental": continental,
    "address, Chinese": lambda draw: draw.choice(CHINESE).format(draw.randint(1, 999)),
    "address, Japanese": lambda draw: draw.choice(JAPANESE).format(draw.randint(1, 9)),
    "network": lambda draw: draw.choice(
        (".".join(str(draw.randint(1, 254)) for _ in range(4)), f"fe80::1ff:fe{digits(draw, 2)}:{digits(draw, 4)}:890a")
    ),
}
LOOKALIKES = (
    lambda draw: digits(draw, draw.choice((12, 13))),  # EAN, UPC
    lambda draw: f"4{digits(draw, 15)}",  # of a card's length: one in ten has Luhn's digit
    lambda draw: f"{draw.randint(10, 90)} x {draw.randint(10, 90)} x {draw.randint(10, 90)} cm",
    lambda draw: (
        f"20{draw.randint(10, 26)}-0{draw.randint(1, 9)}-{draw.randint(10, 28)} 1{digits(draw, 1)}:2{digits(draw, 1)}:33"
    ),
    lambda draw: (
        f"model {digits(draw, 4)}-{digits(draw, 2)} v{draw.randint(1, 9)}.{draw.randint(0, 9)}.{draw.randint(0, 9)}"
    ),
    lambda draw: f"{draw.randint(2, 4)} way {draw.choice(('splitter', 'valve'))} {draw.randint(1, 90)} mm",
    lambda draw: f"{draw.randint(2, 40)} place setting, {draw.randint(2, 90)} pieces",
    lambda draw: f"{digits(draw, 6)} {digits(draw, 4)}",
)


def planted(titles: list[str], draw: random.Random) -> list[tuple[str, str, str]]:
    """Kind, entity and text of 100 of each kind."""
    return [
        (kind, entity := make(draw), draw.choice(AROUND).format(title=draw.choice(titles), entity=entity))
        for kind, make in ENTITIES.items()
        for _ in range(100)
    ]


def show_recall(rows: list[tuple[str, str, str]]) -> int:
    """Print how many are gone whole, by kind; returns the masks in which nothing was planted."""
    whole, wrong = Counter(), 0
    for kind, entity, text in rows:
        found = people.masked(text)
        whole[kind] += entity not in found and _left(entity, text, found) == 0
        wrong += max(0, found.count(people.MASK) - 1)
    print(f"{'kind':<24}{'whole':>8}")
    for kind in ENTITIES:
        print(f"{kind:<24}{whole[kind]:>7}%")
    print(f"{'all':<24}{sum(whole.values()) / len(rows):>8.1%}")
    return wrong


def _left(entity: str, text: str, found: str) -> int:
    """Digits and signs of an entity that still stand where it stood."""
    before, after = text.split(entity, 1)
    inside = found.removeprefix(before[: _shared(before, found)])
    rest = inside.split(people.MASK)
    return sum(one.isdigit() for one in "".join(rest)) - sum(one.isdigit() for one in after)


def _shared(a: str, b: str) -> int:
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def speed(titles: list[str], rows: list[tuple[str, str, str]], n: int) -> None:
    """Print seconds over so many texts, of which 1 in 100 holds an entity."""
    texts = [
        rows[(place // 100) % len(rows)][2] if place % 100 == 0 else titles[place % len(titles)] for place in range(n)
    ]
    former = "|".join(
        (
            masking._EMAIL,
            masking._IPV6,
            masking._IPV4,
            r"(?:\+|\b00)[1-9]\d{0,2}[ ().\d/-]{6,16}\d|\(\d{2,5}\) ?\d[\d -]{4,10}\d|\b\d{3}[-. ]\d{3}[-. ]\d{4}\b",
            r"\b\d{4}([ -])\d{4}[ -]\d{4}[ -]\d{1,7}\b",
        )
    )
    with duckdb.connect() as db:
        db.execute("set threads = 1")
        forms.make_macros(db, "events")
        people.make_macro(db, b"benchmark")
        db.register("given", pa.table({"t": texts}))
        db.execute("create table texts as from given")
        (n_bytes,) = db.execute("select sum(strlen(t)) from texts").fetchall()[0]
        (n_asked,) = db.execute(
            f"select count(*) from texts where regexp_matches(t, {literal(masking.MAY_TELL)})"
        ).fetchall()[0]
        print(f"\n{n:,} texts of {n_bytes / n:.0f} bytes, of which {n_asked / n:.2%} are looked at closely")
        ways = {
            "masked": "masked(t)",
            "one expression, before": f"regexp_replace(t, {literal(former)}, '(masked)', 'g')",
        }
        for name, expression in ways.items():
            taken = []
            for _ in range(3):
                started = time.perf_counter()
                db.execute(f"select sum(strlen({expression})) from texts").fetchall()
                taken.append(time.perf_counter() - started)
            print(f"{name:<24}{min(taken):>8.2f} s {n / min(taken):>12,.0f} texts/s")
    started = time.perf_counter()
    for text in texts[: n // 10]:
        people.masked(text)
    print(f"{'one by one, in Python':<24}{10 * (time.perf_counter() - started):>8.2f} s, of a tenth of them")


def main() -> None:
    """Print recall, precision and speed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=1_000_000)
    asked = parser.parse_args()
    draw = random.Random(0)
    with duckdb.connect() as db:
        sources.find(sources.DEFAULT).land(db, "items", hash_key=b"benchmark")
        titles = [
            title
            for (title,) in db.execute(
                "select title from raw_items where trim(title) <> '' order by item_id"
            ).fetchall()
        ]
    rows = planted(titles, draw)
    wrong = show_recall(rows)
    looks = [draw.choice(LOOKALIKES)(draw) for _ in range(1000)]
    taken = [text for text in looks if people.masked(text) != text]
    real = [title for title in titles if people.masked(title) != title]
    print(
        f"precision on the planted set {len(rows) / (len(rows) + wrong):.1%}: {wrong} masks more than there are entities"
    )
    print(f"lookalikes masked: {len(taken)} of {len(looks):,}; first: {taken[:3]}")
    print(f"real titles masked: {len(real)} of {len(titles):,}; first: {real[:3]}")
    speed(titles, rows, asked.texts)


if __name__ == "__main__":
    main()
