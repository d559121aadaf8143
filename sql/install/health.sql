-- health: whether all is well, for a DBA or a monitor.
--
-- Each function that returns a health_finding is a check, named after it.

CREATE TYPE health_finding AS (
    status     text,
    detail     text,
    what_to_do text
);
COMMENT ON TYPE health_finding IS 'internal: what a check of health() found; a function that returns one is a check';

-- The cause is that of the library, whose messages name no file and no patient.
CREATE FUNCTION health_key() RETURNS health_finding
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    adopted ndrs_optout.encoding_key;
    loaded ndrs_optout.encoded_nhs_number;
    cause text;
    remedy text;
BEGIN
    SELECT * INTO adopted FROM ndrs_optout.encoding_key;
    BEGIN
        loaded := ndrs_optout.key_fingerprint();
    EXCEPTION WHEN SQLSTATE 'ND010' THEN
        GET STACKED DIAGNOSTICS cause = PG_EXCEPTION_DETAIL, remedy = PG_EXCEPTION_HINT;
        RETURN ROW('failed', 'the key file cannot be read: ' || cause, remedy)::ndrs_optout.health_finding;
    END;
    RETURN CASE
        WHEN adopted.fingerprint IS NULL
            THEN ROW('failed', 'no key is adopted', 'a superuser calls ndrs_optout.adopt_key() when the key file is '
                                                    'the right one; to restore a dump, put the key that its database '
                                                    'adopted in place first')::ndrs_optout.health_finding
        WHEN adopted.fingerprint OPERATOR(ndrs_optout.<>) loaded
            THEN ROW('failed', format('the key in ndrs_optout.key_file is not the adopted one, %s', adopted.key_id),
                     'put the adopted key file back and SELECT pg_reload_conf(); keep this one, another database may '
                     'need it')::ndrs_optout.health_finding
        ELSE ROW('ok', format('the adopted key, %s, is loaded', adopted.key_id), NULL)::ndrs_optout.health_finding
        END;
END
$$;
COMMENT ON FUNCTION health_key() IS 'internal: check: the key that is loaded is the adopted one';

CREATE FUNCTION health_guards() RETURNS health_finding
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN b.tables > 0 AND NOT EXISTS (SELECT FROM ndrs_optout.guard)
            THEN ROW('failed', format('tables with the constraint of a guard, although none is guarded: %s. Their rows '
                                      'are refused, except for who restores', b.tables),
                     'restore the data of the extension''s tables, too, or SELECT ndrs_optout.guard_table(...)'
          )::ndrs_optout.health_finding
        WHEN NOT EXISTS (SELECT FROM ndrs_optout.guard)
            THEN ROW('warning', 'no table is guarded',
                     'SELECT ndrs_optout.guard_table(...)')::ndrs_optout.health_finding
        ELSE ROW(CASE WHEN g.high > 0 THEN 'failed' WHEN g.medium > 0 THEN 'warning' ELSE 'ok' END,
                 format('gaps by severity: %s high, %s medium, %s low', g.high, g.medium, g.low),
                 CASE WHEN g.high + g.medium + g.low > 0
                     THEN 'SELECT * FROM ndrs_optout.guard_coverage()' END)::ndrs_optout.health_finding
        END
        FROM (SELECT count(*) FILTER (WHERE c.severity = 'high') AS high,
                     count(*) FILTER (WHERE c.severity = 'medium') AS medium,
                     count(*) FILTER (WHERE c.severity = 'low') AS low
                  FROM ndrs_optout.guard_coverage() AS c) AS g
        CROSS JOIN (SELECT count(DISTINCT k.conrelid) AS tables
                        FROM pg_depend d JOIN pg_constraint k ON k.oid = d.objid
                        WHERE d.classid = 'pg_constraint'::regclass AND d.refclassid = 'pg_proc'::regclass
                            AND d.refobjid = ANY (ndrs_optout.guard_constraint_functions())) AS b
$$;
COMMENT ON FUNCTION health_guards() IS
    'internal: check: guard_coverage() tells of no gap; failed with a high one, warning with a medium one';

