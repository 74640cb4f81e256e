"""What is not known of a sample says neither much nor little, and says that it is not known."""

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecom_pipeline import schema
from ecom_pipeline.language.attributes import NUMBERS, read_attributes

values = st.lists(st.none() | st.floats(-9, -1), min_size=2, max_size=8)


@pytest.mark.parametrize("name", NUMBERS)
@settings(max_examples=12)
@given(values=values, n_test=st.integers(0, 2))
def test_an_unknown_number_is_the_mean_of_what_training_knows_and_has_a_mark(name, values, n_test):
    ids = [f"s{place}" for place in range(len(values))]
    train = values[: len(values) - n_test]
    with duckdb.connect() as db:
        schema.SAMPLE_ATTRIBUTES.create(db)
        db.execute("create table training_samples (sample_id varchar, split varchar)")
        for place, (sample_id, value) in enumerate(zip(ids, values, strict=True)):
            db.execute(f"insert into sample_attributes (sample_id, {name}) values (?, ?)", [sample_id, value])
            db.execute(
                "insert into training_samples values (?, ?)", [sample_id, "train" if place < len(train) else "test"]
            )
        found = read_attributes(db, ids)
    known = [value for value in train if value is not None]
    neutral = np.mean(known) if known else 0.0
    wanted = np.array([neutral if value is None else value for value in values], np.float32)
    marked = np.array([value is not None for value in values], np.float32)
    told = dict(zip(found.names, found.value.T, strict=True))
    for column, expected in ((name, wanted), (f"{name}_known", marked)):
        if column in told:
            np.testing.assert_allclose(told[column], expected, rtol=1e-5)
        else:
            assert np.ptp(expected) < 1e-6
    assert (f"{name}_known" in told) == (0 < marked.sum() < len(marked))
