"""The command line: one module per command or small family; `app.py` puts them together.

May import: everything; heavy libraries inside the commands.
"""
