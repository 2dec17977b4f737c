"""Values of settings that have a shape of their own, and how a wrong one is told.  [pure]

In go what YAML or the environment hold, out come addresses, names and numbers, or a fault with its mend that never
repeats what was written. Which setting is which is not known here.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Final, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from proxy.client_address import Network, parse_network
from proxy.upstream_address import UpstreamAddress, parse_upstream_address

HOST: Final = r"(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)"
ADDRESS: Final = re.compile(HOST + r":(?P<port>[0-9]{1,5})")


def unusable(message: str, mend: str, cause: tuple[str, ...] = ()) -> PydanticCustomError:
    """A fault for the operator. `cause` is the other setting of a contradiction, which may be the only one written."""
    return PydanticCustomError("unusable", "{message}", {"message": message, "mend": mend, "cause": cause})


def parse_host(text: str) -> str:
    """A host as sockets want it: the brackets of an IPv6 address are gone. Raises ValueError."""
    return str(IPv6Address(text[1:-1])) if text.startswith("[") else text.lower()


def parse_port(text: str) -> int:
    if int(text) > 65535:
        raise ValueError("a port has 16 bits")
    return int(text)


def write_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Address(NamedTuple):
    """Where to listen: `host:port`; port 0 lets the system pick a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{write_host(self.host)}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    match = ADDRESS.fullmatch(value) if isinstance(value, str) else None
    try:
        if match is not None:
            return Address(parse_host(match["host"]), parse_port(match["port"]))
    except ValueError:
        pass
    raise unusable("this is not an address to listen on", "write host:port, such as 127.0.0.1:8080 or [::1]:8080")


def parse_upstream_url(value: object) -> UpstreamAddress:
    if isinstance(value, UpstreamAddress):
        return value
    try:
        return parse_upstream_address(value if isinstance(value, str) else "")
    except ValueError as error:
        raise unusable("this is not the address of an upstream", str(error)) from None


def parse_proxy_network(value: object) -> Network:
    try:
        network = parse_network(value)
    except ValueError:
        mend = "write an address or a CIDR without bits beyond its prefix, such as 10.0.0.7 or 10.0.0.0/8"
        raise unusable("this is not the network of a proxy", mend) from None
    if not network.prefixlen:
        raise unusable("this trusts everybody to say where they come from", "name the proxies in front of this one")
    return network


def write_upstream_url(address: UpstreamAddress) -> str:
    return f"{address.scheme}://{address.authority}{address.base_path}"


def check_database_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not re.match(r"postgres(ql)?://.", value.get_secret_value()):
        raise unusable("this is not the address of a PostgreSQL database", "write postgresql://user:password@host/name")
    return value


Seconds = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Rate = Annotated[float, Field(strict=True, allow_inf_nan=False)]  # a second
Count = Annotated[int, Field(strict=True)]
KiB: Final = 1024
MiB: Final = 1024 * KiB

ListenAddress = Annotated[
    Address, PlainValidator(parse_address), PlainSerializer(str), WithJsonSchema({"type": "string"})
]
UpstreamUrl = Annotated[
    UpstreamAddress,
    PlainValidator(parse_upstream_url),
    PlainSerializer(write_upstream_url),
    WithJsonSchema({"type": "string", "format": "uri"}),
]
ProxyNetwork = Annotated[
    Network, PlainValidator(parse_proxy_network), PlainSerializer(str), WithJsonSchema({"type": "string"})
]
HostName = Annotated[
    str, StringConstraints(to_lower=True, pattern=r"^(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+)(:[0-9]{1,5})?$")
]
WebOrigin = Annotated[str, StringConstraints(pattern=r"^https?://(\[[0-9a-f:.]+\]|[0-9a-z._-]+)(:[0-9]{1,5})?$")]
PublicUrl = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/-]*)?$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
Audience = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,255}$")]
# Set by the connection itself, or by this proxy for another purpose.
FRAMING: Final = frozenset({"host", "content-length", "accept-encoding", "x-request-id", "last-event-id", "cookie"})
# RFC 9110 §5.6.4: what a quoted-string holds without escapes.
Realm = Annotated[str, StringConstraints(pattern=r"^[ !#-\[\]-~]{1,64}$")]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def read_empty_section(cls, value: object) -> object:
        """A heading whose fields are all commented out is null in YAML: it means the defaults."""
        return {} if value is None else value
