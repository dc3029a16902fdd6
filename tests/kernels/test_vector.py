import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.kernels.shared.vector import (
    LANES,
    PANEL,
    Array,
    Number,
    above_mask,
    compiled,
    exp2,
    load,
    next_task,
    product,
    select_le,
    splat,
    store,
    sum_lanes,
    transpose_square,
)

Floats = NDArray[np.float32]


def _random(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@compiled
def _exp2_all(x: Array, y: Array) -> None:
    for i in range(0, x.size, LANES):
        store(y, i, exp2(load(x, i)))


@compiled
def _select_and_sum(bound: Number, first: Number, chosen: Array, totals: Array) -> None:
    value = select_le(bound, first, splat(np.float32(1)), splat(np.float32(0)))
    store(chosen, 0, value)
    totals[0] = sum_lanes(value)


@compiled
def _mask(a: Array, b: Array) -> Number:
    return above_mask(load(a, 0), load(b, 0))


@compiled
def _turn(target: Array, to_row: Number, source: Array, row: Number, count: Number) -> None:
    transpose_square(target, 0, to_row, source, 0, row, count)


@compiled
def _draw(queue: Array) -> Number:
    return next_task(queue)


def test_exp2_is_exact_to_two_units_in_the_last_place() -> None:
    x = np.linspace(-126, 127, 1 << 16).astype(np.float32)
    y = np.empty_like(x)
    _exp2_all(x, y)
    exact = np.exp2(x.astype(np.float64))
    assert np.abs(y / exact - 1).max() < 2.5e-7


def test_exp2_vanishes_below_its_range_and_keeps_nan() -> None:
    x = np.full(LANES, -200, dtype=np.float32)
    x[:4] = np.nan, -np.inf, 0, -126.5
    y = np.empty_like(x)
    _exp2_all(x, y)
    assert np.isnan(y[0])
    assert y[1:].tolist() == [0, 1] + [0] * (LANES - 3)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9, 31])
@pytest.mark.parametrize("columns", [LANES, PANEL, PANEL + LANES])
@pytest.mark.parametrize("depth", [0, 1, 33])
def test_product_equals_numpy_for_every_layout_of_a(rows: int, columns: int, depth: int) -> None:
    a, b = _random(rows, depth), _random(depth, columns, seed=1)
    exact = a.astype(np.float64) @ b
    for flat, row, step in ((a.ravel(), depth, 1), (a.T.ravel(), 1, rows)):
        c = np.full(rows * columns, np.nan, dtype=np.float32)
        product(c, 0, columns, flat, 0, row, step, b.ravel(), 0, columns, rows, columns, depth, False)
        np.testing.assert_allclose(c.reshape(rows, columns), exact, atol=1e-5)
        product(c, 0, columns, flat, 0, row, step, b.ravel(), 0, columns, rows, columns, depth, True)
        np.testing.assert_allclose(c.reshape(rows, columns), 2 * exact, atol=2e-5)


def test_product_writes_nothing_outside_its_tile() -> None:
    a, b = _random(3, 5), _random(5, LANES, seed=1)
    c = np.full(5 * 2 * LANES, 7, dtype=np.float32)
    product(c, 2 * LANES, 2 * LANES, a.ravel(), 0, 5, 1, b.ravel(), 0, LANES, 3, LANES, 5, False)
    framed = c.reshape(5, 2, LANES)
    assert (framed[[0, 4]] == 7).all()
    assert (framed[:, 1] == 7).all()
    assert (framed[1:4, 0] != 7).all()


def test_a_product_has_the_same_bits_in_every_tile() -> None:
    a, b = _random(23, 64), _random(64, PANEL, seed=1)
    whole = np.empty(23 * PANEL, dtype=np.float32)
    product(whole, 0, PANEL, a.ravel(), 0, 64, 1, b.ravel(), 0, PANEL, 23, PANEL, 64, False)
    for row in range(23):
        one = np.empty(LANES, dtype=np.float32)
        product(one, 0, LANES, a.ravel(), row * 64, 64, 1, b.ravel(), LANES, PANEL, 1, LANES, 64, False)
        assert one.tobytes() == whole[row * PANEL + LANES : (row + 1) * PANEL].tobytes()


@pytest.mark.parametrize("count", [1, 2, LANES - 1, LANES])
def test_transpose_square_turns_rows_and_zeroes_the_rest(count: int) -> None:
    source = _random(count, LANES + 3)
    target = np.full(LANES * (LANES + 1), np.nan, dtype=np.float32)
    _turn(target, LANES + 1, source.ravel()[: count * (LANES + 3) - 3].copy(), LANES + 3, count)
    turned = target.reshape(LANES, LANES + 1)
    np.testing.assert_array_equal(turned[:, :count], source[:, :LANES].T)
    assert (turned[:, count:LANES] == 0).all()
    assert np.isnan(turned[:, LANES]).all()


@pytest.mark.parametrize(
    ("bound", "first", "ones"), [(3, 3, LANES), (5, 3, LANES - 2), (90, 3, 0), (0, 3, LANES)]
)
def test_select_le_compares_the_bound_with_each_lane(bound: int, first: int, ones: int) -> None:
    chosen, totals = np.empty(LANES, dtype=np.float32), np.empty(1, dtype=np.float32)
    _select_and_sum(bound, first, chosen, totals)
    assert chosen.tolist() == [float(bound <= first + lane) for lane in range(LANES)]
    assert totals[0] == ones


def test_above_mask_has_a_bit_per_lane_and_none_for_nan() -> None:
    a, b = np.zeros(LANES, dtype=np.float32), np.zeros(LANES, dtype=np.float32)
    a[0], a[LANES - 1], a[1] = 1, 1, np.nan
    assert _mask(a, b) == 1 | 1 << LANES - 1


def test_tickets_count_up_from_the_first() -> None:
    queue = np.array([3], dtype=np.int64)
    assert [_draw(queue), _draw(queue), int(queue[0])] == [3, 4, 5]
