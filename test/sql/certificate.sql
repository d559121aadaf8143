-- The certificate: what an erasure did, what was verified and what it did not reach.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
ALTER TABLE optout_case ALTER case_id RESTART WITH 1;

CREATE TABLE patient (id int PRIMARY KEY, nhs text);
CREATE INDEX ON patient (nhs_number_or_null(nhs));
CREATE TABLE tumour (id int PRIMARY KEY, patient_id int REFERENCES patient, year int);
CREATE TABLE drug (tumour_id int REFERENCES tumour, year int) PARTITION BY RANGE (year);
CREATE TABLE drug_2024 PARTITION OF drug FOR VALUES FROM (2024) TO (2025);
CREATE TABLE drug_2025 PARTITION OF drug FOR VALUES FROM (2025) TO (2026);
CREATE TABLE sample (patient_id int REFERENCES patient, tumour_id int REFERENCES tumour);
CREATE TABLE imaging (id int, tumour_id int REFERENCES tumour ON DELETE SET NULL);
CREATE TABLE birth (id int, mother bigint, name text, baby bigint);
CREATE TABLE serves_two (nhs nhs_number);
INSERT INTO patient VALUES (1, '999 000 0018'), (2, '9990000026'), (3, '9990000018');
INSERT INTO tumour VALUES (10, 1), (11, 2), (12, 3);
INSERT INTO drug VALUES (10, 2024), (10, 2025), (12, 2025), (11, 2024);
INSERT INTO sample VALUES (1, NULL), (NULL, 12), (NULL, 10), (1, 10), (2, 11);
INSERT INTO imaging VALUES (1, 12), (2, 11);
INSERT INTO birth VALUES (1, 9990000018, 'seeded name', 9990000026), (2, 9990000042, NULL, NULL);
INSERT INTO serves_two VALUES ('9990000018'), ('9990000026');
SELECT guard_table('patient', 'nhs', '{cancer}'), guard_table('birth', 'mother', '{cancer}', 'redact', redact_columns => '{name}'),
       guard_table('serves_two', 'nhs', '{cancer,rare_disease}');
-- A copy that nobody guards, a gap that somebody has accepted, and something that is only slow.
CREATE TABLE copied (nhs_number text);
CREATE TABLE legacy (nhs_number text);
INSERT INTO copied VALUES ('9990000018');
CREATE MATERIALIZED VIEW summary AS SELECT count(*) FROM patient;
SELECT accept_gap('unguarded_nhs_numbers', 'legacy', 'nhs_number', 'emptied last year');
SELECT severity, gap, relation, object FROM guard_coverage() WHERE severity <> 'low';
SELECT DISTINCT gap FROM guard_coverage() WHERE severity = 'low';

-- What plain SQL counts of the patient, before.
CREATE TABLE counted AS
    SELECT 'public.patient' AS "table", 'deleted' AS action, count(*) AS rows FROM patient WHERE translate(nhs, ' ', '') = '9990000018'
    UNION ALL
    SELECT 'public.tumour', 'deleted', count(*) FROM tumour JOIN patient p ON p.id = patient_id WHERE translate(nhs, ' ', '') = '9990000018'
    UNION ALL
    SELECT 'public.drug', 'deleted', count(*) FROM drug JOIN tumour t ON t.id = tumour_id JOIN patient p ON p.id = patient_id
        WHERE translate(nhs, ' ', '') = '9990000018'
    UNION ALL
    SELECT 'public.sample', 'deleted', count(*) FROM sample WHERE patient_id IN (1, 3) OR tumour_id IN (10, 12)
    UNION ALL
    SELECT 'public.imaging', 'unlinked', count(*) FROM imaging JOIN tumour t ON t.id = tumour_id JOIN patient p ON p.id = patient_id
        WHERE translate(nhs, ' ', '') = '9990000018'
    UNION ALL
    SELECT 'public.birth', 'redacted', count(*) FROM birth WHERE mother = 9990000018
    UNION ALL
    SELECT 'public.serves_two', 'kept', count(*) FROM serves_two WHERE nhs = '9990000018';

-- Not before the case is carried out.
SELECT open_case('9990000018', '{cancer}') AS case_id \gset
SELECT erasure_certificate(:case_id);
\echo :SQLSTATE
SELECT record_identity(:case_id, 'identity', 'passport'), record_identity(:case_id, 'address', 'utility_bill');
SELECT record_guardian_call(:case_id, 'declined');
SELECT erasure_certificate(:case_id);
\echo :SQLSTATE
SELECT case_exclude(:case_id, '9990000018');
SELECT erasure_certificate(:case_id);
\echo :SQLSTATE
SELECT erasure_certificate(12345);
\echo :SQLSTATE
SELECT erasure_certificate(NULL);
-- Nor before that is committed, which gives it its place in the audit.
BEGIN;
SELECT case_certify(:case_id, '9990000018');
SELECT erasure_certificate(:case_id);
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT case_certify(:case_id, '9990000018');
SELECT complete_case(:case_id);
\echo :SQLSTATE
ROLLBACK;

