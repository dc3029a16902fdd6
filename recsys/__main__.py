"""``python -m recsys``: the command line without its installed script."""

from recsys.commands.app import main

main()
