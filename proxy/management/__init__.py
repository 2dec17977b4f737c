"""The management API: keys and owners by HTTP, for owners, their keys and the platform.

    callers (who asks) -> dispatch (what was sent) -> operations (what is done) -> faults (how no is said)

One table, `endpoints`, says what there is; `models` says what goes in and out, and `openapi` tells both to the world.
What is allowed is `keys.rights`' to say, and what changes is `keys.changes`': there is no other rule, and no way around
theirs.
"""
