"""What a cron text may be, and what is said about one that may not."""

from __future__ import annotations

import random
import sys
from datetime import UTC, datetime

import pytest

from systemprompt_jobs import cron
from systemprompt_jobs._calendar import _tables, _text
from systemprompt_jobs.errors import ScheduleError
from tests.support import steps

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("@yearly", "0 0 0 1 1 *"),
        ("@annually", "0 0 0 1 1 ?"),
        ("@monthly", "0 0 0 1 * *"),
        ("@weekly", "0 0 0 * * SUN"),
        ("@daily", "0 0 0 * * *"),
        ("@Midnight", "0 0 0 ? * ?"),
        ("@hourly", "0 0 * * * *"),
        ("  0\t30  2 * * * ", "0 30 2 * * *"),
        ("0 0 0 * jan-Mar MON", "0 0 0 ? 1,2,3 1"),
        ("0 0 0 * * 7", "0 0 0 * * 0"),
        ("0 0 0 * * 0-7", "0 0 0 * * *"),
        ("0 0 0 * * 5-7", "0 0 0 * * FRI,SAT,SUN"),
        ("0 0 0 * * SUN-SUN", "0 0 0 * * 0"),
        ("0 0 0 * * L0", "0 0 0 * * L7"),
        ("0 0 0 * * MON-TUE#2", "0 0 0 * * 1#2,2#2"),
        ("0 0 0 * * MON-MON#2", "0 0 0 * * 1#2"),
        ("0 5-5 0 * * *", "0 5 0 * * *"),
        ("0 5-5/3 0 * * *", "0 5 0 * * *"),
        ("0 0 23-3/2 * * *", "0 0 23,1,3 * * *"),
        ("0 0 22-3/3 * * *", "0 0 22,1 * * *"),
        ("0 58-4/3 0 * * *", "0 58,1,4 0 * * *"),
        ("0 0 0 * 11-2/2 *", "0 0 0 * 11,1 *"),
        ("0 0 0 30-2 * *", "0 0 0 30,31,1,2 * *"),
        ("0 0 0 30,31 2,4 *", "0 0 0 30 4 *"),
        ("0 0 0 * * SAT-TUE/2", "0 0 0 * * 6,1"),
        ("0 59/15 0 * * *", "0 59 0 * * *"),
        ("0 10/20 0 * * *", "0 10,30,50 0 * * *"),
        ("0 0 0 W15 * *", "0 0 0 15W * *"),
    ],
)
def test_spellings_of_one_schedule_are_equal(text, same):
    """Equality and hash go by meaning."""
    assert cron(text) == cron(same)
    assert hash(cron(text)) == hash(cron(same))


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("0 5 0 * * *", "0 6 0 * * *"),
        ("0 0 0 13 * 5", "0 0 0 13 * *"),
        ("0 0-59 0 * * *", "0 * 0 * * *"),  # fixed and wildcard differ in daylight saving
        ("0 0 0 L * *", "0 0 0 31 * *"),
    ],
)
def test_different_schedules_are_not_equal(text, other):
    """What can differ at some time differs."""
    assert cron(text) != cron(other)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("*/5 * * * *", ["5 fields given; seconds come first: try '0 */5 * * * *'"]),
        ("0 30 2 * * ? 2026", ["7 fields given", "no field for the year", "'0 30 2 * * ?'"]),
        ("99 * * * *", ["5 fields given; six are needed", "second, minute, hour"]),
        ("", ["0 fields given"]),
        ("x", ["1 field given"]),
        ("60 * * * * *", ["second '60'", "0-59"]),
        ("0 61 * * * *", ["minute '61'", "0-59"]),
        ("0 0 24 * * *", ["hour '24'", "0-23"]),
        ("0 0 0 0 * *", ["day of month '0'", "1-31"]),
        ("0 0 0 LW * *", ["day of month 'LW'", "15W"]),
        ("0 0 0 L-3 * *", ["day of month 'L-3'"]),
        ("0 0 0 15W,3 * *", ["day of month '15W,3'", "single day"]),
        ("0 0 0 28-3/2 * *", ["day of month '28-3/2'", "list the days"]),
        ("0 0 0 * 13 *", ["month '13'", "JAN-DEC"]),
        ("0 0 0 * MON *", ["month 'MON'"]),
        ("0 0 0 * * 8", ["day of week '8'", "0-7"]),
        ("0 0 0 * * FRIDAY", ["day of week 'FRIDAY'", "SUN-SAT"]),
        ("0 0 0 * * 5L", ["day of week '5L'", "'L5'"]),
        ("0 0 0 * * FRIL", ["day of week 'FRIL'", "'L5'"]),
        ("0 0 0 * * 1#6", ["day of week '1#6'"]),
        ("0 0 0 * * MON,2#1", ["day of week 'MON,2#1'", "two jobs"]),
        ("0 0 0 * * *,2#1", ["day of week '*,2#1'", "two jobs"]),
        ("0 ? 0 * * *", ["minute '?'"]),
        ("0 */0 0 * * *", ["minute '*/0'"]),
        ("0 1-5/0 0 * * *", ["minute '1-5/0'"]),
        ("0 -5 0 * * *", ["minute '-5'"]),
        ("0 1,, 0 * * *", ["minute '1,,'"]),
        ("H * * * * *", ["second 'H'", "splay"]),
        ("0 H(0-29)/10 * * * *", ["minute 'H(0-29)/10'", "splay"]),
        ("0 R * * * *", ["minute 'R'", "splay"]),
        ("@reboot", ["run_on_startup=True"]),
        ("@every 5m", ["no such alias", "@daily"]),
        ("0 0 0 30 2 *", ["day of month '30'", "never occurs", "month '2'"]),
        ("0 0 0 31 4,6,9-9,11 *", ["day of month '31'", "never occurs"]),
        ("0 0 0 * * 1\n", ["'\\n' at position 11"]),
        ("0 0 0 * * \u0661", ["position 10", "ASCII"]),
        ("0\u00a00 0 * * *", ["position 1", "ASCII"]),
        ("0 " * 200, ["400 characters; at most 256"]),
        (None, ["None", "NoneType"]),
        (b"0 0 0 * * *", ["bytes"]),
        (5, ["5", "int"]),
        (["0 0 0 * * *"], ["list"]),
        (["*"] * 100_000, ["list"]),
    ],
)
def test_a_bad_text_is_one_error_that_helps(text, parts):
    """The message names the field, the value and the remedy."""
    with pytest.raises(ScheduleError) as caught:
        cron(text)
    for part in parts:
        assert part in str(caught.value)
    assert str(caught.value).startswith("schedule ")


