"""What plugins test themselves with. Needs pytest."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("systemprompt_jobs.testing._executors")

from ._executors import ExecutorContract  # noqa: E402  # its asserts are rewritten

__all__ = ["ExecutorContract"]
