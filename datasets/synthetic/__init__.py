"""Logs made by a known rule, so that the best possible score is known."""
