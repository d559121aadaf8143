-- A request for a copy: who asks is proved, the time runs from there, is paused and extended, and
-- what is left out is told.
\ir lib/begin.psql
SELECT plan(36);
SELECT ndrs_optout.today() AS today \gset
CREATE VIEW story.request AS SELECT request_id, missing, due_on, days_left, overdue, next_action FROM ndrs_optout.subject_access_progress;

SELECT ndrs_optout.request_subject_access('9990000018', received_on => '2026-03-02') AS ada,
       ndrs_optout.request_subject_access('9990000026', 'representative') AS ben \gset
SELECT is((SELECT (missing, due_on, next_action)::text FROM story.request WHERE request_id = :ada), '({identity},,"ask for proof of identity")', 'nothing runs before the proof');
SELECT throws_ok(format($$ SELECT ndrs_optout.answer_subject_access(%s, '9990000018') $$, :ada), 'ND020', format('cannot answer subject access request %s: proof of identity is missing', :ada),
                 'without a proof nothing is told');
SELECT throws_ok(format($$ SELECT ndrs_optout.record_subject_access_proof(%s, 'identity', 'utility_bill') $$, :ada), '22023', NULL, 'a bill proves no identity');
SELECT throws_ok(format($$ SELECT ndrs_optout.record_subject_access_proof(%s, 'authority', 'court_order') $$, :ada), '22023', NULL, 'who asks in person needs no authority');
SELECT throws_ok(format($$ SELECT ndrs_optout.record_subject_access_proof(%s, 'identity', 'passport', %L) $$, :ada, :'today'::date + 1), '22023', NULL, 'a proof does not come tomorrow');
SELECT throws_ok(format($$ SELECT ndrs_optout.pause_subject_access(%s, 'which hospital?') $$, :ada), 'ND021', NULL, 'what does not run is not paused');
SELECT throws_ok(format($$ SELECT ndrs_optout.extend_subject_access(%s, 'complex') $$, :ada), 'ND021', NULL, 'nor extended');
SELECT ndrs_optout.record_subject_access_proof(:ada, 'identity', 'passport', '2026-03-16') \g /dev/null
SELECT is((SELECT due_on FROM story.request WHERE request_id = :ada), '2026-04-16'::date, 'a month from the proof');
SELECT ndrs_optout.record_subject_access_proof(:ada, 'identity', 'driving_licence') \g /dev/null
SELECT is((SELECT due_on FROM story.request WHERE request_id = :ada), '2026-04-16'::date, 'which another proof does not begin anew');
SELECT ndrs_optout.record_subject_access_proof(:ben, 'identity', 'passport') \g /dev/null
SELECT is((SELECT missing FROM story.request WHERE request_id = :ben), '{authority}', 'who asks for another proves authority');
SELECT ndrs_optout.record_subject_access_proof(:ben, 'authority', 'power_of_attorney') \g /dev/null
SELECT is((SELECT missing FROM story.request WHERE request_id = :ben), '{}', 'and has');

SELECT ndrs_optout.pause_subject_access(:ada, 'which hospital is meant?', '2026-03-20') \g /dev/null
SELECT is((SELECT (days_left, overdue, next_action)::text FROM story.request WHERE request_id = :ada),
          format('(,f,"on an answer, SELECT ndrs_optout.resume_subject_access(%s)")', :ada), 'a paused one is not overdue');
