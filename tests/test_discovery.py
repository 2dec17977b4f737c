"""Metadata of a protected resource (RFC 9728): only where an authorization server is configured, and only of routes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.discovery import NOTHING, WELL_KNOWN, Discovery
from proxy.errors import ConfigError
from proxy.policy import Policy
from proxy.server import Proxy
from proxy.settings import load_settings
from tests.canary_upstream import CanaryUpstream
from tests.raw_client import ask_raw, form_request
from tests.staging import Stage
from tests.wire_scene import PING

ISSUER = "https://login.example"
KNOWN = Discovery("https://aegis.example", (ISSUER,))
PREFIXED = Discovery("https://aegis.example/tools/", (ISSUER,))
OTHERS = [
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/.well-known/oauth-protected-resources",
    f"{WELL_KNOWN}/elsewhere",
    "/register",
    "/authorize",
    "/token",
]


@pytest.mark.parametrize(
    ("discovery", "path", "resource"),
    [
        (KNOWN, f"{WELL_KNOWN}/mcp/v1", "https://aegis.example/mcp/v1"),
        (KNOWN, WELL_KNOWN, "https://aegis.example/mcp/v1"),
        (PREFIXED, f"{WELL_KNOWN}/tools/mcp/v1", "https://aegis.example/tools/mcp/v1"),
        (PREFIXED, f"{WELL_KNOWN}/mcp/v1", "https://aegis.example/tools/mcp/v1"),
    ],
)
def test_the_document_names_the_resource_as_its_client_asked_for_it(
    discovery: Discovery, path: str, resource: str, policy: Policy
) -> None:
    found = discovery.find_metadata(path, policy)
    assert found is not None
    assert json.loads(found) == {
        "resource": resource,
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
    }


@pytest.mark.parametrize("path", [*OTHERS, "/mcp/v1", "/"])
def test_there_is_no_document_anywhere_else(path: str, policy: Policy) -> None:
    assert KNOWN.find_metadata(path, policy) is None


@pytest.mark.parametrize("path", [WELL_KNOWN, f"{WELL_KNOWN}/mcp/v1"])
def test_without_an_authorization_server_there_is_nothing_to_discover(path: str, policy: Policy) -> None:
    assert NOTHING.find_metadata(path, policy) is None
    assert NOTHING.form_metadata_url("/mcp/v1") is None


def test_the_well_known_part_stands_before_the_resource_s_path() -> None:
    assert PREFIXED.form_metadata_url("/mcp/v1") == f"https://aegis.example{WELL_KNOWN}/tools/mcp/v1"


def test_servers_without_a_public_address_are_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="public_url"):
        load_settings(write(tmp_path, "server:\n  authorization_servers: [https://login.example]\n"), {})


def write(directory: Path, text: str) -> Path:
    path = directory / "gateway.yaml"
    path.write_text(text)
    return path


async def ask(proxy: Proxy, method: str, path: str, token: str | None = None) -> tuple[int, dict[str, str]]:
    body = PING if method == "POST" else None
    answer = await ask_raw(proxy.data_address, form_request(method, path, token=token, body=body))
    return answer.status, dict(answer.headers)


async def test_a_static_key_s_proxy_looks_like_no_oauth_at_all(stage: Stage) -> None:
    """Whatever an editor tries after a 401, it finds nothing that could make it drop the key."""
    async with CanaryUpstream() as canary, stage.proxy(canary.url) as proxy:
        status, headers = await ask(proxy, "POST", "/mcp/v1")
        assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="aegis"')
        for path in [*OTHERS, WELL_KNOWN, f"{WELL_KNOWN}/mcp/v1"]:
            for method in ("GET", "POST"):
                assert (await ask(proxy, method, path))[0] == 404, path
        assert not canary.received


async def test_with_an_authorization_server_challenges_lead_to_the_document(stage: Stage) -> None:
    settings = {"public_url": "https://aegis.example", "authorization_servers": (ISSUER,)}
    async with CanaryUpstream() as canary, stage.proxy(canary.url, server=settings) as proxy:
        status, headers = await ask(proxy, "POST", "/mcp/v1")
        url = f"https://aegis.example{WELL_KNOWN}/mcp/v1"
        assert status == 401
        assert headers["WWW-Authenticate"] == f'Bearer realm="aegis", resource_metadata="{url}"'
        answer = await ask_raw(proxy.data_address, form_request("GET", url.removeprefix("https://aegis.example")))
        assert (answer.status, answer.json["authorization_servers"]) == (200, [ISSUER])
        assert (await ask(proxy, "POST", f"{WELL_KNOWN}/mcp/v1"))[0] == 404
        assert not canary.received
