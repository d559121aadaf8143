-- guard_coverage: where the guard, and the erasure behind it, can be passed by.

-- Every part that a guard ought to have, and what is wrong with it; defect is NULL
-- for a part that is in force.  Partitions have the trigger too; inheritance
-- children only the backstop, which no server lets them be without.  A partition that is
-- being detached CONCURRENTLY is none any more: whoever reads the table does not come there.
CREATE VIEW guard_part AS
    WITH RECURSIVE below (target, relation) AS (
        SELECT g.target, g.target FROM guard g
        UNION
        SELECT b.target, i.inhrelid FROM below b
            JOIN pg_catalog.pg_inherits i ON i.inhparent = b.relation AND NOT i.inhdetachpending)
    SELECT g.target, g.nhs_number_column, d.relation, p.part, p.defect
        FROM guard g
        JOIN below d ON d.target = g.target
        JOIN pg_catalog.pg_class c ON c.oid = d.relation
        LEFT JOIN pg_catalog.pg_attribute a
            ON a.attrelid = d.relation AND a.attname = g.nhs_number_column AND a.attnum > 0 AND NOT a.attisdropped
        CROSS JOIN LATERAL (
            SELECT 'trigger' AS part,
                   CASE WHEN pg_catalog.count(t.oid) = 0 THEN 'missing'
                        WHEN pg_catalog.bool_and(t.tgenabled = 'D') THEN 'disabled'
                        WHEN NOT pg_catalog.bool_or(t.tgenabled = 'A') THEN 'not ALWAYS'
                   END AS defect
                FROM pg_catalog.pg_trigger t
                WHERE t.tgrelid = d.relation AND t.tgfoid = 'guard_row'::pg_catalog.regproc AND t.tgtype = 23
                    AND t.tgqual IS NULL AND t.tgattr = ''
                    AND t.tgargs = (
                        SELECT pg_catalog.string_agg(
                                   pg_catalog.convert_to(w.word, pg_catalog.getdatabaseencoding()) || '\x00', '' ORDER BY w.position)
                            FROM pg_catalog.unnest(guard_arguments(g)) WITH ORDINALITY AS w (word, position))
                HAVING g.mechanism = 'both' AND (d.relation = g.target OR c.relispartition)
            UNION ALL
            SELECT 'backstop',
                   CASE WHEN a.attnum IS NULL THEN 'without its column'
                        WHEN NOT guard_reads(a.atttypid) THEN 'on a column that it cannot read'
                        WHEN NOT EXISTS (
                            SELECT FROM pg_catalog.pg_constraint k
                                JOIN pg_catalog.pg_depend b ON b.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
                                    AND b.objid = k.oid AND b.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                                    AND b.refobjid = ANY ((SELECT guard_backstops())::oid[])
                                WHERE k.conrelid = d.relation AND k.contype = 'c' AND a.attnum = ANY (k.conkey)
                                    AND guard_is_backstop(k.oid, g.target, g.nhs_number_column, g.registers,
                                                          g.on_missing, g.on_unreadable, g.encoded_column))
                            THEN 'missing'
                        WHEN c.relkind = 'f' THEN 'on a foreign table, which does not check it'
                   END
            UNION ALL
            SELECT 'columns', 'not all there'
                WHERE d.relation = g.target AND EXISTS (
                    SELECT FROM pg_catalog.unnest(g.redact_columns || g.encoded_column || g.birth_date_column) AS named (n)
                        WHERE named.n IS NOT NULL AND NOT EXISTS (
                            SELECT FROM pg_catalog.pg_attribute o
                                WHERE o.attrelid = g.target AND o.attname = named.n AND NOT o.attisdropped
                                    AND (named.n = ANY (g.redact_columns)
                                         OR o.atttypid = CASE named.n WHEN g.encoded_column THEN 'encoded_nhs_number'::pg_catalog.regtype
                                                              ELSE o.atttypid END
                                             AND (named.n IS DISTINCT FROM g.birth_date_column OR o.atttypid IN
                                                  ('pg_catalog.date'::pg_catalog.regtype, 'pg_catalog.timestamp'::pg_catalog.regtype)))))
            ) AS p;

