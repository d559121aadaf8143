-- certificate: what an erasure did, what was verified, and what it did not reach.
-- Every statement comes from what is stored of the case, or is the server's own
-- at the time of issue.  Nothing in it tells who the patient is.

CREATE TABLE case_certificate (
    case_id     bigint PRIMARY KEY,
    certificate jsonb NOT NULL,
    issued_at   timestamptz NOT NULL
);
COMMENT ON TABLE case_certificate IS 'the certificates of completed cases, as they were issued';
SELECT pg_catalog.pg_extension_config_dump('case_certificate', '');

-- jsonb's own text is the canonical form: one order of keys, one spacing.
CREATE FUNCTION certificate_hash(certificate jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT encode(sha256(convert_to(certificate::text, 'UTF8')), 'hex')
$$;
COMMENT ON FUNCTION certificate_hash(jsonb) IS
    'internal: SHA-256 of a certificate''s canonical form, which is jsonb''s text in UTF-8, as 64 hexadecimal digits';

-- A name that any role may have chosen for a table, as the certificate has it: it may
-- say something, so one that is not made of letters, digits, _ and $ alone is not
-- repeated.  An edge of the walk is made of such names, of tables and their columns.
CREATE FUNCTION certificate_name(name text, instead text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN name IS NULL THEN NULL
                WHEN name ~ replace('^w([.]w)?( [(]w(, w)*[)]( > w([.]w)? [(]w(, w)*[)])?)?$', 'w',
                                    '"?[A-Za-z_][A-Za-z0-9_$]*"?')
                    AND NOT ndrs_optout.holds_nhs_number(name)
                THEN name ELSE instead END
$$;
COMMENT ON FUNCTION certificate_name(text, text) IS
    'internal: the name itself when it is made of letters, digits, _ and $ alone, as are those that an edge of the '
    'erasure''s walk consists of, or else what is to stand there instead';

-- What the erasures of a case did: one entry for each table that was searched,
-- also where nothing was found.
CREATE FUNCTION certificate_tables(case_id bigint) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(jsonb_agg(to_jsonb(e) ORDER BY e."table", e.action, e.registers), '[]')
        FROM (SELECT ndrs_optout.certificate_name(relation, 'OID ' || table_oid) AS "table", registers, action,
                     sum(row_count) AS rows
                  FROM ndrs_optout.case_erasure ce WHERE ce.case_id = certificate_tables.case_id
                  GROUP BY relation, table_oid, registers, action) AS e
$$;
COMMENT ON FUNCTION certificate_tables(bigint) IS
    'internal: what the erasures of a case did, per table, registers and action';

-- Whether some transaction, prepared transaction, slot or standby may still read what
-- the erasure of a case deleted, so that no VACUUM can have removed it.
CREATE FUNCTION certificate_readable(this optout_case) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM (SELECT a.backend_xmin FROM pg_stat_get_activity(NULL) AS a
                     UNION ALL SELECT a.backend_xid FROM pg_stat_get_activity(NULL) AS a
                     UNION ALL SELECT s.xmin FROM pg_get_replication_slots() AS s
                     UNION ALL SELECT p.transaction FROM pg_prepared_xact() AS p) AS h (oldest)
            WHERE age(h.oldest) >= age(this.erased_by::xid))
$$;
COMMENT ON FUNCTION certificate_readable(optout_case) IS
    'internal: whether something that began before the end of the erasure of a case may still read what it deleted';

-- When a VACUUM ended on each table that lost rows, and on all that could hold its
-- rows then, since the erasure; NULL: not yet, or not known.
CREATE FUNCTION certificate_vacuumed(this optout_case) RETURNS TABLE ("table" text, vacuumed_at timestamptz)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.certificate_name(e.relation, 'OID ' || e.table_oid),
           CASE WHEN NOT ndrs_optout.certificate_readable(this) THEN (
               SELECT CASE WHEN bool_and(v.at > this.carried_out_at IS TRUE) THEN min(v.at) END
                   FROM unnest(e.part_oids) AS d (relation)
                   LEFT JOIN pg_stat_all_tables s ON s.relid = d.relation
                   CROSS JOIN LATERAL (SELECT greatest(s.last_vacuum, s.last_autovacuum)) AS v (at)) END
        FROM ndrs_optout.case_erasure e
        WHERE e.case_id = this.case_id AND e.action NOT IN ('shared', 'kept')
        GROUP BY e.relation, e.table_oid, e.part_oids
        HAVING sum(e.row_count) > 0
$$;
COMMENT ON FUNCTION certificate_vacuumed(optout_case) IS
    'internal: tables in which the erasures of a case changed rows, and when the last VACUUM of each ended since; '
    'NULL: not yet, not known, or what was deleted can still be read';

-- Whether the planner's statistics still may hold values of what was deleted.
CREATE FUNCTION certificate_statistics(case_id bigint) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'status', CASE WHEN count(*) = 0 THEN 'nothing_held' WHEN bool_and(t.renewed_at IS NOT NULL) THEN 'done'
                       ELSE 'waiting_for_analyze' END,
        'tables', coalesce(jsonb_agg(to_jsonb(t) ORDER BY t."table"), '[]'),
        'note', 'The statistics of each changed table, and of those that it is a part of, are removed and made anew '
                'from what it then holds. Materialized views, and statistics that were copied or dumped before, are '
                'not reached.')
        FROM (SELECT ndrs_optout.certificate_name(s.relation::text, 'OID ' || s.relation::oid) AS "table",
                     CASE WHEN bool_and(s.renewed_at IS NOT NULL) THEN max(s.renewed_at) END AS renewed_at
                  FROM ndrs_optout.statistics_renewal s WHERE s.case_id = certificate_statistics.case_id
                  GROUP BY s.relation) AS t
