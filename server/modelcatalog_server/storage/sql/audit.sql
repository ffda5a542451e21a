-- The audit log: calls that may change something, as they ended.

-- name: append_audit_event
-- One call.
INSERT INTO audit_log (principal, method, target, code, details)
VALUES (%(principal)s, %(method)s, %(target)s, %(code)s, %(details)s);

-- name: prune_audit_events
-- Entries that are older than their retention, a bounded number at a time.
DELETE FROM audit_log
WHERE id IN (
    SELECT id
    FROM audit_log
    WHERE happened_at < %(before)s
    ORDER BY happened_at
    LIMIT %(limit)s
);
