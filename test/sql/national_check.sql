-- One round trip with the check for national opt-outs: the request, each reply that is
-- none, and the one that is.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
ALTER TABLE national_check ALTER check_id RESTART WITH 1;
CREATE VIEW pg_temp.progress AS SELECT check_id, state, asked_patients, allowed_patients, without_number FROM national_check_progress;

-- ------------------------------------------------------------------ the request

SELECT start_national_check(NULL::nhs_number[]);
SELECT start_national_check('{}'::nhs_number[]);
SELECT start_national_check('{1111111111,NULL}'::nhs_number[]);
SELECT count(*) FROM national_check;

-- Each number once; what cannot be asked about is counted.
SELECT start_national_check('{9990000034,9990000018,0607230002,NULL,9990000018,1111111111,9990000026}'::nhs_number[]);
SELECT * FROM pg_temp.progress;
SELECT * FROM national_check_request(1);
SELECT expires_at - started_at AS life, loaded_at FROM national_check;
SELECT event, detail FROM audit_event WHERE event ~ '^national_check_' ORDER BY entry_id;

-- From a query over the registers, however they write numbers.
CREATE TABLE patient (number text, as_bigint bigint, as_numeric numeric, as_number nhs_number, as_char char(12));
INSERT INTO patient (number) VALUES ('9990000042'), ('999 000 0050'), ('999-000-0042'), (''), (NULL), ('9990000043'), ('1111111111');
UPDATE patient SET as_bigint = nhs_number_or_null(number)::bigint, as_numeric = nhs_number_or_null(number)::bigint,
    as_number = nhs_number_or_null(number), as_char = number;
SELECT c.name, start_national_check(format('SELECT %I FROM public.patient -- with a comment; ', c.name))
    FROM unnest('{number,as_bigint,as_numeric,as_number,as_char}'::text[]) AS c (name);
SELECT * FROM pg_temp.progress WHERE check_id > 1;
SELECT c.check_id, r.line FROM generate_series(2, 6) AS c (check_id), national_check_request(c.check_id) AS r (line);
SELECT start_national_check('TABLE public.patient');
SELECT start_national_check('SELECT 1, 2');
\set VERBOSITY sqlstate
SELECT start_national_check('SELECT encode_nhs_number(as_number) FROM public.patient');
\set VERBOSITY default
SELECT start_national_check('SELECT now()');
SELECT start_national_check(NULL::text);
SELECT start_national_check('SELECT number FROM public.patient WHERE false');
SELECT start_national_check('DELETE FROM public.patient RETURNING number');
SELECT start_national_check('WITH d AS (DELETE FROM public.patient RETURNING number) TABLE d');
SELECT count(*) FROM patient;
-- A mistake must not end in a message that shows the numbers.
SELECT start_national_check('{9990000018,9990000026}');
SELECT start_national_check('9990000018');
SELECT start_national_check('SELECT 9990000018 FROM nowhere');
SELECT load_national_check(2, E'9990000042,\n9990000050,\n');
SELECT count(*) FROM national_check;

SELECT * FROM national_check_request(7);
SELECT * FROM national_check_request(NULL);
SELECT * FROM national_check_request(9990000018);
SELECT cancel_national_check(9990000018);
SELECT load_national_check(9990000018, ARRAY['x']);
SELECT end_exemption(9990000018);

-- ------------------------------------------------- replies that are none

SELECT cancel_national_check(check_id) FROM national_check;
SELECT cancel_national_check(1);
SELECT count(*) FROM national_check_part;
ALTER TABLE national_check ALTER check_id RESTART WITH 1;
SELECT start_national_check('{9990000018,9990000026,9990000034,9990000042,9990000050}'::nhs_number[]) AS this,
       start_national_check('{9990000018,9990000069,9990000077}'::nhs_number[]) AS other;

