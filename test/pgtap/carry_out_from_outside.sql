-- The officer's stories, told from the outside: what an opt-out does to a
-- registry, checked by plain SQL that uses nothing of the extension.
\set QUIET on
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SELECT ndrs_optout.unguard_table(g.target) FROM (SELECT DISTINCT target FROM ndrs_optout.guard) AS g \g /dev/null
DROP SCHEMA IF EXISTS registry CASCADE;
CREATE SCHEMA registry;
SET search_path = registry, public;
CREATE TABLE patient (patient_id int PRIMARY KEY, nhs_number text, name text);
CREATE TABLE tumour (tumour_id int PRIMARY KEY, patient_id int NOT NULL REFERENCES patient ON DELETE RESTRICT);
CREATE TABLE regimen (regimen_id int PRIMARY KEY, tumour_id int NOT NULL REFERENCES tumour);
CREATE TABLE rare_patient (patient_id int PRIMARY KEY, nhs_number bigint);
CREATE TABLE rare_diagnosis (diagnosis_id int, patient_id int REFERENCES rare_patient);
INSERT INTO patient VALUES (1, '999 000 0018', 'Ada Seeded'), (2, '9990000026', 'Ben Seeded'), (3, '9990000034', 'Cid Seeded'), (4, NULL, 'nobody');
INSERT INTO tumour SELECT i, 1 + i % 3 FROM generate_series(1, 9) AS i;
INSERT INTO regimen SELECT i, 1 + i % 9 FROM generate_series(1, 27) AS i;
INSERT INTO rare_patient VALUES (1, 9990000018), (2, 9990000026);
INSERT INTO rare_diagnosis VALUES (1, 1), (2, 1), (3, 2);
SELECT ndrs_optout.guard_table('patient', 'nhs_number', '{cancer}', 'skip') \g /dev/null
SELECT ndrs_optout.guard_table('rare_patient', 'nhs_number', '{rare_disease}') \g /dev/null

CREATE FUNCTION held() RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object(
        'patient', (SELECT jsonb_agg(patient_id ORDER BY patient_id) FROM patient),
        'tumour', (SELECT count(*) FROM tumour), 'regimen', (SELECT count(*) FROM regimen),
        'rare_patient', (SELECT jsonb_agg(patient_id ORDER BY patient_id) FROM rare_patient),
        'rare_diagnosis', (SELECT count(*) FROM rare_diagnosis))
$$;

SELECT ndrs_optout.add_recipient('hospital', 'Some Hospital', 'nhs_number') \g /dev/null
SELECT ndrs_optout.add_recipient('university', 'Some University', 'release_pseudo_id', 'safe 3') \g /dev/null
SELECT ndrs_optout.add_agreement(r, 'consent', 'agreement 1', '2000-01-01', '2099-12-31') FROM unnest('{hospital,university}'::text[]) AS r \g /dev/null

SELECT plan(32);

SELECT is(held(), '{"patient": [1, 2, 3, 4], "tumour": 9, "regimen": 27, "rare_patient": [1, 2], "rare_diagnosis": 3}',
          'the registry holds three patients and one without a number');

-- What is given to others, and is there when somebody opts out.
SELECT ndrs_optout.record_release('SELECT nhs_number FROM registry.patient WHERE nhs_number IS NOT NULL', 'explicit_consent', '{cancer}',
                                  'hospital', current_date, 'order 1') AS hospital \gset
SELECT ndrs_optout.record_release('SELECT nhs_number FROM registry.rare_patient', 'anonymised', '{rare_disease}',
                                  'university', current_date, 'study 2') AS university \gset
SELECT is((SELECT jsonb_object_agg(recipient, patient_count) FROM ndrs_optout.release_progress), '{"hospital": 3, "university": 2}',
          'two releases are on record, with the number of patients in them');

-- Ada opts out of the cancer register only.
SELECT ndrs_optout.open_case('9990000018', '{cancer}', channel => 'post') AS ada \gset
SELECT ndrs_optout.record_identity(:ada, 'identity', 'passport') \g /dev/null
SELECT throws_ok(format('SELECT ndrs_optout.case_exclude(%s, %L)', :ada, '9990000018'), 'ND020', NULL,
                 'nothing is carried out without both proofs');
