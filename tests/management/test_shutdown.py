"""While an instance shuts down, what was asked of the management API is answered, and nothing new is taken in."""

from __future__ import annotations

import asyncio

from tests.management.asking import KEYS, Api
from tests.staging import GUARD_SECONDS, Stage

# Somebody who will not confirm, and is not known to be gone.
SILENT = "INSERT INTO instances (id, version, bound_seconds) VALUES (gen_random_uuid(), 'silent', 3600) RETURNING id"


async def test_a_shutdown_waits_for_a_revocation_that_waits_for_its_receipt(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token)
    (silent,) = await stage.database.fetch(SILENT)
    async with asyncio.timeout(GUARD_SECONDS):
        revocation = asyncio.create_task(api.ask("DELETE", f"{KEYS}/{made['id']}", admin.token))
        while not await stage.database.fetch("SELECT FROM api_keys WHERE id = $1 AND status = 'revoked'", made["id"]):
            await asyncio.sleep(0)
        leaving = asyncio.create_task(api.proxy.drain())
        said = await api.ask("GET", KEYS, admin.token)
        assert (said.status, said.code) == (503, "draining")
        assert not revocation.done()
        assert not leaving.done()
        await stage.sql("DELETE FROM instances WHERE id = $1", silent["id"])
        receipt = (await revocation).json
        await leaving
    assert receipt["confirmed"] is True
    assert [one["instance"] for one in receipt["instances"]] == [str(api.proxy.heart.instance)]
