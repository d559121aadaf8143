-- argument: what is demanded of arguments, and how texts are put together.

-- An NHS number that can be a patient's.
CREATE FUNCTION checked_patient(number nhs_number) RETURNS nhs_number
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF number IS NULL THEN
        PERFORM ndrs_optout.raise_error('22004',
            'an NHS number is needed');
    END IF;
    IF ndrs_optout.nhs_number_is_placeholder(number) THEN
        PERFORM ndrs_optout.raise_error('ND004',
            'a placeholder is not a patient''s NHS number',
            detail => 'Ten equal digits stand for a missing number in many patients'' records.');
    END IF;
    RETURN number;
END
$$;
COMMENT ON FUNCTION checked_patient(nhs_number) IS
    'internal: the number itself; errors 22004 when it is NULL, ND004 when it is a placeholder';

-- For what must see everything that was committed before each of its statements.
CREATE FUNCTION require_read_committed() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM ndrs_optout.raise_error('25000',
            'this works only at isolation level READ COMMITTED',
            detail => 'Otherwise it would not see what other sessions have committed since.');
    END IF;
END
$$;
COMMENT ON FUNCTION require_read_committed() IS 'internal: error 25000 at another isolation level than READ COMMITTED';

CREATE FUNCTION english_list(items text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN cardinality(items) <= 1 THEN items[1]
                ELSE array_to_string(items[:cardinality(items) - 1], ', ') || ' and ' || items[cardinality(items)] END
$$;
COMMENT ON FUNCTION english_list(text[]) IS 'internal: a, b and c';

CREATE FUNCTION english_date(day date) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT to_char(day, 'FMDD ') || (ARRAY['January', 'February', 'March', 'April', 'May', 'June', 'July',
        'August', 'September', 'October', 'November', 'December'])[extract(month FROM day)] || to_char(day, ' YYYY')
$$;
COMMENT ON FUNCTION english_date(date) IS 'internal: a date as it is written in a letter: 5 July 2026';

-- A query that the caller gave, as q with its only column "value", for FROM.  The
-- server repeats it in error messages, so it must be a query, and not the data, and
-- must not hold an NHS number.  Of the condition, the server looks just at whether it
-- is one column.
CREATE FUNCTION query_source(query text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    source text := rtrim(query, '; ' || chr(9) || chr(10) || chr(13));
BEGIN
    IF source IS NULL THEN
        PERFORM ndrs_optout.raise_error('22004', 'a query is needed');
    END IF;
    IF source !~* '^[[:space:](]*(SELECT|TABLE|VALUES|WITH)([^[:alnum:]_$]|$)' THEN
        PERFORM ndrs_optout.raise_error('22023', 'the text is not a query',
            hint => 'Give a query, such as ''SELECT nhs_number FROM cancer.patient''.');
    END IF;
    IF ndrs_optout.holds_nhs_number(source, loosely => false) THEN
        PERFORM ndrs_optout.raise_error('22023', 'a query must not hold an NHS number',
            hint => 'Put the numbers into a table and select them from there.');
    END IF;
    RETURN format(E'(SELECT q.value FROM (%1$s\n) AS q (value) '
                  || E'WHERE true OR (SELECT q.* FROM (%1$s\n) AS q) IS NULL) AS q', source);
END
$$;
COMMENT ON FUNCTION query_source(text) IS
    'internal: a query with one column, for FROM; errors 22004, 22023 (not a query, or it holds an NHS number), 42601 '
    '(more columns), and the query''s';

-- Whether a text holds an NHS number: as the type reads them, or loosely, as people write
-- them in a sentence, with any marks between the digits, and digits of any script.
CREATE FUNCTION holds_nhs_number(value text, loosely boolean DEFAULT true) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_holds_nhs_number'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION holds_nhs_number(text, boolean) IS
    'internal: whether a text has an NHS number in it: loosely, with any marks between its digits and digits of any '
    'script, or else only as type nhs_number reads it. Dates are none';

-- A reason, or other words that go to the audit, which holds no identifiers.
CREATE FUNCTION checked_reason(reason text, what text DEFAULT 'reason') RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (reason ~ '[^[:space:]]') IS NOT TRUE THEN
        PERFORM ndrs_optout.raise_error('22004', format('a %s is needed', what));
    END IF;
    IF length(reason) > 500 THEN
        PERFORM ndrs_optout.raise_error('22023', format('a %s has at most 500 characters', what));
    END IF;
    IF ndrs_optout.holds_nhs_number(reason) THEN
        PERFORM ndrs_optout.raise_error('22023', format('the %s must not hold an NHS number', what),
            hint => 'Leave the number out: the text is kept for years. A number of another kind that looks like one '
                    'can be given without some of its digits.');
    END IF;
    RETURN reason;
END
$$;
COMMENT ON FUNCTION checked_reason(text, text) IS
    'internal: the reason itself, or what else is called that; errors 22004 when it is missing, 22023 when it holds '
    'an NHS number or is too long';
