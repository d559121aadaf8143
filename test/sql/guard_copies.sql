-- guard_copies: copies of what the walk's tables hold, each with advice that closes the gap.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
CREATE SCHEMA registry;
CREATE SCHEMA study;
SET search_path = registry, study, ndrs_optout, public;
SET client_min_messages = warning;
CREATE TABLE patient (patient_id int PRIMARY KEY, nhs text, note text);
CREATE TABLE tumour (tumour_id bigint PRIMARY KEY, patient_id int REFERENCES patient, diagnosed_by int);
CREATE TABLE treatment (id int PRIMARY KEY, tumour_id bigint REFERENCES tumour, drug varchar(10), serial text UNIQUE);
CREATE TABLE detail (tumour_id bigint PRIMARY KEY REFERENCES tumour, stage text);
CREATE TABLE sample (lab text, sample_no int, tumour_id bigint REFERENCES tumour, PRIMARY KEY (lab, sample_no));
CREATE TABLE result (lab text, sample_no int, value text, FOREIGN KEY (lab, sample_no) REFERENCES sample);
CREATE INDEX ON patient (nhs_number_or_null(nhs));
CREATE INDEX ON tumour (patient_id);
CREATE INDEX ON treatment (tumour_id);
CREATE INDEX ON sample (tumour_id);
CREATE INDEX ON result (lab, sample_no);
SELECT guard_table('patient', 'nhs', '{cancer}');
INSERT INTO patient VALUES (1, '9990000018'), (2, '9990000026');
INSERT INTO tumour VALUES (11, 1), (12, 2);
INSERT INTO treatment VALUES (101, 11, 'drug', 'a'), (102, 12, 'drug', 'b');
SELECT * FROM guard_coverage();

-- Extracts, as an analyst makes them, in each form; and what is none.
CREATE TABLE study.extract AS SELECT p.patient_id, t.tumour_id, t.diagnosed_by FROM patient p JOIN tumour t USING (patient_id);
CREATE UNLOGGED TABLE study.treated AS SELECT * FROM treatment;
CREATE TABLE study.by_hand (patient_id numeric, age int);
CREATE TABLE study.serials (serial varchar(20));
CREATE TABLE study.lab (lab text, sample_no int, value text);
CREATE TABLE study.only_lab (lab text, value text);
CREATE MATERIALIZED VIEW study.frozen AS SELECT * FROM study.extract;
CREATE MATERIALIZED VIEW study.reading AS SELECT patient_id FROM patient;
CREATE TABLE study.yearly (patient_id int, year int) PARTITION BY LIST (year);
CREATE TABLE study.yearly_2025 PARTITION OF study.yearly FOR VALUES IN (2025);
CREATE TEMP TABLE passing AS SELECT patient_id FROM patient;
CREATE TABLE study.other_type (patient_id date);
CREATE TABLE study.any (id int, code text, stage text);
CREATE TABLE study.person (patient_id int PRIMARY KEY);
CREATE TABLE study.of_person (patient_id int REFERENCES study.person);
CREATE FOREIGN DATA WRAPPER regress_none;
CREATE SERVER regress_elsewhere FOREIGN DATA WRAPPER regress_none;
CREATE FOREIGN TABLE study.remote (patient_id int) SERVER regress_elsewhere;
\x on
SELECT * FROM guard_coverage();
\x off
-- study.person is one, although of_person refers to it: then of_person is reached as well.
CREATE PROCEDURE follow_advice(about text, gap_code text DEFAULT 'key_without_reference') LANGUAGE plpgsql AS $$
DECLARE
    advice text := (SELECT g.what_to_do FROM ndrs_optout.guard_coverage() AS g
                        WHERE g.gap = gap_code AND g.relation = about::regclass);
BEGIN
    EXECUTE advice;
END $$;
CALL follow_advice('study.extract');
CALL follow_advice('study.treated');
CALL follow_advice('study.by_hand');
CALL follow_advice('study.serials');
CALL follow_advice('study.lab');
CALL follow_advice('study.yearly');
CALL follow_advice('study.person');
SELECT gap, relation, object FROM guard_coverage() WHERE severity <> 'low';
-- and the patient is gone from there.
INSERT INTO study.by_hand VALUES (1, 60), (2, 61);
INSERT INTO study.serials VALUES ('a'), ('b');
INSERT INTO study.person VALUES (1), (2);
INSERT INTO study.of_person VALUES (1), (2);
SELECT exclude('9990000018', '{cancer}');
SELECT relation, action, row_count FROM erase('9990000018', '{cancer}') WHERE row_count > 0 ORDER BY 1;
SELECT * FROM study.extract;
SELECT accept_gap('key_without_reference', 'study.remote', 'patient_id', 'erased there by its own DBA');
DROP MATERIALIZED VIEW study.frozen, study.reading;
SELECT gap, relation, object FROM guard_coverage() WHERE severity <> 'low';
-- Two tables that have such a key: which one is the owner's to say.
CREATE TABLE rare (patient_id int PRIMARY KEY, nhs bigint);
SELECT guard_table('rare', 'nhs', '{rare_disease}');
CREATE TABLE study.mixed (patient_id int);
SELECT relation, what_to_do FROM guard_coverage() WHERE gap = 'key_without_reference';
SELECT unguard_table('rare');
DROP TABLE rare, study.mixed;

