-- guard_copies: what else in this database, and behind it, may hold what the tables of
-- the erasure's walk hold.

-- How many of the values looked at in each column of a table are NHS numbers: up to wanted
-- values from up to pages pages, spread over the table.  Nothing that the table's owner has
-- made is called, and no other session is waited for.  obstacle: what kept the look from
-- its end, as what follows the table's name in a sentence.
CREATE FUNCTION guard_sample(relation regclass, columns name[], wanted integer, pages integer, until timestamptz,
    OUT numbers bigint[], OUT sampled bigint[], OUT obstacle text)
    AS 'MODULE_PATHNAME', 'ndrs_optout_guard_sample'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION guard_sample(regclass, name[], integer, integer, timestamptz) IS
    'internal: for each column, how many of up to wanted values from up to pages pages of a table are NHS numbers, '
    'and how many values were looked at; obstacle: what kept the look from its end, such as a lock of another session '
    'or the time. Calls nothing of the table''s owner and waits for no lock';

CREATE FUNCTION names_nhs_number(column_name name) RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT column_name ~* 'nhs[ _-]*(n|id|$)'
$$;
COMMENT ON FUNCTION names_nhs_number(name) IS 'internal: whether a column''s name says that it holds NHS numbers';

-- Columns that no guard names and that hold NHS numbers, by their name or by what a sample
-- holds: random numbers pass the check digit once in eleven times.  What could not be
-- looked at is a row with an obstacle.  Small tables come first, so that the time reaches
-- most of them.  Without a time limit, columns are judged by their names alone.
CREATE FUNCTION unguarded_columns(time_limit interval DEFAULT '5 s')
RETURNS TABLE (relation regclass, column_name name, numbers bigint, sampled bigint, obstacle text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    until timestamptz := clock_timestamp() + time_limit;
    candidate record;
    leaves regclass[];
    leaf regclass;
    leaf_numbers bigint[];
    leaf_sampled bigint[];
    all_numbers bigint[];
    all_sampled bigint[];
BEGIN
    FOR candidate IN
        WITH guarded AS MATERIALIZED (
            SELECT d.relation, g.nhs_number_column
                FROM ndrs_optout.guard g CROSS JOIN LATERAL ndrs_optout.erasure_descendants(g.target) AS d)
        SELECT c.oid::regclass AS relation, c.relkind, array_agg(a.attname ORDER BY a.attname) AS columns,
               array_agg(ndrs_optout.names_nhs_number(a.attname) ORDER BY a.attname) AS named
            FROM pg_class c
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT c.relispartition
                AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'ndrs_optout'::regnamespace,
                                           'information_schema'::regnamespace)
                AND ndrs_optout.guard_reads(a.atttypid)
                AND NOT EXISTS (SELECT FROM guarded g WHERE g.relation = c.oid AND g.nhs_number_column = a.attname)
            GROUP BY c.oid
            ORDER BY c.relpages, c.oid
    LOOP
        all_numbers := array_fill(NULL::bigint, ARRAY[cardinality(candidate.columns)]);
        all_sampled := all_numbers;
        leaves := CASE WHEN time_limit IS NULL THEN '{}' WHEN candidate.relkind = 'r' THEN ARRAY[candidate.relation]
            ELSE ARRAY(SELECT c.oid FROM ndrs_optout.erasure_descendants(candidate.relation) AS d
                           JOIN pg_class c ON c.oid = d.relation AND c.relkind = 'r' ORDER BY c.oid) END;
        FOREACH leaf IN ARRAY leaves LOOP
            BEGIN
                SELECT g.numbers, g.sampled, g.obstacle INTO leaf_numbers, leaf_sampled, obstacle
                    FROM ndrs_optout.guard_sample(leaf, candidate.columns, 200 / least(cardinality(leaves), 10),
                                                  greatest(1024 / cardinality(leaves), 8), until) AS g;
            EXCEPTION WHEN OTHERS THEN  -- a damaged page, a file that cannot be read
                leaf_numbers := NULL;
                leaf_sampled := NULL;
                obstacle := format('cannot be read: SQLSTATE %s', SQLSTATE);
            END;
            SELECT array_agg(coalesce(o.n + t.n, o.n, t.n) ORDER BY i),
                array_agg(coalesce(o.s + t.s, o.s, t.s) ORDER BY i)
                INTO all_numbers, all_sampled
                FROM unnest(all_numbers, all_sampled) WITH ORDINALITY AS t (n, s, i)
                LEFT JOIN unnest(leaf_numbers, leaf_sampled) WITH ORDINALITY AS o (n, s, i) USING (i);
            IF obstacle IS NOT NULL THEN
                relation := leaf;
                RETURN NEXT;
            END IF;
            EXIT WHEN 200 <= ALL (all_sampled);
        END LOOP;
        RETURN QUERY
            SELECT candidate.relation, t.name, t.numbers, t.sampled, NULL::text
                FROM unnest(candidate.columns, candidate.named, all_numbers,
                            all_sampled) AS t (name, named, numbers, sampled)
                WHERE CASE WHEN t.named THEN (t.numbers = 0 AND t.sampled > 0) IS NOT TRUE
                           ELSE t.numbers >= 10 AND t.numbers * 2 > t.sampled END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION unguarded_columns(interval) IS
    'internal: columns that no guard names and that seem to hold NHS numbers: how many of the values sampled do, NULL '
    'where none was; with an obstacle and no column, tables that were not looked at to the end. Looks no longer than '
    'time_limit; when that is NULL, columns are judged by their names alone';

