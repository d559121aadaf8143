-- The exclusion list, and what a backend keeps of it.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;

SELECT * FROM register ORDER BY code;

SELECT exclude('9990000018', '{cancer,rare_disease}');
SELECT exclude('9990000018', '{cancer}');
SELECT register, count(*) FROM exclusion GROUP BY register ORDER BY register;
SELECT is_excluded('9990000018', 'cancer') AS literal,
       is_excluded('999 000 0018'::text, 'cancer') AS text,
       is_excluded(9990000018, 'cancer') AS bigint,
       is_excluded('9990000018'::nhs_number, 'cancer') AS nhs_number,
       is_excluded('9990000018', 'congenital_anomaly') AS other_register,
       is_excluded('9990000026', 'cancer') AS other_patient;
-- What is not an NHS number is neither on the list nor off it.
SELECT is_excluded('9990000019', 'cancer'), is_excluded(9990000019, 'cancer'),
       is_excluded('', 'cancer'), is_excluded(NULL::text, 'cancer');
-- The register may change from row to row.
SELECT code, is_excluded('9990000018', code) FROM register ORDER BY code;

-- A register that does not exist is an error, not an empty list.
SELECT is_excluded('9990000018', 'cancers');
\echo :SQLSTATE
SELECT is_excluded('9990000018', repeat('c', 100));
SELECT exclude('9990000018', '{cancers}');
SELECT exclude('9990000018', '{}');
SELECT exclude('9990000018', NULL);
SELECT exclude('9990000018', '{cancer,NULL}');
SELECT exclude(NULL, '{cancer}');
SELECT readmit('9990000018', '{cancers}');

-- A placeholder is nobody: it cannot be excluded and never matches.
SELECT exclude('9999999999', '{cancer}');
\echo :SQLSTATE
INSERT INTO exclusion SELECT 'cancer', encode_nhs_number('9999999999');
SELECT is_excluded('9999999999', 'cancer');
DELETE FROM exclusion WHERE encoded_nhs_number = encode_nhs_number('9999999999');

-- A merged number: the exclusions follow, and the old number stays excluded.
SELECT exclude('9990000034', '{cancer,congenital_anomaly}'), exclude('9990000042', '{cancer}');
SELECT supersede_nhs_number('9990000034', '9990000042');
SELECT code, is_excluded('9990000034', code) AS old, is_excluded('9990000042', code) AS new FROM register ORDER BY code;
SELECT supersede_nhs_number('9990000042', '9990000050');
SELECT supersede_nhs_number('9990000069', '9990000077');
SELECT code, is_excluded('9990000050', code) AS newer, is_excluded('9990000077', code) AS other FROM register ORDER BY code;
SELECT supersede_nhs_number('9990000034', '9990000034');
SELECT supersede_nhs_number('9990000034', '9999999999');
\echo :SQLSTATE
SELECT supersede_nhs_number('9999999999', '9990000034');
SELECT supersede_nhs_number('9990000034', NULL);
-- An open case goes on with the old number, and says so.
ALTER TABLE optout_case ALTER case_id RESTART WITH 1;
SELECT open_case('9990000034', '{rare_disease}');
SELECT supersede_nhs_number('9990000034', '9990000085');
DELETE FROM case_certificate; DELETE FROM optout_case;
DELETE FROM exclusion WHERE encoded_nhs_number <> encode_nhs_number('9990000018');

-- A change is seen at once, and gone when it is taken back.
BEGIN;
SELECT exclude('9990000026', '{cancer}');
SELECT is_excluded('9990000026', 'cancer');
ROLLBACK;
SELECT is_excluded('9990000026', 'cancer');
BEGIN;
SAVEPOINT s;
SELECT exclude('9990000026', '{cancer}');
SELECT is_excluded('9990000026', 'cancer');
ROLLBACK TO s;
SELECT is_excluded('9990000026', 'cancer');
COMMIT;
SELECT readmit('9990000018', '{cancer}');
SELECT is_excluded('9990000018', 'cancer'), is_excluded('9990000018', 'rare_disease');
BEGIN;
TRUNCATE exclusion;
SELECT is_excluded('9990000018', 'rare_disease');
ROLLBACK;
SELECT is_excluded('9990000018', 'rare_disease');
BEGIN;
SET LOCAL session_replication_role = replica;
DELETE FROM exclusion;
SELECT is_excluded('9990000018', 'rare_disease') AS also_for_a_replica;
ROLLBACK;

