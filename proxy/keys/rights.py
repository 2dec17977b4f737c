"""Who may do what to which key: the one rule set of everybody who manages keys, and its reasons in words.  [pure]

In go callers, keys as the rows have them, and the policy; out comes nothing, or a refusal that says what is missing.
The rule is *no way up*: nobody gives a key more than they effectively hold themselves, by whatever change. It knows no
HTTP and no SQL; `changes` asks it inside the transaction that makes the change.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from proxy.client_address import Network
from proxy.errors import ProxyError, Reason
from proxy.identity import KeyId, Owner, OwnerId
from proxy.keys.constraints import Constraints
from proxy.keys.record import KeyRecord, OwnerRecord, form_date
from proxy.policy import Policy
from proxy.policy.scopes import EVERYTHING, covers, intersect, show, simplify, split_scope

Action = Literal["list", "read", "mint", "update", "disable", "enable", "rotate", "revoke"]
ACTION_SCOPES: Final[Mapping[Action, str]] = {
    "list": "key:list",
    "read": "key:read",
    "mint": "key:create",
    "update": "key:update",
    "disable": "key:update",
    "enable": "key:update",
    "rotate": "key:update",
    "revoke": "key:revoke",
}
ADMIN_ROLE: Final = "aegis:admin"


class RightsError(ProxyError):
    """Understood, and not the caller's to do. `missing`: the scopes that would have been needed."""

    def __init__(self, reason: Reason, detail: str, missing: Iterable[str] = ()) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.missing = tuple(missing)


class CallerError(ProxyError):
    """Whoever asks is not, or no longer, one who may ask."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Caller:
    """Who manages keys, and the most they can give away.

    `grants` are effective scopes. `ends_at`: when the caller's key expires, in seconds since the epoch by the
    database's clock; a sign-in's end is not its owner's. `is_full`: holds whatever the owner's tier allows, now and
    later, so that it can give Full Access away. `is_operator`: at the command line, with the database in hand.
    """

    actor: str
    owner: Owner
    grants: frozenset[str]
    ends_at: float | None = None
    constraints: tuple[Constraints, ...] = ()
    key_id: KeyId | None = None
    is_admin: bool = False
    is_full: bool = False
    is_operator: bool = False
    secret_version: int | None = None  # presented by a key
    claimed_tier: str | None = None  # in an identity provider's token
    generations: int = 0  # of keys, up to the caller's own
    sign_in: bytes | None = field(default=None, repr=False)  # at the page: the hash of its cookie

    @property
    def name(self) -> str:
        """For sentences that say what somebody does not hold."""
        if self.key_id is not None:
            return f"key {self.key_id}"
        return "the operator" if self.is_operator else f"{show(self.owner.subject)} (tier {show(self.owner.tier)})"


@dataclass(frozen=True, slots=True)
class View:
    """Which keys a caller may see: those that meet all that is not None. `root`: that key and its descendants."""

    tenant_id: str | None
    owner_id: OwnerId | None
    root: KeyId | None


# Callers


def form_key_actor(key_id: KeyId) -> str:
    """As the audit names a key that did something."""
    return f"key:{key_id}"


def form_caller_of_key(record: KeyRecord, policy: Policy, secret_version: int | None = None) -> Caller:
    """A key that manages keys. Whether it may be used at all was judged before."""
    inherited = [ancestor.scopes for ancestor in record.ancestors]
    return Caller(
        actor=form_key_actor(record.id),
        owner=record.owner,
        grants=policy.effective_scopes(record.scopes, inherited, record.owner.tier),
        ends_at=record.find_expiry(),
        constraints=record.limits,
        key_id=record.id,
        is_full=all(EVERYTHING in scopes for scopes in (record.scopes, *inherited)),
        secret_version=secret_version,
        generations=1 + len(record.ancestors),
    )


def form_caller_of_claims(
    record: OwnerRecord | None, policy: Policy, *, tenant_id: str | None, tier: str | None, role: str | None
) -> Caller:
    """An owner who signed in elsewhere: the table's owner, whose tier a claim can lower and never raise.

    `record`: the row of the token's issuer and subject. Raises CallerError.
    """
    if record is None:
        raise CallerError(Reason.OWNER_UNKNOWN, "this account is not known here: an operator has to add it")
    owner = record.owner
    if record.disabled:
        raise CallerError(Reason.OWNER_DISABLED, "this account is disabled")
    if tenant_id is not None and tenant_id != owner.tenant_id:
        raise CallerError(Reason.TENANT_MISMATCH, "this account belongs to another tenant here")
    own = simplify(policy.tiers.get(owner.tier, ()))
    grants = own if tier is None else intersect(own, policy.tiers.get(tier, frozenset()))
    return Caller(
        actor=f"jwt:{owner.issuer}|{owner.subject}",
        owner=owner,
        grants=grants,
        is_admin=role == ADMIN_ROLE,
        is_full=grants == own,
        claimed_tier=tier,
    )


def form_operator(actor: str) -> Caller:
    """Whoever has the database's password: nothing but what a key is bounds what they do."""
    nobody = Owner(OwnerId(""), "", "", actor, "")
    return Caller(actor, nobody, frozenset({EVERYTHING}), is_admin=True, is_full=True, is_operator=True)


