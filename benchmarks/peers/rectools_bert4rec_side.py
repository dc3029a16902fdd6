"""RecTools' BERT4RecModel, cut into slices; see `rectools_side`. Runs in RecTools' environment."""

from .protocol import serve
from .rectools_side import RecToolsSide

if __name__ == "__main__":
    serve(lambda task: RecToolsSide(task, "BERT4RecModel"))
