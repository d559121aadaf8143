-- retention: what is kept for a time only, and the purge that removes it.
--
-- The exclusion list stays for ever.  So do the cases: they hold no identity but the encoded number, and
-- say why it is on the list.  A case that was withdrawn or refused puts no patient there, and loses the number.

-- What the last purge did.
CREATE TABLE purge_run (
    what    text PRIMARY KEY,
    run_at  timestamptz NOT NULL,
    removed bigint NOT NULL
);
COMMENT ON TABLE purge_run IS 'when the last purge ran, and how much it removed of what';
SELECT pg_catalog.pg_extension_config_dump('purge_run', '');

-- What a hold keeps from the purge.
CREATE FUNCTION held_records() RETURNS TABLE (source text, id bigint)
LANGUAGE sql STABLE SECURITY DEFINER ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'optout_case', c.case_id FROM ndrs_optout.held_cases() AS c
    UNION ALL
    SELECT 'release', r.release_id
        FROM ndrs_optout.release r
        WHERE EXISTS (SELECT FROM ndrs_optout.hold h LEFT JOIN ndrs_optout.optout_case c USING (case_id)
                      WHERE h.register = ANY (r.registers) OR c.registers && r.registers
                              AND r.patients OPERATOR(ndrs_optout.@>) c.encoded_nhs_number
                          OR r.patients OPERATOR(ndrs_optout.@>) h.encoded_nhs_number)
    UNION ALL
    SELECT 'subject_access_request', q.request_id
        FROM ndrs_optout.subject_access_request q
        JOIN ndrs_optout.hold h ON h.encoded_nhs_number OPERATOR(ndrs_optout.=) q.encoded_nhs_number
$$;
COMMENT ON FUNCTION held_records() IS
    'what holds keep from the purge: cases, releases, and requests for subject access';