-- What comes of a reply, and whether everything is as it was.
CREATE FUNCTION pg_temp.everything() RETURNS text LANGUAGE sql AS $$
    SELECT (SELECT string_agg(c::text, ',' ORDER BY check_id) FROM national_check c)
        || (SELECT string_agg(p::text, ',' ORDER BY check_id, part) FROM national_check_part p)
        || (SELECT count(*) FROM audit_event)
$$;
CREATE FUNCTION pg_temp.try(reply text[], OUT error text, OUT detail text, OUT hint text, OUT changed boolean) LANGUAGE plpgsql AS $$
DECLARE
    before text := pg_temp.everything();
BEGIN
    BEGIN
        PERFORM load_national_check(1, reply);
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS error = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
        error := SQLSTATE || ' ' || error;
    END;
    changed := before <> pg_temp.everything();
END
$$;
CREATE TEMP TABLE bad (id int GENERATED ALWAYS AS IDENTITY, kind text, reply text[]);
INSERT INTO bad (kind, reply) VALUES
    ('nothing', NULL),
    ('no lines', '{}'),
    ('a NULL', '{NULL}'),
    ('an empty file', '{""}'),
    ('an empty line', ARRAY[E'\r\n']),
    ('the error', ARRAY['The file contains one or more invalid NHS Numbers.']),
    ('the error with line ends', ARRAY[E'The file contains one or more invalid NHS Numbers.\r\n\r\n']),
    ('the error in lines', ARRAY['The file contains one or more invalid NHS Numbers.', '', '']),
    ('the receipt', ARRAY['{"status":"pending","dataset_id":"mesh_to_pos","local_id":"0001"}']),
    ('the receipt on lines', ARRAY[E'{\n  "status": "pending"\n}\n']),
    ('not a subset', ARRAY[E'9990000018,\n9990000026,\n4000000632,\n']),
    ('another check''s', ARRAY[E'9990000018,\n9990000069,\n']),
    ('a number twice', ARRAY[E'9990000018,\n9990000026,\n9990000018,\n']),
    ('a number twice, in two texts', ARRAY['9990000018,', '9990000018,']),
    ('padded behind', ARRAY[E'9990000018, \n9990000026,\n']),
    ('padded before', ARRAY[E'9990000018,\n 9990000026,\n']),
    ('padded between', ARRAY[E'9990000018 ,\n']),
    ('written apart', ARRAY[E'999 000 0018,\n']),
    ('a heading', ARRAY[E'nhs_number,\n9990000018,\n']),
    ('an error line and more', ARRAY[E'Invalid.\n9990000018,\n']),
    ('an error line at the end', ARRAY[E'9990000018,\nInvalid.\n']),
    ('an error with a number', ARRAY['9990000018 is not valid']),
    ('another column', ARRAY[E'9990000018,1\n']),
    ('quoted', ARRAY[E'"9990000018",\n']),
    ('just a comma', ARRAY[E'9990000018,\n,\n']),
    ('two commas', ARRAY[E'9990000018,,\n']),
    ('cut off', ARRAY[E'9990000018,\n999000']),
    ('cut off with a line end', ARRAY[E'9990000018,\n9990000\n']),
    ('cut off in the middle', ARRAY[E'9990000018,\n9990000,\n9990000026,\n']),
    ('joined', ARRAY[E'9990000018,\n\n9990000026,\n']),
    ('joined, in lines', ARRAY['9990000018,', '', '9990000026,']),
    ('ends with CR alone', ARRAY[E'9990000018,\r9990000026,\r']),
    ('a wrong check digit', ARRAY[E'9990000018,\n9990000027,\n']),
    ('eleven digits', ARRAY[E'99900000180,\n']),
    ('a placeholder', ARRAY[E'1111111111,\n']),
    ('a byte order mark', ARRAY[E'\uFEFF9990000018,\n']),
    ('a page', ARRAY[E'<!DOCTYPE html>\n<html>\n']),
    ('in full width', ARRAY[E'\uFF19\uFF19\uFF19\uFF10\uFF10\uFF10\uFF10\uFF10\uFF11\uFF18,\n']);
