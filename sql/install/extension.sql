-- ndrs_optout: installed by CREATE EXTENSION.
\echo Use "CREATE EXTENSION ndrs_optout CASCADE" to load this file. \quit

-- Whoever owns the schema can put functions of their own beside ours.
DO $$
BEGIN
    IF (SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'ndrs_optout')
        OPERATOR(pg_catalog.<>) (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege',
            MESSAGE = 'schema "ndrs_optout" belongs to another role',
            HINT = 'Look at what is in it, drop it, and create the extension again.';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n
                   ON n.oid OPERATOR(pg_catalog.=) c.relnamespace WHERE n.nspname = 'ndrs_optout')
        OR EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n
                   ON n.oid OPERATOR(pg_catalog.=) p.pronamespace WHERE n.nspname = 'ndrs_optout') THEN
        RAISE EXCEPTION USING
            ERRCODE = 'duplicate_object',
            MESSAGE = 'schema "ndrs_optout" is not empty',
            HINT = 'Look at what is in it, drop it, and create the extension again.';
    END IF;
END
$$;
