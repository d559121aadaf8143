-- erasure_preview: what an erasure would find, without locks.

CREATE FUNCTION erasure_found(patients nhs_number[], registers text[], excluded_registers text[])
    RETURNS erasure_batch[]
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.erasure_owned(
        ndrs_optout.erasure_merge_batches(ndrs_optout.erasure_walk(patients, registers, excluded_registers, false)),
        registers, ARRAY[ROW(patients, excluded_registers)::ndrs_optout.erasure_group], false)
$$;
COMMENT ON FUNCTION erasure_found(nhs_number[], text[], text[]) IS
    'internal: the batches of an erasure of patients who are out of the same registers, as it would begin';

CREATE FUNCTION erasure_summary(batches erasure_batch[])
RETURNS TABLE (guard_registers text[], relation regclass, path text, action text, row_count bigint, missing_index text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT b.registers, (b.search).relation, array_to_string(b.path, ' > '), (b.search).action,
               sum(cardinality(b.row_ids))::bigint, (b.search).missing_index
            FROM unnest(batches) WITH ORDINALITY AS b
            WHERE (b.search).action NOT IN ('block', 'share') OR cardinality(b.row_ids) > 0
            GROUP BY b.registers, (b.search).relation, b.path, (b.search).action, (b.search).missing_index
            ORDER BY min(b.ordinality);
END
$$;
COMMENT ON FUNCTION erasure_summary(erasure_batch[]) IS
    'internal: row counts of a walk, per table and path, in the order of the walk';

-- Here and in erase_patients(): with one text for each value, since keys travel as text;
-- without JIT and with generic plans, because the walk is many short statements, each
-- of which the planner may think worth compiling, or planning anew each time; and with
-- an error instead of a row that a policy hides.
CREATE FUNCTION erasure_preview(number nhs_number, registers text[])
RETURNS TABLE (guard_registers text[], relation regclass, path text, action text, row_count bigint, missing_index text)
LANGUAGE sql SECURITY DEFINER
SET datestyle = 'ISO, YMD'
SET intervalstyle = postgres
SET extra_float_digits = 3
SET array_nulls = on
SET jit = off
SET plan_cache_mode = force_generic_plan
SET row_security = off
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.*
        FROM (SELECT ndrs_optout.checked_registers(registers)) AS c (codes)
        CROSS JOIN LATERAL ndrs_optout.erasure_groups(ARRAY[number], c.codes, false) AS g
        CROSS JOIN LATERAL ndrs_optout.erasure_summary(
            ndrs_optout.erasure_found(g.patients, c.codes, g.excluded_registers)) AS s
$$;
COMMENT ON FUNCTION erasure_preview(nhs_number, text[]) IS
    'what erase() would do, per table and path: delete, redact (the row stays, the number and redact_columns go), '
    'unlink (the row stays, its reference goes), share (the row belongs to others as well, and stays), keep (the table '
    'serves another register too) or block (the erasure would stop); row_count 0: searched, nothing there; '
    'missing_index: the command that would make it fast; errors ND004, ND010, ND011, 42704';
