"""Logs made by a known rule, so that the best possible score is known, and logs made like another one."""

from recsys.datasets.synthetic.imitation import like

__all__ = ["like"]
