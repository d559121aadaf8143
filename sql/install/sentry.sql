-- sentry: no DDL opens a guard by accident.
--
-- What a command does is judged by what it leaves: the parts of guards are compared
-- before and after it.  So it does not matter by which command, or by whose
-- cascade, a part was lost.  sentry.c keeps what was before, and has all that is
-- read here read with a snapshot of now, whatever the transaction's.

-- The parts of the guards that tables belong to, by their ancestors and
-- descendants; without tables, of all guards.  PL/pgSQL keeps the plan.
CREATE FUNCTION sentry_parts(tables regclass[]) RETURNS guard_part[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    targets regclass[];
BEGIN
    IF tables IS NOT NULL THEN
        WITH RECURSIVE related (relation) AS (
            SELECT t.relation FROM unnest(tables) AS t (relation)
            UNION
            SELECT r.relation FROM related b CROSS JOIN LATERAL (
                SELECT i.inhparent::regclass AS relation FROM pg_inherits i WHERE i.inhrelid = b.relation) AS r)
        SELECT array_agg(DISTINCT g.target) INTO targets
            FROM ndrs_optout.guard g
            WHERE g.target IN (SELECT r.relation FROM related r)
                OR EXISTS (SELECT FROM unnest(tables) AS t (relation)
                               CROSS JOIN LATERAL ndrs_optout.erasure_descendants(t.relation) AS d
                               WHERE d.relation = g.target);
        IF targets IS NULL THEN
            RETURN ARRAY[]::ndrs_optout.guard_part[];
        END IF;
    END IF;
    RETURN ARRAY(SELECT p::ndrs_optout.guard_part FROM ndrs_optout.guard_part p
                     WHERE targets IS NULL OR p.target = ANY (targets)
                     ORDER BY p.target, p.nhs_number_column, p.relation, p.part);
END
$$;

-- Does this transaction hold a lock on the table, or on one that it is a part of,
-- under which it can change it?  Somebody else's change may have been committed
-- while the command ran.
CREATE FUNCTION sentry_changed(relation regclass) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pg_locks l
        WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation'
            AND l.relation IN (SELECT a.ancestor FROM ndrs_optout.erasure_lineage(sentry_changed.relation) AS a)
            AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
            AND l.mode IN ('ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))
$$;

-- How weak a part is: worse must not become of it.
CREATE FUNCTION sentry_weakness(defect text) RETURNS integer
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE defect WHEN 'not ALWAYS' THEN 1 WHEN 'disabled' THEN 2 ELSE 3 END
        WHERE defect IS NOT NULL
    UNION ALL
    SELECT 0 WHERE defect IS NULL
$$;

-- What a command has lost, as an array of (table, sentence): a part that is weaker
-- than it was, or not there any more although its table and its guard are; or
-- weak although it was not there, because the command waited for the guard.
CREATE FUNCTION sentry_losses(before guard_part[], after guard_part[], retyped_in regclass, retyped name[]) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(ARRAY[l.relation::text, format('Its %s, for column "%s".', l.loss, l.nhs_number_column)]
                     ORDER BY l.relation::text, l.nhs_number_column)
        FROM (SELECT relation, nhs_number_column,
                     string_agg(format('%s would be %s', part, coalesce(a.defect, 'lost')), ', its ' ORDER BY part) AS loss
                  FROM unnest(before) AS b
                  FULL JOIN unnest(after) AS a USING (target, nhs_number_column, relation, part)
                  WHERE coalesce(ndrs_optout.sentry_weakness(a.defect), 0) > coalesce(ndrs_optout.sentry_weakness(b.defect), 0)
                      OR a IS NULL AND b.defect IS NULL
                          AND EXISTS (SELECT FROM pg_class c WHERE c.oid = b.relation)
                          AND EXISTS (SELECT FROM ndrs_optout.guard g
                                      WHERE g.target = b.target AND g.nhs_number_column = b.nhs_number_column)
                  GROUP BY relation, nhs_number_column
              UNION ALL
              SELECT g.target, g.nhs_number_column, format('column "%s" would be computed anew', g.encoded_column)
                  FROM ndrs_optout.guard g
                  WHERE g.encoded_column = ANY (retyped)
                      AND g.target IN (SELECT d.relation FROM ndrs_optout.erasure_descendants(retyped_in) AS d)) AS l
        WHERE ndrs_optout.sentry_changed(l.relation)
$$;

-- Tables with rows of excluded patients that came under a guard, or whose numbers
-- were computed anew, as an array of (table, sentence).
CREATE FUNCTION sentry_intruders(before guard_part[], after guard_part[], retyped_in regclass, retyped name[]) RETURNS text[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this record;
    found_rows text[];
    result text[];
BEGIN
    FOR this IN
        SELECT a.relation, g.nhs_number_column, g.registers, c.relowner::regrole AS owner
            FROM unnest(after) AS a
            JOIN ndrs_optout.guard g ON g.target = a.target AND g.nhs_number_column = a.nhs_number_column
            JOIN pg_class c ON c.oid = a.relation AND c.relkind IN ('r', 'f')
            WHERE a.part = 'backstop'
                AND (NOT EXISTS (SELECT FROM unnest(before) AS b WHERE b.target = a.target AND b.relation = a.relation)
                     OR a.nhs_number_column = ANY (retyped)
                         AND a.relation IN (SELECT d.relation FROM ndrs_optout.erasure_descendants(retyped_in) AS d))
                AND ndrs_optout.sentry_changed(a.relation)
            ORDER BY a.relation::text, g.nhs_number_column
    LOOP
        found_rows := ndrs_optout.erasure_look(this.owner, format(
            'SELECT ARRAY[count(*)::text] FROM ONLY %s WHERE ndrs_optout.guard_matches(%I, $2)',
            this.relation, this.nhs_number_column), NULL, this.registers, true);
        IF found_rows[1]::bigint > 0 THEN
            result := result || ARRAY[[this.relation::text,
                format('Rows found by column "%s": %s.', this.nhs_number_column, found_rows[1])]];
        END IF;
    END LOOP;
    RETURN result;
END
$$;

CREATE FUNCTION sentry_weakening(relation text, detail text) RETURNS void
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
    SELECT ndrs_optout.sentry_weakening(parent::text, 'Its partition would be lost.')
        WHERE EXISTS (SELECT FROM ndrs_optout.guard_part p WHERE p.relation = parent)
$$;

CREATE FUNCTION sentry_judge(losses text[], intruders text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this text[];
BEGIN
    IF losses IS NOT NULL THEN
        FOREACH this SLICE 1 IN ARRAY losses LOOP
            PERFORM ndrs_optout.sentry_weakening(this[1], this[2]);
            PERFORM ndrs_optout.audit('guard weakened', jsonb_build_object('relation', this[1], 'loss', this[2]));
            PERFORM ndrs_optout.tell(true, format('the guard of table %s was weakened', this[1]),
                'SELECT * FROM ndrs_optout.guard_coverage();');
        END LOOP;
    END IF;
    IF intruders IS NOT NULL THEN
        PERFORM ndrs_optout.refuse('23N01',
            format('table %s holds rows of excluded patients', intruders[1][1]),
            detail => intruders[1][2],
            hint => 'Take them out first: ndrs_optout.guard_matches() finds them, and ndrs_optout.sweep() where the table is guarded.');
    END IF;
END
$$;

-- With the search_path of whoever gives the command: its names are looked up.
CREATE FUNCTION sentry_start() RETURNS event_trigger
    AS 'MODULE_PATHNAME', 'ndrs_optout_sentry_start'
    LANGUAGE C SECURITY DEFINER SET jit = off;
CREATE FUNCTION sentry_end() RETURNS event_trigger
    AS 'MODULE_PATHNAME', 'ndrs_optout_sentry_end'
    LANGUAGE C SECURITY DEFINER SET jit = off;

-- A table that is gone needs no guard, and leads nowhere.  Nothing is locked for
-- writing where there is nothing to do: every DROP comes here.
CREATE FUNCTION sentry_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    dropped oid[] := ARRAY(SELECT o.objid FROM pg_event_trigger_dropped_objects() o
                               WHERE o.classid = 'pg_class'::regclass AND o.objsubid = 0);
    lost record;
BEGIN
    IF EXISTS (SELECT FROM ndrs_optout.guard g WHERE g.target = ANY (dropped)) THEN
        FOR lost IN DELETE FROM ndrs_optout.guard g WHERE g.target = ANY (dropped) RETURNING g.* LOOP
            PERFORM ndrs_optout.audit('guarded table dropped', jsonb_build_object('table',
                (SELECT o.object_identity FROM pg_event_trigger_dropped_objects() o
                     WHERE o.classid = 'pg_class'::regclass AND o.objid = lost.target AND o.objsubid = 0),
                'column', lost.nhs_number_column));
        END LOOP;
    END IF;
    IF EXISTS (SELECT FROM ndrs_optout.reference r WHERE r.child = ANY (dropped) OR r.parent = ANY (dropped)) THEN
        DELETE FROM ndrs_optout.reference r WHERE r.child = ANY (dropped) OR r.parent = ANY (dropped);
    END IF;
    IF EXISTS (SELECT FROM ndrs_optout.accepted_gap a WHERE a.relation = ANY (dropped)) THEN
        DELETE FROM ndrs_optout.accepted_gap a WHERE a.relation = ANY (dropped);
    END IF;
END
$$;

-- Event triggers are in no schema, hence the long names.  sentry.c passes over the
-- commands that can change no table that is there.
CREATE EVENT TRIGGER ndrs_optout_sentry_start ON ddl_command_start EXECUTE FUNCTION sentry_start();
CREATE EVENT TRIGGER ndrs_optout_sentry_end ON ddl_command_end EXECUTE FUNCTION sentry_end();
CREATE EVENT TRIGGER ndrs_optout_sentry_drop ON sql_drop EXECUTE FUNCTION sentry_drop();
ALTER EVENT TRIGGER ndrs_optout_sentry_start ENABLE ALWAYS;
ALTER EVENT TRIGGER ndrs_optout_sentry_end ENABLE ALWAYS;
ALTER EVENT TRIGGER ndrs_optout_sentry_drop ENABLE ALWAYS;

COMMENT ON FUNCTION sentry_parts(regclass[]) IS 'the parts of the guards that tables belong to, or of all guards';
COMMENT ON FUNCTION sentry_changed(regclass) IS 'whether this transaction holds a lock under which a table can be changed';
COMMENT ON FUNCTION sentry_weakness(text) IS 'how weak a part of a guard with this defect is; 0: in force';
COMMENT ON FUNCTION sentry_losses(guard_part[], guard_part[], regclass, name[]) IS 'what a command has lost of guards: tables and sentences';
COMMENT ON FUNCTION sentry_intruders(guard_part[], guard_part[], regclass, name[]) IS 'tables with rows of excluded patients that a command has brought under guards, and sentences';
COMMENT ON FUNCTION sentry_weakening(text, text) IS 'error ND050, unless ndrs_optout.allow_unguarded is on';
COMMENT ON FUNCTION sentry_detach_concurrently(regclass) IS 'error ND050 when a partition of a guarded table is to be detached concurrently, unless ndrs_optout.allow_unguarded is on';
COMMENT ON FUNCTION sentry_judge(text[], text[]) IS
    'errors ND050 when a guard''s part was lost and ndrs_optout.allow_unguarded is off, 23N01 when a table with rows of excluded patients came under a guard';
COMMENT ON FUNCTION sentry_start() IS 'event trigger function: remembers the parts of the guards that a command may change';
COMMENT ON FUNCTION sentry_end() IS 'event trigger function: refuses what weakens a guard, or brings rows of excluded patients under one';
COMMENT ON FUNCTION sentry_drop() IS 'event trigger function: forgets the guards, references and accepted gaps of tables that are dropped';
COMMENT ON EVENT TRIGGER ndrs_optout_sentry_start IS 'remembers the parts of guards before a command';
COMMENT ON EVENT TRIGGER ndrs_optout_sentry_end IS 'refuses what weakens a guard';
COMMENT ON EVENT TRIGGER ndrs_optout_sentry_drop IS 'forgets the guards of tables that are dropped';
