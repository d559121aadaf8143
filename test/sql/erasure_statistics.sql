-- What pg_stats shows of a patient is gone after carry_out(), sweep() and renew_statistics().
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
-- Cases of other tests had the same ids.
DELETE FROM statistics_renewal;
CREATE SCHEMA registry;
SET search_path = registry, ndrs_optout, public;
-- Wherever statistics hold this text, in columns, index expressions and extended statistics
CREATE FUNCTION in_statistics(wanted text) RETURNS TABLE (place text) LANGUAGE sql SET search_path = registry, pg_catalog AS $$
    SELECT format('%s.%s%s', s.tablename, s.attname, CASE WHEN s.inherited THEN ' with children' END)
        FROM pg_stats s WHERE s.schemaname = 'registry' AND position(wanted IN s::text) > 0
    UNION ALL
    SELECT format('%s of %s%s', s.statistics_name, s.tablename, CASE WHEN s.inherited THEN ' with children' END)
        FROM pg_stats_ext s WHERE s.statistics_schemaname = 'registry' AND position(wanted IN s::text) > 0
    UNION ALL
    SELECT format('%s of %s: %s', s.statistics_name, s.tablename, s.expr)
        FROM pg_stats_ext_exprs s WHERE s.statistics_schemaname = 'registry' AND position(wanted IN s::text) > 0
    ORDER BY 1
$$;
CREATE TABLE patient (patient_id int PRIMARY KEY, nhs text, ward text, note text, quiet text);
CREATE INDEX patient_expression ON patient (upper(nhs || note));
CREATE STATISTICS patient_pairs (mcv) ON nhs, ward FROM patient;
CREATE STATISTICS patient_expressions ON (nhs || ward), (note || ward) FROM patient;
CREATE INDEX ON patient (nhs_number_or_null(nhs));
CREATE TABLE baby (baby_id int, mother_nhs text);
CREATE TABLE letter (patient_id int REFERENCES patient, nhs_text text);
CREATE INDEX letter_expression ON letter (upper(nhs_text));
CREATE STATISTICS letter_pairs (mcv) ON patient_id, nhs_text FROM letter;
CREATE STATISTICS letter_text ON (lower(nhs_text)) FROM letter;
CREATE TABLE scan (patient_id int REFERENCES patient ON DELETE SET NULL, label text, copy text);
CREATE TABLE visit (nhs text, year int) PARTITION BY RANGE (year);
CREATE TABLE visit_old PARTITION OF visit FOR VALUES FROM (1900) TO (2025) PARTITION BY RANGE (year);
CREATE TABLE visit_2024 PARTITION OF visit_old FOR VALUES FROM (2024) TO (2025);
CREATE TABLE visit_2025 PARTITION OF visit FOR VALUES FROM (2025) TO (2026);
CREATE TABLE address (patient_id int, street text);
CREATE TABLE address_old () INHERITS (address);
SELECT guard_table('patient', 'nhs', '{cancer}'), guard_table('visit', 'nhs', '{cancer}'),
    guard_table('baby', 'mother_nhs', '{cancer}', 'redact');
SELECT declare_reference('address', '{patient_id}', 'patient', '{patient_id}');
CREATE PROCEDURE fill(patient int, number text) LANGUAGE sql AS $$
    INSERT INTO registry.patient VALUES (patient, number, 'ward 1', ' n' || patient, number),
        (patient + 100000, number, 'ward 1', ' n' || patient, number);
    INSERT INTO registry.baby VALUES (1, number);
    INSERT INTO registry.scan VALUES (patient, 'scan', 'copy');
    INSERT INTO registry.visit VALUES (number, 2024), (number, 2024);
    INSERT INTO registry.address_old VALUES (patient, 'of ' || number);
$$;
CALL fill(55551, '9990000018');
CALL fill(55552, '9990000026');
CALL fill(55553, '9990000034');
INSERT INTO visit VALUES ('9990000026', 2025);
-- A table that will be empty, and a column whose statistics ANALYZE does not touch any more
INSERT INTO letter VALUES (55551, 'for 9990000018'), (155551, 'for 9990000018');
ANALYZE patient, baby, letter, scan, visit, address, address_old;
ALTER TABLE patient ALTER quiet SET STATISTICS 0;
SELECT * FROM in_statistics('9990000018');
SELECT * FROM in_statistics('55551');