@pytest.mark.parametrize(
    ("zone", "part"),
    [
        ("Europe/Berln", "did you mean Europe/Berlin"),
        ("europe/berlin", "did you mean Europe/Berlin?"),
        ("Berlin", "did you mean Europe/Berlin?"),
        ("New York", "did you mean America/New_York?"),
        ("", "such as 'Europe/Berlin'"),
        ("Europe", "no such zone"),
        ("localtime", "no such zone"),
        ("right/Europe/Berlin", "no such zone"),
        ("../../etc/passwd", "no such zone"),
        ("/etc/localtime", "no such zone"),
        ("UTC\0", "no such zone"),
        ("\ud800", "no such zone"),
        ("x" * 100_000, "no such zone"),
        (5, "IANA name"),
        (b"UTC", "IANA name"),
    ],
)
def test_a_bad_zone_is_the_same_error(zone, part):
    """Near names are suggested."""
    for make in (lambda: cron("@daily", zone), lambda: cron("@daily").in_timezone(zone)):
        with pytest.raises(ScheduleError, match=r"^timezone ") as caught:
            make()
        assert part in str(caught.value)
        assert len(str(caught.value)) < 300


PIECES = "0 1 5 7 31 59 60 * / - , # L W ? H R h( ) l5 w 1# @daily MON jan 99999999999999".split()  # noqa: SIM905 - a list of quotes is unreadable
FIELDS = "* 0 5 */7 1-5 7,3 9/2 L ? MON 2#1 L5 15W".split()  # noqa: SIM905 - the same


def hostile():
    """Yield texts that a parser might choke on; a quarter of them almost well-formed."""
    rng = random.Random("hostile")
    for _ in range(2500):
        yield "".join(chr(rng.randint(0, sys.maxunicode)) for _ in range(rng.randint(0, 40)))
        yield rng.randbytes(rng.randint(0, 40)).decode("latin-1")
        yield "".join(rng.choices([*PIECES, " "], k=rng.randint(1, 30)))
        fields = rng.choices(FIELDS, k=6)
        fields[rng.randrange(6)] += rng.choice(["", "", rng.choice(PIECES)])
        yield " ".join(fields)
    yield ",".join(["0"] * 100_000) + " * * * * *"
    yield "* " * 100_000
    yield "9" * 100_000
    yield "0 0 0 * * " + "9" * 240
    yield "0-" + "9" * 240 + "/1 * * * * *"
    yield "*/" + "9" * 240 + " * * * * *"
    yield ",".join(["*/1"] * 61) + " * * * * *"
    yield ",".join(["x"] * 120) + " * * * * *"
    yield "0 0 0 * * " + ",".join(["0-6#1"] * 40)
    yield from ("\0" * 6, "\ud800 * * * * *", "0 0 0 1W#3 * *", "0 0 0 * * L", "0 0 0 * * #", "@")


def test_hostile_texts_are_refused_at_once():
    """10,000 random texts: each is a schedule with a next tick, or a ScheduleError, soon."""
    texts = [*hostile()]
    assert sum(map(anew, texts)) > 50
    assert max(steps(lambda text=text: anew(text)) for text in texts[-1000:]) < 100_000


def anew(text):
    _text._read.cache_clear()
    _tables._tables.cache_clear()
    return is_a_schedule(text)


def is_a_schedule(text):
    try:
        schedule = cron(text)
    except ScheduleError as error:
        message = str(error)
    else:
        return schedule.next(NOON) > NOON
    assert len(message) < 1000
    return False
