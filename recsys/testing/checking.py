"""Running the checks of `recsys.testing.encoder_contract` for an encoder by its name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from recsys.encoders.base import SequenceEncoder
from recsys.encoders.registry import canonical_name, registered_name
from recsys.testing.encoder_contract import CHECKS
from recsys.testing.subject import Subject

__all__ = ["EncoderCheck", "check_encoder", "encoder_checks"]


@dataclass(frozen=True, slots=True)
class EncoderCheck:
    """One check of one encoder, to be called; prints as its name."""

    name: str
    subject: Subject
    run: Callable[[Subject], None]

    def __call__(self) -> None:
        """Run it.

        Raises:
            AssertionError: the encoder does not keep this part of the contract.
        """
        self.run(self.subject)

    def __str__(self) -> str:
        return self.name


def encoder_checks(
    encoder: str | type[SequenceEncoder], options: Mapping[str, object] | None = None
) -> list[EncoderCheck]:
    """The checks of an encoder.

    Args:
        encoder: its registered name, or the class that was registered.
        options: fields of its configuration; a small model with dropout is checked where they leave it open.

    Raises:
        ConfigError: the encoder is not registered, or a field is unknown or out of range.
    """
    name = canonical_name(encoder) if isinstance(encoder, str) else registered_name(encoder)
    subject = Subject.of(name, options or {})
    return [EncoderCheck(check.__name__, subject, check) for check in CHECKS]


def check_encoder(encoder: str | type[SequenceEncoder], options: Mapping[str, object] | None = None) -> None:
    """Run all checks of an encoder, arguments as of :func:`encoder_checks`.

    Raises:
        ConfigError: the encoder is not registered, or a field is unknown or out of range.
        AssertionError: it does not keep the contract; the message begins with the check's name.
    """
    for check in encoder_checks(encoder, options):
        try:
            check()
        except AssertionError as error:
            raise AssertionError(f"{check.name}: {error}") from error
