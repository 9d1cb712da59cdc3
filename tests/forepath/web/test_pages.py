"""Every view in a real browser, on a filled and on an empty database, and while the database is away."""

import time

import pytest
from conftest import Site, Viewer
from lab_on_paper import SEARCH, SHOP
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from cpdb import Communication, Pause, open_store

FILLED = [
    ("/?ahead=15", "leaf2 → hA", ["12.00 Mbit/s", "hA runs short", "9.28 Mbit/s", "25% free"]),
    ("/pairs", "c1 → shop", ["0.80 Mbit/s", "4.0/s", "1000 B", "15 s: 6.72 Mbit/s"]),
    (f"/pair?source=c1&virtual_ip={SHOP}", "c1 → shop", ["trusted 30 s ahead", "6.72 Mbit/s", "c1 → leaf1"]),
    ("/link?from=leaf2&to=hA", "Who loads it", ["c4 → backup", "12.00 Mbit/s", "other direction"]),
    ("/machines", "hA", ["0.20 cores", "512 MiB", "shop1", "running"]),
    ("/machine?name=batch1", "machine batch1", ["running on hA", "hA runs short", "failed"]),
    ("/services", "shop", [SHOP, "source", "unknown"]),
    ("/service?name=shop", "Destinations", ["shop1", "serving", "c1 → shop"]),
    ("/journal", "3 actions, advice and refusals", ["failed", "done", "advised", "hB: no memory"]),
    ("/action?number=3", "hA runs short", ["#3", "failed: hB: no memory"]),
    ("/accuracy", "What was said of mean rates", ["nothing was scored lately", "set_cpu_limit"]),
    ("/health", "No alarm is open", ["last 0 s ago", "leaf1", "sqlite"]),
]
EMPTY = [
    ("/", "leaf2 → hA", ["nothing was done or advised", "no fresh forecast"]),
    ("/pairs", "nobody has spoken lately", []),
    ("/pair?source=c1&virtual_ip=shop", "c1 has never spoken to shop", []),
    ("/link?from=leaf2&to=hA", "no pair crosses it", ["nothing is reserved"]),
    ("/machines", "no host has been measured lately", []),
    ("/machine?name=shop1", "Nothing was measured of it", ["nothing was done or advised"]),
    ("/services", "shop", [SHOP]),
    ("/service?name=shop", "nobody lately", ["shop1"]),
    ("/journal", "nothing was done, advised or refused", ["nothing ran short"]),
    ("/action?number=3", "no action 3; the journal lists them", []),
    ("/accuracy", "nothing was scored lately", ["nothing was promised"]),
    ("/health", "No alarm is open", ["of the past only the journal tells", "last never"]),
]


def seen(viewer: Viewer, site: Site, path: str, text: str, also: list[str]) -> None:
    viewer.forget()
    said = viewer.look_at(site.address(path), text)
    missing = [one for one in also if one not in said]
    assert missing == [], said
    assert "forepath" in said and viewer.complaints() == []
    elsewhere = [
        url for url in viewer.asked() if not url.startswith((site.base, site.base.replace("http", "ws"), "data:"))
    ]
    assert elsewhere == []


@pytest.mark.parametrize("path,text,also", FILLED, ids=[row[0] for row in FILLED])
def test_a_view_shows_what_the_commands_tell(
    viewer: Viewer, filled_site: Site, path: str, text: str, also: list[str]
) -> None:
    seen(viewer, filled_site, path, text, also)
    for chart in viewer.driver.find_elements(By.CSS_SELECTOR, "figure svg"):
        assert chart.find_elements(By.TAG_NAME, "path")


@pytest.mark.parametrize("path,text,also", EMPTY, ids=[row[0] for row in EMPTY])
def test_a_view_of_an_empty_database_says_what_is_missing(
    viewer: Viewer, empty_site: Site, path: str, text: str, also: list[str]
) -> None:
    seen(viewer, empty_site, path, text, also)


def test_how_far_ahead_stands_in_the_address_and_is_chosen_by_keyboard(viewer: Viewer, filled_site: Site) -> None:
    viewer.look_at(filled_site.address("/?ahead=15"), "within 15 s")
    chosen = next(
        one for one in viewer.driver.find_elements(By.CSS_SELECTOR, ".q-btn-toggle button") if one.text == "+30 s"
    )
    chosen.send_keys(Keys.ENTER)
    viewer.wait_for("within 30 s")
    assert "ahead=30" in viewer.driver.current_url and "at=" in viewer.driver.current_url
    links = viewer.driver.find_elements(By.CSS_SELECTOR, "nav a")
    assert all("ahead=30" in str(one.get_attribute("href")) for one in links)


