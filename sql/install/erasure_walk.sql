-- erasure, the walk: which rows are held about patients, along the edges of
-- erasure_graph.sql.

-- Rows that one search of the walk found, in a table and in what belongs to its tree.
-- search, patients and keys: how the rows were looked for, and are again after deletion.
-- leaves and row_ids: the table, which may be a partition, and the place of each row.
-- kin: one of these tables that stands for all of them: what refers to their rows is the same.
-- row_keys: values of (search).key_columns in the rows, an array's text for each column; they may be
-- of more rows, which the same search found, and another one had found before.
CREATE TYPE erasure_batch AS (
    search    erasure_search,
    patients  nhs_number[],
    registers text[],
    path      text[],
    keys      text[],
    leaves    regclass[],
    row_ids   tid[],
    kin       regclass,
    row_keys  text[]
);
COMMENT ON TYPE erasure_batch IS 'internal: rows that one search of the erasure''s walk found';

-- Rows of batches, one by one.
CREATE FUNCTION erasure_rows(batches erasure_batch[]) RETURNS TABLE (n bigint, action text, leaf regclass, row_id tid)
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT b.ordinality, (b.search).action, r.leaf, r.row_id
            FROM unnest(batches) WITH ORDINALITY AS b
            CROSS JOIN LATERAL unnest(b.leaves, b.row_ids) AS r (leaf, row_id);
END
$$;
COMMENT ON FUNCTION erasure_rows(erasure_batch[]) IS
    'internal: the rows of the batches of a walk, each with the number of its batch and its action';

-- Run one step of the walk: look for rows of table t where the given batch says, and
-- lock them if asked.  Batches like it, one for each kin; nothing found is a batch
-- too: it says that the table was searched.  Keys are read with the rows, once these are locked.
--
-- By an index, where there is one: the planner takes an array that it does not see for ten
-- keys, and would rather read a small table than ask its index ten times, and so a
-- thousand small partitions for one patient.
CREATE FUNCTION erasure_search_step(like_this erasure_batch, locking boolean) RETURNS erasure_batch[]
LANGUAGE plpgsql
SET enable_seqscan = off
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch ndrs_optout.erasure_batch := like_this;
    batches ndrs_optout.erasure_batch[] := ARRAY[]::ndrs_optout.erasure_batch[];
    search ndrs_optout.erasure_search := like_this.search;
    keys_read text := '';
    keys_told text := '';
    found text[];
    kin regclass[];
BEGIN
    IF search.missing_index IS NOT NULL THEN
        PERFORM set_config('enable_seqscan', 'on', true);
    END IF;
    FOR i IN 1 .. coalesce(cardinality(search.key_columns), 0) LOOP
        keys_read := keys_read || format(', t.%I AS k%s', search.key_columns[i], i);
        keys_told := keys_told || format(', array_agg(h.k%s)::text', i);
    END LOOP;
    found := ndrs_optout.search_as_owner(search.role, format(
        'WITH hit AS MATERIALIZED (SELECT t.tableoid AS leaf, t.ctid AS row_id%s FROM %s %s)
         SELECT ARRAY[array_agg(h.leaf)::text, array_agg(h.row_id)::text%s]
             FROM (SELECT DISTINCT ON (h.leaf, h.row_id) h.* FROM hit h ORDER BY h.leaf, h.row_id) AS h
             HAVING count(*) > 0',
        keys_read, search.source,
        CASE WHEN locking AND (search.action = 'delete' OR search.changes IS NOT NULL) THEN 'FOR UPDATE OF t' END,
        keys_told), like_this.patients, like_this.keys);
    batch.leaves := coalesce(found[1]::oid[]::regclass[], '{}');
    batch.row_ids := coalesce(found[2]::tid[], '{}');
    batch.row_keys := found[3:];
    IF found IS NULL THEN
        RETURN ARRAY[batch];
    END IF;
    kin := ndrs_optout.erasure_kin(search.relation, batch.leaves);
    IF cardinality(kin) = 1 THEN
        batch.kin := kin[1];
        RETURN ARRAY[batch];
    END IF;
    FOR batch.kin, batch.leaves, batch.row_ids IN
        SELECT k.kin, array_agg(r.leaf ORDER BY r.leaf, r.row_id), array_agg(r.row_id ORDER BY r.leaf, r.row_id)
            FROM ndrs_optout.erasure_rows(ARRAY[batch]) AS r
            JOIN (SELECT l.leaf, (ndrs_optout.erasure_kin(search.relation, ARRAY[l.leaf]))[1] AS kin
                      FROM (SELECT DISTINCT u.leaf FROM unnest(batch.leaves) AS u (leaf)) AS l) AS k ON k.leaf = r.leaf
            GROUP BY k.kin
            ORDER BY k.kin
    LOOP
        -- Those of one kin are no keys of another's.
        batch.row_keys := NULL;
        batches := batches || batch;
    END LOOP;
    RETURN batches;
