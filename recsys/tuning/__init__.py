"""Searching settings by validation: what may vary, studies that go on, and `recsys tune` over one's own log.

May import whatever trains; benchmarks and commands import it.
"""
