"""Settings: what is read, what overrides what, and how mistakes are told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from proxy.errors import ConfigError, Fault
from proxy.settings import Address, Settings, find_shipped, load_settings, render_schema
from proxy.upstream_address import parse_upstream_address

HOME = {"HOME": "/home/op"}


def load(tmp_path: Path, text: str, environ: Mapping[str, str] = HOME) -> Settings:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    return load_settings(path, environ)


def faults(tmp_path: Path, text: str, environ: Mapping[str, str] = HOME) -> tuple[Fault, ...]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, environ)
    return caught.value.faults


def only_fault(tmp_path: Path, text: str, environ: Mapping[str, str] = HOME) -> Fault:
    (fault,) = faults(tmp_path, text, environ)
    return fault


# --- the shipped file ----------------------------------------------------------------------------------------------


def test_the_shipped_file_says_what_the_defaults_are() -> None:
    shipped = load_settings(None, {})
    assert shipped == Settings()
    assert shipped.policy == find_shipped("policy.yaml")


def test_the_shipped_schema_is_current() -> None:
    assert find_shipped("gateway.schema.json").read_text() == render_schema(), "run `make schema`"


def list_fields(model: type[BaseModel], depth: int = 0) -> Iterator[tuple[str, str, list[float], bool]]:
    """Each field of the model as indentation, name, bounds, and whether it is a section."""
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        bounds = [
            bound
            for rule in field.metadata
            for bound in (getattr(rule, "ge", None), getattr(rule, "le", None))
            if bound is not None
        ]
        yield "  " * depth, name, bounds, bool(sections)
        if type(None) not in kinds or field.default is not None:  # api is off by default, and like mcp
            for section in sections:
                yield from list_fields(section, depth + 1)


@pytest.mark.parametrize(("indent", "name", "bounds", "is_section"), list(list_fields(Settings)))
def test_the_shipped_file_explains_every_field_with_its_range(
    indent: str, name: str, bounds: list[float], is_section: bool
) -> None:
    text = find_shipped("gateway.yaml").read_text()
    explained = re.compile(rf"((?:^{indent}# .*\n)+){indent}(?:# )?{name}:", re.MULTILINE)
    comments = explained.findall(text)
    assert comments or is_section
    if bounds:
        written = " to ".join(f"{bound:g}" if bound < 1 else str(int(bound)) for bound in bounds)
        assert any(written in comment for comment in comments), f"{name} lacks its range: {written}"


# --- what is read --------------------------------------------------------------------------------------------------


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "", {}) == Settings()


def test_a_section_whose_fields_are_all_commented_out_means_its_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, "database:\n  # url: x\nupstreams:\n  mcp:\n", {}) == Settings()


def test_a_file_changes_only_what_it_names(tmp_path: Path) -> None:
    settings = load(
        tmp_path, "revocation: {lease_seconds: 3}\nupstreams:\n  api: {url: 'https://api.example:8443/v1'}\n"
    )
    assert settings.revocation.lease_seconds == 3
    assert settings.revocation.heartbeat_seconds == 0.5
    assert settings.upstreams.api is not None
    assert settings.upstreams.api.url == parse_upstream_address("https://api.example:8443/v1")
    assert settings.upstreams.mcp is not None
    assert settings.upstreams.mcp.url == parse_upstream_address("http://127.0.0.1:3000")


def test_settings_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValidationError):
        Settings().listen = Address("0.0.0.0", 1)  # type: ignore[misc]


def test_the_bound_is_lease_and_both_graces(tmp_path: Path) -> None:
    assert Settings().revocation.bound_seconds == 3.0
    settings = load(tmp_path, "revocation: {lease_seconds: 4, grace_seconds: 2, database_loss_grace_seconds: 60}")
    assert settings.revocation.bound_seconds == 66.0


def test_listening_falls_back_to_the_database_itself(tmp_path: Path) -> None:
    one = load(tmp_path, "database: {url: 'postgresql://one/a'}").database.listening_url
    two = load(tmp_path, "database: {url: 'postgres://one/a', listener_url: 'postgresql://two/a'}").database
    assert one is not None
    assert one.get_secret_value() == "postgresql://one/a"
    assert two.listening_url is not None
    assert two.listening_url.get_secret_value() == "postgresql://two/a"


@pytest.mark.parametrize(
    ("text", "address", "is_loopback"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080), True),
        ("localhost:0", Address("localhost", 0), True),
        ("0.0.0.0:80", Address("0.0.0.0", 80), False),
        ("[::1]:8080", Address("::1", 8080), True),
        ("[::]:65535", Address("::", 65535), False),
        ("gateway.example:1", Address("gateway.example", 1), False),
    ],
)
def test_an_address_is_host_and_port(tmp_path: Path, text: str, address: Address, is_loopback: bool) -> None:
    listen = load(tmp_path, "", {"AEGIS_LISTEN": text}).listen
    assert listen == address
    assert str(listen) == text
    assert listen.is_loopback is is_loopback


@pytest.mark.parametrize(
    "text", ["8080", ":8080", "host", "host:65536", "host:-1", "::1:8080", "[:::]:1", "a b:1", "a:1\n"]
)
def test_what_is_not_an_address_is_a_fault(tmp_path: Path, text: str) -> None:
    fault = only_fault(tmp_path, "", {"AEGIS_LISTEN": text})
    assert (fault.source, fault.line) == ("AEGIS_LISTEN", None)
    assert "host:port" in fault.mend


@pytest.mark.parametrize(
    "text", ["http://u:p@h", "ftp://h", "h:80", "http://", "http://h?q", "http://h:0", "http://h\n"]
)
def test_what_is_not_the_address_of_an_upstream_is_a_fault(tmp_path: Path, text: str) -> None:
    fault = only_fault(tmp_path, "", {"AEGIS_UPSTREAM_MCP": text})
    assert fault.source == "AEGIS_UPSTREAM_MCP"
    assert fault.mend.startswith(("an upstream URL", "the port of an upstream URL"))


# --- faults --------------------------------------------------------------------------------------------------------


def test_every_fault_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = """\
listen: nowhere
hashing:
  threds: 2
  time_cost: 99
