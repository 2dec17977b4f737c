"""The policy: which scope opens which route, method, tool, prompt, resource and argument.  [pure]

`config/policy.yaml` comes in, a compiled and immutable `Policy` goes out. The way of a file through this room:

    source (YAML -> plain values with lines) -> model (shape) -> build (meaning) -> compiled (look-ups and decisions)

Default is deny, there are only allow-rules, and an error while deciding denies. This room refuses to know HTTP, keys
and sessions: it judges values it is handed.
"""

from proxy.policy.compiled import ListedKind, Policy, Preset, Route, RouteMatch
from proxy.policy.load import load_policy, parse_policy
from proxy.policy.rules import Allowed, Denied
from proxy.policy.scopes import Scope

__all__ = [
    "Allowed",
    "Denied",
    "ListedKind",
    "Policy",
    "Preset",
    "Route",
    "RouteMatch",
    "Scope",
    "load_policy",
    "parse_policy",
]
