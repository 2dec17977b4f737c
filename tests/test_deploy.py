"""What is in deploy/: it agrees with the settings and with itself, and leaves no way around the proxy."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

import proxy
from proxy.discovery import JWKS_PATH
from proxy.metrics import Metrics
from proxy.ops import build_ops
from proxy.settings import Settings, load_settings
from proxy.settings_source import ENVIRONMENT
from tests.kubernetes_fields import VERSIONS, list_misspelt

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PROXY, SERVER = "aegis-mcp-proxy", "zaru-mcp-server"
# What the MCP server takes off JWKS_URI to learn the only issuer it trusts.
JWKS_SUFFIX = "/protocol/openid-connect/certs"
FILLED_IN = {"POSTGRES_PASSWORD": "0123456789abcdef", "AEGIS_SECRET_KEY": "0123456789abcdef" * 2}
SECRETS = {"database-url": "postgresql://aegis@database/aegis", "secret-key": "0123456789abcdef" * 2}


def read_yaml(name: str) -> list[Any]:
    return list(YAML(typ="safe", pure=True).load_all((DEPLOY / name).read_text()))


def read_image_environment() -> dict[str, str]:
    """What the image itself sets; the virtual environment's PATH is of no interest here."""
    return dict(re.findall(r"(AEGIS_\w+)=(\S+)", (ROOT / "Dockerfile").read_text().partition("ENV ")[2]))


def fill_in(text: str, environ: Mapping[str, str]) -> str:
    """Compose's `${NAME:-default}` and `${NAME:?what is missing}`."""
    return re.sub(r"\$\{(\w+):[-?]([^}]*)\}", lambda found: environ.get(found[1], found[2]), text)


# --- the two deployments, seen alike -------------------------------------------------------------------------------

COMPOSE: dict[str, Any] = read_yaml("compose.yaml")[0]
SERVICES: dict[str, Any] = COMPOSE["services"]
OBJECTS: dict[tuple[str, str], Any] = {(one["kind"], one["metadata"]["name"]): one for one in read_yaml("sidecar.yaml")}
POD: dict[str, Any] = OBJECTS["Deployment", PROXY]["spec"]["template"]["spec"]
CONTAINERS: dict[str, Any] = {one["name"]: one for one in POD["containers"]}


def read_compose_environment(service: str) -> dict[str, str]:
    return {name: fill_in(value, FILLED_IN) for name, value in SERVICES[service]["environment"].items()}


def read_pod_environment(container: str) -> dict[str, str]:
    return {
        one["name"]: one["value"] if "value" in one else SECRETS[one["valueFrom"]["secretKeyRef"]["key"]]
        for one in CONTAINERS[container]["env"]
    }


ENVIRONMENTS = {
    "compose": {name: read_compose_environment(name) for name in (PROXY, SERVER)},
    "sidecar": {name: read_pod_environment(name) for name in (PROXY, SERVER)},
}
EACH = pytest.mark.parametrize("deployment", ENVIRONMENTS)


def load(deployment: str) -> Settings:
    return load_settings(DEPLOY / "gateway.yaml", read_image_environment() | ENVIRONMENTS[deployment][PROXY])


# --- settings ------------------------------------------------------------------------------------------------------


@EACH
def test_the_settings_load_with_what_the_image_and_the_manifest_set(deployment: str) -> None:
    settings = load(deployment)
    assert settings.database.url is not None
    assert settings.secret_key is not None
    assert {name: one.identity.profile for name, one in settings.upstreams.configured.items()} == {
        "mcp": "assertion",
        "api": "assertion",
    }


@EACH
def test_the_proxy_is_given_known_variables_only(deployment: str) -> None:
    assert set(ENVIRONMENTS[deployment][PROXY]) | set(read_image_environment()) <= set(ENVIRONMENT)


def test_the_config_map_is_the_settings_file_word_for_word() -> None:
    assert OBJECTS["ConfigMap", PROXY]["data"]["gateway.yaml"] == (DEPLOY / "gateway.yaml").read_text()


def test_the_settings_file_is_where_the_command_looks_for_it() -> None:
    (mount,) = CONTAINERS[PROXY]["volumeMounts"]
    (volume,) = (one for one in POD["volumes"] if one["name"] == mount["name"])
    (item,) = volume["configMap"]["items"]
    assert (volume["configMap"]["name"], item["key"]) == (PROXY, "gateway.yaml")
    assert CONTAINERS[PROXY]["args"] == ["serve", "--config", f"{mount['mountPath']}/{item['path']}"]
    assert SERVICES[PROXY]["command"] == ["serve", "--config", "/etc/aegis/gateway.yaml"]
    assert SERVICES[PROXY]["volumes"] == ["./gateway.yaml:/etc/aegis/gateway.yaml:ro"]


