"""What docs/serving/open-inference-protocol.md shows, done."""

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving.live import ROOT, live

PAGE = ROOT / "docs" / "serving" / "open-inference-protocol.md"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with live("tests.serving.doubles:memory_service") as found:
        yield found


def blocks(language: str, url: str) -> list[str]:
    """Code of the page, asking the service at hand."""
    found = re.findall(
        rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert found
    return [block.replace("localhost:8000", url.removeprefix("http://")) for block in found]


def test_triton_as_on_the_page(url: str) -> None:
    pytest.importorskip("tritonclient.http", exc_type=ImportError)
    known_user, histories = (block for block in blocks("python", url) if "kserve" not in block)
    names: dict[str, Any] = {}
    exec(known_user, names)
    assert names["items"].tolist() == [[3, 4, 5], [1, 2, 4]]  # user 1 has seen items 1 and 2, user 2 item 3
    assert names["counts"].tolist() == [3, 3]
    exec(histories, names)
    assert names["found"].as_numpy("item").tolist() == [[3, 5, 7], [1, 3, 7]]
    names["client"].close()


def test_kserve_as_on_the_page(url: str) -> None:
    pytest.importorskip("kserve", reason="KServe's client brings 67 packages, and is not among ours")
    (asked,) = (block for block in blocks("python", url) if "kserve" in block)
    names: dict[str, Any] = {}
    exec(asked, names)
    assert names["found"].outputs[0].data == [3, 4, 5]


def test_curl_as_on_the_page(url: str) -> None:
    (asked,) = blocks("bash", url)
    said = subprocess.run(["bash", "-c", asked], capture_output=True, check=True, timeout=60)
    assert json.loads(said.stdout)["outputs"][0]["data"] == [3, 4, 5]


def test_every_route_is_on_the_page() -> None:
    from recsys.serving.oip.routes import router

    text = PAGE.read_text(encoding="utf-8")
    paths = [getattr(route, "path", "").format(model="M", version="V") for route in router.routes]
    assert [path for path in paths if f"{path}`" not in text] == []
