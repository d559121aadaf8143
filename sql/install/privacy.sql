-- privacy: errors without patients' data.

-- Instead of RAISE, which leaves the caller's statement in the server log.  Against
-- the server's own errors (a cancel, a timeout, a deadlock), functions that take an
-- NHS number set log_min_error_statement.
CREATE FUNCTION raise_error(sqlstate text, message text, detail text DEFAULT NULL, hint text DEFAULT NULL) RETURNS void
    AS 'MODULE_PATHNAME', 'ndrs_optout_raise_error'
    LANGUAGE C STABLE;
COMMENT ON FUNCTION raise_error(text, text, text, text) IS
    'internal: an error with this SQLSTATE, message, detail and hint, and without the caller''s statement and context';

CREATE FUNCTION raise_notice(warning boolean, message text, hint text DEFAULT NULL) RETURNS void
    AS 'MODULE_PATHNAME', 'ndrs_optout_raise_notice'
    LANGUAGE C VOLATILE;
COMMENT ON FUNCTION raise_notice(boolean, text, text) IS
    'internal: a warning, or else a notice, that leaves neither the caller''s statement nor its context in the server '
    'log';

-- What procedures that commit call first.
CREATE FUNCTION begin_procedure(name text) RETURNS void
    AS 'MODULE_PATHNAME', 'ndrs_optout_begin_procedure'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION begin_procedure(text) IS
    'internal: for procedures carry_out, sweep and renew_statistics: error 25001 in a transaction block or a '
    'function; leaves the digits of the statement out of pg_stat_activity, and the statement out of the log of its '
    'errors; error 22023 for another name';