def test_our_public_name_is_one_we_answer_to() -> None:
    server = load("compose").server
    assert urlsplit(server.public_url or "").hostname in (server.allowed_hosts or ())


@EACH
def test_the_upstream_is_the_mcp_server(deployment: str) -> None:
    mcp = load(deployment).upstreams.mcp
    assert mcp is not None
    assert mcp.url.authority == {"compose": f"{SERVER}:3000", "sidecar": "127.0.0.1:3000"}[deployment]
    assert ENVIRONMENTS[deployment][SERVER]["PORT"] == "3000"


def test_the_orchestrator_is_where_the_mcp_server_finds_it() -> None:
    api = load("compose").upstreams.api
    assert api is not None
    for environment in ENVIRONMENTS.values():
        assert environment[SERVER]["AEGIS_ORCHESTRATOR_URL"] == f"http://{api.url.authority}"
    assert api.url.authority.partition(":")[0] in SERVICES


# --- assertions ----------------------------------------------------------------------------------------------------


@EACH
def test_the_mcp_server_finds_the_public_keys_at_our_ops_listener(deployment: str) -> None:
    settings, found = load(deployment), urlsplit(ENVIRONMENTS[deployment][SERVER]["JWKS_URI"])
    assert (found.scheme, found.hostname, found.path) == ("http", PROXY, JWKS_PATH)
    assert found.port == settings.ops_listen.port


@EACH
def test_the_mcp_server_derives_our_issuer_from_that_address(deployment: str) -> None:
    address = ENVIRONMENTS[deployment][SERVER]["JWKS_URI"]
    assert address.endswith(JWKS_SUFFIX)
    assert address.removesuffix(JWKS_SUFFIX) == load(deployment).assertions.issuer


def test_the_name_of_the_issuer_leads_to_the_proxy() -> None:
    assert PROXY in SERVICES
    assert set(SERVICES[PROXY]["networks"]) & set(SERVICES[SERVER]["networks"])
    assert POD["hostAliases"] == [{"ip": "127.0.0.1", "hostnames": [PROXY]}]


def test_assertions_are_signed_in_the_one_way_the_platform_verifies() -> None:
    assert load("compose").assertions.algorithm == "RS256"


# --- ports and probes ----------------------------------------------------------------------------------------------


@EACH
def test_the_listeners_are_reachable_from_outside_the_container(deployment: str) -> None:
    settings = load(deployment)
    assert (str(settings.listen), str(settings.ops_listen)) == ("0.0.0.0:8080", "0.0.0.0:9090")


def test_the_ports_are_those_of_the_listeners() -> None:
    settings = load("sidecar")
    ports = {one["name"]: one["containerPort"] for one in CONTAINERS[PROXY]["ports"]}
    assert ports == {"http": settings.listen.port, "ops": settings.ops_listen.port}
    for name, port in ((PROXY, "http"), (f"{PROXY}-ops", "ops")):
        (service,) = OBJECTS["Service", name]["spec"]["ports"]
        assert (service["targetPort"], service["port"]) == (port, ports[port])


def test_compose_publishes_the_data_listener_on_the_loopback_and_the_ops_listener_nowhere() -> None:
    (published,) = SERVICES[PROXY]["ports"]
    assert published.startswith("127.0.0.1:8080-")
    assert published.endswith(f":{load('compose').listen.port}")


def test_the_probes_ask_what_the_ops_listener_answers() -> None:
    ops = build_ops(dict, dict, Metrics("test"))
    answered = {resource.canonical for resource in ops.router.resources()}
    probes = {kind: CONTAINERS[PROXY][f"{kind}Probe"]["httpGet"] for kind in ("liveness", "readiness")}
    assert probes == {
        "liveness": {"path": "/healthz", "port": "ops"},
        "readiness": {"path": "/readyz", "port": "ops"},
    }
    assert {one["path"] for one in probes.values()} <= answered


def test_tls_in_front_leads_to_the_proxy_and_lets_go_of_idle_connections_first() -> None:
    text, settings = (DEPLOY / "Caddyfile").read_text(), load("compose")
    assert f"{{$PROXY_HOST:{PROXY}}} {{$PROXY_PORT:{settings.listen.port}}}" in text
    (keepalive_seconds,) = re.findall(r"keepalive (\d+)s", text)
    assert int(keepalive_seconds) < settings.server.keepalive_timeout_seconds
    assert set(SERVICES["caddy"]["networks"]) == {"edge"}
    assert "edge" in SERVICES[PROXY]["networks"]


# --- no way around -------------------------------------------------------------------------------------------------


def test_in_compose_only_the_proxy_and_the_orchestrator_reach_the_mcp_server() -> None:
    (network,) = SERVICES[SERVER]["networks"]
    assert COMPOSE["networks"][network] == {"internal": True}
    assert {name for name, one in SERVICES.items() if network in one["networks"]} == {
        PROXY,
        SERVER,
        "aegis-orchestrator",
    }


