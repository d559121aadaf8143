-- guard_part: what a guard ought to have on each table, and what is wrong with it.
-- The parts that a guard ought to have on a table that it covers, and what is wrong
-- with them; defect is NULL for a part that is in force.  Partitions have the trigger
-- too; inheritance children only the constraint, which no server lets them be without.
-- object: the trigger, constraint or column that the part is, or that is not there.
-- Everything is read from rows of the catalogues, so that the sentry can ask with a
-- snapshot of before its command.
CREATE FUNCTION guard_parts(this guard, relation regclass)
RETURNS TABLE (part text, defect text, object name, attnum smallint, atttypid oid)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    WITH number AS MATERIALIZED (
        SELECT c.relkind, c.relispartition, a.attnum, a.atttypid, e.attnum AS encoded
            FROM pg_class c
            LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = (this).nhs_number_column
                AND a.attnum > 0 AND NOT a.attisdropped
            LEFT JOIN pg_attribute e ON e.attrelid = c.oid AND e.attname = (this).encoded_column
                AND e.attnum > 0 AND NOT e.attisdropped
            WHERE c.oid = relation)
    SELECT 'trigger',
           CASE WHEN count(t.oid) = 0 THEN 'missing'
                WHEN bool_and(t.tgenabled = 'D') THEN 'disabled'
                WHEN NOT bool_or(t.tgenabled = 'A') THEN 'not_always'
           END,
           min(t.tgname::text)::name, min(n.attnum), min(n.atttypid::bigint)::oid
        FROM number n
        LEFT JOIN pg_trigger t ON t.tgrelid = relation AND t.tgfoid = 'ndrs_optout.guard_row'::regproc
            AND t.tgtype = 23 AND t.tgqual IS NULL AND t.tgattr = ''
            AND t.tgargs = (
                SELECT string_agg(convert_to(w.word, getdatabaseencoding()) || decode('00', 'hex'), ''
                                  ORDER BY w.position)
                    FROM unnest(ndrs_optout.guard_arguments(this)) WITH ORDINALITY AS w (word, position))
        WHERE (this).mechanism = 'both' AND (relation = (this).target OR n.relispartition)
        HAVING count(*) > 0
    UNION ALL
    SELECT 'constraint',
           CASE WHEN n.attnum IS NULL THEN 'column_missing'
                WHEN NOT ndrs_optout.guard_reads(n.atttypid) THEN 'column_unreadable'
                WHEN k.conname IS NULL THEN 'missing'
                WHEN NOT k.enforced THEN 'not_enforced'
                WHEN n.relkind = 'f' THEN 'foreign_table'
           END,
           k.conname, n.attnum, n.atttypid
        FROM number n
        LEFT JOIN LATERAL (
            -- The server has constraints that are not enforced since version 18.
            SELECT c.conname, coalesce((to_jsonb(c) ->> 'conenforced')::boolean, true) AS enforced
                FROM pg_constraint c
                JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid
                    AND d.refclassid = 'pg_proc'::regclass
                    AND d.refobjid = ANY ((SELECT ndrs_optout.guard_constraint_functions())::oid[])
                WHERE c.conrelid = relation AND c.contype = 'c' AND n.attnum = ANY (c.conkey)
                    AND ndrs_optout.guard_is_constraint(c.conbin::text, (this).target, n.attnum, (this).registers,
                            (this).on_missing, (this).on_unreadable, (this).encoded_column IS NOT NULL, n.encoded)
                ORDER BY 2 DESC, 1 LIMIT 1) AS k ON true
    UNION ALL
    SELECT 'columns', 'incomplete', min(named.n::text)::name, NULL::smallint, NULL::oid
        FROM unnest((this).redact_columns || (this).encoded_column || (this).birth_date_column) AS named (n)
        WHERE relation = (this).target AND named.n IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_attribute o
                WHERE o.attrelid = relation AND o.attname = named.n AND NOT o.attisdropped
                    AND (named.n = ANY ((this).redact_columns)
                         OR o.atttypid = CASE named.n WHEN (this).encoded_column
                                                  THEN 'ndrs_optout.encoded_nhs_number'::regtype ELSE o.atttypid END
                             AND (named.n IS DISTINCT FROM (this).birth_date_column
                                  OR o.atttypid IN ('date'::regtype, 'timestamp'::regtype))))
        HAVING count(*) > 0
    UNION ALL
    -- Erasures end where a number that is to be redacted cannot go.
    SELECT 'redaction', 'not_nullable', min(a.attname::text)::name, NULL::smallint, NULL::oid
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE (this).on_match = 'redact' AND a.attrelid = relation AND NOT a.attisdropped
            AND a.attname = ANY ((this).redact_columns || (this).nhs_number_column)
            AND (a.attnotnull OR t.typnotnull OR a.attgenerated <> '')
        HAVING count(*) > 0;
END
$$;
COMMENT ON FUNCTION guard_parts(guard, regclass) IS
    'internal: the parts (trigger, constraint, columns, redaction) that a guard ought to have on a table that it '
    'covers: what is wrong (NULL: in force), the object, and number and type of the guarded column';

-- A partition that is being detached CONCURRENTLY is none any more: a scan of the
-- table does not come there.
CREATE VIEW guard_covered AS
    WITH RECURSIVE below (target, relation) AS (
        SELECT DISTINCT g.target, g.target FROM guard g
        UNION
        SELECT b.target, i.inhrelid FROM below b
            JOIN pg_catalog.pg_inherits i
                ON i.inhparent OPERATOR(pg_catalog.=) b.relation AND NOT i.inhdetachpending)
    SELECT b.target, b.relation FROM below b JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) b.relation;
COMMENT ON VIEW guard_covered IS
    'internal: every table that a guard covers: the guarded one, its partitions and inheritance children';

CREATE VIEW guard_part AS
    SELECT g.target, g.nhs_number_column, d.relation, p.part, p.defect, p.object, p.attnum, p.atttypid
        FROM guard g
        JOIN guard_covered d ON d.target OPERATOR(pg_catalog.=) g.target
        CROSS JOIN LATERAL guard_parts(g, d.relation) AS p;
COMMENT ON VIEW guard_part IS
    'internal: every part that guards ought to have on their tables, partitions and inheritance children, with its '
    'defect, or NULL when it is in force';

-- The same for one relation, without a look at all others.
CREATE FUNCTION guard_covers(target regclass, relation regclass) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (
        WITH RECURSIVE above (ancestor) AS (
            SELECT guard_covers.relation::oid
            UNION
            SELECT i.inhparent FROM above a JOIN pg_inherits i ON i.inhrelid = a.ancestor AND NOT i.inhdetachpending)
        SELECT FROM above a WHERE a.ancestor = target);
END
$$;
COMMENT ON FUNCTION guard_covers(regclass, regclass) IS
    'internal: whether a relation is the table, or a partition or an inheritance child of it, and is not being '
    'detached';