SELECT is((held() ->> 'tumour')::int, 9, 'and nothing is gone');
SELECT ndrs_optout.record_identity(:ada, 'address', 'utility_bill') \g /dev/null
SELECT is((SELECT due_on FROM ndrs_optout.case_progress WHERE case_id = :ada), current_date + 20,
          'the letter is due 20 days after form and proofs');
SELECT is((SELECT sum(row_count)::int FROM ndrs_optout.erasure_preview('9990000018', '{cancer}')), 13,
          'the preview counts the patient, 3 tumours and 9 regimens');
CALL ndrs_optout.carry_out(:ada, '9990000018');
SELECT is(held(), '{"patient": [2, 3, 4], "tumour": 6, "regimen": 18, "rare_patient": [1, 2], "rare_diagnosis": 3}',
          'hers are gone from the cancer register, and nobody else''s');
SELECT is((SELECT sum(row_count)::int FROM ndrs_optout.case_erasure WHERE case_id = :ada), 13,
          'the case holds the same counts');
SELECT is_empty(format('SELECT FROM registry.tumour t LEFT JOIN registry.patient p USING (patient_id) WHERE p.patient_id IS NULL'),
                'no orphan is left');

-- Who was given her data has to delete it.
SELECT is((SELECT jsonb_agg(jsonb_build_array(recipient, days_left)) FROM ndrs_optout.recall_progress), '[["hospital", 30]]',
          'the hospital is asked to delete her within 30 days, and the university has nothing of that register');
SELECT p.notice_id AS notice FROM ndrs_optout.recall_progress p \gset
SELECT alike(ndrs_optout.issue_recall_letter(:notice, '9990000018'), '%999 000 0018%', 'the letter says who, as the hospital knows her');
SELECT throws_ok(format('SELECT ndrs_optout.issue_recall_letter(%s, %L)', :notice, '9990000026'), 'ND031', NULL,
                 'and does not say it of somebody else');
SELECT throws_ok($$ SELECT ndrs_optout.record_release(ARRAY['9990000018', '9990000026']::ndrs_optout.nhs_number[], 'explicit_consent', NULL,
                                                      'hospital', current_date, 'order 3') $$, 'ND041', NULL, 'she can be in no new release');
SELECT is((SELECT count(*)::int FROM ndrs_optout.release_progress), 2, 'and none was recorded');

-- What comes in afterwards.
SELECT lives_ok($$ INSERT INTO registry.patient VALUES (5, '9990000018', 'Ada Seeded'), (6, '9990000042', 'Dee Seeded') $$,
                'a delivery with her and another patient is accepted');
SELECT is(held() -> 'patient', '[2, 3, 4, 6]', 'without her');
SELECT lives_ok($$ INSERT INTO registry.rare_patient VALUES (5, 9990000018) $$,
                'the register that she did not leave still takes her');

-- She leaves the other register too.
SELECT ndrs_optout.open_case('9990000018', '{rare_disease}') AS ada2 \gset
SELECT ndrs_optout.record_identity(:ada2, 'identity', 'driving_licence') \g /dev/null
SELECT ndrs_optout.record_identity(:ada2, 'address', 'bank_statement') \g /dev/null
CALL ndrs_optout.carry_out(:ada2, '9990000018');
SELECT is(held(), '{"patient": [2, 3, 4, 6], "tumour": 6, "regimen": 18, "rare_patient": [2], "rare_diagnosis": 1}',
          'and is gone from there');
SELECT throws_ok($$ INSERT INTO registry.rare_patient VALUES (6, 9990000018) $$, '23N01', NULL,
                 'a table that rejects refuses her');

