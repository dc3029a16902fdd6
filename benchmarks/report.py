"""Results as lines for people."""

from collections.abc import Iterator
from typing import Any

__all__ = ["lines"]


def lines(result: dict[str, Any]) -> list[str]:
    """Lay out what a benchmark returned."""
    machine = result["machine"]
    where = (
        machine["gpu"]
        if result.get("device") == "cuda"
        else f"{machine['cpu']}, {machine['threads']} threads"
    )
    found = [f"{result['benchmark']} on {where}, torch {machine['torch']}, commit {result['commit']}"]
    if "limits" in result:
        limits = result["limits"]
        found.append(
            f"limits: copy {limits['copy_bytes'] / 1e12:.2f} TB/s, "
            f"bf16 {limits['bfloat16_flops'] / 1e12:.0f} TFLOP/s, "
            f"fp32 {limits['float32_flops'] / 1e12:.0f} TFLOP/s, exp2 {limits['exps'] / 1e12:.2f} T/s"
        )
    for entry in result.get("comparisons", []):
        found += _comparison(entry)
    if "left_out" in result:
        found.append(f"left out for want of time: {'; '.join(result['left_out'])}")
    for name, facts in result.get("streaming", {}).items():
        found += _streaming(name, facts)
    for entry in result.get("encoders", []):
        rate, epoch = entry["events_per_s"], entry["epoch_s"]
        memory = f", {entry['peak_memory_mib']:,.0f} MiB at most" if "peak_memory_mib" in entry else ""
        found.append(
            f"{entry['encoder']}, d {entry['d_model']}, {entry['batch_events']:,} events a step: "
            f"{rate['median']:,.0f} events/s ({rate['min']:,.0f} to {rate['max']:,.0f}), "
            f"{epoch['median']:.2f} s an epoch of {result['log']}{memory}"
        )
    for entry in result.get("searches", []):
        found += _search(entry)
    wanted = [entry["target"] for entry in result.get("comparisons", []) if "target" in entry]
    if wanted:
        found.append(f"targets: {sum(target['met'] for target in wanted)} of {len(wanted)} met")
    return [*found, *(f"plot: {path}" for path in result.get("plots", []))]


def _comparison(entry: dict[str, Any]) -> Iterator[str]:
    ours = entry["ours_ms"]
    extra = ""
    if "state_steps_per_s" in entry:
        extra += f", {entry['state_steps_per_s'] / 1e9:.2f} G state-steps/s"
        if "wanted_state_steps_per_s" in entry:
            extra += f" (wanted {entry['wanted_state_steps_per_s'] / 1e9:g})"
    if "limit" in entry:
        extra += f", {100 * entry['limit']['fraction']:.0f}% of the limit by {entry['limit']['by']}"
    yield (
        f"{entry['operation']} {entry['direction']}, {entry['shape']}, d {entry['d_model']}, "
        f"{entry['dtype']}: {ours['median']:.4g} ms ({ours['min']:.4g} to {ours['max']:.4g}, "
        f"{entry['rounds']} rounds){extra}"
    )
    target = entry.get("target", {})
    for name, rival in entry["rivals"].items():
        ratio, wanted = rival["ratio"], ""
        if name == target.get("rival"):
            wanted = f"; wanted {target['ratio']:g}: {'met' if target['met'] else 'NOT met'}"
        yield (
            f"    {name}: {rival['ms']['median']:.4g} ms, {ratio['median']:.2f} times ours "
            f"({ratio['min']:.2f} to {ratio['max']:.2f}){wanted}"
        )
    for name, reason in entry.get("failures", {}).items():
        yield f"    {name}: could not run: {reason}"


def _streaming(name: str, facts: dict[str, Any]) -> Iterator[str]:
    steps = ", ".join(
        f"{times['median']:.0f} us at {history}" for history, times in facts["step_us_at_history"].items()
    )
    equal = "equal" if facts["equal_to_1e-5"] else "NOT equal"
    yield (
        f"{name}: step and forward {equal} to 1e-5 over {facts['events']} events "
        f"(greatest difference {facts['greatest_difference']:.1e}); "
        f"a step of {facts['users']} users takes {steps}"
    )


def _search(entry: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{entry['items']:,} items, {entry['queries']} queries in {entry['form']}, k {entry['k']}: "
        f"{entry['first']} {entry['ours_ms']['median']:.3g} ms"
    )
    for name, rival in entry["rivals"].items():
        yield (
            f"    {name}: {rival['ms']['median']:.3g} ms, {rival['ratio']['median']:.2f} times "
            f"{entry['first']}, recall {entry['recall'][name]:.3f}"
        )
    for name, reason in entry["failures"].items():
        yield f"    {name}: {reason}"
