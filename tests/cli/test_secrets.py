from __future__ import annotations

JOBS = """
import logging

from systemprompt_jobs import job


@job(parameters={"url": "https://me:s3cret@host/x?token=s3cret"})
def leak(ctx, *, url, fail: bool = False):
    ctx.progress(1, 2, url)
    ctx.log.info("asking", url=url, api_key="s3cret", deep={"password": "s3cret"})
    logging.getLogger("library").warning("asking %s", url)
    if fail:
        raise ValueError(f"no answer from {url}")
    return f"answer from {url}"
"""


def test_no_secret_of_a_job_comes_into_a_log_an_answer_or_the_database(cli, new_project):
    root = new_project(JOBS, "scheduler: {local_plugins: [jobs.py]}")

    def call(*arguments):
        return cli("--log-format", "json", "--root", root, "infra", "jobs", *arguments)

    answers = [call("run", "leak"), call("run", "leak", "-p", "fail=true")]
    assert [answer.code for answer in answers] == [0, 1]
    assert "https://me:***@host/x?token=***" in answers[1].err
    for command in ("status 1", "status 2", "logs 2", "history", "list", "explain leak", "audit"):
        answers += [call(*command.split())]
    answers += [call(*command.split(), "--json") for command in ("status 2", "history", "list")]
    shown = [line for a in answers for line in (a.out + a.err).splitlines() if "s3cret" in line]
    assert [line for line in shown if "job(parameters=" not in line] == []


def test_what_is_recorded_of_what_a_job_says_has_no_secret(cli, new_project):
    root = new_project(JOBS, "scheduler: {local_plugins: [jobs.py]}")
    cli(
        "--root",
        root,
        "infra",
        "jobs",
        "run",
        "leak",
        "-p",
        "fail=true",
        "-p",
        "url=http://a:s3cret@b",
    )
    dump = cli("--root", root, "infra", "jobs", "db", "export").out.splitlines()
    assert [line for line in dump if "s3cret" in line and '"jobs_attempt"' in line] == []
