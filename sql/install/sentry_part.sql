-- sentry_part: what a command has done to the parts of guards.

-- A part of a guard on one table.
-- filenode: the table's file.
CREATE TYPE sentry_part AS (
    target            regclass,
    nhs_number_column name,
    relation          regclass,
    part              text,
    defect            text,
    object            name,
    attnum            smallint,
    atttypid          oid,
    filenode          oid
);
COMMENT ON TYPE sentry_part IS
    'internal: a part of a guard on one table, as the sentry compares it before and after a command';

-- Does one of the tables belong to a guard?
CREATE FUNCTION sentry_concerned(changed oid[]) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (
        WITH RECURSIVE up (ancestor) AS (
            SELECT c.relation FROM unnest(changed) AS c (relation)
            UNION
            SELECT i.inhparent FROM up JOIN pg_inherits i ON i.inhrelid = up.ancestor AND NOT i.inhdetachpending)
        SELECT FROM up JOIN ndrs_optout.guard g ON g.target = up.ancestor);
END
$$;
COMMENT ON FUNCTION sentry_concerned(oid[]) IS 'internal: whether one of the tables is covered by a guard';

-- The links of inheritance that end at one of the tables.
-- pending: those too of partitions that are being detached CONCURRENTLY.
CREATE FUNCTION sentry_links(changed oid[], pending boolean DEFAULT false) RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT format('%s %s', i.inhparent, i.inhrelid) FROM pg_inherits i
                     WHERE i.inhparent = ANY (changed) AND (pending OR NOT i.inhdetachpending)
                 UNION
                 SELECT format('%s %s', i.inhparent, i.inhrelid) FROM pg_inherits i
                     WHERE i.inhrelid = ANY (changed) AND (pending OR NOT i.inhdetachpending));
END
$$;
COMMENT ON FUNCTION sentry_links(oid[], boolean) IS
    'internal: the links of inheritance that end at one of the tables, as text: parent and child; if asked, those too '
    'that end when a DETACH PARTITION CONCURRENTLY does';

-- The tables at the lower end of the links that are not in both.
CREATE FUNCTION sentry_moved(before text[], after text[]) RETURNS oid[]
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY(
        SELECT DISTINCT split_part(link, ' ', 2)::oid
            FROM unnest(before) WITH ORDINALITY AS b (link, n)
            FULL JOIN unnest(after) WITH ORDINALITY AS a (link, m) USING (link)
            WHERE n IS NULL OR m IS NULL)
$$;
COMMENT ON FUNCTION sentry_moved(text[], text[]) IS
    'internal: the children of the links that are not in both arrays of sentry_links()';

-- The parts of guards on tables that have changed, and on those that have moved, with
-- what hangs below them.
CREATE FUNCTION sentry_parts(changed oid[], moved oid[]) RETURNS sentry_part[]
LANGUAGE plpgsql STABLE
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        WITH RECURSIVE below (relation) AS (
            SELECT m.relation FROM unnest(moved) AS m (relation)
            UNION
            SELECT i.inhrelid FROM below b JOIN pg_inherits i ON i.inhparent = b.relation AND NOT i.inhdetachpending
        ), up (relation, ancestor) AS (
            SELECT r.relation, r.relation
                FROM (SELECT b.relation FROM below b
                      UNION
                      SELECT c.relation FROM unnest(changed) AS c (relation)) AS r
            UNION
            SELECT u.relation, i.inhparent FROM up u
                JOIN pg_inherits i ON i.inhrelid = u.ancestor AND NOT i.inhdetachpending)
        SELECT ROW(g.target, g.nhs_number_column, u.relation, p.part, p.defect, p.object, p.attnum, p.atttypid,
                   c.relfilenode)::ndrs_optout.sentry_part
            FROM up u
            JOIN ndrs_optout.guard g ON g.target = u.ancestor
            JOIN pg_class c ON c.oid = u.relation
            CROSS JOIN LATERAL ndrs_optout.guard_parts(g, u.relation) AS p
            ORDER BY g.target, g.nhs_number_column, u.relation, p.part);
END
$$;
COMMENT ON FUNCTION sentry_parts(oid[], oid[]) IS
    'internal: the parts of guards on tables that a command has changed, and on those that it has moved by '
    'inheritance and what is below them';

