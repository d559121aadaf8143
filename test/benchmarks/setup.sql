-- What every stage of test/bench uses.  Variable native: the library of native.c.

SET client_min_messages = warning;
CREATE EXTENSION pgcrypto;
CREATE EXTENSION ndrs_optout CASCADE;
SELECT ndrs_optout.adopt_key();
CREATE SCHEMA bench;
CREATE SCHEMA peer;  -- what the others keep
CREATE EXTENSION intarray SCHEMA public;
CREATE EXTENSION hstore SCHEMA public;

-- Nothing, in C.
CREATE FUNCTION bench.same(bigint) RETURNS bigint
    AS :'native', 'bench_same' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION bench.is_false(bigint) RETURNS boolean
    AS :'native', 'bench_false' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION bench.is_true(text) RETURNS boolean
    AS :'native', 'bench_true' LANGUAGE C VOLATILE PARALLEL SAFE;
CREATE FUNCTION bench.empty_trigger() RETURNS trigger
    AS :'native', 'bench_empty_trigger' LANGUAGE C;

CREATE FUNCTION bench.mark() RETURNS boolean
    AS :'native', 'bench_mark' LANGUAGE C;
CREATE FUNCTION bench.start_clock() RETURNS void
    AS :'native', 'bench_start_clock' LANGUAGE C;
CREATE FUNCTION bench.read_clock(OUT wall_us float8, OUT cpu_us float8)
    AS :'native', 'bench_read_clock' LANGUAGE C;

-- One row for each run of each case; a run does a number of units.
CREATE TABLE bench.run (
    run_id  integer GENERATED ALWAYS AS IDENTITY,
    stage   text,
    label   text,
    units   float8,
    wall_us float8,
    cpu_us  float8
);

-- Medians, in the order in which the cases first ran; the spread is half
-- the range of CPU time.
CREATE VIEW bench.median AS
    SELECT stage, label, min(run_id) AS position, min(units) AS units,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY wall_us) AS wall_us,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY cpu_us) AS cpu_us,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY wall_us / units) * 1000 AS wall_ns,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY cpu_us / units) * 1000 AS cpu_ns,
           format('%s %%', round((100 * (max(cpu_us) - min(cpu_us)) / 2
                                    / nullif(percentile_cont(0.5) WITHIN GROUP (ORDER BY cpu_us), 0))::numeric)) AS spread
        FROM bench.run GROUP BY stage, label;

-- A case among all; NULL if it was not measured.
CREATE FUNCTION bench.cpu_ns(stage text, label text) RETURNS float8
LANGUAGE sql STABLE AS $$ SELECT m.cpu_ns FROM bench.median m WHERE (m.stage, m.label) = ($1, $2) $$;
CREATE FUNCTION bench.wall_ns(stage text, label text) RETURNS float8
LANGUAGE sql STABLE AS $$ SELECT m.wall_ns FROM bench.median m WHERE (m.stage, m.label) = ($1, $2) $$;

-- For tables: three digits are more than enough.
CREATE FUNCTION bench.shown(float8) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN $1 IS NULL THEN '-' WHEN abs($1) >= 100 THEN to_char($1, 'FM999,999,999,990')
                WHEN abs($1) >= 10 THEN to_char($1, 'FM90.0') ELSE to_char($1, 'FM90.00') END
$$;

-- Valid NHS numbers, scattered and without repetitions: the same for the same
-- "first", others for places that are apart.  Places up to a million have the
-- prefix 999, which is not issued; those above are synthetic numbers between
-- 4,000 and 8,000 million.
CREATE FUNCTION bench.numbers(first bigint, how_many bigint) RETURNS SETOF bigint
LANGUAGE sql STABLE ROWS 1000000 AS $$
    SELECT number
        FROM generate_series(first, first + how_many * 5 / 4 + 1000) AS place
            CROSS JOIN LATERAL (SELECT CASE WHEN place < 1000000 THEN 999000000 + place * 611953 % 1000000
                                            ELSE 400000000 + place * 179424673 % 400000000 END) AS a (nine)
            CROSS JOIN LATERAL (SELECT (11 - (nine / 100000000 * 10 + nine / 10000000 % 10 * 9 + nine / 1000000 % 10 * 8
                                              + nine / 100000 % 10 * 7 + nine / 10000 % 10 * 6 + nine / 1000 % 10 * 5
                                              + nine / 100 % 10 * 4 + nine / 10 % 10 * 3 + nine % 10 * 2) % 11) % 11) AS b (check_digit)
            CROSS JOIN LATERAL (SELECT nine * 10 + check_digit) AS c (number)
        WHERE check_digit < 10 AND number % 1111111111 <> 0
        LIMIT how_many
$$;

-- Where the stages take their numbers from.
CREATE FUNCTION bench.listed(size bigint) RETURNS SETOF bigint
LANGUAGE sql STABLE AS $$ SELECT bench.numbers(CASE WHEN size > 100000 THEN 1000000 ELSE 0 END, size) $$;
CREATE FUNCTION bench.patients(how_many bigint) RETURNS SETOF bigint
LANGUAGE sql STABLE AS $$ SELECT bench.numbers(CASE WHEN how_many > 400000 THEN 30000000 ELSE 200000 END, how_many) $$;

-- Register list_SIZE; table peer.list_SIZE with the same numbers in plain, as a
-- list without encoding has them; peer.listed_SIZE(), the usual function over it.
CREATE TABLE bench.list (
    size    bigint PRIMARY KEY,
    load_us float8
);
CREATE PROCEDURE bench.make_list(size bigint)
LANGUAGE plpgsql AS $$
DECLARE
    name text := 'list_' || size;
    started timestamptz;
BEGIN
    IF EXISTS (SELECT FROM bench.list l WHERE l.size = make_list.size) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE peer.%1$I (number bigint);
                    INSERT INTO peer.%1$I SELECT bench.listed(%2$s);
                    ALTER TABLE peer.%1$I ADD PRIMARY KEY (number)', name, size);
    EXECUTE format('CREATE FUNCTION peer.%I(wanted bigint) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS '
                   '''BEGIN RETURN EXISTS (SELECT FROM peer.%I l WHERE l.number = wanted); END''',
                   'listed_' || size, name);
    INSERT INTO ndrs_optout.register VALUES (name, name);
    COMMIT;
    started := clock_timestamp();
    EXECUTE format('INSERT INTO ndrs_optout.exclusion (register, encoded_nhs_number)
                        SELECT %1$L, ndrs_optout.encode_nhs_number(number::ndrs_optout.nhs_number) FROM peer.%1$I', name);
    COMMIT;
    INSERT INTO bench.list VALUES (size, extract(epoch FROM clock_timestamp() - started) * 1e6);
END
$$;

-- Membership: what a look-up costs beyond what its query sets up; NULL where that
-- drowns in the set-up.
CREATE FUNCTION bench.slope(list bigint, hits integer)
RETURNS TABLE (label text, "position" integer, ns float8, spread text)
LANGUAGE sql STABLE AS $$
    SELECT f.label, f.position,
           CASE WHEN f.cpu_us > 1.25 * s.cpu_us THEN (f.cpu_us - s.cpu_us) / (f.units - s.units) * 1000 END, f.spread
        FROM bench.median f JOIN bench.median s USING (label)
        WHERE f.stage = format('membership %s %s', list, hits) AND s.stage = format('membership %s 0', list)
$$;
