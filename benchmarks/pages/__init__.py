"""Pages that tell the truth: tables written from the records, and every figure in a sentence held to one.

``python -m recsys.benchmarks.pages`` writes the tables and says which sentences are wrong. `sections` makes
the tables, `claims` checks the sentences against ``figures.toml``, `values` reads a figure out of a record.
"""
