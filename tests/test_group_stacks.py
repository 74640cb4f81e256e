import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ecom_pipeline.importance.group_stacks import in_parts, rows_of_some, stacks

groups = st.lists(st.integers(0, 6), min_size=1, max_size=60).map(np.array)


@given(groups)
def test_stacks_hold_every_row_once_and_groups_stay_whole(group):
    found = stacks(group)
    assert sorted(np.concatenate([stack.ravel() for stack in found]).tolist()) == list(range(len(group)))
    for stack in found:
        assert all(set(np.flatnonzero(group == group[rows[0]])) == set(rows) for rows in stack)


@given(groups, st.integers(1, 7))
def test_parts_are_those_of_an_even_split_in_row_order(group, largest):
    part = in_parts(group, largest)
    wanted = []
    for one in np.unique(group):
        rows = np.flatnonzero(group == one)
        wanted += np.array_split(rows, -(-len(rows) // largest))
    assert [np.flatnonzero(part == number).tolist() for number in range(part.max() + 1)] == [w.tolist() for w in wanted]


@given(groups, st.integers(1, 80), st.integers(0, 9))
def test_some_rows_are_whole_groups_and_at_least_as_many_as_asked_for(group, n_samples, seed):
    rows = rows_of_some(group, n_samples, seed)
    assert set(rows) == set(np.flatnonzero(np.isin(group, group[rows])))
    assert len(rows) >= min(n_samples, len(group))
    largest = np.bincount(group).max()
    assert len(rows) < n_samples + largest or len(rows) == len(group)
