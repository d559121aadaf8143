-- extension_function: functions of other extensions.

-- A function of another extension, in whatever schema that is.  A call by name would
-- find what others have put beside it, with types that fit better, and run that as the
-- owner of this extension.  So calls give exactly these types, and the function must be
-- a member of the extension and in C: who owns an extension can add functions to it,
-- but only a superuser can write one in C.
CREATE FUNCTION extension_function(extension name, function_name name, argument_types regtype[]) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result text;
BEGIN
    SELECT format('%I.%I', n.nspname, p.proname) INTO result
        FROM pg_extension e
        JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
            AND d.classid = 'pg_proc'::regclass
        JOIN pg_proc p ON p.oid = d.objid
        JOIN pg_language l ON l.oid = p.prolang
        JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE e.extname = extension AND p.proname = function_name AND l.lanname = 'c'
            AND array_to_string(p.proargtypes::oid[], ' ') = array_to_string(argument_types::oid[], ' ');
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('55000',
            format('function %s(%s) of extension "%s" was not found', function_name,
                   array_to_string(argument_types, ', '), extension),
            hint => format('Ask a superuser to reinstall extension "%s".', extension));
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION extension_function(name, name, regtype[]) IS
    'internal: the quoted name, with its schema, of a C function with exactly these argument types that is a member '
    'of the extension; error 55000 when there is none. For calls of other extensions, which a function planted beside '
    'theirs must not take';
