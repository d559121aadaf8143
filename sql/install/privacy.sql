-- privacy: errors without patients' data.

-- Instead of RAISE, which leaves the caller's statement in the server log.  Against
-- the server's own errors (a cancel, a timeout, a deadlock), functions that take an
-- NHS number set log_min_error_statement.
CREATE FUNCTION refuse(sqlstate text, message text, detail text DEFAULT NULL, hint text DEFAULT NULL) RETURNS void
    AS 'MODULE_PATHNAME', 'ndrs_optout_refuse'
    LANGUAGE C VOLATILE;

CREATE FUNCTION tell(warning boolean, message text, hint text DEFAULT NULL) RETURNS void
    AS 'MODULE_PATHNAME', 'ndrs_optout_tell'
    LANGUAGE C VOLATILE;

-- A reason that goes to the audit or stays with a case, neither of which holds
-- identifiers.  Longer runs of digits than an NHS number's are something else.
CREATE FUNCTION checked_reason(reason text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF coalesce(btrim(reason), '') = '' THEN
        PERFORM ndrs_optout.refuse('22004', 'a reason is needed');
    END IF;
    IF length(reason) > 500 THEN
        PERFORM ndrs_optout.refuse('22023', 'a reason has at most 500 characters');
    END IF;
    IF EXISTS (SELECT FROM generate_series(1, length(reason)) AS start, generate_series(10, 30) AS size
               WHERE substr(reason, start - 1, 1) !~ '[0-9]' AND substr(reason, start + size, 1) !~ '[0-9]'
                   AND ndrs_optout.nhs_number_or_null(substr(reason, start, size)) IS NOT NULL) THEN
        PERFORM ndrs_optout.refuse('22023', 'the reason must not hold an NHS number',
            hint => 'If it is another number with ten digits, leave out some.');
    END IF;
    RETURN reason;
END
$$;

COMMENT ON FUNCTION refuse(text, text, text, text) IS
    'an error with this SQLSTATE, message, detail and hint, and without the caller''s statement and context';
COMMENT ON FUNCTION tell(boolean, text, text) IS
    'a warning, or else a notice, that leaves neither the caller''s statement nor its context in the server log';
COMMENT ON FUNCTION checked_reason(text) IS 'the reason itself; errors 22004 when it is missing, 22023 when it holds an NHS number or is too long';