-- Large objects
ALTER TABLE tumour ADD scan oid;
CREATE DOMAIN picture AS oid;
ALTER TABLE detail ADD photo picture;
SELECT relation, object, what_to_do FROM guard_coverage() WHERE gap = 'large_object_remains';
CREATE ROLE regress_owner;
CREATE EXTENSION lo SCHEMA registry;
CALL follow_advice('registry.tumour', 'large_object_remains');
CALL follow_advice('registry.detail', 'large_object_remains');
SELECT gap, relation, object FROM guard_coverage() WHERE severity <> 'low';
INSERT INTO patient VALUES (3, '9990000034');
INSERT INTO tumour SELECT 13, 3, NULL, lo_from_bytea(0, 'a scan') RETURNING scan AS gone \gset
INSERT INTO detail SELECT 13, 'II', lo_from_bytea(0, 'a photo') RETURNING photo AS gone_as_well \gset
INSERT INTO tumour SELECT 14, 2, NULL, lo_from_bytea(0, 'another''s') RETURNING scan AS kept \gset
SELECT exclude('9990000034', '{cancer}');
SELECT sum(row_count) FROM erase('9990000034', '{cancer}');
SELECT oid = :kept AS is_kept FROM pg_largeobject_metadata WHERE oid IN (:gone, :gone_as_well, :kept);
-- One that the table's owner may not unlink stops the erasure.
BEGIN;
GRANT ALL ON SCHEMA registry TO regress_owner;
CREATE TABLE note (patient_id int REFERENCES patient, picture oid);
CREATE INDEX ON note (patient_id);
INSERT INTO note VALUES (2, lo_from_bytea(0, 'the superuser''s'));
CREATE TRIGGER pictures BEFORE DELETE ON note FOR EACH ROW EXECUTE FUNCTION lo_manage(picture);
ALTER TABLE note OWNER TO regress_owner;
SELECT exclude('9990000026', '{cancer}');
SAVEPOINT excluded;
SELECT sum(row_count) FROM erase('9990000026', '{cancer}');
\echo :SQLSTATE
ROLLBACK TO excluded;
-- A trigger that is not for each deleted row, of this column, leaves some.
DROP TRIGGER pictures ON note;
CREATE TRIGGER pictures BEFORE DELETE ON note FOR EACH ROW WHEN (OLD.patient_id > 0) EXECUTE FUNCTION lo_manage(picture);
SELECT gap, relation, object FROM guard_coverage() WHERE gap = 'large_object_remains';
ROLLBACK;
SELECT lo_unlink(:kept);

-- Columns named like NHS numbers that no guard reads: a change of type, or a generated column.
CREATE EXTENSION citext SCHEMA public;
CREATE TYPE person AS (title text, nhs_number bigint);
CREATE DOMAIN wrapped AS jsonb;
CREATE TABLE folded (nhs_number citext, nhs_no name);
CREATE TABLE floating (nhs_number float8, nhs_no float4);
CREATE TABLE listed (nhs_numbers text[], nhs_no bigint[]);
CREATE TABLE packed (nhs_number jsonb, nhs_no wrapped, nhs_id json);
CREATE TABLE composed (nhs_number person);
CREATE TABLE ranged (nhs_number int8range);
CREATE TABLE raw (nhs_number bytea, nhs_id uuid);
CREATE TABLE harmless (nhs_number_known boolean, nhs_no_checked date, nhs_id int, nhs_number_seen timestamptz);
SELECT relation, object, what_to_do FROM guard_coverage() WHERE gap = 'unreadable_nhs_numbers';
-- Typed, with the registers.  A guard reads citext as it is.
ALTER TABLE folded ALTER nhs_no TYPE text;
INSERT INTO folded VALUES ('9990000042', '9990000042');
ALTER TABLE floating ALTER nhs_number TYPE bigint;
ALTER TABLE listed ADD nhs_numbers_text text GENERATED ALWAYS AS (nhs_numbers[1]::text) STORED, ADD nhs_no_text text GENERATED ALWAYS AS (nhs_no[1]::text) STORED;
ALTER TABLE packed ADD nhs_number_text text GENERATED ALWAYS AS (nhs_number ->> 'nhs_number') STORED,
    ADD nhs_no_text text GENERATED ALWAYS AS (nhs_no ->> 'nhs_number') STORED, ADD nhs_id_text text GENERATED ALWAYS AS (nhs_id ->> 'nhs_number') STORED;
