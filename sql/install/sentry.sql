-- sentry: no DDL opens a guard by accident.
--
-- What a command does is judged by what it leaves: the parts of guards are compared
-- before and after it.  So it does not matter by which command, under which name of the
-- table, or by whose cascade, a part was lost.  Only tables count that the command
-- changed and that its transaction has locked.  sentry.c knows these, and has
-- all that is read here read with a snapshot of now, whatever the transaction's, or
-- with the same snapshot without what the command has done itself.
--
-- The edges of the erasure's walk (lost_edge.sql) are judged in the same way, but when the
-- transaction ends: until then a foreign key that was dropped for a load can be put back, and
-- a table that was swapped guarded again.

-- Does one of the tables belong to the erasure's walk, or refer to one that does?
CREATE FUNCTION sentry_touches_walk(touched oid[]) RETURNS boolean
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ndrs_optout.expected_among(touched || ARRAY(
        SELECT f.confrelid FROM pg_constraint f WHERE f.conrelid = ANY (touched) AND f.contype = 'f')) <> '{}';
END
$$;
COMMENT ON FUNCTION sentry_touches_walk(oid[]) IS
    'internal: whether one of the tables is passed by the erasure''s walk, or refers to one that is';

CREATE FUNCTION sentry_lost(touched oid[]) RETURNS uuid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT l.edge_id FROM ndrs_optout.lost_edges(touched) AS l);
END
$$;
COMMENT ON FUNCTION sentry_lost(oid[]) IS 'internal: the expected edges at these tables that are lost';

