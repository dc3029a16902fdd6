"""Training over processes, as programs: bits, kills, two network namespaces, and what one process pays."""
