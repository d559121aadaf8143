-- guard: what stops a row of an excluded patient from entering a registry table.

-- What ought to be guarded, and how.  What enforces it, a trigger and a CHECK
-- constraint on the table, carries the same policy in its own arguments.
CREATE TABLE guard (
    target            regclass,
    nhs_number_column name,
    registers         text[] NOT NULL,
    on_match          text NOT NULL CHECK (on_match = ANY (words('on_match'))),
    on_missing        text NOT NULL CHECK (on_missing = ANY (words('on_missing'))),
    on_unreadable     text NOT NULL CHECK (on_unreadable = ANY (words('on_missing'))),
    redact_columns    name[] NOT NULL,
    mechanism         text NOT NULL CHECK (mechanism = ANY (words('mechanism'))),
    encoded_column    name,
    birth_date_column name,
    guarded_at        timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (target, nhs_number_column)
);
COMMENT ON TABLE guard IS
    'the guarded columns: which registers a table serves and what happens to a row that must not enter';
SELECT pg_catalog.pg_extension_config_dump('guard', '');

-- Backends keep plans of erasures that rest on it (erasure_cache.c).  TRUNCATE tells them by itself.
CREATE TRIGGER invalidate_caches AFTER INSERT OR UPDATE OR DELETE ON guard
    FOR EACH ROW EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches ON guard IS 'backends make the plans of erasures again';
ALTER TABLE guard ENABLE ALWAYS TRIGGER invalidate_caches;

-- Rows are only added, one per table, finding, action and transaction, so that
-- loaders never wait for each other here.  The library writes the columns by
-- number.
CREATE TABLE guard_tally (
    target   regclass NOT NULL,
    day      date NOT NULL,
    finding  text NOT NULL,
    action   text NOT NULL,
    rows     bigint NOT NULL,
    tally_id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid()  -- no sequence: loaders write here
);
COMMENT ON TABLE guard_tally IS
    'internal: rows that guards rejected, skipped, redacted or let in without a readable number, as they were counted: '
    'one row per table, finding, action and transaction; view guard_count sums them';
SELECT pg_catalog.pg_extension_config_dump('guard_tally', '');

CREATE VIEW guard_count AS
    SELECT target, day, finding,
           coalesce(pg_catalog.sum(rows) FILTER (WHERE action = 'reject'), 0)::bigint AS rows_rejected,
           coalesce(pg_catalog.sum(rows) FILTER (WHERE action = 'skip'), 0)::bigint AS rows_skipped,
           coalesce(pg_catalog.sum(rows) FILTER (WHERE action = 'redact'), 0)::bigint AS rows_redacted,
           coalesce(pg_catalog.sum(rows) FILTER (WHERE action = 'allow'), 0)::bigint AS rows_allowed
        FROM guard_tally
        GROUP BY target, day, finding;
COMMENT ON VIEW guard_count IS
    'rows that guards rejected, skipped, redacted, or let in although the number was missing or unreadable, per table, '
    'day and finding (excluded, missing, unreadable); never per patient. rows_rejected counts refusals, not all rows '
    'that would be refused: a load ends at its first one, and is counted again when it is tried again. They are '
    'counted when the session next commits changes, or ends; a crash loses them, and those of a logical replication '
    'worker, which tries again without end, are not counted. Mechanism constraint counts only those';

CREATE FUNCTION guard_row() RETURNS trigger
    AS 'MODULE_PATHNAME', 'ndrs_optout_guard_row'
    LANGUAGE C;
COMMENT ON FUNCTION guard_row() IS
    'internal: trigger function of a guard: rejects the row (23N01, 23N02, 23N03), skips or redacts it';

