"""How no is said to whoever manages keys: domain errors and faults of input, as refusals.  [pure]

In go what `keys` raises and what pydantic found wrong, out comes a `Refusal` with its reason. What was sent is not
repeated beyond the name of a member, and nothing here knows a status number.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydantic import ValidationError

from proxy.errors import CredentialError, DeniedError, Reason, Refusal, RequestError
from proxy.keys.rights import CallerError, RightsError
from proxy.policy.scopes import show

MAX_FAULTS: Final = 20
FOREIGN: Final = frozenset({Reason.OWNER_UNKNOWN, Reason.TENANT_MISMATCH})  # proven to be somebody, and nobody here


def refuse_rights(error: RightsError, rule: str) -> DeniedError:
    """Understood, and not the caller's to do. `rule`: what was asked for, as denials name it."""
    return DeniedError(error.reason, f"{error.detail}.", data={"rule": rule, "missing": list(error.missing)})


def refuse_caller(error: CallerError) -> Refusal:
    """Whoever asks may not ask, or not any more."""
    kind = RequestError if error.reason in FOREIGN else CredentialError
    return kind(error.reason, f"{error.detail}.")


def refuse_input(faults: Iterable[tuple[str, str]]) -> RequestError:
    """`faults`: which member, and what is wrong with it."""
    listed = [{"field": show(field), "message": message} for field, message in faults][:MAX_FAULTS]
    detail = "; ".join(f"{fault['field']}: {fault['message']}" for fault in listed)
    return RequestError(Reason.INPUT_INVALID, f"{detail}.", data={"faults": listed})


def refuse_shape(error: ValidationError) -> RequestError:
    """What a model does not take."""
    return refuse_input(
        (".".join(map(str, detail["loc"])) or "body", detail["msg"].removeprefix("Value error, "))
        for detail in error.errors(include_url=False, include_context=False, include_input=False)
    )


def refuse_cursor() -> RequestError:
    """It was made up, or given out by another list."""
    return refuse_input([("cursor", "not one that this list gave out")])


def refuse_conflict(detail: str) -> RequestError:
    """It contradicts what is stored."""
    return RequestError(Reason.KEY_CONFLICT, f"{detail}.")


def refuse_stale() -> RequestError:
    """It has changed since the caller read it."""
    return RequestError(Reason.KEY_CHANGED, "The key has changed since it was read: read it again.")


def refuse_missing_key() -> RequestError:
    """One answer for what is not there and for what is another's."""
    return RequestError(Reason.KEY_NOT_FOUND, "There is no such API key.")


def refuse_missing_owner() -> RequestError:
    """The same of owners."""
    return RequestError(Reason.OWNER_NOT_FOUND, "There is no such owner.")
