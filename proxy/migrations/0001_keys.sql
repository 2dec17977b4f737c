-- Owners, keys, secrets: who may come in. Sessions: what they hold upstream. Audit: who changed what.
--
-- Every change to owners, api_keys and api_key_secrets is news, whoever makes it: our API, psql, the platform. The
-- triggers below say it on the channel `aegis_key_events`; they are ENABLE ALWAYS, because ordinary triggers keep
-- silent under session_replication_role = replica. The payload is a hint; the row is the truth.

CREATE SEQUENCE aegis_versions;

CREATE TABLE owners (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id   text NOT NULL CHECK (tenant_id <> ''),
    issuer      text NOT NULL CHECK (issuer <> ''),
    subject     text NOT NULL CHECK (subject <> ''),
    tier        text NOT NULL CHECK (tier <> ''),
    disabled_at timestamptz,
    version     bigint NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (issuer, subject)  -- a subject is unique per issuer only
);

CREATE TABLE api_keys (
    id             text PRIMARY KEY CHECK (id ~ '^[0-9A-Za-z]{12}$'),
    owner_id       uuid NOT NULL REFERENCES owners (id),
    name           text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 64),
    preset         text,
    scopes         text[] NOT NULL
        CHECK (CASE WHEN array_ndims(scopes) > 1 THEN false ELSE array_position(scopes, NULL) IS NULL END),
    constraints    jsonb NOT NULL DEFAULT '{}',
    status         text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled', 'revoked')),
    expires_at     timestamptz,
    parent_id      text REFERENCES api_keys (id),
    version        bigint NOT NULL DEFAULT 0,
    created_at     timestamptz NOT NULL DEFAULT now(),
    created_by     text NOT NULL,
    revoked_at     timestamptz,
    revoked_by     text,
    revoked_reason text
);
CREATE UNIQUE INDEX api_keys_active_name ON api_keys (owner_id, name) WHERE status = 'active';
CREATE INDEX api_keys_parent ON api_keys (parent_id) WHERE parent_id IS NOT NULL;

-- A key keeps its id while its secret is rotated; for the grace period two secrets are valid.
CREATE TABLE api_key_secrets (
    key_id     text NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    version    integer NOT NULL CHECK (version > 0),
    tag        bytea NOT NULL CHECK (octet_length(tag) = 4),
    hash       text NOT NULL,  -- argon2id, in its standard string form
    not_after  timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key_id, version)
);

-- What a key holds upstream. The session id itself is sealed: only the instances can read it, to end the session.
-- No foreign key: a deleted key must leave its sessions behind for the clean-up.
CREATE TABLE mcp_sessions (
    upstream         text NOT NULL,
    session_hash     bytea NOT NULL,
    key_id           text NOT NULL,
    secret_version   integer NOT NULL,
    grants           text[] NOT NULL,  -- what the key could do when the session was made
    protocol_version text,
    sealed_id        bytea NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    last_seen_at     timestamptz NOT NULL DEFAULT now(),  -- kept up in batches, never by a request
    claimed_by       uuid,
    claimed_until    timestamptz,
    attempts         integer NOT NULL DEFAULT 0,
    PRIMARY KEY (upstream, session_hash)
);
CREATE INDEX mcp_sessions_key ON mcp_sessions (key_id);

CREATE TABLE audit_events (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    actor    text NOT NULL,
    action   text NOT NULL,
    key_id   text,
    owner_id uuid,
    before   jsonb,
    after    jsonb
);
CREATE INDEX audit_events_key ON audit_events (key_id, id);

-- Versions and finality: psql will not do either for us.

CREATE FUNCTION aegis_stamp_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
        RETURN NEW;
    END IF;
    NEW.version := nextval('aegis_versions');
    RETURN NEW;
END $$;

CREATE FUNCTION aegis_guard_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status = 'revoked' AND NEW.status <> 'revoked' THEN
        RAISE EXCEPTION 'key % is revoked, and revoked is final', OLD.id
            USING HINT = 'Mint a new key.', ERRCODE = 'check_violation';
    END IF;
    IF NEW.id <> OLD.id OR NEW.parent_id IS DISTINCT FROM OLD.parent_id THEN
        RAISE EXCEPTION 'the id and the parent of a key never change' USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.status = 'revoked' THEN
        NEW.revoked_at := coalesce(NEW.revoked_at, now());
    END IF;
    RETURN NEW;
END $$;

-- Revoking a parent revokes the tree.
CREATE FUNCTION aegis_cascade_revocation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE api_keys
       SET status = 'revoked', revoked_by = NEW.revoked_by, revoked_reason = 'parent key ' || NEW.id || ' was revoked'
     WHERE parent_id = NEW.id AND status <> 'revoked';
    RETURN NULL;
END $$;

