"""The page for people, in a real browser against a real service."""

import json
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from ecom_pipeline.service import folders
from ecom_pipeline.service.app import House, make_app
from ecom_pipeline.service.journal.appending import Journal
from ecom_pipeline.service.journal.sqlite import SQLite
from ecom_pipeline.service.keys import add_key
from ecom_pipeline.service.serving import Serving
from ecom_pipeline.sources.people import keyed_hash
from resources.home import Home

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
MARKUP = "<script>document.title = 'taken'</script><b id='planted'>mug</b>"
EFFECT = {"n_rated": 12, "n_changed": 7, "told": "Raters judged 12 pairs <b>and</b> the ranker is better for it."}
SYSTEMS = ("weighted", "unweighted")
PAGES = (
    "/?query=coffee+mug&side_by_side=true",
    "/page/user?user=person-2",
    "/page/new-item?text=mug",
    "/page/suspects",
)
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="chromium or its driver is not installed: apt-get install chromium chromium-driver",
)


def planted(source: Path, part: Path) -> dict:
    """A publication with markup in a title and in a query, another order by worth, and an effect of ratings."""
    shutil.copytree(source, part, dirs_exist_ok=True)
    told = json.loads((part / folders.MANIFEST).read_text())
    (part / folders.MANIFEST).unlink()
    items = pd.read_parquet(part / "items.parquet")
    items.loc[items.item_id == "i0-0-0", "title"] = MARKUP
    items.to_parquet(part / "items.parquet", index=False)
    suspects = pd.read_parquet(part / "suspects.parquet")
    suspects.loc[0, "context_text"] = MARKUP
    suspects["by_worth"] = range(len(suspects), 0, -1)
    suspects.to_parquet(part / "suspects.parquet", index=False)
    return {name: value for name, value in told.items() if name not in ("name", "files")} | {
        "journal": 0,  # the one beside it is another, and empty
        "rating_effect": EFFECT,
    }


@pytest.fixture(scope="module")
def serving(finished, tmp_path_factory) -> Iterator[Serving]:
    home = tmp_path_factory.mktemp("served")
    source = finished.home / "published"
    folders.publish(home / "published", lambda part: planted(source / folders.current(source), part), lambda _: {})
    one = Serving(home / "published", Journal(SQLite(home / "journal")))
    yield one
    one.close()


@pytest.fixture(scope="module")
def hash_key(finished) -> bytes:
    return Home(path=str(finished.home)).hash_key()


def running(house: House) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(make_app(house), log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=server.run, args=([door],))
        thread.start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def address(serving, hash_key) -> Iterator[str]:
    yield from running(House(serving, hash_key, None, hosts=("127.0.0.1",)))


@pytest.fixture
def locked(serving, hash_key, tmp_path) -> Iterator[tuple[str, str]]:
    """A service that asks for keys, and a key."""
    secret = add_key(tmp_path / "keys.json", "test", ["read", "events", "label"])
    for one in running(House(serving, hash_key, tmp_path / "keys.json")):
        yield one, secret


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    one = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield one
    one.quit()


@pytest.fixture(autouse=True)
def quiet(caplog) -> Iterator[None]:
    """Whatever a test does, the service logs no error."""
    yield
    assert [one for one in caplog.get_records("call") if one.levelname == "ERROR"] == []


@pytest.fixture
def browser(chromium) -> Iterator[webdriver.Chrome]:
    """The browser; whatever a test does, the console must stay empty."""
    chromium.get_log("browser")
    yield chromium
    assert chromium.get_log("browser") == []


def all_of(browser: webdriver.Chrome, selector: str) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, selector)


def wait(browser: webdriver.Chrome, selector: str, holds=lambda element: True) -> WebElement:
    """The first element that is shown, or comes to be shown, and for which something holds."""

    def found(_):
        return next((one for one in all_of(browser, selector) if one.is_displayed() and holds(one)), None)

    waiting = WebDriverWait(browser, 20, 0.05, (Exception,))  # what is looked at may be swapped meanwhile
    return waiting.until(found, f"nothing like {selector}")


def titles(browser: webdriver.Chrome, within: str) -> list[str]:
    return [one.text for one in all_of(browser, f"{within} .title")]


