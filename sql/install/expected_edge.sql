-- expected_edge: what the erasure's walk has followed so far, so that a walk that is shorter
-- than it was shows.
--
-- An edge leads from a parent table to a child: a foreign key or a declared reference.  The
-- walk begins at guarded columns, which are edges without a parent.  What is there, tables
-- guard and reference and the catalogues say; what was there, this table does.  It is
-- compared with what is there in lost_edge.sql.
--
-- Columns are known by number and by name.  Numbers follow a rename, and names a dump, where
-- dropped columns leave no number behind.  Numbers are made from the names as a row comes in.

CREATE TABLE expected_edge (
    edge_id        uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),  -- no sequence: a restore makes rows, too
    kind           text NOT NULL CHECK (kind = ANY (words('edge_kind'))),
    child          regclass NOT NULL,
    child_name     text NOT NULL,
    child_columns  name[] NOT NULL,
    child_attnums  smallint[] NOT NULL,  -- none of a guarded column: the constraint of its guard knows it
    parent         regclass,  -- NULL, with its name and columns: a guarded column
    parent_name    text,
    parent_columns name[],
    parent_attnums smallint[],
    recorded_at    timestamptz NOT NULL DEFAULT pg_catalog.now(),
    lost_at        timestamptz  -- when a superuser has let it be lost
);
COMMENT ON TABLE expected_edge IS
    'internal: the guarded columns, foreign keys and declared references that erasures have followed, with the names '
    'that they had when they were last seen; what is here and not there any more is a gap';
CREATE INDEX expected_edge_child ON expected_edge (child);
CREATE INDEX expected_edge_parent ON expected_edge (parent);
CREATE INDEX expected_edge_child_name ON expected_edge (child_name);
CREATE INDEX expected_edge_parent_name ON expected_edge (parent_name);
SELECT pg_catalog.pg_extension_config_dump('expected_edge', '');

-- Backends remember which edges are lost (erasure_cache.c).  TRUNCATE tells them by itself.
CREATE TRIGGER invalidate_caches AFTER INSERT OR UPDATE OR DELETE ON expected_edge
    FOR EACH ROW EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches ON expected_edge IS 'backends look for lost edges again';
ALTER TABLE expected_edge ENABLE ALWAYS TRIGGER invalidate_caches;

-- Gaps that were looked at and found to be none.
CREATE TABLE accepted_gap (
    acceptance  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    gap         text NOT NULL,
    relation    regclass,
    object      text,
    reason      text NOT NULL,
    severity    text NOT NULL,
    accepted_by name NOT NULL DEFAULT session_user,
    accepted_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    UNIQUE NULLS NOT DISTINCT (gap, relation, object)
);
COMMENT ON TABLE accepted_gap IS
    'gaps that were looked at and accepted, with the reason; guard_coverage() leaves them out';
SELECT pg_catalog.pg_extension_config_dump('accepted_gap', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.accepted_gap', 'acceptance')::regclass, '');
CREATE TRIGGER invalidate_caches AFTER INSERT OR UPDATE OR DELETE ON accepted_gap
    FOR EACH ROW EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches ON accepted_gap IS 'backends look for lost edges again';
ALTER TABLE accepted_gap ENABLE ALWAYS TRIGGER invalidate_caches;

-- The numbers of columns; 0 for one that is not there, which is no column's number.
CREATE FUNCTION column_numbers(relation oid, columns name[]) RETURNS smallint[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        SELECT coalesce((SELECT a.attnum FROM pg_attribute a
                             WHERE a.attrelid = relation AND a.attname = c.name AND a.attnum > 0
                                 AND NOT a.attisdropped), 0)::smallint
            FROM unnest(columns) WITH ORDINALITY AS c (name, position) ORDER BY c.position);
END
$$;
COMMENT ON FUNCTION column_numbers(oid, name[]) IS
    'internal: the numbers of columns of a table by their names; 0 for one that is not there';

-- The table of this name, read from the rows of the catalogues, with whatever snapshot.
CREATE FUNCTION table_of_name(name text) RETURNS oid
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    words text[] := parse_ident(name);
BEGIN
    RETURN (SELECT c.oid FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
                WHERE n.nspname = words[1] AND c.relname = words[2] AND c.relkind IN ('r', 'p', 'f'));
END
$$;
COMMENT ON FUNCTION table_of_name(text) IS 'internal: the table of this name, which has a schema, or NULL';

CREATE FUNCTION name_of_table(relation oid) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.oid = relation);
END
$$;
COMMENT ON FUNCTION name_of_table(oid) IS 'internal: the name of a table, always with its schema, or NULL';