-- What will be purged, when it is due, and whether a hold keeps it all the same.
-- The only place that knows.  The day on which a copy goes is promised in letters, so it
-- is stored when the case ends, or when something comes afterwards (copy_until()); a
-- proof counts from when it was recorded, or a form that is entered late would expire the
-- same night.
--
-- The copy of an open case has no such day yet, nor has a request without an answer.
-- Of rows that count the same for a guard and a day, all but one are due when the day
-- is over.  A month of the audit is due as a whole, and is evidence for whatever is held.  The latest sweep stays for
-- sweep_progress, and the last one of each column for health().  A ready case never
-- is due: that it was not carried out is the registry's own delay.  A national
-- check with its reply stays as long as an older one is in force, which it would else
-- bring back for those whom both asked about.
CREATE VIEW retention_schedule AS
    WITH one_policy AS (SELECT * FROM policy LIMIT 1),  -- a plan for one row, which needs no JIT
    held AS MATERIALIZED (SELECT DISTINCT h.source, h.id FROM held_records() AS h)
    SELECT 'correspondence' AS what, k.correspondence_id AS id, 1::bigint AS rows,
           coalesce(k.kept_until, c.copy_until)::timestamp AT TIME ZONE p.time_zone AS due_at,
           h.id IS NOT NULL AS held
        FROM optout_case c JOIN case_correspondence k USING (case_id) CROSS JOIN one_policy p
        LEFT JOIN held h ON h.source = 'optout_case' AND h.id = c.case_id
    UNION ALL
    SELECT 'case_numbers', c.case_id, 1,
           GREATEST(c.copy_until, (SELECT max(k.kept_until) FROM case_correspondence k WHERE k.case_id = c.case_id))
               ::timestamp AT TIME ZONE p.time_zone,
           h.id IS NOT NULL
        FROM optout_case c CROSS JOIN one_policy p LEFT JOIN held h ON h.source = 'optout_case' AND h.id = c.case_id
        WHERE c.state IN ('withdrawn', 'refused') AND c.encoded_nhs_number IS NOT NULL
    UNION ALL
    SELECT 'unproven_cases', c.case_id, 1,
           ((GREATEST(c.recorded_at, max(e.recorded_at)) AT TIME ZONE p.time_zone)::date + p.evidence_days)
               ::timestamp AT TIME ZONE p.time_zone,
           h.id IS NOT NULL
        FROM optout_case c LEFT JOIN identity_evidence e USING (case_id) CROSS JOIN one_policy p
        LEFT JOIN held h ON h.source = 'optout_case' AND h.id = c.case_id
        WHERE c.state = 'awaiting_identity'
        GROUP BY c.case_id, p.evidence_days, p.time_zone, h.id
    UNION ALL
    SELECT 'subject_access_requests', q.request_id, 1,
           coalesce(q.answered_at, q.refused_at) + pg_catalog.make_interval(years => p.subject_access_years),
           h.id IS NOT NULL
        FROM subject_access_request q CROSS JOIN one_policy p
        LEFT JOIN held h ON h.source = 'subject_access_request' AND h.id = q.request_id
    UNION ALL
    SELECT 'audit_events', s.first_event_id, s.last_event_id - s.first_event_id + 1,
           (s.segment + pg_catalog.make_interval(years => p.audit_years, months => 1)) AT TIME ZONE 'UTC',
           EXISTS (SELECT FROM hold)
        FROM audit_segment s CROSS JOIN one_policy p
        WHERE s.purged_at IS NULL
    UNION ALL
    SELECT 'guard_counts', NULL, count(*) - 1, (t.day + 1)::timestamptz, false
        FROM guard_tally t
        GROUP BY t.target, t.day, t.finding, t.action
        HAVING count(*) > 1
    UNION ALL
    SELECT 'sweeps', s.sweep_id, 1, s.finished_at, false
        FROM sweep s
        WHERE s.finished_at IS NOT NULL AND s.sweep_id < (SELECT max(l.sweep_id) FROM sweep l)
            AND NOT EXISTS (
                SELECT FROM sweep_leaf l JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.relation
                    WHERE l.sweep_id = s.sweep_id
                        AND NOT EXISTS (SELECT FROM sweep_leaf n
                                        WHERE n.relation = l.relation AND n.nhs_number_column = l.nhs_number_column
                                            AND n.state = 'done' AND n.finished_at > l.finished_at))
    UNION ALL
    SELECT 'recall_notices', c.case_id, count(*),
           greatest(c.ended_at, max(n.acknowledged_at)) + pg_catalog.make_interval(years => p.recall_years),
           h.id IS NOT NULL
        FROM optout_case c JOIN recall_notice n USING (case_id) CROSS JOIN one_policy p
        LEFT JOIN held h ON h.source = 'optout_case' AND h.id = c.case_id
        WHERE c.ended_at IS NOT NULL AND n.acknowledged_at IS NOT NULL
        GROUP BY c.case_id, p.recall_years, h.id
    UNION ALL
    SELECT 'release_sets', r.release_id, 1,
           (coalesce(r.destroyed_on, (r.retracted_at AT TIME ZONE p.time_zone)::date)
               + pg_catalog.make_interval(years => p.release_years)) AT TIME ZONE p.time_zone,
           h.id IS NOT NULL
        FROM release r CROSS JOIN one_policy p LEFT JOIN held h ON h.source = 'release' AND h.id = r.release_id
        WHERE r.patients IS NOT NULL
    UNION ALL
    SELECT 'complaints', m.complaint_id, 1, m.kept_until::timestamp AT TIME ZONE p.time_zone,
           h.id IS NOT NULL OR EXISTS (SELECT FROM hold o WHERE o.hold_id = m.hold_id)
        FROM complaint m CROSS JOIN one_policy p
        LEFT JOIN held h ON h.source = 'optout_case' AND h.id = m.case_id
            OR h.source = 'subject_access_request' AND h.id = m.request_id
        WHERE m.kept_until IS NOT NULL
    UNION ALL
    SELECT 'national_checks', n.check_id, 1,
           CASE WHEN n.loaded_at IS NULL THEN n.expires_at ELSE max(n.expires_at) OVER (ORDER BY n.check_id) END, false
        FROM national_check n;