# Whom it concerns


def get_view(caller: Caller) -> View:
    """Owners see their own keys, an admin the tenant's, a key itself and what was made by it, an operator all."""
    if caller.is_operator:
        return View(None, None, None)
    own = None if caller.is_admin and caller.key_id is None else caller.owner.id
    return View(caller.owner.tenant_id, own, caller.key_id)


def may_see(caller: Caller, key: KeyRecord) -> bool:
    """What one may not see does not exist for one."""
    view = get_view(caller)
    return (
        view.tenant_id in (None, key.owner.tenant_id)
        and view.owner_id in (None, key.owner.id)
        and (view.root is None or view.root in key.lineage)
    )


def may_act_on(caller: Caller, key: KeyRecord) -> bool:
    """A key acts on its descendants only, and not on itself."""
    return may_see(caller, key) and key.id != caller.key_id


def check_action(caller: Caller, action: Action) -> None:
    """Raises RightsError unless the caller holds the scope that the action takes."""
    scope = ACTION_SCOPES[action]
    if not covers(caller.grants, scope):
        raise RightsError(Reason.SCOPE_MISSING, f"this takes {scope}, which {caller.name} does not hold", [scope])


# No way up


def check_grant(
    caller: Caller,
    policy: Policy,
    *,
    scopes: Iterable[str],
    expires_at: float | None,
    constraints: Constraints,
    owner: Owner | None = None,
) -> None:
    """Raises RightsError unless the caller could give all of this to a key. `owner`: the key's; None: the caller's."""
    check_scopes(caller, policy, scopes, owner or caller.owner)
    check_expiry(caller, expires_at)
    check_constraints(caller, constraints)


def check_scopes(caller: Caller, policy: Policy, scopes: Iterable[str], owner: Owner) -> None:
    """Nobody gives what they do not effectively hold, nor what the tier of the key's owner does not allow.

    Full Access is given to one's own keys alone: another's grows with the other's tier.
    """
    if caller.is_operator:
        return
    own = owner.id == caller.owner.id
    ceiling = caller.grants if own else intersect(caller.grants, policy.tiers.get(owner.tier, frozenset()))
    full = own and caller.is_full
    missing = [scope for scope in scopes if not covers(ceiling, scope) and not (scope == EVERYTHING and full)]
    if missing:
        text = ", ".join(show(scope) for scope in missing)
        raise RightsError(
            Reason.RIGHTS_EXCEEDED, f"{caller.name} does not hold {text}, and cannot give it away", missing
        )


def check_expiry(caller: Caller, expires_at: float | None) -> None:
    """No key outlives the one it was made by."""
    if caller.ends_at is not None and (expires_at is None or expires_at > caller.ends_at):
        end = form_date(caller.ends_at).isoformat(timespec="seconds")
        raise RightsError(
            Reason.EXPIRY_EXCEEDED, f"{caller.name} expires at {end}: what it makes must expire by then, too"
        )


def check_constraints(caller: Caller, constraints: Constraints) -> None:
    """What constrains the caller constrains what it makes, at least as much."""
    if not all(outer.contains(constraints) for outer in caller.constraints):
        raise RightsError(Reason.CONSTRAINTS_EXCEEDED, f"these constraints let through what {caller.name} may not do")


def check_reach(caller: Caller, policy: Policy, key: KeyRecord) -> None:
    """Raises RightsError unless all that the key can do, the caller could do as well: else whoever changes, enables or
    rotates it would have more in hand than before."""
    held = form_caller_of_key(key, policy)
    if not caller.is_operator:
        missing = sorted(scope for scope in held.grants if not covers(caller.grants, scope))
        if missing:
            text = ", ".join(show(scope) for scope in missing)
            raise RightsError(Reason.RIGHTS_EXCEEDED, f"key {key.id} can do more than {caller.name}: {text}", missing)
    check_expiry(caller, held.ends_at)
    if not all(any(outer.contains(one) for one in held.constraints) for outer in caller.constraints):
        raise RightsError(Reason.CONSTRAINTS_EXCEEDED, f"key {key.id} is constrained less than {caller.name}")


def check_role_held(caller: Caller, key: KeyRecord) -> None:
    """Raises RightsError when the key says more of its owner than the caller is: an operator granted it, to whoever
    has its secret now."""
    if key.role is None or caller.is_operator or (key.role == ADMIN_ROLE and caller.is_admin):
        return
    detail = f"key {key.id} carries the role {show(key.role)}, which {caller.name} does not have: an operator's to do"
    raise RightsError(Reason.RIGHTS_EXCEEDED, detail)


def check_secret(caller: Caller, key: KeyRecord) -> None:
    """A secret speaks in its owner's name: an admin gets nobody else's; and with its role."""
    if not caller.is_operator and caller.owner.id != key.owner.id:
        raise RightsError(
            Reason.NOT_THE_OWNER,
            f"a new secret would speak in the name of {show(key.owner.subject)}: disable or revoke it",
        )
    check_role_held(caller, key)


