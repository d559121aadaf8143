-- hold: what must not be destroyed for now, for a complaint, a court or an inquiry.
--
-- A hold is on a case, a patient or a register.  While it is there, the exclusion may be
-- made, for nothing is destroyed by it; rows, proofs and copies stay.  A hold that is lifted is
-- gone, and the audit has both.

CREATE TABLE hold (
    hold_id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id            bigint,
    encoded_nhs_number encoded_nhs_number,
    register           text COLLATE "C",
    reason             text NOT NULL,
    placed_at          timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CHECK (pg_catalog.num_nonnulls(case_id, encoded_nhs_number, register) = 1)
);
COMMENT ON TABLE hold IS
    'holds that are in force: each on a case, on a patient, known by the encoded NHS number, or on a register, with '
    'its reason';
SELECT pg_catalog.pg_extension_config_dump('hold', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.hold', 'hold_id')::regclass, '');

-- Holds that were placed before the owner of the database overrode those of the case do not
-- count for it.
CREATE FUNCTION hold_reason(case_id bigint, encoded encoded_nhs_number, registers text[], overridden_at timestamptz)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(h.reason, '; ' ORDER BY h.hold_id) FROM ndrs_optout.hold h
        WHERE (h.case_id = hold_reason.case_id OR h.register = ANY (registers)
               OR h.encoded_nhs_number OPERATOR(ndrs_optout.=) encoded)
            AND (h.placed_at <= overridden_at) IS NOT TRUE
$$;
COMMENT ON FUNCTION hold_reason(bigint, encoded_nhs_number, text[], timestamptz) IS
    'internal: why a case is held, or its patient, or one of its registers; NULL when nothing is';

CREATE FUNCTION held_since(case_id bigint, encoded encoded_nhs_number, registers text[], overridden_at timestamptz)
RETURNS timestamptz
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT max(h.placed_at) FROM ndrs_optout.hold h
        WHERE (h.case_id = held_since.case_id OR h.register = ANY (registers)
               OR h.encoded_nhs_number OPERATOR(ndrs_optout.=) encoded)
            AND (h.placed_at <= overridden_at) IS NOT TRUE
$$;
COMMENT ON FUNCTION held_since(bigint, encoded_nhs_number, text[], timestamptz) IS
    'internal: when the latest hold of those was placed that hold_reason() tells; NULL when there is none';

-- Who places a hold waits for who may be destroying something, and the other way round: so
-- nothing is destroyed after place_hold() has returned.
CREATE FUNCTION lock_holds() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    LOCK TABLE ndrs_optout.hold IN SHARE MODE;
END
$$;
COMMENT ON FUNCTION lock_holds() IS 'internal: no hold is placed or lifted until the transaction ends';
