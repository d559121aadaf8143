-- The opt-out case, from the request to the letter.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
SET timezone = 'Europe/London';
ALTER TABLE optout_case ALTER case_id RESTART WITH 1;
SET datestyle = 'ISO, DMY';

CREATE TABLE patient (patient_id int PRIMARY KEY, nhs_number text);
CREATE TABLE tumour (tumour_id int PRIMARY KEY, patient_id int REFERENCES patient);
CREATE TABLE relative (relative_id int, patient_id int REFERENCES patient ON DELETE SET NULL);
CREATE TABLE rare_patient (id int, nhs_number nhs_number);
INSERT INTO patient VALUES (1, '999 000 0018'), (2, '9990000026');
INSERT INTO tumour VALUES (1, 1), (2, 1), (3, 2);
INSERT INTO relative VALUES (1, 1);
INSERT INTO rare_patient VALUES (1, '9990000026');
SELECT guard_table('patient', 'nhs_number', '{cancer}', 'skip') AS patient,
       guard_table('rare_patient', 'nhs_number', '{rare_disease}') AS rare_patient;

-- Dates are relative to today, which the output must not show.
CREATE VIEW progress AS
    SELECT case_id, state, registers, due_on - current_date AS due_in, days_left, overdue, missing, next_action
        FROM case_progress;

-- Form first, proofs later: the clock starts with the second proof.
SELECT open_case('9990000018', '{rare_disease,cancer}', received_on => current_date - 12) AS case_id \gset
SELECT * FROM progress;
CALL carry_out(:case_id, '9990000018');
\echo :SQLSTATE
SELECT complete_case(:case_id);
\echo :SQLSTATE
SELECT record_identity(:case_id, 'identity', 'passport', current_date - 11);
SELECT missing FROM progress;
CALL carry_out(:case_id, '9990000018');
\echo :SQLSTATE
SELECT is_excluded('9990000018', 'cancer') AS excluded_without_proof;
-- A second document for the same proof takes the place of the first.
SELECT record_identity(:case_id, 'identity', 'driving_licence', current_date - 10);
SELECT record_identity(:case_id, 'address', 'bank_statement', current_date - 5);
SELECT * FROM progress;
SELECT record_identity(:case_id, 'address', 'utility_bill');
\echo :SQLSTATE

-- Not for another patient, not in a transaction block, not step by step.
CALL carry_out(:case_id, '9990000026');
\echo :SQLSTATE
BEGIN;
CALL carry_out(:case_id, '9990000018');
\echo :SQLSTATE
ROLLBACK;
CREATE FUNCTION calls(bigint, nhs_number) RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL ndrs_optout.carry_out($1, $2); END $$;
SELECT calls(:case_id, '9990000018');
\echo :SQLSTATE
DROP FUNCTION calls;
SELECT case_certify(:case_id, '9990000018');
\echo :SQLSTATE
BEGIN;
SELECT case_exclude(:case_id, '9990000018');
SELECT case_certify(:case_id, '9990000018');
\echo :SQLSTATE
ROLLBACK;
SELECT state, is_excluded('9990000018', 'cancer') FROM progress;

-- Nor with an old snapshot, nor when the patient was readmitted meanwhile.
SELECT case_exclude(:case_id, '9990000018');
SELECT * FROM progress;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT case_certify(:case_id, '9990000018');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT readmit('9990000018', '{rare_disease}');
SELECT case_certify(:case_id, '9990000018');
\echo :SQLSTATE
ROLLBACK;
SELECT state FROM progress;

-- Nor when a table was unguarded, or is guarded otherwise; not when asked again either.
SELECT unguard_table('rare_patient');
SELECT case_certify(:case_id, '9990000018');
\echo :SQLSTATE
SELECT guard_table('rare_patient', 'nhs_number', '{congenital_anomaly}');
CALL carry_out(:case_id, '9990000018');
\echo :SQLSTATE
SELECT unguard_table('rare_patient');
SELECT guard_table('rare_patient', 'nhs_number', '{rare_disease}');

-- From where it stands, whatever the session's isolation level.
SET default_transaction_isolation = serializable;
CALL carry_out(:case_id, '9990000018');
RESET default_transaction_isolation;
SELECT * FROM progress;
SELECT registers, relation, path, action, row_count FROM case_erasure WHERE row_count > 0;
SELECT * FROM patient;
SELECT * FROM tumour;
SELECT * FROM relative;
-- Done again, it says so, and the exclusion is the one of before.
SELECT excluded_at FROM optout_case WHERE case_id = :case_id \gset
CALL carry_out(:case_id, '9990000018');
SELECT excluded_at = :'excluded_at' AS the_same FROM optout_case WHERE case_id = :case_id;

