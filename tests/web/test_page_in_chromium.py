"""The page in Debian's Chromium: make test-web."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browser, complaints, screen
from epics_env import EpicsEnv, Process, free_port, wait_until
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from web_helpers import StandIn, image

pytestmark = pytest.mark.browser

ROWS, COLUMNS = np.mgrid[:200, :300]
PHASE = (np.sin(COLUMNS / 20) + ROWS / 100).astype(np.float32)
ABOUT: dict[str, float | str] = {"ScanID": "s1", "PixelSize": 1e-8, "OriginX": 0.0, "OriginY": 0.0, "FillValue": 9.0}
EVIL = "<img src=x onerror=\"document.title='broken'\">"


class Stage:
    """An IOC that stands in, the page's server as a process, and the browser."""

    def __init__(self, env: EpicsEnv, driver: Chrome) -> None:
        images = {"Phase": image(PHASE, 7, **ABOUT), "Sigma": image(PHASE[:5, :5], 7)}
        numbers = {name: 0.0 for name in ("SSIM_RBV", "OutputRate_RBV", "LatencyP95_RBV")}
        counts = {
            "FramesReceived_RBV": 100.0,
            "FramesStitched_RBV": 90.0,
            "FramesPending_RBV": 4.0,
            "DroppedLate_RBV": 6.0,
        }
        texts = {"StatusMessage_RBV": EVIL, "ModelVersion_RBV": "m1", "ScanID_RBV": "s1"}
        choices = {"Ready_RBV": ["Not ready", "Ready"], "Accounting_RBV": ["Holds", "Violated"]}
        self.env, self.driver, self.port = env, driver, free_port()
        self.ioc = StandIn(env, images, numbers | counts, texts, choices).start()
        self.web = self.serve()

    def serve(self) -> Process:
        words = ("-m", "ptychostream", "web", "w:", "absent:", "--port", str(self.port))
        process = self.env.start(sys.executable, *words)
        wait_until(lambda: "the page: " in process.output, 30, lambda: process.output)
        return process

    def open(self) -> None:
        self.driver.get(f"http://127.0.0.1:{self.port}/")
        self.until(lambda: self.pixel(0.5, 0.5)[3] > 0, "an image")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def text(self, where: str) -> str:
        return str(self.run(f"return document.getElementById('{where}').textContent"))

    def until(self, condition: Callable[[], Any], what: str, timeout: float = 20.0) -> None:
        wait_until(condition, timeout, what, 0.1)

    def pixel(self, across: float, down: float) -> list[int]:
        """RGBA of the canvas at a part of its width and height."""
        found: list[int] = self.run(
            "const c = document.getElementById('canvas'); if (!c.width) return [0, 0, 0, 0];"
            "return [...c.getContext('2d').getImageData(arguments[0] * c.width, arguments[1] * c.height, 1, 1).data]",
            across,
            down,
        )
        return found

    def press(self, *keys: str) -> None:
        canvas = self.driver.find_element(By.ID, "canvas")
        self.run("arguments[0].focus()", canvas)
        for key in keys:
            canvas.send_keys(key)

    def choose(self, where: str, value: str) -> None:
        self.run(
            "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
            "s.dispatchEvent(new Event('change'))",
            where,
            value,
        )


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with EpicsEnv() as env, browser(tmp_path_factory.mktemp("profile")) as driver:
        made = Stage(env, driver)
        try:
            yield made
        finally:
            made.web.stop()
            made.ioc.stop()


@pytest.fixture(autouse=True)
def opened(stage: Stage) -> Iterator[None]:
    screen(stage.driver, 1400, 1000)
    stage.ioc.images["Phase"].post(image(PHASE, 7, **ABOUT))
    stage.driver.get("about:blank")
    complaints(stage.driver)
    stage.open()
    yield
    assert complaints(stage.driver) == []


def test_the_page_shows_values_lamps_figures_and_the_law(stage: Stage) -> None:
    stage.until(lambda: "● the sum is right" in stage.text("law"), "the law")
    for text in ("100 received", "90 stitched", "4 pending", "6 came after its scan ended"):
        assert text in stage.text("law")
    assert "Plugin: Not ready" in stage.text("lamps")
    assert "m1" in stage.text("figures")
    assert stage.run("return [...document.querySelectorAll('#images button')].map((b) => b.dataset.image)") == [
        "Phase", "Sigma",
    ]  # fmt: skip
    canvas = stage.driver.find_element(By.ID, "canvas")
    ActionChains(stage.driver).move_to_element(canvas).perform()
    stage.until(lambda: "rad" in stage.text("cursor"), "the cursor's value")
    where, value = stage.text("cursor").split(": ")
    lengths = {"nm": 1e-9, "µm": 1e-6}
    x, y = (float(part.split()[1]) * lengths[part.split()[2]] for part in where.split(", "))
    column, row = round(x / 1e-8), round(y / 1e-8)
    assert abs(PHASE[row, column] - float(value.split()[0])) < 0.01


def test_texts_of_the_ioc_stay_texts(stage: Stage) -> None:
    stage.until(lambda: EVIL in stage.text("figures"), "the text")
    assert "broken" not in stage.driver.title
    assert stage.run("return document.images.length") == 0


def test_a_new_image_of_another_size_is_drawn_and_the_clear_pixels_are_clear(stage: Stage) -> None:
    holes = PHASE[:150, :150].copy()
    holes[:75] = 9.0
    stage.ioc.images["Phase"].post(image(holes, 8, **ABOUT))
    stage.until(lambda: "150 × 150" in stage.text("about"), "the size")
    stage.until(lambda: stage.pixel(0.4, 0.3)[3] == 0 and stage.pixel(0.4, 0.7)[3] == 255, "the holes")


