"""The one place that imports qdrant_client, and what its errors mean."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recsys.errors import IndexServerError, MissingDependencyError, RecsysError, RetrievalError
from recsys.retrieval.addresses import QDRANT_KEY


def load_qdrant() -> Any:
    """Import qdrant_client.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import qdrant_client
        import qdrant_client.http.exceptions
    except ImportError:
        raise MissingDependencyError(
            "qdrant_client is not installed: pip install 'recsys-engine[qdrant]'"
        ) from None
    return qdrant_client


def lost() -> type[Exception]:
    """What a client raises whose server has gone.

    Raises:
        MissingDependencyError: as `load_qdrant`.
    """
    raised: type[Exception] = load_qdrant().http.exceptions.ResponseHandlingException
    return raised


def connect(url: str, seconds: int) -> Any:
    """A client, which connects when it is first used.

    Args:
        url: of the server.
        seconds: that an answer may take.

    Raises:
        MissingDependencyError: as `load_qdrant`.
    """
    key = os.environ.get(QDRANT_KEY) or None
    # The client would ask the server for its version and warn where it cannot.
    return load_qdrant().QdrantClient(url=url, api_key=key, timeout=seconds, check_compatibility=False)


@contextmanager
def speaking_of(url: str, collection: str) -> Iterator[None]:
    """Say in one line what went wrong with a server.

    Raises:
        IndexServerError: it cannot be reached or cannot answer, or the collection is not there.
        RetrievalError: it refuses.
    """
    refused = load_qdrant().http.exceptions.UnexpectedResponse
    try:
        yield
    except lost() as error:
        source = getattr(error, "source", error)
        reason = str(source).strip().splitlines() or [type(source).__name__]
        raise IndexServerError(
            f"{url}: the index server cannot be reached ({reason[0]}); see to the server"
        ) from None
    except refused as error:
        if error.status_code in (401, 403):
            raise IndexServerError(
                f"{url}: the index server lets nobody in without its key; set the environment variable "
                f"{QDRANT_KEY}"
            ) from None
        if error.status_code == 404:
            raise gone(url, collection) from None
        wrong = IndexServerError if error.status_code >= 500 else RetrievalError
        raise wrong(
            f"{url}: the index server answers {error.status_code} ({_said(error)}); see to the server"
        ) from None
    except RecsysError:
        raise
    except ValueError:  # of JSON, or of pydantic
        raise IndexServerError(f"{url}: what answers there is no Qdrant server; see to the address") from None


def gone(url: str, collection: str) -> IndexServerError:
    """The error of a collection that is not there."""
    return IndexServerError(f"{url}: holds no collection {collection}; build the index again")


def _said(error: Any) -> str:
    """What the server says, in one line."""
    try:
        said = error.structured()["status"]["error"]
    except (ValueError, LookupError, TypeError):
        said = error.reason_phrase
    return str(said).strip().splitlines()[0][:200] if str(said).strip() else "without a reason"
