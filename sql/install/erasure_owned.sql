-- erasure_owned: rows that belong to a patient although it is the patient's rows that refer to
-- them: an address, raw data that several rows share.
--
-- Foreign keys lead the walk down.  Up, it goes only where declare_owned() says that a row
-- belongs to the rows that refer to it.  Of all rows that such links lead up to from what an
-- erasure deletes, it deletes the largest set to whose rows nothing refers but what is deleted
-- as well, or is in the set.  So a row that refers to itself goes, and rows in a circle.
--
-- Any reference to an owned row keeps it (erasure_edge.keeps), whatever table it comes from,
-- but two kinds: a foreign key ON DELETE CASCADE, and one that declare_reference() names as
-- well, say that the child is a part of the row.  Parts go with it, by the ordinary walk.
--
-- Two erasures can share an owned row: each counts the other's rows as long as it sees them.
-- Both lock the row before they count and hold the lock until they have committed, so
-- the second counts what the first has left.  Locks are taken in one order: links by how
-- far up they lead, tables by number, rows by place.

-- A link to follow upwards.
-- rank: how many links may be below it.
-- child_tables: where the rows that own are.
-- source: the rows t that keys ($2) of children lead to.
-- search: looks for them by their own key.
CREATE TYPE owned_link AS (
    rank          integer,
    child_tables  regclass[],
    child_columns name[],
    source        text,
    search        erasure_search
);
COMMENT ON TYPE owned_link IS 'internal: a link from rows to those that belong to them';

-- A reference that keeps owned rows.
-- command: of the keys ($2), the positions of those that a row refers to which is in none of the
-- places that the last two elements of $2 give (tables and places in them).
CREATE TYPE owned_keeper AS (
    child_tables   regclass[],
    child_columns  name[],
    parent_columns name[],
    role           regrole,
    command        text
);
COMMENT ON TYPE owned_keeper IS 'internal: a reference that keeps the rows that it leads to';

