-- refresh_guards: guards that are not as this version makes them are made anew.

-- Guards are made anew without unguard_table(): the sentry would take the first half for
-- a loss, so the guard is forgotten for a moment, in which the table is locked.
CREATE FUNCTION refresh_guards(target regclass DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tables regclass[];
    this regclass;
    guards ndrs_optout.guard[];
    commands text;
BEGIN
    PERFORM ndrs_optout.require_one_build();
    LOCK TABLE ndrs_optout.guard IN ROW EXCLUSIVE MODE;
    IF refresh_guards.target IS NOT NULL
        AND NOT EXISTS (SELECT FROM ndrs_optout.guard g WHERE g.target = refresh_guards.target) THEN
        PERFORM ndrs_optout.raise_error('42704', format('table %s is not guarded', refresh_guards.target),
            hint => 'Table ndrs_optout.guard lists the guarded tables.');
    END IF;
    -- Before the first event of the audit, which is one of these tables
    IF refresh_guards.target IS NULL THEN
        SELECT h.what_to_do INTO commands FROM ndrs_optout.health_triggers() AS h WHERE h.status <> 'ok';
        IF FOUND THEN
            EXECUTE commands;
            PERFORM ndrs_optout.audit('triggers_refreshed');
        END IF;
    END IF;
    tables := ARRAY(SELECT DISTINCT p.target FROM ndrs_optout.guard_part p
                        WHERE p.part IN ('trigger', 'constraint')
                            AND p.defect IN ('missing', 'disabled', 'not_always', 'not_enforced')
                            AND (refresh_guards.target IS NULL OR p.target = refresh_guards.target)
                        ORDER BY p.target);
    FOREACH this IN ARRAY tables LOOP
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', this);
        WITH forgotten AS (DELETE FROM ndrs_optout.guard g WHERE g.target = this RETURNING g)
            SELECT array_agg(f.g) INTO guards FROM forgotten f;
        PERFORM ndrs_optout.guard_drop_parts(this);
        INSERT INTO ndrs_optout.guard SELECT g.* FROM unnest(guards) AS g;
        PERFORM ndrs_optout.guard_add_parts(g::ndrs_optout.guard) FROM unnest(guards) AS g;
        PERFORM ndrs_optout.audit('guards_refreshed', jsonb_build_object('target', this));
    END LOOP;
    RETURN cardinality(tables);
END
$$;
COMMENT ON FUNCTION refresh_guards(regclass) IS
    'puts triggers and constraints of guards back that are missing, disabled, not ALWAYS, not enforced, or of an '
    'earlier version of the extension: of one table, or of all, and then the triggers of the extension''s own tables '
    'as well. Returns how many tables; locks these until commit (ACCESS EXCLUSIVE). Rows that came in since are for '
    'sweep(). Audited; errors 42704 (not guarded), 55000 (library and catalogue of different builds)';