-- VOLATILE: the answer changes while a statement runs.
CREATE FUNCTION guard_admits(relation oid, target regclass, value anyelement, registers text[],
    on_missing text, on_unreadable text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_guard_admits'
    LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 10;
COMMENT ON FUNCTION guard_admits(oid, regclass, anyelement, text[], text, text) IS
    'internal: called by the CHECK constraint of a guard: true, or error 23N01 (excluded patient), 23N02 (unreadable '
    'number), 23N03 (missing number), ND010 or ND011 (key), 42501 (a copy of the constraint, for a role that may not '
    'insert into the guarded table)';

-- The same with the encoded column, which must hold the encoding of the number.
CREATE FUNCTION guard_admits(relation oid, target regclass, value anyelement, registers text[],
    on_missing text, on_unreadable text, encoded encoded_nhs_number) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_guard_admits'
    LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 10;
COMMENT ON FUNCTION guard_admits(oid, regclass, anyelement, text[], text, text, encoded_nhs_number) IS
    'internal: called by the CHECK constraint of a guard with an encoded column: true, or error 23N01 (excluded '
    'patient), 23N02 (unreadable number), 23N03 (missing number), ND010 or ND011 (key), 42501 (a copy of the '
    'constraint, for a role that may not insert into the guarded table), 23514 (the column does not hold the encoded '
    'number)';

CREATE FUNCTION guard_matches(value anyelement, registers text[]) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_guard_matches'
    LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10 SUPPORT exclusion_support;
COMMENT ON FUNCTION guard_matches(anyelement, text[]) IS
    'whether this is the NHS number, in any type that a guard reads, of a patient excluded from all of the registers; '
    'errors ND010, ND011, 42704';

-- For searches with the owner's rights: PUBLIC may execute it, and it answers
-- only a command of search_as_owner() that passes its token.
CREATE FUNCTION guard_finds(value anyelement, registers text[], token bytea) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_guard_matches'
    LANGUAGE C STABLE PARALLEL SAFE COST 10 SUPPORT exclusion_support;
COMMENT ON FUNCTION guard_finds(anyelement, text[], bytea) IS
    'internal: guard_matches() for a command that searches a table with the rights of its owner, with the token of '
    'that command; errors 42501 (another token, or none), ND010, ND011, 42704';

CREATE FUNCTION guard_misencoded(value anyelement, encoded encoded_nhs_number, token bytea) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_guard_misencoded'
    LANGUAGE C STABLE PARALLEL SAFE COST 10;
COMMENT ON FUNCTION guard_misencoded(anyelement, encoded_nhs_number, bytea) IS
    'internal: whether an encoded column does not hold the encoding of the number, or is not empty where there is '
    'none, with the token of the command that searches; errors 42501 (another token, or none), ND010, ND011';

CREATE FUNCTION guard_number(value anyelement) RETURNS nhs_number
    AS 'MODULE_PATHNAME', 'ndrs_optout_guard_number'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION guard_number(anyelement) IS
    'internal: the NHS number in a value of any type that a guard reads, or NULL when it is none or a placeholder';

CREATE FUNCTION guard_unreadable(value anyelement) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_guard_unreadable'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION guard_unreadable(anyelement) IS 'internal: whether this is neither an NHS number nor empty';

CREATE FUNCTION guard_reads(type regtype) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_guard_reads'
    LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION guard_reads(regtype) IS 'internal: whether a guard can read NHS numbers of this type';

-- The arguments of a guard's trigger, in the order in which guard_trigger.c reads them.  The
-- first is their version: who appends to them counts it up, there too (GUARD_VERSION).
CREATE FUNCTION guard_arguments(guard) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY['1', $1.nhs_number_column::text, coalesce($1.encoded_column::text, ''), $1.on_match, $1.on_missing,
                 $1.on_unreadable, cardinality($1.registers)::text]
        || $1.registers || cardinality($1.redact_columns)::text || $1.redact_columns::text[];
END
$$;
COMMENT ON FUNCTION guard_arguments(guard) IS 'internal: the arguments of a guard''s trigger';

-- A column that a guard names besides the number must be of one of these types,
-- and, to be filled, must take what it is given.
CREATE FUNCTION guard_check_column(target regclass, column_name name, purpose text, types regtype[], filled boolean)
RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, ndrs_optout, pg_temp
AS $$
BEGIN
    IF column_name IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_attribute a
            WHERE a.attrelid = target AND a.attname = column_name AND a.attnum > 0 AND NOT a.attisdropped
                AND a.atttypid = ANY (types) AND NOT (filled AND (a.attnotnull OR a.attgenerated <> ''))) THEN
        PERFORM ndrs_optout.raise_error('42809',
            format('column "%s" of table %s cannot be used as %s', column_name, target, purpose),
            detail => format('It does not exist, or is not of type %s%s.', array_to_string(types, ' or '),
                             CASE WHEN filled THEN ', or is generated, or cannot be NULL' END));
    END IF;
