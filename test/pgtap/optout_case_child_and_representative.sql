-- A parent acts for a child, and a representative for somebody who cannot.
\ir lib/begin.psql
SELECT plan(32);

-- A child of twelve.
SELECT ndrs_optout.open_case('9990000042', '{congenital_anomaly}', 'parent', 'post', current_date,
                             (current_date - interval '12 years')::date) AS child \gset
SELECT story.prove(:child) \g /dev/null
CALL ndrs_optout.carry_out(:child, '9990000042');
SELECT is(story.held('9990000042'), 'patient 0, tumour 0, rare_patient 0, baby 0, demographics 0', 'the child is gone from the register');
SELECT isnt((SELECT date_of_birth FROM ndrs_optout.optout_case WHERE case_id = :child), NULL, 'its date of birth is known until the case ends');
SELECT story.undated(ndrs_optout.complete_case(:child)) AS letter \gset
SELECT alike(:'letter'::text, E'%\n\nTo the applicant, as the parent of the child\n\n%', 'the letter is to the parent');
SELECT alike(:'letter'::text, '%We have removed your child from the National Congenital Anomaly Register%', 'about the child');
SELECT alike(:'letter'::text, '%we cannot write to your child.%', 'and says what it can mean');
SELECT unalike(:'letter'::text, '%your NHS number%', 'and nothing of the parent''s own number');
SELECT is((SELECT date_of_birth FROM ndrs_optout.optout_case WHERE case_id = :child), NULL, 'then the date is forgotten');

-- The parent's mind changes.
SELECT alike(story.refusal($$ SELECT ndrs_optout.opt_in('9990000042', '{congenital_anomaly}', applicant => 'parent') $$),
             '22004 | a parent''s request needs the child''s date of birth', 'nobody opts a child in whose age nobody knows');
SELECT alike(story.refusal($$ SELECT ndrs_optout.opt_in('9990000042', '{congenital_anomaly}', applicant => 'parent',
                                  date_of_birth => (current_date - interval '14 years')::date) $$),
             '22023 | a parent can act for a child only under the age of 14 | %', 'nor somebody who can act in person');
SELECT ndrs_optout.opt_in('9990000042', '{congenital_anomaly}', applicant => 'parent',
                                   date_of_birth => (current_date - interval '12 years')::date) AS child_in \gset
SELECT story.undated(ndrs_optout.complete_case(:child_in)) AS letter \gset
SELECT alike(:'letter'::text, E'%\n\nTo the applicant, as the parent of the child\n\n%', 'the letter is to the parent');
SELECT alike(:'letter'::text, '%to put your child back on the National Congenital Anomaly Register.%', 'about opting in');
SELECT is((SELECT date_of_birth FROM ndrs_optout.optout_case WHERE case_id = :child_in), NULL, 'and the date is forgotten');

-- The age counts on the day on which the request came: 13 or younger.
CREATE FUNCTION story.parents(born date, asked date) RETURNS text LANGUAGE sql AS $$
    SELECT story.refusal(format('SELECT ndrs_optout.open_case(''9990000050'', ''{cancer}'', ''parent'', ''post'', %L, %L)', asked, born))
$$;
SELECT alike(story.parents('2010-06-15', '2024-06-14'), 'taken', 'a parent acts for a 13-year-old');
SELECT alike(story.parents('2010-06-15', '2024-06-15'), '22023 | a parent can act for a child only under the age of 14 | % | The patient can apply in person, %',
             'and not for a 14-year-old, and the officer is told what is possible');
SELECT is(story.refusal($$ SELECT ndrs_optout.open_case('9990000050', '{cancer}', date_of_birth => '2012-06-15', received_on => '2025-06-15') $$), 'taken', 'a 13-year-old can also act in person');
SELECT alike(story.parents('2012-02-29', '2026-02-28'), '22023 | %', 'who was born on 29 February is fourteen on 28 February');
SELECT alike(story.parents('2012-02-29', '2026-02-27'), 'taken', 'and not before');
SELECT alike(story.parents(NULL, '2025-02-27'), '22004 | a parent''s request needs the child''s date of birth', 'without a date of birth nobody knows');