SELECT open_case('9990000018', '{cancer}') AS case_id \gset
SELECT record_identity(:case_id, 'identity', 'passport'), record_identity(:case_id, 'address', 'utility_bill');
CALL carry_out(:case_id, '9990000018');
SELECT * FROM in_statistics('9990000018') UNION ALL SELECT * FROM in_statistics('55551');
SELECT s ->> 'status' AS status, t ->> 'table' AS "table",
       (t ->> 'renewed_at')::timestamptz > (c ->> 'carried_out_at')::timestamptz AS after_the_erasure
    FROM erasure_certificate(:case_id) AS c CROSS JOIN LATERAL (SELECT c #> '{levels,out_of_statistics}') AS l (s)
        CROSS JOIN LATERAL jsonb_array_elements(s -> 'tables') AS t;
-- Others' are there, made anew from what is left.
SELECT * FROM in_statistics('9990000026');
SELECT tablename, attname, most_common_vals FROM pg_stats WHERE schemaname = 'registry' AND attname IN ('nhs', 'mother_nhs') ORDER BY 1, inherited;
SELECT relname, last_analyze > now() - interval '1 minute' AS analyzed FROM pg_stat_user_tables
    WHERE schemaname = 'registry' AND relname IN ('patient', 'visit', 'visit_old', 'visit_2024', 'letter', 'scan') ORDER BY 1;
SELECT next_action ~ 'renew_statistics' AS to_be_renewed FROM case_progress WHERE case_id = :case_id;
SELECT status, detail FROM health() WHERE check_name = 'statistics';
SELECT complete_case(:case_id) IS NOT NULL AS completed;
SELECT count(*) FROM statistics_renewal WHERE case_id = :case_id;

-- An erasure without a case, and one that is undone.
BEGIN;
SELECT exclude('9990000026', '{cancer}');
SELECT sum(row_count) FROM erase('9990000026', '{cancer}');
SELECT count(*) > 0 AS noted FROM statistics_renewal WHERE renewed_at IS NULL;
ROLLBACK;
SELECT count(*) FROM statistics_renewal WHERE renewed_at IS NULL;
INSERT INTO letter VALUES (55552, 'for 9990000026'), (155552, 'for 9990000026');
ALTER TABLE patient ALTER quiet SET STATISTICS -1;
ANALYZE letter, patient;
ALTER TABLE patient ALTER quiet SET STATISTICS 0;
SELECT exclude('9990000026', '{cancer}');
SELECT sum(row_count) FROM erase('9990000026', '{cancer}');
UPDATE statistics_renewal SET erased_at = erased_at - interval '2 hours';
SELECT status, detail, what_to_do FROM health() WHERE check_name = 'statistics';
-- ANALYZE alone leaves what it does not write anew.
ANALYZE patient, baby, letter, scan, visit, address, address_old;
SELECT * FROM in_statistics('9990000026');
-- Nothing is done in a transaction that may not see what was committed.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT renew_next_statistics(NULL);
\echo :SQLSTATE
ROLLBACK;
BEGIN;
CALL renew_statistics();
\echo :SQLSTATE
ROLLBACK;
CALL renew_statistics();
SELECT * FROM in_statistics('9990000026');
SELECT count(*) FROM statistics_renewal WHERE renewed_at IS NULL;
SELECT status, detail FROM health() WHERE check_name = 'statistics';

-- A sweep, of a table that ANALYZE cannot read
CREATE ROLE regress_owner;
CREATE FUNCTION fragile(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN upper($1); END $$;
CREATE INDEX ON visit_2024 (fragile(nhs));
ALTER TABLE visit OWNER TO regress_owner;
ALTER TABLE visit_old OWNER TO regress_owner;
ALTER TABLE visit_2024 OWNER TO regress_owner;
ALTER TABLE visit_2025 OWNER TO regress_owner;
GRANT USAGE ON SCHEMA registry TO regress_owner;
SELECT exclude('9990000034', '{cancer}');
INSERT INTO visit VALUES ('9990000042', 2024);
ANALYZE visit;
SELECT * FROM in_statistics('9990000034');
CREATE OR REPLACE FUNCTION fragile(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN IF current_user <> 'regress_owner' THEN RAISE WARNING 'with other rights'; END IF;
        RAISE 'cannot read %', $1; END $$;
SET client_min_messages = warning;
CALL sweep();
RESET client_min_messages;
SELECT * FROM in_statistics('9990000034');
SELECT count(*) FROM statistics_renewal WHERE renewed_at IS NULL;
SELECT attname FROM pg_stats WHERE tablename = 'visit_2024';

-- What was dropped since has none.
CREATE OR REPLACE FUNCTION fragile(text) RETURNS text LANGUAGE sql IMMUTABLE RETURN $1;
SELECT exclude('9990000042', '{cancer}');
SELECT sum(row_count) FROM erase('9990000042', '{cancer}');
DROP TABLE visit_2024;
CALL renew_statistics();
SELECT count(*) FROM statistics_renewal WHERE renewed_at IS NULL;

-- Numbers of a national check are in no statistics.
SELECT attstattarget FROM pg_attribute WHERE attrelid = 'national_check_part'::regclass AND attname = 'numbers';

SELECT unguard_table('patient'), unguard_table('visit'), unguard_table('baby');
DELETE FROM exclusion;
SET client_min_messages = warning;
DROP SCHEMA registry CASCADE;
DROP ROLE regress_owner;
