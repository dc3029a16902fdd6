import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.errors import ArgumentError
from recsys.kernels.attention import attention_step, cpu, cpu_tasks, jagged_attention
from recsys.kernels.attention.dropout import draw_seed, keep_mask
from tests.kernels.tensors import offsets_of


def _inputs(lengths: Sequence[int], heads: int = 2, width: int = 16, seed: int = 0) -> list[Tensor]:
    """q, k, v and a gradient of the output."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(sum(lengths), heads, width, generator=generator) for _ in range(4)]


def _run(
    inputs: Sequence[Tensor],
    lengths: Sequence[int],
    *,
    backend: str = "cpu",
    causal: bool = True,
    dropout_p: float = 0.0,
    seed: int = 7,
) -> list[Tensor]:
    """The output and the gradients of q, k, v; the reference runs in float64."""
    dtype = torch.float64 if backend == "reference" else inputs[0].dtype
    q, k, v = leaves = [x.to(dtype).detach().requires_grad_() for x in inputs[:3]]
    out = jagged_attention(
        q,
        k,
        v,
        offsets_of(lengths),
        causal=causal,
        max_length=max(lengths, default=0),
        dropout_p=dropout_p,
        generator=torch.Generator().manual_seed(seed),
        backend=backend,
    )
    return [out.detach(), *torch.autograd.grad(out, leaves, inputs[3].to(dtype))]


def _assert_close(ours: Sequence[Tensor], exact: Sequence[Tensor], bound: float = 3e-6) -> None:
    for a, b in zip(ours, exact, strict=True):
        assert a.shape == b.shape
        assert float((a.double() - b).norm()) <= bound * float(b.norm()) + 1e-12


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def test_the_reference_equals_a_hand_worked_case() -> None:
    q = torch.tensor([1.0, 2.0]).view(2, 1, 1)
    k = torch.tensor([0.0, math.log(3.0)]).view(2, 1, 1)
    v = torch.tensor([10.0, 20.0]).view(2, 1, 1)
    offsets = offsets_of([2])
    # Query 1 weighs its keys 1 : 9; query 0 sees itself alone, or both 1 : 3.
    seen = jagged_attention(q, k, v, offsets, causal=True, max_length=2, scale=1.0, backend="reference")
    torch.testing.assert_close(seen.flatten(), torch.tensor([10.0, 19.0]))
    both = jagged_attention(q, k, v, offsets, causal=False, max_length=2, scale=1.0, backend="reference")
    torch.testing.assert_close(both.flatten(), torch.tensor([17.5, 19.0]))


@pytest.mark.parametrize("causal", [True, False])
def test_the_reference_equals_torch_attention(causal: bool) -> None:
    lengths = (3, 0, 1, 6)
    q, k, v, _ = (x.double() for x in _inputs(lengths, heads=2, width=4))
    ours = jagged_attention(q, k, v, offsets_of(lengths), causal=causal, max_length=6)
    for start, end in itertools.pairwise(offsets_of(lengths).tolist()):
        q_s, k_s, v_s = (x[start:end].transpose(0, 1) for x in (q, k, v))
        theirs = F.scaled_dot_product_attention(q_s, k_s, v_s, is_causal=causal)
        torch.testing.assert_close(ours[start:end].transpose(0, 1), theirs)


@pytest.mark.parametrize("dropout_p", [0.0, 0.4])
def test_the_reference_has_right_gradients(dropout_p: float) -> None:
    lengths = (3, 0, 2)
    leaves = [x.double().requires_grad_() for x in _inputs(lengths, heads=2, width=3)[:3]]
    assert torch.autograd.gradcheck(
        lambda q, k, v: jagged_attention(
            q,
            k,
            v,
            offsets_of(lengths),
            causal=True,
            max_length=3,
            dropout_p=dropout_p,
            generator=torch.Generator().manual_seed(0),
        ),
        leaves,
    )


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "width"), [(1, 64), (2, 16), (3, 8), (4, 33)])
@pytest.mark.parametrize("lengths", [(0, 1, 2, 3, 0), (31, 32, 33), (200, 0, 17, 5)])
def test_compiled_output_and_gradients_equal_the_reference(
    lengths: tuple[int, ...], heads: int, width: int, causal: bool
) -> None:
    inputs = _inputs(lengths, heads, width)
    _assert_close(
        _run(inputs, lengths, causal=causal), _run(inputs, lengths, causal=causal, backend="reference")
    )


@pytest.mark.parametrize("causal", [True, False])
def test_a_huge_sequence_among_short_ones_equals_the_reference(causal: bool) -> None:
    lengths = (3, cpu_tasks.WHOLE + 33, 9)
    inputs = _inputs(lengths, heads=1)
    _assert_close(
        _run(inputs, lengths, causal=causal), _run(inputs, lengths, causal=causal, backend="reference")
    )


@pytest.mark.parametrize("causal", [True, False])
def test_cutting_a_sequence_changes_no_bit(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = (150, 7, 97)
    inputs = _inputs(lengths)
    whole = _run(inputs, lengths, causal=causal, dropout_p=0.2)
    monkeypatch.setattr(cpu_tasks, "WHOLE", 64)
    monkeypatch.setattr(cpu_tasks, "CUT", 32)
    cut = _run(inputs, lengths, causal=causal, dropout_p=0.2)
    assert all(_same_bits(a, b) for a, b in zip(whole, cut, strict=True))


def test_a_sequence_has_the_same_bits_alone_and_in_any_batch() -> None:
    own, others = (45,), (3, 80, 0, 12)
    inputs = _inputs(own, seed=1)
    alone = _run(inputs, own)
    rest = _inputs(others, seed=2)
    for place in range(len(others) + 1):
        before, after = others[:place], others[place:]
        at = sum(before)
        mixed = [torch.cat((x[:at], mine, x[at:])) for x, mine in zip(rest, inputs, strict=True)]
        found = _run(mixed, (*before, *own, *after))
        assert all(_same_bits(a[at : at + 45], b) for a, b in zip(found, alone, strict=True))


def test_a_nan_stays_in_its_own_sequence() -> None:
    lengths = (5, 20, 6)
    inputs = _inputs(lengths)
    clean = _run(inputs, lengths)
    for x in inputs[:3]:
        x[7] = math.nan
    found = _run(inputs, lengths)
    assert torch.isnan(found[0][7:25]).all()
    for a, b in zip(found, clean, strict=True):
        assert _same_bits(a[:5], b[:5])
        assert _same_bits(a[25:], b[25:])


def test_a_causal_output_does_not_see_later_events() -> None:
    lengths = (4, 70)
    inputs = _inputs(lengths)
    first = _run(inputs, lengths)[0]
    for x in inputs[:3]:
        x[40:] += 1.0
    again = _run(inputs, lengths)[0]
    assert _same_bits(first[:40], again[:40])
    assert not torch.equal(first[40:], again[40:])


@pytest.mark.usefixtures("_threads")
def test_runs_and_thread_counts_agree_bit_for_bit() -> None:
    lengths = (600, 3, 250, 90, 400)
    inputs = _inputs(lengths, heads=2, width=32)
    runs = []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        runs.append(_run(inputs, lengths, dropout_p=0.1))
    for run in runs[1:]:
        assert all(_same_bits(a, b) for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("causal", [True, False])
def test_dropout_equals_the_reference_with_the_same_mask(causal: bool) -> None:
    lengths = (40, 0, 3, 17)
    inputs = _inputs(lengths)
    ours = _run(inputs, lengths, causal=causal, dropout_p=0.3)
    _assert_close(ours, _run(inputs, lengths, causal=causal, dropout_p=0.3, backend="reference"))
    plain = _run(inputs, lengths, causal=causal)
    assert float((ours[0] - plain[0]).norm()) > 0.1 * float(plain[0].norm())


@pytest.mark.parametrize("dropout_p", [0.1, 0.5, 0.8])
def test_the_compiled_mask_is_the_stated_one_in_every_bit(dropout_p: float) -> None:
    lengths = (64,) * 8
    flat = torch.zeros(512, 4, 64)
    names = torch.eye(64).repeat(8, 1)[:, None].expand(512, 4, 64)
    generator, twin = (torch.Generator().manual_seed(3) for _ in range(2))
    found = jagged_attention(
        flat,
        flat,
        names,
        offsets_of(lengths),
        causal=False,
        max_length=64,
        dropout_p=dropout_p,
        generator=generator,
        backend="cpu",
    )  # row i of a head holds the weights of query i
    seed = draw_seed(twin, flat.device)
    keep = torch.cat([keep_mask(seed, b, 4, 64, dropout_p).transpose(0, 1) for b in range(8)])
    torch.testing.assert_close(found, keep / (64 * (1 - dropout_p)))


def test_the_same_generator_state_gives_the_same_mask_and_another_another() -> None:
    lengths = (40, 3)
    inputs = _inputs(lengths)
    first, same, other = (_run(inputs, lengths, dropout_p=0.5, seed=seed) for seed in (1, 1, 2))
    assert all(_same_bits(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first[0], other[0])


def test_a_call_draws_one_number_and_none_without_dropout() -> None:
    q, k, v, _ = _inputs((5,))
    generator, twin = (torch.Generator().manual_seed(3) for _ in range(2))
    for dropout_p in (0.0, 0.5):
        jagged_attention(
            q, k, v, offsets_of((5,)), causal=True, max_length=5, dropout_p=dropout_p, generator=generator
        )
        if dropout_p > 0:
            draw_seed(twin, q.device)
        assert torch.equal(generator.get_state(), twin.get_state())


@pytest.mark.parametrize("dropout_p", [0.05, 0.5, 0.9])
def test_the_keep_rate_is_within_four_sigma(dropout_p: float) -> None:
    keep = torch.stack([keep_mask(seed, 0, 4, 128, dropout_p) for seed in range(8)])
    sigma = math.sqrt(dropout_p * (1 - dropout_p) / keep.numel())
    assert abs(float(keep.double().mean()) - (1 - dropout_p)) < 4 * sigma


def test_masks_of_neighbouring_rows_heads_sequences_and_seeds_are_unrelated() -> None:
    keep = torch.stack(
        [keep_mask(seed, sequence, 2, 128, 0.5) for seed in (5, 6, 5 + 2**32) for sequence in (0, 1)]
    )
    signs = keep.double() * 2 - 1  # (6, heads, queries, keys)
    bound = 4.5 / math.sqrt(128 * 128)
    tables = signs.flatten(0, 1).flatten(1)
    correlation = tables @ tables.T / tables.shape[1]
    assert float((correlation - torch.eye(12)).abs().max()) < bound
    for shifted in (signs.roll(1, 2), signs.roll(1, 3), signs.roll((1, 1), (2, 3))):
        assert float((signs * shifted).mean((2, 3)).abs().max()) < bound


def test_steps_equal_the_whole() -> None:
    lengths = (5, 9, 1)
    q, k, v, _ = _inputs(lengths, heads=3, width=8)
    offsets = offsets_of(lengths)
    whole = jagged_attention(q, k, v, offsets, causal=True, max_length=9)
    k_cache, v_cache = (torch.full((3, 9, 3, 8), math.nan) for _ in range(2))
    for step in range(9):
        live = [b for b, length in enumerate(lengths) if step < length]
        rows = offsets[:-1][live].long() + step
        for cache, x in ((k_cache, k), (v_cache, v)):
            cache[live, step] = x[rows]
        counts = torch.full((len(live),), step + 1)
        found = attention_step(q[rows], k_cache[live], v_cache[live], counts)
        torch.testing.assert_close(found, whole[rows], rtol=1e-5, atol=1e-6)


def test_a_step_without_history_is_zero() -> None:
    cache = torch.full((2, 4, 1, 8), math.nan)
    found = attention_step(torch.ones(2, 1, 8), cache, cache, torch.tensor([0, 0]))
    assert found.tolist() == torch.zeros(2, 1, 8).tolist()


def test_parts_of_one_projection_need_no_copy_and_change_nothing() -> None:
    lengths = (20, 33)
    fused = torch.randn(53, 3, 2, 16, generator=torch.Generator().manual_seed(0))
    parts = [fused[:, i] for i in range(3)]
    turned = [x.permute(2, 1, 0).contiguous().permute(2, 1, 0) for x in parts]
    grad = torch.ones(1, 1, 1).expand(53, 2, 16)
    plain = _run([*(x.contiguous() for x in parts), grad.contiguous()], lengths)
    for odd in (parts, turned):
        assert not any(x.is_contiguous() for x in odd)
        found = _run([*odd, grad], lengths)
        assert all(_same_bits(a, b) for a, b in zip(found, plain, strict=True))


def test_large_scores_stay_finite() -> None:
    lengths = (40, 3)
    inputs = [x * 100 for x in _inputs(lengths)]
    ours = _run(inputs, lengths)
    assert all(bool(torch.isfinite(x).all()) for x in ours)
    _assert_close(ours[:1], _run(inputs, lengths, backend="reference")[:1], 1e-4)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_narrow_types_are_computed_in_float32(dtype: torch.dtype, bound: float) -> None:
    lengths = (40, 3)
    inputs = [x.to(dtype) for x in _inputs(lengths)]
    ours = _run(inputs, lengths)
    assert {x.dtype for x in ours} == {dtype}
    _assert_close(ours, _run(inputs, lengths, backend="reference"), bound)


def test_scale_is_used() -> None:
    q, k, v, _ = _inputs((6,))
    halved = jagged_attention(q, k, v, offsets_of((6,)), causal=True, max_length=6, scale=0.125)
    same = jagged_attention(q * 0.5, k, v, offsets_of((6,)), causal=True, max_length=6)
    torch.testing.assert_close(halved, same)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("lengths", [(), (0,), (0, 0, 0)])
def test_batches_without_events_give_nothing(lengths: tuple[int, ...], backend: str) -> None:
    found = _run(_inputs(lengths), lengths, backend=backend)
    assert all(x.shape == (0, 2, 16) for x in found)


def test_the_registered_operation_passes_torch_checks() -> None:
    q, k, v, _ = _inputs((5, 0, 3), width=32)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    arguments = (*leaves, offsets_of((5, 0, 3)), True, 0.25, 0.0, 0)
    torch.library.opcheck(cpu.forward.operator, arguments)
    assert cpu_tasks.cut_batch(offsets_of((5, 0, 3)).numpy(), 2, backward=False)[1] == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(5, 4)}, r"q is torch.float32 of shape \(5, 4\)"),
        ({"k": torch.zeros(4, 1, 8)}, r"k has shape \(4, 1, 8\) and q \(5, 1, 8\)"),
        ({"v": torch.zeros(5, 1, 8).double()}, "v is torch.float64 on cpu and q torch.float32"),
        ({"offsets": torch.tensor([0.0, 5.0])}, "offsets has dtype torch.float32"),
        ({"offsets": torch.tensor([0, 4], dtype=torch.int32)}, "offsets runs from 0 to 4"),
        ({"offsets": torch.tensor([0, 6, 5], dtype=torch.int32)}, "offsets falls from 6 to 5"),
        ({"max_length": 4}, "max_length is 4 and the longest sequence has 5"),
        ({"dropout_p": 1.0}, "dropout_p is 1.0"),
        ({"backend": "gpu"}, "backend is 'gpu'"),
    ],
)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_wrong_arguments_are_named_in_one_line(change: dict[str, object], message: str, backend: str) -> None:
    x = torch.zeros(5, 1, 8)
    arguments: dict[str, object] = {"q": x, "k": x, "v": x, "offsets": offsets_of((5,)), "causal": True}
    arguments |= {"max_length": 5, "backend": backend} | change
    with pytest.raises(ArgumentError, match=message) as caught:
        jagged_attention(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(2, 8)}, "q is torch.float32"),
        ({"k_cache": torch.zeros(2, 4, 8)}, "k_cache has shape"),
        ({"v_cache": torch.zeros(2, 3, 1, 8)}, "v_cache has shape"),
        ({"v_cache": torch.zeros(2, 4, 1, 8).double()}, "v_cache is torch.float64"),
        ({"lengths": torch.zeros(2)}, "lengths is torch.float32"),
        ({"lengths": torch.tensor([1, 5])}, "lengths holds 5"),
    ],
)
def test_wrong_arguments_of_a_step_are_named(change: dict[str, Tensor], message: str) -> None:
    cache = torch.zeros(2, 4, 1, 8)
    good = {"q": torch.zeros(2, 1, 8), "k_cache": cache, "v_cache": cache, "lengths": torch.tensor([1, 2])}
    with pytest.raises(ArgumentError, match=message):
        attention_step(**(good | change))  # type: ignore[arg-type]
