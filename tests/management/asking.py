"""A client of the management API as a platform's own would be: plain HTTP, and every answer looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from multidict import CIMultiDictProxy

from proxy.keys.owners import Owners
from proxy.keys.rights import form_operator
from proxy.server import Proxy
from tests.issuer import Issuer
from tests.staging import Stage

KEYS = "/v1/api-keys"


@dataclass(frozen=True, slots=True)
class Said:
    """One answer, read whole."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = orjson.loads(self.body)
        return parsed

    @property
    def code(self) -> str:
        return str(self.json["code"])

    @property
    def fields(self) -> list[str]:
        """Which members were wrong."""
        return [fault["field"] for fault in self.json["faults"]]


@dataclass(frozen=True, slots=True)
class Api:
    """`stage` learns of every secret that is told, so that the log can be searched for it."""

    http: aiohttp.ClientSession
    proxy: Proxy
    stage: Stage

    async def ask(
        self,
        method: str,
        path: str,
        token: str | None,
        body: object = None,
        query: Mapping[str, str] | None = None,
        **headers: str,
    ) -> Said:
        """`body` is sent as JSON unless it is bytes; None: no body at all."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None:
            sent = {"Content-Type": "application/json", **sent}
        data = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        url = f"http://{self.proxy.data_address}{path}"
        async with self.http.request(method, url, headers=sent, data=data, params=query) as answer:
            said = Said(answer.status, answer.headers, await answer.read())
        self._check(said)
        return said

    def _check(self, said: Said) -> None:
        """What holds of every answer there is."""
        assert said.headers["Cache-Control"] == "no-store"
        assert said.headers["X-Content-Type-Options"] == "nosniff"
        assert said.headers["X-Request-Id"]
        if said.status >= 400:
            problem = said.json
            assert said.headers["Content-Type"] == "application/problem+json"
            assert problem["status"] == said.status
            assert problem["request_id"] == said.headers["X-Request-Id"]
            assert problem["detail"] == problem["error"] != ""
        else:
            assert said.headers["Content-Type"] == "application/json"
            if "key" in said.json:
                self.stage.note_secret(said.json["key"])

    async def mint(self, token: str, **wanted: object) -> dict[str, Any]:
        """A key, made by another."""
        said = await self.ask("POST", KEYS, token, {"name": "made", "preset": "read-only", **wanted})
        assert said.status == 201, said.body
        return said.json

    async def list_ids(self, token: str, **query: str) -> list[str]:
        """Those of one page."""
        said = await self.ask("GET", KEYS, token, query=query)
        assert said.status == 200, said.body
        return [key["id"] for key in said.json["api_keys"]]


async def add_owner(
    stage: Stage, issuer: Issuer, subject: str = "ada", *, tier: str = "pro", tenant: str = "acme"
) -> str:
    """The id of an owner who signs in at this provider."""
    added = await Owners(stage.database).add(
        form_operator("test"), stage.policy, issuer=issuer.url, subject=subject, tenant=tenant, tier=tier
    )
    return added.id
