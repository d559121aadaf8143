-- Whether all is well: each check, with each status.
\set SHOW_CONTEXT never
\set home :DBNAME
CREATE DATABASE regress_health;
\c regress_health
SET client_min_messages = warning;
CREATE EXTENSION ndrs_optout CASCADE;
RESET client_min_messages;
SET search_path = public, ndrs_optout;
SET timezone = 'Europe/London';
CREATE VIEW asked AS SELECT check_name, status, regexp_replace(detail, '[0-9a-fA-F]{8,}', '<key>') AS detail, what_to_do FROM health()
    WHERE check_name <> 'data_checksums';

-- As installed: every check is there.
SELECT * FROM asked;
SELECT count(*) = (SELECT count(*) FROM health()) AS all_of_them
    FROM pg_proc WHERE pronamespace = 'ndrs_optout'::regnamespace AND proname LIKE 'health\_%';

-- Key
SELECT length(adopt_key());
SELECT status, detail FROM asked WHERE check_name = 'key';
BEGIN;
UPDATE encoding_key SET fingerprint = '00000000000000000000000000000000', key_id = '00000000';
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'key';
ROLLBACK;

-- Guards
CREATE TABLE patient (id int PRIMARY KEY, nhs_number nhs_number);
CREATE INDEX patient_nhs_number ON patient (nhs_number);
SELECT guard_table('patient', 'nhs_number', '{cancer}');
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'guards';
BEGIN;
DROP INDEX patient_nhs_number;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'guards';
CREATE MATERIALIZED VIEW copy AS SELECT id FROM patient;
SELECT status, detail FROM asked WHERE check_name = 'guards';
ALTER TABLE patient FORCE ROW LEVEL SECURITY;
SELECT status, detail FROM asked WHERE check_name = 'guards';
ROLLBACK;

-- Sentry
BEGIN;
SET LOCAL ndrs_optout.allow_unguarded = on;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'sentry';
ALTER EVENT TRIGGER ndrs_optout_sentry_end ENABLE;
SELECT status, detail, what_to_do FROM asked WHERE check_name IN ('sentry', 'guards');
ROLLBACK;
SELECT status, detail FROM asked WHERE check_name = 'sentry';

-- Deadlines
SELECT open_case('9990000018', '{cancer}', received_on => current_date - 30) AS case_id \gset
SELECT status, detail FROM asked WHERE check_name = 'deadlines';
BEGIN;
UPDATE optout_case SET state = 'ready', due_on = current_date + 4;
SELECT status, detail FROM asked WHERE check_name = 'deadlines';
UPDATE optout_case SET due_on = current_date + 3;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'deadlines';
UPDATE optout_case SET due_on = current_date;
SELECT status, detail FROM asked WHERE check_name = 'deadlines';
UPDATE optout_case SET due_on = current_date - 1;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'deadlines';
UPDATE optout_case SET state = 'withdrawn', ended_at = now();
SELECT status, detail FROM asked WHERE check_name = 'deadlines';
ROLLBACK;

-- Requests for subject access
SELECT status, detail FROM asked WHERE check_name = 'subject_access';
BEGIN;
SELECT request_subject_access('9990000018') AS request \gset
SELECT record_subject_access_proof(:request, 'identity', 'passport') \g /dev/null
SELECT status, detail FROM asked WHERE check_name = 'subject_access';
UPDATE subject_access_request SET due_on = current_date + 3;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'subject_access';
UPDATE subject_access_request SET due_on = current_date - 1;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'subject_access';
UPDATE subject_access_request SET answered_at = now();
SELECT status, detail FROM asked WHERE check_name = 'subject_access';
ROLLBACK;

-- Audit
SELECT status, detail FROM asked WHERE check_name = 'audit';
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER append_only;
UPDATE audit_event SET event = 'another' WHERE event_id = 1;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'audit';
ROLLBACK;