$$;
COMMENT ON FUNCTION certificate_statistics(bigint) IS
    'internal: whether the statistics of the tables that the erasures of a case changed were made anew since';

-- How far what was deleted is gone.
CREATE FUNCTION certificate_levels(this optout_case) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'invisible', jsonb_build_object('status', 'done', 'at', this.carried_out_at),
        'out_of_statistics', ndrs_optout.certificate_statistics(this.case_id),
        'out_of_indexes', v.vacuum || jsonb_build_object(
            'note', 'A VACUUM that began before the erasure, or while an older transaction could read the rows, leaves '
                    'their entries in the indexes, and one that finds few leaves them for the next time. What it did '
                    'is not verified.'),
        'out_of_data_files', v.vacuum || jsonb_build_object(
            'note', 'A VACUUM that began before the erasure, or while an older transaction could read the rows, leaves '
                    'them. Another frees their space: their bytes stay in the files until they are overwritten. What '
                    'it did is not verified.'),
        'out_of_wal_and_backups', jsonb_build_object('status', 'not_reached',
            'note', 'WAL and backups keep deleted rows until they expire.'))
        FROM (SELECT jsonb_build_object(
                         'status', CASE WHEN count(*) = 0 THEN 'nothing_held'
                                        WHEN ndrs_optout.certificate_readable(this)
                                            THEN 'readable_by_older_transactions'
                                        WHEN bool_and(t.vacuumed_at IS NOT NULL) THEN 'vacuumed_not_verified'
                                        ELSE 'waiting_for_vacuum' END,
                         'tables', coalesce(jsonb_agg(to_jsonb(t) ORDER BY t."table"), '[]'))
                  FROM ndrs_optout.certificate_vacuumed(this) AS t) AS v (vacuum)
$$;
COMMENT ON FUNCTION certificate_levels(optout_case) IS
    'internal: how far what was deleted is gone: invisible, out of statistics, out of indexes, out of data files, out '
    'of WAL and backups';

-- Whom the patient's data was given to, and what is known of its deletion there.
CREATE FUNCTION certificate_recalls(case_id bigint) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object('notice', n.notice_id, 'release', r.release_id, 'recipient', p.name,
                                                 'released_on', r.released_on, 'raised_at', n.raised_at, 'asked_at',
                                                     n.asked_at, 'due_on', n.due_on,
                                                 'acknowledged_at', n.acknowledged_at, 'outcome', n.outcome,
                                                 'deleted_on', n.deleted_on)
                              ORDER BY n.notice_id), '[]')
        FROM ndrs_optout.recall_notice n
        JOIN ndrs_optout.release r USING (release_id)
        JOIN ndrs_optout.recipient p USING (recipient)
        WHERE n.case_id = certificate_recalls.case_id
$$;
COMMENT ON FUNCTION certificate_recalls(bigint) IS 'internal: the recall notices of a case, and their answers';