-- The university knows patients by ids of the release: SHA-256 twice.
SELECT p.notice_id AS notice FROM ndrs_optout.recall_progress p WHERE p.case_id = :ada2 \gset
SELECT alike(ndrs_optout.issue_recall_letter(:notice, '9990000018', '1234567890abcdef1234567890abcdef', '0123456789abcdef1234567890abcdef'),
             '% ' || left(encode(sha256(convert_to('pseudoid_'
                 || encode(sha256('nhsnumber_99900000181234567890abcdef1234567890abcdef'), 'hex')
                 || '0123456789abcdef1234567890abcdef', 'UTF8')), 'hex'), 16) || '.%', 'the letter has the university''s id of her');
SELECT is((SELECT count(*)::int FROM ndrs_optout.recipient r WHERE r::text LIKE '%abcdef%')
          + (SELECT count(*)::int FROM ndrs_optout.recall_notice n WHERE n::text LIKE '%abcdef%')
          + (SELECT count(*)::int FROM ndrs_optout.audit_event e WHERE e::text LIKE '%abcdef%'), 0, 'and no salt is kept');
SELECT ndrs_optout.acknowledge_recall(:notice) \g /dev/null

-- The letter: every count from what was stored, the proofs destroyed.
SELECT is((SELECT count(*)::int FROM ndrs_optout.identity_evidence WHERE case_id = :ada2), 2, 'her proofs are on file');
SELECT alike(ndrs_optout.complete_case(:ada2), '%- the National Rare Disease Register: 4 entries%',
             'the letter says how many records were deleted');
SELECT alike(ndrs_optout.completion_letter(:ada2), '%Some University, data of the National % given on %. It told us that this was deleted on %',
             'and what became of those that others had');
SELECT alike(ndrs_optout.complete_case(:ada), '%Some Hospital, data of the National % given on %. On % we asked for this to be deleted by %. We have no answer yet.%',
             'which not everybody has answered');
SELECT is((SELECT count(*)::int FROM ndrs_optout.identity_evidence WHERE case_id = :ada2), 0, 'her proofs are destroyed');
SELECT unalike(ndrs_optout.completion_letter(:ada2), '%999%', 'the letter does not hold her NHS number');
SELECT is((SELECT state FROM ndrs_optout.case_progress WHERE case_id = :ada2), 'completed', 'the case is completed');

-- Nothing of the extension's own holds a number.
SELECT is((SELECT count(*)::int FROM ndrs_optout.optout_case c WHERE c::text ~ '999\s*000\s*0018')
          + (SELECT count(*)::int FROM ndrs_optout.case_erasure c WHERE c::text ~ '999\s*000\s*0018')
          + (SELECT count(*)::int FROM ndrs_optout.exclusion c WHERE c::text ~ '999\s*000\s*0018'), 0,
          'no table of the extension holds her NHS number');

-- A parent, at the age limit.
SELECT lives_ok($$ SELECT ndrs_optout.open_case('9990000050', '{congenital_anomaly}', 'parent', 'email', current_date,
                       (current_date - interval '12 years')::date) $$, 'a parent of a 12-year-old can apply');
SELECT throws_ok($$ SELECT ndrs_optout.open_case('9990000069', '{congenital_anomaly}', 'parent', 'email', current_date,
                        (current_date - interval '15 years')::date) $$, '22023', NULL, 'a parent of a 15-year-old cannot');
SELECT throws_ok($$ SELECT ndrs_optout.open_case('9990000050', '{congenital_anomaly,cancer}') $$, '23505', NULL,
                 'there is one open case for a patient and register');

SELECT * FROM finish();
SELECT ndrs_optout.unguard_table(g.target) FROM (SELECT DISTINCT target FROM ndrs_optout.guard) AS g \g /dev/null
DROP SCHEMA registry CASCADE;
DELETE FROM ndrs_optout.guard;
DELETE FROM ndrs_optout.recall_notice;
DELETE FROM ndrs_optout.release;
DELETE FROM ndrs_optout.recipient;
DELETE FROM ndrs_optout.case_erasure;
DELETE FROM ndrs_optout.case_certificate;
DELETE FROM ndrs_optout.identity_evidence;
DELETE FROM ndrs_optout.optout_case;
DELETE FROM ndrs_optout.exclusion;
