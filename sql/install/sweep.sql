-- sweep: removes what guards would not let in, from tables that hold it already:
-- for guarding late, for restores, for nights.

-- A sweep goes from leaf to leaf and commits often.  One that was interrupted less
-- than a day ago is resumed, unless the exclusion list or a guard has changed since:
-- leaves that were done would have to be done again.
CREATE TABLE sweep (
    sweep_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target      regclass,  -- NULL: all guarded tables
    fingerprint text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finished_at timestamptz
);
COMMENT ON TABLE sweep IS 'internal: sweeps of guarded tables, finished or not';

-- not dumped: what a restored database holds has to be looked through anew.

CREATE TABLE sweep_leaf (
    sweep_id          bigint REFERENCES sweep ON DELETE CASCADE,
    target            regclass,
    relation          regclass,
    nhs_number_column name,
    position          bigint NOT NULL DEFAULT 0,  -- in the order of names, which are made once
    state             text NOT NULL DEFAULT 'waiting' CHECK (
        state IN ('waiting', 'erasing', 'encoding', 'done', 'not_searched')),
    patients_found    bigint NOT NULL DEFAULT 0,
    patients_erased   bigint NOT NULL DEFAULT 0,
    patients_left     bigint NOT NULL DEFAULT 0,
    patients_with_case bigint NOT NULL DEFAULT 0,
    rows_erased       bigint NOT NULL DEFAULT 0,
    rows_encoded      bigint NOT NULL DEFAULT 0,
    blocks_encoded    bigint NOT NULL DEFAULT 0,
    blocks_left       bigint NOT NULL DEFAULT 0,
    started_at        timestamptz,
    finished_at       timestamptz,
    PRIMARY KEY (sweep_id, target, relation, nhs_number_column)
);
COMMENT ON TABLE sweep_leaf IS 'internal: what a sweep found and did, per guarded column and table that holds rows';
-- not dumped: like sweep.
-- The next one, among thousands that are done.
CREATE INDEX sweep_leaf_next ON sweep_leaf (sweep_id, (state = 'waiting') DESC, position)
    WHERE state NOT IN ('done', 'not_searched');

CREATE VIEW sweep_progress AS
    SELECT l.sweep_id, l.relation, l.nhs_number_column, l.state,
           l.patients_found, l.patients_erased, l.patients_left, l.patients_with_case, l.rows_erased, l.rows_encoded,
               l.blocks_left,
           l.started_at, l.finished_at
        FROM sweep_leaf l
        WHERE l.sweep_id = (SELECT pg_catalog.max(s.sweep_id) FROM sweep s)
        ORDER BY l.started_at NULLS LAST, l.relation::text, l.nhs_number_column;
COMMENT ON VIEW sweep_progress IS 'the latest sweep: state and counts of each table that holds rows';

-- What a sweep knows between its transactions.  The patients found in a leaf are
-- kept nowhere else.
CREATE TYPE sweep_state AS (
    sweep_id          bigint,
    target            regclass,
    relation          regclass,
    nhs_number_column name,
    patients          nhs_number[],
    more              boolean
);
COMMENT ON TYPE sweep_state IS 'internal: what a sweep knows between its transactions';

-- Of the list that a backend keeps, so it costs nothing once that is there.
CREATE FUNCTION exclusion_list_checksum(register text) RETURNS bigint
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_list_checksum'
    LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION exclusion_list_checksum(text) IS
    'internal: a number that differs when a register''s exclusion list does; errors ND010, ND011, 42704';

-- The same for equal guards and equal lists of the registers that are looked into.
CREATE FUNCTION sweep_fingerprint(target regclass) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('%s %s', (SELECT string_agg(format('%s %s', r.code, ndrs_optout.exclusion_list_checksum(r.code)), ' '
                                              ORDER BY r.code COLLATE "C")
                                FROM (SELECT DISTINCT unnest(g.registers) FROM ndrs_optout.guard g
                                          WHERE sweep_fingerprint.target IS NULL
                                              OR g.target = sweep_fingerprint.target) AS r (code)),
                  (SELECT coalesce(sum(hashtextextended(g::text, 0)::numeric), 0) FROM ndrs_optout.guard g))
