-- The type nhs_number, and reading numbers out of text and integers.
SET search_path = public, ndrs_optout;

-- NULL: refused.  Bigint form where the text is a plain integer.
CREATE TABLE vector (text text, canonical text, why text);
INSERT INTO vector VALUES
    ('9434765919', '9434765919', 'published example number'),
    ('943 476 5919', '9434765919', '3-3-4 with spaces'),
    ('943-476-5919', '9434765919', '3-3-4 with hyphens'),
    (E'  943 476 5919\t', '9434765919', 'outer white space'),
    (E'943\u00A0476\u00A05919', '9434765919', 'no-break spaces'),
    (E'\uFF19\uFF14\uFF13\uFF14\uFF17\uFF16\uFF15\uFF19\uFF11\uFF19', '9434765919', 'full-width digits'),
    ('9876543210', '9876543210', 'published example number'),
    ('4000000632', '4000000632', 'England and Wales range'),
    ('0607230002', '0607230002', 'Scottish CHI number: the leading zero counts'),
    ('3200083271', '3200083271', 'Northern Ireland range'),
    ('2983396339', '2983396339', 'validator test vector'),
    ('2983396363', '2983396363', 'validator test vector'),
    ('9990000018', '9990000018', '999 test range'),
    ('9990000026', '9990000026', '999 test range'),
    ('9999999999', '9999999999', 'placeholder'),
    ('0000000000', '0000000000', 'placeholder'),
    ('1111111111', '1111111111', 'placeholder'),
    ('9434765918', NULL, 'wrong check digit'),
    ('1234567890', NULL, 'check digit would be 10: never issued'),
    ('1231357990', NULL, 'wrong check digit'),
    ('6105551234', NULL, 'wrong check digit'),
    ('987654321 ', NULL, 'nine digits and a blank: a blank is not a zero'),
    (' 607230002', NULL, 'nine digits and a blank'),
    ('123-456-7890123', NULL, 'thirteen digits: never cut to ten'),
    ('943476591', NULL, 'nine digits'),
    ('94347659190', NULL, 'eleven digits'),
    ('JRDAN 269', NULL, 'old-format number'),
    ('', NULL, 'empty'),
    ('94347659I9', NULL, 'a letter'),
    ('+9434765919', NULL, 'a sign'),
    ('9434765919.0', NULL, 'a decimal point'),
    (E'9434765919\n9434765919', NULL, 'two numbers');

SELECT why, nhs_number_or_null(text) AS number,
       nhs_number_or_null(text)::text IS NOT DISTINCT FROM canonical AS as_expected
    FROM vector;

-- The input function agrees, says what is wrong, and does not repeat the value.
DO $$
DECLARE
    v vector;
    message text;
    detail text;
    context text;
BEGIN
    FOR v IN SELECT * FROM vector LOOP
        BEGIN
            IF v.text::nhs_number::text IS DISTINCT FROM v.canonical THEN
                RAISE EXCEPTION 'wrong: %', v.why;
            END IF;
        EXCEPTION WHEN invalid_text_representation THEN
            GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, context = PG_EXCEPTION_CONTEXT;
            IF v.canonical IS NOT NULL THEN
                RAISE EXCEPTION 'refused: %', v.why;
            END IF;
            RAISE NOTICE '%: % %', v.why, message, detail;
            IF v.text <> '' AND position(v.text IN concat(message, detail, context)) > 0 THEN
                RAISE EXCEPTION 'shown: %', v.why;
            END IF;
        END;
    END LOOP;
END
$$;

-- Integers have lost their leading zeros.
SELECT text, text::bigint::nhs_number AS number, text::bigint::nhs_number::bigint = text::bigint AS same
    FROM vector WHERE canonical IS NOT NULL AND text ~ '^[0-9]+$';
SELECT 9434765918::nhs_number;
SELECT 94347659190::nhs_number;
SELECT (-9434765919)::nhs_number;
SELECT '9434765919'::varchar::nhs_number, '9434765919'::char(10)::nhs_number, ('9434765919'::nhs_number)::varchar;

-- COPY names the line, never the value.
CREATE TABLE typed (number nhs_number);
COPY typed FROM stdin;
9990000018
9990000019
\.
COPY typed FROM stdin;
9990000018
999 000 0026
\.
SELECT * FROM typed;

SELECT nhs_number_format('0607230002'), nhs_number_format('9434765919');
SELECT n, nhs_number_is_placeholder(n::nhs_number) FROM unnest('{9999999999,0000000000,5555555555,9990000018}'::text[]) AS n;

-- Order, equality, hashing, merging: those of the digits.
CREATE TABLE many AS
    SELECT n FROM (SELECT nhs_number_or_null(lpad(i::text, 10, '0')) AS n
                       FROM generate_series(9990000000, 9990020000) AS i) AS s
        WHERE n IS NOT NULL;
SELECT count(*), min(n::text), max(n::text) FROM many;
CREATE UNIQUE INDEX many_btree ON many (n);
CREATE INDEX many_hash ON many USING hash (n);
ANALYZE many;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT * FROM many WHERE n >= '9990000093' ORDER BY n LIMIT 3;
SELECT * FROM many WHERE n > '9990000018' ORDER BY n LIMIT 3;
SELECT * FROM many WHERE n <= '9990000026' ORDER BY n DESC;
SELECT * FROM many WHERE n = '9990000018';
RESET enable_seqscan;
RESET enable_bitmapscan;
SET enable_nestloop = off;
SET enable_mergejoin = off;
SELECT count(*) FROM many a JOIN many b USING (n);
SET enable_hashjoin = off;
SET enable_mergejoin = on;
SELECT count(*) FROM many a JOIN many b USING (n) WHERE a.n <> '9990000018';
RESET enable_nestloop;
RESET enable_hashjoin;
SELECT count(DISTINCT n) FROM many WHERE n < '9990000093';

-- Binary output is binary input; what is no NHS number is refused there too.
CREATE TABLE binary_copy (n nhs_number);
\copy many TO results/nhs_number.bin (FORMAT binary)
\copy binary_copy FROM results/nhs_number.bin (FORMAT binary)
SELECT count(*) FROM (TABLE many EXCEPT TABLE binary_copy) AS lost;
\copy (SELECT n::bigint + 1 FROM many LIMIT 1) TO results/nhs_number.bin (FORMAT binary)
\copy binary_copy FROM results/nhs_number.bin (FORMAT binary)
DROP TABLE vector, typed, many, binary_copy;
