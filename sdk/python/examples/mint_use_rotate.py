"""Mint a key for one purpose, use it, give it another secret, end it.

AEGIS_API_KEY=… AEGIS_BASE_URL=… python mint_use_rotate.py     (a key that may make keys, such as one of Full Access)
"""

from __future__ import annotations

from aegis_sdk import AegisClient, KeyRevokedError, PermissionDeniedError, SecretRetiredError
from aegis_sdk.models import MintedKey


def main() -> None:
    with AegisClient() as client:
        minted = client.keys.mint("nightly", scopes=["workflow:run:nightly-etl"])
        print("minted", minted.name, minted.scopes)
        use(minted)
        asked = client.keys.explain(minted.id, method="GET", path="/v1/agents/invoice-reader")
        print("explained:", asked.allowed)
        rotate(client, minted)


def use(minted: MintedKey) -> None:
    with AegisClient(api_key=minted.key) as nightly:
        print("runs", nightly.workflows.run("nightly-etl").subject)
        try:
            nightly.agents.get("invoice-reader")
        except PermissionDeniedError as denied:
            print("may not:", denied.missing)


def rotate(client: AegisClient, minted: MintedKey) -> None:
    rotated = client.keys.rotate(minted.id, grace="now")
    with AegisClient(api_key=minted.key) as before, AegisClient(api_key=rotated.key) as after:
        try:
            before.whoami()
        except SecretRetiredError:
            print("the old secret is over")
        print("the new one is", after.whoami().name)
        receipt = client.keys.revoke(minted.id, reason="an example")
        print("revoked, on every instance:", receipt.confirmed)
        try:
            after.whoami()
        except KeyRevokedError as error:
            print("ended:", error.code)


if __name__ == "__main__":
    main()