def test_contrast_and_colours(stage: Stage) -> None:
    stage.choose("colours", "gray")
    stage.choose("contrast", "hand")
    for where, value in (("low", "5"), ("high", "6")):
        stage.choose(where, value)
    stage.until(lambda: stage.pixel(0.4, 0.5)[:3] == [0, 0, 0], "everything black: all values are below")
    for where, value in (("low", "-9"), ("high", "-8")):
        stage.choose(where, value)
        stage.choose("low", "-9")
    stage.until(lambda: stage.pixel(0.4, 0.5)[:3] == [255, 255, 255], "everything white")
    stage.choose("contrast", "1,99")
    stage.until(lambda: 0 < stage.pixel(0.4, 0.5)[0] < 255, "grey")
    stage.press("c")
    stage.until(lambda: len(set(stage.pixel(0.4, 0.5)[:3])) > 1, "colours")


def test_keys_zoom_move_hold_and_change_the_image(stage: Stage) -> None:
    before = stage.driver.get_screenshot_as_png()
    stage.press("+", "+", Keys.ARROW_LEFT)
    stage.until(lambda: stage.driver.get_screenshot_as_png() != before, "another part")
    stage.press("f")
    stage.press(" ")
    stage.until(lambda: "held" in stage.text("about"), "held")
    stage.ioc.images["Phase"].post(image(PHASE[:50], 9, **ABOUT))
    time.sleep(1.0)
    assert "300 × 200" in stage.text("about")
    stage.press(" ")
    stage.until(lambda: "300 × 50" in stage.text("about"), "the newest image")
    stage.press("i")
    stage.until(lambda: "5 × 5" in stage.text("about"), "the next image")
    stage.press("d")
    assert stage.run("return document.documentElement.dataset.theme") in ("dark", "light")
    stage.press("?")
    assert stage.run("return document.getElementById('keys').open")


def test_a_line_profile_is_drawn(stage: Stage) -> None:
    canvas = stage.driver.find_element(By.ID, "canvas")
    stage.press("l")
    chain = ActionChains(stage.driver).move_to_element_with_offset(canvas, -200, 0)
    chain.click_and_hold().move_by_offset(300, 0).release().perform()
    stage.until(lambda: not stage.run("return document.getElementById('profile').hidden"), "the profile")
    drawn = "const c = document.getElementById('profile');"
    drawn += "return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v) => v).length"
    assert stage.run(drawn) > 1000
    stage.press("l")
    stage.until(lambda: stage.run("return document.getElementById('profile').hidden"), "no profile")


def test_downloads(stage: Stage, tmp_path: Path) -> None:
    parameters = {"behavior": "allow", "downloadPath": str(tmp_path)}
    stage.driver.execute_cdp_cmd("Browser.setDownloadBehavior", parameters)
    stage.press("p", "h")
    stage.until(lambda: {path.suffix for path in tmp_path.iterdir()} == {".png", ".h5"}, "two files")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["w_Phase_s1.h5", "w_Phase_s1.png"]
    assert (tmp_path / names[0]).read_bytes().startswith(b"\x89HDF")
    assert (tmp_path / names[1]).read_bytes().startswith(b"\x89PNG")


def test_another_ioc_says_what_it_waits_for(stage: Stage) -> None:
    stage.press("n")
    stage.until(lambda: "no IOC answers to absent:HEARTBEAT" in stage.text("waits"), "what it waits for")
    stage.press("n")
    stage.until(lambda: stage.pixel(0.4, 0.5)[3] > 0, "the first IOC's image")


def test_the_page_survives_the_ioc_and_its_own_server(stage: Stage) -> None:
    stage.ioc.stop()
    stage.until(lambda: "no IOC answers" in stage.text("waits"), "the loss of the IOC", 30)
    stage.ioc.start()
    stage.until(lambda: stage.text("waits") == "", "the IOC", 30)
    stage.ioc.images["Phase"].post(image(PHASE[:60], 20, **ABOUT))
    stage.until(lambda: "300 × 60" in stage.text("about"), "the new image")
    stage.web.stop()
    stage.until(lambda: "trying again" in stage.text("waits"), "the loss of the server")
    stage.web = stage.serve()
    stage.until(lambda: stage.text("link") == "● live", "the server", 30)
    stage.ioc.images["Phase"].post(image(PHASE[:70], 21, **ABOUT))
    stage.until(lambda: "300 × 70" in stage.text("about"), "the new image")
    complaints(stage.driver)  # the browser logs the refused connections


@pytest.mark.parametrize(("width", "height"), [(360, 740), (390, 844), (820, 1180)])
def test_nothing_is_wider_than_a_phone(stage: Stage, width: int, height: int) -> None:
    screen(stage.driver, width, height, phone=True, dark=True)
    stage.open()
    stage.until(lambda: "the sum is right" in stage.text("law"), "the law")
    assert stage.run("return document.documentElement.scrollWidth") <= width
    small = "return [...document.querySelectorAll('#tools button, header button')]"
    small += ".filter((button) => button.offsetHeight < 38).length"
    assert stage.run(small) == 0, "buttons are for fingers"
    shot = base64.b64decode(stage.driver.get_screenshot_as_base64())
    assert shot.startswith(b"\x89PNG")


def test_the_page_is_ready_and_says_when(stage: Stage) -> None:
    ready = int(stage.run("return document.documentElement.dataset.ready"))
    assert ready > 0
