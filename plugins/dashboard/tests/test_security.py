"""Who may see and who may act, and that nothing a job says becomes part of a page."""

from __future__ import annotations

import hmac
import re

import pytest
from systemprompt_jobs_dashboard import Access, _access, _guard
from systemprompt_jobs_dashboard._access import LOOPBACK, Pace, Role, Sessions
from systemprompt_jobs_dashboard._serve import make_access

from plugins.dashboard.tests.conftest import EVIL, TOKEN, csrf, make_client
from systemprompt_jobs.errors import UsageError

LONG = "a-token-that-is-long-enough"
ACTIONS = (
    *("/jobs/jobs:greet/run", "/jobs/jobs:greet/pause", "/jobs/jobs:quiet/resume"),
    *("/runs/1/cancel", "/runs/1/retry"),
)
PAGES = (
    "/",
    "/jobs/jobs:fail",
    "/jobs/jobs:slow",
    "/jobs/jobs:quiet",
    "/audit",
    "/nodes",
    "/timeline",
)


def audit(runtime):
    return [(entry.action, entry.subject, entry.who) for entry in runtime.audit(limit=100)]


# --- where it listens ---


def test_beyond_this_machine_it_refuses_to_start_without_protection():
    for host in ("0.0.0.0", "::", "192.0.2.1", "jobs.example"):
        with pytest.raises(UsageError, match="lets other machines in: set SYSTEMPROMPT_JOBS_DASH"):
            make_access({"host": host})


@pytest.mark.parametrize("name", ["token", "view_token", "user_header"])
def test_a_token_or_a_proxys_header_lets_it_start(name):
    access, made = make_access({"host": "0.0.0.0", name: LONG})
    assert (getattr(access, name), access.local_view, made) == (LONG, False, False)


def test_on_this_machine_a_token_is_made_up_for_each_start():
    (one, made), (two, _) = (make_access({}) for _ in range(2))
    assert made
    assert len(one.token) >= 32
    assert one.token != two.token


def test_a_token_that_can_be_guessed_is_refused_and_not_shown():
    with pytest.raises(UsageError, match="shorter than 16 characters") as raised:
        make_access({"token": "hunter2"})
    assert "hunter2" not in str(raised.value)
    assert LONG not in repr(Access(token=LONG, view_token=LONG))


def test_without_a_token_in_force_no_token_is_right():
    for given in ("", "\0", "None"):
        assert Access().role_of(given) is Role.NOBODY


# --- who may see ---


def test_from_this_machine_everybody_sees_and_nobody_acts(client):
    text = client.get("/").text
    assert "read-only" in text
    assert 'method="post"' not in text


@pytest.mark.parametrize(
    "options",
    [
        {"client": ("192.0.2.7", 1)},
        {"headers": {"X-Forwarded-For": "192.0.2.7"}},
        {"headers": {"Forwarded": "for=192.0.2.7"}},
    ],
)
def test_from_elsewhere_nothing_is_seen_without_a_log_in(runtime, options):
    client = make_client(runtime, **options)
    for path in PAGES:
        answer = client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert client.get("/api/jobs").status_code == 401
    assert client.get("/events").status_code == 303
    assert client.get("/login").status_code == 200


def test_a_viewer_sees_and_cannot_act(runtime):
    client = make_client(runtime, Access(token=TOKEN, view_token=LONG))
    assert client.get("/").status_code == 303
    assert client.post("/login", data={"token": LONG}).status_code == 303
    assert client.get("/").status_code == 200
    before = audit(runtime)
    for path in ACTIONS:
        assert client.post(path, data={"csrf": csrf(client)}).status_code == 403
    assert audit(runtime) == before


