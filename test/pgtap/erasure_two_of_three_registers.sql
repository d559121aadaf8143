-- Ada leaves two registers of three.  The demographics table serves all three, and
-- keeps her until she leaves the last.
\ir lib/begin.psql
SELECT plan(14);

SELECT ndrs_optout.open_case('9990000018', '{rare_disease,cancer}') AS two \gset
SELECT story.prove(:two) \g /dev/null
SELECT is((SELECT string_agg(format('%s %s %s', relation, action, row_count), ', ' ORDER BY relation::text) FROM ndrs_optout.erasure_preview('9990000018', '{cancer,rare_disease}')),
          'demographics keep 1, patient delete 1, rare_patient delete 1, tumour delete 2',
          'the preview says what will go and what stays');
CALL ndrs_optout.carry_out(:two, '9990000018');
SELECT is(story.held('9990000018'), 'patient 0, tumour 0, rare_patient 0, baby 1, demographics 1', 'she is gone from the two, and in the table that serves the third');
SELECT story.undated(ndrs_optout.complete_case(:two)) AS letter \gset
SELECT alike(:'letter'::text, E'%\n- the National Cancer Register: 3 entries\n- the National Rare Disease Register: 1 entry\n%', 'the letter counts each register''s');
SELECT alike(:'letter'::text, '%Some of our tables also serve the National Congenital Anomaly Register, which you did not ask to leave. We kept 1 entry there. New ones can still come in.%',
             'and is honest about the table that serves the third');
SELECT alike(:'letter'::text, '%We then searched every table that we know can hold such data. We found nothing else.%', 'also about what was left');

-- What comes next is registered where she still belongs.
SELECT lives_ok($$ INSERT INTO registry.demographics VALUES ('9990000018', 'Ada Seeded') $$, 'the table that serves all three still takes her');
SELECT lives_ok($$ INSERT INTO registry.baby VALUES (3, '9990000018') $$, 'and so does the third register');
SELECT throws_ok($$ INSERT INTO registry.rare_patient VALUES (3, 9990000018) $$, '23N01', NULL, 'the second does not');

-- She leaves the third.
SELECT ndrs_optout.open_case('9990000018', '{congenital_anomaly}') AS third \gset
SELECT story.prove(:third) \g /dev/null
CALL ndrs_optout.carry_out(:third, '9990000018');
SELECT is(story.held('9990000018'), 'patient 0, tumour 0, rare_patient 0, baby 0, demographics 0', 'nothing is left of her');
SELECT alike(story.undated(ndrs_optout.complete_case(:third)), E'%\n- the National Cancer Register, the National Congenital Anomaly Register and the National Rare Disease Register: 2 entries\n- the National Congenital Anomaly Register: 2 entries\n%', 'the letter counts the shared table''s');
SELECT throws_ok($$ INSERT INTO registry.demographics VALUES ('9990000018', 'Ada Seeded') $$, '23N01', NULL, 'the shared table takes her no more');
SELECT is((SELECT string_agg(t ->> 'table' || ' ' || (t ->> 'action') || ' ' || (t ->> 'rows'), ', ' ORDER BY t ->> 'table')
               FROM jsonb_array_elements(ndrs_optout.erasure_certificate(:third) -> 'tables') AS t WHERE t ->> 'rows' <> '0'),
          'registry.baby deleted 2, registry.demographics deleted 2', 'and so does the certificate');
SELECT is((SELECT string_agg(register, ', ' ORDER BY register) FROM ndrs_optout.exclusion), 'cancer, congenital_anomaly, rare_disease', 'she is on all three lists');
SELECT is(story.tells('9990000018'), 'nowhere', 'and nowhere else');

SELECT * FROM finish();
\ir lib/end.psql
