-- Encoded sets.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;

-- Element number i of the tests, spread as encoded numbers are.
CREATE FUNCTION element(i int) RETURNS encoded_nhs_number LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN md5(i::text)::encoded_nhs_number;
-- What a statement ends with
CREATE FUNCTION outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE statement INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;

-- The text form: read in any order, written in one.
SELECT '{}'::encoded_set;
SELECT ' { } '::encoded_set;
SELECT E'{ffffffffffffffffffffffffffffffff ,\t00112233445566778899AABBCCDDEEFF,\nffffffffffffffffffffffffffffffff}'::encoded_set;
SELECT given, outcome(format('SELECT %L::ndrs_optout.encoded_set', given)) FROM unnest(ARRAY[
    '', '{', '}', '{}}', '{{}}', '{} x', '{,}', '{00112233445566778899aabbccddeeff', '00112233445566778899aabbccddeeff',
    '{00112233445566778899aabbccddeeff,}', '{,00112233445566778899aabbccddeeff}', '{00112233445566778899aabbccddeef}',
    '{00112233445566778899aabbccddeeff0}', '{00112233445566778899aabbccddeeff 00112233445566778899aabbccddeeff}',
    '{0011223344556677 8899aabbccddeeff}', '{00112233445566778899aabbccddeefg}', '{NULL}']) AS given;
SELECT '{00112233445566778899aabbccddeefg}'::encoded_set;
SELECT typstorage, typalign, typlen FROM pg_type WHERE oid = 'encoded_set'::regtype;
SELECT pg_column_size('{}'::encoded_set) AS empty, pg_column_size(encoded_set(ARRAY[element(1)])) AS one;

-- From an array
SELECT encoded_set('{}'::encoded_nhs_number[]) = '{}' AS empty,
       encoded_set(ARRAY[element(2), element(1), element(2)]) = encoded_set(ARRAY[element(1), element(2)]) AS order_and_repetition,
       cardinality(encoded_set(ARRAY[[element(1), element(2)], [element(3), element(4)]])) AS dimensions,
       encoded_set(NULL) IS NULL AS null;
SELECT encoded_set(ARRAY[element(1), NULL]);
\echo :SQLSTATE

-- Operators
SELECT s @> element(1) AS yes, element(1) <@ s AS yes, s @> element(4) AS no, element(4) <@ s AS no,
       s @> NULL AS null, NULL::encoded_nhs_number <@ s AS null, element(1) <@ NULL::encoded_set AS null
    FROM (SELECT encoded_set(ARRAY[element(1), element(2), element(3)])) AS v (s);
SELECT a | b = encoded_set(ARRAY[element(1), element(2), element(3)]) AS union,
       a & b = encoded_set(ARRAY[element(2)]) AS intersection,
       a - b = encoded_set(ARRAY[element(1)]) AS difference,
       a = b AS equal, a <> b AS different, a = a | a AS itself, a <> a & a AS itself,
       cardinality(a - a), a | NULL IS NULL AS null
    FROM (SELECT encoded_set(ARRAY[element(1), element(2)]), encoded_set(ARRAY[element(2), element(3)])) AS v (a, b);
SELECT unnest('{ffffffffffffffffffffffffffffffff,00112233445566778899aabbccddeeff}'::encoded_set);
SELECT count(*) FROM unnest('{}'::encoded_set);
SELECT encoded_set_agg(e) AS no_rows FROM (SELECT element(1) WHERE false) AS v (e);
SELECT encoded_set_agg(e) = encoded_set(ARRAY[element(1), element(2)]) AS repetitions_and_nulls
    FROM (VALUES (element(2)), (NULL), (element(1)), (element(2))) AS v (e);
SELECT i, cardinality(encoded_set_agg(element(i / 2)) OVER (ORDER BY i)) FROM generate_series(1, 5) AS i;
-- The aggregate's own functions are nobody's to call.
DO $$
BEGIN
    PERFORM encoded_set_agg_add(NULL, element(1));
EXCEPTION WHEN undefined_function OR feature_not_supported THEN  -- the one or the other, by release
    RAISE NOTICE 'refused';
END
$$;

-- A set against a table of its members: random operations, repeatably.
SELECT setseed(0.4);
CREATE TEMP TABLE pair AS
    SELECT i, ARRAY(SELECT element((random() * range)::int) FROM generate_series(1, (random() ^ 3 * 400)::int + i * 0)) AS a,
           ARRAY(SELECT element((random() * range)::int) FROM generate_series(1, (random() ^ 3 * 400)::int + i * 0)) AS b
        FROM generate_series(1, 200) AS i, LATERAL (SELECT 1 + (random() * 500)::int + i * 0 AS range) AS r;
