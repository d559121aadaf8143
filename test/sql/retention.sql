-- What is kept for a time only, and how it goes.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
SET timezone = 'Europe/London';
ALTER TABLE hold ALTER hold_id RESTART;
ALTER TABLE optout_case ALTER case_id RESTART WITH 1;
\getenv inputdir PG_ABS_SRCDIR
\set public_file :inputdir /keys/guardian.public.asc
\set public_key `cat :'public_file'`
SELECT length(set_confidential_key(:'public_key')) AS key_id_digits;
DELETE FROM guard_tally; DELETE FROM sweep; DELETE FROM purge_run;
CREATE TABLE patient (nhs_number text);
SELECT guard_table('patient', 'nhs_number', '{cancer}', 'skip');

-- Time passes by putting the past further back.
CREATE FUNCTION ended(this_case bigint, ago interval) RETURNS void LANGUAGE sql AS
    $$ UPDATE ndrs_optout.optout_case SET ended_at = now() - ago, copy_until = (now() - ago + interval '3 years')::date
           WHERE case_id = this_case;
       UPDATE ndrs_optout.case_correspondence SET kept_until = (kept_until - ago)::date WHERE case_id = this_case $$;
CREATE VIEW due AS SELECT what, due, due_since <= now() AS since_then, held FROM purge_due WHERE due > 0 OR held > 0;
CREATE VIEW copies AS SELECT case_id, string_agg(kind, ', ' ORDER BY correspondence_id) AS copies
    FROM case_correspondence GROUP BY case_id;

-- A function for each kind; the audit comes last, since whoever commits an event waits from there on.
SELECT what FROM purge_kind ORDER BY position;

-- A purge before there is anything to purge.
SELECT what, due, due_since, held, last_run_at, last_removed FROM purge_due;
SELECT * FROM purge();
SELECT what, due, last_run_at > now() - interval '1 minute' AS ran, last_removed FROM purge_due;
SELECT count(*) FROM audit_event WHERE event = 'purged';

-- A case is completed.  Three years less a day later the copy is there; a day after the
-- three years it is gone, and so is nothing else.
SELECT open_case('9990000018', '{cancer}', date_of_birth => '1980-01-02') AS case_id \gset
SELECT record_correspondence(:case_id, 'form', 'the form') > 0 AS form, record_correspondence(:case_id, 'email', 'an e-mail') > 0 AS email;
SELECT record_identity(:case_id, 'identity', 'passport'), record_identity(:case_id, 'address', 'utility_bill');
CALL carry_out(:case_id, '9990000018');
SELECT complete_case(:case_id) AS letter \gset
SELECT :'letter' LIKE '%locked copy of the % until ' || english_date((due_at AT TIME ZONE 'UTC')::date) || ', and then destroy it.%' AS day_as_in_the_letter
    FROM retention_schedule WHERE what = 'correspondence';
BEGIN;
SELECT place_hold(:case_id, 'complaint') > 0 AS held;
SELECT completion_letter(:case_id) LIKE '%We may have to keep it for longer, for a complaint or a court.%' AS held_as_in_the_letter;
ROLLBACK;
SELECT ended(:case_id, interval '3 years' - interval '1 day');
SELECT * FROM due;
SELECT what, removed FROM purge() WHERE removed > 0;
SELECT * FROM copies;
SELECT ended(:case_id, interval '3 years' + interval '1 day');
SELECT * FROM due;
-- As of the day before yesterday, it was not due.
SELECT what, removed FROM purge(now() - interval '2 days') WHERE removed > 0;
SELECT what, removed FROM purge() WHERE removed > 0;
SELECT * FROM copies;
SELECT * FROM due;
SELECT last_removed FROM purge_due WHERE what = 'correspondence';
-- Once more.
SELECT what, removed FROM purge() WHERE removed > 0;
SELECT last_removed FROM purge_due WHERE what = 'correspondence';
-- What stays: the case, and that the patient is out.
SELECT case_id, state FROM optout_case;
SELECT is_excluded('9990000018', 'cancer');
SELECT detail - 'audit_until' AS detail FROM audit_event WHERE event = 'purged' ORDER BY event_id DESC LIMIT 1;

