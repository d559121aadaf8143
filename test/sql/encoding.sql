-- Encoded NHS numbers.
SET search_path = public, ndrs_optout;

-- Equal to pgcrypto's HMAC with the key of the key file.
CREATE TEMP TABLE key AS
    SELECT decode(trim(E'\n' FROM pg_read_file(current_setting('ndrs_optout.key_file'))), 'hex') AS key;
SELECT count(*), bool_and(encode(substring(hmac(convert_to(lpad(i::text, 10, '0'), 'UTF8'), key, 'sha256') FOR 16), 'hex')
                          = encode_nhs_number(i::nhs_number)::text) AS equal
    FROM key, generate_series(9990000000, 9990010000) AS i
    WHERE nhs_number_or_null(i::text) IS NOT NULL;
SELECT encode(substring(hmac('9434765919', key, 'sha256') FOR 16), 'hex') = encode_nhs_number('9434765919')::text AS equal
    FROM key;
SELECT encode(substring(hmac('0607230002', key, 'sha256') FOR 16), 'hex') = encode_nhs_number(607230002::bigint::nhs_number)::text AS leading_zero
    FROM key;
DROP TABLE key;

-- In parallel workers as well.
CREATE TABLE numbers AS
    SELECT i::nhs_number AS n FROM generate_series(9990000000, 9990040000) AS i
        WHERE nhs_number_or_null(i::text) IS NOT NULL;
ANALYZE numbers;
SET max_parallel_workers_per_gather = 2;
SET min_parallel_table_scan_size = 0;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
EXPLAIN (COSTS OFF) SELECT e FROM (SELECT encode_nhs_number(n) AS e FROM numbers OFFSET 0) AS s;
SELECT count(DISTINCT e) = (SELECT count(*) FROM numbers) AS all_different
    FROM (SELECT encode_nhs_number(n) AS e FROM numbers OFFSET 0) AS s;
SELECT count(*) AS parallel FROM numbers WHERE is_excluded(n, 'cancer');
BEGIN;
SELECT exclude('9990000018', '{cancer}');
SELECT count(*) AS leaders_own_row FROM numbers WHERE is_excluded(n, 'cancer');
ROLLBACK;
RESET max_parallel_workers_per_gather;
RESET min_parallel_table_scan_size;
RESET parallel_setup_cost;
RESET parallel_tuple_cost;

-- The type.
SELECT '00112233445566778899AABBCCDDEEFF'::encoded_nhs_number;
SELECT '0011223344556677'::encoded_nhs_number;
SELECT '0011223344556677889900112233445Z'::encoded_nhs_number;
SELECT e FROM (VALUES ('ff000000000000000000000000000000'::encoded_nhs_number),
                      ('00000000000000000000000000000001'), ('00000000000000000000000000000000')) AS v (e)
    ORDER BY e;
SELECT '00000000000000000000000000000001'::encoded_nhs_number > '00000000000000000000000000000000' AS last_bit_decides;
CREATE TABLE encoded AS SELECT encode_nhs_number(n) AS e FROM numbers;
CREATE UNIQUE INDEX ON encoded (e);
CREATE INDEX ON encoded USING hash (e);
ANALYZE encoded;
SELECT count(*) FROM encoded WHERE e = encode_nhs_number('9990000018');
SET enable_nestloop = off;
SET enable_mergejoin = off;
SELECT count(*) = (SELECT count(*) FROM numbers) AS all_joined FROM encoded a JOIN encoded b USING (e);
RESET enable_nestloop;
RESET enable_mergejoin;

-- The key cannot be pointed elsewhere from a session.
SET ndrs_optout.key_file = '/tmp/other';
ALTER ROLE CURRENT_USER SET ndrs_optout.key_file = '/tmp/other';
SET ndrs_optout.key = 'x';
DROP TABLE numbers, encoded;
