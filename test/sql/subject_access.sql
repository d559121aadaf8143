-- Subject access: all that is held about one patient, and what of it is about
-- another person too.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
SET timezone = 'Europe/London';
SET timezone = 'UTC';
ALTER TABLE optout_case ALTER case_id RESTART WITH 1;
ALTER TABLE subject_access_request ALTER request_id RESTART WITH 1;

-- Two patients with the same shape of data: 9990000018 asks, 9990000026 must not be seen.
-- A column has the alias that a careless query would take for the row.
CREATE TABLE patient (id int PRIMARY KEY, nhs text, t text, "Born On" date, seen timestamptz, weight float8, stay interval, merged_into int REFERENCES patient);
CREATE TABLE tumour (id int PRIMARY KEY, patient_id int REFERENCES patient);
CREATE TABLE regimen (id int PRIMARY KEY, tumour_id int REFERENCES tumour);
CREATE TABLE drug (id int, regimen_id int REFERENCES regimen, year int) PARTITION BY RANGE (year);
CREATE TABLE drug_2024 PARTITION OF drug FOR VALUES FROM (2024) TO (2025);
CREATE TABLE drug_2025 (year int, gone text, regimen_id int, id int);
ALTER TABLE drug_2025 DROP COLUMN gone;
ALTER TABLE drug ATTACH PARTITION drug_2025 FOR VALUES FROM (2025) TO (2026);
CREATE TABLE imaging (id int, tumour_id int REFERENCES tumour ON DELETE SET NULL, patient_id int REFERENCES patient ON DELETE SET NULL);
CREATE TABLE sample (patient_id int, tumour_id int, tube text);
CREATE TABLE "Letter" ("NHS No" bigint, body jsonb);
CREATE TABLE letter_old (year int) INHERITS ("Letter");
CREATE TABLE serves_two (nhs nhs_number, note text);
INSERT INTO patient VALUES (1, '999 000 0018', 'a', '1980-02-01', '2026-01-02 03:04:05+05:30', 0.1::float8 + 0.2, '1 day 02:00', 3),
    (2, '9990000026', 'b', NULL, NULL, NULL, NULL, NULL), (3, '999-000-0018', 'merged', NULL, NULL, NULL, NULL, 1);
INSERT INTO tumour VALUES (10, 1), (11, 2), (12, 3);
INSERT INTO regimen VALUES (20, 10), (21, 11);
INSERT INTO drug VALUES (30, 20, 2024), (31, 20, 2025), (32, 21, 2024), (33, 21, 2025);
INSERT INTO imaging VALUES (40, 10, 1), (41, 11, 2);
INSERT INTO sample VALUES (1, 10, 'found by two paths'), (2, 11, 'not hers'), (NULL, 12, 'found by one');
INSERT INTO "Letter" VALUES (9990000018, '{"dear": "x"}'), (9990000026, NULL);
INSERT INTO letter_old VALUES (9990000018, '[]', 1999), (9990000026, NULL, 1999);
INSERT INTO serves_two VALUES ('9990000018', 'for two registers'), ('9990000026', 'not hers');
SELECT guard_table('patient', 'nhs', '{cancer}'), guard_table('"Letter"', 'NHS No', '{congenital_anomaly}'),
       guard_table('serves_two', 'nhs', '{cancer,rare_disease}');
SELECT declare_reference('sample', '{patient_id}', 'patient', '{id}'), declare_reference('sample', '{tumour_id}', 'tumour', '{id}');

-- The deepest and the shallowest, partitions, children by inheritance, references
-- declared or with ON DELETE SET NULL, a table for two registers, cycles; each row once,
-- whatever the session's settings.
SET datestyle = 'SQL, DMY';
SET intervalstyle = iso_8601;
SET extra_float_digits = 0;
SELECT * FROM disclose_records('9990000018');
RESET datestyle; RESET intervalstyle; RESET extra_float_digits;
SELECT count(*) AS of_another_patient FROM disclose_records('9990000018') WHERE record::text ~ '9990000026|not hers';

