-- A hold holds: the exclusion is made, and nothing is destroyed until it is lifted.
\ir lib/begin.psql
SELECT plan(52);

SELECT ndrs_optout.open_case('9990000018', '{cancer}') AS ada \gset
SELECT ndrs_optout.record_correspondence(:ada, 'form', 'Ada Seeded'), story.prove(:ada) \g /dev/null
SELECT story.held('9990000018') AS before \gset
SELECT ndrs_optout.place_hold(:ada, 'public inquiry: destroy nothing') AS hold \gset
SELECT is((SELECT (hold_reason, waiting_for)::text FROM ndrs_optout.case_progress WHERE case_id = :ada), '("public inquiry: destroy nothing",officer)', 'the officer sees why the case is held');

-- Step 1 goes, and step 2 does not.
SELECT ndrs_optout.case_exclude(:ada, '9990000018') \g /dev/null
SELECT alike(story.refusal(format('SELECT ndrs_optout.case_certify(%s, ''9990000018'')', :ada)),
             'ND022 | cannot erase for case % it is held | The patient is excluded: nothing new gets in. Nothing was deleted. | %', 'carry_out stops at the hold');
SELECT ok(ndrs_optout.is_excluded('9990000018', 'cancer'), 'nothing new gets in');
SELECT is(story.held('9990000018'), :'before', 'and nothing is gone');
SELECT alike(ndrs_optout.write_letter(:ada), '%We have to wait before we can finish%we put a coded form of your NHS number on our exclusion list%We have not deleted what we hold about you.%', 'the letter that is owed says so');
SELECT ndrs_optout.record_guardian_call(:ada, 'declined') \g /dev/null
SELECT is((SELECT (state, waiting_for, letter)::text FROM ndrs_optout.case_progress WHERE case_id = :ada), '(excluded,hold,acknowledgement)', 'what the case waits for is the hold');
-- Nor by any other way.
SELECT alike(story.refusal($$ SELECT ndrs_optout.erase('9990000018', '{cancer}') $$), 'ND022 | cannot erase: a hold is on the patient, a case or a register | Nothing was deleted. | %', 'not by erase');
SELECT alike(story.refusal($$ SELECT ndrs_optout.erase_patients(ARRAY['9990000026', '9990000018']::ndrs_optout.nhs_number[], '{cancer,rare_disease}') $$), 'ND022 | %', 'nor with others');
CALL ndrs_optout.sweep();
SELECT is(story.held('9990000018'), :'before', 'nor by a sweep');

-- The hold is lifted: it resumes.
SELECT ndrs_optout.lift_hold(:hold) \g /dev/null
CALL ndrs_optout.carry_out(:ada, '9990000018');
SELECT alike(story.held('9990000018'), 'patient 0, tumour 0, %', 'then the rows go');

-- Carried out, and held again: the proofs stay.
SELECT ndrs_optout.place_hold(:ada, 'complaint 2026/17') AS hold \gset
SELECT alike(story.refusal(format('SELECT ndrs_optout.complete_case(%s)', :ada)), 'ND022 | cannot end case % it is held | Its proofs would be destroyed. | %', 'the case is not completed');
SELECT is((SELECT count(*)::int FROM ndrs_optout.identity_evidence WHERE case_id = :ada), 2, 'the proofs are there');
-- The owner overrides it, and answers for that.
SET ROLE story_officer;
SELECT alike(story.refusal(format('SELECT ndrs_optout.override_holds(%s, ''x'')', :ada)), '42501 | %', 'which no officer can override');
RESET ROLE;
SELECT alike(story.refusal(format('SELECT ndrs_optout.override_holds(%s, '' '')', :ada)), '22004 | %', 'nor anybody without a reason');
SELECT ndrs_optout.override_holds(:ada, 'order of the court') \g /dev/null
SELECT is((SELECT hold_reason FROM ndrs_optout.case_progress WHERE case_id = :ada), NULL, 'the owner can');
SELECT is((SELECT detail ->> 'reason' FROM ndrs_optout.audit_event WHERE event = 'holds_overridden' ORDER BY entry_id DESC LIMIT 1), 'order of the court', 'and it is in the audit');
SELECT alike(ndrs_optout.complete_case(:ada), 'Our reference%', 'the case is completed');
-- A hold that is placed later counts.
SELECT is(ndrs_optout.place_hold(:ada, 'complaint 2026/18') > :hold, true, 'a case can be held twice');
SELECT is((SELECT hold_reason FROM ndrs_optout.case_progress WHERE case_id = :ada), 'complaint 2026/18', 'the later hold counts');
SELECT story.let_pass(:ada, interval '4 years') \g /dev/null
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'correspondence'), 0::bigint, 'and keeps the copy');
SELECT ndrs_optout.lift_hold(h.hold_id) FROM ndrs_optout.hold_progress h \g /dev/null
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'correspondence'), 3::bigint, 'until it is lifted');
SELECT is((SELECT bool_or(held) FROM ndrs_optout.retention_schedule WHERE what = 'audit_events'), false, 'the audit waits for its years only');