COMMENT ON VIEW retention_schedule IS
    'what is kept for a time only: since when it is or will be due, and whether a hold keeps it longer. '
    'correspondence: the confidential copies of cases that ended; case_numbers: the encoded NHS numbers of cases '
    'that were withdrawn or refused, due with the last of the copy; unproven_cases: cases whose applicants did not '
    'prove who they are, with the proofs that came; subject_access_requests: answered or refused ones; audit_events: '
    'months of the audit; guard_counts: rows of guard_tally that can be summed up; sweeps: finished ones, but '
    'neither the latest nor the last one of any column; recall_notices: answered ones of cases that ended; '
    'release_sets: the patients of releases, due some years after they were destroyed or retracted; national_checks: '
    'expired ones, with what an older one says about the same patients; complaints: those that have their outcome';

-- What was removed of one kind.  A function that returns this, of a kind and a time, is the
-- purge of the kind that it is named after; details go into the audit event.
CREATE TYPE purge_result AS (
    removed bigint,
    details jsonb
);
COMMENT ON TYPE purge_result IS
    'internal: how much a purge removed of one kind, and what the audit event is to say besides; a function that '
    'returns one is the purge of a kind';

-- The kinds, in the order in which they are purged: the audit last, since from there on
-- every transaction that commits an event waits.
CREATE VIEW purge_kind AS
    SELECT pg_catalog.substr(p.proname, pg_catalog.length('purge_') + 1) AS what,
           p.oid::regprocedure AS function,
           pg_catalog.row_number() OVER (ORDER BY p.proname = 'purge_audit_events', p.proname) AS position
        FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'ndrs_optout'::regnamespace AND p.prorettype = 'ndrs_optout.purge_result'::regtype;
COMMENT ON VIEW purge_kind IS
    'internal: the kinds of data that are kept for a time only, each with the function that purges it, in their '
    'order';

CREATE VIEW purge_due AS
    SELECT k.what, coalesce(sum(r.rows) FILTER (WHERE NOT r.held), 0)::bigint AS due,
           min(r.due_at) FILTER (WHERE NOT r.held) AS due_since,
           coalesce(sum(r.rows) FILTER (WHERE r.held), 0)::bigint AS held,
           l.run_at AS last_run_at, l.removed AS last_removed
        FROM purge_kind k
        LEFT JOIN retention_schedule r ON r.what = k.what AND r.due_at <= pg_catalog.now()
        LEFT JOIN purge_run l ON l.what = k.what
        GROUP BY k.what, l.run_at, l.removed
        ORDER BY k.what;
COMMENT ON VIEW purge_due IS
    'what a purge would remove now and since when that is due, what is due but held, and what the last purge did; '
    'due_since long ago means that the purge does not run';

CREATE FUNCTION retention_due(what text, as_of timestamptz) RETURNS SETOF bigint
LANGUAGE sql STABLE
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.id FROM ndrs_optout.retention_schedule r
        WHERE r.what = retention_due.what AND r.due_at <= as_of AND NOT r.held
$$;
COMMENT ON FUNCTION retention_due(text, timestamptz) IS 'internal: what of a kind is due and not held';

-- Cases of which something is due, locked.  One that another session has locked is left to
-- the next purge, so that neither waits for the other.  What is due is asked again when
-- they are locked: a hold or a proof may have come before.
CREATE FUNCTION retention_lock_cases(what text, as_of timestamptz) RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    locked bigint[] := ARRAY(
        SELECT c.case_id FROM ndrs_optout.optout_case c
            WHERE c.case_id IN (SELECT ndrs_optout.retention_due(what, as_of))
            ORDER BY c.case_id FOR UPDATE SKIP LOCKED);
BEGIN
    RETURN ARRAY(SELECT d.case_id FROM ndrs_optout.retention_due(what, as_of) AS d (case_id)
                     WHERE d.case_id = ANY (locked) ORDER BY d.case_id);
END
$$;
COMMENT ON FUNCTION retention_lock_cases(text, timestamptz) IS
    'internal: locks the cases of which something of a kind is due, but for those that are locked; returns those of '
    'which it still is';

-- What is kept of a case is locked with it: a hold may have come before.
CREATE FUNCTION purge_correspondence(what text, as_of timestamptz) RETURNS purge_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    cases bigint[] := ARRAY(
        SELECT c.case_id FROM ndrs_optout.optout_case c
            WHERE c.case_id IN (SELECT k.case_id FROM ndrs_optout.case_correspondence k
                                    WHERE k.correspondence_id IN (SELECT ndrs_optout.retention_due(what, as_of)))
            ORDER BY c.case_id FOR UPDATE SKIP LOCKED);
    result ndrs_optout.purge_result;