-- Columns whose names say that they hold NHS numbers, of types that no guard reads, and how a
-- guard can read them: by another type, or by a generated column, which a guard's
-- constraint reads.  None that such a column is made of already, guarded or declared.
CREATE FUNCTION guard_unreadable_columns() RETURNS TABLE (relation regclass, column_name name, what_to_do text)
LANGUAGE sql STABLE
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
    WITH candidate AS MATERIALIZED (
        SELECT c.oid AS relation, a.attnum, a.attname, ndrs_optout.erasure_base_type(a.atttypid) AS base_type
            FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
            WHERE (t.typcategory IN ('A', 'C', 'R', 'S', 'U') OR t.oid IN ('float4'::regtype, 'float8'::regtype)
                   OR t.typtype = 'd')
                AND ndrs_optout.names_nhs_number(a.attname) AND a.attnum > 0 AND NOT a.attisdropped
                AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND NOT c.relispartition
                AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'ndrs_optout'::regnamespace,
                                           'information_schema'::regnamespace)
                AND NOT ndrs_optout.guard_reads(a.atttypid)),
    typed AS (
        SELECT n.*, t.typname, t.typcategory,
               CASE WHEN t.typcategory = 'A' THEN format('%I[1]::text', n.attname)
                    WHEN t.typname IN ('json', 'jsonb') AND t.typnamespace = 'pg_catalog'::regnamespace
                        THEN format('%I ->> ''nhs_number''', n.attname)
                    WHEN t.typcategory = 'R' THEN format('lower(%I)::text', n.attname)
                    WHEN t.oid = 'bytea'::regtype THEN format('encode(%I, ''escape'')', n.attname)
                    WHEN t.typcategory = 'C' THEN (
                        SELECT format('(%I).%I::text', n.attname, f.attname) FROM pg_attribute f
                            WHERE f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped
                                AND ndrs_optout.guard_reads(f.atttypid)
                            ORDER BY ndrs_optout.names_nhs_number(f.attname) DESC, f.attnum LIMIT 1)
               END AS expression
            FROM candidate n JOIN pg_type t ON t.oid = n.base_type
            WHERE (t.typcategory IN ('A', 'C', 'R', 'S', 'U') OR t.oid IN ('float4'::regtype, 'float8'::regtype))
                AND t.typnamespace <> 'ndrs_optout'::regnamespace)
    SELECT n.relation::regclass, n.attname,
           CASE WHEN n.typcategory = 'S' OR n.base_type = 'float8'::regtype
                    THEN format('ALTER TABLE %1$s ALTER %2$I TYPE %4$s; then SELECT ndrs_optout.guard_table(%1$L, '
                                '%3$L, ...)', n.relation::regclass, n.attname, n.attname,
                                CASE n.typcategory WHEN 'S' THEN 'text' ELSE 'bigint' END)
                WHEN n.base_type = 'float4'::regtype
                    THEN 'Type real does not keep ten digits: load the numbers into a column of type bigint, and guard '
                         'that.'
                WHEN n.expression IS NOT NULL
                    THEN format('ALTER TABLE %1$s ADD %2$I text GENERATED ALWAYS AS (%3$s) STORED%5$s; then SELECT '
                                'ndrs_optout.guard_table(%1$L, %4$L, ..., mechanism => ''constraint'')',
                                n.relation::regclass, left(n.attname, 55) || '_text', n.expression,
                                left(n.attname, 55) || '_text',
                                CASE WHEN n.typcategory = 'A' THEN ', and one for each other element'
                                     WHEN n.typname IN ('json', 'jsonb') THEN ', with the key that holds the number'
                                END)
                ELSE format('No guard reads type %s. If it holds numbers, put them into a column of type text, and '
                            'guard that.', format_type(n.base_type, NULL)) END
        FROM typed n
        WHERE NOT EXISTS (
            SELECT FROM pg_attrdef x
                JOIN pg_attribute g ON g.attrelid = x.adrelid AND g.attnum = x.adnum AND g.attgenerated <> ''
                JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = x.oid
                    AND d.refclassid = 'pg_class'::regclass AND d.refobjid = x.adrelid AND d.refobjsubid = n.attnum
                WHERE x.adrelid = n.relation
                    AND (EXISTS (SELECT FROM ndrs_optout.guard u
                                     WHERE u.target = n.relation AND u.nhs_number_column = g.attname)
                         OR EXISTS (SELECT FROM ndrs_optout.erasure_edge e
                                        WHERE e.declared AND e.child = n.relation
                                            AND g.attname = ANY (e.child_columns))))