-- Gaps that were accepted are out of reach all the same.  No table is looked at: a case is
-- completed whatever others lock and however many tables there are.  Gaps that an earlier
-- look found and that were accepted are remembered.  There can be any number, since others'
-- tables count: of many, the first two hundred are listed, the most severe first.
CREATE FUNCTION certificate_out_of_scope() RETURNS jsonb
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
    WITH known AS MATERIALIZED (SELECT * FROM ndrs_optout.guard_gaps(NULL))
    SELECT jsonb_build_object(
        'backups', 'Not reached. A restore from before the erasure brings the data back until the exclusion list is '
                   'brought back too and sweep() has run.',
        'recipients', 'Not reached by the erasure. Each recipient that was given the patient''s data in a release on '
                      'record, and still had it, is to delete it: see recalls, which say who was asked and has '
                      'answered. Care providers are not told: see not_told. What was given to others is not known.',
        'sessions', 'Temporary tables, and what clients have read, are not known.',
        'contents', 'Which columns without a guard hold NHS numbers was judged by their names. guard_coverage() also '
                    'looks at a sample of what they hold.',
        'gaps', coalesce(jsonb_agg(jsonb_build_object(
                'severity', g.severity, 'gap', g.gap,
                'table', ndrs_optout.certificate_name(g.relation::text, 'OID ' || g.relation::oid),
                'object', ndrs_optout.certificate_name(g.object, 'its name is not repeated here'),
                'accepted', a.gap IS NOT NULL)
            ORDER BY g.relation::text, g.gap, g.object) FILTER (WHERE g.place <= 200), '[]'),
        'gaps_not_listed', greatest(count(*) - 200, 0))
        FROM (SELECT o.*, row_number() OVER (ORDER BY array_position('{high,medium,low}', o.severity),
                                                      o.relation::text, o.gap, o.object) AS place
              FROM (SELECT k.severity, k.gap, k.relation, k.object FROM known k
                    WHERE k.gap <> 'missing_index'
              UNION ALL
              SELECT r.severity, r.gap, r.relation, r.object FROM ndrs_optout.accepted_gap r
                  WHERE r.gap IN ('unguarded_nhs_numbers', 'not_sampled')
                      AND NOT EXISTS (SELECT FROM known k
                                          WHERE k.gap = r.gap AND k.relation IS NOT DISTINCT FROM r.relation
                                              AND k.object IS NOT DISTINCT FROM r.object)) AS o) AS g
        LEFT JOIN ndrs_optout.accepted_gap a
            ON a.gap = g.gap AND a.relation IS NOT DISTINCT FROM g.relation AND a.object IS NOT DISTINCT FROM g.object
$$;
COMMENT ON FUNCTION certificate_out_of_scope() IS
    'internal: what an erasure does not reach: backups, recipients, and what guard_coverage() names without a look '
    'into tables, accepted or not';

-- Only a recount that found nothing makes a case carried_out, so the case says
-- what the recount was.
CREATE FUNCTION certificate_of(case_id bigint, status text) RETURNS jsonb
LANGUAGE plpgsql
SET timezone = 'UTC'
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case;
    done ndrs_optout.audit_event;
BEGIN
    SELECT * INTO STRICT this FROM ndrs_optout.optout_case c WHERE c.case_id = certificate_of.case_id;
    SELECT * INTO done FROM ndrs_optout.audit_event e
        WHERE e.event = 'case_carried_out' AND e.detail = jsonb_build_object('case', case_id)
        ORDER BY e.entry_id DESC LIMIT 1;
    -- The event gets its place in the chain when the transaction commits.
    IF done.link IS NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('the erasure of case %s is not committed', case_id),
            hint => 'Commit, and try again.');
    END IF;
    RETURN jsonb_build_object(
        'status', status,
        'issued_at', clock_timestamp(),
        'case', this.case_id,
        'registers', this.registers,
        'received_on', this.received_on,
        'proofs_complete_on', this.clock_started_on,
        'excluded_at', this.listed_since,
        'carried_out_at', this.carried_out_at,
        'ended_at', this.ended_at,
        'proofs_destroyed', this.proofs_destroyed,
        'guardian_call', this.guardian_call,
        'tables', ndrs_optout.certificate_tables(case_id),
        'recount', jsonb_build_object('at', this.carried_out_at, 'rows_left', 0,
            'note', 'After every transaction that was writing to these tables had ended, everything that was to be '
                    'deleted, redacted or unlinked was looked for again.'),
        'levels', ndrs_optout.certificate_levels(this),
        'recalls', ndrs_optout.certificate_recalls(case_id),
        'not_told', jsonb_build_object('releases', coalesce(this.not_told, 0),
            'note', 'Releases for individual care and to care providers. As the service promises, their recipients '
                    'were not told that the patient opted out.'),
        'out_of_scope', ndrs_optout.certificate_out_of_scope(),
        'encoding_key', (SELECT k.key_id FROM ndrs_optout.encoding_key k),
        'wal', jsonb_build_object('from', this.erased_from, 'to', this.erased_to),
        'audit', jsonb_build_object('event_id', done.event_id, 'link', encode(done.link, 'hex')));
