-- carry_out: an opt-out in the registry, and its certainty.

-- What the erasures of a case did, as they returned it.
CREATE TABLE case_erasure (
    entry_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id   bigint NOT NULL,
    erased_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    registers text[] NOT NULL,
    relation  text NOT NULL,
    -- The table itself, and those that could hold its rows, since names go to other tables.
    table_oid oid,
    part_oids oid[],
    path      text NOT NULL,
    action    text NOT NULL CHECK (action IN ('deleted', 'redacted', 'unlinked', 'shared', 'kept')),
    row_count bigint NOT NULL
);
COMMENT ON TABLE case_erasure IS 'internal: what the erasures of a case did, per table and path';
CREATE INDEX case_erasure_case_id ON case_erasure (case_id);
SELECT pg_catalog.pg_extension_config_dump('case_erasure', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.case_erasure', 'entry_id')::regclass, '');

-- What was guarded when the patient of a case was excluded, until the case is
-- carried out: it must still be when it is certified.
CREATE TABLE case_guard (
    case_id           bigint,
    target            regclass,
    nhs_number_column name,
    registers         text[],
    PRIMARY KEY (case_id, target, nhs_number_column, registers)
);
COMMENT ON TABLE case_guard IS
    'internal: what was guarded when the patient of a case was excluded, until it is carried out';
SELECT pg_catalog.pg_extension_config_dump('case_guard', '');

-- What may lead to rows of the patient whose parents have gone since (erasure_in_flight.sql), from
-- before the exclusion until the case is carried out.  As ciphertext, which opens with the key of
-- the encoding: the rows are to be forgotten.
CREATE TABLE case_leads (
    case_id    bigint PRIMARY KEY,
    ciphertext bytea NOT NULL
);
COMMENT ON TABLE case_leads IS
    'internal: keys of the rows that a patient had when the case was being carried out, as ciphertext, until it is';
SELECT pg_catalog.pg_extension_config_dump('case_leads', '');

CREATE FUNCTION case_secret(encoded encoded_nhs_number) RETURNS text
    AS 'MODULE_PATHNAME', 'ndrs_optout_case_secret'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION case_secret(encoded_nhs_number) IS
    'internal: the passphrase of what is kept as ciphertext of a patient''s case, which only the key of the encoding '
    'makes; errors ND010, ND011';

CREATE FUNCTION case_read_leads(this optout_case) RETURNS erasure_lead[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stored bytea := (SELECT l.ciphertext FROM ndrs_optout.case_leads l WHERE l.case_id = this.case_id);
    leads text;
BEGIN
    IF stored IS NULL THEN
        RETURN ARRAY[]::ndrs_optout.erasure_lead[];
    END IF;
    EXECUTE format('SELECT %s($1, $2)',
                   ndrs_optout.extension_function('pgcrypto', 'pgp_sym_decrypt', '{bytea,text}'))
        INTO leads USING stored, ndrs_optout.case_secret(this.encoded_nhs_number);
    RETURN leads::ndrs_optout.erasure_lead[];
END
$$;
COMMENT ON FUNCTION case_read_leads(optout_case) IS 'internal: the leads that are kept for a case';

-- Read and keep the keys of the patient's rows.  Those that were kept earlier stay, without
-- the ones that another row has now.  Settings as in erase().
--
-- What is wrong with the walk must not keep the patient from being excluded: it will be
-- wrong when the case is to be certified.
CREATE FUNCTION case_keep_leads(this optout_case, number nhs_number) RETURNS void
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
    patient_group record;
    batches ndrs_optout.erasure_batch[];
    owned ndrs_optout.erasure_batch[];
    lead ndrs_optout.erasure_lead;
    leads ndrs_optout.erasure_lead[];
BEGIN
    IF NOT ndrs_optout.erasure_has_leads(this.registers) THEN
        DELETE FROM ndrs_optout.case_leads l WHERE l.case_id = this.case_id;
        RETURN;
    END IF;
    SELECT g.* INTO STRICT patient_group FROM ndrs_optout.erasure_groups(ARRAY[number], this.registers, false) AS g;
    batches := ndrs_optout.erasure_walk(patient_group.patients, this.registers, patient_group.excluded_registers,
                                        false);
    owned := ndrs_optout.erasure_owned(
        ndrs_optout.erasure_merge_batches(batches), this.registers,
        ARRAY[ROW(patient_group.patients, patient_group.excluded_registers)::ndrs_optout.erasure_group], false);
    leads := ndrs_optout.erasure_leads(batches) || ndrs_optout.owned_leads(owned);
    FOREACH lead IN ARRAY ndrs_optout.erasure_missed_leads(
        ndrs_optout.case_read_leads(this), patient_group.excluded_registers, batches) LOOP
        lead.keys := ndrs_optout.erasure_keys_without(lead.keys, ndrs_optout.erasure_taken_keys(lead, batches));
        IF lead.keys IS NOT NULL THEN
            leads := leads || lead;
        END IF;
    END LOOP;
    EXECUTE format('INSERT INTO ndrs_optout.case_leads AS l (case_id, ciphertext) VALUES ($1, %s($2, $3, $4))
                        ON CONFLICT ON CONSTRAINT case_leads_pkey DO UPDATE SET ciphertext = excluded.ciphertext',
                   ndrs_optout.extension_function('pgcrypto', 'pgp_sym_encrypt', '{text,text,text}'))
        USING this.case_id, leads::text, ndrs_optout.case_secret(this.encoded_nhs_number),
              'cipher-algo=aes256, s2k-mode=1, compress-algo=1'::text;
EXCEPTION WHEN OTHERS THEN
    -- A lock that was not to be had, a full disk: of the moment, so the call can be repeated.
    IF SQLSTATE ~ '^(40|53|55P03|57|58)' THEN
        RAISE;
    END IF;
END
$$;
COMMENT ON FUNCTION case_keep_leads(optout_case, nhs_number) IS
    'internal: keeps the keys of the rows that a patient has now, for references that no foreign key enforces';

CREATE FUNCTION case_must_be_opt_out(this optout_case) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF this.kind <> 'opt_out' THEN
        PERFORM ndrs_optout.raise_error('ND021', format('case %s is not about opting out', this.case_id));
    END IF;
END
$$;
COMMENT ON FUNCTION case_must_be_opt_out(optout_case) IS 'internal: error ND021 for a case of opting in';

-- The case of carry_out: locked, and the patient's.
CREATE FUNCTION case_to_carry_out(case_id bigint, number nhs_number, action text) RETURNS optout_case
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, action);
BEGIN
    PERFORM ndrs_optout.case_must_be_opt_out(result);
    IF result.encoded_nhs_number OPERATOR(ndrs_optout.<>)
        ndrs_optout.encode_nhs_number(ndrs_optout.checked_patient(number)) THEN
        PERFORM ndrs_optout.raise_error('ND031',
            format('the NHS number is not that of case %s', case_id));
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION case_to_carry_out(bigint, nhs_number, text) IS
    'internal: the case, locked, if it can be carried out for this patient; errors P0002, ND020, ND021, ND031 '
    '(another patient''s number)';

-- Two people can share a number by mistake.  Where a guard names a column with the
-- date of birth, it must be the case's in every row with the number.
CREATE FUNCTION case_check_identity(this optout_case, number nhs_number) RETURNS void
LANGUAGE plpgsql
SET datestyle = 'ISO, YMD'
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    step record;
    counts text[];
    held bigint;
    others bigint;
BEGIN
    IF this.date_of_birth IS NULL OR this.identity_confirmed THEN
        RETURN;
    END IF;
    FOR step IN
        SELECT g.target, g.birth_date_column, ndrs_optout.erasure_condition(g.target, g.nhs_number_column) AS condition
            FROM ndrs_optout.guard g
            WHERE g.registers && this.registers AND g.birth_date_column IS NOT NULL
            ORDER BY g.target::text, g.nhs_number_column
    LOOP
        PERFORM ndrs_optout.guard_check_column(step.target, step.birth_date_column, 'birth_date_column',
            '{date,timestamp}', false);
        counts := ndrs_optout.search_as_owner(
            (SELECT r.relowner::regrole FROM pg_class r WHERE r.oid = step.target),
            format('SELECT ARRAY[count(*), count(*) FILTER (WHERE t.%I::date <> $2[1]::date)]::text[] FROM %s t JOIN '
                   'unnest($1) AS n (number) ON %s',
                   step.birth_date_column, step.target, step.condition),
            ARRAY[number], ARRAY[this.date_of_birth::text]);
        held := counts[1]::bigint;
        others := counts[2]::bigint;
        IF others > 0 THEN
            PERFORM ndrs_optout.raise_error('ND031',
                format('table %s holds another date of birth for the patient of case %s', step.target, this.case_id),
                detail => format('%s of %s rows with the NHS number do not agree with the case.', others, held),
                hint => format('Two people may share the number by mistake. If all rows are this patient''s, SELECT '
                               'ndrs_optout.confirm_identity(%s).', this.case_id));
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION case_check_identity(optout_case, nhs_number) IS
    'internal: error ND031 when a guarded table holds another date of birth than the case, and the identity is '
    'not confirmed';

CREATE FUNCTION confirm_identity(case_id bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, 'confirm_identity');
BEGIN
    PERFORM ndrs_optout.case_must_be_opt_out(this);
    UPDATE ndrs_optout.optout_case c SET identity_confirmed = true WHERE c.case_id = this.case_id;
    PERFORM ndrs_optout.audit('identity_confirmed', jsonb_build_object('case', this.case_id));
END
$$;
COMMENT ON FUNCTION confirm_identity(bigint) IS
    'records that all rows with the NHS number of a case are the patient''s, although a date of birth disagrees: '
    'carry_out() goes on then. It counts until the case is carried out; errors P0002, ND020, ND021';

-- What is kept is there to be found again when the case is carried out again.
CREATE FUNCTION record_erasure(case_id bigint, number nhs_number, registers text[], leads erasure_lead[]) RETURNS void
LANGUAGE sql
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM ndrs_optout.case_erasure ce
        WHERE ce.case_id = record_erasure.case_id AND ce.action IN ('shared', 'kept');
    INSERT INTO ndrs_optout.case_erasure (case_id, registers, relation, table_oid, part_oids, path, action, row_count)
        SELECT record_erasure.case_id, e.guard_registers, e.relation::text, e.relation::oid,
               ARRAY(SELECT d.relation::oid FROM ndrs_optout.erasure_descendants(e.relation) AS d
                         JOIN pg_class r ON r.oid = d.relation AND r.relkind <> 'p'),
               e.path, e.action, e.row_count
            FROM ndrs_optout.erase_with_leads(ARRAY[number], record_erasure.registers, leads) AS e;
    UPDATE ndrs_optout.statistics_renewal s SET case_id = record_erasure.case_id
        WHERE s.erased_by = pg_current_xact_id() AND s.case_id IS NULL AND s.renewed_at IS NULL
$$;
COMMENT ON FUNCTION record_erasure(bigint, nhs_number, text[], erasure_lead[]) IS
    'internal: erases for a case and records what was done';

-- A register that cannot be searched must not be certified.
CREATE FUNCTION case_check_guards(this optout_case) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unguarded text;
    tables regclass[];
    elsewhere regclass;
BEGIN
    SELECT code INTO unguarded FROM unnest(this.registers) AS code
        WHERE NOT EXISTS (SELECT FROM ndrs_optout.guard g WHERE code = ANY (g.registers)) LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.raise_error('ND020', format('no table is guarded for register "%s"', unguarded),
            detail => 'Nothing would be erased from it, and nothing stopped.',
            hint => 'Ask the database owner to guard its tables with ndrs_optout.guard_table(). If another database '
                    'holds the register, the request must be carried out there, too.');
    END IF;
    tables := ndrs_optout.erasure_tables(this.registers);
    PERFORM ndrs_optout.guard_must_be_local(
        tables || ARRAY(SELECT c.oid::regclass FROM pg_class c
                            WHERE c.relnamespace = 'ndrs_optout'::regnamespace AND c.relkind = 'r'));
    SELECT f.ftrelid INTO elsewhere FROM pg_foreign_table f
        WHERE f.ftrelid = ANY (tables) AND NOT EXISTS (
            SELECT FROM ndrs_optout.accepted_gap a WHERE a.gap = 'foreign_table' AND a.relation = f.ftrelid)
        ORDER BY f.ftrelid LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.raise_error('0A000', format('table %s is a foreign table', elsewhere),
            detail => 'Rows that are on their way into it on its own server cannot be waited for.',
            hint => 'Ask the database owner to hold its rows in a table of this server, or, if no other program writes '
                    'to it, to accept its gap "foreign_table" with ndrs_optout.accept_gap().');
    END IF;
END
$$;
COMMENT ON FUNCTION case_check_guards(optout_case) IS
    'internal: errors ND020 when no table is guarded for a register of the case, 0A000 when a table of its walk, or '
    'of the extension, is distributed, or one of its walk is a foreign table whose gap is not accepted';

-- Step 1 of carry_out: from here on nothing new gets in.  Nothing is erased yet:
-- the patient's rows are the way to rows in flight that refer to them.  A
-- patient who was readmitted since is excluded as of now.
CREATE FUNCTION case_exclude(case_id bigint, number nhs_number) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.case_to_carry_out(case_id, number, 'exclude');
    stayed boolean := ndrs_optout.case_is_excluded(this);
BEGIN
    PERFORM ndrs_optout.require_one_build();
    PERFORM ndrs_optout.require_whole_walk();
    IF this.state = 'carried_out' THEN
        PERFORM ndrs_optout.raise_notice(false, format('case %s was carried out already and is carried out again',
                                                       case_id));
    END IF;
    PERFORM ndrs_optout.case_check_guards(this);
    PERFORM ndrs_optout.case_check_identity(this, number);
    -- Before the exclusion takes effect: from then on the guard leaves out what a loader has deleted
    -- and would put back.
    PERFORM ndrs_optout.case_keep_leads(this, number);
    PERFORM ndrs_optout.exclude(number, this.registers);
    INSERT INTO ndrs_optout.case_guard (case_id, target, nhs_number_column, registers)
        SELECT case_exclude.case_id, g.target, g.nhs_number_column, g.registers
            FROM ndrs_optout.guard g WHERE g.registers && this.registers
        ON CONFLICT DO NOTHING;
    UPDATE ndrs_optout.optout_case c
        SET state = 'excluded', carried_out_at = NULL,
            excluded_at = coalesce(CASE WHEN stayed THEN c.excluded_at END, clock_timestamp()),
            listed_since = (SELECT max(e.excluded_at) FROM ndrs_optout.exclusion e
                            WHERE e.register = ANY (c.registers)
                                AND e.encoded_nhs_number OPERATOR(ndrs_optout.=) c.encoded_nhs_number)
        WHERE c.case_id = case_exclude.case_id;
END
$$;
COMMENT ON FUNCTION case_exclude(bigint, nhs_number) IS 'internal: step 1 of carry_out: excludes the patient';

-- Whether the patient of a case is on the list of each of its registers.  Locks
-- the rows, so that the patient cannot be readmitted before the transaction
-- ends.
CREATE FUNCTION case_is_excluded(this optout_case) RETURNS boolean
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    WITH listed AS (
        SELECT e.register FROM ndrs_optout.exclusion e
            WHERE e.register = ANY (this.registers)
                AND e.encoded_nhs_number OPERATOR(ndrs_optout.=) this.encoded_nhs_number
            FOR KEY SHARE)
    SELECT count(*) = cardinality(this.registers) FROM listed
$$;
COMMENT ON FUNCTION case_is_excluded(optout_case) IS
    'internal: whether the patient of a case is on the list of each of its registers; locks the rows';

-- Step 2 of carry_out: when no transaction is left that may have passed the
-- guard before the exclusion, erase, count again and certify.
--
-- A role that may call carry_out may call this by itself, so it makes sure of
-- what its claim rests on: the exclusion was committed by a transaction before
-- this one, for this one has written nothing; it stays, for its rows are locked;
-- and each statement here sees what was committed before it.
CREATE FUNCTION case_certify(case_id bigint, number nhs_number) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    written boolean := pg_current_xact_id_if_assigned() IS NOT NULL;
    lost record;
    tables regclass[];
    waited regclass[];
    first_lsn pg_lsn;
    this ndrs_optout.optout_case;
BEGIN
    -- Before it locks anything: what is written before it counts as more than an erasure.
    PERFORM ndrs_optout.erasure_begin();
    this := ndrs_optout.case_to_carry_out(case_id, number, 'certify');
    -- By another officer, since this call's first step.
    IF this.state = 'carried_out' THEN
        RETURN;
    END IF;
    PERFORM ndrs_optout.case_must_not_be_held(this, 'erase for',
        'The patient is excluded: nothing new gets in. Nothing was deleted.', lock => false);
    PERFORM ndrs_optout.require_read_committed();
    -- Until commit no guard and no reference can be added or removed.
    LOCK TABLE ndrs_optout.guard, ndrs_optout.reference, ndrs_optout.owned_parent IN SHARE MODE;
    PERFORM ndrs_optout.require_whole_walk();
    SELECT k.target, k.nhs_number_column INTO lost
        FROM ndrs_optout.case_guard k
        WHERE k.case_id = case_certify.case_id
            AND NOT EXISTS (SELECT FROM ndrs_optout.guard g
                            WHERE g.target = k.target AND g.nhs_number_column = k.nhs_number_column
                                AND g.registers = k.registers)
            -- Of one that is gone, require_whole_walk() knows.
            AND EXISTS (SELECT FROM pg_class c WHERE c.oid = k.target)
        LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.raise_error('ND021',
            format('column "%s" of table %s is not guarded as it was when the patient of case %s was excluded',
                   lost.nhs_number_column, lost.target, case_id),
            hint => 'Guard it again for the same registers, and call ndrs_optout.carry_out() again.');
    END IF;
    IF written OR this.state <> 'excluded' OR NOT ndrs_optout.case_is_excluded(this) THEN
        PERFORM ndrs_optout.raise_error('ND021',
            format('the exclusion of case %s is not committed', case_id),
            hint => format('CALL ndrs_optout.carry_out(%s, ...).', case_id));
    END IF;

    -- What guards read, not what SQL shows: the two can differ where another extension has
    -- replaced the table's storage.
    IF EXISTS (SELECT FROM unnest(this.registers) AS code WHERE NOT ndrs_optout.is_excluded(number, code)) THEN
        PERFORM ndrs_optout.raise_error('55000',
            format('cannot certify case %s: guards do not see the patient on the exclusion list', case_id),
            detail => 'Table ndrs_optout.exclusion has the patient, but the library reads it otherwise.',
            hint => 'Ask the database owner: ndrs_optout.health(), check "exclusion list", says more.');
    END IF;

    PERFORM ndrs_optout.case_check_guards(this);
    -- The transactions that were waited for may have brought more tables under
    -- the guards.  Of releases, because record_release() asks the list after it
    -- has locked them; of requests, because they hold the numbers of whom the
    -- registers held.
    LOOP
        waited := tables;
        tables := ndrs_optout.erasure_tables(this.registers)
            || '{ndrs_optout.release,ndrs_optout.national_check,ndrs_optout.national_check_part}'::regclass[];
        EXIT WHEN tables = waited;
        PERFORM ndrs_optout.wait_for_writers(tables);
    END LOOP;
    PERFORM ndrs_optout.case_check_identity(this, number);
    first_lsn := pg_current_wal_insert_lsn();
    PERFORM ndrs_optout.record_erasure(case_id, number, this.registers, ndrs_optout.case_read_leads(this));
    UPDATE ndrs_optout.optout_case c
        SET state = 'carried_out', carried_out_at = clock_timestamp(), identity_confirmed = false,
            erased_from = first_lsn, erased_to = pg_current_wal_insert_lsn(), erased_by = pg_current_xact_id(),
            recalls = ndrs_optout.raise_recalls(this, number), not_told = ndrs_optout.releases_not_told(this)
        WHERE c.case_id = case_certify.case_id;
    DELETE FROM ndrs_optout.case_guard k WHERE k.case_id = case_certify.case_id;
    DELETE FROM ndrs_optout.case_leads l WHERE l.case_id = case_certify.case_id;
END
$$;
COMMENT ON FUNCTION case_certify(bigint, nhs_number) IS
    'internal: step 2 of carry_out: waits for writers in flight, erases, counts again, certifies and raises recall '
    'notices; errors ND021, ND022, ND030, ND031, ND032, 25000, 55000 (guards do not read the exclusion list as SQL '
    'does), 55P03';

-- A procedure that commits can neither pin its search_path nor be SECURITY
-- DEFINER, so it does nothing but call those that are.  The first COMMIT ends
-- the statement's own transaction, whose isolation level can no longer be set.
CREATE PROCEDURE carry_out(case_id bigint, number nhs_number)
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM ndrs_optout.begin_procedure('carry_out');
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
    PERFORM ndrs_optout.case_exclude(case_id, number);
    COMMIT;
    SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
    PERFORM ndrs_optout.case_certify(case_id, number);
    COMMIT;
    CALL ndrs_optout.renew_statistics();
END
$$;
COMMENT ON PROCEDURE carry_out(bigint, nhs_number) IS
    'carries a case out: excludes the patient, waits for writers in flight, erases and counts again, raises a recall '
    'notice for each release that held the patient, and renews the statistics of the changed tables. Commits between '
    'the steps; can be repeated after an interruption; not inside a transaction block or a function (error 25001); '
    'errors P0002, ND020 (proofs are missing, or no table is guarded for a register), ND021, ND030 (rows remain), '
    'ND031 (another patient''s number, or another date of birth in a guarded table), ND032 (an edge of the walk is '
    'lost), 55000 (guards do not read the exclusion list as SQL does), 55P03 (lock_timeout)';
