"""The page in a browser: what changes as one types, by keyboard, without scripts, with hostile titles."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from recsys.events.store import Event, RawId
from recsys.serving.engine.asking import Item
from recsys.serving.http.keys import new_key
from recsys.serving.http.service import Service
from tests.serving.doubles import MemoryEngine, MemoryEvents, memory_service
from tests.serving.live import live

webdriver = pytest.importorskip("selenium.webdriver")
DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium")
pytestmark = pytest.mark.skipif(not (DRIVER and CHROMIUM), reason="needs chromium and chromedriver")
HOSTILE = "<img src=x onerror=document.title='struck'>"
LONG = "W" * 250
NARROW = 390


class HostileEngine(MemoryEngine):
    """Titles that would run if they were markup, or push everything else off the page."""

    def _item(self, number: int, rank: int) -> Item:
        return Item(self.raw(number), 1 / number, rank, f"{HOSTILE} {number}{LONG}")

    async def title(self, items: Sequence[RawId], model: str | None = None) -> list[str | None]:
        return [f"{HOSTILE}{LONG}" for _ in items]


def hostile() -> Service:
    made = memory_service()
    assert made.events is not None
    made.events.append([Event(1, 7, 300, type=LONG[:60], request_id=LONG[:120]), Event(LONG, LONG, 300)])
    return Service(made.settings, HostileEngine(MemoryEvents(), reads_hours=True), made.events)


def clocked() -> Service:
    return memory_service(reads_hours=True)


def keyed() -> Service:
    import os

    return memory_service(keys=os.environ["PAGE_TEST_KEYS"])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with live("tests.serving.doubles:memory_service") as found:
        yield found


def _browser(scripts: bool = True) -> Any:
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if not scripts:
        prefs = {"profile.managed_default_content_settings.javascript": 2}
        options.add_experimental_option("prefs", prefs)
    from selenium.webdriver.chrome.service import Service as Driver

    return webdriver.Chrome(options=options, service=Driver(DRIVER))


@pytest.fixture(scope="module")
def opened() -> Iterator[Any]:
    browser = _browser()
    yield browser
    browser.quit()


@pytest.fixture
def browser(opened: Any) -> Iterator[Any]:
    """A browser whose console has to be empty in the end: no error, no report of the content policy."""
    opened.get_log("browser")
    yield opened
    assert [line for line in opened.get_log("browser") if line["level"] != "DEBUG"] == []


def until(holds: Callable[[], bool]) -> None:
    from selenium.common.exceptions import StaleElementReferenceException

    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if holds():
                return
        except StaleElementReferenceException:
            pass
        time.sleep(0.05)
    raise AssertionError("the page has not become so in 10 s")


def items(browser: Any) -> list[str]:
    return [each.text for each in browser.find_elements("css selector", ".ranked tbody td a")]


def titles(*numbers: int) -> list[str]:
    return [f"Title <{number}>" for number in numbers]


def test_search_finds_as_one_types(browser: Any, address: str) -> None:
    browser.get(f"{address}/ui")
    browser.find_element("id", "q").send_keys("12")
    found = "#found .chips a"
    until(lambda: [e.text for e in browser.find_elements("css selector", found)] == ["12"])
    assert browser.current_url == f"{address}/ui"


def test_a_category_and_what_if_change_the_answers(browser: Any, address: str) -> None:
    browser.get(f"{address}/ui/users/1")
    assert items(browser)[:3] == titles(3, 4, 5)
    browser.find_element("css selector", "#category option[value=even]").click()
    until(lambda: items(browser)[:3] == titles(4, 6, 8))
    browser.find_element("id", "item").send_keys("4", "\ue007")
    until(lambda: items(browser)[:3] == titles(6, 8, 10))
    browser.get(f"{address}/ui/users/1")
    assert items(browser)[:3] == titles(3, 4, 5)


def test_the_hour_is_moved_by_keys(browser: Any) -> None:
    with live("tests.serving.page.test_browser:clocked") as address:
        browser.get(f"{address}/ui/users/1")
        assert browser.find_elements("css selector", ".clock .hand") == []
        slider = browser.find_element("id", "hour")
        for hour in range(3):
            slider.send_keys("\ue014")
            until(partial(shows_hour, browser, hour))
        said = browser.find_element("css selector", "#result > p.small")
        assert "asked at 02:00" in said.text
        said.find_element("link text", "Address of this list").click()
        until(lambda: browser.current_url == f"{address}/ui/users/1?hour=2")
        assert shows_hour(browser, 2)
        assert browser.find_element("id", "hour").get_property("value") == "2"


def shows_hour(browser: Any, hour: int) -> bool:
    return [each.text for each in browser.find_elements("css selector", ".clock .hour")] == [f"{hour:02d}:00"]


def test_keyboard_alone_from_search_to_answers(browser: Any, address: str) -> None:
    browser.get(f"{address}/ui")
    until(lambda: browser.switch_to.active_element.get_attribute("id") == "q")
    browser.switch_to.active_element.send_keys("2", "\ue007")
    until(lambda: len(browser.find_elements("css selector", "#found .chips a")) == 1)
    for _ in range(4):
        browser.switch_to.active_element.send_keys("\ue004")
        if "/ui/users/" in (browser.switch_to.active_element.get_attribute("href") or ""):
            break
    browser.switch_to.active_element.send_keys("\ue007")
    until(lambda: browser.current_url == f"{address}/ui/users/2")
    assert items(browser)[:3] == titles(1, 2, 4)


def test_hostile_text_stays_text_and_on_the_page(browser: Any) -> None:
    with live("tests.serving.page.test_browser:hostile") as address:
        browser.get(f"{address}/ui/users/1")
        assert items(browser)[0] == f"{HOSTILE} 3{LONG}"
        assert browser.find_elements("css selector", "main img") == []
        assert browser.title != "struck"
        size = {"width": NARROW, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        try:
            for path in ("?q=1", "/users/1?item=4&hour=3", "/items/4", "/events"):
                browser.get(f"{address}/ui{path}")
                assert browser.execute_script("return innerWidth") == NARROW
                assert browser.execute_script(CUT_OFF) == [], path
        finally:
            browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


CUT_OFF = (
    "return [...document.querySelectorAll('body *:not(.unseen)')]"
    ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"
)
"""Elements that reach beyond the right edge."""


def test_log_in_and_out(browser: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    secret = new_key(keys, "reader", ("read",))
    with live("tests.serving.page.test_browser:keyed", PAGE_TEST_KEYS=str(keys)) as address:
        browser.get(f"{address}/ui/users/1")
        assert browser.current_url == f"{address}/ui/login"
        browser.find_element("id", "key").send_keys(secret, "\ue007")
        until(lambda: browser.current_url != f"{address}/ui/login")
        browser.get(f"{address}/ui/users/1")
        assert items(browser)[0] == "Title <3>"
        browser.find_element("css selector", "form[action='/ui/logout'] button").send_keys("\ue007")
        until(lambda: browser.current_url == f"{address}/ui/login")
        browser.get(f"{address}/ui/users/1")
        assert browser.current_url == f"{address}/ui/login"


def test_without_scripts_forms_do_it(address: str) -> None:
    browser = _browser(scripts=False)
    try:
        browser.get(f"{address}/ui")
        browser.find_element("id", "q").send_keys("12", "\ue007")
        until(lambda: browser.current_url == f"{address}/ui?q=12")
        browser.get(f"{address}/ui/users/1")
        browser.find_element("css selector", "#category option[value=even]").click()
        assert items(browser)[:3] == titles(3, 4, 5)
        browser.find_element("css selector", "#ask button").click()
        until(lambda: "category=even" in browser.current_url)
        assert items(browser)[:3] == titles(4, 6, 8)
    finally:
        browser.quit()