$$;
COMMENT ON FUNCTION sweep_fingerprint(regclass) IS
    'internal: a text that differs when a list that a sweep of the table looks into, or a guard, does';

-- One sweep at a time.  Held by the session, since a sweep is many transactions, until
-- it is given back or there is an error.
CREATE FUNCTION sweep_lock() RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_sweep_lock'
    LANGUAGE C VOLATILE;
COMMENT ON FUNCTION sweep_lock() IS
    'internal: lets this session sweep until sweep_unlock() or an error; false while another one does';

CREATE FUNCTION sweep_unlock() RETURNS void
    AS 'MODULE_PATHNAME', 'ndrs_optout_sweep_unlock'
    LANGUAGE C VOLATILE;
COMMENT ON FUNCTION sweep_unlock() IS 'internal: lets other sessions sweep';

CREATE FUNCTION sweep_begin(target regclass) RETURNS sweep_state
LANGUAGE plpgsql SECURITY DEFINER
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    current_fingerprint text := ndrs_optout.sweep_fingerprint(target);
    distributed regclass[] := ARRAY(SELECT d.relation FROM ndrs_optout.guard_distributed() AS d (relation));
    result ndrs_optout.sweep_state;
BEGIN
    IF NOT EXISTS (SELECT FROM ndrs_optout.guard g WHERE g.target = sweep_begin.target OR sweep_begin.target IS NULL)
    THEN
        PERFORM ndrs_optout.raise_error('42704',
            CASE WHEN target IS NULL THEN 'no table is guarded' ELSE format('table %s is not guarded', target) END,
            hint => 'Table ndrs_optout.guard lists the guarded tables.');
    END IF;
    IF NOT ndrs_optout.sweep_lock() THEN
        PERFORM ndrs_optout.raise_error('55006', 'another sweep is running',
            hint => 'View ndrs_optout.sweep_progress shows how far it is.');
    END IF;
    SELECT s.sweep_id INTO result.sweep_id FROM ndrs_optout.sweep s
        WHERE s.target IS NOT DISTINCT FROM sweep_begin.target AND s.finished_at IS NULL
            AND s.fingerprint = current_fingerprint AND s.started_at > now() - interval '1 day'
        ORDER BY s.sweep_id DESC LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.raise_notice(false, format('resuming sweep %s', result.sweep_id));
    ELSE
        DELETE FROM ndrs_optout.sweep s
            WHERE s.target IS NOT DISTINCT FROM sweep_begin.target AND s.finished_at IS NULL;
        INSERT INTO ndrs_optout.sweep (target, fingerprint) VALUES (target, current_fingerprint)
            RETURNING sweep_id INTO result.sweep_id;
    END IF;
    -- What is not searched is counted: rows on another server, and in what another extension
    -- keeps elsewhere.
    INSERT INTO ndrs_optout.sweep_leaf (sweep_id, target, relation, nhs_number_column, position, state, finished_at)
        SELECT result.sweep_id, b.target, b.relation, g.nhs_number_column,
               row_number() OVER (ORDER BY b.relation::text, g.nhs_number_column, b.target),
               CASE WHEN e.elsewhere THEN 'not_searched' ELSE 'waiting' END, CASE WHEN e.elsewhere THEN now() END
            FROM ndrs_optout.guard_covered AS b
            JOIN ndrs_optout.guard g ON g.target = b.target
            JOIN pg_class c ON c.oid = b.relation AND c.relkind IN ('r', 'f')
            CROSS JOIN LATERAL (SELECT c.relkind = 'f' OR distributed <> '{}' AND EXISTS (
                SELECT FROM ndrs_optout.erasure_lineage(b.relation) AS l WHERE l.ancestor = ANY (distributed)))
                AS e (elsewhere)
            WHERE b.target = sweep_begin.target OR sweep_begin.target IS NULL
        ON CONFLICT DO NOTHING;
    result.more := true;
    RETURN result;
END
$$;
COMMENT ON FUNCTION sweep_begin(regclass) IS
    'internal: begins a sweep, or takes up one that was interrupted; errors 42704 (not guarded), 55006 (another sweep '
    'is running)';

