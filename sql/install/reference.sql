-- reference: links between tables that a site declares, for the erasure's walk: that no foreign
-- key is there for (declare_reference), and that lead to what belongs to a patient (declare_owned).

-- A link that the schema does not declare.  The walk goes by the numbers of columns: another
-- column that takes the name of one must not lead to another patient's rows.
CREATE TABLE reference (
    child          regclass,
    child_columns  name[],
    parent         regclass,
    parent_columns name[],
    child_attnums  smallint[] NOT NULL,
    parent_attnums smallint[] NOT NULL,
    PRIMARY KEY (child, child_columns, parent, parent_columns)
);
COMMENT ON TABLE reference IS 'links between tables that no foreign key declares, for the erasure''s walk';
COMMENT ON COLUMN reference.child_attnums IS 'the numbers of child_columns: renamed columns are followed by these';
COMMENT ON COLUMN reference.parent_attnums IS 'the numbers of parent_columns: renamed columns are followed by these';
SELECT pg_catalog.pg_extension_config_dump('reference', '');

CREATE FUNCTION number_reference() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.child_attnums := ndrs_optout.column_numbers(NEW.child, NEW.child_columns);
    NEW.parent_attnums := ndrs_optout.column_numbers(NEW.parent, NEW.parent_columns);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION number_reference() IS
    'internal: trigger function of reference: makes the numbers of columns from their names';
CREATE TRIGGER set_numbers BEFORE INSERT ON reference
    FOR EACH ROW EXECUTE FUNCTION number_reference();
COMMENT ON TRIGGER set_numbers ON reference IS 'a dump brings names, and columns may have other numbers';
ALTER TABLE reference ENABLE ALWAYS TRIGGER set_numbers;

-- Backends keep plans of erasures that rest on it (erasure_cache.c).  TRUNCATE tells them by itself.
CREATE TRIGGER invalidate_caches AFTER INSERT OR UPDATE OR DELETE ON reference
    FOR EACH ROW EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches ON reference IS 'backends make the plans of erasures again';
ALTER TABLE reference ENABLE ALWAYS TRIGGER invalidate_caches;

-- Rows of a parent that belong to the rows of a child that refer to them (erasure_owned.sql).
CREATE TABLE owned_parent (
    child          regclass,
    child_columns  name[],
    parent         regclass,
    parent_columns name[],
    child_attnums  smallint[] NOT NULL,
    parent_attnums smallint[] NOT NULL,
    PRIMARY KEY (child, child_columns, parent, parent_columns)
);
COMMENT ON TABLE owned_parent IS
    'which references lead to rows that belong to those that refer to them, for the erasure''s walk';
COMMENT ON COLUMN owned_parent.child_attnums IS 'the numbers of child_columns: renamed columns are followed by these';
COMMENT ON COLUMN owned_parent.parent_attnums IS
    'the numbers of parent_columns: renamed columns are followed by these';
SELECT pg_catalog.pg_extension_config_dump('owned_parent', '');
CREATE TRIGGER set_numbers BEFORE INSERT ON owned_parent
    FOR EACH ROW EXECUTE FUNCTION number_reference();
COMMENT ON TRIGGER set_numbers ON owned_parent IS 'a dump brings names, and columns may have other numbers';
ALTER TABLE owned_parent ENABLE ALWAYS TRIGGER set_numbers;
CREATE TRIGGER invalidate_caches AFTER INSERT OR UPDATE OR DELETE ON owned_parent
    FOR EACH ROW EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches ON owned_parent IS 'backends make the plans of erasures again';
ALTER TABLE owned_parent ENABLE ALWAYS TRIGGER invalidate_caches;

CREATE VIEW owned_table AS
    SELECT DISTINCT d.relation FROM owned_parent o CROSS JOIN LATERAL erasure_descendants(o.parent) AS d;
COMMENT ON VIEW owned_table IS 'internal: the tables whose rows belong to those that refer to them';

-- Are columns linked by pairs the same, in whatever order?
CREATE FUNCTION same_columns(child_attnums smallint[], parent_attnums smallint[], other_child_attnums smallint[],
                             other_parent_attnums smallint[]) RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT cardinality(child_attnums) = cardinality(other_child_attnums) AND NOT EXISTS (
        SELECT FROM unnest(child_attnums, parent_attnums) AS k (child, parent)
            WHERE k.parent IS DISTINCT FROM other_parent_attnums[array_position(other_child_attnums, k.child)])
$$;
COMMENT ON FUNCTION same_columns(smallint[], smallint[], smallint[], smallint[]) IS
    'internal: whether two links of columns of a child to columns of a parent are the same, in whatever order';

-- The operator that says whether two columns hold the same, when the types do
-- ("=" may be another type's: citext has its own); else NULL.
CREATE FUNCTION erasure_equality(type oid, other_type oid) RETURNS oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT o.amopopr FROM pg_opclass c
        JOIN pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
        JOIN pg_amop o ON o.amopfamily = c.opcfamily AND o.amopstrategy = 3
            AND o.amoplefttype = c.opcintype AND o.amoprighttype = c.opcintype
        WHERE c.opcdefault AND c.opcintype = type AND type = other_type
$$;
COMMENT ON FUNCTION erasure_equality(oid, oid) IS
    'internal: equality operator of the type that two columns share, or NULL';