SELECT min(cardinality(a)) < 5 AS small_ones, max(cardinality(a)) > 300 AS large_ones,
       count(*) FILTER (WHERE NOT a && b) > 0 AS apart, count(*) FILTER (WHERE a <@ b) > 0 AS inside FROM pair;
SELECT count(*) AS wrong FROM pair,
    LATERAL (SELECT encoded_set(a) AS s, encoded_set(b) AS t) AS sets
    WHERE ARRAY(SELECT unnest(s)) IS DISTINCT FROM ARRAY(SELECT DISTINCT e FROM unnest(a) AS e ORDER BY e)
        OR ARRAY(SELECT unnest(s | t)) IS DISTINCT FROM ARRAY(SELECT unnest(a) AS e UNION SELECT unnest(b) ORDER BY e)
        OR ARRAY(SELECT unnest(s & t)) IS DISTINCT FROM ARRAY(SELECT unnest(a) AS e INTERSECT SELECT unnest(b) ORDER BY e)
        OR ARRAY(SELECT unnest(s - t)) IS DISTINCT FROM ARRAY(SELECT unnest(a) AS e EXCEPT SELECT unnest(b) ORDER BY e)
        OR (s = t) IS DISTINCT FROM (a <@ b AND b <@ a)
        OR (s <> t) IS NOT DISTINCT FROM (a <@ b AND b <@ a)
        OR cardinality(s) IS DISTINCT FROM (SELECT count(DISTINCT e) FROM unnest(a) AS e)
        OR s <> (SELECT encoded_set_agg(e) FROM unnest(a) AS e)
        OR s::text::encoded_set <> s
        OR EXISTS (SELECT FROM generate_series(0, 510, 3) AS i
                   WHERE (element(i) <@ s) IS DISTINCT FROM (element(i) = ANY (a))
                       OR (t @> element(i)) IS DISTINCT FROM (element(i) = ANY (b)));

-- Large ones, stored out of line.
CREATE TABLE stored (id int PRIMARY KEY, s encoded_set);
INSERT INTO stored SELECT id, encoded_set_agg(element(i)) FROM generate_series(1, 3) AS id, generate_series(1, 20000) AS i
    WHERE i % id = 0 GROUP BY id;
INSERT INTO stored VALUES (4, '{}'), (5, encoded_set(ARRAY[element(5)])), (6, NULL);
SELECT id, cardinality(s), pg_column_size(s) / cardinality(s) AS bytes_per_member FROM stored WHERE id < 4 ORDER BY id;
SELECT cardinality(a.s | b.s) AS union, cardinality(a.s & b.s) AS intersection, cardinality(a.s - b.s) AS difference, a.s <> b.s AS different
    FROM stored a, stored b WHERE a.id = 2 AND b.id = 3;
-- The set may change from row to row, and from call to call.
SELECT i, bool_and((element(i) <@ s) IS NOT DISTINCT FROM
                   (CASE WHEN id < 4 THEN i <= 20000 AND i % id = 0 WHEN id < 6 THEN i = id AND id = 5 END)) AS right
    FROM generate_series(1, 30006, 6001) AS i, stored GROUP BY i ORDER BY i;
DO $$
DECLARE
    t encoded_set;
BEGIN
    FOR i IN 1 .. 1000 LOOP
        t := encoded_set(ARRAY[element(i), element(i + 1)]);
        IF element(i) <@ t AND t @> element(i + 1) AND NOT element(i + 2) <@ t THEN
            CONTINUE;
        END IF;
        RAISE 'wrong at %', i;
    END LOOP;
END $$;
-- It is fetched once for a query, and for the number of its members hardly at all.
SELECT indexrelid AS toast_index FROM pg_index
    WHERE indrelid = (SELECT reltoastrelid FROM pg_class WHERE oid = 'stored'::regclass) \gset