def test_a_search_says_why_and_its_address_shows_it_again(browser, address):
    browser.get(f"{address}/")
    wait(browser, "input[name=query]:focus").send_keys("coffee mug", Keys.ENTER)
    wait(browser, "#found li")
    assert "query=coffee+mug" in browser.current_url
    assert all("mug" in one or "cup" in one for one in titles(browser, "#found")[:3])
    why = wait(browser, "#found .facts").text
    assert "chance" in why
    assert "coffee mug no. " in why.replace("\n", " ")
    assert "cosine 0." in why
    shown = titles(browser, "#found")
    browser.refresh()
    wait(browser, "#found li")
    assert titles(browser, "#found") == shown


def test_filters_hold_and_three_systems_stand_side_by_side(browser, address):
    browser.get(f"{address}/?query=red&side_by_side=true&category=shop+>+yoga&max_price=9")
    wait(browser, "#found li")
    headings = [one.text for one in all_of(browser, "#found h2")]
    assert headings == ["The weighted ranker", "Its unweighted twin", "Words and meaning alone"]
    told = [one.text for one in all_of(browser, "#found li .title + .quiet")]
    assert told
    assert all("shop > yoga mat · 8.90 EUR" in one for one in told)
    assert "chance" not in browser.find_element(By.CSS_SELECTOR, "[aria-labelledby=by-none]").text


def test_what_is_switched_off_changes_the_lists_at_once_and_may_count_again(browser, address, serving):
    browser.get(f"{address}/page/user?user=person-1")
    switch = wait(browser, "[role=switch]")
    name, before = switch.get_attribute("id"), [titles(browser, f"[data-system={one}]") for one in SYSTEMS]
    switch.send_keys(Keys.SPACE)
    wait(browser, "[role=switch][aria-checked=false]", lambda one: one.get_attribute("id") == name)
    assert "does not count any more" in wait(browser, "#status").text
    assert serving.journal.after(0)[-1].event.action == "dismiss"
    after = [titles(browser, f"[data-system={one}]") for one in SYSTEMS]
    assert after != before
    fresh = {one for lists in zip(before, after, strict=True) for one in set(lists[1]) - set(lists[0])}
    assert {one.text for one in all_of(browser, "li:has(.new) .title")} == fresh
    focused = browser.switch_to.active_element
    assert focused.get_attribute("id") == name
    focused.send_keys(Keys.SPACE)
    wait(browser, "[role=switch][aria-checked=true]", lambda one: one.get_attribute("id") == name)
    assert [titles(browser, f"[data-system={one}]") for one in SYSTEMS] == before


def test_a_user_is_picked_without_an_id_and_what_he_buys_is_in_his_history(browser, address, serving):
    browser.get(f"{address}/page/user")
    wait(browser, ".chip").click()
    buy = wait(browser, "[data-system=unweighted] button[id^=purchase]")
    title = titles(browser, "[data-system=unweighted]")[0]
    buy.click()
    wait(browser, ".acts li", lambda one: title in one.text and "yesterday or today" in one.text)
    event = serving.journal.after(0)[-1].event
    assert (event.action, event.position) == ("purchase", 1)
    assert event.user_id in browser.current_url


def test_a_new_item_is_like_what_its_text_says(browser, address):
    browser.get(f"{address}/page/new-item")
    wait(browser, "textarea").send_keys("a jute mat for yoga")
    wait(browser, "main button").click()
    wait(browser, "#alike li")
    assert all("yoga" in one for one in titles(browser, "#alike")[:3])
    assert "like the text" in wait(browser, "#alike .why").text


def press(browser: webdriver.Chrome, key: str) -> None:
    ActionChains(browser).send_keys(key).perform()


def card(browser: webdriver.Chrome, other_than: str = "") -> str:
    """The suspect that is shown and not answered yet."""

    def found(_):
        one = browser.execute_script("return document.querySelector('article')?.dataset.sample")
        return one if one != other_than else None

    return WebDriverWait(browser, 20, 0.05).until(found, f"no card but {other_than!r}")


def test_suspects_are_rated_left_aside_and_taken_back_by_keys(browser, address, serving, hash_key):
    browser.get(f"{address}/page/suspects")
    first = card(browser)
    assert [one.text for one in all_of(browser, ".grades kbd")] == ["1", "2", "u"]
    press(browser, "2")
    assert "your name" in wait(browser, "#alert").text.lower()
    assert serving.journal.ratings() == []
    browser.switch_to.active_element.send_keys("ana2", Keys.TAB)
    wait(browser, "h1").click()
    press(browser, "2")
    second = card(browser, first)
    (kept,) = serving.journal.ratings()
    assert (kept.sample_id, kept.rater, kept.relevance) == (first, keyed_hash("ana2", hash_key), 3.0)
    assert "1 of " in wait(browser, ".progress").text
    press(browser, "u")
    third = card(browser, second)
    press(browser, Keys.BACKSPACE)
    assert card(browser, third) == second
    press(browser, "z")
    assert card(browser, second) == first
    assert serving.journal.ratings() == []
    assert not wait(browser, "#undo").is_enabled()
    browser.refresh()
    assert wait(browser, "#rater").get_attribute("value") == "ana2"


