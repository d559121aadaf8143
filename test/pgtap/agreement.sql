-- A recipient gets data under an agreement, and not while it is late with deleting what
-- patients recalled; unless that was allowed, with a reason.
\ir lib/begin.psql
SELECT plan(27);

SELECT ndrs_optout.add_recipient('biobank', 'Some Biobank', 'nhs_number'),
       ndrs_optout.add_recipient('trust', 'Some Trust', 'nhs_number', kind => 'care_provider') \g /dev/null
CREATE FUNCTION pg_temp.release(recipient text, purpose text DEFAULT 'explicit_consent', day date DEFAULT ndrs_optout.today(), agreement bigint DEFAULT NULL) RETURNS bigint
    LANGUAGE sql RETURN ndrs_optout.record_release(ARRAY['9990000018', '9990000026']::ndrs_optout.nhs_number[], purpose, '{cancer}', recipient, day, 'order', agreement => agreement);
SELECT ndrs_optout.today() AS today \gset

SELECT throws_ok($$ SELECT pg_temp.release('biobank') $$, 'ND042', 'recipient "biobank" has no agreement in force', 'without an agreement nothing is released');
SELECT lives_ok($$ SELECT pg_temp.release('trust') $$, 'but to a care provider');
SELECT lives_ok($$ SELECT pg_temp.release('biobank', 'direct_care') $$, 'and for individual care');

SELECT throws_ok($$ SELECT ndrs_optout.add_agreement('nobody', 'consent', 'letter 1', '2026-01-01', '2026-12-31') $$, '42704', NULL, 'an agreement is with a recipient');
SELECT throws_ok($$ SELECT ndrs_optout.add_agreement('biobank', 'consent', ' ', '2026-01-01', '2026-12-31') $$, '22004', NULL, 'has a reference');
SELECT throws_ok($$ SELECT ndrs_optout.add_agreement('biobank', 'for 999 000 0018', 'letter 1', '2026-01-01', '2026-12-31') $$, '22023', NULL, 'names no patient');
SELECT throws_ok($$ SELECT ndrs_optout.add_agreement('biobank', 'consent', 'letter 1', '2026-01-01', NULL) $$, '22004', NULL, 'has a last day');
SELECT throws_ok($$ SELECT ndrs_optout.add_agreement('biobank', 'consent', 'letter 1', '2026-01-01', 'infinity') $$, '22023', NULL, 'which is a real one');
SELECT throws_ok($$ SELECT ndrs_optout.add_agreement('biobank', 'consent', 'letter 1', '2026-01-01', '2025-12-31') $$, '22023', NULL, 'and not before the first');

SELECT ndrs_optout.add_agreement('biobank', 'consent', 'letter 1', :'today'::date - 100, :'today'::date - 1) AS past,
       ndrs_optout.add_agreement('biobank', 'consent', 'letter 2', :'today'::date + 1, :'today'::date + 100) AS future \gset
SELECT throws_ok($$ SELECT pg_temp.release('biobank') $$, 'ND042', NULL, 'one of yesterday and one of tomorrow are none');
SELECT throws_ok(format($$ SELECT pg_temp.release('biobank', day => %L) $$, :'today'::date - 10), 'ND042', NULL, 'a day in the past does not help');
SELECT ndrs_optout.add_agreement('biobank', 'consent', 'letter 3', :'today'::date - 5, :'today'::date + 100) AS present \gset
SELECT lives_ok($$ SELECT pg_temp.release('biobank') $$, 'one of today is one');
SELECT is((SELECT array_agg(DISTINCT agreement_id) FROM ndrs_optout.release_progress WHERE recipient = 'biobank' AND purpose <> 'direct_care'), ARRAY[:present::bigint],
          'the release names it');
SELECT throws_ok(format($$ SELECT pg_temp.release('biobank', day => %L) $$, :'today'::date - 10), 'ND042', NULL, 'it does not reach back');
SELECT ndrs_optout.add_agreement('biobank', 'consent', 'letter 4', :'today'::date - 5, :'today'::date + 29) AS another \gset
SELECT throws_ok($$ SELECT pg_temp.release('biobank') $$, 'ND042', 'recipient "biobank" has 2 agreements in force', 'which of two must be said');
SELECT lives_ok(format($$ SELECT pg_temp.release('biobank', agreement => %s) $$, :another), 'and is said');
SELECT throws_ok(format($$ SELECT pg_temp.release('biobank', agreement => %s) $$, :past), 'ND042', NULL, 'not one that is over');
SELECT is((SELECT status FROM ndrs_optout.health_agreements()), 'warning', 'that one ends within 30 days is told');
SELECT ndrs_optout.end_agreement(:another, 'replaced') \g /dev/null
SELECT is((SELECT status FROM ndrs_optout.health_agreements()), 'ok', 'and is well when it was ended');
SELECT throws_ok(format($$ SELECT ndrs_optout.change_agreement(%s, 'renewed', ends_on => '2099-12-31') $$, :another), 'P0002', NULL, 'what was ended is not renewed');

-- Ada opts out, and the biobank does not answer.
SELECT ndrs_optout.open_case('9990000018', '{cancer}') AS ada \gset
SELECT story.prove(:ada) \g /dev/null
CALL ndrs_optout.carry_out(:ada, '9990000018');
CREATE FUNCTION pg_temp.release_other() RETURNS bigint
    LANGUAGE sql RETURN ndrs_optout.record_release(ARRAY['9990000026']::ndrs_optout.nhs_number[], 'explicit_consent', '{cancer}', 'biobank', ndrs_optout.today(), 'order');
SELECT lives_ok($$ SELECT pg_temp.release_other() $$, 'an open recall is no lateness');
UPDATE ndrs_optout.recall_notice SET due_on = :'today'::date - 1;
SELECT throws_ok($$ SELECT pg_temp.release_other() $$, 'ND042', 'recipient "biobank" is late with 2 recall notices', 'an overdue one is');
SELECT ndrs_optout.allow_releases('biobank', :'today', 'trial 7 would lose its safety data') \g /dev/null
SELECT lives_ok($$ SELECT pg_temp.release_other() $$, 'it is allowed, with a reason');
SELECT is((SELECT detail ->> 'reason' FROM ndrs_optout.audit_event WHERE event = 'releases_allowed' ORDER BY event_id DESC LIMIT 1), 'trial 7 would lose its safety data', 'which is in the audit');
SELECT ndrs_optout.disallow_releases('biobank') \g /dev/null
SELECT throws_ok($$ SELECT pg_temp.release_other() $$, 'ND042', NULL, 'and not allowed any more');
SELECT ndrs_optout.acknowledge_recall(notice_id) FROM ndrs_optout.recall_progress WHERE stage <> 'answered' \g /dev/null
SELECT lives_ok($$ SELECT pg_temp.release_other() $$, 'who has answered gets data again');

UPDATE ndrs_optout.agreement SET destruction_due_on = :'today'::date - 1 WHERE agreement_id = :present;
SELECT is((SELECT status FROM ndrs_optout.health_agreements()), 'failed', 'data that should be destroyed and is not is told');
SELECT * FROM finish();
\ir lib/end.psql
