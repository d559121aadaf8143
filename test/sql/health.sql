-- Whether all is well: each check, with each status.
\set SHOW_CONTEXT never
\set home :DBNAME
CREATE DATABASE regress_health;
\c regress_health
SET client_min_messages = warning;
CREATE EXTENSION ndrs_optout CASCADE;
RESET client_min_messages;
SET search_path = public, ndrs_optout;
CREATE VIEW asked AS SELECT check_name, status, regexp_replace(detail, '[0-9a-fA-F]{8,}', '<key>') AS detail, what_to_do FROM health();

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
SELECT open_case('9990000018', '{cancer}', form_received_on => current_date - 30) AS case_id \gset
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
SELECT status, detail FROM asked WHERE check_name = 'subject access';
BEGIN;
SELECT request_subject_access('9990000018') > 0 AS requested;
SELECT status, detail FROM asked WHERE check_name = 'subject access';
UPDATE subject_access_request SET due_on = current_date + 3;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'subject access';
UPDATE subject_access_request SET due_on = current_date - 1;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'subject access';
UPDATE subject_access_request SET answered_at = now();
SELECT status, detail FROM asked WHERE check_name = 'subject access';
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
SELECT status, detail FROM asked WHERE check_name = 'confidential key';
ROLLBACK;

-- National checks: one waits, one waits for long, one is in force, one has expired.
BEGIN;
SELECT start_national_check('{9990000018}'::nhs_number[]) AS check_id \gset
SELECT status, detail FROM asked WHERE check_name = 'national check';
UPDATE national_check SET started_at = now() - interval '2 days 1 s';
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'national check';
SELECT load_national_check(:check_id, ARRAY['9990000018']);
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'national check';
UPDATE national_check SET expires_at = now();
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'national check';
SELECT start_national_check('{9990000018}'::nhs_number[]) > 0 AS another;
SELECT status, detail FROM asked WHERE check_name = 'national check';
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
ALTER TABLE ndrs_optout.guard ENABLE TRIGGER forget_copies;
ALTER TABLE ndrs_optout.register DISABLE TRIGGER is_used;
SELECT status, detail, replace(what_to_do, '; ', E'\n') AS what_to_do FROM asked WHERE check_name = 'triggers';
SELECT what_to_do FROM asked WHERE check_name = 'triggers' \gexec
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'triggers';
ROLLBACK;

-- Sweep
CALL sweep();
SELECT status, detail FROM asked WHERE check_name = 'sweep';
BEGIN;
UPDATE sweep_leaf SET patients_left = 2;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'sweep';
UPDATE sweep SET finished_at = NULL;
SELECT status, detail, what_to_do FROM asked WHERE check_name = 'sweep';
ROLLBACK;

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