END
$$;
COMMENT ON FUNCTION erasure_search_step(erasure_batch, boolean) IS
    'internal: one step of the erasure''s walk: what it finds; error ND033';

-- The keys of a search below the rows of a batch.  As they were read with the rows; from each
-- table where a column is not one of the table that was searched, where the rows of a
-- search had to be told apart, or where the reference is newer than the search.
CREATE FUNCTION erasure_keys(batch erasure_batch, columns name[]) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    places integer[] := ARRAY(SELECT array_position((batch.search).key_columns, u.name)
                                  FROM unnest(columns) WITH ORDINALITY AS u (name, position) ORDER BY u.position);
BEGIN
    IF batch.row_keys IS NOT NULL AND array_position(places, NULL) IS NULL THEN
        RETURN ARRAY(SELECT batch.row_keys[p.place] FROM unnest(places) WITH ORDINALITY AS p (place, position)
                         ORDER BY p.position);
    END IF;
    RETURN (
        SELECT array_agg(m.keys ORDER BY m.position)
            FROM (SELECT k.position, '{' || string_agg(substr(k.keys, 2, length(k.keys) - 2), ',') || '}' AS keys
                      FROM (SELECT l.leaf, array_agg(l.row_id)::text[] AS row_ids
                                FROM ndrs_optout.erasure_rows(ARRAY[batch]) AS l GROUP BY l.leaf) AS r
                      JOIN pg_class c ON c.oid = r.leaf
                      CROSS JOIN LATERAL unnest(ndrs_optout.search_as_owner(c.relowner::regrole,
                          format('SELECT ARRAY[%s] FROM ONLY %s t WHERE t.ctid = ANY ($2::tid[])',
                                 (SELECT string_agg(format('array_agg(t.%I)::text', u.name), ', ' ORDER BY u.position)
                                      FROM unnest(columns) WITH ORDINALITY AS u (name, position)), r.leaf),
                          NULL, r.row_ids)) WITH ORDINALITY AS k (keys, position)
                      GROUP BY k.position) AS m);
END
$$;
COMMENT ON FUNCTION erasure_keys(erasure_batch, name[]) IS
    'internal: the values of columns in the rows of a batch of a walk, an array''s text for each column';

-- The registers that a patient is excluded from.  One patient is not worth building lists
-- for, nor reading the table: hence LATERAL, by the key, register for register.
-- locking: a readmission, but for an earlier one, waits for the end of the transaction.
CREATE FUNCTION excluded_from(encoded encoded_nhs_number, locking boolean) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF locking THEN
        RETURN ARRAY(
            SELECT l.register FROM ndrs_optout.register r CROSS JOIN LATERAL (
                SELECT e.register FROM ndrs_optout.exclusion e
                    WHERE e.register = r.code AND e.encoded_nhs_number OPERATOR(ndrs_optout.=) encoded
                    FOR KEY SHARE) AS l
                ORDER BY l.register);
    END IF;
    RETURN ARRAY(
        SELECT r.code FROM ndrs_optout.register r
            WHERE EXISTS (SELECT FROM ndrs_optout.exclusion e
                WHERE e.register = r.code AND e.encoded_nhs_number OPERATOR(ndrs_optout.=) encoded OFFSET 0)
            ORDER BY r.code);