BEGIN;
SELECT pg_stat_get_xact_numscans(:toast_index) AS scans, pg_stat_get_xact_tuples_returned(:toast_index) AS chunks \gset
SELECT count(*) FROM generate_series(1, 30000) AS i WHERE element(i) <@ (SELECT s FROM stored WHERE id = 1);
SELECT count(*) FROM stored JOIN generate_series(1, 3000) AS i ON s @> element(i) WHERE id = 2;
SELECT pg_stat_get_xact_numscans(:toast_index) - :scans AS fetched, pg_stat_get_xact_tuples_returned(:toast_index) - :chunks > 100 AS whole;
ROLLBACK;
BEGIN;
SELECT pg_stat_get_xact_numscans(:toast_index) AS scans, pg_stat_get_xact_tuples_returned(:toast_index) AS chunks \gset
SELECT sum(cardinality(s)) FROM stored;
SELECT pg_stat_get_xact_numscans(:toast_index) - :scans AS fetched, pg_stat_get_xact_tuples_returned(:toast_index) - :chunks AS chunks;
ROLLBACK;

-- Parallel and serial aggregates are equal, and so are look-ups.
CREATE TABLE numbered AS SELECT i, i % 3 AS third, CASE WHEN i % 100 > 0 THEN element(i % 15000) END AS e FROM generate_series(1, 40000) AS i;
ANALYZE numbered;
SET max_parallel_workers_per_gather = 0;
SELECT encoded_set_agg(e) AS serial FROM numbered \gset
SELECT count(*) AS serial_count FROM numbered WHERE e <@ (SELECT s FROM stored WHERE id = 3) \gset
SET max_parallel_workers_per_gather = 2;
SET min_parallel_table_scan_size = 0;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET parallel_leader_participation = off;
EXPLAIN (COSTS OFF) SELECT encoded_set_agg(e) FROM numbered;
SELECT cardinality(encoded_set_agg(e)), encoded_set_agg(e) = :'serial' AS equal FROM numbered;
EXPLAIN (COSTS OFF) SELECT third, cardinality(encoded_set_agg(e)) FROM numbered GROUP BY third;
SELECT third, cardinality(encoded_set_agg(e)) FROM numbered GROUP BY third ORDER BY third;
SELECT third, count(DISTINCT e) FROM numbered GROUP BY third ORDER BY third;
SELECT cardinality(encoded_set_agg(e)) AS empty FROM numbered WHERE i < 0;
-- Versions differ in how they write the parameter.
DO $$
DECLARE
    plan jsonb;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT json) SELECT count(*) FROM numbered WHERE e <@ (SELECT s FROM stored WHERE id = 3)' INTO plan;
    RAISE NOTICE '%', jsonb_path_query_array(plan, 'strict $.**."Node Type"');
END $$;
SELECT count(*) = :serial_count AS equal, count(*) FROM numbered WHERE e <@ (SELECT s FROM stored WHERE id = 3);
SELECT count(set_config(name, 'on', false)) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SELECT cardinality(exclusion_list('cancer'));
RESET ALL;
SET search_path = public, ndrs_optout;

