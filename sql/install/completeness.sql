-- completeness: what opt-outs take from the registers and from what is shared, for statistics.
--
-- Only months that are over, so that a number that changes from one day to the next tells of no patient;
-- and no number below the policy's smallest one.

-- What a release could not hold, of the patients that it was meant for.
CREATE TABLE release_loss (
    release_id bigint,
    decision   text COLLATE "C",
    patients   bigint,  -- NULL: there is no number to know them by
    rows       bigint NOT NULL,
    PRIMARY KEY (release_id, decision)
);
COMMENT ON TABLE release_loss IS
    'how many patients and rows were left out of a release, by the decision on them; recorded by record_release_loss()';
SELECT pg_catalog.pg_extension_config_dump('release_loss', '');

CREATE FUNCTION release_loss_add(release_id bigint, losses jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result bigint;
BEGIN
    PERFORM FROM ndrs_optout.release r WHERE r.release_id = release_loss_add.release_id FOR KEY SHARE;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.no_such_release();
    END IF;
    DELETE FROM ndrs_optout.release_loss l WHERE l.release_id = release_loss_add.release_id;
    INSERT INTO ndrs_optout.release_loss (release_id, decision, patients, rows)
        SELECT release_loss_add.release_id, l.decision, l.patients, l.rows
            FROM jsonb_to_recordset(losses) AS l (decision text, patients bigint, rows bigint)
            JOIN ndrs_optout.code c ON c.code_set = 'share_decision' AND c.code = l.decision
            WHERE l.decision <> 'eligible';
    SELECT coalesce(sum(l.rows), 0) INTO result
        FROM ndrs_optout.release_loss l WHERE l.release_id = release_loss_add.release_id;
    PERFORM ndrs_optout.audit('release_loss_recorded', jsonb_build_object('release', release_id, 'rows', result));
    RETURN result;
END
$$;
COMMENT ON FUNCTION release_loss_add(bigint, jsonb) IS
    'internal: records what a release left out, instead of what was recorded of it before; returns how many rows; '
    'error P0002';

CREATE FUNCTION record_release_loss(release_id bigint, query text) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    losses jsonb;
    asked record;
BEGIN
    SELECT * INTO asked FROM ndrs_optout.release_terms(release_id);
    SELECT jsonb_agg(to_jsonb(s)) INTO losses
        FROM ndrs_optout.share_summary(query, asked.purpose, asked.registers, asked.recipient) AS s;
    RETURN ndrs_optout.release_loss_add(release_id, coalesce(losses, '[]'));
END
$$;
COMMENT ON FUNCTION record_release_loss(bigint, text) IS
    'records how many patients were left out of a release, and why, for completeness_effect(). query: all whom the '
    'release was meant for, with the NHS numbers as its only column; it runs with the caller''s rights, and each is '
    'decided upon now, as the release was. Returns how many rows were left out; errors P0002, and those of '
    'share_summary()';

CREATE FUNCTION release_terms(release_id bigint, OUT purpose text, OUT registers text[], OUT recipient text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    SELECT r.purpose, r.registers, r.recipient INTO release_terms.purpose, release_terms.registers,
            release_terms.recipient
        FROM ndrs_optout.release r WHERE r.release_id = release_terms.release_id;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.no_such_release();
    END IF;
END
$$;
COMMENT ON FUNCTION release_terms(bigint) IS
    'internal: for what, of which registers and to whom a release was; error P0002';

-- A number that could tell of a patient is not shown, nor one of rows that few patients can have.
CREATE FUNCTION not_small(value bigint, patients bigint DEFAULT NULL) RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN value = 0 OR least(value, patients) >= p.smallest_count THEN value END FROM ndrs_optout.policy p
$$;
COMMENT ON FUNCTION not_small(bigint, bigint) IS
    'internal: the number itself; NULL when it is not 0, and it, or the number of patients that it is about, is below '
    'the policy''s smallest_count';

CREATE FUNCTION completeness_effect()
RETURNS TABLE (register text, month date, opted_out bigint, opted_in bigint, rows_erased bigint,
               rows_turned_away bigint, rows_rejected bigint, rows_redacted bigint, lost_to_sharing jsonb)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH counted AS (
        SELECT code AS register, ndrs_optout.local_date(c.excluded_at) AS day, 1::bigint AS opted_out,
               0::bigint AS opted_in, 0::bigint AS erased, 0::bigint AS skipped, 0::bigint AS rejected,
               0::bigint AS redacted
            FROM ndrs_optout.optout_case c CROSS JOIN LATERAL unnest(c.registers) AS code
            WHERE c.kind = 'opt_out' AND c.excluded_at IS NOT NULL
        UNION ALL
        SELECT code, ndrs_optout.local_date(c.carried_out_at), 0, 1, 0, 0, 0, 0
            FROM ndrs_optout.optout_case c CROSS JOIN LATERAL unnest(c.registers) AS code
            WHERE c.kind = 'opt_in' AND c.carried_out_at IS NOT NULL
        UNION ALL
        SELECT code, ndrs_optout.local_date(e.erased_at), 0, 0, e.row_count, 0, 0, 0
            FROM ndrs_optout.case_erasure e CROSS JOIN LATERAL unnest(e.registers) AS code
            WHERE e.action = 'deleted'
        UNION ALL
        SELECT g.register, t.day, 0, 0, 0, CASE t.action WHEN 'skip' THEN t.rows ELSE 0 END,
               CASE t.action WHEN 'reject' THEN t.rows ELSE 0 END,
               CASE t.action WHEN 'redact' THEN t.rows ELSE 0 END
            FROM ndrs_optout.guard_tally t
            JOIN (SELECT DISTINCT g.target, code AS register
                      FROM ndrs_optout.guard g CROSS JOIN LATERAL unnest(g.registers) AS code) AS g
                ON g.target = t.target
            WHERE t.finding = 'excluded'),
    -- How many patients it can be that rows are of: few of them are told by many rows, too.
    erased_of AS (
        SELECT code AS register, date_trunc('month', ndrs_optout.local_date(e.erased_at))::date AS month,
               count(DISTINCT e.case_id) AS patients
            FROM ndrs_optout.case_erasure e CROSS JOIN LATERAL unnest(e.registers) AS code
            WHERE e.action = 'deleted' AND e.row_count > 0
            GROUP BY 1, 2),
    listed AS (
        SELECT e.register, count(*) AS patients FROM ndrs_optout.exclusion e GROUP BY e.register),
    lost AS (
        SELECT m.register, m.month, jsonb_object_agg(m.decision, ndrs_optout.not_small(m.patients)) AS reasons
            FROM (SELECT code AS register, date_trunc('month', r.released_on)::date AS month, l.decision,
                         sum(coalesce(l.patients, l.rows))::bigint AS patients
                      FROM ndrs_optout.release_loss l JOIN ndrs_optout.release r USING (release_id)
                      CROSS JOIN LATERAL unnest(r.registers) AS code
                      WHERE r.retracted_at IS NULL
                      GROUP BY 1, 2, 3) AS m
            GROUP BY m.register, m.month),
    monthly AS (
        SELECT c.register, date_trunc('month', c.day)::date AS month, sum(c.opted_out)::bigint AS opted_out,
               sum(c.opted_in)::bigint AS opted_in, sum(c.erased)::bigint AS erased,
               sum(c.skipped)::bigint AS skipped, sum(c.rejected)::bigint AS rejected,
               sum(c.redacted)::bigint AS redacted
            FROM counted c GROUP BY 1, 2)
    SELECT register, month, ndrs_optout.not_small(coalesce(m.opted_out, 0)),
           ndrs_optout.not_small(coalesce(m.opted_in, 0)),
           ndrs_optout.not_small(coalesce(m.erased, 0), e.patients),
           ndrs_optout.not_small(coalesce(m.skipped, 0), coalesce(x.patients, 0)),
           ndrs_optout.not_small(coalesce(m.rejected, 0), coalesce(x.patients, 0)),
           ndrs_optout.not_small(coalesce(m.redacted, 0), coalesce(x.patients, 0)), l.reasons
        FROM monthly m FULL JOIN lost l USING (register, month)
        LEFT JOIN erased_of e USING (register, month) LEFT JOIN listed x USING (register)
        WHERE month < date_trunc('month', ndrs_optout.today())
        ORDER BY register, month
$$;
COMMENT ON FUNCTION completeness_effect() IS
    'by register and month that is over, what opt-outs mean for the completeness of data: patients who opted out and '
    'in again, rows that were erased, rows that guards skipped, rejected and redacted, and patients who were left out '
    'of releases, by reason (rows where there is no number). A row or patient of several registers counts for each. A '
    'number below the policy''s smallest_count is NULL, and so is one of rows that fewer patients than that can have. '
    'rows_rejected counts refusals: a load ends at its first rejected row, so those behind it are not in it, and one '
    'that is tried again is counted again';
