"""From a checked log to a prepared dataset: encode, filter, split, describe, write."""
