-- privacy: errors without patients' data.

-- Instead of RAISE, which leaves the caller's statement in the server log.  Against
-- the server's own errors (a cancel, a timeout, a deadlock), functions that take an
-- NHS number set log_min_error_statement.
CREATE FUNCTION refuse(sqlstate text, message text, detail text DEFAULT NULL, hint text DEFAULT NULL) RETURNS void
    AS 'MODULE_PATHNAME', 'ndrs_optout_refuse'
    LANGUAGE C VOLATILE;

COMMENT ON FUNCTION refuse(text, text, text, text) IS
    'an error with this SQLSTATE, message, detail and hint, and without the caller''s statement and context';