-- What others see of a procedure: the caller's own statement without its digits, under its
-- query id; so nobody passes for another.
SET compute_query_id = on;
DO $$
DECLARE
    seen record;
BEGIN  -- 9990000018
    PERFORM ndrs_optout.begin_procedure('carry_out');
    SELECT split_part(query, ' ', 1) AS first, query ~ '[0-9]' AS digits, query ~ 'BEGIN  -- ##########' AS own_text, query_id <> 0 AS id INTO seen
        FROM pg_stat_activity WHERE pid = pg_backend_pid();
    RAISE NOTICE '%', seen;
END $$;
RESET compute_query_id;
DO $$ BEGIN PERFORM ndrs_optout.begin_procedure('VACUUM'); END $$;
\echo :SQLSTATE
-- Readmitted, there is nothing to write.
BEGIN;
SELECT readmit('9990000018', '{cancer}');
SELECT complete_case(:case_id);
\echo :SQLSTATE
ROLLBACK;
SELECT readmit('9990000018', '{cancer}');
CALL carry_out(:case_id, '9990000018');
SELECT excluded_at > :'excluded_at' AS anew FROM optout_case WHERE case_id = :case_id;
-- A rollback after the letter was read leaves its event, and the case to be completed.
BEGIN;
SELECT complete_case(:case_id) LIKE 'Our reference%' AS told;
ROLLBACK;
SELECT state, (SELECT count(*) FROM audit_event e WHERE e.event = 'letter_written' AND e.detail -> 'case' = to_jsonb(c.case_id)) AS events
    FROM optout_case c WHERE case_id = :case_id;
SELECT completion_letter(:case_id);
\echo :SQLSTATE
-- The letter says what was done, and the proofs are gone.
SELECT count(*) FROM identity_evidence;
SELECT regexp_replace(complete_case(:case_id), '\d+ (January|February|March|April|May|June|July|August|September|October|November|December) \d{4}', 'DAY', 'g') AS letter \gset
\echo :letter
SELECT count(*) FROM identity_evidence;
SELECT completion_letter(:case_id) LIKE 'Our reference: opt-out case%' AS again;
SELECT case_id, state, days_left, overdue, next_action FROM progress;
CALL carry_out(:case_id, '9990000018');
\echo :SQLSTATE
SELECT record_identity(:case_id, 'address', 'utility_bill');
\echo :SQLSTATE

-- What arrives afterwards.
INSERT INTO patient VALUES (9, '9990000018'), (10, '9990000034');
INSERT INTO rare_patient VALUES (9, '9990000018');
\echo :SQLSTATE
SELECT * FROM patient ORDER BY 1;

-- A case is carried out by a session that cannot write by default as well, and
-- with a guarded child on the way.
CREATE TABLE guarded_child (nhs nhs_number, patient_id int REFERENCES patient);
CREATE TABLE shared (nhs nhs_number, other text);
INSERT INTO guarded_child VALUES (NULL, 10);
INSERT INTO shared VALUES ('9990000034', 'x');
SELECT guard_table('guarded_child', 'nhs', '{cancer}'), guard_table('shared', 'nhs', '{cancer}', 'redact');
SELECT open_case('9990000034', '{cancer}') AS case_id \gset
SELECT record_identity(:case_id, 'identity', 'passport'), record_identity(:case_id, 'address', 'utility_bill');
SET default_transaction_read_only = on;
CALL carry_out(:case_id, '9990000034');
RESET default_transaction_read_only;
SELECT relation, action, row_count FROM case_erasure WHERE case_id = :case_id AND row_count > 0;
SELECT complete_case(:case_id) LIKE '%We kept 1 entry that another person shares. We took out your NHS number%' AS in_the_letter;
SELECT unguard_table('guarded_child'), unguard_table('shared');
BEGIN;
DROP TABLE guarded_child, shared;
SELECT accept_gap('edge_lost', NULL, 'public.guarded_child (patient_id) > public.patient (patient_id)', 'for this test only');
COMMIT;

