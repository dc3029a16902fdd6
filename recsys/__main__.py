"""``python -m recsys``: the command line without its installed script."""

from recsys.cli import main

main()
