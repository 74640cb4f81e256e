"""What a free text gives away of a person by its form: addresses of mail, network and post, numbers of phones and accounts.

On the floor of `sources`. The one place for it. What is checked by more than its form, as numbers of cards and accounts have
digits for that, is masked only where that holds; so numbers of articles stay.
"""

import re
from collections.abc import Callable

MASK = "(masked)"
_EMAIL = r"[A-Za-z0-9._%+'-]+(?:@|%40)[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"
_IPV4 = r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b"
_IPV6 = r"\b(?:[0-9A-Fa-f]{1,4}:){3,7}(?::?[0-9A-Fa-f]{1,4}){1,4}\b|\b(?:[0-9A-Fa-f]{1,4}:){1,6}(?::[0-9A-Fa-f]{1,4}){1,6}\b"
_PHONE = (
    r"(?:\+|\b00)[1-9]\d{0,2}[ ().\d/-]{6,16}\d|\(\d{2,5}\) ?\d[\d -]{4,10}\d|\b\d{3}[-. ]\d{3}[-. ]\d{4}\b"
    r"|\b0\d{1,4}[ /-]\d{3,4}[ -]?\d{3,5}\b"  # with an area code
    r"|\b0\d(?:[ .-]\d{2}){4}\b"  # French, in pairs
    r"|(?<![\d.])1[3-9]\d{9}(?!\d)|(?<!\d)1[3-9]\d[ -]\d{4}[ -]\d{4}(?!\d)"  # Chinese mobiles
)
# lengths and first digits of the networks, ISO/IEC 7812
_CARD = r"(?<![\d.,])(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6\d{3}|3[0-9]\d\d)(?:[ -]?\d){10,15}(?!\d)"
_IBAN = r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"
_CITY = (
    r"(?:,? +(?:[A-Z]{2} )?\d{4,5}(?:-\d{4})? [A-Z][\w'-]+|, [A-Z][\w' -]{2,25}(?:,? [A-Z]{2})?(?: \d{5}(?:-\d{4})?)?)?"
)
_NAME = r"(?:[A-ZÀ-Þ][\w'’.-]*|\d{1,3}(?:st|nd|rd|th)|[NSEW]\.?)"
_WORDS = r"Street|St\.?|Avenue|Ave\.?|Road|Rd\.?|Lane|Ln\.?|Drive|Dr\.?|Boulevard|Blvd\.?|Court|Place|Square|Terrace|Crescent|Close|Way|Parkway|Highway"
_LATIN = "|".join(
    (
        rf"\b\d{{1,5}}[A-Za-z]?,? (?:{_NAME} ){{1,3}}(?:{_WORDS})(?![\w]){_CITY}",
        r"\b\d{1,5} (?:[a-z][a-z'’]{2,} ){1,2}(?:street|avenue|road|lane|boulevard)(?=$|[,.;]|\s+\d)",
        rf"\b[A-ZÄÖÜ][\w-]*(?:straße|strasse|str\.|weg|gasse|allee|platz|ufer|damm) \d{{1,4}}(?: ?[a-z])?\b{_CITY}",
        rf"\b[A-ZÄÖÜ][\w-]* (?:Straße|Strasse|Str\.|Weg|Gasse|Allee|Platz|Ufer) \d{{1,4}}(?: ?[a-z])?\b{_CITY}",
        r"\b\d{1,4}(?: bis| ter)?,? (?:rue|avenue|boulevard|place|chemin|allée|impasse|quai) (?:d[eu]s? (?:la )?|de l'|d')?"
        rf"[A-ZÀ-Þ][\w'-]+(?:[ -][A-ZÀ-Þ][\w'-]+){{0,2}}{_CITY}",
        rf"\b(?:Calle|Avenida|Paseo|Via|Viale|Corso|Piazza|Rua) (?:d[aeio]l?(?:la)? )?[A-ZÀ-Þ][\w'-]+(?: [A-ZÀ-Þ][\w'-]+){{0,2}},? \d{{1,4}}\b{_CITY}",
        r"\bP\.? ?O\.? Box \d{1,6}\b",
    )
)
_HAN, _COUNT = r"[\u4e00-\u9fff]", r"(?:[0-9０-９]{1,5}|[一二三四五六七八九十百零〇]{1,5})"
_CJK = "|".join(
    (
        rf"{_HAN}{{1,24}}?(?:路|街|道|巷|弄|胡同|段|村|里)(?:[东西南北中]?段)? ?{_COUNT} ?(?:号|號|弄|巷)"
        rf"(?:[ ,，]?[0-9０-９A-Za-z一二三四五六七八九十甲乙丙之-]{{1,6}} ?(?:号楼|號樓|号|號|栋|棟|幢|座|单元|單元|楼|樓|层|層|室|户|戶))*",
        rf"(?:{_HAN}{{2,4}}[都道府県])?{_HAN}{{1,6}}[市区町村郡][\u3040-\u30ff\u4e00-\u9fff]{{0,12}}?{_COUNT}"
        rf"(?:丁目|番地?|[-−])[0-9０-９]{{1,4}}(?:[-−番][0-9０-９]{{1,4}})?号?",
    )
)
_SURE = re.compile("|".join((_EMAIL, _IPV6, _IPV4)))
_NUMBER = re.compile(_PHONE)
_CHECKED = re.compile(f"(?P<card>{_CARD})|(?P<iban>{_IBAN})")
_POST = re.compile(f"{_LATIN}|{_CJK}")
_STREET = (
    r"(?i:street|st\b|avenue|ave\b|road|rd\b|lane|ln\b|drive|dr\b|boulevard|blvd|court|place|square|terrace|crescent|close|way\b|highway|"
    r"rue|chemin|allée|impasse|quai|calle|avenida|paseo|via|viale|corso|piazza|rua|box|stra(?:ß|ss)e|str\.|weg|gasse|allee|platz|ufer|damm)"
)
# what every text has that says anything of this: in the syntax that DuckDB and Python share, and without a look around
MAY_TELL = "|".join(
    (
        r"[@{]|%40",
        r"[0-9](?:[ ().+/-]{0,3}[0-9]){6}",
        r"[0-9]\.[0-9]{1,3}\.[0-9]",
        r"[0-9A-Fa-f]:[0-9A-Fa-f]{0,4}:",
        r"[A-Z]{2}[0-9]{2} ?[A-Z0-9]{4}",
        rf"[0-9].* {_STREET}|{_STREET}.* [0-9]",
        r"[号號弄巷丁番]|[市区町村郡].*[0-9０-９]",
    )
)
_MAY_TELL = re.compile(MAY_TELL)


