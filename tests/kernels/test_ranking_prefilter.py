"""Ranks by way of the matrix tiles are bit for bit the plain ones, and the bound behind them holds."""

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.ranking import cpu, cpu_rank_prefilter, cpu_rank_prefilter_launch, rank_of_target
from recsys.kernels.ranking.cpu_rank_plan import BLOCK_V, STRETCH
from recsys.kernels.ranking.cpu_rank_prefilter_bound import error_bound, round_row
from recsys.kernels.shared.vector import Array, Number, compiled, scratch
from recsys.kernels.shared.vector.tiles import begin_tiles, end_tiles, narrow_scratch, tiles_available

pytestmark = pytest.mark.skipif(not tiles_available(), reason="this processor has no matrix tiles")

Case = tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor] | None]
KINDS = ("plain", "whole", "twins", "near", "outliers", "narrow", "zeros", "tiny", "large", "mixed")


@pytest.fixture(autouse=True)
def _every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_rank_prefilter_launch, "LEAST_ROWS", 1)


def _vectors(rng: np.random.Generator, kind: str, rows: int, items: int, width: int) -> tuple[Tensor, Tensor]:
    hidden = rng.standard_normal((rows, width)).astype(np.float32)
    weight = rng.standard_normal((items, width)).astype(np.float32)
    if kind == "whole":  # ties everywhere
        hidden, weight = np.rint(hidden), np.rint(weight)
    elif kind == "twins":
        weight = weight[rng.integers(0, max(1, items // 4), items)]
    elif kind == "near":  # every item within the bound of every other, some a last bit apart
        weight = (weight[:1] * (1 + 1e-7 * rng.integers(-3, 4, (items, 1)))).astype(np.float32)
    elif kind == "outliers":
        weight[rng.random(items) < 0.05] *= 1e4
        hidden[rng.random(rows) < 0.2] *= 1e-3
    elif kind == "narrow":  # nothing is lost by rounding
        hidden, weight = (torch.from_numpy(x).bfloat16().float().numpy() for x in (hidden, weight))
    elif kind == "zeros":
        hidden[:, width // 2 :] = 0
        weight[rng.random(items) < 0.5] = 0
    elif kind == "tiny":
        hidden, weight = hidden * np.float32(1e-25), weight * np.float32(10.0 ** rng.integers(-20, -12))
    elif kind == "large":
        hidden, weight = hidden * np.float32(1e17), weight * np.float32(10.0 ** rng.integers(15, 19))
    elif kind == "mixed":  # subnormal and ordinary elements side by side
        weight *= np.float32(10.0) ** rng.integers(-42, 3, weight.shape).astype(np.float32)
    return torch.from_numpy(hidden), torch.from_numpy(weight)


def _case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    rows, items = int(rng.integers(1, 70)), int(rng.choice([1, 31, 64, 65, 255, 256, 257, 600]))
    width = int(rng.choice([1, 7, 16, 31, 32, 33, 50, 64, 100]))
    hidden, weight = _vectors(rng, kind, rows, items, width)
    targets = torch.from_numpy(rng.integers(0, items, rows))
    if seed % 7 == 0:
        return hidden, weight, targets, None
    counts = rng.integers(0, 40, rows)
    ids = rng.integers(0, items, int(counts.sum()))
    offsets = np.append(0, np.cumsum(counts))
    ids[offsets[:-1][counts > 0]] = targets.numpy()[counts > 0]
    return hidden, weight, targets, (torch.from_numpy(ids), torch.from_numpy(offsets))


def _both(case: Case, ties: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[float], list[float]]]:
    """The ranks by tiles and without; an error's name in their place."""
    found = []
    for prefiltered in (True, False):
        with monkeypatch.context() as patch:
            if not prefiltered:
                patch.setattr(cpu, "prefilter_pays", lambda rows, width: False)
            try:
                ranks = rank_of_target(*case, ties=ties)
                found.append((ranks.kept.tolist(), ranks.removed.tolist()))
            except ArgumentError:
                found.append(([-1.0], [-1.0]))
    return found


@pytest.mark.parametrize("part", range(10))
def test_a_thousand_cases_rank_as_plain_counting(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(100 * part, 100 * part + 100):
        ties = ("pessimistic", "optimistic", "average")[seed // 10 % 3]
        prefiltered, plain = _both(_case(seed), ties, monkeypatch)
        assert prefiltered == plain, f"seed {seed}"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_ranked_and_not_refused(kind: str) -> None:
    hidden, weight = _vectors(np.random.default_rng(0), kind, 40, 300, 64)
    assert rank_of_target(hidden, weight, torch.arange(40)).kept.min() >= 1


@pytest.mark.parametrize("where", ["hidden", "weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_what_cannot_be_ranked_is_refused_and_what_barely_can_is_not(
    value: float, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in (1.0, 0.5, 2.0):
        hidden, weight = torch.full((40, 33), 1e-3), torch.full((700, 33), 1e-3)
        hidden[:, 5] = weight[:, 5] = other
        (hidden if where == "hidden" else weight)[-1, 5] = value
        prefiltered, plain = _both((hidden, weight, torch.arange(40), None), "pessimistic", monkeypatch)
        assert prefiltered == plain
        assert (prefiltered[0] == [-1.0]) == (not value * other < 3.4e38)


def test_nothing_depends_on_the_catalog_being_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """More blocks than a piece takes, more rows than a part has."""
    rng = np.random.default_rng(1)
    hidden, weight = _vectors(rng, "plain", 1100, 256 * STRETCH + 100, 16)
    targets = torch.from_numpy(rng.integers(0, len(weight), 1100))
    ids = torch.from_numpy(rng.integers(0, len(weight), 110_000))
    case = hidden, weight, targets, (ids, torch.arange(1101) * 100)
    prefiltered, plain = _both(case, "pessimistic", monkeypatch)
    assert prefiltered == plain


@compiled
def _score_roughly(
    hidden: Array, weight: Array, width: Number, depth: Number, rough: Array, norms: Array, largest: Array
) -> None:
    """Round and multiply 32 rows and 32 items as the prefilter does; norms of the rows, then of the items."""
    left, packed = narrow_scratch(32 * depth), narrow_scratch(BLOCK_V * depth)
    lines, line = narrow_scratch(16 * depth), scratch(16)
    tile = scratch(32 * cpu_rank_prefilter._ROW)
    for row in range(32):
        round_row(left, row * depth, hidden, row * width, width, depth, line, norms, 2 * row)
        round_row(lines, 0, weight, row * width, width, depth, line, norms, 64 + 2 * row)
    found = cpu_rank_prefilter._round_items(packed, weight, 0, 32, width, depth, line, lines, largest)
    largest[0], largest[1] = found
    before = begin_tiles()
    cpu_rank_prefilter._multiply(tile, left, 0, packed, 32, depth)
    end_tiles(before)
    for row in range(32):
        for item in range(32):
            rough[row * 32 + item] = tile[row * cpu_rank_prefilter._ROW + item]


@pytest.mark.parametrize("kind", KINDS)
def test_rough_scores_lie_within_the_margin(kind: str) -> None:
    for width in (1, 33, 256):
        rng = np.random.default_rng(width)
        hidden, weight = (x.numpy() for x in _vectors(rng, kind, 32, 32, width))
        depth = width + -width % 32
        rough, norms, largest = (np.full(n, np.nan, np.float32) for n in (1024, 128, 2))
        _score_roughly(hidden.reshape(-1), weight.reshape(-1), width, depth, rough, norms, largest)
        assert largest.tolist() == norms[64:].reshape(32, 2).max(0).tolist()
        chain = np.zeros((32, 32), np.float32)
        for d in range(width):
            chain = (chain + np.outer(hidden[:, d].astype(np.float64), weight[:, d])).astype(np.float32)
        real = hidden.astype(np.float64) @ weight.astype(np.float64).T
        for row, item in np.ndindex(32, 32):
            (h, a), (w, e) = norms[2 * row : 2 * row + 2], norms[64 + 2 * item : 66 + 2 * item]
            bound = error_bound(h, a, w, e, depth, np.float32(0.0))
            found = np.float64(rough[32 * row + item])
            assert abs(found - chain[row, item]) <= bound
            assert abs(found - real[row, item]) <= bound
            if kind == "plain":
                size = np.linalg.norm(hidden[row]) * np.linalg.norm(weight[item])
                assert bound < 2.0**-7 * size  # two roundings to 8 bits
