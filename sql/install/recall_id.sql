-- recall_id: the id under which a recipient knows a patient, and how it is sealed.
--
-- Only when a case is carried out are the patient's number and, in files, the recipient's
-- salts at hand.  The id is sealed then, with the recipient's public key, and kept with the
-- recall notice: a file can be written at any time, and only the recipient can open what is kept
-- here.  Encryption is randomised, so guessing a number and sealing it proves nothing.

-- A salt from the directory of setting ndrs_optout.salt_directory; NULL if there is none, or it
-- cannot be used.
CREATE FUNCTION salt_from_file(name text) RETURNS text
    AS 'MODULE_PATHNAME', 'ndrs_optout_salt_from_file'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION salt_from_file(text) IS
    'internal: what file NAME.salt of setting ndrs_optout.salt_directory holds; NULL when it cannot be used, for which '
    'salt_file_fault() gives the cause';

CREATE FUNCTION salt_file_fault(name text) RETURNS text
    AS 'MODULE_PATHNAME', 'ndrs_optout_salt_file_fault'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION salt_file_fault(text) IS
    'internal: why file NAME.salt of setting ndrs_optout.salt_directory cannot be used; NULL when it can';

-- The id under which a recipient knows a patient.
CREATE FUNCTION recipient_id(this recipient, number nhs_number, salt text, release_salt text, fields jsonb) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF this.id_scheme <> 'nhs_number' AND salt IS NULL
        OR this.id_scheme = 'release_pseudo_id' AND release_salt IS NULL THEN
        PERFORM ndrs_optout.raise_error('22004', format('the ids of recipient "%s" need a salt', this.recipient),
            detail => format('It is kept here: %s.', this.salt_reference),
            hint => CASE this.id_scheme
                WHEN 'release_pseudo_id' THEN 'Give the salt of the pseudo-ids, and that of the release as '
                                              'release_salt.' END);
    END IF;
    RETURN CASE this.id_scheme
        WHEN 'nhs_number' THEN ndrs_optout.nhs_number_format(number)
        WHEN 'ndrs_pseudo_id' THEN ndrs_optout.ndrs_pseudo_id(number, salt)
        WHEN 'release_pseudo_id' THEN ndrs_optout.release_pseudo_id(ndrs_optout.ndrs_pseudo_id(number, salt),
                                                                    release_salt)
        ELSE ndrs_optout.openpseudonymiser_digest(number, salt, fields)
    END;
END
$$;
COMMENT ON FUNCTION recipient_id(recipient, nhs_number, text, text, jsonb) IS
    'internal: the id under which a recipient knows a patient; errors 22004 (a salt is missing), 22023';


-- Where a salt is not given, its file is read: RECIPIENT.salt, and RECIPIENT-RELEASE.salt for
-- that of a release.  No recipient's code has a hyphen.
CREATE FUNCTION sealed_recipient_id(this recipient, release_id bigint, number nhs_number, salt text DEFAULT NULL,
    release_salt text DEFAULT NULL, fields jsonb DEFAULT '{}')
RETURNS bytea
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    its_salt text := coalesce(salt, CASE WHEN this.id_scheme <> 'nhs_number'
        THEN ndrs_optout.salt_from_file(this.recipient) END);
    its_release_salt text := coalesce(release_salt, CASE WHEN this.id_scheme = 'release_pseudo_id'
        THEN ndrs_optout.salt_from_file(format('%s-%s', this.recipient, release_id)) END);
BEGIN
    IF this.public_key IS NULL
        OR this.id_scheme <> 'nhs_number' AND its_salt IS NULL
        OR this.id_scheme = 'release_pseudo_id' AND its_release_salt IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN ndrs_optout.sealed(convert_to(
        ndrs_optout.recipient_id(this, number, its_salt, its_release_salt, fields), 'UTF8'), this.public_key);
END
$$;
COMMENT ON FUNCTION sealed_recipient_id(recipient, bigint, nhs_number, text, text, jsonb) IS
    'internal: the id under which a recipient knows a patient, sealed with its public key; NULL when it has no key, '
    'or a salt is neither given nor in its file';

CREATE FUNCTION set_recipient_key(recipient text, armored_public_key text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key bytea := ndrs_optout.checked_public_key(armored_public_key);
    id text := ndrs_optout.confidential_key_id(key);
BEGIN
    UPDATE ndrs_optout.recipient r SET public_key = key WHERE r.recipient = set_recipient_key.recipient;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.checked_recipient(recipient);
    END IF;
    PERFORM ndrs_optout.audit('recipient_key_set', jsonb_build_object('recipient', recipient, 'key', id));
    RETURN id;
END
$$;
COMMENT ON FUNCTION set_recipient_key(text, text) IS
    'sets the public key of a recipient, an armored PGP key (RSA or ElGamal), and returns its id. From then on '
    'patients are named to the recipient in recall files, by its own ids, sealed with this key; their salts are read '
    'from files in ndrs_optout.salt_directory when a case is carried out. What was sealed with an earlier key stays '
    'so; errors 22004, 22023 (no public key, or a short one), 42704 (no such recipient)';
