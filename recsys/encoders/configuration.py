"""What every encoder shares of its settings."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from recsys.config import require


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """What all encoders share."""

    d_model: int = 64
    """Width of item vectors and hidden states; 8 to 4096. 64 is the width of most published tables."""
    n_layers: int = 2
    """Number of blocks; 1 to 64."""
    dropout: float = 0.2
    """Probability of zeroing an activation in training; 0 up to (not including) 1."""
    max_length: int = 200
    """Events of a user that the encoder sees, the most recent ones; 1 to 65536."""
    item_hashes: int = 0
    """Hash functions by which an item is the sum of rows of a shared table, for catalogs beyond memory; 0
    gives each item a row of its own; 0 to 16."""
    item_buckets: int = 100_000
    """Rows of the shared table where item_hashes is above 0; 1 to 2147483647."""
    tie_items: bool = True
    """Whether one table is input and output; otherwise items have vectors of their own to be scored by, which
    doubles the parameters and lets the items just seen score low."""
    norm: Literal["layer", "rms"] = "layer"
    """Layer norm, or RMS norm (arXiv:1910.07467), which neither centres nor shifts."""
    feed_forward: Literal["block", "gelu", "swiglu"] = "block"
    """block: as the kind of block has it; gelu: two layers; swiglu: three, gated (arXiv:2002.05202)."""
    item_parts: Literal["id", "id+features", "features"] = "id"
    """What an item's vector is the sum of: its id row; that, its tags' rows and a projection of its given
    vectors; or the last two alone. Features come with the prepared data."""
    item_id_dropout: float = 0.0
    """Share of the items whose id row a training step leaves out under "id+features", so that features learn
    to stand for items without training events; 0 up to (not including) 1."""
    item_projection: Literal["linear", "mlp"] = "linear"
    """How given vectors become item vectors: by a matrix, or by two layers more beside it."""
    event_columns: tuple[str, ...] = ()
    """Columns of what came with an event that are added to its item's vector; they come with the prepared
    data. The event to be predicted is predicted without them."""
    request_columns: tuple[str, ...] = ()
    """Columns of what is known when an answer is asked for that are added to the state, likewise."""
    column_dropout: float = 0.1
    """Share of training windows whose event columns, and of those whose request columns, are left out, so
    that histories and requests without them can be answered; 0 up to (not including) 1."""
    user_columns: tuple[str, ...] = ()
    """Columns of what is known of users that are added to the first event's item vector and to the state;
    they come with the prepared data, or with the request of somebody whom the data do not know."""
    user_column_dropout: float = 0.5
    """Share of training windows that leave out what is known of their user, so that anybody can be
    answered; 0 up to (not including) 1."""
    item_sum: bool = False
    """Whether the vectors of the window's items, summed, are added to the state by a learned weight for each
    channel (FISM's user vector): on sparse logs items then call for their like from the first epochs on."""
    repeat_bias: int = 0
    """Buckets of how far back an item of the window was last seen, whose learned bias is added to its score:
    1, 2 to 3, 4 to 7 events ago and so on; 0 for none, at most 17. The full softmax alone trains it."""
    repeat_by: Literal["last", "count", "clock"] = "last"
    """What the repeat bias goes by. last: how far back the item's last occurrence lies; count: all of its
    occurrences, whose weights by how far back are summed; clock: weights by the distance of the hours, age
    and weekday as well, which needs a time zone."""
    no_click: bool = False
    """Whether a learned bias is the score of taking nothing of what was shown. training.loss = "shown" trains
    it, on a log with events that have a slate and no item; answers do not read it."""
    clock: Literal["off", "pool", "hours"] = "off"
    """pool: the interest clock, a user's events pooled by nearness of their local hour to the request's;
    hours: a learned vector for the hour of each event and of the request; both need a time zone."""
    clock_half_life: float = 30.0
    """Days after which an event counts half in the clock, at the start of training, which learns on;
    0 lets events count the same however old; 0 to 36500."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(8 <= self.d_model <= 4096, "encoder.d_model", self.d_model, "between 8 and 4096")
        require(1 <= self.n_layers <= 64, "encoder.n_layers", self.n_layers, "between 1 and 64")
        require(0 <= self.dropout < 1, "encoder.dropout", self.dropout, "at least 0 and below 1")
        require(1 <= self.max_length <= 65536, "encoder.max_length", self.max_length, "between 1 and 65536")
        require(0 <= self.item_hashes <= 16, "encoder.item_hashes", self.item_hashes, "between 0 and 16")
        require(
            1 <= self.item_buckets < 2**31, "encoder.item_buckets", self.item_buckets, "from 1 to 2147483647"
        )
        require(
            0 <= self.item_id_dropout < 1,
            "encoder.item_id_dropout",
            self.item_id_dropout,
            "at least 0 and below 1",
        )
        require(
            self.item_id_dropout == 0 or self.item_parts == "id+features",
            "encoder.item_id_dropout",
            self.item_id_dropout,
            "0 unless encoder.item_parts = 'id+features'",
        )
        require(
            self.item_projection == "linear" or self.item_parts != "id",
            "encoder.item_projection",
            self.item_projection,
            "'linear' where encoder.item_parts = 'id'",
        )
        require(
            self.item_hashes == 0 or self.item_parts != "features",
            "encoder.item_hashes",
            self.item_hashes,
            "0 where encoder.item_parts = 'features', which has no rows of items",
        )
        for name in ("event_columns", "request_columns", "user_columns"):
            names = getattr(self, name)
            require(len(set(names)) == len(names), f"encoder.{name}", names, "each name once")
        for name in ("column_dropout", "user_column_dropout"):
            share = getattr(self, name)
            require(0 <= share < 1, f"encoder.{name}", share, "at least 0 and below 1")
        require(0 <= self.repeat_bias <= 17, "encoder.repeat_bias", self.repeat_bias, "between 0 and 17")
        require(
            self.repeat_by == "last" or self.repeat_bias > 0,
            "encoder.repeat_by",
            self.repeat_by,
            "'last' unless encoder.repeat_bias is above 0",
        )
        require(
            0 <= self.clock_half_life <= 36_500,
            "encoder.clock_half_life",
            self.clock_half_life,
            "between 0 and 36500 days",
        )


def make_norm(config: EncoderConfig, eps: float = 1e-5) -> nn.Module:
    """A norm over the last dimension of the kind that ``config.norm`` names."""
    if config.norm == "rms":
        return nn.RMSNorm(config.d_model, eps=eps)
    return nn.LayerNorm(config.d_model, eps=eps)
