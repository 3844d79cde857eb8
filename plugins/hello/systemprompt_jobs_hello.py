"""The smallest plugin: one job that says hello."""

from systemprompt_jobs import job


@job(schedule="0 * * * * *")
def hello(*, name: str = "world") -> str:
    """Say hello."""
    return f"Hello, {name}!"
