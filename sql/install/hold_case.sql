-- hold_case: which cases are held, what that stops, and how holds are placed, lifted and overridden.

CREATE FUNCTION held_cases() RETURNS TABLE (case_id bigint, reason text)
LANGUAGE sql STABLE SECURITY DEFINER ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT h.* FROM (
        SELECT c.case_id, ndrs_optout.hold_reason(c.case_id, c.encoded_nhs_number, c.registers, c.holds_overridden_at)
            FROM ndrs_optout.optout_case c
            WHERE EXISTS (SELECT FROM ndrs_optout.hold)) AS h (case_id, reason)
        WHERE h.reason IS NOT NULL
$$;
COMMENT ON FUNCTION held_cases() IS
    'the cases that are held, by a hold on the case, its patient or one of its registers, and why';

-- Every way of deleting a patient's rows comes by here, with or without a case, and holds the lock.
-- A case whose holds were overridden lets the rows of its registers go.  all_registers: also those
-- that rows of these registers serve as well.
CREATE FUNCTION patients_must_not_be_held(numbers nhs_number[], registers text[], all_registers text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ndrs_optout.hold) THEN
        RETURN;
    END IF;
    IF EXISTS (
        SELECT FROM ndrs_optout.hold h
            CROSS JOIN LATERAL (SELECT ndrs_optout.encode_nhs_number(n.number)
                                    FROM unnest(numbers) AS n (number) WHERE n.number IS NOT NULL) AS p (encoded)
            WHERE (h.register = ANY (all_registers)
                   OR h.encoded_nhs_number OPERATOR(ndrs_optout.=) p.encoded
                   OR EXISTS (SELECT FROM ndrs_optout.optout_case c
                              WHERE c.case_id = h.case_id AND c.registers && all_registers
                                  AND c.encoded_nhs_number OPERATOR(ndrs_optout.=) p.encoded))
                AND NOT EXISTS (SELECT FROM ndrs_optout.optout_case o
                                WHERE o.encoded_nhs_number OPERATOR(ndrs_optout.=) p.encoded
                                    AND o.registers @> patients_must_not_be_held.registers
                                    AND o.holds_overridden_at >= h.placed_at)) THEN
        PERFORM ndrs_optout.raise_error('ND022', 'cannot erase: a hold is on the patient, a case or a register',
            detail => 'Nothing was deleted.',
            hint => 'View ndrs_optout.hold_progress lists the holds.');
    END IF;
END
$$;
COMMENT ON FUNCTION patients_must_not_be_held(nhs_number[], text[], text[]) IS
    'internal: error ND022 when a hold keeps what is held about one of the patients';

-- To say what there is to hold: a purge may have taken it.
CREATE FUNCTION hold_added(hold_id bigint) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.hold;
    cases bigint[];
    documents bigint;
BEGIN
    SELECT * INTO STRICT this FROM ndrs_optout.hold h WHERE h.hold_id = hold_added.hold_id;
    SELECT coalesce(array_agg(c.case_id), '{}') INTO cases FROM ndrs_optout.optout_case c
        WHERE c.case_id = this.case_id OR this.register = ANY (c.registers)
            OR c.encoded_nhs_number OPERATOR(ndrs_optout.=) this.encoded_nhs_number;
    SELECT (SELECT count(*) FROM ndrs_optout.case_correspondence k WHERE k.case_id = ANY (cases))
           + (SELECT count(*) FROM ndrs_optout.identity_evidence e WHERE e.case_id = ANY (cases)) INTO documents;
    PERFORM ndrs_optout.audit('hold_placed', jsonb_strip_nulls(jsonb_build_object(
        'hold', this.hold_id, 'case', this.case_id, 'register', this.register, 'reason', this.reason)));
    PERFORM ndrs_optout.raise_notice(false, format('hold %s: cases: %s, documents: %s', this.hold_id,
                                                   cardinality(cases), documents));
    RETURN this.hold_id;
END
$$;
COMMENT ON FUNCTION hold_added(bigint) IS
    'internal: audits a hold and says how many cases and documents there are; returns its id';

CREATE FUNCTION place_hold(case_id bigint, reason text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, 'hold');
    result bigint;
BEGIN
    -- To tell what a purge has left.
    PERFORM ndrs_optout.require_read_committed();
    PERFORM ndrs_optout.checked_reason(reason);
    INSERT INTO ndrs_optout.hold AS h (case_id, reason)
        VALUES (this.case_id, reason) RETURNING h.hold_id INTO STRICT result;
    RETURN ndrs_optout.hold_added(result);