def test_in_compose_only_the_way_in_publishes_ports() -> None:
    assert {name for name, one in SERVICES.items() if "ports" in one} == {PROXY, "caddy"}
    assert not any("network_mode" in one for one in SERVICES.values())


def test_in_compose_only_the_proxy_reaches_its_database() -> None:
    assert {name for name, one in SERVICES.items() if "database" in one["networks"]} == {PROXY, "postgres"}
    assert COMPOSE["networks"]["database"] == {"internal": True}


def test_in_the_pod_the_network_policy_admits_to_the_ports_of_the_proxy_only() -> None:
    policy = OBJECTS["NetworkPolicy", PROXY]["spec"]
    labels = OBJECTS["Deployment", PROXY]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert policy["policyTypes"] == ["Ingress"]
    for rule in policy["ingress"]:
        assert rule["from"], "an empty list is everybody"
        assert all(any(peer.values()) for peer in rule["from"])
        assert {port["port"] for port in rule["ports"]} <= {"http", "ops"}
    assert "ports" not in CONTAINERS[SERVER]


def test_in_the_pod_every_service_leads_to_the_proxy() -> None:
    targets = [
        port["targetPort"] for (kind, _), one in OBJECTS.items() if kind == "Service" for port in one["spec"]["ports"]
    ]
    assert sorted(targets) == ["http", "ops"]
    assert not POD.get("hostNetwork")


def test_in_the_pod_the_mcp_server_loads_what_keeps_it_on_the_loopback() -> None:
    (mount,) = CONTAINERS[SERVER]["volumeMounts"]
    (volume,) = (one for one in POD["volumes"] if one["name"] == mount["name"])
    (item,) = volume["configMap"]["items"]
    options = ENVIRONMENTS["sidecar"][SERVER]["NODE_OPTIONS"]
    assert options == f"--require={mount['mountPath']}/{item['path']}"
    assert item["key"] in OBJECTS["ConfigMap", volume["configMap"]["name"]]["data"]