-- In a statement that keeps answers, one is as old as the statement, and no older.
CREATE TABLE asked AS SELECT i, '9990000026'::nhs_number AS number FROM generate_series(1, 3) AS i;
CREATE TABLE once AS SELECT 1 AS x;
ANALYZE asked, once;
CREATE FUNCTION plan_has(query text, node text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    line text;
    found boolean := false;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS off) ' || query LOOP
        found := found OR line LIKE '%' || node || '%';
    END LOOP;
    RETURN found;
END
$$;
SELECT plan_has($$ SELECT a.i, k.excluded FROM asked a
    CROSS JOIN LATERAL (SELECT is_excluded(a.number, 'cancer') AS excluded FROM once OFFSET 0) AS k $$, 'Memoize');
PREPARE ask AS SELECT a.i, k.excluded, CASE WHEN a.i = 1 THEN exclude(a.number, '{cancer}') END FROM asked a
    CROSS JOIN LATERAL (SELECT is_excluded(a.number, 'cancer') AS excluded FROM once OFFSET 0) AS k;
BEGIN ISOLATION LEVEL REPEATABLE READ;
EXECUTE ask;
EXECUTE ask;
ROLLBACK;
SET enable_memoize = off;
DEALLOCATE ask;
PREPARE ask AS SELECT a.i, k.excluded, CASE WHEN a.i = 1 THEN exclude(a.number, '{cancer}') END FROM asked a
    CROSS JOIN LATERAL (SELECT is_excluded(a.number, 'cancer') AS excluded FROM once OFFSET 0) AS k;
BEGIN;
EXECUTE ask;
ROLLBACK;
RESET enable_memoize;
DEALLOCATE ask;
-- An EXISTS that asks is still a join, and can be shared among workers.
SELECT node, plan_has($$ SELECT count(*) FROM asked a
    WHERE EXISTS (SELECT FROM asked p WHERE p.i = a.i AND NOT is_excluded(p.number, 'cancer')) $$, node)
    FROM unnest('{Semi Join,SubPlan}'::text[]) AS node;
BEGIN;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SELECT plan_has('SELECT count(*) FROM asked WHERE NOT is_excluded(number, ''cancer'')', 'Gather');
ROLLBACK;
DROP FUNCTION plan_has;
DROP TABLE asked, once;

-- A site's own register.
INSERT INTO register VALUES ('screening', 'Screening Register');
SELECT exclude('9990000018', '{screening}');
SELECT is_excluded('9990000018', 'screening');
DELETE FROM register WHERE code = 'screening';
DELETE FROM exclusion WHERE register = 'screening';
DELETE FROM register WHERE code = 'screening';
SELECT is_excluded('9990000018', 'screening');
\set VERBOSITY sqlstate
INSERT INTO register VALUES (repeat('x', 64), 'too long');
\set VERBOSITY default

-- Larger than one step of the rebuild.
INSERT INTO exclusion
    SELECT 'cancer', encode_nhs_number(i::nhs_number) FROM generate_series(9990000000, 9990005000) AS i
        WHERE nhs_number_or_null(i::text) IS NOT NULL;
SELECT count(*), count(*) FILTER (WHERE is_excluded(i, 'cancer')) AS excluded
    FROM generate_series(9990000000, 9990010000) AS i WHERE nhs_number_or_null(i::text) IS NOT NULL;
-- Most of the table is read from one end to the other, a small part by its key.
SELECT exclude('9990000018', '{rare_disease}');
-- A code that begins like another is another.
INSERT INTO register VALUES ('cancer2', 'begins like another');
INSERT INTO exclusion
    SELECT 'cancer2', encode_nhs_number(i::nhs_number) FROM generate_series(9990005001, 9990010000) AS i
        WHERE nhs_number_or_null(i::text) IS NOT NULL;
ANALYZE exclusion;
SELECT count(*) FILTER (WHERE is_excluded(i, 'cancer')) AS most,
       count(*) FILTER (WHERE is_excluded(i, 'cancer2')) AS rest,
       count(*) FILTER (WHERE is_excluded(i, 'rare_disease')) AS one,
       count(*) FILTER (WHERE is_excluded(i, 'congenital_anomaly')) AS none
    FROM generate_series(9990000000, 9990010000) AS i;
DELETE FROM exclusion;
DELETE FROM register WHERE code = 'cancer2';
