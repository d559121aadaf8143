\set SHOW_CONTEXT never
-- A library with the catalogue of another version or build: an error, never a wrong
-- answer, nor a crash.
SET search_path = public, ndrs_optout;
SELECT exclude('9990000018', '{cancer}');
CREATE TABLE versioned (nhs text);
SELECT guard_table('versioned', 'nhs', '{cancer}', 'skip');
SELECT add_recipient('versions', 'Versions', 'nhs_number');

-- Make a change, ask, and take the change back.
CREATE FUNCTION pg_temp.after(change text, question text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    what_it_says text;
BEGIN
    EXECUTE change;
    EXECUTE question;
    RAISE SQLSTATE '00001' USING MESSAGE = 'answered', DETAIL = '';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS what_it_says = PG_EXCEPTION_DETAIL;
    RETURN concat_ws(E'\n', SQLSTATE, SQLERRM, what_it_says);
END
$$;
\pset format unaligned
\pset tuples_only on

-- What the library reads by number: another name, another type, another place, nullable
SELECT pg_temp.after('ALTER TABLE encoding_key RENAME fingerprint TO print', 'SELECT is_excluded(''9990000018'', ''cancer'')');
SELECT pg_temp.after('ALTER TABLE encoding_key ALTER fingerprint TYPE text USING ''x''', 'SELECT is_excluded(''9990000018'', ''cancer'')');
SELECT pg_temp.after('ALTER TABLE encoding_key ALTER fingerprint DROP NOT NULL', 'SELECT is_excluded(''9990000018'', ''cancer'')');
SELECT pg_temp.after('ALTER TABLE register RENAME code TO name_of_it', 'SELECT is_excluded(''9990000018'', ''cancer'')');
SELECT pg_temp.after('ALTER TABLE exclusion RENAME encoded_nhs_number TO token', 'SELECT is_excluded(''9990000018'', ''cancer'')');
SELECT pg_temp.after('ALTER TABLE exclusion DROP register', 'SELECT is_excluded(''9990000018'', ''cancer'')');
SELECT pg_temp.after('ALTER TABLE exclusion RENAME register TO r', 'INSERT INTO versioned VALUES (''9990000026'')');
SELECT pg_temp.after('ALTER EVENT TRIGGER ndrs_optout_sentry_end DISABLE; ALTER TABLE guard RENAME target TO relation', 'INSERT INTO versioned VALUES (''9990000026'')');
SELECT pg_temp.after('ALTER TABLE purpose RENAME permitted TO allowed', 'SELECT share_decision(''9990000026''::nhs_number, ''research'', ''{cancer}'', ''versions'')');
SELECT pg_temp.after('ALTER TABLE exemption RENAME valid_to TO valid_until', 'SELECT share_decision(''9990000026''::nhs_number, ''research'', ''{cancer}'', ''versions'')');
SELECT pg_temp.after('ALTER TABLE national_check RENAME allowed TO permitted', 'SELECT share_decision(''9990000026''::nhs_number, ''research'', ''{cancer}'', ''versions'')');

-- What a later version may add does not matter.
SELECT pg_temp.after('ALTER TABLE exclusion ADD person bigint', 'SELECT is_excluded(''9990000018'', ''cancer'')');
SELECT pg_temp.after('ALTER TABLE guard ADD scheme text', 'INSERT INTO versioned VALUES (''9990000026'')');
SELECT pg_temp.after('ALTER TABLE purpose ADD note text', 'SELECT share_decision(''9990000026''::nhs_number, ''research'', ''{cancer}'', ''versions'')');

-- What it writes at commit
BEGIN;
ALTER TABLE guard_tally RENAME rows TO counted;
INSERT INTO versioned VALUES ('9990000018');
COMMIT;
BEGIN;
ALTER TABLE guard_tally DROP tally_id;
ALTER TABLE guard_tally ADD tally_id text DEFAULT 'no uuid' PRIMARY KEY;
INSERT INTO versioned VALUES ('9990000018');
COMMIT;
BEGIN;
ALTER TABLE guard_tally ADD page bigint NOT NULL DEFAULT 1;
INSERT INTO versioned VALUES ('9990000018');
COMMIT;
SELECT count(*) FROM guard_tally WHERE target = 'versioned'::regclass;
BEGIN;
ALTER TABLE guard_tally ADD page bigint;
INSERT INTO versioned VALUES ('9990000018');
COMMIT;
SELECT rows, page FROM guard_tally WHERE target = 'versioned'::regclass;
ALTER TABLE guard_tally DROP page;
INSERT INTO versioned VALUES ('9990000018');
SELECT sum(rows) FROM guard_tally WHERE target = 'versioned'::regclass;

-- Another build of the same version
SELECT library_build() ~ '^[0-9a-f]{16}$', library_build() = catalogue_build();
BEGIN;
CREATE OR REPLACE FUNCTION catalogue_build() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'another' $$;
SELECT status, regexp_replace(detail, '[0-9a-f]{16}', 'N'), what_to_do FROM health() WHERE check_name = 'version';
CREATE TABLE also_versioned (nhs text);
\set VERBOSITY terse
SAVEPOINT s;
SELECT guard_table('also_versioned', 'nhs', '{cancer}');
ROLLBACK TO s;
SELECT count(*) FROM erase('9990000018', '{cancer}');
ROLLBACK TO s;
SELECT open_case('9990000026', '{cancer}') AS case_id \gset
SELECT record_identity(:case_id, 'identity', 'passport'), record_identity(:case_id, 'address', 'utility_bill') \g /dev/null
SELECT case_exclude(:case_id, '9990000026');
ROLLBACK;
SELECT status, regexp_replace(detail, '[0-9.]+$', 'V') FROM health() WHERE check_name = 'version';

-- Guards are put back as this version makes them, whatever they lost.
\set VERBOSITY default
\pset format aligned
\pset tuples_only off
CREATE TABLE parted (nhs text, year int, note text) PARTITION BY LIST (year);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2);
SELECT guard_table('parted', 'nhs', '{cancer}', 'redact', redact_columns => '{note}');
CREATE TEMPORARY TABLE made AS
    SELECT tgrelid::regclass AS relation, tgname AS name, tgenabled::text AS enabled, pg_get_triggerdef(oid) AS definition FROM pg_trigger
        WHERE tgfoid = 'guard_row'::regproc AND tgrelid IN ('versioned'::regclass, 'parted'::regclass, 'parted_1'::regclass, 'parted_2'::regclass)
    UNION ALL
    SELECT conrelid::regclass, conname, contype::text, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE contype = 'c' AND conrelid IN ('versioned'::regclass, 'parted'::regclass, 'parted_1'::regclass, 'parted_2'::regclass);
