-- Whatever an officer, a parent or a DBA gets wrong: a clear error with the right
-- SQLSTATE, which tells nothing of anybody, and nothing is changed.
\ir lib/begin.psql

-- A case in each state, each of another patient.
CREATE TABLE story.subject (state text PRIMARY KEY, number text, case_id bigint);
INSERT INTO story.subject VALUES
    ('awaiting_identity', '9990000018'), ('ready', '9990000026'), ('excluded', '9990000034'), ('carried_out', '9990000042'),
    ('completed', '9990000050'), ('withdrawn', '9990000069'), ('refused', '9990000077'), ('opt_in', '9990000085');
UPDATE story.subject SET case_id = ndrs_optout.open_case(number::ndrs_optout.nhs_number, '{cancer}');
SELECT story.prove(case_id) FROM story.subject WHERE state <> 'awaiting_identity' \g /dev/null
SELECT ndrs_optout.withdraw_case(case_id) FROM story.subject WHERE state = 'withdrawn' \g /dev/null
SELECT ndrs_optout.refuse_case(case_id, 'not for this register') FROM story.subject WHERE state = 'refused' \g /dev/null
SELECT ndrs_optout.case_exclude(case_id, number::ndrs_optout.nhs_number) FROM story.subject WHERE state = 'excluded' \g /dev/null
SELECT format('CALL ndrs_optout.carry_out(%s, %L)', case_id, number) FROM story.subject
    WHERE state IN ('carried_out', 'completed', 'opt_in') \gexec
SELECT ndrs_optout.complete_case(case_id) FROM story.subject WHERE state IN ('completed', 'opt_in') \g /dev/null
UPDATE story.subject SET case_id = ndrs_optout.opt_in(number::ndrs_optout.nhs_number, '{cancer}') WHERE state = 'opt_in';
SELECT ndrs_optout.request_subject_access('9990000026') AS request \gset
SELECT ndrs_optout.record_subject_access_proof(:request, 'identity', 'passport') \g /dev/null
SELECT case_id AS open_id FROM story.subject WHERE state = 'awaiting_identity' \gset

CREATE FUNCTION story.digest() RETURNS text LANGUAGE sql AS $$
    SELECT md5(string_agg(e.relation || e.content, E'\n' ORDER BY e.relation, e.content)) FROM (
        SELECT * FROM story.everything() UNION ALL
        SELECT 'patient', p::text FROM registry.patient p UNION ALL SELECT 'tumour', t::text FROM registry.tumour t UNION ALL
        SELECT 'rare_patient', r::text FROM registry.rare_patient r UNION ALL SELECT 'baby', b::text FROM registry.baby b UNION ALL
        SELECT 'demographics', d::text FROM registry.demographics d) AS e
        -- What was told, and then undone, has its event all the same.
        WHERE e.relation NOT LIKE '%audit_segment'
            AND NOT (e.relation LIKE '%audit_event' AND e.content ~ 'letter_written|subject_access_answered')
$$;
CREATE TABLE story.before AS SELECT story.digest();
CREATE TABLE story.said (call text, answer text);
CREATE FUNCTION story.asked(call text) RETURNS text LANGUAGE sql AS $$
    INSERT INTO story.said VALUES (call, story.refusal(call)) RETURNING left(answer, 5)
$$;
SELECT * FROM no_plan();

