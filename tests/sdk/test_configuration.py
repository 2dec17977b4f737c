"""Whom a client speaks to, as whom; and that the key is shown nowhere."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest

from aegis_sdk import AegisClient, AsyncAegisClient, ConfigurationError, Retry
from aegis_sdk.configuration import check_base_url, configure

KEY = "aegis_000000000000_C4n4ry" + "x" * 44
URL = "http://127.0.0.1:8080"
KINDS = [AegisClient, AsyncAegisClient]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AEGIS_API_KEY", raising=False)
    monkeypatch.delenv("AEGIS_BASE_URL", raising=False)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_given_comes_from_the_environment(
    kind: type[AegisClient | AsyncAegisClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="AEGIS_API_KEY"):
        kind()
    monkeypatch.setenv("AEGIS_API_KEY", KEY)
    with pytest.raises(ConfigurationError, match="AEGIS_BASE_URL"):
        kind()
    monkeypatch.setenv("AEGIS_BASE_URL", URL)
    assert repr(kind()) == f"{kind.__name__}(base_url={URL!r})"
    assert repr(kind(base_url="https://aegis.example/")) == f"{kind.__name__}(base_url='https://aegis.example')"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("url", "timeout"), [("aegis.example", 30), (None, 30), (URL, 0)])
def test_a_key_from_the_environment_stands_in_no_local_of_an_error_that_is_told(
    kind: type[AegisClient | AsyncAegisClient], url: str | None, timeout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Services that collect errors show them."""
    for key in (KEY, f"{KEY}\n"):
        monkeypatch.setenv("AEGIS_API_KEY", key)
        with pytest.raises(ConfigurationError) as refused:
            kind(base_url=url, timeout=timeout)
        told = traceback.TracebackException.from_exception(refused.value, capture_locals=True)
        frames = [frame for frame in told.stack if frame.filename != __file__]
        assert any("base_url=None" in (frame.locals or {}).get("self", "") for frame in frames)
        assert "C4n4ry" not in f"{told}{[frame.locals for frame in frames]}"


@pytest.mark.parametrize("key", ["", " ", f"{KEY}\n", f" {KEY}", "ключ", "a\tb", "a\0b"])
def test_a_key_that_is_none_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        AegisClient(key, URL)
    assert "C4n4ry" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "", "aegis.example", "ftp://aegis.example", "http://", "http:///v1", "http://ada:C4n4ry@aegis.example",
        "https://aegis.example/?key=C4n4ry", "https://aegis.example/?", "https://aegis.example/#C4n4ry",
        "http://aegis.example:port", "http://aegis.example:99999", "http://a b/", "http://a\\b",
    ],
)  # fmt: skip
def test_a_base_url_that_is_none_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        AegisClient(KEY, url)
    assert "C4n4ry" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("https://aegis.example/behind/a/path/", "https://aegis.example/behind/a/path"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_a_base_url_may_have_a_path(url: str, kept: str) -> None:
    assert check_base_url(url) == kept


def test_a_timeout_is_more_than_nothing() -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        AegisClient(KEY, URL, timeout=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_key_is_shown_by_nothing_a_client_is_made_of(kind: type[AegisClient | AsyncAegisClient]) -> None:
    client = kind(KEY, URL)
    parts = [client, *vars(client).values(), *vars(client._transport).values(), client.agents.list()]
    assert "C4n4ry" not in "".join(f"{part!r}{part}" for part in parts)


@pytest.mark.parametrize("write", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_key_is_not_written_down(write: object) -> None:
    credential = configure(KEY, URL, 1.0, Retry(), None).credential
    with pytest.raises(TypeError, match="not written down"):
        write(credential)  # type: ignore[operator]