-- A case that is not carried out: its proofs are evidence, too.
SELECT ndrs_optout.open_case('9990000026', '{cancer}') AS ben \gset
SELECT ndrs_optout.record_identity(:ben, 'identity', 'passport') \g /dev/null
SELECT ndrs_optout.place_hold(:ben, 'forged passport') AS hold \gset
SELECT is((SELECT bool_and(held) FROM ndrs_optout.retention_schedule WHERE what = 'audit_events'), true, 'the audit is evidence of whatever is held');
SELECT alike(story.refusal(format('SELECT ndrs_optout.withdraw_case(%s)', :ben)), 'ND022 | %', 'it cannot be withdrawn');
SELECT alike(story.refusal(format('SELECT ndrs_optout.refuse_case(%s, ''forged'')', :ben)), 'ND022 | %', 'nor refused');
SELECT alike(story.refusal(format('SELECT ndrs_optout.record_identity(%s, ''identity'', ''driving_licence'')', :ben)), 'ND022 | cannot replace a proof of case % it is held | %', 'nor its proof replaced');
SELECT is(story.refusal(format('SELECT ndrs_optout.record_identity(%s, ''address'', ''utility_bill'')', :ben)), 'taken', 'another can come');
SELECT ndrs_optout.lift_hold(:hold) \g /dev/null

-- A patient without a case.
SELECT ndrs_optout.place_patient_hold('9990000034', 'claim 5') AS hold \gset
SELECT is((SELECT (held, case_id, register, reason)::text FROM ndrs_optout.hold_progress), '(patient,,,"claim 5")', 'a patient is held, and who it is, is not told');
SELECT alike(story.refusal($$ SELECT ndrs_optout.erase('9990000034', '{cancer}') $$), 'ND022 | %', 'nothing of theirs is erased');
SELECT is(story.refusal($$ SELECT ndrs_optout.erase('9990000042', '{congenital_anomaly}') $$), 'taken', 'others'' is');
SELECT ndrs_optout.open_case('9990000034', '{cancer}') AS cid \gset
SELECT is((SELECT hold_reason FROM ndrs_optout.case_progress WHERE case_id = :cid), 'claim 5', 'a case that comes later is held with its patient');
SELECT ndrs_optout.request_subject_access('9990000034') AS request \gset
UPDATE ndrs_optout.subject_access_request SET answered_at = now() - interval '9 years';
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'subject_access_requests'), 0::bigint, 'and so is a request');
SELECT is((SELECT record ->> 'reason' FROM ndrs_optout.disclose_records('9990000034') WHERE source = 'hold'), 'claim 5', 'a patient who asks is told of it');
BEGIN;
SELECT ndrs_optout.supersede_nhs_number('9990000034', '9990000050') \g /dev/null
SELECT alike(story.refusal($$ SELECT ndrs_optout.erase('9990000050', '{cancer}') $$), 'ND022 | %', 'a number that takes the place of theirs is held, too');
ROLLBACK;
BEGIN;
SELECT ndrs_optout.lift_hold(:hold), ndrs_optout.place_hold(:cid, 'claim 6') \g /dev/null
SELECT ndrs_optout.supersede_nhs_number('9990000034', '9990000050') \g /dev/null
SELECT alike(story.refusal($$ SELECT ndrs_optout.erase('9990000050', '{cancer}') $$), 'ND022 | %', 'nor is it let go when a case is held');
SELECT ndrs_optout.supersede_nhs_number('9990000034', '9990000050') \g /dev/null
SELECT is((SELECT count(*)::int FROM ndrs_optout.hold_progress), 2, 'said again, it is held once');
ROLLBACK;
SELECT ndrs_optout.lift_hold(:hold) \g /dev/null
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'subject_access_requests'), 1::bigint, 'until it is lifted');

