"""Settings as written: the environment over the file, faults at their line, and no secret repeated."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from proxy.errors import ConfigError, Fault
from proxy.settings import Address, Settings, load_settings
from proxy.upstream_address import parse_upstream_address

PASSWORD = "hunter2hunter2"
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


# --- the environment -----------------------------------------------------------------------------------------------


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    environ = {
        "AEGIS_DATABASE_URL": "postgresql://env/a",
        "AEGIS_LISTENER_DATABASE_URL": "postgresql://env/b",
        "AEGIS_STATE_DIR": "/srv/state",
        "AEGIS_SECRET_KEY": "k" * 32,
        "AEGIS_UPSTREAM_MCP": "http://mcp:1",
        "AEGIS_UPSTREAM_API": "http://api:2",
        "AEGIS_LISTEN": "0.0.0.0:3",
        "AEGIS_OPS_LISTEN": "0.0.0.0:4",
        "AEGIS_POLICY": "/srv/policy.yaml",
        "AEGIS_LOG_LEVEL": "debug",
    }
    settings = load(
        tmp_path, "listen: 127.0.0.1:9\nupstreams: {mcp: {url: 'http://file:9', max_idle_connections: 7}}", environ
    )
    assert settings.database.url is not None
    assert settings.database.url.get_secret_value() == "postgresql://env/a"
    assert settings.database.listener_url is not None
    assert settings.database.listener_url.get_secret_value() == "postgresql://env/b"
    assert settings.state_dir == Path("/srv/state")
    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == "k" * 32
    assert settings.upstreams.mcp is not None
    assert settings.upstreams.mcp.url == parse_upstream_address("http://mcp:1")
    assert settings.upstreams.mcp.max_idle_connections == 7
    assert settings.upstreams.api is not None
    assert settings.upstreams.api.url == parse_upstream_address("http://api:2")
    assert (settings.listen, settings.ops_listen) == (Address("0.0.0.0", 3), Address("0.0.0.0", 4))
    assert settings.policy == Path("/srv/policy.yaml")
    assert settings.log_level == "debug"


def test_an_unknown_variable_of_ours_is_a_fault_with_a_guess(tmp_path: Path) -> None:
    fault = only_fault(tmp_path, "", {"AEGIS_DATABSE_URL": PASSWORD})
    assert (fault.source, fault.mend) == ("AEGIS_DATABSE_URL", "did you mean AEGIS_DATABASE_URL?")
    assert PASSWORD not in str(fault)


def test_an_empty_variable_is_a_fault_because_a_secret_that_failed_to_arrive_looks_so(tmp_path: Path) -> None:
    assert "empty" in only_fault(tmp_path, "", {"AEGIS_SECRET_KEY": ""}).message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AEGIS_API_KEY", "x"),
        ("AEGIS_BASE_URL", "x"),
        ("AEGIS_PROXY_SERVICE_HOST", "10.0.0.1"),
        ("AEGIS_SERVICE_PORT_HTTP", "80"),
        ("AEGIS_PORT", "tcp://10.0.0.1:80"),
        ("AEGIS_PROXY_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("PATH", "/bin"),
    ],
)
def test_variables_of_clients_and_of_kubernetes_are_left_alone(tmp_path: Path, name: str, value: str) -> None:
    assert load(tmp_path, "", {name: value}) == Settings()


def test_a_port_alone_is_not_taken_for_a_service_link(tmp_path: Path) -> None:
    assert only_fault(tmp_path, "", {"AEGIS_PORT": "8080"}).source == "AEGIS_PORT"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/aegis-proxy"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/aegis-proxy"),
        ({}, "/var/lib/aegis-proxy"),
    ],
)
def test_state_lives_where_the_desktop_standard_says(tmp_path: Path, environ: dict[str, str], expected: str) -> None:
    assert load(tmp_path, "", environ).state_dir == Path(expected)


def test_paths_of_the_file_are_relative_to_it_and_those_of_the_environment_are_not(tmp_path: Path) -> None:
    text = "policy: p/policy.yaml\nstate_dir: state\n"
    assert load(tmp_path, text).policy == tmp_path / "p/policy.yaml"
    assert load(tmp_path, text).state_dir == tmp_path / "state"
    assert load(tmp_path, text, {"AEGIS_POLICY": "p.yaml"}).policy == Path("p.yaml")


# --- the file --------------------------------------------------------------------------------------------------------


def test_a_setting_written_twice_is_a_fault_that_names_both_lines(tmp_path: Path) -> None:
    first, second = faults(tmp_path, f"database:\n  url: {PASSWORD}\n  url: a\nlisten: h:1\nlisten: h:2\n")
    assert (first.line, first.message, first.mend) == (
        3,
        "database.url is written twice",
        "keep this one or that of line 2",
    )
    assert (second.line, second.message) == (5, "listen is written twice")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("listen: [", 1),
        ("a: 1\n b: 2", 2),
        ("- a", 1),
        ("a: !shout b", 1),
        ("a: *b", 1),
        ("a: 2020-99-99", None),
        ("a: 1\n---\nb: 2", 2),
        ("a: \x07", None),
        ("[" * 5000, None),
        ("'\ud800'", None),
    ],
)
def test_what_is_not_a_yaml_mapping_is_one_fault(tmp_path: Path, text: str, line: int | None) -> None:
    (tmp_path / "gateway.yaml").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "gateway.yaml", {})
    (fault,) = caught.value.faults
    assert fault.line == line


def test_a_missing_file_is_a_fault_beside_those_of_the_environment(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "absent.yaml", {"AEGIS_LISTEN": "x"})
    missing, variable = sorted(caught.value.faults, key=lambda fault: fault.source == "AEGIS_LISTEN")
    assert "No such file" in missing.message
    assert variable.source == "AEGIS_LISTEN"


def test_an_alias_that_leads_into_itself_is_a_fault(tmp_path: Path) -> None:
    assert only_fault(tmp_path, "database: &a {url: *a}").line == 1


@hypothesis_settings(deadline=None)  # pure-Python YAML and a file for each document
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["database", "url", "upstreams", "api", "mcp", "server", "listen"])
                | st.text(max_size=4),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_document_gives_settings_or_faults(tmp_path_factory: pytest.TempPathFactory, document: object) -> None:
    path = tmp_path_factory.mktemp("any") / "gateway.yaml"
    YAML(typ="safe", pure=True).dump(document, path)
    with contextlib.suppress(ConfigError):
        assert load_settings(path, {"AEGIS_UPSTREAM_API": "http://api:1"}).upstreams.api is not None


# --- secrets -------------------------------------------------------------------------------------------------------


def test_secrets_do_not_show_in_settings(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        f"upstreams: {{mcp: {{bearer_token: {PASSWORD}}}}}",
        {
            "AEGIS_DATABASE_URL": f"postgresql://u:{PASSWORD}@h/a",
            "AEGIS_LISTENER_DATABASE_URL": f"postgresql://u:{PASSWORD}@h/a",
            "AEGIS_SECRET_KEY": PASSWORD * 3,
        },
    )
    assert PASSWORD not in repr(settings) + str(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    "text",
    [
        f"database: {{url: 'mysql://u:{PASSWORD}@h'}}",
        f"database: {PASSWORD}",
        f"database:\n  url:postgresql://u:{PASSWORD}@h/a",
        f"database:\n  url: &{PASSWORD} x\n  listener_url: *{PASSWORD}2",
        f"database: {{'postgresql://u:{PASSWORD}@h/a': 1}}",
        f"database: {{url: {PASSWORD}, url: {PASSWORD}}}",
        f"secret_key: !{PASSWORD} x",
        f"secret_key: '{PASSWORD}",
        f"secret_key: {{{PASSWORD}!: 1}}",
        f"secret_key: {PASSWORD}",
        f"upstreams: {{mcp: {{url: 'http://u:{PASSWORD}@h'}}}}",
        f"upstreams: {{mcp: {{bearer_token: 'Bearer {PASSWORD}'}}}}",
        f"listen: {PASSWORD}",
        f"log_level: {PASSWORD}",
        f"hashing: {{threads: {PASSWORD}}}",
        f"server: {{realm: '\"{PASSWORD}', allowed_hosts: ['{PASSWORD}/'], allowed_origins: [{PASSWORD}]}}",
        f"{PASSWORD}: [",
        f"? [{PASSWORD}]\n: x",
    ],
)
def test_no_fault_repeats_what_was_written(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.faults
    error: BaseException | None = caught.value
    while error is not None:
        assert PASSWORD not in str(error) + repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
