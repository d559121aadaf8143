-- version: whether library and catalogue are of one build.

-- Two builds of one version differ in what their scripts say.  An upgrade script lets
-- this return what "make build-id" prints.
CREATE FUNCTION catalogue_build() RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT '@BUILD@' $$;
COMMENT ON FUNCTION catalogue_build() IS 'internal: the build that the extension''s objects in this database are of';

CREATE FUNCTION library_build() RETURNS text
    AS 'MODULE_PATHNAME', 'ndrs_optout_library_build'
    LANGUAGE C STABLE;
COMMENT ON FUNCTION library_build() IS 'internal: the build that the library in use is of';

-- Before anything is promised: what a function of another build does is not known.
CREATE FUNCTION require_one_build() RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF ndrs_optout.library_build() <> ndrs_optout.catalogue_build() THEN
        PERFORM ndrs_optout.raise_error('55000', 'extension "ndrs_optout" and its installed library are of different '
                                                 'builds',
            format('The extension is of build %s, the library of build %s.',
                   ndrs_optout.catalogue_build(), ndrs_optout.library_build()),
            'Ask a superuser to call ALTER EXTENSION ndrs_optout UPDATE, or to install the library of the extension''s '
            'build.');
    END IF;
END
$$;
COMMENT ON FUNCTION require_one_build() IS
    'internal: error 55000 when the extension''s objects and the library are of different builds';
