-- A look reads what is due, not what waits. `aggregate` (resource type and id) is set on a delivery that has failed, and
-- on those behind it, whose `due_at` is -1 until they are released. 0: due since it was written.
ALTER TABLE deliveries ADD COLUMN aggregate TEXT;
UPDATE deliveries
    SET aggregate = (SELECT resource_type || ' ' || resource_id FROM outbox WHERE outbox.seq = deliveries.seq)
    WHERE due_at > 0;
DROP INDEX deliveries_owed;
CREATE INDEX deliveries_due ON deliveries (subscriber, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX deliveries_waiting ON deliveries (subscriber, aggregate, seq) WHERE aggregate IS NOT NULL;
