"""A real browser clicks through every screen, with and without JavaScript, wide and narrow."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest
import uvicorn
from systemprompt_jobs_dashboard import Access, create_app

from plugins.dashboard.tests.conftest import EVIL, TOKEN

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
AXE = Path(str(files("axe_playwright_python"))) / "axe.min.js"
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed")


@contextmanager
def served(app):
    """Serve an application on a free port of this machine; yield its address."""
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with config.bind_socket() as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def address(runtime):
    with served(create_app(runtime, Access(token=TOKEN))) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=[*FLAGS])
        yield browser
        browser.close()


@pytest.fixture(params=[True, False], ids=["script", "no-script"])
def page(request, chromium, address):
    """Return a narrow page that fails the test if the browser complains."""
    context = chromium.new_context(
        base_url=address, viewport={"width": 400, "height": 800}, java_script_enabled=request.param
    )
    page = context.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"a script ran: {dialog.message}"))
    yield page
    context.close()
    assert [text for text in complaints if "status of 4" not in text] == []


def fits(page):
    """Return whether nothing makes the page scroll sideways."""
    box = page.locator("body").bounding_box()
    return all(
        (found.bounding_box() or box)["width"] <= box["width"]
        for found in page.locator("main > *, header > *").all()
    )


def log_in(page):
    page.goto("/login")
    page.get_by_label("Your name").fill("ann")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Jobs").wait_for()


def test_an_operator_clicks_through_every_screen(page, runtime):
    log_in(page)
    for link, heading in (
        ("Timeline", "Timeline"),
        ("Nodes", "Nodes and health"),
        ("Audit", "Audit"),
    ):
        page.get_by_role("link", name=link, exact=True).click()
        page.get_by_role("heading", name=heading).wait_for()
        assert fits(page)
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_label("Search").fill("slow")
    page.get_by_role("button", name="Find").click()
    page.get_by_text("1 found").first.wait_for()
    page.get_by_role("link", name="jobs:slow", exact=True).first.click()
    page.get_by_role("heading", name="jobs:slow").wait_for()
    assert fits(page)
    page.get_by_text("Pause…").click()
    page.get_by_label("Until").fill("2h")
    page.get_by_label("Note").fill(EVIL)
    page.get_by_role("button", name="Pause", exact=True).click()
    page.get_by_text("jobs:slow is paused").wait_for()
    page.get_by_role("button", name="Resume").click()
    page.get_by_text("jobs:slow is resumed").wait_for()
    page.get_by_role("button", name="Run now").click()
    page.get_by_role("heading", name="Run ").wait_for()
    assert fits(page)
    actions = [entry.action for entry in runtime.audit(limit=3)]
    assert actions == ["run", "resume", "pause"]
    page.get_by_role("button", name="log out").click()
    page.get_by_text("read-only").wait_for()


def test_why_not_is_asked_and_answered(page):
    page.goto("/jobs/jobs:greet")
    page.locator("[name=at]").fill("2026-01-05T03:00:00")
    page.get_by_role("button", name="Explain").click()
    page.locator(".answer").wait_for()
    assert "has no tick then" in page.locator(".answer").inner_text()


def test_what_a_job_says_stays_text(page, runtime):
    failed = runtime.history(job="jobs:fail", limit=1)[0]
    page.goto(f"/runs/{failed.id}")
    assert EVIL in page.locator("pre.error").inner_text()
    assert page.locator("img").count() == 0
    assert fits(page)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_axe_finds_nothing_on_any_page(chromium, address, runtime, scheme, width):
    """WCAG A and AA and axe's best practices, as an operator sees the pages."""
    view = {"width": width, "height": 800}
    context = chromium.new_context(base_url=address, color_scheme=scheme, viewport=view)
    page = context.new_page()
    page.goto("/login")
    assert violations(page) == []
    log_in(page)
    failed = runtime.history(job="jobs:fail", limit=1)[0]
    missed = runtime.history(states=["missed"], limit=1)[0]
    paths = ("/", "/jobs/jobs:slow?at=2026-01-05T03:00", "/timeline", "/nodes?changes", "/audit")
    for path in (*paths, f"/runs/{failed.id}", f"/runs/{missed.id}", "/jobs/nope"):
        page.goto(path)
        assert violations(page) == [], path
        assert fits(page), path
    context.close()


def violations(page):
    page.evaluate(AXE.read_text("utf-8"))
    return page.evaluate(
        "axe.run().then(r => r.violations.map(v => [v.id, ...v.nodes.map(n => n.html)]))"
    )


def test_everything_can_be_done_with_the_keyboard(chromium, address, runtime):
    context = chromium.new_context(base_url=address)
    page = context.new_page()
    log_in(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    page.goto("/jobs/jobs:off")
    page.locator("summary", has_text="Pause…").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("2h")
    page.keyboard.press("Tab")
    page.keyboard.type("by hand")
    page.keyboard.press("Enter")
    page.get_by_text("jobs:off is paused").wait_for()
    assert runtime.pauses()["jobs:off"].note == "by hand"
    context.close()


def test_an_open_run_shows_progress_and_log_and_can_be_cancelled(chromium, address, runtime):
    runtime.start()
    context = chromium.new_context(base_url=address)
    page = context.new_page()
    log_in(page)
    page.goto("/jobs/jobs:long")
    page.get_by_role("button", name="Run now").click()
    page.get_by_text("3 of 12 page 3").wait_for()
    page.get_by_label("log of attempt 2").get_by_text("number=2").wait_for()
    page.get_by_role("button", name="Cancel this run").click()
    page.get_by_text("is told to end").wait_for()
    page.locator(".big .cancelled").wait_for()
    page.get_by_role("button", name="Run again").wait_for()
    context.close()


def test_an_open_page_follows_what_happens(chromium, address, runtime):
    page = chromium.new_context(base_url=address).new_page()
    page.goto("/")
    page.get_by_text("live", exact=True).wait_for()
    row = page.get_by_role("row", name=re.compile("jobs:off"))
    assert row.locator(".strip").inner_text() == ""
    runtime.run("off")
    row.locator("i.succeeded").wait_for()
    page.context.close()
