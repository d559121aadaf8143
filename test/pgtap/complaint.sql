-- Somebody complains: it is acknowledged in time, nothing that it is about is destroyed, and
-- what came of it is counted.
\ir lib/begin.psql
SELECT plan(34);
SELECT ndrs_optout.today() AS today \gset

SELECT ndrs_optout.open_case('9990000018', '{cancer}') AS ada \gset
SELECT story.prove(:ada) \g /dev/null
SELECT ndrs_optout.request_subject_access('9990000026') AS ben \gset
SELECT throws_ok($$ SELECT ndrs_optout.record_complaint(' ') $$, '22004', NULL, 'a complaint is about something');
SELECT throws_ok($$ SELECT ndrs_optout.record_complaint('of 999 000 0018') $$, '22023', NULL, 'and names nobody');
SELECT throws_ok($$ SELECT ndrs_optout.record_complaint('late', channel => 'telegram') $$, '22023', NULL, 'came by a channel');
SELECT throws_ok(format($$ SELECT ndrs_optout.record_complaint('late', received_on => %L) $$, :'today'::date + 1), '22023', NULL, 'not tomorrow');
SELECT throws_ok($$ SELECT ndrs_optout.record_complaint('late', case_id => 9990000018) $$, 'P0002', 'there is no such case', 'about a case that there is');
SELECT throws_ok($$ SELECT ndrs_optout.record_complaint('late', request_id => 9990000018) $$, 'P0002', 'there is no such subject access request', 'or a request that there is');
SELECT throws_ok(format($$ SELECT ndrs_optout.record_complaint('late', %s, %s) $$, :ada, :ben), '22023', NULL, 'not about both');

SELECT ndrs_optout.record_complaint('the letter came late', case_id => :ada, received_on => :'today'::date - 29) AS first,
       ndrs_optout.record_complaint('a page was missing', request_id => :ben, received_on => :'today'::date - 30) AS second,
       ndrs_optout.record_complaint('the web page is hard to read') AS third \gset
SELECT results_eq($$ SELECT complaint_id, days_left, overdue FROM ndrs_optout.complaint_progress $$,
                  format('VALUES (%s::bigint, -1, true), (%s, 0, false), (%s, 29, false)', :second, :first, :third), 'the day of receipt is the first of 30');
SELECT is((SELECT status FROM ndrs_optout.health_complaints()), 'failed', 'an overdue one is told');

-- What it is about is held.
SELECT results_eq($$ SELECT held, reason FROM ndrs_optout.hold_progress ORDER BY hold_id $$,
                  format($$ VALUES ('case', 'complaint %s'), ('patient', 'complaint %s') $$, :first, :second), 'case and patient are held');
SELECT ndrs_optout.case_exclude(:ada, '9990000018') \g /dev/null
SELECT alike(story.refusal(format('SELECT ndrs_optout.case_certify(%s, ''9990000018'')', :ada)), 'ND022 | %', 'nothing of the case is destroyed');

SELECT is(ndrs_optout.acknowledge_complaint(:first), format(E'Our reference: complaint %s\n\nWe have your complaint\n\nWe received it on %s. Thank you for telling us.\n\n'
    'What happens next\nWe will look into what went wrong. We will tell you how it goes, and what we find. Until then we destroy nothing that your complaint is about.\n\n'
    'If you want to tell us more\nPlease write to us as you did before.\n\n'
    'If you are not happy with our answer\nYou can complain to the Information Commissioner''s Office. Go to ico.org.uk or call 0303 123 1113. You can also ask a court to decide.',
    :first, ndrs_optout.english_date(:'today'::date - 29)), 'the letter reads well');
