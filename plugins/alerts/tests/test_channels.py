"""Each channel talks to a real server, and says what went wrong without giving a secret away."""

from __future__ import annotations

import socket

import pytest
from systemprompt_jobs_alerts._alert import Alert
from systemprompt_jobs_alerts._channels import NotSentError, open_channel
from systemprompt_jobs_alerts._config import Mail, Webhook

from tests.support import START

ALERT = Alert(
    "failed", "e:j failed", START, "e:j", "E: <b> & so on", run=7, node="h:1:b", error='E: "x"'
)


def webhook(url, **settings):
    return open_channel(Webhook(type="webhook", url=url, **settings))


def mail(port, **settings):
    settings = {"security": "none", "sender": "a@example.com", "to": ["b@example.com"]} | settings
    return open_channel(Mail(type="smtp", host="localhost", port=port, **settings))


def refusal(channel, alert=ALERT):
    with pytest.raises(NotSentError) as error:
        channel.send(alert)
    assert "S3CRET" not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None
    return error.value


class TestAWebhook:
    def test_it_posts_what_slack_takes_and_nothing_in_it_mentions_people(self, web):
        webhook(web.url).send(ALERT)
        posted = web.get()
        assert posted.path == "/T0/S3CRET"
        assert posted.headers["Content-Type"] == "application/json"
        assert posted.json == {"text": "e:j failed\nE: &lt;b&gt; &amp; so on"}

    def test_a_template_is_filled_in_at_any_depth_and_stays_json(self, web):
        body = {"s": "{subject} {{}}", "list": [{"e": "{error}"}, 3, None], "at": "{at}/{run}"}
        webhook(web.url, body=body, headers={"X-Token": "t"}).send(ALERT)
        posted = web.get()
        assert posted.headers["X-Token"] == "t"
        assert posted.json == {
            "s": "e:j failed {}",
            "list": [{"e": 'E: "x"'}, 3, None],
            "at": "2026-03-02T10:00:00+00:00/7",
        }

    def test_a_text_is_posted_as_text(self, web):
        webhook(web.url, body="{kind} \N{SNOWMAN}").send(ALERT)
        posted = web.get()
        assert posted.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert posted.body.decode() == "failed \N{SNOWMAN}"

    @pytest.mark.parametrize(
        ("status", "again"),
        [(400, False), (403, False), (404, False), (408, True), (429, True), (500, True)],
    )
    def test_only_what_can_get_better_is_worth_another_try(self, web, status, again):
        web.answers.append((status, {}))
        error = refusal(webhook(web.url))
        assert (str(error), error.again, error.after) == (f"it answered {status}", again, 0)

    def test_it_respects_when_the_other_side_wants_to_be_asked_again(self, web):
        web.answers += [(429, {"Retry-After": "90"}), (503, {"Retry-After": "999999"})]
        assert refusal(webhook(web.url)).after == 90
        assert refusal(webhook(web.url)).after == 3600

    def test_a_redirection_is_an_error_and_not_followed(self, web):
        web.answers.append((302, {"Location": web.url}))
        assert not refusal(webhook(web.url)).again
        assert web.get()
        assert web.posted.empty()

    def test_a_slow_one_is_given_up_after_the_timeout(self, web):
        web.gate.clear()
        error = refusal(webhook(web.url, timeout=0.05))
        assert (str(error), error.again) == ("it did not answer in time", True)

    def test_a_dead_one_may_come_back(self):
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        error = refusal(webhook(f"http://127.0.0.1:{port}/S3CRET"))
        assert (str(error), error.again) == ("Connection refused", True)

    def test_its_address_and_headers_are_never_shown(self, web):
        settings = Webhook(type="webhook", url=web.url, headers={"X-Token": "S3CRET"})
        assert "S3CRET" not in repr(settings)


class TestAMail:
    def test_it_says_all_and_who_sent_it(self, post):
        mail(post.port, to=["b@example.com", "c@example.com"]).send(ALERT)
        user, message = post.get()
        assert user == ""
        assert message["Subject"] == "e:j failed"
        assert message["From"] == "a@example.com"
        assert message["To"] == "b@example.com, c@example.com"
        assert message["Auto-Submitted"] == "auto-generated"
        assert message["Date"].datetime == START
        assert message.get_content() == "e:j failed\nE: <b> & so on\n"

    def test_a_subject_of_many_lines_cannot_add_headers(self, post):
        alert = Alert("failed", "x\r\nBcc: all@example.com\nfailed " + 500 * "y", START)
        mail(post.port).send(alert)
        _, message = post.get()
        assert message["Bcc"] is None
        assert message["Subject"].startswith("x Bcc: all@example.com failed yyy")
        assert len(message["Subject"]) == 200

    @pytest.mark.parametrize("security", ["starttls", "tls"])
    def test_it_logs_in_over_an_encrypted_connection(self, post, trusted, security):
        post.encrypted = security == "tls"
        mail(post.port, security=security, username="ada", password="hunter2").send(ALERT)
        user, message = post.get()
        assert user == "ada"
        assert message["Subject"] == "e:j failed"

    @pytest.mark.parametrize("security", ["starttls", "tls"])
    def test_a_certificate_that_is_not_trusted_is_refused(self, post, security):
        post.encrypted = security == "tls"
        error = refusal(mail(post.port, security=security, username="a", password="S3CRET"))
        assert str(error).startswith("its certificate: ")
        assert not error.again
        assert post.mails.empty()

    def test_a_wrong_password_is_not_tried_again_and_not_shown(self, post, trusted):
        error = refusal(mail(post.port, security="starttls", username="ada", password="S3CRET"))
        assert (str(error), error.again) == ("it answered 535 wrong password", False)

    @pytest.mark.parametrize(
        ("answer", "again"), [("451 later\x07", True), ("550 never\x07", False)]
    )
    @pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
    def test_only_a_4xx_is_worth_another_try(self, post, command, answer, again):
        post.refused[command] = answer
        error = refusal(mail(post.port))
        assert error.again is again
        assert f"it answered {answer[:-1]}\N{REPLACEMENT CHARACTER}" in str(error)

    def test_who_was_refused_is_named_and_the_others_get_it_once(self, post):
        post.refused["RCPT TO:<C@EXAMPLE.COM>"] = "550 unknown"
        error = refusal(mail(post.port, to=["b@example.com", "c@example.com"]))
        assert str(error) == "c@example.com: it answered 550 unknown; the others have it"
        assert not error.again
        assert post.get()

    def test_one_that_hangs_up_may_come_back(self, post):
        post.refused["MAIL"] = ""
        error = refusal(mail(post.port))
        assert (str(error), error.again) == ("it closed the connection", True)

    def test_one_without_encryption_gets_no_password(self, post):
        post.refused["STARTTLS"] = "502 no"
        error = refusal(mail(post.port, security="starttls", username="a", password="hunter2"))
        assert not error.again
        assert post.mails.empty()