CREATE FUNCTION health_sentry() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN s.working < 4
            THEN ROW('failed', format('%s of 4 event triggers of the sentry are not ENABLE ALWAYS', 4 - s.working),
                     'SELECT what_to_do FROM ndrs_optout.guard_coverage() WHERE gap = ''sentry_off'''
    )::ndrs_optout.health_finding
        WHEN current_setting('event_triggers', true) = 'off'
            THEN ROW('failed', 'event triggers are off, for this session at least',
                     'take event_triggers out of postgresql.conf, ALTER ROLE and ALTER DATABASE'
                )::ndrs_optout.health_finding
        WHEN current_setting('ndrs_optout.allow_unguarded')::boolean
            THEN ROW('warning', 'ndrs_optout.allow_unguarded is on, for this session at least',
                     'take it out of postgresql.conf, ALTER ROLE and ALTER DATABASE'
                )::ndrs_optout.health_finding
        ELSE ROW('ok', 'no command weakens a guard unnoticed', NULL)::ndrs_optout.health_finding
        END
        FROM (SELECT count(*) AS working FROM pg_event_trigger t
                  WHERE starts_with(t.evtname, 'ndrs_optout_sentry_') AND t.evtenabled = 'A') AS s
$$;
COMMENT ON FUNCTION health_sentry() IS 'internal: check: the sentry is on, and guards may not be weakened';

CREATE FUNCTION health_deadlines() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ROW(CASE WHEN c.overdue > 0 THEN 'failed' WHEN c.soon > 0 THEN 'warning' ELSE 'ok' END,
               format('cases overdue: %s, due within 3 days: %s, open: %s', c.overdue, c.soon, c.open),
               CASE WHEN c.overdue + c.soon > 0 THEN 'SELECT * FROM ndrs_optout.case_progress' END)
        FROM (SELECT count(*) FILTER (WHERE p.overdue) AS overdue,
                     count(*) FILTER (WHERE p.days_left BETWEEN 0 AND 3) AS soon,
                     count(*) FILTER (WHERE p.waiting_for IS NOT NULL) AS open
                  FROM ndrs_optout.case_progress p) AS c
$$;
COMMENT ON FUNCTION health_deadlines() IS 'internal: check: no case is overdue (failed) or due within 3 days (warning)';

CREATE FUNCTION health_recalls() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ROW(CASE WHEN r.escalated > 0 THEN 'failed' WHEN r.overdue > 0 THEN 'warning' ELSE 'ok' END,
               format('recall notices escalated: %s, overdue: %s, open: %s', r.escalated, r.overdue, r.open),
               CASE WHEN r.overdue > 0
                   THEN 'SELECT * FROM ndrs_optout.recall_recipient_progress' END)
        FROM (SELECT count(*) FILTER (WHERE p.overdue) AS overdue,
                     count(*) FILTER (WHERE p.stage = 'escalated') AS escalated,
                     count(*) FILTER (WHERE p.stage <> 'answered') AS open
                  FROM ndrs_optout.recall_progress p) AS r
$$;
COMMENT ON FUNCTION health_recalls() IS
    'internal: check: no recall notice is overdue (warning), or has been for as long as the policy''s '
    'recall_escalation_days (failed)';

CREATE FUNCTION health_agreements() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ROW(CASE WHEN a.overdue > 0 THEN 'failed' WHEN a.ending + a.review > 0 THEN 'warning' ELSE 'ok' END,
               format('in force: %s, end within 30 days: %s, to review: %s, not destroyed: %s', a.in_force, a.ending,
                      a.review,
                      a.overdue),
               CASE WHEN a.overdue + a.ending + a.review > 0 THEN 'SELECT * FROM ndrs_optout.agreement_progress' END)
        FROM (SELECT count(*) FILTER (WHERE p.in_force) AS in_force,
                     count(*) FILTER (WHERE p.in_force AND p.days_left <= 30) AS ending,
                     count(*) FILTER (WHERE p.in_force AND p.review_on <= ndrs_optout.today()) AS review,
                     count(*) FILTER (WHERE p.destruction_overdue) AS overdue
                  FROM ndrs_optout.agreement_progress p) AS a
