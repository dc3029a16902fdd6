"""Error of the clock's recurrence, and its time against weighing all pairs.

    OMP_NUM_THREADS=1 python -m recsys.benchmarks.clock.kernel

Sequences of L events, 16,000 events or one sequence in all; d = 64 and the sum of weights; four kernels mixed
(1, 1.5, 2 and 3 hours), decay by age, gradients of values, mix and decay. The recurrence takes turns with our
own compiled direct form and with exact Gaussians in PyTorch. Writes benchmarks/results/clock-kernel.json.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from recsys.benchmarks.alternating import alternate, lines
from recsys.benchmarks.clock.errors import measure
from recsys.benchmarks.clock.rivals import gaussian_sums, kernels
from recsys.benchmarks.folders import RESULTS
from recsys.benchmarks.machine import stamp
from recsys.files import write_json
from recsys.kernels.clock import clock_sums

WIDTH = 64
EVENTS = 16_000
PAIRS_IN_TORCH = 4_000_000
"""Pairs that the PyTorch form takes at once: with more it waits for memory."""
LONGEST_IN_TORCH = 5_000
"""Above, the pairs of the PyTorch form with gradients do not fit into common memory."""


def work(form: str, length: int, gradients: bool) -> Callable[[], object]:
    """What is timed: one form's sums of made sequences, with gradients or without."""
    draw = torch.Generator().manual_seed(length)
    count = max(1, EVENTS // length)
    values = torch.cat(
        (torch.randn(count, length, WIDTH, generator=draw), torch.ones(count, length, 1)), dim=2
    )
    times = torch.randint(600, 4 * 3600, (count, length), generator=draw).cumsum(1) + 1_700_000_000
    asked = torch.cat((times[:, 1:], times[:, -1:] + 3600), dim=1)
    offsets = torch.arange(0, count * length + 1, length, dtype=torch.int32)
    upstream = torch.randn(values.shape, generator=draw)
    mixed = kernels()
    logits = torch.zeros(len(mixed))
    log_rate = torch.tensor(math.log(math.log(2.0) / 30.0))
    if gradients:
        for leaf in (values, logits, log_rate):
            leaf.requires_grad_()

    def run() -> object:
        mix, rate = logits.softmax(0), log_rate.exp()
        if form == "torch":
            at_once = max(1, PAIRS_IN_TORCH // length**2)
            parts = zip(values.split(at_once), times.split(at_once), asked.split(at_once), strict=True)
            sums = torch.cat([gaussian_sums(*part, mix, rate) for part in parts])
        else:
            sums = clock_sums(
                values.flatten(0, 1),
                times.flatten(),
                asked.flatten(),
                offsets,
                coefficients=mix @ mixed,
                rate=rate,
                max_length=length,
                form=form,
            ).view_as(values)
        if gradients:
            for leaf in (values, logits, log_rate):
                leaf.grad = None
            sums.backward(upstream)
        return sums

    return run


def compare(length: int, gradients: bool, rounds: int) -> dict[str, Any]:
    """Time the forms at one length."""
    names = {"recurrent": "recurrent", "direct": "direct", "torch Gaussian": "torch"}
    if length > LONGEST_IN_TORCH:
        del names["torch Gaussian"]
    sides = {name: work(form, length, gradients) for name, form in names.items()}
    forms = alternate(sides, base="recurrent", rounds=rounds)
    for record in forms.values():
        record["fastest_times_base"] = min(record["times_ms"]) / min(forms["recurrent"]["times_ms"])
    return {
        "length": length,
        "sequences": max(1, EVENTS // length),
        "gradients": gradients,
        "rounds": rounds,
        "forms": forms,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.clock.kernel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--lengths", default="200,2000,20000", help="events, with commas between")
    parser.add_argument("--rounds", type=int, default=15, help="up to 5,000 events; 5 above")
    parser.add_argument("--out", type=Path, default=RESULTS / "clock-kernel.json")
    options = parser.parse_args(arguments)
    errors = measure()
    print("sigma  hour                  weight   kernel   sums     pooled   rounding  buckets")
    for e in errors:
        print(
            f"{e['sigma_hours']:<6} {e['hour']:<21} {e['weight']:<8.3g} {e['kernel']:<8.2g} "
            f"{e['sums']:<8.2g} {e['pooled']:<8.2g} {e['rounding']:<9.2g} {e['buckets']:.2g}"
        )
    times = []
    for length in (int(text) for text in options.lengths.split(",")):
        for gradients in (False, True):
            rounds = options.rounds if length <= LONGEST_IN_TORCH else min(options.rounds, 5)
            found = compare(length, gradients, rounds)
            times.append(found)
            what = "forward and backward" if gradients else "forward"
            print("\n".join(lines(f"{length:,} events, {what}", found["forms"])), flush=True)
    write_json(options.out, {"benchmark": "clock-kernel", **stamp(), "errors": errors, "times": times})
    print(f"Written: {options.out}")


if __name__ == "__main__":
    main()
