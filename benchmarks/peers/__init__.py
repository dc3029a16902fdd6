"""Side-by-side measurements against other libraries, each in an environment of its own."""
