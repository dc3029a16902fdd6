"""Where a log comes from: a path, a frame, or a known name that is fetched and checked."""
