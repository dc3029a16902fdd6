"""A service on a real socket: heads and bodies that lie, and many clients that do nothing."""

import http.client
import re
import socket
import time
from collections.abc import Iterator

import pytest

from recsys.benchmarks.serving.abuse import Crowd
from recsys.benchmarks.serving.open_loop import request
from recsys.benchmarks.serving.server import Server
from tests.serving.engine.runs import saved_run

ASK = b'{"history": [1, 2], "k": 3}'
JSON = b"content-type: application/json\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    saved_run(folder / "run")
    with Server([str(folder / "run"), "--no-events", "--grace", "3", "--drain", "0"]) as server:
        yield server
        assert server.ready()


def raw(server: Server, sent: bytes, seconds: float = 8.0) -> bytes:
    """All that a service answers to bytes until it closes, or has answered once and stays silent."""
    found = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as own:
        try:
            own.sendall(sent)
            while part := own.recv(65536):
                found += part
                own.settimeout(0.5)
        except (TimeoutError, ConnectionError):
            pass
    return found


def statuses(answer: bytes) -> list[int]:
    # The answer before may end without a line's end.
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def post(body: bytes, head: bytes) -> bytes:
    return b"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\n" + JSON + head + b"\r\n" + body


def test_a_good_request_is_answered_on_a_kept_connection(server: Server) -> None:
    assert statuses(raw(server, request("POST", "/v1/recommend", ASK) * 2)) == [200, 200]


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 27\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        b"content-length: 5\r\ncontent-length: 27\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"content-length: +27\r\n",
        b"content-length: 0x1b\r\n",
        b"content-length: -1\r\n",
        b"content-length: 99999999999999999999999\r\n",
    ],
)
def test_a_length_that_can_be_read_in_two_ways_hides_no_second_request(server: Server, head: bytes) -> None:
    hidden = b"0\r\n\r\nGET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"
    answer = raw(server, post(hidden, head), 3.0)
    assert b'"openapi"' not in answer
    assert len(statuses(answer)) <= 1
    assert all(400 <= status < 500 for status in statuses(answer))
    assert statuses(raw(server, request("POST", "/v1/recommend", ASK))) == [200]


def test_chunks_without_an_end_are_counted(server: Server) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    answer = raw(server, post(chunk * 40, b"transfer-encoding: chunked\r\n"))
    assert statuses(answer)[:1] in ([413], [])
    assert server.ready()


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/9.9",
        b"GET",
        b"\x00\x01\x02",
        b"GET http://elsewhere.example/ HTTP/1.1",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM",
    ],
)
def test_what_is_no_request_is_no_answer_by_200(server: Server, line: bytes) -> None:
    answer = raw(server, line + b"\r\nhost: localhost\r\n\r\n", 3.0)
    assert 200 not in statuses(answer)
    assert server.ready()


def test_a_head_that_is_too_long_is_refused(server: Server) -> None:
    headers = b"".join(b"x-%d: %s\r\n" % (number, b"y" * 1000) for number in range(90))
    assert set(statuses(raw(server, post(ASK, headers + b"content-length: 27\r\n")))) <= {400, 431}


def test_a_line_end_in_a_header_begins_no_other(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest("POST", "/v1/recommend")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(len(ASK)))
    connection._buffer.append(b"x-request-id: a\rset-cookie: b=1")  # type: ignore[attr-defined]
    connection.endheaders(ASK)
    answer = connection.getresponse()
    assert answer.getheader("set-cookie") is None
    answer.read()
    connection.close()


@pytest.mark.parametrize("way", ["idle", "half", "slow-head", "slow-body", "slow-read"])
def test_many_slow_clients_keep_nobody_out_and_are_let_go(server: Server, way: str) -> None:
    before = server.descriptors()
    crowd = Crowd(server.port, 200, way)
    try:
        time.sleep(0.3)
        for _ in range(5):
            assert server.ask("POST", "/v1/recommend", {"history": [1, 2], "k": 3})[0] == 200
    finally:
        crowd.end()
    ends = time.monotonic() + 5
    while server.descriptors() > before + 10 and time.monotonic() < ends:
        time.sleep(0.05)
    assert server.descriptors() <= before + 10
