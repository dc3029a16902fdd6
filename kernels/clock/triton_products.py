# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The clock's causal products on the GPU: a program walks one sequence, chunk by chunk, state in registers.

Legend: F features, W columns of the values, BLOCK_T rows of a chunk; see `cpu.decayed_products`.
"""

import triton
import triton.language as tl

__all__ = ["products_kernel"]


@triton.jit(do_not_specialize=["slices"])
def products_kernel(
    order,
    offsets,
    a,
    a_log,
    b,
    b_log,
    c,
    out,
    features,
    width,
    slices,
    REVERSE: tl.constexpr,
    DECAYING: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """out_i = sum over j <= i of 2^(b_log_j - a_log_i) (a_i . b_j) c_j, one slice of columns of a sequence.

    order (B,) int32 sequences; offsets (B + 1,) int32; a, b (N, F), c, out (N, W) float32 and contiguous;
    logs (N,) float64. REVERSE takes rows from the end and turns the logs' signs around.
    """
    i_sequence = tl.load(order + tl.program_id(0) // slices)
    i_slice = tl.program_id(0) % slices
    bos = tl.load(offsets + i_sequence).to(tl.int64)
    eos = tl.load(offsets + i_sequence + 1).to(tl.int64)
    o_row = tl.arange(0, BLOCK_T)
    o_feature = tl.arange(0, BLOCK_F)
    o_column = i_slice * BLOCK_W + tl.arange(0, BLOCK_W)
    m_feature = o_feature < features
    m_column = o_column < width
    sign = -1.0 if REVERSE else 1.0
    b_state = tl.zeros((BLOCK_F, BLOCK_W), tl.float32)
    reached = tl.full((), -1e30, tl.float64)
    for begin in range(0, (eos - bos).to(tl.int32), BLOCK_T):
        position = begin + o_row
        m_row = position < eos - bos
        rows = (eos - 1 - position) if REVERSE else (bos + position)
        rows = tl.where(m_row, rows, bos)
        m_rf = m_row[:, None] & m_feature[None, :]
        m_rw = m_row[:, None] & m_column[None, :]
        b_a = tl.load(a + rows[:, None] * features + o_feature[None, :], mask=m_rf, other=0.0)
        b_c = tl.load(c + rows[:, None] * width + o_column[None, :], mask=m_rw, other=0.0)
        # Loaded turned around rather than transposed in registers.
        m_fr = m_feature[:, None] & m_row[None, :]
        b_bt = tl.load(b + rows[None, :] * features + o_feature[:, None], mask=m_fr, other=0.0)
        weights = tl.dot(b_a, b_bt, input_precision="tf32x3")
        inside = (o_row[None, :] <= o_row[:, None]) & m_row[None, :]
        b_out = tl.dot(b_a, b_state, input_precision="tf32x3")
        if DECAYING:
            y = sign * tl.load(a_log + rows, mask=m_row, other=0.0)
            x = sign * tl.load(b_log + rows, mask=m_row, other=0.0)
            gaps = (x[None, :] - y[:, None]).to(tl.float32)
            weights = weights * tl.exp2(tl.where(inside, gaps, 0.0))
            b_out = b_out * tl.exp2(tl.where(m_row, (reached - y).to(tl.float32), 0.0))[:, None]
            latest = tl.maximum(reached, tl.max(tl.where(m_row, x, -1e30), 0))
            shares = tl.exp2(tl.where(m_row, (x - latest).to(tl.float32), -200.0))
            b_state = b_state * tl.exp2(tl.maximum(reached - latest, -200.0).to(tl.float32))
            reached = latest
        weights = tl.where(inside, weights, 0.0)
        b_out = tl.dot(weights, b_c, b_out, input_precision="tf32x3")
        tl.store(out + rows[:, None] * width + o_column[None, :], b_out, mask=m_rw)
        if DECAYING:
            b_c = b_c * shares[:, None]
        b_state = tl.dot(b_bt, b_c, b_state, input_precision="tf32x3")
