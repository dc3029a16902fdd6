"""Where an index on a server lies: what an address may look like. Secrets are no part of it.

Addresses are written into the saved index and shown in messages; passwords and keys come from the environment
at every opening, and nowhere else.
"""

import re
from urllib.parse import urlsplit

from recsys.errors import ArgumentError

QDRANT_KEY = "QDRANT_API_KEY"
"""Environment variable of Qdrant's API key."""

_COLLECTION = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_DSN_SECRETS = ("password", "sslpassword", "oauth_client_secret")


def check_collection(collection: str) -> None:
    """Refuse a name that a collection of Qdrant or a table of Postgres could not have.

    Raises:
        ArgumentError: see above.
    """
    if _COLLECTION.fullmatch(collection) is None:
        raise ArgumentError(
            f"collection={collection!r}: give a letter, then up to 39 letters, digits and underscores"
        )


def check_url(url: str) -> None:
    """Refuse a URL that is not a Qdrant server's, or holds a secret.

    Raises:
        ArgumentError: see above; the message shows no secret.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ArgumentError("url= cannot be read: write it as http://host:6333") from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ArgumentError(
            f"url= may hold no user, password, key or query: set the environment variable {QDRANT_KEY}"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ArgumentError(f"url={url!r} is not a server's: write it as http://host:6333")


def check_dsn(dsn: str) -> None:
    """Refuse a connection string that libpq does not understand, or that holds a secret.

    Raises:
        ArgumentError: see above; the message shows no secret.
        MissingDependencyError: psycopg is not installed.
    """
    from recsys.retrieval.pgvector_library import load_pgvector

    psycopg = load_pgvector()
    try:
        parts = psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.Error:
        # libpq repeats what it was given.
        raise ArgumentError(
            "dsn= cannot be read: write it as postgresql://user@host:5432/database, or host=… dbname=…"
        ) from None
    if any(parts.get(name) for name in _DSN_SECRETS):
        raise ArgumentError(
            "dsn= may hold no password: set the environment variable PGPASSWORD, or write it into ~/.pgpass"
        )
