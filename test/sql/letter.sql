-- Every letter, of every kind, as it is printed; and what may be in a template.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
SET timezone = 'Europe/London';
SET client_min_messages = warning;
ALTER TABLE optout_case ALTER case_id RESTART;
SELECT coalesce(max(entry_id), 0) AS last_entry FROM audit_event \gset
ALTER TABLE hold ALTER hold_id RESTART;
DELETE FROM agreement; DELETE FROM case_letter; DELETE FROM identity_evidence; DELETE FROM case_erasure; DELETE FROM case_certificate; DELETE FROM optout_case; DELETE FROM exclusion;

\getenv inputdir PG_ABS_SRCDIR
\set public_file :inputdir /keys/guardian.public.asc
\set public_key `cat :'public_file'`
SELECT set_confidential_key(:'public_key') \g /dev/null

CREATE FUNCTION undated(letter text) RETURNS text LANGUAGE sql AS $$
    SELECT regexp_replace(letter, '\d+ (January|February|March|April|May|June|July|August|September|October|November|December) \d{4}', 'DAY', 'g')
$$;
CREATE TABLE patient (patient_id int PRIMARY KEY, nhs_number text);
CREATE TABLE tumour (tumour_id int PRIMARY KEY, patient_id int REFERENCES patient);
CREATE TABLE relative (relative_id int, patient_id int REFERENCES patient ON DELETE SET NULL);
CREATE TABLE baby (baby_id int, nhs_number text);
CREATE TABLE mother (baby_id int, mothers_number text);
CREATE TABLE serves_two (nhs_number text);
INSERT INTO patient VALUES (1, '9990000018'), (2, '9990000026');
INSERT INTO tumour VALUES (1, 1), (2, 1), (3, 2);
INSERT INTO relative VALUES (1, 1);
INSERT INTO baby VALUES (1, '9990000042');
INSERT INTO mother VALUES (1, '9990000018');
INSERT INTO serves_two VALUES ('9990000018'), ('9990000018');
SELECT guard_table('patient', 'nhs_number', '{cancer}', 'skip'), guard_table('baby', 'nhs_number', '{congenital_anomaly}'),
       guard_table('mother', 'mothers_number', '{cancer}', 'redact'), guard_table('serves_two', 'nhs_number', '{cancer,rare_disease}') \g /dev/null
SELECT add_recipient('university', 'University of Somewhere', 'nhs_number'), add_recipient('charity', 'A Charity', 'nhs_number'),
       add_recipient('laboratory', 'A Laboratory', 'nhs_number'), add_recipient('trust', 'Some Trust', 'nhs_number', kind => 'care_provider') \g /dev/null
SELECT add_agreement(r, 'consent', 'agreement 1', '2000-01-01', '2099-12-31') FROM unnest('{university,charity,laboratory,trust}'::text[]) AS r \g /dev/null
SELECT record_release(ARRAY['9990000018']::nhs_number[], 'explicit_consent', '{cancer}', r, current_date, 'order')
    FROM unnest('{university,charity,laboratory,trust}'::text[]) AS r \g /dev/null