-- A table that serves another register as well keeps what it holds, and the letter says so.
CREATE TABLE serves_two (nhs nhs_number);
INSERT INTO serves_two VALUES ('9990000085');
SELECT guard_table('serves_two', 'nhs', '{cancer,congenital_anomaly}');
SELECT open_case('9990000085', '{cancer}') AS case_id \gset
SELECT record_identity(:case_id, 'identity', 'passport'), record_identity(:case_id, 'address', 'utility_bill');
CALL carry_out(:case_id, '9990000085');
SELECT relation, action, row_count FROM case_erasure WHERE case_id = :case_id;
SELECT regexp_replace(complete_case(:case_id), '\d+ (January|February|March|April|May|June|July|August|September|October|November|December) \d{4}', 'DAY', 'g') AS letter \gset
\echo :letter
SELECT * FROM serves_two;
SELECT unguard_table('serves_two');
DROP TABLE serves_two;

-- A register of which no table is guarded here cannot be searched.
CREATE TABLE baby (id int, nhs_number nhs_number);
-- Proofs first, form later; a parent; one register; nothing held.
SELECT open_case('9990000042', '{congenital_anomaly}', 'parent', 'post', current_date, (current_date - interval '14 years' + interval '1 day')::date) AS case_id \gset
SELECT record_identity(:case_id, 'identity', 'passport', current_date - 30);
SELECT record_identity(:case_id, 'address', 'utility_bill', current_date - 30);
SELECT due_in, days_left FROM progress WHERE case_id = :case_id;
CALL carry_out(:case_id, '9990000042');
\echo :SQLSTATE
SELECT is_excluded('9990000042', 'congenital_anomaly');
SELECT guard_table('baby', 'nhs_number', '{congenital_anomaly}');
CALL carry_out(:case_id, '9990000042');
SELECT regexp_replace(complete_case(:case_id), '\d+ (January|February|March|April|May|June|July|August|September|October|November|December) \d{4}', 'DAY', 'g') AS letter \gset
\echo :letter
-- On the fourteenth birthday a child is none.
SELECT open_case('9990000050', '{cancer}', 'parent', 'post', current_date, (current_date - interval '14 years')::date);
SELECT open_case('9990000050', '{cancer}', 'parent');

-- One open case for a patient and register; another register is another matter.
SELECT open_case('9990000026', '{cancer}', 'representative', 'online', current_date - 30) AS case_id \gset
SELECT open_case('9990000026', '{cancer,rare_disease}');
\echo :SQLSTATE
SELECT open_case('9990000026', '{rare_disease}') AS other_id \gset
SELECT record_identity(:case_id, 'identity', 'passport', current_date - 25);
SELECT record_identity(:case_id, 'address', 'utility_bill', current_date - 26);
SELECT missing, next_action FROM progress WHERE case_id = :case_id;
SELECT record_identity(:case_id, 'authority', 'passport');
SELECT record_identity(:case_id, 'authority', 'power_of_attorney', current_date - 25, proof_of => 'patient');
SELECT record_identity(:other_id, 'authority', 'power_of_attorney');
SELECT record_identity(:case_id, 'address', 'utility_bill', current_date - 26, proof_of => 'friend');
SELECT record_identity(:case_id, 'address', 'utility_bill', current_date - 26, proof_of => 'patient');
SELECT record_identity(:case_id, 'authority', 'power_of_attorney', current_date - 25);
-- The most urgent first.
SELECT case_id, state, due_in, days_left, overdue FROM progress;

-- Two people with one number: nobody is excluded or erased until somebody has looked.
CREATE TABLE shared_number (id int, nhs_number text, born date, at timestamp);
SELECT guard_table('shared_number', 'nhs_number', '{rare_disease}', birth_date_column => 'born');
INSERT INTO shared_number VALUES (1, '9990000069', '1980-01-02'), (2, '999 000 0069', '1991-03-04'), (3, '9990000069', NULL),
    (4, '9990000077', '1991-03-04');
