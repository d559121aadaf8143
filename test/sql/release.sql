-- Recipients, releases, and what is recalled when a patient opts out.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
SET timezone = 'Europe/London';
ALTER TABLE hold ALTER hold_id RESTART;
SET client_min_messages = warning;
ALTER TABLE optout_case ALTER case_id RESTART;
ALTER TABLE release ALTER release_id RESTART;
ALTER TABLE recall_notice ALTER notice_id RESTART;
CREATE TABLE patient (patient_id int PRIMARY KEY, nhs_number text);
CREATE TABLE rare_patient (patient_id int PRIMARY KEY, nhs_number bigint);
INSERT INTO patient VALUES (1, '999 000 0018'), (2, '9990000026'), (3, '999-000-0034'), (4, '9990000042');
INSERT INTO rare_patient VALUES (1, 9990000018), (2, 9990000026);
SELECT guard_table('patient', 'nhs_number', '{cancer}') + guard_table('rare_patient', 'nhs_number', '{rare_disease}') AS guarded;
CREATE FUNCTION dateless(text) RETURNS text LANGUAGE sql AS $$
    SELECT regexp_replace($1, '\d{1,2} (January|February|March|April|May|June|July|August|September|October|November|December) \d{4}', 'DATE', 'g') $$;

-- Recipients.
SELECT add_recipient('university', 'University of Somewhere', 'release_pseudo_id', 'safe 3, envelope 7', 'data@example.org');
SELECT add_recipient('charity', 'A Charity', 'ndrs_pseudo_id', 'safe 3, envelope 8');
SELECT add_recipient('hospital', 'Somewhere Hospital', 'nhs_number');
SELECT add_recipient('studies', 'Studies', 'openpseudonymiser', 'the studies'' own vault');
SELECT add_agreement(r, 'consent', 'agreement 1', '2000-01-01', '2099-12-31') FROM unnest('{university,charity,hospital,studies}'::text[]) AS r \g /dev/null
SELECT recipient, name, contact, id_scheme, salt_reference FROM recipient ORDER BY recipient;
SELECT detail FROM audit_event WHERE event = 'recipient_added' AND detail ->> 'name' = 'University of Somewhere';
SELECT add_recipient('university', 'Another', 'nhs_number');
\echo :SQLSTATE
SELECT add_recipient('University', 'University', 'nhs_number');
\echo :SQLSTATE
SELECT add_recipient(NULL, 'University', 'nhs_number');
SELECT add_recipient('h9990000018', 'Hospital', 'nhs_number');
SELECT add_recipient('other', ' ', 'nhs_number');
\echo :SQLSTATE
SELECT add_recipient('other', 'for 999 000 0018', 'nhs_number');
SELECT add_recipient('other', 'Other', 'nhs_number', contact => 'about 9990000018');
SELECT add_recipient('other', 'Other', 'name');
SELECT add_recipient('other', 'Other', NULL);
SELECT add_recipient('other', 'Other', 'ndrs_pseudo_id');
SELECT add_recipient('other', 'Other', 'ndrs_pseudo_id', '1234567890abcdef1234567890abcdef');
SELECT count(*) FROM recipient;