revocation:
  heartbeat_seconds: 2.0
  lease_seconds: 3.0
  grace_seconds: -1
server:
  allowed_origins:
    - https://ok.example
    - not an origin
"""
    found = faults(tmp_path, text, {"AEGIS_LOG_LEVEL": "loud", "AEGIS_NOPE": "1"})
    path = str(tmp_path / "gateway.yaml")
    assert [(fault.source, fault.line) for fault in found] == [
        (path, 1),
        (path, 3),
        (path, 4),
        (path, 7),
        (path, 8),
        (path, 12),
        ("AEGIS_LOG_LEVEL", None),
        ("AEGIS_NOPE", None),
    ]
    assert all(fault.mend for fault in found)


def test_a_misspelt_setting_gets_a_guess_from_all_sections(tmp_path: Path) -> None:
    assert only_fault(tmp_path, "hashing:\n  threds: 2").mend == "did you mean hashing.threads?"
    assert only_fault(tmp_path, "heartbeat_seconds: 1").mend == "did you mean revocation.heartbeat_seconds?"


def test_a_number_out_of_range_is_repeated_with_its_range(tmp_path: Path) -> None:
    fault = only_fault(tmp_path, "hashing: {time_cost: 99}")
    assert fault.message == "hashing.time_cost is 99"
    assert fault.mend == "it should be less than or equal to 16"


@pytest.mark.parametrize(
    "text",
    [
        "hashing: {time_cost: true}",
        "hashing: {time_cost: '1'}",
        "hashing: {time_cost: 1.5}",
        "revocation: {grace_seconds: .inf}",
        "revocation: {grace_seconds: .nan}",
        "upstreams: {mcp: {idle_timeout_seconds: 0}}",
        "secret_key: short",
        "database: {url: 'mysql://h/a'}",
        "database: {url: 5}",
        "server: {realm: 'a\"b'}",
        "server: {allowed_origins: ['https://h/path']}",
        "server: {allowed_hosts: ['h/path']}",
        "server: {trusted_proxies: [proxy.example.com]}",
        "server: {trusted_proxies: [10.0.0.1/8]}",
        "server: {trusted_proxies: ['::/0']}",
        "listen: null",
        "database: 5",
        "ops_listen: 127.0.0.1:8080",
        "database: {pool_min_size: 11}",
        "revocation: {lease_seconds: 0.9}",
        "revocation: {heartbeat_seconds: 20, lease_seconds: 60}",
        "database: {query_timeout_seconds: 2.5}",
        "5: x",
        "listen: 127.0.0.1:9090",
        "upstreams: {mcp: none}",
        "upstreams: {mcp: {identity: {header: Content-Type}}}",
        "upstreams: {mcp: {identity: {header: Mcp-Name}}}",
        "upstreams: {mcp: {identity: {header: X_User}}}",
        "upstreams: {mcp: {identity: {profile: headers}}}",
        "upstreams: {mcp: {identity: {headers: {X-User: sub}}}}",
        "upstreams: {mcp: {identity: {profile: headers, headers: {X-User: sub, x-user: key_id}}}}",
        "upstreams: {mcp: {identity: {profile: headers, headers: {X-User: password}}}}",
        "upstreams: {mcp: {identity: {profile: headers, headers: {Connection: sub}}}}",
        "upstreams: {mcp: {bearer_token: t, identity: {profile: assertion, header: authorization}}}",
        "upstreams: {mcp: {identity: {profile: assertion, audience: 'a b'}}}",
        "upstreams: {mcp: {tls: {ca_file: ca.pem}}}",
        "upstreams: {mcp: {url: 'https://h', tls: {client_key_file: key.pem}}}",
        "upstreams: {mcp: {url: 'https://h', tls: {client_certificate_file: certificate.pem}}}",
        "assertions: {algorithm: HS256}",
        "assertions: {lifetime_seconds: 3600}",
        "management: {identity_provider: {issuer: 'https://id.example'}}",
        "management: {identity_provider: {audience: aegis}}",
        "console: {enabled: 1}",
        "console: {client_id: page}",
        "console: {client_secret: secret}",
        "{management: {identity_provider: {issuer: 'https://a', audience: b}}, console: {client_id: page}}",
        "console: {idle_seconds: 3600, absolute_seconds: 600}",
        "management: {identity_provider: {issuer: 'http://id.example', audience: aegis}}",
        "management: {identity_provider: {issuer: 'id.example', audience: aegis}}",
        "management: {identity_provider: {issuer: 'https://u:p@id.example', audience: aegis}}",
        "management: {identity_provider: {issuer: 'https://id.example', audience: ''}}",
        "management: {identity_provider: {issuer: 'https://id.example', audience: aegis, algorithms: []}}",
        "management: {identity_provider: {issuer: 'https://id.example', audience: aegis, algorithms: [HS256]}}",
        "management: {identity_provider: {issuer: 'https://id.example', audience: aegis, algorithms: [none]}}",
        "management: {identity_provider: {issuer: 'https://id.example', audience: aegis, jwks_url: 'http://k.example'}}",
        "management: {identity_provider: {issuer: 'https://id.example', audience: aegis, keep_seconds: 100}}",
        "{management: {identity_provider: {issuer: 'https://a', audience: b}}, assertions: {issuer: 'https://a'}}",
    ],
)
def test_a_setting_that_cannot_be_meant_is_one_fault(tmp_path: Path, text: str) -> None:
    fault = only_fault(tmp_path, text)
    assert fault.line == 1
    assert fault.mend


def test_a_contradiction_is_told_at_the_setting_that_was_written(tmp_path: Path) -> None:
    assert only_fault(tmp_path, "revocation:\n  lease_seconds: 3\n  heartbeat_seconds: 1.7").line == 2
    assert only_fault(tmp_path, "revocation:\n  grace_seconds: 3\n  heartbeat_seconds: 1.7").line == 3
    assert only_fault(tmp_path, "revocation:\n  lease_seconds: 0.99\n  heartbeat_seconds: 0.1\n").line == 1


def test_trusted_proxies_are_networks_and_an_ipv4_one_stays_one_inside_ipv6(tmp_path: Path) -> None:
    settings = load(tmp_path, "server: {trusted_proxies: [10.0.0.7, '::ffff:10.1.0.0/112', 'fd00::/8']}")
    assert [str(network) for network in settings.server.trusted_proxies] == ["10.0.0.7/32", "10.1.0.0/16", "fd00::/8"]
    assert load(tmp_path, "").server.trusted_proxies == ()


def test_two_listeners_may_both_ask_for_any_free_port(tmp_path: Path) -> None:
    settings = load(tmp_path, "listen: 127.0.0.1:0\nops_listen: 127.0.0.1:0")
    assert settings.listen == settings.ops_listen


def test_either_upstream_can_be_absent_but_not_both(tmp_path: Path) -> None:
    text = "upstreams:\n  mcp: none\n  api:\n    url: http://api:1"
    assert list(load(tmp_path, text).upstreams.configured) == ["api"]
    assert list(load(tmp_path, "").upstreams.configured) == ["mcp"]
    only_named = load(tmp_path, "upstreams: {mcp: none}", {**HOME, "AEGIS_UPSTREAM_MCP": "http://mcp:1"})
    assert list(only_named.upstreams.configured) == ["mcp"]


def test_an_identity_provider_needs_a_name_and_what_it_calls_us(tmp_path: Path) -> None:
    assert load(tmp_path, "").management.identity_provider is None
    text = "management: {identity_provider: {issuer: 'https://id.example/realms/a', audience: aegis, ca_file: ca.pem}}"
    provider = load(tmp_path, text).management.identity_provider
    assert provider is not None
    assert (provider.issuer, provider.algorithms) == ("https://id.example/realms/a", ("RS256", "ES256"))
    assert provider.ca_file == tmp_path / "ca.pem"
    fault = only_fault(tmp_path, "management:\n  identity_provider:\n    issuer: https://id.example")
    assert (fault.line, fault.message) == (2, "management.identity_provider.audience is not set")


def test_files_are_named_relative_to_the_file_of_settings(tmp_path: Path) -> None:
    text = "upstreams: {mcp: {url: 'https://h', tls: {ca_file: ca.pem}}}\nassertions: {key_file: /etc/key.pem}"
    settings = load(tmp_path, text)
    assert settings.upstreams.mcp is not None
    assert settings.upstreams.mcp.tls.ca_file == tmp_path / "ca.pem"
    assert settings.assertions.key_file == Path("/etc/key.pem")
