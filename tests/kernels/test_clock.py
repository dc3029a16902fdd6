import itertools
import math
import re
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.clock import (
    clock_read,
    clock_step,
    clock_sums,
    cosine_coefficients,
    highest_harmonic,
    hours_to_degree,
    initial_clock_state,
    reference,
)
from recsys.kernels.clock.circle import DAY, circle_features, evaluate_kernel, weigh_features
from recsys.kernels.clock.cpu import decayed_products
from recsys.kernels.clock.cpu_features import padded_features

LENGTHS = [0, 1, 2, 31, 0, 32, 33, 63, 64, 65, 300, 0]
HOUR = 3600


def _log(lengths: Sequence[int], width: int = 5, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, n: int) -> Tensor:
        return torch.randint(0, high, (n,), generator=generator)

    times = [1_700_000_000 + draw(60 * DAY, n).sort().values for n in lengths]
    all_times = torch.cat(times) if times else torch.zeros(0, dtype=torch.int64)
    events = len(all_times)
    return {
        "values": torch.randn(events, width, generator=generator),
        "times": all_times,
        "query_times": all_times + draw(3 * DAY, events),
        "offsets": torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32),
    }


def _mix() -> Tensor:
    return 0.6 * cosine_coefficients(13, 14) + 0.4 * cosine_coefficients(3, 14)


def _run(
    log: dict[str, Tensor], backend: str, *, rate: float = 0.2, form: str = "recurrent", seed: int = 1
) -> list[Tensor]:
    """The sums and the gradients of values, coefficients and rate; the reference runs in float64."""
    dtype = torch.float64 if backend == "reference" else torch.float32
    values = log["values"].clone().to(dtype).requires_grad_()
    coefficients = _mix().to(dtype).requires_grad_()
    decay = torch.tensor(rate, dtype=dtype, requires_grad=True)
    out = clock_sums(
        values,
        log["times"],
        log["query_times"],
        log["offsets"],
        coefficients=coefficients,
        rate=decay,
        max_length=1000,
        form=form,
        backend=backend,
    )
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return [out.detach(), *torch.autograd.grad(out, (values, coefficients, decay), upstream)]


@pytest.mark.parametrize("form", ["direct", "recurrent"])
@pytest.mark.parametrize("rate", [0.0, 0.3, 3.0])
def test_sums_and_gradients_equal_the_definition(form: str, rate: float) -> None:
    log = _log(LENGTHS)
    ours, exact = _run(log, "cpu", rate=rate, form=form), _run(log, "reference", rate=rate)
    # The rate's gradient is a difference of sums over whole histories of 60 days.
    for a, b, bound in zip(ours, exact, (2e-6, 2e-6, 2e-6, 1e-3), strict=True):
        assert float((a - b).norm()) <= bound * (1 + rate) * float(b.norm()) + 1e-7


def test_the_definition_has_right_gradients() -> None:
    log = _log([0, 1, 6], width=2)

    def call(values: Tensor, coefficients: Tensor, rate: Tensor) -> Tensor:
        return clock_sums(
            values,
            log["times"],
            log["query_times"],
            log["offsets"],
            coefficients=coefficients,
            rate=rate,
            max_length=6,
            backend="reference",
        )

    arguments = (log["values"].double(), cosine_coefficients(3), torch.tensor(0.2, dtype=torch.float64))
    assert torch.autograd.gradcheck(call, [x.requires_grad_() for x in arguments])


@pytest.mark.parametrize("lengths", [[], [0], [0, 0, 0]])
def test_a_batch_without_events_is_nothing(lengths: list[int]) -> None:
    for backend in ("cpu", "reference"):
        sums, *gradients = _run(_log(lengths), backend)
        assert sums.shape == (0, 5)
        assert float(gradients[1].abs().sum()) == 0.0


def test_one_long_user_among_many_short_ones() -> None:
    log = _log([3] * 50 + [1000])
    for ours, exact in zip(_run(log, "cpu"), _run(log, "reference"), strict=True):
        assert float((ours - exact).norm()) <= 2e-6 * float(exact.norm())


