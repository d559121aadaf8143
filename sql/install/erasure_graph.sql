-- erasure, the graph: how the rows of one patient hang together.
--
-- Most tables of a registry carry no NHS number.  The walk starts from the
-- guarded columns and follows foreign keys, and references declared here,
-- downwards: number, patient, tumour, regimen, cycle, drug.
--
-- Functions that compare columns of unknown types have ndrs_optout in their
-- search_path, for the "=" of nhs_number; no other role can create anything
-- there.
--
-- Functions named erasure_plan_... ask the catalogues and tables guard and reference, and
-- nothing else.  Plans are the same for every patient, so a session keeps them until
-- something changes there: the function without "plan_" in its name, with the same
-- arguments, returns the plan that is kept, or has one made.  It is made with the newest
-- snapshot, whatever the transaction's.

-- One step that the walk can take: which rows of a table to look for, and what
-- becomes of them.
-- action: delete; redact (the row stays without the number and what goes with
-- it); unlink (the foreign key sets its columns to NULL or their default: the row
-- stays); keep (the table serves another register too, which the patient did not
-- opt out of); block (the row is another patient's by its own NHS number, or serves
-- a register that the patient did not opt out of, and its foreign key keeps the
-- parent from going).
-- source: the rows t, for patients $1 and keys $2.
-- role: with whose rights: those of the table's owner.
-- registers: of a guarded column.
-- changes: what becomes of a row that stays, for UPDATE; NULL when the server does that.  Of one
-- that blocks: what would have to become of it and cannot.
-- bound: whether a lock on the parent stops a new child.
-- parent_columns: whose values, in the rows that the search comes down from, are its keys.
-- key_columns: columns of t that are the keys of searches below, read with the rows.
-- alone: no other table's rows are read with the relation's, nor its with another's.
-- link_columns: of a row that stays, those that lose their value; of one that keeps an owned
-- row, those by which it refers to it.
CREATE TYPE erasure_search AS (
    relation       regclass,
    action         text,
    source         text,
    role           regrole,
    missing_index  text,
    registers      text[],
    changes        text,
    bound          boolean,
    parent_columns name[],
    key_columns    name[],
    alone          boolean,
    link_columns   name[]
);
COMMENT ON TYPE erasure_search IS 'internal: one step that the erasure''s walk can take';

