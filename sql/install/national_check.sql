-- national_check: one round trip with the NHS "check for national data opt-outs".
--
-- The service answers a list of NHS numbers with the same list without those who
-- opted out.  So a check keeps whom it asked about and who is allowed, until it
-- expires.  Which patients opted out is written nowhere: it is the difference.

-- The library reads the first columns of this table by number: see national_check.c.
-- Sets never change once there is a reply: backends keep them by check and by the
-- transaction that brought it.
--
-- A check is as old as its request: that the reply was late makes it no younger.
CREATE TABLE national_check (
    check_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    expires_at       timestamptz NOT NULL,
    asked            encoded_set NOT NULL,
    allowed          encoded_set,
    started_at       timestamptz NOT NULL,
    loaded_at        timestamptz,
    asked_patients   bigint NOT NULL,
    allowed_patients bigint,
    without_number         bigint NOT NULL,
    CHECK ((loaded_at IS NULL) = (allowed IS NULL) AND (loaded_at IS NULL) = (allowed_patients IS NULL))
);
COMMENT ON TABLE national_check IS
    'round trips with the "check for national data opt-outs": whom each asked about and, when the reply is there, who '
    'is allowed; encoded. Never who opted out';
SELECT pg_catalog.pg_extension_config_dump('national_check', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.national_check', 'check_id')::regclass, '');

CREATE TRIGGER invalidate_caches AFTER INSERT OR UPDATE OR DELETE ON national_check
    FOR EACH ROW EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches ON national_check IS 'backends read the checks again';
CREATE TRIGGER invalidate_caches_truncate AFTER TRUNCATE ON national_check
    FOR EACH STATEMENT EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches_truncate ON national_check IS 'backends read the checks again';
ALTER TABLE national_check ENABLE ALWAYS TRIGGER invalidate_caches;
ALTER TABLE national_check ENABLE ALWAYS TRIGGER invalidate_caches_truncate;

-- The numbers of a request, in plain, until the reply is there or is no longer waited
-- for.  In parts, by their first four digits, so that one number is soon taken out.
CREATE TABLE national_check_part (
    check_id bigint,
    part     integer,
    numbers  bigint[] NOT NULL,
    PRIMARY KEY (check_id, part)
);
COMMENT ON TABLE national_check_part IS
    'internal: the NHS numbers of a request that waits for its reply, ascending, those with the same first four '
    'digits in one row';
-- No statistics: they would be numbers.
ALTER TABLE national_check_part ALTER COLUMN numbers SET STATISTICS 0;
SELECT pg_catalog.pg_extension_config_dump('national_check_part', '');

CREATE VIEW national_check_progress AS
    SELECT c.check_id,
           CASE WHEN c.expires_at <= pg_catalog.now() THEN 'expired'
                WHEN c.loaded_at IS NULL THEN 'waiting_for_reply'
                ELSE 'in_force' END AS state,
           c.started_at, c.loaded_at, c.expires_at,
           c.asked_patients, c.allowed_patients, c.without_number
        FROM national_check c
        ORDER BY c.check_id;
COMMENT ON VIEW national_check_progress IS
    'national checks: state (waiting_for_reply, in_force, expired), how many numbers each asked about and how '
    'many are allowed, and how many rows had no number that could be asked about (without_number)';

-- The id is not repeated: it may be a number that was put in the wrong place.
CREATE FUNCTION no_such_check() RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.raise_error('P0002', 'there is no such national check',
        hint => 'View ndrs_optout.national_check_progress lists the checks.');
END
$$;
COMMENT ON FUNCTION no_such_check() IS 'internal: error P0002';

-- Before the numbers are read.  An erasure has a lock that conflicts with this one,
-- from before it takes numbers out of requests until its end.  So it takes out what was
-- read before; what is read after it, by a newer snapshot, is erased already.
CREATE FUNCTION begin_national_check() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.require_read_committed();
    LOCK TABLE ndrs_optout.national_check, ndrs_optout.national_check_part IN ROW EXCLUSIVE MODE;
END
$$;
COMMENT ON FUNCTION begin_national_check() IS
    'internal: lets an erasure and a check that is being started wait for each other; error 25000';

-- What cannot be asked about is counted: missing numbers and placeholders.
--
-- Numbers and sets can be large.  So here and in load_national_check() no variable holds
-- a set, and plans are generic: another plan would have a copy of the numbers in it.
CREATE FUNCTION start_national_check(numbers nhs_number[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET jit = off
SET plan_cache_mode = force_generic_plan
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    started record;
    started_at timestamptz := clock_timestamp();
BEGIN
    INSERT INTO ndrs_optout.national_check AS c (expires_at, asked, started_at, asked_patients, without_number)
        SELECT started_at + make_interval(days => (SELECT p.national_check_days FROM ndrs_optout.policy p)),
               a.asked, started_at, ndrs_optout.cardinality(a.asked), a.without_number
            FROM (SELECT ndrs_optout.encoded_set_agg(ndrs_optout.encode_nhs_number(n))
                             FILTER (WHERE NOT ndrs_optout.nhs_number_is_placeholder(n)) AS asked,
                         count(*) FILTER (WHERE ndrs_optout.nhs_number_is_placeholder(n) IS NOT FALSE) AS without_number
                      FROM unnest(numbers) AS n) AS a
            WHERE ndrs_optout.cardinality(a.asked) > 0
        RETURNING c.check_id, c.asked_patients, c.without_number INTO started;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('22023', 'there is no NHS number to ask about',
            detail => format('Missing or unreadable numbers and placeholders: %s.', coalesce(cardinality(numbers), 0)));
    END IF;
    -- Ids say which check is the latest.  A sequence is set back by more roles than change
    -- tables (members of pg_write_all_data): then an old reply would outrank this one's.
    IF EXISTS (SELECT FROM ndrs_optout.national_check c WHERE c.check_id > started.check_id AND c.loaded_at < now())
    THEN
        PERFORM ndrs_optout.raise_error('55000', 'the ids of national checks have been set back',
            detail => 'An older check would decide instead of a new one.',
            hint => 'Ask the database owner to set the sequence ndrs_optout.national_check_check_id_seq to the '
                    'greatest id in table ndrs_optout.national_check.');
    END IF;
    -- Sorted once, for the parts and within them.
    INSERT INTO ndrs_optout.national_check_part (check_id, part, numbers)
        SELECT started.check_id, u.part, array_agg(u.number)
            FROM (SELECT DISTINCT n::bigint / 1000000 AS part, n::bigint AS number
                      FROM unnest(numbers) AS n
                      WHERE NOT ndrs_optout.nhs_number_is_placeholder(n)
                      ORDER BY part, number) AS u
            GROUP BY u.part;
    PERFORM ndrs_optout.audit('national_check_started',
        jsonb_build_object('check', started.check_id, 'asked', started.asked_patients, 'without_number',
                           started.without_number));
    RETURN started.check_id;
END
$$;
COMMENT ON FUNCTION start_national_check(nhs_number[]) IS
    'starts a national check of these numbers, each once, and returns its id; NULLs and placeholders are counted and '
    'left out. Audited; errors 22023 (no patient to ask about), 55000 (the sequence of ids was set back), ND010, ND011';

-- The query runs with the caller's rights.
CREATE FUNCTION start_national_check(query text) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    numbers ndrs_optout.nhs_number[];
BEGIN
    PERFORM ndrs_optout.begin_national_check();
    EXECUTE format('SELECT array_agg(ndrs_optout.guard_number(q.value)) FROM %s', ndrs_optout.query_source(query))
        INTO numbers;
    RETURN ndrs_optout.start_national_check(numbers);
END
$$;
COMMENT ON FUNCTION start_national_check(text) IS
    'starts a national check of the numbers that a query returns in its only column, of any type that a guard reads; '
    'the query runs with the caller''s rights; missing and unreadable numbers and placeholders are counted and left '
    'out. Returns the check''s id. Audited; errors 22004, 22023 (no patient to ask about, not a query, an NHS number '
    'in the query), 25000, 42601 (more columns), ND010, ND011, and the query''s';

-- The lines of the file to send: the line end is LF, which psql writes.
CREATE FUNCTION national_check_request(check_id bigint) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ndrs_optout.national_check c WHERE c.check_id = national_check_request.check_id) THEN
        PERFORM ndrs_optout.no_such_check();
    END IF;
    IF NOT EXISTS (SELECT FROM ndrs_optout.national_check_part p WHERE p.check_id = national_check_request.check_id)
    THEN
        PERFORM ndrs_optout.raise_error('ND021', format('the request of national check %s is not kept any more',
                                                        check_id),
            detail => 'It goes when the reply is there, or when the check expires.');
    END IF;
    RETURN QUERY
        SELECT lpad(n::text, 10, '0') || ','
            FROM (SELECT p.numbers FROM ndrs_optout.national_check_part p
                      WHERE p.check_id = national_check_request.check_id
                      ORDER BY p.part) AS p
            CROSS JOIN LATERAL unnest(p.numbers) AS n;
END
$$;
COMMENT ON FUNCTION national_check_request(bigint) IS
    'the lines of the file to send, each ten digits and a comma: psql''s \copy writes them to a file, with the LF '
    'that the service wants; errors P0002, ND021 (the reply was loaded already)';

-- Whom a reply allows; NULL when it has numbers that were not asked about.  Lines can
-- come one by one or many in one text.
CREATE FUNCTION national_check_allowed(asked encoded_set, lines text[]) RETURNS encoded_set
    AS 'MODULE_PATHNAME', 'ndrs_optout_national_check_allowed'
    LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION national_check_allowed(encoded_set, text[]) IS
    'internal: whom a reply allows of those who were asked about; NULL when it has other numbers; error ND040 when it '
    'is no reply. A text may have many lines; the last comma or line end may be missing';

CREATE FUNCTION load_national_check(check_id bigint, lines text[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET plan_cache_mode = force_generic_plan
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this record;
    other bigint;
    result bigint;
BEGIN
    -- Without the sets, which are large.
    SELECT c.loaded_at, c.expires_at, c.asked_patients INTO this FROM ndrs_optout.national_check c
        WHERE c.check_id = load_national_check.check_id FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.no_such_check();
    END IF;
    IF this.loaded_at IS NOT NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('the reply to national check %s was loaded already', check_id),
            hint => 'Start a new check, or cancel this one.');
    END IF;
    IF this.expires_at <= clock_timestamp() THEN
        PERFORM ndrs_optout.raise_error('ND021', format('national check %s has expired', check_id),
            hint => 'Start a new check: what the service knew then is too old.');
    END IF;
    -- OFFSET 0: the reply is read once.
    UPDATE ndrs_optout.national_check c
        SET loaded_at = clock_timestamp(), allowed = reply.allowed,
            allowed_patients = ndrs_optout.cardinality(reply.allowed)
        FROM (SELECT ndrs_optout.national_check_allowed(a.asked, coalesce(lines, '{}')) AS allowed
                  FROM ndrs_optout.national_check a WHERE a.check_id = load_national_check.check_id
                  OFFSET 0) AS reply
        WHERE c.check_id = load_national_check.check_id AND reply.allowed IS NOT NULL
        RETURNING c.allowed_patients INTO result;
    IF NOT FOUND THEN
        SELECT c.check_id INTO other FROM ndrs_optout.national_check c
            WHERE c.check_id <> load_national_check.check_id
                AND ndrs_optout.national_check_allowed(c.asked, lines) IS NOT NULL
            ORDER BY c.loaded_at IS NOT NULL, c.check_id DESC LIMIT 1;
        IF FOUND THEN
            PERFORM ndrs_optout.raise_error('ND040', format('this looks like the reply to national check %s', other),
                detail => format('It has numbers that check %s did not ask about.', check_id));
        END IF;
        PERFORM ndrs_optout.raise_error('ND040', 'the reply has numbers that were not asked about',
            hint => 'It is not the reply to this check, or not a reply of the service.');
    END IF;

    -- A patient who was erased from the request since, and is not in the reply, was
    -- perhaps not asked about: nothing is known of these patients.
    IF this.asked_patients > (SELECT sum(cardinality(p.numbers)) FROM ndrs_optout.national_check_part p
                                  WHERE p.check_id = load_national_check.check_id) THEN
        UPDATE ndrs_optout.national_check c
            SET asked = known.patients, asked_patients = ndrs_optout.cardinality(known.patients)
            FROM (SELECT a.allowed OPERATOR(ndrs_optout.|) (
                             SELECT ndrs_optout.encoded_set_agg(
                                        ndrs_optout.encode_nhs_number(n::ndrs_optout.nhs_number))
                                 FROM ndrs_optout.national_check_part p CROSS JOIN LATERAL unnest(p.numbers) AS n
                                 WHERE p.check_id = load_national_check.check_id) AS patients
                      FROM ndrs_optout.national_check a WHERE a.check_id = load_national_check.check_id
                      OFFSET 0) AS known
            WHERE c.check_id = load_national_check.check_id;
    END IF;
    DELETE FROM ndrs_optout.national_check_part p WHERE p.check_id = load_national_check.check_id;
    PERFORM ndrs_optout.audit('national_check_loaded', jsonb_build_object('check', check_id, 'allowed', result));
    RETURN result;
END
$$;
COMMENT ON FUNCTION load_national_check(bigint, text[]) IS
    'loads the reply to a national check, and returns how many it allows; a text may have many lines. The numbers of '
    'the request are forgotten. Audited; errors ND040 (not the reply to this check: nothing has changed), ND021 '
    '(loaded already, expired), P0002, ND010, ND011';

-- The query runs with the caller's rights.
CREATE FUNCTION load_national_check(check_id bigint, query text) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lines text[];
BEGIN
    EXECUTE format(E'SELECT ARRAY[string_agg(q.value::text, E''\\n'')] FROM %s', ndrs_optout.query_source(query))
        INTO lines;
    RETURN ndrs_optout.load_national_check(check_id, lines);
END
$$;
COMMENT ON FUNCTION load_national_check(bigint, text) IS
    'loads the reply to a national check from the lines that a query returns in its only column, in any order, and '
    'returns how many it allows; the query runs with the caller''s rights. The numbers of the request are forgotten. '
    'Audited; errors ND040 (not the reply to this check: nothing has changed), ND021 (loaded already, expired), '
    'P0002, ND010, ND011, 22004, 22023 (not a query, an NHS number in the query), 42601 (more columns), and the '
    'query''s';

CREATE FUNCTION cancel_national_check(check_id bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM ndrs_optout.national_check c WHERE c.check_id = cancel_national_check.check_id;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.no_such_check();
    END IF;
    DELETE FROM ndrs_optout.national_check_part p WHERE p.check_id = cancel_national_check.check_id;
    PERFORM ndrs_optout.audit('national_check_cancelled', jsonb_build_object('check', check_id));
END
$$;
COMMENT ON FUNCTION cancel_national_check(bigint) IS
    'forgets a national check, its request and its reply: whom it asked about is as an earlier check says, or not '
    'checked. Audited; error P0002';

-- A patient who is erased goes from requests that still wait for their reply.
CREATE FUNCTION forget_in_national_checks(gone nhs_number[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE ndrs_optout.national_check_part p
        SET numbers = ARRAY(SELECT n FROM unnest(p.numbers) AS n EXCEPT SELECT unnest(g.numbers) ORDER BY 1)
        FROM (SELECT n / 1000000 AS part, array_agg(n) AS numbers FROM unnest(gone::bigint[]) AS n GROUP BY 1) AS g
        WHERE p.part = g.part AND p.numbers && g.numbers;
END
$$;
COMMENT ON FUNCTION forget_in_national_checks(nhs_number[]) IS
    'internal: takes numbers out of requests that wait for their reply';