-- A secret belongs to its key: a change to it is a change of the key.
CREATE FUNCTION aegis_touch_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
        RETURN NULL;
    END IF;
    UPDATE api_keys SET version = 0 WHERE id IN (OLD.key_id, NEW.key_id);
    RETURN NULL;
END $$;

-- The news. Under 200 bytes, no secret.

CREATE FUNCTION aegis_tell_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
        RETURN NULL;
    END IF;
    PERFORM pg_notify('aegis_key_events', json_build_object(
        'v', 1, 'kind', 'key', 'key_id', coalesce(NEW.id, OLD.id), 'version', coalesce(NEW.version, OLD.version))::text);
    RETURN NULL;
END $$;

CREATE FUNCTION aegis_tell_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW IS NOT DISTINCT FROM OLD THEN
        RETURN NULL;
    END IF;
    PERFORM pg_notify('aegis_key_events', json_build_object(
        'v', 1, 'kind', 'owner', 'owner_id', coalesce(NEW.id, OLD.id), 'version', coalesce(NEW.version, OLD.version))::text);
    RETURN NULL;
END $$;

CREATE FUNCTION aegis_tell_all() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('aegis_key_events', '{"v": 1, "kind": "all"}');
    RETURN NULL;
END $$;

CREATE FUNCTION aegis_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_events is append-only' USING ERRCODE = 'check_violation';
END $$;

-- Triggers of one kind fire in the order of their names.
CREATE TRIGGER aegis_1_guard   BEFORE UPDATE                     ON api_keys FOR EACH ROW EXECUTE FUNCTION aegis_guard_key();
CREATE TRIGGER aegis_2_version BEFORE INSERT OR UPDATE           ON api_keys FOR EACH ROW EXECUTE FUNCTION aegis_stamp_version();
CREATE TRIGGER aegis_3_cascade AFTER UPDATE OF status            ON api_keys FOR EACH ROW
    WHEN (NEW.status = 'revoked' AND OLD.status <> 'revoked') EXECUTE FUNCTION aegis_cascade_revocation();
CREATE TRIGGER aegis_4_tell    AFTER INSERT OR UPDATE OR DELETE  ON api_keys FOR EACH ROW EXECUTE FUNCTION aegis_tell_key();
CREATE TRIGGER aegis_5_tell    AFTER TRUNCATE                    ON api_keys FOR EACH STATEMENT EXECUTE FUNCTION aegis_tell_all();
CREATE TRIGGER aegis_1_touch   AFTER INSERT OR UPDATE OR DELETE  ON api_key_secrets FOR EACH ROW EXECUTE FUNCTION aegis_touch_key();
CREATE TRIGGER aegis_2_tell    AFTER TRUNCATE                    ON api_key_secrets FOR EACH STATEMENT EXECUTE FUNCTION aegis_tell_all();
CREATE TRIGGER aegis_1_version BEFORE INSERT OR UPDATE           ON owners FOR EACH ROW EXECUTE FUNCTION aegis_stamp_version();
CREATE TRIGGER aegis_2_tell    AFTER INSERT OR UPDATE OR DELETE  ON owners FOR EACH ROW EXECUTE FUNCTION aegis_tell_owner();
CREATE TRIGGER aegis_3_tell    AFTER TRUNCATE                    ON owners FOR EACH STATEMENT EXECUTE FUNCTION aegis_tell_all();
CREATE TRIGGER aegis_1_refuse  BEFORE UPDATE OR DELETE           ON audit_events FOR EACH ROW EXECUTE FUNCTION aegis_refuse_change();
CREATE TRIGGER aegis_2_refuse  BEFORE TRUNCATE                   ON audit_events FOR EACH STATEMENT EXECUTE FUNCTION aegis_refuse_change();

ALTER TABLE api_keys ENABLE ALWAYS TRIGGER aegis_1_guard;
ALTER TABLE api_keys ENABLE ALWAYS TRIGGER aegis_2_version;
ALTER TABLE api_keys ENABLE ALWAYS TRIGGER aegis_3_cascade;
ALTER TABLE api_keys ENABLE ALWAYS TRIGGER aegis_4_tell;
ALTER TABLE api_keys ENABLE ALWAYS TRIGGER aegis_5_tell;
ALTER TABLE api_key_secrets ENABLE ALWAYS TRIGGER aegis_1_touch;
ALTER TABLE api_key_secrets ENABLE ALWAYS TRIGGER aegis_2_tell;
ALTER TABLE owners ENABLE ALWAYS TRIGGER aegis_1_version;
ALTER TABLE owners ENABLE ALWAYS TRIGGER aegis_2_tell;
ALTER TABLE owners ENABLE ALWAYS TRIGGER aegis_3_tell;
ALTER TABLE audit_events ENABLE ALWAYS TRIGGER aegis_1_refuse;
ALTER TABLE audit_events ENABLE ALWAYS TRIGGER aegis_2_refuse;
