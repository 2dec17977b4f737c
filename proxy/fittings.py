"""What the settings mean for each room: values and open resources, ready to be handed over.  [io]

In go settings, out come a pool, upstreams, a hasher, limits. This room makes them and introduces nobody to anybody.
"""

from __future__ import annotations

import resource
import secrets
import ssl
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from uuid import UUID

from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy
from pydantic import SecretStr

from proxy.assertions import Algorithm, Assertions, SigningKey, read_signing_key
from proxy.client_connection import MAX_SHED
from proxy.clock import Clock
from proxy.database import Database
from proxy.discovery import NOTHING, Discovery
from proxy.envelope import LOOPBACK_NAMES
from proxy.errors import ConfigError, Fault, Reason
from proxy.failures import FailureLimiter
from proxy.forwarding import Destination
from proxy.front_door import DoorRules
from proxy.identity_provider import IdentityProvider
from proxy.keys.digests import Digests
from proxy.keys.hashing import Hasher
from proxy.keys.store import KeyStore
from proxy.lease import Lease
from proxy.logs import get_logger
from proxy.memory import Memory
from proxy.metrics import Metrics
from proxy.news import NewsLog
from proxy.porch import Porch
from proxy.provider_client import ProviderClient
from proxy.provider_tokens import Expected
from proxy.relay import Limits
from proxy.request_body import BodyLimits
from proxy.screening import Screen
from proxy.settings import Settings, TlsSettings, UpstreamSettings
from proxy.signing_keys import BEAT_SECONDS, SigningKeys
from proxy.upstream import Upstream
from proxy.upstream_identity import (
    NO_IDENTITY,
    Identity,
    add_credential,
    make_assertion_identity,
    make_header_identity,
)

log = get_logger("server")

# Remembered: about 2 KiB each. Whoever has more keys in use at once signs a little more often.
MAX_ASSERTIONS = 10_000
# For the listeners, the connections that hear the news, the log, and the clients that are told to come back later.
RESERVED_DESCRIPTORS = 32 + MAX_SHED


def open_database(settings: Settings) -> AbstractAsyncContextManager[Database]:
    """The pool. Raises ConfigError when no database is named."""
    database = settings.database
    return Database.open(
        require_url(database.url),
        min_size=database.pool_min_size,
        max_size=database.pool_max_size,
        connect_timeout_seconds=database.connect_timeout_seconds,
        query_timeout_seconds=database.query_timeout_seconds,
    )


def open_signing_keys(settings: Settings, database: Database, instance: UUID, clock: Clock) -> SigningKeys | None:
    """None: no upstream is told by assertions who is asking. Raises ConfigError."""
    assertions = settings.assertions
    if all(upstream.identity.profile != "assertion" for upstream in settings.upstreams.configured.values()):
        return None
    return SigningKeys(
        database,
        instance=instance,
        algorithm=assertions.algorithm,
        fixed=_read_key_file(assertions.key_file, assertions.algorithm) if assertions.key_file is not None else None,
        rotate_seconds=assertions.rotate_seconds,
        publish_ahead_seconds=assertions.publish_ahead_seconds,
        lifetime_seconds=assertions.lifetime_seconds,
        clock=clock,
        beat_seconds=min(BEAT_SECONDS, assertions.rotate_seconds / 10),
    )


def _read_key_file(path: Path, algorithm: Algorithm) -> SigningKey:
    try:
        return read_signing_key(path.read_bytes(), algorithm)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        mend = f"name a PEM file that holds an unencrypted private key for {algorithm}"
        raise ConfigError([Fault("assertions.key_file", None, f"cannot be used: {why}", mend)]) from None


def make_assertions(settings: Settings, signing_keys: SigningKeys, clock: Clock) -> Assertions:
    lifetime_seconds = settings.assertions.lifetime_seconds
    return Assertions(
        signing_keys.current,
        issuer=settings.assertions.issuer,
        lifetime_seconds=lifetime_seconds,
        renew_seconds=lifetime_seconds * 3 // 4,
        wall=clock.wall,
        max_remembered=min(MAX_ASSERTIONS, settings.cache.max_states),
    )


