-- The audit: a chain in which every change shows.
SET search_path = public, ndrs_optout;
CREATE ROLE regress_officer;
BEGIN;
SELECT audit('one'), audit('two', '{"register": "cancer"}');
-- Linked when the transaction commits, so that nobody holds the end of the chain for long.
SELECT event, link IS NULL AS not_linked FROM audit_event WHERE event IN ('one', 'two') ORDER BY entry_id;
COMMIT;
BEGIN;
GRANT regress_officer TO CURRENT_USER;
GRANT USAGE ON SCHEMA ndrs_optout TO regress_officer;
GRANT EXECUTE ON FUNCTION audit TO regress_officer;
SET LOCAL ROLE regress_officer;
SELECT audit('three');
COMMIT;
BEGIN;
SELECT audit('never');
ROLLBACK;
SELECT e.event, e.detail, e.session_role = session_user AS mine, e.acting_role = session_user AS as_myself,
       e.event_id - lag(e.event_id) OVER (ORDER BY e.event_id) AS step
    FROM audit_event e WHERE e.event IN ('one', 'two', 'three', 'never') ORDER BY e.event_id;
SELECT * FROM verify_audit();

-- Nobody changes it, not even a replica.
UPDATE audit_event SET event = 'changed' WHERE event = 'one';
\echo :SQLSTATE
DELETE FROM audit_event WHERE event = 'one';
TRUNCATE audit_event;
SET session_replication_role = replica;
DELETE FROM audit_event WHERE event = 'one';
TRUNCATE audit_event;
RESET session_replication_role;

-- A superuser who switches that off is found out.
CREATE FUNCTION pg_temp.found_out() RETURNS TABLE (position_from_two bigint, problem text) LANGUAGE sql AS $$
    SELECT v.event_id - t.event_id, regexp_replace(v.problem, '\d[-\d]*', 'N', 'g')
        FROM ndrs_optout.verify_audit() v, ndrs_optout.audit_event t WHERE t.event = 'two' OR t.event = 'TWO'
        ORDER BY 1, 2 $$;
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
UPDATE audit_event SET detail = '{"register": "rare_disease"}' WHERE event = 'two';
SELECT * FROM pg_temp.found_out();
ROLLBACK;
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
UPDATE audit_event SET happened_at = happened_at - interval '1 day' WHERE event = 'two';
SELECT * FROM pg_temp.found_out();
ROLLBACK;
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
UPDATE audit_event SET acting_role = 'somebody', event = 'TWO' WHERE event = 'two';
SELECT * FROM pg_temp.found_out();
ROLLBACK;
-- All is removed.
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
DELETE FROM audit_event; DELETE FROM audit_segment;
SELECT * FROM verify_audit();
SELECT status, detail FROM health() WHERE check_name = 'audit';
ROLLBACK;
-- One is removed, the last one is, all are.
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
DELETE FROM audit_event WHERE event = 'one';
SELECT * FROM pg_temp.found_out();
ROLLBACK;
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
DELETE FROM audit_event WHERE event = 'three';
SELECT * FROM pg_temp.found_out();
ROLLBACK;
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
DELETE FROM audit_event;
SELECT regexp_replace(problem, '\d[-\d]*', 'N', 'g') AS problem FROM verify_audit();
ROLLBACK;
-- Two change places; one is linked anew, as somebody would who knows how.
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
UPDATE audit_event e SET event_id = -e.event_id WHERE e.event IN ('one', 'two');
UPDATE audit_event e SET event_id = (SELECT -o.event_id FROM audit_event o WHERE o.event_id < 0 AND o.event <> e.event)
    WHERE e.event_id < 0;
SELECT * FROM pg_temp.found_out();
ROLLBACK;
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
UPDATE audit_event SET event = 'TWO' WHERE event = 'two';
UPDATE audit_event t SET link = audit_link((SELECT o.link FROM audit_event o WHERE o.event = 'one'), t) WHERE t.event = 'TWO';
SELECT * FROM pg_temp.found_out();
ROLLBACK;
-- One is added.
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
INSERT INTO audit_event (event, detail, acting_role) VALUES ('added', '{}', 'somebody');
SELECT problem FROM verify_audit();
ROLLBACK;
SELECT * FROM verify_audit();

