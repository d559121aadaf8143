-- edge_state: what there is of the edges that are expected (expected_edge.sql), and under which
-- names.

-- The edges that are there, as expected_edge has them: their columns in the order of the
-- child's, since a foreign key that is made anew may name them in another.  What the
-- server made for partitions is left out: the one on the partitioned table stands for all.
CREATE VIEW walk_edge AS
    SELECT 'foreign_key' AS kind, f.conrelid AS child, k.child_attnums, f.confrelid AS parent, k.parent_attnums,
           NULL::name AS guarded_column, f.oid AS constraint_oid
        FROM pg_catalog.pg_constraint f
        CROSS JOIN LATERAL (
            SELECT pg_catalog.array_agg(n.child ORDER BY n.child, n.parent) AS child_attnums,
                   pg_catalog.array_agg(n.parent ORDER BY n.child, n.parent) AS parent_attnums
                FROM unnest(f.conkey, f.confkey) AS n (child, parent)) AS k
        WHERE f.contype = 'f' AND f.conparentid = 0
    UNION ALL
    SELECT 'reference', r.child::oid, k.child_attnums, r.parent::oid, k.parent_attnums, NULL, NULL
        FROM reference r
        CROSS JOIN LATERAL (
            SELECT pg_catalog.array_agg(n.child ORDER BY n.child, n.parent) AS child_attnums,
                   pg_catalog.array_agg(n.parent ORDER BY n.child, n.parent) AS parent_attnums
                FROM unnest(r.child_attnums, r.parent_attnums) AS n (child, parent)
                JOIN pg_catalog.pg_attribute c ON c.attrelid = r.child AND c.attnum = n.child AND NOT c.attisdropped
                JOIN pg_catalog.pg_attribute p ON p.attrelid = r.parent AND p.attnum = n.parent
                    AND NOT p.attisdropped) AS k
        WHERE pg_catalog.cardinality(k.child_attnums) = pg_catalog.cardinality(r.child_attnums)
            AND NOT EXISTS (SELECT FROM reference_incomparable(r.child, r.child_attnums, r.parent, r.parent_attnums))
    UNION ALL
    SELECT 'guard', g.target::oid, '{}', 0::oid, '{}', g.nhs_number_column, NULL
        FROM guard g JOIN pg_catalog.pg_class c ON c.oid = g.target;
COMMENT ON VIEW walk_edge IS
    'internal: the guarded columns (without a parent), foreign keys and declared references that are there, by the '
    'numbers of their columns';

CREATE FUNCTION column_names(relation oid, attnums smallint[]) RETURNS name[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        SELECT a.attname FROM unnest(attnums) WITH ORDINALITY AS n (attnum, position)
            JOIN pg_attribute a ON a.attrelid = relation AND a.attnum = n.attnum AND NOT a.attisdropped
            ORDER BY n.position);
END
$$;
COMMENT ON FUNCTION column_names(oid, smallint[]) IS
    'internal: the names of columns of a table by their numbers, without those that are gone';

-- Is there an edge that has the names of an expected one?
CREATE FUNCTION edge_of_names(this expected_edge) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_child CONSTANT oid := ndrs_optout.table_of_name(this.child_name);
    of_parent CONSTANT oid := coalesce(ndrs_optout.table_of_name(this.parent_name), 0);
BEGIN
    RETURN (this.parent IS NULL OR of_parent <> 0) AND EXISTS (
        SELECT FROM ndrs_optout.walk_edge w
            WHERE w.child = of_child AND w.parent = of_parent
                AND w.guarded_column IS NOT DISTINCT FROM CASE this.kind WHEN 'guard' THEN this.child_columns[1] END
                AND ARRAY(SELECT format('%s %s', c, p)
                              FROM unnest(ndrs_optout.column_names(w.child, w.child_attnums),
                                          ndrs_optout.column_names(w.parent, w.parent_attnums)) AS n (c, p) ORDER BY 1)
                    = ARRAY(SELECT format('%s %s', c, p)
                                FROM unnest(this.child_columns, this.parent_columns) AS n (c, p)
                                WHERE this.kind <> 'guard' ORDER BY 1));
END
$$;
COMMENT ON FUNCTION edge_of_names(expected_edge) IS
    'internal: whether an edge between tables and columns of these names is there, whatever their numbers';

-- Do tables and columns of an expected edge have the names that were recorded?  Then no
-- other one has them.
CREATE FUNCTION edge_has_its_names(this expected_edge) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (this.child_name = ndrs_optout.name_of_table(this.child)
            AND (this.kind = 'guard' OR this.child_columns = ndrs_optout.column_names(this.child, this.child_attnums))
            AND (this.parent IS NULL
                 OR this.parent_name = ndrs_optout.name_of_table(this.parent)
                    AND this.parent_columns = ndrs_optout.column_names(this.parent, this.parent_attnums))) IS TRUE;
END
$$;
COMMENT ON FUNCTION edge_has_its_names(expected_edge) IS
    'internal: whether the tables and columns of an expected edge are there, and have the names that it has';

