"""One tree of errors, and one word for each way of saying no.  [pure]

Foreign exceptions are translated once, in the room that owns the library. A `Refusal` carries a `Reason`; only
`challenges` knows which status, headers and body belong to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class ProxyError(Exception):
    """The root: everything this package raises on purpose."""


class Reason(StrEnum):
    """Why a request was refused: stable words, the `code` of error bodies, log lines and metrics."""

    # the credential
    CREDENTIAL_MISSING = "credential_missing"
    CREDENTIAL_MALFORMED = "credential_malformed"
    CREDENTIAL_INVALID = "credential_invalid"  # unknown id or wrong secret: never told apart
    CREDENTIAL_REPEATED = "credential_repeated"
    CREDENTIAL_MISPLACED = "credential_misplaced"  # a key in the query, where logs and histories keep it
    KEY_EXPIRED = "key_expired"
    KEY_REVOKED = "key_revoked"
    KEY_DISABLED = "key_disabled"
    SECRET_RETIRED = "secret_retired"  # noqa: S105 - a word, not a secret
    OWNER_DISABLED = "owner_disabled"
    TOO_MANY_FAILURES = "too_many_failures"  # of one address, none of which proved a secret
    TOKEN_INVALID = "token_invalid"  # noqa: S105 - a word; a token of the identity provider's that proves nothing here
    TOKEN_EXPIRED = "token_expired"  # noqa: S105
    # the request itself
    REQUEST_UNREADABLE = "request_unreadable"  # not HTTP, or not the HTTP we read
    HEAD_TOO_LARGE = "head_too_large"
    TARGET_NOT_CANONICAL = "target_not_canonical"
    ROUTE_UNKNOWN = "route_unknown"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    HOST_NOT_ALLOWED = "host_not_allowed"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    HEADER_INVALID = "header_invalid"
    HEADER_REPEATED = "header_repeated"
    HEADER_MISMATCH = "header_mismatch"  # a mirrored MCP header contradicts the body
    QUERY_NOT_ALLOWED = "query_not_allowed"
    HTTP_VERSION_UNSUPPORTED = "http_version_unsupported"
    TRANSFER_ENCODING_UNSUPPORTED = "transfer_encoding_unsupported"
    EXPECTATION_FAILED = "expectation_failed"
    CONTENT_TYPE_UNSUPPORTED = "content_type_unsupported"
    CONTENT_ENCODING_UNSUPPORTED = "content_encoding_unsupported"
    BODY_TOO_LARGE = "body_too_large"
    BODY_UNEXPECTED = "body_unexpected"
    BODY_TIMEOUT = "body_timeout"
    MESSAGE_UNREADABLE = "message_unreadable"  # not strict JSON
    MESSAGE_INVALID = "message_invalid"  # JSON, but not one JSON-RPC message
    PARAMS_INVALID = "params_invalid"  # a JSON-RPC message without what its method needs
    CAPABILITY_MISSING = "capability_missing"  # of an extension the client did not say it speaks
    # the decision
    ROUTE_DENIED = "route_denied"
    MESSAGE_DENIED = "message_denied"
    METHOD_UNKNOWN = "method_unknown"  # an RPC method no rule names
    RIGHTS_CHANGED = "rights_changed"  # while the call ran, the key lost what the call rested on
    HANDLE_UNKNOWN = "handle_unknown"  # a requestState or task of another key, another request, or nobody
    SESSION_UNKNOWN = "session_unknown"  # of another key, or of nobody: never told apart
    # the management of keys and owners
    INPUT_INVALID = "input_invalid"  # strict JSON, but not what the endpoint takes
    SCOPE_MISSING = "scope_missing"  # the `key:*` scope that the endpoint takes
    RIGHTS_EXCEEDED = "rights_exceeded"
    EXPIRY_EXCEEDED = "expiry_exceeded"
    CONSTRAINTS_EXCEEDED = "constraints_exceeded"
    NOT_A_DESCENDANT = "not_a_descendant"
    NOT_THE_OWNER = "not_the_owner"
    TOO_MANY_GENERATIONS = "too_many_generations"
    ROLE_MISSING = "role_missing"
    OWNER_UNKNOWN = "owner_unknown"  # signed in elsewhere, and not known here
    TENANT_MISMATCH = "tenant_mismatch"
    KEY_NOT_FOUND = "key_not_found"  # or another's: never told apart
    OWNER_NOT_FOUND = "owner_not_found"
    KEY_CONFLICT = "key_conflict"  # with what is stored: a name taken, a key that has ended
    KEY_CHANGED = "key_changed"  # since the caller read it
    # what the constraints of keys let in
    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    RATE_EXCEEDED = "rate_exceeded"
    CALLS_EXCEEDED = "calls_exceeded"
    STREAMS_EXCEEDED = "streams_exceeded"
    # what we cannot say right now
    TOO_MANY_CONNECTIONS = "too_many_connections"
    HASHING_BUSY = "hashing_busy"
    STATE_UNKNOWN = "state_unknown"
    DATABASE_SILENT = "database_silent"
    PROVIDER_UNREACHABLE = "provider_unreachable"  # the identity provider's keys cannot be known
    DRAINING = "draining"
    INTERNAL = "internal"
    # the upstream
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_PROTOCOL = "upstream_protocol"
    UPSTREAM_CREDENTIAL = "upstream_credential"  # it answered 401 or 403 to ours
    UPSTREAM_ANSWER_TOO_LARGE = "upstream_answer_too_large"
    UPSTREAM_SESSION_CONFLICT = "upstream_session_conflict"
    UPSTREAM_REDIRECT = "upstream_redirect"


class Refusal(ProxyError):
    """A request that goes no further.

    `detail` is for the client's eyes: it never holds a secret, nor anything of the upstream's internals.
    `rpc_id` is the JSON-RPC id to answer, once it is known. `data` explains a denial.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        retry_after_seconds: int | None = None,
        rpc_id: str | int | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        self.rpc_id = rpc_id
        self.data = data


class CredentialError(Refusal):
    """The caller presented nothing, or something that does not open the door.

    `key_id`: the key that was proven to be presented, for the record, and `owner_id` whose it is; None when none was.
    """

    key_id: str | None = None
    owner_id: str | None = None


class UnprovenError(CredentialError):
    """What was presented is malformed, unknown or wrong: nobody has proven a secret. It counts against its address."""


class RequestError(Refusal):
    """The request is not one we would judge and forward the same way: it is refused unjudged."""


class DeniedError(Refusal):
    """Understood, and not allowed."""


class LimitError(Refusal):
    """Allowed, but not now: the key, or one it descends from, does as much already as its constraints let in."""


class UnavailableError(Refusal):
    """We cannot know right now; never 401 or 403, because clients throw keys away on those."""


class UpstreamError(Refusal):
    """The upstream could not be reached, kept silent or broke the protocol."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a file or setting: where it is, what it is, and how to mend it.

    `line` counts from 1; None when the fault is not at one place in the file.
    """

    source: str
    line: int | None
    message: str
    mend: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line is not None else self.source
        return f"{place}: {self.message} ({self.mend})"


class ConfigError(ProxyError):
    """A configuration or policy that must not be used: every fault at once."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


class DatabaseError(ProxyError):
    """The database could not be reached, did not answer in time, or refused the statement."""


class RowRefusedError(DatabaseError):
    """The database answered, and what stands there does not allow the row."""
