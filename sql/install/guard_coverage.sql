-- guard_coverage: where the guard, and the erasure behind it, can be passed by.

CREATE FUNCTION accept_gap(gap text, relation regclass, object text, reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    severity text;
BEGIN
    PERFORM ndrs_optout.checked_reason(reason);
    -- These without a look at all others: the transaction that drops the table may be waited for.
    IF gap IN ('edge_lost', 'guarded_column_lost') THEN
        PERFORM ndrs_optout.require_owner_to_accept();
        SELECT 'high' INTO severity FROM ndrs_optout.lost_edges() AS l
            WHERE l.gap = accept_gap.gap AND accept_gap.relation IS NULL AND l.object = accept_gap.object;
    ELSE
        SELECT c.severity INTO severity FROM ndrs_optout.guard_coverage() AS c
            WHERE c.gap = accept_gap.gap AND c.relation IS NOT DISTINCT FROM accept_gap.relation
                AND c.object IS NOT DISTINCT FROM accept_gap.object;
    END IF;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('42704', 'there is no such gap',
            hint => 'Name gap, relation and object as ndrs_optout.guard_coverage() does.');
    END IF;
    IF gap ~ '^guard_' OR gap IN ('sentry_off', 'distributed_table', 'extension_table_changed') THEN
        PERFORM ndrs_optout.raise_error('22023', 'this gap is to be closed, not accepted',
            hint => 'Column what_to_do of ndrs_optout.guard_coverage() says how.');
    END IF;
    INSERT INTO ndrs_optout.accepted_gap AS a (gap, relation, object, reason, severity)
        VALUES (gap, relation, object, reason, severity)
        ON CONFLICT ON CONSTRAINT accepted_gap_gap_relation_object_key DO UPDATE
            SET reason = excluded.reason, severity = excluded.severity,
                accepted_by = excluded.accepted_by, accepted_at = excluded.accepted_at;
    PERFORM ndrs_optout.audit('gap_accepted',
        jsonb_build_object('gap', gap, 'relation', relation, 'object', object, 'reason', reason));
END
$$;
COMMENT ON FUNCTION accept_gap(text, regclass, text, text) IS
    'leaves a gap out of guard_coverage(), as long as it does not become more severe, for a reason that goes into the '
    'audit; errors 22004 (no reason), 22023 (a part of a guard, which can be repaired, or the reason holds an NHS '
    'number), 42501 (a lost edge, which only the owner of the database can accept), 42704 (no such gap)';

CREATE FUNCTION reopen_gap(gap text, relation regclass, object text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM ndrs_optout.accepted_gap a
        WHERE a.gap = reopen_gap.gap AND a.relation IS NOT DISTINCT FROM reopen_gap.relation
            AND a.object IS NOT DISTINCT FROM reopen_gap.object;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('42704', 'there is no such accepted gap',
            hint => 'Table ndrs_optout.accepted_gap lists them.');
    END IF;
    PERFORM ndrs_optout.audit('gap_reopened', jsonb_build_object('gap', gap, 'relation', relation, 'object', object));
END
$$;
COMMENT ON FUNCTION reopen_gap(text, regclass, text) IS
    'takes back what accept_gap() did: guard_coverage() names the gap again, as long as it is there. Audited; error '
    '42704 (the gap is not accepted)';

-- Every table that an erasure from any register can come to.
CREATE VIEW guard_walk AS
    SELECT w.relation
        FROM pg_catalog.unnest(erasure_tables(ARRAY(SELECT r.code FROM register r))) AS w (relation);
COMMENT ON VIEW guard_walk IS 'internal: every table that an erasure from any register can come to';

CREATE FUNCTION guard_gaps(time_limit interval DEFAULT '5 s') RETURNS TABLE (severity text, gap text, relation regclass,
                                                                             object text, what_to_do text)
LANGUAGE sql
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
    WITH guard_walk AS MATERIALIZED (SELECT w.relation FROM ndrs_optout.guard_walk w),
        guard_part AS MATERIALIZED (SELECT p.* FROM ndrs_optout.guard_part p),
        erasure_edge AS MATERIALIZED (SELECT e.* FROM ndrs_optout.erasure_edge e)

    -- Parts of guards
    SELECT CASE WHEN p.part = 'trigger' AND p.defect <> 'missing' THEN 'medium' ELSE 'high' END,
           format('guard_%s_%s', p.part, p.defect), p.relation, p.nhs_number_column::text,
           CASE WHEN p.part = 'trigger' AND p.defect <> 'missing'
                    THEN (SELECT string_agg(format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', p.relation, t.tgname),
                                            '; ')
                              FROM pg_trigger t WHERE t.tgrelid = p.relation AND t.tgenabled <> 'A'
                                  AND t.tgfoid = 'ndrs_optout.guard_row'::regproc)
                WHEN p.defect = 'foreign_table' THEN 'Guard it on the server where it is.'
                WHEN p.defect = 'not_nullable'
                    THEN format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', p.relation, p.object)
                WHEN p.defect IN ('missing', 'not_enforced')
                    THEN format('SELECT ndrs_optout.refresh_guards(%L)', p.target)  -- told, not called
                ELSE format('In one transaction, SELECT ndrs_optout.unguard_table(%L) and ndrs_optout.guard_table() as '
                            'before.', p.target) END
        FROM guard_part p WHERE p.defect IS NOT NULL
    UNION ALL
    SELECT 'high', l.gap, NULL, l.object, l.what_to_do FROM ndrs_optout.lost_edges() AS l
    UNION ALL
    SELECT 'high', 'sentry_off', NULL, e.name,
           format('ALTER EVENT TRIGGER %s ENABLE ALWAYS', e.name)
        FROM unnest('{ndrs_optout_sentry_start,ndrs_optout_sentry_end,
                      ndrs_optout_sentry_drop,ndrs_optout_sentry_extension}'::text[]) AS e (name)
        WHERE NOT EXISTS (SELECT FROM pg_event_trigger t WHERE t.evtname = e.name AND t.evtenabled = 'A')
    UNION ALL
    -- A setting of version 17 and later
    SELECT 'high', 'sentry_off', NULL, 'event_triggers',
           'Take event_triggers out of postgresql.conf, ALTER ROLE and ALTER DATABASE.'
        WHERE current_setting('event_triggers', true) = 'off'
    UNION ALL
    SELECT DISTINCT 'medium', 'guard_constraint_not_searched', k.conrelid::regclass,
           k.conname::text,
           format('SELECT ndrs_optout.guard_table(%L, ...). If it holds no patients'' data: ALTER TABLE %s DROP '
                  'CONSTRAINT %I',
                  k.conrelid::regclass, k.conrelid::regclass, k.conname)
        FROM pg_constraint k
        JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
            AND d.refclassid = 'pg_proc'::regclass
                AND d.refobjid = ANY ((SELECT ndrs_optout.guard_constraint_functions())::oid[])
        WHERE NOT EXISTS (SELECT FROM guard_part p WHERE p.relation = k.conrelid)

    -- Where the erasure's walk does not come
    UNION ALL
    SELECT DISTINCT 'high', 'reference_not_followed', k.child, array_to_string(k.child_columns, ', '),
           format('Give table %s a key of a simple type, and refer to that.', k.parent)
        FROM (SELECT e.child, e.child_columns, e.parent, a.atttypid
                  FROM guard_walk w
                  JOIN erasure_edge e ON e.parent = w.relation
                  JOIN pg_attribute a ON a.attrelid = e.parent AND a.attname = ANY (e.parent_columns)
                  OFFSET 0) AS k  -- keys alone are asked about, and not all columns
        WHERE NOT ndrs_optout.erasure_can_follow(k.atttypid)
    UNION ALL
    SELECT DISTINCT 'high', 'inheritance_child_without_reference', d.relation,
           array_to_string(e.child_columns, ', '),
           format('SELECT ndrs_optout.declare_reference(%L, %L, %L, %L)', d.relation, e.child_columns, e.parent,
                  e.parent_columns)
        FROM guard_walk w
        JOIN erasure_edge e ON e.parent = w.relation AND NOT e.declared
        JOIN pg_class c ON c.oid = e.child AND c.relkind = 'r'
        CROSS JOIN LATERAL ndrs_optout.erasure_descendants(e.child) AS d
        WHERE d.relation <> e.child AND NOT EXISTS (
            SELECT FROM ndrs_optout.erasure_lineage(d.relation) l
                JOIN erasure_edge o ON o.child = l.ancestor
                    AND (o.declared OR o.child = d.relation) AND o.parent = e.parent)
            AND NOT EXISTS (SELECT FROM guard_part p WHERE p.relation = d.relation)
    UNION ALL
    -- Version 18 has constraints that are not enforced; older ones, triggers that are disabled.
    -- The walk's locks on a parent then hold up no insert of a child.
    SELECT 'high', 'foreign_key_not_enforced', f.conrelid::regclass, f.conname::text,
           CASE WHEN d.triggers IS NULL
                    THEN format('ALTER TABLE %s ALTER CONSTRAINT %I ENFORCED', f.conrelid::regclass, f.conname)
                ELSE d.triggers END
        FROM guard_walk w
        JOIN pg_constraint f ON f.confrelid = w.relation AND f.contype = 'f'
        CROSS JOIN LATERAL (
            SELECT string_agg(format('ALTER TABLE %s ENABLE TRIGGER %I', t.tgrelid::regclass, t.tgname), '; '
                              ORDER BY t.oid) AS triggers
                FROM pg_trigger t WHERE t.tgconstraint = f.oid AND t.tgenabled NOT IN ('O', 'A')) AS d
        WHERE d.triggers IS NOT NULL
            OR f.conparentid = 0 AND (to_jsonb(f) ->> 'conenforced')::boolean IS FALSE
    UNION ALL
    SELECT 'high', 'forced_row_level_security', w.relation, r.relowner::regrole::text,
           format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', w.relation)
        FROM guard_walk w JOIN pg_class r ON r.oid = w.relation WHERE r.relforcerowsecurity
    UNION ALL
    SELECT CASE r.ev_type WHEN '4' THEN 'high' ELSE 'medium' END,
           CASE r.ev_type WHEN '4' THEN 'rule_may_keep_rows' ELSE 'rule_may_copy_rows' END,
           w.relation, r.rulename::text,
           CASE r.ev_type WHEN '4' THEN format('Replace it with a trigger: DROP RULE %I ON %s', r.rulename, w.relation)
                ELSE 'Guard what it writes to, or declare a reference from there. Then, or if it copies nothing, '
                     'accept the gap.'
           END
        FROM guard_walk w JOIN pg_rewrite r ON r.ev_class = w.relation AND r.ev_type <> '1'
    UNION ALL
    SELECT 'medium', 'trigger_may_copy_rows', w.relation, t.tgname::text,
           format('If it copies rows into another table, guard the NHS number there%s. Then, or if it copies none, '
                  'accept the gap.',
                  -- A row that is redacted leads nowhere: it stays.
                  (SELECT format(', or SELECT ndrs_optout.declare_reference(''...'', ''{...}'', %L, %L)', w.relation,
                                 array_agg(a.attname ORDER BY k.position))
                       FROM pg_index i
                       CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, position)
                       JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                       WHERE i.indrelid = w.relation AND i.indisprimary AND NOT EXISTS (
                           SELECT FROM ndrs_optout.guard g WHERE g.target = w.relation AND g.on_match = 'redact')
                       HAVING count(*) > 0))
        FROM guard_walk w
        JOIN pg_trigger t ON t.tgrelid = w.relation AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgparentid = 0
        JOIN pg_proc f ON f.oid = t.tgfoid
            AND f.pronamespace NOT IN ('ndrs_optout'::regnamespace, 'pg_catalog'::regnamespace)
            AND NOT ndrs_optout.guard_is_lo_manage(f)
    UNION ALL
    SELECT 'high', 'owner_lacks_rights', w.relation, r.relowner::regrole::text,
           format('GRANT SELECT, UPDATE, DELETE ON %s TO %s', w.relation, r.relowner::regrole)
               || CASE WHEN EXISTS (SELECT FROM pg_extension x WHERE x.extname = 'periods')
                       THEN '. If that is refused because it is a history table: before cases are carried out, SELECT '
                            'periods.drop_system_versioning(...), and afterwards periods.add_system_versioning(...).'
                       ELSE '' END
        FROM guard_walk w JOIN pg_class r ON r.oid = w.relation AND r.relkind IN ('r', 'p')
        WHERE NOT (has_table_privilege(r.relowner, r.oid, 'SELECT') AND has_table_privilege(r.relowner, r.oid, 'UPDATE')
                   AND has_table_privilege(r.relowner, r.oid, 'DELETE'))
    UNION ALL
    SELECT 'medium', 'owner_differs_from_parent', e.child, c.relowner::regrole::text,
           format('ALTER TABLE %s OWNER TO %s', e.child, p.relowner::regrole)
        FROM (SELECT DISTINCT n.child, n.parent FROM (
                  SELECT x.child, x.parent FROM erasure_edge x
                  UNION ALL
                  SELECT i.inhrelid, i.inhparent FROM pg_inherits i) AS n) AS e
        JOIN guard_walk w ON w.relation = e.parent
        JOIN pg_class p ON p.oid = e.parent
        JOIN pg_class c ON c.oid = e.child AND c.relkind IN ('r', 'p', 'f')
        WHERE c.relowner <> p.relowner

    -- What is stored in a way that the guard, the erasure or the list does not know
    UNION ALL
    SELECT 'high', 'distributed_table', d.relation, NULL,
           format('Make it a local table again: SELECT undistribute_table(%L)', d.relation)
        FROM ndrs_optout.guard_distributed() AS d (relation)
        JOIN pg_class c ON c.oid = d.relation
        WHERE c.relnamespace = 'ndrs_optout'::regnamespace
            OR EXISTS (SELECT FROM guard_walk w
                           CROSS JOIN LATERAL ndrs_optout.erasure_lineage(w.relation) AS l
                           WHERE l.ancestor = d.relation)
    UNION ALL
    SELECT 'high', 'foreign_table', w.relation, s.srvname::text,
           'Hold its rows in a table of this server. If no other program writes to it, accept the gap.'
        FROM guard_walk w
        JOIN pg_foreign_table f ON f.ftrelid = w.relation
        JOIN pg_foreign_server s ON s.oid = f.ftserver
    UNION ALL
    SELECT 'high', 'table_not_heap', c.oid::regclass, m.amname::text,
           format('ALTER TABLE %s SET ACCESS METHOD heap', c.oid::regclass)
        FROM pg_class c JOIN pg_am m ON m.oid = c.relam
        WHERE c.relkind = 'r' AND m.amname <> 'heap'
            AND (c.relnamespace = 'ndrs_optout'::regnamespace OR EXISTS (SELECT FROM guard_walk w
                                                                         WHERE w.relation = c.oid))
    UNION ALL
    SELECT 'medium', 'table_of_other_extension', w.relation, x.extname::text,
           'It is no part of a dump, and neither is its guard: guard it again after each restore or upgrade of the '
           'extension, and accept the gap.'
        FROM guard_walk w
        JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = w.relation AND d.deptype = 'e'
        JOIN pg_extension x ON d.refclassid = 'pg_extension'::regclass AND x.oid = d.refobjid
    UNION ALL
    SELECT 'high', 'extension_table_changed', c.oid::regclass, x.object, x.what_to_do
        FROM pg_class c
        CROSS JOIN LATERAL (
            SELECT i.inhrelid::regclass::text AS object,
                   format('ALTER TABLE %s NO INHERIT %s', i.inhrelid::regclass, c.oid::regclass) AS what_to_do
                FROM pg_inherits i WHERE i.inhparent = c.oid
            UNION ALL
            SELECT r.rulename::text, format('DROP RULE %I ON %s', r.rulename, c.oid::regclass)
                FROM pg_rewrite r WHERE r.ev_class = c.oid
            UNION ALL
            SELECT 'row_level_security',
                format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY', c.oid::regclass)
                WHERE c.relrowsecurity OR c.relforcerowsecurity) AS x
        WHERE c.relnamespace = 'ndrs_optout'::regnamespace AND c.relkind = 'r'
    UNION ALL
    -- A sequence has no trigger: pg_write_all_data is enough to set it to its end, and then nothing
    -- can be audited.
    SELECT 'high', 'extension_sequence_at_end', s.relation, NULL,
           format('Set it to the highest number that is used: SELECT setval(%L, ...)', s.relation)
        FROM (SELECT q.seqrelid::regclass AS relation, q.seqmax, pg_sequence_last_value(q.seqrelid) AS last_value
                  FROM pg_sequence q JOIN pg_class c ON c.oid = q.seqrelid
                  WHERE c.relnamespace = 'ndrs_optout'::regnamespace) AS s
        WHERE s.last_value > s.seqmax / 2

    UNION ALL
    SELECT * FROM ndrs_optout.share_view_gaps()
    UNION ALL
    SELECT * FROM ndrs_optout.guard_copies(ARRAY(SELECT w.relation FROM guard_walk w), time_limit)
    UNION ALL
    SELECT * FROM ndrs_optout.guard_owned(ARRAY(SELECT w.relation FROM guard_walk w))

    -- What makes an erasure slow
    UNION ALL
    SELECT 'low', 'missing_index', m.relation, array_to_string(m.columns, ', '), m.command
        FROM (SELECT DISTINCT e.child AS relation, e.child_columns AS columns,
                     ndrs_optout.erasure_missing_index(e.child, e.child_columns, false) AS command
                  FROM guard_walk w JOIN erasure_edge e ON e.parent = w.relation
              UNION
              SELECT p.target, ARRAY[p.nhs_number_column],
                     ndrs_optout.erasure_missing_index(p.target, ARRAY[p.nhs_number_column],
                         ndrs_optout.erasure_holds_text(p.target, p.nhs_number_column))
                  FROM guard_part p
                  WHERE p.relation = p.target AND p.part = 'constraint' AND p.defect IS NULL) AS m
        WHERE m.command IS NOT NULL
$$;
COMMENT ON FUNCTION guard_gaps(interval) IS
    'internal: every gap, accepted or not; time_limit is for the look at tables without a guard, and NULL when there '
    'is to be none';

CREATE FUNCTION guard_coverage() RETURNS TABLE (severity text, gap text, relation regclass, object text,
                                                what_to_do text)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
    SELECT * FROM ndrs_optout.guard_gaps() AS g
        WHERE NOT EXISTS (SELECT FROM ndrs_optout.accepted_gap a
                          WHERE a.gap = g.gap AND a.relation IS NOT DISTINCT FROM g.relation
                              AND a.object IS NOT DISTINCT FROM g.object
                              AND array_position('{high,medium,low}',
                                                 a.severity) <= array_position('{high,medium,low}', g.severity))
        ORDER BY array_position('{high,medium,low}', g.severity), g.relation::text, g.gap, g.object
$$;
COMMENT ON FUNCTION guard_coverage() IS
    'one row for each way round the guard, or round the erasure, that is open now: severity high (an excluded '
    'patient''s row can come in or stay), medium (it depends) or low (slow, or elsewhere), and what to do; none when '
    'all is closed. Looks at up to 200 values of each column that may hold NHS numbers, for 5 seconds in all; waits '
    'for no lock, and names the tables that were not looked at';
