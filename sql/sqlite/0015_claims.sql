-- A process claims a delivery by moving its `due_at` to the end of the claim, so no lease decides which process delivers.
DROP TABLE leases;

-- `aggregate` (resource type and id) is now set on every delivery that must keep its place, from the beginning: only the
-- oldest of an aggregate has a time, and those behind it have -1. It stays NULL where order does not matter, as for the
-- audit log and for resets, and on dead letters.
UPDATE deliveries
    SET aggregate = (SELECT resource_type || ' ' || resource_id FROM outbox WHERE outbox.seq = deliveries.seq)
    WHERE due_at IS NOT NULL AND subscriber NOT IN ('audit', 'resets');
UPDATE deliveries SET due_at = -1
    WHERE aggregate IS NOT NULL AND EXISTS (
        SELECT 1 FROM deliveries AS earlier
        WHERE earlier.subscriber = deliveries.subscriber AND earlier.aggregate = deliveries.aggregate
        AND earlier.seq < deliveries.seq
    );