-- A table and its ancestors as a scan comes to them: without that of a partition that is being
-- detached CONCURRENTLY.
CREATE FUNCTION sentry_lineage(relation oid) RETURNS TABLE (ancestor oid, by_partition boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE lineage (ancestor, by_partition) AS (
        SELECT relation, true
        UNION
        SELECT i.inhparent, l.by_partition AND c.relispartition
            FROM lineage l
            JOIN pg_inherits i ON i.inhrelid = l.ancestor AND NOT i.inhdetachpending
            JOIN pg_class c ON c.oid = i.inhrelid)
    SELECT l.ancestor, l.by_partition FROM lineage l
$$;
COMMENT ON FUNCTION sentry_lineage(oid) IS
    'internal: a table and its ancestors, without that of a partition that is being detached; by_partition: through '
    'partitions only';

-- Is there an edge like an expected one at a table that a scan of which comes to the child, or
-- to the parent?
-- above_only: one between the two themselves is none.
CREATE FUNCTION sentry_edge_above(this expected_edge, above_only boolean DEFAULT false) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF this.kind = 'guard' THEN
        RETURN EXISTS (
            SELECT FROM ndrs_optout.sentry_lineage(this.child) AS c
                JOIN ndrs_optout.guard g ON g.target = c.ancestor
                WHERE g.nhs_number_column = this.child_columns[1] AND NOT (above_only AND c.ancestor = this.child));
    END IF;
    RETURN EXISTS (
        SELECT FROM ndrs_optout.sentry_lineage(this.child) AS c
            JOIN ndrs_optout.erasure_edge x ON x.child = c.ancestor
            JOIN ndrs_optout.sentry_lineage(this.parent) AS p ON p.ancestor = x.parent
            WHERE (x.declared OR c.by_partition AND p.by_partition)
                AND NOT (above_only AND c.ancestor = this.child AND p.ancestor = this.parent)
                AND x.child_columns = this.child_columns AND x.parent_columns = this.parent_columns);
END
$$;
COMMENT ON FUNCTION sentry_edge_above(expected_edge, boolean) IS
    'internal: whether an edge of these columns is there, at the tables of an expected one or at their ancestors';

-- What was a partition or a child of a table, and has rows, is no longer reached by the
-- guards and references of that table, nor what refers to it by a reference to that table.  So
-- it needs its own; and does not any more when it is a partition or a child again.
CREATE FUNCTION sentry_follow_links(links_before text[], links_after text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this record;
BEGIN
    FOR this IN
        SELECT split_part(b.link, ' ', 1)::oid AS parent, c.oid AS child
            FROM unnest(links_before) AS b (link)
            JOIN pg_class c ON c.oid = split_part(b.link, ' ', 2)::oid
            WHERE b.link <> ALL (links_after)
                AND EXISTS (SELECT FROM ndrs_optout.erasure_descendants(c.oid) AS d
                            WHERE ndrs_optout.sentry_holds_rows(d.relation))
    LOOP
        INSERT INTO ndrs_optout.expected_edge (kind, child, child_name, child_columns, parent, parent_name,
                                               parent_columns)
            SELECT n.kind, n.child, n.child_name, n.child_columns, n.parent, n.parent_name, n.parent_columns
                FROM (SELECT e.kind, this.child::regclass AS child, ndrs_optout.name_of_table(this.child) AS child_name,
                             e.child_columns, e.parent, e.parent_name, e.parent_columns
                          FROM ndrs_optout.expected_edge e
                          JOIN ndrs_optout.erasure_lineage(this.parent) AS l ON l.ancestor = e.child
                          WHERE e.kind IN ('guard', 'reference')
                      UNION ALL
                      SELECT e.kind, e.child, e.child_name, e.child_columns, this.child::regclass,
                             ndrs_optout.name_of_table(this.child), e.parent_columns
                          FROM ndrs_optout.expected_edge e
                          JOIN ndrs_optout.erasure_lineage(this.parent) AS l ON l.ancestor = e.parent
                          WHERE e.kind = 'reference') AS n
                WHERE NOT ndrs_optout.sentry_edge_above(
                    jsonb_populate_record(NULL::ndrs_optout.expected_edge, to_jsonb(n)));
    END LOOP;
END
$$;
COMMENT ON FUNCTION sentry_follow_links(text[], text[]) IS
    'internal: by what sentry_links() knew before and knows now: tables with rows that were taken out from under a '
    'table of the erasure''s walk are expected to have its guards and references, and those that are back are not';

-- At the end of the transaction, since what was dropped may be put back in it, or take
-- another's place.
-- allowed: the tables at which a superuser has let edges be lost, or it is too late to refuse.
CREATE FUNCTION sentry_settle_walk(touched oid[], lost_before uuid[], links_before text[], allowed oid[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this record;
    lost uuid[];
    accepted boolean;
BEGIN
    PERFORM ndrs_optout.settle_edges(touched, true);
    PERFORM ndrs_optout.expect_edges(ndrs_optout.expected_among(touched || ARRAY(
        SELECT f.confrelid FROM pg_constraint f WHERE f.conrelid = ANY (touched) AND f.contype = 'f')));
    PERFORM ndrs_optout.sentry_follow_links(links_before, ndrs_optout.sentry_links(touched));
    -- What is above them leads there as well: a foreign key of a partition becomes a part of the
    -- table's, and a table that is attached again has its references.
    lost := ndrs_optout.sentry_lost(touched);
    IF lost = '{}' THEN
        RETURN;
    END IF;
    DELETE FROM ndrs_optout.expected_edge e WHERE e.edge_id = ANY (lost) AND ndrs_optout.sentry_edge_above(e, true);
    FOR this IN
        SELECT l.* FROM ndrs_optout.lost_edges(touched) AS l
            WHERE l.lost_at IS NULL AND l.edge_id <> ALL (lost_before)
            ORDER BY l.kind <> 'guard', l.object
    LOOP
        accepted := EXISTS (SELECT FROM ndrs_optout.accepted_gap a
                            WHERE a.gap = this.gap AND a.relation IS NULL AND a.object = this.object);
        IF NOT accepted AND NOT EXISTS (
            SELECT FROM ndrs_optout.expected_edge e
                WHERE e.edge_id = this.edge_id AND (e.child = ANY (allowed) OR e.parent = ANY (allowed))) THEN
            PERFORM ndrs_optout.sentry_weakening(
                format(CASE this.kind WHEN 'guard' THEN 'column %s would no longer be guarded'
                                      ELSE 'erasures would no longer follow %s' END, this.object),
                format(CASE this.kind
                           WHEN 'guard' THEN
                               'If it goes for good, call ndrs_optout.unguard_table() first. If another table takes '
                               'its place, guard that one in the same transaction: %s.'
                           ELSE CASE WHEN this.types IS NULL
                                    THEN 'In the same transaction, put it back, or give it to the table that takes its '
                                         'place: %s.'
                                    ELSE 'In the same transaction, give both columns types that can be compared: %4$s.'
                                END || ' If its rows are nowhere any more, the database owner calls '
                                       'ndrs_optout.accept_gap(%2$L, NULL, %3$L, ...) in it.'
                       END, this.remedy, this.gap, this.object, this.types));
        END IF;
        UPDATE ndrs_optout.expected_edge e SET lost_at = clock_timestamp() WHERE e.edge_id = this.edge_id;
        IF NOT accepted THEN
            PERFORM ndrs_optout.audit('edge_lost', jsonb_build_object('gap', this.gap, 'edge', this.object));
            PERFORM ndrs_optout.raise_notice(true,
                format(CASE this.kind WHEN 'guard' THEN 'column %s is no longer guarded'
                                      ELSE 'erasures no longer follow %s' END, this.object),
                'No case is carried out before this is put right: call ndrs_optout.guard_coverage().');
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION sentry_settle_walk(oid[], uuid[], text[], oid[]) IS
    'internal: follows what has become of the erasure''s walk at tables that a transaction has changed or dropped: '
    'error ND050 for an edge that it has lost; when ndrs_optout.allow_unguarded is on, or it is too late to refuse, an '
    'event and a warning';

-- A table that is about to be attached without the constraint of its parent's guard: the
-- server would say less of what is missing.
CREATE FUNCTION sentry_attach(parent regclass, child regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lacking pg_constraint;
BEGIN
    SELECT k.* INTO lacking FROM pg_constraint k
        JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = k.oid
            AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = ANY (ndrs_optout.guard_constraint_functions())
        WHERE k.conrelid = parent AND k.contype = 'c' AND NOT k.connoinherit
            AND NOT EXISTS (SELECT FROM pg_constraint o
                            WHERE o.conrelid = child AND o.contype = 'c' AND o.conname = k.conname)
        ORDER BY k.conname LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.raise_error('55000',
            format('table %s cannot come under the guard of table %s without constraint "%s"',
                   child, parent, lacking.conname),
            hint => format('As a role that may use schema ndrs_optout, run first: ALTER TABLE %s ADD CONSTRAINT %I %s;',
                           child, lacking.conname, pg_get_constraintdef(lacking.oid)));
    END IF;
END
$$;
COMMENT ON FUNCTION sentry_attach(regclass, regclass) IS
    'internal: error 55000 when a table is to be attached that lacks a constraint of its parent''s guard; the hint '
    'has the command that adds it';

-- Not SECURITY DEFINER: it looks up names that the command gives, for sentry_attach() only.
CREATE FUNCTION sentry_start() RETURNS event_trigger
    AS 'MODULE_PATHNAME', 'ndrs_optout_sentry_start'
    LANGUAGE C;
COMMENT ON FUNCTION sentry_start() IS 'internal: event trigger function: remembers where a command begins';
CREATE FUNCTION sentry_end() RETURNS event_trigger
    AS 'MODULE_PATHNAME', 'ndrs_optout_sentry_end'
    LANGUAGE C SECURITY DEFINER SET jit = off;
COMMENT ON FUNCTION sentry_end() IS
    'internal: event trigger function: refuses what weakens a guard, or brings rows of excluded patients under one';

-- What is there of a table that is gone goes with it.  What was expected of it stays, and is
-- judged when the transaction ends.  Nothing is locked for writing where there is nothing to
-- do: every DROP comes here.
CREATE FUNCTION sentry_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    dropped oid[] := ARRAY(SELECT o.objid FROM pg_event_trigger_dropped_objects() o
                               WHERE o.classid = 'pg_class'::regclass AND o.objsubid = 0);
    changed oid[];
    lost record;
    message text;
BEGIN
    -- The other event triggers leave this command out.
    IF tg_tag = 'DROP EXTENSION' THEN
        FOR lost IN
            SELECT DISTINCT o.objid::regclass AS relation, o.address_names[3] AS column_name, g.nhs_number_column
                FROM pg_event_trigger_dropped_objects() o
                CROSS JOIN LATERAL ndrs_optout.erasure_lineage(o.objid) AS l
                JOIN ndrs_optout.guard g ON g.target = l.ancestor
                WHERE o.classid = 'pg_class'::regclass AND o.objsubid > 0 AND o.objid <> ALL (dropped)
                    AND o.address_names[3] = ANY (g.redact_columns || g.nhs_number_column || g.encoded_column
                                                  || g.birth_date_column)
                ORDER BY 1, 2
        LOOP
            message := format('cannot drop column "%s" of table %s: the guard of column "%s" uses it',
                              lost.column_name, lost.relation, lost.nhs_number_column);
            PERFORM ndrs_optout.sentry_weakening(message, 'To remove the guard, call ndrs_optout.unguard_table().');
            PERFORM ndrs_optout.sentry_weakened(lost.relation::text, format('column "%s" dropped', lost.column_name));
        END LOOP;
        changed := ARRAY(SELECT DISTINCT o.objid FROM pg_event_trigger_dropped_objects() o
                             WHERE o.classid = 'pg_class'::regclass);
        IF ndrs_optout.sentry_touches_walk(changed) THEN
            PERFORM ndrs_optout.sentry_settle_walk(changed, '{}', '{}', '{}');
        END IF;
    END IF;
    IF EXISTS (SELECT FROM ndrs_optout.guard g WHERE g.target = ANY (dropped)) THEN
        FOR lost IN DELETE FROM ndrs_optout.guard g WHERE g.target = ANY (dropped) RETURNING g.* LOOP
            PERFORM ndrs_optout.audit('guarded_table_dropped', jsonb_build_object('table',
                (SELECT o.object_identity FROM pg_event_trigger_dropped_objects() o
                     WHERE o.classid = 'pg_class'::regclass AND o.objid = lost.target AND o.objsubid = 0),
                'column', lost.nhs_number_column));
        END LOOP;
    END IF;
    IF EXISTS (SELECT FROM ndrs_optout.reference r WHERE r.child = ANY (dropped) OR r.parent = ANY (dropped)) THEN
        DELETE FROM ndrs_optout.reference r WHERE r.child = ANY (dropped) OR r.parent = ANY (dropped);
    END IF;
    IF EXISTS (SELECT FROM ndrs_optout.owned_parent o WHERE o.child = ANY (dropped) OR o.parent = ANY (dropped)) THEN
        DELETE FROM ndrs_optout.owned_parent o WHERE o.child = ANY (dropped) OR o.parent = ANY (dropped);
    END IF;
    IF EXISTS (SELECT FROM ndrs_optout.accepted_gap a WHERE a.relation = ANY (dropped)) THEN
        DELETE FROM ndrs_optout.accepted_gap a WHERE a.relation = ANY (dropped);
    END IF;
END
$$;
COMMENT ON FUNCTION sentry_drop() IS
    'internal: event trigger function: forgets the guards, references and accepted gaps of tables that are dropped, '
    'but not that they are expected; refuses a DROP EXTENSION that takes a column of a guard or of the erasure''s walk';

-- DROP EXTENSION of what this extension depends on would take it along.  The library
-- refuses that to others than superusers, once it is loaded.  A superuser can do
-- without it.
CREATE FUNCTION sentry_extension() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.library_build();
EXCEPTION WHEN OTHERS THEN
    IF NOT (SELECT r.rolsuper FROM pg_roles r
                WHERE r.rolname = coalesce(nullif(current_setting('role'), 'none'), session_user)) THEN
        RAISE;
    END IF;
END
$$;
COMMENT ON FUNCTION sentry_extension() IS
    'internal: event trigger function: loads the library, which lets only a superuser drop this extension, also by a '
    'cascade; error 42501';

-- Event triggers are in no schema, hence the long names.
--
-- The first two are in C, and these are the commands that can change a table that is
-- there, drop a part of it by their cascade, or bring one under a guard; test/static/tags
-- knows of every command on which side it is.  Without the library none of these works,
-- and DROP EXTENSION does, for a superuser: it is left to the last two.
CREATE EVENT TRIGGER ndrs_optout_sentry_start ON ddl_command_start
    WHEN TAG IN (
        'ALTER DOMAIN', 'ALTER FOREIGN TABLE', 'ALTER INDEX', 'ALTER MATERIALIZED VIEW', 'ALTER SEQUENCE',
        'ALTER TABLE', 'ALTER TRIGGER', 'ALTER TYPE', 'ALTER VIEW', 'CREATE FOREIGN TABLE', 'CREATE RULE',
        'CREATE SCHEMA', 'CREATE TABLE', 'CREATE TABLE AS', 'CREATE TRIGGER', 'DROP ACCESS METHOD',
        'DROP AGGREGATE', 'DROP CAST', 'DROP COLLATION', 'DROP CONVERSION', 'DROP DOMAIN',
        'DROP FOREIGN DATA WRAPPER', 'DROP FOREIGN TABLE', 'DROP FUNCTION', 'DROP LANGUAGE',
        'DROP MATERIALIZED VIEW', 'DROP OPERATOR', 'DROP OPERATOR CLASS', 'DROP OPERATOR FAMILY',
        'DROP OWNED', 'DROP PROCEDURE', 'DROP ROUTINE', 'DROP SCHEMA', 'DROP SEQUENCE', 'DROP SERVER',
        'DROP TABLE', 'DROP TRANSFORM', 'DROP TRIGGER', 'DROP TYPE', 'DROP VIEW', 'IMPORT FOREIGN SCHEMA',
        'SELECT INTO')
    EXECUTE FUNCTION sentry_start();
COMMENT ON EVENT TRIGGER ndrs_optout_sentry_start IS 'remembers where a command begins';
CREATE EVENT TRIGGER ndrs_optout_sentry_end ON ddl_command_end
    WHEN TAG IN (
        'ALTER DOMAIN', 'ALTER FOREIGN TABLE', 'ALTER INDEX', 'ALTER MATERIALIZED VIEW', 'ALTER SEQUENCE',
        'ALTER TABLE', 'ALTER TRIGGER', 'ALTER TYPE', 'ALTER VIEW', 'CREATE FOREIGN TABLE', 'CREATE RULE',
        'CREATE SCHEMA', 'CREATE TABLE', 'CREATE TABLE AS', 'CREATE TRIGGER', 'DROP ACCESS METHOD',
        'DROP AGGREGATE', 'DROP CAST', 'DROP COLLATION', 'DROP CONVERSION', 'DROP DOMAIN',
        'DROP FOREIGN DATA WRAPPER', 'DROP FOREIGN TABLE', 'DROP FUNCTION', 'DROP LANGUAGE',
        'DROP MATERIALIZED VIEW', 'DROP OPERATOR', 'DROP OPERATOR CLASS', 'DROP OPERATOR FAMILY',
        'DROP OWNED', 'DROP PROCEDURE', 'DROP ROUTINE', 'DROP SCHEMA', 'DROP SEQUENCE', 'DROP SERVER',
        'DROP TABLE', 'DROP TRANSFORM', 'DROP TRIGGER', 'DROP TYPE', 'DROP VIEW', 'IMPORT FOREIGN SCHEMA',
        'SELECT INTO')
    EXECUTE FUNCTION sentry_end();
COMMENT ON EVENT TRIGGER ndrs_optout_sentry_end IS 'refuses what weakens a guard';
CREATE EVENT TRIGGER ndrs_optout_sentry_drop ON sql_drop EXECUTE FUNCTION sentry_drop();
COMMENT ON EVENT TRIGGER ndrs_optout_sentry_drop IS 'forgets the guards of tables that are dropped';
CREATE EVENT TRIGGER ndrs_optout_sentry_extension ON ddl_command_start
    WHEN TAG IN ('DROP EXTENSION') EXECUTE FUNCTION sentry_extension();
COMMENT ON EVENT TRIGGER ndrs_optout_sentry_extension IS
    'lets only a superuser drop the extension with what it depends on';
ALTER EVENT TRIGGER ndrs_optout_sentry_start ENABLE ALWAYS;
ALTER EVENT TRIGGER ndrs_optout_sentry_end ENABLE ALWAYS;
ALTER EVENT TRIGGER ndrs_optout_sentry_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER ndrs_optout_sentry_extension ENABLE ALWAYS;
