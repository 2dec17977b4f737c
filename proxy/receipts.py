"""Receipts: who runs, and what each instance did when a key died.  [io]

In go the dead keys this instance has just ended, out come rows others can read; and the other way round, whoever
revoked a key waits here until every living instance has confirmed. *Confirmed* means: it refuses the key locally and
has stopped relaying for it. Whether an instance is alive is judged by the database's clock; one silent beyond its own
bound is *fenced*: it has closed itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from proxy.database import Database
from proxy.errors import DatabaseError
from proxy.identity import KeyId
from proxy.logs import get_logger

log = get_logger("receipts")

WAIT_SECONDS = 5.0
POLL_SECONDS = 0.02
# Rows of instances and receipts that nobody will ask about again.
FORGET = """
WITH gone AS (DELETE FROM instances WHERE seen_at < now() - interval '1 day')
DELETE FROM revocation_receipts WHERE confirmed_at < now() - interval '90 days'
"""
REGISTER = """
INSERT INTO instances (id, version, bound_seconds) VALUES ($1, $2, $3)
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp()
"""
CONFIRM = """
INSERT INTO revocation_receipts (key_id, instance, key_version, streams, calls)
SELECT r.key_id, $1, coalesce(k.version, 0), r.streams, r.calls
  FROM unnest($2::text[], $3::integer[], $4::integer[]) AS r (key_id, streams, calls)
  LEFT JOIN api_keys k ON k.id = r.key_id
 WHERE k.id IS NULL OR k.status = 'revoked'
ON CONFLICT (key_id, instance) DO UPDATE
   SET key_version = excluded.key_version, confirmed_at = clock_timestamp(),
       streams = revocation_receipts.streams + excluded.streams, calls = revocation_receipts.calls + excluded.calls
"""
# One row per instance that was alive when the key was revoked, or has confirmed since.
READ = """
SELECT i.id::text AS instance, r.confirmed_at IS NOT NULL AS confirmed,
       r.confirmed_at IS NULL AND i.seen_at < clock_timestamp() - make_interval(secs => i.bound_seconds) AS fenced,
       extract(epoch FROM r.confirmed_at - k.revoked_at)::float8 * 1000 AS milliseconds,
       coalesce(r.streams, 0) AS streams, coalesce(r.calls, 0) AS calls,
       (SELECT count(*) FROM mcp_sessions s WHERE s.key_id = k.id)::integer AS sessions_left
  FROM api_keys k
  JOIN instances i ON i.seen_at > k.revoked_at - make_interval(secs => i.bound_seconds)
  LEFT JOIN revocation_receipts r ON r.key_id = k.id AND r.instance = i.id
 WHERE k.id = $1
 ORDER BY i.started_at, i.id
"""