-- A table that was gone when it was dumped comes as a bare number, which may be another
-- one's by now.
CREATE FUNCTION expected_table(relation oid, name text) RETURNS oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT c.oid FROM pg_class c WHERE c.oid = relation AND c.relname = (parse_ident(name))[2]),
                    ndrs_optout.table_of_name(name), relation)
$$;
COMMENT ON FUNCTION expected_table(oid, text) IS
    'internal: the table of an expected edge: that of the number, if the name is its own, or else that of the name';

CREATE FUNCTION number_expected_edge() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.child := ndrs_optout.expected_table(NEW.child, NEW.child_name);
    NEW.child_attnums := CASE NEW.kind WHEN 'guard' THEN '{}'
        ELSE ndrs_optout.column_numbers(NEW.child, NEW.child_columns) END;
    IF NEW.parent IS NOT NULL THEN
        NEW.parent := ndrs_optout.expected_table(NEW.parent, NEW.parent_name);
        NEW.parent_attnums := ndrs_optout.column_numbers(NEW.parent, NEW.parent_columns);
    END IF;
    -- guard_table() and a restore may both bring it.
    IF EXISTS (SELECT FROM ndrs_optout.expected_edge e
               WHERE e.child = NEW.child AND e.child_name = NEW.child_name AND e.child_columns = NEW.child_columns
                   AND e.child_attnums = NEW.child_attnums
                   AND (e.parent, e.parent_name, e.parent_columns, e.parent_attnums)
                       IS NOT DISTINCT FROM (NEW.parent, NEW.parent_name, NEW.parent_columns, NEW.parent_attnums)) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION number_expected_edge() IS
    'internal: trigger function of expected_edge: makes the numbers of tables and columns from their names; leaves out '
    'an edge that is there already';
CREATE TRIGGER set_numbers BEFORE INSERT ON expected_edge
    FOR EACH ROW EXECUTE FUNCTION number_expected_edge();
COMMENT ON TRIGGER set_numbers ON expected_edge IS 'a dump brings names, and columns may have other numbers';
ALTER TABLE expected_edge ENABLE ALWAYS TRIGGER set_numbers;

CREATE FUNCTION forget_guarded_column(target regclass, nhs_number_column name) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM ndrs_optout.expected_edge e
        WHERE e.kind = 'guard' AND e.child = target
            AND (nhs_number_column IS NULL OR e.child_columns = ARRAY[nhs_number_column])
$$;
COMMENT ON FUNCTION forget_guarded_column(regclass, name) IS
    'internal: a guarded column of a table, or each if NULL, is no longer expected to be guarded';

-- A foreign key that leads the same way is expected again at once (lost_edge.sql).
CREATE FUNCTION forget_reference(child regclass, child_columns name[], parent regclass, parent_columns name[])
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM ndrs_optout.expected_edge e
        WHERE e.child = forget_reference.child AND e.child_columns = forget_reference.child_columns
            AND e.parent = forget_reference.parent AND e.parent_columns = forget_reference.parent_columns
$$;
COMMENT ON FUNCTION forget_reference(regclass, name[], regclass, name[]) IS
    'internal: a declared reference is no longer expected';