-- The tables whose rows an edge binds.
CREATE FUNCTION owned_child_tables(edge erasure_edge) RETURNS regclass[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(d.relation ORDER BY d.relation)
        FROM pg_class c CROSS JOIN LATERAL ndrs_optout.erasure_descendants(edge.child) AS d
        WHERE c.oid = edge.child AND (edge.declared OR c.relkind = 'p' OR d.relation = edge.child)
$$;
COMMENT ON FUNCTION owned_child_tables(erasure_edge) IS
    'internal: the child of an edge, and those of its partitions and inheritance children that the edge binds';

-- What compares a parent's column with a child's.
CREATE FUNCTION owned_comparison(edge erasure_edge, parent_format text, child_format text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(format(parent_format || '%3$s %4$s ' || child_format, k.position, k.parent_column,
                             ndrs_optout.reference_collation(a.attcollation, c.attcollation),
                             CASE WHEN o.oid IS NULL THEN '=' ELSE format('OPERATOR(%I.%s)', n.nspname, o.oprname) END,
                             k.child_column), ' AND ' ORDER BY k.position)
        FROM unnest(edge.parent_columns, edge.child_columns, edge.operators)
            WITH ORDINALITY AS k (parent_column, child_column, operator, position)
        JOIN pg_attribute a ON a.attrelid = edge.parent AND a.attname = k.parent_column
        LEFT JOIN pg_attribute c ON c.attrelid = edge.child AND c.attname = k.child_column
        LEFT JOIN (pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace) ON o.oid = k.operator
$$;
COMMENT ON FUNCTION owned_comparison(erasure_edge, text, text) IS
    'internal: the condition that rows of an edge''s parent and child are linked; each side is a format for position '
    '(1$) and column (2$ the parent''s, 5$ the child''s)';

-- Keys ($2) as rows p (k1, k2 ...) of the types of these columns.
CREATE FUNCTION owned_keys(relation regclass, columns name[], suffix text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('unnest(%s) %s', string_agg(format('$2[%s]::%s[]', k.position,
                                                     ndrs_optout.erasure_key_type(a.atttypid)), ', '
                                              ORDER BY k.position),
                  format(suffix, string_agg(format('k%s', k.position), ', ' ORDER BY k.position)))
        FROM unnest(columns) WITH ORDINALITY AS k (name, position)
        JOIN pg_attribute a ON a.attrelid = relation AND a.attname = k.name
$$;
COMMENT ON FUNCTION owned_keys(regclass, name[], text) IS
    'internal: keys ($2) as rows, whose alias has the columns k1, k2 ... where the suffix has %s; error 0A000';

-- How far up the links to each owned table lead; in a cycle, no further than there are links.
CREATE FUNCTION owned_ranks() RETURNS TABLE (parent regclass, rank integer)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE link AS (
        SELECT DISTINCT o.parent::oid AS parent, l.ancestor::oid AS child
            FROM ndrs_optout.owned_parent o CROSS JOIN LATERAL ndrs_optout.erasure_lineages(o.child) AS l),
    up (parent, rank) AS (
        SELECT l.parent, 1 FROM link l
        UNION
        SELECT l.parent, u.rank + 1
            FROM up u CROSS JOIN LATERAL ndrs_optout.erasure_lineages(u.parent) AS t
            JOIN link l ON l.child = t.ancestor
            WHERE u.rank < (SELECT count(*) FROM ndrs_optout.owned_parent))
    SELECT u.parent::regclass, max(u.rank) FROM up u GROUP BY u.parent
$$;
COMMENT ON FUNCTION owned_ranks() IS
    'internal: how many links between owned tables may be below each';

CREATE FUNCTION erasure_plan_owned_links(excluded_registers text[]) RETURNS owned_link[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        SELECT ROW(u.rank, ndrs_optout.owned_child_tables(e), e.child_columns,
                   format('%s JOIN %s ON %s WHERE %s', t.name,
                          ndrs_optout.owned_keys(e.child, e.child_columns, 'AS p (%s)'),
                          ndrs_optout.owned_comparison(e, 't.%2$I', 'p.k%1$s'), t.condition),
                   ROW(e.parent, 'share',
                       format('%s JOIN %s ON %s WHERE %s', t.name,
                              ndrs_optout.owned_keys(e.parent, e.parent_columns, 'AS p (%s)'),
                              ndrs_optout.owned_comparison(s, 't.%2$I', 'p.k%1$s'), t.condition),
                       r.relowner::regrole, ndrs_optout.erasure_missing_index(e.parent, e.parent_columns, false), NULL,
                       NULL, true, e.parent_columns, ndrs_optout.erasure_key_columns(e.parent),
                       ndrs_optout.erasure_is_alone(e.parent), NULL)::ndrs_optout.erasure_search
                  )::ndrs_optout.owned_link
            FROM ndrs_optout.erasure_edge e
            JOIN ndrs_optout.owned_ranks() AS u ON u.parent = e.parent
            JOIN pg_class r ON r.oid = e.parent
            CROSS JOIN LATERAL (
                SELECT format('%s %s t', CASE WHEN e.declared OR r.relkind = 'p' THEN '' ELSE 'ONLY' END, e.parent),
                       coalesce('(' || ndrs_optout.erasure_keep_condition(e.parent, excluded_registers, NULL)
                                || ') IS NOT TRUE', 'true')) AS t (name, condition)
            -- The parent compared with itself
            CROSS JOIN LATERAL (
                SELECT ROW(e.parent, e.parent, false, e.declared, e.parent_columns, e.parent_columns,
                           (SELECT array_agg(ndrs_optout.erasure_equality(a.atttypid, a.atttypid) ORDER BY k.position)
                                FROM unnest(e.parent_columns) WITH ORDINALITY AS k (name, position)
                                JOIN pg_attribute a ON a.attrelid = e.parent AND a.attname = k.name),
                           true, NULL, NULL, false, false)::ndrs_optout.erasure_edge) AS o (s)
            WHERE e.owns
            ORDER BY u.rank, e.parent::text, e.child::text, e.child_columns);
END
$$;
COMMENT ON FUNCTION erasure_plan_owned_links(text[]) IS
    'internal: the links to owned rows, from the lowest up; error 0A000';

CREATE FUNCTION erasure_owned_links(excluded_registers text[]) RETURNS owned_link[]
    AS 'MODULE_PATHNAME', 'ndrs_optout_erasure_owned_links'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION erasure_owned_links(text[]) IS
    'internal: erasure_plan_owned_links(), as the session keeps it; error 0A000';

CREATE FUNCTION erasure_plan_owned_keepers(leaf regclass) RETURNS owned_keeper[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        SELECT ROW(ndrs_optout.owned_child_tables(e), e.child_columns, e.parent_columns, c.relowner::regrole,
                   format('SELECT array_agg(p.n::text) FROM %s WHERE EXISTS (SELECT FROM %s %s t WHERE %s
                               AND (t.tableoid, t.ctid) NOT IN (
                                   SELECT g.leaf, g.row_id
                                       FROM unnest($2[%s]::oid[], $2[%s]::tid[]) AS g (leaf, row_id)))',
                          ndrs_optout.owned_keys(e.parent, e.parent_columns, 'WITH ORDINALITY AS p (%s, n)'),
                          CASE WHEN e.declared OR c.relkind = 'p' THEN '' ELSE 'ONLY' END, e.child,
                          ndrs_optout.owned_comparison(e, 'p.k%1$s', 't.%5$I'),
                          cardinality(e.parent_columns) + 1, cardinality(e.parent_columns) + 2)
                  )::ndrs_optout.owned_keeper
            FROM ndrs_optout.erasure_lineage(leaf) l
            JOIN ndrs_optout.erasure_edge e ON e.parent = l.ancestor AND (l.by_partition OR e.declared) AND e.keeps
            JOIN pg_class c ON c.oid = e.child
            ORDER BY e.child::text, e.child_columns, e.parent_columns, e.declared);
END
$$;
COMMENT ON FUNCTION erasure_plan_owned_keepers(regclass) IS
    'internal: what keeps rows of an owned table: references to it; error 0A000';

CREATE FUNCTION erasure_owned_keepers(leaf regclass) RETURNS owned_keeper[]
    AS 'MODULE_PATHNAME', 'ndrs_optout_erasure_owned_keepers'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION erasure_owned_keepers(regclass) IS
    'internal: erasure_plan_owned_keepers(), as the session keeps it; error 0A000';

-- A batch with those of its rows that are in the rows given, or with the others.
CREATE FUNCTION owned_part(batch erasure_batch, leaves regclass[], row_ids tid[], inside boolean) RETURNS erasure_batch
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part ndrs_optout.erasure_batch := batch;
BEGIN
    SELECT coalesce(array_agg(r.leaf ORDER BY r.n), '{}'), coalesce(array_agg(r.row_id ORDER BY r.n), '{}')
        INTO part.leaves, part.row_ids
        FROM unnest(batch.leaves, batch.row_ids) WITH ORDINALITY AS r (leaf, row_id, n)
        LEFT JOIN (SELECT DISTINCT g.leaf, g.row_id FROM unnest(leaves, row_ids) AS g (leaf, row_id)) AS given
            ON given.leaf = r.leaf AND given.row_id = r.row_id
        WHERE (given.leaf IS NOT NULL) = inside;
    IF cardinality(part.row_ids) < cardinality(batch.row_ids) THEN
        part.row_keys := NULL;
    END IF;
    RETURN part;
END
$$;
COMMENT ON FUNCTION owned_part(erasure_batch, regclass[], tid[], boolean) IS
    'internal: the part of a batch that is inside a set of rows, or outside of it';

-- Look for owned rows by batches whose searches lead up, and lock what they find.  A row that
-- was changed while its lock was waited for is somewhere else then: so look again.
CREATE FUNCTION owned_search(searches erasure_batch[], locking boolean) RETURNS erasure_batch[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    found ndrs_optout.erasure_batch[];
    locked_leaves regclass[] := ARRAY[]::regclass[];
    locked_ids tid[] := ARRAY[]::tid[];
    part record;
    again boolean;
BEGIN
    LOOP
        found := ARRAY(SELECT f FROM unnest(searches) WITH ORDINALITY AS s
                           CROSS JOIN LATERAL unnest(ndrs_optout.erasure_search_step(
                               ROW(s.search, s.patients, s.registers, s.path, s.keys, s.leaves, s.row_ids, s.kin,
                                   s.row_keys)::ndrs_optout.erasure_batch, false)) AS f
                           ORDER BY s.ordinality);
        again := false;
        IF locking THEN
            FOR part IN
                SELECT n.leaf, c.relowner::regrole AS owner, array_agg(n.row_id) AS row_ids
                    FROM (SELECT r.leaf, r.row_id FROM ndrs_optout.erasure_rows(found) AS r
                          EXCEPT
                          SELECT u.leaf, u.row_id FROM unnest(locked_leaves, locked_ids) AS u (leaf, row_id)) AS n
                    JOIN pg_class c ON c.oid = n.leaf
                    GROUP BY n.leaf, c.relowner
                    ORDER BY n.leaf
            LOOP
                again := true;
                SELECT locked_leaves || array_agg(part.leaf::regclass), locked_ids || array_agg(l.row_id::tid)
                    INTO locked_leaves, locked_ids
                    FROM unnest(coalesce(ndrs_optout.search_as_owner(part.owner, format(
                        'SELECT array_agg(l.row_id::text) FROM (
                             SELECT t.ctid AS row_id FROM ONLY %s t WHERE t.ctid = ANY ($2::tid[])
                                 ORDER BY t.ctid FOR UPDATE OF t) AS l', part.leaf), NULL, part.row_ids::text[]),
                        '{}')) AS l (row_id);
            END LOOP;
        END IF;
        EXIT WHEN NOT again;
    END LOOP;
    RETURN found;
END
$$;
COMMENT ON FUNCTION owned_search(erasure_batch[], boolean) IS
    'internal: the owned rows that searches lead up to, locked if asked, in the order of their places';

-- All rows that links lead up to from what the batches delete or unlink, from the one given
-- on, and from what these lead up to; but for what the batches delete.  Each row once.
CREATE FUNCTION owned_candidates(batches erasure_batch[], first integer, links owned_link[], locking boolean)
    RETURNS erasure_batch[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    sources ndrs_optout.erasure_batch[] := ARRAY(SELECT b FROM unnest(batches[first:]) AS b
                                                     WHERE (b.search).action IN ('delete', 'redact', 'unlink'));
    candidates ndrs_optout.erasure_batch[] := ARRAY[]::ndrs_optout.erasure_batch[];
    searches ndrs_optout.erasure_batch[];
    asked integer[] := array_fill(0, ARRAY[cardinality(links)]);
    link ndrs_optout.owned_link;
    batch ndrs_optout.erasure_batch;
    known record;
    this_rank integer;
BEGIN
    -- Ends because no row is added twice.
    LOOP
        -- Links of one rank together: rows that several of them lead to are locked in one order.
        SELECT l.rank INTO this_rank FROM unnest(links, asked) WITH ORDINALITY
                AS l (rank, child_tables, child_columns, source, search, asked, n)
            WHERE l.asked < cardinality(sources) ORDER BY l.n LIMIT 1;
        EXIT WHEN NOT FOUND;
        searches := ARRAY[]::ndrs_optout.erasure_batch[];
        FOR i IN 1 .. cardinality(links) LOOP
            link := links[i];
            CONTINUE WHEN link.rank <> this_rank;
            FOR n IN asked[i] + 1 .. cardinality(sources) LOOP
                batch := sources[n];
                CONTINUE WHEN NOT coalesce(batch.leaves && link.child_tables, false)
                    OR NOT ((batch.search).action IN ('delete', 'share')
                            OR (batch.search).action IN ('redact', 'unlink')
                                AND (batch.search).link_columns && link.child_columns);
                IF NOT batch.leaves <@ link.child_tables THEN
                    SELECT array_agg(r.leaf), array_agg(r.row_id), NULL::text[]
                        INTO batch.leaves, batch.row_ids, batch.row_keys
                        FROM unnest(batch.leaves, batch.row_ids) AS r (leaf, row_id)
                        WHERE r.leaf = ANY (link.child_tables);
                END IF;
                batch.keys := ndrs_optout.erasure_keys(batch, link.child_columns);
                batch.search := link.search;
                batch.search.source := link.source;
                batch.path := batch.path || (link.search).relation::text;
                batch.leaves := NULL;
                batch.row_ids := NULL;
                searches := searches || batch;
            END LOOP;
            asked[i] := cardinality(sources);
        END LOOP;

        FOREACH batch IN ARRAY ndrs_optout.owned_search(searches, locking) LOOP
            SELECT l.search INTO batch.search FROM unnest(links) AS l
                WHERE l.source = (batch.search).source AND (l.search).relation = (batch.search).relation LIMIT 1;
            SELECT array_agg(r.leaf) AS leaves, array_agg(r.row_id) AS row_ids INTO known
                FROM (SELECT d.leaf, d.row_id FROM ndrs_optout.erasure_rows(batches) AS d WHERE d.action = 'delete'
                      UNION ALL SELECT c.leaf, c.row_id FROM ndrs_optout.erasure_rows(candidates) AS c) AS r;
            batch := ndrs_optout.owned_part(batch, known.leaves, known.row_ids, false);
            candidates := candidates || batch;
            sources := sources || batch;
        END LOOP;
    END LOOP;
    RETURN candidates;
END
$$;
COMMENT ON FUNCTION owned_candidates(erasure_batch[], integer, owned_link[], boolean) IS
    'internal: all owned rows that links lead up to from what batches delete or unlink';

-- Of the candidates, the rows that something refers to which is neither gone nor a candidate.
CREATE FUNCTION owned_kept(candidates erasure_batch[], gone erasure_batch[], OUT leaves regclass[], OUT row_ids tid[])
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part record;
    keeper ndrs_optout.owned_keeper;
    keepers ndrs_optout.owned_keeper[];
    columns name[];
    keys text[];
    kept text[];
BEGIN
    leaves := '{}';
    row_ids := '{}';
    FOR part IN
        SELECT r.leaf, c.relowner::regrole AS owner, array_agg(r.row_id)::text[] AS row_ids
            FROM ndrs_optout.erasure_rows(candidates) AS r JOIN pg_class c ON c.oid = r.leaf
            GROUP BY r.leaf, c.relowner ORDER BY r.leaf
    LOOP
        keepers := ndrs_optout.erasure_owned_keepers(part.leaf);
        columns := ARRAY(SELECT DISTINCT unnest(k.parent_columns) FROM unnest(keepers) AS k ORDER BY 1);
        keys := ndrs_optout.search_as_owner(part.owner, format(
            'SELECT ARRAY[array_agg(t.ctid)::text, %s] FROM ONLY %s t WHERE t.ctid = ANY ($2::tid[])',
            (SELECT string_agg(format('array_agg(t.%I)::text', c), ', ' ORDER BY c) FROM unnest(columns) AS c),
            part.leaf), NULL, part.row_ids);
        FOREACH keeper IN ARRAY keepers LOOP
            kept := ndrs_optout.search_as_owner(keeper.role, keeper.command, NULL,
                ARRAY(SELECT keys[1 + array_position(columns, c.name)]
                          FROM unnest(keeper.parent_columns) WITH ORDINALITY AS c (name, n) ORDER BY c.n)
                || (SELECT ARRAY[coalesce(array_agg(r.leaf::oid), '{}')::text,
                                 coalesce(array_agg(r.row_id), '{}')::text]
                        FROM (SELECT g.* FROM unnest(gone) AS g
                                  WHERE (g.search).action = 'delete' OR (g.search).action IN ('redact', 'unlink')
                                      AND (g.search).link_columns && keeper.child_columns
                              UNION ALL
                              SELECT c.* FROM unnest(candidates) AS c) AS b
                        CROSS JOIN LATERAL unnest(b.leaves, b.row_ids) AS r (leaf, row_id)
                        WHERE r.leaf = ANY (keeper.child_tables)));
            leaves := leaves || array_fill(part.leaf, ARRAY[coalesce(cardinality(kept), 0)]);
            row_ids := row_ids || ARRAY(SELECT (keys[1]::tid[])[k.n::integer] FROM unnest(kept) AS k (n));
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION owned_kept(erasure_batch[], erasure_batch[]) IS
    'internal: the owned rows among the candidates that something else refers to than what is gone and the candidates';

-- The candidates, each batch twice: what goes (delete), and what stays since something that
-- stays refers to it (share).  Both look for their rows by the rows' own keys.
CREATE FUNCTION owned_decided(candidates erasure_batch[], gone erasure_batch[]) RETURNS erasure_batch[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    going ndrs_optout.erasure_batch[] := candidates;
    decided ndrs_optout.erasure_batch[] := ARRAY[]::ndrs_optout.erasure_batch[];
    batch ndrs_optout.erasure_batch;
    kept record;
BEGIN
    IF candidates = '{}' THEN
        RETURN candidates;
    END IF;
    -- What is kept keeps others.
    LOOP
        SELECT * INTO kept FROM ndrs_optout.owned_kept(going, gone);
        EXIT WHEN kept.row_ids = '{}';
        FOR i IN 1 .. cardinality(going) LOOP
            going[i] := ndrs_optout.owned_part(going[i], kept.leaves, kept.row_ids, false);
        END LOOP;
    END LOOP;
    FOR i IN 1 .. cardinality(candidates) LOOP
        batch := going[i];
        batch.search.action := 'delete';
        batch.keys := ndrs_optout.erasure_keys(batch, (batch.search).parent_columns);
        decided := decided || batch;
        batch := ndrs_optout.owned_part(candidates[i], batch.leaves, batch.row_ids, false);
        batch.keys := ndrs_optout.erasure_keys(batch, (batch.search).parent_columns);
        decided := decided || batch;
    END LOOP;
    RETURN decided;
END
$$;
COMMENT ON FUNCTION owned_decided(erasure_batch[], erasure_batch[]) IS
    'internal: what becomes of the candidates when other rows are gone: delete or share, as batches that look for them '
    'by their own keys';

-- What belongs to the rows that the batches delete, and what goes with it: the batches with
-- those that delete it, and those that say what is shared.  Until nothing is added, for parts
-- of an owned row may own others.
CREATE FUNCTION erasure_owned(batches erasure_batch[], registers text[], groups erasure_group[], locking boolean)
    RETURNS erasure_batch[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    links ndrs_optout.owned_link[];
    decided ndrs_optout.erasure_batch[];
    added ndrs_optout.erasure_batch[];
    starts ndrs_optout.erasure_batch[];
    patient_group ndrs_optout.erasure_group;
    shared record;
    first integer := 1;
BEGIN
    IF NOT EXISTS (SELECT FROM ndrs_optout.owned_parent) THEN
        RETURN batches;
    END IF;
    -- A row can be of patients of several groups: by the registers that all of these are out of.
    links := ndrs_optout.erasure_owned_links(ARRAY(
        SELECT code FROM unnest(groups) AS g CROSS JOIN LATERAL unnest(g.excluded_registers) AS code
            GROUP BY code HAVING count(*) = cardinality(groups) ORDER BY code));
    LOOP
        decided := ndrs_optout.owned_decided(ndrs_optout.owned_candidates(batches, first, links, locking), batches);
        EXIT WHEN decided = '{}';
        first := cardinality(batches) + 1;
        added := ARRAY[]::ndrs_optout.erasure_batch[];
        FOREACH patient_group IN ARRAY groups LOOP
            starts := ARRAY(SELECT d FROM unnest(decided) AS d
                                WHERE (d.search).action = 'delete' AND d.patients = patient_group.patients);
            IF starts <> '{}' THEN
                added := added || ndrs_optout.erasure_walk(patient_group.patients, registers,
                                                           patient_group.excluded_registers, locking, starts);
            END IF;
        END LOOP;
        SELECT array_agg(r.leaf) AS leaves, array_agg(r.row_id) AS row_ids INTO shared
            FROM ndrs_optout.erasure_rows(batches) AS r WHERE r.action = 'share';
        added := added || ARRAY(SELECT ndrs_optout.owned_part(d, shared.leaves, shared.row_ids, false)
                                    FROM unnest(decided) AS d
                                    WHERE (d.search).action = 'share' AND cardinality(d.row_ids) > 0);
        batches := ndrs_optout.erasure_merge_batches(batches || added, true);
    END LOOP;
    RETURN batches;
END
$$;
COMMENT ON FUNCTION erasure_owned(erasure_batch[], text[], erasure_group[], boolean) IS
    'internal: the batches of walks, with what belongs to the rows that they delete, and to no others; locked if asked';

-- Whether rows that stay lose a reference to an owned table.
CREATE FUNCTION owned_is_freed(batch erasure_batch) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN cardinality(batch.row_ids) > 0 AND EXISTS (SELECT FROM ndrs_optout.owned_parent) AND EXISTS (
        SELECT FROM (SELECT DISTINCT leaf FROM unnest(batch.leaves) AS leaf) AS t
            CROSS JOIN LATERAL ndrs_optout.erasure_lineage(t.leaf) AS l
            JOIN ndrs_optout.erasure_edge e ON e.child = l.ancestor AND e.keeps
                AND e.child_columns && (batch.search).link_columns
            JOIN ndrs_optout.owned_table o ON o.relation = e.parent);
END
$$;
COMMENT ON FUNCTION owned_is_freed(erasure_batch) IS
    'internal: whether rows that an erasure redacts or unlinks refer to an owned table by columns that they lose';

-- The keys of owned rows, for when nothing leads to them any more: as leads from their table to
-- itself (erasure_in_flight.sql).
CREATE FUNCTION owned_leads(batches erasure_batch[]) RETURNS erasure_lead[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(ROW(k.relation, k.name, k.columns, k.attnums, k.relation, k.name, k.columns, k.attnums,
                                  b.registers, b.path, b.keys)::ndrs_optout.erasure_lead), '{}')
        FROM unnest(batches) AS b
        CROSS JOIN LATERAL (
            SELECT (b.search).relation, ndrs_optout.name_of_table((b.search).relation), (b.search).parent_columns,
                   ndrs_optout.column_numbers((b.search).relation, (b.search).parent_columns))
            AS k (relation, name, columns, attnums)
        WHERE b.keys IS NOT NULL AND EXISTS (
            SELECT FROM unnest(ndrs_optout.erasure_owned_links('{}')) AS l
                WHERE (l.search).relation = (b.search).relation AND (l.search).source = (b.search).source)
$$;
COMMENT ON FUNCTION owned_leads(erasure_batch[]) IS
    'internal: the keys of the owned rows among batches, as leads from their table to itself';

-- Owned rows of before, by their keys; of no one's, perhaps.
CREATE FUNCTION owned_lead_batches(leads erasure_lead[], patients nhs_number[]) RETURNS erasure_batch[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(ROW(l.search, patients, d.registers, d.path, d.keys, NULL, NULL, NULL, NULL
                                  )::ndrs_optout.erasure_batch), '{}')
        FROM unnest(leads) AS d
        JOIN unnest(ndrs_optout.erasure_owned_links('{}')) AS l
            ON (d.parent, d.parent_attnums) = ((l.search).relation::oid, ndrs_optout.column_numbers(
                    (l.search).relation, (l.search).parent_columns))
                OR (d.parent_name, d.parent_columns) = (ndrs_optout.name_of_table((l.search).relation),
                                                        (l.search).parent_columns)
        WHERE d.child = d.parent AND d.child_attnums = d.parent_attnums
$$;
COMMENT ON FUNCTION owned_lead_batches(erasure_lead[], nhs_number[]) IS
    'internal: leads from owned rows as batches of action share, with nothing found yet';

-- Once rows are deleted: of what was shared, what nothing refers to any more, since a trigger
-- has deleted more, or another session has.  As batches that a walk can start from.
CREATE FUNCTION erasure_orphans(batches erasure_batch[]) RETURNS erasure_batch[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    shares ndrs_optout.erasure_batch[] := ARRAY(SELECT b FROM unnest(batches) AS b
                                                    WHERE (b.search).action = 'share' AND b.keys IS NOT NULL);
    candidates ndrs_optout.erasure_batch[] := ARRAY[]::ndrs_optout.erasure_batch[];
BEGIN
    IF shares = '{}' THEN
        RETURN shares;
    END IF;
    FOR i IN 1 .. cardinality(shares) LOOP
        candidates := candidates || ndrs_optout.erasure_search_step(shares[i], false);
    END LOOP;
    RETURN ARRAY(SELECT d FROM unnest(ndrs_optout.owned_decided(candidates, '{}')) AS d
                     WHERE (d.search).action = 'delete' AND d.keys IS NOT NULL);
END
$$;
COMMENT ON FUNCTION erasure_orphans(erasure_batch[]) IS
    'internal: what was shared and belongs to nothing any more, as batches that a walk can start from';
