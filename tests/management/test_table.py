"""Every endpoint, by every kind of caller: who is let do what, over real sockets."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from proxy.identity import KeyId
from proxy.keys.token import SECRET_LENGTH, form_token
from proxy.management.endpoints import ENDPOINTS, Endpoint
from tests.issuer import Issuer
from tests.management.asking import KEYS, Api, add_owner
from tests.staging import Stage

CALLERS = (
    "nobody", "malformed", "unknown", "expired", "without the scope", "with the scope", "child", "of another owner",
    "of another tenant", "owner", "admin", "unknown owner", "foreign token",
)  # fmt: skip
# What a request says where it says anything at all.
BODIES: dict[str, object] = {
    "create_api_key": {"name": "made here", "scopes": ["agent:list"], "expires_in": "7d"},
    "update_api_key": {"name": "renamed"},
    "explain_api_key": {"tool": "aegis.agent.list"},
    "add_owner": {"subject": "new"},
    "update_owner": {"tier": "free"},
}
QUERIES = {"list_names": {"scope": "workflow:run"}}
REFUSED_CREDENTIALS = {
    "nobody": (401, "credential_missing"),
    "malformed": (401, "credential_malformed"),
    "unknown": (401, "credential_invalid"),
    "expired": (401, "key_expired"),
    "unknown owner": (403, "owner_unknown"),
    "foreign token": (401, "token_invalid"),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """Tokens by the kind of caller. `target`: a key of Ada's, made by the one "with the scope"; `owner`: Ada."""

    tokens: dict[str, str | None]
    target: str
    owner: str


async def set_up(api: Api, stage: Stage, issuer: Issuer, endpoint: Endpoint) -> Scene:
    """A key that holds what the endpoint takes, one that it made, and everybody who is somebody else."""
    takes = [endpoint.scope] if endpoint.scope is not None else []
    owner = await add_owner(stage, issuer, "ada", tier="pro", tenant="default")
    await add_owner(stage, issuer, "root", tier="enterprise", tenant="default")
    ada = issuer.sign()
    holder = await api.mint(ada, name="holder", preset=None, scopes=["key:create", "agent:list", *takes])
    target = await api.mint(holder["key"], name="target", preset=None, scopes=["agent:list"])
    child = await api.mint(holder["key"], name="child", preset=None, scopes=["agent:list", *takes])
    lesser = await api.mint(ada, name="lesser", preset=None, scopes=["agent:list"])
    expired = await api.mint(ada, name="expired", preset=None, scopes=["agent:list", *takes])
    await stage.sql("UPDATE api_keys SET expires_at = now() WHERE id = $1", expired["id"])
    other = await stage.mint("full-access", owner="bob")
    foreign = await stage.mint("full-access", owner="eve")
    await stage.sql("UPDATE owners SET tenant_id = 'elsewhere' WHERE subject = 'eve'")
    return Scene(
        {
            "nobody": None,
            "malformed": "aegis_not_a_key",
            "unknown": form_token(KeyId("0" * 12), "0" * SECRET_LENGTH).text,
            "expired": expired["key"],
            "without the scope": lesser["key"],
            "with the scope": holder["key"],
            "child": child["key"],
            "of another owner": other.token,
            "of another tenant": foreign.token,
            "owner": ada,
            "admin": issuer.sign(sub="root", aegis_role="aegis:admin"),
            "unknown owner": issuer.sign(sub="stranger"),
            "foreign token": issuer.sign(aud="somebody else"),
        },
        target["id"],
        owner,
    )


