-- A change of mind: before anything was done, and after.
\ir lib/begin.psql
SELECT plan(29);

-- Before: Ben withdraws when the officer has his first proof.
SELECT ndrs_optout.open_case('9990000026', '{cancer}', date_of_birth => '1980-01-02') AS ben \gset
SELECT ndrs_optout.record_correspondence(:ben, 'form', 'Ben Seeded'),
       ndrs_optout.record_identity(:ben, 'identity', 'passport', content => 'picture of Ben Seeded') \g /dev/null
SELECT ndrs_optout.withdraw_case(:ben) \g /dev/null
SELECT is((SELECT (state, waiting_for, next_action, missing)::text FROM ndrs_optout.case_progress WHERE case_id = :ben), '(withdrawn,,,{})', 'the case ends, and nobody has to do anything');
SELECT is((SELECT count(*)::int FROM ndrs_optout.identity_evidence WHERE case_id = :ben), 0, 'his proof is gone');
SELECT is((SELECT (proofs_destroyed, date_of_birth)::text FROM ndrs_optout.optout_case WHERE case_id = :ben), '(1,)', 'it is known that there was one, and not when he was born');
SELECT is((SELECT count(*)::int FROM ndrs_optout.case_correspondence WHERE case_id = :ben), 2, 'the copy of his form, and of our letter, stays for its time');
SELECT is(story.held('9990000026'), 'patient 1, tumour 1, rare_patient 1, baby 0, demographics 1', 'nothing else was touched');
SELECT ok(NOT ndrs_optout.is_excluded('9990000026', 'cancer'), 'and he is on no list');
SELECT is(story.audited(:ben), 'case_opened, correspondence_recorded, letter_written, case_withdrawn, correspondence_recorded', 'the audit has it');
SELECT alike(story.refusal(format('SELECT ndrs_optout.record_identity(%s, ''address'', ''utility_bill'')', :ben)), 'ND021 | cannot record a proof for case %: it is withdrawn | %', 'a case that ended takes no proofs');

-- He changes his mind again: that is a case of its own.  This time he withdraws when all is ready.
SELECT ndrs_optout.open_case('9990000026', '{cancer}') AS again \gset
SELECT story.prove(:again), ndrs_optout.withdraw_case(:again) \g /dev/null
SELECT is((SELECT (state, proofs_destroyed)::text FROM ndrs_optout.optout_case WHERE case_id = :again), '(withdrawn,2)', 'a ready case can be withdrawn');

-- After: Ada has opted out of two registers.
SELECT ndrs_optout.open_case('9990000018', '{cancer,rare_disease}') AS ada \gset
SELECT story.prove(:ada) \g /dev/null
CALL ndrs_optout.carry_out(:ada, '9990000018');
SELECT alike(story.refusal(format('SELECT ndrs_optout.withdraw_case(%s)', :ada)), 'ND021 | cannot withdraw case %: it is carried out | %', 'what is carried out cannot be withdrawn');
SELECT alike(story.refusal($$ SELECT ndrs_optout.opt_in('9990000018', '{cancer}') $$),
             format('23505 | the patient has an open case for one of these registers | It is case %s. | Go on with that case, or name only the other registers.', :ada),
             'and she does not opt in before the letter about it is written');
SELECT ndrs_optout.complete_case(:ada) \g /dev/null
SELECT lives_ok($$ INSERT INTO registry.patient VALUES (4, '9990000018', 'Ada Seeded') $$, 'until then a feed with her');
SELECT is(story.held('9990000018'), 'patient 0, tumour 0, rare_patient 0, baby 1, demographics 1', 'does not bring her in');

-- She opts in to one of them again.
SELECT alike(story.refusal($$ SELECT ndrs_optout.opt_in('9990000018', '{cancer,congenital_anomaly}') $$),
             'ND021 | the patient is not excluded from each of these registers | Name only registers that the patient has opted out of.',
             'she cannot come back to where she never left');
SELECT ndrs_optout.opt_in('9990000018', '{cancer}', channel => 'post') AS opt_in \gset
SELECT is((SELECT (kind, state, waiting_for, next_action, due_on - current_date)::text FROM ndrs_optout.case_progress WHERE case_id = :opt_in),
          format('(opt_in,carried_out,officer,"SELECT ndrs_optout.complete_case(%s)",20)', :opt_in), 'it is done at once, and a letter is due');
SELECT is(story.held('9990000018'), 'patient 0, tumour 0, rare_patient 0, baby 1, demographics 1', 'nothing comes back');
SELECT lives_ok($$ INSERT INTO registry.patient VALUES (4, '9990000018', 'Ada Seeded') $$, 'a feed with her comes');
SELECT lives_ok($$ INSERT INTO registry.tumour VALUES (41, 4) $$, 'and what goes with it');
SELECT is(story.held('9990000018'), 'patient 1, tumour 1, rare_patient 0, baby 1, demographics 1', 'new data are registered again');
SELECT throws_ok($$ INSERT INTO registry.rare_patient VALUES (3, 9990000018) $$, '23N01', NULL, 'but not in the register that she stays out of');
SELECT is(story.undated(ndrs_optout.complete_case(:opt_in)), format($letter$Our reference: opt-in case %s

To the applicant

New data can come in again

You asked us on DAY to put you back on the National Cancer Register.

What we did
On DAY we took your coded NHS number off the exclusion list for this register. New data that comes in from then on is added again. We cannot bring back what we deleted.

What we keep
We keep a locked copy of the letters until DAY, and then destroy it. Only our Caldicott Guardian can open it. We keep the dates of your requests for good.

If you change your mind
You can opt out again at any time. Write to us as you did before.

If you are not happy with what we did
Write to us as you did before. You can also complain to the Information Commissioner's Office: ico.org.uk or 0303 123 1113.$letter$, :opt_in), 'the letter says so');
SELECT is((SELECT state FROM ndrs_optout.case_progress WHERE case_id = :opt_in), 'completed', 'and the case is completed');
SELECT is(story.audited(:opt_in), 'case_opened, letter_written, case_completed, correspondence_recorded', 'the audit has it');
SELECT is(ndrs_optout.erasure_certificate(:ada) ->> 'status', 'issued', 'the certificate of what was done stays');
SELECT alike(story.refusal(format('SELECT ndrs_optout.erasure_certificate(%s)', :opt_in)), 'ND021 | case % is not about opting out', 'opting in has none');
SELECT alike(story.refusal($$ SELECT ndrs_optout.opt_in('9990000018', '{cancer}') $$), 'ND021 | %', 'twice is once too often');

-- And out again: a new case, with new proofs.
SELECT ndrs_optout.open_case('9990000018', '{cancer}') AS out \gset
SELECT story.prove(:out) \g /dev/null
CALL ndrs_optout.carry_out(:out, '9990000018');
SELECT is(story.held('9990000018'), 'patient 0, tumour 0, rare_patient 0, baby 1, demographics 1', 'she is gone again');
SELECT is(story.tells('9990000018') || ', ' || story.tells('9990000026'), 'nowhere, nowhere', 'and nothing tells who they were');
SELECT is_empty('SELECT * FROM ndrs_optout.verify_audit()', 'the audit verifies');

SELECT * FROM finish();
\ir lib/end.psql
