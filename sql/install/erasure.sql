-- erasure: deletion of everything that the walk (erasure_walk.sql) finds about patients,
-- in the order of erasure_order.sql.

CREATE FUNCTION change_as_owner(role regrole, command text, row_ids text[], changed regclass[] DEFAULT '{}')
    RETURNS bigint[]
    AS 'MODULE_PATHNAME', 'ndrs_optout_change_as_owner'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION change_as_owner(regrole, text, text[], regclass[]) IS
    'internal: runs a command of the erasure, with places of rows as $1, with the rights of a role; guards do not stop '
    'what it changes in these tables. An error tells an SQLSTATE and names of the catalogues, and nothing of '
    'what the server or a trigger says: ND030 when it is about rows, else its own SQLSTATE';

-- No trigger is deferred from here to the end of the transaction, on any table: a trigger may write
-- to one that no walk knows, and the server refuses to defer what a security-restricted
-- operation has caused.  What waits already runs with the rights of the table's owner;
-- then nothing waits, so the last command runs nothing.
CREATE FUNCTION erasure_undefer() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    pending regclass[];
BEGIN
    FOR i IN 1 .. 100 LOOP
        pending := ndrs_optout.erasure_pending();
        IF pending IS NULL THEN
            RETURN;
        END IF;
        EXIT WHEN pending = '{}';
        PERFORM ndrs_optout.change_as_owner(c.role, c.command, '{}')
            FROM unnest(ndrs_optout.erasure_undeferrals(pending)) AS c;
    END LOOP;
    IF pending <> '{}' THEN
        PERFORM ndrs_optout.raise_error('ND030', format('triggers of table %s defer themselves again', pending[1]),
            hint => 'Commit first, and erase in a transaction of its own.');
    END IF;
    SET CONSTRAINTS ALL IMMEDIATE;
END
$$;
COMMENT ON FUNCTION erasure_undefer() IS
    'internal: no trigger is deferred from here to the end of the transaction; error ND030';

