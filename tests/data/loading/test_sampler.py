import numpy as np
import pytest

from tesseral.data.loading.sampler import EdgeBudgetSampler, deal, pack, resize, shuffle

RNG = np.random.default_rng(0)
EDGES = RNG.integers(1, 100, size=101)


def sampler(**changes):
    options = {"max_structures": 4, "max_edges": 150, "seed": 3, **changes}
    return EdgeBudgetSampler(EDGES, **options)


def test_every_structure_once_an_epoch():
    seen = [i for batch in sampler() for i in batch]
    assert sorted(seen) == list(range(101))


def test_both_limits_are_kept():
    for batch in sampler():
        assert len(batch) <= 4
        assert EDGES[batch].sum() <= 150


def test_batches_are_not_smaller_than_they_must_be():
    batches = list(sampler())
    for batch, following in zip(batches, batches[1:], strict=False):
        full = len(batch) == 4 or EDGES[batch].sum() + EDGES[following[0]] > 150
        assert full


def test_a_structure_beyond_the_limit_is_alone():
    bounds = pack(np.array([5, 1000, 5, 5]), max_structures=4, max_edges=100)
    assert bounds.tolist() == [0, 1, 2, 4]


def test_order_depends_on_seed_and_epoch_only():
    first, second = sampler(), sampler()
    list(first)
    list(first)  # iterating changes nothing
    assert list(first) == list(second)
    second.set_epoch(1)
    later = list(second)
    assert later != list(first)
    first.set_epoch(1)
    assert list(first) == later
    assert list(sampler(seed=4)) != list(sampler())


def test_without_shuffling_the_order_is_that_of_the_dataset():
    fixed = sampler(shuffle=False)
    fixed.set_epoch(5)
    assert [i for batch in fixed for i in batch] == list(range(101))


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("epoch", [0, 1])
def test_ranks_together_see_what_one_process_with_larger_batches_sees(ranks, epoch):
    one = sampler(max_structures=4 * ranks, max_edges=150 * ranks)
    many = [sampler(rank=rank, ranks=ranks) for rank in range(ranks)]
    for each in (one, *many):
        each.set_epoch(epoch)
    assert {len(each) for each in many} == {len(one)}
    for whole, *parts in zip(one, *many, strict=True):
        dealt = [i for part in parts for i in part if i >= 0]
        assert sorted(dealt) == sorted(whole)
        assert all(len(part) > 0 for part in parts)


def test_ranks_without_a_structure_get_repeats():
    batch = np.array([7])
    hands = deal(batch, np.full(10, 5), 3)
    assert sorted(hands) == [[-8], [-8], [7]]


def test_ranks_get_equal_numbers_and_similar_work():
    hands = deal(np.arange(8), np.array([90, 80, 10, 20, 70, 60, 40, 30, 0, 0]), 2)
    assert [len(hand) for hand in hands] == [4, 4]
    work = [sum([90, 80, 10, 20, 70, 60, 40, 30][i] for i in hand) for hand in hands]
    assert abs(work[0] - work[1]) <= 20


def test_no_rank_is_empty_even_with_one_huge_structure():
    edges = np.array([10_000, 1])
    assert sorted(deal(np.arange(2), edges, 2)) == [[0], [1]]
    ranks = [
        EdgeBudgetSampler(edges, max_structures=4, max_edges=10, rank=r, ranks=2) for r in (0, 1)
    ]
    assert sorted(i for rank in ranks for batch in rank for i in batch) == [0, 1]


def test_all_epochs_have_the_same_length():
    each = sampler()
    lengths = set()
    for epoch in range(20):
        each.set_epoch(epoch)
        batches = list(each)
        assert len(batches) == len(each)
        assert all(EDGES[batch].sum() <= 150 for batch in batches)
        lengths.add(len(batches))
    assert len(lengths) == 1


def test_resize_divides_the_largest_and_drops_the_last():
    bounds = np.array([0, 5, 7])
    assert resize(bounds, 3, 1).tolist() == [0, 2, 5, 7]
    assert resize(bounds, 1, 1).tolist() == [0, 5]
    assert resize(bounds, 9, 4).tolist() == [0, 5, 7]


SEGMENTS = np.repeat(np.arange(2000), RNG.integers(1, 9, size=2000))


def test_few_segments_are_shuffled_as_one():
    order = shuffle(SEGMENTS[SEGMENTS < 200], 3, 1)
    expected = np.random.default_rng([3, 1]).permutation(len(order))
    assert order.tolist() == expected.tolist()


def test_many_segments_are_shuffled_a_window_at_a_time():
    order = shuffle(SEGMENTS, 3, 1)
    assert sorted(order) == list(range(len(SEGMENTS)))
    opened = [len(set(SEGMENTS[order[i : i + 500]])) for i in range(0, len(order), 500)]
    print("segments in 500 structures:", opened)
    assert max(opened) <= 2 * 256  # they are read once while they are kept
    assert min(opened[:-1]) > 100  # and structures of many of them meet
    last = {segment: place for place, segment in enumerate(SEGMENTS[order])}
    first = {}
    for place, segment in enumerate(SEGMENTS[order]):
        first.setdefault(segment, place)
    window = 256 * 8
    assert max(last[segment] - first[segment] for segment in first) <= window


def test_segments_come_in_another_order_every_epoch():
    orders = [SEGMENTS[shuffle(SEGMENTS, 3, epoch)] for epoch in range(2)]
    assert len(set(orders[0][:500]) & set(orders[1][:500])) < 100


def test_a_million_structures_are_packed_into_little_memory():
    import tracemalloc

    edges = np.full(1_000_000, 90)
    tracemalloc.start()
    each = EdgeBudgetSampler(
        edges, max_structures=16, max_edges=1600, segments=np.arange(1_000_000) // 200
    )
    batch = next(iter(each))
    held, peak = (number / 1e6 for number in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    print(f"{len(each)} batches, {held:.0f} MB held, {peak:.0f} MB at most")
    assert len(batch) == 16 and len(each) == 62_500
    assert held < 40 and peak < 150


def test_start_skips_batches_once():
    each = sampler()
    whole = list(each)
    each.start = 5
    assert list(each) == whole[5:]
    assert list(each) == whole


def test_a_rank_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="rank 2"):
        sampler(rank=2, ranks=2)