def mask_text(text: str) -> str:
    """A text without what its form gives away of a person.

    >>> mask_text("write to jane@example.org or 12 Long Lane")
    'write to (masked) or (masked)'
    >>> mask_text("寄到上海市南京西路1266号，谢谢")
    '(masked)，谢谢'
    >>> mask_text("paid with 4111111111111111, article 4111111111111112")
    'paid with (masked), article 4111111111111112'

    Cost: a look at most texts; where digits, streets or an at stand in one, some 10 us.
    """
    if not _MAY_TELL.search(text):
        return text
    text = _CHECKED.sub(_if_right, text)
    text = _SURE.sub(MASK, text)
    return _POST.sub(MASK, _NUMBER.sub(MASK, text))


def _if_right(found: re.Match[str]) -> str:
    is_right: Callable[[str], bool] = is_card if found.lastgroup == "card" else is_iban
    return MASK if is_right(found[0]) else found[0]


def is_card(text: str) -> bool:
    """Whether digits, however parted, are a card's: of a network's length, and with the check digit of Luhn.

    >>> is_card("4111 1111 1111 1111"), is_card("4111 1111 1111 1112")
    (True, False)
    """
    digits = [int(one) for one in text if one.isdigit()]
    lengths = {3: (14, 15, 16), 6: (16, 17, 18, 19)}.get(digits[0], (16,))
    doubled = (sum(divmod(2 * one, 10)) if n % 2 else one for n, one in enumerate(reversed(digits)))
    return len(digits) in lengths and sum(doubled) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether a text is an account's number: it leaves 1 when divided by 97, as ISO 13616 has it.

    >>> is_iban("DE89 3704 0044 0532 0130 00"), is_iban("DE88 3704 0044 0532 0130 00")
    (True, False)
    """
    joined = text.replace(" ", "")
    return len(joined) >= 15 and int("".join(str(int(one, 36)) for one in joined[4:] + joined[:4])) % 97 == 1