def expect(endpoint: Endpoint, caller: str) -> tuple[int, str | None]:
    """By rules of this file's own: the status, and the code of a refusal."""
    if endpoint.asker == "nobody":
        return 200, None
    good = max(endpoint.answers)
    if caller in REFUSED_CREDENTIALS:
        return REFUSED_CREDENTIALS[caller]
    if endpoint.asker == "admin":
        return (good, None) if caller == "admin" else (403, "role_missing")
    if endpoint.asker == "key":
        return (good, None) if caller not in ("owner", "admin") else (401, "credential_invalid")
    if caller == "without the scope" and endpoint.scope is not None:
        return 403, "scope_missing"
    if "{id}" not in endpoint.path:
        return good, None
    if caller in ("child", "of another owner", "of another tenant"):
        return 404, "key_not_found"
    if caller == "admin" and endpoint.action == "rotate":
        return 403, "not_the_owner"
    return good, None


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=[endpoint.name for endpoint in ENDPOINTS])
async def test_each_caller_is_answered_as_the_table_says(
    endpoint: Endpoint, api: Api, stage: Stage, issuer: Issuer
) -> None:
    scene = await set_up(api, stage, issuer, endpoint)
    subject = scene.owner if endpoint.path.startswith("/v1/owners") else scene.target
    path = endpoint.path.replace("{id}", subject)
    before = await read_everything(stage)
    failures = []
    # Whoever is let do it comes last, so that nobody is refused for what was done already.
    for caller in sorted(CALLERS, key=lambda caller: expect(endpoint, caller)[0] < 400):
        status, code = expect(endpoint, caller)
        if status < 400 and endpoint.name == "create_api_key":
            body: object = {**WANTED, "name": f"of the caller {caller}"}
        else:
            body = BODIES.get(endpoint.name)
        said = await api.ask(endpoint.method, path, scene.tokens[caller], body, QUERIES.get(endpoint.name))
        told = (said.status, said.code if said.status >= 400 else None)
        if told != (status, code):
            failures.append(f"{caller}: {told} instead of {(status, code)}: {said.body[:200]!r}")
        if status >= 400 and await read_everything(stage) != before:
            failures.append(f"{caller} was refused, and something changed all the same")
    assert not failures, "\n".join(failures)


WANTED: dict[str, object] = {"scopes": ["agent:list"], "expires_in": "7d"}


async def read_everything(stage: Stage) -> list[object]:
    """What a refused request must leave as it is."""
    rows: list[object] = []
    for table in ("owners", "api_keys", "api_key_secrets", "idempotency"):
        rows += await stage.database.fetch(f"SELECT t::text FROM {table} t ORDER BY 1")
    return rows


async def test_a_key_does_nothing_to_itself(api: Api, stage: Stage) -> None:
    key = await stage.mint("full-access")
    path = f"{KEYS}/{key.summary.id}"
    for method, suffix, body in (
        ("PATCH", "", {"name": "x"}), ("POST", "/disable", None), ("POST", "/enable", None), ("POST", "/rotate", None),
        ("DELETE", "", None),
    ):  # fmt: skip
        said = await api.ask(method, path + suffix, key.token, body)
        assert (said.status, said.code) == (403, "not_a_descendant")


async def test_an_admin_does_to_others_keys_what_takes_nothing_more_than_the_role(
    api: Api, stage: Stage, issuer: Issuer
) -> None:
    """Nobody's secret but one's own, and no right that the admin does not hold."""
    await add_owner(stage, issuer, "ada", tier="enterprise")
    await add_owner(stage, issuer, "root", tier="free")
    admin = issuer.sign(sub="root", aegis_role="aegis:admin")
    made = await api.mint(issuer.sign(), preset="full-access")
    said = await api.ask("PATCH", f"{KEYS}/{made['id']}", admin, {"name": "x"})
    assert said.status == 403
    await stage.sql("UPDATE owners SET tier = 'enterprise' WHERE subject = 'root'")
    assert (await api.ask("PATCH", f"{KEYS}/{made['id']}", admin, {"name": "x"})).status == 200
    assert (await api.ask("POST", f"{KEYS}/{made['id']}/rotate", admin)).code == "not_the_owner"
    assert (await api.ask("DELETE", f"{KEYS}/{made['id']}", admin)).json["confirmed"] is True
