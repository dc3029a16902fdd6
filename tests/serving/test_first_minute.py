"""The lines of README's first minute with a service, as a reader pastes them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.serving.doubles import LOG
from tests.serving.live import live

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_last_answer_knows_the_event() -> None:
    (block,) = re.findall(r"^```sh\n(recsys serve run &\n.*?)^```", README.read_text("utf-8"), re.S | re.M)
    lines = block.splitlines()[1:]
    assert all(line.startswith("curl -s") for line in lines)
    with live("tests.serving.doubles:memory_service") as address:
        said = []
        for line in lines:
            told = line.replace("localhost:8000", address.removeprefix("http://"))
            done = subprocess.run(["bash", "-euc", told], capture_output=True, text=True, check=True)
            said.append(done.stdout)
    assert said[0] == ""
    before, stored, after = map(json.loads, said[1:])
    assert before["history"]["events"] == len(LOG[1])
    assert (stored["accepted"], stored["last_seq"]) == (1, 1)
    assert after["history"]["events"] == len(LOG[1]) + 1
    assert (after["last_seq"], len(after["items"])) == (1, 3)
