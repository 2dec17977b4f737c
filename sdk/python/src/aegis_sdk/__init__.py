"""The AEGIS platform from Python, with an API key.

    from aegis_sdk import AegisClient

    client = AegisClient(api_key="aegis_…")         # or AEGIS_API_KEY; where to is said by base_url or AEGIS_BASE_URL
    execution = client.workflows.run("nightly-etl")
    for event in client.executions.stream(execution.execution_id):
        print(event.type, event.data)

`AsyncAegisClient` is the same with `await`. Every error is an `AegisError`, and every refusal an `ApiError`, in the
server's own words. The key is never shown: not by `repr`, not in a log, an error or a URL.
"""

from __future__ import annotations

from aegis_sdk import models
from aegis_sdk._async.client import AsyncAegisClient
from aegis_sdk._async.lists import AsyncListing
from aegis_sdk._async.streams import AsyncEventStream
from aegis_sdk._sync.client import AegisClient
from aegis_sdk._sync.lists import Listing
from aegis_sdk._sync.streams import EventStream
from aegis_sdk._version import __version__
from aegis_sdk.configuration import Retry
from aegis_sdk.errors import (
    AegisError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    ConnectionFailedError,
    InputError,
    InputFault,
    InvalidKeyError,
    KeyChangedError,
    KeyDisabledError,
    KeyExpiredError,
    KeyRevokedError,
    NotFoundError,
    OwnerDisabledError,
    PermissionDeniedError,
    RateLimitedError,
    RequestTimeoutError,
    SecretNotShownError,
    SecretRetiredError,
    StreamInterruptedError,
    UnavailableError,
    UnexpectedAnswerError,
    UpstreamError,
)
from aegis_sdk.events import StreamEvent
from aegis_sdk.expiry import KeyExpiryWarning
from aegis_sdk.paging import Page

__all__ = [
    "AegisClient",
    "AegisError",
    "ApiError",
    "AsyncAegisClient",
    "AsyncEventStream",
    "AsyncListing",
    "AuthenticationError",
    "ConfigurationError",
    "ConflictError",
    "ConnectionFailedError",
    "EventStream",
    "InputError",
    "InputFault",
    "InvalidKeyError",
    "KeyChangedError",
    "KeyDisabledError",
    "KeyExpiredError",
    "KeyExpiryWarning",
    "KeyRevokedError",
    "Listing",
    "NotFoundError",
    "OwnerDisabledError",
    "Page",
    "PermissionDeniedError",
    "RateLimitedError",
    "RequestTimeoutError",
    "Retry",
    "SecretNotShownError",
    "SecretRetiredError",
    "StreamEvent",
    "StreamInterruptedError",
    "UnavailableError",
    "UnexpectedAnswerError",
    "UpstreamError",
    "__version__",
    "models",
]