@pytest.fixture
def loopback_server(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A server in Node.js that listens as the platform's does, with what the pod loads before it."""
    preload = tmp_path / "loopback.cjs"
    preload.write_text(OBJECTS["ConfigMap", SERVER]["data"]["loopback.cjs"])
    program = (
        "const s = require('http').createServer().listen(process.env.PORT, () => console.log(s.address().address))"
    )
    process = subprocess.Popen(
        ["node", "--eval", program],
        env={"PORT": "0", "NODE_OPTIONS": f"--require={preload}", "PATH": "/usr/local/bin:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process
        process.kill()


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js, which the platform's MCP server runs on")
def test_a_node_server_with_that_listens_on_the_loopback_and_ends_on_sigterm(
    loopback_server: subprocess.Popen[str],
) -> None:
    assert loopback_server.stdout is not None
    assert loopback_server.stdout.readline() == "127.0.0.1\n"
    loopback_server.send_signal(signal.SIGTERM)
    assert loopback_server.wait(timeout=60) == 0


# --- stopping ------------------------------------------------------------------------------------------------------


def get_pre_stop_seconds(container: str) -> int:
    command, seconds = CONTAINERS[container]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    return int(seconds)


def test_in_compose_running_calls_may_end_before_the_proxy_is_killed_and_their_upstream_stopped() -> None:
    grace = SERVICES[PROXY]["stop_grace_period"]
    assert grace.endswith("s")
    assert int(grace.removesuffix("s")) > load("compose").server.drain_seconds
    assert SERVER in SERVICES[PROXY]["depends_on"]


def test_in_the_pod_running_calls_may_end_before_their_upstream_does_and_that_before_the_pod() -> None:
    drained = get_pre_stop_seconds(PROXY) + load("sidecar").server.drain_seconds
    assert drained < get_pre_stop_seconds(SERVER) < POD["terminationGracePeriodSeconds"]


# --- secrets, images, privileges -----------------------------------------------------------------------------------


def test_no_secret_stands_in_a_file() -> None:
    settings = load_settings(DEPLOY / "gateway.yaml", {})
    assert (settings.database.url, settings.database.listener_url, settings.secret_key) == (None, None, None)
    assert {one.bearer_token for one in settings.upstreams.configured.values()} == {None}
    assert not any(kind == "Secret" for kind, _ in OBJECTS)
    for name in ("AEGIS_DATABASE_URL", "AEGIS_SECRET_KEY"):
        (variable,) = (one for one in CONTAINERS[PROXY]["env"] if one["name"] == name)
        assert set(variable) == {"name", "valueFrom"}
        assert "${" in SERVICES[PROXY]["environment"][name]


def test_the_example_names_every_variable_and_leaves_the_required_ones_to_be_filled_in() -> None:
    used = re.findall(r"\$\{(\w+):([-?])", (DEPLOY / "compose.yaml").read_text())
    offered = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", (DEPLOY / "example.env").read_text(), re.MULTILINE))
    assert set(offered) == {name for name, _ in used}
    assert {name for name, kind in used if kind == "?"} == {name for name, value in offered.items() if not value}


def list_images() -> Iterator[str]:
    yield from (fill_in(one["image"], {}) for one in SERVICES.values())
    yield from (one["image"] for one in CONTAINERS.values())


@pytest.mark.parametrize("image", sorted(set(list_images())))
def test_images_are_pinned(image: str) -> None:
    _, _, tag = image.rpartition("/")[2].partition(":")
    assert re.match(r"[0-9]", tag), "a tag that names a version"


def test_the_image_of_the_proxy_is_that_of_this_version() -> None:
    assert [image for image in list_images() if image.startswith(PROXY)] == [f"{PROXY}:{proxy.__version__}"] * 2


def test_the_same_platform_is_deployed_in_both_ways() -> None:
    assert fill_in(SERVICES[SERVER]["image"], {}) == CONTAINERS[SERVER]["image"]


@pytest.mark.parametrize("name", [PROXY, SERVER])
def test_containers_have_no_privileges_and_change_no_files(name: str) -> None:
    pod, service = CONTAINERS[name]["securityContext"], SERVICES[name]
    assert pod["readOnlyRootFilesystem"]
    assert service["read_only"]
    assert pod["capabilities"] == {"drop": ["ALL"]}
    assert service["cap_drop"] == ["ALL"]
    assert pod["allowPrivilegeEscalation"] is False
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert POD["securityContext"]["runAsNonRoot"]


def test_the_proxy_runs_as_the_user_of_its_image() -> None:
    (user,) = re.findall(r"^USER (\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert CONTAINERS[PROXY]["securityContext"]["runAsUser"] == int(user)


# --- the shape of what Kubernetes is given -------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), OBJECTS)
def test_every_field_is_one_that_kubernetes_knows(kind: str, name: str) -> None:
    assert list(list_misspelt(OBJECTS[kind, name], (kind,))) == []
    assert OBJECTS[kind, name]["apiVersion"] == VERSIONS[kind]


def test_a_misspelt_field_is_found_wherever_it_is() -> None:
    broken = {"spec": {"template": {"spec": {"containers": [{"name": "x", "securityContext": {"runAsUsr": 1}}]}}}}
    (found,) = list_misspelt(broken, ("Deployment",))
    assert found == "Deployment.spec.template.spec.containers.securityContext.runAsUsr"


def test_whatever_selects_pods_selects_ours() -> None:
    labels = OBJECTS["Deployment", PROXY]["spec"]["template"]["metadata"]["labels"]
    selectors = {key: one["spec"]["selector"] for key, one in OBJECTS.items() if "selector" in one.get("spec", {})}
    assert {kind for kind, _ in selectors} == {"Deployment", "Service", "PodDisruptionBudget"}
    assert all(selector.get("matchLabels", selector) == labels for selector in selectors.values())


# --- the words about it --------------------------------------------------------------------------------------------


def test_the_guide_names_files_and_settings_that_exist() -> None:
    guide = (ROOT / "docs" / "deploying.md").read_text()
    named = set(re.findall(r"`(?:deploy/)?([\w.-]+\.(?:yaml|env)|Caddyfile)`", guide))
    assert {"compose.yaml", "sidecar.yaml", "gateway.yaml", "Caddyfile", "example.env"} <= named
    ours = {"policy.yaml": ROOT / "config"}
    theirs = {"aegis-config.yaml"}
    assert all((ours.get(name, DEPLOY) / name).is_file() for name in named - theirs)
    assert set(re.findall(r"\bAEGIS_\w+", guide)) <= {*ENVIRONMENT, "AEGIS_ORCHESTRATOR_URL", "AEGIS_RUNTIME_TAG"}


def test_the_guide_tells_the_orchestrator_what_our_assertions_say() -> None:
    (block,) = re.findall(r"```yaml\n(spec:\n  iam:.*?)```", (ROOT / "docs" / "deploying.md").read_text(), re.DOTALL)
    (realm,) = YAML(typ="safe", pure=True).load(block)["spec"]["iam"]["realms"]
    settings = load("sidecar")
    assert settings.upstreams.api is not None
    assert (realm["issuer_url"], realm["audience"]) == (
        settings.assertions.issuer,
        settings.upstreams.api.identity.audience,
    )
    assert realm["jwks_uri"] == f"http://{PROXY}:{settings.ops_listen.port}{JWKS_PATH}"
