"""Routes whose path goes on after an id that may hold slashes."""

from collections.abc import Mapping
from typing import Any

from fastapi.routing import APIRoute
from starlette.routing import Match


class QuotedRoute(APIRoute):
    """A route whose words behind an id have to stand in the request as they are.

    Quoted, `a%2Fsimilar`, they are a part of the id: any id can be asked for, even one that ends like a path.
    """

    def matches(self, scope: Any) -> tuple[Match, Any]:
        """Whether it answers a request; see `APIRoute`."""
        end = self.path_format.rpartition("}")[2] if "{" in self.path_format else ""
        if end and not _raw(scope).endswith(end.encode()):
            return Match.NONE, {}
        return super().matches(scope)


def _raw(scope: Mapping[str, Any]) -> bytes:
    raw = scope.get("raw_path")
    found: bytes = str(scope["path"]).encode() if raw is None else raw
    return found.partition(b"?")[0]
