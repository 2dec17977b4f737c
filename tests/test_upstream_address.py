"""Which URLs name an upstream, and what is read from them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream_address import UpstreamAddress, parse_upstream_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:9000/mcp", UpstreamAddress("http", "127.0.0.1", 9000, "127.0.0.1:9000", "/mcp")),
        ("http://mcp", UpstreamAddress("http", "mcp", 80, "mcp", "")),
        ("http://mcp:80/", UpstreamAddress("http", "mcp", 80, "mcp", "/")),
        ("http://mcp:443/", UpstreamAddress("http", "mcp", 443, "mcp:443", "/")),
        (
            "HTTPS://Tools_1.Example:443/a/b/",
            UpstreamAddress("https", "tools_1.example", 443, "tools_1.example", "/a/b/"),
        ),
        ("https://[2001:DB8::1]:8443/mcp", UpstreamAddress("https", "2001:db8::1", 8443, "[2001:db8::1]:8443", "/mcp")),
        ("http://[::1]", UpstreamAddress("http", "::1", 80, "[::1]", "")),
    ],
)
def test_an_upstream_url_names_scheme_host_port_authority_and_path(url: str, address: UpstreamAddress) -> None:
    assert parse_upstream_address(url) == address


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("", "http://"),
        ("mcp:9000", "http://"),
        ("ftp://mcp", "http://"),
        ("unix:///run/mcp", "http://"),
        ("http://", "host"),
        ("http:///mcp", "host"),
        ("http://:80/mcp", "host"),
        ("http://a b/", "visible ASCII"),
        ("http://mcp\r\nX: y/", "visible ASCII"),
        ("http://mcp\t/", "visible ASCII"),
        ("http://münchen/", "punycode"),
        ("http://user:hunter2@mcp/", "password"),
        ("http://mcp/?a=hunter2", "query"),
        ("http://mcp/?", "query"),
        ("http://mcp/#hunter2", "fragment"),
        ("http://mcp:0/", "port"),
        ("http://mcp:/", "port"),
        ("http://mcp:65536/", "port"),
        ("http://mcp:8o/", "port"),
        ("http://mcp:+80/", "port"),
        ("http://[::1/", "brackets"),
        ("http://[::1]80/", "port"),
        ("http://[fe80::1%25eth0]/", "host"),
        ("http://a,b/", "host"),
        ("http://a%2fb/", "host"),
    ],
)
def test_an_unusable_upstream_url_is_refused_with_a_helpful_word_and_without_repeating_it(url: str, word: str) -> None:
    with pytest.raises(ValueError, match=word) as refusal:
        parse_upstream_address(url)
    assert "hunter2" not in str(refusal.value)


@given(st.text() | st.from_regex(r"https?://[\[\]!-~]{0,20}(:[0-9]{0,6})?(/[!-~]*)?", fullmatch=True))
def test_whatever_is_accepted_can_stand_in_a_request(url: str) -> None:
    with contextlib.suppress(ValueError):
        address = parse_upstream_address(url)
        assert 1 <= address.port <= 65535
        assert address.host
        assert address.base_path == "" or address.base_path.startswith("/")
        assert not set(address.authority) & set("\r\n\0 \t?#@/")
        assert not set(address.base_path) & set("\r\n\0 \t?#")
