-- Who is signed in at the page Settings → API Keys: an owner, by a key or by the identity provider. The value of the
-- cookie is nowhere: only its hash.

CREATE TABLE sign_ins (
    id_hash        bytea PRIMARY KEY CHECK (octet_length(id_hash) = 32),
    owner_id       uuid NOT NULL REFERENCES owners (id) ON DELETE CASCADE,
    key_id         text REFERENCES api_keys (id) ON DELETE CASCADE,
    secret_version integer,
    tenant_id      text,  -- this and what follows as the identity provider's token had it
    tier           text,
    role           text,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at        timestamptz NOT NULL DEFAULT clock_timestamp(),  -- written rarely, not by every request
    CHECK ((key_id IS NULL) = (secret_version IS NULL)),
    CHECK (key_id IS NULL OR (tenant_id IS NULL AND tier IS NULL AND role IS NULL))
);
CREATE INDEX sign_ins_owner ON sign_ins (owner_id);
CREATE INDEX sign_ins_key ON sign_ins (key_id) WHERE key_id IS NOT NULL;
