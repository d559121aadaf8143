-- table_tree: partitions, inheritance children and their ancestors.

-- What a domain is made of, at the bottom; another type is its own base.
CREATE FUNCTION erasure_base_type(type oid) RETURNS oid
    AS 'MODULE_PATHNAME', 'ndrs_optout_erasure_base_type'
    LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION erasure_base_type(oid) IS 'internal: what a domain is made of; another type is its own base';

-- A table and those that it is a partition or an inheritance child of.  Only
-- partitions hold rows that a foreign key to an ancestor refers to.
CREATE FUNCTION erasure_lineage(relation regclass)
RETURNS TABLE (ancestor regclass, by_partition boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        WITH RECURSIVE lineage (ancestor, by_partition) AS (
            SELECT relation, true
            UNION ALL
            SELECT i.inhparent::regclass, l.by_partition AND c.relispartition
                FROM lineage l
                JOIN pg_inherits i ON i.inhrelid = l.ancestor
                JOIN pg_class c ON c.oid = i.inhrelid)
        SELECT DISTINCT l.ancestor, l.by_partition FROM lineage l;
END
$$;
COMMENT ON FUNCTION erasure_lineage(regclass) IS
    'internal: a table and its ancestors; by_partition: through partitions only';

-- A table and its partitions and inheritance children, of any depth.
CREATE FUNCTION erasure_descendants(ancestor regclass) RETURNS TABLE (relation regclass)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        WITH RECURSIVE below (relation) AS (
            SELECT ancestor
            UNION
            SELECT i.inhrelid::regclass FROM below b JOIN pg_inherits i ON i.inhparent = b.relation)
        SELECT b.relation FROM below b;
END
$$;
COMMENT ON FUNCTION erasure_descendants(regclass) IS 'internal: a table, its partitions and its inheritance children';

-- The lineage of each table of a tree, all at once: partitions are thousands.
CREATE FUNCTION erasure_lineages(relation regclass)
RETURNS TABLE (leaf regclass, ancestor regclass, by_partition boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        WITH RECURSIVE line (leaf, ancestor, by_partition) AS (
            SELECT d.relation, d.relation, true FROM ndrs_optout.erasure_descendants(erasure_lineages.relation) AS d
            UNION
            SELECT l.leaf, i.inhparent::regclass, l.by_partition AND c.relispartition
                FROM line l
                JOIN pg_inherits i ON i.inhrelid = l.ancestor
                JOIN pg_class c ON c.oid = i.inhrelid)
        SELECT l.* FROM line l;
END
$$;
COMMENT ON FUNCTION erasure_lineages(regclass) IS
    'internal: a table, its partitions and its inheritance children, each with itself and its ancestors; by_partition: '
    'through partitions only';
