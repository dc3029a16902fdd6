"""Rings of seconds, and drawings, by their numbers."""

import re
from datetime import UTC

import pytest

from recsys.serving.http.traffic import Traffic, quantile
from recsys.serving.page.histories import Done
from recsys.serving.page.live import panels
from recsys.serving.page.rendering import local_time, zone_of
from recsys.serving.page.svg import clock_face, curves
from recsys.serving.page.user_answers import moment


def test_seconds_are_kept_apart() -> None:
    now = [100.2]
    traffic = Traffic(lambda: now[0])
    traffic.answered(0.010, 200, batch=2, kept=True)
    traffic.answered(0.030, 503)
    now[0] = 102.9
    traffic.answered(0.002, 200, batch=6, kept=False)
    now[0] = 103.1
    found = traffic.curves(4)
    assert found.requests == [0.0, 2.0, 0.0, 1.0]
    assert found.errors == [0.0, 1.0, 0.0, 0.0]
    assert found.p50 == [None, 0.010, None, 0.002]
    assert found.p99 == [None, 0.030, None, 0.002]
    assert found.batch_mean == [None, 2.0, None, 6.0]
    assert found.kept == [None, 1.0, None, 0.0]


def test_a_busy_second_keeps_a_bounded_number_of_times() -> None:
    traffic = Traffic(lambda: 5.0)
    for _ in range(2000):
        traffic.answered(0.5, 200)
    (second,) = traffic._seconds
    assert second.requests == 2000
    assert len(second.times) == 512


@pytest.mark.parametrize(("share", "right"), [(0.5, 2.0), (0.99, 4.0), (0.25, 1.0), (1.0, 4.0)])
def test_quantile_is_the_smallest_that_enough_do_not_exceed(share: float, right: float) -> None:
    assert quantile([4.0, 1.0, 3.0, 2.0], share) == right


def test_panels_say_their_figures() -> None:
    now = [0.5]
    traffic = Traffic(lambda: now[0])
    for _ in range(20):
        traffic.answered(0.004, 200, batch=3, kept=True)
    now[0] = 1.5
    requests, times, batches, kept = panels(traffic.curves())
    assert (requests.now, requests.top) == ("2.0/s", "20/s")
    assert (times.now, times.note) == ("4 ms", "p99 4 ms")
    assert (batches.now, kept.now) == ("3.0", "100%")


def test_a_curve_is_broken_where_nothing_was_measured() -> None:
    drawn = curves([("p50", [1.0, 2.0, None, 4.0])], 4.0, "t")
    lines = re.findall(r'<polyline class="line p50" points="([^"]*)"', drawn)
    assert lines == ["0.0,48.0 100.0,32.0", "300.0,0.0 350.0,0.0"]


def test_the_clock_has_a_sector_for_each_share_and_says_it() -> None:
    shares = [[0.0, 0.0]] * 23 + [[0.25, 0.5]]
    drawn = clock_face(shares, ["<a>", "other"], 23, 'of "x"')
    assert re.findall(r'class="share-(\w+)"', drawn) == ["0", "other"]
    assert "23:00 · &lt;a&gt; · 25%" in drawn
    assert "<a>" not in drawn
    assert 'aria-label="of &#34;x&#34;"' in drawn
    assert drawn.count('class="hand"') == 1


def test_an_hour_is_the_next_one_after_the_last_event() -> None:
    done = [Done(1, None, 10 * 3600 + 60)]
    assert moment(done, 11, UTC) == "1970-01-01T11:00"
    assert moment(done, 10, UTC) == "1970-01-02T10:00"
    assert moment(done, -1, UTC) is None


def test_times_are_shown_in_a_zone() -> None:
    offset = zone_of("-05:00")
    assert offset is not None
    assert local_time(0, offset) == "1969-12-31 19:00"
    assert local_time(10**17, UTC) == local_time(None, UTC) == "—"
    assert zone_of("../etc/passwd") is None
    assert zone_of("No/Zone") is None