-- Every edge from a parent to a child.  Constraints that the server made
-- for partitions are left out: the one on the partitioned table stands for all, but
-- for a partition that is being detached CONCURRENTLY, or was until that was interrupted,
-- since a scan of the partitioned table does not come there any more.
-- owns: declare_owned() says that the parent's rows belong to the child's.
-- keeps: a row of the child keeps the row of an owned table that it refers to.
CREATE VIEW erasure_edge AS
    SELECT f.confrelid::regclass AS parent,
           f.conrelid::regclass AS child,
           f.confdeltype IN ('n', 'd') AS unlinks,
           false AS declared,
           ARRAY(SELECT a.attname FROM pg_catalog.unnest(f.confkey) WITH ORDINALITY AS k (attnum, position)
                     JOIN pg_catalog.pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.attnum
                     ORDER BY k.position) AS parent_columns,
           ARRAY(SELECT a.attname FROM pg_catalog.unnest(f.conkey) WITH ORDINALITY AS k (attnum, position)
                     JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.attnum
                     ORDER BY k.position) AS child_columns,
           f.conpfeqop AS operators,
           -- Since version 18 a key may be NOT ENFORCED; its triggers may be disabled in any.
           coalesce((pg_catalog.to_jsonb(f) ->> 'conenforced')::boolean, true) AND NOT EXISTS (
               SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint
                   WHERE (k.oid = f.oid OR k.conparentid = f.oid) AND t.tgenabled NOT IN ('O', 'A')) AS enforced,
           CASE WHEN f.confdeltype IN ('n', 'd') THEN (
               SELECT pg_catalog.string_agg(pg_catalog.format('%I = %s', a.attname,
                          CASE f.confdeltype WHEN 'n' THEN 'NULL' ELSE 'DEFAULT' END), ', ')
                   FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = f.conrelid AND a.attnum = ANY (coalesce(f.confdelsetcols, f.conkey)))
                       END AS unlinking,
           CASE WHEN f.confdeltype IN ('n', 'd') THEN ARRAY(
               SELECT a.attname FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = f.conrelid AND a.attnum = ANY (coalesce(f.confdelsetcols, f.conkey)))
                       END AS unlinked_columns,
           o.owns,
           o.owns OR NOT EXISTS (
               SELECT FROM reference r
                   WHERE r.child = f.conrelid AND r.parent = f.confrelid
                       AND same_columns(f.conkey, f.confkey, r.child_attnums, r.parent_attnums))
               -- A child that the walk comes to from elsewhere, too, may be another patient's.  To what a
               -- child owns, it does not come from above.
               AND (f.confdeltype <> 'c' OR EXISTS (
                   SELECT FROM expected_edge x
                       WHERE x.child = f.conrelid AND x.parent <> f.confrelid
                           AND NOT EXISTS (SELECT FROM owned_parent y
                                           WHERE y.child = x.child AND y.parent = x.parent))) AS keeps
        FROM pg_catalog.pg_constraint f
        CROSS JOIN LATERAL (
            SELECT EXISTS (SELECT FROM owned_parent o
                               WHERE o.child = f.conrelid AND o.parent = f.confrelid
                                   AND same_columns(f.conkey, f.confkey, o.child_attnums, o.parent_attnums))
                       AS owns) AS o
        WHERE f.contype = 'f' AND (f.conparentid = 0 OR EXISTS (
            SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = f.conrelid AND i.inhdetachpending))
    UNION ALL
    -- One that has lost a column would find rows of other patients by what is left of it, and one
    -- whose types cannot be compared any more would end every erasure.
    SELECT r.parent, r.child, false, true, k.parent_columns, k.child_columns, k.operators, false, NULL, NULL, o.owns,
           o.owns
        FROM reference r
        CROSS JOIN LATERAL (
            SELECT EXISTS (SELECT FROM owned_parent o
                               WHERE o.child = r.child AND o.parent = r.parent
                                   AND same_columns(r.child_attnums, r.parent_attnums, o.child_attnums,
                                                    o.parent_attnums)) AS owns) AS o
        CROSS JOIN LATERAL (
            SELECT pg_catalog.array_agg(p.attname ORDER BY n.position) AS parent_columns,
                   pg_catalog.array_agg(c.attname ORDER BY n.position) AS child_columns,
                   pg_catalog.array_agg(erasure_equality(p.atttypid, c.atttypid) ORDER BY n.position) AS operators
                FROM unnest(r.parent_attnums, r.child_attnums) WITH ORDINALITY
                    AS n (parent_attnum, child_attnum, position)
                JOIN pg_catalog.pg_attribute p ON p.attrelid = r.parent AND p.attnum = n.parent_attnum
                    AND NOT p.attisdropped
                JOIN pg_catalog.pg_attribute c ON c.attrelid = r.child AND c.attnum = n.child_attnum
                    AND NOT c.attisdropped) AS k
        WHERE pg_catalog.cardinality(k.child_columns) = pg_catalog.cardinality(r.child_columns)
            AND NOT EXISTS (SELECT FROM reference_incomparable(r.child, r.child_attnums, r.parent, r.parent_attnums));
COMMENT ON VIEW erasure_edge IS
    'internal: every edge from a parent to a child: foreign keys and declared references';

-- The name of the type in which a key travels: no array, never a domain, and no
-- type that may hold one, since reading such a value runs the checks of the domain's
-- owner.
CREATE FUNCTION erasure_key_type(type oid) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT ndrs_optout.erasure_can_follow(type) THEN
        PERFORM ndrs_optout.raise_error('0A000', format('keys of type %s cannot be followed', format_type(type, NULL)));
    END IF;
    RETURN format_type(ndrs_optout.erasure_base_type(type), -1);
END
$$;
COMMENT ON FUNCTION erasure_key_type(oid) IS
    'internal: the name of the type in which keys of a type travel; error 0A000 for one that may run others'' code '
    'when it is read';