SELECT open_case('9990000069', '{rare_disease}', date_of_birth => '1980-01-02') AS shared_id \gset
ALTER TABLE optout_case ALTER case_id RESTART WITH 101;
SELECT record_identity(:shared_id, 'identity', 'passport'), record_identity(:shared_id, 'address', 'utility_bill');
CALL carry_out(:shared_id, '9990000069');
SELECT is_excluded('9990000069', 'rare_disease'), count(*) FROM shared_number;
SELECT confirm_identity(:shared_id);
CALL carry_out(:shared_id, '9990000069');
SELECT id FROM shared_number ORDER BY id;
SELECT length(complete_case(:shared_id)) > 0 AS lettered;
SELECT date_of_birth FROM optout_case WHERE case_id = :shared_id;
-- A row that comes while the writers are waited for is looked at as well, and a timestamp will do.
SELECT unguard_table('shared_number');
SELECT guard_table('shared_number', 'nhs_number', '{rare_disease}', birth_date_column => 'at');
INSERT INTO shared_number VALUES (5, '9990000077', NULL, '1991-03-04 05:06');
SELECT open_case('9990000077', '{rare_disease}', date_of_birth => '1991-03-04');
SELECT record_identity(101, 'identity', 'passport'), record_identity(101, 'address', 'utility_bill');
SELECT case_exclude(101, '9990000077');
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE shared_number DISABLE TRIGGER ALL;
ALTER TABLE shared_number DROP CONSTRAINT ndrs_optout_guard_2;
INSERT INTO shared_number VALUES (6, '9990000077', NULL, '1992-03-04 05:06');
SELECT unguard_table('shared_number');
SELECT guard_table('shared_number', 'nhs_number', '{rare_disease}', birth_date_column => 'at');
RESET ndrs_optout.allow_unguarded;
CALL carry_out(101, '9990000077');
\echo :SQLSTATE
SELECT case_certify(101, '9990000077');
\echo :SQLSTATE
SELECT id FROM shared_number ORDER BY id;
SELECT confirm_identity(101);
CALL carry_out(101, '9990000077');
SELECT id FROM shared_number ORDER BY id;
-- What has come since is looked at anew, when the case is carried out again.
CREATE TABLE late (id int, nhs_number text, born date);
INSERT INTO late VALUES (1, '9990000077', '1992-03-04');
SELECT guard_table('late', 'nhs_number', '{rare_disease}', birth_date_column => 'born');
CALL carry_out(101, '9990000077');
\echo :SQLSTATE
SELECT confirm_identity(101);
CALL carry_out(101, '9990000077');
SELECT count(*) FROM late;
SELECT unguard_table('late');
DROP TABLE late;
SELECT event, detail FROM audit_event WHERE event LIKE 'identity%' ORDER BY event_id DESC LIMIT 1;

-- A table that was guarded at the exclusion and is gone: nothing is certified before the one
-- in its place is guarded.
CREATE TABLE swapped (id int, nhs_number text);
SELECT guard_table('swapped', 'nhs_number', '{rare_disease}');
INSERT INTO swapped VALUES (1, '9990000093');
SELECT open_case('9990000093', '{rare_disease}') AS swapped_id \gset
SELECT record_identity(:swapped_id, 'identity', 'passport'), record_identity(:swapped_id, 'address', 'utility_bill');
SELECT case_exclude(:swapped_id, '9990000093');
CREATE TABLE swapped_new AS TABLE swapped;
SET ndrs_optout.allow_unguarded = on;
DROP TABLE swapped;
RESET ndrs_optout.allow_unguarded;
ALTER TABLE swapped_new RENAME TO swapped;
\set VERBOSITY sqlstate
CALL carry_out(:swapped_id, '9990000093');
CALL carry_out(:swapped_id, '9990000093');
\set VERBOSITY default
SELECT guard_table('swapped', 'nhs_number', '{rare_disease}');
CALL carry_out(:swapped_id, '9990000093');
SELECT state, (SELECT count(*) FROM swapped) AS held FROM optout_case WHERE case_id = :swapped_id;

-- A change of mind: from registers that the patient is out of, when no case is open.
ALTER TABLE optout_case ALTER case_id RESTART WITH 201;
SELECT opt_in('9990000069', '{cancer,rare_disease}');
\echo :SQLSTATE
SELECT opt_in('9990000077', '{rare_disease}');
\echo :SQLSTATE
SELECT opt_in('9990000069', '{rare_disease}', channel => 'pigeon');
SELECT opt_in('9990000069', '{rare_disease}', channel => NULL);
SELECT opt_in('9990000069', '{rare_disease}', channel => 'post', received_on => current_date + 1);
SELECT opt_in('9990000069', '{rare_disease}', channel => 'post', received_on => NULL);
SELECT opt_in('9990000069', NULL);
SELECT opt_in(NULL, '{rare_disease}');
SELECT opt_in('9999999999', '{rare_disease}');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT opt_in('9990000069', '{rare_disease}');
\echo :SQLSTATE
ROLLBACK;
SELECT is_excluded('9990000069', 'rare_disease');
SELECT opt_in('9990000069', '{rare_disease}', channel => 'post', received_on => current_date - 3);
SELECT is_excluded('9990000069', 'rare_disease');
SELECT kind, p.state, due_in, p.missing, p.next_action FROM progress p JOIN optout_case USING (case_id) WHERE case_id = 201;
INSERT INTO shared_number VALUES (7, '9990000069', '1980-01-02');
-- Until it is completed, nothing else goes on for the patient; and it is no case of opting out.
SELECT opt_in('9990000069', '{rare_disease}');
SELECT open_case('9990000069', '{rare_disease}');
CALL carry_out(201, '9990000069');
\echo :SQLSTATE
SELECT confirm_identity(201);
SELECT withdraw_case(201);
SELECT regexp_replace(complete_case(201), '\d+ (January|February|March|April|May|June|July|August|September|October|November|December) \d{4}', 'DAY', 'g') AS letter \gset
\echo :letter
SELECT opt_in('9990000069', '{rare_disease}');
SELECT open_case('9990000069', '{rare_disease}') > 201 AS out_again;

