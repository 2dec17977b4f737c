-- What keys did, by day: how often each rule let a key pass, or refused it, and on which scopes that rested. Counted in
-- memory and added in batches, never by a request.

-- No foreign key: what a key did outlives its row.
CREATE TABLE key_usage (
    day     date NOT NULL,  -- UTC, by the clock of the instance that counted
    key_id  text NOT NULL,
    use     bytea NOT NULL,  -- SHA-256 of rule, scopes and allowed: an index takes 2,700 bytes, and scopes may be longer
    rule    text NOT NULL,  -- '': none was about it
    scopes  text[] NOT NULL,  -- allowed: what was needed, with selectors; denied: the smallest that would have sufficed
    allowed boolean NOT NULL,
    count   bigint NOT NULL CHECK (count > 0),
    last_at timestamptz NOT NULL,
    PRIMARY KEY (day, key_id, use)
);

-- The last batch of each instance that is in, of each subject. Whoever does not learn whether a batch was committed
-- writes it again, under the same number: in one transaction with the batch, a row here tells the second from the first.
CREATE TABLE flushes (
    instance uuid NOT NULL,
    subject  text NOT NULL,
    number   bigint NOT NULL,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (instance, subject)
);
