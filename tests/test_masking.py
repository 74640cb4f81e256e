"""What tells of a person by its form is masked, and what only looks so is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecom_pipeline.sources.masking import MASK, is_card, is_iban, mask_text


@pytest.mark.parametrize(
    "entity",
    [
        *(
            "12 Long Lane",
            "742 Evergreen Terrace, Springfield, IL 62704",
            "Hauptstraße 5",
            "Berliner Straße 12, 10115 Berlin",
        ),
        *(
            "12 rue de la République",
            "Via Roma 7",
            "P.O. Box 123",
            "上海市黄浦区南京东路123号",
            "台北市信義區信義路五段7號",
        ),
        *("東京都新宿区西新宿2丁目8-1", "13912345678", "010-87654321", "06 12 34 56 78", "0171 1234567"),
        *("4111 1111 1111 1111", "378282246310005", "DE89370400440532013000", "GB29 NWBK 6016 1331 9268 19"),
        *("jane@example.org", "10.1.2.3", "fe80::1ff:fe23:4567:890a"),
    ],
)
@pytest.mark.parametrize("around", ["{}", "send it to {}, thanks", "寄到 {} 谢谢"])
def test_an_entity_is_masked_whole(entity, around):
    assert mask_text(around.format(entity)) == around.format(MASK)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "4111111111111112",
            "5901234123457",
            "24 hour drive",
            "2 way valve 15 mm",
            "12 place setting",
            "10 x 20 x 30 cm",
        ),
        *("2024-05-01 10:33:53", "DE88370400440532013000", "街舞鞋 42", "路由器 5G", "garden hose 25 m", "v1.2.3"),
    ],
)
def test_what_only_looks_so_stays(text):
    assert mask_text(text) == text


@given(st.text("0123456789", min_size=15, max_size=15))
def test_of_ten_last_digits_one_makes_a_card(body):
    assert sum(is_card("4" + body + last) for last in "0123456789") == 0
    assert sum(is_card("4" + body[:14] + last) for last in "0123456789") == 1


@given(st.text("0123456789", min_size=18, max_size=18))
def test_one_check_number_or_two_make_an_account(body):
    assert sum(is_iban(f"DE{n:02}{body}") for n in range(2, 99)) == 1


@given(st.text())
def test_what_was_masked_is_masked(text):
    assert mask_text(mask_text(text)) == mask_text(text)