-- A patient asks.  Nothing has been proved yet, and the registry says how it is reached.
UPDATE policy SET contact = 'on 0300 000 0000 or at optout@registry.example';
SELECT open_case('9990000018', '{cancer}') AS ada \gset
SELECT record_correspondence(:ada, 'form', 'the form') \g /dev/null
SELECT letter, next_action FROM case_progress;
SELECT undated(write_letter(:ada)) \g (format=unaligned tuples_only=on)
SELECT letter, next_action, guardian_call FROM case_progress;
SELECT write_letter(:ada);
\echo :SQLSTATE
-- One proof comes; the other is asked for.
SELECT record_identity(:ada, 'identity', 'passport') \g /dev/null
SELECT letter, next_action FROM case_progress;
SELECT undated(write_letter(:ada)) \g (format=unaligned tuples_only=on)
SELECT letter FROM case_progress;
-- Four weeks later, once more.
UPDATE case_letter SET written_at = written_at - interval '29 days';
UPDATE identity_evidence SET recorded_at = recorded_at - interval '40 days';
SELECT letter FROM case_progress;
SELECT record_identity(:ada, 'address', 'utility_bill') \g /dev/null
SELECT letter, next_action FROM case_progress;
-- More time is needed.
SELECT extend_deadline(:ada, due_on, 'the same') FROM case_progress;
SELECT extend_deadline(:ada, (clock_started_on + interval '4 months')::date, 'too long') FROM optout_case;
SELECT extend_deadline(:ada, current_date + 60, 'about 9990000018');
SELECT undated(extend_deadline(:ada, current_date + 60, 'the registry is being moved to another server.')) \g (format=unaligned tuples_only=on)
SELECT days_left, letter FROM case_progress;
-- A hold, before and after the exclusion.
SELECT place_hold(:ada, 'inquiry') AS hold \gset
SELECT letter, next_action FROM case_progress;
BEGIN;
SELECT undated(write_letter(:ada)) \g (format=unaligned tuples_only=on)
ROLLBACK;
SELECT case_exclude(:ada, '9990000018') \g /dev/null
SELECT undated(write_letter(:ada)) \g (format=unaligned tuples_only=on)
SELECT letter, next_action FROM case_progress;
SELECT lift_hold(:hold) \g /dev/null
-- Done.
CALL carry_out(:ada, '9990000018');
SELECT letter, next_action FROM case_progress;
SELECT write_letter(:ada);
SELECT issue_recall_letter(min(notice_id), '9990000018') IS NOT NULL AS asked FROM recall_progress;
SELECT acknowledge_recall(max(notice_id)) FROM recall_progress \g /dev/null
SELECT undated(complete_case(:ada)) \g (format=unaligned tuples_only=on)
SELECT letter, next_action FROM case_progress;
SELECT completion_letter(:ada) ~ 'We have removed you from the National Cancer Register' AS again;

-- A parent, of a child of whom nothing is held; with no word on how the registry is reached.
UPDATE policy SET contact = NULL;
DELETE FROM confidential_key;
SELECT open_case('9990000050', '{congenital_anomaly,cancer}', 'parent', 'post', current_date, (current_date - interval '12 years')::date) AS child \gset
SELECT undated(write_letter(:child)) \g (format=unaligned tuples_only=on)
SELECT record_guardian_call(:child, 'declined'), record_identity(:child, 'identity', 'passport'), record_identity(:child, 'address', 'utility_bill') \g /dev/null
CALL carry_out(:child, '9990000050');
SELECT undated(complete_case(:child)) \g (format=unaligned tuples_only=on)
SELECT opt_in('9990000050', '{cancer}', 'parent', date_of_birth => (current_date - interval '12 years')::date) AS back \gset
SELECT letter, next_action FROM case_progress WHERE case_id = :back;
SELECT undated(complete_case(:back)) \g (format=unaligned tuples_only=on)

-- A representative, who shows nothing that lets them act.
SELECT open_case('9990000026', '{cancer}', 'representative') AS ben \gset
SELECT undated(write_letter(:ben)) \g (format=unaligned tuples_only=on)
SELECT record_identity(:ben, 'identity', 'passport'), record_identity(:ben, 'address', 'utility_bill') \g /dev/null
SELECT undated(refuse_case(:ben, 'you have not shown that you may act for the patient')) \g (format=unaligned tuples_only=on)
SELECT letter FROM case_progress WHERE case_id = :ben;
-- Withdrawn by the applicant, and by the purge.
SELECT open_case('9990000026', '{cancer}') AS ben \gset
SELECT undated(withdraw_case(:ben)) \g (format=unaligned tuples_only=on)
SELECT open_case('9990000026', '{cancer}') AS ben \gset
SELECT record_identity(:ben, 'identity', 'passport') \g /dev/null
UPDATE optout_case SET recorded_at = recorded_at - interval '1 year' WHERE case_id = :ben;
UPDATE identity_evidence SET recorded_at = recorded_at - interval '1 year';
SELECT removed FROM purge() WHERE what = 'unproven_cases';
SELECT letter, next_action FROM case_progress WHERE case_id = :ben;
SELECT undated(write_letter(:ben)) \g (format=unaligned tuples_only=on)
SELECT letter, next_action FROM case_progress WHERE case_id = :ben;

