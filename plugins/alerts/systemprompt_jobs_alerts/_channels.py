"""How an alert leaves the house: one POST, or one mail. Nothing here waits or tries again."""

from __future__ import annotations

import json
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ._alert import clean
from ._config import Mail, Webhook

if TYPE_CHECKING:
    from ._alert import Alert

_LONGEST_SUBJECT = 200
_LONGEST_PAUSE_S = 3600.0


class NotSentError(Exception):
    """Why a message was not sent, without a secret; `again` if waiting may help.

    `after` is how many seconds the other side asks to wait, 0 if it does not say.
    """

    def __init__(self, reason: str, *, again: bool, after: float = 0.0) -> None:
        super().__init__(reason)
        self.again = again
        self.after = after


class Channel(Protocol):
    """Where alerts go."""

    def send(self, alert: Alert) -> None:
        """Send one message. Raises NotSentError."""


def open_channel(settings: Webhook | Mail) -> Channel:
    """Return the channel that the configuration describes; nothing is connected yet."""
    return WebhookChannel(settings) if isinstance(settings, Webhook) else MailChannel(settings)


class _NoRedirect(HTTPRedirectHandler):
    """A POST that is redirected would arrive as a GET, and not where it was meant to."""

    def redirect_request(self, *_: Any) -> None:
        return None


class WebhookChannel:
    """POSTs JSON, or text if the body is a text."""

    def __init__(self, settings: Webhook) -> None:
        self._settings = settings
        self._opener = build_opener(_NoRedirect)

    def send(self, alert: Alert) -> None:
        """Send one message. Raises NotSentError."""
        data, kind = self._body(alert)
        headers = {"Content-Type": kind, "User-Agent": "systemprompt-jobs-alerts"}
        headers |= self._settings.headers
        request = Request(self._settings.url, data, headers, method="POST")  # noqa: S310  # checked
        try:
            with self._opener.open(request, timeout=self._settings.timeout.total_seconds()):
                pass
        except HTTPError as error:
            error.close()
            raise _refused(error) from None
        except (OSError, HTTPException) as error:
            raise _unreachable(error) from None

    def _body(self, alert: Alert) -> tuple[bytes, str]:
        template = self._settings.body
        if template is None:  # what Slack, Mattermost and many others take
            filled: Any = {"text": _for_slack(alert.text)}
        else:
            filled = fill(template, alert.fields())
        if isinstance(filled, str):
            return filled.encode(), "text/plain; charset=utf-8"
        return json.dumps(filled).encode(), "application/json"


def fill(template: Any, fields: dict[str, str]) -> Any:
    """Return a template with its texts filled in."""
    if isinstance(template, dict):
        return {key: fill(item, fields) for key, item in template.items()}
    if isinstance(template, list):
        return [fill(item, fields) for item in template]
    return template.format_map(fields) if isinstance(template, str) else template


def _for_slack(text: str) -> str:
    """Return text in which nothing mentions people or makes links."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _refused(error: HTTPError) -> NotSentError:
    after = error.headers.get("Retry-After", "")
    busy = error.code in {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
    return NotSentError(
        f"it answered {error.code}",
        again=busy or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR,
        after=min(float(after), _LONGEST_PAUSE_S) if after.isdecimal() else 0.0,
    )


def _unreachable(error: OSError | HTTPException) -> NotSentError:
    """Return the reason; an error's whole text may hold the address, which is a secret."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return NotSentError(f"its certificate: {cause.verify_message}", again=False)
    if isinstance(cause, TimeoutError):
        return NotSentError("it did not answer in time", again=True)
    reason = cause.strerror if isinstance(cause, OSError) else None
    return NotSentError(reason or type(cause).__name__, again=True)


class MailChannel:
    """Sends mails, each over a connection of its own."""

    def __init__(self, settings: Mail) -> None:
        self._settings = settings

    def send(self, alert: Alert) -> None:
        """Send one message. Raises NotSentError."""
        message = self._message(alert)
        try:
            with self._connect() as server:
                refused = server.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            raise _rejected(error.recipients) from None
        except smtplib.SMTPResponseException as error:
            again = not 500 <= error.smtp_code < 600  # noqa: PLR2004
            raise NotSentError(_answer(error.smtp_code, error.smtp_error), again=again) from None
        except smtplib.SMTPNotSupportedError as error:
            raise NotSentError(str(error), again=False) from None
        except smtplib.SMTPServerDisconnected:
            raise NotSentError("it closed the connection", again=True) from None
        except OSError as error:
            raise _unreachable(error) from None
        if refused:
            raise NotSentError(f"{_rejected(refused)}; the others have it", again=False)

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        seconds = settings.timeout.total_seconds()
        if settings.security == "none":
            return smtplib.SMTP(*settings.address, timeout=seconds)
        context = ssl.create_default_context()
        if settings.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                *settings.address, timeout=seconds, context=context
            )
        else:
            server = smtplib.SMTP(*settings.address, timeout=seconds)
        try:
            if settings.security == "starttls":
                server.starttls(context=context)
            if settings.username:
                server.login(settings.username, settings.password)
        except BaseException:
            server.close()
            raise
        return server

    def _message(self, alert: Alert) -> EmailMessage:
        message = EmailMessage()
        message["Subject"] = " ".join(alert.subject.split())[:_LONGEST_SUBJECT]
        message["From"] = self._settings.sender
        message["To"] = ", ".join(self._settings.to)
        message["Date"] = format_datetime(alert.at)
        message["Message-ID"] = make_msgid(domain="systemprompt-jobs.invalid")
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(alert.text)
        return message


def _rejected(recipients: dict[str, tuple[int, bytes]]) -> NotSentError:
    reason = "; ".join(f"{to}: {_answer(*answer)}" for to, answer in recipients.items())
    return NotSentError(reason, again=all(code < 500 for code, _ in recipients.values()))  # noqa: PLR2004


def _answer(code: int, text: bytes | str) -> str:
    words = text.decode(errors="replace") if isinstance(text, bytes) else text
    return f"it answered {code} {clean(' '.join(words.split()))[:200]}"
