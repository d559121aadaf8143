-- erasure, the order: what deletes the rows that a walk found, and in which order.
-- Plans are kept like those of the graph.

-- A command that changes rows of some tables, which are given in $1.
CREATE TYPE erasure_command AS (
    role    regrole,
    command text,
    places  bigint[]
);
COMMENT ON TYPE erasure_command IS
    'internal: a command of the erasure, with whose rights to run it, and on which of the given tables';

-- How far down each table is, below every other that it refers to.  Tables that
-- refer to each other in a cycle are one component, and equally far down.  So are those
-- whose references are the same, as those of partitions are: one node stands for all,
-- or hundreds of partitions would make a graph of the square of that.
CREATE FUNCTION erasure_depths(leaves regclass[], OUT components integer[], OUT depths integer[])
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    nodes integer[];
    component_of integer[];
    depth_of integer[];
    parents integer[];
    children integer[];
    moved boolean := true;
BEGIN
    WITH RECURSIVE edge AS MATERIALIZED (SELECT e.parent, e.child FROM ndrs_optout.erasure_edge e),
    line (n, ancestor) AS (
        SELECT l.n, l.leaf FROM unnest(leaves) WITH ORDINALITY AS l (leaf, n)
        UNION
        SELECT l.n, i.inhparent::regclass FROM line l JOIN pg_inherits i ON i.inhrelid = l.ancestor),
    lineage AS MATERIALIZED (
        SELECT l.n, l.ancestor FROM line l
            WHERE l.ancestor IN (SELECT e.parent FROM edge e UNION ALL SELECT e.child FROM edge e)),
    leaf AS MATERIALIZED (
        SELECT k.n, dense_rank() OVER (ORDER BY k.ancestors)::integer AS node
            FROM (SELECT g.n, coalesce(array_agg(l.ancestor::oid ORDER BY l.ancestor::oid)
                                           FILTER (WHERE l.ancestor IS NOT NULL), '{}') AS ancestors
                      FROM generate_series(1, cardinality(leaves)) AS g (n)
                      LEFT JOIN lineage l ON l.n = g.n
                      GROUP BY g.n) AS k),
    member AS MATERIALIZED (
        SELECT DISTINCT f.node, l.ancestor FROM leaf f JOIN lineage l ON l.n = f.n)
    SELECT (SELECT array_agg(f.node ORDER BY f.n) FROM leaf f),
           coalesce(array_agg(p.node), '{}'), coalesce(array_agg(c.node), '{}')
        INTO nodes, parents, children
        FROM member p
        JOIN edge e ON e.parent = p.ancestor
        JOIN member c ON c.ancestor = e.child
        WHERE p.node <> c.node;

    -- A component is known by its first node.
    WITH RECURSIVE reach (a, b) AS (
        SELECT * FROM unnest(parents, children)
        UNION
        SELECT r.a, e.b FROM reach r JOIN unnest(parents, children) AS e (a, b) ON e.a = r.b)
    SELECT array_agg(least(n, (SELECT min(r.b) FROM reach r JOIN reach back ON back.a = r.b AND back.b = n
                                   WHERE r.a = n)) ORDER BY n), array_agg(0)
        INTO component_of, depth_of FROM generate_series(1, (SELECT max(n) FROM unnest(nodes) AS n)) AS n;

    -- Ends, for there is no cycle between components.
    WHILE moved LOOP
        moved := false;
        FOR i IN 1 .. cardinality(parents) LOOP
            IF component_of[children[i]] <> component_of[parents[i]]
                AND depth_of[component_of[children[i]]] <= depth_of[component_of[parents[i]]] THEN
                depth_of[component_of[children[i]]] := depth_of[component_of[parents[i]]] + 1;
                moved := true;
            END IF;
        END LOOP;
    END LOOP;
    SELECT array_agg(component_of[k.node] ORDER BY k.n), array_agg(depth_of[component_of[k.node]] ORDER BY k.n)
        INTO components, depths FROM unnest(nodes) WITH ORDINALITY AS k (node, n);
END
$$;
COMMENT ON FUNCTION erasure_depths(regclass[]) IS
    'internal: how far down each table is, below every other that it refers to, and which refer to each other in a '
    'cycle';

