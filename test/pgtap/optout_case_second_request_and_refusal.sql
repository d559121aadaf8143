-- Two requests for one patient, and one that is refused.
\ir lib/begin.psql
SELECT plan(16);

SELECT ndrs_optout.open_case('9990000018', '{cancer}') AS ada \gset
SELECT ndrs_optout.open_case('9990000026', '{cancer}') AS ben \gset
-- Ada writes again, and to another officer.
SELECT is(story.refusal($$ SELECT ndrs_optout.open_case('999 000 0018', '{rare_disease,cancer}', channel => 'post') $$),
          format('23505 | the patient has an open case for one of these registers | It is case %s. | Go on with that case, or name only the other registers.', :ada),
          'the second request is pointed to the first');
SELECT is(ndrs_optout.record_correspondence(:ada, 'letter', 'Please hurry. Ada Seeded') > 0, true, 'which it joins as correspondence');
SELECT ndrs_optout.open_case('9990000018', '{rare_disease}') AS other \gset
SELECT is((SELECT count(*)::int FROM ndrs_optout.case_progress WHERE state = 'awaiting_identity'), 3, 'for another register it is a case of its own');

-- The officer takes the wrong case, or mistypes.
SELECT story.prove(:ada), story.prove(:ben) \g /dev/null
SELECT is(story.refusal(format('SELECT ndrs_optout.case_exclude(%s, ''9990000018'')', :ben)), format('ND031 | the NHS number is not that of case %s', :ben), 'a case is not carried out for somebody else');
SELECT is(story.held('9990000018') || '; ' || story.held('9990000026'),
          'patient 1, tumour 2, rare_patient 1, baby 1, demographics 1; patient 1, tumour 1, rare_patient 1, baby 0, demographics 1', 'and nobody is gone');

-- When the first is completed, a third request is a case of its own, and finds nothing.
CALL ndrs_optout.carry_out(:ada, '9990000018');
SELECT ndrs_optout.complete_case(:ada) \g /dev/null
SELECT ndrs_optout.open_case('9990000018', '{cancer}') AS third \gset
SELECT story.prove(:third) \g /dev/null
CALL ndrs_optout.carry_out(:third, '9990000018');
SELECT alike(ndrs_optout.complete_case(:third), '%We held no data about you in this register.%', 'the letter says that there was nothing');

-- Ben's request is refused.
SELECT ndrs_optout.record_correspondence(:ben, 'form', 'Ben Seeded') \g /dev/null
SELECT alike(story.refusal(format('SELECT ndrs_optout.refuse_case(%s, '' '')', :ben)), '22004 | %', 'refusing needs a reason');
SELECT alike(story.refusal(format('SELECT ndrs_optout.refuse_case(%s, ''9990000026 is not hers'')', :ben)), '22023 | the reason must not hold an NHS number | %', 'which names nobody');
SELECT alike(ndrs_optout.refuse_case(:ben, 'signed by somebody without power of attorney'), '%The reason is: signed by somebody without power of attorney.%Information Commissioner%You can also ask a court to decide.',
             'the letter says why, and what he can do about it');
SELECT is((SELECT (state, refusal_reason, proofs_destroyed)::text FROM ndrs_optout.optout_case WHERE case_id = :ben),
          '(refused,"signed by somebody without power of attorney",2)', 'the case ends with the reason, and the proofs are gone');
SELECT is((SELECT (waiting_for, next_action)::text FROM ndrs_optout.case_progress WHERE case_id = :ben), '(,)', 'nobody has to do anything');
SELECT is(story.held('9990000026'), 'patient 1, tumour 1, rare_patient 1, baby 0, demographics 1', 'nothing of his was touched');
SELECT is((SELECT count(*)::int FROM ndrs_optout.case_correspondence WHERE case_id = :ben), 2, 'the copy is kept for its time, and our letter with it');
SELECT is(story.audited(:ben), 'case_opened, case_ready, correspondence_recorded, letter_written, case_refused, correspondence_recorded', 'the audit has it, without the reason');
SELECT is(story.refusal($$ SELECT ndrs_optout.open_case('9990000026', '{cancer}', 'representative') $$), 'taken', 'he can ask again');
SELECT is(story.tells('9990000018') || ', ' || story.tells('9990000026'), 'nowhere, nowhere', 'and nothing tells who they were');

SELECT * FROM finish();
\ir lib/end.psql
