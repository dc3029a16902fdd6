"""Parameters of the kinds of index, in FAISS's words; each kind reads its own and ignores the others'."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from recsys.config import require

# FAISS warns below this many training vectors per list: centres of fewer say little.
VECTORS_PER_LIST = 39


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexOptions:
    """How an index is built and searched."""

    nlist: int = 0
    """ivf, ivfpq: number of inverted lists, 0 to 1,000,000; 0 takes 4 sqrt(V) (FAISS's guidelines),
    and never more than V/39."""
    nprobe: int = 0
    """ivf, ivfpq: lists visited per query, 0 to 1,000,000; 0 takes an eighth of them. Recall's knob."""
    refine: int = 40
    """ivfpq: candidates per answer that the codes propose and exact scores order; 1 to 1000."""
    hnsw_m: int = 32
    """hnsw, qdrant, pgvector: links per item and layer (twice that at the bottom); 2 to 512, pgvector 100.
    Memory: V * 8 * hnsw_m bytes."""
    ef_construction: int = 200
    """hnsw, qdrant, pgvector: candidates kept while an item is linked; 1 to 10,000, pgvector 1000."""
    ef_search: int = 128
    """hnsw, gpu-cagra, qdrant, pgvector: candidates kept while a query is answered, raised to the number of
    answers; 1 to 100,000. Recall's knob: 0.95 of the 100 best at 100,000 clustered items."""
    threads: int = 0
    """Threads of a FAISS search; 0 leaves FAISS's own setting, which holds per calling thread. A serving
    process takes 1 and scales by processes: with a busy neighbour, two threads answered 157 requests per
    second where one answered 1,126. 0 to 1024."""
    seed: int = 0
    """ivf, ivfpq: of the choice of training vectors and starting centres."""
    url: str = ""
    """qdrant: address of the server, http://host:6333; its key is read from QDRANT_API_KEY."""
    dsn: str = ""
    """pgvector: connection string without a password, which libpq reads from PGPASSWORD or ~/.pgpass."""
    collection: str = ""
    """qdrant, pgvector: name of the index there: a letter, then up to 39 letters, digits and underscores."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name, least, most in (
            ("nlist", 0, 1_000_000),
            ("nprobe", 0, 1_000_000),
            ("refine", 1, 1000),
            ("hnsw_m", 2, 512),
            ("ef_construction", 1, 10_000),
            ("ef_search", 1, 100_000),
            ("threads", 0, 1024),
            ("seed", 0, 2**31 - 1),
        ):
            value = getattr(self, name)
            require(least <= value <= most, f"index.{name}", value, f"between {least} and {most}")

    def as_saved(self) -> dict[str, Any]:
        """All fields by name, but for an address that there is none of."""
        return {name: value for name, value in asdict(self).items() if value != ""}

    def lists(self, n_items: int) -> int:
        """Number of inverted lists for V items."""
        return max(1, min(self.nlist or round(4 * math.sqrt(n_items)), n_items // VECTORS_PER_LIST))

    def probes(self, lists: int) -> int:
        """Lists visited per query out of so many."""
        return min(lists, self.nprobe or math.ceil(lists / 8))