-- Confidential key: any will do here.
BEGIN;
INSERT INTO confidential_key (key_id, public_key) VALUES ('0123456789ABCDEF', '\x00');
SELECT status, detail FROM asked WHERE check_name = 'confidential_key';
ROLLBACK;

-- National checks: one waits, one waits for long, one is in force, one has expired.
BEGIN;
SELECT start_national_check('{9990000018}'::nhs_number[]) AS check_id \gset
SELECT status, detail FROM asked WHERE check_name = 'national_check';
UPDATE national_check SET started_at = now() - interval '2 days 1 s';
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'national_check';
SELECT load_national_check(:check_id, ARRAY['9990000018']);
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'national_check';
UPDATE national_check SET expires_at = now();
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'national_check';
SELECT start_national_check('{9990000018}'::nhs_number[]) > 0 AS another;
SELECT status, detail FROM asked WHERE check_name = 'national_check';
ROLLBACK;

-- Access
CREATE ROLE regress_officer;
SELECT grant_access('regress_officer', 'officer');
SELECT status, detail FROM asked WHERE check_name = 'access';
REVOKE EXECUTE ON FUNCTION open_case FROM regress_officer;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'access';
SELECT revoke_access('regress_officer', 'officer');
SELECT status, detail FROM asked WHERE check_name = 'access';

-- Version
BEGIN;
UPDATE pg_extension SET extversion = '0.0' WHERE extname = 'ndrs_optout';
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'version';
ROLLBACK;

-- Triggers, as a restore with --disable-triggers leaves them, and one that is off
BEGIN;
ALTER TABLE ndrs_optout.exclusion DISABLE TRIGGER ALL, ENABLE TRIGGER ALL;
ALTER TABLE ndrs_optout.guard ENABLE TRIGGER invalidate_caches;
ALTER TABLE ndrs_optout.register DISABLE TRIGGER is_used;
SELECT status, detail, replace(what_to_do, '; ', E'\n') AS what_to_do FROM asked WHERE check_name = 'triggers';
SELECT what_to_do FROM asked WHERE check_name = 'triggers' \gexec
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'triggers';
ROLLBACK;

-- A trigger that is gone
BEGIN;
DROP TRIGGER owner_only ON ndrs_optout.optout_case;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'triggers';
ROLLBACK;

-- Sweep: the last look at each column counts, whichever sweep it was.
CALL sweep();
SELECT status, detail FROM asked WHERE check_name = 'sweep';
BEGIN;
UPDATE sweep_leaf SET patients_with_case = 2;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'sweep';
UPDATE sweep SET finished_at = NULL;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'sweep';
UPDATE sweep_leaf SET patients_left = 2;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'sweep';
-- A later sweep of another table says nothing about this one,
CREATE TABLE other (nhs_number nhs_number);
UPDATE sweep SET finished_at = now();
INSERT INTO sweep (sweep_id, target, fingerprint, finished_at) OVERRIDING SYSTEM VALUE VALUES (1000, 'other', '', now());
INSERT INTO sweep_leaf (sweep_id, target, relation, nhs_number_column, state, finished_at)
    VALUES (1000, 'other', 'other', 'nhs_number', 'done', now() + interval '1 second');
SELECT status, detail FROM asked WHERE check_name = 'sweep';
-- and what it did not finish is no look.
INSERT INTO sweep_leaf (sweep_id, target, relation, nhs_number_column, state)
    VALUES (1000, 'patient', 'patient', 'nhs_number', 'erasing');