CREATE FUNCTION erasure_can_follow(type oid) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT t.typtype IN ('b', 'e') AND t.typcategory <> 'A' AND coalesce(e.typtype IN ('b', 'e'), true)
            FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem
            WHERE t.oid = ndrs_optout.erasure_base_type(type));
END
$$;
COMMENT ON FUNCTION erasure_can_follow(oid) IS
    'internal: whether keys of a type can be followed by the erasure''s walk';

CREATE FUNCTION erasure_is_alone(relation regclass) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = relation OR i.inhrelid = relation);
END
$$;
COMMENT ON FUNCTION erasure_is_alone(regclass) IS
    'internal: whether a table has no partition, no inheritance child and no parent';

-- Partitions by the searches below them.  Tables whose rows are searched below alike are
-- kin, and known by one of them; those of a partitioned table are, as a rule.  A table and
-- its kin alternate, in the order of the tables.
CREATE FUNCTION erasure_plan_kin(relation regclass) RETURNS regclass[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF ndrs_optout.erasure_is_alone(relation) THEN
        RETURN ARRAY[relation, relation];
    END IF;
    RETURN (
        WITH edge AS MATERIALIZED (SELECT DISTINCT e.parent, e.declared FROM ndrs_optout.erasure_edge e),
        followed AS (
            SELECT l.leaf, array_agg(DISTINCT ROW(e.parent::oid, e.declared)) FILTER (WHERE e.parent IS NOT NULL)
                       AS edges
                FROM ndrs_optout.erasure_lineages(relation) AS l
                LEFT JOIN edge e ON e.parent = l.ancestor AND (l.by_partition OR e.declared)
                GROUP BY l.leaf),
        kin AS (SELECT f.leaf, min(f.leaf::oid) OVER (PARTITION BY f.edges) AS kin FROM followed f)
        SELECT array_agg(p.member ORDER BY k.leaf, p.position)
            FROM kin k CROSS JOIN LATERAL unnest(ARRAY[k.leaf, k.kin]) WITH ORDINALITY AS p (member, position));
END
$$;
COMMENT ON FUNCTION erasure_plan_kin(regclass) IS
    'internal: a table, its partitions and its inheritance children, each followed by the one that stands for those '
    'whose rows are searched below alike';

CREATE FUNCTION erasure_kin(relation regclass, leaves regclass[]) RETURNS regclass[]
    AS 'MODULE_PATHNAME', 'ndrs_optout_erasure_kin'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION erasure_kin(regclass, regclass[]) IS
    'internal: erasure_plan_kin(), as the session keeps it: the kin of tables where a search of a relation found rows, '
    'each once; error ND033 when it is not to be found in the relation, its partitions or its inheritance children';

-- The columns of a table by which others refer to rows of it, its partitions and its
-- inheritance children, and those by which they refer to rows that they own.  A column of a
-- child alone is read from there.
CREATE FUNCTION erasure_key_columns(relation regclass) RETURNS name[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        SELECT DISTINCT a.attname
            FROM (SELECT l.ancestor FROM ndrs_optout.erasure_lineage(erasure_key_columns.relation) AS l
                  UNION
                  SELECT d.relation FROM ndrs_optout.erasure_descendants(erasure_key_columns.relation) AS d)
                 AS t (member)
            JOIN ndrs_optout.erasure_edge e ON e.parent = t.member
            JOIN pg_attribute a ON a.attrelid = erasure_key_columns.relation AND a.attname = ANY (e.parent_columns)
                AND a.attnum > 0 AND NOT a.attisdropped
            WHERE ndrs_optout.erasure_can_follow(a.atttypid)
            ORDER BY 1);
END
$$;
COMMENT ON FUNCTION erasure_key_columns(regclass) IS
    'internal: the columns of a table by which others refer to rows of it, its partitions and its children, or these '
    'to rows that they own';

-- Where to look for rows of a child t: those that refer to the parent's keys ($2).
-- A foreign key does not bind the inheritance children of its table; a declared
-- reference does.
CREATE FUNCTION erasure_source(edge erasure_edge, condition text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT format('%s %s t JOIN unnest(%s) AS p (%s) ON %s WHERE %s',
                   CASE WHEN edge.declared OR r.relkind = 'p' THEN '' ELSE 'ONLY' END,
                   edge.child,
                   string_agg(format('$2[%s]::%s[]', k.position, ndrs_optout.erasure_key_type(a.atttypid)), ', '
                              ORDER BY k.position),
                   string_agg(format('k%s', k.position), ', ' ORDER BY k.position),
                   string_agg(format('p.k%s%s %s t.%I', k.position,
                                     ndrs_optout.reference_collation(a.attcollation, c.attcollation),
                                     CASE WHEN o.oid IS NULL THEN '='
                                          ELSE format('OPERATOR(%I.%s)', n.nspname, o.oprname) END,
                                     k.child_column), ' AND ' ORDER BY k.position),
                   condition)
            FROM unnest(edge.parent_columns, edge.child_columns, edge.operators)
                WITH ORDINALITY AS k (parent_column, child_column, operator, position)
            JOIN pg_class r ON r.oid = edge.child
            JOIN pg_attribute a ON a.attrelid = edge.parent AND a.attname = k.parent_column
            JOIN pg_attribute c ON c.attrelid = edge.child AND c.attname = k.child_column
            LEFT JOIN (pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace) ON o.oid = k.operator
            GROUP BY r.relkind);
END
$$;
COMMENT ON FUNCTION erasure_source(erasure_edge, text) IS
    'internal: where to look for rows of a child t that refer to a parent''s keys ($2)';

-- The condition that finds a patient, n.number, in a guarded column of table t.  Text
-- may be formatted, so it is compared as a number.  Only types that a guard reads
-- get here, so no cast that another role has made is called.
CREATE FUNCTION erasure_condition(target regclass, nhs_number_column name) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    type oid := (SELECT ndrs_optout.erasure_base_type(a.atttypid) FROM pg_attribute a
        WHERE a.attrelid = target AND a.attname = nhs_number_column AND a.attnum > 0 AND NOT a.attisdropped);
BEGIN
    -- The constraint knows its column whatever its name is.  When it is gone, or is
    -- on another column, the guard is not what it was, and neither is the search.
    IF NOT EXISTS (
        SELECT FROM ndrs_optout.guard g CROSS JOIN LATERAL ndrs_optout.guard_parts(g, g.target) AS p
            WHERE g.target = erasure_condition.target AND g.nhs_number_column = erasure_condition.nhs_number_column
                AND p.part = 'constraint' AND p.defect IS NULL) THEN
        PERFORM ndrs_optout.raise_error('55000',
            format('the guard of column "%s" of table %s is damaged', nhs_number_column, target),
            detail => 'Its constraint is gone, or the column was renamed or has changed its type.',
            hint => 'Call ndrs_optout.unguard_table() and ndrs_optout.guard_table() again.');
    END IF;

    RETURN format(CASE
        WHEN ndrs_optout.erasure_holds_text(target, nhs_number_column) THEN 'ndrs_optout.nhs_number_or_null(t.%I) '
                                                                            'OPERATOR(ndrs_optout.=) n.number'
        WHEN type = 'ndrs_optout.nhs_number'::regtype THEN 't.%I OPERATOR(ndrs_optout.=) n.number'
        ELSE 't.%I = n.number::bigint' END, nhs_number_column);
END
$$;
COMMENT ON FUNCTION erasure_condition(regclass, name) IS
    'internal: the condition that finds a patient (n.number) in a guarded column of table t; error 55000 when the '
    'guard is damaged';

-- Whether a guarded column holds numbers as text, which may be formatted.
CREATE FUNCTION erasure_holds_text(target regclass, nhs_number_column name) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT ndrs_optout.erasure_base_type(a.atttypid)
                   NOT IN ('ndrs_optout.nhs_number'::regtype, 'bigint'::regtype, 'numeric'::regtype)
            FROM pg_attribute a
            WHERE a.attrelid = target AND a.attname = nhs_number_column AND a.attnum > 0 AND NOT a.attisdropped);
