-- ndrs_optout: installed by CREATE EXTENSION.
\echo Use "CREATE EXTENSION ndrs_optout CASCADE" to load this file. \quit

-- First of all: the server leaves the schema of pgcrypto in the path, and an operator
-- there that fits better than pg_catalog's would be built into our views.  LOCAL: the
-- installer's own path comes back.
SET LOCAL search_path = ndrs_optout, pg_temp;

-- A role that owns the schema, or may create in it, can put functions beside
-- ours.
DO $$
BEGIN
    IF (SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'ndrs_optout')
        OPERATOR(pg_catalog.<>) (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege',
            MESSAGE = 'schema "ndrs_optout" belongs to another role',
            HINT = 'Look at what is in it, drop it, and create the extension again.';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_namespace n
                   ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
                       AND d.refobjid OPERATOR(pg_catalog.=) n.oid
                   WHERE n.nspname OPERATOR(pg_catalog.=) 'ndrs_optout'
                       AND d.deptype OPERATOR(pg_catalog.=) 'n'
                       AND d.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_extension'::pg_catalog.regclass)
        OR EXISTS (SELECT FROM pg_catalog.pg_namespace n CROSS JOIN pg_catalog.aclexplode(n.nspacl) a
                   WHERE n.nspname OPERATOR(pg_catalog.=) 'ndrs_optout'
                       AND a.grantee OPERATOR(pg_catalog.<>) n.nspowner) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'duplicate_object',
            MESSAGE = 'schema "ndrs_optout" is not empty, or others have rights on it',
            HINT = 'Look at what is in it, drop it, and create the extension again.';
    END IF;
END
$$;