BEGIN
    DELETE FROM ndrs_optout.case_correspondence k
        WHERE k.case_id = ANY (cases)
            AND k.correspondence_id IN (SELECT ndrs_optout.retention_due(what, as_of));
    GET DIAGNOSTICS result.removed = ROW_COUNT;
    RETURN result;
END
$$;
COMMENT ON FUNCTION purge_correspondence(text, timestamptz) IS
    'internal: purges the confidential copies of cases that ended';

CREATE FUNCTION purge_case_numbers(what text, as_of timestamptz) RETURNS purge_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    cases bigint[] := ndrs_optout.retention_lock_cases(what, as_of);
    result ndrs_optout.purge_result;
BEGIN
    UPDATE ndrs_optout.optout_case c SET encoded_nhs_number = NULL WHERE c.case_id = ANY (cases);
    GET DIAGNOSTICS result.removed = ROW_COUNT;
    RETURN result;
END
$$;
COMMENT ON FUNCTION purge_case_numbers(text, timestamptz) IS
    'internal: forgets whose requests were withdrawn or refused';

CREATE FUNCTION purge_recall_notices(what text, as_of timestamptz) RETURNS purge_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    cases bigint[] := ndrs_optout.retention_lock_cases(what, as_of);
    result ndrs_optout.purge_result;
BEGIN
    DELETE FROM ndrs_optout.recall_notice n WHERE n.acknowledged_at IS NOT NULL AND n.case_id = ANY (cases);
    GET DIAGNOSTICS result.removed = ROW_COUNT;
    RETURN result;
END
$$;
COMMENT ON FUNCTION purge_recall_notices(text, timestamptz) IS
    'internal: purges answered recall notices of cases that ended';

CREATE FUNCTION purge_unproven_cases(what text, as_of timestamptz) RETURNS purge_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    cases bigint[] := ndrs_optout.retention_lock_cases(what, as_of);
    result ndrs_optout.purge_result;
BEGIN
    PERFORM ndrs_optout.end_case(ndrs_optout.locked_case(e.case_id, 'expire'), 'withdrawn', NULL),
            ndrs_optout.audit('case_expired', jsonb_build_object('case', e.case_id))
        FROM unnest(cases) AS e (case_id);
    UPDATE ndrs_optout.optout_case c SET expired = true WHERE c.case_id = ANY (cases);
    result.removed := cardinality(cases);
    RETURN result;
END
$$;
COMMENT ON FUNCTION purge_unproven_cases(text, timestamptz) IS
    'internal: ends cases whose applicants did not prove who they are';

CREATE FUNCTION purge_release_sets(what text, as_of timestamptz) RETURNS purge_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result ndrs_optout.purge_result;
BEGIN
    UPDATE ndrs_optout.release l SET patients = NULL
        WHERE l.release_id IN (SELECT ndrs_optout.retention_due(what, as_of));
    GET DIAGNOSTICS result.removed = ROW_COUNT;
    RETURN result;
END
$$;
COMMENT ON FUNCTION purge_release_sets(text, timestamptz) IS
    'internal: forgets the patients of releases that recipients destroyed';

-- An officer may be answering one again.
CREATE FUNCTION purge_subject_access_requests(what text, as_of timestamptz) RETURNS purge_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result ndrs_optout.purge_result;
BEGIN
    WITH gone AS (
        DELETE FROM ndrs_optout.subject_access_request q
            WHERE q.request_id IN (SELECT a.request_id FROM ndrs_optout.subject_access_request a
                                       WHERE a.request_id IN (SELECT ndrs_optout.retention_due(what, as_of))
                                       FOR UPDATE SKIP LOCKED)
            RETURNING q.request_id),
    withheld AS (
        DELETE FROM ndrs_optout.subject_access_withheld w USING gone g WHERE w.request_id = g.request_id)
    SELECT count(*) INTO result.removed FROM gone;
    RETURN result;
END
$$;
COMMENT ON FUNCTION purge_subject_access_requests(text, timestamptz) IS
    'internal: purges requests for subject access that were answered or refused';