END
$$;
COMMENT ON FUNCTION erasure_holds_text(regclass, name) IS
    'internal: whether a guarded column holds NHS numbers as text';

-- The condition that keeps a row of table t from being deleted for patients $1
-- although it was found, or NULL when there is none: by a guarded number it is
-- another patient's, or of a patient who cannot be told (a baby's that refers to
-- its mother's, or a mother's and a baby's number in one row), or it serves a
-- register that the patient is not out of.  Guards of the table itself, of its
-- parents, and of some partition or child; but a number that is redacted does not
-- say whose the row is, and the number by which it was found (found_by) says that
-- it is the patient's.
CREATE FUNCTION erasure_keep_condition(relation regclass, excluded_registers text[], found_by name) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        WITH related AS (
            SELECT g.nhs_number_column, g.registers <@ excluded_registers AS in_scope, NULL AS some_rows
                FROM ndrs_optout.erasure_lineage(relation) l
                JOIN ndrs_optout.guard g ON g.target = l.ancestor
                WHERE g.on_match <> 'redact'
            UNION ALL
            SELECT g.nhs_number_column, g.registers <@ excluded_registers,
                   (SELECT format('t.tableoid IN (%s)', string_agg(d.relation::oid::text, ', '))
                        FROM ndrs_optout.erasure_descendants(g.target) d)
                FROM ndrs_optout.erasure_descendants(erasure_keep_condition.relation) b
                JOIN ndrs_optout.guard g ON g.target = b.relation AND g.target <> erasure_keep_condition.relation
                WHERE g.on_match <> 'redact')
        SELECT string_agg(format('(%s)', concat_ws(' AND ', r.some_rows,
                   CASE WHEN NOT EXISTS (SELECT FROM pg_attribute a
                                         WHERE a.attrelid = relation AND a.attname = r.nhs_number_column) THEN 'true'
                        WHEN r.in_scope THEN
                            format('(ndrs_optout.guard_number(t.%1$I)::bigint NOT IN (SELECT unnest($1::bigint[])) OR '
                                   'ndrs_optout.guard_unreadable(t.%1$I))',
                                   r.nhs_number_column)
                        WHEN (SELECT bool_or(o.in_scope) FROM related o WHERE o.some_rows IS NULL)
                            THEN format('ndrs_optout.guard_number(t.%I) IS NOT NULL', r.nhs_number_column)
                        ELSE 'true' END)), ' OR ')
            FROM related r WHERE NOT r.in_scope OR r.nhs_number_column IS DISTINCT FROM found_by);