-- Delete the rows of the batches, children first.  Triggers run with the rights of
-- the tables' owner, and none is deferred until after the rows were counted again.
CREATE FUNCTION erasure_delete(batches erasure_batch[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    changed regclass[];
    unlinked regclass[];
    emptied regclass[];
    row_ids text[];
    expected bigint[];
    part ndrs_optout.erasure_command;
    deleted bigint[];
    place bigint;
BEGIN
    SELECT array_agg(l.leaf), array_agg(l.leaf) FILTER (WHERE l.unlinks),
           array_agg(l.leaf ORDER BY l.leaf) FILTER (WHERE l.row_ids IS NOT NULL),
           array_agg(l.row_ids::text ORDER BY l.leaf) FILTER (WHERE l.row_ids IS NOT NULL),
           array_agg(cardinality(l.row_ids) ORDER BY l.leaf) FILTER (WHERE l.row_ids IS NOT NULL)
        INTO changed, unlinked, emptied, row_ids, expected
        FROM (SELECT r.leaf, bool_or((b.search).action = 'unlink') AS unlinks,
                     array_agg(r.row_id) FILTER (WHERE (b.search).action = 'delete') AS row_ids
                  FROM unnest(batches) AS b CROSS JOIN LATERAL unnest(b.leaves, b.row_ids) AS r (leaf, row_id)
                  GROUP BY r.leaf) AS l;
    IF changed IS NULL THEN
        RETURN;
    END IF;
    PERFORM ndrs_optout.erasure_undefer();

    FOREACH part IN ARRAY ndrs_optout.erasure_deletions(coalesce(emptied, '{}')) LOOP
        deleted := ndrs_optout.change_as_owner(part.role, part.command, row_ids, coalesce(unlinked, '{}'));

        FOR i IN 1 .. cardinality(part.places) LOOP
            place := part.places[i];
            IF deleted[i] <> expected[place] THEN
                PERFORM ndrs_optout.raise_error('ND030',
                    format('rows remain in table %s after erasure', emptied[place]),
                    detail => format('%s of %s rows were deleted.', deleted[i], expected[place]),
                    hint => 'Look for a BEFORE DELETE trigger that returns NULL, and for tables of different owners '
                            'that refer to each other.');
            END IF;
            expected[place] := 0;
        END LOOP;
    END LOOP;
    IF 0 <> ANY (expected) THEN
        PERFORM ndrs_optout.raise_error('ND033', 'the erasure has lost rows that it found',
            detail => 'No command deletes them: a table is in no catalogue any more.');
    END IF;
END
$$;
COMMENT ON FUNCTION erasure_delete(erasure_batch[]) IS
    'internal: deletes the rows of a walk; error ND030 when one stays';

-- Redact the rows of one batch, or unlink them where the server does not.  Looked for
-- anew: another batch may have changed one of them, and so moved it.
CREATE FUNCTION erasure_redact(batch erasure_batch, others erasure_batch[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part record;
    redacted bigint[];
BEGIN
    FOR part IN
        SELECT r.leaf, c.relowner::regrole AS owner, array_agg(r.row_id) AS row_ids
            FROM (SELECT f.leaf, f.row_id
                      FROM ndrs_optout.erasure_rows(ndrs_optout.erasure_search_step(batch, true)) AS f
                  EXCEPT
                  SELECT d.leaf, d.row_id FROM ndrs_optout.erasure_rows(others) AS d WHERE d.action = 'delete') AS r
            LEFT JOIN pg_class c ON c.oid = r.leaf
            GROUP BY r.leaf, c.relowner
    LOOP
        redacted := ndrs_optout.change_as_owner(part.owner, format(
            'WITH r AS (UPDATE ONLY %s SET %s WHERE ctid = ANY ($1[1]::tid[]) RETURNING 1)
             SELECT ARRAY[count(*)] FROM r',
            part.leaf, (batch.search).changes),
            ARRAY[part.row_ids::text], ARRAY[part.leaf]);
        IF redacted[1] <> cardinality(part.row_ids) THEN
            PERFORM ndrs_optout.raise_error('ND030',
                format('rows of table %s stayed as they were', part.leaf),
                detail => format('%s of %s rows were redacted or unlinked.', redacted[1], cardinality(part.row_ids)),
                hint => 'Look for a BEFORE UPDATE trigger that returns NULL.');
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION erasure_redact(erasure_batch, erasure_batch[]) IS
    'internal: redacts the rows of one batch of a walk, or unlinks them where their foreign key is not enforced; '
    'error ND030 when one stays as it was';

CREATE FUNCTION erasure_begin() RETURNS void
    AS 'MODULE_PATHNAME', 'ndrs_optout_erasure_begin'
    LANGUAGE C VOLATILE;
COMMENT ON FUNCTION erasure_begin() IS
    'internal: lets others tell that this transaction is an erasure, and nothing else so far';

-- Where no enforced foreign key stops it, a child can come in under a parent that is
-- being deleted.  A transaction that has inserted one and not committed is waited for
-- before the rows are counted again.
CREATE FUNCTION erasure_wait(batches erasure_batch[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unbound regclass[] := ARRAY(
        SELECT DISTINCT (b.search).relation FROM unnest(batches) AS b WHERE NOT (b.search).bound);
BEGIN
    IF unbound <> '{}' THEN
        PERFORM ndrs_optout.wait_for_writers(ARRAY(
            SELECT DISTINCT d.relation FROM unnest(unbound) AS u (relation)
                CROSS JOIN LATERAL ndrs_optout.erasure_descendants(u.relation) AS d), true);
    END IF;
END
$$;
COMMENT ON FUNCTION erasure_wait(erasure_batch[]) IS
    'internal: waits for transactions that are writing to a table of a walk that refers to its rows without an '
    'enforced foreign key; error 55P03 after lock_timeout';

-- Look again, with a new snapshot, for everything that was looked for: by the
-- number, and by the keys of the rows that are gone.  A trigger may have put a
-- row back or written a copy, or may not have unlinked one.  The searches that find
-- something, as batches that a walk can start from.
CREATE FUNCTION erasure_recount(batches erasure_batch[]) RETURNS erasure_batch[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    n integer;
    step ndrs_optout.erasure_batch;
    remaining ndrs_optout.erasure_batch[] := ARRAY[]::ndrs_optout.erasure_batch[];
BEGIN
    FOR n IN
        SELECT min(b.ordinality) FROM unnest(batches) WITH ORDINALITY AS b
            WHERE (b.search).action NOT IN ('keep', 'share')
            GROUP BY (b.search).relation, (b.search).action, (b.search).source, (b.search).role, b.patients, b.keys
            ORDER BY 1
    LOOP
        step := batches[n];
        -- By the walk's own command, since to plan another one may take longer than all the rest.
        IF (ndrs_optout.erasure_search_step(step, true))[1].row_ids <> '{}' THEN
            step.leaves := NULL;
            step.row_ids := NULL;
            remaining := remaining || step;
        END IF;
    END LOOP;
    RETURN remaining;
END
$$;
COMMENT ON FUNCTION erasure_recount(erasure_batch[]) IS
    'internal: looks again for everything that a walk looked for; the searches that find something';

-- leads: of one patient, who is looked for alone.
CREATE FUNCTION erase_with_leads(numbers nhs_number[], registers text[], leads erasure_lead[])
RETURNS TABLE (guard_registers text[], relation regclass, path text, action text, row_count bigint, missing_index text)
LANGUAGE plpgsql
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
DECLARE
    codes text[] := ndrs_optout.checked_registers(registers);
    rounds CONSTANT integer := 4;
    groups ndrs_optout.erasure_group[];
    patient_group ndrs_optout.erasure_group;
    round_batches ndrs_optout.erasure_batch[];
    batches ndrs_optout.erasure_batch[] := ARRAY[]::ndrs_optout.erasure_batch[];
    remaining ndrs_optout.erasure_batch[];
    owned_before ndrs_optout.erasure_batch[];
    obstacle regclass;
    keeps_owned boolean;
    refused text;
BEGIN
    PERFORM ndrs_optout.require_one_build();
    -- A count of 0 with an old snapshot would be no count of what is there.
    PERFORM ndrs_optout.require_read_committed();
    PERFORM ndrs_optout.erasure_begin();
    PERFORM ndrs_optout.require_whole_walk();
    IF numbers IS NULL THEN
        PERFORM ndrs_optout.checked_patient(NULL);
    END IF;
    -- Until the end of the transaction no hold is placed.
    PERFORM ndrs_optout.lock_holds();
    -- A check that is being started would read what is not yet gone, or has read what
    -- is going, and keep it in its request: one waits for the other.
    LOCK TABLE ndrs_optout.national_check IN SHARE MODE;
    groups := ARRAY(SELECT ROW(g.patients, g.excluded_registers)::ndrs_optout.erasure_group
                        FROM ndrs_optout.erasure_groups(numbers, codes, true) AS g);
    IF EXISTS (SELECT FROM ndrs_optout.hold) THEN
        FOREACH patient_group IN ARRAY groups LOOP
            PERFORM ndrs_optout.patients_must_not_be_held(patient_group.patients, codes,
                ndrs_optout.erasure_registers(codes, patient_group.excluded_registers));
        END LOOP;
    END IF;
    -- Each round deletes what the recount of the one before has found: what triggers have
    -- written while rows were deleted, and what came in past a foreign key.
    FOR round IN 1 .. rounds LOOP
        round_batches := ARRAY[]::ndrs_optout.erasure_batch[];
        FOREACH patient_group IN ARRAY groups LOOP
            round_batches := round_batches || ndrs_optout.erasure_walk(
                patient_group.patients, codes, patient_group.excluded_registers, true,
                CASE WHEN round > 1 THEN ARRAY(SELECT b FROM unnest(remaining) AS b
                                                   WHERE b.patients = patient_group.patients) END);
        END LOOP;
        IF round = 1 THEN
            owned_before := ndrs_optout.owned_lead_batches(leads, patient_group.patients);
            leads := ARRAY(SELECT l FROM unnest(leads) AS l
                               WHERE l.child <> l.parent OR l.child_attnums <> l.parent_attnums);
        END IF;
        IF round = 1 AND leads <> '{}' THEN
            leads := ndrs_optout.erasure_missed_leads(leads, patient_group.excluded_registers, round_batches);
            IF leads <> '{}' THEN
                round_batches := ndrs_optout.erasure_walk(
                    patient_group.patients, codes, patient_group.excluded_registers, true,
                    ndrs_optout.erasure_root_batches(patient_group.patients, codes, patient_group.excluded_registers)
                    || ndrs_optout.erasure_lead_batches(leads, patient_group.patients,
                                                        patient_group.excluded_registers));
                PERFORM ndrs_optout.erasure_check_leads(leads, patient_group.patients,
                                                        patient_group.excluded_registers, round_batches);
            END IF;
        END IF;
        round_batches := ndrs_optout.erasure_owned(ndrs_optout.erasure_merge_batches(round_batches), codes, groups,
                                                   true);
        SELECT (b.search).relation, (b.search).link_columns IS NOT NULL, (b.search).changes
            INTO obstacle, keeps_owned, refused
            FROM unnest(round_batches) AS b
            WHERE (b.search).action = 'block' AND cardinality(b.row_ids) > 0 LIMIT 1;
        IF refused IS NOT NULL THEN
            PERFORM ndrs_optout.raise_error('ND030',
                format('cannot erase: rows in table %s must be kept', obstacle),
                detail => format('When what they refer to is deleted, their foreign key is to set %s, and NOT NULL '
                                 'forbids that.', refused),
                hint => 'Ask the owner of the table to drop NOT NULL there, or, if the rows are the patient''s, to '
                        'make the foreign key ON DELETE CASCADE.');
        ELSIF keeps_owned THEN
            PERFORM ndrs_optout.raise_error('ND030',
                format('cannot erase: rows in table %s must be kept', obstacle),
                detail => 'They refer to rows that would go with the patient''s, and keep these.',
                hint => 'If they came in while the patient was being erased, erase again: what they refer to is shared '
                        'now. Others are those of action "block" in ndrs_optout.erasure_preview().');
        ELSIF FOUND THEN
            PERFORM ndrs_optout.raise_error('ND030',
                format('cannot erase: rows in table %s must be kept', obstacle),
                detail => 'They have another patient''s NHS number or an unreadable one, or belong to a register that '
                          'the patient has not left; and they are the patient''s too, or refer to rows that are.',
                hint => 'Look at them with ndrs_optout.erasure_preview() (action "block"), and correct a number that '
                        'is wrong. If they should stay without the link, ask the owner of the table to make its '
                        'foreign key ON DELETE SET NULL.');
        END IF;

        -- A foreign key to owned rows that go must let them go.
        PERFORM ndrs_optout.erasure_redact(b, round_batches) FROM unnest(round_batches) AS b
            WHERE (b.search).changes IS NOT NULL AND ndrs_optout.owned_is_freed(b);
        PERFORM ndrs_optout.erasure_delete(round_batches);
        PERFORM ndrs_optout.erasure_redact(b, '{}') FROM unnest(round_batches) AS b
            WHERE (b.search).changes IS NOT NULL AND cardinality(b.row_ids) > 0 AND NOT ndrs_optout.owned_is_freed(b);
        PERFORM ndrs_optout.erasure_wait(round_batches);
        batches := batches || round_batches;
        remaining := ndrs_optout.erasure_recount(batches) || ndrs_optout.erasure_orphans(batches || owned_before);
        EXIT WHEN remaining = '{}';
    END LOOP;
    IF remaining <> '{}' THEN
        PERFORM ndrs_optout.raise_error('ND030',
            format('rows remain in table %s after erasure', (remaining[1].search).relation),
            detail => format('They were deleted %s times, and each time a trigger, or another session, brought in new '
                             'ones.', rounds),
            hint => 'Look for triggers that put rows back or copy them. If other sessions are writing rows that '
                    'refer to the patient''s, past a foreign key that is not enforced or where there is none, erase '
                    'again when they have ended.');
    END IF;
    PERFORM ndrs_optout.statistics_to_renew(batches);
    -- The tables of the walk are locked by now.
    PERFORM ndrs_optout.require_whole_walk();
    PERFORM ndrs_optout.forget_in_national_checks(numbers);
    PERFORM ndrs_optout.audit('patients_erased', jsonb_build_object('patients', count(DISTINCT n.number), 'registers',
                                                                    codes,
            'rows', (SELECT coalesce(sum(cardinality(b.row_ids)), 0) FROM unnest(batches) AS b
                     WHERE (b.search).action NOT IN ('keep', 'share'))))
        FROM unnest(numbers) AS n (number) HAVING count(*) > 0;

    RETURN QUERY
        SELECT s.guard_registers, s.relation, s.path,
               CASE s.action WHEN 'delete' THEN 'deleted' WHEN 'redact' THEN 'redacted' WHEN 'keep' THEN 'kept'
                   WHEN 'share' THEN 'shared' ELSE 'unlinked' END,
               s.row_count, s.missing_index
            FROM ndrs_optout.erasure_summary(batches) AS s;
END
$$;
COMMENT ON FUNCTION erase_with_leads(nhs_number[], text[], erasure_lead[]) IS
    'internal: erase_patients(), which also looks for what refers to the keys of leads; errors of erase(), and ND030 '
    'when another row has such a key now';

CREATE FUNCTION erase_patients(numbers nhs_number[], registers text[])
RETURNS TABLE (guard_registers text[], relation regclass, path text, action text, row_count bigint, missing_index text)
LANGUAGE plpgsql SECURITY DEFINER
SET plan_cache_mode = force_generic_plan
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM ndrs_optout.erase_with_leads(numbers, registers, '{}');
END
$$;
COMMENT ON FUNCTION erase_patients(nhs_number[], text[]) IS
    'erase() for many patients together: all of them or none; no rows for no patients. Audited, with counts; errors '
    '22004 (a number is NULL) and those of erase()';

CREATE FUNCTION erase(number nhs_number, registers text[])
RETURNS TABLE (guard_registers text[], relation regclass, path text, action text, row_count bigint, missing_index text)
LANGUAGE plpgsql SECURITY DEFINER
SET plan_cache_mode = force_generic_plan
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT * FROM ndrs_optout.erase_with_leads(ARRAY[number], registers, '{}');
END
$$;
COMMENT ON FUNCTION erase(nhs_number, text[]) IS
    'deletes everything held about a patient in the given registers, in the caller''s transaction, and counts again; '
    'returns what it did, in the columns of erasure_preview(). Audited. It does not wait for writers in flight, as '
    'carry_out() does; errors ND004, ND010, ND011, ND022 (a hold), ND030 (rows remain), ND032 (an edge of the walk '
    'is lost), 25000 (at another isolation level than READ COMMITTED), 42704';

-- Whether there is a reference in the walk that no foreign key enforces, or rows are owned.
CREATE FUNCTION erasure_has_leads(registers text[]) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM ndrs_optout.erasure_edge e
            WHERE NOT e.enforced AND e.child IN (SELECT unnest(ndrs_optout.erasure_tables(registers))))
        OR EXISTS (SELECT FROM ndrs_optout.owned_parent)
$$;
COMMENT ON FUNCTION erasure_has_leads(text[]) IS
    'internal: whether an erasure from these registers follows a reference that no foreign key enforces, or deletes '
    'owned rows';

CREATE FUNCTION wait_for_writers(relations regclass[], erasing boolean DEFAULT false) RETURNS void
    AS 'MODULE_PATHNAME', 'ndrs_optout_wait_for_writers'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION wait_for_writers(regclass[], boolean) IS
    'internal: waits for every transaction that is writing to one of these tables, or, before an erasure, to the '
    'exclusion list; error 55P03 after lock_timeout';
