-- lost_edge: where the erasure's walk is shorter than it was.
--
-- An expected edge is whole when an edge with its numbers is there, and no other table or
-- column has taken one of its names.  Where one has, an edge that has the names must be
-- there as well: then the rest is a rename.  Which of the two is meant is never chosen.

CREATE FUNCTION edge_label(this expected_edge) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%s (%s)', this.child_name, array_to_string(this.child_columns, ', '))
        || CASE WHEN this.parent_name IS NULL THEN ''
                ELSE format(' > %s (%s)', this.parent_name, array_to_string(this.parent_columns, ', ')) END
$$;
COMMENT ON FUNCTION edge_label(expected_edge) IS
    'internal: an edge as messages and gaps name it: child (columns) > parent (columns), or, of a guarded column, '
    'table (column)';

CREATE FUNCTION edge_gap(this expected_edge) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE this.kind WHEN 'guard' THEN 'guarded_column_lost' ELSE 'edge_lost' END
$$;
COMMENT ON FUNCTION edge_gap(expected_edge) IS 'internal: the gap that an expected edge is when it is lost';

-- The command that brings a lost edge back.  Whether a column that has taken another one's
-- name holds the keys, only the table's owner can say.
CREATE FUNCTION edge_remedy(this expected_edge) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    child_columns text := (SELECT string_agg(quote_ident(c), ', ') FROM unnest(this.child_columns) AS c);
    parent_columns text := (SELECT string_agg(quote_ident(c), ', ') FROM unnest(this.parent_columns) AS c);
    others text := (
        SELECT string_agg(format('Column "%s" of table %s is not the one that was followed, which is called "%s" now. '
                                 'Look in which one the keys are. ', k.name, k.relation, a.attname), ''
                          ORDER BY k.relation::text, k.name)
            FROM (SELECT this.child, u.name, u.attnum
                      FROM unnest(this.child_columns, this.child_attnums) AS u (name, attnum)
                  UNION
                  SELECT this.parent, u.name, u.attnum
                      FROM unnest(this.parent_columns, this.parent_attnums) AS u (name, attnum))
                     AS k (relation, name, attnum)
            JOIN pg_attribute a ON a.attrelid = k.relation AND a.attnum = k.attnum AND NOT a.attisdropped
                AND a.attname <> k.name
            WHERE EXISTS (SELECT FROM pg_attribute o WHERE o.attrelid = k.relation AND o.attname = k.name
                              AND NOT o.attisdropped));
BEGIN
    RETURN coalesce(others, '') || CASE this.kind
        WHEN 'guard' THEN
            CASE WHEN EXISTS (SELECT FROM ndrs_optout.guard g WHERE g.target = this.child)
                     AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = this.child)
                 THEN format('SELECT ndrs_optout.unguard_table(%s); ', this.child::oid) ELSE '' END
            || format('SELECT ndrs_optout.guard_table(%L, %L, ...)', this.child_name, this.child_columns[1])
        WHEN 'reference' THEN
            coalesce((SELECT format('ALTER TABLE %s ALTER COLUMN %I TYPE %s USING %2$I::%4$s', this.child_name,
                                    c.attname, ndrs_optout.column_type(p.attrelid, p.attnum),
                                    format_type(p.atttypid, p.atttypmod))
                          FROM ndrs_optout.reference_incomparable(this.child, this.child_attnums, this.parent,
                                                                  this.parent_attnums) AS i
                          JOIN pg_attribute c ON c.attrelid = this.child AND c.attnum = i.child_attnum
                          JOIN pg_attribute p ON p.attrelid = this.parent AND p.attnum = i.parent_attnum LIMIT 1),
                     format('SELECT ndrs_optout.declare_reference(%L, %L, %L, %L)', this.child_name,
                            this.child_columns, this.parent_name, this.parent_columns))
        ELSE format('ALTER TABLE %s ADD FOREIGN KEY (%s) REFERENCES %s (%s)', this.child_name, child_columns,
                    this.parent_name, parent_columns) END
        || CASE WHEN EXISTS (SELECT FROM ndrs_optout.owned_table o WHERE o.relation = this.parent)
               THEN format('; if the rows referred to belong to those that refer, '
                           'SELECT ndrs_optout.declare_owned(%L, %L, %L, %L)',  -- told, not called
                           this.child_name, this.child_columns, this.parent_name, this.parent_columns) ELSE '' END;