-- Who was written to, and what the audit knows.
SELECT case_id, kind, language, format, version FROM case_letter ORDER BY letter_id;
SELECT detail FROM audit_event WHERE event = 'letter_written' AND entry_id > :last_entry ORDER BY entry_id LIMIT 2;

-- The other letters, and those of a case of opting in that takes longer.
BEGIN;
SELECT opt_in('9990000018', '{cancer}') AS later \gset
SELECT place_hold(:later, 'inquiry') \g /dev/null
SELECT undated(write_letter(:later)) \g (format=unaligned tuples_only=on)
SELECT undated(extend_deadline(:later, current_date + 60, 'the registry is being moved to another server.')) \g (format=unaligned tuples_only=on)
-- To a recipient that is asked to delete data, and then reminded.
SELECT min(notice_id) AS notice FROM recall_progress WHERE acknowledged_at IS NULL \gset
SELECT replace(undated(recall_letter(:notice, '9990000018')), 'recall notice ' || :notice, 'recall notice N') \g (format=unaligned tuples_only=on)
UPDATE recall_notice SET raised_at = raised_at - interval '31 days', asked_at = asked_at - interval '31 days', due_on = due_on - 31 WHERE notice_id = :notice;
SELECT chase_recall(:notice);
SELECT replace(undated(recall_letter(:notice, '9990000018')), 'recall notice ' || :notice, 'recall notice N') \g (format=unaligned tuples_only=on)
-- To who asks for a copy of what is held: more time is needed; the answer; a refusal.
SELECT request_subject_access('9990000026') AS copy \gset
SELECT record_subject_access_proof(:copy, 'identity', 'passport') \g /dev/null
SELECT replace(undated(extend_subject_access(:copy, 'there are many papers to look through.')), 'access request ' || :copy, 'access request N') \g (format=unaligned tuples_only=on)
SELECT withhold_from_subject_access(:copy, 'a note about another person', 'they did not agree') \g /dev/null
SELECT count(*) > 0 AS answered FROM answer_subject_access(:copy, '9990000026');
SELECT replace(undated(subject_access_letter(:copy)), 'access request ' || :copy, 'access request N') \g (format=unaligned tuples_only=on)
SELECT request_subject_access('9990000026') AS copy \gset
SELECT record_subject_access_proof(:copy, 'identity', 'passport') \g /dev/null
SELECT replace(undated(refuse_subject_access(:copy, 'we sent you the same last week.')), 'access request ' || :copy, 'access request N') \g (format=unaligned tuples_only=on)
-- To who complains.
SELECT record_complaint('the letter came late') AS complaint \gset
SELECT replace(undated(acknowledge_complaint(:complaint)), 'complaint ' || :complaint, 'complaint N') \g (format=unaligned tuples_only=on)
ROLLBACK;

