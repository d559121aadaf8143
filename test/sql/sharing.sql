-- May a patient's data be shared?  The whole table of decisions is in test/pgtap; here
-- is what changes one, who may ask, and what is asked about.
\set SHOW_CONTEXT never
\set home :DBNAME
CREATE DATABASE regress_sharing;
\c regress_sharing
SET client_min_messages = warning;
CREATE EXTENSION ndrs_optout CASCADE;
RESET client_min_messages;
SET search_path = public, ndrs_optout;

-- No answer without the key, not even about a missing number.
SELECT share_eligible('9990000018', 'research');
SELECT share_decision(NULL::text, 'sale');
SELECT length(adopt_key());
SELECT add_recipient('university', 'University', 'nhs_number');

-- Wrong calls.
SELECT share_decision('9990000018', NULL);
SELECT share_decision('9990000018', 'profit');
SELECT share_decision('research', '9990000018');
SELECT share_decision('9990000018', 'research', '{}');
SELECT share_decision('9990000018', 'research', '{cancer,NULL}');
SELECT share_decision('9990000018', 'research', '{9990000018}');
SELECT share_decision('9990000018', 'research', '{""}');
SELECT share_eligible('9990000018', repeat('x', 100));

-- Where the national opt-out counts, an answer needs a check; the latest that asked
-- about a patient and has its reply decides.
CREATE VIEW decided AS
    SELECT right(n::text, 4) AS patient, share_eligible(n, 'research') AS eligible, share_decision(n, 'research') AS research,
           share_decision(n, 'direct_care') AS direct_care
        FROM unnest('{9990000018,9990000026,9990000034}'::nhs_number[]) AS n;
SELECT * FROM decided;
SELECT start_national_check('{9990000018,9990000026}'::nhs_number[]);
SELECT * FROM decided;
SELECT load_national_check(1, ARRAY['9990000018,']);
SELECT * FROM decided;
-- A later one has no reply yet; it has one; it says otherwise about whom it asked.
SELECT start_national_check('{9990000018,9990000034}'::nhs_number[]);
SELECT * FROM decided;
BEGIN;
SELECT load_national_check(2, ARRAY['9990000034,']);
SELECT * FROM decided;
ROLLBACK;
SELECT * FROM decided;
BEGIN;
SAVEPOINT before;
SELECT load_national_check(2, ARRAY['9990000018,']);
SELECT * FROM decided;
ROLLBACK TO before;
SELECT load_national_check(2, ARRAY['9990000034,']);
SELECT * FROM decided;
COMMIT;
SELECT * FROM decided;
-- The reply to an older request came later, and is older all the same.
SELECT start_national_check('{9990000026}'::nhs_number[]), start_national_check('{9990000026}'::nhs_number[]);
SELECT load_national_check(4, ARRAY['9990000026,']);
UPDATE national_check SET asked = (SELECT asked FROM national_check WHERE check_id = 2), allowed = '{}', loaded_at = now(), allowed_patients = 0
    WHERE check_id = 3;
SELECT * FROM decided;
SELECT cancel_national_check(3), cancel_national_check(4);
SELECT * FROM decided;
-- The latest has expired: no older one is believed instead.
UPDATE national_check SET expires_at = now() WHERE check_id = 2;
SELECT * FROM decided;
UPDATE national_check SET expires_at = now() + interval '1 hour' WHERE check_id = 2;
SELECT * FROM decided;
UPDATE national_check SET expires_at = now();
SELECT * FROM decided;
SELECT * FROM purge() WHERE removed > 0;
SELECT * FROM decided;
SELECT start_national_check('{9990000018,9990000026}'::nhs_number[]);
SELECT load_national_check(5, ARRAY['9990000018,', '9990000026,']);
SELECT * FROM decided;
-- It expires while a statement runs, which has one answer; the next has another.
CREATE FUNCTION pg_temp.expire() RETURNS void LANGUAGE plpgsql AS
    $$ BEGIN UPDATE ndrs_optout.national_check SET expires_at = clock_timestamp() + interval '0.1 s'; END $$;
SELECT pg_temp.expire(), share_decision('9990000018', 'research') AS before, pg_sleep(0.2), share_decision('9990000018'::bigint, 'research') AS after;
SELECT share_decision('9990000018', 'research');
UPDATE national_check SET expires_at = now() + interval '1 hour';