-- Nothing but the state of the lists for somebody unknown.
SELECT exclude('9990000042', '{rare_disease}');
SELECT source, record - 'excluded_at' AS record, record ->> 'excluded_at' IS NOT NULL AS dated, shared
    FROM disclose_records('9990000042');

-- What type json holds and jsonb does not: the row comes as it was read, as one string.
CREATE TABLE lab (nhs text, result json);
INSERT INTO lab VALUES ('9990000115', '{"fine": "\u00e9"}'), ('9990000115', '{"seeded": "a\u0000b"}'),
    ('9990000115', '{"seeded": "\ud800"}'), ('9990000115', '{"seeded": 1e400000}'), ('999 000 0123', '{"seeded": "\\\\u0000"}');
SELECT guard_table('lab', 'nhs', '{cancer}');
SELECT record, jsonb_typeof(record) AS type, shared FROM disclose_records('9990000115') WHERE source LIKE '%.%' ORDER BY record::text;
SELECT record, shared FROM disclose_records('9990000123') WHERE source LIKE '%.%';
SELECT unguard_table('lab');
DROP TABLE lab;

-- What was read is in the audit, whatever the reader does: the event is there before the answer, and no rollback
-- undoes it.  What the call changed is undone with the rest.
CREATE FUNCTION wrapped(undo boolean) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    records bigint;
BEGIN
    BEGIN
        SELECT count(*) INTO records FROM ndrs_optout.disclose_records('9990000018');
        IF undo THEN
            RAISE 'undo';
        END IF;
    EXCEPTION WHEN raise_exception THEN
        NULL;
    END;
    RETURN records;
END $$;
CREATE FUNCTION wrapped_in_sql() RETURNS bigint LANGUAGE sql VOLATILE SET work_mem = '4MB' AS 'SELECT count(*) FROM ndrs_optout.disclose_records(''9990000018'')';
SELECT coalesce(max(event_id), 0) AS last_event FROM audit_event \gset
BEGIN;
SELECT count(*) FROM disclose_records('9990000018');
\echo :SQLSTATE
ROLLBACK;
SELECT count(*) FROM disclose_records('9990000018') \; SELECT 1 / 0;
SELECT wrapped(true);
SELECT wrapped(false);
SELECT wrapped_in_sql();
DO $$ DECLARE n bigint; BEGIN SELECT count(*) INTO n FROM ndrs_optout.disclose_records('9990000018'); RAISE '% records', n; END $$;
SELECT request_subject_access('9990000018') AS request \gset
SELECT record_subject_access_proof(:request, 'identity', 'passport') \g /dev/null
BEGIN;
SELECT count(*) FROM answer_subject_access(:request, '9990000018');
ROLLBACK;
SELECT answered_at FROM subject_access_progress WHERE request_id = :request;
SELECT count(*) AS told FROM audit_event WHERE event_id > :last_event AND event IN ('subject_access', 'subject_access_answered');
SELECT count(*) > 0 AS records FROM disclose_records('9990000018');
SELECT count(*) AS told FROM audit_event WHERE event_id > :last_event AND event IN ('subject_access', 'subject_access_answered');
-- The rows are out before the statement fails: the event is there all the same.
SELECT coalesce(max(event_id), 0) AS last_event FROM audit_event \gset
SELECT source FROM disclose_records('9990000018') UNION ALL SELECT (1 / count(*) FILTER (WHERE false))::text;
SELECT count(*) AS told FROM audit_event WHERE event_id > :last_event AND event = 'subject_access';
-- Whatever the database's transactions are by default; and where the audit cannot be written, nothing is told.
SET default_transaction_isolation = serializable;
SELECT count(*) > 0 AS told FROM disclose_records('9990000018');
SET default_transaction_read_only = on;
SELECT count(*) > 0 AS told FROM disclose_records('9990000018');
\echo :SQLSTATE
RESET default_transaction_read_only;
RESET default_transaction_isolation;
ALTER DATABASE :DBNAME SET default_transaction_read_only = on;
ALTER DATABASE :DBNAME SET role = pg_monitor;
SELECT count(*) > 0 AS told FROM disclose_records('9990000018');
ALTER DATABASE :DBNAME RESET default_transaction_read_only;
ALTER DATABASE :DBNAME RESET role;
SELECT count(*) AS told FROM audit_event WHERE event_id > :last_event AND event = 'subject_access';
SELECT count(*) AS damaged FROM verify_audit();
DELETE FROM subject_access_request;
ALTER TABLE subject_access_request ALTER request_id RESTART WITH 1;
DROP FUNCTION wrapped, wrapped_in_sql;

