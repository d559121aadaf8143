-- What is kept goes in its time: three years and a day, unless somebody complains;
-- proofs of who got no further, after half a year.
\ir lib/begin.psql
SELECT plan(39);

SELECT ndrs_optout.open_case('9990000018', '{cancer}') AS ada \gset
SELECT ndrs_optout.record_correspondence(:ada, 'form', 'Ada Seeded'), story.prove(:ada) \g /dev/null
CALL ndrs_optout.carry_out(:ada, '9990000018');
SELECT ndrs_optout.complete_case(:ada) AS letter \gset
SELECT alike(:'letter'::text, '%until ' || ndrs_optout.english_date((current_date + interval '3 years')::date) || ', and then destroy it.%', 'the letter promises three years');

-- Three years less a day.
SELECT story.let_pass(:ada, interval '3 years' - interval '1 day') \g /dev/null
SELECT is((SELECT due FROM ndrs_optout.purge_due WHERE what = 'correspondence'), 0::bigint, 'a day before, nothing is due');
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'correspondence'), 0::bigint, 'and the purge takes nothing');

-- What was promised stays promised.
UPDATE ndrs_optout.policy SET copy_years = 1;
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'correspondence'), 0::bigint, 'a policy that is changed afterwards changes no promise');
UPDATE ndrs_optout.policy SET copy_years = 3;

-- She complains; the officer holds the case.
SELECT ndrs_optout.record_correspondence(:ada, 'email', 'I complain. Ada Seeded') \g /dev/null
SELECT alike(story.refusal(format('SELECT ndrs_optout.place_hold(%s, ''complaint of 999 000 0018'')', :ada)),
             '22023 | the reason must not hold an NHS number | %', 'a reason names nobody');
SELECT ndrs_optout.place_hold(:ada, 'complaint 2026/17') AS hold \gset
SELECT ok(:hold > 0, 'form, letter and complaint are held');
SELECT is((SELECT hold_reason FROM ndrs_optout.case_progress WHERE case_id = :ada), 'complaint 2026/17', 'the officer sees why');
SELECT story.let_pass(:ada, interval '2 days') \g /dev/null
SELECT is((SELECT (due, held)::text FROM ndrs_optout.purge_due WHERE what = 'correspondence'), '(0,2)', 'three years and a day later what is due is held');
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'correspondence'), 0::bigint, 'and the purge leaves it');
SELECT is((SELECT status FROM ndrs_optout.health() WHERE check_name = 'purge'), 'ok', 'which is no fault');
SELECT is((SELECT count(*)::int FROM ndrs_optout.case_correspondence WHERE case_id = :ada), 3, 'the copy is there');

-- The complaint is settled.  It is kept for three years from when it came.
SELECT ndrs_optout.lift_hold(:hold) \g /dev/null
BEGIN;
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'correspondence'), 2::bigint, 'the copy of the request goes');
SELECT is((SELECT count(*)::int FROM ndrs_optout.case_correspondence WHERE case_id = :ada), 1, 'and not the complaint, which came today');
ROLLBACK;
SELECT story.let_pass(:ada, interval '3 years') \g /dev/null
SELECT is((SELECT (due, held, due_since <= now())::text FROM ndrs_optout.purge_due WHERE what = 'correspondence'), '(3,0,t)', 'now it is due');
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'correspondence'), 3::bigint, 'and goes');
SELECT is((SELECT count(*)::int FROM ndrs_optout.case_correspondence WHERE case_id = :ada), 0, 'all of it');
SELECT is((SELECT (due, last_removed)::text FROM ndrs_optout.purge_due WHERE what = 'correspondence'), '(0,3)', 'it is known that it went');
SELECT is((SELECT state FROM ndrs_optout.case_progress WHERE case_id = :ada), 'completed', 'the case stays, as the reason of what follows');
SELECT ok(ndrs_optout.is_excluded('9990000018', 'cancer'), 'she is out, for ever');
SELECT ok(ndrs_optout.verify_certificate(ndrs_optout.erasure_certificate(:ada)), 'what was done can still be proved');
SELECT unalike(ndrs_optout.completion_letter(:ada), '%locked copy%', 'the letter, asked for again, promises no copy any more');
SELECT ndrs_optout.place_hold(:ada, 'complaint 2026/18') AS hold \gset
SELECT is((SELECT held FROM ndrs_optout.purge_due WHERE what = 'correspondence'), 0::bigint, 'a complaint that comes now finds nothing to hold');
SELECT ndrs_optout.lift_hold(:hold) \g /dev/null

