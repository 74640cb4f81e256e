import math

import numpy as np
import pytest

from ecom_pipeline.ranking.baselines import bm25_scores, habit_scores, words

TEXTS = ("Hello there good man!", "It is quite windy in London", "How is the weather today?")


def test_scores_are_those_of_the_worked_example_of_rank_bm25():
    """Its README: [0, 0.93729472, 0] for "windy London", with ln((N - n + 0.5) / (n + 0.5)) for the rarity of a word."""
    theirs = np.array([0.0, 0.93729472, 0.0])
    assert bm25_scores(["windy London"] * 3, TEXTS) == pytest.approx(theirs / math.log(5 / 3) * math.log(1 + 5 / 3))


def test_a_score_by_hand():
    """Two texts of 2 and 4 words; "mug" is in both, once and twice: ln(1 + 0.5 / 2.5) = 0.1823."""
    found = bm25_scores(["mug", "mug"], ["red mug", "mug mug blue big"], k1=1.2, b=0.75)
    short, long = 2.2 / (1 + 1.2 * (0.25 + 0.75 * 2 / 3)), 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 4 / 3))
    assert found == pytest.approx(0.18232156 * np.array([short, long]))


def test_a_rare_word_counts_for_more_than_a_common_one():
    common, *_, rare = bm25_scores(["red blue"] * 4, ["red mug", "red plate", "red bowl", "blue mug"])
    assert rare > common > 0


def test_no_common_word_scores_0_and_case_does_not_matter():
    assert bm25_scores(["chair", "MUG"], ["red mug", "red mug"])[0] == 0
    assert bm25_scores(["MUG"], ["red Mug"]) > 0


def test_an_item_that_stands_under_many_queries_is_counted_once():
    texts = ["red mug", "blue plate"]
    once = bm25_scores(["mug", "plate"], texts)
    assert bm25_scores(["mug", "plate", "bowl", "cup"], [*texts, "red mug", "red mug"])[:2] == pytest.approx(once)


def test_chinese_is_read_by_its_characters():
    assert words("女士跑鞋") == ["女", "士", "跑", "鞋"]
    near, far = bm25_scores(["跑鞋", "跑鞋"], ["女士跑鞋", "红色杯子"])
    assert near > far == 0


def test_texts_without_words_are_no_obstacle():
    assert bm25_scores(["", "mug"], ["", "..."]).tolist() == [0, 0]


def test_habit_is_of_the_item_first_and_of_its_category_among_equals():
    names = ("cosine", "taken_before", "category_taken_before")
    often, category, never, unknown = habit_scores(
        names, np.array([[0, 0.01, 0], [0, 0, 9.0], [0, 0, 0.1], [0, np.nan, np.nan]], np.float32)
    )
    assert often > category > never > unknown == 0
    assert habit_scores(("cosine",), np.zeros((2, 1), np.float32)) is None
