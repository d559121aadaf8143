-- sweep: removes what guards would not let in, and fills encoded columns.
SET search_path = public, ndrs_optout;
CREATE TABLE patient (id int PRIMARY KEY, nhs text, encoded encoded_nhs_number, padding char(4000));
ALTER TABLE patient ALTER padding SET STORAGE PLAIN;
CREATE TABLE tumour (id int PRIMARY KEY, patient_id int REFERENCES patient);
CREATE TABLE visit (nhs bigint, year int) PARTITION BY LIST (year);
CREATE TABLE visit_2024 PARTITION OF visit FOR VALUES IN (2024);
CREATE TABLE visit_2025 PARTITION OF visit FOR VALUES IN (2025);
CREATE TABLE birth (id int, mother bigint, mother_name text);
CREATE TABLE both_registers (nhs text);
-- One step fills the encoded column in 1000 blocks.
INSERT INTO patient SELECT n, NULL, NULL, 'x' FROM generate_series(200001, 202100) AS n;
INSERT INTO patient SELECT n - 9990000000, n FROM generate_series(9990000000, 9990009999) AS n
    WHERE nhs_number_or_null(n::text) IS NOT NULL;
INSERT INTO patient VALUES (100001, '999 000 0018'), (100002, 'none'), (100003, NULL), (100004, '9999999999');
INSERT INTO tumour SELECT id, id FROM patient WHERE nhs IS NOT NULL;
SELECT pg_relation_size('patient') / 8192 > 1000 AS two_steps;
INSERT INTO visit VALUES (9990000018, 2024), (9990000018, 2025), (9990000026, 2025), (NULL, 2024);
INSERT INTO birth VALUES (1, 9990000018, 'seeded name'), (2, 9990000026, 'x');
INSERT INTO both_registers VALUES ('9990000018'), ('9990000034');
SELECT exclude('9990000018', '{cancer}'), exclude('9990000034', '{cancer,rare_disease}');
SELECT guard_table('patient', 'nhs', '{cancer}', encoded_column => 'encoded') AS patient,
       guard_table('visit', 'nhs', '{cancer}') AS visit,
       guard_table('birth', 'mother', '{cancer}', 'redact', redact_columns => '{mother_name}') AS birth,
       guard_table('both_registers', 'nhs', '{cancer,rare_disease}') AS both_registers;
-- Parallel workers have the token of the search, too.
SET parallel_leader_participation = off;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
CALL sweep('visit');
CALL sweep();
RESET parallel_leader_participation;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
SELECT relation, nhs_number_column, state, patients_found, patients_erased, patients_left, rows_erased, rows_encoded,
       started_at <= finished_at AS in_order
    FROM sweep_progress ORDER BY relation::text;
SELECT count(*) FILTER (WHERE guard_matches(nhs, '{cancer}')) AS excluded, count(*) FILTER (WHERE encoded IS NULL AND padding IS NULL) AS not_encoded,
       count(*) FILTER (WHERE encoded <> encode_nhs_number(nhs_number_or_null(nhs))) AS wrong FROM patient;
SELECT count(*) FROM tumour WHERE patient_id NOT IN (SELECT id FROM patient);
SELECT count(*) FROM tumour;
TABLE visit; TABLE birth; TABLE both_registers;
SELECT event, detail - 'sweep' FROM audit_event WHERE event = 'sweep_finished' ORDER BY event_id DESC LIMIT 1;

-- Again: nothing is left to do.
CALL sweep();
SELECT sum(patients_found) AS found, sum(rows_encoded) AS encoded FROM sweep_progress;

-- A patient who cannot be erased is counted and left; the others are erased.
CREATE TABLE obstacle (nhs bigint, patient_id int REFERENCES patient);
INSERT INTO obstacle SELECT 9990000115, id FROM patient WHERE nhs = '9990000042';
SELECT guard_table('obstacle', 'nhs', '{cancer}');
SELECT exclude(n::nhs_number, '{cancer}') IS NULL AS x FROM unnest('{9990000042,9990000050}'::bigint[]) AS n \g /dev/null
CALL sweep('patient');
SELECT patients_found, patients_erased, patients_left, rows_erased FROM sweep_progress;
SELECT nhs FROM patient WHERE guard_matches(nhs, '{cancer}');
DELETE FROM obstacle;
CALL sweep('patient');

-- Any error of one patient's is that patient's only; an open case is left to its officer.
CREATE FUNCTION keep_one() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF OLD.nhs = '9990000050' THEN RAISE 'not this one'; END IF; RETURN OLD; END $$;
CREATE TRIGGER keep_one BEFORE DELETE ON patient FOR EACH ROW EXECUTE FUNCTION keep_one();
SELECT unguard_table('patient');
INSERT INTO patient VALUES (300001, '9990000050'), (300002, '9990000077'), (300003, '9990000085');
SELECT guard_table('patient', 'nhs', '{cancer}', encoded_column => 'encoded');
SELECT exclude(n::nhs_number, '{cancer}') IS NULL AS x FROM unnest('{9990000077,9990000085}'::bigint[]) AS n \g /dev/null
INSERT INTO optout_case (encoded_nhs_number, registers, applicant, channel, received_on, state)
    VALUES (encode_nhs_number('9990000085'), '{cancer}', 'self', 'post', current_date, 'excluded');