def test_a_sequence_has_the_same_bits_alone_and_in_a_batch() -> None:
    together = _log(LENGTHS)
    bounds = together["offsets"].tolist()
    whole = _run(together, "cpu")
    upstream_rows = torch.randn(whole[0].shape, generator=torch.Generator().manual_seed(1))
    for start, end in itertools.pairwise(bounds):
        values = together["values"][start:end].clone().requires_grad_()
        out = clock_sums(
            values,
            together["times"][start:end],
            together["query_times"][start:end],
            torch.tensor([0, end - start], dtype=torch.int32),
            coefficients=_mix().float(),
            rate=torch.tensor(0.2),
            max_length=1000,
            form="recurrent",
        )
        (gradient,) = torch.autograd.grad(out, values, upstream_rows[start:end])
        assert torch.equal(out, whole[0][start:end])
        assert torch.equal(gradient, whole[1][start:end])


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_repetition_change_no_bit(threads: int) -> None:
    log = _log([200] * 40)
    before = torch.get_num_threads()
    first = _run(log, "cpu")
    try:
        torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(first, _run(log, "cpu"), strict=True))
    finally:
        torch.set_num_threads(before)


def test_no_event_sees_a_later_one_or_another_users() -> None:
    log = _log([40, 40])
    before = _run(log, "cpu")[0]
    log["values"][20:] = 1e6
    after = _run(log, "cpu")[0]
    assert torch.equal(after[:20], before[:20])
    log = _log([40, 40])
    log["values"][:40] = math.nan
    assert torch.equal(_run(log, "cpu")[0][40:], before[40:])


@pytest.mark.parametrize("split", [0, 1, 17, 80])
def test_the_state_read_at_any_hour_equals_the_sums(split: int) -> None:
    log = _log([80], width=4)
    coefficients, rate = _mix(), torch.tensor(0.2)
    state = initial_clock_state(1, 13, 4)
    for i in range(split):
        state = clock_step(state, log["values"][i : i + 1], log["times"][i : i + 1], rate)
    for hour in range(24):
        asked = torch.tensor([1_700_000_000 + 70 * DAY + hour * HOUR])
        got = clock_read(state, asked, coefficients.float(), rate)
        query_times = log["query_times"].clone()
        query_times[max(split - 1, 0)] = asked
        whole = clock_sums(
            log["values"].double(),
            log["times"],
            query_times,
            log["offsets"],
            coefficients=coefficients,
            rate=rate,
            max_length=80,
            backend="reference",
        )
        exact = whole[split - 1 : split] if split else torch.zeros(1, 4, dtype=torch.float64)
        assert float((got - exact).norm()) <= 1e-5 * (1e-3 + float(exact.norm()))


def test_a_request_before_the_last_event_counts_as_asked_at_it() -> None:
    log = _log([3], width=2)
    log["query_times"] = log["times"] - 10 * DAY
    ours, exact = _run(log, "cpu", rate=3.0)[0], _run(log, "reference", rate=3.0)[0]
    assert torch.allclose(ours.double(), exact, atol=1e-6)
    assert torch.isfinite(ours).all()


@pytest.mark.parametrize(("sigma", "degree"), [(1.0, 29), (1.5, 13), (2.0, 7), (3.0, 3)])
def test_the_cosine_kernel_follows_the_gaussian_and_is_never_negative(sigma: float, degree: int) -> None:
    assert hours_to_degree(sigma) == degree
    gap = torch.arange(0, DAY, 60)
    cosine = evaluate_kernel(gap, cosine_coefficients(degree))
    assert float((cosine - reference.gaussian_kernel(gap, sigma)).abs().max()) < 0.02
    assert float(cosine.min()) > -1e-15
    assert float((cosine - (math.pi * gap.double() / DAY).cos() ** (2 * degree)).abs().max()) < 1e-13


