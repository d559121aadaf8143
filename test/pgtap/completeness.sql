-- What opt-outs mean for statistics: by register and month, and no small number.
\ir lib/begin.psql
SELECT plan(16);
SELECT date_trunc('month', ndrs_optout.today() - interval '1 month')::date AS last_month \gset
CREATE VIEW story.effect AS SELECT * FROM ndrs_optout.completeness_effect() WHERE month = date_trunc('month', ndrs_optout.today() - interval '1 month');

-- Ada opts out of cancer; a load brings her again, which the guard skips.
SELECT ndrs_optout.open_case('9990000018', '{cancer}') AS ada \gset
SELECT story.prove(:ada) \g /dev/null
CALL ndrs_optout.carry_out(:ada, '9990000018');
INSERT INTO registry.patient SELECT 100 + i, '9990000018', 'Ada Seeded' FROM generate_series(1, 12) AS i;
SELECT is_empty('SELECT * FROM ndrs_optout.completeness_effect()', 'a month that is not over tells nothing');

-- A month goes by.
UPDATE ndrs_optout.optout_case SET excluded_at = :'last_month', carried_out_at = :'last_month';
UPDATE ndrs_optout.case_erasure SET erased_at = :'last_month';
UPDATE ndrs_optout.guard_tally SET day = :'last_month';
UPDATE ndrs_optout.case_erasure SET row_count = 30 WHERE action = 'deleted' AND row_count > 0;  -- many rows, of one patient
SELECT is((SELECT (register, opted_out, opted_in, rows_erased, rows_turned_away, rows_redacted)::text FROM story.effect WHERE register = 'cancer'),
          '(cancer,,0,,,0)', 'small numbers are not shown, nor those of rows of few patients; nought is');
UPDATE ndrs_optout.policy SET smallest_count = 2;
SELECT ndrs_optout.exclude('9990000042', '{cancer}') \g /dev/null
SELECT is((SELECT (opted_out, rows_erased, rows_turned_away)::text FROM story.effect WHERE register = 'cancer'), '(,,12)', 'rows that any of enough patients can have are');
SELECT ndrs_optout.readmit('9990000042', '{cancer}') \g /dev/null
UPDATE ndrs_optout.policy SET smallest_count = 1;
SELECT is((SELECT (register, opted_out, opted_in, rows_turned_away)::text FROM story.effect WHERE register = 'cancer'), '(cancer,1,0,12)', 'where the policy shows them, they are right');
SELECT is((SELECT rows_erased FROM story.effect WHERE register = 'cancer'),
          (SELECT sum(row_count)::bigint FROM ndrs_optout.case_erasure WHERE action = 'deleted' AND 'cancer' = ANY (registers)), 'as many rows as were erased');
SELECT ok((SELECT rows_erased > 0 FROM story.effect WHERE register = 'cancer'), 'which were some');
SELECT is_empty($$ SELECT * FROM story.effect WHERE register = 'congenital_anomaly' AND opted_out > 0 $$, 'other registers have lost nobody');

-- She opts in again.
SELECT ndrs_optout.complete_case(:ada) \g /dev/null
SELECT ndrs_optout.opt_in('9990000018', '{cancer}') AS again \gset
UPDATE ndrs_optout.optout_case SET carried_out_at = :'last_month' WHERE case_id = :again;
SELECT is((SELECT (opted_out, opted_in)::text FROM story.effect WHERE register = 'cancer'), '(1,1)', 'both are counted');

-- A release that not all of its patients could be in.
SELECT ndrs_optout.exclude('9990000026', '{cancer}') \g /dev/null
SELECT ndrs_optout.add_recipient('biobank', 'Some Biobank', 'nhs_number'), ndrs_optout.add_agreement('biobank', 'consent', 'letter 1', '2000-01-01', '2099-12-31') \g /dev/null
SELECT ndrs_optout.record_release(ARRAY['9990000034']::ndrs_optout.nhs_number[], 'explicit_consent', '{cancer}', 'biobank', :'last_month', 'order') AS release \gset
CREATE TABLE story.cohort AS SELECT unnest(ARRAY['9990000026', '9990000026', '9990000034', NULL]) AS number;
GRANT SELECT ON story.cohort TO story_officer;
SELECT is(ndrs_optout.record_release_loss(:release, 'SELECT number FROM story.cohort'), 3::bigint, 'three rows were left out');
SELECT is(ndrs_optout.record_release_loss(:release, 'SELECT number FROM story.cohort'), 3::bigint, 'and are not counted twice');
SELECT is((SELECT lost_to_sharing FROM story.effect WHERE register = 'cancer'), '{"number_missing": 1, "excluded_from_register": 1}', 'by reason, patients where they are known');
UPDATE ndrs_optout.policy SET smallest_count = DEFAULT;
SELECT is((SELECT lost_to_sharing FROM story.effect WHERE register = 'cancer'), '{"number_missing": null, "excluded_from_register": null}', 'small ones are not shown, either');
SELECT throws_ok($$ SELECT ndrs_optout.record_release_loss(9990000018, 'SELECT number FROM story.cohort') $$, 'P0002', 'there is no such release', 'there must be a release');

-- Who may see it, and record a loss with their own rights.
SELECT ndrs_optout.revoke_access('story_officer', 'officer'), ndrs_optout.grant_access('story_officer', 'analyst') \g /dev/null
SET ROLE story_officer;
SELECT is(ndrs_optout.record_release_loss(:release, 'SELECT number FROM story.cohort'), 3::bigint, 'an analyst records it');
SELECT throws_ok(format($$ SELECT ndrs_optout.record_release_loss(%s, 'SELECT nhs_number FROM registry.patient') $$, :release), '42501', NULL, 'of what the analyst may read');
SELECT lives_ok($$ SELECT * FROM ndrs_optout.completeness_effect() $$, 'and reads the effect');
RESET ROLE;
DELETE FROM ndrs_optout.release_loss;
SELECT * FROM finish();
\ir lib/end.psql