-- Releases: three ways to say whose data it is.
SELECT start_national_check('{9990000018,9990000026,9990000034}'::nhs_number[]) AS check_id \gset
SELECT load_national_check(:check_id, ARRAY['9990000018,', '9990000026,']) AS allowed;
SELECT record_release('{9990000018,9990000026,9990000018}'::nhs_number[], 'research', NULL, 'university', current_date - 10, 'DARS 1', 'section 251, regulation 2') AS university \gset
SELECT record_release(encoded_set(ARRAY[encode_nhs_number('9990000018'), encode_nhs_number('9990000034')]), 'explicit_consent', NULL, 'hospital', current_date - 9, 'order 2') AS hospital \gset
SELECT record_release('SELECT nhs_number FROM public.patient -- all of them
;', 'anonymised', '{cancer}', 'charity', current_date, 'project 3') AS charity \gset
SELECT record_release('SELECT nhs_number FROM public.rare_patient', 'explicit_consent', '{rare_disease}', 'studies', current_date, 'study 4') AS rare \gset
SELECT record_release('{9990000018}'::nhs_number[], 'explicit_consent', NULL, 'studies', current_date - 8, 'study 5') AS destroyed \gset
SELECT record_release('{9990000026}'::nhs_number[], 'explicit_consent', NULL, 'studies', current_date - 7, 'study 6') AS without \gset
SELECT release_id, recipient, purpose, legal_basis, registers, current_date - released_on AS days, reference, patient_count, destroyed_on, patients_on_record
    FROM release_progress;
SELECT event, detail FROM audit_event WHERE event = 'release_recorded' ORDER BY entry_id DESC LIMIT 6;
SELECT release_id, release_contains(release_id, '9990000018') AS has_18, release_contains(release_id, '9990000034') AS has_34
    FROM release ORDER BY release_id;
-- The set is out of line and as it is, not compressed.
SELECT attstorage FROM pg_attribute WHERE attrelid = 'release'::regclass AND attname = 'patients';

-- Who may not be in it: the release is refused as a whole, and says why without
-- saying who.
SELECT record_release('{9990000018,9990000034,9990000042}'::nhs_number[], 'research', NULL, 'university', current_date, 'DARS 7');
\echo :SQLSTATE
SELECT record_release('{9990000018}'::nhs_number[], 'sale', NULL, 'university', current_date, 'DARS 7');
SELECT exclude('9990000026', '{rare_disease}');
SELECT record_release('{9990000018,9990000026}'::nhs_number[], 'explicit_consent', NULL, 'university', current_date, 'DARS 7');
-- From the register that the patient did not leave:
BEGIN;
SELECT record_release('{9990000018,9990000026}'::nhs_number[], 'explicit_consent', '{cancer}', 'university', current_date, 'DARS 7') IS NOT NULL AS recorded;
ROLLBACK;
SELECT readmit('9990000026', '{rare_disease}');
-- An exemption covers a recipient and a purpose, and not the exclusion list.
BEGIN;
SELECT grant_exemption('research', 'charity', 'CAG 1') IS NOT NULL AS granted;
SELECT record_release('{9990000034,9990000042}'::nhs_number[], 'research', NULL, 'charity', current_date, 'DARS 7') IS NOT NULL AS recorded;
\set ON_ERROR_ROLLBACK on
SELECT record_release('{9990000034}'::nhs_number[], 'research', NULL, 'university', current_date, 'DARS 7');
SELECT exclude('9990000034', '{cancer}');
SELECT record_release('{9990000034}'::nhs_number[], 'research', NULL, 'charity', current_date, 'DARS 7');
\set ON_ERROR_ROLLBACK off
ROLLBACK;

-- Wrong calls.
SELECT record_release('{9990000018}'::nhs_number[], 'explicit_consent', NULL, 'nobody', current_date, 'x');
\echo :SQLSTATE
SELECT record_release('{9990000018}'::nhs_number[], 'explicit_consent', NULL, NULL, current_date, 'x');
SELECT record_release('{9990000018}'::nhs_number[], 'whim', NULL, 'charity', current_date, 'x');
\echo :SQLSTATE
SELECT record_release('{9990000018}'::nhs_number[], NULL, NULL, 'charity', current_date, 'x');
SELECT record_release('{}'::nhs_number[], 'explicit_consent', NULL, 'charity', current_date, 'x');
\echo :SQLSTATE
SELECT record_release(NULL::nhs_number[], 'explicit_consent', NULL, 'charity', current_date, 'x');
SELECT record_release(NULL::encoded_set, 'explicit_consent', NULL, 'charity', current_date, 'x');
SELECT record_release('{}'::encoded_set, 'explicit_consent', NULL, 'charity', current_date, 'x');
SELECT record_release(NULL::text, 'explicit_consent', NULL, 'charity', current_date, 'x');
SELECT record_release('{9990000018,NULL,1111111111}'::nhs_number[], 'explicit_consent', NULL, 'charity', current_date, 'x');
\echo :SQLSTATE
SELECT record_release('SELECT unnest(ARRAY[nhs_number, ''999'', NULL, '''']) FROM public.patient WHERE patient_id = 1', 'explicit_consent', NULL, 'charity', current_date, 'x');
SELECT record_release('SELECT ''9990000018''', 'explicit_consent', NULL, 'charity', current_date, 'x');
SELECT record_release('SELECT '''' WHERE false', 'explicit_consent', NULL, 'charity', current_date, 'x');
SELECT record_release('{9990000018}', 'explicit_consent', NULL, 'charity', current_date, 'x');
\echo :SQLSTATE
\set VERBOSITY sqlstate
SELECT record_release('SELECT nhs_number FROM patient', 'explicit_consent', NULL, 'charity', current_date, 'x');
SELECT record_release('SELECT now()', 'explicit_consent', NULL, 'charity', current_date, 'x');
SELECT record_release('TABLE public.patient', 'explicit_consent', NULL, 'charity', current_date, 'x');
\set VERBOSITY default
SELECT record_release('{9990000018}'::nhs_number[], 'explicit_consent', NULL, 'charity', current_date + 1, 'x');
\echo :SQLSTATE
SELECT record_release('{9990000018}'::nhs_number[], 'explicit_consent', NULL, 'charity', NULL, 'x');
SELECT record_release('{9990000018}'::nhs_number[], 'explicit_consent', NULL, 'charity', '-infinity', 'x');
SELECT record_release('{9990000018}'::nhs_number[], 'explicit_consent', NULL, 'charity', current_date, '');
SELECT record_release('{9990000018}'::nhs_number[], 'explicit_consent', NULL, 'charity', current_date, '9990000018');
SELECT record_release('{9990000018}'::nhs_number[], 'explicit_consent', NULL, 'charity', current_date, 'x', 'as 9990000018 asked');
SELECT record_release('{9990000018}'::nhs_number[], 'explicit_consent', '{}', 'charity', current_date, 'x');
SELECT record_release('{9990000018}'::nhs_number[], 'explicit_consent', '{heart}', 'charity', current_date, 'x');
SELECT release_contains(9990000018, '9990000018');
\echo :SQLSTATE
SELECT release_contains(NULL, '9990000018');
SELECT release_contains(:university, '1111111111');
SELECT release_contains(:university, NULL);
SELECT count(*) FROM release;

-- The recipient has destroyed the data.
SELECT record_destruction(:destroyed, current_date + 1);
SELECT record_destruction(:destroyed, current_date - 9);
\echo :SQLSTATE
SELECT record_destruction(:destroyed, NULL);
SELECT record_destruction(9990000018);
SELECT record_destruction(NULL);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT record_destruction(:destroyed);
\echo :SQLSTATE
ROLLBACK;
SELECT record_destruction(:destroyed, current_date - 1);
SELECT record_destruction(:destroyed);
\echo :SQLSTATE
SELECT current_date - destroyed_on AS days, patients_on_record FROM release_progress WHERE release_id = :destroyed;
SELECT release_contains(:destroyed, '9990000018');

-- An opt-out from the cancer register.
CREATE PROCEDURE ready_case(number nhs_number, registers text[], INOUT case_id bigint) LANGUAGE plpgsql AS $$
BEGIN
    case_id := ndrs_optout.open_case(number, registers);
    PERFORM ndrs_optout.record_identity(case_id, 'identity', 'passport');
    PERFORM ndrs_optout.record_identity(case_id, 'address', 'utility_bill');
END $$;
CALL ready_case('9990000018', '{cancer}', NULL) \gset
RESET client_min_messages;
CALL carry_out(:case_id, '9990000018');
SELECT recipient, reference, due_on - current_date AS days, days_left, overdue, asked_at, chased_on, acknowledged_at, deleted_on, next_action FROM recall_progress;
SELECT substring(dateless(case_letter_text(c, 'completion', false)) FROM '- A Charity.*?\n') AS not_asked FROM optout_case c WHERE case_id = :case_id;
SELECT recalls FROM optout_case WHERE case_id = :case_id;
SELECT event, detail - 'case' AS detail FROM audit_event WHERE event LIKE 'recall%' ORDER BY entry_id;
-- Again: the same notices.
CALL carry_out(:case_id, '9990000018');
SELECT count(*), count(DISTINCT release_id) FROM recall_notice;
SELECT record_release('{9990000018}'::nhs_number[], 'explicit_consent', '{cancer}', 'hospital', current_date, 'order 8');
\echo :SQLSTATE

SELECT n.notice_id AS to_university FROM recall_notice n WHERE n.release_id = :university \gset
SELECT n.notice_id AS to_hospital FROM recall_notice n WHERE n.release_id = :hospital \gset
SELECT n.notice_id AS to_charity FROM recall_notice n WHERE n.release_id = :charity \gset

SELECT chase_recall(:to_university);
\echo :SQLSTATE
-- Who only reads a letter has asked nobody with it; that it was read is in the audit, whatever becomes of the transaction.
BEGIN;
SELECT recall_letter(:to_hospital, '9990000018') ~ '999 000 0018' AS by_number;
ROLLBACK;
BEGIN;
SELECT recall_letter(:to_charity, '9990000018', 'salt') = issue_recall_letter(:to_charity, '9990000018', 'salt') AS the_same;
ROLLBACK;
SELECT count(asked_at) AS asked FROM recall_notice;
SELECT event, count(*) FROM audit_event WHERE event LIKE 'recall_letter%' GROUP BY event ORDER BY event;
SELECT recall_letter(:to_hospital, '9990000026');
\echo :SQLSTATE
SELECT recall_letter(9990000018, '9990000018');
\echo :SQLSTATE
-- The letters to the recipients: each names the patient as the recipient does.
SELECT dateless(issue_recall_letter(:to_university, '9990000018', 'salt', 'release salt')) \g (format=unaligned tuples_only=on)
SELECT position(release_pseudo_id(ndrs_pseudo_id('9990000018', 'salt'), 'release salt') IN issue_recall_letter(:to_university, '9990000018', 'salt', 'release salt')) > 0 AS by_release_id,
       position(ndrs_pseudo_id('9990000018', 'salt') IN issue_recall_letter(:to_charity, '9990000018', 'salt')) > 0 AS by_pseudo_id,
       position('999 000 0018' IN issue_recall_letter(:to_hospital, '9990000018')) > 0 AS by_number,
       issue_recall_letter(:to_university, '9990000018', 'salt', 'release salt') || issue_recall_letter(:to_charity, '9990000018', 'salt') ~ '999 ?000' AS number_to_others;
SELECT issue_recall_letter(:to_hospital, '9990000026');
\echo :SQLSTATE
SELECT issue_recall_letter(:to_hospital, '1111111111');
SELECT issue_recall_letter(:to_hospital, NULL);
SELECT issue_recall_letter(:to_charity, '9990000018');
\echo :SQLSTATE
SELECT issue_recall_letter(:to_charity, '9990000018', '');
SELECT issue_recall_letter(:to_university, '9990000018', 'salt');
\echo :SQLSTATE
SELECT issue_recall_letter(9990000018, '9990000018');
\echo :SQLSTATE
SELECT issue_recall_letter(NULL, '9990000018');

-- Answers, and none.
SELECT chase_recall(:to_hospital, current_date + 1);
SELECT chase_recall(:to_hospital, current_date - 1);
SELECT chase_recall(9990000018);
SELECT acknowledge_recall(:to_hospital, current_date + 1);
\echo :SQLSTATE
SELECT acknowledge_recall(:to_hospital, current_date - 10);
SELECT acknowledge_recall(:to_hospital, NULL);
SELECT acknowledge_recall(9990000018);
SELECT acknowledge_recall(NULL);
SELECT acknowledge_recall(:to_hospital, current_date - 9);
SELECT acknowledge_recall(:to_hospital);
\echo :SQLSTATE
SELECT chase_recall(:to_hospital);
SELECT issue_recall_letter(:to_hospital, '9990000018');
UPDATE recall_notice SET raised_at = raised_at - interval '31 days', due_on = due_on - 31 WHERE notice_id = :to_university;
SELECT chase_recall(:to_university);
SELECT dateless(issue_recall_letter(:to_university, '9990000018', 'salt', 'release salt')) ~ 'We reminded you of this on DATE' AS reminded;
SELECT recipient, days_left, overdue, asked_at IS NOT NULL AS asked, chased_on - current_date AS chased, acknowledged_at IS NOT NULL AS answered,
       current_date - deleted_on AS deleted, next_action FROM recall_progress;
SELECT event, detail - 'case' - 'notice' - 'release' - 'deleted_on' AS detail, count(*) FROM audit_event WHERE event LIKE 'recall%' GROUP BY 1, 2 ORDER BY 1;
SELECT (health_recalls()).*;

-- What the applicant is told.
SELECT dateless(complete_case(:case_id)) \g (format=unaligned tuples_only=on)
SELECT jsonb_path_query_array(erasure_certificate(:case_id), '$.recalls[*].recipient') AS recipients,
       jsonb_path_query_array(erasure_certificate(:case_id), '$.recalls[*].deleted_on') <@ to_jsonb(ARRAY[NULL, current_date - 9]) AS answers,
       verify_certificate(erasure_certificate(:case_id));
-- The destruction of a release answers its notice.
SELECT record_destruction(:university);
SELECT recipient, acknowledged_at IS NOT NULL AS answered, current_date - deleted_on AS deleted FROM recall_progress;
SELECT dateless(completion_letter(:case_id)) ~ 'University of Somewhere, data of the National Cancer Register given on DATE. It told us that this was deleted on DATE.' AS told,
       verify_certificate(erasure_certificate(:case_id));

-- The other register, and a patient nobody was told of.
CALL ready_case('9990000018', '{rare_disease}', NULL) \gset second_
CALL carry_out(:second_case_id, '9990000018');
SELECT p.recipient, p.reference FROM recall_progress p WHERE p.case_id = :second_case_id ORDER BY p.release_id;
CALL ready_case('9990000050', '{cancer}', NULL) \gset third_
CALL carry_out(:third_case_id, '9990000050');
SELECT dateless(complete_case(:third_case_id)) ~ 'By these records, no organisation still holds data under that number\.' AS nobody;
SELECT erasure_certificate(:third_case_id) -> 'recalls' AS recalls;

-- Whoever opts in again: what was asked for stays asked for.
SELECT opt_in('9990000018', '{cancer}') AS back \gset
SELECT p.recipient FROM recall_progress p WHERE p.case_id = :case_id AND p.acknowledged_at IS NULL;

-- What the patient is told who asks.
SELECT source, record - 'raised_at' - 'due_on' - 'asked_at' - 'acknowledged_at' - 'released_on' - 'deleted_on' - 'destroyed_on' - 'notice_id' - 'case_id' - 'release_id' - 'chased_on' AS record
    FROM disclose_records('9990000018') WHERE source IN ('release', 'recall_notice');

-- Kept for three years after the case ended and it was answered, or the data was
-- destroyed.
CREATE VIEW due AS SELECT what, due, held FROM purge_due WHERE what IN ('recall_notices', 'release_sets') AND (due > 0 OR held > 0);
SELECT * FROM due;
UPDATE optout_case SET ended_at = ended_at - interval '3 years' WHERE case_id = :case_id;
UPDATE recall_notice SET acknowledged_at = now() - interval '4 years', outcome = 'deleted', deleted_on = current_date WHERE case_id = :second_case_id;
SELECT * FROM due;
UPDATE recall_notice SET acknowledged_at = acknowledged_at - interval '3 years' WHERE case_id = :case_id;
UPDATE release SET released_on = released_on - 2000, destroyed_on = destroyed_on - 1200 WHERE release_id = :destroyed;
SELECT * FROM due;
SELECT place_hold(:case_id, 'complaint') AS hold \gset
SELECT * FROM due;
SELECT what, removed FROM purge() WHERE what IN ('recall_notices', 'release_sets');
SELECT lift_hold(:hold);
SELECT what, removed FROM purge() WHERE what IN ('recall_notices', 'release_sets');
SELECT * FROM due;
SELECT recipient, acknowledged_at IS NOT NULL AS answered FROM recall_progress WHERE case_id = :case_id;
SELECT release_id = :destroyed AS was_destroyed FROM release_progress WHERE NOT patients_on_record;
SELECT release_contains(:destroyed, '9990000018');
\echo :SQLSTATE
-- The letter still says what is so.
SELECT dateless(completion_letter(:case_id)) ~ E'what we know of it:\n- A Charity, data of the National Cancer Register given on DATE. On DATE we asked for this to be deleted by DATE. We have no answer yet.\n- requests that were answered, whose answers we do not keep any more: 2\n' AS told;

-- An analyst records a release and does not see who was in it; the query has the
-- analyst's rights.
CREATE ROLE regress_release;
SELECT grant_access('regress_release', 'analyst');
SET ROLE regress_release;
SELECT record_release('SELECT nhs_number FROM public.patient', 'explicit_consent', NULL, 'charity', current_date, 'project 9');
\echo :SQLSTATE
RESET ROLE;
GRANT SELECT ON patient TO regress_release;
SET ROLE regress_release;
SELECT record_release('SELECT nhs_number FROM public.patient', 'explicit_consent', NULL, 'charity', current_date, 'project 9') IS NOT NULL AS recorded;
SELECT record_release('{9990000026}'::nhs_number[], 'explicit_consent', NULL, 'charity', current_date, 'project 10') IS NOT NULL AS recorded;
SELECT record_release('{9990000018}'::nhs_number[], 'explicit_consent', '{rare_disease}', 'charity', current_date, 'project 10');
SELECT length(release_pseudo_id(ndrs_pseudo_id('9990000026', 'salt'), 'release salt')) AS id;
SELECT release_contains(:university, '9999999999');
SELECT count(*) FROM release;
SELECT count(*) FROM release_progress;
SELECT issue_recall_letter(1, '9999999999');
RESET ROLE;
SELECT revoke_access('regress_release', 'analyst');
-- An officer sends the letter, and hears from the recipient.
SELECT grant_access('regress_release', 'officer');
SET ROLE regress_release;
SELECT p.notice_id AS open_notice FROM recall_progress p WHERE p.case_id = :case_id AND p.days_left IS NOT NULL \gset
SELECT issue_recall_letter(:open_notice, '9990000018', 'salt') LIKE 'Our reference%' AS letter;
SELECT chase_recall(:open_notice), acknowledge_recall(:open_notice);
SELECT release_contains(:university, '9990000018');
SELECT record_destruction(:charity);
SELECT patients FROM release;
TABLE recall_notice;
RESET ROLE;
SELECT revoke_access('regress_release', 'officer');
REVOKE ALL ON patient FROM regress_release;
DROP ROLE regress_release;

-- To who leaves two registers, each release is told of with those of them that it had data of.
SELECT record_release('{9990000042}'::nhs_number[], 'explicit_consent', '{cancer}', 'charity', current_date, 'project 11') IS NOT NULL
       AND record_release('{9990000042}'::nhs_number[], 'explicit_consent', NULL, 'hospital', current_date, 'order 9') IS NOT NULL AS recorded;
CALL ready_case('9990000042', '{cancer,rare_disease}', NULL) \gset both_
SET client_min_messages = warning;
CALL carry_out(:both_case_id, '9990000042');
RESET client_min_messages;
SELECT substring(dateless(case_letter_text(c, 'completion', false)) FROM 'We had shared.*?\n\n') FROM optout_case c WHERE case_id = :both_case_id \g (format=unaligned tuples_only=on)

-- What was recorded by mistake is corrected, and the audit has both.
SELECT add_recipient('clinic', 'A Clinic', 'ndrs_pseudo_id', 'safe 3'), add_agreement('clinic', 'consent', 'agreement 1', '2000-01-01', '2099-12-31') \g /dev/null
SELECT record_release('{9990000026}'::nhs_number[], 'explicit_consent', '{cancer}', 'clinic', current_date, 'order 12') AS given \gset
SELECT record_release('{9990000026}'::nhs_number[], 'explicit_consent', '{cancer}', 'clinic', current_date, 'order 13') AS never \gset
SELECT retract_release(:never, '');
\echo :SQLSTATE
SELECT retract_release(:never, 'never given to 999 000 0026');
\echo :SQLSTATE
SELECT retract_release(9990000018, 'never given');
\echo :SQLSTATE
SELECT retract_release(NULL, 'never given');
SELECT retract_release(:never, 'never given') \g /dev/null
SELECT retract_release(:never, 'never given');
\echo :SQLSTATE
SELECT record_destruction(:never);
\echo :SQLSTATE
SELECT retract_destruction(:given, 'not all of it');
\echo :SQLSTATE
-- The destruction is told of, a patient opts out, and then it turns out that nothing was destroyed.
SELECT record_destruction(:given) \g /dev/null
SELECT retract_release(:given, 'never given');
\echo :SQLSTATE
CALL ready_case('9990000026', '{cancer}', NULL) \gset mistaken_
SET client_min_messages = warning;
CALL carry_out(:mistaken_case_id, '9990000026');
SELECT count(*) AS told_of FROM recall_notice WHERE release_id IN (:given, :never);
SELECT retract_destruction(:given, ' ');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT retract_destruction(:given, 'not all of it');
\echo :SQLSTATE
ROLLBACK;
SELECT retract_destruction(:given, 'not all of it') AS notices;
RESET client_min_messages;
SELECT notice_id AS late FROM recall_notice WHERE release_id = :given \gset
SELECT recalls, (SELECT count(*) FROM recall_notice n WHERE n.case_id = c.case_id) AS notices FROM optout_case c WHERE case_id = :mistaken_case_id;
SELECT retract_release(:given, 'never given');
\echo :SQLSTATE
SELECT retract_acknowledgement(:late, 'it has not');
\echo :SQLSTATE
SELECT acknowledge_recall(:late) \g /dev/null
SELECT retract_acknowledgement(:late, '9990000026 is still there');
\echo :SQLSTATE
SELECT retract_acknowledgement(:late, 'still in a copy') \g /dev/null
SELECT days_left IS NOT NULL AS open, deleted_on, next_action LIKE '%issue_recall_letter%' AS to_be_asked FROM recall_progress WHERE notice_id = :late;
SELECT retract_acknowledgement(9990000018, 'it has not');
\echo :SQLSTATE
-- What a destruction answered is open again with it, and nothing else is.
SELECT acknowledge_recall(:late, current_date) \g /dev/null
SELECT record_destruction(:given) \g /dev/null
SELECT retract_acknowledgement(:late, 'it has not');
\echo :SQLSTATE
SELECT retract_destruction(:given, 'again') AS notices;
SELECT acknowledged_at IS NOT NULL AS answered FROM recall_notice WHERE notice_id = :late;
SELECT retract_acknowledgement(:late, 'again') \g /dev/null
SELECT record_destruction(:given) \g /dev/null
SELECT acknowledged_at IS NOT NULL AS answered FROM recall_notice WHERE notice_id = :late;
SELECT retract_destruction(:given, 'once more') AS notices;
SELECT acknowledged_at IS NOT NULL AS answered FROM recall_notice WHERE notice_id = :late;
SELECT count(*) FROM releases_without_notice() WHERE release_id IN (:given, :never);
SELECT event, detail - 'case' - 'notice' - 'release' - 'deleted_on' - 'destroyed_on' AS detail FROM audit_event
    WHERE event LIKE '%retracted' OR event = 'release_destroyed' AND detail ->> 'release' = :'given' ORDER BY event_id;
-- A retracted release is told of to a patient who asks, and goes as a destroyed one does.
SELECT count(*) FILTER (WHERE record ->> 'retracted_at' IS NOT NULL) AS retracted, count(*) AS releases
    FROM disclose_records('9990000026') WHERE source = 'release' AND record ->> 'release_id' IN (:'given', :'never');
UPDATE release SET retracted_at = retracted_at - interval '1096 days' WHERE release_id = :never;
UPDATE policy SET recall_years = 9, copy_years = 9, subject_access_years = 9;
SELECT what, removed FROM purge() WHERE removed > 0 AND what = 'release_sets';
UPDATE policy SET recall_years = DEFAULT, copy_years = DEFAULT, subject_access_years = DEFAULT;
SELECT patients_on_record FROM release_progress WHERE release_id = :never;

-- Recipients are changed, and removed as long as nothing names them.
SELECT change_recipient('clinic', id_scheme => 'nhs_number');
\echo :SQLSTATE
SELECT change_recipient('clinic', id_scheme => 'passport');
\echo :SQLSTATE
SELECT change_recipient('clinic', salt_reference => '0123456789abcdef0123456789abcdef');
\echo :SQLSTATE
SELECT change_recipient('clinic', name => 'about 999 000 0018');
\echo :SQLSTATE
SELECT change_recipient('clinic', name => 'The Clinic', salt_reference => 'safe 4', contact => 'data@clinic.example') \g /dev/null
SELECT * FROM recipient WHERE recipient = 'clinic' \gset r_
\echo :r_name :r_id_scheme :r_salt_reference :r_contact
SELECT remove_recipient('clinic');
\echo :SQLSTATE
SELECT remove_recipient('charity');
\echo :SQLSTATE
SELECT add_recipient('brief', 'A Brief Guest', 'nhs_number') \g /dev/null
SELECT change_recipient('brief', id_scheme => 'ndrs_pseudo_id');
\echo :SQLSTATE
SELECT change_recipient('brief', id_scheme => 'ndrs_pseudo_id', salt_reference => 'safe 5') \g /dev/null
SELECT grant_exemption('research', 'brief', 'CAG 9') AS brief_exemption \gset
SELECT remove_recipient('brief');
\echo :SQLSTATE
DELETE FROM exemption WHERE exemption_id = :brief_exemption;
SELECT remove_recipient('brief') \g /dev/null
SELECT remove_recipient('brief');
\echo :SQLSTATE
SELECT change_recipient('brief', name => 'x');
\echo :SQLSTATE
SELECT change_recipient(NULL), remove_recipient(NULL);
SELECT event, detail FROM audit_event WHERE event IN ('recipient_changed', 'recipient_removed') ORDER BY event_id;

-- Nothing of the extension's own holds a number, and the audit no pseudo-id.
SELECT count(*) FROM audit_event WHERE detail::text ~ '999 ?000|[0-9a-f]{16}' AND event ~ 'rec|release';
SELECT * FROM verify_audit();

SELECT unguard_table('patient');
SELECT unguard_table('rare_patient');
DELETE FROM recall_notice; DELETE FROM release; DELETE FROM recipient; DELETE FROM national_check;
DELETE FROM case_erasure; DELETE FROM case_correspondence; DELETE FROM identity_evidence; DELETE FROM case_certificate; DELETE FROM optout_case;
DELETE FROM exclusion; DELETE FROM purge_run;
DROP VIEW due;
DROP TABLE patient, rare_patient;
DROP PROCEDURE ready_case;
DROP FUNCTION dateless;