-- What makes every trigger of these tables run at once from here on.
CREATE FUNCTION erasure_plan_undeferrals(leaves regclass[]) RETURNS erasure_command[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        SELECT ROW(r.relowner::regrole,
                   'SET CONSTRAINTS ' || string_agg(DISTINCT format('%I.%I', n.nspname, c.conname), ', ')
                       || ' IMMEDIATE',
                   NULL)::ndrs_optout.erasure_command
            FROM pg_trigger t
            JOIN pg_constraint c ON c.oid = t.tgconstraint
            JOIN pg_class r ON r.oid = c.conrelid
            JOIN pg_namespace n ON n.oid = c.connamespace
            WHERE t.tgdeferrable AND t.tgrelid = ANY (leaves)
            GROUP BY r.relowner);
END
$$;
COMMENT ON FUNCTION erasure_plan_undeferrals(regclass[]) IS
    'internal: the commands that defer no trigger of these tables from here on';

CREATE FUNCTION erasure_undeferrals(leaves regclass[]) RETURNS erasure_command[]
    AS 'MODULE_PATHNAME', 'ndrs_optout_erasure_undeferrals'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION erasure_undeferrals(regclass[]) IS
    'internal: erasure_plan_undeferrals(), as the session keeps it';

-- The tables whose triggers can wait for the end of a transaction.
CREATE FUNCTION erasure_plan_deferrables() RETURNS regclass[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT DISTINCT t.tgrelid::regclass FROM pg_trigger t WHERE t.tgdeferrable ORDER BY 1);
END
$$;
COMMENT ON FUNCTION erasure_plan_deferrables() IS 'internal: the tables with a trigger that can be deferred';

CREATE FUNCTION erasure_pending() RETURNS regclass[]
    AS 'MODULE_PATHNAME', 'ndrs_optout_erasure_pending'
    LANGUAGE C VOLATILE;
COMMENT ON FUNCTION erasure_pending() IS
    'internal: the tables for which a trigger waits for the end of the transaction; NULL when no table has one that '
    'can be deferred';

-- What deletes rows of these tables, for each of which $1 has the text of their places, and
-- returns how many, children first, tables of one owner in a row in one statement: foreign keys
-- are checked at its end, so within it neither the order nor a cycle matters to them, and
-- a trigger on a parent that deletes its children finds them gone.
CREATE FUNCTION erasure_plan_deletions(leaves regclass[]) RETURNS erasure_command[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ruled regclass := (SELECT w.ev_class FROM pg_rewrite w WHERE w.ev_class = ANY (leaves) AND w.ev_type = '4' LIMIT 1);
BEGIN
    IF ruled IS NOT NULL THEN
        PERFORM ndrs_optout.raise_error('ND030',
            format('cannot erase from table %s because it has a rule ON DELETE', ruled),
            hint => 'Rows that a rule keeps cannot be verified as deleted. Ask the owner of the table to replace the '
                    'rule with a trigger, or to drop it.');
    END IF;
    RETURN ARRAY(
        WITH ranked AS (
            SELECT u.leaf, u.place, r.relowner::regrole AS owner,
                   row_number() OVER (ORDER BY u.depth DESC, u.component, r.relowner, u.leaf) AS n
                FROM ndrs_optout.erasure_depths(leaves) AS d
                CROSS JOIN LATERAL unnest(leaves, d.components, d.depths)
                    WITH ORDINALITY AS u (leaf, component, depth, place)
                JOIN pg_class r ON r.oid = u.leaf),
        runs AS (
            SELECT r.*, r.n - row_number() OVER (PARTITION BY r.owner ORDER BY r.n) AS run FROM ranked r)
        SELECT ROW(s.owner,
                   format('WITH %s SELECT ARRAY[%s]',
                       string_agg(format('d%s AS (DELETE FROM ONLY %s WHERE ctid = ANY ($1[%s]::tid[]) RETURNING 1)',
                                         s.n, s.leaf, s.place), ', ' ORDER BY s.n),
                       string_agg(format('(SELECT count(*) FROM d%s)', s.n), ', ' ORDER BY s.n)),
                   array_agg(s.place ORDER BY s.n))::ndrs_optout.erasure_command
            FROM runs s
            GROUP BY s.owner, s.run
            ORDER BY min(s.n));
END
$$;
COMMENT ON FUNCTION erasure_plan_deletions(regclass[]) IS
    'internal: the commands that delete rows of these tables and count them, in order; error ND030 for a table with a '
    'rule';

CREATE FUNCTION erasure_deletions(leaves regclass[]) RETURNS erasure_command[]
    AS 'MODULE_PATHNAME', 'ndrs_optout_erasure_deletions'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION erasure_deletions(regclass[]) IS
    'internal: erasure_plan_deletions(), as the session keeps it; error ND030 for a table with a rule';
