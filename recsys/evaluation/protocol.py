"""How a figure was made: the choices that move a metric more than most models do, named and printed.

The presets follow the peers' sources: RecBole 1.2 (trainer `_full_sort_batch_eval`, evaluator/metrics.py),
RecTools (metrics/ranking.py, model_selection), SASRec.pytorch (python/utils.py), gSASRec (eval_utils.py),
S3-Rec and BSARec (trainers.py).
"""

from dataclasses import dataclass
from typing import Literal

from recsys.errors import ArgumentError
from recsys.evaluation.metrics import NdcgIdeal
from recsys.evaluation.targets import TargetMode

Ties = Literal["pessimistic", "optimistic", "average"]
Seen = Literal["removed", "kept"]
SeenTargets = Literal["ranked", "dropped", "missed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """One way of measuring a recommender; every report carries its own."""

    name: str
    """The preset's name."""
    split: str
    """How the log should have been split for the figures to be comparable; said, not enforced."""
    targets: TargetMode = "next"
    """'next': the first event of the user's segment; 'all': every distinct item of the segment."""
    seen: Seen = "removed"
    """Whether the headline ranks against items of the history; a full ranking reports both."""
    seen_targets: SeenTargets = "ranked"
    """What becomes of targets that the history holds: ranked as others are, left out, or, where seen items
    are removed, removed with them and so missed."""
    ties: Ties = "pessimistic"
    """Rank of a target among equal scores: last, first, or the mean of both."""
    ndcg_ideal: NdcgIdeal = "achievable"
    """Ideal DCG over min(targets, k) places, or always over k places."""
    n_negatives: int | None = None
    """None ranks the whole catalog; a number ranks the target among so many uniform draws."""
    min_events: int = 0
    """Users with fewer events in all are not counted."""
    max_users: int | None = None
    """Count at most so many users, drawn at random by the seed; None for everyone."""
    max_valid_users: int | None = None
    """The same for the validation split alone."""
    notes: tuple[str, ...] = ()
    """What else differs, one sentence each."""

    def __post_init__(self) -> None:
        """Refuse values outside the allowed ones."""
        _choice("targets", self.targets, ("next", "all"))
        _choice("seen", self.seen, ("removed", "kept"))
        _choice("seen_targets", self.seen_targets, ("ranked", "dropped", "missed"))
        _choice("ties", self.ties, ("pessimistic", "optimistic", "average"))
        _choice("ndcg_ideal", self.ndcg_ideal, ("achievable", "constant"))
        for field in ("n_negatives", "max_users", "max_valid_users"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ArgumentError(f"protocol {field}={value} must be at least 1 or None")
        if self.min_events < 0:
            raise ArgumentError(f"protocol min_events={self.min_events} must not be negative")

    @property
    def sampled(self) -> bool:
        """Whether the target is ranked among drawn negatives instead of the catalog."""
        return self.n_negatives is not None

    @property
    def candidates(self) -> str:
        """Whom the target is ranked against, in words."""
        if self.n_negatives is None:
            return "full catalog"
        return f"the target and {self.n_negatives} uniform negatives"

    @property
    def warning(self) -> str | None:
        """What a reader of a sampled figure must know; None for a full ranking."""
        if not self.sampled:
            return None
        return (
            f"protocol '{self.name}' ranks the target among {self.n_negatives} sampled negatives: "
            "set its figures beside published ones only, never beside a full ranking"
        )


def _choice(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ArgumentError(f"protocol {field}={value!r} is not known: choose one of {', '.join(allowed)}")


_PRESETS = (
    Protocol(
        name="default",
        split="as prepared",
        seen="kept",
        notes=("A target that the history holds stays a candidate when seen items are removed.",),
    ),
    Protocol(
        name="recbole",
        split="leave-one-out (LS: valid_and_test)",
        seen="kept",
        ties="average",
        notes=(
            "RecBole orders ties as torch.topk happens to; the mean rank is the nearest stated rule.",
            "RecBole masks no seen item for sequential models.",
        ),
    ),
    Protocol(
        name="rectools",
        split="leave-one-out or temporal, cold users and items filtered",
        targets="all",
        seen="removed",
        seen_targets="dropped",
        ties="average",
        ndcg_ideal="constant",
        notes=(
            "RecTools orders ties as its ranker happens to; the mean rank is the nearest stated rule.",
            "RecTools' divide_by_achievable=True is ndcg_ideal='achievable'.",
        ),
    ),
    Protocol(
        name="sasrec",
        split="leave-one-out",
        seen="removed",
        ties="average",
        n_negatives=100,
        min_events=4,
        max_users=10_000,
        notes=(
            "Negatives are drawn with replacement from items outside the user's training events.",
            "SASRec.pytorch leaves ties to argsort; the mean rank is the nearest stated rule.",
            "A draw equal to the target is drawn again; SASRec.pytorch keeps it as a tie.",
        ),
    ),
    Protocol(
        name="gsasrec",
        split="leave-one-out",
        seen="removed",
        ties="average",
        max_valid_users=512,
        notes=("gSASRec orders ties as topk happens to; the mean rank is the nearest stated rule.",),
    ),
    Protocol(
        name="s3rec",
        split="leave-one-out",
        seen="removed",
        seen_targets="missed",
        ties="average",
        notes=(
            "S3-Rec, FMLP-Rec, DuoRec and BSARec remove every item of the history, even the target.",
            "They score removed items 0: where fewer than k scores are above 0, such are listed.",
            "They rank a padding item besides.",
            "They order ties as argpartition happens to; the mean rank is the nearest stated rule.",
        ),
    ),
)
PROTOCOLS: dict[str, Protocol] = {preset.name: preset for preset in _PRESETS}


def get_protocol(protocol: str | Protocol) -> Protocol:
    """Return a preset by name, or the protocol itself.

    Raises:
        ArgumentError: the name is not one of PROTOCOLS.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise ArgumentError(f"protocol {protocol!r} is not known: choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol]