@pytest.mark.parametrize(("degree", "highest"), [(29, 19), (13, 12), (7, 7), (3, 3), (1, 1)])
def test_harmonics_that_single_precision_does_not_see_are_cut(degree: int, highest: int) -> None:
    assert highest_harmonic(degree) == highest
    gap = torch.arange(0, DAY, 60)
    whole = cosine_coefficients(degree)
    cut = evaluate_kernel(gap, cosine_coefficients(degree, highest + 1))
    assert float((cut - evaluate_kernel(gap, whole)).abs().max()) < 1e-7
    if highest < degree:
        shorter = evaluate_kernel(gap, cosine_coefficients(degree, highest))
        assert float((shorter - evaluate_kernel(gap, whole)).abs().max()) > 1e-7
    assert highest_harmonic(degree, 1e-18) == degree


def test_the_clock_wraps_at_midnight() -> None:
    late, early = 23 * HOUR + 1800, 24 * HOUR + 1800
    across = reference.gaussian_kernel(torch.tensor(early - late), 1.0)
    assert float(across) == pytest.approx(math.exp(-0.5))
    assert float(reference.gaussian_kernel(torch.tensor(late - early), 1.0)) == pytest.approx(math.exp(-0.5))


def test_features_multiply_to_the_kernel() -> None:
    times = torch.tensor([0, 1, 43_200, 86_399, 1_700_000_123, -5])
    coefficients = cosine_coefficients(7)
    features = circle_features(times, 7, torch.float64)
    products = weigh_features(features, coefficients) @ features.T
    assert torch.allclose(products, evaluate_kernel(times[:, None] - times, coefficients), atol=1e-12)
    padded = padded_features(times, 7)
    assert torch.allclose(padded[:, :15].double(), features, atol=1e-6)
    assert float(padded[:, 15:].abs().sum()) == 0.0


def test_hour_buckets_count_thirty_days_and_smooth_around_midnight() -> None:
    now = 1_700_006_400 // DAY * DAY + 1800  # half past midnight
    times = torch.tensor([now - 31 * DAY, now - DAY - HOUR, now - DAY, now + 60])  # 23:30 is an hour away
    values = torch.eye(4, dtype=torch.float64)
    sums, weight = reference.bucket_clock(values, times, now, sigma=1.0)
    assert sums.tolist() == pytest.approx([0.0, math.exp(-0.5), 1.0, 0.0])
    assert float(weight) == pytest.approx(sum(sums.tolist()))


def test_the_kernel_is_registered_properly() -> None:
    log = _log([5, 0, 40])
    a = torch.randn(45, 16).requires_grad_()
    b = torch.randn(45, 16).requires_grad_()
    c = torch.randn(45, 32).requires_grad_()
    logs = [(log[name] - 1_700_000_000).double() * 1e-7 for name in ("query_times", "times")]
    torch.library.opcheck(
        decayed_products.operator,
        (a, logs[0].requires_grad_(), b, logs[1], c, log["offsets"], 32, False, True),
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"values": torch.zeros(4)}, "values has shape (4,), want (N, d)"),
        ({"times": torch.zeros(4, dtype=torch.int32)}, "times is torch.int32 of shape (4,)"),
        ({"query_times": torch.zeros(3, dtype=torch.int64)}, "want int64 local seconds (N,) with N = 4"),
        ({"coefficients": torch.ones(1)}, "coefficients is torch.float32 of shape (1,)"),
        ({"rate": torch.ones(1)}, "rate is torch.float32 of shape (1,)"),
        ({"form": "fast"}, "form is 'fast', use one of auto, direct, recurrent"),
        ({"offsets": torch.tensor([0, 3], dtype=torch.int32)}, "offsets runs from 0 to 3"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_one_line(changed: dict[str, object], message: str) -> None:
    log: dict[str, object] = {**_log([4])}
    options = {"coefficients": _mix(), "rate": torch.tensor(0.1), "max_length": 9, "backend": "cpu"}
    with pytest.raises(ArgumentError, match=re.escape(message)) as error:
        clock_sums(**{**log, **options, **changed})  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
