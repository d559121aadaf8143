-- health_proofs: what is remembered proves itself: each check of health() here compares
-- two memories of the same thing, so that one of them cannot shrink unseen.

-- The checksum that is stored in a set.
CREATE FUNCTION encoded_set_checksum(encoded_set) RETURNS bigint
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_set_checksum'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION encoded_set_checksum(encoded_set) IS
    'internal: the checksum of a set: the same for equal sets; error 22P03 for a damaged one';

-- Patients whose opt-out took effect, who have not opted in since, and who are not on
-- the list of the register.
CREATE FUNCTION unlisted_opt_outs() RETURNS TABLE (case_id bigint, register text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.case_id, r.code
        FROM ndrs_optout.optout_case c CROSS JOIN LATERAL unnest(c.registers) AS r (code)
        WHERE c.kind = 'opt_out' AND c.state IN ('excluded', 'carried_out', 'completed')
            AND NOT EXISTS (SELECT FROM ndrs_optout.exclusion e
                            WHERE e.register = r.code
                                AND e.encoded_nhs_number OPERATOR(ndrs_optout.=) c.encoded_nhs_number)
            AND NOT EXISTS (SELECT FROM ndrs_optout.optout_case i
                            WHERE i.kind = 'opt_in' AND r.code = ANY (i.registers)
                                AND i.encoded_nhs_number OPERATOR(ndrs_optout.=) c.encoded_nhs_number
                                AND i.carried_out_at >= c.excluded_at)
        ORDER BY c.case_id, r.code
$$;
COMMENT ON FUNCTION unlisted_opt_outs() IS
    'opt-out cases that took effect, without a later case of opting in, whose patient is not on the exclusion list of '
    'a register';

-- Registers of which table exclusion says otherwise than the library, which guards ask.
-- It reads the newest rows, so what is committed in between is no difference: another
-- look shows that.
CREATE FUNCTION differing_lists() RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result text[];
BEGIN
    FOR attempt IN 1 .. 3 LOOP
        result := ARRAY(
            SELECT r.code FROM ndrs_optout.register r
                WHERE ndrs_optout.encoded_set_checksum(ndrs_optout.exclusion_list(r.code))
                    <> ndrs_optout.exclusion_list_checksum(r.code)
                ORDER BY r.code);
        EXIT WHEN result = '{}';
    END LOOP;
    RETURN result;
END
$$;
COMMENT ON FUNCTION differing_lists() IS
    'internal: registers of which table exclusion says otherwise than the library, which guards ask; errors ND010, '
    'ND011';

CREATE FUNCTION health_exclusion_list() RETURNS health_finding
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN u.unlisted > 0
            THEN ROW('failed', format('opt-outs that took effect and are not on the exclusion list: %s', u.unlisted),
                     'ndrs_optout.unlisted_opt_outs() names the cases. Import the latest exported list, '
                     'CALL ndrs_optout.sweep(), and find out who removed them: '
                     'event "exclusion_list_changed" in ndrs_optout.audit_event'
          )::ndrs_optout.health_finding
        WHEN cardinality(u.differing) > 0
            THEN ROW('failed', format('guards do not read what table ndrs_optout.exclusion shows, for registers: %s',
                                      array_to_string(u.differing, ', ')),
                     'Look for an extension that keeps the table''s rows elsewhere, and for an inheritance '
                     'child of it, '
                     'and undo that')::ndrs_optout.health_finding
        ELSE ROW('ok', format('entries: %s, as cases and library say', u.listed),
                 NULL)::ndrs_optout.health_finding
        END
        FROM (SELECT (SELECT count(*) FROM ndrs_optout.unlisted_opt_outs()) AS unlisted,
                     (SELECT count(*) FROM ndrs_optout.exclusion) AS listed,
                     -- Without a key, the library does not answer.
                     CASE WHEN EXISTS (SELECT FROM ndrs_optout.encoding_key) THEN ndrs_optout.differing_lists()
                         ELSE '{}' END AS differing) AS u
$$;
COMMENT ON FUNCTION health_exclusion_list() IS
    'internal: check: every patient who opted out is on the exclusion list, and guards read what it shows';

-- Releases that hold patients who are excluded from one of their registers, and of whom
-- no recall notice tells the recipient.  A case that is being carried out raises its
-- notices at the end.  Of a case that has raised more notices than there are, the purge
-- has removed answered ones.
CREATE FUNCTION releases_without_notice() RETURNS TABLE (release_id bigint, register text, patients bigint)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH list AS MATERIALIZED (
        SELECT r.code, ndrs_optout.exclusion_list(r.code) AS members FROM ndrs_optout.register r),
    settled AS MATERIALIZED (
        SELECT n.release_id, c.encoded_nhs_number
            FROM ndrs_optout.recall_notice n JOIN ndrs_optout.optout_case c USING (case_id)
        UNION ALL
        SELECT l.release_id, c.encoded_nhs_number
            FROM ndrs_optout.optout_case c
            JOIN ndrs_optout.release l ON l.registers && c.registers
                AND (c.state = 'excluded' OR l.recorded_at <= c.carried_out_at
                     AND c.recalls > (SELECT count(*) FROM ndrs_optout.recall_notice n WHERE n.case_id = c.case_id))
            WHERE c.kind = 'opt_out')
    SELECT l.release_id, list.code, p.patients
        FROM ndrs_optout.release l
        JOIN list ON list.code = ANY (l.registers)
        CROSS JOIN LATERAL (
            SELECT ndrs_optout.cardinality(
                (l.patients OPERATOR(ndrs_optout.&) list.members) OPERATOR(ndrs_optout.-)
                (SELECT ndrs_optout.encoded_set_agg(s.encoded_nhs_number) FROM settled s
                     WHERE s.release_id = l.release_id))) AS p (patients)
        WHERE l.destroyed_on IS NULL AND l.retracted_at IS NULL AND NOT ndrs_optout.release_for_care(l)
            AND p.patients > 0
        ORDER BY l.release_id, list.code
$$;
COMMENT ON FUNCTION releases_without_notice() IS
    'releases that are not destroyed and hold patients who are excluded from one of their registers and whom no '
    'recall notice names: how many, by register. Releases for individual care and to care providers need none';

CREATE FUNCTION health_releases() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN r.releases > 0
            THEN ROW('failed',
                     format('releases that hold excluded patients and have no recall notice for them: %s', r.releases),
                     'ndrs_optout.releases_without_notice() names the releases. Opening the patient''s case again, '
                     'and carrying it out, raises the notice')::ndrs_optout.health_finding
        ELSE ROW('ok', 'each release that holds an excluded patient has a recall notice',
                 NULL)::ndrs_optout.health_finding
        END
        FROM (SELECT count(DISTINCT w.release_id) AS releases FROM ndrs_optout.releases_without_notice() w) AS r
$$;
COMMENT ON FUNCTION health_releases() IS
    'internal: check: each release that holds an excluded patient has a recall notice';

-- As verify_certificate(), for all at once.  Events whose month was purged cannot be
-- compared.
CREATE FUNCTION health_certificates() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN c.changed > 0
            THEN ROW('failed', format('stored certificates that are not what was issued: %s', c.changed),
                     'SELECT case_id FROM ndrs_optout.case_certificate '
                     'WHERE NOT ndrs_optout.verify_certificate(certificate) '
                     'names the cases. Look for damaged storage, and for who changed them')::ndrs_optout.health_finding
        WHEN c.missing > 0
            THEN ROW('failed', format('completed cases whose certificate is gone: %s', c.missing),
                     'Restore table ndrs_optout.case_certificate from a backup')::ndrs_optout.health_finding
        ELSE ROW('ok', format('stored certificates that verify: %s', c.stored), NULL)::ndrs_optout.health_finding
        END
        FROM (SELECT count(k.case_id) AS stored,
                     count(k.case_id) FILTER (WHERE NOT EXISTS (
                         SELECT FROM ndrs_optout.audit_event e
                             WHERE e.event = 'certificate_issued'
                                 AND e.detail = jsonb_build_object(
                                     'case', k.case_id, 'sha256', ndrs_optout.certificate_hash(k.certificate)))
                         AND (to_char(k.issued_at AT TIME ZONE 'UTC', 'YYYY-MM') COLLATE "C"
                              <= (SELECT to_char(max(s.segment), 'YYYY-MM') FROM ndrs_optout.audit_segment s
                                      WHERE s.purged_at IS NOT NULL)) IS NOT TRUE) AS changed,
                     count(*) FILTER (WHERE k.case_id IS NULL AND o.state = 'completed') AS missing
                  FROM ndrs_optout.optout_case o FULL JOIN ndrs_optout.case_certificate k USING (case_id)
                  WHERE o.kind = 'opt_out' OR k.case_id IS NOT NULL) AS c
$$;
COMMENT ON FUNCTION health_certificates() IS
    'internal: check: stored certificates are what was issued, and none is gone';

CREATE FUNCTION health_data_checksums() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN current_setting('data_checksums') = 'on'
            THEN ROW('ok', 'the server notices damaged pages', NULL)::ndrs_optout.health_finding
        ELSE ROW('warning', 'the cluster has no data checksums: a damaged page of the exclusion list may go unnoticed',
                 'Stop the server, run pg_checksums --enable, and start it again')::ndrs_optout.health_finding
        END
$$;
COMMENT ON FUNCTION health_data_checksums() IS 'internal: check: the cluster has data checksums';

-- Deadlines reach a year ahead at the most.
CREATE FUNCTION health_bank_holidays() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN h.last > ndrs_optout.today() + 365
            THEN ROW('ok', format('bank holidays are known until %s', to_char(h.last, 'YYYY-MM-DD')),
                     NULL)::ndrs_optout.health_finding
        ELSE ROW('warning',
                 format('no bank holiday is known after %s', coalesce(to_char(h.last, 'YYYY-MM-DD'), 'any day')),
                 'INSERT INTO ndrs_optout.bank_holiday (day, name) VALUES (...)')::ndrs_optout.health_finding
        END
        FROM (SELECT max(b.day) FILTER (WHERE b.observed) AS last FROM ndrs_optout.bank_holiday b) AS h
$$;
COMMENT ON FUNCTION health_bank_holidays() IS 'internal: check: bank holidays are known for another year';
