"""`serve --dev`: a scheduler in a process of its own, started anew when files change.

The parent imports no plugin. The child, whose environment names a pipe, tells through it which
files and folders it is made of, and ends with its parent. They are looked at several times a
second, not watched: they are few, and no change is overlooked while a child starts.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from systemprompt_jobs import hookimpl
from systemprompt_jobs.builtin.signals import STOPPING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from systemprompt_jobs import Runtime

GRACE = timedelta(seconds=3)
"""How long running jobs have to end before a restart."""

_PIPE = "SYSTEMPROMPT_DEV_PIPE"
_LOOK_S = 0.25
_KILL_AFTER_S = 15.0
_INSTALLED = {"site-packages", "dist-packages", Path(os.__file__).parent.name}

_log = structlog.get_logger("systemprompt_jobs")


def supervise() -> int:
    """Run this process's own command as a child, again at each change; return the exit code."""
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in STOPPING:
        signal.signal(number, lambda number, _frame: signals.put(number))
    sources: list[str] = []
    while True:
        child = _Child(sources)
        changed = child.until_changed(signals)
        code = child.stop(signals)
        if not changed:
            return code
        sources = child.sources
        _log.info("restarting", changed=changed)


class _Child:
    """One process of the scheduler; `sources` is what it is made of, as far as it is told."""

    def __init__(self, sources: list[str]) -> None:
        self.sources = sources
        self._began = time.time_ns()
        self._seen = {source: _look(source) for source in sources}
        reader, writer = os.pipe()
        self._process = subprocess.Popen(  # noqa: S603  # the command that we are
            [sys.executable, *sys.orig_argv[1:]],
            stdin=subprocess.PIPE,  # it ends when this is closed, however we end
            pass_fds=[writer],
            process_group=0,  # Ctrl-C is ours to hand on
            env=os.environ | {_PIPE: str(writer), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        os.close(writer)
        threading.Thread(target=self._listen, args=(reader,), daemon=True).start()

    def _listen(self, reader: int) -> None:
        with os.fdopen(reader) as pipe:
            if told := pipe.read():
                self.sources = json.loads(told)

    def until_changed(self, signals: queue.SimpleQueue[int]) -> list[str]:
        """Return the files that have changed; none when a signal came, or no change can help."""
        ended = False
        while True:
            with suppress(queue.Empty):
                signals.get(timeout=_LOOK_S)
                return []
            if changed := sorted(set(self._changed())):
                return changed
            if not ended and self._process.poll() is not None:
                ended = True
                if not self.sources:
                    return []
                code = self._process.returncode
                _log.error("scheduler_ended", exit_code=code, then="waits for a change")

    def _changed(self) -> Iterator[str]:
        for source in self.sources:
            found = _look(source)
            # Of what is told only now, some may have changed since the process began.
            older = {path: at for path, at in found.items() if at <= self._began}
            before = self._seen.setdefault(source, older)
            yield from (path for path, _ in found.items() ^ before.items())

    def stop(self, signals: queue.SimpleQueue[int]) -> int:
        """Have it end, at once at a second signal; return its exit code."""
        deadline = time.monotonic() + _KILL_AFTER_S
        self._process.terminate()
        while self._process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_LOOK_S)
            if not signals.empty():
                self._process.terminate()
            if time.monotonic() > deadline:
                self._process.kill()
        assert self._process.stdin is not None  # noqa: S101  # for the type checker
        self._process.stdin.close()
        return self._process.returncode


def _look(source: str) -> Mapping[str, int]:
    """Return each file of a source with the time of its last change."""
    top = Path(source)
    found = {}
    for path in [top] if top.is_file() else _files(top):
        with suppress(OSError):  # an editor has just replaced it
            found[str(path)] = path.stat().st_mtime_ns
    return found


def _files(folder: Path) -> Iterable[Path]:
    for path in folder.rglob("*"):
        below = path.relative_to(folder).parts
        if path.is_file() and not any(p == "__pycache__" or p.startswith(".") for p in below):
            yield path


class Child:
    """A plugin of the child: tells the parent what it is made of, and ends with it."""

    @staticmethod
    def is_here() -> bool:
        """Return whether this process is the child."""
        return _PIPE in os.environ

    @hookimpl
    def configured(self, runtime: Runtime) -> None:
        """Tell, also if the configuration is wrong: a change of it may be the remedy."""
        with os.fdopen(int(os.environ.pop(_PIPE)), "w") as pipe:
            json.dump(sorted(set(_sources(runtime))), pipe)
        threading.Thread(target=_end_with_parent, name="jobs-dev", daemon=True).start()


def _end_with_parent() -> None:
    os.read(0, 1)  # not through sys.stdin, whose lock must be free when the process ends
    os.kill(os.getpid(), signal.SIGTERM)


def _sources(runtime: Runtime) -> Iterator[str]:
    """Yield the files and folders that the configuration and plugins in development stand in."""
    for file in (runtime.project.config, runtime.project.profile):
        if file is not None:
            yield str(file)
    for extension in runtime.collection.extensions:
        if extension.source == "local":
            yield extension.module
        elif place := _place(extension.module):
            yield str(place)


def _place(module: str) -> Path | None:
    """Return the top package or file of a module, None for one that is not in development."""
    top = module.partition(":")[0].partition(".")[0]
    spec: Any = find_spec(top) if top else None
    if spec is None or not spec.origin:
        return None
    origin = Path(spec.origin)
    if _INSTALLED & set(origin.parts):
        return None
    return origin.parent if origin.name == "__init__.py" else origin