-- Which action is lawful in which state.  With "taken" the call does it, and is undone.
CREATE TABLE story.action (call text PRIMARY KEY, lawful text[]);
INSERT INTO story.action VALUES
    ('record_identity(%s, ''identity'', ''passport'')', '{awaiting_identity}'),
    ('record_correspondence(%s, ''email'', ''x'')', '{awaiting_identity,ready,excluded,carried_out,completed,withdrawn,refused,opt_in}'),
    ('record_guardian_call(%s, ''held'')', '{awaiting_identity,ready,excluded,carried_out,completed,opt_in}'),
    ('withdraw_case(%s)', '{awaiting_identity,ready}'),
    ('refuse_case(%s, ''a reason'')', '{awaiting_identity,ready}'),
    ('confirm_identity(%s)', '{ready,excluded,carried_out}'),
    ('case_exclude(%s, %L)', '{ready,excluded,carried_out}'),
    ('complete_case(%s)', '{carried_out,opt_in}'),
    ('completion_letter(%s)', '{completed}'),
    ('erasure_certificate(%s)', '{carried_out,completed}'),
    ('place_hold(%s, ''a complaint'')', '{awaiting_identity,ready,excluded,carried_out,completed,withdrawn,refused,opt_in}');
SELECT is(story.asked('SELECT ndrs_optout.' || format(a.call, s.case_id, s.number)),
          CASE WHEN s.state = ANY (a.lawful) THEN 'taken'
               WHEN s.state = 'awaiting_identity' THEN 'ND020' ELSE 'ND021' END,
          format('%s of a case that is %s', substring(a.call FROM '\w+'), s.state))
    FROM story.action a CROSS JOIN story.subject s ORDER BY a.call, s.state;
-- Not certified in any state: this transaction has written, or the exclusion is not there.
SELECT is(story.asked(format('SELECT ndrs_optout.case_certify(%s, %L)', s.case_id, s.number)),
          CASE s.state WHEN 'awaiting_identity' THEN 'ND020' WHEN 'carried_out' THEN 'taken' ELSE 'ND021' END,
          format('case_certify, by itself, of a case that is %s', s.state))
    FROM story.subject s ORDER BY s.state;