-- How weak a part is: worse must not become of it.
CREATE FUNCTION sentry_weakness(defect text) RETURNS integer
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN defect IS NULL THEN 0 WHEN defect = 'not_always' THEN 1 WHEN defect = 'disabled' THEN 2 ELSE 3 END
$$;
COMMENT ON FUNCTION sentry_weakness(text) IS 'internal: how weak a part of a guard with this defect is; 0: in force';

-- Was a column of the table computed anew?  A command that gives it the type, or the
-- expression, that it has leaves no trace but the table's new file; the columns that it does
-- that to are known.
CREATE FUNCTION sentry_rewritten(before sentry_part, after sentry_part, column_name name, retyped name[])
RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ((before).filenode <> (after).filenode AND column_name = ANY (retyped)) IS TRUE
$$;
COMMENT ON FUNCTION sentry_rewritten(sentry_part, sentry_part, name, name[]) IS
    'internal: whether a command that gives columns of these names a type, be it the same, has computed this one anew';

-- The message for a part that has become weak.
CREATE FUNCTION sentry_message(before sentry_part, after sentry_part) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN (after).defect = 'column_missing' OR (before).attnum <> (after).attnum THEN
            format('cannot drop, rename or change column "%s" of table %s: it is guarded', column_name, relation)
        WHEN (after).defect = 'column_unreadable' THEN
            format('cannot change column "%s" of table %s to type %s: it is guarded, and no guard reads that type',
                   column_name, relation, format_type((after).atttypid, NULL))
        WHEN (after).defect = 'foreign_table' THEN
            format('foreign table %s cannot be part of table %s: its server does not check the constraint that guards '
                   'column "%s"',
                   relation, (after).target, column_name)
        WHEN (after).part = 'columns' THEN
            format('cannot drop, rename or change column "%s" of table %s: the guard of column "%s" uses it',
                   (after).object, relation, column_name)
        WHEN (after).part = 'redaction' THEN
            format('column "%s" of table %s must be able to become NULL: the guard of column "%s" redacts it',
                   (after).object, relation, column_name)
        WHEN (after).part = 'constraint' AND (after).defect = 'not_enforced' THEN
            format('cannot set constraint "%s" of table %s to NOT ENFORCED: it guards column "%s"',
                   object, relation, column_name)
        WHEN (after).part = 'constraint' THEN
            format('cannot drop or change constraint "%s" of table %s: it guards column "%s"',
                   object, relation, column_name)
        WHEN (after).defect = 'disabled' THEN
            format('cannot disable trigger "%s" of table %s: it guards column "%s"', object, relation, column_name)
        WHEN (after).defect = 'not_always' THEN
            format('trigger "%s" of table %s must stay ENABLE ALWAYS: it guards column "%s"',
                   object, relation, column_name)
        ELSE format('cannot drop or change trigger "%s" of table %s: it guards column "%s"',
                    object, relation, column_name)
        END
        FROM (SELECT coalesce((after).object, (before).object, 'ndrs_optout_guard_' || (after).attnum) AS object,
                     (after).relation, (after).nhs_number_column AS column_name) AS named
$$;
COMMENT ON FUNCTION sentry_message(sentry_part, sentry_part) IS
    'internal: the message about a part of a guard that a command would weaken';

-- What a command has lost, as an array of (table, message, loss): a part that is weaker
-- than it was, or than it should be where it was not there; a column that is another one.
CREATE FUNCTION sentry_losses(before sentry_part[], after sentry_part[], retyped name[]) RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT array_agg(ARRAY[(a).relation::text,
                   CASE WHEN ndrs_optout.sentry_rewritten(b, a, g.encoded_column, retyped)
                            AND ndrs_optout.sentry_weakness((a).defect) <= ndrs_optout.sentry_weakness((b).defect)
                            THEN format('cannot compute column "%s" of table %s anew: the guard of column "%s" '
                                        'fills it', g.encoded_column, (a).relation, (a).nhs_number_column)
                        ELSE ndrs_optout.sentry_message(b, a) END,
                   format('%s for column "%s": %s', (a).part, (a).nhs_number_column,
                          coalesce((a).defect, 'replaced or computed anew'))]
                   ORDER BY (a).relation::text, (a).nhs_number_column, (a).part <> 'constraint', (a).part)
            FROM unnest(after) AS a
            JOIN ndrs_optout.guard g ON g.target = (a).target AND g.nhs_number_column = (a).nhs_number_column
            LEFT JOIN unnest(before) AS b
                ON ((b).target, (b).nhs_number_column, (b).relation, (b).part)
                    = ((a).target, (a).nhs_number_column, (a).relation, (a).part)
            WHERE ndrs_optout.sentry_weakness((a).defect) > coalesce(ndrs_optout.sentry_weakness((b).defect), 0)
                OR (a).part = 'constraint'
                    AND ((b).attnum <> coalesce((a).attnum, 0)
                         OR ndrs_optout.sentry_rewritten(b, a, g.encoded_column, retyped)));
