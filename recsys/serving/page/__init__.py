"""The page for people: search, a user's history beside the answers, an item's neighbours, live curves."""
