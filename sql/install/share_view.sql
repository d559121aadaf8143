-- share_view: a view that shows what may be shared, for roles that must not read the table.
--
-- The view reads the table with the rights of the table's owner, and decides with those of its
-- reader, who needs duty reader or analyst.  It is a security barrier: no function of the reader's
-- sees a row before the decision, unless it is LEAKPROOF, which only a superuser makes.

-- What makes a view one: by what it depends on, so that it can be renamed, moved, restored, or
-- made by hand.
CREATE VIEW share_view_table AS
    SELECT DISTINCT v.oid::regclass AS view, t.oid::regclass AS relation
        FROM pg_catalog.pg_class v
        JOIN pg_catalog.pg_rewrite r ON r.ev_class OPERATOR(pg_catalog.=) v.oid
        JOIN pg_catalog.pg_depend f ON f.classid = 'pg_catalog.pg_rewrite'::regclass
            AND f.objid OPERATOR(pg_catalog.=) r.oid AND f.refclassid = 'pg_catalog.pg_proc'::regclass
        JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) f.refobjid
            AND p.pronamespace = 'ndrs_optout'::regnamespace AND p.proname = 'share_eligible'
        JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass
            AND d.objid OPERATOR(pg_catalog.=) r.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass
        JOIN pg_catalog.pg_class t ON t.oid OPERATOR(pg_catalog.=) d.refobjid
            AND t.oid OPERATOR(pg_catalog.<>) v.oid AND t.relkind IN ('r', 'p', 'f', 'm')
        WHERE v.relkind = 'v' AND 'security_barrier=true' = ANY (v.reloptions);
COMMENT ON VIEW share_view_table IS
    'views that are security barriers and decide with share_eligible(), as share_view() makes them, each with the '
    'tables that it reads';

-- NUMBER as an argument of share_eligible(): as it is, or as guards read it, which is NULL for a
-- number that cannot be read, and then not eligible.
CREATE FUNCTION share_view_number(target regclass, number_column name) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, ndrs_optout, pg_temp
AS $$
DECLARE
    type regtype;
BEGIN
    IF number_column IS NULL THEN
        PERFORM ndrs_optout.raise_error('22004', 'a column with NHS numbers is needed');
    END IF;
    PERFORM ndrs_optout.guard_check_column(target, number_column, 'number_column',
        '{text,varchar,bpchar,integer,bigint,numeric,nhs_number,encoded_nhs_number}', false);
    SELECT a.atttypid::regtype INTO STRICT type FROM pg_attribute a
        WHERE a.attrelid = target AND a.attname = number_column AND a.attnum > 0;
    RETURN format(CASE WHEN type IN ('varchar'::regtype, 'bpchar'::regtype) THEN 't.%I::text'
                       WHEN type = 'integer'::regtype THEN 't.%I::bigint'
                       WHEN type = 'numeric'::regtype THEN 'ndrs_optout.guard_number(t.%I)'
                       ELSE 't.%I' END, number_column);
END
$$;
COMMENT ON FUNCTION share_view_number(regclass, name) IS
    'internal: a column as an argument of share_eligible(); errors 22004, 42809 (no column, or one that no guard '
    'reads)';

CREATE FUNCTION share_view(name text, target regclass, number_column name, purpose text,
    registers text[] DEFAULT NULL, recipient text DEFAULT NULL, columns name[] DEFAULT NULL)
RETURNS regclass
LANGUAGE plpgsql
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    parts text[] := parse_ident(name);
    number text := ndrs_optout.share_view_number(target, number_column);
    owner regrole;
    shown text;
    missing text;
    result regclass;