SELECT throws_ok(format($$ SELECT ndrs_optout.pause_subject_access(%s, 'again') $$, :ada), 'ND021', NULL, 'nor paused twice');
SELECT throws_ok(format($$ SELECT ndrs_optout.resume_subject_access(%s, '2026-03-19') $$, :ada), '22023', NULL, 'nor resumed before');
SELECT is(ndrs_optout.resume_subject_access(:ada, '2026-03-30'), '2026-04-27'::date, 'ten days later, and on a working day');
SELECT throws_ok(format($$ SELECT ndrs_optout.resume_subject_access(%s) $$, :ada), 'ND021', NULL, 'it runs');
SELECT is((SELECT overdue FROM story.request WHERE request_id = :ada), true, 'and is over');
SELECT throws_ok(format($$ SELECT ndrs_optout.pause_subject_access(%s, 'again', '2026-03-29') $$, :ada), '22023', NULL, 'no day is paused twice');
BEGIN;
SELECT lives_ok(format($$ SELECT ndrs_optout.pause_subject_access(%s, 'again', '2026-04-28') $$, :ada), 'it can be paused when it is over');
SELECT throws_ok(format($$ SELECT ndrs_optout.extend_subject_access(%s, 'complex') $$, :ada), 'ND021', NULL, 'and is over all the same');
ROLLBACK;
SELECT throws_ok(format($$ SELECT ndrs_optout.extend_subject_access(%s, 'complex') $$, :ada), 'ND021', NULL, 'what is over is not extended');

SELECT alike(ndrs_optout.extend_subject_access(:ben, 'we hold data in many tables'),
    format('%%We need more time%%We will answer by %s.%%This is why we need more time: we hold data in many tables%%Information Commissioner%%',
           ndrs_optout.english_date(ndrs_optout.subject_access_due(:'today', 3))), 'the letter says until when, and why');
SELECT is((SELECT due_on FROM story.request WHERE request_id = :ben), ndrs_optout.subject_access_due(:'today', 3), 'three months');
SELECT throws_ok(format($$ SELECT ndrs_optout.extend_subject_access(%s, 'complex') $$, :ben), 'ND021', NULL, 'once');
SELECT alike(ndrs_optout.refuse_subject_access(:ben, 'the power of attorney is revoked'), '%We cannot send you a copy%the person you act for%This is why: the power of attorney is revoked%', 'a refusal has a reason');
SELECT throws_ok(format($$ SELECT ndrs_optout.answer_subject_access(%s, '9990000026') $$, :ben), 'ND021', NULL, 'what is refused is not answered');
SELECT is((SELECT next_action FROM story.request WHERE request_id = :ben), NULL, 'and asks for nothing more');

SELECT throws_ok(format($$ SELECT ndrs_optout.subject_access_letter(%s) $$, :ada), 'ND021', NULL, 'the letter goes with the answer');
SELECT ndrs_optout.withhold_from_subject_access(:ada, 'one row of the mother''s record', 'it is about another person') \g /dev/null
SELECT throws_ok(format($$ SELECT ndrs_optout.withhold_from_subject_access(%s, 'the row of 999 000 0026', 'another person') $$, :ada), '22023', NULL, 'without a number');
SELECT is((SELECT count(*) FROM ndrs_optout.answer_subject_access(:ada, '9990000018') WHERE source LIKE 'registry.%'), 6::bigint, 'the answer');
SELECT alike(ndrs_optout.subject_access_letter(:ada), '%Why we hold it%Where it is from%Who we share it with%How long we keep it%'
             || E'What we left out\nWe did not send you these parts:\n\n- one row of the mother''s record: it is about another person\n\n' || '%Your rights%Information Commissioner%', 'the letter says what was left out');
SELECT unalike(ndrs_optout.subject_access_letter(:ada), '%left nothing out%', 'and not that nothing was');
SELECT throws_ok(format($$ SELECT ndrs_optout.refuse_subject_access(%s, 'too late') $$, :ada), 'ND021', NULL, 'what is answered is not refused');

-- A refused request goes as an answered one, with what was withheld.
UPDATE ndrs_optout.subject_access_request SET answered_at = answered_at - interval '4 years', refused_at = refused_at - interval '4 years';
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'subject_access_requests'), 2::bigint, 'both are purged');
SELECT is((SELECT count(*) FROM ndrs_optout.subject_access_withheld), 0::bigint, 'nothing is left of them');
SELECT is((SELECT count(*) FROM ndrs_optout.audit_event e, story.began b WHERE e.event_id > b.event_id AND ndrs_optout.holds_nhs_number(e.detail::text)), 0::bigint, 'no identifier in the audit');
SELECT * FROM finish();
\ir lib/end.psql
