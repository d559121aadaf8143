-- declare_reference: links between tables that no foreign key declares.

CREATE FUNCTION declare_reference(child regclass, child_columns name[], parent regclass, parent_columns name[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    edge ndrs_optout.erasure_edge;
    missing text;
BEGIN
    IF EXISTS (SELECT FROM unnest(ARRAY[child, parent]) AS r (relation)
               LEFT JOIN pg_class c ON c.oid = r.relation
               WHERE (c.relkind IN ('r', 'p') AND c.relpersistence <> 't') IS NOT TRUE) THEN
        PERFORM ndrs_optout.raise_error('42809',
            'a reference is between permanent tables');
    END IF;
    IF coalesce(cardinality(child_columns), 0) = 0
        OR cardinality(child_columns) IS DISTINCT FROM cardinality(parent_columns) THEN
        PERFORM ndrs_optout.raise_error('22023',
            'a reference needs as many child columns as parent columns, and at least one');
    END IF;
    PERFORM ndrs_optout.guard_must_be_local(ARRAY[child, parent]);
    -- First, in the order in which case_certify takes its locks.
    LOCK TABLE ndrs_optout.reference IN ROW EXCLUSIVE MODE;
    -- Writers in flight are gone then, and what they wrote can be seen.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', child);
    SELECT format('column "%s" of table %s does not exist', coalesce(n.name::text, 'NULL'), n.relation) INTO missing
        FROM (SELECT child, unnest(child_columns) UNION ALL SELECT parent, unnest(parent_columns)) AS n (relation, name)
        WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = n.relation AND a.attname = n.name
                              AND a.attnum > 0 AND NOT a.attisdropped) LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.raise_error('42703', missing);
    END IF;
    -- Declared anew, it is what the names say now.
    DELETE FROM ndrs_optout.reference r
        WHERE r.child = declare_reference.child AND r.child_columns = declare_reference.child_columns
            AND r.parent = declare_reference.parent AND r.parent_columns = declare_reference.parent_columns
            AND (r.child_attnums <> ndrs_optout.column_numbers(r.child, r.child_columns)
                 OR r.parent_attnums <> ndrs_optout.column_numbers(r.parent, r.parent_columns));
    IF FOUND THEN
        PERFORM ndrs_optout.forget_reference(child, child_columns, parent, parent_columns);
    END IF;
    SELECT format('column "%s" of table %s (%s) cannot be compared with column "%s" of table %s (%s)', c.attname,
                  child, ndrs_optout.column_type(child, c.attnum), p.attname, parent,
                  ndrs_optout.column_type(parent, p.attnum)) INTO missing
        FROM ndrs_optout.reference_incomparable(child, ndrs_optout.column_numbers(child, child_columns), parent,
                                                ndrs_optout.column_numbers(parent, parent_columns)) AS i
        JOIN pg_attribute c ON c.attrelid = child AND c.attnum = i.child_attnum
        JOIN pg_attribute p ON p.attrelid = parent AND p.attnum = i.parent_attnum LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.raise_error('42804', missing,
            detail => 'The server has no operator for these types, or one that may take values for equal that differ, '
                      'or for different that are equal.',
            hint => 'Give one of the columns the type of the other, or add a column that a trigger fills or that is '
                    'generated.');
    END IF;
    INSERT INTO ndrs_optout.reference (child, child_columns, parent, parent_columns)
        VALUES (child, child_columns, parent, parent_columns)
        ON CONFLICT DO NOTHING;

    SELECT e.* INTO STRICT edge FROM ndrs_optout.erasure_edge e
        WHERE e.declared AND e.child = declare_reference.child AND e.child_columns = declare_reference.child_columns
            AND e.parent = declare_reference.parent AND e.parent_columns = declare_reference.parent_columns;
    -- An error when it cannot be read.  With the rights that the walk will have.
    PERFORM ndrs_optout.search_as_owner(
        (SELECT c.relowner::regrole FROM pg_class c WHERE c.oid = declare_reference.child),
        format('SELECT ARRAY[''x''] FROM %s LIMIT 0', ndrs_optout.erasure_source(edge, 'true')), NULL, NULL);
    PERFORM ndrs_optout.audit('reference_declared', jsonb_build_object('child', child, 'child_columns', child_columns,
                                                                       'parent', parent, 'parent_columns',
                                                                           parent_columns));
END
$$;
COMMENT ON FUNCTION declare_reference(regclass, name[], regclass, name[]) IS
    'tells the erasure''s walk of a link that the schema does not declare: rows of child whose columns equal those of '
    'a patient''s parent row are the patient''s; nothing happens when it is declared already; errors 22023, 42703, '
    '42804 (types that cannot be compared), 42809 (not a permanent table)';

CREATE FUNCTION drop_reference(child regclass, child_columns name[], parent regclass, parent_columns name[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM ndrs_optout.reference r
        WHERE r.child = drop_reference.child AND r.child_columns = drop_reference.child_columns
            AND r.parent = drop_reference.parent AND r.parent_columns = drop_reference.parent_columns;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('42704', 'there is no such reference',
            hint => 'Table ndrs_optout.reference lists the references that were declared.');
    END IF;
    IF EXISTS (SELECT FROM ndrs_optout.owned_parent o
               WHERE o.child = drop_reference.child AND o.parent = drop_reference.parent
                   AND NOT EXISTS (SELECT FROM ndrs_optout.erasure_edge e
                                   WHERE e.child = o.child AND e.parent = o.parent AND e.owns)) THEN
        PERFORM ndrs_optout.raise_error('2BP01',
            format('cannot drop the reference: rows of table %s belong to those of table %s by it', parent, child),
            hint => 'Call ndrs_optout.retract_owned() first.');
    END IF;
    PERFORM ndrs_optout.forget_reference(child, child_columns, parent, parent_columns);
    PERFORM ndrs_optout.audit('reference_dropped', jsonb_build_object('child', child, 'child_columns', child_columns,
                                                                      'parent', parent, 'parent_columns',
                                                                          parent_columns));
END
$$;
COMMENT ON FUNCTION drop_reference(regclass, name[], regclass, name[]) IS
    'takes back what declare_reference() did: an erasure does not follow the reference any more. Audited; errors '
    '2BP01 (declare_owned() rests on it), 42704 (not declared)';