END
$$;
COMMENT ON FUNCTION guard_check_column(regclass, name, text, regtype[], boolean) IS
    'internal: error 42809 unless the column, if one is named, is of one of the types and can be filled where it must '
    'be';

-- What enforces a guard.  A constraint needs no version: a later one would call another
-- function, and this one stays.
CREATE FUNCTION guard_add_parts(this guard) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- By number: a column's name may take all of a name's length.
    guard_name name := 'ndrs_optout_guard_' || (
        SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = this.target AND a.attname = this.nhs_number_column);
BEGIN
    -- A BEFORE ROW trigger makes COPY insert row by row; a CHECK does not.
    IF this.mechanism = 'both' THEN
        EXECUTE format('CREATE TRIGGER %I BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION '
                       'ndrs_optout.guard_row(%s)',
            guard_name, this.target,
            (SELECT string_agg(quote_literal(word), ', ' ORDER BY position)
                 FROM unnest(ndrs_optout.guard_arguments(this)) WITH ORDINALITY AS w (word, position)));
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', this.target, guard_name);
    END IF;
    -- NOT VALID: what is there already is counted, not refused, and a dump
    -- restores the data before the constraint.
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (ndrs_optout.guard_admits(tableoid, %L::regclass, %I, '
                   '%L::text[], %L, %L%s)) NOT VALID',
        this.target, guard_name, this.target, this.nhs_number_column, this.registers, this.on_missing,
            this.on_unreadable,
        ', ' || quote_ident(this.encoded_column));
END
$$;
COMMENT ON FUNCTION guard_add_parts(guard) IS 'internal: makes the trigger and the constraint of a guard';

-- Runs as the caller, who must own the table: so no role guards or unguards a
-- table of another through it.
CREATE FUNCTION guard_table(target regclass, nhs_number_column name, registers text[],
    on_match text DEFAULT 'reject', on_missing text DEFAULT 'allow', on_unreadable text DEFAULT 'reject',
    redact_columns name[] DEFAULT '{}', mechanism text DEFAULT 'both', encoded_column name DEFAULT NULL,
    birth_date_column name DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SET row_security = off
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    codes text[] := ndrs_optout.checked_registers(registers);
    col pg_attribute;
    this ndrs_optout.guard;
    other regclass;
    unfit name;
    already text[];
BEGIN
    -- With an older snapshot, rows that writers in flight have brought would not be counted.
    PERFORM ndrs_optout.require_read_committed();
    IF target IS NULL OR nhs_number_column IS NULL THEN
        PERFORM ndrs_optout.raise_error('22004',
            'a table and its column with NHS numbers must be named');
    END IF;
    PERFORM ndrs_optout.checked_word(on_match, 'on_match', 'on_match');
    PERFORM ndrs_optout.checked_word(on_missing, 'on_missing', 'on_missing');
    PERFORM ndrs_optout.checked_word(on_unreadable, 'on_missing', 'on_unreadable');
    PERFORM ndrs_optout.checked_word(mechanism, 'mechanism', 'mechanism');
    IF mechanism = 'constraint' AND (on_match <> 'reject' OR 'skip' IN (on_missing, on_unreadable)) THEN
        PERFORM ndrs_optout.raise_error('22023',
            'mechanism "constraint" can only reject');
    END IF;
    IF mechanism = 'constraint' AND encoded_column IS NOT NULL THEN
        PERFORM ndrs_optout.raise_error('22023',
            'mechanism "constraint" cannot fill encoded_column');
    END IF;
    IF redact_columns IS NULL OR on_match <> 'redact' AND redact_columns <> '{}' THEN
        PERFORM ndrs_optout.raise_error('22023',
            'redact_columns go with on_match "redact"');
    END IF;
    IF on_match = 'redact' AND on_missing <> 'allow' THEN
        PERFORM ndrs_optout.raise_error('22023',
            'on_match "redact" needs on_missing "allow"',
            detail => 'A row that was redacted has no NHS number.');
    END IF;
    PERFORM ndrs_optout.require_one_build();
    -- First, in the order in which case_certify takes its locks.
    LOCK TABLE ndrs_optout.guard IN ROW EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM pg_class
                   WHERE oid = target AND relkind IN ('r', 'p') AND relpersistence <> 't') THEN
        PERFORM ndrs_optout.raise_error('42809',
            format('%s is not a permanent table', target));
    END IF;
    IF 'skip' IN (on_match, on_missing, on_unreadable) AND (SELECT relispartition FROM pg_class WHERE oid = target) THEN
        PERFORM ndrs_optout.raise_error('42809',
            format('partition %s cannot be guarded with "skip"', target),
            detail => 'An UPDATE that moves a row into it would lose the row.',
            hint => 'Guard the partitioned table, or use "reject".');
    END IF;
    SELECT g.target INTO other FROM ndrs_optout.guard g
        WHERE g.target <> guard_table.target
            AND (g.target IN (SELECT relation FROM ndrs_optout.erasure_descendants(guard_table.target))
                 OR g.target IN (SELECT ancestor FROM ndrs_optout.erasure_lineage(guard_table.target)))
        ORDER BY g.target LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.raise_error('42710',
            format('%s of table %s already has a guard',
                CASE WHEN other IN (SELECT relation FROM ndrs_optout.erasure_descendants(target)) THEN 'child '
                    ELSE 'parent ' END || other, target),
            hint => 'Guard the topmost table: its guard covers its partitions and children. A child''s own guard goes '
                    'with ndrs_optout.unguard_table().');
    END IF;

    -- Waits for writers in flight, so that none is left that has met no guard,
    -- and the count below is of all rows that are there already.
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', target);

    IF mechanism = 'constraint' AND EXISTS (
        SELECT FROM ndrs_optout.erasure_descendants(target) d JOIN pg_class c ON c.oid = d.relation AND c.relkind = 'f')
        THEN
        PERFORM ndrs_optout.raise_error('42809',
            format('table %s has a partition or child that is a foreign table', target),
            detail => 'The server does not check constraints of foreign tables.',
            hint => 'Use mechanism "both".');
    END IF;

    SELECT * INTO col FROM pg_attribute
        WHERE attrelid = target AND attname = nhs_number_column AND attnum > 0 AND NOT attisdropped;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('42703',
            format('column "%s" of table %s does not exist', nhs_number_column, target));
    END IF;
    -- The server computes it behind the triggers, and before the constraints.
    IF col.attgenerated <> '' AND NOT (col.attgenerated = 's' AND mechanism = 'constraint') THEN
        PERFORM ndrs_optout.raise_error('42809',
            format('column "%s" of table %s is generated and cannot be guarded by a trigger', nhs_number_column,
                   target),
            hint => CASE col.attgenerated
                WHEN 's' THEN 'Use mechanism "constraint", or guard the column that it is generated from.'
                ELSE 'Guard the column that it is generated from, or a generated column that is stored, with mechanism '
                     '"constraint".' END);
    END IF;
    IF on_match = 'redact' THEN
        SELECT c INTO unfit FROM unnest(nhs_number_column || redact_columns) AS c
            WHERE NOT EXISTS (SELECT FROM pg_attribute a
                              WHERE a.attrelid = target AND a.attname = c AND a.attnum > 0 AND NOT a.attisdropped
                                  AND NOT a.attnotnull AND a.attgenerated = '')
            LIMIT 1;
        IF FOUND THEN
            PERFORM ndrs_optout.raise_error('42809',
                format('column "%s" of table %s cannot be redacted', unfit, target),
                detail => 'It does not exist, is generated, or cannot be NULL.');
        END IF;
    END IF;
    IF EXISTS (SELECT FROM ndrs_optout.guard g
               WHERE g.target = guard_table.target AND g.nhs_number_column = guard_table.nhs_number_column) THEN
        PERFORM ndrs_optout.raise_error('42710',
            format('column "%s" of table %s already has a guard', nhs_number_column, target),
            hint => 'To change it, call ndrs_optout.unguard_table() and ndrs_optout.guard_table() in one transaction.');
    END IF;

    PERFORM ndrs_optout.guard_check_column(target, encoded_column, 'encoded_column', '{ndrs_optout.encoded_nhs_number}',
                                           true);
    IF encoded_column IS NOT NULL AND EXISTS (
        SELECT FROM ndrs_optout.erasure_descendants(target) d JOIN pg_class c ON c.oid = d.relation
            WHERE d.relation <> target AND NOT c.relispartition) THEN
        PERFORM ndrs_optout.raise_error('42809',
            format('table %s has inheritance children, where nothing would fill encoded_column', target));
    END IF;
    IF EXISTS (SELECT FROM ndrs_optout.guard g WHERE g.target = guard_table.target
               AND g.encoded_column = guard_table.encoded_column) THEN
        PERFORM ndrs_optout.raise_error('42710', format('column "%s" of table %s is filled by another guard',
                                                        encoded_column, target));
    END IF;
    PERFORM ndrs_optout.guard_check_column(target, birth_date_column, 'birth_date_column', '{date,timestamp}', false);

    IF NOT ndrs_optout.guard_reads(col.atttypid) THEN
        PERFORM ndrs_optout.raise_error('42804',
            format('type %s cannot hold NHS numbers for a guard', format_type(col.atttypid, NULL)),
            hint => 'Use nhs_number, text, varchar, char, bigint or numeric.');
    END IF;
    PERFORM ndrs_optout.guard_must_be_local(ARRAY(
        SELECT d.relation FROM ndrs_optout.erasure_descendants(target) AS d
        UNION ALL
        SELECT l.ancestor FROM ndrs_optout.erasure_lineage(target) AS l));
    -- Without a key there would be a guard that refuses everything.
    PERFORM ndrs_optout.encode_nhs_number('9434765919');

    -- What a guard left that this table had as a partition, and has no more.
    IF NOT EXISTS (SELECT FROM ndrs_optout.guard g WHERE g.target = guard_table.target) THEN
        PERFORM ndrs_optout.guard_drop_parts(target);
    END IF;

    this.target := target;
    this.nhs_number_column := nhs_number_column;
    this.registers := codes;
    this.on_match := on_match;
    this.on_missing := on_missing;
    this.on_unreadable := on_unreadable;
    this.redact_columns := redact_columns;
    this.mechanism := mechanism;
    this.encoded_column := encoded_column;
    this.birth_date_column := birth_date_column;
    this.guarded_at := now();

    PERFORM ndrs_optout.guard_add_parts(this);

    -- Last, since from now on the sentry compares the table's parts before and after a
    -- command, and there may be thousands.
    INSERT INTO ndrs_optout.guard SELECT this.*;

    PERFORM ndrs_optout.audit('table_guarded', to_jsonb(this) - 'guarded_at');
    -- With the rights of the owner, who may have put an index with a predicate on the table.
    already := ndrs_optout.search_as_owner(
        (SELECT c.relowner::regrole FROM pg_class c WHERE c.oid = target),
        format('SELECT ARRAY[count(*)::text] FROM %s WHERE ndrs_optout.guard_finds(%I, $2, $3)', target,
               nhs_number_column),
        NULL, codes);
    RETURN already[1]::bigint;
END
$$;
COMMENT ON FUNCTION guard_table(regclass, name, text[], text, text, text, name[], text, name, name) IS
    'guards a column with NHS numbers: rows of patients excluded from all of the registers are rejected (23N01), '
    'skipped and counted, or redacted: the number and redact_columns become NULL and the row enters, as for a '
    'mother''s number on a baby''s record. on_match: reject, skip or redact; on_missing and on_unreadable: allow, '
    'reject or skip. mechanism: both, or constraint for the fastest load, which can only reject. encoded_column, of '
    'type encoded_nhs_number, is filled with the encoded number, so that later screening needs no HMAC and can use an '
    'index; sweep() fills it in rows that are there already. birth_date_column, a date or timestamp, must agree with '
    'the case before a patient is erased (ND031). Returns the number of rows of excluded patients that are there '
    'already. Locks the table until commit';

-- From the text of the constraint's expression, which may be that of one that is gone.
CREATE FUNCTION guard_is_constraint(expression text, target regclass, attnum smallint, registers text[],
    on_missing text, on_unreadable text, has_encoded boolean, encoded_attnum smallint) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_guard_is_constraint'
    LANGUAGE C STABLE;
COMMENT ON FUNCTION guard_is_constraint(text, regclass, smallint, text[], text, text, boolean, smallint) IS
    'internal: whether the expression of a CHECK constraint is that of a guard with these columns and this policy, '
    'and nothing but that';

-- What a guard's constraint calls.
CREATE FUNCTION guard_constraint_functions() RETURNS oid[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT p.oid FROM pg_proc p
                     WHERE p.pronamespace = 'ndrs_optout'::regnamespace AND p.proname = 'guard_admits' ORDER BY p.oid);
END
$$;
COMMENT ON FUNCTION guard_constraint_functions() IS 'internal: the functions that guards'' constraints call';

CREATE FUNCTION unguard_table(target regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM ndrs_optout.guard g WHERE g.target = unguard_table.target;
    IF NOT FOUND THEN  -- also when target is NULL
        PERFORM ndrs_optout.raise_error('42704',
            format('table %s is not guarded', coalesce(target::text, 'NULL')),
            hint => 'Table ndrs_optout.guard lists the guarded tables.');
    END IF;
    PERFORM ndrs_optout.forget_guarded_column(target, NULL);
    PERFORM ndrs_optout.guard_drop_parts(target);
    PERFORM ndrs_optout.audit('table_unguarded', jsonb_build_object('target', target));
END
$$;
COMMENT ON FUNCTION unguard_table(regclass) IS 'takes every guard off a table; error 42704 when there is none';

-- The table's other guards are made anew: a trigger or constraint that a rename has left without its column is found by
-- what it calls, which does not say whose it is.  In that moment the table is locked.
CREATE FUNCTION unguard_table(target regclass, nhs_number_column name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    others ndrs_optout.guard[];
BEGIN
    LOCK TABLE ndrs_optout.guard IN ROW EXCLUSIVE MODE;
    IF NOT EXISTS (SELECT FROM ndrs_optout.guard g
                   WHERE g.target = unguard_table.target AND g.nhs_number_column = unguard_table.nhs_number_column) THEN
        PERFORM ndrs_optout.raise_error('42704',
            format('column "%s" of table %s is not guarded', coalesce(unguard_table.nhs_number_column, 'NULL'),
                   coalesce(unguard_table.target::text, 'NULL')),
            hint => 'Table ndrs_optout.guard lists the guarded columns.');
    END IF;
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', unguard_table.target);
    WITH forgotten AS (DELETE FROM ndrs_optout.guard g WHERE g.target = unguard_table.target RETURNING g)
        SELECT coalesce(array_agg(f.g) FILTER (WHERE (f.g).nhs_number_column <> unguard_table.nhs_number_column), '{}')
            INTO others FROM forgotten f;
    PERFORM ndrs_optout.guard_drop_parts(unguard_table.target);
    INSERT INTO ndrs_optout.guard SELECT g.* FROM unnest(others) AS g;
    PERFORM ndrs_optout.guard_add_parts(g::ndrs_optout.guard) FROM unnest(others) AS g;
    PERFORM ndrs_optout.forget_guarded_column(unguard_table.target, unguard_table.nhs_number_column);
    PERFORM ndrs_optout.audit('table_unguarded', jsonb_build_object(
        'target', unguard_table.target, 'nhs_number_column', unguard_table.nhs_number_column));
END
$$;
COMMENT ON FUNCTION unguard_table(regclass, name) IS
    'takes the guard off one column of a table; the guards of its other columns stay. Locks the table until commit; '
    'error 42704 when the column has no guard';

CREATE FUNCTION guard_definition(target regclass, nhs_number_column name) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.guard;
BEGIN
    SELECT * INTO this FROM ndrs_optout.guard g
        WHERE g.target = guard_definition.target AND g.nhs_number_column = guard_definition.nhs_number_column;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('42704',
            format('column "%s" of table %s is not guarded', coalesce(nhs_number_column, 'NULL'),
                   coalesce(target::text, 'NULL')),
            hint => 'Table ndrs_optout.guard lists the guarded columns.');
    END IF;
    RETURN format('SELECT ndrs_optout.guard_table(%s);', concat_ws(', ',
        quote_literal(this.target), quote_literal(this.nhs_number_column), quote_literal(this.registers),
        'on_match => ' || quote_literal(nullif(this.on_match, 'reject')),
        'on_missing => ' || quote_literal(nullif(this.on_missing, 'allow')),
        'on_unreadable => ' || quote_literal(nullif(this.on_unreadable, 'reject')),
        'redact_columns => ' || quote_literal(nullif(this.redact_columns, '{}')),
        'mechanism => ' || quote_literal(nullif(this.mechanism, 'both')),
        'encoded_column => ' || quote_literal(this.encoded_column),
        'birth_date_column => ' || quote_literal(this.birth_date_column)));
END
$$;
COMMENT ON FUNCTION guard_definition(regclass, name) IS
    'the call of guard_table() that makes the guard of a column as it is; what guard_table() does by itself is left '
    'out. Error 42704 when the column has no guard';

-- By what they call, not by name: a guarded column may have been renamed.
CREATE FUNCTION guard_drop_parts(target regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part name;
BEGIN
    FOR part IN SELECT tgname FROM pg_trigger
        WHERE tgrelid = target AND tgfoid = 'ndrs_optout.guard_row'::regproc AND tgparentid = 0 LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', part, target);
    END LOOP;
    FOR part IN SELECT DISTINCT c.conname FROM pg_constraint c
        JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid
        WHERE c.conrelid = target AND c.contype = 'c' AND c.coninhcount = 0
            AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = ANY (ndrs_optout.guard_constraint_functions()) LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', target, part);
    END LOOP;
END
$$;
COMMENT ON FUNCTION guard_drop_parts(regclass) IS
    'internal: drops the triggers and constraints of every guard of a table';

-- Tables whose rows another extension keeps elsewhere, as Citus does with those that its
-- catalogue names: the server's own locks and pages, which the guard, the erasure and the
-- exclusion list rest on, are then those of an empty table.
CREATE FUNCTION guard_distributed() RETURNS SETOF regclass
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    catalogue regclass := to_regclass('pg_catalog.pg_dist_partition');
BEGIN
    IF catalogue IS NOT NULL THEN
        RETURN QUERY EXECUTE format('SELECT d.logicalrelid::regclass FROM %s d', catalogue);
    END IF;
END
$$;
COMMENT ON FUNCTION guard_distributed() IS 'internal: the tables that Citus keeps elsewhere, as its catalogue says';

CREATE FUNCTION guard_must_be_local(relations regclass[]) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    distributed regclass;
BEGIN
    SELECT d.relation INTO distributed FROM ndrs_optout.guard_distributed() AS d (relation)
        WHERE d.relation = ANY (relations) LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.raise_error('0A000',
            format('table %s is distributed', distributed),
            detail => 'Its rows are where neither the guard nor the erasure can be sure of them.',
            hint => 'Make it a local table again: Citus has undistribute_table() for that.');
    END IF;
END
$$;
COMMENT ON FUNCTION guard_must_be_local(regclass[]) IS 'internal: error 0A000 when one of the tables is distributed';
