-- sentry: no DDL opens a guard by accident.
--
-- What a command does is judged by what it leaves: the guards' parts are compared
-- before and after it (sentry.c keeps what was before).  So it does not matter by
-- which command, or by whose cascade, a part was lost.

-- PL/pgSQL keeps the plan.
CREATE FUNCTION sentry_parts() RETURNS guard_part[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT p::ndrs_optout.guard_part FROM ndrs_optout.guard_part p
                     ORDER BY p.target, p.nhs_number_column, p.relation, p.part);
END
$$;

-- Does this transaction hold a lock on the table under which it can change it?
CREATE FUNCTION sentry_changed(relation regclass) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pg_locks l
        WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.relation = sentry_changed.relation
            AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
            AND l.mode IN ('ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))
$$;

CREATE FUNCTION sentry_weakening(relation regclass, detail text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT current_setting('ndrs_optout.allow_unguarded')::boolean THEN
        PERFORM ndrs_optout.refuse('ND050',
            format('this would weaken the guard of table %s', relation),
            detail => detail,
            hint => 'Call ndrs_optout.unguard_table() if no guard is wanted. A superuser can set ndrs_optout.allow_unguarded to do it nevertheless.');
    END IF;
END
$$;

-- Asked before the command, since the server commits the first half of it.
CREATE FUNCTION sentry_detach_concurrently(parent regclass) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.sentry_weakening(parent, 'Its partition would be lost.')
        WHERE EXISTS (SELECT FROM ndrs_optout.guard_part p WHERE p.relation = parent)
$$;

-- Lost is what was in force before and is not any more, although the table and its
-- guard are still there, and by this transaction: somebody else's change may
-- have been committed meanwhile.  New is a table that no guard covered before, or
-- one whose numbers the command has computed anew.
CREATE FUNCTION sentry_judge(before guard_part[], retyped name[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    after ndrs_optout.guard_part[] := ndrs_optout.sentry_parts();
    this record;
    found_rows bigint;
BEGIN
    IF before = after AND retyped = '{}' THEN
        RETURN;
    END IF;

    FOR this IN
        SELECT b.target, b.relation, b.nhs_number_column,
               string_agg(format('%s would be %s', b.part, coalesce(a.defect, 'lost')), ', its ' ORDER BY b.part) AS loss
            FROM unnest(before) AS b
            LEFT JOIN unnest(after) AS a
                ON a.target = b.target AND a.nhs_number_column = b.nhs_number_column
                    AND a.relation = b.relation AND a.part = b.part
            WHERE b.defect IS NULL AND (a.target IS NULL OR a.defect IS NOT NULL)
                AND EXISTS (SELECT FROM pg_class c WHERE c.oid = b.relation)
                AND EXISTS (SELECT FROM ndrs_optout.guard g
                            WHERE g.target = b.target AND g.nhs_number_column = b.nhs_number_column)
                AND ndrs_optout.sentry_changed(b.relation)
            GROUP BY b.target, b.relation, b.nhs_number_column
            ORDER BY b.relation::text, b.nhs_number_column
    LOOP
        PERFORM ndrs_optout.sentry_weakening(this.relation, format('Its %s, for column "%s".', this.loss, this.nhs_number_column));
        PERFORM ndrs_optout.audit('guard weakened', jsonb_build_object('relation', this.relation,
            'column', this.nhs_number_column, 'loss', this.loss));
        PERFORM ndrs_optout.tell(true, format('the guard of table %s was weakened', this.relation),
            'SELECT * FROM ndrs_optout.guard_coverage();');
    END LOOP;

    FOR this IN
        SELECT DISTINCT p.relation, g.nhs_number_column, g.registers
            FROM unnest(after) AS p
            JOIN ndrs_optout.guard g ON g.target = p.target AND g.nhs_number_column = p.nhs_number_column
            JOIN pg_class c ON c.oid = p.relation AND c.relkind IN ('r', 'f')
            WHERE p.part = 'backstop' AND p.defect IS NULL
                AND (NOT EXISTS (SELECT FROM unnest(before) AS b WHERE b.target = p.target AND b.relation = p.relation)
                     OR p.nhs_number_column = ANY (retyped))
                AND ndrs_optout.sentry_changed(p.relation)
    LOOP
        EXECUTE format('SELECT count(*) FROM ONLY %s WHERE ndrs_optout.guard_matches(%I, $1)',
                       this.relation, this.nhs_number_column)
            INTO found_rows USING this.registers;
        IF found_rows > 0 THEN
            PERFORM ndrs_optout.refuse('ND001',
                format('table %s holds rows of excluded patients', this.relation),
                detail => format('Rows found by column "%s": %s.', this.nhs_number_column, found_rows),
                hint => 'Take them out first: ndrs_optout.guard_matches() finds them.');
        END IF;
    END LOOP;
END
$$;

CREATE FUNCTION sentry_start() RETURNS event_trigger
    AS 'MODULE_PATHNAME', 'ndrs_optout_sentry_start'
    LANGUAGE C SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off;
CREATE FUNCTION sentry_end() RETURNS event_trigger
    AS 'MODULE_PATHNAME', 'ndrs_optout_sentry_end'
    LANGUAGE C SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off;

-- A table that is gone needs no guard, and leads nowhere.
CREATE FUNCTION sentry_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    dropped oid[] := ARRAY(SELECT o.objid FROM pg_event_trigger_dropped_objects() o
                               WHERE o.classid = 'pg_class'::regclass AND o.objsubid = 0);
    lost record;
BEGIN
    FOR lost IN DELETE FROM ndrs_optout.guard g WHERE g.target = ANY (dropped) RETURNING g.* LOOP
        PERFORM ndrs_optout.audit('guarded table dropped', jsonb_build_object('table',
            (SELECT o.object_identity FROM pg_event_trigger_dropped_objects() o
                 WHERE o.classid = 'pg_class'::regclass AND o.objid = lost.target AND o.objsubid = 0),
            'column', lost.nhs_number_column));
    END LOOP;
    DELETE FROM ndrs_optout.reference r WHERE r.child = ANY (dropped) OR r.parent = ANY (dropped);
    DELETE FROM ndrs_optout.accepted_gap a WHERE a.relation = ANY (dropped);
END
$$;

-- Event triggers are in no schema, hence the long names.  The commands are those
-- that can change a table that is there, by themselves or by what they drop with
-- CASCADE; a table that they create is empty, and what they drop as a whole needs
-- no guard.
CREATE EVENT TRIGGER ndrs_optout_sentry_start ON ddl_command_start
    WHEN TAG IN ('ALTER TABLE', 'ALTER FOREIGN TABLE', 'ALTER TRIGGER', 'ALTER TYPE', 'ALTER DOMAIN', 'CREATE TRIGGER',
                 'DROP TRIGGER', 'DROP TYPE', 'DROP DOMAIN', 'DROP COLLATION', 'DROP SCHEMA', 'DROP EXTENSION', 'DROP OWNED')
    EXECUTE FUNCTION sentry_start();
CREATE EVENT TRIGGER ndrs_optout_sentry_end ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'ALTER FOREIGN TABLE', 'ALTER TRIGGER', 'ALTER TYPE', 'ALTER DOMAIN', 'CREATE TRIGGER',
                 'DROP TRIGGER', 'DROP TYPE', 'DROP DOMAIN', 'DROP COLLATION', 'DROP SCHEMA', 'DROP EXTENSION', 'DROP OWNED')
    EXECUTE FUNCTION sentry_end();
CREATE EVENT TRIGGER ndrs_optout_sentry_drop ON sql_drop EXECUTE FUNCTION sentry_drop();
ALTER EVENT TRIGGER ndrs_optout_sentry_start ENABLE ALWAYS;
ALTER EVENT TRIGGER ndrs_optout_sentry_end ENABLE ALWAYS;
ALTER EVENT TRIGGER ndrs_optout_sentry_drop ENABLE ALWAYS;

COMMENT ON FUNCTION sentry_parts() IS 'the parts of all guards';
COMMENT ON FUNCTION sentry_changed(regclass) IS 'whether this transaction holds a lock under which a table can be changed';
COMMENT ON FUNCTION sentry_weakening(regclass, text) IS 'error ND050, unless ndrs_optout.allow_unguarded is on';
COMMENT ON FUNCTION sentry_detach_concurrently(regclass) IS 'error ND050 when a partition of a guarded table is to be detached concurrently, unless ndrs_optout.allow_unguarded is on';
COMMENT ON FUNCTION sentry_judge(guard_part[], name[]) IS
    'errors ND050 when a guard''s part was lost and ndrs_optout.allow_unguarded is off, ND001 when a table with rows of excluded patients came under a guard';
COMMENT ON FUNCTION sentry_start() IS 'event trigger function: remembers the parts of all guards';
COMMENT ON FUNCTION sentry_end() IS 'event trigger function: refuses what weakens a guard, or brings rows of excluded patients under one';
COMMENT ON FUNCTION sentry_drop() IS 'event trigger function: forgets the guards, references and accepted gaps of tables that are dropped';
COMMENT ON EVENT TRIGGER ndrs_optout_sentry_start IS 'remembers the parts of all guards before a command';
COMMENT ON EVENT TRIGGER ndrs_optout_sentry_end IS 'refuses what weakens a guard';
COMMENT ON EVENT TRIGGER ndrs_optout_sentry_drop IS 'forgets the guards of tables that are dropped';
