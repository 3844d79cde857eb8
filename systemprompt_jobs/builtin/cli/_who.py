"""Who is at the keyboard."""

from __future__ import annotations

import getpass
import socket


def who() -> str:
    """Return `user@host`, for the audit."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "?"
    return f"{user}@{socket.gethostname()}"
