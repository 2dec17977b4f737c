"""Aegis MCP Proxy: an authenticating reverse proxy in front of an MCP server.

The walk of a request, in the order of its rooms:

    client_connection → front_door → envelope, credentials      present: one reading, one key
    → verification (memory, keys.reader, keys.hashing)          verify: whose is it?        → Principal
    → messages                                                  read: what does it say?     → Message
    → authorization (policy)                                    authorise: may they?        → Permit
    → sessions, session_store                                   claim: what may be held, and whose session is it
    → forwarding (headers, upstream) → relay (filtering, sse)   forward, and carry the answer back
    → challenges, logs, metrics                                 say no; record

Beside it, the news: listener → revocation → sessions → relay, session_cleanup, under a lease.
"""

__version__ = "0.1.0"
