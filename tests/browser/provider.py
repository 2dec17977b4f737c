"""A proxy whose page people sign in at by an identity provider, which is another site: it is called `localhost`."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import SecretStr

from proxy.keys.owners import Owners
from proxy.keys.rights import form_operator
from proxy.server import Proxy
from proxy.settings_management import IdentityProviderSettings
from tests.issuer import AUDIENCE, Issuer
from tests.staging import Stage

CALLBACK = "/settings/sign-in/callback"
CLIENT_ID, SECRET = "the page", "client secret: s3cr3t"


@asynccontextmanager
async def run_page(stage: Stage, upstream_url: str, issuer: Issuer) -> AsyncIterator[Proxy]:
    """Ada has an account at both. The provider has to know the page's address, so that this is settled before."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    issuer.page = (CLIENT_ID, SECRET, url + CALLBACK)
    await Owners(stage.database).add(
        form_operator("test"), stage.policy, issuer=issuer.url, subject="ada", tenant="acme", tier="pro"
    )
    async with stage.proxy(
        upstream_url,
        management={"identity_provider": IdentityProviderSettings(issuer=issuer.url, audience=AUDIENCE)},
        via={"listen": f"127.0.0.1:{port}"},
        server={"public_url": url},
        console={"client_id": CLIENT_ID, "client_secret": SecretStr(SECRET)},
    ) as proxy:
        yield proxy