-- Each argument of each function in turn is NULL: what is left out may be, the rest may not.
CREATE TABLE story.whole (name text PRIMARY KEY, arguments text[], nulls text[]);
INSERT INTO story.whole VALUES
    ('open_case', ARRAY['''9990000093''::ndrs_optout.nhs_number', '''{cancer}''', '''self''', '''post''', 'current_date', '''1980-01-02''::date'],
                  '{22004,22023,22023,22023,22023,taken}'),
    ('record_identity', ARRAY[:'open_id', '''identity''', '''passport''', 'current_date', '''x''::bytea', '''applicant'''], '{P0002,22023,22023,22023,taken,22023}'),
    ('record_correspondence', ARRAY[:'open_id', '''form''', '''x''::bytea', 'current_date'], '{P0002,22023,22004,22023}'),
    ('record_guardian_call', ARRAY[:'open_id', '''held'''], '{P0002,22023}'),
    ('withdraw_case', ARRAY[:'open_id'], '{P0002}'),
    ('refuse_case', ARRAY[:'open_id', '''a reason'''], '{P0002,22004}'),
    ('place_hold', ARRAY[:'open_id', '''a complaint'''], '{P0002,22004}'),
    ('place_patient_hold', ARRAY['''9990000018''::ndrs_optout.nhs_number', '''a complaint'''], '{22004,22004}'),
    ('place_register_hold', ARRAY['''cancer''', '''a complaint'''], '{22023,22004}'),
    ('opt_in', ARRAY['''9990000050''::ndrs_optout.nhs_number', '''{cancer}''', '''parent''', '''post''', 'current_date', '''2024-01-01'''], '{22004,22023,22023,22023,22023,22004}'),
    ('erasure_preview', ARRAY['''9990000018''::ndrs_optout.nhs_number', '''{cancer}'''], '{22004,22023}'),
    ('request_subject_access', ARRAY['''9990000018''::ndrs_optout.nhs_number', '''parent''', 'current_date', '''child_agrees'''], '{22004,22023,22023,22023}'),
    ('answer_subject_access', ARRAY[:'request', '''9990000026''::ndrs_optout.nhs_number'], '{P0002,22004}'),
    ('supersede_nhs_number', ARRAY['''9990000050''::ndrs_optout.nhs_number', '''9990000093''::ndrs_optout.nhs_number'], '{22004,22004}'),
    ('set_confidential_key', ARRAY[quote_literal(:'public_key')], '{22004}'),
    ('grant_access', ARRAY['''story_officer''', '''auditor'''], '{42704,22023}'),
    ('revoke_access', ARRAY['''story_officer''', '''officer'''], '{42704,22023}'),
    ('purge', ARRAY['now()'], '{22023}');
SELECT is(story.asked(format('SELECT ndrs_optout.%s(%s)', w.name, array_to_string(w.arguments, ', '))),
          'taken', w.name || ' with everything')
    FROM story.whole w ORDER BY w.name;
SELECT is(story.asked(format('SELECT ndrs_optout.%s(%s)', w.name,
              (SELECT string_agg(CASE i WHEN n THEN 'NULL' ELSE a END, ', ' ORDER BY i) FROM unnest(w.arguments) WITH ORDINALITY AS u (a, i)))),
          w.nulls[n], format('%s with NULL for argument %s', w.name, n))
    FROM story.whole w CROSS JOIN LATERAL generate_subscripts(w.arguments, 1) AS n ORDER BY w.name, n;
SELECT is(cardinality(w.nulls), cardinality(w.arguments), w.name || ': all arguments were tried') FROM story.whole w ORDER BY w.name;
SELECT is_empty($$ SELECT w.name FROM story.whole w WHERE NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'ndrs_optout'::regnamespace
                       AND p.proname = w.name AND p.pronargs = cardinality(w.arguments)) $$, 'a function with more arguments needs more tests');

-- Values that cannot be.
CREATE TABLE story.bad (call text, answer text, position int GENERATED ALWAYS AS IDENTITY);
INSERT INTO story.bad (call, answer) VALUES
    ('open_case(''9999999999'', ''{cancer}'')', 'ND004'),
    ('open_case(''9990000019'', ''{cancer}'')', '22P02'),
    ('open_case(''999000001'', ''{cancer}'')', '22P02'),
    ('open_case('''', ''{cancer}'')', '22P02'),
    ('open_case(''9990000093'', ''{}'')', '22023'),
    ('open_case(''9990000093'', ''{cancer,NULL}'')', '22023'),
    ('open_case(''9990000093'', ''{cancers}'')', '42704'),
    ('open_case(''9990000093'', ''{CANCER}'')', '42704'),
    ('open_case(''9990000093'', ''{9990000093}'')', '42704'),
    ('open_case(''9990000093'', ''{cancer}'', ''friend'')', '22023'),
    ('open_case(''9990000093'', ''{cancer}'', ''Self'')', '22023'),
    ('open_case(''9990000093'', ''{cancer}'', ''self'', ''fax'')', '22023'),
    ('open_case(''9990000093'', ''{cancer}'', received_on => current_date + 1)', '22023'),
    ('open_case(''9990000093'', ''{cancer}'', received_on => ''infinity'')', '22023'),
    ('open_case(''9990000093'', ''{cancer}'', received_on => ''-infinity'')', '22023'),
    ('open_case(''9990000093'', ''{cancer}'', received_on => ''31.02.2026'')', '22008'),
    ('open_case(''9990000093'', ''{cancer}'', date_of_birth => current_date + 1)', '22023'),
    ('open_case(''9990000093'', ''{cancer}'', date_of_birth => ''infinity'')', '22023'),
    ('open_case(''9990000093'', ''{cancer}'', date_of_birth => ''-infinity'')', '22023'),
    ('open_case(''9990000093'', ''{cancer}'', ''parent'', date_of_birth => ''-infinity'')', '22023'),
    ('open_case(''9990000018'', ''{cancer}'')', '23505'),
    ('record_identity(OPEN, ''identity'', ''utility_bill'')', '22023'),
    ('record_identity(OPEN, ''address'', ''passport'')', '22023'),
    ('record_identity(OPEN, ''face'', ''passport'')', '22023'),
    ('record_identity(OPEN, '''', '''')', '22023'),
    ('record_identity(OPEN, ''identity'', ''passport'', current_date + 1)', '22023'),
    ('record_identity(OPEN, ''identity'', ''passport'', ''infinity'')', '22023'),
    ('record_identity(OPEN, ''identity'', ''passport'', ''-infinity'')', '22023'),
    ('record_identity(OPEN, ''identity'', ''passport'', content => '''')', '22023'),
    ('record_identity(-1, ''identity'', ''passport'')', 'P0002'),
    ('record_identity(9990000018, ''identity'', ''passport'')', 'P0002'),
    ('withdraw_case(9990000018)', 'P0002'),
    ('answer_subject_access(9990000018, ''9990000026'')', 'P0002'),
    ('record_correspondence(OPEN, ''passport'', ''x'')', '22023'),
    ('record_correspondence(OPEN, ''form'', '''')', '22023'),
    ('record_correspondence(OPEN, ''form'', ''x'', current_date + 1)', '22023'),
    ('record_correspondence(OPEN, ''form'', ''x'', ''infinity'')', '22023'),
    ('record_correspondence(0, ''form'', ''x'')', 'P0002'),
    ('record_guardian_call(OPEN, ''no'')', '22023'),
    ('record_guardian_call(0, ''held'')', 'P0002'),
    ('withdraw_case(0)', 'P0002'),
    ('refuse_case(OPEN, '''')', '22004'),
    ('refuse_case(OPEN, E''\t '')', '22004'),
    ('refuse_case(OPEN, repeat(''x'', 501))', '22023'),
    ('refuse_case(OPEN, ''999 000 0018 is dead'')', '22023'),
    ('refuse_case(0, ''a reason'')', 'P0002'),
    ('confirm_identity(0)', 'P0002'),
    ('confirm_identity(NULL)', 'P0002'),
    ('complete_case(0)', 'P0002'),
    ('complete_case(NULL)', 'P0002'),
    ('completion_letter(0)', 'P0002'),
    ('completion_letter(NULL)', 'P0002'),
    ('erasure_certificate(0)', 'P0002'),
    ('erasure_certificate(NULL)', 'P0002'),
    ('erasure_preview(''9999999999'', ''{cancer}'')', 'ND004'),
    ('erasure_preview(''9990000018'', ''{}'')', '22023'),
    ('erasure_preview(''9990000018'', ''{cancer,cancers}'')', '42704'),
    ('place_hold(0, ''a complaint'')', 'P0002'),
    ('place_hold(OPEN, ''999-000-0018'')', '22023'),
    ('lift_hold(0)', 'P0002'),
    ('lift_hold(NULL)', 'P0002'),
    ('write_letter(NULL)', 'P0002'),
    ('write_letter(0)', 'P0002'),
    ('extend_deadline(NULL, current_date, ''a reason'')', 'P0002'),
    ('extend_deadline(READY, current_date, ''a reason'')', '22023'),
    ('choose_letter_form(NULL)', 'P0002'),
    ('choose_letter_form(OPEN, ''cy'')', '42704'),
    ('case_exclude(READY, ''9990000018'')', 'ND031'),
    ('case_exclude(READY, ''9999999999'')', 'ND004'),
    ('case_exclude(READY, NULL)', '22004'),
    ('case_exclude(0, ''9990000018'')', 'P0002'),
    ('case_exclude(NULL, ''9990000018'')', 'P0002'),
    ('case_certify(EXCLUDED, ''9990000018'')', 'ND031'),
    ('case_certify(NULL, NULL)', 'P0002'),
    ('opt_in(''9990000093'', ''{cancer}'')', 'ND021'),
    ('opt_in(''9990000050'', ''{cancer,rare_disease}'')', 'ND021'),
    ('opt_in(''9999999999'', ''{cancer}'')', 'ND004'),
    ('opt_in(''9990000050'', ''{}'')', '22023'),
    ('opt_in(''9990000050'', ''{cancers}'')', '42704'),
    ('opt_in(''9990000050'', ''{cancer}'', channel => ''fax'')', '22023'),
    ('opt_in(''9990000050'', ''{cancer}'', channel => ''post'', received_on => current_date + 1)', '22023'),
    ('opt_in(''9990000050'', ''{cancer}'', channel => ''post'', received_on => ''-infinity'')', '22023'),
    ('opt_in(''9990000042'', ''{cancer}'')', '23505'),
    ('request_subject_access(''9999999999'')', 'ND004'),
    ('request_subject_access(''9990000018'', ''friend'')', '22023'),
    ('request_subject_access(''9990000018'', ''parent'')', '22023'),
    ('request_subject_access(''9990000018'', ''self'', ''infinity'')', '22023'),
    ('request_subject_access(''9990000018'', ''self'', current_date, ''child_agrees'')', '22023'),
    ('answer_subject_access(REQUEST, ''9990000018'')', 'ND031'),
    ('answer_subject_access(0, ''9990000018'')', 'P0002'),
    ('disclose_records(NULL::ndrs_optout.nhs_number)', '22004'),
    ('disclose_records(''9999999999''::ndrs_optout.nhs_number)', 'ND004'),
    ('supersede_nhs_number(''9990000050'', ''9990000050'')', '22023'),
    ('supersede_nhs_number(''9990000050'', ''9999999999'')', 'ND004'),
    ('set_confidential_key('''')', '22023'),
    ('set_confidential_key(''9990000018'')', '22023'),
    ('grant_access(''story_officer'', ''boss'')', '22023'),
    ('grant_access(''nobody_here'', ''officer'')', '42704'),
    ('revoke_access(''story_officer'', ''auditor'')', '42704'),
    ('purge(now() + interval ''1 second'')', '22023'),
    ('purge(''infinity'')', '22023'),
    ('purge(''-infinity'')', '22023'),
    ('schedule_purge(NULL)', '22004'),
    ('unschedule_purge()', '55000');
SELECT is(story.asked('SELECT ndrs_optout.' || replace(replace(replace(replace(b.call,
              'OPEN', :'open_id'), 'REQUEST', :'request'),
              'READY', (SELECT case_id::text FROM story.subject WHERE state = 'ready')),
              'EXCLUDED', (SELECT case_id::text FROM story.subject WHERE state = 'excluded'))),
          b.answer, b.call) FROM story.bad b ORDER BY b.position;

SELECT is_empty($$ SELECT p.proname FROM pg_proc p JOIN ndrs_optout.duty_privilege d ON d.name = p.proname
                       WHERE p.pronamespace = 'ndrs_optout'::regnamespace AND p.prokind = 'f' AND d.duty = 'officer' AND 'case_id' = ANY (p.proargnames)
                           AND NOT p.proretset AND p.proname <> 'record_complaint'  -- which may be about no case
                           AND NOT EXISTS (SELECT FROM story.said s WHERE s.call LIKE format('SELECT ndrs_optout.%s(NULL%%', p.proname)
                                               AND s.answer LIKE 'P0002%') $$,
                'each function of the officer that takes a case was tried without one');
SELECT is_empty($$ SELECT c FROM (VALUES ('{}'::jsonb), ('[]'), ('null'), ('"9990000018"'), ('{"case": 9990000018}'), (NULL)) AS v (c)
                       WHERE ndrs_optout.verify_certificate(c) IS DISTINCT FROM false $$, 'what is no certificate does not verify');

-- The procedure, which commits: nothing that it refuses leaves a step done.
\set ON_ERROR_STOP off
\set VERBOSITY sqlstate
SELECT max(case_id) FILTER (WHERE state = 'ready') AS ready_id, max(case_id) FILTER (WHERE state = 'excluded') AS excluded_id,
       max(case_id) FILTER (WHERE state = 'opt_in') AS opt_in_id FROM story.subject \gset
CREATE FUNCTION story.calls(bigint, ndrs_optout.nhs_number) RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL ndrs_optout.carry_out($1, $2); END $$;
CREATE TABLE story.called (call text, expected text, answer text);
CALL ndrs_optout.carry_out(:open_id, '9990000018');
INSERT INTO story.called VALUES ('without proofs', 'ND020', :'SQLSTATE');
CALL ndrs_optout.carry_out(:ready_id, '9990000018');
INSERT INTO story.called VALUES ('for another patient', 'ND031', :'SQLSTATE');
CALL ndrs_optout.carry_out(:ready_id, NULL);
INSERT INTO story.called VALUES ('for nobody', '22004', :'SQLSTATE');
CALL ndrs_optout.carry_out(:ready_id, '9999999999');
INSERT INTO story.called VALUES ('for a placeholder', 'ND004', :'SQLSTATE');
CALL ndrs_optout.carry_out(:ready_id, 'nobody');
INSERT INTO story.called VALUES ('for a name', '22P02', :'SQLSTATE');
CALL ndrs_optout.carry_out(NULL, '9990000018');
INSERT INTO story.called VALUES ('for no case', 'P0002', :'SQLSTATE');
CALL ndrs_optout.carry_out(0, '9990000018');
INSERT INTO story.called VALUES ('for a case that does not exist', 'P0002', :'SQLSTATE');
CALL ndrs_optout.carry_out(:opt_in_id, '9990000085');
INSERT INTO story.called VALUES ('for one who opts in', 'ND021', :'SQLSTATE');
BEGIN;
CALL ndrs_optout.carry_out(:ready_id, '9990000026');
\set answer :SQLSTATE
ROLLBACK;
INSERT INTO story.called VALUES ('in a transaction', '25001', :'answer');
SELECT story.calls(:ready_id, '9990000026');
INSERT INTO story.called VALUES ('in a function', '25001', :'SQLSTATE');
\set VERBOSITY default
\set ON_ERROR_STOP on
SELECT is(answer, expected, 'carry_out ' || call) FROM story.called;

-- The policy.
SELECT throws_ok('UPDATE ndrs_optout.policy SET ' || setting, sqlstate, NULL, setting)
    FROM (VALUES ('deadline_days = 0', '23514'), ('deadline_days = NULL', '23502'), ('deadline_counts = ''days''', '23514'), ('child_age = -1', '23514'),
                 ('copy_years = -1', '23514'), ('evidence_days = 0', '23514'), ('audit_years = 0', '23514')) AS p (setting, sqlstate);

-- All these together: nobody was named, each refusal is the extension's own and clear,
-- and nothing is another than before.
SELECT is_empty($$ SELECT * FROM story.said WHERE answer ~ '999[- ]?000' $$, 'no refusal names a patient');
SELECT is_empty($$ SELECT * FROM story.said WHERE split_part(answer, ' | ', 1) IN ('XX000', '23502', '23514', '42883', '42P01', 'P0001', 'P0003', '0A000') $$,
                'none is an accident of the server''s');
SELECT is_empty($$ SELECT * FROM story.said WHERE answer LIKE 'P0002%' AND answer NOT LIKE '% | View ndrs_optout.%_progress lists the %' $$,
                'who names no case is told where the cases are');
SELECT is_empty($$ SELECT * FROM story.said WHERE answer ~ '^ND02' AND answer !~ ' \| .* \| |is not held$|is not about opting out$|Name only registers' $$,
                'who is too early or too late is told what is lawful, and what comes next');
SELECT is(story.digest(), (SELECT digest FROM story.before), 'nothing was changed, in the registry or here');

SELECT * FROM finish();
\ir lib/end.psql
