-- correspondence: the confidential copy of a request, as ciphertext.
--
-- The public key of the Caldicott Guardian encrypts; the private key is never
-- here.  The newest key is used; older ones say what an older copy needs.

CREATE TABLE confidential_key (
    key_id     text PRIMARY KEY,
    public_key bytea NOT NULL,
    set_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
SELECT pg_catalog.pg_extension_config_dump('confidential_key', '');

CREATE TABLE case_correspondence (
    correspondence_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id           bigint NOT NULL,
    kind              text NOT NULL CHECK (kind IN ('form', 'email', 'letter')),
    received_on       date NOT NULL,
    key_id            text NOT NULL,
    content           bytea NOT NULL
);
CREATE INDEX case_correspondence_case_id ON case_correspondence (case_id);
SELECT pg_catalog.pg_extension_config_dump('case_correspondence', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('ndrs_optout.case_correspondence', 'correspondence_id')::regclass, '');

-- A function of another extension, in whatever schema that is.  A call by name would
-- find what others have put beside it, with types that fit better, and run that as the
-- owner of this extension.  So calls give exactly these types, and the function must be
-- a member of the extension and in C: who owns an extension can add functions to it,
-- but only a superuser can write one in C.
CREATE FUNCTION extension_function(extension name, function_name name, argument_types regtype[]) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result text;
BEGIN
    SELECT format('%I.%I', n.nspname, p.proname) INTO result
        FROM pg_extension e
        JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
            AND d.classid = 'pg_proc'::regclass
        JOIN pg_proc p ON p.oid = d.objid
        JOIN pg_language l ON l.oid = p.prolang
        JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE e.extname = extension AND p.proname = function_name AND l.lanname = 'c'
            AND array_to_string(p.proargtypes::oid[], ' ') = array_to_string(argument_types::oid[], ' ');
    IF NOT FOUND THEN
        PERFORM ndrs_optout.refuse('55000',
            format('function %s(%s) of extension "%s" was not found', function_name,
                   array_to_string(argument_types, ', '), extension),
            hint => format('Ask a superuser to reinstall extension "%s".', extension));
    END IF;
    RETURN result;
END
$$;

CREATE FUNCTION set_confidential_key(armored_public_key text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
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
        PERFORM ndrs_optout.refuse('22004', 'a public key is needed');
    END IF;
    -- Nothing of what was given is repeated: somebody may have taken the wrong file.
    BEGIN
        EXECUTE format('SELECT %s($1)', ndrs_optout.extension_function('pgcrypto', 'dearmor', '{text}'))
            INTO key USING armored_public_key;
        id := ndrs_optout.confidential_key_id(key);
        -- The tag of the first packet: 6 is a public key, and 5 a private one.  With a
        -- private subkey behind a public key, pgcrypto refuses to encrypt.
        first_byte := get_byte(key, 0);
        IF (CASE WHEN first_byte & 64 <> 0 THEN first_byte & 63 ELSE (first_byte >> 2) & 15 END) = 6 THEN
            EXECUTE format('SELECT %s($1, $2)',
                           ndrs_optout.extension_function('pgcrypto', 'pgp_pub_encrypt_bytea', '{bytea,bytea}'))
                INTO trial USING ''::bytea, key;
        END IF;
    EXCEPTION WHEN external_routine_invocation_exception OR data_exception THEN
        IF id IS NULL THEN
            PERFORM ndrs_optout.refuse('22023', 'this is not an armored PGP public key with an encryption key in it',
                hint => 'gpg --armor --export writes one. It needs an RSA or ElGamal subkey to encrypt with.');
        END IF;
    END;
    IF trial IS NULL THEN
        PERFORM ndrs_optout.refuse('22023', 'this is not a public key',
            detail => 'A private key must not come near the database.',
            hint => 'gpg --armor --export writes the public one.');
    END IF;
    -- After tag, length (in one byte or two), version, key id and algorithm, the trial
    -- says how long a number is that is as long as the key, or shorter by a few bits.
    place := CASE WHEN get_byte(trial, 1) < 192 THEN 12 ELSE 13 END;
    IF get_byte(trial, place) * 256 + get_byte(trial, place + 1) < 2048 - 64 THEN
        PERFORM ndrs_optout.refuse('22023', 'the key is too short',
            detail => 'It must have 2048 bits at least.');
    END IF;
    INSERT INTO ndrs_optout.confidential_key AS k (key_id, public_key) VALUES (id, key)
        ON CONFLICT ON CONSTRAINT confidential_key_pkey DO UPDATE SET public_key = key, set_at = clock_timestamp();
    PERFORM ndrs_optout.audit('confidential key set', jsonb_build_object('key', id));
    RETURN id;
END
$$;

CREATE FUNCTION current_confidential_key() RETURNS confidential_key
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT k FROM ndrs_optout.confidential_key k ORDER BY k.set_at DESC LIMIT 1
$$;

CREATE FUNCTION confidential(content bytea) RETURNS bytea
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key bytea := (ndrs_optout.current_confidential_key()).public_key;
    result bytea;
BEGIN
    IF content IS NULL THEN
        RETURN NULL;
    END IF;
    IF content = '' THEN
        PERFORM ndrs_optout.refuse('22023', 'the content is empty');
    END IF;
    IF key IS NULL THEN
        PERFORM ndrs_optout.refuse('55000', 'there is no confidential key',
            detail => 'Content is never stored in clear.',
            hint => 'The database''s administrator sets the Caldicott Guardian''s public key with ndrs_optout.set_confidential_key(). Until then leave the content out.');
    END IF;
    EXECUTE format('SELECT %s($1, $2, $3)',
                   ndrs_optout.extension_function('pgcrypto', 'pgp_pub_encrypt_bytea', '{bytea,bytea,text}'))
        INTO result USING content, key, 'cipher-algo=aes256, compress-algo=1'::text;
    RETURN result;
END
$$;

-- By what it says itself: another key may have been set meanwhile.
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

CREATE FUNCTION record_correspondence(case_id bigint, kind text, content bytea, received_on date DEFAULT current_date)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, 'record correspondence');
    result bigint;
BEGIN
    IF kind IS NULL OR kind NOT IN ('form', 'email', 'letter') THEN
        PERFORM ndrs_optout.refuse('22023', 'kind must be "form", "email" or "letter"',
            hint => 'Proofs of identity go to ndrs_optout.record_identity().');
    END IF;
    IF content IS NULL THEN
        PERFORM ndrs_optout.refuse('22004', 'correspondence needs its content');
    END IF;
    PERFORM ndrs_optout.checked_receipt(received_on, 'it');
    INSERT INTO ndrs_optout.case_correspondence (case_id, kind, received_on, key_id, content)
        SELECT this.case_id, kind, received_on, ndrs_optout.confidential_key_id(c), c
            FROM ndrs_optout.confidential(content) AS c
        RETURNING correspondence_id INTO STRICT result;
    PERFORM ndrs_optout.audit('correspondence recorded', jsonb_build_object('case', this.case_id, 'kind', kind));
    RETURN result;
END
$$;

COMMENT ON TABLE confidential_key IS 'public keys that confidential copies are encrypted for, the newest first in use; the private keys are not here';
COMMENT ON TABLE case_correspondence IS 'the confidential copy of a request: form, e-mails and letters as PGP ciphertext, never the proofs; purged when the policy''s years are over';
COMMENT ON FUNCTION extension_function(name, name, regtype[]) IS
    'the quoted name, with its schema, of a C function with exactly these argument types that is a member of the extension; error 55000 when there is none. For calls of other extensions, which a function planted beside theirs must not take';
COMMENT ON FUNCTION set_confidential_key(text) IS
    'sets the public key that content is encrypted for from now on, an armored PGP key (RSA or ElGamal), and returns its id; errors 22004, 22023 (no public key, or a short one)';
COMMENT ON FUNCTION current_confidential_key() IS 'the key that content is encrypted for';
COMMENT ON FUNCTION confidential(bytea) IS 'content as PGP ciphertext for the confidential key; errors 22023 (empty), 55000 (no key)';
COMMENT ON FUNCTION confidential_key_id(bytea) IS 'the id of the key that opens a ciphertext, or of a public key';
COMMENT ON FUNCTION record_correspondence(bigint, text, bytea, date) IS
    'keeps a form, email or letter of a case, as ciphertext for the confidential key, and returns its id; errors P0002, ND021, 22004, 22023, 55000 (no confidential key)';
