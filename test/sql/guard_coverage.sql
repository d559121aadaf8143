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
        RETURN QUERY SELECT c.severity, c.gap, c.relation::text, c.object, c.what_to_do FROM guard_coverage() AS c;
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
SELECT * FROM open_gap('CREATE RULE keep AS ON DELETE TO tumour DO INSTEAD NOTHING');
SELECT * FROM open_gap('CREATE TABLE log (id int); CREATE RULE copy AS ON INSERT TO tumour DO ALSO INSERT INTO log VALUES (NEW.id)');
SELECT * FROM open_gap($$ CREATE FUNCTION history() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER history AFTER INSERT ON visit FOR EACH ROW EXECUTE FUNCTION history() $$);
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
-- A table is read with its owner's rights, and one that the owner may not read is told.
SELECT * FROM open_gap($$ CREATE TABLE theirs (nhs_number text); INSERT INTO theirs VALUES ('x');
    CREATE FUNCTION who(text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
        'BEGIN IF current_user <> ''regress_somebody'' THEN RAISE ''run by another''; END IF; RETURN true; END';
    GRANT USAGE, CREATE ON SCHEMA registry TO regress_somebody; ALTER TABLE theirs OWNER TO regress_somebody;
    SET LOCAL ROLE regress_somebody; CREATE INDEX ON registry.theirs (nhs_number) WHERE registry.who('x'); RESET ROLE $$);
SELECT * FROM open_gap($$ CREATE TABLE theirs (nhs_number text); ALTER TABLE theirs OWNER TO regress_somebody; REVOKE ALL ON theirs FROM regress_somebody $$);
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
SELECT accept_gap('NHS numbers without a guard', 'contact', 'nhs_number', '');
\echo :SQLSTATE
SELECT accept_gap('NHS numbers without a guard', 'contact', 'nhs_number', 'only 999 000 0018 is in it');
\echo :SQLSTATE
SELECT accept_gap('no such gap', 'contact', 'nhs_number', 'I say so');
\echo :SQLSTATE
SELECT accept_gap('NHS numbers without a guard', 'contact', 'nhs_number', 'numbers of the staff of clinics');
SELECT severity, gap, relation, object FROM guard_coverage();
SELECT gap, relation, object, reason FROM accepted_gap;
SELECT event, detail FROM audit_event ORDER BY event_id DESC LIMIT 1;
-- Not when it turns out to be worse than it was.
INSERT INTO contact VALUES ('9990000026');
SELECT severity, gap, relation, object FROM guard_coverage();
DROP TABLE contact;
SELECT count(*) FROM accepted_gap;
-- Nor a part of a guard, which can be repaired.
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE patient ENABLE TRIGGER ndrs_optout_guard_2;
SELECT accept_gap('guard''s trigger not ALWAYS', 'patient', 'nhs', 'tonight only');
\echo :SQLSTATE
ALTER TABLE patient ENABLE ALWAYS TRIGGER ndrs_optout_guard_2;
-- A gap without an object
CREATE MATERIALIZED VIEW copy AS TABLE patient;
SELECT gap, relation, object FROM guard_coverage();
SELECT accept_gap('materialized view', 'copy', NULL, 'refreshed after each opt-out');
SELECT gap, relation, object FROM guard_coverage();
-- Code of somebody's that fails, in an index, hides nothing else.
CREATE TABLE failing (nhs_number text);
INSERT INTO failing VALUES ('9990000026');
CREATE FUNCTION fail(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE ''seeded failure''; END';
CREATE FUNCTION fail_immutably(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN registry.fail(1); END';
CREATE TABLE also_open (nhs_number text);
ALTER FUNCTION fail(int) RENAME TO fail_not;
CREATE FUNCTION fail(int) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE INDEX ON failing (nhs_number) WHERE fail_immutably(1);
DROP FUNCTION fail(int);
ALTER FUNCTION fail_not(int) RENAME TO fail;
SELECT gap, relation, object FROM guard_coverage() ORDER BY relation::text;
DROP TABLE failing, also_open;

SELECT unguard_table('patient'), unguard_table('visit');
SET client_min_messages = warning;
DROP SCHEMA registry CASCADE;
DROP ROLE regress_registrar, regress_somebody;