-- Gaps that somebody has looked at and found to be none.
CREATE TABLE accepted_gap (
    gap         text,
    relation    regclass,
    object      text,
    reason      text NOT NULL,
    severity    text NOT NULL,
    accepted_by name NOT NULL DEFAULT session_user,
    accepted_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
SELECT pg_catalog.pg_extension_config_dump('accepted_gap', '');

CREATE FUNCTION accept_gap(gap text, relation regclass, object text, reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    severity text;
BEGIN
    PERFORM ndrs_optout.checked_reason(reason);
    SELECT c.severity INTO severity FROM ndrs_optout.guard_coverage() AS c
        WHERE c.gap = accept_gap.gap AND c.relation IS NOT DISTINCT FROM accept_gap.relation
            AND c.object IS NOT DISTINCT FROM accept_gap.object;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.refuse('42704', 'there is no such gap',
            hint => 'Name gap, relation and object as ndrs_optout.guard_coverage() does.');
    END IF;
    IF gap LIKE 'guard''s %' OR gap IN ('guarded table dropped', 'sentry off') THEN
        PERFORM ndrs_optout.refuse('22023', 'this gap is to be closed, not accepted',
            hint => 'Column what_to_do of ndrs_optout.guard_coverage() says how.');
    END IF;
    INSERT INTO ndrs_optout.accepted_gap (gap, relation, object, reason, severity)
        VALUES (gap, relation, object, reason, severity);
    PERFORM ndrs_optout.audit('gap accepted',
        jsonb_build_object('gap', gap, 'relation', relation, 'object', object, 'reason', reason));
END
$$;

-- Every table that an erasure from any register can come to.
CREATE VIEW guard_walk AS
    SELECT w.relation
        FROM pg_catalog.unnest(erasure_tables(ARRAY(SELECT r.code FROM register r))) AS w (relation);

-- Columns that no guard names and that hold NHS numbers, by their name or by what
-- the first rows hold: random numbers pass the check digit once in eleven times.
-- Anybody's tables are read, hence each by itself and with its owner's rights: see
-- erasure_look.  Of a partitioned table three partitions are.
CREATE FUNCTION unguarded_columns() RETURNS TABLE (relation regclass, column_name name, numbers bigint, sampled bigint)
LANGUAGE plpgsql
SET lock_timeout = '2s'
SET row_security = off
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    col record;
    leaf record;
    samples text[];
BEGIN
    FOR col IN
        SELECT c.oid::regclass AS relation, a.attname AS column_name,
               a.attname ~* 'nhs[ _-]*(n|id|$)' AS named,
               ndrs_optout.erasure_base_type(a.atttypid) = 'numeric'::regtype AS is_numeric
            FROM pg_class c
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT c.relispartition
                AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'ndrs_optout'::regnamespace,
                                           'information_schema'::regnamespace)
                AND ndrs_optout.guard_reads(a.atttypid)
                AND NOT EXISTS (
                    SELECT FROM ndrs_optout.guard g CROSS JOIN LATERAL ndrs_optout.erasure_descendants(g.target) AS d
                        WHERE d.relation = c.oid AND g.nhs_number_column = a.attname)
            ORDER BY c.oid::regclass::text, a.attname
    LOOP
        relation := col.relation;
        column_name := col.column_name;
        BEGIN
            samples := ARRAY[]::text[];
            FOR leaf IN
                SELECT c.oid::regclass AS relation, c.relowner::regrole AS owner
                    FROM ndrs_optout.erasure_descendants(relation) d JOIN pg_class c ON c.oid = d.relation AND c.relkind = 'r'
                    ORDER BY c.oid LIMIT 3
            LOOP
                samples := samples || ndrs_optout.erasure_look(leaf.owner, format(
                    'SELECT array_agg(v::text) FROM (SELECT %1$I AS v FROM ONLY %2$s WHERE %1$I IS NOT NULL LIMIT 200) AS s',
                    column_name, leaf.relation), NULL, NULL);
            END LOOP;
            SELECT count(CASE WHEN col.is_numeric THEN ndrs_optout.guard_number(f.value::numeric)
                              ELSE ndrs_optout.guard_number(f.value) END), count(*)
                INTO numbers, sampled FROM unnest(samples) AS f (value);
        EXCEPTION WHEN OTHERS THEN  -- it may be anybody's code that fails
            numbers := NULL;
            sampled := NULL;
        END;
        CONTINUE WHEN numbers = 0 AND sampled > 0;
        CONTINUE WHEN NOT col.named AND (numbers >= 10 AND numbers * 2 > sampled) IS NOT TRUE;
        RETURN NEXT;
    END LOOP;
END
$$;

CREATE FUNCTION guard_gaps() RETURNS TABLE (severity text, gap text, relation regclass, object text, what_to_do text)
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    -- Parts of guards
    SELECT CASE WHEN p.part = 'trigger' AND p.defect <> 'missing' THEN 'medium' ELSE 'high' END,
           format('guard''s %s %s', p.part, p.defect), p.relation, p.nhs_number_column::text,
           CASE WHEN p.part = 'trigger' AND p.defect <> 'missing'
                    THEN (SELECT string_agg(format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', p.relation, t.tgname), '; ')
                              FROM pg_trigger t WHERE t.tgrelid = p.relation AND t.tgenabled <> 'A'
                                  AND t.tgfoid = 'ndrs_optout.guard_row'::regproc)
                WHEN p.defect LIKE '%foreign table%' THEN 'guard it on the server where it is'
                ELSE format('SELECT ndrs_optout.unguard_table(%L), and guard_table() as before', p.target) END
        FROM ndrs_optout.guard_part p WHERE p.defect IS NOT NULL
    UNION ALL
    SELECT 'high', 'guarded table dropped', g.target, g.nhs_number_column::text,
           format('SELECT ndrs_optout.unguard_table(%s)', g.target::oid)
        FROM ndrs_optout.guard g WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = g.target)
    UNION ALL
    SELECT 'high', 'sentry off', NULL, e.name,
           format('ALTER EVENT TRIGGER %s ENABLE ALWAYS', e.name)
        FROM unnest('{ndrs_optout_sentry_start,ndrs_optout_sentry_end,ndrs_optout_sentry_drop}'::text[]) AS e (name)
        WHERE NOT EXISTS (SELECT FROM pg_event_trigger t WHERE t.evtname = e.name AND t.evtenabled = 'A')
    UNION ALL
    SELECT DISTINCT 'medium', 'guard''s constraint on a table that is not searched', k.conrelid::regclass, k.conname::text,
           format('SELECT ndrs_optout.guard_table(%L, ...), or empty the table and drop the constraint', k.conrelid::regclass)
        FROM pg_constraint k
        JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
            AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = ANY ((SELECT ndrs_optout.guard_backstops())::oid[])
        WHERE NOT EXISTS (SELECT FROM ndrs_optout.guard_part p WHERE p.relation = k.conrelid)

    -- Where the erasure's walk does not come
    UNION ALL
    SELECT DISTINCT 'high', 'reference that cannot be followed', e.child, array_to_string(e.child_columns, ', '),
           format('give table %s a key of a simple type and refer to that, or drop the reference', e.parent)
        FROM ndrs_optout.guard_walk w
        JOIN ndrs_optout.erasure_edge e ON e.parent = w.relation
        JOIN pg_attribute a ON a.attrelid = e.parent AND a.attname = ANY (e.parent_columns)
        WHERE NOT ndrs_optout.erasure_can_follow(a.atttypid)
    UNION ALL
    SELECT DISTINCT 'high', 'inheritance child that no reference binds', d.relation, array_to_string(e.child_columns, ', '),
           format('SELECT ndrs_optout.declare_reference(%L, %L, %L, %L)', d.relation, e.child_columns, e.parent, e.parent_columns)
        FROM ndrs_optout.guard_walk w
        JOIN ndrs_optout.erasure_edge e ON e.parent = w.relation AND NOT e.declared
        JOIN pg_class c ON c.oid = e.child AND c.relkind = 'r'
        CROSS JOIN LATERAL ndrs_optout.erasure_descendants(e.child) AS d
        WHERE d.relation <> e.child AND NOT EXISTS (
            SELECT FROM ndrs_optout.erasure_lineage(d.relation) l
                JOIN ndrs_optout.erasure_edge o ON o.child = l.ancestor
                    AND (o.declared OR o.child = d.relation) AND o.parent = e.parent)
            AND NOT EXISTS (SELECT FROM ndrs_optout.guard_part p WHERE p.relation = d.relation)
    UNION ALL
    SELECT 'high', 'forced row-level security', w.relation, r.relowner::regrole::text,
           format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', w.relation)
        FROM ndrs_optout.guard_walk w JOIN pg_class r ON r.oid = w.relation WHERE r.relforcerowsecurity
    UNION ALL
    SELECT CASE r.ev_type WHEN '4' THEN 'high' ELSE 'medium' END,
           CASE r.ev_type WHEN '4' THEN 'rule that may keep rows' ELSE 'rule that may copy rows' END,
           w.relation, r.rulename::text,
           CASE r.ev_type WHEN '4' THEN format('DROP RULE %I ON %s', r.rulename, w.relation)
                ELSE 'guard or declare what it writes to, or accept the gap' END
        FROM ndrs_optout.guard_walk w JOIN pg_rewrite r ON r.ev_class = w.relation AND r.ev_type <> '1'
    UNION ALL
    SELECT 'medium', 'trigger that may copy rows', w.relation, t.tgname::text,
           'guard or declare what it writes to, or accept the gap'
        FROM ndrs_optout.guard_walk w
        JOIN pg_trigger t ON t.tgrelid = w.relation AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgparentid = 0
        JOIN pg_proc f ON f.oid = t.tgfoid
            AND f.pronamespace NOT IN ('ndrs_optout'::regnamespace, 'pg_catalog'::regnamespace)
    UNION ALL
    SELECT 'medium', 'another owner than its parent''s', e.child, c.relowner::regrole::text,
           format('ALTER TABLE %s OWNER TO %s', e.child, p.relowner::regrole)
        FROM (SELECT DISTINCT n.child, n.parent FROM (
                  SELECT x.child, x.parent FROM ndrs_optout.erasure_edge x
                  UNION ALL
                  SELECT i.inhrelid, i.inhparent FROM pg_inherits i) AS n) AS e
        JOIN ndrs_optout.guard_walk w ON w.relation = e.parent
        JOIN pg_class p ON p.oid = e.parent
        JOIN pg_class c ON c.oid = e.child AND c.relkind IN ('r', 'p', 'f')
        WHERE c.relowner <> p.relowner

    -- Copies
    UNION ALL
    SELECT CASE WHEN u.numbers > 0 THEN 'high' ELSE 'medium' END, 'NHS numbers without a guard', u.relation, u.column_name::text,
           coalesce(format('SELECT ndrs_optout.guard_table(%L, %L, ...): %s of %s values looked at are NHS numbers',
                           u.relation, u.column_name, u.numbers, u.sampled),
                    'look again: the table could not be read')
        FROM ndrs_optout.unguarded_columns() AS u
    UNION ALL
    SELECT 'medium', 'materialized view', v.relation, NULL, format('REFRESH MATERIALIZED VIEW %s after each opt-out', v.relation)
        FROM (WITH RECURSIVE reader (relation) AS (
                  SELECT w.relation FROM ndrs_optout.guard_walk w
                  UNION
                  SELECT r.ev_class FROM reader b
                      JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = b.relation
                          AND d.classid = 'pg_rewrite'::regclass
                      JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_type = '1')
              SELECT b.relation FROM reader b JOIN pg_class c ON c.oid = b.relation AND c.relkind = 'm') AS v
    UNION ALL
    SELECT DISTINCT CASE WHEN p.pubdelete AND p.pubupdate AND p.pubtruncate THEN 'low' ELSE 'medium' END,
           CASE WHEN p.pubdelete AND p.pubupdate AND p.pubtruncate THEN 'published to others' ELSE 'published without deletions' END,
           w.relation, p.pubname::text,
           CASE WHEN p.pubdelete AND p.pubupdate AND p.pubtruncate THEN 'guard the subscribers'' tables too, and accept the gap'
                ELSE format('ALTER PUBLICATION %I SET (publish = ''insert, update, delete, truncate'')', p.pubname) END
        FROM ndrs_optout.guard_walk w
        JOIN pg_class c ON c.oid = w.relation
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_publication_tables t ON t.schemaname = n.nspname AND t.tablename = c.relname
        JOIN pg_publication p ON p.pubname = t.pubname
    UNION ALL
    SELECT 'medium', 'subscribed to without a guard', s.srrelid::regclass, b.subname::text,
           format('SELECT ndrs_optout.guard_table(%L, ...), or declare_reference()', s.srrelid::regclass)
        FROM pg_subscription_rel s JOIN pg_subscription b ON b.oid = s.srsubid
        WHERE NOT EXISTS (SELECT FROM ndrs_optout.guard_walk w WHERE w.relation = s.srrelid)

    -- What makes an erasure slow
    UNION ALL
    SELECT 'low', 'missing index', m.relation, array_to_string(m.columns, ', '), m.command
        FROM (SELECT DISTINCT e.child AS relation, e.child_columns AS columns,
                     ndrs_optout.erasure_missing_index(e.child, e.child_columns, false) AS command
                  FROM ndrs_optout.guard_walk w JOIN ndrs_optout.erasure_edge e ON e.parent = w.relation
              UNION
              SELECT p.target, ARRAY[p.nhs_number_column],
                     ndrs_optout.erasure_missing_index(p.target, ARRAY[p.nhs_number_column],
                         ndrs_optout.erasure_holds_text(p.target, p.nhs_number_column))
                  FROM ndrs_optout.guard_part p
                  WHERE p.relation = p.target AND p.part = 'backstop' AND p.defect IS NULL) AS m
        WHERE m.command IS NOT NULL
$$;

CREATE FUNCTION guard_coverage() RETURNS TABLE (severity text, gap text, relation regclass, object text, what_to_do text)
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET jit = off
AS $$
    SELECT * FROM ndrs_optout.guard_gaps() AS g
        WHERE NOT EXISTS (SELECT FROM ndrs_optout.accepted_gap a
                          WHERE a.gap = g.gap AND a.relation IS NOT DISTINCT FROM g.relation
                              AND a.object IS NOT DISTINCT FROM g.object
                              AND array_position('{high,medium,low}', a.severity) <= array_position('{high,medium,low}', g.severity))
        ORDER BY array_position('{high,medium,low}', g.severity), g.relation::text, g.gap, g.object
$$;

COMMENT ON VIEW guard_part IS 'every part that guards ought to have on their tables, partitions and inheritance children, with its defect, or NULL when it is in force';
COMMENT ON TABLE accepted_gap IS 'gaps that somebody has looked at and accepted, with the reason; guard_coverage() leaves them out';
COMMENT ON FUNCTION accept_gap(text, regclass, text, text) IS
    'leaves a gap out of guard_coverage(), as long as it does not become more severe, for a reason that goes into the audit; errors 22004 (no reason), 22023 (a part of a guard, which can be repaired, or the reason holds an NHS number), 42704 (no such gap)';
COMMENT ON VIEW guard_walk IS 'every table that an erasure from any register can come to';
COMMENT ON FUNCTION unguarded_columns() IS 'columns that no guard names and that seem to hold NHS numbers: how many of the values sampled do; NULL where the table could not be read';
COMMENT ON FUNCTION guard_gaps() IS 'every gap, accepted or not';
COMMENT ON FUNCTION guard_coverage() IS
    'one row for each way round the guard, or round the erasure, that is open now: severity high (an excluded patient''s row can come in or stay), medium (it depends) or low (slow, or elsewhere), and what to do; none when all is closed. Reads up to 200 rows of each table with columns that may hold NHS numbers';
