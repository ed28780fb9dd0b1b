"""Batches of texts of like length: each text once, little padding."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curricle.families.encoders import budget_batches, length_bucketed

LENGTHS = st.lists(st.integers(1, 60), max_size=80)


@given(LENGTHS, st.integers(1, 7), st.integers(1, 4), st.integers(0, 9))
def test_buckets_hold_the_rows_that_were_drawn_in_batches_of_one_size(lengths, size, bucket, seed):
    order = np.random.default_rng(seed).permutation(len(lengths))
    batches = length_bucketed(order, np.array(lengths, np.int64), size, bucket)
    assert all(len(batch) == size for batch in batches[:-1])
    for begin in range(0, len(batches), bucket):
        rows = np.concatenate(batches[begin : begin + bucket])
        drawn = order[begin * size : (begin + bucket) * size]
        assert rows.tolist() == sorted(drawn.tolist(), key=lambda row: lengths[row])
    assert sum(map(len, batches)) == len(lengths)


def test_rows_of_one_length_keep_the_order_that_was_drawn():
    order = np.array([3, 0, 2, 1])
    assert np.concatenate(length_bucketed(order, np.zeros(4, np.int64), 3)).tolist() == order.tolist()


@given(LENGTHS, st.integers(1, 200))
def test_a_padded_batch_stays_within_the_budget(lengths, budget):
    batches = list(budget_batches(lengths, budget))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
        assert len(batch) <= 8 or 2 * min(lengths[row] for row in batch[8:]) > longest
