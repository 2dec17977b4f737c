"""What a program sees whose key is revoked while it follows an execution.

AEGIS_API_KEY=… AEGIS_BASE_URL=… python revoke_while_streaming.py     (a key that may make and revoke keys)
"""

from __future__ import annotations

from aegis_sdk import AegisClient, KeyRevokedError


def main() -> None:
    with AegisClient() as owner:
        minted = owner.keys.mint("watcher", preset="execution")
        with AegisClient(api_key=minted.key) as watcher:
            execution = watcher.workflows.run("nightly-etl")
            try:
                for number, event in enumerate(watcher.executions.stream(execution.execution_id)):
                    print(event.type)
                    if number == 1:
                        owner.keys.revoke(minted.id, reason="an example")
            except KeyRevokedError as revoked:
                print("the key was revoked:", revoked.code)


if __name__ == "__main__":
    main()
