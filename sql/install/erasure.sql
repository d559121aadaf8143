-- erasure: deletion of everything held about one patient, along the ways of
-- erasure_ways.sql.

-- Rows of one table, or of one partition of it, that the walk found by one path.
-- action: delete; redact (the row stays without the number and what goes with
-- it); unlink (the foreign key sets its columns to NULL or their default: the row
-- stays); keep (the table serves another register too, which the patient did not
-- opt out of); block (the row is another patient's by its own NHS number, or serves
-- a register that the patient did not opt out of, and its foreign key keeps the
-- parent from going).
-- source and keys: how the rows were looked for, and are again after deletion.
-- role: with whose rights: those of the table's owner.
-- redacted: the columns that become NULL.
CREATE TYPE erasure_batch AS (
    registers     text[],
    relation      regclass,
    leaf          regclass,
    path          text[],
    action        text,
    row_ids       tid[],
    missing_index text,
    source        text,
    keys          text[],
    role          regrole,
    redacted      name[]
);

-- Run one step of the walk: look for rows of table t where the given batch says,
-- lock them if asked, and add those that are not yet to be deleted, nor found for the
-- same, as batches like it (a row can be redacted for two of its columns).  Nothing
-- found is a batch too: it says that the table was searched.
CREATE FUNCTION erasure_step(INOUT batches erasure_batch[], like_this erasure_batch, number nhs_number, locking boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch ndrs_optout.erasure_batch := like_this;
    found text[] := ndrs_optout.erasure_look(like_this.role, format(
        'WITH hit AS MATERIALIZED (SELECT t.tableoid AS leaf, t.ctid AS row_id FROM %s %s)
         SELECT array_agg(ARRAY[l.leaf::text, l.row_ids::text] ORDER BY l.leaf)
             FROM (SELECT leaf, array_agg(DISTINCT row_id) AS row_ids FROM hit GROUP BY leaf) AS l',
        like_this.source, CASE WHEN locking AND like_this.action IN ('delete', 'redact') THEN 'FOR UPDATE OF t' END),
        number, like_this.keys);
BEGIN
    FOR i IN 1 .. coalesce(array_length(found, 1), 0) LOOP
        batch.leaf := found[i][1]::oid::regclass;
        batch.row_ids := ARRAY(
            SELECT unnest(found[i][2]::tid[])
            EXCEPT
            SELECT unnest(b.row_ids) FROM unnest(batches) AS b
                WHERE b.leaf = batch.leaf AND b.action IN ('delete', nullif(batch.action, 'redact')));
        batches := batches || batch;
    END LOOP;
    IF batch.leaf IS NULL THEN
        batch.leaf := like_this.relation;
        batch.row_ids := ARRAY[]::tid[];
        batches := batches || batch;
    END IF;
END
$$;

-- The whole walk for one patient.  With locking, the rows to be deleted are
-- locked level by level, each level with a snapshot of its own: the lock on a
-- parent waits for children in flight and stops new ones.
CREATE FUNCTION erasure_walk(number nhs_number, registers text[], locking boolean) RETURNS erasure_batch[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- A table that serves several registers is the patient's to erase only when
    -- the patient is out of all of them.  One patient is not worth building lists for,
    -- nor reading the table; OFFSET 0: by its key, register for register.
    encoded ndrs_optout.encoded_nhs_number := ndrs_optout.encode_nhs_number(number);
    out_of text[] := ARRAY(SELECT r.code FROM ndrs_optout.register r
        WHERE r.code = ANY (registers) OR EXISTS (
            SELECT FROM ndrs_optout.exclusion e
                WHERE e.register = r.code AND e.encoded_nhs_number OPERATOR(ndrs_optout.=) encoded
                OFFSET 0));
    batches ndrs_optout.erasure_batch[] := ARRAY[]::ndrs_optout.erasure_batch[];
    batch ndrs_optout.erasure_batch;
    step record;
    i integer := 0;
    parents regclass[];
    parents_by_partition regclass[];
BEGIN
    FOR step IN
        SELECT g.target, g.nhs_number_column, g.registers, c.condition, a.action, a.condition AS keeps,
               CASE a.action WHEN 'redact' THEN g.nhs_number_column || g.redact_columns END AS redacted,
               (SELECT r.relowner::regrole FROM pg_class r WHERE r.oid = g.target) AS owner
            FROM ndrs_optout.guard g
            CROSS JOIN LATERAL ndrs_optout.erasure_condition(g.target, g.nhs_number_column) AS c (condition)
            CROSS JOIN LATERAL (
                SELECT 'keep' AS action, 'true' AS condition WHERE NOT g.registers <@ out_of
                UNION ALL
                SELECT 'redact', 'true' WHERE g.registers <@ out_of AND g.on_match = 'redact'
                UNION ALL
                SELECT * FROM ndrs_optout.erasure_actions(g.target, false, out_of)
                    WHERE g.registers <@ out_of AND g.on_match <> 'redact') AS a
            WHERE g.registers && erasure_walk.registers
            ORDER BY g.target::text, g.nhs_number_column, a.action DESC
    LOOP
        batch := ROW(step.registers, step.target, NULL, ARRAY[step.target::text], step.action, NULL,
            ndrs_optout.erasure_missing_index(step.target, ARRAY[step.nhs_number_column],
                                              ndrs_optout.erasure_holds_text(step.target, step.nhs_number_column)),
            format('%s t WHERE %s AND %s', step.target, step.condition, step.keeps), NULL,
            step.owner, step.redacted);
        batches := ndrs_optout.erasure_step(batches, batch, number, locking);
    END LOOP;

    -- Breadth first; ends because no row is added to a batch twice.
    WHILE i < cardinality(batches) LOOP
        i := i + 1;
        CONTINUE WHEN batches[i].action <> 'delete' OR cardinality(batches[i].row_ids) = 0;
        SELECT array_agg(l.ancestor), array_agg(l.ancestor) FILTER (WHERE l.by_partition)
            INTO parents, parents_by_partition FROM ndrs_optout.erasure_lineage(batches[i].leaf) AS l;
        FOR step IN
            SELECT (w.way).child, (w.way).child_columns, a.action, ndrs_optout.erasure_source(w.way, a.condition) AS source,
                   r.relowner::regrole AS role, w.keys
                -- OFFSET 0: the keys are read once for each way, not for each action; and
                -- the owner is looked up for each, whatever the planner expects.
                FROM (SELECT e AS way,
                             ndrs_optout.erasure_keys(batches[i].leaf, e.parent_columns, batches[i].row_ids) AS keys
                          FROM ndrs_optout.erasure_edge e
                          WHERE e.parent = ANY (CASE WHEN e.declared THEN parents ELSE parents_by_partition END)
                          OFFSET 0) AS w
                CROSS JOIN LATERAL (SELECT c.relowner FROM pg_class c WHERE c.oid = (w.way).child OFFSET 0) AS r
                CROSS JOIN LATERAL ndrs_optout.erasure_actions((w.way).child, (w.way).unlinks, out_of) a
                ORDER BY (w.way).child::text, (w.way).child_columns, a.action DESC
        LOOP
            -- A cycle does not lengthen the path.
            batch := ROW(batches[i].registers, step.child, NULL,
                batches[i].path[:coalesce(array_position(batches[i].path, step.child::text) - 1,
                                          cardinality(batches[i].path))] || step.child::text,
                step.action, NULL,
                ndrs_optout.erasure_missing_index(step.child, step.child_columns, false),
                step.source, step.keys, step.role, NULL);
            batches := ndrs_optout.erasure_step(batches, batch, number, locking);
        END LOOP;
    END LOOP;

    -- What another path deletes is neither redacted nor unlinked nor in the way.
    RETURN ARRAY(
        SELECT ROW(b.registers, b.relation, b.leaf, b.path, b.action,
                   CASE WHEN b.action = 'delete' THEN b.row_ids ELSE ARRAY(
                       SELECT unnest(b.row_ids)
                       EXCEPT
                       SELECT unnest(d.row_ids) FROM unnest(batches) AS d
                           WHERE d.leaf = b.leaf AND d.action = 'delete') END,
                   b.missing_index, b.source, b.keys, b.role, b.redacted)::ndrs_optout.erasure_batch
            FROM unnest(batches) WITH ORDINALITY AS b
            ORDER BY b.ordinality);
END
$$;

CREATE FUNCTION erasure_summary(batches erasure_batch[])
RETURNS TABLE (register_codes text[], relation regclass, path text, action text, row_count bigint, missing_index text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT b.registers, b.relation, array_to_string(b.path, ' > '), b.action,
               sum(cardinality(b.row_ids))::bigint, b.missing_index
            FROM unnest(batches) WITH ORDINALITY AS b
            WHERE b.action <> 'block' OR cardinality(b.row_ids) > 0
            GROUP BY b.registers, b.relation, b.path, b.action, b.missing_index
            ORDER BY min(b.ordinality);
END
$$;

-- Here and in erase(): with one text for each value, since keys travel as text;
-- without JIT and with generic plans, because the walk is many short statements, each
-- of which the planner may think worth compiling, or planning anew each time; and with
-- an error instead of a row that a policy hides.
CREATE FUNCTION erasure_preview(number nhs_number, registers text[])
RETURNS TABLE (register_codes text[], relation regclass, path text, action text, row_count bigint, missing_index text)
LANGUAGE sql SECURITY DEFINER
SET datestyle = 'ISO, YMD'
SET intervalstyle = postgres
SET extra_float_digits = 3
SET array_nulls = on
SET jit = off
SET plan_cache_mode = force_generic_plan
SET row_security = off
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT * FROM ndrs_optout.erasure_summary(
        ndrs_optout.erasure_walk(ndrs_optout.checked_patient(number), ndrs_optout.checked_registers(registers), false))
$$;

CREATE FUNCTION erasure_run(role regrole, command text, batches erasure_batch[], spared regclass[] DEFAULT '{}')
    RETURNS bigint[]
    AS 'MODULE_PATHNAME', 'ndrs_optout_erasure_run'
    LANGUAGE C VOLATILE STRICT;

-- How far down each table is, below every other that it refers to.  Tables that
-- refer to each other in a cycle are one component, and equally far down.
CREATE FUNCTION erasure_depths(leaves regclass[], OUT components integer[], OUT depths integer[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    depth_of integer[] := array_fill(0, ARRAY[coalesce(cardinality(leaves), 0)]);
    parents integer[];
    children integer[];
    moved boolean := true;
BEGIN
    WITH lineage AS MATERIALIZED (
        SELECT l.n, a.ancestor FROM unnest(leaves) WITH ORDINALITY AS l (leaf, n)
            CROSS JOIN LATERAL ndrs_optout.erasure_lineage(l.leaf) AS a)
    SELECT coalesce(array_agg(p.n), '{}'), coalesce(array_agg(c.n), '{}') INTO parents, children
        FROM lineage p
        JOIN ndrs_optout.erasure_edge e ON e.parent = p.ancestor
        JOIN lineage c ON c.ancestor = e.child
        WHERE p.n <> c.n;

    -- A component is known by its first table.
    WITH RECURSIVE reach (a, b) AS (
        SELECT * FROM unnest(parents, children)
        UNION
        SELECT r.a, e.b FROM reach r JOIN unnest(parents, children) AS e (a, b) ON e.a = r.b)
    SELECT array_agg(least(n, (SELECT min(r.b) FROM reach r JOIN reach back ON back.a = r.b AND back.b = n
                                   WHERE r.a = n)) ORDER BY n)
        INTO components FROM generate_series(1, cardinality(leaves)) AS n;

    -- Ends, for there is no cycle between components.
    WHILE moved LOOP
        moved := false;
        FOR i IN 1 .. cardinality(parents) LOOP
            IF components[children[i]] <> components[parents[i]]
                AND depth_of[components[children[i]]] <= depth_of[components[parents[i]]] THEN
                depth_of[components[children[i]]] := depth_of[components[parents[i]]] + 1;
                moved := true;
            END IF;
        END LOOP;
    END LOOP;
    SELECT array_agg(depth_of[c] ORDER BY n) INTO depths FROM unnest(components) WITH ORDINALITY AS k (c, n);
END
$$;

-- No trigger of the tables that the batches change is deferred from here on.
CREATE FUNCTION erasure_undefer(batches erasure_batch[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.erasure_run(s.owner, s.command, batches)
        FROM (SELECT r.relowner::regrole AS owner,
                     'SET CONSTRAINTS ' || string_agg(DISTINCT format('%I.%I', n.nspname, c.conname), ', ') || ' IMMEDIATE' AS command
                  FROM pg_trigger t
                  JOIN pg_constraint c ON c.oid = t.tgconstraint
                  JOIN pg_class r ON r.oid = c.conrelid
                  JOIN pg_namespace n ON n.oid = c.connamespace
                  WHERE t.tgdeferrable
                      AND t.tgrelid IN (SELECT b.leaf FROM unnest(batches) AS b WHERE cardinality(b.row_ids) > 0)
                  GROUP BY r.relowner) AS s;
END
$$;

-- Delete the rows of the batches, children first, tables of one owner in a row in
-- one statement: foreign keys are checked at its end, so within it neither the
-- order nor a cycle matters to them, and a trigger on a parent that deletes its
-- children finds them gone.  Triggers run with the rights of the tables' owner,
-- and none is deferred until after the rows were counted again.
CREATE FUNCTION erasure_delete(batches erasure_batch[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part record;
    deleted bigint[];
    violated_table text;
    violated text;
BEGIN
    PERFORM ndrs_optout.erasure_undefer(batches);

    FOR part IN
        WITH leaf AS (
            SELECT b.leaf, sum(cardinality(b.row_ids)) AS row_count, r.relowner::regrole AS owner
                FROM unnest(batches) AS b JOIN pg_class r ON r.oid = b.leaf
                WHERE b.action = 'delete' AND cardinality(b.row_ids) > 0
                GROUP BY b.leaf, r.relowner),
        ranked AS (
            SELECT l.*, row_number() OVER (ORDER BY u.depth DESC, u.component, l.owner, l.leaf) AS n
                FROM (SELECT array_agg(leaf) AS leaves FROM leaf) AS a
                CROSS JOIN LATERAL ndrs_optout.erasure_depths(a.leaves) AS d
                CROSS JOIN LATERAL unnest(a.leaves, d.components, d.depths) AS u (leaf, component, depth)
                JOIN leaf l ON l.leaf = u.leaf),
        runs AS (
            SELECT r.*, r.n - row_number() OVER (PARTITION BY r.owner ORDER BY r.n) AS run FROM ranked r)
        SELECT s.owner,
               array_agg(s.leaf ORDER BY s.n) AS leaves,
               array_agg(s.row_count ORDER BY s.n) AS expected,
               format('WITH %s SELECT ARRAY[%s]',
                   string_agg(format('d%s AS (DELETE FROM ONLY %s WHERE ctid = ANY (ARRAY(
                       SELECT unnest(b.row_ids) FROM unnest($1) AS b WHERE b.leaf = %s AND b.action = ''delete''))
                       RETURNING 1)', s.n, s.leaf, s.leaf::oid), ', ' ORDER BY s.n),
                   string_agg(format('(SELECT count(*) FROM d%s)', s.n), ', ' ORDER BY s.n)) AS command
            FROM runs s
            GROUP BY s.owner, s.run
            ORDER BY min(s.n)
    LOOP
        FOR i IN 1 .. cardinality(part.leaves) LOOP
            IF EXISTS (SELECT FROM pg_rewrite WHERE ev_class = part.leaves[i] AND ev_type = '4') THEN
                PERFORM ndrs_optout.refuse('ND030',
                    format('a rule on table %s may keep rows from being deleted', part.leaves[i]),
                    hint => 'Drop the rule: what it replaces a deletion by cannot be verified.');
            END IF;
        END LOOP;

        -- The server's own message would name the key that is in the way.
        BEGIN
            deleted := ndrs_optout.erasure_run(part.owner, part.command, batches, ARRAY(
                SELECT b.leaf FROM unnest(batches) AS b WHERE b.action = 'unlink' AND cardinality(b.row_ids) > 0));
        EXCEPTION WHEN integrity_constraint_violation OR triggered_data_change_violation THEN
            GET STACKED DIAGNOSTICS violated_table = TABLE_NAME, violated = CONSTRAINT_NAME;
            PERFORM ndrs_optout.refuse('ND030',
                'rows cannot be deleted',
                detail => CASE WHEN violated <> '' THEN
                    format('Constraint "%s" of table "%s" would be violated.', violated, violated_table)
                    ELSE 'A trigger changes a row that is being deleted.' END,
                hint => 'Look for triggers that keep or change rows, for references that the deletion does not follow, and for tables of different owners that refer to each other.');
        END;

        FOR i IN 1 .. cardinality(part.leaves) LOOP
            IF deleted[i] <> part.expected[i] THEN
                PERFORM ndrs_optout.refuse('ND030',
                    format('rows remain in table %s after erasure', part.leaves[i]),
                    detail => format('%s of %s rows were deleted.', deleted[i], part.expected[i]),
                    hint => 'Look for a BEFORE DELETE trigger that returns NULL, and for tables of different owners that refer to each other.');
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- Redact the rows of one batch.  Looked for anew: another batch may have changed
-- one of them, and so moved it.
CREATE FUNCTION erasure_redact(batch erasure_batch, number nhs_number) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part record;
    redacted bigint[];
BEGIN
    FOR part IN
        SELECT b.leaf, cardinality(b.row_ids) AS row_count, r.relowner::regrole AS owner,
               ARRAY[b]::ndrs_optout.erasure_batch[] AS batches
            FROM unnest(ndrs_optout.erasure_step(ARRAY[]::ndrs_optout.erasure_batch[], batch, number, true)) AS b
            JOIN pg_class r ON r.oid = b.leaf
            WHERE cardinality(b.row_ids) > 0
    LOOP
        redacted := ndrs_optout.erasure_run(part.owner, format(
            'WITH r AS (UPDATE ONLY %s SET %s WHERE ctid = ANY (ARRAY(SELECT unnest(b.row_ids) FROM unnest($1) AS b))
                 RETURNING 1) SELECT ARRAY[count(*)] FROM r',
            part.leaf, (SELECT string_agg(format('%I = NULL', c), ', ') FROM unnest(batch.redacted) AS c)),
            part.batches, ARRAY[part.leaf]);
        IF redacted[1] <> part.row_count THEN
            PERFORM ndrs_optout.refuse('ND030',
                format('rows of table %s were not redacted', part.leaf),
                detail => format('%s of %s rows were.', redacted[1], part.row_count),
                hint => 'Look for a BEFORE UPDATE trigger that returns NULL.');
        END IF;
    END LOOP;
END
$$;

-- Look again, with a new snapshot, for everything that was looked for: by the
-- number, and by the keys of the rows that are gone.  A trigger may have put a
-- row back or written a copy, or may not have unlinked one.
CREATE FUNCTION erasure_recount(batches erasure_batch[], number nhs_number) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    step record;
BEGIN
    FOR step IN SELECT DISTINCT b.relation, b.source, b.keys, b.role FROM unnest(batches) AS b
        WHERE b.action IN ('delete', 'redact', 'unlink') LOOP
        IF ndrs_optout.erasure_look(step.role,
               format('SELECT ARRAY[''found''] WHERE EXISTS (SELECT FROM %s)', step.source),
               number, step.keys) IS NOT NULL THEN
            PERFORM ndrs_optout.refuse('ND030',
                format('rows remain in table %s after erasure', step.relation),
                hint => 'Look for triggers that change or copy rows when they are deleted.');
        END IF;
    END LOOP;
END
$$;

CREATE FUNCTION erase(number nhs_number, registers text[])
RETURNS TABLE (register_codes text[], relation regclass, path text, action text, row_count bigint, missing_index text)
LANGUAGE plpgsql SECURITY DEFINER
SET datestyle = 'ISO, YMD'
SET intervalstyle = postgres
SET extra_float_digits = 3
SET array_nulls = on
SET jit = off
SET plan_cache_mode = force_generic_plan
SET row_security = off
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    patient ndrs_optout.nhs_number := ndrs_optout.checked_patient(number);
    codes text[] := ndrs_optout.checked_registers(registers);
    batches ndrs_optout.erasure_batch[] := ndrs_optout.erasure_walk(patient, codes, true);
    obstacle regclass;
BEGIN
    SELECT b.relation INTO obstacle FROM unnest(batches) AS b
        WHERE b.action = 'block' AND cardinality(b.row_ids) > 0 LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.refuse('ND030',
            format('rows of table %s stand in the way of the erasure', obstacle),
            detail => 'They are the patient''s, or refer to rows that are, but are another patient''s too by a guarded NHS number, or serve a register that the patient did not opt out of.',
            hint => 'Make the foreign key ON DELETE SET NULL, or erase from that register too.');
    END IF;

    PERFORM ndrs_optout.erasure_delete(batches);
    PERFORM ndrs_optout.erasure_redact(b, patient) FROM unnest(batches) AS b
        WHERE b.action = 'redact' AND cardinality(b.row_ids) > 0;
    PERFORM ndrs_optout.erasure_recount(batches, patient);
    PERFORM ndrs_optout.forget_in_national_checks(patient);

    RETURN QUERY
        SELECT s.register_codes, s.relation, s.path,
               CASE s.action WHEN 'delete' THEN 'deleted' WHEN 'redact' THEN 'redacted' WHEN 'keep' THEN 'kept'
                   ELSE 'unlinked' END,
               s.row_count, s.missing_index
            FROM ndrs_optout.erasure_summary(batches) AS s;
END
$$;

-- Every table that the walk can come to from the guarded tables of these
-- registers, with partitions and children: a writer may have locked just one.
CREATE FUNCTION erasure_tables(registers text[]) RETURNS regclass[]
LANGUAGE sql STABLE
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE reached (relation) AS (
        SELECT g.target FROM ndrs_optout.guard g JOIN pg_class c ON c.oid = g.target
            WHERE g.registers && erasure_tables.registers
        UNION
        SELECT next.relation FROM reached r CROSS JOIN LATERAL (
            SELECT d.relation FROM ndrs_optout.erasure_descendants(r.relation) d
            UNION ALL
            SELECT e.child FROM ndrs_optout.erasure_lineage(r.relation) l
                JOIN ndrs_optout.erasure_edge e ON e.parent = l.ancestor) AS next)
    SELECT coalesce(array_agg(relation ORDER BY relation::oid), '{}') FROM reached
$$;

CREATE FUNCTION wait_for_writers(relations regclass[]) RETURNS void
    AS 'MODULE_PATHNAME', 'ndrs_optout_wait_for_writers'
    LANGUAGE C VOLATILE STRICT;

COMMENT ON TYPE erasure_batch IS 'rows of one table that the erasure''s walk found by one path';
COMMENT ON FUNCTION erasure_step(erasure_batch[], erasure_batch, nhs_number, boolean) IS 'one step of the erasure''s walk';
COMMENT ON FUNCTION erasure_walk(nhs_number, text[], boolean) IS 'finds, and locks if asked, every row held about a patient in the registers';
COMMENT ON FUNCTION erasure_summary(erasure_batch[]) IS 'row counts of a walk, per table and path, in the order of the walk';
COMMENT ON FUNCTION erasure_preview(nhs_number, text[]) IS
    'what erase() would do, per table and path: delete, redact (the row stays, the number and redact_columns go), unlink (the row stays, its reference goes), keep (the table serves another register too) or block (the erasure would stop); row_count 0: searched, nothing there; missing_index: the command that would make it fast; errors ND004, ND010, ND011, 42704';
COMMENT ON FUNCTION erasure_run(regrole, text, erasure_batch[], regclass[]) IS 'runs a command of the erasure, with the batches as $1, with the rights of a role; guards do not stop changes of rows in the spared tables';
COMMENT ON FUNCTION erasure_depths(regclass[]) IS 'how far down each table is, below every other that it refers to, and which refer to each other in a cycle';
COMMENT ON FUNCTION erasure_undefer(erasure_batch[]) IS 'defers no trigger of the tables that the batches change from here on';
COMMENT ON FUNCTION erasure_delete(erasure_batch[]) IS 'deletes the rows of a walk; error ND030 when one stays';
COMMENT ON FUNCTION erasure_redact(erasure_batch, nhs_number) IS 'redacts the rows of one batch of a walk; error ND030 when one stays as it was';
COMMENT ON FUNCTION erasure_recount(erasure_batch[], nhs_number) IS 'looks again for everything that a walk looked for; error ND030 when something is there';
COMMENT ON FUNCTION erase(nhs_number, text[]) IS
    'deletes everything held about a patient in the given registers, in the caller''s transaction, and counts again; the same shape as erasure_preview, done; only carry_out() also waits for writers in flight; errors ND004, ND010, ND011, ND030 (rows remain), 42704';
COMMENT ON FUNCTION erasure_tables(text[]) IS 'every table that an erasure from these registers can come to';
COMMENT ON FUNCTION wait_for_writers(regclass[]) IS 'waits for every transaction that is writing to the exclusion list or to one of these tables; error 55P03 after lock_timeout';
