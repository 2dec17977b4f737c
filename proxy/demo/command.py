"""`aegis-proxy demo`: the whole product on one machine, thrown away on Ctrl-C.  [io]

An embedded PostgreSQL of its own (whatever the environment says), a sample platform whose MCP server and REST API
believe nobody but the proxy, the proxy itself, and a key for each preset, printed with commands to paste. Its keys live
a day.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console

from proxy.cli.context import with_database
from proxy.cli.serving import wait_and_drain
from proxy.console.sign_in_pages import LINK
from proxy.database import Database, migrate
from proxy.demo.assertion_check import AssertionCheck
from proxy.demo.sample_api import run_sample_api
from proxy.demo.sample_server import run_sample_server
from proxy.embedded_postgres import run_embedded_postgres
from proxy.identity import KeyId
from proxy.keys.hashing import Hasher
from proxy.keys.minting import MintedKey, MintRequest, mint
from proxy.keys.store import KeyStore
from proxy.logs import configure_logging
from proxy.policy import Policy
from proxy.policy.scopes import is_grantable
from proxy.policy_files import PolicyFiles
from proxy.server import Proxy, run_proxy
from proxy.settings import IdentitySettings, Settings, load_settings

OWNER = "demo"
KEY_LIFETIME = timedelta(days=1)
ONE_WORKFLOW = "workflow:run:nightly-etl"
ONE_WORKFLOW_KEY = "nightly-etl-only"
HIGHEST_TIER = "enterprise"
ISSUER = "aegis-proxy"
# A demo behaves the same wherever it is run: of the environment it hears only how much to log (by default warnings).
HEARD = ("AEGIS_LOG_LEVEL",)


async def run_demo(listen: str, ops_listen: str, policy_file: Path | None = None) -> None:
    """Start everything, print what to try, wait for Ctrl-C, clean up. Edits of the policy are followed, as in
    production; None: the shipped one. Raises ProxyError."""
    console = Console(highlight=False)
    environ = {name: os.environ[name] for name in HEARD if name in os.environ}
    async with AsyncExitStack() as stack:
        with console.status("starting") as status:

            def show(step: str) -> None:
                status.update(step)
                if not console.is_terminal:
                    console.print(f"… {step}")

            show("starting a private PostgreSQL")
            postgres = await stack.enter_async_context(run_embedded_postgres(None, on_progress=show))
            show("creating the schema")
            await migrate(postgres.url)
            show("starting the sample platform: an MCP server and a REST API")
            checks = {name: AssertionCheck(None, name, ISSUER) for name in ("mcp", "api")}
            sample = await stack.enter_async_context(run_sample_server(check=checks["mcp"]))
            api = await stack.enter_async_context(run_sample_api(sample.platform, check=checks["api"]))
            settings = load_settings(
                None,
                {"AEGIS_UPSTREAM_MCP": sample.url, "AEGIS_UPSTREAM_API": api.url, "AEGIS_LISTEN": listen,
                 "AEGIS_OPS_LISTEN": ops_listen, "AEGIS_SECRET_KEY": os.urandom(32).hex(), **environ},
            )  # fmt: skip
            settings = with_assertions(with_database(settings, postgres.url))
            policy_files = PolicyFiles(policy_file or settings.policy)
            policy = policy_files.load()
            show("minting keys")
            keys = await mint_demo_keys(settings, policy)
            show("starting the proxy")
            configure_logging(environ.get("AEGIS_LOG_LEVEL", "warning"), sys.stderr)
            proxy = await stack.enter_async_context(run_proxy(settings, policy, policy_files))
            await proxy.wait_trusted()
            for check in checks.values():
                check.jwks_uri = f"http://{proxy.ops_address}/.well-known/jwks.json"
        data, link = f"http://{proxy.data_address}", make_link(proxy, keys)
        print_welcome(console, keys, data, f"http://{proxy.ops_address}", postgres.url, link)
        await wait_and_drain(proxy)
        console.print("cleaning up")


def with_assertions(settings: Settings) -> Settings:
    """Every upstream is told by an assertion in whose name it is called."""
    named = {
        name: upstream.model_copy(update={"identity": IdentitySettings(profile="assertion", audience=name)})
        for name, upstream in settings.upstreams.configured.items()
    }
    issuer = settings.assertions.model_copy(update={"issuer": ISSUER})
    return settings.model_copy(update={"upstreams": settings.upstreams.model_copy(update=named), "assertions": issuer})


async def mint_demo_keys(settings: Settings, policy: Policy) -> dict[str, MintedKey]:
    """A key for each preset, and one for a single workflow, by name."""
    hashing = settings.hashing
    hasher = Hasher(
        memory_cost_kib=hashing.memory_cost_kib,
        time_cost=hashing.time_cost,
        threads=1,
        queue_size=8,
        timeout_seconds=30,
    )
    wanted: dict[str, tuple[str | None, tuple[str, ...]]] = {name: (name, ()) for name in policy.presets}
    if is_grantable(ONE_WORKFLOW, policy.catalogue):
        wanted[ONE_WORKFLOW_KEY] = (None, (ONE_WORKFLOW,))
    # The highest tier, so that Full Access really shows everything.
    tier = HIGHEST_TIER if HIGHEST_TIER in policy.tiers else policy.default_tier
    url = settings.database.url
    assert url is not None
    try:
        async with Database.open(
            url.get_secret_value(), min_size=1, max_size=1, connect_timeout_seconds=5, query_timeout_seconds=5
        ) as database:
            store = KeyStore(database)
            expires_at = datetime.now(UTC) + KEY_LIFETIME
            return {
                name: await mint(
                    MintRequest(name=name, owner=OWNER, actor="demo", tier=tier, preset=preset, scopes=scopes,
                                expires_at=expires_at),
                    policy=policy, store=store, hasher=hasher,
                )
                for name, (preset, scopes) in wanted.items()
            }  # fmt: skip
    finally:
        hasher.close()


def make_link(proxy: Proxy, keys: Mapping[str, MintedKey]) -> str | None:
    """Where one is signed in at the page, once, by the key that may manage keys; None: no preset may."""
    key = keys.get("full-access")
    if key is None:
        return None
    return f"http://{proxy.data_address}{LINK}?once={proxy.office.links.make(KeyId(key.summary.id), 1)}"


def print_welcome(
    console: Console, keys: Mapping[str, MintedKey], data: str, ops: str, database_url: str, link: str | None
) -> None:
    """What was started, and what to paste next."""
    python, command = shorten(Path(sys.executable)), shorten(Path(sys.executable).with_name("aegis-proxy"))
    execution = keys["execution"] if "execution" in keys else next(iter(keys.values()))
    url = f"{data}/mcp/v1"

    def line(text: str = "") -> None:
        console.print(text, soft_wrap=True)

    line(f"\n[bold green]ready[/]  MCP {url}  ·  REST {data}/v1  ·  ops {ops}/readyz  ·  Ctrl-C deletes everything\n")
    line("[bold]Keys[/] (they live a day)")
    for name, key in keys.items():
        line(f"  {name:<17} {key.token}")
    if link is not None:
        line("\n[bold]Manage keys in a browser[/]: this link signs you in, once")
        line(f"  {link}")
    line("\n[bold]Try one[/] in another terminal: list the tools, then run a workflow and watch its progress")
    line(f"  AEGIS_API_KEY={execution.token} {python} -m proxy.demo.client {url}")
    line("\n[bold]Revoke it while that runs[/]: the stream, the call and the session end at once")
    line(f"  AEGIS_DATABASE_URL={shlex.quote(database_url)} {command} keys revoke {execution.summary.id}")
    line("\n[bold]Or ask the REST API[/], here with the key that may run one workflow and nothing else")
    one = keys.get(ONE_WORKFLOW_KEY, execution)
    bearer = f'-H "Authorization: Bearer {one.token}"'
    line(f"  curl -X POST {bearer} {data}/v1/workflows/nightly-etl/run")
    line("\n[bold]Or connect an editor[/]")
    line(f'  claude mcp add --transport http aegis {url} --header "Authorization: Bearer {execution.token}"\n')


def shorten(path: Path) -> str:
    """Relative when it lies below the working directory: shorter to read, and true for whoever pastes it here."""
    working = Path.cwd()
    return str(path.relative_to(working)) if path.is_relative_to(working) else str(path)
