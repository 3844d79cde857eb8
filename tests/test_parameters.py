"""Parameters: keyword-only arguments, converted by annotation."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any, List, Literal, Optional, Union  # noqa: UP035

import pytest
from annotated_types import Gt
from pydantic import BeforeValidator

from systemprompt_jobs import job
from systemprompt_jobs._parameters import (
    check_signature,
    defaults,
    masked,
    names,
    near,
    shown,
    takes_context,
    validate,
)
from systemprompt_jobs.errors import ParameterError

if TYPE_CHECKING:
    from systemprompt_jobs import JobContext


@job
def cleanup(
    ctx: JobContext,
    *,
    older_than: timedelta,
    limit: int = 5,
    label: str = "none",
    mode: Literal["fast", "safe"] = "safe",
    anything=None,
):
    """Has parameters of many kinds, and a context type that exists for type checkers only."""


def refusal(function, values=None):
    with pytest.raises(ParameterError) as caught:
        validate(job(function), values) if values is not None else check_signature(job(function))
    return str(caught.value)


def typed(annotation):
    def function(*, x): ...

    function.__annotations__["x"] = annotation
    return job(function)


def test_values_are_converted_by_annotation_and_defaults_filled_in():
    assert validate(cleanup, {"older_than": "30d", "limit": "7", "anything": [1]}) == {
        "older_than": timedelta(days=30),
        "limit": 7,
        "label": "none",
        "mode": "safe",
        "anything": [1],
    }


def test_partial_gives_only_what_is_given():
    assert validate(cleanup, {"limit": 3}, partial=True) == {"limit": 3}


def test_defaults_are_the_functions_own_and_not_checked():
    @job
    def odd(*, n: int = "never mind"): ...

    assert validate(odd, {}) == {"n": "never mind"}
    assert defaults(odd) == {"n": "never mind"}
    assert "older_than" not in defaults(cleanup)


@pytest.mark.parametrize(
    ("annotation", "value", "result"),
    [
        (timedelta, "1h30m", timedelta(minutes=90)),
        (timedelta, 90, timedelta(seconds=90)),
        (timedelta, timedelta(1), timedelta(1)),
        (timedelta | None, "2w", timedelta(days=14)),
        (Optional[timedelta], None, None),  # noqa: UP045 - both spellings
        (Union[int, timedelta], "5m", timedelta(minutes=5)),  # noqa: UP007
        (Annotated[timedelta, Gt(timedelta(0))], "1s", timedelta(seconds=1)),
        (list[timedelta], ["1s", 2], [timedelta(seconds=1), timedelta(seconds=2)]),
        (List[timedelta], ["1s"], [timedelta(seconds=1)]),  # noqa: UP006
        (dict[str, timedelta | None], {"a": "1s", "b": None}, {"a": timedelta(0, 1), "b": None}),
        (tuple[timedelta, ...], ["1s"], (timedelta(seconds=1),)),
        (date, "2024-02-29", date(2024, 2, 29)),
        (dict[int, list[str]], {"1": ["a"]}, {1: ["a"]}),
        ("list[int]", ["1"], [1]),
        (Any, "30d", "30d"),
    ],
)
def test_conversion(annotation, value, result):
    assert validate(typed(annotation), {"x": value}) == {"x": result}


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, "many", 'x: "many" does not fit int: input should be a valid integer, unable'),
        (timedelta, "30x", "x: \"30x\" does not fit timedelta: '30x' is no duration: write 30s"),
        (list[timedelta], ["1s", "y"], "'y' is no duration"),
        (Annotated[timedelta, Gt(timedelta(0))], "0s", "should be greater than"),
        (Literal["a", "b"], "c", "x: \"c\" does not fit Literal['a', 'b']: input should be 'a' or"),
        (str, 5, "x: 5 does not fit str: input should be a valid string, written in quotes"),
        (Annotated[int, BeforeValidator(lambda value: value.nonsense)], 1, "no attribute"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_would(annotation, value, message):
    with pytest.raises(ParameterError) as caught:
        validate(typed(annotation), {"x": value})
    assert message in str(caught.value)


def test_everything_wrong_comes_in_one_error():
    with pytest.raises(ParameterError) as caught:
        validate(cleanup, {"limt": 1, "limit": "x", "mode": "slow"})
    message = str(caught.value)
    assert "\"limt\" is no parameter: did you mean 'limit'?" in message
    assert 'limit: "x" does not fit int' in message
    assert "older_than has no value and no default: it takes timedelta" in message
    assert 'mode: "slow"' in message


def test_a_job_without_parameters_says_so():
    def bare(): ...

    assert refusal(bare, {"x": 1}) == '"x" is no parameter: the job takes none'


def test_far_off_names_get_the_list():
    def two(*, alpha=1, beta=2): ...

    assert refusal(two, {"zzz": 1}) == '"zzz" is no parameter: the job takes alpha, beta'


def test_names_and_context():
    @job
    def bare(): ...

    @job
    def positional_only(ctx, /): ...

    assert names(cleanup) == ("older_than", "limit", "label", "mode", "anything")
    assert names(bare) == ()
    assert takes_context(cleanup)
    assert takes_context(positional_only)
    assert not takes_context(bare)


def test_signatures_that_no_run_could_call_are_refused():
    def two(a, b): ...
    def star(ctx, *args, **kwargs): ...
    def unresolvable(*, x: Nowhere): ...  # noqa: F821
    def no_expression(*, x: "int |"): ...  # noqa: F722
    def unknown_type(*, x: object()): ...

    assert refusal(two).startswith("it takes b, which no run could pass")
    assert refusal(star).startswith("it takes *args, **kwargs, which no run could pass")
    assert "annotation of its parameter x cannot be used: NameError" in refusal(unresolvable)
    assert "annotation of its parameter x cannot be used: SyntaxError" in refusal(no_expression)
    assert "annotation of its parameter x cannot be used" in refusal(unknown_type)


def test_a_function_without_a_readable_signature_is_refused():
    assert refusal(min).startswith("its signature cannot be read")


def test_cached_signatures_do_not_keep_jobs_alive():
    @job
    def short_lived(*, n: int = 1): ...

    validate(short_lived, {})
    reference = weakref.ref(short_lived)
    del short_lived
    gc.collect()
    assert reference() is None


def test_pydantic_loads_only_for_jobs_with_parameters():
    code = (
        "import sys\n"
        "from systemprompt_jobs import job, _parameters as p\n"
        "def bare(ctx): ...\n"
        "j = job(bare); p.check_signature(j); p.validate(j, {}); p.defaults(j)\n"
        "assert 'pydantic' not in sys.modules\n"
        "def some(*, n: int): ...\n"
        "p.check_signature(job(some))\n"
        "assert 'pydantic' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        ("ä", '"ä"'),
        ("x" * 100, '"' + "x" * 59 + "…"),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (timedelta(1), '"datetime.timedelta(days=1)"'),
        ("postgresql://me:s3cret@host/db", '"postgresql://me:***@host/db"'),
        ("postgresql://me:" + "s3cret" * 20 + "@host/db", '"postgresql://me:***@host/db"'),
    ],
)
def test_values_in_messages_are_short_and_without_passwords(value, text):
    assert shown(value) == text


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql://u:p@ss:w/rd@h/db", "postgresql://u:***@h/db"),
        ("postgresql://h/db?user=u&password=x&a=b", "postgresql://h/db?user=u&password=***&a=b"),
        ("sqlite:///var/jobs.db", "sqlite:///var/jobs.db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
    ],
)
def test_passwords_of_urls_are_masked(url, text):
    assert masked(url) == text


def test_near_names():
    assert near("cleanpu", ["cleanup", "sync"]) == "did you mean 'cleanup'?"
    assert near("zzz", ["cleanup"]) == ""
