from recsys.console.text import keyed_table, one_line, printable, table


def test_a_table_shows_text_as_it_is_and_a_row_is_a_line() -> None:
    shown = table(
        ("rank", "item_id"), [[1, "[a] film"], [10, "x[/b]"], [2, "two\nlines\x1b[2J"]], left=["item_id"]
    )
    assert shown.splitlines() == [
        "rank  item_id",
        "   1  [a] film",
        "  10  x[/b]",
        "   2  two\\nlines\\x1b[2J",
    ]


def test_columns_align_where_characters_are_wide_or_combining() -> None:
    shown = table(("title", "n"), [["映画", 1], ["e\u0301t\u00e9", 2], ["abcd", 3]], left=["title"])
    assert shown.splitlines() == ["title  n", "映画   1", "e\u0301t\u00e9    2", "abcd   3"]


def test_columns_of_long_names_get_numbers_that_lines_above_explain() -> None:
    names = [f"a category with a long name {n}" for n in range(3)]
    shown = keyed_table(
        ("hour", *names), [["00", ".1", ".2", ".7"]], fixed=["hour"], meaning="column"
    ).splitlines()
    assert shown == [
        *(f"column {n + 1}: {name}" for n, name in enumerate(names)),
        "hour   1   2   3",
        "  00  .1  .2  .7",
    ]
    assert keyed_table(("hour", "x"), [["00", ".1"]], fixed=["hour"], meaning="column").startswith("hour")


def test_messages_are_one_line() -> None:
    assert one_line("first,\n   second\r\n\nthird\x07") == "first, second third\\x07"
    assert printable("a\u2028b\tc") == "a\\u2028b\\tc"
