-- recipient: the organisations that patients' data may be shared with.
-- The salt of a recipient's ids is never here, only where it is kept.
CREATE TABLE recipient (
    recipient      text COLLATE "C" PRIMARY KEY CHECK (recipient ~ '^[a-z][a-z0-9_]{0,62}$'),
    name           text NOT NULL,
    contact        text,
    kind           recipient_kind NOT NULL DEFAULT 'other',
    id_scheme      id_scheme NOT NULL,
    salt_reference text CHECK (salt_reference IS NOT NULL OR id_scheme = 'nhs_number'),
    public_key     bytea,  -- what patients are named to it with, sealed
    added_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE recipient IS
    'organisations that data is released to, and under which ids they know patients: nhs_number, ndrs_pseudo_id, '
    'release_pseudo_id or openpseudonymiser. kind: a care_provider is never told that a patient opted out. '
    'salt_reference says where the salt of the ids is kept; the salt itself '
    'is not here. public_key: the recipient''s PGP key, for the ids in its recall files';
SELECT pg_catalog.pg_extension_config_dump('recipient', '');

-- What is said of a recipient.
CREATE FUNCTION check_recipient(name text, id_scheme text, salt_reference text, contact text, kind text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.checked_reason(name, 'name');
    IF contact IS NOT NULL THEN
        PERFORM ndrs_optout.checked_reason(contact, 'contact');
    END IF;
    PERFORM ndrs_optout.checked_word(kind, 'recipient_kind', 'kind');
    PERFORM ndrs_optout.checked_word(id_scheme, 'id_scheme', 'id_scheme');
    IF id_scheme <> 'nhs_number' OR salt_reference IS NOT NULL THEN
        PERFORM ndrs_optout.checked_reason(salt_reference, 'salt reference');
        IF salt_reference ~ '[0-9A-Fa-f]{32}' THEN
            PERFORM ndrs_optout.raise_error('22023', 'the salt itself must not be stored',
                hint => 'Say where it is kept.');
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION check_recipient(text, text, text, text, text) IS
    'internal: errors 22004 and 22023 unless a recipient can have these properties';

CREATE FUNCTION add_recipient(recipient text, name text, id_scheme text, salt_reference text DEFAULT NULL,
    contact text DEFAULT NULL, kind text DEFAULT 'other')
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (recipient ~ '^[a-z][a-z0-9_]{0,62}$') IS NOT TRUE THEN
        PERFORM ndrs_optout.raise_error('22023', 'the code of a recipient must have up to 63 lower-case letters, '
                                                 'digits and underscores, the first a letter');
    END IF;
    PERFORM ndrs_optout.checked_reason(recipient, 'code');
    PERFORM ndrs_optout.check_recipient(name, id_scheme, salt_reference, contact, kind);
    INSERT INTO ndrs_optout.recipient (recipient, name, contact, kind, id_scheme, salt_reference)
        VALUES (recipient, name, contact, kind, id_scheme, salt_reference)
        ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('23505', format('recipient "%s" already exists', recipient));
    END IF;
    PERFORM ndrs_optout.audit('recipient_added', jsonb_build_object('recipient', recipient, 'name', name,
                                                                    'kind', kind, 'id_scheme', id_scheme));
END
$$;
COMMENT ON FUNCTION add_recipient(text, text, text, text, text, text) IS
    'adds an organisation that data is released to. kind: care_provider, which is never told that a patient opted out, '
    'or other. id_scheme says under which id it knows a patient: nhs_number, '
    'ndrs_pseudo_id, release_pseudo_id or openpseudonymiser; salt_reference, where the salt of these ids is kept, '
    'never the salt; errors 22004, 22023, 23505 (the recipient exists)';

-- Until the end of the transaction the recipient is not removed.
CREATE FUNCTION checked_recipient(recipient text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM ndrs_optout.recipient r WHERE r.recipient = checked_recipient.recipient FOR KEY SHARE;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('42704', 'there is no such recipient',
            hint => 'Table ndrs_optout.recipient lists them; ndrs_optout.add_recipient() adds one.');
    END IF;
    RETURN recipient;
END
$$;
COMMENT ON FUNCTION checked_recipient(text) IS
    'internal: the recipient''s code itself, locked against removal; error 42704 when there is none';
