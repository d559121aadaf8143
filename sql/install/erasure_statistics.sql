-- erasure, the planner's statistics: pg_stats shows values of erased rows until the
-- statistics of their tables are made anew, which is a step of its own behind the
-- erasure, since it reads what is committed.

-- What is to be made anew, or was for a case.  Rows are only added by an erasure: two of
-- the same tables must not wait for each other.
CREATE TABLE statistics_renewal (
    entry_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relation   regclass NOT NULL,
    case_id    bigint,
    erased_by  xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    erased_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    renewed_at timestamptz,
    obstacle   text
);
COMMENT ON TABLE statistics_renewal IS
    'internal: tables whose statistics may hold values of erased rows, until they are made anew; for a case that is '
    'not completed, those that were, too';
CREATE INDEX statistics_renewal_due ON statistics_renewal (relation) WHERE renewed_at IS NULL;
CREATE INDEX statistics_renewal_case_id ON statistics_renewal (case_id) WHERE case_id IS NOT NULL;
SELECT pg_catalog.pg_extension_config_dump('statistics_renewal', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.statistics_renewal', 'entry_id')::regclass, '');

-- An erasure has changed rows of these batches.  A table's statistics hold values of its partitions
-- and inheritance children, too.
CREATE FUNCTION statistics_to_renew(batches erasure_batch[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    WITH RECURSIVE changed (relation) AS (
        SELECT r.leaf::oid FROM unnest(batches) AS b CROSS JOIN LATERAL unnest(b.leaves) AS r (leaf)
            WHERE (b.search).action IN ('delete', 'redact', 'unlink')
        UNION
        SELECT i.inhparent FROM changed c JOIN pg_inherits i ON i.inhrelid = c.relation)
    INSERT INTO ndrs_optout.statistics_renewal (relation)
        SELECT c.relation FROM changed c
            WHERE NOT EXISTS (SELECT FROM ndrs_optout.statistics_renewal s
                                  WHERE s.relation = c.relation AND s.renewed_at IS NULL
                                      AND s.erased_by = pg_current_xact_id());
END
$$;
COMMENT ON FUNCTION statistics_to_renew(erasure_batch[]) IS
    'internal: notes that statistics of the tables that an erasure has changed, and of those above them, may hold '
    'values of erased rows';

CREATE FUNCTION remove_statistics(relation regclass, wait boolean) RETURNS text
    AS 'MODULE_PATHNAME', 'ndrs_optout_remove_statistics'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION remove_statistics(regclass, boolean) IS
    'internal: removes all statistics of a table, under the lock of ANALYZE: removed; locked when another session has '
    'a lock that excludes that and there is to be no wait; gone when there is no such table; error 55P03 after '
    'lock_timeout';

CREATE FUNCTION make_statistics(relation regclass) RETURNS void
    AS 'MODULE_PATHNAME', 'ndrs_optout_make_statistics'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION make_statistics(regclass) IS
    'internal: ANALYZE of one table, without its partitions, with the rights of its owner';

-- What a renewal knows between its transactions.  wait: no lock was waited for in vain.
CREATE TYPE statistics_state AS (
    relation regclass,
    wait     boolean,
    more     boolean
);
COMMENT ON TYPE statistics_state IS 'internal: what a renewal of statistics knows between its transactions';

-- One transaction of a renewal.  The entries are read under the lock and before the
-- statistics are made: an erasure that commits while they are made may not be
-- taken for one before them.
CREATE FUNCTION renew_next_statistics(now statistics_state) RETURNS statistics_state
LANGUAGE plpgsql SECURITY DEFINER
SET lock_timeout = '2s'
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    outcome text;
    entries bigint[];
    remaining text;
BEGIN
    PERFORM ndrs_optout.require_read_committed();
    SELECT s.relation INTO now.relation FROM ndrs_optout.statistics_renewal s
        WHERE s.renewed_at IS NULL AND s.relation::oid > coalesce(now.relation::oid, 0::oid)
        ORDER BY s.relation::oid LIMIT 1;
    now.more := FOUND;
    IF NOT now.more THEN
        SELECT string_agg(DISTINCT s.relation::text, ', ') INTO remaining
            FROM ndrs_optout.statistics_renewal s WHERE s.renewed_at IS NULL AND s.obstacle IS NOT NULL;
        IF remaining IS NOT NULL THEN
            PERFORM ndrs_optout.raise_notice(true,
                format('statistics that may hold erased values, of tables that are locked: %s', remaining),
                'CALL ndrs_optout.renew_statistics() when the other sessions have ended.');
        END IF;
        RETURN now;
    END IF;
    BEGIN
        outcome := ndrs_optout.remove_statistics(now.relation, now.wait);
        entries := ARRAY(SELECT s.entry_id FROM ndrs_optout.statistics_renewal s
                             WHERE s.relation = now.relation AND s.renewed_at IS NULL);
        IF outcome = 'removed' THEN
            PERFORM ndrs_optout.make_statistics(now.relation);
        END IF;
    EXCEPTION
        WHEN lock_not_available THEN
            now.wait := false;
            outcome := 'locked';
        WHEN OTHERS THEN
            -- ANALYZE fails, such as by a function of an index.
            outcome := ndrs_optout.remove_statistics(now.relation, false);
            IF outcome = 'removed' THEN
                outcome := 'not_analyzed';
                entries := ARRAY(SELECT s.entry_id FROM ndrs_optout.statistics_renewal s
                                     WHERE s.relation = now.relation AND s.renewed_at IS NULL);
            END IF;
    END;
    IF outcome = 'locked' THEN
        UPDATE ndrs_optout.statistics_renewal s SET obstacle = outcome
            WHERE s.relation = now.relation AND s.renewed_at IS NULL AND s.obstacle IS NULL;
    ELSE
        DELETE FROM ndrs_optout.statistics_renewal s WHERE s.entry_id = ANY (entries) AND s.case_id IS NULL;
        UPDATE ndrs_optout.statistics_renewal s
            SET renewed_at = clock_timestamp(), obstacle = CASE outcome WHEN 'not_analyzed' THEN outcome END
            WHERE s.entry_id = ANY (entries) AND s.renewed_at IS NULL;
    END IF;
    RETURN now;
END
$$;
COMMENT ON FUNCTION renew_next_statistics(statistics_state) IS
    'internal: one transaction of a renewal of statistics: the next table whose statistics may hold erased values; '
    'error 25000 (at another isolation level than READ COMMITTED)';

-- Commits, so it does nothing but call functions that pin their search_path.
CREATE PROCEDURE renew_statistics()
LANGUAGE plpgsql
AS $$
DECLARE
    state ndrs_optout.statistics_state;
BEGIN
    PERFORM ndrs_optout.begin_procedure('renew_statistics');
    state.wait := true;
    LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
        state := ndrs_optout.renew_next_statistics(state);
        EXIT WHEN NOT state.more;
    END LOOP;
    COMMIT;
END
$$;
COMMENT ON PROCEDURE renew_statistics() IS
    'removes the planner''s statistics of tables from which rows were erased, and makes them anew (ANALYZE): pg_stats '
    'shows values of erased rows until then. carry_out() and sweep() do it at their end; by itself it does what they '
    'could not, because another session had locked a table, and what follows an erase(). Waits for locks for 2 '
    'seconds in all; commits after each table; not inside a transaction block or a function (error 25001)';
