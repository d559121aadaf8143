-- guard_coverage: one row for each gap, and none when all is closed.
SET search_path = public, ndrs_optout;
CREATE ROLE regress_registrar;
CREATE ROLE regress_somebody;
CREATE SCHEMA registry;
SET search_path = registry, ndrs_optout, public;
CREATE TABLE patient (id int PRIMARY KEY, nhs bigint, name text);
CREATE INDEX ON patient (nhs);
CREATE TABLE tumour (id int PRIMARY KEY, patient_id int REFERENCES patient);
CREATE INDEX ON tumour (patient_id);
CREATE TABLE visit (nhs text, year int) PARTITION BY LIST (year);
CREATE TABLE visit_2025 PARTITION OF visit FOR VALUES IN (2025);
CREATE INDEX ON visit (nhs_number_or_null(nhs));
SELECT guard_table('patient', 'nhs', '{cancer}', 'skip'), guard_table('visit', 'nhs', '{cancer}', mechanism => 'constraint');

-- Closed
SELECT * FROM guard_coverage();

-- What is opened on purpose is told from then on.
CREATE FUNCTION open_gap(command text) RETURNS TABLE (severity text, gap text, relation text, object text, what_to_do text)
LANGUAGE plpgsql SET ndrs_optout.allow_unguarded = on SET client_min_messages = error SET search_path = registry, ndrs_optout, pg_catalog AS $$
BEGIN
    BEGIN
        EXECUTE command;
        RETURN QUERY SELECT c.severity, c.gap, c.relation::text, c.object,
                regexp_replace(c.what_to_do, '(RI_ConstraintTrigger_._)\d+', '\1N', 'g') FROM guard_coverage() AS c;
        RAISE EXCEPTION SQLSTATE 'XX999';
    EXCEPTION WHEN SQLSTATE 'XX999' THEN
        NULL;
    END;
END $$;
\x on
SELECT * FROM open_gap('ALTER TABLE patient DISABLE TRIGGER ALL');
SELECT * FROM open_gap('ALTER TABLE patient ENABLE TRIGGER ndrs_optout_guard_2');
SELECT * FROM open_gap('DROP TRIGGER ndrs_optout_guard_2 ON patient');
SELECT * FROM open_gap('ALTER TABLE visit DROP CONSTRAINT ndrs_optout_guard_1');
SELECT * FROM open_gap('ALTER TABLE patient RENAME COLUMN nhs TO number');
SELECT * FROM open_gap('ALTER TABLE patient ALTER COLUMN nhs TYPE int USING NULL');
SELECT * FROM open_gap('ALTER TABLE visit DETACH PARTITION visit_2025');
SELECT * FROM open_gap('CREATE TABLE staging (LIKE patient INCLUDING CONSTRAINTS)');
SELECT * FROM open_gap('ALTER EVENT TRIGGER ndrs_optout_sentry_end DISABLE');
SELECT * FROM open_gap('ALTER EVENT TRIGGER ndrs_optout_sentry_start ENABLE');
-- A part that the server itself lets nobody take away
SELECT * FROM open_gap($$ DELETE FROM pg_constraint WHERE conrelid = 'visit_2025'::regclass AND contype = 'c' $$);
-- Where the erasure does not come
SELECT * FROM open_gap('ALTER TABLE patient ADD keys int[] UNIQUE; CREATE TABLE result (patient int[] REFERENCES patient (keys)); CREATE INDEX ON result (patient)');
SELECT * FROM open_gap('CREATE TABLE tumour_old () INHERITS (tumour)');
SELECT * FROM open_gap($$ CREATE TABLE tumour_old () INHERITS (tumour); CREATE INDEX ON tumour_old (patient_id);
    SELECT declare_reference('tumour_old', '{patient_id}', 'patient', '{id}') $$);
