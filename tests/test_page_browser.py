"""The page in a real browser: it works, asks nothing of the network, and hostile text does nothing.

Needs Debian's packages chromium and chromium-driver.
"""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from page_making import HOSTILE, HOSTILE_SEEN, gathered, only, page, png, tables_of, with_svg
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from spine_tasks.causes.cause import Cause
from spine_tasks.states import State

NEEDED = ("chromium", "chromedriver")


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium that notes what it loads and what goes wrong."""
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        said = f"{', '.join(missing)} not found: install Debian's chromium and chromium-driver"
        (pytest.fail if "CI" in os.environ else pytest.skip)(said)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.add_argument("--window-size=1240,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A page with figures, a failed cell, undefined values, and metrics that come later."""
    folder = tmp_path_factory.mktemp("page")
    made = only(gathered(folder), [0, 1, 2])
    made.states[made.experiment.cells[3].id] = State("failed", "", cause=Cause("code", "a fault"))
    undefined = (made.cases["arm"] == made.arms[1].arm_name) & (made.cases["metric"] == "MSD")
    more = made.cases[made.cases["metric"] == "DSC"].assign(metric="JI")
    cases = made.cases.assign(value=made.cases["value"].mask(undefined))
    made = replace(made, cases=pd.concat([cases, more], ignore_index=True))
    page(made, folder, figures=[png(folder), with_svg(png(folder, "curves.png", "curves"))])
    return folder / "report.html"


@pytest.fixture
def opened(browser, file):
    """The page, freshly opened."""
    return open_page(browser, file)


def open_page(browser, file):
    browser.get("about:blank")
    logged(browser)  # what was before
    browser.get(file.as_uri())
    return browser


def logged(browser):
    """Console messages, and the addresses of requests, since the last call."""
    events = [json.loads(one["message"])["message"] for one in browser.get_log("performance")]
    sent = [one for one in events if one["method"] == "Network.requestWillBeSent"]
    return browser.get_log("browser"), [one["params"]["request"]["url"] for one in sent]


def column(browser, table, head):
    """The visible cells of a column: their exact values, or None where undefined."""
    return browser.execute_script(
        """const table = document.querySelector(`#${arguments[0]} table`);
        const at = [...table.tHead.rows[0].cells].findIndex(
            (one) => one.textContent === arguments[1]);
        return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) =>
            "missing" in row.cells[at].dataset ? null
            : Number(row.cells[at].dataset.value ?? NaN) || row.cells[at].textContent);""",
        table,
        head,
    )


def button(browser, table, head):
    return browser.find_element(By.XPATH, f"//section[@id='{table}']//th/button[text()='{head}']")


def test_nothing_is_wrong_and_nothing_is_asked_of_the_network(opened, file):
    messages, addresses = logged(opened)
    assert messages == []
    assert file.as_uri() in addresses  # or nothing would be noted at all
    others = {one for one in addresses if not one.startswith("data:image/")}
    assert others <= {file.as_uri(), "data:,"}


def test_a_broken_page_would_be_noticed(browser, file, tmp_path):
    # The policy refuses a script that was not there when the page was made.
    broken = tmp_path / "broken.html"
    text = file.read_text().replace("</main>", "</main><script>window.hacked = 1</script>")
    broken.write_text(text)
    messages, _ = logged(open_page(browser, broken))
    assert "Content Security Policy" in messages[0]["message"]
    assert browser.execute_script("return window.hacked") is None


def test_every_picture_is_shown_and_opens_larger(opened):
    pictures = opened.find_elements(By.CSS_SELECTOR, "figure img")
    assert len(pictures) == 2
    assert all(int(one.get_property("naturalWidth")) == 60 for one in pictures)
    small = pictures[1].size["height"]
    pictures[1].click()
    large = opened.find_element(By.CSS_SELECTOR, "dialog img")
    assert large.is_displayed()
    assert large.get_property("src") == pictures[1].get_property("src")
    assert large.get_property("alt") == "curves"
    assert large.size["height"] > 2 * small
    opened.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not large.is_displayed()