def settle_constraints(wanted: Constraints, outers: Sequence[Constraints]) -> Constraints:
    """What is left open is inherited, as narrow as it holds for whoever makes the key."""
    wanted_depth = [] if wanted.depth is None else [wanted.depth]
    rates = [outer.requests_per_second for outer in outers if outer.requests_per_second is not None]
    rate = wanted.requests_per_second or min(rates, default=None)
    depth = wanted.burst or min([*wanted_depth, *(o.depth for o in outers if o.depth is not None)], default=None)
    if rate is not None and wanted.burst is None and depth == max(1, math.ceil(rate)):
        depth = None
    return Constraints(
        sources=wanted.sources or _find_narrowest_sources(outers),
        requests_per_second=rate,
        burst=depth,
        max_calls=wanted.max_calls or min((o.max_calls for o in outers if o.max_calls), default=None),
        max_streams=wanted.max_streams or min((o.max_streams for o in outers if o.max_streams), default=None),
    )


def _find_narrowest_sources(outers: Sequence[Constraints]) -> tuple[Network, ...] | None:
    """Those that lie within everybody else's; if there are none, the nearest, which will be refused."""
    some = [Constraints(sources=outer.sources) for outer in outers if outer.sources]
    within = [one for one in some if all(other.contains(one) for other in some)]
    found = next(iter([*within, *some]), None)
    return None if found is None else found.sources


# Owners


def check_tiers(caller: Caller, policy: Policy, *tiers: str) -> None:
    """An admin gives an owner of the tenant what the admin could use as well, and takes away nothing beyond it.

    `tiers`: what the owner has, and what it is to have. Raises RightsError.
    """
    if caller.is_operator:
        return
    held = frozenset().union(*(policy.tiers.get(tier, frozenset()) for tier in tiers))
    missing = sorted(scope for scope in held if not covers(caller.grants, scope))
    if missing:
        text = ", ".join(missing)
        raise RightsError(Reason.RIGHTS_EXCEEDED, f"that tier can do more than {caller.name}: {text}", missing)


def check_administers(caller: Caller) -> None:
    """Raises RightsError unless the caller administers the owners of their tenant."""
    if not may_administer(caller, caller.owner.tenant_id):
        raise RightsError(Reason.ROLE_MISSING, f"this takes the role {ADMIN_ROLE}, signed in at the identity provider")


def may_administer(caller: Caller, tenant_id: str) -> bool:
    """A tenant's owners are administered by its admins, signed in themselves, and by operators."""
    if caller.is_operator:
        return True
    return caller.is_admin and caller.key_id is None and caller.owner.tenant_id == tenant_id


# What may be given away, for whoever makes a key


@dataclass(frozen=True, slots=True)
class GrantableScope:
    """One of the catalogue. `selectors`: what of it may be given where not all of it may; `listed`: the platform lists
    what a selector may name."""

    scope: str
    title: str
    selector: str | None
    may: bool
    why_not: str | None
    selectors: tuple[str, ...] = ()
    listed: bool = False


@dataclass(frozen=True, slots=True)
class GrantablePreset:
    """A preset may be given whole, or not at all."""

    name: str
    title: str
    scopes: tuple[str, ...]
    may: bool
    why_not: str | None
    missing: tuple[str, ...] = ()


def list_grantable(caller: Caller, policy: Policy) -> tuple[list[GrantableScope], list[GrantablePreset]]:
    """Each scope of the catalogue and each preset: whether this caller may give it to a key of its own, and if not,
    why."""
    scopes = []
    for scope, entry in policy.catalogue.items():
        may = covers(caller.grants, scope)
        some = () if may else _list_selectors(caller.grants, scope)
        why = None if may else _find_why_not(caller, policy, scope)
        listed = entry.names is not None
        scopes.append(GrantableScope(scope, entry.title, entry.selector, may, why, some, listed))
    presets = []
    for name, preset in policy.presets.items():
        missing = _find_missing(caller, policy, preset.scopes)
        why = _find_why_not(caller, policy, missing[0]) if missing else None
        presets.append(GrantablePreset(name, preset.title, preset.scopes, not missing, why, missing))
    return scopes, presets


def _find_missing(caller: Caller, policy: Policy, scopes: Iterable[str]) -> tuple[str, ...]:
    try:
        check_scopes(caller, policy, scopes, caller.owner)
    except RightsError as error:
        return error.missing
    return ()


def _list_selectors(grants: frozenset[str], head: str) -> tuple[str, ...]:
    found = (split_scope(scope) for scope in grants)
    return tuple(sorted(selector for start, selector in found if start == head and selector))


def _find_why_not(caller: Caller, policy: Policy, scope: str) -> str:
    if scope != EVERYTHING and not covers(policy.tiers.get(caller.owner.tier, frozenset()), scope):
        return f"the tier {show(caller.owner.tier)} does not include it"
    if caller.key_id is None:
        return f"this sign-in is of tier {show(caller.claimed_tier or '')}, which does not include it"
    return f"key {caller.key_id} does not hold all of it" if scope == EVERYTHING else f"{caller.name} does not hold it"
