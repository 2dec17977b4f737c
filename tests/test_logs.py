"""Logs: one JSON object a line, and never a credential in it."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from proxy.logs import RoomHandler, configure_logging, get_logger, render

KEY_ID = "Ab3dEf6hIj9k"
SECRET = "s3cr3t" * 8 + "x"
TOKEN = f"aegis_{KEY_ID}_{SECRET}"


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    """Logging as no test before has left it: without pytest's handlers, and given back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("aiohttp.access").disabled = False


@pytest.fixture
def stream() -> io.BytesIO:
    """What was written, while logging is configured at debug."""
    stream = io.BytesIO()
    configure_logging("debug", stream)
    return stream


def read(stream: io.BytesIO) -> list[dict[str, Any]]:
    lines = stream.getvalue().decode().split("\n")
    assert lines.pop() == ""
    return [json.loads(line) for line in lines]


def test_a_line_holds_time_level_room_event_and_fields(stream: io.BytesIO) -> None:
    get_logger("front").info("listening", port=8080)
    (line,) = read(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "info", "room": "front", "event": "listening", "port": 8080}


def test_lines_below_the_level_are_not_written() -> None:
    stream = io.BytesIO()
    configure_logging("warning", stream)
    log = get_logger("front")
    log.info("quiet")
    logging.getLogger("aiohttp.server").info("quiet")
    log.warning("loud")
    assert [line["event"] for line in read(stream)] == ["loud"]


def test_configuring_again_redirects_loggers_already_handed_out(stream: io.BytesIO) -> None:
    log = get_logger("front")
    log.info("first")
    later = io.StringIO()
    configure_logging("info", later)
    log.info("second")
    logging.getLogger("asyncio").error("third")
    assert [line["event"] for line in read(stream)] == ["first"]
    assert [json.loads(line)["event"] for line in later.getvalue().splitlines()] == ["second", "third"]


def test_lines_of_libraries_look_like_ours(stream: io.BytesIO) -> None:
    logging.getLogger("aiohttp.server").error("could not %s", "parse")
    logging.getLogger("asyncpg").log(35, "odd level")
    RoomHandler().emit(logging.LogRecord("asyncpg", logging.ERROR, "x.py", 1, "bad %d", ("arguments",), None))
    assert [(line["room"], line["level"], line["event"]) for line in read(stream)] == [
        ("aiohttp.server", "error", "could not parse"),
        ("asyncpg", "warning", "odd level"),
        ("asyncpg", "error", "bad %d"),
    ]


def test_the_access_log_of_aiohttp_is_off(stream: io.BytesIO) -> None:
    logging.getLogger("aiohttp.access").info("GET /mcp/v1")
    assert read(stream) == []


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (TOKEN, f"aegis_{KEY_ID}_…"),
        (f"key {TOKEN}, again {TOKEN}.", f"key aegis_{KEY_ID}_…, again aegis_{KEY_ID}_…."),
        (TOKEN[:27], f"aegis_{KEY_ID}_…"),
        (f"aegis_{KEY_ID}", f"aegis_{KEY_ID}"),
        ("aegis_" + "a1" * 20, "aegis_…"),
        ("Authorization: Bearer abc.def-_~+/==", "Authorization: Bearer …"),
        ("bearer  abcdef", "bearer  …"),
        ('BEARER abc"def, next', "BEARER …, next"),
        ("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln", "eyJ…"),
        (f"eyJ{'a' * 500}.eyJ{'b' * 7000}.{'c' * 342} sent", "eyJ… sent"),
        ("postgresql://aegis:pa@ss\\word@db:5432/aegis", "postgresql://aegis:…@db:5432/aegis"),
        ("postgres://:pass@db", "postgres://:…@db"),
        ('redis://u:p"w@h', "redis://u:…@h"),
        ("http://127.0.0.1:3000/mcp?x=1", "http://127.0.0.1:3000/mcp?x=1"),
        ("dbname=a password=hunter2 host=b", "dbname=a password=… host=b"),
        ("a bearer of news", "a bearer of news"),
    ],
)
def test_credentials_are_blotted_out_and_the_rest_stays(stream: io.BytesIO, text: str, written: str) -> None:
    get_logger("x").info("seen", text=text)
    assert read(stream)[0]["text"] == written


@dataclasses.dataclass
class Presented:
    token: str


class Stubborn:
    def __repr__(self) -> str:
        return f"<Stubborn {TOKEN}>"


@pytest.mark.parametrize(
    "value",
    [
        {"deep": [{"er": TOKEN}]},
        {TOKEN: 1},
        (TOKEN, 1),
        {TOKEN},
        TOKEN.encode(),
        Presented(TOKEN),
        Stubborn(),
        ValueError(TOKEN),
        "\udc80" + TOKEN,
        [2**70, TOKEN],
        {(1, 2): TOKEN},
        memoryview(b"x"),
    ],
)
def test_no_value_of_any_kind_brings_a_secret_into_the_line(stream: io.BytesIO, value: object) -> None:
    get_logger("x").warning(f"refused {TOKEN}", value=value)
    assert len(read(stream)) == 1
    assert SECRET not in stream.getvalue().decode()
    assert SECRET[:8] not in stream.getvalue().decode()


def test_a_value_that_holds_itself_is_still_written(stream: io.BytesIO) -> None:
    knot: list[object] = [TOKEN]
    knot.append(knot)
    get_logger("x").info("knot", value=knot)
    (line,) = read(stream)
    assert SECRET not in line["value"]


def test_tracebacks_are_written_without_secrets_and_without_variables(stream: io.BytesIO) -> None:
    hidden = "local variable " + SECRET[:8]
    try:
        try:
            raise ConnectionError("postgresql://aegis:hunter2@db/aegis")
        except ConnectionError as error:
            raise RuntimeError(f"with {TOKEN}") from error
    except RuntimeError:
        get_logger("x").exception("failed")
        logging.getLogger("asyncio").exception("failed")
    assert hidden
    lines = read(stream)
    assert [line["event"] for line in lines] == ["failed", "failed"]
    for line in lines:
        assert f"RuntimeError: with aegis_{KEY_ID}_…" in line["exception"]
        assert "postgresql://aegis:…@db" in line["exception"]
    assert b"hunter2" not in stream.getvalue()
    assert SECRET[:8].encode() not in stream.getvalue()


def test_no_text_can_break_out_of_its_line_or_steer_a_terminal(stream: io.BytesIO) -> None:
    text = "a\r\nb\x1b[2J\x00\x7f\x9b31m\u0085é"
    get_logger("x").info("seen", text=text)
    assert read(stream)[0]["text"] == text
    assert not set(stream.getvalue()[:-1].decode()) & {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0))}


@given(st.text(st.characters(exclude_categories=[])))
def test_every_text_gives_one_line_of_json_that_holds_no_key(text: str) -> None:
    line = render(None, "info", {"event": text + TOKEN, text: [text]})
    assert isinstance(json.loads(line), dict)
    assert b"\n" not in line
    assert SECRET.encode() not in line


def test_a_reader_that_went_away_stops_nothing() -> None:
    stream = io.BytesIO()
    configure_logging("info", stream)
    stream.close()
    get_logger("x").info("into the void")


def test_lines_go_to_standard_output_unless_told_otherwise(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    configure_logging("info")
    get_logger("x").info("here")
    out, err = capsysbinary.readouterr()
    assert json.loads(out)["event"] == "here"
    assert err == b""
    configure_logging("info", sys.stderr)
    get_logger("x").info("there")
    out, err = capsysbinary.readouterr()
    assert (out, json.loads(err)["event"]) == (b"", "there")
