-- When keys were last used, with which secret, from where and for what; and last refused. Gathered in memory and written
-- in batches, never by a request; apart from `api_keys`, whose every change is news to all instances. No foreign keys:
-- a batch may come in after a key was deleted.
CREATE TABLE key_last_uses (
    key_id         text NOT NULL,
    secret_version integer NOT NULL CHECK (secret_version >= -1),  -- -1: the key's last refusal, by whichever secret
    at             timestamptz NOT NULL,  -- by the clock of the instance
    address        text,  -- NULL: a Unix socket
    user_agent     text,  -- as the client says
    what           text NOT NULL,  -- the tool, prompt or resource named, else the method or route; of a refusal, its reason
    count          bigint NOT NULL CHECK (count > 0),  -- since the first
    PRIMARY KEY (key_id, secret_version)
) WITH (fillfactor = 70);  -- with no index on what changes, a row's new version stays on its page

-- Where keys were used from, so that a new place is told from a known one, after a restart and by another instance, too.
CREATE TABLE key_networks (
    key_id  text NOT NULL,
    network text NOT NULL,  -- an IPv4 address, or the /64 of an IPv6 one: who holds one such holds all of it
    seen_on date NOT NULL,
    PRIMARY KEY (key_id, network)
);
