-- Keys of the platform's older form, `aegis_` and 40 alphanumerics, which was stored as the SHA-256 of the whole token.
-- The key is an ordinary row of api_keys; its old token is its secret of version 0, found by digest because such a token
-- holds no id. Rotation retires it like any other secret; what it is rotated to is of our own form.

CREATE TABLE legacy_digests (
    digest     bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    key_id     text NOT NULL UNIQUE REFERENCES api_keys (id) ON DELETE CASCADE,
    not_after  timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TRIGGER aegis_1_touch AFTER INSERT OR UPDATE OR DELETE ON legacy_digests FOR EACH ROW EXECUTE FUNCTION aegis_touch_key();
CREATE TRIGGER aegis_2_tell  AFTER TRUNCATE                   ON legacy_digests FOR EACH STATEMENT EXECUTE FUNCTION aegis_tell_all();
ALTER TABLE legacy_digests ENABLE ALWAYS TRIGGER aegis_1_touch;
ALTER TABLE legacy_digests ENABLE ALWAYS TRIGGER aegis_2_tell;

-- Every secret of a key, of either kind. No fast tag equals an empty one: an old digest is never taken for an argon2 string.
CREATE VIEW key_secrets AS
SELECT key_id, version, tag, hash, not_after FROM api_key_secrets
UNION ALL
SELECT key_id, 0, ''::bytea, encode(digest, 'hex'), not_after FROM legacy_digests;
