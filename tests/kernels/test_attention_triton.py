import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.jagged import SequenceBatch
from recsys.kernels.attention import (
    AttentionBias,
    AttentionSchedule,
    jagged_attention,
    triton_bias,
    triton_table_gradients,
)
from recsys.kernels.attention import triton as backend
from recsys.kernels.attention.bias import MAX_BUCKETS, MAX_GAP, time_bucket
from recsys.kernels.attention.call import AttentionCall
from recsys.kernels.attention.dropout import draw_seed, keep_mask
from recsys.kernels.attention.schedule import CLASSES, TASK_ROWS, read_schedule
from recsys.kernels.shared.launching import Config, choose_config
from tests.kernels.tensors import offsets_of

MIXED = (5, 0, 16, 17, 1, 32, 33, 64, 65)
"""Every class, their edges, and an empty sequence."""
KINDS = ("", "t", "p", "tp")
"""Bias: none, times, positions, both."""


def _inputs(
    lengths: Sequence[int], heads: int = 2, width: int = 16, seed: int = 0, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """q, k, v and a gradient of the output, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(sum(lengths), heads, width, generator=generator).to(dtype) for _ in range(4)]


def _bias(lengths: Sequence[int], heads: int, kind: str, seed: int = 0) -> AttentionBias | None:
    """Tables of the kinds in `kind`, with times that fall back now and then, on the CPU."""
    if not kind:
        return None
    generator = torch.Generator().manual_seed(seed)
    table, places = (torch.randn(heads, size, generator=generator) for size in (9, 11))
    times = 2**40 + torch.randint(-5, 20, (sum(lengths),), generator=generator).cumsum(0)
    time_table, stamps = (table, times) if "t" in kind else (None, None)
    return AttentionBias(time_table, stamps, places if "p" in kind else None)


def _run(
    inputs: Sequence[Tensor],
    lengths: Sequence[int],
    device: torch.device,
    *,
    name: str = "triton",
    dtype: torch.dtype | None = None,
    bias: AttentionBias | None = None,
    schedule: AttentionSchedule | None = None,
    causal: bool = True,
    dropout_p: float = 0.0,
) -> list[Tensor]:
    """The output and the gradients of q, k, v and the tables, on the CPU."""
    dtype = dtype or inputs[0].dtype
    q, k, v = leaves = [x.to(device, dtype).detach().requires_grad_() for x in inputs[:3]]
    if bias is not None:
        tables = [None if x is None else x.to(device) for x in (bias.time_table, bias.position_table)]
        if dtype == torch.float64:
            tables = [None if x is None else x.double() for x in tables]
        leaves += [x.requires_grad_() for x in tables if x is not None]
        stamps = None if bias.timestamps is None else bias.timestamps.to(device)
        bias = AttentionBias(tables[0], stamps, tables[1])
    out = jagged_attention(
        q,
        k,
        v,
        offsets_of(lengths, device),
        causal=causal,
        max_length=max(lengths, default=0),
        dropout_p=dropout_p,
        generator=torch.Generator().manual_seed(7),
        bias=bias,
        schedule=schedule,
        backend=name,
    )
    return [x.detach().cpu() for x in (out, *torch.autograd.grad(out, leaves, inputs[3].to(device, dtype)))]


def _assert_right(
    inputs: Sequence[Tensor],
    lengths: Sequence[int],
    device: torch.device,
    floor: float = 1e-12,
    **options: Any,
) -> None:
    """No further from float64 than the definition in the same type, plus 1e-5 of the norm."""
    ours = _run(inputs, lengths, device, **options)
    exact = _run(inputs, lengths, device, name="reference", dtype=torch.float64, **options)
    plain = _run(inputs, lengths, device, name="reference", **options)
    for a, b, c in zip(ours, exact, plain, strict=True):
        assert a.dtype == c.dtype
        assert a.shape == b.shape
        bound = float((c.double() - b).norm()) + 1e-5 * float(b.norm()) + floor
        assert float((a.double() - b).norm()) <= bound


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("heads", "width", "dtype"),
    [(2, 16, torch.float32), (1, 18, torch.float32), (3, 32, torch.float16)],
)
def test_output_and_gradients_equal_the_reference(
    heads: int, width: int, dtype: torch.dtype, causal: bool, device: torch.device
) -> None:
    _assert_right(_inputs(MIXED, heads, width, dtype=dtype), MIXED, device, causal=causal)


@pytest.mark.parametrize("width", [64, 128])
def test_wide_heads_of_float32_equal_the_reference(width: int, device: torch.device) -> None:
    lengths = (7, 20, 40, 70)
    _assert_right(_inputs(lengths, 1, width), lengths, device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="the interpreter multiplies the bits of bfloat16")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [16, 32, 64, 128])
def test_bfloat16_equals_the_reference(width: int, kind: str, device: torch.device) -> None:
    lengths = (*MIXED, 200, 1000)
    inputs, bias = _inputs(lengths, width=width, dtype=torch.bfloat16), _bias(lengths, 2, kind)
    for causal in (True, False):
        _assert_right(inputs, lengths, device, bias=bias, causal=causal, dropout_p=0.2)


def test_a_long_sequence_among_short_ones_equals_the_reference(device: torch.device) -> None:
    lengths = (*(3,) * 25, 260, *(3,) * 25)
    _assert_right(_inputs(lengths, heads=1), lengths, device)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", ["t", "p", "tp"])
def test_bias_and_its_gradients_equal_the_reference(kind: str, causal: bool, device: torch.device) -> None:
    lengths = (5, 0, 17, 33, 130) if kind == "p" else (20, 66)
    bias = _bias(lengths, 2, kind)
    _assert_right(_inputs(lengths), lengths, device, bias=bias, causal=causal, dropout_p=0.3)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("entries", [1, 3, 257])
def test_position_tables_of_any_size_get_their_gradients(
    entries: int, causal: bool, device: torch.device
) -> None:
    lengths = (20, 100)
    table = torch.randn(2, entries, generator=torch.Generator().manual_seed(0))
    bias = AttentionBias(position_table=table)
    floor = 1e-4 if entries == 1 else 0.0  # the same score everywhere changes nothing: the gradient is 0
    _assert_right(_inputs(lengths), lengths, device, floor, bias=bias, causal=causal)


def test_a_small_workspace_gives_the_same_table_gradients(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = (3, 9, 70, 40, 12, 5, 7, 8, 20)
    inputs, bias = _inputs(lengths, heads=1), _bias(lengths, 1, "tp")
    whole = _run(inputs, lengths, device, bias=bias)
    monkeypatch.setattr(triton_table_gradients, "MOST_FLOATS", 1)
    parts = _run(inputs, lengths, device, bias=bias)
    assert all(_same_bits(a, b) for a, b in zip(whole[:4], parts[:4], strict=True))
    for a, b in zip(whole[4:], parts[4:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


# Without annotations: the compiler, unlike the interpreter, looks up their names.
@triton.jit  # type: ignore[untyped-decorator]
def _bucket_kernel(gaps, found, count, buckets, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    lane = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    gap = tl.load(gaps + lane, mask=lane < count, other=0)
    base = tl.full((SIZE,), 1_700_000_000, tl.int64)
    tl.store(found + lane, triton_bias.time_buckets(base - gap, base, buckets), mask=lane < count)


@pytest.mark.parametrize("buckets", [MAX_BUCKETS, 7])
def test_time_buckets_are_the_stated_ones(buckets: int, device: torch.device) -> None:
    edges = [max(0, n * 2**e // 4 + d) for e in range(34) for n in (4, 5, 6, 7) for d in (-1, 0, 1)]
    generator = torch.Generator().manual_seed(0)
    sizes = 2.0 ** torch.randint(0, 33, (20_000,), generator=generator)
    random = (torch.rand(20_000, generator=generator, dtype=torch.float64) * sizes).long()
    gaps = torch.cat((torch.tensor([*edges, MAX_GAP, MAX_GAP + 1, 2**60]), random)).to(device)
    found = torch.full_like(gaps, -1, dtype=torch.int32)
    _bucket_kernel[(triton.cdiv(len(gaps), 1024),)](gaps, found, len(gaps), buckets, SIZE=1024)
    assert torch.equal(found.long(), time_bucket(gaps, buckets))


@pytest.mark.parametrize("dropout_p", [0.3])
def test_the_mask_is_the_stated_one_in_every_bit(dropout_p: float, device: torch.device) -> None:
    lengths = (16, 0, 31, 64, 65)
    flat = torch.zeros(sum(lengths), 2, 66)
    names = torch.cat([torch.eye(66)[:length] for length in lengths])[:, None].expand(flat.shape)
    out, _, _, dv = _run([flat, flat, names, names], lengths, device, causal=False, dropout_p=dropout_p)
    seed = draw_seed(torch.Generator().manual_seed(7), flat.device)
    for b, (start, length) in enumerate(zip(itertools.accumulate((0, *lengths)), lengths, strict=False)):
        keep = keep_mask(seed, b, 2, length, dropout_p)
        weights = keep / (max(length, 1) * (1 - dropout_p))
        rows = slice(start, start + length)
        torch.testing.assert_close(out[rows, :, :length], weights.transpose(0, 1))
        torch.testing.assert_close(dv[rows, :, :length], weights.permute(2, 0, 1))  # keys' weights of queries


def test_dropout_equals_the_reference_with_the_same_mask(device: torch.device) -> None:
    _assert_right(_inputs(MIXED, heads=1), MIXED, device, dropout_p=0.3)


def test_a_device_generator_and_its_seed_on_the_host_give_one_mask(device: torch.device) -> None:
    q, k, v, _ = (x.to(device) for x in _inputs((20, 70)))
    drawn = torch.Generator(device).manual_seed(3)
    number = draw_seed(torch.Generator(device).manual_seed(3), device)
    offsets = offsets_of((20, 70), device)
    first = jagged_attention(
        q, k, v, offsets, causal=True, max_length=70, dropout_p=0.4, generator=drawn, backend="triton"
    )
    again = backend.jagged_attention(
        AttentionCall(q, k, v, offsets, True, 0.25, 0.4, number.cpu(), bias=None, schedule=None)
    )
    assert torch.equal(first, again)


@pytest.mark.parametrize("kind", ["", "tp"])
def test_a_sequence_has_the_same_bits_alone_and_in_any_batch(kind: str, device: torch.device) -> None:
    lengths = (9, 25, 50, 70)
    parts = [_inputs((length,), heads=1, seed=b) for b, length in enumerate(lengths)]
    biases = [_bias((length,), 1, kind, seed=b) for b, length in enumerate(lengths)]
    if kind:  # one pair of tables for all
        first = biases[0]
        assert first is not None
        biases = [replace(first, timestamps=x.timestamps) for x in biases if x is not None]
    alone = [
        _run(part, (length,), device, bias=bias)[:4]
        for part, length, bias in zip(parts, lengths, biases, strict=True)
    ]
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 0, 1, 0, 3, 0, 1, 0)):
        mixed = [torch.cat([parts[b][i] for b in order]) for i in range(4)]
        bias = biases[0]
        if bias is not None:
            stamps = [
                x.timestamps for b in order if (x := biases[b]) is not None and x.timestamps is not None
            ]
            bias = replace(bias, timestamps=torch.cat(stamps))
        found = _run(mixed, [lengths[b] for b in order], device, bias=bias)
        at = 0
        for b in order:
            for a, c in zip(found[:4], alone[b], strict=True):
                assert _same_bits(a[at : at + lengths[b]], c)
            at += lengths[b]


def test_events_of_other_sequences_change_no_bit(device: torch.device) -> None:
    lengths = (5, 20, 6, 70, 9)
    inputs = _inputs(lengths)
    clean = _run(inputs, lengths, device)
    for x in inputs[:3]:
        x[7] = math.nan
        x[40] += 3.0
    with np.errstate(invalid="ignore"):
        found = _run(inputs, lengths, device)
    assert torch.isnan(found[0][7:25]).all()
    for a, b in zip(found, clean, strict=True):
        for rows in (slice(0, 5), slice(25, 31), slice(101, 110)):
            assert _same_bits(a[rows], b[rows])


def test_a_causal_output_does_not_see_later_events(device: torch.device) -> None:
    lengths = (30, 70)
    inputs = _inputs(lengths)
    first = _run(inputs, lengths, device)[0]
    for x in inputs[:3]:
        x[20:30] += 1.0
        x[60:] += 1.0
    again = _run(inputs, lengths, device)[0]
    for same, changed in ((slice(0, 20), slice(20, 30)), (slice(30, 60), slice(60, 100))):
        assert _same_bits(first[same], again[same])
        assert not torch.equal(first[changed], again[changed])


def test_two_runs_give_the_same_bits(device: torch.device) -> None:
    lengths = (40, 3, 70, 20)
    inputs, bias = _inputs(lengths, heads=1), _bias(lengths, 1, "tp")
    first, again = (_run(inputs, lengths, device, bias=bias, dropout_p=0.1) for _ in range(2))
    assert all(_same_bits(a, b) for a, b in zip(first, again, strict=True))


def test_parts_of_one_projection_and_an_expanded_gradient_change_nothing(device: torch.device) -> None:
    lengths = (20, 70)
    fused = torch.randn(90, 3, 2, 16, generator=torch.Generator().manual_seed(0)).to(device)
    grad = torch.ones(1, 1, 1).expand(90, 2, 16)
    plain = _run([*(fused[:, i].cpu() for i in range(3)), grad.contiguous()], lengths, device)
    turned = fused.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)  # a head's entries far apart
    for odd in (fused, turned):
        leaf = odd.detach().requires_grad_()
        q, k, v = leaf.unbind(1)
        assert not q.is_contiguous()
        out = jagged_attention(
            q, k, v, offsets_of(lengths, device), causal=True, max_length=70, backend="triton"
        )
        (slope,) = torch.autograd.grad(out.sum(), leaf)
        found = [out.detach().cpu(), *slope.cpu().unbind(1)]
        assert all(_same_bits(a.contiguous(), b) for a, b in zip(found, plain, strict=True))


def test_large_scores_stay_finite(device: torch.device) -> None:
    lengths = (40, 70)
    inputs = [x * 100 for x in _inputs(lengths)]
    assert all(bool(torch.isfinite(x).all()) for x in _run(inputs, lengths, device))


@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 0)])
def test_batches_without_events_give_nothing(lengths: tuple[int, ...], device: torch.device) -> None:
    found = _run(_inputs(lengths), lengths, device, bias=_bias(lengths, 2, "tp"), dropout_p=0.1)
    assert all(x.shape == (0, 2, 16) for x in found[:4])
    assert all(not x.any() for x in found[4:])


def test_smaller_blocks_and_polynomial_exponentials_are_right(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(operation: str, kernel: str, chip: str, **sizes: Any) -> Config:
        config = choose_config(operation, kernel, chip, **sizes)
        owned, other = ("BLOCK_N", "BLOCK_M") if kernel == "backward_keys" else ("BLOCK_M", "BLOCK_N")
        smaller = {owned: 32, other: 16, "FMA_EVERY": 2, "GROUP": 2}
        return replace(config, blocks={name: smaller[name] for name in config.blocks})

    monkeypatch.setattr(backend, "choose_config", choose)
    lengths = (5, 20, 100)
    for causal in (True, False):
        bias = _bias(lengths, 1, "tp")
        _assert_right(_inputs(lengths, heads=1), lengths, device, bias=bias, causal=causal)


def test_the_schedule_covers_each_event_once_longest_first() -> None:
    lengths = np.random.default_rng(0).choice([0, 1, 15, 16, 17, 33, 64, 65, 128, 129, 300], 60)
    schedule = AttentionSchedule.from_lengths(lengths)
    counts = schedule.counts.tolist()
    assert sum(counts) == len(schedule.tasks)
    ranges = np.split(schedule.tasks.numpy(), np.cumsum(counts)[:-1])
    seen = {(int(b), int(block)) for b, block in schedule.tasks}
    assert len(seen) == len(schedule.tasks)
    assert seen == {(b, i) for b, length in enumerate(lengths) for i in range(-(-int(length) // TASK_ROWS))}
    for tasks, most, least in zip(ranges, (8192, *CLASSES), (*CLASSES, 0), strict=True):
        assert len(tasks)
        sizes = lengths[tasks[:, 0]]
        assert ((sizes > least) & (sizes <= most)).all()
        assert (np.diff(sizes) <= 0).all()
    again = AttentionSchedule.from_lengths(lengths[lengths > 0])
    assert again.counts.tolist() == counts


def test_a_schedule_read_from_offsets_is_the_one_made_from_lengths(device: torch.device) -> None:
    lengths = np.array([5, 0, 200, 64, 65, 17])
    made = AttentionSchedule.from_lengths(lengths)
    tasks, counts = read_schedule(offsets_of(lengths.tolist(), device), int(lengths.sum()))
    assert torch.equal(tasks[: len(made.tasks)].cpu(), made.tasks)
    assert torch.equal(counts, made.counts)
    inputs = _inputs(lengths.tolist(), heads=1)
    plain = _run(inputs, lengths.tolist(), device)
    given = _run(inputs, lengths.tolist(), device, schedule=made.to(device))
    assert all(_same_bits(a, b) for a, b in zip(plain, given, strict=True))


@pytest.mark.parametrize("lengths", [np.array([[1, 2]]), np.array([1, -2]), np.array([0.5])])
def test_a_schedule_of_wrong_lengths_is_refused(lengths: Any) -> None:
    with pytest.raises(ArgumentError, match="AttentionSchedule: lengths is"):
        AttentionSchedule.from_lengths(lengths)


def test_a_batch_keeps_the_schedule_of_its_device(device: torch.device) -> None:
    batch = SequenceBatch.from_lengths(np.arange(8), [3, 5])
    assert batch.attention_schedule is None
    moved = batch.to(device)
    if device.type == "cuda":
        schedule = moved.attention_schedule
        assert schedule is not None
        assert schedule.tasks.device.type == "cuda"
        assert moved.attention_schedule is schedule


def test_heads_above_128_are_refused(device: torch.device) -> None:
    x = torch.zeros(3, 1, 130, device=device)
    with pytest.raises(ArgumentError, match="q has head size 130, backend 'triton' takes up to 128"):
        jagged_attention(x, x, x, offsets_of((3,), device), causal=True, max_length=3, backend="triton")


@pytest.mark.parametrize("flags", [False, True])
def test_the_registered_operations_pass_torch_checks(flags: bool, device: torch.device) -> None:
    lengths = (5, 0, 3, 20)
    offsets = offsets_of(lengths, device)
    q, k, v, grad = (x.to(device) for x in _inputs(lengths, heads=1))
    bias = _bias(lengths, 1, "tp")
    assert bias is not None
    tasks, counts = read_schedule(offsets, 28)
    extras = (torch.tensor(5), bias.time_table, bias.timestamps, bias.position_table)
    moved = [x.to(device) if flags and x is not None else None for x in extras]
    options = (True, 0.25, 0.5 if flags else 0.0)
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    tables = [x.requires_grad_() if x is not None and x.is_floating_point() else x for x in moved]
    inputs = (offsets, tasks, counts, *tables)
    torch.library.opcheck(backend.forward, (*leaves, *inputs, *options))
    plain = [x.detach() if isinstance(x, Tensor) else x for x in (q, k, v, *inputs)]
    saved = backend.forward(*plain, *options)
    torch.library.opcheck(backend.backward, (grad, *plain, *saved, *options))
    torch.library.opcheck(read_schedule, (offsets, 28))


@pytest.mark.parametrize("scheduled", [True, False])
def test_it_compiles_whole_and_for_any_batch(scheduled: bool, device: torch.device) -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor, offsets: Tensor, schedule: Any, longest: int) -> Tensor:
        return jagged_attention(
            q, k, v, offsets, causal=True, max_length=longest, schedule=schedule, backend="triton"
        )

    torch._dynamo.reset()
    compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend="aot_eager")
    for lengths in ((5, 20), (9, 3, 17)):
        q, k, v, grad = (x.to(device) for x in _inputs(lengths, heads=1))
        leaves = [x.requires_grad_() for x in (q, k, v)]
        schedule = AttentionSchedule.from_lengths(np.array(lengths)).to(device) if scheduled else None
        found = compiled(leaves[0], leaves[1], leaves[2], offsets_of(lengths, device), schedule, max(lengths))
        slopes = torch.autograd.grad(found, leaves, grad)
        plain = _run([x.cpu() for x in (q, k, v, grad)], lengths, device)
        for a, b in zip((found.detach(), *slopes), plain, strict=True):
            assert _same_bits(a.cpu(), b)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="the interpreter has nothing to wait for")
def test_nothing_waits_for_the_device(device: torch.device) -> None:
    lengths = (*MIXED, 200)
    q, k, v, grad = (x.to(device) for x in _inputs(lengths))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    offsets = offsets_of(lengths, device)
    schedule = AttentionSchedule.from_lengths(np.array(lengths)).to(device)
    table = torch.zeros(2, 9, device=device, requires_grad=True)
    bias = AttentionBias(table, torch.arange(len(q), device=device))
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = jagged_attention(
            q, k, v, offsets, causal=True, max_length=200, dropout_p=0.1, bias=bias, schedule=schedule
        )
        torch.autograd.grad(out, [*leaves, table], grad)
    finally:
        torch.cuda.set_sync_debug_mode("default")
