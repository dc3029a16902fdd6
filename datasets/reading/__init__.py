"""Log files as they are in the wild: formats, columns, values and the checks on them."""