-- Cases that were withdrawn or refused are no different; open ones keep their copies.
SELECT open_case('9990000026', '{cancer}') AS withdrawn, open_case('9990000034', '{cancer}') AS refused, open_case('9990000042', '{cancer}') AS open \gset
SELECT count(record_correspondence(c, 'form', 'the form')) FROM unnest(ARRAY[:withdrawn, :refused, :open]) AS c;
SELECT refuse_case(:refused, 'the number is that of 999 000 0042');
SELECT withdraw_case(:withdrawn), refuse_case(:refused, 'not for this register') \g /dev/null
SELECT ended(:withdrawn, '4 years'), ended(:refused, '4 years');
SELECT what, removed FROM purge() WHERE removed > 0;
SELECT * FROM copies;

-- Requests for subject access, three years after they were answered.
INSERT INTO subject_access_request (encoded_nhs_number, applicant, received_on, clock_started_on, due_on, answered_at)
    SELECT encode_nhs_number('9990000018'), a, current_date - 1500, current_date - 1500, current_date - 1470, now() - ago
        FROM (VALUES ('self', interval '3 years 1 day'), ('parent', interval '3 years' - interval '1 day'), ('representative', NULL)) AS v (a, ago);
SELECT * FROM due;
SELECT what, removed FROM purge() WHERE removed > 0;
SELECT applicant FROM subject_access_request ORDER BY applicant;
DELETE FROM subject_access_request;

-- However a number is written, a reason does not hold it.
SELECT w.written, holds_nhs_number('the number is ' || w.written || ', since') AS held,
       holds_nhs_number('the number is ' || w.written || ', since', loosely => false) AS as_the_type_reads_it
    FROM unnest('{9990000018,999 000 0018,999-000-0018,999.000.0018,999/000/0018,999_000_0018,"999,000,0018",999+000+0018,999:000:0018,999–000—0018,999 - 000 - 0018,9 9 9 0 0 0 0 0 1 8,٩٩٩٠٠٠٠٠١٨,۹۹۹ ۰۰۰ ۰۰۱۸,９９９０００００１８,9990000019,99900000180,2026-11-29 12:30:15,complaint 2026/17}'::text[]) AS w (written);
-- A long text is looked through in one pass.
SET statement_timeout = '10s';
SELECT holds_nhs_number(repeat('1 2-3.', 500000)), holds_nhs_number(repeat('99900000 ', 500000)), holds_nhs_number(repeat('9', 3000000));
RESET statement_timeout;
-- Nor does it matter how the session reads backslashes.
\c -
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
-- 19 has no other strings than standard ones.
SELECT count(set_config(name, 'off', false)) FROM unnest('{escape_string_warning,standard_conforming_strings}'::text[]) AS name
    WHERE current_setting('server_version_num')::int < 190000 \g /dev/null
SELECT checked_reason('SaS is no reason') AS reason, checked_reason('s') AS shorter;
SELECT checked_reason(E' \t\n');
\echo :SQLSTATE
SELECT query_source('SELECT 1') LIKE '(SELECT q.value FROM (SELECT 1%' AS query, query_source('(TABLE s);; ') LIKE '%((TABLE s)%' AS in_parentheses;
SELECT query_source('SELECTION');
\echo :SQLSTATE
RESET standard_conforming_strings;

-- A complaint: the hold keeps the copy past its time.
SELECT record_correspondence(:withdrawn, 'email', 'a complaint') > 0 AS recorded;
-- It counts from when it came, not from the end of the case.
SELECT what, due FROM due;
UPDATE case_correspondence SET kept_until = current_date WHERE case_id = :withdrawn;
SELECT place_hold(:withdrawn, 'complaint 2026/17 to the ICO') > 0 AS held;
SELECT * FROM due;
SELECT what, removed FROM purge() WHERE removed > 0;
SELECT * FROM copies;
SELECT case_id, hold_reason FROM case_progress WHERE hold_reason IS NOT NULL;
-- Another hold joins it.
SELECT place_hold(:withdrawn, 'court order') > 0 AS held;
SELECT hold_reason FROM case_progress WHERE hold_reason IS NOT NULL;
SELECT count(lift_hold(hold_id)) FROM hold_progress WHERE case_id = :withdrawn;
SELECT * FROM due;
SELECT what, removed FROM purge() WHERE removed > 0;
SELECT * FROM copies;
SELECT event, detail - 'hold' AS detail FROM audit_event WHERE event ~ '^hold_' ORDER BY event_id;
-- Too late: there is nothing to hold any more.
SELECT place_hold(:withdrawn, 'complaint') AS hold \gset
SELECT lift_hold(:hold);
SELECT lift_hold(:hold);
\echo :SQLSTATE
SELECT place_hold(99, 'complaint');
\echo :SQLSTATE
SELECT place_hold(:open, NULL);
\echo :SQLSTATE
SELECT place_hold(:open, ' ');
SELECT place_hold(:open, repeat('x', 501));
-- What it returns must be what is there now.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT place_hold(:open, 'complaint');
\echo :SQLSTATE
ROLLBACK;