END
$$;
COMMENT ON FUNCTION sentry_losses(sentry_part[], sentry_part[], name[]) IS
    'internal: what a command has lost of guards: tables, messages, and what the audit says';

-- Refuses tables with rows of excluded patients that came under a guard, or whose numbers
-- were computed anew.
CREATE FUNCTION sentry_search(before sentry_part[], after sentry_part[], retyped name[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this record;
    found_rows text[];
BEGIN
    FOR this IN
        SELECT (a).relation, g.nhs_number_column, g.registers, c.relowner::regrole AS owner
            FROM unnest(after) AS a
            JOIN ndrs_optout.guard g ON g.target = (a).target AND g.nhs_number_column = (a).nhs_number_column
            JOIN pg_class c ON c.oid = (a).relation AND c.relkind IN ('r', 'f')
            LEFT JOIN unnest(before) AS b
                ON ((b).target, (b).nhs_number_column, (b).relation, (b).part)
                    = ((a).target, (a).nhs_number_column, (a).relation, (a).part)
            WHERE (a).part = 'constraint'
                AND ((b).relation IS NULL OR (a).atttypid <> (b).atttypid
                     OR ndrs_optout.sentry_rewritten(b, a, (a).nhs_number_column, retyped))
                -- The guard may be new itself: guard_table() has counted.
                AND NOT EXISTS (
                    SELECT FROM unnest(after) AS o
                        WHERE ((o).target, (o).nhs_number_column, (o).relation)
                                = ((a).target, (a).nhs_number_column, (a).target)
                            AND NOT EXISTS (
                                SELECT FROM unnest(before) AS p
                                    WHERE ((p).target, (p).nhs_number_column, (p).relation)
                                        = ((o).target, (o).nhs_number_column, (o).relation)))
            ORDER BY (a).relation::text, g.nhs_number_column
    LOOP
        found_rows := ndrs_optout.search_as_owner(this.owner, format(
            'SELECT ARRAY[count(*)::text] FROM ONLY %s WHERE ndrs_optout.guard_finds(%I, $2, $3)',
            this.relation, this.nhs_number_column), NULL, this.registers, true);
        IF found_rows[1]::bigint > 0 THEN
            PERFORM ndrs_optout.raise_error('23N01',
                format('table %s holds rows of excluded patients', this.relation),
                detail => format('Rows found by column "%s": %s.', this.nhs_number_column, found_rows[1]),
                hint => 'Delete these rows first. The database owner finds them with ndrs_optout.guard_matches(), or '
                        'calls ndrs_optout.sweep() where the table is guarded.');
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION sentry_search(sentry_part[], sentry_part[], name[]) IS
    'internal: error 23N01 when a table with rows of excluded patients came under a guard, or holds such rows after '
    'its numbers were computed anew';

-- Tables that a guard covered and does not any more, although both are there.
CREATE FUNCTION sentry_detached(before sentry_part[], after sentry_part[]) RETURNS sentry_part[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(b ORDER BY (b).relation, (b).nhs_number_column)
        FROM unnest(before) AS b
        JOIN ndrs_optout.guard g ON g.target = (b).target AND g.nhs_number_column = (b).nhs_number_column
        JOIN pg_class c ON c.oid = (b).relation AND c.relkind IN ('r', 'f')
        WHERE (b).part = 'constraint' AND (b).attnum IS NOT NULL
            AND NOT EXISTS (SELECT FROM unnest(after) AS a
                            WHERE ((a).target, (a).nhs_number_column, (a).relation)
                                = ((b).target, (b).nhs_number_column, (b).relation))
$$;
COMMENT ON FUNCTION sentry_detached(sentry_part[], sentry_part[]) IS
    'internal: tables that a command has taken out from under a guard';

-- Does a table hold a row, committed or not?  A foreign table may.  Locks nothing
-- that was not locked, and runs no code of the table's owner.
CREATE FUNCTION sentry_holds_rows(relation regclass) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_sentry_holds_rows'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION sentry_holds_rows(regclass) IS
    'internal: whether a table holds a row that any transaction may see; true for a foreign table, false for what '
    'holds no rows itself';

CREATE FUNCTION sentry_weakening(message text, hint text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT current_setting('ndrs_optout.allow_unguarded')::boolean THEN
        PERFORM ndrs_optout.raise_error('ND050', message,
            hint => hint || ' A superuser can override this with SET LOCAL ndrs_optout.allow_unguarded = on.');
    END IF;
END
$$;
COMMENT ON FUNCTION sentry_weakening(text, text) IS
    'internal: error ND050 with message and hint, unless ndrs_optout.allow_unguarded is on';

-- What is told of a loss that a superuser has allowed.
CREATE FUNCTION sentry_weakened(relation text, loss text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.audit('guard_weakened', jsonb_build_object('relation', relation, 'loss', loss));
    PERFORM ndrs_optout.raise_notice(true, format('the guard of table %s was weakened', relation),
        'Call ndrs_optout.guard_coverage() to see what is open now.');
END
$$;
COMMENT ON FUNCTION sentry_weakened(text, text) IS
    'internal: an event in the audit and a warning: a superuser has let a guard be weakened';

-- Whether tables that a guard covered hold rows and have no guard now.  It is asked when
-- the transaction ends, since what was detached may be dropped, emptied, attached or
-- guarded in it.
-- refusing: otherwise it is too late to refuse.
CREATE FUNCTION sentry_settle(detached sentry_part[], refusing boolean) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.sentry_part;
    message text;
BEGIN
    FOREACH this IN ARRAY detached LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = this.relation);
        -- The guard was taken away.
        CONTINUE WHEN EXISTS (SELECT FROM pg_class c WHERE c.oid = this.target)
            AND NOT EXISTS (SELECT FROM ndrs_optout.guard g
                            WHERE g.target = this.target AND g.nhs_number_column = this.nhs_number_column);
        CONTINUE WHEN EXISTS (SELECT FROM unnest(ndrs_optout.sentry_parts(ARRAY[this.relation]::oid[], '{}')) AS p
                              WHERE p.nhs_number_column = this.nhs_number_column);
        CONTINUE WHEN NOT ndrs_optout.sentry_holds_rows(this.relation);
        message := format('cannot detach table %s from %s: it holds rows and has no guard of its own', this.relation,
            coalesce((SELECT format('guarded table %s', this.target) FROM pg_class c WHERE c.oid = this.target),
                     'its guarded table'));
        IF refusing THEN
            PERFORM ndrs_optout.sentry_weakening(message, format(
                'In the same transaction, drop or empty the table, or call '
                'ndrs_optout.guard_table(%L, %L, ...) for it.',
                this.relation, this.nhs_number_column));
        END IF;
        PERFORM ndrs_optout.sentry_weakened(this.relation::text,
            format('detached with rows from the guard for column "%s"', this.nhs_number_column));
    END LOOP;
END
$$;
COMMENT ON FUNCTION sentry_settle(sentry_part[], boolean) IS
    'internal: error ND050 when a table that was detached from a guarded one holds rows and has no guard at the end '
    'of the transaction; when ndrs_optout.allow_unguarded is on, or it is too late to refuse, an event and a warning';

CREATE FUNCTION sentry_judge(losses text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this text[];
BEGIN
    FOREACH this SLICE 1 IN ARRAY losses LOOP
        PERFORM ndrs_optout.sentry_weakening(this[2], 'To remove the guard, call ndrs_optout.unguard_table().');
        PERFORM ndrs_optout.sentry_weakened(this[1], this[3]);
    END LOOP;
END
$$;
COMMENT ON FUNCTION sentry_judge(text[]) IS
    'internal: error ND050 for what sentry_losses() returned; when ndrs_optout.allow_unguarded is on, events and '
    'warnings';
