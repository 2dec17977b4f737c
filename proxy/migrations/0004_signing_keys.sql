-- The public halves of the keys that assertions are signed with: every instance makes its own, and publishes them all.

CREATE TABLE signing_keys (
    kid          text PRIMARY KEY,  -- RFC 7638 thumbprint of the key: no row can speak for another's
    instance     uuid,  -- NULL: it has left, and what it signed has yet to expire
    jwk          jsonb NOT NULL,
    keep_seconds double precision NOT NULL CHECK (keep_seconds BETWEEN 0 AND 86400),  -- unseen for longer: nothing it signed is valid
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),  -- published without a gap since
    seen_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
