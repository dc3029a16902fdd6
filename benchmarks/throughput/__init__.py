"""Throughput by pytest-benchmark: ``pytest benchmarks/throughput --benchmark-only`` or ``make throughput``.

Every kernel beside its definition and its rivals (the cases of `recsys.benchmarks.kernels`), training steps,
encoding, search, a request from end to end, and preparing a log. `meter` times, `sizes` says how large.
"""