-- Who links all events anew, or makes the chain end earlier, is found out by a link that was noted.
SELECT event_id AS two, link AS two_link FROM audit_event WHERE event = 'two' \gset
SELECT event_id AS three, link AS three_link FROM audit_event WHERE event = 'three' \gset
SELECT * FROM verify_audit(:two, :'two_link');
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
UPDATE audit_event SET event = 'TWO' WHERE event = 'two';
UPDATE audit_event t SET link = audit_link((SELECT o.link FROM audit_event o WHERE o.event = 'one'), t) WHERE t.event = 'TWO';
UPDATE audit_event t SET link = audit_link((SELECT o.link FROM audit_event o WHERE o.event = 'TWO'), t) WHERE t.event = 'three';
UPDATE audit_segment SET closing_link = (SELECT link FROM audit_event WHERE event = 'three') WHERE last_event_id = :three;
SELECT * FROM verify_audit();
SELECT problem FROM verify_audit(:two, :'two_link');
SELECT problem FROM verify_audit(:three, :'three_link');
ROLLBACK;
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
DELETE FROM audit_event WHERE event = 'three';
UPDATE audit_segment SET last_event_id = :two, closing_link = :'two_link' WHERE last_event_id = :three;
SELECT * FROM verify_audit();
SELECT problem FROM verify_audit(:three, :'three_link');
ROLLBACK;
-- Half of what was noted is not enough.
SELECT problem FROM verify_audit(:two);
SELECT event_id, problem FROM verify_audit(known_link => :'two_link');

-- At REPEATABLE READ an event of another transaction since the snapshot is an
-- error (see the specs), and one of one's own is not.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) > 0 AS read FROM audit_event;
SELECT audit('repeatable');
SELECT audit('repeatable');
COMMIT;
SELECT * FROM verify_audit();

-- A new month begins a new segment.
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER append_only;
INSERT INTO audit_event (event, detail, acting_role, happened_at) VALUES ('later', '{}', 'somebody', now() + interval '40 days');
SELECT audit_link_events(ARRAY(SELECT entry_id FROM audit_event WHERE link IS NULL));
SELECT count(*) = 1 AS begun FROM audit_segment WHERE segment > now()::date;
SELECT * FROM verify_audit();
-- The clock goes back; the audit does not.
SELECT audit('back again');
SELECT audit_link_events(ARRAY(SELECT entry_id FROM audit_event WHERE link IS NULL));
SELECT count(DISTINCT segment) FROM audit_event WHERE event IN ('later', 'back again');
SELECT * FROM verify_audit();
ROLLBACK;
-- Nothing that a user does takes the end of the chain before the transaction is over.
SET SESSION AUTHORIZATION regress_officer;
BEGIN;
SELECT ndrs_optout.audit('early');
SET CONSTRAINTS ALL IMMEDIATE;
SELECT count(*) AS locks FROM pg_locks WHERE relation = 'ndrs_optout.audit_segment'::regclass AND pid = pg_backend_pid();
ROLLBACK;
-- Nor does it stay taken until another session ends it.
BEGIN;
SELECT ndrs_optout.audit('early');
PREPARE TRANSACTION 'early';
\echo :SQLSTATE
-- An event that a savepoint took back has no place, and those around it have.
BEGIN;
SELECT ndrs_optout.audit('in time');
SAVEPOINT s;
SELECT ndrs_optout.audit('early');
ROLLBACK TO SAVEPOINT s;
COMMIT;
DO $$ BEGIN PERFORM ndrs_optout.audit('in time'); COMMIT; PERFORM ndrs_optout.audit('in time'); END $$;
RESET SESSION AUTHORIZATION;
SELECT event, count(*), count(link) AS linked FROM audit_event WHERE event IN ('early', 'in time') GROUP BY event;

SELECT * FROM verify_audit();
REVOKE ALL ON FUNCTION audit FROM regress_officer;
REVOKE ALL ON SCHEMA ndrs_optout FROM regress_officer;
DROP ROLE regress_officer;