$$;
COMMENT ON FUNCTION health_agreements() IS
    'internal: check: no agreement ends within 30 days or is to be reviewed (warning), and what was released is '
    'destroyed when it must be (failed)';

-- Without its salt, carry_out() cannot name patients to a recipient.
CREATE FUNCTION health_salts() RETURNS health_finding
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN f.faults IS NULL
            THEN ROW('ok', 'each recipient with a key can be named its patients', NULL)::ndrs_optout.health_finding
        ELSE ROW('warning', 'salt files that cannot be used: ' || f.faults,
                 'put the files into the directory of setting ndrs_optout.salt_directory, owned by the server''s user '
                 'and closed to others; until then name patients with seal_recall()')::ndrs_optout.health_finding END
        FROM (SELECT string_agg(format('%s.salt (%s)', w.name, x.fault), ', ' ORDER BY w.name) AS faults
                  FROM (SELECT r.recipient AS name FROM ndrs_optout.recipient r
                            WHERE r.public_key IS NOT NULL AND r.id_scheme <> 'nhs_number'
                        UNION ALL
                        SELECT format('%s-%s', r.recipient, l.release_id)
                            FROM ndrs_optout.recipient r JOIN ndrs_optout.release l USING (recipient)
                            WHERE r.public_key IS NOT NULL AND r.id_scheme = 'release_pseudo_id'
                                AND l.destroyed_on IS NULL AND l.retracted_at IS NULL) AS w
                  CROSS JOIN LATERAL (SELECT ndrs_optout.salt_file_fault(w.name)) AS x (fault)
                  WHERE x.fault IS NOT NULL) AS f
$$;
COMMENT ON FUNCTION health_salts() IS
    'internal: check: the salt of each recipient that has a key can be read, and so the salts of its releases';

CREATE FUNCTION health_subject_access() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ROW(CASE WHEN q.overdue > 0 THEN 'failed' WHEN q.soon > 0 THEN 'warning' ELSE 'ok' END,
               format('requests overdue: %s, due within 3 days: %s, open: %s', q.overdue, q.soon, q.open),
               CASE WHEN q.overdue + q.soon > 0 THEN 'SELECT * FROM ndrs_optout.subject_access_progress' END)
        FROM (SELECT count(*) FILTER (WHERE p.overdue) AS overdue,
                     count(*) FILTER (WHERE p.days_left BETWEEN 0 AND 3) AS soon,
                     count(*) FILTER (WHERE p.answered_at IS NULL AND p.refused_at IS NULL) AS open
                  FROM ndrs_optout.subject_access_progress p) AS q
$$;
COMMENT ON FUNCTION health_subject_access() IS
    'internal: check: no request for subject access is overdue (failed) or due within 3 days (warning)';

CREATE FUNCTION health_complaints() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ROW(CASE WHEN c.overdue > 0 THEN 'failed' WHEN c.soon > 0 THEN 'warning' ELSE 'ok' END,
               format('complaints overdue: %s, due within 5 days: %s, open: %s', c.overdue, c.soon, c.open),
               CASE WHEN c.overdue + c.soon > 0 THEN 'SELECT * FROM ndrs_optout.complaint_progress' END)
        FROM (SELECT count(*) FILTER (WHERE p.overdue) AS overdue,
                     count(*) FILTER (WHERE p.days_left BETWEEN 0 AND 5) AS soon,
                     count(*) FILTER (WHERE p.outcome IS NULL) AS open
                  FROM ndrs_optout.complaint_progress p) AS c
$$;
COMMENT ON FUNCTION health_complaints() IS
    'internal: check: no complaint waits for its acknowledgement for over 30 days (failed), or will in 5 days '
    '(warning)';