def test_a_proxys_user_sees_and_acts_only_with_the_token(runtime):
    access = Access(token=TOKEN, user_header="X-User")
    client = make_client(runtime, access, client=("10.0.0.1", 1))
    assert client.get("/").status_code == 303
    client.headers["X-User"] = "ann"
    assert "read-only" in client.get("/").text
    client.post("/login", data={"token": TOKEN, "name": "somebody else"})
    client.post("/jobs/jobs:slow/pause", data={"csrf": csrf(client)})
    assert audit(runtime)[0] == ("pause", "jobs:slow", "dashboard:ann")
    del client.headers["X-User"]
    assert client.get("/").status_code == 303  # a session past the proxy is none


def test_the_api_takes_a_bearer_token(runtime):
    client = make_client(runtime, client=("192.0.2.7", 1))
    assert client.get("/api/jobs", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert client.get("/api/jobs", headers={"Authorization": f"Bearer {LONG}"}).status_code == 401


# --- tokens and sessions ---


def test_tokens_are_compared_in_constant_time(monkeypatch):
    asked = []
    monkeypatch.setattr(
        _access.hmac, "compare_digest", lambda *pair: asked.append(pair) or pair[0] == pair[1]
    )
    assert Access(token=TOKEN, view_token=LONG).role_of(TOKEN) is Role.OPERATOR
    assert asked == [(TOKEN.encode(), TOKEN.encode()), (TOKEN.encode(), LONG.encode())]
    assert hmac.compare_digest is _access.hmac.compare_digest


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(runtime):
    client = make_client(runtime)
    said = client.post("/login", data={"token": TOKEN}).headers["set-cookie"]
    assert "HttpOnly" in said
    assert "SameSite=strict" in said
    assert "Secure" not in said
    assert TOKEN not in said
    secure = make_client(runtime, base_url="https://localhost")
    assert "Secure" in secure.post("/login", data={"token": TOKEN}).headers["set-cookie"]


def test_the_forms_token_is_compared_in_constant_time_too(operator, monkeypatch):
    asked, token = [], csrf(operator)
    monkeypatch.setattr(
        _guard.hmac, "compare_digest", lambda *pair: asked.append(pair) or pair[0] == pair[1]
    )
    assert operator.post("/logout", data={"csrf": token}).status_code == 303
    assert asked == [(token.encode(), token.encode())]


def test_logging_out_ends_the_session_on_the_server(operator):
    cookie = operator.cookies["jobs_dashboard"]
    assert operator.post("/logout", data={"csrf": "wrong"}).status_code == 403
    operator.post("/logout", data={"csrf": csrf(operator)})
    operator.cookies.set("jobs_dashboard", cookie)
    assert "read-only" in operator.get("/").text


def test_sessions_end_by_themselves_and_do_not_pile_up():
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    first = sessions.begin(Role.OPERATOR, "ann")
    assert sessions.get(first).name == "ann"
    now[0] = _access.SESSION_S + 1
    assert sessions.get(first) is None
    oldest = sessions.begin(Role.VIEWER, "")
    for _ in range(1000):
        newest = sessions.begin(Role.VIEWER, "")
    assert sessions.get(oldest) is None
    assert sessions.get(newest)


def test_wrong_tokens_are_slowed_down(runtime):
    client = make_client(runtime)
    codes = [client.post("/login", data={"token": "wrong"}).status_code for _ in range(6)]
    assert codes == [403] * 5 + [429]
    late = client.post("/login", data={"token": TOKEN})
    assert late.status_code == 429  # not even the right one tells that it is
    assert 0 < int(late.headers["retry-after"]) <= 61
    assert "set-cookie" not in late.headers


def test_wrong_tokens_in_the_header_are_slowed_down_as_log_ins_are(runtime):
    client = make_client(runtime, client=("192.0.2.7", 1))
    right, wrong = ({"Authorization": f"Bearer {token}"} for token in (TOKEN, LONG))
    for _ in range(5):
        assert client.get("/api/jobs", headers=wrong).status_code == 401
    assert client.get("/api/jobs", headers=right).status_code == 401
    assert client.post("/login", data={"token": TOKEN}).status_code == 429


def test_the_pace_counts_by_address_and_in_all_and_forgets():
    now = [0.0]
    pace = Pace(lambda: now[0])
    for _ in range(5):
        pace.failed("a")
    assert (pace.wait_s("a"), pace.wait_s("b")) == (61, 0)
    for n in range(45):
        pace.failed(f"c{n}")
    assert pace.wait_s("b")
    now[0] = 61
    assert (pace.wait_s("a"), pace.wait_s("b")) == (0, 0)


# --- other sites ---


@pytest.mark.parametrize("path", ACTIONS)
@pytest.mark.parametrize("token", [None, "", "wrong"])
def test_a_form_without_the_sessions_token_does_nothing(operator, runtime, path, token):
    before = audit(runtime)
    answer = operator.post(path, data={} if token is None else {"csrf": token})
    assert answer.status_code in (403, 415)  # an empty body is no form at all
    assert audit(runtime) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_from_another_site_does_nothing(operator, runtime, headers):
    before = audit(runtime)
    form = {"csrf": csrf(operator)}
    for path in (*ACTIONS, "/login", "/logout"):
        assert operator.post(path, data=form, headers=headers).status_code == 403
    assert audit(runtime) == before


def test_nothing_is_changed_by_following_a_link(operator):
    for path in ACTIONS:
        assert operator.get(path).status_code == 405


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil:1"])
def test_a_name_rebound_to_this_machine_is_not_answered(client, host):
    for path in ("/", "/api/jobs", "/static/dashboard.css", "/login"):
        assert client.get(path, headers={"Host": host}).status_code == 421


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8787", "127.0.0.1:1", "[::1]:8787", "[::1]"]
)
def test_this_machines_own_names_are_answered(client, host):
    assert client.get("/", headers={"Host": host}).status_code == 200


