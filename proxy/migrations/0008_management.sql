-- What the management of keys by HTTP remembers, and how its lists are found.

-- A request that may come twice, by the word its caller chose for it: the second is answered from here, without a secret.
CREATE TABLE idempotency (
    caller  bytea NOT NULL,  -- SHA-256 of the actor: a word is its caller's own
    word    bytea NOT NULL,  -- SHA-256, too: it is never shown again, and as long as the caller liked
    request bytea NOT NULL,  -- SHA-256 of method, path and body: the same word for another request is refused
    key_id  text NOT NULL,  -- what became of it; no foreign key, a deleted key is not found
    at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, word)
);
CREATE INDEX idempotency_age ON idempotency (at);

-- What a validated key says of its owner's role on the platform; granted by operators, and not inherited.
ALTER TABLE api_keys ADD COLUMN aegis_role text CHECK (char_length(aegis_role) BETWEEN 1 AND 64);

-- Pages of keys, newest first: one owner's, and a tenant's.
CREATE INDEX api_keys_owner_age ON api_keys (owner_id, created_at DESC, id DESC);
CREATE INDEX api_keys_age ON api_keys (created_at DESC, id DESC);
