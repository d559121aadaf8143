-- What a backend makes of a national check answers as plain sets do: checks of many
-- sizes, with nearly everybody allowed, one half, all, and nearly nobody.
\set home :DBNAME
CREATE DATABASE regress_national_check_sets;
\c regress_national_check_sets
SET client_min_messages = warning;
CREATE EXTENSION ndrs_optout CASCADE;
RESET client_min_messages;
SELECT length(ndrs_optout.adopt_key());

CREATE TABLE patient AS
    SELECT n::bigint AS number
        FROM generate_series(9990000000, 9990029999) AS g (n)
        WHERE ndrs_optout.nhs_number_or_null(n::text) IS NOT NULL;
SELECT count(*) FROM patient;
CREATE TABLE asked (number bigint, allowed boolean);
CREATE TABLE found (size integer, share integer, asked bigint, allowed bigint, wrong bigint);

DO $$
DECLARE
    size integer;
    share integer;
    check_id bigint;
BEGIN
    FOREACH size IN ARRAY ARRAY[1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 40, 300, 2000] LOOP
        FOREACH share IN ARRAY ARRAY[5, 50, 95, 100] LOOP
            TRUNCATE asked;
            INSERT INTO asked
                SELECT number, row_number() OVER (ORDER BY hashint8extended(number, size)) <= greatest(1, size * share / 100)
                    FROM (SELECT number FROM patient ORDER BY hashint8extended(number, share) LIMIT size) AS s;
            check_id := ndrs_optout.start_national_check('SELECT number FROM public.asked');
            PERFORM ndrs_optout.load_national_check(check_id, 'SELECT number::text FROM public.asked WHERE allowed');
            INSERT INTO found
                SELECT size, share, count(a.number), count(*) FILTER (WHERE a.allowed),
                       count(*) FILTER (WHERE ndrs_optout.share_decision(p.number, 'research')
                                            <> CASE WHEN a.allowed THEN 'eligible' WHEN a.number IS NULL THEN 'not_checked'
                                                    ELSE 'national_opt_out' END)
                    FROM patient p LEFT JOIN asked a USING (number);
            PERFORM ndrs_optout.cancel_national_check(check_id);
        END LOOP;
    END LOOP;
END
$$;
SELECT size, array_agg(allowed ORDER BY share) AS allowed, min(asked) AS asked, sum(wrong) AS wrong FROM found GROUP BY size ORDER BY size;

\c :home
DROP DATABASE regress_national_check_sets;
