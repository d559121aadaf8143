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
               array_agg(a.attname ~* 'nhs[ _-]*(n|id|$)' ORDER BY a.attname) AS named
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

-- The gaps of guard_coverage() that are about copies.  walk: every table that an
-- erasure can come to.
CREATE FUNCTION guard_copies(walk regclass[], time_limit interval)
RETURNS TABLE (severity text, gap text, relation regclass, object text, what_to_do text)
LANGUAGE sql
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
    WITH guard_walk AS MATERIALIZED (SELECT w.relation FROM unnest(walk) AS w (relation)),
        looked AS MATERIALIZED (SELECT u.* FROM ndrs_optout.unguarded_columns(time_limit) AS u)
    SELECT CASE WHEN u.numbers > 0 THEN 'high' ELSE 'medium' END, 'unguarded_nhs_numbers', u.relation,
           u.column_name::text,
           format(CASE WHEN EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = u.relation
                                        AND a.attname = u.column_name AND a.attgenerated <> '')
                           THEN '%s It is generated: guard the column that it is computed from.'
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
    SELECT 'medium', 'materialized_view', v.relation, NULL, format('After each opt-out, REFRESH MATERIALIZED VIEW %s',
                                                                   v.relation)
        FROM (WITH RECURSIVE reader (relation) AS (
                  SELECT w.relation FROM guard_walk w
                  UNION
                  SELECT r.ev_class FROM reader b
                      JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = b.relation
                          AND d.classid = 'pg_rewrite'::regclass
                      JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_type = '1')
              SELECT b.relation FROM reader b JOIN pg_class c ON c.oid = b.relation AND c.relkind = 'm') AS v
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
    SELECT 'medium', 'subscribed_without_guard', s.srrelid::regclass, b.subname::text,
           format('SELECT ndrs_optout.guard_table(%L, ...), or ndrs_optout.declare_reference() to the patients'' table',
                  s.srrelid::regclass)
        FROM pg_subscription_rel s JOIN pg_subscription b ON b.oid = s.srsubid
        WHERE NOT EXISTS (SELECT FROM guard_walk w WHERE w.relation = s.srrelid)
$$;
COMMENT ON FUNCTION guard_copies(regclass[], interval) IS
    'internal: gaps by copies of what the tables of the erasure''s walk hold; time_limit is for the look at tables '
    'without a guard, and NULL when there is to be none';
