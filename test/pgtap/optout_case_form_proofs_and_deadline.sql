-- Forms and proofs come by post, in any order, and the clock starts when the last of
-- them is there.  When the letter is due, the policy says.
\ir lib/begin.psql
SELECT plan(22);

-- Ben's form comes on a Monday, his proofs one and two weeks later.
SELECT ndrs_optout.open_case('9990000026', '{cancer}', channel => 'post', received_on => '2025-03-03') AS ben \gset
SELECT ndrs_optout.record_identity(:ben, 'address', 'bank_statement', '2025-03-10') \g /dev/null
SELECT is((SELECT (state, missing, due_on)::text FROM ndrs_optout.case_progress WHERE case_id = :ben),
          '(awaiting_identity,{identity},)', 'with one proof the clock stands');
SELECT ndrs_optout.record_identity(:ben, 'identity', 'driving_licence', '2025-03-17') \g /dev/null
SELECT is((SELECT (clock_started_on, due_on)::text FROM ndrs_optout.optout_case WHERE case_id = :ben), '(2025-03-17,2025-04-06)',
          'it starts with the second proof, and ends 20 days later');
SELECT is((SELECT overdue AND days_left = date '2025-04-06' - current_date FROM ndrs_optout.case_progress WHERE case_id = :ben), true,
          'which is long ago: the case is overdue');
SELECT is((SELECT status FROM ndrs_optout.health() WHERE check_name = 'deadlines'), 'failed', 'and health() says so');

-- Cid's proofs come first and the form last.
SELECT ndrs_optout.open_case('9990000034', '{cancer}', channel => 'post', received_on => '2025-03-17') AS cid \gset
SELECT story.prove(:cid, '2025-03-03') \g /dev/null
SELECT is((SELECT (clock_started_on, due_on)::text FROM ndrs_optout.optout_case WHERE case_id = :cid), '(2025-03-17,2025-04-06)',
          'when the form comes last, the clock starts with it');

-- A better document takes the place of the first, and counts from its own day.
SELECT ndrs_optout.open_case('9990000042', '{cancer}', received_on => '2025-03-03') AS dee \gset
SELECT ndrs_optout.record_identity(:dee, 'identity', 'passport', '2025-03-03'),
       ndrs_optout.record_identity(:dee, 'identity', 'driving_licence', '2025-03-20'),
       ndrs_optout.record_identity(:dee, 'address', 'utility_bill', '2025-03-04') \g /dev/null
SELECT is((SELECT clock_started_on FROM ndrs_optout.optout_case WHERE case_id = :dee), '2025-03-20', 'the document that counts is the last one');
SELECT is((SELECT string_agg(document, ', ' ORDER BY proof) FROM ndrs_optout.identity_evidence WHERE case_id = :dee), 'utility_bill, driving_licence',
          'and the first is not kept');
SELECT alike(story.refusal(format('SELECT ndrs_optout.record_identity(%s, ''address'', ''bank_statement'')', :dee)), 'ND021 | cannot record a proof for case %: it is ready | %',
             'nobody moves the clock when it runs');

-- The most urgent comes first.
SELECT is((SELECT array_agg(case_id) FROM ndrs_optout.case_progress), ARRAY[:ben, :cid, :dee]::bigint[], 'the most urgent case is on top');

-- Days are calendar days: Christmas and Easter count.
SELECT is(ndrs_optout.policy_deadline('2025-12-15'), '2026-01-04', 'calendar days over Christmas');
SELECT is(ndrs_optout.policy_deadline('2025-04-10'), '2025-04-30', 'calendar days over Easter');
SELECT is(ndrs_optout.policy_deadline('2028-02-10'), '2028-03-01', 'and over the last day of a leap February');

-- Or working days, when the registry says so.
UPDATE ndrs_optout.policy SET deadline_counts = 'working_days';
SELECT is((SELECT detail::text FROM ndrs_optout.audit_event WHERE event = 'policy_changed' ORDER BY event_id DESC LIMIT 1),
          '{"deadline_counts": ["calendar_days", "working_days"]}', 'the audit knows who has changed it, and how');
SELECT is(ndrs_optout.policy_deadline('2025-12-15'), '2026-01-15', 'working days over Christmas leave out weekends, 25 and 26 December, and New Year');
SELECT is(ndrs_optout.policy_deadline('2025-04-10'), '2025-05-13', 'over Easter, Good Friday, Easter Monday and the bank holiday in May');
SELECT is(ndrs_optout.policy_deadline('2026-12-18'), '2027-01-20', 'and substitute days: Boxing Day of 2026 falls on a Saturday');
SELECT ndrs_optout.open_case('9990000050', '{cancer}', channel => 'post', received_on => '2025-04-10') AS eve \gset
SELECT story.prove(:eve, '2025-04-10') \g /dev/null
SELECT is((SELECT due_on FROM ndrs_optout.case_progress WHERE case_id = :eve), '2025-05-13', 'a new case is due by working days');
SELECT is((SELECT due_on FROM ndrs_optout.case_progress WHERE case_id = :ben), '2025-04-06', 'an old one as it was promised');
-- A day is proclaimed.
INSERT INTO ndrs_optout.bank_holiday VALUES ('2025-05-12', 'a proclaimed day');
SELECT is(ndrs_optout.policy_deadline('2025-04-10'), '2025-05-14', 'a day that the registry adds counts as well');
DELETE FROM ndrs_optout.bank_holiday WHERE day = '2025-05-12';
UPDATE ndrs_optout.policy SET deadline_days = 10;
SELECT is(ndrs_optout.policy_deadline('2025-04-10'), '2025-04-28', 'and so does another number of days');

-- Setting what is set already is no change.
SELECT count(*) AS changes FROM ndrs_optout.audit_event WHERE event = 'policy_changed' \gset
UPDATE ndrs_optout.policy SET deadline_days = 10;
SELECT is((SELECT count(*)::int FROM ndrs_optout.audit_event WHERE event = 'policy_changed'), :changes, 'the same policy again is no event');
SELECT throws_ok('UPDATE ndrs_optout.policy SET deadline_days = 0', '23514', NULL, 'there is no deadline of no days');

SELECT * FROM finish();
\ir lib/end.psql