SELECT b.kind, t.* FROM bad b CROSS JOIN LATERAL pg_temp.try(b.reply) AS t ORDER BY b.id;
SELECT * FROM pg_temp.progress;

-- From a query it is the same.
CREATE TABLE reply (line text);
SELECT load_national_check(1, 'TABLE public.reply');
INSERT INTO reply VALUES ('{"status":"pending"}');
SELECT load_national_check(1, 'TABLE public.reply');
SELECT load_national_check(1, 'SELECT line, line FROM public.reply');
SELECT load_national_check(3, 'TABLE public.reply');

-- ------------------------------------------------------------------ the reply

-- As it can look, each time from the start.
CREATE FUNCTION pg_temp.load(reply text[], OUT allowed bigint, OUT who text) LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        allowed := load_national_check(1, reply);
        SELECT string_agg(right(n::text, 4), ' ') INTO who
            FROM unnest('{9990000018,9990000026,9990000034,9990000042,9990000050}'::nhs_number[]) AS n
            WHERE encode_nhs_number(n) <@ (SELECT c.allowed FROM national_check c WHERE check_id = 1);
        RAISE EXCEPTION USING ERRCODE = 'ZZ000';
    EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
    END;
END
$$;
SELECT r.kind, l.*
    FROM (VALUES
        (1, 'LF', ARRAY[E'9990000018,\n9990000034,\n9990000050,\n']),
        (2, 'CRLF', ARRAY[E'9990000018,\r\n9990000034,\r\n9990000050,\r\n']),
        (3, 'no line end at the end', ARRAY[E'9990000018,\n9990000034,\n9990000050,']),
        (4, 'no comma at the end', ARRAY[E'9990000018,\r\n9990000034,\r\n9990000050']),
        (5, 'no commas', ARRAY[E'9990000018\n9990000034\n9990000050\n']),
        (6, 'in lines', ARRAY['9990000018,', '9990000034,', '9990000050,']),
        (7, 'in lines, cut by LF', string_to_array(E'9990000018,\r\n9990000034,\r\n9990000050,\r\n', E'\n')),
        (8, 'in texts of many', ARRAY[E'9990000018,\n9990000034,\n', E'9990000050,\n']),
        (9, 'in another order', ARRAY[E'9990000050,\n9990000018,\n9990000034,\n']),
        (10, 'blank lines at the end', ARRAY[E'9990000018,\n9990000034,\n9990000050,\n\n\r\n', '']),
        (11, 'everybody', ARRAY[E'9990000018,\n9990000026,\n9990000034,\n9990000042,\n9990000050,\n']),
        (12, 'one', ARRAY['9990000042'])) AS r (id, kind, reply)
    CROSS JOIN LATERAL pg_temp.load(r.reply) AS l
    ORDER BY r.id;

-- Loaded once: the numbers of the request go.
SELECT load_national_check(1, ARRAY[E'9990000018,\n9990000034,\n9990000050,\n']);
SELECT check_id, count(*) FROM national_check_part GROUP BY check_id;
SELECT * FROM pg_temp.progress;
SELECT expires_at - started_at AS life, loaded_at > started_at AS later FROM national_check WHERE check_id = 1;
SELECT load_national_check(1, ARRAY['9990000018,']);
SELECT * FROM national_check_request(1);
-- Nothing says who opted out.
SELECT attname, atttypid::regtype FROM pg_attribute WHERE attrelid = 'national_check'::regclass AND attnum > 0 ORDER BY attnum;

-- Through a table.
TRUNCATE reply;
INSERT INTO reply VALUES (E'9990000077,\r'), ('9990000018,');
SELECT load_national_check(2, 'TABLE public.reply');
SELECT event, detail FROM audit_event WHERE event ~ '^national_check_' AND (detail ->> 'check')::int <= 2 ORDER BY entry_id DESC LIMIT 4;