$$;
COMMENT ON FUNCTION guard_unreadable_columns() IS
    'internal: columns named like NHS numbers, of types that no guard reads, and how a guard can read them';

-- Tables outside the walk with the key of a table in it, by name and kind of type: an
-- extract, say.  A key is what the walk's references use, on both sides, or is unique; one
-- that is named as any key may be, such as "id", is none, nor is a guarded number.  A table whose columns
-- refer to something else by a foreign key, or that the walk's tables refer to by them, has
-- another thing's key.  One row for each table, by the key that is next to a guarded number.
CREATE FUNCTION guard_copied_keys(walk regclass[])
RETURNS TABLE (relation regclass, relkind "char", columns name[], commands text)
LANGUAGE sql STABLE
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
    WITH walked AS MATERIALIZED (
        SELECT c.oid FROM unnest(walk) AS w (relation) JOIN pg_class c ON c.oid = w.relation),
    edge AS MATERIALIZED (
        SELECT e.parent::oid AS parent, e.child::oid AS child, e.parent_columns, e.child_columns
            FROM ndrs_optout.erasure_edge e JOIN walked w ON w.oid = e.parent),
    unique_key AS MATERIALIZED (
        SELECT i.indrelid AS parent,
               (SELECT array_agg(a.attname ORDER BY k.n) FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n)
                    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                    WHERE k.n <= i.indnkeyatts) AS parent_columns
            FROM pg_index i JOIN walked w ON w.oid = i.indrelid JOIN pg_class c ON c.oid = w.oid
            WHERE i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL AND NOT c.relispartition),
    named AS (
        SELECT e.child_columns AS columns, e.child AS typed_by, e.child_columns AS typed_columns,
               e.parent, e.parent_columns, 1 AS uses FROM edge e
        UNION ALL
        SELECT e.parent_columns, e.parent, e.parent_columns, e.parent, e.parent_columns, 1 FROM edge e
        UNION ALL
        SELECT u.parent_columns, u.parent, u.parent_columns, u.parent, u.parent_columns, 0 FROM unique_key u),
    key AS MATERIALIZED (
        SELECT row_number() OVER () AS key_id, n.columns, min(n.typed_by) AS typed_by, n.parent, n.parent_columns,
               sum(n.uses) AS uses,
               EXISTS (SELECT FROM ndrs_optout.guard g WHERE g.target = n.parent) AS guarded
            FROM named n
            WHERE NOT EXISTS (SELECT FROM edge e WHERE e.child = n.parent AND e.child <> e.parent
                                  AND e.child_columns = n.parent_columns)
                AND NOT n.columns <@ '{id,key,code,name,number,no,seq,year,date,uuid,guid,oid}'::name[]
                AND NOT EXISTS (SELECT FROM ndrs_optout.guard g
                                    WHERE g.nhs_number_column = ANY (n.columns || n.parent_columns)
                                        AND g.target IN (n.parent, n.typed_by))
            GROUP BY n.columns, n.parent, n.parent_columns),
    domain AS MATERIALIZED (
        SELECT t.oid, ndrs_optout.erasure_base_type(t.oid) AS base_type FROM pg_type t WHERE t.typtype = 'd'),
    key_column AS MATERIALIZED (
        SELECT k.key_id, c.column_name, t.oid AS type, t.typcategory
            FROM key k CROSS JOIN LATERAL unnest(k.columns) AS c (column_name)
            JOIN pg_attribute a ON a.attrelid = k.typed_by AND a.attname = c.column_name
            LEFT JOIN domain d ON d.oid = a.atttypid
            JOIN pg_type t ON t.oid = coalesce(d.base_type, a.atttypid)),
    outside AS MATERIALIZED (
        SELECT c.oid, c.relkind FROM pg_class c
            WHERE c.relkind IN ('r', 'p', 'm', 'f') AND c.relpersistence <> 't' AND NOT c.relispartition
                AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'ndrs_optout'::regnamespace,
                                           'information_schema'::regnamespace)
                AND NOT EXISTS (SELECT FROM walked w WHERE w.oid = c.oid)
                AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                                    AND d.deptype = 'e')),
    copy AS (
        SELECT o.oid, o.relkind, k.key_id, array_agg(a.attnum) AS attnums
            FROM outside o
            JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
            JOIN key_column k ON k.column_name = a.attname
            LEFT JOIN domain d ON d.oid = a.atttypid
            JOIN pg_type t ON t.oid = coalesce(d.base_type, a.atttypid)
            WHERE t.oid = k.type OR t.typcategory = k.typcategory AND t.typcategory IN ('N', 'S')
            GROUP BY o.oid, o.relkind, k.key_id),
    complete AS (
        SELECT y.oid, y.relkind, k.columns, max(k.uses) AS uses, bool_or(k.guarded) AS guarded,
               string_agg(format('SELECT ndrs_optout.declare_reference(%L, %L, %L, %L)', y.oid::regclass, k.columns,
                                 k.parent::regclass, k.parent_columns), ' or ' ORDER BY k.parent::regclass::text)
                   AS commands
            FROM copy y JOIN key k ON k.key_id = y.key_id AND cardinality(k.columns) = cardinality(y.attnums)
            WHERE NOT EXISTS (SELECT FROM pg_constraint f
                                  WHERE f.conrelid = y.oid AND f.contype = 'f' AND f.conkey && y.attnums)
                AND NOT EXISTS (SELECT FROM pg_constraint f JOIN walked w ON w.oid = f.conrelid
                                    WHERE f.confrelid = y.oid AND f.contype = 'f' AND f.confkey && y.attnums)
            GROUP BY y.oid, y.relkind, k.columns)
    SELECT DISTINCT ON (m.oid) m.oid::regclass, m.relkind, m.columns, m.commands
        FROM complete m
        ORDER BY m.oid, m.guarded DESC, m.uses DESC, cardinality(m.columns) DESC, m.columns
