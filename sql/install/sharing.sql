-- sharing: may the patient's data be shared for a purpose?

CREATE FUNCTION share_decision(number encoded_nhs_number, purpose text, registers text[] DEFAULT NULL, recipient text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    wanted record;
    codes text[] := CASE WHEN registers IS NOT NULL THEN ndrs_optout.checked_registers(registers) END;
    asked record;
BEGIN
    SELECT * INTO wanted FROM ndrs_optout.purpose p WHERE p.code = purpose;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.refuse('42704', 'there is no such purpose', hint => 'Table ndrs_optout.purpose lists the purposes.');
    END IF;
    IF NOT wanted.permitted THEN
        RETURN 'purpose not permitted';
    END IF;
    IF number IS NULL THEN
        RETURN 'number missing';
    END IF;
    IF EXISTS (SELECT FROM ndrs_optout.exclusion e WHERE e.encoded_nhs_number OPERATOR(ndrs_optout.=) number
                   AND (codes IS NULL OR e.register = ANY (codes))) THEN
        RETURN 'excluded from register';
    END IF;
    IF NOT wanted.national_optout_applies OR EXISTS (
        SELECT FROM ndrs_optout.exemption e
            WHERE e.recipient = recipient AND e.purpose = purpose AND e.ended_at IS NULL
                AND (statement_timestamp() AT TIME ZONE 'UTC')::date BETWEEN e.valid_from AND coalesce(e.valid_to, 'infinity')) THEN
        RETURN 'eligible';
    END IF;
    SELECT c.expires_at, number OPERATOR(ndrs_optout.<@) c.allowed AS is_allowed INTO asked FROM ndrs_optout.national_check c
        WHERE c.loaded_at IS NOT NULL AND number OPERATOR(ndrs_optout.<@) c.asked
        ORDER BY c.loaded_at DESC, c.check_id DESC LIMIT 1;
    RETURN CASE WHEN NOT FOUND THEN 'not checked'
                WHEN asked.expires_at <= statement_timestamp() THEN 'check expired'
                WHEN asked.is_allowed THEN 'eligible'
                ELSE 'national opt-out' END;
END
$$;
COMMENT ON FUNCTION share_decision(encoded_nhs_number, text, text[], text) IS 'whether the data of the patient may be shared for a purpose';