SELECT * FROM open_gap('ALTER TABLE tumour ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY');
SELECT * FROM open_gap('ALTER TABLE tumour OWNER TO regress_registrar; ALTER TABLE patient OWNER TO regress_registrar;
    REVOKE UPDATE, DELETE ON tumour FROM regress_registrar');
SELECT * FROM open_gap('CREATE RULE keep AS ON DELETE TO tumour DO INSTEAD NOTHING');
SELECT * FROM open_gap('CREATE TABLE log (id int); CREATE RULE copy AS ON INSERT TO tumour DO ALSO INSERT INTO log VALUES (NEW.id)');
SELECT * FROM open_gap($$ CREATE FUNCTION history() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER history AFTER INSERT ON visit FOR EACH ROW EXECUTE FUNCTION history();
    CREATE TRIGGER history AFTER DELETE ON tumour FOR EACH ROW EXECUTE FUNCTION history() $$);
SELECT * FROM open_gap($$ CREATE TRIGGER same BEFORE UPDATE ON patient FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger() $$);
SELECT * FROM open_gap('ALTER TABLE tumour OWNER TO regress_somebody');
SELECT * FROM open_gap('ALTER TABLE visit_2025 OWNER TO regress_somebody');
-- Copies
SELECT * FROM open_gap('CREATE TABLE mother (nhs_number text)');
SELECT * FROM open_gap($$ CREATE TABLE mother (mother_nhs_no text, nhs_trust text); INSERT INTO mother VALUES ('999 000 0018', 'RX1'), (NULL, 'RX2') $$);
SELECT * FROM open_gap($$ CREATE TABLE extract (id bigint, reference varchar);
    INSERT INTO extract SELECT n, n FROM generate_series(9990000000, 9990000999) AS n WHERE nhs_number_or_null(n::text) IS NOT NULL;
    CREATE TABLE random (reference bigint); INSERT INTO random SELECT * FROM generate_series(9990000000, 9990000999) $$);
SELECT * FROM open_gap($$ CREATE TABLE by_type (a numeric(12, 1), b char(12), c nhs_number, d float8, e int);
    INSERT INTO by_type SELECT n, n, n::nhs_number, n, n - 9990000000 FROM generate_series(9990000000, 9990000999) AS n
        WHERE nhs_number_or_null(n::text) IS NOT NULL $$);
-- Of values in line the first characters count, and those out of line are not fetched.
SELECT * FROM open_gap($$ CREATE TABLE padded (reference char(3000), document text);
    ALTER TABLE padded ALTER document SET STORAGE EXTERNAL;
    INSERT INTO padded SELECT n, n || repeat(' ', 3000) FROM generate_series(9990000000, 9990000999) AS n
        WHERE nhs_number_or_null(n::text) IS NOT NULL $$);
CREATE TABLE document (nhs_text text, note text);
ALTER TABLE document ALTER nhs_text SET STORAGE EXTERNAL, ALTER note SET STORAGE EXTERNAL;
INSERT INTO document SELECT repeat('x', 9000), repeat('y', 9000) FROM generate_series(1, 200);
CREATE FUNCTION documents_read() RETURNS bigint LANGUAGE sql AS $$
    SELECT coalesce(s.seq_scan, 0) + coalesce(s.idx_scan, 0)
        FROM pg_stat_xact_all_tables s JOIN pg_class c ON c.reltoastrelid = s.relid WHERE c.oid = 'document'::regclass $$;
BEGIN;
SELECT documents_read() AS read_before \gset
SELECT * FROM unguarded_columns() WHERE relation = 'document'::regclass;
SELECT documents_read() - :read_before AS documents_read;
SELECT count(*) FROM document WHERE nhs_text LIKE '%y';
SELECT documents_read() - :read_before AS documents_read;
COMMIT;
DROP FUNCTION documents_read();
DROP TABLE document;
-- The sample is spread over the table: numbers at its end are found.
SELECT severity, gap, relation, object FROM open_gap($$ CREATE TABLE late (reference text, filler text);
    INSERT INTO late SELECT n, repeat('x', 500) FROM generate_series(1, 3000) AS n;
    INSERT INTO late SELECT '999 000 0018', repeat('x', 500) FROM generate_series(1, 9000) $$);
-- and over partitions.
SELECT * FROM open_gap($$ CREATE TABLE yearly (reference text, year int) PARTITION BY LIST (year);
    CREATE TABLE yearly_1 PARTITION OF yearly FOR VALUES IN (1); CREATE TABLE yearly_2 (year int, reference text);
    ALTER TABLE yearly ATTACH PARTITION yearly_2 FOR VALUES IN (2); CREATE TABLE yearly_3 PARTITION OF yearly FOR VALUES IN (3);
    CREATE TABLE yearly_4 PARTITION OF yearly FOR VALUES IN (4);
    INSERT INTO yearly SELECT '9990000018', 2 + n % 3 FROM generate_series(1, 60) AS n; INSERT INTO yearly SELECT 'none', 1 $$);
-- A generated column cannot be guarded by a trigger.
SELECT object, what_to_do FROM open_gap($$ CREATE TABLE made (reference text, nhs_number text GENERATED ALWAYS AS (reference || '') STORED) $$);
-- Columns that are added later with a default, or dropped, are read as they are.
SELECT * FROM open_gap($$ CREATE TABLE grown (id int, old text); INSERT INTO grown SELECT 1 FROM generate_series(1, 20);
    ALTER TABLE grown DROP old, ADD reference text DEFAULT '9990000018', ADD nhs_id text $$);
-- Names that hold quotes, commands and line breaks are quoted where they are part of a command.
SELECT * FROM open_gap($$ CREATE TABLE "x'; DROP TABLE patient; --" ("nhs_number'""" text);
    CREATE RULE "a; b" AS ON DELETE TO tumour DO INSTEAD NOTHING $$);
-- Nobody's code is run to look at a table: not an index's, nor that of a domain or a policy.
SET client_min_messages = error;
CREATE FUNCTION planted(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE WARNING 'planted code was run'; RETURN true; END $$;
CREATE DOMAIN reference AS text CHECK (registry.planted(VALUE));
CREATE TABLE trapped (nhs_number reference);
INSERT INTO trapped VALUES ('9990000018');
CREATE INDEX ON trapped (nhs_number) WHERE planted('x');
ALTER TABLE trapped ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY, OWNER TO regress_somebody;
REVOKE ALL ON trapped FROM regress_somebody;
CREATE POLICY seeded ON trapped USING (planted(nhs_number));
RESET client_min_messages;
SELECT severity, gap, relation, what_to_do FROM guard_coverage();
DROP TABLE trapped;
DROP DOMAIN reference;
DROP FUNCTION planted(text);
-- What was not looked at is said: when the time is over, and when only its server knows how.
CREATE TABLE beside (reference text);
INSERT INTO beside SELECT '9990000018' FROM generate_series(1, 20);
SELECT * FROM unguarded_columns('0');
SELECT * FROM unguarded_columns(NULL);
SELECT severity, gap, relation, object FROM guard_gaps('0');
SELECT severity, gap, relation, object FROM guard_gaps(NULL);
DROP TABLE beside;
SELECT * FROM open_gap($$ CREATE ACCESS METHOD regress_other TYPE TABLE HANDLER heap_tableam_handler;
    CREATE TABLE elsewhere (nhs_number text) USING regress_other;
    CREATE TABLE sample (patient_id int REFERENCES patient) USING regress_other; CREATE INDEX ON sample (patient_id) $$);
-- Locks on a parent hold up nobody when a foreign key is not enforced.
SELECT * FROM open_gap($$ DO 'DECLARE t name; BEGIN FOR t IN SELECT tgname FROM pg_trigger WHERE tgrelid = ''registry.tumour''::regclass AND tgisinternal LOOP
    EXECUTE format(''ALTER TABLE registry.tumour DISABLE TRIGGER %I'', t); END LOOP; END'; $$);
SELECT * FROM open_gap('ALTER EXTENSION pgcrypto ADD TABLE tumour');

-- Tables that another extension keeps elsewhere: its catalogue is enough.
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass NOT NULL, partmethod "char" NOT NULL, partkey text,
    colocationid int NOT NULL DEFAULT 0, repmodel "char" NOT NULL DEFAULT 'c', autoconverted boolean NOT NULL DEFAULT false);
INSERT INTO pg_dist_partition VALUES ('tumour', 'n'), ('visit_2025', 'n'), ('ndrs_optout.exclusion', 'n'), ('pg_class', 'n');
CREATE TABLE spread (nhs text, year int) PARTITION BY LIST (year);
CREATE TABLE spread_1 PARTITION OF spread FOR VALUES IN (1);
INSERT INTO pg_dist_partition VALUES ('spread_1', 'h');
SELECT * FROM guard_coverage() WHERE gap <> 'unguarded_nhs_numbers';
SELECT guard_table('spread', 'nhs', '{cancer}');
\echo :SQLSTATE
SELECT declare_reference('spread_1', '{nhs}', 'patient', '{name}');
\echo :SQLSTATE
SELECT accept_gap('distributed_table', 'tumour', NULL, 'it is fast');
\echo :SQLSTATE
BEGIN;
SELECT open_case('9990000018', '{cancer}') AS case_id \gset
SELECT record_identity(:case_id, 'identity', 'passport'), record_identity(:case_id, 'address', 'utility_bill');
SAVEPOINT ready;
SELECT case_exclude(:case_id, '9990000018');
\echo :SQLSTATE
ROLLBACK TO ready;
DELETE FROM pg_dist_partition WHERE logicalrelid <> 'ndrs_optout.exclusion'::regclass;
SELECT case_exclude(:case_id, '9990000018');
\echo :SQLSTATE
ROLLBACK;
DROP TABLE pg_catalog.pg_dist_partition, spread;
RESET allow_system_table_mods;
-- Nobody who writes to a foreign table on its own server can be waited for.
CREATE FOREIGN DATA WRAPPER beyond;
CREATE SERVER beyond FOREIGN DATA WRAPPER beyond;
SELECT * FROM open_gap('CREATE FOREIGN TABLE tumour_there (id int, patient_id int) INHERITS (tumour) SERVER beyond');
SELECT * FROM open_gap($$ SELECT declare_reference('tumour', '{patient_id}', 'patient', '{id}');
    CREATE FOREIGN TABLE tumour_there (id int, patient_id int) INHERITS (tumour) SERVER beyond $$);
BEGIN;
SELECT open_case('9990000018', '{cancer}') AS case_id \gset
SELECT record_identity(:case_id, 'identity', 'passport'), record_identity(:case_id, 'address', 'utility_bill');
SELECT declare_reference('tumour', '{patient_id}', 'patient', '{id}');
CREATE FOREIGN TABLE tumour_there (id int, patient_id int) INHERITS (tumour) SERVER beyond;
SAVEPOINT ready;
SELECT case_exclude(:case_id, '9990000018');
\echo :SQLSTATE
ROLLBACK TO ready;
SELECT accept_gap('foreign_table', 'tumour_there', 'beyond', 'nothing else writes to it');
SELECT case_exclude(:case_id, '9990000018');
ROLLBACK;
DROP FOREIGN DATA WRAPPER beyond CASCADE;
-- The library reads the extension's tables themselves, and SQL what is put before them.
SELECT * FROM open_gap($$ CREATE TABLE also () INHERITS (ndrs_optout.exclusion); CREATE RULE less AS ON INSERT TO ndrs_optout.release DO INSTEAD NOTHING;
    ALTER TABLE ndrs_optout.exemption ENABLE ROW LEVEL SECURITY $$);
SELECT * FROM open_gap('ALTER SEQUENCE ndrs_optout.audit_event_entry_id_seq RESTART 9223372036854775807; SELECT nextval(''ndrs_optout.audit_event_entry_id_seq'')');

SELECT * FROM open_gap($$ CREATE VIEW reader AS SELECT p.id FROM patient p; CREATE MATERIALIZED VIEW counts AS SELECT count(*) FROM reader $$);
SELECT * FROM open_gap('CREATE PUBLICATION regress_all FOR TABLE patient, visit');
SELECT * FROM open_gap('CREATE PUBLICATION regress_inserts FOR TABLE tumour WITH (publish = ''insert'')');
SELECT * FROM open_gap($$ CREATE TABLE incoming (id int); CREATE SUBSCRIPTION regress_sub CONNECTION 'dbname=none' PUBLICATION none
    WITH (connect = false, slot_name = NONE); INSERT INTO pg_subscription_rel SELECT s.oid, 'incoming'::regclass, 'r', NULL FROM pg_subscription s $$);
-- Slow
SELECT * FROM open_gap('DROP INDEX tumour_patient_id_idx, visit_nhs_number_or_null_idx CASCADE');
-- The worst first
SELECT severity, gap, relation FROM open_gap('DROP INDEX tumour_patient_id_idx; ALTER TABLE patient DISABLE TRIGGER ALL; CREATE RULE keep AS ON DELETE TO tumour DO INSTEAD NOTHING');
\x off

-- What somebody has looked at can be accepted, with a reason.
CREATE TABLE contact (nhs_number text);
SELECT severity, gap, relation, object FROM guard_coverage();
SELECT accept_gap('unguarded_nhs_numbers', 'contact', 'nhs_number', '');
\echo :SQLSTATE
SELECT accept_gap('unguarded_nhs_numbers', 'contact', 'nhs_number', 'only 999 000 0018 is in it');
\echo :SQLSTATE
SELECT accept_gap('no such gap', 'contact', 'nhs_number', 'I say so');
\echo :SQLSTATE
SELECT accept_gap('unguarded_nhs_numbers', 'contact', 'nhs_number', 'numbers of the staff of clinics');
SELECT severity, gap, relation, object FROM guard_coverage();
SELECT gap, relation, object, reason FROM accepted_gap;
SELECT event, detail FROM audit_event ORDER BY event_id DESC LIMIT 1;
-- And taken back.
SELECT reopen_gap('unguarded_nhs_numbers', 'contact', 'nhs_number');
SELECT severity, gap, relation, object FROM guard_coverage();
SELECT reopen_gap('unguarded_nhs_numbers', 'contact', 'nhs_number');
\echo :SQLSTATE
SELECT reopen_gap(NULL, NULL, NULL);
SELECT event, detail FROM audit_event ORDER BY event_id DESC LIMIT 1;
SELECT accept_gap('unguarded_nhs_numbers', 'contact', 'nhs_number', 'numbers of the staff of clinics');
-- Not when it turns out to be worse than it was.
INSERT INTO contact VALUES ('9990000026');
SELECT severity, gap, relation, object FROM guard_coverage();
DROP TABLE contact;
SELECT count(*) FROM accepted_gap;
-- Nor a part of a guard, which can be repaired.
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE patient ENABLE TRIGGER ndrs_optout_guard_2;
SELECT accept_gap('guard_trigger_not_always', 'patient', 'nhs', 'tonight only');
\echo :SQLSTATE
ALTER TABLE patient ENABLE ALWAYS TRIGGER ndrs_optout_guard_2;
-- A gap without an object
CREATE MATERIALIZED VIEW copy AS TABLE patient;
SELECT gap, relation, object FROM guard_coverage();
SELECT accept_gap('materialized_view', 'copy', NULL, 'refreshed after each opt-out');
SELECT gap, relation, object FROM guard_coverage();
SELECT reopen_gap('materialized_view', 'copy', NULL);
SELECT gap, relation, object FROM guard_coverage();
SELECT unguard_table('patient'), unguard_table('visit');
SET client_min_messages = warning;
DROP SCHEMA registry CASCADE;
DROP ROLE regress_registrar, regress_somebody;