-- So it does when PL/pgSQL has kept the expression, and with it the last answer.
CREATE FUNCTION kept() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN ndrs_optout.share_decision(9990000018, 'research'); END $$;
BEGIN;
SELECT pg_temp.expire(), kept();
SELECT pg_sleep(0.2);
SELECT kept();
ROLLBACK;

-- A backend keeps both of a check's sets once, however much else changes, and drops them with it.
CREATE VIEW kept_sets AS SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'ndrs_optout national check';
TABLE kept_sets;
BEGIN;
SELECT start_national_check('{9990000018}'::nhs_number[]) AS check_id \gset
SELECT load_national_check(:check_id, ARRAY['9990000018,']);
SELECT * FROM decided;
TABLE kept_sets;
-- Nobody asks for a set here.
SELECT exclude('9990000042', '{cancer}');
SELECT share_decision('9990000042', 'direct_care');
TABLE kept_sets;
ROLLBACK;
SELECT * FROM decided;
TABLE kept_sets;
BEGIN;
DELETE FROM national_check;
SELECT * FROM decided;
TABLE kept_sets;
ROLLBACK;
-- Who else was asked about is not read before somebody asks why, or an older check
-- could allow whom this one did not ask about.
SELECT share_eligible('9990000018', 'research') AS allowed, share_eligible('9990000034', 'research') AS never_asked;
TABLE kept_sets;
SELECT share_decision('9990000034', 'research');
TABLE kept_sets;
BEGIN;
SELECT start_national_check('{9990000018,9990000042}'::nhs_number[]) AS check_id \gset
SELECT load_national_check(:check_id, ARRAY['9990000042,']);
TABLE kept_sets;
SELECT share_eligible('9990000042', 'research') AS allowed;
TABLE kept_sets;
SELECT share_eligible('9990000018', 'research') AS opted_out_since, share_eligible('9990000026', 'research') AS by_the_older;
TABLE kept_sets;
UPDATE national_check SET expires_at = now() WHERE check_id = :check_id;
SELECT share_eligible('9990000042', 'research') AS in_the_expired, share_eligible('9990000018', 'research') AS asked_in_the_expired,
       share_eligible('9990000026', 'research') AS by_the_older;
ROLLBACK;

-- Nobody is believed to be allowed whom a check did not ask about.
BEGIN;
UPDATE national_check SET asked = '{}';
SELECT share_decision('9990000034', 'research');
ROLLBACK;

-- Neither does a replication worker, which fires just what is ENABLE ALWAYS, leave a
-- backend with what it kept.
BEGIN;
SET LOCAL session_replication_role = replica;
SELECT * FROM decided;
UPDATE national_check SET expires_at = now();
SELECT * FROM decided;
TRUNCATE national_check;
SELECT * FROM decided;
ROLLBACK;
CREATE FUNCTION kept_exempted() RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN RETURN ndrs_optout.share_decision('9990000034', 'research', NULL, 'university'); END $$;
BEGIN;
SET LOCAL session_replication_role = replica;
SELECT kept_exempted();
INSERT INTO exemption (recipient, purpose, valid_from, approval_reference) VALUES ('university', 'research', '2000-01-01', 'CAG');
SELECT kept_exempted();
TRUNCATE exemption;
SELECT kept_exempted();
UPDATE purpose SET national_optout_applies = false WHERE code = 'research';
SELECT kept_exempted();
ROLLBACK;

-- An exclusion counts whatever the purpose, from whichever register unless some are named.
BEGIN;
SELECT exclude('9990000018', '{rare_disease}');
SELECT * FROM decided;
SELECT r.registers, share_decision('9990000018', 'research', r.registers)
    FROM (VALUES (NULL::text[]), ('{cancer}'), ('{rare_disease}'), ('{cancer,rare_disease}'), ('{cancer,congenital_anomaly}'), ('{cancer,cancer}')) AS r (registers)
    ORDER BY 1;
SELECT readmit('9990000018', '{rare_disease}');
SELECT * FROM decided;
ROLLBACK;

-- A purpose changes.
BEGIN;
UPDATE purpose SET national_optout_applies = true WHERE code = 'direct_care';
UPDATE purpose SET permitted = false WHERE code = 'research';
SELECT * FROM decided;
ROLLBACK;
SELECT * FROM decided;