-- Templates: what they may say is checked when they are saved, and no version is changed.
BEGIN;
\set ON_ERROR_ROLLBACK on
SELECT kind, about, required FROM letter_kind WHERE about = 'case' ORDER BY kind COLLATE "C";
SELECT add_letter_template('poem', 'G. Uardian', current_date, 'x');
\echo :SQLSTATE
SELECT add_letter_template('refusal', 'G. Uardian', current_date, 'Dear {name}');
\echo :SQLSTATE
SELECT add_letter_template('refusal', 'G. Uardian', current_date, 'Our reference: {reference. {reason} {regulator}');
SELECT add_letter_template('refusal', 'G. Uardian', current_date, 'Our reference: {reference}. {?reason}{reason} {regulator}');
SELECT add_letter_template('refusal', 'G. Uardian', current_date, '{reference} {reason}');
SELECT add_letter_template('refusal', 'G. Uardian', current_date, E'{reference} {reason}\n{!regulator}You cannot complain.');
SELECT add_letter_template('refusal', 'G. Uardian', current_date, E'{reference} {reason}\n{!reference}{regulator}');
SELECT add_letter_template('refusal', 'G. Uardian', current_date, ' ');
SELECT add_letter_template('refusal', 'G. Uardian', current_date, '{reference} {reason} {regulator} 999 000 0018');
SELECT add_letter_template('refusal', 'G. Uardian', current_date + 1, '{reference} {reason} {regulator}');
SELECT add_letter_template('refusal', ' ', current_date, '{reference} {reason} {regulator}');
SELECT add_letter_template('refusal', 'G. Uardian', current_date, '{reference} {reason} {regulator}', 'English');
SELECT add_letter_template('refusal', 'G. Uardian', current_date, '{reference} {reason} {regulator}', format => 'braille');
SELECT add_letter_template('refusal', 'G. Uardian', current_date, language => 'cy');
\echo :SQLSTATE
UPDATE letter_template SET body = 'x';
\echo :SQLSTATE
DELETE FROM letter_template;
\echo :SQLSTATE
TRUNCATE letter_template;
-- The text in use is approved as it is; then another takes its place.
SELECT add_letter_template('refusal', 'G. Uardian', '2026-01-02');
SELECT add_letter_template('refusal', 'G. Uardian', '2026-01-03', E'Our reference: {reference}\n\n# Only a heading\n\nNo: {reason}.\n{parent}Not here.\n{?self}- {registers}\nMore. {regulator}');
SELECT version, approved_by, approved_on, body = (SELECT body FROM letter_template WHERE kind = 'refusal' AND version = 0) AS as_shipped
    FROM letter_template WHERE kind = 'refusal' ORDER BY version;
SELECT detail - 'sha256' - 'approved_on' AS detail, length(detail ->> 'sha256') FROM audit_event WHERE event = 'letter_template_added' AND entry_id > :last_entry ORDER BY entry_id;
SELECT open_case('9990000026', '{cancer}') AS ben \gset
SELECT refuse_case(:ben, 'not you.') \g (format=unaligned tuples_only=on)
SELECT version FROM case_letter ORDER BY letter_id DESC LIMIT 1;
-- What was written stays in its words.
SELECT add_letter_template('completion', 'G. Uardian', current_date, '{reference} {excluded_on} {carried_out_on} {guardian_call} {regulator}') AS new_version;
SELECT completion_letter(:ada) ~ 'We have removed you from the National Cancer Register' AS again;
-- Another language or format counts when every letter is there in it.
SELECT open_case('9990000026', '{cancer}') AS ben \gset
SELECT choose_letter_form(:ben, format => 'large_print');
\echo :SQLSTATE
SELECT choose_letter_form(:ben, format => 'small_print');
SELECT count(add_letter_template(k.kind, 'G. Uardian', '2026-01-02', t.body, format => 'large_print'))
    FROM letter_kind k JOIN letter_template t ON t.kind = k.kind AND t.version = 0 WHERE k.about = 'case';
SELECT choose_letter_form(:ben, format => 'large_print');
SELECT write_letter(:ben) IS NOT NULL AS written;
SELECT format, version FROM case_letter ORDER BY letter_id DESC LIMIT 1;
ROLLBACK;
\set ON_ERROR_ROLLBACK off
-- A fact that holds what looks like a mark is printed as it is.
SELECT letter_from_template('{?reason}{reason}', '{"reason": "{?self}{name}"}');

SELECT unguard_table('patient'), unguard_table('baby'), unguard_table('mother'), unguard_table('serves_two') \g /dev/null
DROP TABLE tumour, relative, patient, baby, mother, serves_two;
DROP FUNCTION undated;
DELETE FROM recall_notice; DELETE FROM release; DELETE FROM agreement; DELETE FROM recipient; DELETE FROM case_erasure; DELETE FROM case_certificate;
DELETE FROM identity_evidence; DELETE FROM case_correspondence; DELETE FROM confidential_key; DELETE FROM case_letter; DELETE FROM optout_case; DELETE FROM exclusion;
UPDATE policy SET contact = NULL;
