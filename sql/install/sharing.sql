-- sharing: may the patient's data be shared for a purpose?

CREATE FUNCTION sharing_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'ndrs_optout_sharing_support'
    LANGUAGE C STRICT;
COMMENT ON FUNCTION sharing_support(internal) IS 'internal: planner support: most patients'' data may be shared';

-- Not STRICT: a number that is missing is a reason not to share.  STABLE as is_excluded() is.
CREATE FUNCTION share_eligible(number nhs_number, purpose text, registers text[] DEFAULT NULL,
                               recipient text DEFAULT NULL) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_share_eligible'
    LANGUAGE C STABLE PARALLEL SAFE COST 10 SUPPORT sharing_support;
COMMENT ON FUNCTION share_eligible(nhs_number, text, text[], text) IS
    'whether share_decision() is "eligible"; errors ND010, ND011, 22004, 22023, 42704';
CREATE FUNCTION share_eligible(number text, purpose text, registers text[] DEFAULT NULL, recipient text DEFAULT NULL)
    RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_share_eligible_text'
    LANGUAGE C STABLE PARALLEL SAFE COST 10 SUPPORT sharing_support;
COMMENT ON FUNCTION share_eligible(text, text, text[], text) IS
    'whether share_decision() is "eligible"; errors ND010, ND011, 22004, 22023, 42704';
CREATE FUNCTION share_eligible(number bigint, purpose text, registers text[] DEFAULT NULL, recipient text DEFAULT NULL)
    RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_share_eligible_bigint'
    LANGUAGE C STABLE PARALLEL SAFE COST 10 SUPPORT sharing_support;
COMMENT ON FUNCTION share_eligible(bigint, text, text[], text) IS
    'whether share_decision() is "eligible"; errors ND010, ND011, 22004, 22023, 42704';
CREATE FUNCTION share_eligible(encoded encoded_nhs_number, purpose text, registers text[] DEFAULT NULL,
                               recipient text DEFAULT NULL) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_share_eligible_encoded'
    LANGUAGE C STABLE PARALLEL SAFE COST 10 SUPPORT sharing_support;
COMMENT ON FUNCTION share_eligible(encoded_nhs_number, text, text[], text) IS
    'whether share_decision() is "eligible"; of an encoded number, which needs no HMAC; errors ND010, ND011, 22004, '
    '22023, 42704';

CREATE FUNCTION share_decision(number nhs_number, purpose text, registers text[] DEFAULT NULL,
                               recipient text DEFAULT NULL) RETURNS text
    AS 'MODULE_PATHNAME', 'ndrs_optout_share_decision'
    LANGUAGE C STABLE PARALLEL SAFE COST 10;
COMMENT ON FUNCTION share_decision(nhs_number, text, text[], text) IS
    'whether a patient''s data may be shared for a purpose with a recipient, as committed when the statement began or '
    'later, or the first reason why not: purpose_not_permitted, number_missing, number_unreadable, placeholder, '
    'excluded_from_register (from any of them, or of those that are named), check_expired, national_opt_out, '
    'not_checked (the last three where the national opt-out applies and the recipient has no exemption); otherwise '
    'eligible; errors ND010, ND011, 22004 (no purpose), 22023 (no register), 42704 (no such purpose or register)';
CREATE FUNCTION share_decision(number text, purpose text, registers text[] DEFAULT NULL, recipient text DEFAULT NULL)
    RETURNS text
    AS 'MODULE_PATHNAME', 'ndrs_optout_share_decision_text'
    LANGUAGE C STABLE PARALLEL SAFE COST 10;
COMMENT ON FUNCTION share_decision(text, text, text[], text) IS
    'whether a patient''s data may be shared for a purpose with a recipient, as committed when the statement began or '
    'later, or the first reason why not: purpose_not_permitted, number_missing, number_unreadable, placeholder, '
    'excluded_from_register (from any of them, or of those that are named), check_expired, national_opt_out, '
    'not_checked (the last three where the national opt-out applies and the recipient has no exemption); otherwise '
    'eligible; errors ND010, ND011, 22004 (no purpose), 22023 (no register), 42704 (no such purpose or register)';
