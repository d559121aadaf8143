-- erasure: deletion of everything held about one patient.
--
-- Most tables of a registry carry no NHS number.  The walk starts from the
-- guarded columns and follows foreign keys, and references declared here,
-- downwards: number, patient, tumour, regimen, cycle, drug.
--
-- Functions that compare columns of unknown types have ndrs_optout in their
-- search_path, for the "=" of nhs_number; nobody else can create anything there.

-- A link that the schema does not declare.
CREATE TABLE reference (
    child          regclass,
    child_columns  name[],
    parent         regclass,
    parent_columns name[],
    PRIMARY KEY (child, child_columns, parent, parent_columns)
);
SELECT pg_catalog.pg_extension_config_dump('reference', '');

-- Rows of one table, or of one partition of it, that the walk found by one path.
-- action: delete; unlink (the foreign key sets its columns to NULL or their
-- default: the row stays); block (the row is another patient's by its own NHS
-- number, or serves a register that the patient did not opt out of, and its
-- foreign key keeps the parent from going).
CREATE TYPE erasure_batch AS (
    registers     text[],
    relation      regclass,
    leaf          regclass,
    path          text[],
    action        text,
    row_ids       tid[],
    missing_index text
);

-- Every way down from a parent to a child.  Constraints that the server made
-- for partitions are left out: the one on the partitioned table stands for all.
CREATE VIEW erasure_edge AS
    SELECT f.confrelid::regclass AS parent,
           f.conrelid::regclass AS child,
           (SELECT pg_catalog.array_agg(a.attname ORDER BY k.position)
                FROM pg_catalog.unnest(f.confkey) WITH ORDINALITY AS k (attnum, position)
                JOIN pg_catalog.pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.attnum) AS parent_columns,
           (SELECT pg_catalog.array_agg(a.attname ORDER BY k.position)
                FROM pg_catalog.unnest(f.conkey) WITH ORDINALITY AS k (attnum, position)
                JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.attnum) AS child_columns,
           f.conpfeqop AS operators,
           f.confdeltype IN ('n', 'd') AS unlinks,
           false AS declared
        FROM pg_catalog.pg_constraint f
        WHERE f.contype = 'f' AND f.conparentid = 0
    UNION ALL
    SELECT r.parent, r.child, r.parent_columns, r.child_columns, NULL, false, true
        FROM reference r
        JOIN pg_catalog.pg_class c ON c.oid = r.child
        JOIN pg_catalog.pg_class p ON p.oid = r.parent;

-- The join condition of a parent p and a child t.  A foreign key brings its
-- operators (parent = child); a declared reference takes "=".
CREATE FUNCTION erasure_join(parent_columns name[], child_columns name[], operators oid[]) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(format('p.%I %s t.%I', k.parent_column,
                             CASE WHEN o.oid IS NULL THEN '='
                                  ELSE format('OPERATOR(%I.%s)', n.nspname, o.oprname) END,
                             k.child_column), ' AND ')
        FROM unnest(parent_columns, child_columns, operators) AS k (parent_column, child_column, operator)
        LEFT JOIN (pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace) ON o.oid = k.operator
$$;

