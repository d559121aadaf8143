-- The sentry: no DDL opens a guard by accident.
SET search_path = public, ndrs_optout;
SELECT exclude('9990000018', '{cancer}');
CREATE TABLE patient (id int PRIMARY KEY, nhs text, name text);
CREATE TABLE patient_child () INHERITS (patient);
CREATE TABLE visit (nhs bigint, year int) PARTITION BY LIST (year);
CREATE TABLE visit_2025 PARTITION OF visit FOR VALUES IN (2025);
INSERT INTO visit VALUES (NULL, 2025);
INSERT INTO patient_child VALUES (7, NULL, 'seeded name');
SELECT guard_table('patient', 'nhs', '{cancer}', 'skip'), guard_table('visit', 'nhs', '{cancer}', 'skip');

-- What weakens a guard is refused, by whatever command.
\set VERBOSITY terse
ALTER TABLE patient DISABLE TRIGGER ndrs_optout_guard_2;
\echo :SQLSTATE
ALTER TABLE patient DISABLE TRIGGER ALL;
ALTER TABLE patient DISABLE TRIGGER USER;
ALTER TABLE patient ENABLE TRIGGER ndrs_optout_guard_2;
ALTER TABLE patient ENABLE REPLICA TRIGGER ndrs_optout_guard_2;
ALTER TABLE visit_2025 DISABLE TRIGGER ndrs_optout_guard_1;
DROP TRIGGER ndrs_optout_guard_2 ON patient;
ALTER TABLE patient DROP CONSTRAINT ndrs_optout_guard_2;
-- Before version 18 PostgreSQL itself refuses this.
DO $$ BEGIN
    ALTER TABLE ONLY visit DROP CONSTRAINT ndrs_optout_guard_1;
EXCEPTION WHEN SQLSTATE 'ND050' OR invalid_table_definition THEN
    RAISE NOTICE 'refused';
END $$;
ALTER TABLE patient RENAME COLUMN nhs TO number;
ALTER TABLE patient DROP COLUMN nhs;
ALTER TABLE patient ALTER COLUMN nhs TYPE int USING NULL;
ALTER TABLE visit DETACH PARTITION visit_2025;
ALTER TABLE visit DETACH PARTITION visit_2025 CONCURRENTLY;
ALTER TABLE patient_child NO INHERIT patient;
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE OR REPLACE TRIGGER ndrs_optout_guard_2 BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION nothing();
CREATE OR REPLACE TRIGGER ndrs_optout_guard_2 BEFORE INSERT OR UPDATE ON patient FOR EACH ROW
    EXECUTE FUNCTION guard_row('1', 'nhs', '', 'skip', 'allow', 'reject', '1', 'rare_disease', '0');
CREATE OR REPLACE TRIGGER ndrs_optout_guard_2 BEFORE INSERT OR UPDATE ON patient FOR EACH ROW WHEN (NEW.id > 0)
    EXECUTE FUNCTION guard_row('1', 'nhs', '', 'skip', 'allow', 'reject', '1', 'cancer', '0');
DO $$ BEGIN EXECUTE 'ALTER TABLE patient DISABLE TRIGGER ALL'; END $$;
CREATE DOMAIN number_domain AS text;
CREATE TABLE by_domain (nhs number_domain);
SELECT guard_table('by_domain', 'nhs', '{cancer}');
DROP DOMAIN number_domain CASCADE;
SET session_replication_role = replica;
ALTER TABLE patient DISABLE TRIGGER ALL;
RESET session_replication_role;
\set VERBOSITY default
ALTER TABLE patient DISABLE TRIGGER ALL;
SELECT count(*) AS still_in_force FROM guard_part WHERE defect IS NULL;
SELECT relation, part, defect FROM guard_part WHERE defect IS NOT NULL;

-- Within one transaction, savepoints and subtransactions.
BEGIN;
SAVEPOINT s;
SET LOCAL ndrs_optout.allow_unguarded = on;
ALTER TABLE patient DISABLE TRIGGER ALL;
ROLLBACK TO s;
SAVEPOINT s;
ALTER TABLE patient ADD COLUMN id int;
ROLLBACK TO s;
ALTER TABLE patient DISABLE TRIGGER ALL;
ROLLBACK;
DO $$
BEGIN
    BEGIN
        ALTER TABLE patient DISABLE TRIGGER ALL;
        RAISE NOTICE 'not refused';
    EXCEPTION WHEN SQLSTATE 'ND050' THEN
        RAISE NOTICE 'refused';
    END;
    ALTER TABLE patient ADD COLUMN extra int;