BEGIN
    IF (cardinality(parts) = 2 AND parts[1] <> 'ndrs_optout') IS NOT TRUE THEN
        PERFORM ndrs_optout.raise_error('22023', 'the view''s name must have a schema, of the registry''s own',
            hint => 'For example ''research.patient''.');
    END IF;
    SELECT r.relowner::regrole INTO owner FROM pg_class r WHERE r.oid = target AND r.relkind IN ('r', 'p', 'f', 'm');
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('42809', 'a view can be made of a table only');
    END IF;
    SELECT c.column INTO missing FROM unnest(columns) AS c ("column")
        WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = c.column
                              AND a.attnum > 0 AND NOT a.attisdropped)
        LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.raise_error('42703', format('column "%s" of table %s does not exist', missing, target));
    END IF;
    PERFORM FROM ndrs_optout.purpose p WHERE p.code = purpose;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('42704', 'there is no such purpose',
            hint => 'Table ndrs_optout.purpose lists the purposes.');
    END IF;
    IF registers IS NOT NULL THEN
        registers := ndrs_optout.checked_registers(registers);
    END IF;
    IF recipient IS NOT NULL THEN
        PERFORM ndrs_optout.checked_recipient(recipient);
    END IF;

    shown := CASE WHEN columns IS NULL THEN 't.*'
                  ELSE (SELECT string_agg(format('t.%I', c.column), ', ' ORDER BY c.place)
                            FROM unnest(columns) WITH ORDINALITY AS c ("column", place)) END;
    EXECUTE format('CREATE VIEW %I.%I WITH (security_barrier = true, security_invoker = false) AS '
                   'SELECT %s FROM %s AS t WHERE ndrs_optout.share_eligible(%s, %L, %L::text[], %L)',
                   parts[1], parts[2], shown, target, number, purpose, registers, recipient);
    result := format('%I.%I', parts[1], parts[2])::regclass;
    EXECUTE format('ALTER VIEW %s OWNER TO %s', result, owner);
    EXECUTE format('COMMENT ON VIEW %s IS %L', result,
                   format('rows of %s that may be shared for purpose %s', target, purpose)
                   || coalesce(' with recipient ' || recipient, ''));
    IF EXISTS (SELECT FROM pg_class r WHERE r.oid = target AND r.relrowsecurity AND NOT r.relforcerowsecurity) THEN
        PERFORM ndrs_optout.raise_notice(true,
            format('row security of table %s hides nothing in view %s', target, result),
            'The view reads the table as its owner. Grant it to roles that may see every row that may be shared.');
    END IF;
    PERFORM ndrs_optout.audit('share_view_made', jsonb_strip_nulls(jsonb_build_object('view', result, 'table', target,
        'column', number_column, 'purpose', purpose, 'registers', registers, 'recipient', recipient)));
    RETURN result;
END
$$;
COMMENT ON FUNCTION share_view(text, regclass, name, text, text[], text, name[]) IS
    'makes a view of a table that shows those rows that may be shared for a purpose, as share_eligible() decides '
    'when it is read, and returns it. name: with its schema; columns: those that it shows (NULL: all of now). It '
    'reads the table with the rights of the table''s owner, who owns it, so row security that is not forced hides '
    'nothing in it, which a warning says. GRANT SELECT on it to roles with duty '
    'reader or analyst. Audited; errors 22004, 22023, 42703, 42704 (no such purpose, register or recipient), 42809, '
    '42P07 (the name is taken)';

CREATE FUNCTION drop_share_view(view regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ndrs_optout.share_view_table s WHERE s.view = drop_share_view.view) THEN
        PERFORM ndrs_optout.raise_error('42704', 'this is no view that share_view() made',
            hint => 'View ndrs_optout.share_view_table lists them.');
    END IF;
    PERFORM ndrs_optout.audit('share_view_dropped', jsonb_build_object('view', view));
    EXECUTE format('DROP VIEW %s', view);
END
$$;
COMMENT ON FUNCTION drop_share_view(regclass) IS
    'drops a view that share_view() has made. Audited; errors 42704 (not such a view), 2BP01 (something depends on it)';

-- A role that is to see a table through such a view only, and can read the table, or a part of it.
-- Who may decide is who has the duty.
CREATE FUNCTION share_view_gaps()
RETURNS TABLE (severity text, gap text, relation regclass, object text, what_to_do text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT 'medium', 'table_read_beside_share_view', d.relation::regclass, r.rolname::text,
           format('Take SELECT on %s from role %I, or the role that it has it through. If it must read the table, '
                  'accept the gap.', d.relation, r.rolname)
        FROM ndrs_optout.share_view_table s
        CROSS JOIN LATERAL ndrs_optout.erasure_descendants(s.relation) AS d
        JOIN pg_class t ON t.oid = d.relation
        JOIN pg_roles r ON NOT r.rolsuper AND r.oid <> t.relowner AND r.oid >= 16384
            AND has_any_column_privilege(r.oid, t.oid, 'SELECT')
            AND has_schema_privilege(r.oid, t.relnamespace, 'USAGE')
            AND EXISTS (SELECT FROM pg_proc p
                        WHERE p.pronamespace = 'ndrs_optout'::regnamespace AND p.proname = 'share_eligible'
                            AND has_function_privilege(r.oid, p.oid, 'EXECUTE'))
$$;
COMMENT ON FUNCTION share_view_gaps() IS
    'internal: the gaps of guard_coverage() that are about views of share_view(): roles with duty reader or analyst '
    'that can read the table itself';