END
$$;
COMMENT ON FUNCTION edge_remedy(expected_edge) IS
    'internal: the command that brings a lost edge back, and which of its columns is another one than it was';

-- The columns of a reference that cannot be compared any more, with their types.
CREATE FUNCTION edge_types(this expected_edge) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT string_agg(format('column "%s" of table %s (%s), column "%s" of table %s (%s)', c.attname,
                                 this.child_name, ndrs_optout.column_type(c.attrelid, c.attnum), p.attname,
                                 this.parent_name, ndrs_optout.column_type(p.attrelid, p.attnum)), ', '
                          ORDER BY c.attnum)
            FROM ndrs_optout.reference_incomparable(this.child, this.child_attnums, this.parent, this.parent_attnums)
                AS i
            JOIN pg_attribute c ON c.attrelid = this.child AND c.attnum = i.child_attnum
            JOIN pg_attribute p ON p.attrelid = this.parent AND p.attnum = i.parent_attnum
            WHERE this.kind = 'reference');
END
$$;
COMMENT ON FUNCTION edge_types(expected_edge) IS
    'internal: the columns of an expected reference whose types cannot be compared, with these; NULL: all can';

-- Accepted or not.
-- what_to_do: a command, where nothing is left to judge.
CREATE FUNCTION lost_edges(tables oid[] DEFAULT NULL)
RETURNS TABLE (edge_id uuid, kind text, gap text, object text, what_to_do text, remedy text, types text,
               lost_at timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT (s.edge).edge_id, (s.edge).kind, ndrs_optout.edge_gap(s.edge), ndrs_optout.edge_label(s.edge),
           CASE WHEN n.missing IS NULL THEN ndrs_optout.edge_remedy(s.edge)
               ELSE format('Table %s is not there any more. If its rows are in another table now, %s. If they are '
                           'nowhere, SELECT ndrs_optout.accept_gap(%L, NULL, %L, ''...'')',  -- told, not called
                           n.missing,
                           CASE (s.edge).kind WHEN 'guard' THEN 'guard that one'
                               ELSE 'give that one a foreign key, or declare a reference' END,
                           ndrs_optout.edge_gap(s.edge), ndrs_optout.edge_label(s.edge)) END,
           ndrs_optout.edge_remedy(s.edge), ndrs_optout.edge_types(s.edge), (s.edge).lost_at
        FROM ndrs_optout.edge_states(tables) AS s
        CROSS JOIN LATERAL (
            SELECT coalesce(
                CASE WHEN ndrs_optout.table_of_name((s.edge).child_name) IS NULL THEN (s.edge).child_name END,
                CASE WHEN ndrs_optout.table_of_name((s.edge).parent_name) IS NULL THEN (s.edge).parent_name END)
                    AS missing) AS n
        WHERE NOT (s.present AND NOT s.taken) AND NOT (s.present AND ndrs_optout.edge_of_names(s.edge));
END
$$;
COMMENT ON FUNCTION lost_edges(oid[]) IS
    'internal: the expected edges, or those at one of the tables, that are not whole: their gap, object and what to '
    'do, as guard_coverage() has them';

-- Of those that are not accepted, the first by name.
CREATE FUNCTION erasure_plan_lost_edges() RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- As a rule.  What else there is to say of lost edges takes longer.
    IF NOT EXISTS (SELECT FROM ndrs_optout.edge_states() AS s WHERE (s.present AND NOT s.taken) IS NOT TRUE) THEN
        RETURN ARRAY[]::text[];
    END IF;
    RETURN ARRAY(
        SELECT format('gap "%s" is open: %s', l.gap, l.object) FROM ndrs_optout.lost_edges() AS l
            WHERE NOT EXISTS (SELECT FROM ndrs_optout.accepted_gap a
                              WHERE a.gap = l.gap AND a.relation IS NULL AND a.object = l.object)
            ORDER BY 1);
END
$$;
COMMENT ON FUNCTION erasure_plan_lost_edges() IS
    'internal: the gaps and objects of the edges that are lost and not accepted';

CREATE FUNCTION erasure_lost_edges() RETURNS text[]
    AS 'MODULE_PATHNAME', 'ndrs_optout_erasure_lost_edges'
    LANGUAGE C VOLATILE;
COMMENT ON FUNCTION erasure_lost_edges() IS 'internal: erasure_plan_lost_edges(), as the session keeps it';

-- What an erasure deletes above a lost edge is the last thing that leads to the rows below it, and
-- what is disclosed would be less than is held.
CREATE FUNCTION require_whole_walk(action text DEFAULT 'erase') RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lost text[] := ndrs_optout.erasure_lost_edges();
BEGIN
    IF lost <> '{}' THEN
        PERFORM ndrs_optout.raise_error('ND032',
            format('cannot %s: %s', action, lost[1]),
            detail => CASE action WHEN 'erase' THEN 'Rows below it would stay, and what leads to them would be gone.'
                                  ELSE 'Rows below it would be missing.' END || CASE
                WHEN cardinality(lost) > 1 THEN format(' Gaps of this kind: %s.', cardinality(lost)) ELSE '' END,
            hint => 'Ask the database owner to close the gap as ndrs_optout.guard_coverage() says, or to accept it '
                    'with ndrs_optout.accept_gap() when no rows are left there.');
    END IF;
END
$$;
COMMENT ON FUNCTION require_whole_walk(text) IS
    'internal: error ND032 when a guarded column, foreign key or reference that erasures followed is lost, and that is '
    'not accepted';

-- expected_reach() where no row is owned: table by table.  pg_constraint has no index by which
-- to find what refers to a table, and pg_depend has.
CREATE FUNCTION expected_reach_down(start oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        WITH RECURSIVE passed (relation, reached) AS (
            SELECT u.relation, true FROM unnest(start) AS u (relation)
            UNION
            SELECT s.target, s.reached
                FROM passed p CROSS JOIN LATERAL (
                    SELECT f.conrelid, true FROM pg_depend d JOIN pg_constraint f ON f.oid = d.objid
                        WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = p.relation
                            AND d.classid = 'pg_constraint'::regclass AND f.contype = 'f' AND f.confrelid = p.relation
                            AND (f.conparentid = 0 OR EXISTS (
                                SELECT FROM pg_inherits i WHERE i.inhrelid = f.conrelid AND i.inhdetachpending))
                    UNION ALL
                    SELECT r.child, true FROM ndrs_optout.reference r WHERE r.parent = p.relation
                    UNION ALL
                    SELECT e.child, true FROM ndrs_optout.expected_edge e WHERE e.parent = p.relation
                    UNION ALL
                    -- What a parent had led to, the table that has its name now is to lead to.
                    SELECT e.child, true FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        JOIN ndrs_optout.expected_edge e ON e.parent_name = format('%I.%I', n.nspname, c.relname)
                        WHERE c.oid = p.relation AND c.relkind IN ('r', 'p', 'f') AND e.parent <> p.relation
                    UNION ALL
                    SELECT i.inhrelid, true FROM pg_inherits i WHERE i.inhparent = p.relation AND p.reached
                    UNION ALL
                    SELECT i.inhparent, false FROM pg_inherits i WHERE i.inhrelid = p.relation) AS s (target, reached))
        SELECT coalesce(array_agg(DISTINCT p.relation), '{}') FROM passed p);
END
$$;
COMMENT ON FUNCTION expected_reach_down(oid[]) IS
    'internal: the tables that the walk passes from these, or did before it lost an edge, where no row is owned';

-- Everything that a walk can pass from these tables, or from all guarded ones, as
-- erasure_tables() does, with the ancestors that are passed through only.  By edges that are
-- there or were: what is below a lost one is still expected.
CREATE FUNCTION expected_reach(start oid[] DEFAULT NULL) RETURNS oid[]
LANGUAGE plpgsql STABLE
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Few tables, as a rule, of thousands, where no row is owned.
    IF start IS NOT NULL AND NOT EXISTS (SELECT FROM ndrs_optout.owned_parent) THEN
        RETURN ndrs_optout.expected_reach_down(start);
    END IF;
    RETURN (
    WITH RECURSIVE edge AS MATERIALIZED (SELECT e.parent, e.child, e.keeps FROM ndrs_optout.erasure_edge e),
    step AS MATERIALIZED (
        SELECT e.parent::oid AS origin, e.child::oid AS target, 'refers' AS kind FROM edge e
            WHERE NOT (e.keeps AND e.parent IN (SELECT o.relation FROM ndrs_optout.owned_table o))
        UNION ALL
        SELECT o.child, o.parent, 'owns' FROM ndrs_optout.owned_parent o
        UNION ALL
        SELECT e.parent, e.child, 'refers' FROM ndrs_optout.expected_edge e
            WHERE e.parent IS NOT NULL AND NOT EXISTS (
                SELECT FROM edge o JOIN ndrs_optout.owned_table t ON t.relation = o.parent
                    WHERE o.keeps AND o.parent = e.parent AND o.child = e.child)
        UNION ALL
        -- What a parent had led to, the table that has its name now is to lead to.
        SELECT p.oid, e.child, 'refers'
            FROM ndrs_optout.expected_edge e
            JOIN pg_namespace n ON n.nspname = (parse_ident(e.parent_name))[1]
            JOIN pg_class p ON p.relnamespace = n.oid AND p.relname = (parse_ident(e.parent_name))[2]
                AND p.relkind IN ('r', 'p', 'f') AND p.oid <> e.parent
        UNION ALL
        SELECT i.inhparent, i.inhrelid, 'below' FROM pg_inherits i
        UNION ALL
        SELECT i.inhrelid, i.inhparent, 'above' FROM pg_inherits i),
    passed (relation, reached) AS (
        SELECT u.relation, true FROM unnest(start) AS u (relation)
        UNION
        SELECT e.child::oid, true FROM ndrs_optout.expected_edge e WHERE start IS NULL AND e.kind = 'guard'
        UNION
        SELECT g.target::oid, true FROM ndrs_optout.guard g WHERE start IS NULL
        UNION
        SELECT s.target, s.kind <> 'above'
            FROM passed p JOIN step s ON s.origin = p.relation AND (p.reached OR s.kind <> 'below'))
    SELECT coalesce(array_agg(DISTINCT p.relation), '{}') FROM passed p);
END
$$;
COMMENT ON FUNCTION expected_reach(oid[]) IS
    'internal: the tables that the walk passes from these, or from all guarded ones, or did before it lost an edge';

-- Tables of the walk, as what is expected says: the children of edges, what is above them
-- and what is below.
CREATE FUNCTION expected_among(tables oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE
SET jit = off
SET plan_cache_mode = force_generic_plan
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        WITH RECURSIVE up (relation, ancestor) AS (
            SELECT t, t FROM unnest(tables) AS t
            UNION
            SELECT u.relation, i.inhparent FROM up u JOIN pg_inherits i ON i.inhrelid = u.ancestor),
        down (relation, descendant) AS (
            SELECT t, t FROM unnest(tables) AS t
            UNION
            SELECT d.relation, i.inhrelid FROM down d JOIN pg_inherits i ON i.inhparent = d.descendant)
        SELECT u.relation FROM up u WHERE EXISTS (
            SELECT FROM ndrs_optout.expected_edge e WHERE e.child = u.ancestor OR e.parent = u.ancestor)
        UNION
        SELECT d.relation FROM down d WHERE EXISTS (
            SELECT FROM ndrs_optout.expected_edge e WHERE e.child = d.descendant));
END
$$;
COMMENT ON FUNCTION expected_among(oid[]) IS
    'internal: those of the tables that the walk passes, or an edge of it ends at';

-- Edges that lead on from these tables are expected from here on.
CREATE FUNCTION expect_edges(start oid[]) RETURNS void
LANGUAGE plpgsql
SET enable_seqscan = off
SET jit = off
SET plan_cache_mode = force_generic_plan
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reach oid[] := ndrs_optout.expected_reach(start);
    keys oid[] := ARRAY(
        SELECT DISTINCT d.objid FROM pg_depend d
            WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY (reach)
                AND d.classid = 'pg_constraint'::regclass);
BEGIN
    INSERT INTO ndrs_optout.expected_edge (kind, child, child_name, child_columns, parent, parent_name, parent_columns)
        SELECT DISTINCT ON (w.child, w.child_attnums, w.parent, w.parent_attnums, w.guarded_column)
               w.kind, w.child, ndrs_optout.name_of_table(w.child),
               CASE w.kind WHEN 'guard' THEN ARRAY[w.guarded_column]
                   ELSE ndrs_optout.column_names(w.child, w.child_attnums) END,
               nullif(w.parent, 0), ndrs_optout.name_of_table(nullif(w.parent, 0)),
               CASE WHEN w.parent <> 0 THEN ndrs_optout.column_names(w.parent, w.parent_attnums) END
            FROM ndrs_optout.walk_edge w
            WHERE (w.parent = ANY (reach) AND (w.constraint_oid = ANY (keys) OR w.kind = 'reference')
                   OR w.kind = 'guard' AND w.child = ANY (start))
                AND NOT EXISTS (SELECT FROM ndrs_optout.expected_edge e
                                WHERE e.child = w.child AND e.child_attnums = w.child_attnums
                                    AND coalesce(e.parent::oid, 0) = w.parent
                                    AND coalesce(e.parent_attnums, '{}') = w.parent_attnums
                                    AND coalesce(w.guarded_column, '')
                                        = CASE e.kind WHEN 'guard' THEN e.child_columns[1] ELSE '' END)
            ORDER BY w.child, w.child_attnums, w.parent, w.parent_attnums, w.guarded_column, w.kind;
END
$$;
COMMENT ON FUNCTION expect_edges(oid[]) IS
    'internal: records the edges that the walk follows from tables that it passes, and their guarded columns';

-- What has become of edges at these tables and is no loss: others have taken their place, or
-- they have other names.  An edge that is whole again is no longer accepted as lost.
-- following: renames too, which is for the end of a transaction: until then what a swapped
-- table was called says which one takes its place.
CREATE FUNCTION settle_edges(tables oid[], following boolean) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this record;
    its ndrs_optout.expected_edge;
    whole boolean;
BEGIN
    FOR this IN SELECT * FROM ndrs_optout.edge_states(tables) LOOP
        its := this.edge;
        whole := this.present AND (NOT this.taken OR ndrs_optout.edge_of_names(its));
        IF NOT whole AND this.gone AND ndrs_optout.edge_of_names(its) THEN
            DELETE FROM ndrs_optout.expected_edge e WHERE e.edge_id = its.edge_id;
        ELSIF whole THEN
            IF its.lost_at IS NOT NULL THEN
                UPDATE ndrs_optout.expected_edge e SET lost_at = NULL WHERE e.edge_id = its.edge_id;
            END IF;
            IF this.renamed AND following THEN
                UPDATE ndrs_optout.reference r
                    SET child_columns = ndrs_optout.column_names(r.child, r.child_attnums),
                        parent_columns = ndrs_optout.column_names(r.parent, r.parent_attnums)
                    WHERE r.child = its.child AND r.parent = its.parent
                        AND (r.child_columns <> ndrs_optout.column_names(r.child, r.child_attnums)
                             OR r.parent_columns <> ndrs_optout.column_names(r.parent, r.parent_attnums));
                UPDATE ndrs_optout.owned_parent o
                    SET child_columns = ndrs_optout.column_names(o.child, o.child_attnums),
                        parent_columns = ndrs_optout.column_names(o.parent, o.parent_attnums)
                    WHERE o.child = its.child AND o.parent = its.parent
                        AND (o.child_columns <> ndrs_optout.column_names(o.child, o.child_attnums)
                             OR o.parent_columns <> ndrs_optout.column_names(o.parent, o.parent_attnums));
                UPDATE ndrs_optout.expected_edge e
                    SET child_name = ndrs_optout.name_of_table(e.child),
                        child_columns = CASE e.kind WHEN 'guard' THEN e.child_columns
                            ELSE ndrs_optout.column_names(e.child, e.child_attnums) END,
                        parent_name = ndrs_optout.name_of_table(e.parent),
                        parent_columns = CASE WHEN e.parent IS NOT NULL
                            THEN ndrs_optout.column_names(e.parent, e.parent_attnums) END
                    WHERE e.edge_id = its.edge_id;
            END IF;
            IF EXISTS (SELECT FROM ndrs_optout.accepted_gap a
                       WHERE a.gap = ndrs_optout.edge_gap(its) AND a.object = ndrs_optout.edge_label(its)) THEN
                DELETE FROM ndrs_optout.accepted_gap a
                    WHERE a.gap = ndrs_optout.edge_gap(its) AND a.object = ndrs_optout.edge_label(its);
                PERFORM ndrs_optout.audit('gap_reopened', jsonb_build_object(
                    'gap', ndrs_optout.edge_gap(its), 'relation', NULL, 'object', ndrs_optout.edge_label(its)));
            END IF;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION settle_edges(oid[], boolean) IS
    'internal: forgets edges at these tables whose place others of the same name have taken, takes back the acceptance '
    'of those that are there again and, if asked, follows renames of tables and columns';

CREATE FUNCTION expect_guards() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tables oid[] := ARRAY(SELECT DISTINCT n.target::oid FROM new_rows n);
BEGIN
    PERFORM ndrs_optout.expect_edges(tables);
    PERFORM ndrs_optout.settle_edges(tables, false);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION expect_guards() IS
    'internal: trigger function of guard: guarded columns, and what the walk follows from there, are expected';
CREATE TRIGGER expect_guards AFTER INSERT ON guard REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION expect_guards();
COMMENT ON TRIGGER expect_guards ON guard IS 'what the walk follows from here on is expected';

CREATE FUNCTION expect_references() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parents oid[] := ARRAY(SELECT DISTINCT n.parent::oid FROM new_rows n);
BEGIN
    PERFORM ndrs_optout.expect_edges(ndrs_optout.expected_among(parents));
    PERFORM ndrs_optout.settle_edges(parents || ARRAY(SELECT DISTINCT n.child::oid FROM new_rows n), false);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION expect_references() IS
    'internal: trigger function of reference: references that the walk follows, and what it follows from there, are '
    'expected';
CREATE TRIGGER expect_references AFTER INSERT ON reference REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION expect_references();
COMMENT ON TRIGGER expect_references ON reference IS 'what the walk follows from here on is expected';

-- What led on from a table whose name another one has taken stays expected: it is lost, or leads
-- on from that one.
CREATE FUNCTION forget_unreached() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    reach oid[] := ndrs_optout.expected_reach();
    unreached uuid[] := ARRAY(
        SELECT e.edge_id FROM ndrs_optout.expected_edge e
            WHERE e.parent <> ALL (reach) AND (ndrs_optout.table_of_name(e.parent_name) = ANY (reach)) IS NOT TRUE);
BEGIN
    -- Each deletion comes here again, until there is none.
    IF unreached <> '{}' THEN
        DELETE FROM ndrs_optout.expected_edge e WHERE e.edge_id = ANY (unreached);
    END IF;
END
$$;
COMMENT ON FUNCTION forget_unreached() IS 'internal: what the walk does not come to any more is not expected';

CREATE FUNCTION forget_below() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    forgotten text[] := ARRAY(SELECT ndrs_optout.edge_label(ROW(o.*)::ndrs_optout.expected_edge) FROM old_rows o);
BEGIN
    IF EXISTS (SELECT FROM ndrs_optout.accepted_gap a
               WHERE a.gap IN ('edge_lost', 'guarded_column_lost') AND a.object = ANY (forgotten)) THEN
        DELETE FROM ndrs_optout.accepted_gap a
            WHERE a.gap IN ('edge_lost', 'guarded_column_lost') AND a.object = ANY (forgotten);
    END IF;
    -- A foreign key may lead the same way as a reference that was dropped.
    PERFORM ndrs_optout.expect_edges(ndrs_optout.expected_among(
        ARRAY(SELECT DISTINCT o.parent::oid FROM old_rows o WHERE o.parent IS NOT NULL)));
    PERFORM ndrs_optout.forget_unreached();
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION forget_below() IS
    'internal: trigger function of expected_edge: what was below an edge that is not expected any more is not expected '
    'either, unless something else leads there; nor is its loss still accepted';
CREATE TRIGGER forget_below AFTER DELETE ON expected_edge REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION forget_below();
COMMENT ON TRIGGER forget_below ON expected_edge IS 'what is below goes with it, unless something else leads there';

-- The expectation of an edge must not be given up by a role that only has a duty.
CREATE FUNCTION require_owner_to_accept() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pg_has_role(ndrs_optout.acting_role(),
                       (SELECT d.datdba FROM pg_database d WHERE d.datname = current_database()), 'USAGE')
        AND NOT pg_has_role(ndrs_optout.acting_role(),
                            (SELECT n.nspowner FROM pg_namespace n WHERE n.oid = 'ndrs_optout'::regnamespace), 'USAGE')
    THEN
        PERFORM ndrs_optout.raise_error('42501', 'only the owner of the database can accept a lost edge');
    END IF;
END
$$;
COMMENT ON FUNCTION require_owner_to_accept() IS
    'internal: error 42501 unless the role that acts has the rights of the owner of the database or of the extension';