END
$$;
COMMENT ON FUNCTION place_hold(bigint, text) IS
    'holds a case, for a complaint, a court order or an inquiry: nothing that is held about its patient in its '
    'registers is erased, and neither its proofs nor its copy are destroyed, until lift_hold(). Returns the id of the '
    'hold; a notice tells how many documents there are; errors P0002, 22004, 22023 (the reason holds an NHS number), '
    '25000';

CREATE FUNCTION hold_patient(encoded encoded_nhs_number, reason text) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result bigint;
BEGIN
    PERFORM ndrs_optout.require_read_committed();
    INSERT INTO ndrs_optout.hold AS h (encoded_nhs_number, reason)
        VALUES (encoded, ndrs_optout.checked_reason(reason))
        RETURNING h.hold_id INTO STRICT result;
    RETURN ndrs_optout.hold_added(result);
END
$$;
COMMENT ON FUNCTION hold_patient(encoded_nhs_number, text) IS
    'internal: holds all that is held about a patient; errors 22004, 22023, 25000';

CREATE FUNCTION place_patient_hold(number nhs_number, reason text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.hold_patient(ndrs_optout.encode_nhs_number(ndrs_optout.checked_patient(number)), reason)
$$;
COMMENT ON FUNCTION place_patient_hold(nhs_number, text) IS
    'as place_hold(), for all that is held about a patient, with or without a case; it is kept by the encoded number; '
    'errors ND004, ND010, ND011, 22004, 22023, 25000';

CREATE FUNCTION place_register_hold(register text, reason text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    codes text[] := ndrs_optout.checked_registers(ARRAY[register]);
    result bigint;
BEGIN
    PERFORM ndrs_optout.require_read_committed();
    PERFORM ndrs_optout.checked_reason(reason);
    INSERT INTO ndrs_optout.hold AS h (register, reason)
        VALUES (codes[1], reason) RETURNING h.hold_id INTO STRICT result;
    RETURN ndrs_optout.hold_added(result);
END
$$;
COMMENT ON FUNCTION place_register_hold(text, text) IS
    'as place_hold(), for all patients of a register; errors 22004, 22023, 25000, 42704 (no such register)';

CREATE FUNCTION lift_hold(hold_id bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.hold;
BEGIN
    DELETE FROM ndrs_optout.hold h WHERE h.hold_id = lift_hold.hold_id RETURNING h.* INTO this;
    IF NOT FOUND THEN
        -- The id is not repeated: it may be a number that was put in the wrong place.
        PERFORM ndrs_optout.raise_error('P0002', 'there is no such hold',
            hint => 'View ndrs_optout.hold_progress lists the holds.');
    END IF;
    PERFORM ndrs_optout.audit('hold_lifted', jsonb_strip_nulls(jsonb_build_object(
        'hold', this.hold_id, 'case', this.case_id, 'register', this.register)));
END
$$;
COMMENT ON FUNCTION lift_hold(bigint) IS
    'ends a hold: what was held back can be carried out, and what is due goes with the next purge; error P0002';

-- In no duty: what a court wants kept, and is destroyed all the same, is for the owner of the
-- database to answer for.
CREATE FUNCTION override_holds(case_id bigint, reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, 'hold');
BEGIN
    PERFORM ndrs_optout.checked_reason(reason);
    IF ndrs_optout.case_hold(this) IS NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('case %s is not held', case_id));
    END IF;
    UPDATE ndrs_optout.optout_case c SET holds_overridden_at = clock_timestamp() WHERE c.case_id = this.case_id;
    PERFORM ndrs_optout.audit('holds_overridden', jsonb_build_object('case', this.case_id, 'reason', reason));
END
$$;
COMMENT ON FUNCTION override_holds(bigint, text) IS
    'lets a case go on in spite of the holds that are on it, its patient and its registers; one that is placed '
    'afterwards counts. For the owner of the extension; audited with the reason; errors P0002, ND021 (not held), '
    '22004, 22023';

CREATE VIEW hold_progress AS
    SELECT h.hold_id,
           CASE WHEN h.case_id IS NOT NULL THEN 'case' WHEN h.register IS NOT NULL THEN 'register' ELSE 'patient' END
               AS held,
           h.case_id, h.register, h.reason, h.placed_at
        FROM hold h
        ORDER BY h.hold_id;
COMMENT ON VIEW hold_progress IS
    'the holds that are in force: what each is on, since when and why; case_progress tells which cases are held';
