"""How objects show themselves in a notebook: HTML without a library and without markup from data.

What shows something may import it; it knows settings and encoders' names.
"""