def test_a_click_sorts_by_number_and_undefined_is_last_both_ways(opened):
    opened.find_element(By.CSS_SELECTOR, "#summary input[type=checkbox]").click()
    before = column(opened, "summary", "mean")
    defined = sorted(one for one in before if one is not None)
    assert len(defined) == 8
    assert defined != sorted(defined, key=str)  # so that sorting as text would be noticed
    head = button(opened, "summary", "mean")
    head.click()
    assert column(opened, "summary", "mean") == [*defined, None]
    assert head.find_element(By.XPATH, "..").get_attribute("aria-sort") == "ascending"
    head.click()
    assert column(opened, "summary", "mean") == [*reversed(defined), None]
    button(opened, "summary", "arm").click()
    arms = column(opened, "summary", "arm")
    assert arms == sorted(arms)
    assert len(opened.find_elements(By.CSS_SELECTOR, "#summary [aria-sort]")) == 1


def test_sorting_keeps_the_order_of_equals_and_needs_no_mouse(opened):
    before = column(opened, "runs", "arm")
    head = button(opened, "runs", "seed")
    opened.execute_script("arguments[0].focus()", head)
    head.send_keys(Keys.ENTER)
    head.send_keys(Keys.SPACE)
    assert head.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    assert column(opened, "runs", "arm") == before


def test_the_filter_wants_every_word_and_looks_at_all_metrics(opened, file):
    said = opened.find_element(By.CSS_SELECTOR, "#summary output")
    words = opened.find_element(By.CSS_SELECTOR, "#summary input[type=search]")
    assert said.text == "showing 6 of 9 rows"
    words.send_keys("pretrained  ji ")
    assert said.text == "showing 1 of 9 rows"
    assert column(opened, "summary", "metric") == ["JI\xa0↑"]
    words.clear()
    words.send_keys("INIT=SCRATCH")
    assert said.text == "showing 6 of 9 rows"
    assert all("init=scratch" in one for one in column(opened, "summary", "arm"))
    words.send_keys(" nowhere")
    assert said.text == "showing 0 of 9 rows"
    assert len(column(opened, "comparisons", "arm")) == 4  # other tables stay as they are


def test_significant_rows_alone_are_bold(opened):
    p_values = column(opened, "comparisons", "Holm p")
    rows = opened.find_elements(By.CSS_SELECTOR, "#comparisons tbody tr:not([hidden])")
    bold = [int(row.value_of_css_property("font-weight")) > 400 for row in rows]
    assert bold == [p is not None and p < 0.05 for p in p_values]
    assert True in bold
    assert False in bold


@pytest.mark.parametrize("width", [390, 900])
def test_the_page_fits_a_phone_and_a_small_window(opened, width):
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        wide = opened.execute_script("return document.documentElement.scrollWidth")
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= width


def test_hostile_names_and_messages_are_text_and_run_nothing(browser, tmp_path):
    made = gathered(tmp_path, label=HOSTILE, question=HOSTILE)
    renamed = made.arms[1].arm_name
    cases = made.cases.assign(arm=made.cases["arm"].replace(renamed, HOSTILE))
    histories = made.histories.assign(arm=made.histories["arm"].replace(renamed, HOSTILE))
    runs = made.runs.assign(cell=HOSTILE, arm=made.runs["arm"].replace(renamed, HOSTILE))
    hostile = replace(made, cases=cases, histories=histories, runs=runs, mixed=[HOSTILE])
    hostile.states[made.arms[3].id] = State("failed", "", cause=Cause("code", HOSTILE))
    figure = png(tmp_path, title=HOSTILE)
    page(hostile, tmp_path, [figure], HOSTILE, tables_of(hostile) | {"groups": _groups()})
    open_page(browser, tmp_path / "report.html")
    messages, addresses = logged(browser)
    assert messages == []
    assert all(one.startswith(("file:", "data:")) for one in addresses)
    assert browser.execute_script("return window.hacked") is None
    for place in (".question", "#mixed pre", "#findings", "#groups tbody", "#methods > p"):
        assert HOSTILE_SEEN in browser.find_element(By.CSS_SELECTOR, place).text
    assert HOSTILE_SEEN in browser.find_element(By.CSS_SELECTOR, "#missing tbody").text
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 1
    browser.find_element(By.CSS_SELECTOR, "figure button").click()
    assert browser.find_element(By.CSS_SELECTOR, "dialog p").text == HOSTILE_SEEN


def _groups():
    values = {"by": "site", "group": [HOSTILE, "b"], "metric": "DSC", "arm": HOSTILE, "n": [8, 9]}
    return pd.DataFrame(values | {"mean": [0.5, np.nan]})
