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
        WHERE c.opcdefault AND c.opcintype = ndrs_optout.erasure_base_type(type)
            AND ndrs_optout.erasure_base_type(type) = ndrs_optout.erasure_base_type(other_type)
$$;
COMMENT ON FUNCTION erasure_equality(oid, oid) IS
    'internal: equality operator of the type that two columns share, or NULL';

-- The type whose btree operators compare values of a type, when it has none of its own, and
-- their family.
CREATE FUNCTION comparing_type(type oid, OUT input_type oid, OUT family oid)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.opcintype, c.opcfamily
        FROM pg_opclass c JOIN pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
        LEFT JOIN pg_cast k ON k.castsource = ndrs_optout.erasure_base_type(type) AND k.casttarget = c.opcintype
            AND k.castmethod = 'b' AND k.castcontext = 'i'
        WHERE c.opcdefault AND (c.opcintype = ndrs_optout.erasure_base_type(type) OR k.oid IS NOT NULL)
        ORDER BY k.oid IS NOT NULL, c.opcintype LIMIT 1
$$;
COMMENT ON FUNCTION comparing_type(oid) IS
    'internal: the type whose operators compare values of a type, and their operator family; NULL: none does';

-- Read from rows of the catalogue: the sentry asks about a domain that is dropped by now.
CREATE FUNCTION stored_base_type(type oid) RETURNS oid
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    base oid := type;
    next oid;
BEGIN
    LOOP
        SELECT t.typbasetype INTO next FROM pg_type t WHERE t.oid = base AND t.typtype = 'd';
        EXIT WHEN NOT FOUND;
        base := next;
    END LOOP;
    RETURN base;
END
$$;
COMMENT ON FUNCTION stored_base_type(oid) IS
    'internal: what a domain is made of, as erasure_base_type(), but with whatever snapshot';

-- Whether "=" between these types takes for equal what is, and nothing else, as it must be for a
-- row to be the patient's: as in a foreign key.  Not through a type that rounds (float), nor by
-- the session's time zone, nor where each type has an equality of its own (citext and text).
CREATE FUNCTION reference_is_comparable(type oid, other_type oid) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    base oid := ndrs_optout.stored_base_type(type);
    other_base oid := ndrs_optout.stored_base_type(other_type);
    one record;
    other record;
    zoned CONSTANT oid[] := '{timestamptz,timetz}'::regtype[];
    rounded CONSTANT oid[] := '{float4,float8}'::regtype[];
BEGIN
    SELECT * INTO one FROM ndrs_optout.comparing_type(base);
    SELECT * INTO other FROM ndrs_optout.comparing_type(other_base);
    IF base = other_base THEN
        RETURN one.input_type IS NOT NULL OR EXISTS (SELECT FROM pg_type t WHERE t.oid = base AND t.typtype = 'e');
    END IF;
    IF one.input_type = ANY (zoned) <> (other.input_type = ANY (zoned)) THEN
        RETURN false;
    ELSIF one.family = other.family THEN
        RETURN EXISTS (SELECT FROM pg_amop o
                       WHERE o.amopfamily = one.family AND o.amopstrategy = 3
                           AND o.amoplefttype = one.input_type AND o.amoprighttype = other.input_type);
    END IF;
    RETURN one.input_type <> ALL (rounded) AND other.input_type <> ALL (rounded) AND EXISTS (
        SELECT FROM pg_cast k
            WHERE k.castcontext = 'i' AND k.castmethod = 'f'
                AND (k.castsource, k.casttarget) IN ((one.input_type, other.input_type),
                                                     (other.input_type, one.input_type)));
END
$$;
COMMENT ON FUNCTION reference_is_comparable(oid, oid) IS
    'internal: whether columns of two types can refer to each other: what "=" takes for equal is';

-- The pairs of columns of a reference that cannot refer to each other, since one has another type
-- by now.
CREATE FUNCTION reference_incomparable(child oid, child_attnums smallint[], parent oid, parent_attnums smallint[])
RETURNS TABLE (child_attnum smallint, parent_attnum smallint)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT c.attnum, p.attnum
            FROM unnest(child_attnums, parent_attnums) WITH ORDINALITY AS n (child_attnum, parent_attnum, position)
            JOIN pg_attribute c ON c.attrelid = child AND c.attnum = n.child_attnum AND NOT c.attisdropped
            JOIN pg_attribute p ON p.attrelid = parent AND p.attnum = n.parent_attnum AND NOT p.attisdropped
            WHERE NOT ndrs_optout.reference_is_comparable(c.atttypid, p.atttypid)
                -- Texts that are one to the child may be two parents.
                OR c.attcollation <> p.attcollation AND EXISTS (
                    SELECT FROM pg_collation o WHERE o.oid = c.attcollation AND NOT o.collisdeterministic)
            ORDER BY n.position;
END
$$;
COMMENT ON FUNCTION reference_incomparable(oid, smallint[], oid, smallint[]) IS
    'internal: the pairs of columns of a reference whose types, or collations, cannot be compared';

-- The collation that compares a parent's column with a child's, where one of theirs takes
-- different texts for equal: by the parent's, each text is of one row.
CREATE FUNCTION reference_collation(parent_collation oid, child_collation oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(' COLLATE %I.%I', n.nspname, o.collname)
        FROM pg_collation o JOIN pg_namespace n ON n.oid = o.collnamespace
        WHERE o.oid = parent_collation AND EXISTS (
            SELECT FROM pg_collation d
                WHERE d.oid IN (parent_collation, child_collation) AND NOT d.collisdeterministic)
$$;
COMMENT ON FUNCTION reference_collation(oid, oid) IS
    'internal: the COLLATE clause for a comparison of columns with these collations, or NULL where it does not matter';

CREATE FUNCTION column_type(relation oid, attnum smallint) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format_type(a.atttypid, a.atttypmod)
           || CASE WHEN a.attcollation <> t.typcollation THEN format(' COLLATE %s', a.attcollation::regcollation)
                   ELSE '' END
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = relation AND a.attnum = column_type.attnum
$$;
COMMENT ON FUNCTION column_type(oid, smallint) IS
    'internal: the type of a column, with its collation if that is not the type''s own';

-- The condition that rows t of a table cannot have these columns set to NULL, or to their default if
-- that is what the foreign key does: in the table or in some of its partitions; NULL: all can.
CREATE FUNCTION refusing_null(relation regclass, columns name[], to_default boolean) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    refusing regclass[];
BEGIN
    IF columns IS NULL THEN
        RETURN NULL;
    END IF;
    refusing := ARRAY(
        SELECT DISTINCT d.relation FROM ndrs_optout.erasure_descendants(relation) AS d
            JOIN pg_attribute a ON a.attrelid = d.relation AND a.attname = ANY (columns) AND NOT a.attisdropped
            JOIN pg_type t ON t.oid = a.atttypid
            WHERE (a.attnotnull OR t.typnotnull) AND NOT (to_default AND a.atthasdef)
            ORDER BY d.relation);
    RETURN CASE WHEN relation = ANY (refusing) THEN 'true'
        WHEN refusing <> '{}' THEN
            format('t.tableoid IN (%s)', (SELECT string_agg(r::oid::text, ', ') FROM unnest(refusing) AS r)) END;
END
$$;
COMMENT ON FUNCTION refusing_null(regclass, name[], boolean) IS
    'internal: the condition that rows t of a table refuse what ON DELETE SET NULL, or SET DEFAULT, does to columns';
