"""Pieces of LLVM code that the register tiles of ranking are emitted from."""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]

from recsys.kernels.shared.vector.lanes import LANES, VECTOR

_WORD = ir.IntType(64)
_BITS = ir.IntType(LANES)
Loop = tuple[Any, Any, list[Any]]


def begin_loop(builder: Any, name: str, start: Any, stop: Any, step: int, values: list[Any]) -> Loop:
    """Open a counted loop that carries vectors; returns (counter, end block, carried values)."""
    before = builder.block
    head, body, end = (builder.append_basic_block(f"{name}.{part}") for part in ("head", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    counter = builder.phi(_WORD)
    counter.add_incoming(start, before)
    carried = []
    for value in values:
        phi = builder.phi(VECTOR)
        phi.add_incoming(value, before)
        carried.append(phi)
    inside = builder.icmp_signed("<=", builder.add(counter, _WORD(step)), stop)
    builder.cbranch(inside, body, end)
    builder.position_at_end(body)
    return (counter, (head, end, step), carried)


def end_loop(builder: Any, loop: Loop, new: list[Any]) -> None:
    """Close a loop whose body ends here, with the carried vectors' next values."""
    counter, (head, end, step), carried = loop
    counter.add_incoming(builder.add(counter, _WORD(step)), builder.block)
    for phi, value in zip(carried, new, strict=True):
        phi.add_incoming(value, builder.block)
    builder.branch(head)
    builder.position_at_end(end)


def any_lane(builder: Any, lanes: Any) -> Any:
    """Emit whether a comparison holds in any lane."""
    return builder.icmp_unsigned("!=", builder.bitcast(lanes, _BITS), _BITS(0))


def tree(values: list[Any], join: Any) -> Any:
    """Join values two by two until one is left."""
    while len(values) > 1:
        paired = [join(values[i], values[i + 1]) for i in range(0, len(values) - 1, 2)]
        values = paired + values[len(values) - len(values) % 2 :]
    return values[0]
