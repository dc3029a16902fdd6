"""What columns, weights and conditions of events are worth on real logs: equal settings, the same targets."""