-- A draft until the case is completed.  What is kept is found each time, and is not more for that.
CALL carry_out(:case_id, '9990000018');
CALL carry_out(:case_id, '9990000018');
SELECT erasure_certificate(:case_id) AS draft \gset
SELECT :'draft'::jsonb ->> 'status', :'draft'::jsonb -> 'ended_at' AS ended_at, :'draft'::jsonb -> 'proofs_destroyed' AS proofs_destroyed;
SELECT verify_certificate(:'draft');
SELECT count(*) FROM case_certificate;
SELECT length(complete_case(:case_id)) > 0 AS lettered;

-- As issued, from then on, whatever happens afterwards.
SELECT erasure_certificate(:case_id) AS certificate \gset
SELECT guard_table('copied', 'nhs_number', '{cancer}');
VACUUM patient;
SELECT length(completion_letter(:case_id)) > 0 AS lettered_again;
SELECT complete_case(:case_id);
SELECT erasure_certificate(:case_id) = :'certificate' AS the_same, count(*) FROM case_certificate;
SELECT unguard_table('copied');

-- A key that comes later makes no copy of what was there before.
BEGIN;
INSERT INTO confidential_key (key_id, public_key) VALUES ('0123456789ABCDEF', '\x00');
SELECT completion_letter(:case_id) LIKE '%locked copy%' AS copy;
ROLLBACK;