-- Reads all of the audit.
CREATE FUNCTION health_audit() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN v.problems > 0
            THEN ROW('failed', format('places where the audit is not what was written: %s', v.problems),
                     'SELECT * FROM ndrs_optout.verify_audit()')::ndrs_optout.health_finding
        WHEN e.events = 0
            THEN ROW('warning', 'the audit has no event',
                     'SELECT ndrs_optout.adopt_key() is the first')::ndrs_optout.health_finding
        ELSE ROW('ok', format('events that verify: %s', e.events), NULL)::ndrs_optout.health_finding
        END
        FROM (SELECT count(*) AS problems FROM ndrs_optout.verify_audit()) AS v
        CROSS JOIN (SELECT count(*) AS events FROM ndrs_optout.audit_event) AS e
$$;
COMMENT ON FUNCTION health_audit() IS 'internal: check: the audit verifies';

CREATE FUNCTION health_confidential_key() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN (k.key).key_id IS NULL
            THEN ROW('warning', 'no confidential key is set, so no copy of a request is kept',
                     'SELECT ndrs_optout.set_confidential_key(...)')::ndrs_optout.health_finding
        ELSE ROW('ok', format('copies are encrypted for key %s', (k.key).key_id), NULL)::ndrs_optout.health_finding
        END
        FROM (SELECT ndrs_optout.current_confidential_key() AS key) AS k
$$;
COMMENT ON FUNCTION health_confidential_key() IS 'internal: check: there is a key for confidential copies';

CREATE FUNCTION health_access() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ROW(CASE WHEN d.roles > 0 THEN 'warning' ELSE 'ok' END,
               format('roles with a duty: %s, with more or less than it gives: %s',
                      (SELECT count(DISTINCT g.role) FROM ndrs_optout.granted_access g), d.roles),
               CASE WHEN d.roles > 0
                   THEN 'SELECT * FROM ndrs_optout.access_differences(); grant_access() where something is missing' END)
        FROM (SELECT count(DISTINCT a.role) AS roles FROM ndrs_optout.access_differences() AS a) AS d
$$;
COMMENT ON FUNCTION health_access() IS 'internal: check: roles can do what their duties say';

-- A setting as it will be in the sessions of a role here: as PostgreSQL ranks ALTER
-- ROLE and ALTER DATABASE, or as the server has it.
CREATE FUNCTION role_setting(role oid, name text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT o.option_value
             FROM pg_db_role_setting s
             CROSS JOIN LATERAL pg_options_to_table(s.setconfig) AS o
             WHERE s.setrole IN (role_setting.role, 0) AND o.option_name = role_setting.name
                 AND s.setdatabase IN ((SELECT d.oid FROM pg_database d WHERE d.datname = current_database()), 0)
             ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1),
        -- This session's own may be another one.
        (SELECT CASE WHEN c.source IN ('default', 'environment variable', 'configuration file', 'command line',
                                       'override')
                    THEN c.setting ELSE coalesce(f.setting, c.boot_val) END
             FROM pg_settings c
             LEFT JOIN pg_file_settings f ON f.name = c.name AND f.applied
             WHERE c.name = role_setting.name
             ORDER BY f.seqno DESC LIMIT 1))
$$;
COMMENT ON FUNCTION role_setting(oid, text) IS
    'internal: a setting as it is in new sessions of a role in this database; NULL when no library has one of that '
    'name';

