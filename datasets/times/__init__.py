"""Local times: zones, offsets, and the local hours of a prepared log."""