END
$$;
COMMENT ON FUNCTION erasure_keep_condition(regclass, text[], name) IS
    'internal: the condition that keeps a row of table t from being deleted for patients $1, or NULL';

-- What happens to rows that were found, each action with its condition.
CREATE FUNCTION erasure_actions(relation regclass, unlinks boolean, excluded_registers text[],
                                found_by name DEFAULT NULL)
RETURNS TABLE (action text, condition text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT a.action, a.condition
            FROM ndrs_optout.erasure_keep_condition(relation, excluded_registers, found_by) AS k (keeps)
            CROSS JOIN LATERAL (VALUES
                ('unlink', 'true', unlinks),
                ('delete', coalesce('(' || k.keeps || ') IS NOT TRUE', 'true'), NOT unlinks
                 AND k.keeps IS DISTINCT FROM '(true)'),
                ('block', '(' || k.keeps || ')', NOT unlinks AND k.keeps IS NOT NULL)) AS a (action, condition, applies)
            WHERE a.applies;
END
$$;
COMMENT ON FUNCTION erasure_actions(regclass, boolean, text[], name) IS
    'internal: what happens to rows that were found, each action with its condition on table t';

-- NULL when an index can find rows by these columns, else the command that
-- makes one.  as_number: the index must be on the number that a text holds.  The stored
-- expression says so: pg_get_indexdef() would lock the table.
CREATE FUNCTION erasure_missing_index(relation regclass, columns name[], as_number boolean) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT format(CASE WHEN as_number THEN 'CREATE INDEX ON %s (ndrs_optout.nhs_number_or_null(%s))'
                           ELSE 'CREATE INDEX ON %s (%s)' END,
                      relation, (SELECT string_agg(quote_ident(c), ', ') FROM unnest(columns) AS c))
            WHERE NOT EXISTS (
                SELECT FROM pg_index i
                    JOIN pg_class x ON x.oid = i.indexrelid
                    JOIN pg_am m ON m.oid = x.relam AND m.amname IN ('btree', 'hash')
                    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = ANY (columns)
                    WHERE i.indrelid = relation AND i.indisvalid AND i.indpred IS NULL
                        AND CASE WHEN as_number THEN
                                i.indkey[0] = 0
                                AND i.indexprs::text LIKE format(
                                    '({FUNCEXPR :funcid %s %%',
                                    'ndrs_optout.nhs_number_or_null(text)'::regprocedure::oid)
                                AND EXISTS (SELECT FROM pg_depend d
                                            WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                                                AND d.refclassid = 'pg_class'::regclass
                                                AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum)
                            ELSE i.indkey[0] = a.attnum END));
