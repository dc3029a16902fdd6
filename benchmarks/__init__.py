"""What the project claims, as programs: each prints one JSON object as its last line."""
