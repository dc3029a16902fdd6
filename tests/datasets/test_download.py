"""Downloads resume where they stopped and keep nothing whose hash is wrong."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recsys.datasets.sources.download import download
from recsys.errors import DataError

CONTENT = bytes(range(256)) * 1_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """A server on the loopback, what it serves and what it was asked for."""

    url: str = ""
    content: bytes = CONTENT
    ranges: bool = True
    stop_after: int | None = None
    status: int = 200
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    shown = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            shown.asked.append(wanted)
            if shown.status != 200:
                self.send_error(shown.status)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and shown.ranges else 0
            if wanted and shown.ranges and start >= len(shown.content):
                self.send_error(416)
                return
            body = shown.content[start:]
            self.send_response(206 if wanted and shown.ranges else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if shown.stop_after is None else body[: shown.stop_after])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    shown.url = f"http://127.0.0.1:{server.server_port}/log.zip"
    yield shown
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_comes_whole_under_its_own_name(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "cache" / "log.zip"
    download(site.url, target, SHA256)
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_a_file_that_is_there_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    download(site.url, tmp_path / "log.zip", SHA256)
    download(site.url, tmp_path / "log.zip", SHA256)
    assert site.asked == [None]


def test_a_broken_download_resumes_where_it_stopped(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "log.zip"
    site.stop_after = 100_000
    with pytest.raises(DataError, match="broke off after 100000 of 256000 bytes"):
        download(site.url, target, SHA256)
    assert not target.exists()
    assert (tmp_path / "log.zip.part").read_bytes() == CONTENT[:100_000]
    site.stop_after = None
    download(site.url, target, SHA256)
    assert site.asked == [None, "bytes=100000-"]
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges_sends_the_whole_file_again(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    (tmp_path / "log.zip.part").write_bytes(CONTENT[:1_000])
    download(site.url, tmp_path / "log.zip", SHA256)
    assert (tmp_path / "log.zip").read_bytes() == CONTENT


def test_a_whole_part_is_taken_as_it_is(site: Site, tmp_path: Path) -> None:
    (tmp_path / "log.zip.part").write_bytes(CONTENT)
    download(site.url, tmp_path / "log.zip", SHA256)
    assert (tmp_path / "log.zip").read_bytes() == CONTENT


def test_a_part_of_another_file_is_thrown_away(site: Site, tmp_path: Path) -> None:
    (tmp_path / "log.zip.part").write_bytes(b"something else")
    download(site.url, tmp_path / "log.zip", SHA256)
    assert site.asked == ["bytes=14-", None]
    assert (tmp_path / "log.zip").read_bytes() == CONTENT


def test_other_bytes_than_the_published_are_refused(site: Site, tmp_path: Path) -> None:
    site.content = b"<html>log in to the network</html>"
    with pytest.raises(DataError, match="another sha256 than the published one"):
        download(site.url, tmp_path / "log.zip", SHA256)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [404, 503])
def test_the_servers_refusal_is_one_line(site: Site, tmp_path: Path, status: int) -> None:
    site.status = status
    with pytest.raises(DataError, match=f"the server answers {status}") as caught:
        download(site.url, tmp_path / "log.zip", SHA256)
    assert "\n" not in str(caught.value)


def test_a_site_that_cannot_be_reached_is_one_line(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be reached") as caught:
        download("http://127.0.0.1:9/log.zip", tmp_path / "log.zip", SHA256, timeout_s=1.0)
    assert "\n" not in str(caught.value)


def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/log.zip"
        with pytest.raises(DataError, match="cannot be reached"):
            download(url, tmp_path / "log.zip", SHA256, timeout_s=0.2)


def test_a_folder_that_cannot_be_written_is_one_line(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        download(site.url, tmp_path / "file" / "log.zip", SHA256)
