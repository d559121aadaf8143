-- confidential: the key to which the confidential copies of requests are encrypted.
CREATE TABLE confidential_key (
    key_id     text PRIMARY KEY,
    public_key bytea NOT NULL,
    set_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE confidential_key IS
    'public keys that confidential copies are encrypted for, the newest first in use; the private keys are not here';
SELECT pg_catalog.pg_extension_config_dump('confidential_key', '');

-- Nothing of what was given is repeated: the caller may have taken the wrong file.
CREATE FUNCTION checked_public_key(armored_public_key text) RETURNS bytea
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key bytea;
    id text;
    first_byte integer;
    trial bytea;
    place integer;
BEGIN
    IF armored_public_key IS NULL THEN
        PERFORM ndrs_optout.raise_error('22004', 'a public key is needed');
    END IF;
    BEGIN
        EXECUTE format('SELECT %s($1)', ndrs_optout.extension_function('pgcrypto', 'dearmor', '{text}'))
            INTO key USING armored_public_key;
        id := ndrs_optout.confidential_key_id(key);
        -- The tag of the first packet: 6 is a public key, and 5 a private one.  With a
        -- private subkey behind a public key, pgcrypto refuses to encrypt.
        first_byte := get_byte(key, 0);
        IF (CASE WHEN first_byte & 64 <> 0 THEN first_byte & 63 ELSE (first_byte >> 2) & 15 END) = 6 THEN
            trial := ndrs_optout.sealed('', key);
        END IF;
    EXCEPTION WHEN external_routine_invocation_exception OR data_exception THEN
        IF id IS NULL THEN
            PERFORM ndrs_optout.raise_error('22023',
                                            'this is not an armored PGP public key with an encryption key in it',
                hint => 'gpg --armor --export writes one. It needs an RSA or ElGamal subkey to encrypt with.');
        END IF;
    END;
    IF trial IS NULL THEN
        PERFORM ndrs_optout.raise_error('22023', 'this is not a public key',
            detail => 'A private key must not come near the database.',
            hint => 'gpg --armor --export writes the public one.');
    END IF;
    -- After tag, length (in one byte or two), version, key id and algorithm, the trial
    -- says how long a number is that is as long as the key, or shorter by a few bits.
    place := CASE WHEN get_byte(trial, 1) < 192 THEN 12 ELSE 13 END;
    IF get_byte(trial, place) * 256 + get_byte(trial, place + 1) < 2048 - 64 THEN
        PERFORM ndrs_optout.raise_error('22023', 'the key is too short',
            detail => 'It must have 2048 bits at least.');
    END IF;
    RETURN key;
END
$$;
COMMENT ON FUNCTION checked_public_key(text) IS
    'internal: an armored PGP public key (RSA or ElGamal), as pgcrypto takes it; errors 22004, 22023 (no public key, '
    'or a short one)';

CREATE FUNCTION sealed(content bytea, public_key bytea) RETURNS bytea
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result bytea;
BEGIN
    EXECUTE format('SELECT %s($1, $2, $3)',
                   ndrs_optout.extension_function('pgcrypto', 'pgp_pub_encrypt_bytea', '{bytea,bytea,text}'))
        INTO result USING content, public_key, 'cipher-algo=aes256, compress-algo=1'::text;
    RETURN result;
END
$$;
COMMENT ON FUNCTION sealed(bytea, bytea) IS
    'internal: content as PGP ciphertext, which only the holder of the private key can open';

CREATE FUNCTION set_confidential_key(armored_public_key text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key bytea := ndrs_optout.checked_public_key(armored_public_key);
    id text := ndrs_optout.confidential_key_id(key);
BEGIN
    INSERT INTO ndrs_optout.confidential_key AS k (key_id, public_key) VALUES (id, key)
        ON CONFLICT ON CONSTRAINT confidential_key_pkey DO UPDATE SET public_key = key, set_at = clock_timestamp();
    PERFORM ndrs_optout.audit('confidential_key_set', jsonb_build_object('key', id));
    RETURN id;
END
$$;
COMMENT ON FUNCTION set_confidential_key(text) IS
    'sets the public key that content is encrypted for from now on, an armored PGP key (RSA or ElGamal), and returns '
    'its id; errors 22004, 22023 (no public key, or a short one)';

CREATE FUNCTION current_confidential_key() RETURNS confidential_key
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT k FROM ndrs_optout.confidential_key k ORDER BY k.set_at DESC LIMIT 1
$$;
COMMENT ON FUNCTION current_confidential_key() IS 'internal: the key that content is encrypted for';

CREATE FUNCTION confidential(content bytea) RETURNS bytea
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key bytea := (ndrs_optout.current_confidential_key()).public_key;
BEGIN
    IF content IS NULL THEN
        RETURN NULL;
    END IF;
    IF content = '' THEN
        PERFORM ndrs_optout.raise_error('22023', 'the content is empty');
    END IF;
    IF key IS NULL THEN
        PERFORM ndrs_optout.raise_error('55000', 'there is no confidential key',
            detail => 'Content is never stored in clear.',
            hint => 'The database''s administrator sets the Caldicott Guardian''s public key with '
                    'ndrs_optout.set_confidential_key(). Until then leave the content out.');
    END IF;
    RETURN ndrs_optout.sealed(content, key);
END
$$;
COMMENT ON FUNCTION confidential(bytea) IS
    'internal: content as PGP ciphertext for the confidential key; errors 22023 (empty), 55000 (no key)';

-- By what it says itself: another key may have been set since.
CREATE FUNCTION confidential_key_id(ciphertext bytea) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SELECT %s($1)', ndrs_optout.extension_function('pgcrypto', 'pgp_key_id', '{bytea}'))
        INTO STRICT result USING ciphertext;
    RETURN result;
END
$$;
COMMENT ON FUNCTION confidential_key_id(bytea) IS 'the id of the key that opens a ciphertext, or of a public key';
