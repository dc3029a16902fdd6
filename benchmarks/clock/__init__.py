"""What the interest clock is worth on a real log, and what its kernel costs and errs."""
