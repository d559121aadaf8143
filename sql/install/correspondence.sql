-- correspondence: the confidential copy of a request, as ciphertext.
--
-- The public key of the Caldicott Guardian encrypts; the private key is never
-- here.  The newest key is used; older ones say what an older copy needs.

CREATE TABLE case_correspondence (
    correspondence_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id           bigint NOT NULL,
    kind              correspondence NOT NULL,
    received_on       date NOT NULL,
    kept_until        date,  -- of what came after the case had ended; else NULL: the case's copy_until
    key_id            text NOT NULL,
    content           bytea NOT NULL
);
COMMENT ON TABLE case_correspondence IS
    'the confidential copy of a request: form, e-mails and letters as PGP ciphertext, never the proofs; purged when '
    'the policy''s years are over';
CREATE INDEX case_correspondence_case_id ON case_correspondence (case_id);
SELECT pg_catalog.pg_extension_config_dump('case_correspondence', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.case_correspondence', 'correspondence_id')::regclass, '');

CREATE FUNCTION record_correspondence(case_id bigint, kind text, content bytea, received_on date DEFAULT today())
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, 'record_correspondence');
    result bigint;
BEGIN
    PERFORM ndrs_optout.checked_word(kind, 'correspondence', 'kind',
        hint => 'Proofs of identity go to ndrs_optout.record_identity().');
    IF content IS NULL THEN
        PERFORM ndrs_optout.raise_error('22004', 'correspondence needs its content');
    END IF;
    PERFORM ndrs_optout.checked_receipt(received_on, 'it');
    INSERT INTO ndrs_optout.case_correspondence (case_id, kind, received_on, kept_until, key_id, content)
        SELECT this.case_id, kind, received_on,
               CASE WHEN ndrs_optout.copy_until() > this.copy_until THEN ndrs_optout.copy_until() END,
               ndrs_optout.confidential_key_id(c), c
            FROM ndrs_optout.confidential(content) AS c
        RETURNING correspondence_id INTO STRICT result;
    PERFORM ndrs_optout.audit('correspondence_recorded', jsonb_build_object('case', this.case_id, 'kind', kind));
    RETURN result;
END
$$;
COMMENT ON FUNCTION record_correspondence(bigint, text, bytea, date) IS
    'keeps a form, email or letter of a case, as ciphertext for the confidential key, and returns its id. One of a '
    'case that ended is kept for the policy''s years from now; errors P0002, ND021, 22004, 22023, 55000 (no '
    'confidential key)';