-- A number goes to the log as a parameter, or as a part of a statement.  The extension hides
-- the statements of its errors and what is inside its functions; what is left are the calls.
CREATE FUNCTION health_logging() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH handler AS (
        SELECT r.oid, r.rolname FROM pg_roles r
            WHERE NOT r.rolsuper AND EXISTS (
                SELECT FROM ndrs_optout.granted_access g JOIN pg_roles d ON d.rolname = g.role
                    WHERE g.duty = ANY (ndrs_optout.words('duty_with_numbers'))
                        AND pg_has_role(r.oid, d.oid, 'MEMBER'))),
    written AS (
        SELECT h.oid, h.rolname,
               ndrs_optout.role_setting(h.oid, 'log_statement') = 'all'
                   OR EXISTS (SELECT FROM unnest('{log_min_duration_statement,log_min_duration_sample}'::text[]) AS d
                              WHERE ndrs_optout.role_setting(h.oid, d) NOT LIKE '-%')
                   OR ndrs_optout.role_setting(h.oid, 'log_transaction_sample_rate')::float8 > 0 AS statements
            FROM handler h),
    wrong AS (
        SELECT w.rolname, s.name, s.value
            FROM written w
            CROSS JOIN LATERAL (VALUES
                ('log_parameter_max_length', '0',
                 w.statements AND ndrs_optout.role_setting(w.oid, 'log_parameter_max_length') !~ '^0'),
                ('log_parameter_max_length_on_error', '0',
                 ndrs_optout.role_setting(w.oid, 'log_parameter_max_length_on_error') !~ '^0'),
                ('auto_explain.log_min_duration', '-1',
                 ndrs_optout.role_setting(w.oid, 'auto_explain.log_min_duration') NOT LIKE '-%'),
                ('pgaudit.log_parameter', 'off',
                 ndrs_optout.role_setting(w.oid, 'pgaudit.log_parameter') IN ('on', 'true', 'yes', '1')))
                AS s (name, value, applies)
            WHERE s.applies)
    SELECT CASE
        WHEN count(*) > 0
            THEN ROW('warning',
                     format('settings of roles that handle NHS numbers that write these down: %s', count(*)),
                     string_agg(format('ALTER ROLE %I SET %s = %s', x.rolname, x.name, x.value), '; '
                                ORDER BY x.rolname, x.name)
                         FILTER (WHERE x.n <= 8))::ndrs_optout.health_finding
        ELSE ROW('ok', 'no setting writes down the NHS numbers that roles handle', NULL)::ndrs_optout.health_finding
        END
        FROM (SELECT w.*, row_number() OVER (ORDER BY w.rolname, w.name) AS n FROM wrong w) AS x
$$;
COMMENT ON FUNCTION health_logging() IS
    'internal: check: no role that works with NHS numbers (duties officer and analyst, and their members) has '
    'settings that write parameters into the log; statements with literals are written down whatever they say';

-- A role that may read the list knows which patients opted out, in codes; a role that
-- may change a table is kept from it only by a trigger.
CREATE FUNCTION health_privileges() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN w.roles IS NOT NULL
            THEN ROW('warning', format('roles that can reach tables of the extension otherwise than by a duty: %s',
                                       w.roles),
                     'SELECT * FROM ndrs_optout.access_ways(), as a superuser. Revoke what these roles do not need'
              )::ndrs_optout.health_finding
        ELSE ROW('ok', 'roles reach tables of the extension by their duties only',
                 NULL)::ndrs_optout.health_finding
        END
        FROM (SELECT string_agg(format('%s (%s)', a.role, a.ways), ', ' ORDER BY a.role) AS roles
                  FROM (SELECT v.role, concat_ws(', ', CASE WHEN bool_or(v.reads) THEN 'reads' END,
                                                 CASE WHEN bool_or(v.changes) THEN 'changes' END,
                                                 CASE WHEN NOT bool_or(v.reads OR v.changes) THEN 'locks' END) AS ways
                            FROM ndrs_optout.access_ways() v GROUP BY v.role) AS a) AS w
$$;
COMMENT ON FUNCTION health_privileges() IS
    'internal: check: no role reads or changes tables of the extension otherwise than by its duties; names each that '
    'can';

-- The objects here against the files of the server: a package came without ALTER
-- EXTENSION, or the reverse; or of another build that has the same version.
CREATE FUNCTION health_version() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN a.default_version <> e.extversion
            THEN ROW('warning',
                     format('the extension is at version %s, the installed library at %s', e.extversion,
                            a.default_version),
                     'ALTER EXTENSION ndrs_optout UPDATE')::ndrs_optout.health_finding
        WHEN ndrs_optout.library_build() <> ndrs_optout.catalogue_build()
            THEN ROW('failed',
                     format('extension and library are both of version %s, but of builds %s and %s', e.extversion,
                            ndrs_optout.catalogue_build(), ndrs_optout.library_build()),
                     'install the files of the extension''s build again, and restart the server if the library is '
                     'preloaded')::ndrs_optout.health_finding
        ELSE ROW('ok', format('library and extension are at version %s', e.extversion),
                 NULL)::ndrs_optout.health_finding
        END
        FROM pg_extension e JOIN pg_available_extensions a ON a.name = e.extname
        WHERE e.extname = 'ndrs_optout'