-- What the planner knows: nothing is in an empty set, but NULL is not false.
CREATE FUNCTION pg_temp.one_time_filter(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    plan jsonb;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan;
    RETURN plan #>> '{0,Plan,One-Time Filter}';
END
$$;
SELECT pg_temp.one_time_filter($$SELECT * FROM numbered WHERE e <@ '{}'$$),
       pg_temp.one_time_filter($$SELECT * FROM numbered WHERE '{}'::encoded_set @> e$$);
SELECT count(*) FILTER (WHERE i IN (1, 100)) AS rows, count(e <@ '{}') AS not_null, count(*) FILTER (WHERE e <@ '{}') AS members,
       count(*) - count('{}'::encoded_set @> e) AS null FROM numbered;
CREATE FUNCTION estimate(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan;
    RETURN plan -> 0 -> 'Plan' ->> 'Plan Rows';
END $$;
SELECT estimate(format('SELECT * FROM ndrs_optout.unnest(%L::ndrs_optout.encoded_set)', s)) FROM stored WHERE id = 3;
-- A fifth of the values is in the set.
SELECT estimate(format('SELECT * FROM numbered WHERE e <@ %L', s)) BETWEEN 3000 AND 14000 AS good,
       estimate(format('SELECT * FROM numbered WHERE %L::ndrs_optout.encoded_set @> e', s)) BETWEEN 3000 AND 14000 AS good
    FROM (SELECT encoded_set_agg(element(i)) FROM generate_series(0, 15000, 5) AS i) AS v (s);

-- The binary form, as version 1 writes it: this must be read for ever.
CREATE TABLE binary_form (s encoded_set);
\set bytes '010000000003' '00112233445566778899aabbccddeeff' '7fffffffffffffffffffffffffffffff' 'ffeeddccbbaa99887766554433221100'
-- A COPY file with one column of one row
\set copy 'perl -e \'print "PGCOPY\\n\\377\\r\\n\\0", pack("NNnN/a*n", 0, 0, 1, pack("H*", $ARGV[0]), 65535)\' '
\set program :copy :bytes
COPY binary_form FROM PROGRAM :'program' (FORMAT binary);
SELECT * FROM binary_form;
SELECT encoded_set_send(s) = ('\x' || :'bytes')::bytea AS same FROM binary_form;
-- Written and read by the server
CREATE TABLE binary_copy (LIKE stored);
SELECT current_setting('data_directory') || '/encoded_set.copy' AS file \gset
COPY stored TO :'file' (FORMAT binary);
COPY binary_copy FROM :'file' (FORMAT binary);
\set program 'rm -f ' :'file'
COPY (SELECT WHERE false) TO PROGRAM :'program';
SELECT count(*), count(*) FILTER (WHERE a.s = b.s OR a.s IS NULL AND b.s IS NULL) AS same FROM stored a JOIN binary_copy b USING (id);

-- Hostile bytes
\set program :copy '0100000000'
COPY binary_form FROM PROGRAM :'program' (FORMAT binary);
\echo :SQLSTATE
\set VERBOSITY terse
\set program :copy ''
COPY binary_form FROM PROGRAM :'program' (FORMAT binary);
\set program :copy '020000000000'
COPY binary_form FROM PROGRAM :'program' (FORMAT binary);
\set program :copy '010100000000'
COPY binary_form FROM PROGRAM :'program' (FORMAT binary);
\set program :copy '0100ffffffff'
COPY binary_form FROM PROGRAM :'program' (FORMAT binary);
\set program :copy '010003938700'
COPY binary_form FROM PROGRAM :'program' (FORMAT binary);
\set program :copy '010010000000'
COPY binary_form FROM PROGRAM :'program' (FORMAT binary);
\set program :copy '01000000000100'
COPY binary_form FROM PROGRAM :'program' (FORMAT binary);
\set program :copy '010000000002' '7fffffffffffffffffffffffffffffff' '7fffffffffffffffffffffffffffffff'
COPY binary_form FROM PROGRAM :'program' (FORMAT binary);
\set program :copy '010000000002' '7fffffffffffffffffffffffffffffff' '00112233445566778899aabbccddeeff'
COPY binary_form FROM PROGRAM :'program' (FORMAT binary);
\set VERBOSITY default
SELECT count(*) FROM binary_form;

-- A damaged page: no cast leads here, so the columns' types are changed behind
-- the server's back.
CREATE CAST (bytea AS encoded_set) WITHOUT FUNCTION;
CREATE TABLE intact AS SELECT n, (SELECT encoded_set_agg(element(i)) FROM generate_series(1, n) AS i) AS s
    FROM unnest(ARRAY[0, 1, 50]) AS n;
UPDATE pg_attribute SET atttypid = 'bytea'::regtype WHERE attrelid = 'intact'::regclass AND attname = 's';
CREATE TABLE damaged AS
    SELECT n, -2 AS at, s FROM intact
    UNION ALL
    SELECT n, at, set_byte(s, at, get_byte(s, at) # 64) AS s FROM intact, generate_series(0, length(s) - 1) AS at
    UNION ALL
    SELECT n, -1, substring(s FOR cut) FROM intact, generate_series(0, length(s) - 1) AS cut
    UNION ALL
    SELECT n, -1, s || decode(repeat('00', more), 'hex') FROM intact, generate_series(1, 64) AS more;
UPDATE pg_attribute SET atttypid = 'encoded_set'::regtype WHERE attrelid IN ('intact'::regclass, 'damaged'::regclass) AND attname = 's';
SELECT n, cardinality(s), element(1) <@ s AS one, element(51) <@ s AS none FROM intact ORDER BY n;
CREATE FUNCTION outcomes(expression text) RETURNS TABLE (outcome text, n bigint) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT outcome(format('SELECT (%s)::text FROM damaged WHERE ctid = %L', expression, ctid)), count(*)
        FROM damaged WHERE at > -2 GROUP BY 1 ORDER BY 1;
END $$;
SELECT * FROM outcomes('s');
SELECT * FROM outcomes('element(3) <@ s');
SELECT * FROM outcomes('s @> element(3)');
SELECT * FROM outcomes('s | s');
SELECT * FROM outcomes('s = s');
SELECT * FROM outcomes('encoded_set_send(s)');
SELECT * FROM outcomes('(SELECT count(*) FROM unnest(s))');
-- This looks at the header only.
SELECT * FROM outcomes('cardinality(s)');
-- Also right after the same value undamaged.
SELECT element(1) <@ s FROM damaged WHERE n = 1 AND at IN (-2, 40);
SELECT element(1) <@ s FROM damaged WHERE n = 50 AND at IN (-2, 40);
DROP TABLE intact, damaged;

-- A register's list as a set, and back.
INSERT INTO exclusion SELECT 'cancer', encode_nhs_number(i::nhs_number)
    FROM generate_series(9990000000, 9990002000) AS i WHERE nhs_number_or_null(i::text) IS NOT NULL;
SELECT exclusion_list('cancer') AS list \gset
SELECT cardinality(:'list'::encoded_set), encode_nhs_number('9990000018') <@ :'list' AS held, cardinality(exclusion_list('rare_disease')) AS other;
SELECT exclude('9990000018', '{rare_disease}');
SELECT key_id AS key FROM encoding_key \gset
SELECT import_exclusion_list('rare_disease', :'key', :'list'), import_exclusion_list('rare_disease', :'key', :'list') AS again;
SELECT exclusion_list('rare_disease') = :'list' AS same, is_excluded('9990000026', 'rare_disease'), is_excluded('9990000026', 'congenital_anomaly');
SELECT import_exclusion_list('congenital_anomaly', :'key', '{}');
SELECT exclusion_list('cancers');
SELECT exclusion_list(NULL);
SELECT import_exclusion_list('cancers', :'key', '{}');
SELECT import_exclusion_list('cancer', :'key', NULL);
\echo :SQLSTATE
-- A set of another key, or of which nobody says the key
SELECT regexp_replace(outcome(format('SELECT ndrs_optout.import_exclusion_list(''cancer'', %L, ''{}'')', k)), '[0-9a-f]{8}', '<key>') AS outcome
    FROM unnest('{00000000,9990000018,"",NULL,ABCDEF01}'::text[]) AS k;
-- All lists with their key
CREATE TEMP TABLE exported AS SELECT * FROM export_exclusion_lists();
DELETE FROM exclusion WHERE register = 'cancer';
SELECT register, import_exclusion_list(register, key_id, members), cardinality(members) FROM exported;
SELECT exclusion_list('cancer') = :'list' AS same;
DROP TABLE exported;
-- Each placeholder is refused, and nothing is imported with it.
SELECT digit, outcome(format('SELECT ndrs_optout.import_exclusion_list(''congenital_anomaly'', %L, %L)',
        :'key', :'list'::encoded_set | encoded_set(ARRAY[encode_nhs_number(repeat(digit::text, 10)::nhs_number)])))
    FROM generate_series(0, 9) AS digit;
SELECT import_exclusion_list('congenital_anomaly', :'key', encoded_set(ARRAY[encode_nhs_number('9999999999')]));
SELECT register, count(*) FROM exclusion GROUP BY register ORDER BY register;
DELETE FROM exclusion;

-- A cancel ends what takes long where it is: the sequence is not reached.
CREATE SEQUENCE reached;
CREATE FUNCTION cancelled(expression text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SELECT CASE WHEN pg_cancel_backend(pg_backend_pid()) THEN (%s) + nextval(''reached'') END
        FROM (SELECT s.a, s.b, s.a::text AS written
                  FROM (SELECT encoded_set_agg(md5(i::text)::encoded_nhs_number) AS a,
                               encoded_set_agg(md5((i + 50000)::text)::encoded_nhs_number) AS b
                            FROM generate_series(1, 100000) AS i OFFSET 0) AS s OFFSET 0) AS v', expression);
    RETURN 'not cancelled';
EXCEPTION WHEN query_canceled THEN
    RETURN (SELECT CASE WHEN is_called THEN 'too late' ELSE 'at once' END FROM reached);
END
$$;
SELECT expression, cancelled(expression)
    FROM unnest('{cardinality(a | b),cardinality(a & b),length(a::text),cardinality(written::encoded_set)}'::text[]) AS expression;
DROP FUNCTION cancelled;
DROP SEQUENCE reached;

DROP TABLE stored, numbered, binary_form, binary_copy, pair;
DROP FUNCTION element, outcome, outcomes, estimate;
