"""Which models are in service, and which of them answers whom."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from recsys.errors import UnknownIdError
from recsys.events.store import RawId
from recsys.serving.engine.asking import ModelInfo
from recsys.serving.engine.served import Served


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A name in service.

    Attributes:
        served: the model that answers under it.
        weight: its share of the users, out of the sum of all weights.
        shadow: percent of requests that it is asked beside another one.
        before: the model that answered under the name before, kept to go back to.
    """

    served: Served
    weight: float = 1.0
    shadow: float = 0.0
    before: Served | None = None


@dataclass(frozen=True, eq=False)
class Assignment:
    """All places, the default first; another assignment takes the place of this one as a whole.

    Attributes:
        places: by order of their names' first appearance.
    """

    places: tuple[Place, ...]

    @cached_property
    def infos(self) -> tuple[ModelInfo, ...]:
        """What may be known of each."""
        return tuple(own.served.info(own.weight, own.shadow) for own in self.places)

    def __iter__(self) -> Iterator[Place]:
        return iter(self.places)

    def named(self, name: str) -> Place:
        """The place of a name.

        Raises:
            UnknownIdError: no model of this name is in service.
        """
        for place in self.places:
            if place.served.name == name:
                return place
        known = ", ".join(place.served.name for place in self.places)
        raise UnknownIdError(f"model {name!r} is not in service: choose one of {known}")

    def with_place(self, new: Place) -> "Assignment":
        """The same with another place of its name, or one more."""
        kept = [new if place.served.name == new.served.name else place for place in self.places]
        return Assignment(tuple(kept) if new in kept else (*self.places, new))

    def without(self, name: str) -> "Assignment":
        """The same without the place of a name."""
        return Assignment(tuple(place for place in self.places if place.served.name != name))

    def chosen(self, who: RawId | None) -> Served:
        """The model that answers somebody: the same one for the same user, in every worker.

        Args:
            who: user, or what else tells requests apart; None is answered by the default.
        """
        weighed = self._weighed
        if who is None or len(weighed) < 2:
            return weighed[0][1]
        point = share_of(self._salt, who) * weighed[-1][0]
        return next((served for until, served in weighed if point < until), weighed[-1][1])

    def shadows(self, who: RawId, answered: Served) -> list[Served]:
        """The models that are asked beside the one that answers a request."""
        return [
            place.served
            for place in self.places
            if place.shadow
            and place.served is not answered
            and share_of(f"shadow {place.served.name}", who) * 100 < place.shadow
        ]

    @cached_property
    def _weighed(self) -> list[tuple[float, Served]]:
        """Models with a share of the users, each with the sum of weights up to its own."""
        found: list[tuple[float, Served]] = []
        total = 0.0
        for place in self.places:
            if place.weight > 0:
                total += place.weight
                found.append((total, place.served))
        return found or [(1.0, self.places[0].served)]

    @cached_property
    def _salt(self) -> str:
        """Another set of models divides the users anew; other weights of the same ones move few."""
        return " ".join(place.served.name for place in self.places if place.weight > 0)


def share_of(salt: str, who: RawId) -> float:
    """A number in [0, 1) that is the same wherever it is worked out, and even over many users.

    Args:
        salt: of the division.
        who: 1 and "1" are two.
    """
    digest = hashlib.blake2b(f"{salt}\0{type(who).__name__}\0{who}".encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest()[:8]) / 2**64