CREATE FUNCTION share_decision(number bigint, purpose text, registers text[] DEFAULT NULL, recipient text DEFAULT NULL)
    RETURNS text
    AS 'MODULE_PATHNAME', 'ndrs_optout_share_decision_bigint'
    LANGUAGE C STABLE PARALLEL SAFE COST 10;
COMMENT ON FUNCTION share_decision(bigint, text, text[], text) IS
    'whether a patient''s data may be shared for a purpose with a recipient, as committed when the statement began or '
    'later, or the first reason why not: purpose_not_permitted, number_missing, number_unreadable, placeholder, '
    'excluded_from_register (from any of them, or of those that are named), check_expired, national_opt_out, '
    'not_checked (the last three where the national opt-out applies and the recipient has no exemption); otherwise '
    'eligible; errors ND010, ND011, 22004 (no purpose), 22023 (no register), 42704 (no such purpose or register)';
CREATE FUNCTION share_decision(encoded encoded_nhs_number, purpose text, registers text[] DEFAULT NULL,
                               recipient text DEFAULT NULL) RETURNS text
    AS 'MODULE_PATHNAME', 'ndrs_optout_share_decision_encoded'
    LANGUAGE C STABLE PARALLEL SAFE COST 10;
COMMENT ON FUNCTION share_decision(encoded_nhs_number, text, text[], text) IS
    'whether a patient''s data may be shared for a purpose with a recipient, as committed when the statement began or '
    'later, or the first reason why not: purpose_not_permitted, number_missing, number_unreadable, placeholder, '
    'excluded_from_register (from any of them, or of those that are named), check_expired, national_opt_out, '
    'not_checked (the last three where the national opt-out applies and the recipient has no exemption); otherwise '
    'eligible; of an encoded number, which needs no HMAC; errors ND010, ND011, 22004 (no purpose), 22023 (no '
    'register), 42704 (no such purpose or register)';

-- The query runs with the caller's rights.  Each patient is decided upon
-- once, however many rows there are, and in however many spellings.
CREATE FUNCTION share_summary(query text, purpose text, registers text[] DEFAULT NULL, recipient text DEFAULT NULL)
RETURNS TABLE (decision text, patients bigint, rows bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    source text := ndrs_optout.query_source(query);
    type regtype;
    spelled boolean;
BEGIN
    EXECUTE format('SELECT pg_typeof((SELECT q.value FROM %s LIMIT 0))', source) INTO type;
    spelled := type NOT IN ('bigint', 'ndrs_optout.nhs_number', 'ndrs_optout.encoded_nhs_number');
    FOR decision, patients, rows IN EXECUTE format(
        'SELECT d.decision,
                CASE WHEN d.decision NOT IN (''number_missing'', ''number_unreadable'', ''placeholder'')
                    THEN count(d.number) END,
                sum(d.rows)::bigint
             FROM (SELECT ndrs_optout.share_decision(%s, $1, $2, $3) AS decision, p.number, p.rows
                       FROM (SELECT %s, count(*) AS rows FROM %s GROUP BY 1, 2) AS p (number, other, rows)) AS d
             GROUP BY d.decision ORDER BY sum(d.rows) DESC, d.decision',
        CASE WHEN spelled THEN 'coalesce(p.number::text, p.other)' ELSE 'p.number' END,
        CASE WHEN spelled
             THEN 'ndrs_optout.guard_number(q.value), CASE WHEN ndrs_optout.guard_number(q.value) IS NULL THEN '
                  'q.value::text END'
             ELSE 'q.value, NULL::text' END,
        source)
        USING purpose, registers, recipient
    LOOP
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION share_summary(text, text, text[], text) IS
    'of the rows of a query, whose only column holds NHS numbers of any type that a guard reads, or encoded ones: how '
    'many patients and rows there are for each decision; patients is NULL where there is no number to know them by. '
    'The query runs with the caller''s rights, and must name what it uses in full; errors as share_decision()''s and '
    'the query''s';