END
$$;
COMMENT ON FUNCTION erasure_missing_index(regclass, name[], boolean) IS
    'internal: the command that makes an index for these columns, or NULL when there is one';

-- The searches in guarded columns for patients who are out of these registers.  A
-- table that serves several registers is a patient's to erase only when the patient is
-- out of all of them.
CREATE FUNCTION erasure_plan_root_searches(registers text[], excluded_registers text[]) RETURNS erasure_search[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        SELECT ROW(g.target, a.action,
                   format('%s t JOIN unnest($1) AS n (number) ON %s WHERE %s', g.target,
                       ndrs_optout.erasure_condition(g.target, g.nhs_number_column), a.condition),
                   (SELECT r.relowner::regrole FROM pg_class r WHERE r.oid = g.target),
                   ndrs_optout.erasure_missing_index(g.target, ARRAY[g.nhs_number_column],
                       ndrs_optout.erasure_holds_text(g.target, g.nhs_number_column)),
                   g.registers,
                   CASE a.action WHEN 'redact' THEN (
                       SELECT string_agg(format('%I = NULL', c), ', ')
                           FROM unnest(g.nhs_number_column || g.redact_columns) AS c) END,
                   true, NULL,
                   CASE a.action WHEN 'delete' THEN ndrs_optout.erasure_key_columns(g.target) END,
                   ndrs_optout.erasure_is_alone(g.target),
                   CASE a.action WHEN 'redact' THEN g.nhs_number_column || g.redact_columns END
                  )::ndrs_optout.erasure_search
            FROM ndrs_optout.guard g
            CROSS JOIN LATERAL (
                SELECT 'keep' AS action, 'true' AS condition WHERE NOT g.registers <@ excluded_registers
                UNION ALL
                SELECT 'redact', 'true' WHERE g.registers <@ excluded_registers AND g.on_match = 'redact'
                UNION ALL
                SELECT * FROM ndrs_optout.erasure_actions(g.target, false, excluded_registers, g.nhs_number_column)
                    WHERE g.registers <@ excluded_registers AND g.on_match <> 'redact') AS a
            WHERE g.registers && erasure_plan_root_searches.registers
            ORDER BY g.target::text, g.nhs_number_column, a.action DESC);
END
$$;
COMMENT ON FUNCTION erasure_plan_root_searches(text[], text[]) IS
    'internal: the searches in the columns that are guarded for registers, for patients who are out of these; error '
    '55000 when a guard is damaged';

CREATE FUNCTION erasure_root_searches(registers text[], excluded_registers text[]) RETURNS erasure_search[]
    AS 'MODULE_PATHNAME', 'ndrs_optout_erasure_root_searches'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION erasure_root_searches(text[], text[]) IS
    'internal: erasure_plan_root_searches(), as the session keeps it; error 55000 when a guard is damaged';

