import pytest
import typer

from recsys.commands.app import app
from recsys.commands.wording import commands_of, for_command


@pytest.mark.parametrize(
    ("command", "said", "shown"),
    [
        ("recommend", "unknown item 'x'; on_unknown='warn' leaves it out", "--on-unknown warn leaves"),
        ("train", "replace it with overwrite=True", "replace it with --overwrite"),
        ("clock", "pass time_unit='ms'", "pass --time-unit ms (of `recsys prepare`)"),
        ("prepare", "pass time_unit='ms'", "pass --time-unit ms"),
        ("prepare", "pass separator=' | '", "pass --separator ' | '"),
        ("prepare", "pass header=False", "pass --no-header"),
        ("recommend", "pass exclude_seen=False", "pass --include-seen"),
        ("recommend", "at='9999' is no moment", "--at 9999 is no moment"),
        ("recommend", "pass times= with the histories", "pass --times with the histories"),
        ("recommend", "pass times=, or time_zone=", "pass --times, or --time-zone"),
        # What the user wrote, and what is no option of ours, stays.
        ("index build", "--set 'k=3': write it otherwise", "--set 'k=3': write it otherwise"),
        ("train", "/logs/k=3/at=5.csv: no such file", "/logs/k=3/at=5.csv: no such file"),
        ("train", "nonsense=3 and encoder.k = 4", "nonsense=3 and encoder.k = 4"),
    ],
)
def test_a_remedy_is_told_in_the_words_of_the_command(command: str, said: str, shown: str) -> None:
    root = typer.main.get_command(app)
    assert shown in for_command(said, commands_of(root)[command], root)