-- Mistakes.
SELECT open_case('9999999999', '{cancer}');
SELECT open_case(NULL, '{cancer}');
SELECT open_case('9990000050', '{cancers}');
SELECT open_case('9990000050', NULL);
SELECT open_case('9990000050', '{cancer}', 'friend');
SELECT open_case('9990000050', '{cancer}', NULL);
SELECT open_case('9990000050', '{cancer}', 'self', 'pigeon');
SELECT open_case('9990000050', '{cancer}', 'self', 'email', current_date + 1);
SELECT open_case('9990000050', '{cancer}', 'self', 'email', NULL);
SELECT open_case('9990000050', '{cancer}', 'self', 'email', current_date, current_date + 1);
SELECT open_case('9990000050', '{cancer}', 'self', 'email', '-infinity');
SELECT open_case('9990000050', '{{cancer},{cancers}}');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT open_case('9990000050', '{cancer}');
ROLLBACK;
SELECT record_identity(:other_id, 'identity', 'passport', '-infinity');
SELECT record_identity(:other_id, 'identity', 'utility_bill');
SELECT record_identity(:other_id, 'face', 'passport');
SELECT record_identity(:other_id, NULL, 'passport');
SELECT record_identity(:other_id, 'identity', NULL);
SELECT record_identity(:other_id, 'identity', 'passport', current_date + 1);
SELECT record_identity(:other_id, 'identity', 'passport', NULL);
SELECT record_identity(12345, 'identity', 'passport');
\echo :SQLSTATE
SELECT record_identity(NULL, 'identity', 'passport');
SELECT complete_case(NULL);
SELECT complete_case(9990000018);
CALL carry_out(NULL, '9990000018');
CALL carry_out(:case_id, NULL);
CALL carry_out(:case_id, '9999999999');
SELECT case_id, state FROM progress ORDER BY case_id;

-- English.
SELECT english_list('{}'), english_list('{a}'), english_list('{a,b}'), english_list('{a,b,c}'), english_date('2026-07-05');

-- The library is asked, too: where another extension keeps the rows of the list, SQL
-- still sees them, and guards do not.
CREATE TABLE shard () INHERITS (exclusion);
CREATE FUNCTION to_shard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.shard VALUES (NEW.*); RETURN NULL; END $$;
CREATE TRIGGER to_shard BEFORE INSERT ON exclusion FOR EACH ROW EXECUTE FUNCTION to_shard();
SELECT open_case('9990000999', '{cancer}') AS case_id \gset
SELECT record_identity(:case_id, 'identity', 'passport'), record_identity(:case_id, 'address', 'utility_bill');
CALL carry_out(:case_id, '9990000999');
\echo :SQLSTATE
SELECT state FROM optout_case WHERE case_id = :case_id;
SELECT is_excluded('9990000999', 'cancer'), count(*) FROM exclusion WHERE encoded_nhs_number = encode_nhs_number('9990000999');
DROP TRIGGER to_shard ON exclusion;
DROP TABLE shard;
DROP FUNCTION to_shard;
CALL carry_out(:case_id, '9990000999');
SELECT state FROM optout_case WHERE case_id = :case_id;

SELECT unguard_table(target) FROM guard;
DELETE FROM case_erasure; DELETE FROM case_guard; DELETE FROM case_certificate; DELETE FROM identity_evidence; DELETE FROM optout_case; DELETE FROM exclusion; DELETE FROM guard_tally;
DROP VIEW progress;
DROP TABLE tumour, relative, patient, rare_patient, baby, shared_number, swapped;
