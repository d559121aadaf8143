-- erasure, in flight: rows whose parent has gone since its keys were read.
--
-- A loader that deletes a patient's row and inserts it again, in one transaction, keeps
-- what refers to it by a declared reference, or past a foreign key that is not enforced.
-- When the patient has been excluded in between, the guard leaves the row out, and nothing
-- leads to its children any more.  So the keys are read before the exclusion takes effect
-- (carry_out.sql), and the walk looks for what refers to those that it has not met.

-- Keys of rows of a patient, by which rows of another table can refer to them although no
-- foreign key binds them.  Tables and columns are known by their names, which come through a
-- dump, and by their numbers, which follow a rename.
CREATE TYPE erasure_lead AS (
    parent         oid,
    parent_name    text,
    parent_columns name[],
    parent_attnums smallint[],
    child          oid,
    child_name     text,
    child_columns  name[],
    child_attnums  smallint[],
    registers      text[],
    path           text[],
    keys           text[]
);
COMMENT ON TYPE erasure_lead IS
    'internal: keys of rows that the erasure''s walk found, for a reference that no foreign key enforces';

-- The keys of what a walk has found.
CREATE FUNCTION erasure_leads(batches erasure_batch[]) RETURNS erasure_lead[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch ndrs_optout.erasure_batch;
    edge ndrs_optout.erasure_edge;
    leads ndrs_optout.erasure_lead[] := ARRAY[]::ndrs_optout.erasure_lead[];
BEGIN
    FOREACH batch IN ARRAY batches LOOP
        CONTINUE WHEN (batch.search).action <> 'delete' OR coalesce(cardinality(batch.row_ids), 0) = 0;
        FOR edge IN
            SELECT e.* FROM ndrs_optout.erasure_lineage(batch.kin) AS l
                JOIN ndrs_optout.erasure_edge e ON e.parent = l.ancestor AND (l.by_partition OR e.declared)
                -- What keeps an owned row is no part of it.
                WHERE NOT e.enforced AND NOT (e.keeps AND EXISTS (SELECT FROM ndrs_optout.owned_table o
                                                                  WHERE o.relation = batch.kin))
                ORDER BY e.child, e.child_columns
        LOOP
            leads := leads || ROW(
                edge.parent, ndrs_optout.name_of_table(edge.parent), edge.parent_columns,
                ndrs_optout.column_numbers(edge.parent, edge.parent_columns),
                edge.child, ndrs_optout.name_of_table(edge.child), edge.child_columns,
                ndrs_optout.column_numbers(edge.child, edge.child_columns),
                batch.registers, batch.path || edge.child::text, ndrs_optout.erasure_keys(batch, edge.parent_columns)
                )::ndrs_optout.erasure_lead;
        END LOOP;
    END LOOP;
    RETURN leads;
END
$$;
COMMENT ON FUNCTION erasure_leads(erasure_batch[]) IS
    'internal: the keys of the rows that a walk found, for references that no foreign key enforces';

-- The reference of a lead, as it is now.
CREATE FUNCTION erasure_lead_edge(lead erasure_lead) RETURNS erasure_edge
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e FROM ndrs_optout.erasure_edge e
        CROSS JOIN LATERAL (
            SELECT (ndrs_optout.name_of_table(e.parent), e.parent_columns,
                    ndrs_optout.name_of_table(e.child), e.child_columns)
                       = (lead.parent_name, lead.parent_columns, lead.child_name, lead.child_columns),
                   (e.parent::oid, ndrs_optout.column_numbers(e.parent, e.parent_columns),
                    e.child::oid, ndrs_optout.column_numbers(e.child, e.child_columns))
                       = (lead.parent, lead.parent_attnums, lead.child, lead.child_attnums)) AS m (named, numbered)
        WHERE m.named OR m.numbered
        ORDER BY m.named DESC, e.declared DESC LIMIT 1
$$;
COMMENT ON FUNCTION erasure_lead_edge(erasure_lead) IS
    'internal: the reference of a lead; NULL when it is gone, or its table';

-- Keys one by one: the values of all columns.
CREATE FUNCTION erasure_key_rows(keys text[]) RETURNS TABLE (key text[])
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(v.value ORDER BY c.position)
        FROM unnest(keys) WITH ORDINALITY AS c (of_column, position)
        CROSS JOIN LATERAL unnest(c.of_column::text[]) WITH ORDINALITY AS v (value, n)
        GROUP BY v.n
$$;
COMMENT ON FUNCTION erasure_key_rows(text[]) IS
    'internal: keys of the walk, one by one, with the values of all columns';

CREATE FUNCTION erasure_keys_without(keys text[], others text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(c.of_column ORDER BY c.position)
        FROM (SELECT p.position, array_agg(k.key[p.position] ORDER BY k.key)::text AS of_column
                  FROM (SELECT r.key FROM ndrs_optout.erasure_key_rows(keys) AS r
                        EXCEPT SELECT o.key FROM ndrs_optout.erasure_key_rows(others) AS o) AS k
                  CROSS JOIN generate_subscripts(keys, 1) AS p (position)
                  GROUP BY p.position) AS c
$$;
COMMENT ON FUNCTION erasure_keys_without(text[], text[]) IS
    'internal: keys of the walk without others; NULL when none is left';

-- The searches for what refers to the keys of leads.
CREATE FUNCTION erasure_lead_batches(leads erasure_lead[], patients nhs_number[], excluded_registers text[])
    RETURNS erasure_batch[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lead ndrs_optout.erasure_lead;
    search ndrs_optout.erasure_search;
    batches ndrs_optout.erasure_batch[] := ARRAY[]::ndrs_optout.erasure_batch[];
BEGIN
    FOREACH lead IN ARRAY leads LOOP
        FOREACH search IN ARRAY
            ndrs_optout.erasure_edge_searches(ndrs_optout.erasure_lead_edge(lead), excluded_registers)
        LOOP
            batches := batches || ROW(search, patients, lead.registers, lead.path, lead.keys, NULL, NULL, NULL, NULL
                                     )::ndrs_optout.erasure_batch;
        END LOOP;
    END LOOP;
    RETURN batches;
END
$$;
COMMENT ON FUNCTION erasure_lead_batches(erasure_lead[], nhs_number[], text[]) IS
    'internal: the searches for what refers to the keys of leads, as batches with nothing found yet';

-- What is left of leads without the keys that a walk has asked with.
CREATE FUNCTION erasure_missed_leads(leads erasure_lead[], excluded_registers text[], batches erasure_batch[])
    RETURNS erasure_lead[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lead ndrs_optout.erasure_lead;
    batch ndrs_optout.erasure_batch;
    sources text[];
    missed ndrs_optout.erasure_lead[] := ARRAY[]::ndrs_optout.erasure_lead[];
BEGIN
    FOREACH lead IN ARRAY leads LOOP
        sources := ARRAY(SELECT s.source FROM unnest(ndrs_optout.erasure_edge_searches(
                             ndrs_optout.erasure_lead_edge(lead), excluded_registers)) AS s);
        FOREACH batch IN ARRAY batches LOOP
            IF (batch.search).source = ANY (sources) THEN
                lead.keys := ndrs_optout.erasure_keys_without(lead.keys, batch.keys);
            END IF;
        END LOOP;
        IF lead.keys IS NOT NULL THEN
            missed := missed || lead;
        END IF;
    END LOOP;
    RETURN missed;
END
$$;
COMMENT ON FUNCTION erasure_missed_leads(erasure_lead[], text[], erasure_batch[]) IS
    'internal: leads with the keys that a walk has not asked with';

-- The keys of a lead that rows of its parent have now which a walk does not delete.
CREATE FUNCTION erasure_taken_keys(lead erasure_lead, batches erasure_batch[]) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    edge ndrs_optout.erasure_edge := ndrs_optout.erasure_lead_edge(lead);
    search ndrs_optout.erasure_search;
    batch ndrs_optout.erasure_batch;
    keys text[];
    taken text[];
BEGIN
    IF edge.parent IS NULL THEN
        RETURN NULL;
    END IF;
    -- As if the parent referred to itself.
    edge.child := edge.parent;
    edge.child_columns := edge.parent_columns;
    edge.operators := ARRAY(
        SELECT ndrs_optout.erasure_equality(a.atttypid, a.atttypid)
            FROM unnest(edge.parent_columns) WITH ORDINALITY AS u (name, position)
            JOIN pg_attribute a ON a.attrelid = edge.parent AND a.attname = u.name ORDER BY u.position);
    search.relation := edge.parent;
    search.action := 'keep';
    search.role := (SELECT c.relowner FROM pg_class c WHERE c.oid = edge.parent);
    search.source := ndrs_optout.erasure_source(edge, 'true');
    search.key_columns := edge.parent_columns;
    batch.search := search;
    batch.keys := lead.keys;
    FOREACH batch IN ARRAY ndrs_optout.erasure_search_step(batch, false) LOOP
        SELECT array_agg(r.leaf), array_agg(r.row_id) INTO batch.leaves, batch.row_ids
            FROM (SELECT f.leaf, f.row_id FROM ndrs_optout.erasure_rows(ARRAY[batch]) AS f
                  EXCEPT
                  SELECT d.leaf, d.row_id FROM ndrs_optout.erasure_rows(batches) AS d WHERE d.action = 'delete') AS r;
        CONTINUE WHEN batch.row_ids IS NULL;
        batch.row_keys := NULL;
        keys := ndrs_optout.erasure_keys(batch, edge.parent_columns);
        taken := CASE WHEN taken IS NULL THEN keys ELSE
            ARRAY(SELECT left(u.taken, -1) || ',' || substr(u.keys, 2)
                      FROM unnest(taken, keys) WITH ORDINALITY AS u (taken, keys, position) ORDER BY u.position) END;
    END LOOP;
    RETURN taken;
END
$$;
COMMENT ON FUNCTION erasure_taken_keys(erasure_lead, erasure_batch[]) IS
    'internal: the keys of a lead that rows of its parent have which a walk does not delete; NULL when there is none';

-- A key that another row has now says no longer whose the rows are that refer to it.
CREATE FUNCTION erasure_check_leads(leads erasure_lead[], patients nhs_number[], excluded_registers text[],
                                    batches erasure_batch[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    lead ndrs_optout.erasure_lead;
    edge ndrs_optout.erasure_edge;
    batch ndrs_optout.erasure_batch;
BEGIN
    FOREACH lead IN ARRAY leads LOOP
        edge := ndrs_optout.erasure_lead_edge(lead);
        lead.keys := ndrs_optout.erasure_taken_keys(lead, batches);
        CONTINUE WHEN lead.keys IS NULL;
        FOREACH batch IN ARRAY ndrs_optout.erasure_lead_batches(ARRAY[lead], patients, excluded_registers) LOOP
            IF cardinality((ndrs_optout.erasure_search_step(batch, false))[1].row_ids) > 0 THEN
                PERFORM ndrs_optout.raise_error('ND030',
                    format('cannot erase: rows in table %s refer to what was the patient''s, and is another''s now',
                           edge.child),
                    detail => format('While the patient was being excluded, a row of table %s that was the patient''s '
                                     'went, and another row has its key now.', edge.parent),
                    hint => 'Look whose the rows are, and correct what is wrong. Rows that stay as they are count as '
                            'the other row''s when ndrs_optout.carry_out() is called for the case again.');
            END IF;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION erasure_check_leads(erasure_lead[], nhs_number[], text[], erasure_batch[]) IS
    'internal: error ND030 when rows refer to a key of leads that a row has now which a walk does not delete';