def test_the_keyboard_first_meets_the_way_to_the_content_and_then_the_menu(viewer: Viewer, filled_site: Site) -> None:
    viewer.look_at(filled_site.address("/health"), "No alarm")
    met = []
    for _ in range(3):
        viewer.driver.switch_to.active_element.send_keys(Keys.TAB)
        met.append(viewer.driver.switch_to.active_element.text)
    assert met == ["to the content", "Topology", "Pairs"]


def test_a_narrow_screen_is_not_wider_than_it_is(viewer: Viewer, filled_site: Site) -> None:
    viewer.driver.set_window_size(500, 900)
    try:
        for path in ("/", "/journal", "/health"):
            viewer.look_at(filled_site.address(path), "forepath")
            body = viewer.driver.find_element(By.TAG_NAME, "main")
            assert (
                body.rect["x"] >= 0 and body.rect["x"] + body.rect["width"] <= viewer.driver.get_window_size()["width"]
            )
    finally:
        viewer.driver.set_window_size(1200, 1000)


def test_the_theme_stands_in_the_address(viewer: Viewer, filled_site: Site) -> None:
    backgrounds = []
    for theme in ("light", "dark"):
        viewer.look_at(filled_site.address(f"/health?theme={theme}"), "No alarm")
        body = viewer.driver.find_element(By.TAG_NAME, "body")
        backgrounds.append(body.value_of_css_property("background-color"))
    assert backgrounds[0].startswith("rgba(255, 255, 255") and backgrounds[0] != backgrounds[1]


def test_wrong_addresses_are_answered_in_a_line(viewer: Viewer, filled_site: Site) -> None:
    for path, line in (
        ("/?ahead=soon", "?ahead=soon: write a number, e.g. 15"),
        ("/journal?outcome=good", "?outcome=good: write one of"),
        ("/machine?name=nobody", "no machine or host nobody is known"),
    ):
        viewer.look_at(filled_site.address(path), line)
    viewer.look_at(f"{filled_site.base}/?at=yesterday", "?at=yesterday: is no moment")


def test_names_from_the_network_are_text_and_nothing_else(viewer: Viewer, filled_site: Site) -> None:
    said = viewer.look_at(filled_site.address("/machine?name=<b>x</b>"), "no machine or host <b>x</b>")
    assert said and viewer.complaints() == []


def test_a_live_page_follows_what_is_measured(viewer: Viewer, empty_site: Site) -> None:
    viewer.look_at(f"{empty_site.base}/pairs", "no orchestrator is running")
    assert "c2 → search" not in viewer.text
    store = open_store(f"sqlite:///{empty_site.database}", create=False)
    now = time.time()
    spoken = [Communication("c2", SEARCH, "search1", now - age, 1.0, 250_000, 250, 3) for age in range(3)]
    store.facts.add_communications(spoken)
    store.pauses.pause(Pause(now, "anna", "changing cables"))
    viewer.wait_for("c2 → search")
    viewer.wait_for("2.00 Mbit/s")
    viewer.wait_for("forepath paused: nothing is started")
    assert "by anna (changing cables)" in viewer.text
    store.pauses.resume(time.time(), "anna")
    store.close()


def test_a_recording_is_walked_through_by_steps_of_its_time(viewer: Viewer, filled_site: Site) -> None:
    viewer.look_at(f"{filled_site.base}/pairs?at=last", "0.80 Mbit/s")
    back = next(one for one in viewer.driver.find_elements(By.CSS_SELECTOR, ".controls button") if "60 s" in one.text)
    back.send_keys(Keys.ENTER)
    viewer.wait_for("nobody has spoken lately")
    assert "at=2" in viewer.driver.current_url
    viewer.driver.refresh()
    viewer.wait_for("nobody has spoken lately")


def test_the_page_outlives_its_database(viewer: Viewer, filled_site: Site) -> None:
    viewer.look_at(f"{filled_site.base}/health", "No alarm")
    away = filled_site.database.with_suffix(".away")
    filled_site.database.rename(away)
    viewer.wait_for("The database cannot be read")
    assert "what you see is of" in viewer.text
    away.rename(filled_site.database)
    viewer.wait_for_not("The database cannot be read")