-- What is about another person too.
CREATE TABLE mother (id int PRIMARY KEY, nhs bigint);
CREATE TABLE baby (id int PRIMARY KEY, nhs text, mother_id int REFERENCES mother);
CREATE TABLE anomaly (id int, baby_id int REFERENCES baby);
CREATE TABLE birth (id int, mother_nhs text, mother_name text, baby_nhs numeric, father_nhs bigint);
INSERT INTO mother VALUES (1, 9990000050);
INSERT INTO baby VALUES (1, '9990000069', 1), (2, NULL, 1), (3, '', 1), (4, '999 000 0050', 1), (5, 'unknown', 1), (6, '9999999999', 1);
INSERT INTO anomaly VALUES (1, 1), (2, 2);
INSERT INTO birth VALUES (1, '9990000050', 'seeded name', 9990000069, 9990000077), (2, '9990000050', 'seeded name', NULL, NULL),
    (3, NULL, NULL, 9990000069, NULL), (4, '9990000085', 'seeded name', 9990000093, NULL),
    (5, NULL, NULL, 9990000107, 0), (6, '', NULL, 9990000107, NULL), (7, '9999999999', NULL, 9990000107, NULL), (8, '999000', NULL, 9990000107, NULL),
    (9, NULL, NULL, 9990000107, 12345);
SELECT guard_table('mother', 'nhs', '{cancer}'), guard_table('baby', 'nhs', '{congenital_anomaly}'),
       guard_table('birth', 'mother_nhs', '{cancer}', 'redact', redact_columns => '{mother_name}'),
       guard_table('birth', 'baby_nhs', '{congenital_anomaly}'), guard_table('birth', 'father_nhs', '{cancer}');
-- The mother's: the anomaly of a baby that is somebody else is not hers.
SELECT source, record, shared FROM disclose_records('9990000050') WHERE source LIKE '%.%';
-- The baby's, of which the mother's number and name are a part.
SELECT source, record, shared FROM disclose_records('9990000069') WHERE source LIKE '%.%';
SELECT source, record, shared FROM disclose_records('9990000077') WHERE source LIKE '%.%';
-- A number that is not the patient's stands in shared rows only.
SELECT n AS patient, count(*) FILTER (WHERE shared) AS shared, count(*) FILTER (WHERE NOT shared) AS not_shared,
       count(*) FILTER (WHERE NOT shared AND replace(record::text, n, '') ~ '99900000\d\d') AS others_numbers
    FROM unnest('{9990000050,9990000069,9990000077,9990000085,9990000093}'::text[]) AS n
    CROSS JOIN LATERAL disclose_records(n::nhs_number)
    WHERE source LIKE '%.%' GROUP BY n ORDER BY n;
-- A placeholder, or a column that is empty, is nobody.
SELECT record, shared FROM disclose_records('9990000107') WHERE source LIKE '%.%';
-- Partitions and children of a guarded table.
CREATE TABLE twins (a bigint, b bigint, k int) PARTITION BY LIST (k);
CREATE TABLE twins_1 PARTITION OF twins FOR VALUES IN (1);
CREATE TABLE siblings (a bigint, b bigint);
CREATE TABLE siblings_old () INHERITS (siblings);
INSERT INTO twins VALUES (9990000115, NULL, 1), (9990000115, 9990000093, 1);
INSERT INTO siblings_old VALUES (9990000115, NULL), (9990000093, 9990000115);
SELECT guard_table('twins', 'a', '{cancer}'), guard_table('twins', 'b', '{cancer}'),
       guard_table('siblings', 'a', '{cancer}'), guard_table('siblings', 'b', '{cancer}');