-- An older check must not outrank a newer one because the sequence was set back.
BEGIN;
SELECT setval('national_check_check_id_seq', 100);
SELECT start_national_check('{9990000018}'::nhs_number[]) AS later \gset
SELECT load_national_check(:later, ARRAY['9990000018,']);
COMMIT;
SELECT setval('national_check_check_id_seq', 50);
SELECT start_national_check('{9990000018}'::nhs_number[]);
\echo :SQLSTATE
SELECT cancel_national_check(:later);
SELECT start_national_check('{9990000018}'::nhs_number[]) AS check_id \gset
SELECT cancel_national_check(:check_id);
SELECT setval('national_check_check_id_seq', 2);

-- Too late.
SELECT start_national_check('{9990000018}'::nhs_number[]);
UPDATE national_check SET expires_at = now() WHERE check_id = 3;
SELECT load_national_check(3, ARRAY['9990000018,']);
SELECT * FROM pg_temp.progress;

-- The policy says how long a check is good.
BEGIN;
UPDATE policy SET national_check_days = 30;
SELECT start_national_check('{9990000018}'::nhs_number[]);
SELECT expires_at - started_at AS life FROM national_check WHERE check_id = 4;
ROLLBACK;

-- --------------------------------------------------------- what is kept, and how long

-- A request that nobody waits for goes, with its numbers.
SELECT what, due FROM purge_due WHERE due > 0;
SELECT * FROM purge() WHERE what = 'national_checks';
SELECT check_id FROM national_check ORDER BY check_id;
SELECT count(*) FROM national_check_part;
SELECT * FROM purge() WHERE what = 'national_checks';
-- An expired check stays as long as an older one is in force.
UPDATE national_check SET expires_at = now() WHERE check_id = 2;
SELECT id, due_at > now() AS later FROM retention_schedule WHERE what = 'national_checks' ORDER BY id;
SELECT * FROM purge() WHERE what = 'national_checks';
UPDATE national_check SET expires_at = now() WHERE check_id = 1;
SELECT * FROM purge() WHERE what = 'national_checks';
SELECT count(*) FROM national_check;

-- Whoever is erased goes from requests that wait.
SELECT start_national_check('{9990000018,9990000026,9990000042,0607230002}'::nhs_number[]) AS check_id \gset
SELECT source, record - 'started_at' - 'expires_at' - 'check_id' AS record FROM disclose_records('9990000018') WHERE source = 'national_check';
CREATE TABLE guarded (nhs_number nhs_number PRIMARY KEY);
SELECT guard_table('guarded', 'nhs_number', '{cancer}');
INSERT INTO guarded VALUES ('9990000018'), ('9990000042');
SELECT action, row_count FROM erase('9990000018', '{cancer}');
SELECT action, row_count FROM erase('9990000042', '{cancer}');
SELECT * FROM national_check_request(:check_id);
SELECT p.numbers FROM national_check_part p ORDER BY part;
-- The reply to what was sent before holds the patient all the same.
SELECT load_national_check(:check_id, ARRAY['0607230002,', '9990000018']);
SELECT source, record -> 'allowed' AS allowed, record -> 'loaded_at' IS NOT NULL AS loaded FROM disclose_records('9990000018') WHERE source = 'national_check';
SELECT record -> 'allowed' AS allowed FROM disclose_records('9990000026') WHERE source = 'national_check';
SELECT count(*) FROM disclose_records('9990000034') WHERE source = 'national_check';
-- Of who was perhaps not asked about, nothing is known.
SELECT count(*) FROM disclose_records('9990000042') WHERE source = 'national_check';
SELECT share_decision('9990000042', 'research'), share_decision('9990000026', 'research'), share_decision('9990000018', 'research');
SELECT asked_patients, allowed_patients FROM national_check_progress WHERE check_id = :check_id;

-- guard_coverage does not take these tables for ones that hold patients.
SELECT * FROM guard_coverage() WHERE relation::text ~ 'national_check|exemption|purpose';
SELECT cancel_national_check(:check_id);
SELECT unguard_table('guarded');
DROP TABLE patient, reply, guarded;
