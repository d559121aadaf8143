-- declare_owned: which rows belong to those that refer to them, and where that is not said.

CREATE FUNCTION expect_owned() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.expect_edges(ndrs_optout.expected_among(ARRAY(SELECT n.child::oid FROM new_rows n)));
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION expect_owned() IS
    'internal: trigger function of owned_parent: references to owned rows, and what the walk follows from there, are '
    'expected';
CREATE TRIGGER expect_owned AFTER INSERT ON owned_parent REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION expect_owned();
COMMENT ON TRIGGER expect_owned ON owned_parent IS 'what the walk follows from here on is expected';

CREATE FUNCTION forget_owned() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.forget_unreached();
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION forget_owned() IS
    'internal: trigger function of owned_parent: what the walk does not come to any more is not expected';
CREATE TRIGGER forget_owned AFTER DELETE ON owned_parent FOR EACH STATEMENT EXECUTE FUNCTION forget_owned();
COMMENT ON TRIGGER forget_owned ON owned_parent IS 'what the walk does not come to any more is not expected';

CREATE FUNCTION declare_owned(child regclass, child_columns name[], parent regclass, parent_columns name[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    edge ndrs_optout.erasure_edge;
    link ndrs_optout.owned_link;
BEGIN
    -- First, in the order in which case_certify takes its locks.
    LOCK TABLE ndrs_optout.owned_parent IN ROW EXCLUSIVE MODE;
    SELECT e.* INTO edge FROM ndrs_optout.erasure_edge e
        WHERE e.child = declare_owned.child AND e.parent = declare_owned.parent
            AND ndrs_optout.same_columns(
                ndrs_optout.column_numbers(e.child, e.child_columns),
                ndrs_optout.column_numbers(e.parent, e.parent_columns),
                ndrs_optout.column_numbers(declare_owned.child, declare_owned.child_columns),
                ndrs_optout.column_numbers(declare_owned.parent, declare_owned.parent_columns))
        ORDER BY e.declared LIMIT 1;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('42704',
            format('no reference leads from columns (%s) of table %s to columns (%s) of table %s',
                   array_to_string(child_columns, ', '), child, array_to_string(parent_columns, ', '), parent),
            hint => 'Add a foreign key, or call ndrs_optout.declare_reference() first.');
    END IF;
    PERFORM ndrs_optout.guard_must_be_local(ARRAY[child, parent]);
    EXECUTE format('LOCK TABLE %s, %s IN ACCESS SHARE MODE', child, parent);
    -- The recount looks for what was deleted by its key: another row must not have it.
    IF NOT EXISTS (
        SELECT FROM pg_index i
            WHERE i.indrelid = parent AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                AND NOT EXISTS (SELECT FROM generate_series(0, i.indnkeyatts - 1) AS n
                                    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[n]
                                        AND a.attname = ANY (edge.parent_columns)
                                    WHERE a.attnum IS NULL)) THEN
        PERFORM ndrs_optout.raise_error('42830',
            format('no unique index tells rows of table %s apart by columns (%s)', parent,
                   array_to_string(edge.parent_columns, ', ')),
            hint => 'Create one: what belongs to a patient must be known by its key.');
    END IF;
    INSERT INTO ndrs_optout.owned_parent (child, child_columns, parent, parent_columns)
        VALUES (edge.child, edge.child_columns, edge.parent, edge.parent_columns)
        ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- An error when the types cannot be followed or compared.  With the rights that the walk
    -- will have.
    FOREACH link IN ARRAY ndrs_optout.erasure_plan_owned_links('{}') LOOP
        PERFORM ndrs_optout.search_as_owner((link.search).role, format('SELECT ARRAY[''x''] FROM %s LIMIT 0', s.source),
                                            NULL, NULL)
            FROM unnest(ARRAY[link.source, (link.search).source]) AS s (source)
            WHERE (link.search).relation = parent;
    END LOOP;
    PERFORM ndrs_optout.audit('owned_declared', jsonb_build_object('child', child, 'child_columns', child_columns,
                                                                   'parent', parent, 'parent_columns',
                                                                       parent_columns));
END
$$;
COMMENT ON FUNCTION declare_owned(regclass, name[], regclass, name[]) IS
    'tells an erasure that a row of parent belongs to the rows of child that refer to it by these columns: it is '
    'deleted when the last row that refers to it is, whatever table that is in. There must be a foreign key or a '
    'declared reference; nothing happens when it is declared already. Audited; errors 0A000, 42704 (no such '
    'reference), 42830 (rows of parent are not unique by these columns)';

CREATE FUNCTION retract_owned(child regclass, child_columns name[], parent regclass, parent_columns name[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM ndrs_optout.owned_parent o
        WHERE o.child = retract_owned.child AND o.parent = retract_owned.parent
            AND ndrs_optout.same_columns(
                ndrs_optout.column_numbers(retract_owned.child, retract_owned.child_columns),
                ndrs_optout.column_numbers(retract_owned.parent, retract_owned.parent_columns),
                o.child_attnums, o.parent_attnums);
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('42704', 'no rows are declared as owned by such a reference',
            hint => 'Table ndrs_optout.owned_parent lists what was declared.');
    END IF;
    PERFORM ndrs_optout.audit('owned_retracted', jsonb_build_object('child', child, 'child_columns', child_columns,
                                                                    'parent', parent, 'parent_columns',
                                                                        parent_columns));
END
$$;
COMMENT ON FUNCTION retract_owned(regclass, name[], regclass, name[]) IS
    'takes back what declare_owned() said: an erasure leaves rows of parent as they are. Audited; error 42704 when it '
    'is not declared';

-- The gaps of guard_coverage() that are about parents.  walk: every table that an erasure can
-- come to.
CREATE FUNCTION guard_owned(walk regclass[])
RETURNS TABLE (severity text, gap text, relation regclass, object text, what_to_do text)
LANGUAGE sql
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
    WITH walked AS MATERIALIZED (SELECT DISTINCT w.relation::oid AS relation FROM unnest(walk) AS w (relation)),
    edge AS MATERIALIZED (SELECT e.* FROM ndrs_optout.erasure_edge e)
    -- What these rows hold may be the patient's, too; more often they are a list of codes.
    SELECT 'medium', 'parent_not_owned', e.parent, NULL,
           format('If its rows belong to patients: %s. If not, as those of a list of codes do not: accept the gap.',
                  string_agg(format('SELECT ndrs_optout.declare_owned(%L, %L, %L, %L)', e.child, e.child_columns,
                                    e.parent, e.parent_columns), '; ' ORDER BY e.child::text, e.child_columns))
        FROM edge e
        JOIN pg_class c ON c.oid = e.parent AND c.relnamespace <> 'ndrs_optout'::regnamespace
        WHERE e.child IN (SELECT w.relation FROM walked w) AND e.parent NOT IN (SELECT w.relation FROM walked w)
        GROUP BY e.parent
    UNION ALL
    SELECT DISTINCT 'medium', 'owned_rows_kept', e.child, array_to_string(e.child_columns, ', '),
           format('Its rows keep rows of %1$s. If these belong to them: SELECT ndrs_optout.declare_owned(%2$L, %3$L, '
                  '%1$L, %4$L). If they are parts of these: SELECT ndrs_optout.declare_reference(%2$L, %3$L, %1$L, '
                  '%4$L). If they are to keep them, accept the gap.',
                  e.parent, e.child, e.child_columns, e.parent_columns)
        FROM edge e JOIN ndrs_optout.owned_table o ON o.relation = e.parent
        WHERE e.keeps AND NOT e.owns
$$;
COMMENT ON FUNCTION guard_owned(regclass[]) IS
    'internal: gaps by parents of what the tables of the erasure''s walk hold';
