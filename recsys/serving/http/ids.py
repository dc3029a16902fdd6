"""Raw ids of paths and bodies: in the type of the log, or refused."""

from collections.abc import Sequence

from recsys.errors import UnknownIdError
from recsys.events.store import RawId
from recsys.serving.engine.asking import Ask, BusyError, Engine, ModelInfo
from recsys.serving.http.problems import FieldError
from recsys.serving.http.schemas import ID_BYTES


def model_info(engine: Engine, name: str | None = None) -> ModelInfo:
    """The model of a name, the default for none.

    Raises:
        UnknownIdError: there is none of that name.
        BusyError: none is loaded yet.
    """
    models = engine.models()
    if not models:
        raise BusyError("no model is loaded yet")
    if name is None:
        return models[0]
    for each in models:
        if each.name == name:
            return each
    raise UnknownIdError(f"model {name!r} is not in service; choose from {[each.name for each in models]}")


def path_id(text: str, is_int: bool, kind: str) -> RawId:
    """An id of a path in the type of the log.

    Raises:
        UnknownIdError: it cannot be one.
    """
    if not is_int:
        return text
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) <= 19 and str(int(text)) == text:
        return int(text)
    raise UnknownIdError(f"{kind} {text[:64]!r}: the ids of this log are whole numbers")


def check_ask(ask: Ask, engine: Engine) -> None:
    """Refuse an ask that nothing can answer, or whose ids have another type than the log's.

    Raises:
        FieldError: names the field.
        UnknownIdError, BusyError: as `model_info`.
    """
    if ask.user is None and ask.history is None:
        raise FieldError("user", "send a user, a history or both")
    if ask.times is not None and len(ask.times) != len(ask.history or ()):
        raise FieldError(
            "times", f"{len(ask.times)} for {len(ask.history or ())} events of history; send one for each"
        )
    model = model_info(engine, ask.model)
    if ask.user is not None:
        check_type("user", [ask.user], model.user_ids_are_int)
    check_columns(ask, engine.models() if ask.model is None else (model,))
    for name, ids in (("history", ask.history), (ask.allow_field, ask.allow), ("deny", ask.deny)):
        check_type(name, ids or (), model.ids_are_int)


def check_columns(ask: Ask, models: Sequence[ModelInfo]) -> None:
    """Refuse columns that none of the models that may answer reads, or that do not fit the history.

    Raises:
        FieldError: names the field.
    """
    for field, named, read in (
        ("columns", ask.columns, [name for one in models for name in one.event_columns]),
        ("context", ask.context, [name for one in models for name in one.context_columns]),
    ):
        odd = next((name for name in named or () if name not in read), None)
        if odd is not None:
            known = f"it reads {', '.join(dict.fromkeys(read))}" if read else "it reads none; leave it out"
            raise FieldError(field, f"{odd[:64]!r} is no column that the model reads: {known}")
    length = len(ask.history or ())
    for name, values in (ask.columns or {}).items():
        if len(values) != length:
            raise FieldError(
                "columns",
                f"{name[:64]!r} has {len(values)} values for {length} events of history; send one for each",
            )


def check_new_id(item: RawId) -> None:
    """Refuse an id of a path that no event or request could name.

    Raises:
        FieldError: it is too long, empty or too large a number.
    """
    if isinstance(item, int) and not -(2**63) <= item < 2**63:
        raise FieldError("item", f"{item}: takes more than 64 bits")
    if isinstance(item, str) and (not item or "\0" in item or len(item.encode()) > ID_BYTES):
        raise FieldError("item", f"is empty, holds a zero byte or takes more than {ID_BYTES} bytes")


def check_type(field: str, ids: Sequence[RawId], are_int: bool) -> None:
    """Refuse ids of another type than the log's.

    Raises:
        FieldError: names the field and the first such id.
    """
    right = int if are_int else str
    for each in ids:
        if type(each) is not right:
            kinds = ("whole numbers", "42") if are_int else ("text", '"42"')
            shown = str(each)[:64] if isinstance(each, int) else repr(each[:64])
            raise FieldError(field, f"{shown}: the ids of this log are {kinds[0]}, as {kinds[1]}")
