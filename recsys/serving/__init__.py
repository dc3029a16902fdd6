"""`recsys serve`: the answers of a run over HTTP."""