-- Ben sent his passport and was not heard of again.
SELECT ndrs_optout.open_case('9990000026', '{cancer}', received_on => current_date - 200) AS ben \gset
SELECT ndrs_optout.record_identity(:ben, 'identity', 'passport', current_date - 181, 'picture of Ben Seeded') \g /dev/null
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'unproven_cases'), 0::bigint, 'what was entered late does not go the same night');
UPDATE ndrs_optout.optout_case SET recorded_at = now() - interval '190 days' WHERE case_id = :ben;
UPDATE ndrs_optout.identity_evidence SET recorded_at = now() - interval '179 days';
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'unproven_cases'), 0::bigint, 'his case stays for 180 days from the last thing he sent');
UPDATE ndrs_optout.identity_evidence SET recorded_at = now() - interval '180 days';
SELECT ndrs_optout.place_hold(:ben, 'question to the ICO') AS hold \gset
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'unproven_cases'), 0::bigint, 'a hold keeps it');
SELECT ndrs_optout.lift_hold(:hold) \g /dev/null
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'unproven_cases'), 1::bigint, 'then it ends');
SELECT is((SELECT (state, proofs_destroyed)::text FROM ndrs_optout.optout_case WHERE case_id = :ben), '(withdrawn,1)', 'as if it were withdrawn');
SELECT is((SELECT count(*)::int FROM ndrs_optout.identity_evidence), 0, 'and his passport is gone');
SELECT is(story.audited(:ben), 'case_opened, hold_placed, hold_lifted, case_withdrawn, case_expired', 'the audit knows that it was not he who ended it');

-- Nobody needs to know any more whose request that was, when the copy's time is over.
SELECT story.let_pass(:ben, interval '3 years' - interval '1 day') \g /dev/null
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'case_numbers'), 0::bigint, 'a day before, his encoded number stays');
SELECT story.let_pass(:ben, interval '1 day') \g /dev/null
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'case_numbers'), 1::bigint, 'then it goes');
SELECT ok((SELECT encoded_nhs_number IS NULL FROM ndrs_optout.optout_case WHERE case_id = :ben), 'from a case that was withdrawn');
SELECT ok((SELECT encoded_nhs_number IS NOT NULL FROM ndrs_optout.optout_case WHERE case_id = :ada), 'and from no case that was carried out');

-- A day is the registry's, wherever the session is.
SET timezone = 'Pacific/Kiritimati';
UPDATE ndrs_optout.policy SET time_zone = 'Etc/GMT+12';
SELECT alike(story.refusal($$ SELECT ndrs_optout.open_case('9990000042', '{cancer}', received_on => current_date) $$),
             '22023 | the day on which the form was received must be today or before', 'no form comes tomorrow');
SELECT is(story.refusal($$ SELECT ndrs_optout.open_case('9990000042', '{cancer}') $$), 'taken', 'what is not said is today');
UPDATE ndrs_optout.policy SET time_zone = DEFAULT;
RESET timezone;
SELECT alike(story.refusal($$ UPDATE ndrs_optout.policy SET time_zone = 'Mars/Olympus' $$), '22023 | the time zone of the policy is not known | %', 'a time zone is one');

-- Cid proved who he is.  That nothing was done is not his fault.
SELECT ndrs_optout.open_case('9990000034', '{cancer}', received_on => current_date - 900) AS cid \gset
SELECT story.prove(:cid, current_date - 900) \g /dev/null
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'unproven_cases'), 0::bigint, 'a ready case never expires');
SELECT is((SELECT (state, overdue)::text FROM ndrs_optout.case_progress WHERE case_id = :cid), '(ready,t)', 'it is overdue');
SELECT is_empty('SELECT * FROM ndrs_optout.verify_audit()', 'the audit verifies');

SELECT * FROM finish();
\ir lib/end.psql
