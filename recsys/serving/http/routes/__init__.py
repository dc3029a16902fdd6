"""The native routes, a module per resource; each has a `router`."""