SELECT count(*) FROM made;
CREATE FUNCTION pg_temp.lost() RETURNS TABLE (relation regclass, name name) LANGUAGE sql AS $$
    SELECT relation, name FROM (
        TABLE made
        EXCEPT
        (SELECT tgrelid::regclass, tgname, tgenabled::text, pg_get_triggerdef(oid) FROM pg_trigger
         UNION ALL SELECT conrelid::regclass, conname, contype::text, pg_get_constraintdef(oid) FROM pg_constraint)) AS m
        ORDER BY relation::text, name
$$;
SELECT refresh_guards() AS nothing_to_do;
SET client_min_messages = error;
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE versioned DISABLE TRIGGER ALL;
ALTER TABLE parted_1 ENABLE TRIGGER ALL;
ALTER TABLE parted DROP CONSTRAINT ndrs_optout_guard_1;
ALTER TABLE ndrs_optout.exclusion DISABLE TRIGGER ALL, ENABLE TRIGGER ALL;
ALTER TABLE ndrs_optout.audit_event DISABLE TRIGGER ALL, ENABLE TRIGGER ALL;
RESET ndrs_optout.allow_unguarded;
RESET client_min_messages;
SELECT * FROM pg_temp.lost();
SELECT relation, gap, what_to_do FROM guard_coverage() WHERE gap ~ '^guard_' ORDER BY relation::text, gap;
SELECT refresh_guards('versioned');
SELECT * FROM pg_temp.lost();
SELECT refresh_guards();
SELECT * FROM pg_temp.lost();
SELECT status FROM health_triggers();
SELECT count(*) FROM guard_coverage() WHERE gap ~ '^guard_';
SELECT event, detail ->> 'target' AS target FROM audit_event WHERE event ~ '_refreshed$' ORDER BY event_id;
INSERT INTO parted VALUES ('9990000018', 1, 'note'), ('9990000026', 2, 'note');
SELECT * FROM parted ORDER BY year;
SELECT refresh_guards('made');

-- A trigger of a later version is not obeyed, nor passed by.
BEGIN;
SET LOCAL client_min_messages = error;
SET LOCAL ndrs_optout.allow_unguarded = on;
DROP TRIGGER ndrs_optout_guard_1 ON versioned;
CREATE TRIGGER ndrs_optout_guard_1 BEFORE INSERT ON versioned FOR EACH ROW
    EXECUTE FUNCTION guard_row('2', 'nhs', '', 'skip', 'allow', 'reject', '1', 'cancer', '0', 'what is new');
INSERT INTO versioned VALUES ('9990000026');
ROLLBACK;

SELECT unguard_table('parted') \g /dev/null
DROP TABLE parted;
SELECT unguard_table('versioned') \g /dev/null
DROP TABLE versioned;
SELECT readmit('9990000018', '{cancer}') \g /dev/null