-- What it says, leaving out what is different each time.
CREATE FUNCTION steady(certificate jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT regexp_replace(certificate::text, '"\d{4}-\d\d-\d\d(T[^"]*)?"|"[0-9A-F]+/[0-9A-F]+"|"[0-9a-f]{8}([0-9a-f]{56})?"|(?<="event_id": )\d+',
                          '"..."', 'g')::jsonb $$;
SELECT jsonb_pretty(steady(:'certificate'));
SELECT c ->> 'status' AS status,
       (c ->> 'received_on')::date = o.received_on AND (c ->> 'proofs_complete_on')::date = o.clock_started_on
           AND (c ->> 'excluded_at')::timestamptz = o.listed_since AND (c ->> 'carried_out_at')::timestamptz = o.carried_out_at
           AND (c ->> 'ended_at')::timestamptz = o.ended_at
           AND (c ->> 'issued_at')::timestamptz = t.issued_at AND t.issued_at BETWEEN o.ended_at AND now() AS times,
       (c #>> '{wal,from}')::pg_lsn = o.erased_from AND (c #>> '{wal,to}')::pg_lsn = o.erased_to
           AND o.erased_from < o.erased_to AS wal,
       c ->> 'encoding_key' = k.key_id AS key
    FROM (SELECT :'certificate'::jsonb) AS v (c), optout_case o, case_certificate t, encoding_key k
    WHERE o.case_id = :case_id AND t.case_id = o.case_id;
SELECT e.event, e.detail, encode(e.link, 'hex') = :'certificate'::jsonb #>> '{audit,link}' AS linked
    FROM audit_event e WHERE e.event_id = (:'certificate'::jsonb #>> '{audit,event_id}')::bigint;
-- Its numbers are those that plain SQL counted.
SELECT * FROM jsonb_to_recordset(:'certificate'::jsonb -> 'tables') AS t ("table" text, action text, rows bigint)
    FULL JOIN counted c USING ("table", action) WHERE t.rows IS DISTINCT FROM c.rows;
SELECT count(*) AS agree FROM jsonb_to_recordset(:'certificate'::jsonb -> 'tables') AS t ("table" text, action text, rows bigint)
    JOIN counted c USING ("table", action, rows);

-- Nothing in it tells who the patient is.
SELECT name, :'certificate' ILIKE '%' || form || '%' AS told, :'draft' ILIKE '%' || form || '%' AS draft_told
    FROM (VALUES ('digits', '9990000018'), ('spaces', '999 000 0018'), ('hyphens', '999-000-0018'),
              ('encoded', encode_nhs_number('9990000018')::text),
              ('encoded, as bytes', encode(encoded_nhs_number_send(encode_nhs_number('9990000018')), 'base64')),
              ('encoded, as uuid', encode_nhs_number('9990000018')::text::uuid::text),
              ('hash', encode(sha256('9990000018'), 'hex')),
              ('name', 'seeded name'), ('what is in it', 'public.patient')) AS f (name, form);

-- Its hash is in the audit; a change of anything shows.
SELECT verify_certificate(:'certificate'), verify_certificate(NULL), verify_certificate('{}'), verify_certificate('[]');
SELECT what, verify_certificate(tampered) AS verified
    FROM (SELECT :'certificate'::jsonb) AS v (c)
    CROSS JOIN LATERAL (VALUES
        ('rows', jsonb_set(c, '{tables,0,rows}', '7')),
        ('a table less', c #- '{tables,0}'),
        ('a gap less', c #- '{out_of_scope,gaps,0}'),
        ('a level', jsonb_set(c, '{levels,out_of_data_files,status}', '"done"')),
        ('another case', jsonb_set(c, '{case}', '2')),
        ('something added', c || '{"signed": true}'),
        ('another layout', jsonb_pretty(c)::jsonb)) AS t (what, tampered);
-- Offline: the text of the certificate, with another program.
\setenv CERTIFICATE :certificate
\set offline `printf %s "$CERTIFICATE" | sha256sum | cut -d ' ' -f 1`
SELECT event, detail - 'sha256' AS detail, detail ->> 'sha256' = :'offline' AS the_same FROM audit_event ORDER BY event_id DESC LIMIT 1 OFFSET 2;
-- Whoever changes the certificate where it is stored, and the audit too, is found out.
BEGIN;
UPDATE case_certificate SET certificate = jsonb_set(certificate, '{tables,0,rows}', '7');
SELECT verify_certificate(erasure_certificate(:case_id));
ALTER TABLE audit_event DISABLE TRIGGER append_only;
UPDATE audit_event SET detail = detail || jsonb_build_object('sha256', certificate_hash(erasure_certificate(:case_id)))
    WHERE event = 'certificate_issued' AND detail -> 'case' = to_jsonb(:case_id);
SELECT verify_certificate(erasure_certificate(:case_id));
ROLLBACK;
-- When its month of the audit was purged, nobody can tell; but one of a later month is not known.
BEGIN;
ALTER TABLE audit_segment DISABLE TRIGGER purge_when_due;
UPDATE audit_segment SET purged_at = now();
SELECT verify_certificate(:'certificate') AS still_there;
DELETE FROM audit_event WHERE link IS NOT NULL;
SELECT verify_certificate(:'certificate') IS NULL AS nobody_knows,
       verify_certificate(jsonb_set(:'certificate', '{issued_at}', '"2099-01-01T00:00:00+00:00"')) AS later,
       verify_certificate('{}') AS nothing;
ROLLBACK;
-- An event counts when it is in the chain, also as the first of its segment.
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER append_only;
INSERT INTO audit_event (event, detail, acting_role, happened_at)
    VALUES ('certificate_issued', jsonb_build_object('case', :case_id, 'sha256', certificate_hash(:'draft')), 'somebody', now() + interval '40 days');
SELECT verify_certificate(:'draft');
SELECT audit_link_events(ARRAY(SELECT entry_id FROM audit_event WHERE link IS NULL));
SELECT event_id = first_event_id AS first, verify_certificate(:'draft')
    FROM audit_event JOIN audit_segment USING (segment) ORDER BY event_id DESC LIMIT 1;
ROLLBACK;

-- Once VACUUM was over all of them, that is what can be said, and no more.
SELECT open_case('9990000026', '{cancer}') AS case_id \gset
SELECT record_identity(:case_id, 'identity', 'passport'), record_identity(:case_id, 'address', 'utility_bill');
CALL carry_out(:case_id, '9990000026');
CREATE FUNCTION vacuumed(case_id bigint) RETURNS TABLE (level text, status text, "table" text, vacuumed boolean) LANGUAGE sql AS $$
    SELECT l.key, l.value ->> 'status', t.value ->> 'table', (t.value ->> 'vacuumed_at')::timestamptz > c.carried_out_at
        FROM ndrs_optout.optout_case c
        CROSS JOIN LATERAL jsonb_each(ndrs_optout.erasure_certificate(c.case_id) -> 'levels') l
        LEFT JOIN LATERAL jsonb_array_elements(l.value -> 'tables') t ON true
        WHERE c.case_id = vacuumed.case_id ORDER BY 1, 3 $$;
SELECT * FROM vacuumed(:case_id);
-- One partition of two is not enough.
VACUUM patient, tumour, sample, imaging, birth, drug_2024;
SELECT * FROM vacuumed(:case_id) WHERE level = 'out_of_indexes';
-- Nor that of another table which has its name now.
ALTER TABLE drug_2025 RENAME TO drug_of_2025;
CREATE TABLE drug_2025 ();
VACUUM drug_2025;
SELECT * FROM vacuumed(:case_id) WHERE level = 'out_of_indexes';
DROP TABLE drug_2025;
VACUUM drug_of_2025;
SELECT * FROM vacuumed(:case_id);
-- A table that is gone is not known to have been.
BEGIN;
SET LOCAL ndrs_optout.allow_unguarded = on;
DROP TABLE imaging;
SELECT * FROM vacuumed(:case_id) WHERE level = 'out_of_data_files';
ROLLBACK;
ALTER TABLE drug_of_2025 RENAME TO drug_2025;
-- What a name says is not in it, and of many gaps not all are.
CREATE TABLE "patient Ada, HIV positive, was NOT erased" (nhs text);
CREATE TABLE a_9990000026 (nhs text);
CREATE TABLE also ("nhs number, was NOT erased" text);
DO $$ BEGIN FOR i IN 1 .. 210 LOOP EXECUTE format('CREATE TABLE many_%s (nhs_number text)', i); END LOOP; END $$;
SELECT erasure_certificate(:case_id) AS certificate \gset
SELECT :'certificate' ~ 'HIV|NOT erased|9990000026' AS told,
       count(*) FILTER (WHERE g ->> 'table' LIKE 'OID %') AS by_oid, count(*) AS listed,
       min(:'certificate'::jsonb #>> '{out_of_scope,gaps_not_listed}')::int > 0 AS and_more
    FROM jsonb_array_elements(:'certificate'::jsonb #> '{out_of_scope,gaps}') AS g;
DROP TABLE "patient Ada, HIV positive, was NOT erased", a_9990000026, also;
DO $$ BEGIN FOR i IN 1 .. 210 LOOP EXECUTE format('DROP TABLE many_%s', i); END LOOP; END $$;
-- Who was on the list before is since then; a letter's days are those of the policy's time zone, a certificate's times UTC, in any session.
SELECT exclude('9990000107', '{cancer}');
UPDATE exclusion SET excluded_at = '2026-07-01 23:30+00' WHERE encoded_nhs_number = encode_nhs_number('9990000107');
SELECT open_case('9990000107', '{cancer}') AS listed_case \gset
SELECT record_identity(:listed_case, 'identity', 'passport'), record_identity(:listed_case, 'address', 'utility_bill');
CALL carry_out(:listed_case, '9990000107');
SET timezone = 'Asia/Tokyo';
SELECT erasure_certificate(:listed_case) ->> 'excluded_at' AS excluded_at;
SELECT complete_case(:listed_case) ~ 'On 2 July 2026 we put a coded form' AS in_the_letter;
RESET timezone;

-- Carried out again, it counts both times; nothing held leaves nothing to be vacuumed.
CALL carry_out(:case_id, '9990000026');
SELECT t.value ->> 'table' AS "table", t.value ->> 'action' AS action, t.value ->> 'rows' AS rows
    FROM jsonb_array_elements(erasure_certificate(:case_id) -> 'tables') AS t WHERE t.value ->> 'table' = 'public.patient';
SELECT steady(erasure_certificate(:case_id)) -> 'audit' AS audit,
       (erasure_certificate(:case_id) #>> '{audit,event_id}')::bigint = max(event_id) AS the_last
    FROM audit_event WHERE event = 'case_carried_out';
SELECT open_case('9990000085', '{cancer}') AS case_id \gset
SELECT record_identity(:case_id, 'identity', 'passport'), record_identity(:case_id, 'address', 'utility_bill');
CALL carry_out(:case_id, '9990000085');
SELECT * FROM vacuumed(:case_id);

-- Cases that erased nothing have none.
SELECT opt_in('9990000018', '{cancer}') AS opt_in \gset
SELECT erasure_certificate(:opt_in);
\echo :SQLSTATE
SELECT length(complete_case(:opt_in)) > 0 AS lettered;
SELECT erasure_certificate(:opt_in);
SELECT open_case('9990000093', '{cancer}') AS refused \gset
SELECT refuse_case(:refused, 'no proof came') \g /dev/null
SELECT erasure_certificate(:refused);
\echo :SQLSTATE
SELECT count(*) FROM case_certificate;

SELECT unguard_table(target) FROM guard;
DELETE FROM accepted_gap;
DELETE FROM case_erasure; DELETE FROM case_guard; DELETE FROM case_certificate; DELETE FROM identity_evidence; DELETE FROM optout_case; DELETE FROM exclusion; DELETE FROM guard_tally;
DROP MATERIALIZED VIEW summary;
DROP TABLE counted, copied, legacy, serves_two, birth, imaging, sample, drug, tumour, patient;
DROP FUNCTION steady, vacuumed;