-- A loader of yesterday may still add rows, which the next purge sums up.
CREATE FUNCTION purge_guard_counts(what text, as_of timestamptz) RETURNS purge_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result ndrs_optout.purge_result;
BEGIN
    IF NOT EXISTS (SELECT FROM ndrs_optout.retention_due(what, as_of)) THEN
        result.removed := 0;
        RETURN result;
    END IF;
    WITH gone AS (
        DELETE FROM ndrs_optout.guard_tally t
            WHERE t.day < as_of::date
                AND EXISTS (SELECT FROM ndrs_optout.guard_tally o
                            WHERE (o.target, o.day, o.finding, o.action) = (t.target, t.day, t.finding, t.action)
                                AND o.ctid <> t.ctid)
            RETURNING t.*),
    summed AS (
        INSERT INTO ndrs_optout.guard_tally (target, day, finding, action, rows)
            SELECT g.target, g.day, g.finding, g.action, sum(g.rows) FROM gone g
                GROUP BY g.target, g.day, g.finding, g.action
            RETURNING 1)
    SELECT (SELECT count(*) FROM gone) - (SELECT count(*) FROM summed) INTO result.removed;
    RETURN result;
END
$$;
COMMENT ON FUNCTION purge_guard_counts(text, timestamptz) IS
    'internal: sums up the counts of guards of days that are over';

CREATE FUNCTION purge_sweeps(what text, as_of timestamptz) RETURNS purge_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result ndrs_optout.purge_result;
BEGIN
    DELETE FROM ndrs_optout.sweep s WHERE s.sweep_id IN (SELECT ndrs_optout.retention_due(what, as_of));
    GET DIAGNOSTICS result.removed = ROW_COUNT;
    RETURN result;
END
$$;
COMMENT ON FUNCTION purge_sweeps(text, timestamptz) IS 'internal: purges finished sweeps';

CREATE FUNCTION purge_complaints(what text, as_of timestamptz) RETURNS purge_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result ndrs_optout.purge_result;
BEGIN
    DELETE FROM ndrs_optout.complaint m WHERE m.complaint_id IN (SELECT ndrs_optout.retention_due(what, as_of));
    GET DIAGNOSTICS result.removed = ROW_COUNT;
    RETURN result;
END
$$;
COMMENT ON FUNCTION purge_complaints(text, timestamptz) IS 'internal: purges complaints that have their outcome';

-- What is due is asked again when the checks are locked: a reply may have come before.
CREATE FUNCTION purge_national_checks(what text, as_of timestamptz) RETURNS purge_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    checks bigint[] := ARRAY(
        SELECT n.check_id FROM ndrs_optout.national_check n
            WHERE n.check_id IN (SELECT ndrs_optout.retention_due(what, as_of))
            ORDER BY n.check_id FOR UPDATE SKIP LOCKED);
    result ndrs_optout.purge_result;
BEGIN
    WITH gone AS (
        DELETE FROM ndrs_optout.national_check n
            WHERE n.check_id = ANY (checks) AND n.check_id IN (SELECT ndrs_optout.retention_due(what, as_of))
            RETURNING n.check_id)
    SELECT coalesce(array_agg(g.check_id), '{}') INTO checks FROM gone g;
    DELETE FROM ndrs_optout.national_check_part p WHERE p.check_id = ANY (checks);
    result.removed := cardinality(checks);
    RETURN result;
END
$$;
COMMENT ON FUNCTION purge_national_checks(text, timestamptz) IS 'internal: purges national checks that expired';

-- verify_audit() believes that the months were purged because the event of this purge says so.
CREATE FUNCTION purge_audit_events(what text, as_of timestamptz) RETURNS purge_result
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    last_month date;
    result ndrs_optout.purge_result;
BEGIN
    LOCK TABLE ndrs_optout.audit_segment IN SHARE ROW EXCLUSIVE MODE;
    WITH marked AS (
        UPDATE ndrs_optout.audit_segment s SET purged_at = clock_timestamp()
            WHERE s.first_event_id IN (SELECT ndrs_optout.retention_due(what, as_of))
            RETURNING s.segment)
    SELECT max(m.segment) INTO last_month FROM marked m;
    DELETE FROM ndrs_optout.audit_event e WHERE e.segment <= last_month;
    GET DIAGNOSTICS result.removed = ROW_COUNT;
    result.details := jsonb_strip_nulls(jsonb_build_object('audit_until', last_month));
    RETURN result;