SELECT source, record, shared FROM disclose_records('9990000115') WHERE source LIKE '%.%';
-- A guard of a partition, of which the table above knows nothing.
CREATE TABLE visit (patient_id int REFERENCES patient, nhs text, k int) PARTITION BY LIST (k);
CREATE TABLE visit_1 PARTITION OF visit FOR VALUES IN (1);
CREATE TABLE visit_2 PARTITION OF visit DEFAULT;
INSERT INTO visit VALUES (1, '9990000018', 1), (1, '9990000093', 1), (1, '9990000093', 2), (2, '9990000018', 1);
SELECT guard_table('visit_1', 'nhs', '{rare_disease}');
SELECT source, record, shared FROM disclose_records('9990000018') WHERE source LIKE '%visit%';

-- Rows are read with the rights of their table's owner, whatever was put there.
CREATE ROLE regress_mallory;
CREATE SCHEMA mallory AUTHORIZATION regress_mallory;
GRANT REFERENCES, SELECT ON patient TO regress_mallory;
SET ROLE regress_mallory;
CREATE TABLE mallory.seen (who text);
CREATE TYPE mallory.colour AS ENUM ('red');
CREATE FUNCTION mallory.to_json(mallory.colour) RETURNS json LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO mallory.seen VALUES (current_user); RETURN '"as mallory likes it"'; END $$;
CREATE CAST (mallory.colour AS json) WITH FUNCTION mallory.to_json;
CREATE TABLE mallory.child (patient_id int REFERENCES public.patient, colour mallory.colour);
INSERT INTO mallory.child VALUES (1, 'red');
RESET ROLE;
SELECT source, record, shared FROM disclose_records('9990000018') WHERE source LIKE 'mallory%';
SELECT DISTINCT who FROM mallory.seen;

-- A policy does not hide rows from their owner's eyes, and where it does there is no answer.
ALTER TABLE tumour ENABLE ROW LEVEL SECURITY;
CREATE POLICY nobody ON tumour USING (false);
SELECT count(*) FROM disclose_records('9990000018') WHERE source = 'public.tumour';
SET ROLE regress_mallory;
ALTER TABLE mallory.child ENABLE ROW LEVEL SECURITY;
SELECT source FROM ndrs_optout.disclose_records('9999999999');
RESET ROLE;
SELECT count(*) FROM disclose_records('9990000018') WHERE source = 'mallory.child';
ALTER TABLE mallory.child FORCE ROW LEVEL SECURITY;
SELECT count(*) FROM disclose_records('9990000018');
\echo :SQLSTATE
BEGIN;
DROP TABLE mallory.child;
SELECT accept_gap('edge_lost', NULL, 'mallory.child (patient_id) > public.patient (id)', 'for this test only');
COMMIT;

-- Cases, of which it says what was received but not what was in it.
SELECT open_case('9990000018', '{cancer}', date_of_birth => '1980-02-01', received_on => '2020-03-01') AS case_id \gset
SELECT record_identity(:case_id, 'address', 'utility_bill', '2020-03-02');
SELECT record_identity(:case_id, 'identity', 'passport', '2020-03-02');
INSERT INTO confidential_key VALUES ('regress', '\x00');
INSERT INTO case_correspondence (case_id, kind, received_on, key_id, content) VALUES (:case_id, 'form', '2020-03-01', 'regress', 'secret');
SELECT open_case('9990000026', '{cancer}') AS other_case \gset
SELECT source, jsonb_pretty(record), shared FROM disclose_records('9990000018') WHERE source = 'optout_case';

-- When an answer is due: the same date in the next month, or its last; or the next working day.
SELECT to_char(d, 'Dy YYYY-MM-DD') AS received_on, to_char(subject_access_due(d), 'Dy YYYY-MM-DD') AS due_on
    FROM unnest('{2026-09-03,2026-01-31,2027-01-30,2028-01-29,2026-03-31,2026-11-25,2026-11-26,2026-03-03,2026-12-01,2035-11-24}'::date[]) AS d;

