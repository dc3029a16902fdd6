"""What commands read from small files."""

from pathlib import Path

import pytest

from recsys.answering.id_files import read_ids
from recsys.config import read_toml
from recsys.errors import DataError


def test_ids_are_lines_whatever_the_editor_put_around_them(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_bytes(b"\xef\xbb\xbf172\r\n\r\n 50 \r\n")
    assert read_ids(file) == ["172", "50"]


def test_a_file_without_ids_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_bytes(b"\xef\xbb\xbf\n")
    with pytest.raises(DataError, match="holds no ids; write one id a line"):
        read_ids(file)


def test_a_configuration_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b"\xef\xbb\xbf[training]\nepochs = 3\n")
    assert read_toml(file)["training"] == {"epochs": 3}