END
$$;

-- A command within a command: each is judged by what it does itself.
CREATE FUNCTION disable_guard(int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN ALTER TABLE patient DISABLE TRIGGER ALL; RETURN $1; END $$;
CREATE FUNCTION harmless(int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN ALTER TABLE patient ALTER COLUMN extra SET STATISTICS 10; RETURN $1; END $$;
CREATE TABLE other (a int);
INSERT INTO other VALUES (1);
ALTER TABLE other ALTER COLUMN a TYPE bigint USING disable_guard(a::int);
ALTER TABLE other ALTER COLUMN a TYPE bigint USING harmless(a::int);
SET ndrs_optout.allow_unguarded = on;
CREATE FUNCTION allowed(int) RETURNS int LANGUAGE plpgsql SET ndrs_optout.allow_unguarded = on AS
    $$ BEGIN ALTER TABLE patient DISABLE TRIGGER ALL; RETURN $1; END $$;
RESET ndrs_optout.allow_unguarded;
SELECT count(*) AS in_force FROM guard_part WHERE defect IS NULL;

-- What does not weaken a guard is nobody's business, also where one is weak already.
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE patient DISABLE TRIGGER ALL;
RESET ndrs_optout.allow_unguarded;
SELECT event, detail FROM audit_event ORDER BY event_id DESC LIMIT 1;
ALTER TABLE patient ADD COLUMN note text;
ALTER TABLE patient ALTER COLUMN note TYPE varchar(10);
ALTER TABLE patient ENABLE TRIGGER ndrs_optout_guard_2;
ALTER TABLE patient DISABLE TRIGGER ndrs_optout_guard_2;
CREATE TRIGGER zzz BEFORE INSERT ON patient FOR EACH ROW EXECUTE FUNCTION nothing();
ALTER TABLE patient DISABLE TRIGGER zzz;
DROP TRIGGER zzz ON patient;
CREATE INDEX CONCURRENTLY ON patient (name);
ALTER TABLE patient RENAME TO renamed;
ALTER TABLE renamed SET SCHEMA public;
ALTER TABLE renamed RENAME TO patient;
ALTER TABLE patient DROP COLUMN note, DROP COLUMN extra;
CREATE TABLE staging (LIKE visit INCLUDING CONSTRAINTS);
DROP TABLE staging;
ALTER TABLE patient ENABLE ALWAYS TRIGGER ndrs_optout_guard_2;
SELECT relation, part, defect FROM guard_part WHERE defect IS NOT NULL;

-- Nobody but a superuser allows a weakening.
CREATE ROLE regress_registrar;
GRANT CREATE ON SCHEMA public TO regress_registrar;
ALTER TABLE patient OWNER TO regress_registrar;
SET ROLE regress_registrar;
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE patient DISABLE TRIGGER ndrs_optout_guard_2;
\echo :SQLSTATE
ALTER TABLE patient ADD COLUMN note text;
ALTER TABLE patient DROP COLUMN note;
RESET ROLE;

-- Rows of excluded patients do not come in with a table, or with a new type.
CREATE TABLE visit_2026 (LIKE visit INCLUDING CONSTRAINTS);
ALTER TABLE visit_2026 DROP CONSTRAINT ndrs_optout_guard_1;
INSERT INTO visit_2026 VALUES (9990000018, 2026), (9990000026, 2026), (NULL, 2026);
ALTER TABLE visit_2026 ADD CONSTRAINT ndrs_optout_guard_1 CHECK (guard_admits(tableoid, 'visit'::regclass, nhs, '{cancer}', 'allow', 'reject')) NOT VALID;
ALTER TABLE visit ATTACH PARTITION visit_2026 FOR VALUES IN (2026);
\echo :SQLSTATE
DELETE FROM visit_2026 WHERE guard_matches(nhs, '{cancer}');
ALTER TABLE visit ATTACH PARTITION visit_2026 FOR VALUES IN (2026);
SELECT count(*) FROM visit;
CREATE TABLE patient_other (LIKE patient INCLUDING ALL);
ALTER TABLE patient_other DROP CONSTRAINT ndrs_optout_guard_2;
INSERT INTO patient_other VALUES (1, '999 000 0018', 'seeded name');
ALTER TABLE patient_other ADD CONSTRAINT ndrs_optout_guard_2 CHECK (guard_admits(tableoid, 'patient'::regclass, nhs, '{cancer}', 'allow', 'reject')) NOT VALID;
ALTER TABLE patient_other INHERIT patient;
DELETE FROM patient_other;
ALTER TABLE patient_other INHERIT patient;
INSERT INTO patient VALUES (2, '9990000026', 'seeded name');
ALTER TABLE patient ALTER COLUMN nhs TYPE bigint USING 9990000018;
ALTER TABLE patient ALTER COLUMN nhs TYPE text USING '999-000-0018';
ALTER TABLE patient ALTER COLUMN nhs TYPE bigint USING nhs::bigint;
SELECT id, nhs FROM patient;
INSERT INTO patient VALUES (3, 9990000018, 'seeded name');
SELECT relation, part, defect FROM guard_part WHERE defect IS NOT NULL;
-- Rows that were there before the patient was excluded stop no other command.
SELECT exclude('9990000026', '{cancer}');
ALTER TABLE patient ADD COLUMN at timestamptz DEFAULT clock_timestamp();
ALTER TABLE patient ALTER COLUMN id TYPE bigint;
SELECT readmit('9990000026', '{cancer}');

-- The predicate of somebody's index is not evaluated with the rights of a superuser, but
-- with its owner's, when a table comes under a guard.
CREATE FUNCTION who_am_i() RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN RAISE NOTICE 'as a superuser: %', (SELECT rolsuper FROM pg_roles WHERE rolname = current_user); RETURN true; END $$;
CREATE FUNCTION who(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN public.who_am_i(); END';
CREATE TABLE registrars_visit (LIKE visit INCLUDING CONSTRAINTS);
INSERT INTO registrars_visit VALUES (NULL, 2030);
ALTER TABLE registrars_visit OWNER TO regress_registrar;
GRANT USAGE ON SCHEMA public TO regress_registrar;
SET ROLE regress_registrar;
CREATE INDEX ON registrars_visit (year) WHERE who(1);
RESET ROLE;
SET client_min_messages = warning;
ANALYZE registrars_visit;
RESET client_min_messages;
-- (The first is the server's own, for whoever attaches.)
ALTER TABLE visit ATTACH PARTITION registrars_visit FOR VALUES IN (2030);
DROP TABLE registrars_visit;
DROP FUNCTION who, who_am_i;

-- What hangs below a table that comes under a guard is looked through as well.
CREATE TABLE mid (LIKE patient INCLUDING CONSTRAINTS);
CREATE TABLE leaf () INHERITS (mid);
ALTER TABLE mid DROP CONSTRAINT ndrs_optout_guard_2;
INSERT INTO leaf (id, nhs) VALUES (9, 9990000018);
ALTER TABLE mid ADD CONSTRAINT ndrs_optout_guard_2 CHECK (guard_admits(tableoid, 'patient'::regclass, nhs, '{cancer}', 'allow', 'reject')) NOT VALID;
ALTER TABLE mid INHERIT patient;
DROP TABLE mid CASCADE;

-- Other spellings, and a part that becomes weaker than it was.
ALTER VIEW patient RENAME COLUMN nhs TO number;
ALTER MATERIALIZED VIEW patient RENAME COLUMN nhs TO number;
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE patient ENABLE TRIGGER ndrs_optout_guard_2;
RESET ndrs_optout.allow_unguarded;
DROP TRIGGER ndrs_optout_guard_2 ON patient;
ALTER TABLE patient ENABLE ALWAYS TRIGGER ndrs_optout_guard_2;
-- A constraint that looks like the constraint and is none
ALTER TABLE by_domain DROP CONSTRAINT ndrs_optout_guard_1, ADD CONSTRAINT ndrs_optout_guard_1
    CHECK (nhs IS NOT NULL OR guard_admits(tableoid, 'by_domain'::regclass, nhs, '{cancer}', 'allow', 'reject')) NOT VALID;
ALTER TABLE by_domain DROP CONSTRAINT ndrs_optout_guard_1, ADD CONSTRAINT ndrs_optout_guard_1
    CHECK (guard_admits(tableoid, 'by_domain'::regclass, nhs, '{rare_disease}', 'allow', 'reject')) NOT VALID;
ALTER TABLE by_domain DROP CONSTRAINT ndrs_optout_guard_1, ADD CONSTRAINT ndrs_optout_guard_1
    CHECK (guard_admits(tableoid, 'by_domain'::regclass, nhs, '{cancer}', 'allow', 'allow')) NOT VALID;
ALTER TABLE by_domain DROP CONSTRAINT ndrs_optout_guard_1, ADD CONSTRAINT ndrs_optout_guard_1
    CHECK (guard_admits(tableoid, 'by_domain'::regclass, nhs, '{cancer}', 'allow', 'reject')) NOT VALID;

-- The other columns that a guard names
CREATE TABLE named (nhs text, encoded encoded_nhs_number, born date, mother text);
SELECT guard_table('named', 'nhs', '{cancer}', 'redact', redact_columns => '{mother}', encoded_column => 'encoded', birth_date_column => 'born');
ALTER TABLE named ALTER born TYPE text;
ALTER TABLE named DROP COLUMN mother;
ALTER TABLE named RENAME encoded TO other;
ALTER TABLE named ALTER encoded TYPE encoded_nhs_number USING encode_nhs_number('9990000026');
ALTER TABLE named ALTER mother TYPE varchar;
-- What is to be redacted must be able to go, or erasures would end there.
ALTER TABLE named ALTER mother SET NOT NULL;
ALTER TABLE named ADD PRIMARY KEY (nhs);
\echo :SQLSTATE
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE named ALTER mother SET NOT NULL;
RESET ndrs_optout.allow_unguarded;
SELECT gap, what_to_do FROM guard_coverage() WHERE relation = 'named'::regclass AND severity = 'high' \gx
ALTER TABLE named ALTER mother DROP NOT NULL;
SELECT unguard_table('named');
DROP TABLE named;
CREATE TABLE named (nhs text, mother text, year int) PARTITION BY LIST (year);
SELECT guard_table('named', 'nhs', '{cancer}', 'redact', redact_columns => '{mother}');
CREATE TABLE named_1 PARTITION OF named (mother NOT NULL) FOR VALUES IN (1);
CREATE TABLE named_1 PARTITION OF named FOR VALUES IN (1);
ALTER TABLE named_1 ALTER mother SET NOT NULL;
SELECT unguard_table('named');
DROP TABLE named;

-- A partition that its owner makes, who is no superuser
CREATE TABLE theirs (nhs text, year int) PARTITION BY LIST (year);
SELECT guard_table('theirs', 'nhs', '{cancer}');
ALTER TABLE theirs OWNER TO regress_registrar;
SET ROLE regress_registrar;
CREATE TABLE theirs_1 PARTITION OF theirs FOR VALUES IN (1);
INSERT INTO theirs VALUES ('9990000026', 1);
INSERT INTO theirs VALUES ('9990000018', 1);
\echo :SQLSTATE
RESET ROLE;
-- The trigger's function works on guarded tables only.
CREATE TABLE unguarded (nhs text);
CREATE TRIGGER probe BEFORE INSERT ON unguarded FOR EACH ROW EXECUTE FUNCTION guard_row('1', 'nhs', '', 'skip', 'allow', 'reject', '1', 'cancer', '0');
INSERT INTO unguarded VALUES ('9990000018');
\echo :SQLSTATE
SELECT unguard_table('theirs');
DROP TABLE theirs, unguarded;

-- Whatever name reaches the table: the command's names are looked up with its own rights and
-- path, which are not the extension's owner's.
CREATE SCHEMA regress_registrar AUTHORIZATION regress_registrar;
CREATE SCHEMA hidden;
CREATE TABLE hidden.by_name (nhs text, year int) PARTITION BY LIST (year);
CREATE TABLE regress_registrar.by_name (nhs text, year int) PARTITION BY LIST (year);
CREATE TABLE regress_registrar.by_name_1 PARTITION OF regress_registrar.by_name FOR VALUES IN (1);
INSERT INTO regress_registrar.by_name VALUES (NULL, 1);
SELECT guard_table('regress_registrar.by_name', 'nhs', '{cancer}');
ALTER TABLE regress_registrar.by_name OWNER TO regress_registrar;
ALTER TABLE regress_registrar.by_name_1 OWNER TO regress_registrar;
SET ROLE regress_registrar;
SET search_path = "$user";
\set VERBOSITY terse
ALTER TABLE by_name DISABLE TRIGGER ALL;
ALTER TABLE by_name DROP CONSTRAINT ndrs_optout_guard_1;
SET search_path = hidden, regress_registrar;
ALTER TABLE by_name DISABLE TRIGGER ALL;
ALTER TABLE by_name DETACH PARTITION by_name_1;
ALTER TABLE by_name DETACH PARTITION by_name_1 CONCURRENTLY;
RESET ROLE;
SET search_path = public, ndrs_optout;
SELECT count(*) AS in_force FROM guard_part WHERE target = 'regress_registrar.by_name'::regclass AND defect IS NULL;
SELECT unguard_table('regress_registrar.by_name');
DROP TABLE hidden.by_name, regress_registrar.by_name;
DROP SCHEMA hidden, regress_registrar;

-- By the type that a table is made of
CREATE TYPE row_of_two AS (nhs text, born date);
CREATE TABLE typed OF row_of_two;
SELECT guard_table('typed', 'nhs', '{cancer}', birth_date_column => 'born');
INSERT INTO typed VALUES ('9990000026');
ALTER TYPE row_of_two DROP ATTRIBUTE nhs CASCADE;
ALTER TYPE row_of_two RENAME ATTRIBUTE nhs TO number CASCADE;
ALTER TYPE row_of_two ALTER ATTRIBUTE born TYPE text CASCADE;
ALTER TYPE row_of_two DROP ATTRIBUTE born CASCADE;
ALTER TYPE row_of_two ADD ATTRIBUTE note text CASCADE;
ALTER TYPE row_of_two DROP ATTRIBUTE note CASCADE;
ALTER TABLE typed NOT OF;
-- Another column under the same name, with all that guards it
ALTER TABLE typed DROP COLUMN nhs, ADD COLUMN nhs text,
    ADD CONSTRAINT ndrs_optout_guard_1 CHECK (guard_admits(tableoid, 'typed'::regclass, nhs, '{cancer}', 'allow', 'reject')) NOT VALID;

-- By what takes a column with it
CREATE SCHEMA taken;
CREATE TYPE taken.pair AS (a int, b int);
CREATE TABLE taken.row (a int);
CREATE VIEW taken.view AS SELECT 1 AS a;
CREATE COLLATION taken.same FROM "C";
CREATE EXTENSION citext SCHEMA taken;
CREATE TABLE taker (nhs text, pair taken.pair, row taken.row, view taken.view, folded taken.citext, sorted text COLLATE taken.same,
    born date);
SELECT guard_table('taker', 'nhs', '{cancer}', 'redact', redact_columns => '{pair,row,view,folded,sorted}', birth_date_column => 'born');
CREATE TABLE taker_of_number (nhs taken.citext);
SELECT guard_table('taker_of_number', 'nhs', '{cancer}');
DROP TYPE taken.pair CASCADE;
DROP TABLE taken.row CASCADE;
DROP VIEW taken.view CASCADE;
DROP TYPE taken.citext CASCADE;
DROP FUNCTION taken.citextin(cstring) CASCADE;
DROP COLLATION taken.same CASCADE;
DROP EXTENSION citext CASCADE;
DROP SCHEMA taken CASCADE;
ALTER TYPE taken.pair OWNER TO regress_registrar;
DROP OWNED BY regress_registrar CASCADE;
ALTER TYPE taken.pair OWNER TO CURRENT_USER;
SELECT unguard_table('taker');
DROP EXTENSION citext CASCADE;
SET ndrs_optout.allow_unguarded = on;
DROP EXTENSION citext CASCADE;
RESET ndrs_optout.allow_unguarded;
SELECT event, detail FROM audit_event ORDER BY event_id DESC LIMIT 1;
SELECT unguard_table('taker_of_number');
SELECT unguard_table('typed');
SET client_min_messages = warning;
DROP SCHEMA taken CASCADE;
DROP TABLE taker, taker_of_number, typed;
RESET client_min_messages;
DROP TYPE row_of_two;

-- One command that changes hundreds of tables
SET client_min_messages = warning;
CREATE SCHEMA many;
CREATE DOMAIN many.number AS text;
DO $$ BEGIN
    FOR i IN 1 .. 300 LOOP
        EXECUTE format('CREATE TABLE many.t_%s (nhs many.number)', i);
        IF i IN (1, 299) THEN PERFORM ndrs_optout.guard_table(format('many.t_%s', i)::regclass, 'nhs', '{cancer}'); END IF;
    END LOOP;
END $$;
DROP DOMAIN many.number CASCADE;
SELECT unguard_table('many.t_1');
DROP DOMAIN many.number CASCADE;
SELECT unguard_table('many.t_299');
DROP DOMAIN many.number CASCADE;
DROP SCHEMA many CASCADE;
RESET client_min_messages;

-- What comes under a guard with its first row elsewhere
CREATE FOREIGN DATA WRAPPER elsewhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
CREATE FOREIGN TABLE visit_there PARTITION OF visit FOR VALUES IN (2040) SERVER elsewhere;
CREATE FOREIGN TABLE patient_there () INHERITS (patient) SERVER elsewhere;
CREATE FOREIGN TABLE visit_there (nhs bigint, year int) SERVER elsewhere;
ALTER FOREIGN TABLE visit_there ADD CONSTRAINT ndrs_optout_guard_1
    CHECK (guard_admits(tableoid, 'visit'::regclass, nhs, '{cancer}', 'allow', 'reject')) NOT VALID;
ALTER TABLE visit ATTACH PARTITION visit_there FOR VALUES IN (2040);
DROP SERVER elsewhere CASCADE;
DROP FOREIGN DATA WRAPPER elsewhere;
-- or empty, or as it was before
CREATE TABLE visit_2041 PARTITION OF visit FOR VALUES IN (2041);
DROP TABLE visit_2041;
CREATE SCHEMA made CREATE TABLE patient_made () INHERITS (public.patient);
DROP SCHEMA made CASCADE;
CREATE TABLE guarded_by_query (nhs text);
INSERT INTO guarded_by_query VALUES ('9990000018');
CREATE TABLE answer AS SELECT guard_table('guarded_by_query', 'nhs', '{cancer}') AS already_there;
SELECT * FROM answer;
SELECT unguard_table('guarded_by_query');
DROP TABLE answer, guarded_by_query;
\set VERBOSITY default

-- A table without the constraint: what is missing, and the command that adds it.
CREATE TABLE visit_2042 (nhs bigint, year int);
ALTER TABLE visit ATTACH PARTITION visit_2042 FOR VALUES IN (2042);
\echo :SQLSTATE
ALTER TABLE public.visit_2042 ADD CONSTRAINT ndrs_optout_guard_1 CHECK (ndrs_optout.guard_admits(tableoid, 'public.visit'::regclass, nhs, '{cancer}'::text[], 'allow'::text, 'reject'::text)) NOT VALID;
ALTER TABLE visit ATTACH PARTITION visit_2042 FOR VALUES IN (2042);
DROP TABLE visit_2042;
CREATE TABLE patient_stray (LIKE patient);
ALTER TABLE patient_stray INHERIT patient;
DROP TABLE patient_stray;

-- A partition without rows may go, and one that is dropped, emptied, attached again or
-- guarded by itself before the transaction ends.
CREATE TABLE visit_2043 PARTITION OF visit FOR VALUES IN (2043);
ALTER TABLE visit DETACH PARTITION visit_2043;
ALTER TABLE visit ATTACH PARTITION visit_2043 FOR VALUES IN (2043);
ALTER TABLE visit DETACH PARTITION visit_2043 CONCURRENTLY;
ALTER TABLE visit ATTACH PARTITION visit_2043 FOR VALUES IN (2043);
INSERT INTO visit VALUES (NULL, 2043);
BEGIN;
ALTER TABLE visit DETACH PARTITION visit_2043;
COMMIT;
\echo :SQLSTATE
BEGIN;
ALTER TABLE visit DETACH PARTITION visit_2043;
DROP TABLE visit_2043;
ROLLBACK;
BEGIN;
SAVEPOINT s;
ALTER TABLE visit DETACH PARTITION visit_2043;
ROLLBACK TO s;
COMMIT;
BEGIN;
ALTER TABLE visit DETACH PARTITION visit_2043;
ALTER TABLE visit ATTACH PARTITION visit_2043 FOR VALUES IN (2043);
COMMIT;
BEGIN;
ALTER TABLE visit DETACH PARTITION visit_2043;
SELECT guard_table('visit_2043', 'nhs', '{cancer}');
COMMIT;
SELECT unguard_table('visit_2043');
DROP TABLE visit_2043;
CREATE TABLE visit_2043 PARTITION OF visit FOR VALUES IN (2043);
INSERT INTO visit VALUES (NULL, 2043);
BEGIN;
ALTER TABLE visit DETACH PARTITION visit_2043;
DELETE FROM visit_2043;
COMMIT;
DROP TABLE visit_2043;
-- Rows that come later in the transaction count.
CREATE TABLE visit_2043 PARTITION OF visit FOR VALUES IN (2043);
BEGIN;
ALTER TABLE visit DETACH PARTITION visit_2043;
INSERT INTO visit_2043 VALUES (9990000026, 2043);
COMMIT;
-- Neither does it help to drop or to guard the parent anew.
INSERT INTO visit VALUES (NULL, 2043);
BEGIN;
ALTER TABLE visit DETACH PARTITION visit_2043;
DROP TABLE visit CASCADE;
COMMIT;
BEGIN;
ALTER TABLE visit DETACH PARTITION visit_2043;
SELECT unguard_table('visit'), guard_table('visit', 'nhs', '{cancer}');
COMMIT;
BEGIN;
ALTER TABLE visit DETACH PARTITION visit_2043;
SELECT unguard_table('visit');
COMMIT;
SELECT guard_table('visit', 'nhs', '{cancer}', 'skip');
DROP TABLE visit_2043;
-- One that has partitions itself
CREATE TABLE visit_2044 PARTITION OF visit FOR VALUES IN (2044, 2045) PARTITION BY LIST (year);
CREATE TABLE visit_2044_a PARTITION OF visit_2044 FOR VALUES IN (2044);
CREATE TABLE visit_2044_b PARTITION OF visit_2044 FOR VALUES IN (2045);
INSERT INTO visit VALUES (NULL, 2045);
ALTER TABLE visit DETACH PARTITION visit_2044;
DELETE FROM visit WHERE year = 2045;
ALTER TABLE visit DETACH PARTITION visit_2044;
DROP TABLE visit_2044;

-- A constraint that is not enforced, for servers that have those (an older one knows no such command)
CREATE PROCEDURE is_refused(since int, command text) LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('server_version_num')::int >= since THEN
        EXECUTE command;
        RAISE NOTICE 'not refused';
    ELSE
        RAISE NOTICE 'refused';
    END IF;
EXCEPTION WHEN SQLSTATE 'ND050' THEN
    RAISE NOTICE 'refused';
END $$;
CALL is_refused(180000, 'ALTER TABLE by_domain DROP CONSTRAINT ndrs_optout_guard_1, ADD CONSTRAINT ndrs_optout_guard_1
    CHECK (guard_admits(tableoid, ''by_domain''::regclass, nhs, ''{cancer}'', ''allow'', ''reject'')) NOT ENFORCED');
CALL is_refused(190000, 'ALTER TABLE by_domain ALTER CONSTRAINT ndrs_optout_guard_1 NOT ENFORCED');
DROP PROCEDURE is_refused;

-- Unguarding is the way out, and leaves nothing behind that stops anything.
INSERT INTO visit VALUES (NULL, 2026);
SELECT unguard_table('visit');
ALTER TABLE visit DETACH PARTITION visit_2025;
SELECT guard_table('visit', 'nhs', '{cancer}');
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE visit DETACH PARTITION visit_2026;
RESET ndrs_optout.allow_unguarded;
-- A detached table can be guarded by itself.
SELECT gap, relation, object FROM guard_coverage() WHERE relation = 'visit_2026'::regclass ORDER BY gap;
SELECT guard_table('visit_2026', 'nhs', '{cancer}', 'skip');
INSERT INTO visit_2026 VALUES (9990000018, 2026);
SELECT count(*) FROM pg_constraint WHERE conrelid = 'visit_2026'::regclass AND contype = 'c';

-- What is no part of a table any more, and has rows, needs the reference that led there.
CREATE TABLE scan (id int, year int) PARTITION BY LIST (year);
CREATE TABLE scan_1 PARTITION OF scan FOR VALUES IN (1);
CREATE TABLE scan_2 PARTITION OF scan FOR VALUES IN (2);
CREATE TABLE sample (id int);
CREATE TABLE sample_more () INHERITS (sample);
INSERT INTO scan VALUES (1, 1);
INSERT INTO sample_more VALUES (1);
SELECT declare_reference('scan', '{id}', 'patient', '{id}'), declare_reference('sample', '{id}', 'patient', '{id}');
ALTER TABLE scan DETACH PARTITION scan_1;
\echo :SQLSTATE
ALTER TABLE scan DETACH PARTITION scan_1 CONCURRENTLY;
\echo :SQLSTATE
ALTER TABLE sample_more NO INHERIT sample;
\echo :SQLSTATE
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE sample_more NO INHERIT sample;
RESET ndrs_optout.allow_unguarded;
SELECT gap, object FROM guard_coverage() WHERE gap ~ '_lost$';
SELECT erase('9990000018', '{cancer}');
\echo :SQLSTATE
ALTER TABLE sample_more INHERIT sample;
SELECT gap, object FROM guard_coverage() WHERE gap ~ '_lost$';
ALTER TABLE scan DETACH PARTITION scan_2 CONCURRENTLY;
SELECT declare_reference('scan_1', '{id}', 'patient', '{id}');
ALTER TABLE scan DETACH PARTITION scan_1 CONCURRENTLY;
-- The same of a guard, and of a reference to what goes.
SELECT declare_reference('sample', '{id}', 'visit', '{year}');
CREATE TABLE visit_2046 PARTITION OF visit FOR VALUES IN (2046);
INSERT INTO visit VALUES (NULL, 2046);
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE visit DETACH PARTITION visit_2046;
RESET ndrs_optout.allow_unguarded;
SELECT gap, object FROM guard_coverage() WHERE gap ~ '_lost$';
SELECT guard_table('visit_2046', 'nhs', '{cancer}');
SELECT gap, object FROM guard_coverage() WHERE gap ~ '_lost$';
SELECT declare_reference('sample', '{id}', 'visit_2046', '{year}');
SELECT gap, object FROM guard_coverage() WHERE gap ~ '_lost$';
SELECT unguard_table('visit_2046');
SELECT drop_reference('sample', '{id}', 'visit', '{year}'), drop_reference('sample', '{id}', 'visit_2046', '{year}');
SELECT drop_reference('scan', '{id}', 'patient', '{id}'), drop_reference('scan_1', '{id}', 'patient', '{id}'),
    drop_reference('sample', '{id}', 'patient', '{id}');
DROP TABLE visit_2046, scan, scan_1, scan_2, sample, sample_more;

-- A table that is dropped is not forgotten (lost_edge.sql has more), unless that is allowed: then what
-- leads to and from it is gone, and a gap.
CREATE TABLE note (id int);
SELECT declare_reference('note', '{id}', 'patient', '{id}');
DROP TABLE visit_2026;
\echo :SQLSTATE
SET client_min_messages = error;
DROP TABLE patient CASCADE;
\echo :SQLSTATE
SET ndrs_optout.allow_unguarded = on;
RESET client_min_messages;
DROP TABLE visit_2026, patient, patient_child, patient_other;
RESET ndrs_optout.allow_unguarded;
SELECT target FROM guard ORDER BY target::text;
SELECT count(*) FROM reference;
SELECT * FROM (SELECT event, detail FROM audit_event WHERE event IN ('guarded_table_dropped', 'edge_lost') ORDER BY event_id DESC LIMIT 5) AS e ORDER BY event, detail::text;
SELECT gap, object FROM guard_coverage() WHERE gap ~ '_lost$' ORDER BY 1, 2;
SELECT * FROM verify_audit();

SELECT unguard_table(target) FROM guard;
DROP TABLE visit, visit_2025, by_domain, other, note;
DROP DOMAIN number_domain;
DROP FUNCTION nothing, disable_guard, harmless, allowed;
DROP OWNED BY regress_registrar;
DROP ROLE regress_registrar;
DELETE FROM expected_edge; DELETE FROM exclusion; DELETE FROM guard_tally;