SELECT unalike(ndrs_optout.acknowledge_complaint(:third), '%destroy%', 'and says of a hold only where there is one');
BEGIN;
SELECT ndrs_optout.override_holds(:ada, 'order of the court') \g /dev/null
SELECT unalike(ndrs_optout.acknowledge_complaint(:first), '%destroy%', 'not where the hold was overridden');
SELECT ndrs_optout.lift_hold(hold_id) FROM ndrs_optout.complaint_progress WHERE complaint_id = :second \g /dev/null
SELECT unalike(ndrs_optout.acknowledge_complaint(:second), '%destroy%', 'nor lifted');
ROLLBACK;
SELECT ndrs_optout.acknowledge_complaint(:second) \g /dev/null
SELECT is((SELECT status FROM ndrs_optout.health_complaints()), 'ok', 'acknowledged ones are well');
SELECT lives_ok(format('SELECT ndrs_optout.acknowledge_complaint(%s)', :second), 'the letter can be had again');
SELECT lives_ok(format('SELECT ndrs_optout.inform_complainant(%s)', :second), 'progress is told');
SELECT throws_ok(format($$ SELECT ndrs_optout.end_complaint(%s, 'lost', 'x') $$, :first), '22023', NULL, 'an outcome is one of four');
SELECT throws_ok(format($$ SELECT ndrs_optout.end_complaint(%s, 'upheld', NULL) $$, :first), '22004', NULL, 'with a note');
SELECT ndrs_optout.record_complaint('another') AS fourth \gset
SELECT throws_ok(format($$ SELECT ndrs_optout.end_complaint(%s, 'upheld', 'x') $$, :fourth), 'ND021', NULL, 'not before it is acknowledged');
SELECT ndrs_optout.end_complaint(:first, 'upheld', 'the post was late; sorry was said'), ndrs_optout.end_complaint(:second, 'not_upheld', 'all pages were there') \g /dev/null
SELECT throws_ok(format($$ SELECT ndrs_optout.end_complaint(%s, 'upheld', 'x') $$, :first), 'ND021', NULL, 'and once');
SELECT is((SELECT next_action FROM ndrs_optout.complaint_progress WHERE complaint_id = :first),
          (SELECT format('when nothing is to come, SELECT ndrs_optout.lift_hold(%s)', hold_id) FROM ndrs_optout.complaint_progress WHERE complaint_id = :first), 'the hold stays until it is lifted');
SELECT results_eq($$ SELECT sum(received), sum(acknowledged_in_time), sum(acknowledged_late), sum(upheld), sum(not_upheld), sum(open) FROM ndrs_optout.complaint_count $$,
                  'VALUES (4::numeric, 2::numeric, 1::numeric, 1::numeric, 1::numeric, 2::numeric)', 'the year''s count');
SELECT is((SELECT array_agg(source ORDER BY source) FROM ndrs_optout.disclose_records('9990000026') WHERE source = 'complaint'), '{complaint}', 'the patient is told of it');

-- It is kept for the copy's time, and longer while it is held.
UPDATE ndrs_optout.complaint SET kept_until = :'today'::date - 1 WHERE outcome IS NOT NULL;
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'complaints'), 0::bigint, 'a held complaint is kept');
SELECT ndrs_optout.lift_hold(hold_id) FROM ndrs_optout.complaint_progress WHERE hold_id IS NOT NULL \g /dev/null
SELECT ndrs_optout.place_hold(:ada, 'inquiry') AS inquiry \gset
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'complaints'), 1::bigint, 'then it goes, but not what is about a case that another hold keeps');
SELECT ndrs_optout.lift_hold(:inquiry) \g /dev/null
SELECT is((SELECT removed FROM ndrs_optout.purge() WHERE what = 'complaints'), 1::bigint, 'until that is lifted, too');
SELECT is((SELECT count(*) FROM ndrs_optout.audit_event e, story.began b WHERE e.event_id > b.event_id AND ndrs_optout.holds_nhs_number(e.detail::text)), 0::bigint, 'no identifier in the audit');

SELECT throws_ok($$ SELECT ndrs_optout.acknowledge_complaint(9990000018) $$, 'P0002', 'there is no such complaint', 'no number is repeated');
SELECT throws_ok(format($$ SELECT ndrs_optout.acknowledge_complaint(%s, %L) $$, :fourth, :'today'::date + 1), '22023', NULL, 'not tomorrow, either');
SELECT throws_ok(format($$ SELECT ndrs_optout.acknowledge_complaint(%s, %L) $$, :fourth, :'today'::date - 1), '22023', NULL, 'not before it came');
SET ROLE story_officer;
SELECT lives_ok($$ SELECT ndrs_optout.record_complaint('from the officer') $$, 'an officer can do this');
SELECT lives_ok($$ SELECT * FROM ndrs_optout.complaint_progress, ndrs_optout.complaint_count, ndrs_optout.subject_access_progress $$, 'and sees it');
RESET ROLE;
SELECT * FROM finish();
\ir lib/end.psql