$$;
COMMENT ON FUNCTION health_version() IS
    'internal: check: the extension is at the version of the installed files, and the library is of the same build';

-- A registry that shares nothing where the national opt-out applies needs no check.
CREATE FUNCTION health_national_check() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN c.waiting IS NOT NULL
            THEN ROW('warning', format('national check %s waits for its reply for over 2 days', c.waiting),
                     format('load_national_check(%s, ...) or cancel_national_check(%1$s)',
                            c.waiting))::ndrs_optout.health_finding
        WHEN c.in_force IS NOT NULL
            THEN ROW('ok', format('the latest national check in force is %s', c.in_force),
                     NULL)::ndrs_optout.health_finding
        WHEN c.expired IS NOT NULL
            THEN ROW('warning', format('national check %s has expired: no patient counts as checked', c.expired),
                     'SELECT ndrs_optout.start_national_check(...)')::ndrs_optout.health_finding
        ELSE ROW('ok', 'there is no national check: no patient counts as checked', NULL)::ndrs_optout.health_finding
        END
        FROM (SELECT max(p.check_id) FILTER (WHERE p.state = 'waiting_for_reply'
                                             AND p.started_at < now() - interval '2 days') AS waiting,
                     max(p.check_id) FILTER (WHERE p.state = 'in_force') AS in_force,
                     max(p.check_id) FILTER (WHERE p.state = 'expired') AS expired
                  FROM ndrs_optout.national_check_progress p) AS c
$$;
COMMENT ON FUNCTION health_national_check() IS
    'internal: check: no national check waits for its reply for long, and there is one in force unless there is none '
    'at all';

