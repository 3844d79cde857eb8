"""What must not be seen: secret names, passwords in URLs, and values that stand elsewhere.

Plans and the record keep references, `{env: NAME}` and `{file: path}`; what they stand for is
read where it is used. Whatever shows values to people shows them `masked`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_KINDS = ("env", "file")
_URL_PASSWORD = re.compile(r"(://[^\s:/@]{0,200}):[^\s]{0,500}@")
_WEB_USER = re.compile(r"(https?://)[^\s:/@?#]+@", re.IGNORECASE)
_QUERY = re.compile(
    r"([?&][^\s=&#]*(?:[_-]key|password|passwd|token|secret)=)[^\s&#]+", re.IGNORECASE
)
_WEB_PATH = re.compile(r"^(https?://[^/?#]*)[/?#].+$", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(
    r"([_-]key|password|passwd|passphrase|token|secret|authorization|cookie|credentials?)$",
    re.IGNORECASE,
)


@functools.lru_cache(4096)  # asked for each field of each log line
def is_secret(name: str) -> bool:
    """Return whether a value of this name is never shown, e.g. `api_key` or `password`."""
    return bool(_SECRET.search(name.rpartition(".")[2]))


def masked(value: Any, name: str = "") -> Any:
    """Return a plain value fit to be shown: secrets, by their name, and passwords are `***`."""
    if isinstance(value, str):
        return "***" if value and is_secret(name) else masked_text(value)
    if isinstance(value, Mapping):
        if name and _kind(value):
            return dict(value)
        return {key: masked(item, str(key)) for key, item in value.items()}
    if value not in (None, [], ()) and is_secret(name):
        return "***"
    return [masked(item) for item in value] if isinstance(value, list | tuple) else value


def masked_text(text: str) -> str:
    """Return a text with what is secret in its URLs, passwords and tokens, as `***`."""
    if "://" not in text:
        return text
    text = _URL_PASSWORD.sub(r"\1:***@", text)
    text = _WEB_USER.sub(r"\1***@", text)
    return _QUERY.sub(r"\1***", text)


def masked_section(value: Any, name: str = "") -> Any:
    """Return a plugin's section fit to be shown: of web addresses only the host.

    The path of a webhook is a secret, whatever its key is called.
    """
    if isinstance(value, str):
        return _WEB_PATH.sub(r"\1/***", masked(value, name))
    if isinstance(value, Mapping) and not _kind(value):
        return {key: masked_section(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple) and not is_secret(name):
        return [masked_section(item) for item in value]
    return masked(value, name)


def anchored(value: Any, root: Path) -> Any:
    """Return a plain value with the relative paths of its references below `root`."""
    if isinstance(value, dict):
        if _kind(value) == "file":
            return {"file": str(root / value["file"])}
        return {key: anchored(item, root) for key, item in value.items()}
    return [anchored(item, root) for item in value] if isinstance(value, list) else value


def reveal(value: Any, environ: Mapping[str, str]) -> Any:
    """Return a plain value with each reference replaced by what it stands for.

    A file's last line end is left out. Raises ValueError for one that stands for nothing.
    """
    if isinstance(value, dict):
        if kind := _kind(value):
            return _from_environ(value[kind], environ) if kind == "env" else _from_file(value[kind])
        return {key: reveal(item, environ) for key, item in value.items()}
    return [reveal(item, environ) for item in value] if isinstance(value, list) else value


def _kind(value: Mapping[Any, Any]) -> str:
    """Return `env` or `file` for a reference, empty for any other mapping."""
    if len(value) != 1:
        return ""
    ((key, item),) = value.items()
    return key if key in _KINDS and isinstance(item, str) and item else ""


def _from_environ(name: str, environ: Mapping[str, str]) -> str:
    if name not in environ:
        raise ValueError(f"the environment variable {name} is not set")
    return environ[name]


def _from_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ValueError(f"the file {path} cannot be read: {reason}") from None