def test_suspects_come_by_worth_when_asked_and_say_what_ratings_did(browser, address):
    browser.get(f"{address}/page/suspects")
    first = card(browser)
    assert wait(browser, ".effect").text == EFFECT["told"]
    wait(browser, "#order").send_keys("by what")
    card(browser, first)
    assert "worth of an answer" in wait(browser, "article").text


def test_markup_in_titles_and_queries_is_text(browser, address):
    for page, selector in (("/?query=red+ceramic+coffee+mug+with+handle", "#found .title"), ("/page/suspects", "h2")):
        browser.get(address + page)
        assert wait(browser, selector, lambda one: one.text == MARKUP)
        assert all_of(browser, "#planted") == []
        assert browser.title.endswith("ecom-pipeline")


def test_a_key_is_asked_for_once_and_sent_from_then_on(chromium, locked):
    address, secret = locked
    chromium.get(f"{address}/page/user?user=person-3")
    wait(chromium, "#key input").send_keys("not a key", Keys.ENTER)
    wait(chromium, "#key[open] input", lambda one: one.get_attribute("value") == "").send_keys(secret, Keys.ENTER)
    wait(chromium, "#lists [role=switch]")
    wait(chromium, ".chip")
    refused = [one for one in chromium.get_log("browser") if "401" not in one["message"]]
    assert refused == []
    chromium.get(f"{address}/page/suspects")
    card(chromium)
    assert chromium.get_log("browser") == []


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=b"])
def test_a_page_of_another_origin_cannot_write(address, serving, kind):
    body = json.dumps({"user_id": "person-1", "action": "purchase", "item_id": "i0-0-1"}).encode()
    n_before = serving.journal.last()
    for path, sent in (("/events", body), ("/ratings", b'{"sample_id": "x", "relevance": 0, "rater": "y"}')):
        request = urllib.request.Request(
            address + path, sent, {"Content-Type": kind, "Origin": "http://elsewhere.example"}
        )
        with pytest.raises(urllib.error.HTTPError, match="422"):
            urllib.request.urlopen(request)
    asked = {"Origin": "http://elsewhere.example", "Access-Control-Request-Method": "POST"}
    preflight = urllib.request.Request(f"{address}/events", headers=asked, method="OPTIONS")
    with pytest.raises(urllib.error.HTTPError, match="405") as refused:
        urllib.request.urlopen(preflight)
    assert "Access-Control-Allow-Origin" not in refused.value.headers
    renamed = {"Content-Type": "application/json", "Host": "elsewhere.example"}
    with pytest.raises(urllib.error.HTTPError, match="421"):
        urllib.request.urlopen(urllib.request.Request(f"{address}/events", body, renamed))
    assert serving.journal.last() == n_before


@pytest.mark.parametrize("path", PAGES)
def test_pages_have_labels_headings_in_order_and_no_code_of_their_own(browser, address, path):
    with urllib.request.urlopen(address + path) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    browser.get(address + path)
    wait(browser, "#found li, #lists li, #alike li, article")
    unnamed = browser.execute_script(
        """return [...document.querySelectorAll("main input, main select, main textarea, main button, main progress")]
        .filter(one => !(one.labels?.length && one.labels[0].textContent.trim()) && !one.textContent.trim()
            && !one.ariaLabel).map(one => one.outerHTML)"""
    )
    assert unnamed == []
    levels = [int(one.tag_name[1]) for one in all_of(browser, "main :is(h1, h2, h3, h4)")]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all_of(browser, "[style], style, script:not([src]), [onclick]") == []
    assert len(all_of(browser, "nav [aria-current=page]")) == 1


@pytest.mark.parametrize("path", PAGES)
def test_pages_fit_a_narrow_screen_and_follow_the_dark(browser, address, path):
    narrow = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    browser.get(address + path)
    wait(browser, "#found li, #lists li, #alike li, article")
    width, paper = browser.execute_script(
        "return [document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor]"
    )
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert width == 390
    assert paper == "rgb(20, 24, 31)"
