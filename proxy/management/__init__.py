"""The management API: keys and owners by HTTP, for owners, their keys and the platform.

    dispatch (what was sent) -> callers (who asks) -> answers (which operation is meant) -> operations (what is done)

One table, `endpoints`, says what there is; `models` and `shown` say what goes in and out, and `openapi` tells it all to
the world. `faults` knows how no is said. What is allowed is `keys.rights`' to say, and what changes is `keys.changes`':
there is no other rule, and no way around theirs.
"""