-- A reason is audited, so it holds no number, however it is written.
CREATE FUNCTION refused(reason text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN CASE WHEN ndrs_optout.checked_reason(reason) = reason THEN 'taken' END;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN 'refused';
END $$;
SELECT reason, refused(reason) FROM (VALUES
    (1, '9990000018'), (2, 'NHS9990000018.'), (3, 'complaint of 999 000 0018'), (4, '999-000-0018 of 2026'), (5, 'case 3, 999 000 0018'),
    (6, '2026 999 000 0018 17'), (7, 'of 9 9 9 0 0 0 0 0 1 8, by post'), (8, U&'999\00A0000\00A00018'), (9, U&'no. \FF19\FF19\FF19\FF10\FF10\FF10\FF10\FF10\FF11\FF18'),
    (11, 'reference 9990000019'), (12, 'telephone 0303 123 1113'), (13, 'telephone 19990000018'), (14, '17.05.2026 12:30'), (15, 'case 12345')) AS r (position, reason)
    ORDER BY position;
SELECT place_hold(:open, 'complaint of 999 000 0018');
\echo :SQLSTATE

-- Who does not prove who they are.  Half a year after the last proof the case comes to
-- its end, and what came for it is destroyed; a day before, it is not.
UPDATE optout_case SET received_on = current_date - 300, recorded_at = now() - interval '300 days' WHERE case_id = :open;
SELECT record_identity(:open, 'identity', 'passport', current_date - 290);
SELECT record_identity(:open, 'identity', 'driving_licence', current_date - 179);
SELECT what, removed FROM purge() WHERE removed > 0;
UPDATE identity_evidence SET recorded_at = now() - interval '180 days';
SELECT * FROM due;
BEGIN;
SELECT place_hold(:open, 'complaint') > 0 AS held;
SELECT * FROM due;
SELECT what, removed FROM purge() WHERE removed > 0;
ROLLBACK;
SELECT what, removed FROM purge() WHERE removed > 0;
SELECT state, proofs_destroyed, ended_at IS NOT NULL AS ended, date_of_birth FROM optout_case WHERE case_id = :open;
SELECT count(*) FROM identity_evidence;
SELECT event, detail FROM audit_event WHERE event ~ '^case_' AND detail = jsonb_build_object('case', :open) ORDER BY event_id DESC LIMIT 2;
-- The copy is kept from there on, and the patient can apply again.
SELECT * FROM copies;
SELECT open_case('9990000042', '{cancer}') AS again \gset
-- Nothing came at all; or the form came last.
UPDATE optout_case SET recorded_at = now() - interval '180 days' WHERE case_id = :again;
SELECT open_case('9990000050', '{cancer}') AS form_last \gset
SELECT record_identity(:form_last, 'address', 'bank_statement', current_date - 400);
-- A ready case waits for the registry, however long.
SELECT open_case('9990000069', '{cancer}', received_on => current_date - 900) AS ready \gset
SELECT record_identity(:ready, 'identity', 'passport', current_date - 900), record_identity(:ready, 'address', 'utility_bill', current_date - 900);
SELECT what, removed FROM purge() WHERE removed > 0;
SELECT case_id, state FROM optout_case ORDER BY case_id;
SELECT case_id, proof FROM identity_evidence ORDER BY case_id, proof;

-- The policy decides, but for what was promised.
SELECT record_correspondence(:refused, 'email', 'a question') > 0 AS recorded, ended(:refused, '13 months');
SELECT * FROM due;
UPDATE policy SET copy_years = 1, evidence_days = 399;
UPDATE policy SET copy_years = 1;
SELECT * FROM due;
UPDATE policy SET copy_years = 3, evidence_days = 180;
-- It is there, always.
DELETE FROM policy;
\echo :SQLSTATE
TRUNCATE policy;
\echo :SQLSTATE
-- One that is inserted takes its place.
INSERT INTO policy (deadline_days) VALUES (21);
SELECT deadline_days FROM policy;
UPDATE policy SET deadline_days = 20;
SELECT * FROM due;

-- Counts of guards are summed up when the day is over.
INSERT INTO guard_tally SELECT 'patient', current_date - d, f, 'skip', n FROM generate_series(0, 2) AS d, unnest('{excluded,missing}'::text[]) AS f, generate_series(1, 3) AS n;
INSERT INTO guard_tally VALUES ('patient', current_date - 5, 'excluded', 'skip', 7);
CREATE TEMP TABLE before AS SELECT * FROM guard_count;
SELECT ctid AS single FROM guard_tally WHERE day = current_date - 5 \gset
SELECT * FROM due;
SELECT what, removed FROM purge(date_trunc('day', now())) WHERE removed > 0;
SELECT current_date - day AS days_ago, finding, count(*), sum(rows) FROM guard_tally GROUP BY 1, 2 ORDER BY 1, 2;
SELECT count(*) FROM (TABLE before EXCEPT TABLE guard_count) AS lost;
-- What is one row already is not written again.
SELECT ctid = :'single' AS untouched FROM guard_tally WHERE day = current_date - 5;
-- A loader of yesterday comes late.
INSERT INTO guard_tally VALUES ('patient', current_date - 1, 'excluded', 'skip', 10);
SELECT what, removed FROM purge() WHERE removed > 0;
SELECT sum(rows_skipped) FROM guard_count WHERE day = current_date - 1;

-- Of finished sweeps the latest stays, and what goes on.
SET client_min_messages = warning;
CALL sweep('patient'); CALL sweep('patient'); CALL sweep();
RESET client_min_messages;
INSERT INTO sweep (target, fingerprint) VALUES (NULL, 'going on');
INSERT INTO sweep (target, fingerprint, finished_at) VALUES (NULL, 'latest', now());
SELECT * FROM due;
SELECT what, removed FROM purge() WHERE removed > 0;
SELECT fingerprint IN ('going on', 'latest') AS stays, finished_at IS NOT NULL AS finished FROM sweep ORDER BY sweep_id;
SELECT count(*) FROM sweep_leaf;

-- The audit goes by whole months after ten years.
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER append_only;
DELETE FROM audit_event;
DELETE FROM audit_segment;
ALTER TABLE audit_event ENABLE ALWAYS TRIGGER append_only;
COMMIT;
CREATE FUNCTION happened(event text, ago interval) RETURNS void LANGUAGE sql AS
    $$ INSERT INTO ndrs_optout.audit_event (event, detail, acting_role, happened_at) VALUES (event, '{}', 'somebody', now() - ago) $$;
SELECT happened('first', '12 years'), happened('second', '12 years');
SELECT happened('third', '11 years');
SELECT happened('fourth', '10 years 32 days');
-- Its month was not over ten years ago.
SELECT happened('fifth', '10 years');
SELECT happened('sixth', '5 years');
SELECT * FROM verify_audit();
SELECT what, due FROM due;
-- Nobody else removes them, nor marks as purged what is not due.
DELETE FROM audit_event WHERE event = 'first';
\echo :SQLSTATE
UPDATE audit_segment SET purged_at = now() WHERE segment > now() - interval '9 years';
UPDATE audit_segment SET purged_at = now();
SELECT what, removed FROM purge() WHERE removed > 0;
SELECT event FROM audit_event ORDER BY event_id;
SELECT count(*), count(*) FILTER (WHERE purged_at IS NOT NULL) AS purged FROM audit_segment;
SELECT detail ->> 'audit_events' AS events, (detail ->> 'audit_until')::date < now() - interval '10 years' AS until FROM audit_event WHERE event = 'purged';
SELECT * FROM verify_audit();
SELECT problem FROM verify_audit(1, '\x00');
SELECT what, removed FROM purge() WHERE removed > 0;
SELECT * FROM verify_audit();
DELETE FROM audit_event WHERE event = 'fifth';
\echo :SQLSTATE
UPDATE audit_segment SET purged_at = NULL WHERE purged_at IS NOT NULL;

-- What somebody changes is still found, before and after.
CREATE FUNCTION pg_temp.found_out() RETURNS SETOF text LANGUAGE sql AS
    $$ SELECT regexp_replace(problem, '\d[-\d]*', 'N', 'g') FROM ndrs_optout.verify_audit() ORDER BY 1 $$;
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
UPDATE audit_event SET event = 'FIFTH' WHERE event = 'fifth';
SELECT pg_temp.found_out();
ROLLBACK;
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
DELETE FROM audit_event WHERE event = 'fifth';
SELECT pg_temp.found_out();
ROLLBACK;
-- The purge is denied, or done by hand.
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
UPDATE audit_event SET detail = detail - 'audit_until' WHERE event = 'purged';
SELECT pg_temp.found_out();
ROLLBACK;
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
ALTER TABLE audit_segment DISABLE TRIGGER USER;
UPDATE audit_segment SET purged_at = now() WHERE segment = (SELECT segment FROM audit_event WHERE event = 'sixth');
DELETE FROM audit_event WHERE event = 'sixth';
SELECT pg_temp.found_out();
ROLLBACK;
BEGIN;
UPDATE audit_segment SET closing_link = '\x00' WHERE segment = (SELECT max(segment) FROM audit_segment WHERE purged_at IS NOT NULL);
SELECT pg_temp.found_out();
ROLLBACK;
-- The beginning goes as a whole, purged or not.
BEGIN;
DELETE FROM audit_segment WHERE segment = (SELECT min(segment) FROM audit_segment);
SELECT pg_temp.found_out();
ROLLBACK;
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER USER;
DELETE FROM audit_event WHERE event = 'fifth';
DELETE FROM audit_segment s WHERE NOT EXISTS (SELECT FROM audit_event e WHERE e.segment = s.segment);
SELECT pg_temp.found_out();
ROLLBACK;
SELECT * FROM verify_audit();

-- The database was off for twelve years, and everything is due at once; nothing was
-- audited since, and the chain goes on where it ended.
BEGIN;
ALTER TABLE audit_event DISABLE TRIGGER append_only;
DELETE FROM audit_event;
DELETE FROM audit_segment;
ALTER TABLE audit_event ENABLE ALWAYS TRIGGER append_only;
COMMIT;
-- In the middle of months, which are UTC's
SELECT count(happened('old', now() - (date_trunc('month', now()) + interval '14 days' - make_interval(months => 180 - m))))
    FROM generate_series(1, 36) AS m;
SELECT ended(:refused, '12 years'), ended(:open, '12 years');
UPDATE optout_case SET recorded_at = now() - interval '4000 days' WHERE case_id = :form_last;
UPDATE identity_evidence SET recorded_at = now() - interval '4000 days' WHERE case_id = :form_last;
SELECT * FROM due;
SELECT * FROM purge();
SELECT * FROM due;
SELECT * FROM copies;
SELECT case_id, state FROM optout_case ORDER BY case_id;
SELECT event FROM audit_event ORDER BY event_id;
SELECT count(*), count(*) FILTER (WHERE purged_at IS NOT NULL) AS purged FROM audit_segment;
SELECT * FROM verify_audit();
SELECT is_excluded('9990000018', 'cancer');
-- The audit goes on.
SELECT audit('later');
SELECT * FROM verify_audit();

-- Not ahead of time, and not with an old snapshot.
SELECT * FROM purge(now() + interval '1 second');
\echo :SQLSTATE
SELECT * FROM purge(NULL);
SELECT * FROM purge('-infinity');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM purge();
\echo :SQLSTATE
ROLLBACK;

SELECT unguard_table('patient');
DELETE FROM case_erasure; DELETE FROM case_correspondence; DELETE FROM identity_evidence; DELETE FROM case_certificate; DELETE FROM optout_case; DELETE FROM confidential_key;
DELETE FROM exclusion; DELETE FROM guard_tally; DELETE FROM sweep; DELETE FROM purge_run;
DROP VIEW due, copies;
DROP FUNCTION ended, happened, refused;
DROP TABLE patient;
