"""A project folder to write configuration into."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from systemprompt_jobs import job
from systemprompt_jobs._calendar import parse
from systemprompt_jobs._configure import find_project, load_settings, make_plans
from systemprompt_jobs.errors import ConfigurationError
from systemprompt_jobs.model import CollectedJob, Collection, Extension

if TYPE_CHECKING:
    from pathlib import Path


class Folder:
    """A project's root and shortcuts for what tests ask of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config_path = root / "services/scheduler/config.yaml"
        self.profile_path = root / "profile.yaml"
        self.config_path.parent.mkdir(parents=True)

    def write(self, config: str | bytes | None = None, profile: str | None = None) -> Folder:
        for path, text in ((self.config_path, config), (self.profile_path, profile)):
            if isinstance(text, bytes):
                path.write_bytes(text)
            elif text is not None:
                path.write_text(textwrap.dedent(text), encoding="utf-8")
        return self

    def settings(self, **environ: str) -> Any:
        variables = {f"SYSTEMPROMPT_JOBS__{key}": value for key, value in environ.items()}
        return load_settings(find_project(self.root, {}, self.root), variables)

    def short(self, problems: Any) -> list[str]:
        """Return problems as a user reads them, with paths relative to the root."""
        return [str(problem).replace(f"{self.root}/", "") for problem in problems]

    def problems(self, **environ: str) -> list[str]:
        return self.short(self.settings(**environ).problems)

    def plans(self, collection: Collection, **environ: str) -> dict[str, Any]:
        plans = make_plans(self.settings(**environ), collection, parse)
        return {plan.id: plan for plan in plans}

    def refusal(self, collection: Collection) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            self.plans(collection)
        return self.short(caught.value.problems)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path.resolve())


def collect(*jobs, extension="shop", **others):
    """Return a collection of one extension with these jobs."""
    owner = Extension(extension, extension)
    return Collection((owner,), tuple(CollectedJob(owner, each) for each in jobs), **others)


@pytest.fixture
def make_collection():
    return collect


@pytest.fixture
def cleanup():
    """Return a collection of one job, `shop:cleanup`, with one parameter that has a default."""

    @job(schedule="0 0 * * * *", aliases=["purge"])
    def cleanup(ctx, *, limit: int = 5): ...

    return collect(cleanup)
