"""The ops listener: health, readiness, metrics, the public keys of assertions. Never public.  [io]

In go probes, out come plain answers. Liveness says that the event loop turns; readiness says, fault by fault, why
requests should go elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from proxy.discovery import JWKS_PATH
from proxy.headers import SERVER
from proxy.metrics import Metrics

# What is wrong, by the name of the part; empty when all is well.
FindFaults = Callable[[], Mapping[str, str]]


def build_ops(
    find_faults: FindFaults,
    show_state: Callable[[], Mapping[str, object]],
    metrics: Metrics,
    read_jwks: Callable[[], Awaitable[bytes]] | None = None,
) -> web.Application:
    """The application behind the ops listener. `read_jwks`: the public keys of assertions, where there are any."""

    async def get_health(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def get_readiness(_request: web.Request) -> web.Response:
        faults = dict(find_faults())
        body = {"ready": not faults, "faults": faults, **show_state()}
        return web.json_response(body, status=503 if faults else 200, headers={"Cache-Control": "no-store"})

    async def get_metrics(_request: web.Request) -> web.Response:
        body, content_type = metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def get_jwks(_request: web.Request) -> web.Response:
        body = await read_jwks() if read_jwks is not None else b'{"keys":[]}'
        return web.Response(body=body, content_type="application/json")

    async def sign(_request: web.Request, response: web.StreamResponse) -> None:
        name, value = SERVER
        response.headers[name] = value

    app = web.Application()
    app.on_response_prepare.append(sign)
    app.router.add_get("/healthz", get_health)
    app.router.add_get("/readyz", get_readiness)
    app.router.add_get("/metrics", get_metrics)
    app.router.add_get(JWKS_PATH, get_jwks)
    return app
