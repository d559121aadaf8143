-- What is kept goes in its time: three years and a day, unless somebody complains;
-- proofs of who got no further, after half a year.
\ir lib/begin.psql
SELECT plan(28);

SELECT ndrs_optout.open_case('9990000018', '{cancer}') AS ada \gset
SELECT ndrs_optout.record_correspondence(:ada, 'form', 'Ada Seeded'), story.prove(:ada) \g /dev/null
CALL ndrs_optout.carry_out(:ada, '9990000018');
SELECT ndrs_optout.complete_case(:ada) AS letter \gset
SELECT alike(:'letter'::text, '%until ' || ndrs_optout.english_date((current_date + interval '3 years')::date) || '. Then it is destroyed.%', 'the letter promises three years');

-- Three years less a day.
SELECT story.let_pass(:ada, interval '3 years' - interval '1 day') \g /dev/null
SELECT is((SELECT due FROM ndrs_optout.purge_due WHERE what = 'correspondence'), 0::bigint, 'a day before, nothing is due');
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'correspondence'), 0::bigint, 'and the purge takes nothing');

-- She complains; the officer holds the case.
SELECT ndrs_optout.record_correspondence(:ada, 'email', 'I complain. Ada Seeded') \g /dev/null
SELECT alike(story.refusal(format('SELECT ndrs_optout.place_hold(%s, ''complaint of 999 000 0018'')', :ada)),
             '22023 | the reason must not hold an NHS number | %', 'a reason names nobody');
SELECT is(ndrs_optout.place_hold(:ada, 'complaint 2026/17'), 3::bigint, 'form, letter and complaint are held');
SELECT is((SELECT hold_reason FROM ndrs_optout.case_progress WHERE case_id = :ada), 'complaint 2026/17', 'the officer sees why');
SELECT story.let_pass(:ada, interval '2 days') \g /dev/null
SELECT is((SELECT (due, held)::text FROM ndrs_optout.purge_due WHERE what = 'correspondence'), '(0,3)', 'three years and a day later all is held');
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'correspondence'), 0::bigint, 'and the purge leaves it');
SELECT is((SELECT status FROM ndrs_optout.health() WHERE check_name = 'purge'), 'ok', 'which is no fault');
SELECT is((SELECT count(*)::int FROM ndrs_optout.case_correspondence WHERE case_id = :ada), 3, 'the copy is there');

-- The complaint is settled.
SELECT ndrs_optout.lift_hold(:ada) \g /dev/null
SELECT is((SELECT (due, held, due_since <= now())::text FROM ndrs_optout.purge_due WHERE what = 'correspondence'), '(3,0,t)', 'now it is due');
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'correspondence'), 3::bigint, 'and goes');
SELECT is((SELECT count(*)::int FROM ndrs_optout.case_correspondence WHERE case_id = :ada), 0, 'all of it');
SELECT is((SELECT (due, last_removed)::text FROM ndrs_optout.purge_due WHERE what = 'correspondence'), '(0,3)', 'it is known that it went');
SELECT is((SELECT state FROM ndrs_optout.case_progress WHERE case_id = :ada), 'completed', 'the case stays, as the reason of what follows');
SELECT ok(ndrs_optout.is_excluded('9990000018', 'cancer'), 'she is out, for ever');
SELECT ok(ndrs_optout.verify_certificate(ndrs_optout.erasure_certificate(:ada)), 'what was done can still be proved');
SELECT unalike(ndrs_optout.completion_letter(:ada), '%confidential copy%', 'the letter, asked for again, promises no copy any more');
SELECT is(ndrs_optout.place_hold(:ada, 'complaint 2026/18'), 0::bigint, 'a complaint that comes now finds nothing to hold');

-- Ben sent his passport and was not heard of again.
SELECT ndrs_optout.open_case('9990000026', '{cancer}', received_on => current_date - 200) AS ben \gset
SELECT ndrs_optout.record_identity(:ben, 'identity', 'passport', current_date - 179, 'picture of Ben Seeded') \g /dev/null
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'unproven_cases'), 0::bigint, 'his case stays for 180 days from the last thing he sent');
UPDATE ndrs_optout.identity_evidence SET received_on = current_date - 180;
SELECT ndrs_optout.place_hold(:ben, 'question to the ICO') \g /dev/null
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'unproven_cases'), 0::bigint, 'a hold keeps it');
SELECT ndrs_optout.lift_hold(:ben) \g /dev/null
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'unproven_cases'), 1::bigint, 'then it ends');
SELECT is((SELECT (state, proofs_destroyed)::text FROM ndrs_optout.optout_case WHERE case_id = :ben), '(withdrawn,1)', 'as if it were withdrawn');
SELECT is((SELECT count(*)::int FROM ndrs_optout.identity_evidence), 0, 'and his passport is gone');
SELECT is(story.audited(:ben), 'case_opened, hold_placed, hold_lifted, case_withdrawn, case_expired', 'the audit knows that it was not he who ended it');

-- Cid proved who he is.  That nothing was done is not his fault.
SELECT ndrs_optout.open_case('9990000034', '{cancer}', received_on => current_date - 900) AS cid \gset
SELECT story.prove(:cid, current_date - 900) \g /dev/null
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'unproven_cases'), 0::bigint, 'a ready case never expires');
SELECT is((SELECT (state, overdue)::text FROM ndrs_optout.case_progress WHERE case_id = :cid), '(ready,t)', 'it is overdue');
SELECT is_empty('SELECT * FROM ndrs_optout.verify_audit()', 'the audit verifies');

SELECT * FROM finish();
\ir lib/end.psql
