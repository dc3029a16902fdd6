"""Numbers that are dates and no seconds: 20220408, 829, 44000.5, 2014."""

_DAY_1970, _DAY_2119 = 25_569, 80_000  # days since the end of 1899, as spreadsheets count


def looks_like(least: int, most: int) -> tuple[str, str] | None:
    """What the numbers of a time column look like, where they are written as dates.

    Only the extremes are looked at: a log of real seconds whose first and last event both read as a date
    is not to be expected.

    Args:
        least: smallest value of the column, whole.
        most: largest value, likewise.

    Returns:
        What they are, and the remedy; None where they may be seconds.
    """
    for kind, time_format, digits in (
        ("YYYYMMDD", "%Y%m%d", 8),
        ("YYYYMMDDHH", "%Y%m%d%H", 10),
        ("YYYYMMDDHHMM", "%Y%m%d%H%M", 12),
        ("YYYYMMDDHHMMSS", "%Y%m%d%H%M%S", 14),
    ):
        if all(_is_date(str(value), digits) for value in (least, most)):
            return kind, f"pass time_format={time_format!r}"
    if all(_is_date(f"{value}01", 8) for value in (least, most)):
        return "YYYYMM", "write whole dates"
    if least >= 1970 and most < 2200:
        return "years", "write whole dates"
    if least >= 101 and most <= 1231:
        return "months and days (MMDD)", "write whole dates, or pass time_unit='s' if they are seconds"
    if least >= _DAY_1970 and most <= _DAY_2119:
        return (
            "days since 1900, as spreadsheets count",
            "write (value - 25569) * 86400, or pass time_unit='s' if they are seconds",
        )
    return None


def _is_date(text: str, digits: int) -> bool:
    if len(text) != digits or not "1970" <= text[:4] < "2200":
        return False
    limits = (12, 31, 23, 59, 59)
    places = [int(text[start : start + 2]) for start in range(4, digits, 2)]
    return places[0] >= 1 and places[1] >= 1 and all(a <= b for a, b in zip(places, limits, strict=False))
