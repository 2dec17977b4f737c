"""Whatever the published document allows or forbids is answered as the document says: no 5xx, nothing undocumented.

Requests are drawn from the document that the proxy serves, good ones and bad ones, and sent over sockets; now and then
an id is one that exists.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import aiohttp
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from proxy.demo.sample_server import SampleServer
from proxy.settings_management import IdentityProviderSettings
from tests.fuzz.scale import MANAGED, SEED
from tests.issuer import AUDIENCE, run_issuer
from tests.management.asking import KEYS, Api, add_owner
from tests.staging import Stage

PRECONDITION_FAILED = 412
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance, negative_data_rejection,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class World:
    """What requests are drawn over. `ids`: of what there is, by the collection it is in."""

    document: dict[str, Any]
    url: str
    tokens: tuple[str, ...]
    ids: dict[str, tuple[str, ...]]


async def test_every_answer_is_one_of_the_documents(
    stage: Stage, sample: SampleServer, http: aiohttp.ClientSession
) -> None:
    async with run_issuer() as issuer:
        provider = IdentityProviderSettings(issuer=issuer.url, audience=AUDIENCE)
        sections: dict[str, dict[str, Any]] = {
            "database": {"query_timeout_seconds": 20.0}, "revocation": {"lease_seconds": 20.0},
            "management": {"identity_provider": provider},
        }  # fmt: skip
        async with stage.proxy(sample.url, **sections) as proxy:
            world = await build(Api(http, proxy, stage), issuer.sign(sub="root", aegis_role="aegis:admin", exp=2**40))
            owner = await add_owner(stage, issuer, "ada")
            await add_owner(stage, issuer, "root", tier="enterprise")
            world.ids["owners"] = (owner,)
            seen = await asyncio.to_thread(try_everything, world)
    assert {200, 201, 400, 403, 404, 409, 422} <= seen, seen


async def build(api: Api, admin: str) -> World:
    """A tree of keys, and one who holds it."""
    root = (await api.stage.mint("full-access")).token
    made = [await api.mint(root, name=f"key {number}", preset="full-access") for number in range(3)]
    await api.mint(made[0]["key"], name="grandchild")
    await api.ask("DELETE", f"{KEYS}/{made[2]['id']}", root)
    document = (await api.ask("GET", "/v1/openapi.json", None)).json
    url = f"http://{api.proxy.data_address}"
    return World(document, url, (root, admin), {"api-keys": tuple(key["id"] for key in made)})


def make_sense(case: Any, known_id: str) -> None:
    """The document does not know what there is, and which scopes there are in the policy: mostly there are none."""
    if "id" in case.path_parameters:
        case.path_parameters["id"] = known_id
    if isinstance(case.body, dict) and case.body.keys() & {"preset", "scopes"}:
        case.body |= {"preset": None, "scopes": ["agent:list"]}


def try_everything(world: World) -> set[int]:
    """The statuses that were seen."""
    load_all_checks()
    schema = schemathesis.openapi.from_dict(world.document)
    seen: set[int] = set()
    for number, found in enumerate(schema.get_all_operations()):
        assert isinstance(found, Ok)
        operation = found.ok()
        known = st.sampled_from(world.ids.get(operation.path.split("/")[2], ("",)))
        for mode in GenerationMode if operation.path != "/v1/openapi.json" else [GenerationMode.POSITIVE]:

            @seed(SEED + number)
            @settings(
                max_examples=MANAGED, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(operation.as_strategy(generation_mode=mode), st.sampled_from(world.tokens), known, st.booleans())
            def ask(case: Any, token: str, known_id: str, knows: bool) -> None:
                if knows and case.meta is not None and case.meta.generation.mode.is_positive:
                    make_sense(case, known_id)
                response = case.call(base_url=world.url, headers={"Authorization": f"Bearer {token}"})
                seen.add(response.status_code)
                # A precondition that fails is a refusal, too, though schemathesis does not count it as one.
                failed = response.status_code == PRECONDITION_FAILED
                case.validate_response(response, checks=CHECKS, excluded_checks=[negative_data_rejection] * failed)

            ask()
    return seen