SELECT status, detail FROM asked WHERE check_name = 'sweep';
UPDATE sweep_leaf SET state = 'done', finished_at = now() + interval '1 second' WHERE sweep_id = 1000 AND relation = 'patient'::regclass;
SELECT status, detail FROM asked WHERE check_name = 'sweep';
ROLLBACK;
-- The purge keeps what is looked at.
BEGIN;
INSERT INTO sweep (sweep_id, target, fingerprint, finished_at) OVERRIDING SYSTEM VALUE VALUES (1000, NULL, '', now());
SELECT removed FROM purge() WHERE what = 'sweeps';
INSERT INTO sweep_leaf (sweep_id, target, relation, nhs_number_column, state, finished_at)
    VALUES (1000, 'patient', 'patient', 'nhs_number', 'done', now() + interval '1 second');
SELECT removed FROM purge() WHERE what = 'sweeps';
SELECT count(*) FROM sweep;
ROLLBACK;

-- The exclusion list against the cases: an opt-out that took effect, an entry that is
-- gone, a later opt-in, an earlier one.
CREATE FUNCTION opted_out(number nhs_number, registers text[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    id bigint := ndrs_optout.open_case(number, registers);
BEGIN
    PERFORM ndrs_optout.record_identity(id, 'identity', 'passport'), ndrs_optout.record_identity(id, 'address', 'utility_bill');
    PERFORM ndrs_optout.case_exclude(id, number);
    RETURN id;
END
$$;
CREATE VIEW listed AS SELECT status, detail FROM asked WHERE check_name = 'exclusion_list';
SELECT * FROM listed;
BEGIN;
SELECT opted_out('9990000026', '{cancer}') AS opted_out \gset
SELECT * FROM listed;
SAVEPOINT s;
DELETE FROM exclusion;
SELECT * FROM listed;
SELECT what_to_do FROM asked WHERE check_name = 'exclusion_list';
SELECT case_id = :opted_out AS this_case, register FROM unlisted_opt_outs();
UPDATE optout_case SET state = 'carried_out' WHERE case_id = :opted_out;
SELECT status FROM listed;
UPDATE optout_case SET state = 'completed', ended_at = now() WHERE case_id = :opted_out;
SELECT status FROM listed;
-- Another register, or another patient, changes nothing.
INSERT INTO exclusion SELECT 'rare_disease', encode_nhs_number('9990000026');
INSERT INTO exclusion SELECT 'cancer', encode_nhs_number('9990000034');
SELECT * FROM listed;
ROLLBACK;
SELECT opted_out('9990000026', '{cancer}') AS opted_out \gset
CALL carry_out(:opted_out, '9990000026');
SELECT complete_case(:opted_out) IS NOT NULL AS completed;
SELECT * FROM listed;
BEGIN;
SELECT opt_in('9990000026', '{cancer}') > :opted_out AS opted_in;
SELECT * FROM listed;
UPDATE optout_case SET carried_out_at = (SELECT excluded_at - interval '1 s' FROM optout_case WHERE case_id = :opted_out)
    WHERE kind = 'opt_in';
SELECT * FROM listed;
ROLLBACK;

-- The list as guards read it: where another extension keeps the rows elsewhere, SQL
-- still sees them.
BEGIN;
SELECT exclude('9990000034', '{cancer}');
CREATE TABLE shard () INHERITS (exclusion);
SELECT * FROM listed;
INSERT INTO shard SELECT 'rare_disease', encode_nhs_number('9990000034');
SELECT count(*) FROM exclusion;
SELECT * FROM listed;
SELECT what_to_do FROM asked WHERE check_name = 'exclusion_list';
ROLLBACK;

-- Releases: an excluded patient is in one, and nobody was asked.
BEGIN;
SELECT add_recipient('hospital', 'Hospital', 'nhs_number');
SELECT add_agreement('hospital', 'consent', 'agreement 1', '2000-01-01', '2099-12-31') \g /dev/null
SELECT record_release('{9990000042,9990000034}'::nhs_number[], 'explicit_consent', '{cancer}', 'hospital', current_date, 'order') AS release \gset
CREATE VIEW released AS SELECT status, detail, what_to_do FROM asked WHERE check_name = 'releases';
SELECT * FROM released;
SELECT exclude('9990000034', '{rare_disease}');
SELECT * FROM released;
SELECT exclude('9990000042', '{cancer}'), exclude('9990000034', '{cancer}');
SELECT * FROM released;
SELECT release_id = :release AS this_release, register, patients FROM releases_without_notice();
-- A case that is being carried out will raise the notice, and then has.
SELECT opted_out('9990000042', '{cancer}') AS opted_out \gset
SELECT register, patients FROM releases_without_notice();
UPDATE optout_case c SET state = 'carried_out', carried_out_at = clock_timestamp(), recalls = raise_recalls(c, '9990000042') WHERE case_id = :opted_out;
SELECT count(*) FROM recall_notice;
SELECT register, patients FROM releases_without_notice();
DELETE FROM recall_notice;
UPDATE optout_case SET recalls = 0 WHERE case_id = :opted_out;
SELECT register, patients FROM releases_without_notice();
-- The purge has removed it.
UPDATE optout_case SET recalls = 1 WHERE case_id = :opted_out;
SELECT register, patients FROM releases_without_notice();
-- The recipient has destroyed the data.
UPDATE release SET destroyed_on = current_date;
SELECT * FROM released;
ROLLBACK;

-- Certificates
CREATE VIEW certified AS SELECT status, detail, what_to_do FROM asked WHERE check_name = 'certificates';
SELECT * FROM certified;
BEGIN;
UPDATE case_certificate SET certificate = certificate || '{"recount": 1}';
SELECT * FROM certified;
ROLLBACK;
BEGIN;
DELETE FROM case_certificate;
SELECT * FROM certified;
ROLLBACK;

-- Who reaches the tables otherwise than by a duty
CREATE VIEW reached AS SELECT status, detail FROM asked WHERE check_name = 'privileges';
CREATE VIEW ways AS SELECT role, way, reads, changes FROM access_ways() WHERE role = 'public' OR role LIKE 'regress\_%';
SELECT * FROM ways;
CREATE ROLE regress_etl;
CREATE ROLE regress_clerk;
CREATE ROLE regress_deputy NOINHERIT;
BEGIN;
GRANT pg_write_all_data TO regress_etl;
SELECT * FROM ways;
SELECT status, detail LIKE '%regress_etl (changes)%' AS named, detail LIKE '%regress_clerk%' AS other FROM reached;
-- By being a member only, and by having to say so
GRANT regress_etl TO regress_deputy;
GRANT pg_read_all_data, pg_execute_server_program TO regress_deputy;
SELECT * FROM ways;
ROLLBACK;
BEGIN;
-- Grants: on a table, on a column, on a view; those of a duty do not count.
SELECT grant_access('regress_clerk', 'steward');
SELECT * FROM ways;
GRANT SELECT ON exclusion, case_progress TO regress_clerk;
GRANT UPDATE (name) ON register TO regress_etl;
GRANT regress_clerk TO regress_deputy;
GRANT SELECT ON purpose TO PUBLIC;
SELECT * FROM ways;
SELECT status FROM reached;
ROLLBACK;
BEGIN;
ALTER ROLE regress_etl REPLICATION;
SELECT current_user AS owner \gset
GRANT :owner TO regress_deputy;
SELECT role, replace(way, :'owner', 'OWNER') AS way, reads, changes FROM ways;
ROLLBACK;
-- What later versions have: a role that may lock tables, and members that can neither
-- inherit nor become the role, but grant it to themselves, or can do nothing with it.
BEGIN;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'pg_maintain') THEN
        EXECUTE 'GRANT pg_maintain TO regress_clerk';
    END IF;
    IF current_setting('server_version_num')::integer >= 160000 THEN
        EXECUTE 'GRANT pg_read_all_data TO regress_etl WITH INHERIT FALSE, SET FALSE, ADMIN TRUE';
        EXECUTE 'GRANT pg_read_all_data TO regress_deputy WITH INHERIT FALSE, SET FALSE, ADMIN FALSE';
    ELSE
        GRANT pg_read_all_data TO regress_etl;
    END IF;
END
$$;
SELECT role, way, reads, changes FROM ways WHERE way <> 'pg_maintain';
SELECT (SELECT count(*) FROM pg_roles WHERE rolname = 'pg_maintain') = (SELECT count(*) FROM ways WHERE way = 'pg_maintain') AS locks,
       (SELECT bool_or(reads OR changes) FROM ways WHERE way = 'pg_maintain') IS TRUE AS more;
ROLLBACK;
DROP ROLE regress_etl, regress_clerk, regress_deputy;

-- Settings that write parameters down, of roles that handle NHS numbers; by whatever way they are set
BEGIN;
SELECT status, detail FROM asked WHERE check_name = 'logging';
SELECT grant_access('regress_officer', 'officer') \g /dev/null
CREATE ROLE regress_member LOGIN IN ROLE regress_officer;
ALTER ROLE regress_officer SET log_statement = 'mod';
ALTER ROLE regress_member SET log_statement = 'all';
ALTER ROLE regress_member SET auto_explain.log_min_duration = '250ms';
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'logging';
ALTER DATABASE regress_health SET log_min_duration_statement = 0;
ALTER ROLE regress_member SET log_parameter_max_length = 0;
ALTER ROLE regress_member SET auto_explain.log_min_duration = -1;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'logging';
ALTER ROLE regress_officer IN DATABASE regress_health SET log_min_duration_statement = -1;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'logging';
ALTER ROLE ALL SET pgaudit.log_parameter = on;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'logging';
ROLLBACK;

-- Bank holidays, and the cluster's checksums
SELECT status, detail FROM asked WHERE check_name = 'bank_holidays';
BEGIN;
UPDATE bank_holiday SET observed = false WHERE day > current_date + 365;
SELECT status, regexp_replace(detail, '\d{4}-\d\d-\d\d', 'DAY') AS detail, what_to_do FROM asked WHERE check_name = 'bank_holidays';
UPDATE bank_holiday SET observed = false;
SELECT status, detail FROM asked WHERE check_name = 'bank_holidays';
ROLLBACK;
SELECT (status = 'ok') = current_setting('data_checksums')::boolean AS as_it_is, (status = 'ok') = (what_to_do IS NULL) AS told
    FROM health() WHERE check_name = 'data_checksums';

-- Purge
BEGIN;
INSERT INTO guard_tally VALUES ('pg_class', current_date - 10, 'missing', 'allow', 1), ('pg_class', current_date - 10, 'missing', 'allow', 1);
SELECT status, regexp_replace(detail, '[-\d]+', 'DAY') AS detail, what_to_do FROM asked WHERE check_name = 'purge';
ROLLBACK;

-- A check that cannot be done fails by itself, and the others are done.
BEGIN;
ALTER TABLE confidential_key RENAME TO something_else;
ALTER TABLE encoding_key RENAME TO something_else_too;
SELECT check_name, status, detail, what_to_do FROM asked WHERE status = 'failed';
SELECT count(*) = (SELECT count(*) FROM pg_proc WHERE pronamespace = 'ndrs_optout'::regnamespace AND proname LIKE 'health\_%')
        AS all_of_them, bool_and(status IN ('ok', 'warning', 'failed') AND detail IS NOT NULL
        AND (what_to_do IS NULL) = (status = 'ok')) AS each_is_told
    FROM health();
ROLLBACK;

-- A check more is a function more.
BEGIN;
CREATE FUNCTION ndrs_optout.health_moon() RETURNS health_finding LANGUAGE sql AS $$ SELECT ROW('warning', 'full', 'wait') $$;
SELECT * FROM health() WHERE check_name = 'moon';
ROLLBACK;

\c :home
DROP DATABASE regress_health;
DROP ROLE regress_officer;
