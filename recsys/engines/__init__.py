"""Work given to an existing distributed engine: Ray carries numbers and paths, this package computes.

Nothing outside this room names Ray, and nothing in it loads Ray before a command asks for it.
"""
