-- Receipts: which instances run, and what each did when a key died. Written after a revocation, never for a request.

CREATE TABLE instances (
    id            uuid PRIMARY KEY,
    version       text NOT NULL,
    bound_seconds double precision NOT NULL CHECK (bound_seconds > 0),  -- silent for longer, it has closed itself
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- No foreign keys: a receipt outlives its instance, and a key may be deleted.
CREATE TABLE revocation_receipts (
    key_id       text NOT NULL,
    instance     uuid NOT NULL,
    confirmed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    streams      integer NOT NULL,
    calls        integer NOT NULL,
    PRIMARY KEY (key_id, instance)
);
CREATE INDEX revocation_receipts_age ON revocation_receipts (confirmed_at);