-- Requests.
CREATE FUNCTION answered() RETURNS TABLE (request_id bigint, applicant text, due_in int, is_due boolean, overdue boolean, answered boolean) LANGUAGE sql AS
    $$ SELECT request_id, applicant, days_left - (due_on - current_date), due_on = ndrs_optout.subject_access_due(received_on), overdue, answered_at IS NOT NULL
           FROM ndrs_optout.subject_access_progress $$;
SELECT request_subject_access('9990000026');
SELECT record_subject_access_proof(1, 'identity', 'passport');
SELECT request_subject_access('9990000018', received_on => current_date - 70) AS request \gset
SELECT record_subject_access_proof(:request, 'identity', 'driving_licence', current_date - 70);
SELECT request_subject_access('9990000069', 'parent', competence => 'child_agrees');
SELECT record_subject_access_proof(3, 'identity', 'passport'), record_subject_access_proof(3, 'authority', 'parental_responsibility');
SELECT * FROM answered();
-- Another patient's number, no request, no patient.
SELECT answer_subject_access(:request, '9990000026');
\echo :SQLSTATE
SELECT answer_subject_access(12345, '9990000018');
SELECT answer_subject_access(9990000018, '9990000018');
\echo :SQLSTATE
SELECT answer_subject_access(NULL, '9990000018');
SELECT answer_subject_access(:request, NULL);
SELECT answer_subject_access(:request, '9999999999');
SELECT * FROM answered() WHERE answered;
SELECT count(*) = (SELECT count(*) FROM disclose_records('9990000018')) AS the_same FROM answer_subject_access(:request, '9990000018');
SELECT * FROM answered();
SELECT answered_at FROM subject_access_request WHERE request_id = :request \gset
SELECT count(*) > 0 AS again FROM answer_subject_access(:request, '9990000018');
SELECT answered_at = :'answered_at' AS the_first_time FROM subject_access_request WHERE request_id = :request;
SELECT record ->> 'request_id' AS request, shared FROM disclose_records('9990000018') WHERE source = 'subject_access_request';
-- In the audit, without the patient.
SELECT event, detail, count(*) FROM (
    SELECT event, detail FROM audit_event WHERE event LIKE 'subject_access%' ORDER BY entry_id DESC LIMIT 8) AS e
    GROUP BY 1, 2 ORDER BY 1, 2;
SELECT count(*) FROM audit_event WHERE event LIKE 'subject_access%' AND detail::text ~ ('9990000|' || encode_nhs_number('9990000018'));

-- Mistakes.
SELECT disclose_records('9999999999');
\echo :SQLSTATE
SELECT disclose_records(NULL);
SELECT request_subject_access('9999999999');
SELECT request_subject_access(NULL);
SELECT request_subject_access('9990000018', 'friend');
SELECT request_subject_access('9990000018', NULL);
SELECT request_subject_access('9990000018', 'self', current_date + 1);
SELECT request_subject_access('9990000018', 'self', NULL);
SELECT request_subject_access('9990000069', 'parent');
SELECT request_subject_access('9990000069', 'parent', current_date, 'old enough');
SELECT request_subject_access('9990000069', 'self', current_date, 'child_agrees');
-- What cannot be searched as it was guarded cannot be said to hold nothing.
SET ndrs_optout.allow_unguarded = on;
ALTER TABLE serves_two RENAME COLUMN nhs TO number;
RESET ndrs_optout.allow_unguarded;
SELECT count(*) FROM disclose_records('9990000018');
\echo :SQLSTATE

SELECT unguard_table(target) FROM (SELECT DISTINCT target FROM guard) AS g;
DELETE FROM reference; DELETE FROM expected_edge; DELETE FROM exclusion; DELETE FROM subject_access_request;
DELETE FROM case_correspondence; DELETE FROM confidential_key; DELETE FROM identity_evidence; DELETE FROM case_certificate; DELETE FROM optout_case;
DROP TABLE twins, siblings_old, siblings, visit, birth, anomaly, baby, mother, serves_two, letter_old, "Letter", sample, imaging, drug, regimen, tumour, patient;
DROP FUNCTION answered;
SET client_min_messages = warning;
DROP SCHEMA mallory CASCADE;
DROP ROLE regress_mallory;