-- A register.
SELECT ndrs_optout.place_register_hold('cancer', 'inquiry into the register') AS hold \gset
SELECT is((SELECT count(*)::int FROM ndrs_optout.held_cases()), 3, 'every case of the register is held');
SELECT alike(story.refusal($$ SELECT ndrs_optout.erase('9990000026', '{cancer}') $$), 'ND022 | %', 'nothing is erased from it');
SELECT is(story.refusal($$ SELECT ndrs_optout.erase('9990000026', '{rare_disease}') $$), 'taken', 'from others it is');
SELECT alike(story.refusal($$ SELECT ndrs_optout.place_register_hold('heart', 'x') $$), '42704 | %', 'a register is one');
-- A table that serves the held register and another: its rows go with the last register, which is held.
SELECT ndrs_optout.exclude('9990000026', '{cancer,congenital_anomaly}') \g /dev/null
SELECT alike(story.refusal($$ SELECT ndrs_optout.erase('9990000026', '{rare_disease}') $$), 'ND022 | %', 'nor through another register, of which the patient shares rows with it');
SELECT ndrs_optout.readmit('9990000026', '{congenital_anomaly}') \g /dev/null
SELECT is(story.refusal($$ SELECT ndrs_optout.erase('9990000026', '{rare_disease}') $$), 'taken', 'unless a register that the patient stays in keeps them');
SELECT ndrs_optout.exclude('9990000042', '{cancer}') \g /dev/null
-- A patient who comes back waits as well, and is told what was asked for.
SELECT ndrs_optout.opt_in('9990000042', '{cancer}') AS back \gset
SELECT is((SELECT letter FROM ndrs_optout.case_progress WHERE case_id = :back), 'hold', 'a letter is owed to a patient who opts in');
SELECT alike(ndrs_optout.write_letter(:back), '%to put you back on the National Cancer Register.%we took your coded NHS number off the exclusion list%', 'which says what was asked for and done');
SELECT unalike(ndrs_optout.case_letter_text(c, 'hold', false), '%to remove you%', 'not what was not')
    FROM ndrs_optout.optout_case c WHERE c.case_id = :back;
SELECT alike(ndrs_optout.extend_deadline(:back, due_on + 1, 'an inquiry'), '%to put you back on the National Cancer Register.%', 'nor does the one about more time')
    FROM ndrs_optout.optout_case WHERE case_id = :back;
SELECT ndrs_optout.lift_hold(:hold) \g /dev/null
SELECT is(story.refusal($$ SELECT ndrs_optout.erase('9990000026', '{cancer}') $$), 'taken', 'until it is lifted');
SELECT alike(story.refusal(format('SELECT ndrs_optout.lift_hold(%s)', :hold)), 'P0002 | there is no such hold | %', 'which it is once');
SELECT alike(story.refusal($$ SELECT ndrs_optout.place_hold(NULL, 'x') $$), 'P0002 | %', 'nothing is no case');
SELECT alike(story.refusal($$ SELECT ndrs_optout.place_patient_hold('9990000018', 'for 999 000 0018') $$), '22023 | the reason must not hold an NHS number | %', 'a reason names nobody');
SELECT is(story.tells('9990000018') || ', ' || story.tells('9990000034'), 'nowhere, nowhere', 'and nothing tells who they are');

SELECT * FROM finish();
\ir lib/end.psql