-- Fill the encoded column in the next blocks of a leaf, where it is not filled
-- right.  The guard's trigger computes it, and other triggers run with the rights
-- of the table's owner.
CREATE FUNCTION sweep_encode(this sweep_leaf, this_guard guard) RETURNS sweep_leaf
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    next_block bigint := this.blocks_encoded + 1000;
    owner regrole := (SELECT r.relowner FROM pg_class r WHERE r.oid = this.relation);
    row_ids text[];
    changed bigint[];
BEGIN
    row_ids := ndrs_optout.search_as_owner(owner, format(
        'SELECT ARRAY[array_agg(t.ctid)::text] FROM ONLY %1$s t
             WHERE t.ctid >= ''(%4$s,0)'' AND t.ctid < ''(%5$s,0)''
                 AND ndrs_optout.guard_finds(t.%2$I, $2, $3) IS NOT TRUE
                 AND ndrs_optout.guard_misencoded(t.%2$I, t.%3$I, $3)',
        this.relation, this.nhs_number_column, this_guard.encoded_column, this.blocks_encoded, next_block),
        NULL, this_guard.registers);
    changed := ndrs_optout.change_as_owner(
        owner,
        format('WITH u AS (UPDATE ONLY %s SET %I = NULL
                    WHERE ctid = ANY ($1[1]::tid[]) RETURNING 1)
                SELECT ARRAY[count(*)] FROM u', this.relation, this_guard.encoded_column),
        row_ids, ARRAY[this.relation]);
    this.rows_encoded := this.rows_encoded + changed[1];
    this.blocks_encoded := next_block;
    RETURN this;
END
$$;
COMMENT ON FUNCTION sweep_encode(sweep_leaf, guard) IS
    'internal: fills the encoded column in the next blocks of a table';

-- Erase patients from a leaf, together.  Whatever keeps one patient's rows must not
-- keep the others', so if that fails it is tried with each.
CREATE FUNCTION sweep_erase(this sweep_leaf, patients nhs_number[], registers text[]) RETURNS sweep_leaf
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    patient ndrs_optout.nhs_number;
    erased bigint;
BEGIN
    SELECT coalesce(sum(e.row_count) FILTER (WHERE e.action IN ('deleted', 'redacted')), 0) INTO erased
        FROM ndrs_optout.erase_patients(patients, registers) AS e;
    this.patients_erased := this.patients_erased + cardinality(patients);
    this.rows_erased := this.rows_erased + erased;
    RETURN this;
EXCEPTION WHEN OTHERS THEN
    IF cardinality(patients) = 1 THEN
        this.patients_left := this.patients_left + 1;
        RETURN this;
    END IF;
    FOREACH patient IN ARRAY patients LOOP
        this := ndrs_optout.sweep_erase(this, ARRAY[patient], registers);
    END LOOP;
    RETURN this;
END
$$;
COMMENT ON FUNCTION sweep_erase(sweep_leaf, nhs_number[], text[]) IS
    'internal: erases patients from a table, together or else one by one, and counts them';

-- One transaction of a sweep: look through the next leaf, erase some of the
-- patients found in it, or fill some of its encoded column.
CREATE FUNCTION sweep_step(now sweep_state) RETURNS sweep_state
LANGUAGE plpgsql SECURITY DEFINER
SET row_security = off
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    batch_size CONSTANT integer := 100;
    this ndrs_optout.sweep_leaf;
    this_guard ndrs_optout.guard;
    part record;
    total record;
