"""The picture of a user's page: serve a run, open a user in a headless browser, keep what it shows.

    python -m benchmarks.serving.picture RUN --user 1 --out docs/pictures/serve-user.png

Needs Chromium, chromedriver and selenium.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DRIVER = "/usr/bin/chromedriver"


def take(address: str, out: Path, width: int, height: int) -> None:
    """Keep what a page looks like in the light scheme as a PNG file of width x height pixels."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver") or DRIVER))
    try:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        light = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", light)
        browser.get(address)
        browser.save_screenshot(str(out))
    finally:
        browser.quit()


def main() -> None:
    """Serve a copy of the run, so that nothing is left beside it, and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--user", default="1", help="an id without a slash")
    parser.add_argument("--query", default="k=10", help="what stands after ? in the page's address")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=1400, help="pixels")
    parser.add_argument("--height", type=int, default=760, help="pixels")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / asked.run.name
        shutil.copytree(asked.run, run)
        served = subprocess.Popen(
            [sys.executable, "-m", "recsys", "serve", str(run), "--port", "0", "--metrics-port", "0"],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert served.stderr is not None
            found = None
            for line in served.stderr:
                print(line, end="", file=sys.stderr)
                if found := re.search(r"^Serving .* on (http://\S+)", line):
                    break
            if found is None:
                raise SystemExit("the service has not started")
            take(f"{found[1]}/ui/users/{asked.user}?{asked.query}", asked.out, asked.width, asked.height)
        finally:
            served.terminate()
            served.wait()


if __name__ == "__main__":
    main()