def test_further_names_are_answered_if_they_were_allowed():
    asked = {"host": "192.0.2.1", "token": LONG, "allow_hosts": ["jobs.example"]}
    assert make_access(asked)[0].hosts == (*LOOPBACK, "192.0.2.1", "jobs.example")
    every = {"host": "0.0.0.0", "token": LONG, "allow_hosts": ["a.example"]}
    assert make_access(every)[0].hosts == (*LOOPBACK, "a.example")


@pytest.mark.parametrize("path", [*PAGES, "/nope", "/login", "/api/jobs", "/static/dashboard.js"])
def test_every_answer_forbids_inline_scripts_frames_and_the_outside(client, path):
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "style-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", [*PAGES, "/login"])
def test_no_page_has_inline_scripts_or_styles_or_asks_anybody_else(operator, path):
    text = operator.get(path).text
    assert not re.search(r"<style|style=|\son\w+=\"|javascript:", text.replace("&#34;", ""))
    assert re.findall(r"<script[^>]*>(?!</script>)", text) == []
    assert not re.findall(r"(?:src|href|action)=\"(?:https?:)?//", text)


# --- what jobs say ---


def test_whatever_a_job_says_is_escaped(operator, runtime):
    """Error, traceback, description, pause note, search text: all hold a script here."""
    pages = [*PAGES, *(f"/runs/{run.id}" for run in runtime.history(limit=100))]
    texts = [operator.get(path).text for path in pages]
    texts.append(operator.get("/", params={"q": EVIL, "tag": EVIL, "only": EVIL}).text)
    texts.append(operator.get(f"/jobs/{EVIL.replace('/', '')}").text)
    for text in texts:
        assert "<script>alert" not in text
        assert "<img" not in text
    assert sum("&lt;script&gt;alert(1)" in text for text in texts) >= 6


def test_a_form_that_is_too_large_or_no_form_is_refused(operator):
    token = csrf(operator)
    large = operator.post("/jobs/jobs:greet/pause", data={"csrf": token, "note": "x" * 70_000})
    assert large.status_code == 413
    assert operator.post("/login", json={"token": TOKEN}).status_code == 415