END
$$;
COMMENT ON FUNCTION purge_audit_events(text, timestamptz) IS
    'internal: purges months of the audit; the details name the last one';

-- One purge at a time.
CREATE FUNCTION purge(as_of timestamptz DEFAULT now()) RETURNS TABLE (what text, removed bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kind ndrs_optout.purge_kind;
    this_removed bigint;
    this_details jsonb;
    counts jsonb := '{}'::jsonb;
    details jsonb := '{}'::jsonb;
BEGIN
    IF (as_of <= now() AND isfinite(as_of)) IS NOT TRUE THEN
        PERFORM ndrs_optout.raise_error('22023', 'as_of must be now or before',
            detail => 'What is not due yet is kept.');
    END IF;
    PERFORM ndrs_optout.require_read_committed();
    LOCK TABLE ndrs_optout.purge_run IN SHARE ROW EXCLUSIVE MODE;
    PERFORM ndrs_optout.lock_holds();
    FOR kind IN SELECT * FROM ndrs_optout.purge_kind k ORDER BY k.position LOOP
        EXECUTE format('SELECT r.removed, r.details FROM %s($1, $2) AS r', kind.function::regproc)
            INTO STRICT this_removed, this_details USING kind.what, as_of;
        counts := counts || jsonb_build_object(kind.what, this_removed);
        details := details || coalesce(this_details, '{}'::jsonb);
        INSERT INTO ndrs_optout.purge_run AS l (what, run_at, removed)
            VALUES (kind.what, clock_timestamp(), this_removed)
            ON CONFLICT ON CONSTRAINT purge_run_pkey DO UPDATE SET run_at = excluded.run_at, removed = excluded.removed;
    END LOOP;
    IF EXISTS (SELECT FROM jsonb_each_text(counts) AS n WHERE n.value <> '0') THEN
        PERFORM ndrs_optout.audit('purged', counts || details);
    END IF;
    RETURN QUERY SELECT n.key, n.value::bigint FROM jsonb_each_text(counts) AS n ORDER BY n.key;
END
$$;
COMMENT ON FUNCTION purge(timestamptz) IS
    'removes what is due by the policy as of now, or of a time before, and is not held; returns for each kind, as in '
    'view retention_schedule, how much: pieces of correspondence, cases that came to an end, requests, events, rows, '
    'sweeps, notices, sets, checks. Can be repeated; catches up. The exclusion list and the cases stay; errors 22023 '
    '(a time to come), 25000';

-- The job that purges this database.  pg_cron keeps the jobs of all databases in
-- one, hence the name; a long one is cut off as pg_cron does.
CREATE FUNCTION purge_job() RETURNS name
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('ndrs_optout purge of %s', current_database())::name
$$;
COMMENT ON FUNCTION purge_job() IS 'internal: the name of pg_cron''s job that purges this database';

-- The schema of pg_cron's functions.  A schema of that name that another role has
-- made is not taken for it.
CREATE FUNCTION cron_schema() RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result text;
BEGIN
    -- Only a loaded library's settings are listed.
    IF NOT EXISTS (SELECT FROM pg_settings s WHERE s.name = 'cron.database_name') THEN
        PERFORM ndrs_optout.raise_error('55000', 'pg_cron is not loaded',
            hint => format('Install its package, set shared_preload_libraries = ''pg_cron'' and cron.database_name = '
                           '''%s'', restart the server, and CREATE EXTENSION pg_cron.', current_database()));
    END IF;
    IF current_setting('cron.database_name') <> current_database() THEN
        PERFORM ndrs_optout.raise_error('55000', format('pg_cron keeps its jobs in database "%s"',
                                                        current_setting('cron.database_name')),
            hint => format('There, a superuser can call cron.schedule_in_database(%L, ''30 2 * * *'', %L, %L) and '
                           'cron.unschedule(%1$L).',
                           ndrs_optout.purge_job(), ndrs_optout.purge_command(), current_database()));
    END IF;
    SELECT quote_ident(n.nspname) INTO result
        FROM pg_extension e
        JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
            AND d.classid = 'pg_namespace'::regclass
        JOIN pg_namespace n ON n.oid = d.objid
        WHERE e.extname = 'pg_cron';
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('55000', 'extension pg_cron is not installed in this database',
            hint => 'CREATE EXTENSION pg_cron.');
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION cron_schema() IS
    'internal: the schema of extension pg_cron, quoted; error 55000 when it cannot be used here';

-- Whatever the database's default isolation level.
CREATE FUNCTION purge_command() RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; SELECT ndrs_optout.purge()'
$$;
COMMENT ON FUNCTION purge_command() IS 'internal: what pg_cron runs';

-- Ends the job, whichever role it runs as; there may be none.
CREATE FUNCTION purge_job_end() RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    cron text := ndrs_optout.cron_schema();
    ended bigint;
BEGIN
    EXECUTE format('SELECT count(%s(j.jobid::bigint)) FROM %s.job j WHERE j.jobname::text = $1',
                   ndrs_optout.extension_function('pg_cron', 'unschedule', '{bigint}'), cron)
        INTO ended USING ndrs_optout.purge_job()::text;
    RETURN ended > 0;
END
$$;
COMMENT ON FUNCTION purge_job_end() IS 'internal: unschedules the purge; whether it was scheduled';

CREATE FUNCTION schedule_purge(schedule text DEFAULT '30 2 * * *') RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF schedule IS NULL THEN
        PERFORM ndrs_optout.raise_error('22004', 'a schedule is needed');
    END IF;
    PERFORM ndrs_optout.purge_job_end();
    BEGIN
        EXECUTE format('SELECT %s($1, $2, $3)', ndrs_optout.extension_function('pg_cron', 'schedule',
                                                                               '{text,text,text}'))
            USING ndrs_optout.purge_job()::text, schedule, ndrs_optout.purge_command();
    EXCEPTION WHEN invalid_parameter_value THEN
        PERFORM ndrs_optout.raise_error('22023', 'pg_cron does not read this schedule',
            hint => 'Minute, hour, day of month, month and day of week: ''30 2 * * *'' is every night at half past '
                    'two, in pg_cron''s time zone, GMT by default.');
    END;
    PERFORM ndrs_optout.audit('purge_scheduled', jsonb_build_object('schedule', schedule));
    RETURN ndrs_optout.purge_job();
END
$$;
COMMENT ON FUNCTION schedule_purge(text) IS
    'has pg_cron run purge() in this database as the extension''s owner, by default every night at 2:30 GMT, instead '
    'of when it was scheduled before; returns the name of the job. It stays when the extension is dropped; errors '
    '22004, 22023 (not a schedule), 55000 (pg_cron is not installed, or its jobs are in another database)';

CREATE FUNCTION unschedule_purge() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT ndrs_optout.purge_job_end() THEN
        PERFORM ndrs_optout.raise_error('42704', 'the purge is not scheduled');
    END IF;
    PERFORM ndrs_optout.audit('purge_unscheduled');
END
$$;
COMMENT ON FUNCTION unschedule_purge() IS
    'has pg_cron run purge() no more; errors 42704 (not scheduled), 55000 (pg_cron is not installed)';

-- Only purge() marks a segment, when the policy's years are over, and takes its
-- events in the same transaction: so no other transaction finds any that can be
-- deleted.
CREATE FUNCTION audit_purge_when_due() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ndrs_optout.retention_schedule r
                   WHERE r.what = 'audit_events' AND r.id = OLD.first_event_id AND r.due_at <= clock_timestamp()) THEN
        PERFORM ndrs_optout.raise_error('ND050', 'the audit is append-only',
            detail => 'Only a month that is due can be purged, and only once.');
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION audit_purge_when_due() IS
    'internal: trigger function: error ND050 when a segment is marked as purged before it is due';

CREATE TRIGGER purge_when_due BEFORE UPDATE ON audit_segment
    FOR EACH ROW WHEN (NEW.purged_at IS DISTINCT FROM OLD.purged_at) EXECUTE FUNCTION audit_purge_when_due();
COMMENT ON TRIGGER purge_when_due ON audit_segment IS 'segments are purged when they are due';
ALTER TABLE audit_segment ENABLE ALWAYS TRIGGER purge_when_due;
