"""RecTools' BERT4RecModel trained whole; see `rectools_quality`. Runs in RecTools' environment."""

from .pace import serve_quality
from .protocol import Task
from .rectools_quality import RecToolsQualitySide

if __name__ == "__main__":
    serve_quality(lambda task: RecToolsQualitySide(Task(**task), "BERT4RecModel"))
