-- What waits to be done is listed in partial indexes that only the sweeps over them may read. Statistics of a quiet
-- night say that nothing waits; then such a list looked cheaper than one look by an id, and was read whole for each
-- order of the next crowd. The last condition is always true, and only the sweeps ask for it.
DROP INDEX orders_unpaid;
CREATE INDEX orders_unpaid ON orders (expires_at) WHERE status = 'pending' AND expires_at > '-infinity';
DROP INDEX outbox_owed;
CREATE INDEX outbox_owed ON outbox (run_at) WHERE state = 'owed' AND run_at > '-infinity';