BEGIN
    PERFORM ndrs_optout.require_read_committed();
    PERFORM ndrs_optout.erasure_begin();
    IF now.relation IS NULL THEN
        SELECT * INTO this FROM ndrs_optout.sweep_leaf l
            WHERE l.sweep_id = now.sweep_id AND l.state NOT IN ('done', 'not_searched')
            ORDER BY l.state = 'waiting' DESC, l.position LIMIT 1;
        IF NOT FOUND THEN
            now.more := false;
            SELECT count(*) AS leaves, sum(l.patients_erased) AS patients, sum(l.rows_erased) AS rows_erased,
                   sum(l.patients_left) AS patients_left, sum(l.patients_with_case) AS patients_with_case,
                   sum(l.blocks_left) AS blocks_left,
                   count(*) FILTER (WHERE l.state = 'not_searched') AS leaves_not_searched
                INTO total FROM ndrs_optout.sweep_leaf l WHERE l.sweep_id = now.sweep_id;
            UPDATE ndrs_optout.sweep s SET finished_at = clock_timestamp() WHERE s.sweep_id = now.sweep_id;
            PERFORM ndrs_optout.audit('sweep_finished', to_jsonb(total) || jsonb_build_object('sweep', now.sweep_id));
            PERFORM ndrs_optout.raise_notice(false, format('sweep %s: patients erased: %s, rows erased: %s',
                now.sweep_id, total.patients, total.rows_erased));
            IF total.patients_with_case > 0 THEN
                PERFORM ndrs_optout.raise_notice(false,
                    format('patients left to their open cases: %s', total.patients_with_case),
                    'CALL ndrs_optout.carry_out() for each of these cases erases them.');
            END IF;
            IF total.patients_left > 0 OR total.blocks_left > 0 THEN
                PERFORM ndrs_optout.raise_notice(true, format('patients not erased: %s, blocks not encoded: %s',
                        total.patients_left, total.blocks_left),
                    'ndrs_optout.erase() says what stands in the way; ndrs_optout.guard_matches() finds them.');
            END IF;
            IF total.leaves_not_searched > 0 THEN
                PERFORM ndrs_optout.raise_notice(true,
                    format('tables not searched: %s', total.leaves_not_searched),
                    'Their rows are on another server, or another extension keeps them: '
                    'ndrs_optout.sweep_progress names them (state "not_searched").');
            END IF;
            IF ndrs_optout.erasure_lost_edges() <> '{}' THEN
                PERFORM ndrs_optout.raise_notice(true,
                    format('edges that the sweep could not follow: %s',
                           cardinality(ndrs_optout.erasure_lost_edges())),
                    'ndrs_optout.guard_coverage() names them (gaps "edge_lost", "guarded_column_lost").');
            END IF;
            PERFORM ndrs_optout.sweep_unlock();
            RETURN now;
        END IF;
        now.target := this.target;
        now.relation := this.relation;
        now.nhs_number_column := this.nhs_number_column;
    ELSE
        SELECT * INTO STRICT this FROM ndrs_optout.sweep_leaf l
            WHERE l.sweep_id = now.sweep_id AND l.target = now.target AND l.relation = now.relation
                AND l.nhs_number_column = now.nhs_number_column;
    END IF;

    SELECT g.* INTO this_guard FROM ndrs_optout.guard g JOIN pg_class r ON r.oid = now.relation
        WHERE g.target = now.target AND g.nhs_number_column = now.nhs_number_column
            AND ndrs_optout.guard_covers(g.target, now.relation);
    IF NOT FOUND THEN  -- dropped, detached or unguarded since
        this.state := 'done';
    ELSIF now.patients IS NULL THEN
        -- A statement that the server can share among workers.  The table may be dropped
        -- while this waits for it.
        BEGIN
            now.patients := coalesce(ndrs_optout.search_as_owner(
                (SELECT r.relowner::regrole FROM pg_class r WHERE r.oid = now.relation),
                format('SELECT array_agg(DISTINCT ndrs_optout.guard_number(t.%1$I)::text) FROM ONLY %2$s t
                            WHERE ndrs_optout.guard_finds(t.%1$I, $2, $3)', now.nhs_number_column, now.relation),
                NULL, this_guard.registers)::ndrs_optout.nhs_number[], '{}');
            this.state := 'erasing';
            this.started_at := coalesce(this.started_at, clock_timestamp());
            this.patients_found := this.patients_erased + cardinality(now.patients);
            this.patients_left := 0;
            this.patients_with_case := 0;
        EXCEPTION WHEN undefined_table OR syntax_error THEN  -- its name, or what is left of it
            IF EXISTS (SELECT FROM pg_class r WHERE r.oid = now.relation) THEN
                RAISE;
            END IF;
            this.state := 'done';
        END;
    ELSIF cardinality(now.patients) > 0 THEN
        -- A case looks at more than the list, such as whose number it is.  A patient who
        -- is excluded from no register was readmitted since.
        FOR part IN
            SELECT p.registers, p.has_case, array_agg(p.number) AS patients
                FROM (SELECT n.number,
                             ndrs_optout.excluded_from(ndrs_optout.encode_nhs_number(n.number), true) AS registers,
                             EXISTS (SELECT FROM ndrs_optout.optout_case c
                                     WHERE c.encoded_nhs_number OPERATOR(ndrs_optout.=)
                                             ndrs_optout.encode_nhs_number(n.number)
                                         AND c.state IN ('excluded', 'carried_out')) AS has_case
                          FROM (SELECT u.number FROM unnest(now.patients[:batch_size]) AS u (number)
                                ORDER BY u.number) AS n) AS p
                WHERE p.has_case OR cardinality(p.registers) > 0
                GROUP BY p.registers, p.has_case
        LOOP
            IF part.has_case THEN
                this.patients_with_case := this.patients_with_case + cardinality(part.patients);
            ELSE
                this := ndrs_optout.sweep_erase(this, part.patients, part.registers);
            END IF;
        END LOOP;
        now.patients := now.patients[batch_size + 1:];
    ELSIF this_guard.encoded_column IS NOT NULL
        AND this.blocks_encoded < pg_relation_size(this.relation) / current_setting('block_size')::bigint THEN
        this.state := 'encoding';
        BEGIN
            this := ndrs_optout.sweep_encode(this, this_guard);
        EXCEPTION WHEN OTHERS THEN
            this.blocks_encoded := this.blocks_encoded + 1000;
            this.blocks_left := this.blocks_left + 1000;
        END;
    ELSE
        this.state := 'done';
    END IF;
    IF this.state = 'erasing' AND now.patients = '{}' AND this_guard.encoded_column IS NULL THEN
        this.state := 'done';
    END IF;

    IF this.state = 'done' THEN
        this.finished_at := clock_timestamp();
        PERFORM ndrs_optout.raise_notice(false, format('%s: patients found: %s, rows erased: %s%s', now.relation,
                                                       this.patients_found,
            this.rows_erased, CASE WHEN this.rows_encoded > 0
                                  THEN format(', rows encoded: %s', this.rows_encoded) END));
        now.relation := NULL;
        now.patients := NULL;
    END IF;
    UPDATE ndrs_optout.sweep_leaf l
        SET state = this.state, patients_found = this.patients_found, patients_erased = this.patients_erased,
            patients_left = this.patients_left, patients_with_case = this.patients_with_case,
                rows_erased = this.rows_erased, rows_encoded = this.rows_encoded,
            blocks_encoded = this.blocks_encoded, blocks_left = this.blocks_left, started_at = this.started_at,
                finished_at = this.finished_at
        WHERE l.sweep_id = this.sweep_id AND l.target = this.target AND l.relation = this.relation
            AND l.nhs_number_column = this.nhs_number_column;
    RETURN now;
END
$$;
COMMENT ON FUNCTION sweep_step(sweep_state) IS 'internal: one transaction of a sweep';

-- Commits, so it does nothing but call functions that pin their search_path: see
-- carry_out().
CREATE PROCEDURE sweep(target regclass DEFAULT NULL)
LANGUAGE plpgsql
AS $$
DECLARE
    state ndrs_optout.sweep_state;
BEGIN
    PERFORM ndrs_optout.begin_procedure('sweep');
    state := ndrs_optout.sweep_begin(target);
    WHILE state.more LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
        state := ndrs_optout.sweep_step(state);
    END LOOP;
    COMMIT;
    CALL ndrs_optout.renew_statistics();
END
$$;
COMMENT ON PROCEDURE sweep(regclass) IS
    'looks through a guarded table, or all of them, and erases every patient found there who is excluded; fills '
    'encoded columns that are not filled. Commits often and can be repeated after an interruption; a patient whose '
    'rows cannot all be erased, or who has a case under way, is left and counted. View sweep_progress shows how far '
    'it is and, afterwards, what it did. Not inside a transaction block or a function (error 25001); errors 42704 '
    '(not guarded), 55000 (damaged guard), 55006 (another sweep is running)';