-- An exemption is a recipient's, for a purpose, from one day to another, until it is ended.
CREATE VIEW exempted AS
    SELECT r.recipient, p.purpose, share_decision(9990000034, p.purpose, NULL, r.recipient)
        FROM unnest('{university,Company,NULL}'::text[]) AS r (recipient), unnest('{research,planning}'::text[]) AS p (purpose);
SELECT grant_exemption('research', 'university', 'CAG 1', (now() AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date) AS exemption_id \gset
SELECT * FROM exempted;
SELECT share_decision('9990000018', 'research', NULL, 'university'), share_decision('1111111111', 'research', NULL, 'university'),
       share_decision('', 'research', NULL, 'university'), share_decision('x', 'research', NULL, 'university');
BEGIN;
SELECT exclude('9990000034', '{cancer}');
SELECT * FROM exempted;
ROLLBACK;
BEGIN;
SELECT end_exemption(:exemption_id);
SELECT * FROM exempted WHERE recipient = 'university';
ROLLBACK;
-- Its days are those of UTC.
SET TimeZone = 'Etc/GMT+12';
SELECT * FROM exempted WHERE recipient = 'university' AND purpose = 'research';
SET TimeZone = 'Etc/GMT-14';
SELECT * FROM exempted WHERE recipient = 'university' AND purpose = 'research';
RESET TimeZone;
CREATE FUNCTION decided_with(valid_from date, valid_to date) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ndrs_optout.exemption e SET valid_from = decided_with.valid_from, valid_to = decided_with.valid_to;
    RETURN ndrs_optout.share_decision('9990000034', 'research', NULL, 'university');
END
$$;
SELECT v.begins, v.ends, decided_with(t.today + v.begins, t.today + v.ends)
    FROM (SELECT (now() AT TIME ZONE 'UTC')::date AS today) AS t,
         (VALUES (-1, -1), (-1, 0), (-1, NULL), (0, 0), (0, 1), (1, 1), (1, NULL)) AS v (begins, ends);
SELECT v.begins, v.ends, decided_with(v.begins, v.ends)
    FROM (VALUES ('-infinity'::date, NULL::date), ('-infinity', 'infinity'), ('-infinity', '-infinity'), ('infinity', NULL), ('infinity', 'infinity'), ('2000-01-01', '5874897-12-31')) AS v (begins, ends);
TRUNCATE exemption;
SELECT * FROM exempted WHERE recipient = 'university';

-- PL/pgSQL keeps an expression, with what it was worked out to, while its variables change.
BEGIN;
DO $$
DECLARE
    purpose text;
    registers text[];
    recipient text;
    answers text[] := '{}';
BEGIN
    PERFORM ndrs_optout.exclude('9990000026', '{cancer}'), ndrs_optout.grant_exemption('planning', 'university', 'CAG 2');
    FOREACH purpose IN ARRAY '{direct_care,sale,research,direct_care}'::text[] LOOP
        answers := answers || ndrs_optout.share_decision('9990000034'::text, purpose);
    END LOOP;
    FOREACH registers SLICE 1 IN ARRAY '{{rare_disease},{cancer},{rare_disease}}'::text[] LOOP
        answers := answers || ndrs_optout.share_decision('9990000026'::text, 'direct_care', registers);
    END LOOP;
    FOREACH recipient IN ARRAY '{university,Company,NULL,university}'::text[] LOOP
        answers := answers || ndrs_optout.share_decision('9990000034'::text, 'planning', NULL, recipient);
    END LOOP;
    RAISE NOTICE '%', answers;
    ASSERT answers = '{eligible,purpose_not_permitted,not_checked,eligible,eligible,excluded_from_register,eligible,eligible,not_checked,not_checked,eligible}';
END
$$;
ROLLBACK;
-- So does a prepared statement, and each row can have arguments of its own.
PREPARE decide(text, text) AS SELECT share_decision($1, $2);
SET plan_cache_mode = force_generic_plan;
EXECUTE decide('9990000034', 'direct_care');
EXECUTE decide('9990000034', 'research');
RESET plan_cache_mode;
SELECT code, share_decision('9990000034', code) FROM purpose ORDER BY code;

-- However the number is written, and whatever it is kept as.
CREATE TABLE patient (id int PRIMARY KEY, number text, as_number nhs_number, as_bigint bigint, encoded encoded_nhs_number);
INSERT INTO patient (id, number) VALUES (1, '9990000018'), (2, '999 000 0018'), (3, '999-000-0018 '), (4, '9990000026'), (5, '9990000034'),
    (6, '9990000042'), (7, '1111111111'), (8, ''), (9, NULL), (10, ' '), (11, '9990000019'), (12, 'unknown'), (13, '0607230002');
UPDATE patient SET as_number = nhs_number_or_null(number);
UPDATE patient SET as_bigint = as_number::bigint, encoded = encode_nhs_number(as_number);
SELECT exclude('9990000042', '{congenital_anomaly}');
SELECT cancel_national_check(5);
SELECT start_national_check('SELECT number FROM public.patient WHERE id <> 5') AS check_id \gset
SELECT load_national_check(:check_id, ARRAY['9990000018,', '0607230002,', '9990000042']);
SELECT id, share_decision(number, 'research') AS text, share_decision(as_number, 'research') AS nhs_number,
       share_decision(as_bigint, 'research') AS bigint, share_decision(encoded, 'research') AS encoded
    FROM patient ORDER BY id;
SELECT share_decision(12::bigint, 'research'), share_decision(-9990000018, 'research'), share_decision(0::bigint, 'research');
SELECT id FROM patient WHERE share_eligible(number, 'research') <> (share_decision(number, 'research') = 'eligible')
    OR share_eligible(as_number, 'research') <> (share_decision(as_number, 'research') = 'eligible')
    OR share_eligible(as_bigint, 'research') <> (share_decision(as_bigint, 'research') = 'eligible')
    OR share_eligible(encoded, 'research') <> (share_decision(encoded, 'research') = 'eligible');
SELECT id FROM patient WHERE share_eligible(number, 'research') ORDER BY id;
SELECT id FROM patient WHERE share_eligible(number::varchar, 'direct_care') ORDER BY id;

-- How many, and why not.
SELECT * FROM share_summary('SELECT number FROM public.patient', 'research');
SELECT * FROM share_summary('SELECT as_number FROM public.patient', 'research');
SELECT * FROM share_summary('SELECT as_bigint FROM public.patient', 'research');
SELECT * FROM share_summary('SELECT encoded FROM public.patient', 'research');
SELECT * FROM share_summary('SELECT as_bigint::numeric FROM public.patient', 'research', '{cancer}');
SELECT * FROM share_summary('SELECT number FROM public.patient', 'sale');
SELECT * FROM share_summary('SELECT number FROM public.patient', 'research', NULL, 'university');
SELECT * FROM share_summary('SELECT number FROM public.patient WHERE false;', 'research');
SELECT * FROM share_summary('SELECT NULL', 'research');
SELECT * FROM share_summary('TABLE public.patient', 'research');
SELECT * FROM share_summary('public.patient', 'research');
SELECT * FROM share_summary('SELECT 9990000018', 'research');
SELECT * FROM share_summary(NULL, 'research');
SELECT * FROM share_summary('SELECT number FROM public.patient', 'profit');
SELECT * FROM share_summary('SELECT now()', 'research');
-- A long query is looked through for NHS numbers soon.
SET statement_timeout = '30s';
SELECT decision, patients, rows FROM share_summary('SELECT number FROM public.patient WHERE length(number) NOT IN ('
    || (SELECT string_agg(n::text, ', ') FROM generate_series(1000001, 1010000) AS n) || ') AND false', 'research');
SELECT decision, patients, rows FROM share_summary('SELECT number FROM public.patient WHERE length(number) NOT IN ('
    || (SELECT string_agg(n::text, ', ') FROM generate_series(1000001, 1010000) AS n) || ', 9990000018)', 'research');
RESET statement_timeout;

-- Each table's change makes stale what rests on that table: neither a purpose nor an
-- exemption has a backend read the list or the checks again, nor the list the checks.
CREATE VIEW times_read AS
    SELECT relname, seq_scan + idx_scan AS times FROM pg_stat_xact_all_tables
        WHERE relid IN ('exclusion'::regclass, 'national_check'::regclass);
BEGIN;
SELECT share_decision('9990000018', 'research');
CREATE TEMP TABLE read_before AS TABLE times_read;
UPDATE purpose SET name = 'Studies' WHERE code = 'research';
SELECT grant_exemption('research', 'university', 'REC 2') > 0 AS granted;
SELECT share_decision('9990000018', 'research', recipient => 'university');
SELECT t.relname, t.times - b.times AS read_again FROM times_read t JOIN read_before b USING (relname) ORDER BY 1;
INSERT INTO exclusion (register, encoded_nhs_number) VALUES ('cancer', encode_nhs_number('9990000018'));
SELECT share_decision('9990000018', 'research');
SELECT t.relname, t.times > b.times AS read_again FROM times_read t JOIN read_before b USING (relname) ORDER BY 1;
ROLLBACK;
SELECT share_decision('9990000018', 'research');
DROP VIEW times_read;

-- An analyst may ask, and reads what an answer rests on, but neither list nor checks.
CREATE ROLE regress_analyst;
SELECT grant_access('regress_analyst', 'analyst');
GRANT SELECT ON patient TO regress_analyst;
SET ROLE regress_analyst;
SELECT id FROM patient WHERE share_eligible(number, 'research') ORDER BY id;
SELECT count(*) FROM patient WHERE share_eligible(encoded, 'research');
SELECT * FROM share_summary('SELECT number FROM public.patient', 'research');
SELECT * FROM share_summary('SELECT as_number FROM public.patient', 'research');
SELECT * FROM share_summary('SELECT encoded FROM public.patient', 'research');
SELECT * FROM share_summary('SELECT encoded_nhs_number FROM ndrs_optout.exclusion', 'research');
SELECT count(*) > 0 AS purposes FROM purpose;
SELECT count(*) FROM exemption;
SELECT state FROM national_check_progress;
SELECT count(*) FROM national_check;
SELECT count(*) FROM national_check_part;
SELECT national_check_request(:check_id);
SELECT is_excluded('9999999999', 'cancer');
RESET ROLE;

-- Workers answer as the session does, also about what it has not committed.
CREATE TABLE many AS SELECT i, '99900' || lpad(i::text, 5, '0') AS number FROM generate_series(0, 30000) AS i;
INSERT INTO many SELECT i, number FROM many WHERE i % 7 = 0;
ALTER TABLE many SET (parallel_workers = 3);
ANALYZE many;
SELECT start_national_check('SELECT number FROM public.many') AS check_id \gset
BEGIN;
SELECT count(exclude(nhs_number_or_null(number), '{cancer}')) FROM many WHERE number = '9990000107';
CREATE TEMP TABLE reply AS SELECT line FROM national_check_request(:check_id) AS line WHERE line ~ '[1-8],$';
SELECT load_national_check(:check_id, ARRAY(SELECT line FROM reply)) = (SELECT count(*) FROM reply) AS allowed;
SET LOCAL max_parallel_workers_per_gather = 0;
CREATE TEMP TABLE serially AS SELECT share_decision(number, 'research') AS decision, count(*), sum(i) FROM many GROUP BY 1;
SELECT decision, count > 0 AS some FROM serially ORDER BY decision;
SET LOCAL max_parallel_workers_per_gather = 3;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL parallel_leader_participation = off;
EXPLAIN (COSTS off) SELECT share_decision(number, 'research') AS decision, count(*), sum(i) FROM many GROUP BY 1;
WITH together AS MATERIALIZED (SELECT share_decision(number, 'research') AS decision, count(*), sum(i) FROM many GROUP BY 1)
SELECT count(*) AS differences FROM ((TABLE together EXCEPT TABLE serially) UNION ALL (TABLE serially EXCEPT TABLE together)) AS d;
ROLLBACK;

-- The planner expects most rows to stay.
CREATE FUNCTION pg_temp.expected(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan;
    RETURN (plan #>> '{0,Plan,Plan Rows}')::bigint;
END
$$;
SET max_parallel_workers_per_gather = 0;
SELECT round(pg_temp.expected($$SELECT FROM many WHERE share_eligible(number, 'research')$$)::numeric / count(*), 2) FROM many;

DROP TABLE patient CASCADE;
SELECT revoke_access('regress_analyst', 'analyst');
DROP ROLE regress_analyst;
\c :home
DROP DATABASE regress_sharing;