$$;
COMMENT ON FUNCTION guard_copied_keys(regclass[]) IS
    'internal: tables, materialized views and foreign tables outside the erasure''s walk that have the key of a table '
    'in it, and the command that declares the reference, or one for each table that the key may be of';

-- The tables of pglogical's replication sets.  Its own tables, and no others of their names.
CREATE FUNCTION guard_pglogical_sets() RETURNS TABLE (relation regclass, set_name name, all_changes boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sets regclass;
    members regclass;
BEGIN
    SELECT max(c.oid) FILTER (WHERE c.relname = 'replication_set'),
           max(c.oid) FILTER (WHERE c.relname = 'replication_set_table')
        INTO sets, members
        FROM pg_extension x
        JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = x.oid AND d.deptype = 'e'
            AND d.classid = 'pg_class'::regclass
        JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'r'
        JOIN pg_roles o ON o.oid = c.relowner AND o.rolsuper
        WHERE x.extname = 'pglogical';
    IF sets IS NOT NULL AND members IS NOT NULL THEN
        FOR relation, set_name, all_changes IN EXECUTE format(
            'SELECT m.set_reloid::regclass, s.set_name,
                    s.replicate_update AND s.replicate_delete AND s.replicate_truncate
                 FROM %s m JOIN %s s ON s.set_id = m.set_id', members, sets)
        LOOP
            RETURN NEXT;
        END LOOP;
    END IF;
END
$$;
COMMENT ON FUNCTION guard_pglogical_sets() IS
    'internal: the tables of pglogical''s replication sets, and whether a set sends all changes, as its catalogue says';

-- The trigger function of the server's extension "lo" unlinks the large object of a row.  Only a
-- superuser makes a function in C.
CREATE FUNCTION guard_is_lo_manage(pg_proc) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT $1.prosrc = 'lo_manage' AND $1.probin LIKE '%/lo'
        AND $1.prolang = (SELECT l.oid FROM pg_language l WHERE l.lanname = 'c')
$$;
COMMENT ON FUNCTION guard_is_lo_manage(pg_proc) IS
    'internal: whether a function is the trigger of extension lo, which unlinks large objects and copies nothing';

-- The gaps of guard_coverage() that are about copies.  walk: every table that an
-- erasure can come to.
CREATE FUNCTION guard_copies(walk regclass[], time_limit interval)
RETURNS TABLE (severity text, gap text, relation regclass, object text, what_to_do text)
LANGUAGE sql
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE guard_walk AS MATERIALIZED (SELECT w.relation FROM unnest(walk) AS w (relation)),
        -- Views of the walk's tables, and of these views
        reader (relation) AS (
            SELECT w.relation FROM guard_walk w
            UNION
            SELECT r.ev_class FROM reader b
                JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = b.relation
                    AND d.classid = 'pg_rewrite'::regclass
                JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_type = '1'),
        repacked AS MATERIALIZED (
            SELECT c.oid::regclass AS relation
                FROM pg_extension x
                JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = x.oid AND d.deptype = 'e'
                    AND d.classid = 'pg_proc'::regclass
                JOIN pg_proc f ON f.oid = d.objid AND f.proname = 'repack_trigger'
                JOIN pg_class c ON c.relkind = 'r' AND (
                    c.relnamespace = f.pronamespace AND c.relname ~ '^(log|table)_[0-9]+$'
                    OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = f.oid))
                WHERE x.extname = 'pg_repack'),
        looked AS MATERIALIZED (SELECT u.* FROM ndrs_optout.unguarded_columns(time_limit) AS u)
    SELECT CASE WHEN u.numbers > 0 THEN 'high' ELSE 'medium' END, 'unguarded_nhs_numbers', u.relation,
           u.column_name::text,
           format(CASE (SELECT a.attgenerated FROM pg_attribute a
                            WHERE a.attrelid = u.relation AND a.attname = u.column_name)
                       WHEN 's' THEN '%s It is generated. If it holds patients'' numbers: SELECT '
                                     'ndrs_optout.guard_table(%L, %L, ..., mechanism => ''constraint'')'
                       WHEN 'v' THEN '%s It is generated, and not stored: add the same as a column that is STORED, and '
                                     'guard that with mechanism => ''constraint''.'
                       ELSE '%s If it holds patients'' numbers: SELECT ndrs_optout.guard_table(%L, %L, ...)' END,
                  CASE WHEN coalesce(u.sampled, 0) = 0 THEN 'Its name says so; no value was seen.'
                       ELSE format('Of %s values looked at, %s are NHS numbers.', u.sampled, u.numbers) END,
                  u.relation, u.column_name)
        FROM looked u WHERE u.obstacle IS NULL
    UNION ALL
    SELECT 'medium', 'not_sampled', u.relation, NULL,
           format('Table %s %s. Ask again. If it stays so, see what it holds.', u.relation, u.obstacle)
        FROM looked u WHERE u.obstacle IS NOT NULL
    UNION ALL
    SELECT 'medium', 'unreadable_nhs_numbers', n.relation, n.column_name::text, n.what_to_do
        FROM ndrs_optout.guard_unreadable_columns() AS n
        WHERE NOT EXISTS (SELECT FROM repacked p WHERE p.relation = n.relation)
    UNION ALL
    SELECT 'medium', 'key_without_reference', k.relation, array_to_string(k.columns, ', '),
           CASE k.relkind
               WHEN 'f' THEN 'Its server keeps the rows: have them erased there after each opt-out, and accept the gap.'
               WHEN 'm' THEN format('After each opt-out, REFRESH MATERIALIZED VIEW %1$s; ANALYZE %1$s', k.relation)
               ELSE k.commands END
        FROM ndrs_optout.guard_copied_keys(walk) AS k
        WHERE NOT EXISTS (SELECT FROM reader b WHERE b.relation = k.relation)
            AND NOT EXISTS (SELECT FROM repacked p WHERE p.relation = k.relation)
    UNION ALL
    SELECT 'medium', 'materialized_view', b.relation, NULL,
           format('After each opt-out, REFRESH MATERIALIZED VIEW %1$s; ANALYZE %1$s', b.relation)
        FROM reader b JOIN pg_class c ON c.oid = b.relation AND c.relkind = 'm'
    UNION ALL
    -- A row holds the number of a large object, which stays when the row goes.
    SELECT 'medium', 'large_object_remains', w.relation, a.attname::text,
           format('%sCREATE TRIGGER %I BEFORE UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION %s(%I)',
                  CASE WHEN l.manager IS NULL THEN 'CREATE EXTENSION lo; ' END,
                  left('lo_manage_' || a.attname, 63), w.relation, coalesce(l.manager::text, 'lo_manage'), a.attname)
        FROM (SELECT min(f.oid)::regproc AS manager FROM pg_proc f WHERE ndrs_optout.guard_is_lo_manage(f)) AS l
        CROSS JOIN guard_walk w
        JOIN pg_class c ON c.oid = w.relation AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        JOIN pg_attribute a ON a.attrelid = w.relation AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_type t ON t.oid = a.atttypid
        WHERE (t.oid = 'oid'::regtype
               OR t.typtype = 'd' AND ndrs_optout.erasure_base_type(t.oid) = 'oid'::regtype)
            AND NOT EXISTS (
                SELECT FROM pg_trigger g JOIN pg_proc f ON f.oid = g.tgfoid
                    WHERE g.tgrelid = w.relation AND g.tgenabled IN ('O', 'A') AND g.tgtype & 9 = 9 AND g.tgqual IS NULL
                        AND ndrs_optout.guard_is_lo_manage(f)
                        AND g.tgargs = convert_to(a.attname, getdatabaseencoding()) || decode('00', 'hex'))
    UNION ALL
    -- What pg_repack makes, and leaves when it is killed
    SELECT 'medium', 'repack_left_over', p.relation, NULL,
           'If no pg_repack is running: DROP EXTENSION pg_repack CASCADE, and CREATE EXTENSION pg_repack'
        FROM repacked p
    UNION ALL
    SELECT DISTINCT CASE WHEN p.pubdelete AND p.pubupdate AND p.pubtruncate THEN 'low' ELSE 'medium' END,
           CASE WHEN p.pubdelete AND p.pubupdate AND p.pubtruncate THEN 'published'
               ELSE 'published_without_deletions' END,
           w.relation, p.pubname::text,
           CASE WHEN p.pubdelete AND p.pubupdate AND p.pubtruncate
               THEN 'Guard the subscribers'' tables too, and accept the gap.'
                ELSE format('ALTER PUBLICATION %I SET (publish = ''insert, update, delete, truncate'')', p.pubname) END
        FROM guard_walk w
        JOIN pg_class c ON c.oid = w.relation AND c.relkind = 'r' AND c.relpersistence = 'p'
        JOIN pg_publication p ON p.puballtables OR EXISTS (
            -- pg_publication_tables would lock the tables.
            SELECT FROM ndrs_optout.erasure_lineage(w.relation) AS l
                JOIN pg_class a ON a.oid = l.ancestor
                WHERE l.by_partition AND (
                    EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = a.oid)
                    OR EXISTS (SELECT FROM pg_publication_namespace n WHERE n.pnpubid = p.oid
                               AND n.pnnspid = a.relnamespace)))
    UNION ALL
    SELECT CASE WHEN l.all_changes THEN 'low' ELSE 'medium' END,
           CASE WHEN l.all_changes THEN 'published' ELSE 'published_without_deletions' END,
           l.relation, l.set_name::text,
           CASE WHEN l.all_changes THEN 'Guard the subscribers'' tables too, and accept the gap.'
               ELSE format('SELECT pglogical.alter_replication_set(%L, replicate_update := true, '
                           'replicate_delete := true, replicate_truncate := true)', l.set_name) END
        FROM ndrs_optout.guard_pglogical_sets() AS l JOIN guard_walk w ON w.relation = l.relation
    UNION ALL
    -- A consumer gets what is deleted, too, and may keep it; pgoutput's get what is published.
    SELECT CASE s.plugin WHEN 'pgoutput' THEN 'low' ELSE 'medium' END, 'logical_slot', NULL, s.slot_name::text,
           format('Its consumer gets rows: erase there, too, and accept the gap. If it has none: SELECT '
                  'pg_drop_replication_slot(%L)', s.slot_name)
        FROM pg_replication_slots s
        WHERE s.slot_type = 'logical' AND s.database = current_database() AND NOT s.temporary
    UNION ALL
    SELECT 'medium', 'replica_identity_full', w.relation, NULL, coalesce(
               (SELECT CASE WHEN i.indisprimary THEN format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', w.relation)
                            ELSE format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', w.relation, x.relname) END
                    FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                    WHERE i.indrelid = w.relation AND i.indisunique AND i.indimmediate AND i.indisvalid
                        AND i.indpred IS NULL AND i.indexprs IS NULL
                        AND NOT EXISTS (SELECT FROM pg_attribute a
                                            WHERE a.attrelid = w.relation AND a.attnum = ANY (i.indkey::int2[])
                                                AND NOT a.attnotnull)
                    ORDER BY i.indisprimary DESC, x.relname LIMIT 1),
               format('Give it a primary key; then ALTER TABLE %s REPLICA IDENTITY DEFAULT', w.relation))
        FROM guard_walk w
        JOIN pg_class c ON c.oid = w.relation AND c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident = 'f'
    UNION ALL
    SELECT 'medium', 'subscribed_without_guard', s.srrelid::regclass, b.subname::text,
           format('SELECT ndrs_optout.guard_table(%L, ...), or ndrs_optout.declare_reference() to the patients'' table',
                  s.srrelid::regclass)
        FROM pg_subscription_rel s JOIN pg_subscription b ON b.oid = s.srsubid
        WHERE NOT EXISTS (SELECT FROM guard_walk w WHERE w.relation = s.srrelid)
$$;
COMMENT ON FUNCTION guard_copies(regclass[], interval) IS
    'internal: gaps by copies of what the tables of the erasure''s walk hold; time_limit is for the look at tables '
    'without a guard, and NULL when there is to be none';