END
$$;
COMMENT ON FUNCTION excluded_from(encoded_nhs_number, boolean) IS
    'internal: the registers that a patient is excluded from; with locking, for as long as the transaction lasts';

-- Patients who are looked for together, because they are out of the same registers.
CREATE TYPE erasure_group AS (
    patients           nhs_number[],
    excluded_registers text[]
);
COMMENT ON TYPE erasure_group IS 'internal: patients of an erasure who are out of the same registers';

-- Patients by the registers that they are out of when the erasure from
-- these is done.  Sorted, so that erasures of the same patients lock them in one order.
CREATE FUNCTION erasure_groups(numbers nhs_number[], registers text[], locking boolean)
RETURNS TABLE (patients nhs_number[], excluded_registers text[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        WITH patient AS MATERIALIZED (
            SELECT p.number, ndrs_optout.excluded_from(
                       ndrs_optout.encode_nhs_number(ndrs_optout.checked_patient(p.number)), locking) AS excluded
                FROM (SELECT n.number FROM unnest(numbers) AS n (number) ORDER BY n.number) AS p)
        SELECT array_agg(DISTINCT p.number ORDER BY p.number), o.codes
            FROM patient p
            CROSS JOIN LATERAL (
                SELECT ARRAY(SELECT unnest(registers) UNION SELECT unnest(p.excluded) ORDER BY 1)) AS o (codes)
            GROUP BY o.codes
            ORDER BY o.codes;
END
$$;
COMMENT ON FUNCTION erasure_groups(nhs_number[], text[], boolean) IS
    'internal: patients by the registers that they are excluded from, and these; errors 22004, ND004, ND010, ND011';

-- Where a walk begins: at the guarded columns.
CREATE FUNCTION erasure_root_batches(patients nhs_number[], registers text[], excluded_registers text[])
    RETURNS erasure_batch[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    search ndrs_optout.erasure_search;
    batches ndrs_optout.erasure_batch[] := ARRAY[]::ndrs_optout.erasure_batch[];
BEGIN
    FOREACH search IN ARRAY ndrs_optout.erasure_root_searches(registers, excluded_registers) LOOP
        batches := batches || ROW(search, patients, search.registers, ARRAY[search.relation::text], NULL, NULL,
                                  NULL, NULL, NULL)::ndrs_optout.erasure_batch;
    END LOOP;
    RETURN batches;
END
$$;
COMMENT ON FUNCTION erasure_root_batches(nhs_number[], text[], text[]) IS
    'internal: the searches in guarded columns, as batches with nothing found yet';

-- The whole walk for patients who are out of the same registers.  With locking, the
-- rows to be deleted are locked level by level, each level with a snapshot of its own:
-- the lock on a parent waits for children in flight and stops new ones.  It begins at the
-- guarded columns, or with the searches of the batches given.
CREATE FUNCTION erasure_walk(patients nhs_number[], registers text[], excluded_registers text[], locking boolean,
                             starts erasure_batch[] DEFAULT NULL)
    RETURNS erasure_batch[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batches ndrs_optout.erasure_batch[] := ARRAY[]::ndrs_optout.erasure_batch[];
    batch ndrs_optout.erasure_batch;
    parent ndrs_optout.erasure_batch;
    search ndrs_optout.erasure_search;
    searches ndrs_optout.erasure_search[];
    searched regclass[] := ARRAY[]::regclass[];
    keys_of name[];
    again boolean;
    i integer := 0;
BEGIN
    starts := coalesce(starts, ndrs_optout.erasure_root_batches(patients, registers, excluded_registers));
    searches := ARRAY(SELECT s.search FROM unnest(starts) WITH ORDINALITY AS s ORDER BY s.ordinality);
    -- From the starts, and then from each batch in the order in which they were
    -- found; ends because no row is added twice.
    LOOP
        FOR j IN 1 .. cardinality(searches) LOOP
            search := searches[j];
            IF i = 0 THEN
                batch := starts[j];
            ELSE
                -- The keys are the same for each action.
                IF search.parent_columns IS DISTINCT FROM keys_of THEN
                    keys_of := search.parent_columns;
                    batch.keys := ndrs_optout.erasure_keys(parent, keys_of);
                END IF;
                -- A cycle does not lengthen the path.
                batch := ROW(search, patients, parent.registers,
                    parent.path[:coalesce(array_position(parent.path, search.relation::text) - 1,
                                          cardinality(parent.path))] || search.relation::text,
                    batch.keys, NULL, NULL, NULL, NULL);
            END IF;
            again := NOT search.alone OR search.relation = ANY (searched);
            searched := searched || search.relation;
            FOREACH batch IN ARRAY ndrs_optout.erasure_search_step(batch, locking) LOOP
                -- Without the rows that are to be deleted already, and those that were found for
                -- the same (but a row can be redacted for two of its columns).
                IF again AND cardinality(batch.row_ids) > 0 THEN
                    SELECT coalesce(array_agg(n.leaf ORDER BY n.leaf, n.row_id), '{}'),
                           coalesce(array_agg(n.row_id ORDER BY n.leaf, n.row_id), '{}')
                        INTO batch.leaves, batch.row_ids
                        FROM (SELECT f.leaf, f.row_id FROM ndrs_optout.erasure_rows(ARRAY[batch]) AS f
                              EXCEPT
                              SELECT r.leaf, r.row_id FROM ndrs_optout.erasure_rows(batches) AS r
                                  WHERE r.action = 'delete' OR r.action = search.action AND r.action <> 'redact') AS n;
                END IF;
                batches := batches || batch;
            END LOOP;
        END LOOP;

        -- The next one that has rows to be deleted
        LOOP
            i := i + 1;
            parent := batches[i];
            EXIT WHEN i > cardinality(batches) OR (parent.search).action = 'delete' AND cardinality(parent.row_ids) > 0;
        END LOOP;
        EXIT WHEN i > cardinality(batches);
        keys_of := NULL;
        searches := ndrs_optout.erasure_child_searches(parent.kin, excluded_registers);
    END LOOP;

    RETURN batches;
END
$$;
COMMENT ON FUNCTION erasure_walk(nhs_number[], text[], text[], boolean, erasure_batch[]) IS
    'internal: finds, and locks if asked, every row held about patients in the registers, who are out of the same '
    'registers; from the guarded columns, or from the searches of starts';

-- What another path deletes is neither redacted nor unlinked nor in the way, and what
-- several walks delete is deleted once, by the first.  A row that is to lose its reference
-- to an owned row does not stand in its way.
-- joined: there are batches of several walks for the same patients.
CREATE FUNCTION erasure_merge_batches(batches erasure_batch[], joined boolean DEFAULT false) RETURNS erasure_batch[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    one_walk boolean := NOT joined AND (SELECT count(DISTINCT b.patients) <= 1 FROM unnest(batches) AS b);
BEGIN
    IF one_walk AND NOT EXISTS (
        SELECT FROM unnest(batches) AS b WHERE (b.search).action <> 'delete' AND cardinality(b.row_ids) > 0) THEN
        RETURN batches;
    END IF;
    RETURN ARRAY(
        WITH found AS MATERIALIZED (SELECT r.* FROM ndrs_optout.erasure_rows(batches) AS r),
        deleted AS MATERIALIZED (
            SELECT f.leaf, f.row_id, min(f.n) AS n FROM found f WHERE f.action = 'delete' GROUP BY f.leaf, f.row_id),
        kept AS (
            SELECT f.n, array_agg(f.leaf ORDER BY f.leaf, f.row_id) AS leaves,
                   array_agg(f.row_id ORDER BY f.leaf, f.row_id) AS row_ids
                FROM found f LEFT JOIN deleted d ON d.leaf = f.leaf AND d.row_id = f.row_id
                WHERE (d.n IS NULL OR f.action = 'delete' AND (one_walk OR d.n = f.n))
                    AND NOT (f.action = 'block' AND (batches[f.n].search).link_columns IS NOT NULL AND EXISTS (
                        SELECT FROM found o
                            WHERE o.leaf = f.leaf AND o.row_id = f.row_id AND o.action IN ('redact', 'unlink')
                                AND (batches[o.n].search).link_columns && (batches[f.n].search).link_columns))
                GROUP BY f.n)
        SELECT ROW(b.search, b.patients, b.registers, b.path, b.keys, coalesce(k.leaves, '{}'),
                   coalesce(k.row_ids, '{}'), b.kin, b.row_keys)::ndrs_optout.erasure_batch
            FROM unnest(batches) WITH ORDINALITY AS b LEFT JOIN kept k ON k.n = b.ordinality
            ORDER BY b.ordinality);
END
$$;
COMMENT ON FUNCTION erasure_merge_batches(erasure_batch[], boolean) IS
    'internal: the batches of walks, each row once, and none of other batches that one deletes';

-- Every table that the walk can come to from the guarded tables of these
-- registers, with partitions and children: a writer may have locked just one.  An
-- ancestor of such a table is only passed through, to what refers to it.  What keeps owned
-- rows is not in the walk for that.  All steps are
-- read once, since partitions are thousands.
CREATE FUNCTION erasure_plan_tables(registers text[]) RETURNS regclass[]
LANGUAGE sql STABLE
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE step AS MATERIALIZED (
        SELECT e.parent::oid AS origin, e.child::oid AS target, 'refers' AS kind FROM ndrs_optout.erasure_edge e
            WHERE NOT (e.keeps AND e.parent IN (SELECT o.relation FROM ndrs_optout.owned_table o))
        UNION ALL
        SELECT e.child, e.parent, 'owns' FROM ndrs_optout.erasure_edge e WHERE e.owns
        UNION ALL
        SELECT i.inhparent, i.inhrelid, 'below' FROM pg_inherits i
        UNION ALL
        SELECT i.inhrelid, i.inhparent, 'above' FROM pg_inherits i),
    passed (relation, reached) AS (
        SELECT g.target::oid, true FROM ndrs_optout.guard g JOIN pg_class c ON c.oid = g.target
            WHERE g.registers && erasure_plan_tables.registers
        UNION
        SELECT s.target, s.kind <> 'above'
            FROM passed p JOIN step s ON s.origin = p.relation AND (p.reached OR s.kind <> 'below'))
    SELECT coalesce(array_agg(p.relation ORDER BY p.relation), '{}')::regclass[] FROM passed p WHERE p.reached
$$;
COMMENT ON FUNCTION erasure_plan_tables(text[]) IS
    'internal: every table that an erasure from these registers can come to';

CREATE FUNCTION erasure_tables(registers text[]) RETURNS regclass[]
    AS 'MODULE_PATHNAME', 'ndrs_optout_erasure_tables'
    LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION erasure_tables(text[]) IS
    'internal: erasure_plan_tables(), as the session keeps it: every table that an erasure from these registers can '
    'come to';

-- Of a table that serves several registers, the rows go with the last register that the patient
-- leaves: they are held for each of them.
CREATE FUNCTION erasure_registers(registers text[], excluded_registers text[]) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT registers || ARRAY(
        SELECT DISTINCT code FROM ndrs_optout.guard g CROSS JOIN LATERAL unnest(g.registers) AS code
            WHERE (g.registers && erasure_registers.registers
                   OR g.target = ANY (ndrs_optout.erasure_tables(erasure_registers.registers)))
                AND g.registers <@ (erasure_registers.registers || excluded_registers)
                AND code <> ALL (erasure_registers.registers))
$$;
COMMENT ON FUNCTION erasure_registers(text[], text[]) IS
    'internal: the registers whose rows an erasure from some of them can delete, of a patient who is excluded from the '
    'others';