-- The searches for what refers to rows of a parent by one reference.
-- owned: the rows belong to what refers to them.  What keeps such a row is no part of it, and
-- stands in its way.  So do rows that the foreign key is to unlink and NOT NULL does not let
-- it: their changes say what cannot be done.
CREATE FUNCTION erasure_edge_searches(edge erasure_edge, excluded_registers text[], owned boolean DEFAULT false)
    RETURNS erasure_search[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        SELECT ROW(edge.child, a.action, ndrs_optout.erasure_source(edge, a.condition), c.relowner::regrole,
                   ndrs_optout.erasure_missing_index(edge.child, edge.child_columns, false), NULL,
                   CASE WHEN a.action = 'unlink' AND NOT edge.enforced OR a.refused THEN edge.unlinking END,
                   edge.enforced, edge.parent_columns,
                   CASE a.action WHEN 'delete' THEN ndrs_optout.erasure_key_columns(edge.child) END,
                   ndrs_optout.erasure_is_alone(edge.child),
                   CASE WHEN edge.keeps AND owned THEN edge.child_columns
                       WHEN a.action = 'unlink' THEN edge.unlinked_columns END)::ndrs_optout.erasure_search
            FROM pg_class c
            CROSS JOIN LATERAL (
                SELECT CASE WHEN edge.unlinks THEN ndrs_optout.refusing_null(
                           edge.child, edge.unlinked_columns, right(edge.unlinking, 7) = 'DEFAULT') END) AS n (refusing)
            CROSS JOIN LATERAL (
                SELECT 'block' AS action, 'true' AS condition, false AS refused WHERE edge.keeps AND owned
                UNION ALL
                SELECT x.action, CASE WHEN x.action = 'unlink' AND n.refusing IS NOT NULL
                                          THEN format('(%s) IS NOT TRUE', n.refusing) ELSE x.condition END, false
                    FROM ndrs_optout.erasure_actions(edge.child, edge.unlinks, excluded_registers) AS x
                    WHERE NOT (edge.keeps AND owned)
                        AND NOT (x.action = 'unlink' AND n.refusing IS NOT DISTINCT FROM 'true')
                UNION ALL
                SELECT 'block', n.refusing, true WHERE n.refusing IS NOT NULL AND NOT (edge.keeps AND owned)) AS a
            WHERE c.oid = edge.child
            ORDER BY a.action DESC);
END
$$;
COMMENT ON FUNCTION erasure_edge_searches(erasure_edge, text[], boolean) IS
    'internal: the searches for what refers to rows of a parent by one reference, for patients who are out of these '
    'registers; none without a reference; error 0A000';

-- The searches for what refers to rows of a table that were found for such patients.
CREATE FUNCTION erasure_plan_child_searches(leaf regclass, excluded_registers text[]) RETURNS erasure_search[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owned boolean := EXISTS (SELECT FROM ndrs_optout.owned_table o WHERE o.relation = leaf);
BEGIN
    RETURN ARRAY(
        SELECT s.searches[i.n]
            -- OFFSET: only the edges of this table are worth planning, of all that there are.
            FROM (SELECT e.* FROM ndrs_optout.erasure_lineage(leaf) l
                      JOIN ndrs_optout.erasure_edge e ON e.parent = l.ancestor AND (l.by_partition OR e.declared)
                      OFFSET 0) AS e
            CROSS JOIN LATERAL (
                SELECT ndrs_optout.erasure_edge_searches(
                           ROW(e.*)::ndrs_optout.erasure_edge, excluded_registers, owned) AS searches OFFSET 0) AS s
            CROSS JOIN LATERAL generate_subscripts(s.searches, 1) AS i (n)
            ORDER BY e.child::text, e.child_columns, e.parent_columns, i.n);
END
$$;
COMMENT ON FUNCTION erasure_plan_child_searches(regclass, text[]) IS
    'internal: the searches for what refers to rows of a table, for patients who are out of these registers; error '
    '0A000';

CREATE FUNCTION erasure_child_searches(leaf regclass, excluded_registers text[]) RETURNS erasure_search[]
    AS 'MODULE_PATHNAME', 'ndrs_optout_erasure_child_searches'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION erasure_child_searches(regclass, text[]) IS
    'internal: erasure_plan_child_searches(), as the session keeps it; error 0A000';