ALTER TABLE composed ADD nhs_number_text text GENERATED ALWAYS AS ((nhs_number).nhs_number::text) STORED;
ALTER TABLE ranged ADD nhs_number_text text GENERATED ALWAYS AS (lower(nhs_number)::text) STORED;
ALTER TABLE raw ADD nhs_number_text text GENERATED ALWAYS AS (encode(nhs_number, 'escape')) STORED;
INSERT INTO packed VALUES ('{"nhs_number": "999 000 0042"}', '{"nhs_number": 9990000042}', '{}');
-- Until they are guarded, generated ones are gaps as any column that holds numbers, and say how.
SELECT severity, relation, object, what_to_do FROM guard_coverage() WHERE gap = 'unguarded_nhs_numbers' AND relation = 'packed'::regclass;
SELECT guard_table('folded', 'nhs_number', '{cancer}'), guard_table('folded', 'nhs_no', '{cancer}'), guard_table('floating', 'nhs_number', '{cancer}');
SELECT count(guard_table(a.attrelid, a.attname, '{cancer}', mechanism => 'constraint')) FROM pg_attribute a
    WHERE a.attrelid IN ('listed'::regclass, 'packed'::regclass, 'composed'::regclass, 'ranged'::regclass, 'raw'::regclass) AND a.attgenerated <> '';
SELECT gap, relation, object FROM guard_coverage() WHERE severity <> 'low';
-- A guard on a generated column: the row is refused, whatever the way to the column, and an erasure finds it.
SELECT exclude('9990000042', '{cancer}');
SELECT relation, action, row_count FROM erase('9990000042', '{cancer}') WHERE row_count > 0;
INSERT INTO folded VALUES ('999 000 0042');
\echo :SQLSTATE
INSERT INTO packed VALUES ('{"nhs_number": "9990000042"}');
\echo :SQLSTATE
INSERT INTO listed VALUES ('{9990000026}'), ('{9990000042}');
\echo :SQLSTATE
INSERT INTO listed VALUES ('{9990000026}');
UPDATE listed SET nhs_no = '{9990000042}';
\echo :SQLSTATE
INSERT INTO composed VALUES (('x', 9990000042));
\echo :SQLSTATE
INSERT INTO ranged VALUES ('[9990000042,9990000042]');
\echo :SQLSTATE
INSERT INTO raw VALUES (convert_to('9990000042', 'UTF8'));
\echo :SQLSTATE
SELECT guard_table('listed', 'nhs_numbers_text', '{cancer}');
\echo :SQLSTATE
-- A declared reference will do where rows are only to be erased.
CREATE TABLE logged (nhs_record jsonb);
CREATE TABLE log (nhs_id jsonb);
ALTER TABLE log ADD patient int GENERATED ALWAYS AS ((nhs_id ->> 'patient')::int) STORED;
SELECT gap, relation, object FROM guard_coverage() WHERE severity <> 'low';
SELECT declare_reference('log', '{patient}', 'patient', '{patient_id}');
SELECT gap, relation, object FROM guard_coverage() WHERE severity <> 'low';

-- What the server sends elsewhere: whole rows
ALTER TABLE tumour REPLICA IDENTITY FULL;
ALTER TABLE result REPLICA IDENTITY FULL;
CREATE TABLE item (tumour_id bigint REFERENCES tumour, item_no int NOT NULL UNIQUE);
CREATE INDEX ON item (tumour_id);
ALTER TABLE item REPLICA IDENTITY FULL;
SELECT severity, relation, what_to_do FROM guard_coverage() WHERE gap = 'replica_identity_full';
CALL follow_advice('tumour', 'replica_identity_full');
CALL follow_advice('item', 'replica_identity_full');
ALTER TABLE result ADD result_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY; ALTER TABLE result REPLICA IDENTITY DEFAULT;
SELECT gap, relation, object FROM guard_coverage() WHERE severity <> 'low';
-- pglogical's sets, by its own catalogue only: not by one of the same name.
CREATE SCHEMA pglogical;
CREATE TABLE pglogical.replication_set (set_id oid, set_nodeid oid, set_name name, replicate_insert boolean, replicate_update boolean,
    replicate_delete boolean, replicate_truncate boolean);
CREATE TABLE pglogical.replication_set_table (set_id oid, set_reloid regclass);
INSERT INTO pglogical.replication_set VALUES (1, 1, 'everything', true, true, true, true), (2, 1, 'inserts', true, false, false, false);
INSERT INTO pglogical.replication_set_table VALUES (1, 'tumour'), (2, 'patient'), (2, 'study.only_lab');
SELECT * FROM guard_pglogical_sets();
BEGIN;
SET LOCAL allow_system_table_mods = on;
UPDATE pg_extension SET extname = 'pglogical' WHERE extname = 'citext';
ALTER EXTENSION pglogical ADD TABLE pglogical.replication_set;
ALTER EXTENSION pglogical ADD TABLE pglogical.replication_set_table;
SELECT severity, gap, relation, object, what_to_do FROM guard_coverage() WHERE gap ~ 'publi';
ROLLBACK;

SELECT unguard_table(t) FROM unnest('{patient,folded,floating,listed,packed,composed,ranged,raw}'::regclass[]) AS t;
DELETE FROM exclusion;
DROP FOREIGN DATA WRAPPER regress_none CASCADE;
DROP EXTENSION citext, lo CASCADE;
DROP SCHEMA registry, study, pglogical CASCADE;
DROP TABLE passing;
DROP ROLE regress_owner;