-- They make carry_out() wait, and no session is there that would end them.
CREATE FUNCTION health_prepared_transactions(older_than interval DEFAULT '1 hour') RETURNS health_finding
LANGUAGE sql STABLE
SET intervalstyle = postgres
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ROW(CASE WHEN p.old > 0 THEN 'warning' ELSE 'ok' END,
               format('carry_out() would wait for: %s, older than %s: %s',
                      p.all, older_than, p.old),
               CASE WHEN p.old > 0
                   THEN 'COMMIT PREPARED or ROLLBACK PREPARED: view pg_prepared_xacts lists them' END)
        FROM (SELECT count(*) AS all, count(*) FILTER (WHERE x.prepared < now() - older_than) AS old
                  FROM pg_prepared_xacts x
                  -- Only its lock on itself shows which locks are its own.
                  JOIN pg_locks i ON i.locktype = 'transactionid' AND i.transactionid = x.transaction AND i.pid IS NULL
                  WHERE x.database = current_database() AND EXISTS (
                      SELECT FROM pg_locks l
                          WHERE l.pid IS NULL AND l.virtualtransaction = i.virtualtransaction
                              AND l.locktype = 'relation'
                              AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')
                              AND (l.relation IN (SELECT w.relation FROM ndrs_optout.guard_walk w)
                                   OR l.relation = ANY (
                                       '{ndrs_optout.exclusion,ndrs_optout.release,
                                         ndrs_optout.national_check_part}'::regclass[])))) AS p
$$;
COMMENT ON FUNCTION health_prepared_transactions(interval) IS
    'internal: check: no transaction is prepared for long that carry_out() waits for';

-- What the last look at each column found, whichever sweep it was: one of a single
-- table says nothing about the others.
CREATE FUNCTION health_sweep() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH latest AS (
        SELECT DISTINCT ON (l.relation, l.nhs_number_column) l.*
            FROM ndrs_optout.sweep_leaf l JOIN pg_class c ON c.oid = l.relation
            WHERE l.state IN ('done', 'not_searched')
            ORDER BY l.relation, l.nhs_number_column, l.finished_at DESC)
    SELECT CASE
        WHEN ndrs_optout.erasure_lost_edges() <> '{}'
            THEN ROW('failed', format('edges that sweeps have lost: %s',
                                      cardinality(ndrs_optout.erasure_lost_edges())),
                     'SELECT * FROM ndrs_optout.guard_coverage() WHERE gap IN (''edge_lost'', ''guarded_column_lost'')'
    )::ndrs_optout.health_finding
        WHEN b.not_searched IS NOT NULL
            THEN ROW('failed', format('tables that sweeps cannot search: %s', b.not_searched),
                     'sweep them on their own server, or hold their rows here; or accept the gap "foreign_table" when '
                     'no excluded patient can be in them')::ndrs_optout.health_finding
        WHEN b.stuck > 0
            THEN ROW('failed', format('patients whom sweeps could not erase: %s, in: %s', b.stuck, b.stuck_in),
                     'find them with guard_matches(); erase() says what stands in the way')::ndrs_optout.health_finding
        WHEN u.sweep_id IS NOT NULL
            THEN ROW('warning', format('sweep %s has not finished: it runs, or was interrupted', u.sweep_id),
                     'SELECT * FROM ndrs_optout.sweep_progress; CALL ndrs_optout.sweep() goes on with it'
    )::ndrs_optout.health_finding
        WHEN b.with_case > 0
            THEN ROW('ok', format('columns swept: %s; patients left to their open cases: %s', b.columns, b.with_case),
                     NULL)::ndrs_optout.health_finding
        WHEN b.columns = 0
            THEN ROW('ok', 'there was no sweep yet', NULL)::ndrs_optout.health_finding
        ELSE ROW('ok', format('columns swept: %s', b.columns), NULL)::ndrs_optout.health_finding
        END
        FROM (SELECT count(*) FILTER (WHERE l.state = 'done') AS columns, coalesce(sum(l.patients_left), 0) AS stuck,
                     coalesce(sum(l.patients_with_case), 0) AS with_case,
                     string_agg(l.relation::text, ', ' ORDER BY l.relation::text)
                         FILTER (WHERE l.patients_left > 0) AS stuck_in,
                     string_agg(DISTINCT l.relation::text, ', ') FILTER (WHERE l.state = 'not_searched' AND NOT EXISTS (
                         SELECT FROM ndrs_optout.accepted_gap a
                             WHERE a.gap = 'foreign_table' AND a.relation = l.relation)) AS not_searched
                  FROM latest l) AS b
        LEFT JOIN (SELECT max(s.sweep_id) AS sweep_id FROM ndrs_optout.sweep s WHERE s.finished_at IS NULL) AS u ON true
$$;
COMMENT ON FUNCTION health_sweep() IS
    'internal: check: the last sweep of each column left no patient but those with an open case, and none is '
    'unfinished';

CREATE FUNCTION health_statistics() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN min(s.erased_at) < now() - interval '1 hour'
            THEN ROW('warning', format('tables whose statistics may hold values erased over an hour ago: %s',
                                       count(DISTINCT s.relation)),
                     'CALL ndrs_optout.renew_statistics()')::ndrs_optout.health_finding
        ELSE ROW('ok', 'no table has statistics from before an erasure for over an hour',
                 NULL)::ndrs_optout.health_finding
        END
        FROM ndrs_optout.statistics_renewal s WHERE s.renewed_at IS NULL
$$;
COMMENT ON FUNCTION health_statistics() IS
    'internal: check: no statistics that may hold values of erased rows wait for long to be made anew';

CREATE FUNCTION health_purge() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN min(d.due_since) < now() - interval '2 days'
            THEN ROW('warning', format('something is due since %s', ndrs_optout.local_date(min(d.due_since))),
                     'SELECT * FROM ndrs_optout.purge(); then SELECT ndrs_optout.schedule_purge()'
                )::ndrs_optout.health_finding
        ELSE ROW('ok', 'nothing is due for more than two days', NULL)::ndrs_optout.health_finding
        END
        FROM ndrs_optout.purge_due d
$$;
COMMENT ON FUNCTION health_purge() IS 'internal: check: nothing is due for long, so the purge runs';

-- What tells backends that a list has changed, what chains the audit, and what keeps
-- others from changing tables, must do so for rows that a replication worker brings as
-- well.  A restore with --disable-triggers leaves triggers that do not.
CREATE FUNCTION health_triggers() RETURNS health_finding
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH own AS (
        SELECT t.tgname, t.tgenabled, t.tgrelid::regclass AS relation,
               CASE WHEN t.tgfoid = ANY ('{ndrs_optout.invalidate_caches,ndrs_optout.audit_chain,
                                           ndrs_optout.audit_append_only,
                                           ndrs_optout.audit_purge_when_due,ndrs_optout.owner_only,
                                           ndrs_optout.exclusion_change,ndrs_optout.exclusion_truncation,
                                           ndrs_optout.exclusion_replicated,
                                           ndrs_optout.encoding_key_change}'::regproc[])
                   THEN 'ALWAYS ' END AS mode
            FROM pg_trigger t JOIN pg_class r ON r.oid = t.tgrelid
            WHERE r.relnamespace = 'ndrs_optout'::regnamespace AND NOT t.tgisinternal),
    weak AS (
        SELECT format('ALTER TABLE %s ENABLE %sTRIGGER %I', o.relation, o.mode, o.tgname) AS command
            FROM own o WHERE o.tgenabled NOT IN ('A', CASE WHEN o.mode IS NULL THEN 'O' ELSE 'A' END)
        UNION ALL
        SELECT 'SELECT ndrs_optout.protect_tables()'
            FROM pg_class c
            WHERE c.relnamespace = 'ndrs_optout'::regnamespace AND c.relkind IN ('r', 'p')
                AND (SELECT count(*) FROM pg_trigger t
                     WHERE t.tgrelid = c.oid AND t.tgfoid = 'ndrs_optout.owner_only'::regproc) < 2)
    SELECT CASE
        WHEN t.weak > 0
            THEN ROW('failed', format('triggers of the extension''s own tables that do not fire as they must: %s',
                                      t.weak),
                     t.commands)::ndrs_optout.health_finding
        ELSE ROW('ok', 'triggers of the extension''s own tables fire as they must', NULL)::ndrs_optout.health_finding
        END
        FROM (SELECT count(*) AS weak, string_agg(DISTINCT w.command, '; ') AS commands FROM weak w) AS t
$$;
COMMENT ON FUNCTION health_triggers() IS
    'internal: check: the triggers of the extension''s own tables are enabled, and ALWAYS where they must be';

-- A lock that another session holds fails one check instead of stopping all.
CREATE FUNCTION health() RETURNS TABLE (check_name text, status text, detail text, what_to_do text)
LANGUAGE plpgsql SECURITY DEFINER
SET lock_timeout = '2s'
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    check_function regproc;
BEGIN
    FOR check_function, check_name IN
        SELECT p.oid::regproc, substr(p.proname, length('health_') + 1) FROM pg_proc p
            WHERE p.pronamespace = 'ndrs_optout'::regnamespace
                AND p.prorettype = 'ndrs_optout.health_finding'::regtype
            ORDER BY p.proname
    LOOP
        BEGIN
            EXECUTE format('SELECT f.status, f.detail, f.what_to_do FROM %s() AS f', check_function)
                INTO STRICT status, detail, what_to_do;
        EXCEPTION WHEN OTHERS THEN
            status := 'failed';
            detail := format('could not be checked: SQLSTATE %s', SQLSTATE);
            what_to_do := format('SELECT %s() as a superuser shows the error', check_function);
        END;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION health() IS
    'whether all is well: one row per check, always all of them; status ok, warning (to be looked at soon) or '
    'failed (something does not hold, or could not be checked: the detail is the SQLSTATE then), and what to do. '
    'Reads all of the audit, and samples of tables as guard_coverage() does. A monitor asks: SELECT count(*) FROM '
    'ndrs_optout.health() WHERE status = ''failed''';
