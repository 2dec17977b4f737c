-- A session belongs to a key in its owner's hands: a key that changed hands has no business with what was made before.
-- NULL: made before this was written down, and of nobody's now.
ALTER TABLE mcp_sessions ADD COLUMN owner text;

-- A child made while its parent is being revoked waits for that, and is then refused. A parent that is not there yet is
-- left to the foreign key: rows may be copied in any order.
CREATE FUNCTION aegis_guard_child() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    parent_status text;
BEGIN
    SELECT status INTO parent_status FROM api_keys WHERE id = NEW.parent_id FOR SHARE;
    IF parent_status = 'revoked' AND NEW.status <> 'revoked' THEN
        RAISE EXCEPTION 'the parent of key % is revoked', NEW.id USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER aegis_0_parent BEFORE INSERT ON api_keys FOR EACH ROW
    WHEN (NEW.parent_id IS NOT NULL) EXECUTE FUNCTION aegis_guard_child();
ALTER TABLE api_keys ENABLE ALWAYS TRIGGER aegis_0_parent;

-- Tasks: which key made each. A task id opens its result to whoever holds it, so it is bound like a session.

CREATE TABLE mcp_tasks (
    upstream   text NOT NULL,
    task_hash  bytea NOT NULL,
    key_id     text NOT NULL,
    owner      text NOT NULL,  -- of the key at that time: a key that changed hands has lost its tasks
    scopes     text[] NOT NULL,  -- what the call that made it rested on: still needed to see what became of it
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (upstream, task_hash)
);
CREATE INDEX mcp_tasks_key ON mcp_tasks (key_id);
CREATE INDEX mcp_tasks_age ON mcp_tasks (created_at);
