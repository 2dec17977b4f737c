-- A session belongs to a key in its owner's hands: a key that changed hands has no business with what was made before.
-- NULL: made before this was written down, and of nobody's now.
ALTER TABLE mcp_sessions ADD COLUMN owner text;

-- Tasks: which key made each. A task id opens its result to whoever holds it, so it is bound like a session.

CREATE TABLE mcp_tasks (
    upstream   text NOT NULL,
    task_hash  bytea NOT NULL,
    key_id     text NOT NULL,
    scopes     text[] NOT NULL,  -- what the call that made it rested on: still needed to see what became of it
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (upstream, task_hash)
);
CREATE INDEX mcp_tasks_key ON mcp_tasks (key_id);
CREATE INDEX mcp_tasks_age ON mcp_tasks (created_at);