CREATE FUNCTION declare_reference(child regclass, child_columns name[], parent regclass, parent_columns name[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, ndrs_optout, pg_temp
AS $$
BEGIN
    IF child IS NULL OR parent IS NULL OR coalesce(cardinality(child_columns), 0) = 0
        OR cardinality(child_columns) IS DISTINCT FROM cardinality(parent_columns) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'a reference needs two tables, and as many child columns as parent columns, at least one';
    END IF;
    -- An error when a column does not exist or the types cannot be compared.
    EXECUTE format('SELECT FROM %s t, %s p WHERE %s LIMIT 0', child, parent,
                   ndrs_optout.erasure_join(parent_columns, child_columns, NULL));
    INSERT INTO ndrs_optout.reference (child, child_columns, parent, parent_columns)
        VALUES (child, child_columns, parent, parent_columns)
        ON CONFLICT DO NOTHING;
END
$$;

-- A table and those that it is a partition or an inheritance child of.  Only
-- partitions hold rows that a foreign key to an ancestor refers to.
CREATE FUNCTION erasure_lineage(relation regclass)
RETURNS TABLE (ancestor regclass, by_partition boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE lineage (ancestor, by_partition) AS (
        SELECT relation, true
        UNION ALL
        SELECT i.inhparent::regclass, l.by_partition AND c.relispartition
            FROM lineage l
            JOIN pg_inherits i ON i.inhrelid = l.ancestor
            JOIN pg_class c ON c.oid = i.inhrelid)
    SELECT DISTINCT l.ancestor, l.by_partition FROM lineage l
$$;

-- The condition that finds a patient ($1) in a guarded column of table t.  Text
-- may be formatted, so it is compared as a number.
CREATE FUNCTION erasure_condition(target regclass, nhs_number_column name) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE base (type) AS (
        SELECT a.atttypid FROM pg_attribute a
            WHERE a.attrelid = target AND a.attname = nhs_number_column AND NOT a.attisdropped
        UNION ALL
        SELECT t.typbasetype FROM base JOIN pg_type t ON t.oid = base.type AND t.typtype = 'd')
    SELECT CASE
            WHEN bool_or(type = 'ndrs_optout.nhs_number'::regtype) THEN
                format('t.%I = $1', nhs_number_column)
            WHEN bool_or(type IN ('bigint'::regtype, 'numeric'::regtype)) THEN
                format('t.%I = $1::bigint', nhs_number_column)
            WHEN count(*) > 0 THEN
                format('ndrs_optout.nhs_number_or_null(t.%I) = $1', nhs_number_column)
        END
        FROM base
$$;

-- NULL when an index can find rows by these columns, else the command that
-- makes one.  as_number: the index must be on the number that a text holds.
CREATE FUNCTION erasure_missing_index(relation regclass, columns name[], as_number boolean) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
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
                            AND pg_get_indexdef(i.indexrelid, 1, false) LIKE 'ndrs_optout.nhs_number_or_null(%'
                            AND EXISTS (SELECT FROM pg_depend d
                                        WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                                            AND d.refclassid = 'pg_class'::regclass
                                            AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum)
                        ELSE i.indkey[0] = a.attnum END)
$$;

-- What happens to the rows of a child t that refer to a row to be deleted, each
-- action with its condition.  A row that says by its own guarded number that it
-- is another patient's (a baby's that refers to its mother's) is never deleted.
CREATE FUNCTION erasure_actions(child regclass, unlinks boolean, out_of text[])
RETURNS TABLE (action text, condition text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH own AS (
        SELECT bool_or(g.registers <@ out_of) AS in_scope,
               string_agg(format('ndrs_optout.guard_number(t.%I) <> $1', g.nhs_number_column), ' OR ') AS of_another
            FROM ndrs_optout.erasure_lineage(child) l
            JOIN ndrs_optout.guard g ON g.target = l.ancestor)
    SELECT 'unlink', 'true' WHERE unlinks
    UNION ALL
    SELECT 'block', 'true' FROM own WHERE NOT unlinks AND NOT in_scope
    UNION ALL
    SELECT 'block', format('(%s)', of_another) FROM own WHERE NOT unlinks AND in_scope
    UNION ALL
    SELECT 'delete', format('(%s) IS NOT TRUE', of_another) FROM own WHERE NOT unlinks AND in_scope
    UNION ALL
    SELECT 'delete', 'true' FROM own WHERE NOT unlinks AND in_scope IS NULL
$$;

-- Run one step of the walk: look for rows of table t in source, where $1 is the
-- patient and $2 the parent's rows, lock them if asked, and add those that are
-- not yet to be deleted as batches like the given one.  Nothing found is a batch
-- too: it says that the table was searched.
CREATE FUNCTION erasure_step(INOUT batches erasure_batch[], like_this erasure_batch, source text,
    number nhs_number, parent_rows tid[], locking boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, ndrs_optout, pg_temp
AS $$
DECLARE
    found_any boolean := false;
    batch ndrs_optout.erasure_batch := like_this;
BEGIN
    FOR batch.leaf, batch.row_ids IN EXECUTE format(
        'WITH hit AS MATERIALIZED (SELECT t.tableoid AS leaf, t.ctid AS row_id FROM %s %s)
         SELECT leaf::regclass, array_agg(DISTINCT row_id) FROM hit GROUP BY leaf ORDER BY leaf::regclass::text',
        source, CASE WHEN locking THEN 'FOR UPDATE OF t' END)
        USING number, parent_rows
    LOOP
        batch.row_ids := ARRAY(
            SELECT unnest(batch.row_ids)
            EXCEPT
            SELECT unnest(b.row_ids) FROM unnest(batches) AS b
                WHERE b.leaf = batch.leaf AND b.action = 'delete');
        batches := batches || batch;
        found_any := true;
    END LOOP;
    IF NOT found_any THEN
        batch.leaf := like_this.relation;
        batch.row_ids := '{}';
        batches := batches || batch;
    END IF;
END
$$;

-- The whole walk for one patient.  With locking, the rows to be deleted are
-- locked level by level, each level with a snapshot of its own: the lock on a
-- parent waits for children in flight and stops new ones.
CREATE FUNCTION erasure_walk(number nhs_number, registers text[], locking boolean) RETURNS erasure_batch[]
LANGUAGE plpgsql
SET search_path = pg_catalog, ndrs_optout, pg_temp
AS $$
DECLARE
    -- A table that serves several registers is the patient's to erase only when
    -- the patient is out of all of them.
    out_of text[] := ARRAY(SELECT r.code FROM ndrs_optout.register r
        WHERE r.code = ANY (registers) OR ndrs_optout.is_excluded(number, r.code));
    batches ndrs_optout.erasure_batch[] := ARRAY[]::ndrs_optout.erasure_batch[];
    batch ndrs_optout.erasure_batch;
    start record;
    edge record;
    i integer := 0;
BEGIN
    FOR start IN
        SELECT g.target, g.nhs_number_column, g.registers,
               ndrs_optout.erasure_condition(g.target, g.nhs_number_column) AS condition
            FROM ndrs_optout.guard g JOIN pg_class c ON c.oid = g.target
            WHERE g.registers && erasure_walk.registers AND g.registers <@ out_of
            ORDER BY g.target::text, g.nhs_number_column
    LOOP
        IF start.condition IS NULL THEN
            RAISE EXCEPTION USING
                ERRCODE = 'undefined_column',
                MESSAGE = format('guarded column "%s" of table %s does not exist',
                                 start.nhs_number_column, start.target),
                HINT = 'If it was renamed, call ndrs_optout.unguard_table() and ndrs_optout.guard_table() again.';
        END IF;
        batch := ROW(start.registers, start.target, NULL, ARRAY[start.target::text], 'delete', NULL,
            ndrs_optout.erasure_missing_index(start.target, ARRAY[start.nhs_number_column],
                                              start.condition LIKE '%nhs_number_or_null%'));
        batches := ndrs_optout.erasure_step(batches, batch,
            format('%s t WHERE %s', start.target, start.condition), number, NULL, locking);
    END LOOP;

    -- Breadth first; ends because no row is added to a batch twice.
    WHILE i < cardinality(batches) LOOP
        i := i + 1;
        CONTINUE WHEN batches[i].action <> 'delete' OR cardinality(batches[i].row_ids) = 0;
        FOR edge IN
            SELECT e.child, e.child_columns, e.parent_columns, e.operators, a.action, a.condition
                FROM ndrs_optout.erasure_lineage(batches[i].leaf) l
                JOIN ndrs_optout.erasure_edge e ON e.parent = l.ancestor AND (e.declared OR l.by_partition)
                CROSS JOIN LATERAL ndrs_optout.erasure_actions(e.child, e.unlinks, out_of) a
                ORDER BY e.child::text, e.child_columns, a.action DESC
        LOOP
            -- A cycle does not lengthen the path.
            batch := ROW(batches[i].registers, edge.child, NULL,
                batches[i].path[:coalesce(array_position(batches[i].path, edge.child::text) - 1,
                                          cardinality(batches[i].path))] || edge.child::text,
                edge.action, NULL,
                ndrs_optout.erasure_missing_index(edge.child, edge.child_columns, false));
            batches := ndrs_optout.erasure_step(batches, batch,
                format('%s t JOIN ONLY %s p ON %s WHERE p.ctid = ANY ($2) AND %s', edge.child, batches[i].leaf,
                       ndrs_optout.erasure_join(edge.parent_columns, edge.child_columns, edge.operators),
                       edge.condition),
                number, batches[i].row_ids, locking AND edge.action = 'delete');
        END LOOP;
    END LOOP;

    -- What another path deletes is neither unlinked nor in the way.
    RETURN ARRAY(
        SELECT ROW(b.registers, b.relation, b.leaf, b.path, b.action,
                   CASE WHEN b.action = 'delete' THEN b.row_ids ELSE ARRAY(
                       SELECT unnest(b.row_ids)
                       EXCEPT
                       SELECT unnest(d.row_ids) FROM unnest(batches) AS d
                           WHERE d.leaf = b.leaf AND d.action = 'delete') END,
                   b.missing_index)::ndrs_optout.erasure_batch
            FROM unnest(batches) WITH ORDINALITY AS b
            ORDER BY b.ordinality);
END
$$;

CREATE FUNCTION erasure_summary(batches erasure_batch[])
RETURNS TABLE (register_codes text[], relation regclass, path text, action text, row_count bigint, missing_index text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT b.registers, b.relation, array_to_string(b.path, ' > '), b.action,
           sum(cardinality(b.row_ids))::bigint, b.missing_index
        FROM unnest(batches) WITH ORDINALITY AS b
        GROUP BY b.registers, b.relation, b.path, b.action, b.missing_index
        ORDER BY min(b.ordinality)
$$;

-- Without JIT, here and in erase(): the walk is many short statements, each of
-- which the planner may think worth compiling.
CREATE FUNCTION erasure_preview(number nhs_number, registers text[])
RETURNS TABLE (register_codes text[], relation regclass, path text, action text, row_count bigint, missing_index text)
LANGUAGE sql SECURITY DEFINER
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT * FROM ndrs_optout.erasure_summary(
        ndrs_optout.erasure_walk(ndrs_optout.checked_patient(number), ndrs_optout.checked_registers(registers), false))
$$;

-- Delete the rows of the batches in one statement: foreign keys are checked at
-- its end, so neither the order nor a cycle matters to them.  Children go first
-- all the same, so that a trigger on a parent that deletes its children finds
-- them gone.
CREATE FUNCTION erasure_delete(batches erasure_batch[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    leaves regclass[];
    expected bigint[];
    deleted bigint[];
    statement text;
BEGIN
    SELECT array_agg(b.leaf ORDER BY b.last DESC), array_agg(b.row_count ORDER BY b.last DESC)
        INTO leaves, expected
        FROM (SELECT leaf, max(ordinality) AS last, sum(cardinality(row_ids)) AS row_count
                  FROM unnest(batches) WITH ORDINALITY
                  WHERE action = 'delete' AND cardinality(row_ids) > 0
                  GROUP BY leaf) AS b;
    IF leaves IS NULL THEN
        RETURN;
    END IF;

    FOR i IN 1 .. cardinality(leaves) LOOP
        IF EXISTS (SELECT FROM pg_rewrite WHERE ev_class = leaves[i] AND ev_type = '4') THEN
            RAISE EXCEPTION USING
                ERRCODE = 'ND030',
                MESSAGE = format('a rule on table %s may keep rows from being deleted', leaves[i]),
                HINT = 'Drop the rule: what it replaces a deletion by cannot be verified.';
        END IF;
    END LOOP;

    SELECT format('WITH %s SELECT ARRAY[%s]',
               string_agg(format('d%s AS (DELETE FROM ONLY %s WHERE ctid = ANY (ARRAY(
                   SELECT unnest(b.row_ids) FROM unnest($1) AS b WHERE b.leaf = %s AND b.action = ''delete''))
                   RETURNING 1)', n, leaf, leaf::oid), ', ' ORDER BY n),
               string_agg(format('(SELECT count(*) FROM d%s)', n), ', ' ORDER BY n))
        INTO statement
        FROM unnest(leaves) WITH ORDINALITY AS l (leaf, n);
    EXECUTE statement INTO deleted USING batches;

    FOR i IN 1 .. cardinality(leaves) LOOP
        IF deleted[i] <> expected[i] THEN
            RAISE EXCEPTION USING
                ERRCODE = 'ND030',
                MESSAGE = format('rows remain in table %s after erasure', leaves[i]),
                DETAIL = format('%s of %s rows were deleted.', deleted[i], expected[i]),
                HINT = 'Look for a BEFORE DELETE trigger that returns NULL.';
        END IF;
    END LOOP;
END
$$;

CREATE FUNCTION erase(number nhs_number, registers text[])
RETURNS TABLE (register_codes text[], relation regclass, path text, action text, row_count bigint, missing_index text)
LANGUAGE plpgsql SECURITY DEFINER
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    patient ndrs_optout.nhs_number := ndrs_optout.checked_patient(number);
    codes text[] := ndrs_optout.checked_registers(registers);
    batches ndrs_optout.erasure_batch[] := ndrs_optout.erasure_walk(patient, codes, true);
    problem record;
BEGIN
    SELECT b.relation, b.path INTO problem FROM unnest(batches) AS b
        WHERE b.action = 'block' AND cardinality(b.row_ids) > 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'ND030',
            MESSAGE = format('rows of table %s stand in the way of the erasure', problem.relation),
            DETAIL = 'They refer to rows that would be deleted, but are another patient''s by their own NHS number or serve a register that the patient did not opt out of.',
            HINT = 'Make the foreign key ON DELETE SET NULL, or erase from that register too.';
    END IF;

    PERFORM ndrs_optout.erasure_delete(batches);

    -- Count again, with a new snapshot: a trigger may have put a row back.
    SELECT b.relation, b.path INTO problem
        FROM unnest(ndrs_optout.erasure_walk(patient, codes, false)) AS b
        WHERE b.action = 'delete' AND cardinality(b.row_ids) > 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'ND030',
            MESSAGE = format('rows remain in table %s after erasure', problem.relation),
            HINT = 'Look for triggers that change or copy rows when they are deleted.';
    END IF;

    RETURN QUERY
        SELECT s.register_codes, s.relation, s.path,
               CASE s.action WHEN 'delete' THEN 'deleted' WHEN 'unlink' THEN 'unlinked' ELSE s.action END,
               s.row_count, s.missing_index
            FROM ndrs_optout.erasure_summary(batches) AS s;
END
$$;

-- Every table that the walk can come to from the guarded tables of these
-- registers, with partitions and children: a writer may have locked just one.
CREATE FUNCTION erasure_tables(registers text[]) RETURNS regclass[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE reached (relation) AS (
        SELECT g.target FROM ndrs_optout.guard g WHERE g.registers && erasure_tables.registers
        UNION
        SELECT next.relation FROM reached r CROSS JOIN LATERAL (
            SELECT i.inhrelid::regclass AS relation FROM pg_inherits i WHERE i.inhparent = r.relation
            UNION ALL
            SELECT e.child FROM ndrs_optout.erasure_lineage(r.relation) l
                JOIN ndrs_optout.erasure_edge e ON e.parent = l.ancestor) AS next)
    SELECT coalesce(array_agg(relation ORDER BY relation::oid), '{}') FROM reached
$$;

CREATE FUNCTION wait_for_writers(relations regclass[]) RETURNS void
    AS 'MODULE_PATHNAME', 'ndrs_optout_wait_for_writers'
    LANGUAGE C VOLATILE STRICT;

COMMENT ON TABLE reference IS 'links between tables that no foreign key declares, for the erasure''s walk';
COMMENT ON TYPE erasure_batch IS 'rows of one table that the erasure''s walk found by one path';
COMMENT ON VIEW erasure_edge IS 'every way down from a parent to a child: foreign keys and declared references';
COMMENT ON FUNCTION erasure_join(name[], name[], oid[]) IS 'join condition of a parent p and a child t';
COMMENT ON FUNCTION declare_reference(regclass, name[], regclass, name[]) IS
    'tells the erasure''s walk of a link that the schema does not declare: rows of child whose columns equal those of a patient''s parent row are the patient''s; nothing happens when it is declared already; errors 22023, 42703, 42883';
COMMENT ON FUNCTION erasure_lineage(regclass) IS 'a table and its ancestors; by_partition: through partitions only';
COMMENT ON FUNCTION erasure_condition(regclass, name) IS 'the condition that finds a patient ($1) in a guarded column of table t; NULL when there is no such column';
COMMENT ON FUNCTION erasure_missing_index(regclass, name[], boolean) IS 'the command that makes an index for these columns, or NULL when there is one';
COMMENT ON FUNCTION erasure_actions(regclass, boolean, text[]) IS 'what happens to rows that refer to a row to be deleted, each action with its condition on table t';
COMMENT ON FUNCTION erasure_step(erasure_batch[], erasure_batch, text, nhs_number, tid[], boolean) IS 'one step of the erasure''s walk';
COMMENT ON FUNCTION erasure_walk(nhs_number, text[], boolean) IS 'finds, and locks if asked, every row held about a patient in the registers';
COMMENT ON FUNCTION erasure_summary(erasure_batch[]) IS 'row counts of a walk, per table and path, in the order of the walk';
COMMENT ON FUNCTION erasure_preview(nhs_number, text[]) IS
    'what erase() would do, per table and path: delete, unlink (the row stays, its reference goes) or block; row_count 0: searched, nothing there; missing_index: the command that would make it fast; errors ND004, ND010, ND011, 42704';
COMMENT ON FUNCTION erasure_delete(erasure_batch[]) IS 'deletes the rows of a walk in one statement; error ND030 when one stays';
COMMENT ON FUNCTION erase(nhs_number, text[]) IS
    'deletes everything held about a patient in the given registers, in the caller''s transaction, and counts again; the same shape as erasure_preview, done; only carry_out() also waits for writers in flight; errors ND004, ND010, ND011, ND030 (rows remain), 42704';
COMMENT ON FUNCTION erasure_tables(text[]) IS 'every table that an erasure from these registers can come to';
COMMENT ON FUNCTION wait_for_writers(regclass[]) IS 'waits for every transaction that is writing to the exclusion list or to one of these tables; error 55P03 after lock_timeout';