def _make_identity(name: str, settings: UpstreamSettings, assertions: Assertions | None) -> Identity:
    """How the upstream of this name learns who is asking, and that we do."""
    written = settings.identity
    if written.profile == "none":
        identity = NO_IDENTITY
    elif written.profile == "headers":
        identity = make_header_identity(written.headers)
    else:
        assert assertions is not None, "they are made wherever one upstream wants them"
        identity = make_assertion_identity(assertions, written.audience or name, written.header)
    token = settings.bearer_token
    return add_credential(identity, token.get_secret_value()) if token is not None else identity


def _make_tls(name: str, settings: UpstreamSettings) -> ssl.SSLContext | None:
    """What the files say; None: nothing but the system's own. Raises ConfigError."""
    return _load_tls(f"upstreams.{name}.tls", settings.tls) if settings.tls != TlsSettings() else None


def _load_tls(place: str, tls: TlsSettings) -> ssl.SSLContext:
    """`place`: the setting that names the files. Raises ConfigError."""
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.client_certificate_file is not None:
            # A key that asks for a password would ask the terminal.
            context.load_cert_chain(tls.client_certificate_file, tls.client_key_file, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        mend = "name readable PEM files: a certificate, its unencrypted key, the authorities to trust"
        message = f"its files cannot be used: {error.strerror if isinstance(error, OSError) else error}"
        raise ConfigError([Fault(place, None, message, mend)]) from None
    return context


def open_destinations(
    settings: Settings, assertions: Assertions | None, stack: AsyncExitStack
) -> dict[str, Destination]:
    """Raises ConfigError."""
    destinations = {}
    for name, upstream_settings in settings.upstreams.configured.items():
        upstream = Upstream(
            upstream_settings.url,
            connect_timeout_seconds=upstream_settings.connect_timeout_seconds,
            headers_timeout_seconds=upstream_settings.headers_timeout_seconds,
            idle_timeout_seconds=upstream_settings.idle_timeout_seconds,
            max_idle_connections=upstream_settings.max_idle_connections,
            keepalive_seconds=upstream_settings.keepalive_seconds,
            ssl_context=_make_tls(name, upstream_settings),
        )
        stack.push_async_callback(upstream.aclose)
        destinations[name] = Destination(
            upstream,
            upstream_settings.url.base_path.rstrip("/"),
            _make_identity(name, upstream_settings, assertions),
            upstream_settings.resumable,
        )
    return destinations


def open_identity_provider(
    settings: Settings, clock: Clock, metrics: Metrics, stack: AsyncExitStack
) -> IdentityProvider | None:
    """None: API keys alone manage keys. Raises ConfigError."""
    written = settings.management.identity_provider
    if written is None:
        return None
    place = "management.identity_provider.ca_file"
    trusted = _load_tls(place, TlsSettings(ca_file=written.ca_file)) if written.ca_file is not None else None
    client, redeeming = (ProviderClient(timeout_seconds=written.timeout_seconds, ssl_context=trusted) for _ in range(2))
    provider = IdentityProvider(
        client,
        redeeming,
        expected=Expected(written.issuer, written.audience, written.leeway_seconds),
        jwks_url=written.jwks_url,
        algorithms=written.algorithms,
        refresh_seconds=written.refresh_seconds,
        keep_seconds=written.keep_seconds,
        clock=clock,
        count_reading=metrics.count_provider_reading,
    )
    stack.push_async_callback(provider.aclose)
    return provider


def open_hasher(settings: Settings, metrics: Metrics, stack: AsyncExitStack) -> Hasher:
    hasher = Hasher(
        memory_cost_kib=settings.hashing.memory_cost_kib,
        time_cost=settings.hashing.time_cost,
        threads=settings.hashing.threads,
        queue_size=settings.hashing.queue_size,
        timeout_seconds=settings.hashing.timeout_seconds,
        observe_seconds=metrics.argon2_seconds.observe,
    )
    stack.callback(hasher.close)
    return hasher


def open_porch(
    settings: Settings, max_connections: int, screen: Screen, clock: Clock, metrics: Metrics, stack: AsyncExitStack
) -> Porch:
    server, failures = settings.server, settings.failures
    porch = Porch(
        limiter=FailureLimiter(burst=failures.burst, per_second=failures.per_second),
        screen=screen,
        clock=clock,
        realm=server.realm,
        trusted_proxies=server.trusted_proxies,
        takes_tokens=settings.management.identity_provider is not None,
        head_timeout_seconds=server.header_timeout_seconds,
        max_connections=max_connections,
        count=partial(metrics.count_request, "none", Reason.TOO_MANY_FAILURES),
    )
    stack.callback(porch.close)
    return porch


def make_memory(settings: Settings, news: NewsLog, clock: Clock) -> Memory:
    cache = settings.cache
    return Memory(
        news,
        digest_key=secrets.token_bytes(32),
        max_proofs=cache.max_proofs,
        max_states=cache.max_states,
        max_unknown=cache.negative_max,
        unknown_seconds=cache.negative_ttl_seconds,
        max_age_seconds=settings.revocation.revalidate_seconds,
        timer=clock.boot,
    )


def make_digests(settings: Settings, store: KeyStore, news: NewsLog, clock: Clock) -> Digests:
    cache = settings.cache
    return Digests(
        store.find_digests,
        news,
        max_unknown=cache.negative_max,
        unknown_seconds=cache.negative_ttl_seconds,
        timer=clock.boot,
    )


def make_lease(settings: Settings) -> Lease:
    revocation = settings.revocation
    grace_seconds = revocation.grace_seconds + revocation.database_loss_grace_seconds
    return Lease(lease_seconds=revocation.lease_seconds, grace_seconds=grace_seconds)


def form_limits(settings: Settings) -> Limits:
    server = settings.server
    return Limits(
        max_answer_bytes=server.max_answer_bytes,
        leaving_seconds=server.after_leaving.seconds,
        leaving_bytes=server.after_leaving.bytes,
    )


def form_body_limits(settings: Settings) -> BodyLimits:
    server = settings.server
    return BodyLimits(server.max_body_bytes, server.max_upload_bytes, server.body_timeout_seconds)


def form_door_rules(settings: Settings, signing_keys: SigningKeys | None) -> DoorRules:
    server = settings.server
    hosts = server.allowed_hosts
    if hosts is None:
        hosts = tuple(LOOPBACK_NAMES) if settings.listen.is_loopback else ()
    return DoorRules(
        allowed_hosts=frozenset(str(host).lower() for host in hosts),
        allowed_origins=frozenset(str(origin) for origin in server.allowed_origins),
        trusted_proxies=server.trusted_proxies,
        discovery=Discovery(server.public_url, server.authorization_servers) if server.public_url else NOTHING,
        public_url=server.public_url,
        bodies=form_body_limits(settings),
        max_json_depth=server.max_json_depth,
        read_jwks=signing_keys.read_published if signing_keys is not None and settings.assertions.publish else None,
    )


def raise_descriptor_limit() -> None:
    """As many open files as this process may ask for: each stream takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def find_max_connections(settings: Settings) -> int:
    """As set, else by the limit of open files: a client's connection may need one upstream. Raises ConfigError."""
    idle = sum(upstream.max_idle_connections for upstream in settings.upstreams.configured.values())
    reserved = RESERVED_DESCRIPTORS + settings.database.pool_max_size + idle
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = 1_000_000 if limit == resource.RLIM_INFINITY else (limit - reserved) // 2
    wanted = settings.server.max_connections or room
    if not 0 < wanted <= room:
        mend = f"raise the limit (ulimit -n) to {reserved + 2 * max(wanted, 100)}, or lower server.max_connections"
        raise ConfigError(
            [Fault("open files", None, f"a limit of {limit} leaves room for {max(0, room)} clients", mend)]
        )
    return wanted


def require_c_parser() -> None:
    """aiohttp falls back to a parser in Python without a word; what it refuses differs. Raises ConfigError."""
    if HttpRequestParser is HttpRequestParserPy:
        mend = "install an aiohttp wheel with its C extensions, and unset AIOHTTP_NO_EXTENSIONS"
        raise ConfigError([Fault("aiohttp", None, "its C parser is missing", mend)])


def require_url(url: SecretStr | None) -> str:
    if url is None:
        mend = "set AEGIS_DATABASE_URL, or run with --embedded for a private database in the state directory"
        raise ConfigError([Fault("AEGIS_DATABASE_URL", None, "there is no database to verify keys against", mend)])
    return url.get_secret_value()


def get_secret_key(settings: Settings) -> bytes:
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value().encode()
    log.warning("secret_key_random", mend="set AEGIS_SECRET_KEY to one secret for all instances, kept across restarts")
    return secrets.token_bytes(32)