-- What has become of the names of one whose names are not the same.
CREATE FUNCTION edge_names(this expected_edge, OUT renamed boolean, OUT taken boolean, OUT gone boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_child CONSTANT oid := ndrs_optout.table_of_name(this.child_name);
    of_parent CONSTANT oid := ndrs_optout.table_of_name(this.parent_name);
    child_columns CONSTANT name[] := ndrs_optout.column_names(this.child, this.child_attnums);
    parent_columns CONSTANT name[] := ndrs_optout.column_names(this.parent, this.parent_attnums);
BEGIN
    renamed := (of_child = this.child::oid) IS NOT TRUE
        OR this.parent IS NOT NULL AND (of_parent = this.parent::oid) IS NOT TRUE
        OR this.kind <> 'guard' AND (this.child_columns <> child_columns OR this.parent_columns <> parent_columns);
    taken := (of_child <> this.child::oid) IS TRUE OR (of_parent <> this.parent::oid) IS TRUE
        OR EXISTS (SELECT FROM unnest(this.child_columns, this.child_attnums) AS k (name, attnum)
                       JOIN pg_attribute a ON this.kind <> 'guard' AND a.attrelid = this.child AND a.attname = k.name
                           AND a.attnum <> k.attnum AND NOT a.attisdropped)
        OR EXISTS (SELECT FROM unnest(this.parent_columns, this.parent_attnums) AS k (name, attnum)
                       JOIN pg_attribute a ON a.attrelid = this.parent AND a.attname = k.name
                           AND a.attnum <> k.attnum AND NOT a.attisdropped);
    gone := NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = this.child)
        OR this.parent IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class r WHERE r.oid = this.parent)
        OR cardinality(child_columns) < cardinality(this.child_attnums)
        OR (cardinality(parent_columns) < cardinality(this.parent_attnums)) IS TRUE;
END
$$;
COMMENT ON FUNCTION edge_names(expected_edge) IS
    'internal: whether tables or columns of an expected edge have other names than it has, whether another table or '
    'column has one of these, and whether a table or column is gone';

-- What became of expected edges: of all, or of those that begin or end at one of the tables,
-- by number or by name.
-- Everything is read from rows of the catalogues, so that the sentry can ask with a snapshot
-- of before its transaction.
CREATE FUNCTION edge_states(tables oid[] DEFAULT NULL)
RETURNS TABLE (edge expected_edge, present boolean, renamed boolean, taken boolean, gone boolean)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    names text[] := ARRAY(SELECT ndrs_optout.name_of_table(t) FROM unnest(tables) AS t);
    these uuid[];
    this ndrs_optout.expected_edge;
    there boolean;
BEGIN
    IF tables IS NULL THEN
        these := ARRAY(SELECT e.edge_id FROM ndrs_optout.expected_edge e);
    ELSE
        these := ARRAY(SELECT e.edge_id FROM ndrs_optout.expected_edge e
                           WHERE e.child = ANY (tables) OR e.parent = ANY (tables)
                               OR e.child_name = ANY (names) OR e.parent_name = ANY (names));
    END IF;
    FOR this IN SELECT e.* FROM ndrs_optout.expected_edge e WHERE e.edge_id = ANY (these) LOOP
        -- As walk_edge has them, asked by the table.
        IF this.kind = 'guard' THEN
            there := EXISTS (SELECT FROM ndrs_optout.guard g JOIN pg_class c ON c.oid = g.target
                               WHERE g.target = this.child AND g.nhs_number_column = this.child_columns[1]);
        ELSE
            there := EXISTS (
                SELECT FROM pg_constraint f
                    WHERE f.conrelid = this.child AND f.contype = 'f' AND f.conparentid = 0
                        AND f.confrelid = this.parent
                        AND this.child_attnums = ARRAY(
                            SELECT n.child FROM unnest(f.conkey, f.confkey) AS n (child, parent) ORDER BY 1, n.parent)
                        AND this.parent_attnums = ARRAY(
                            SELECT n.parent FROM unnest(f.conkey, f.confkey) AS n (child, parent) ORDER BY n.child, 1));
            IF NOT there THEN
                there := EXISTS (
                    SELECT FROM ndrs_optout.walk_edge w
                        WHERE w.kind = 'reference' AND w.child = this.child AND w.parent = this.parent
                            AND w.child_attnums = this.child_attnums AND w.parent_attnums = this.parent_attnums);
            END IF;
        END IF;
        IF ndrs_optout.edge_has_its_names(this) THEN
            RETURN QUERY SELECT this, there, false, false, false;
        ELSE
            RETURN QUERY SELECT this, there, n.renamed, n.taken, n.gone FROM ndrs_optout.edge_names(this) AS n;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION edge_states(oid[]) IS
    'internal: of each expected edge, or each at one of the tables: whether one with its numbers is there, whether its '
    'names have changed, whether another table or column has one of them, and whether a table or column is gone';
