"""A model in service: what is asked, who computes it, and what is kept of it."""