CALL sweep('patient');
SELECT patients_found, patients_erased, patients_left FROM sweep_progress;
SELECT nhs FROM patient WHERE guard_matches(nhs, '{cancer}') ORDER BY nhs;
DELETE FROM case_certificate; DELETE FROM optout_case;
DROP TRIGGER keep_one ON patient;
DROP FUNCTION keep_one;
SET client_min_messages = warning;
CALL sweep('patient');
RESET client_min_messages;
SELECT count(*) FROM patient WHERE guard_matches(nhs, '{cancer}');

-- An interrupted sweep goes on where it was, and starts anew when the list has changed.
SELECT exclude('9990000069', '{cancer}');
SELECT (s).sweep_id AS sweep_id FROM sweep_begin(NULL) AS s \gset
SELECT ((sweep_step(ROW(:sweep_id, NULL, NULL, NULL, NULL, true))).relation);
SELECT relation, state, patients_found, patients_erased FROM sweep_progress WHERE state <> 'waiting' ORDER BY relation::text;
ALTER TABLE sweep ALTER sweep_id RESTART WITH 1000;
SELECT regexp_replace((sweep_begin(NULL)).sweep_id::text, '^' || :sweep_id || '$', 'the same') AS id;
SELECT exclude('9990000093', '{cancer}');
SELECT (sweep_begin(NULL)).sweep_id;
SELECT unguard_table('birth'), guard_table('birth', 'mother', '{cancer,rare_disease}', 'redact', redact_columns => '{mother_name}');
SELECT (sweep_begin(NULL)).sweep_id;
UPDATE sweep SET started_at = started_at - interval '2 days' WHERE finished_at IS NULL;
SELECT (sweep_begin(NULL)).sweep_id;
SET client_min_messages = warning;
CALL sweep();
SELECT sum(patients_erased) AS patients, bool_and(state = 'done') AS done FROM sweep_progress;
RESET client_min_messages;
SELECT count(*) FROM sweep WHERE finished_at IS NULL;
-- A list that it does not look into changes nothing for it.
SELECT sweep_fingerprint('birth') AS births, sweep_fingerprint('patient') AS patients \gset
SELECT exclude('9990000107', '{rare_disease}');
SELECT sweep_fingerprint('birth') = :'births' AS births, sweep_fingerprint('patient') = :'patients' AS patients;
SELECT readmit('9990000107', '{rare_disease}');
SELECT sweep_fingerprint('birth') = :'births' AS births, sweep_fingerprint('patient') = :'patients' AS patients;

-- What it does not search is counted, and no sweep is well without it, unless that is accepted.
CREATE FOREIGN DATA WRAPPER elsewhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
SET client_min_messages = error;
ALTER EVENT TRIGGER ndrs_optout_sentry_start DISABLE;
ALTER EVENT TRIGGER ndrs_optout_sentry_end DISABLE;
CREATE FOREIGN TABLE visit_there PARTITION OF visit FOR VALUES IN (2040) SERVER elsewhere;
ALTER EVENT TRIGGER ndrs_optout_sentry_start ENABLE ALWAYS;
ALTER EVENT TRIGGER ndrs_optout_sentry_end ENABLE ALWAYS;
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass NOT NULL);
INSERT INTO pg_dist_partition VALUES ('birth');
RESET client_min_messages;
CALL sweep();
SELECT relation, state, finished_at IS NOT NULL AS finished FROM sweep_progress WHERE state <> 'done';
SELECT detail -> 'leaves_not_searched' AS not_searched FROM audit_event WHERE event = 'sweep_finished' ORDER BY event_id DESC LIMIT 1;
SELECT * FROM health() WHERE check_name = 'sweep';
DROP TABLE pg_catalog.pg_dist_partition;
RESET allow_system_table_mods;
CALL sweep('birth');
SELECT status, detail FROM health() WHERE check_name = 'sweep';
SELECT accept_gap('foreign_table', 'visit_there', 'elsewhere', 'nothing is written there any more');
SELECT status, detail FROM health() WHERE check_name = 'sweep';
SET client_min_messages = error;
DROP FOREIGN DATA WRAPPER elsewhere CASCADE;
RESET client_min_messages;

-- Mistakes.
BEGIN;
CALL sweep();
\echo :SQLSTATE
ROLLBACK;
CALL sweep('tumour');
\echo :SQLSTATE
SELECT unguard_table(target) FROM guard;
CALL sweep();
DELETE FROM sweep_leaf; DELETE FROM sweep; DELETE FROM exclusion; DELETE FROM guard_tally;
DROP TABLE tumour, obstacle, patient, visit, birth, both_registers;