END
$$;
COMMENT ON FUNCTION certificate_of(bigint, text) IS
    'internal: the certificate of a case that was carried out, as of now; error ND021 when the erasure is not '
    'committed';

CREATE FUNCTION issue_certificate(case_id bigint) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    WITH issued AS (
        INSERT INTO ndrs_optout.case_certificate (case_id, certificate, issued_at)
            SELECT issue_certificate.case_id, c, (c ->> 'issued_at')::timestamptz
                FROM ndrs_optout.certificate_of(case_id, 'issued') AS c
            RETURNING *)
    SELECT ndrs_optout.audit('certificate_issued',
            jsonb_build_object('case', i.case_id, 'sha256', ndrs_optout.certificate_hash(i.certificate)))
        FROM issued i;
    -- What waits is made anew all the same, and is of no case then.
    DELETE FROM ndrs_optout.statistics_renewal s
        WHERE s.case_id = issue_certificate.case_id AND s.renewed_at IS NOT NULL;
    UPDATE ndrs_optout.statistics_renewal s SET case_id = NULL WHERE s.case_id = issue_certificate.case_id
$$;
COMMENT ON FUNCTION issue_certificate(bigint) IS
    'internal: stores the certificate of a case, and its hash in the audit';

CREATE FUNCTION erasure_certificate(case_id bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, 'certificate');
BEGIN
    PERFORM ndrs_optout.case_must_be_opt_out(this);
    IF this.state = 'completed' THEN
        RETURN (SELECT c.certificate FROM ndrs_optout.case_certificate c WHERE c.case_id = this.case_id);
    END IF;
    RETURN ndrs_optout.certificate_of(case_id, 'draft');
END
$$;
COMMENT ON FUNCTION erasure_certificate(bigint) IS
    'the certificate of a case''s erasure: what was done, what was verified and what was not reached, without any '
    'identifier. status: issued, as it was stored when the case was completed, or draft for a case that is carried '
    'out and not completed; errors P0002, ND020, ND021 (not carried out, or not about opting out)';

-- The event must hold the hash, and be what was linked to the event before it:
-- a change of both certificate and event is found out.  An event of a month that
-- was purged can be neither shown nor denied.
CREATE FUNCTION verify_certificate(certificate jsonb) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN EXISTS (
        SELECT FROM ndrs_optout.audit_event e
            JOIN ndrs_optout.audit_segment s ON s.segment = e.segment
            LEFT JOIN ndrs_optout.audit_event p ON p.event_id = e.event_id - 1 AND p.segment = e.segment
            WHERE e.event = 'certificate_issued'
                AND e.detail = jsonb_build_object('case', certificate -> 'case',
                                                  'sha256', ndrs_optout.certificate_hash(certificate))
                AND e.link = ndrs_optout.audit_link(
                    CASE e.event_id WHEN s.first_event_id THEN s.opening_link ELSE p.link END, e)) THEN true
        WHEN left(certificate ->> 'issued_at', 7) COLLATE "C"
            <= (SELECT to_char(max(s.segment), 'YYYY-MM') FROM ndrs_optout.audit_segment s
                WHERE s.purged_at IS NOT NULL) THEN NULL
        ELSE false END
$$;
COMMENT ON FUNCTION verify_certificate(jsonb) IS
    'whether this is a certificate as it was issued: its hash is in the audit, in an event that is what was linked to '
    'the one before it (verify_audit() tells whether the rest is); NULL when the audit of that month was purged. '
    'Offline: psql -XAtc ''SELECT ndrs_optout.erasure_certificate(1)'' | tr -d ''\n'' | sha256sum, with '
    'client_encoding UTF8, must print what the audit''s event "certificate_issued" has for the case. Kept in another '
    'layout, the certificate must be put through jsonb first';