-- "Under 13", where the registry reads the rule like that.
UPDATE ndrs_optout.policy SET child_age = 13;
SELECT alike(story.parents('2012-06-15', '2025-06-14'), 'taken', 'with the setting for "under 13" a parent of a 12-year-old can');
SELECT alike(story.parents('2012-06-15', '2025-06-15'), '22023 | a parent can act for a child only under the age of 13 | %', 'and of a 13-year-old cannot');
UPDATE ndrs_optout.policy SET child_age = 14;

-- Where the policy says so, a parent proves to be one.
UPDATE ndrs_optout.policy SET parent_authority = true;
SELECT ndrs_optout.open_case('9990000042', '{rare_disease}', 'parent', 'post', current_date,
                             (current_date - interval '12 years')::date) AS child_too \gset
SELECT story.prove(:child_too) \g /dev/null
SELECT is((SELECT (state, missing)::text FROM ndrs_optout.case_progress WHERE case_id = :child_too), '(awaiting_identity,{authority})', 'identity and address are not enough');
SELECT ndrs_optout.record_identity(:child_too, 'authority', 'parental_responsibility') \g /dev/null
SELECT is((SELECT state FROM ndrs_optout.case_progress WHERE case_id = :child_too), 'ready', 'parental responsibility is');
UPDATE ndrs_optout.policy SET parent_authority = false;

-- A representative, at any age.
SELECT ndrs_optout.open_case('9990000026', '{rare_disease}', 'representative', 'post') AS ben \gset
SELECT story.prove(:ben) \g /dev/null
SELECT is((SELECT (state, missing, next_action)::text FROM ndrs_optout.case_progress WHERE case_id = :ben), format('(awaiting_identity,{authority},"SELECT ndrs_optout.write_letter(%s), which offers the Guardian''s call; ask for proof of authority")', :ben),
          'who acts for somebody shows what lets them');
SELECT alike(story.refusal(format('SELECT ndrs_optout.case_exclude(%s, ''9990000026'')', :ben)), 'ND020 | cannot carry out case % proof of authority is missing | %', 'and nothing is done before');
SELECT is(story.refusal(format('SELECT ndrs_optout.record_identity(%s, ''authority'', ''passport'')', :ben)) ~ '^22023 . a passport is not accepted as proof of authority', true, 'a passport shows nothing of the kind');
SELECT ndrs_optout.record_identity(:ben, 'identity', 'passport', proof_of => 'patient') \g /dev/null
SELECT is((SELECT string_agg(proof || ' ' || proof_of, ', ' ORDER BY proof) FROM ndrs_optout.identity_evidence WHERE case_id = :ben), 'address applicant, identity patient', 'whose proofs they are is known');
SELECT ndrs_optout.record_identity(:ben, 'authority', 'power_of_attorney') \g /dev/null
CALL ndrs_optout.carry_out(:ben, '9990000026');
SELECT story.undated(ndrs_optout.complete_case(:ben)) AS letter \gset
SELECT alike(:'letter'::text, E'%\n\nTo the applicant, as the representative of the patient\n\n%', 'the letter is to the representative');
SELECT alike(:'letter'::text, '%We have removed the person you act for from the National Rare Disease Register%', 'about the patient');
SELECT alike(:'letter'::text, '%a coded form of their NHS number%', 'and says whose number it is');
SELECT is((SELECT detail ->> 'applicant' FROM ndrs_optout.audit_event WHERE event = 'case_opened' AND detail -> 'case' = to_jsonb(:ben)), 'representative',
          'the audit knows in which capacity somebody asked');
SELECT is(story.held('9990000026'), 'patient 1, tumour 1, rare_patient 0, baby 0, demographics 1', 'the patient is gone from that register only');
SELECT is(story.tells('9990000042') || ', ' || story.tells('9990000026'), 'nowhere, nowhere', 'and nothing tells who they were');

SELECT * FROM finish();
\ir lib/end.psql
