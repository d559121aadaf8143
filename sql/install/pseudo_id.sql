-- pseudo_id: the ids under which recipients know patients.
--
-- Hashes with a salt.  A reader who has the salt can undo them by trying all
-- numbers, so no protection of ours rests on them.  A salt is given to each call
-- and never stored.

CREATE FUNCTION checked_salt(salt text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF coalesce(btrim(salt), '') = '' THEN
        PERFORM ndrs_optout.raise_error('22004', 'a salt is needed',
            hint => 'Without one, anyone can compute the ids of all patients.');
    END IF;
    RETURN salt;
END
$$;
COMMENT ON FUNCTION checked_salt(text) IS 'internal: the salt itself; error 22004 when there is none';

CREATE FUNCTION ndrs_pseudo_id(number nhs_number, salt text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT encode(sha256(convert_to('nhsnumber_' || ndrs_optout.checked_patient(number)::text
                                    || ndrs_optout.checked_salt(salt),
                                    'UTF8')), 'hex')
$$;
COMMENT ON FUNCTION ndrs_pseudo_id(nhs_number, text) IS
    'NDRS''s pseudo-id of a patient: SHA-256 of nhsnumber_, the ten digits and the salt, as 64 hexadecimal digits; '
    'errors ND004, 22004';

CREATE FUNCTION release_pseudo_id(pseudo_id text, salt text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (pseudo_id ~ '^[0-9a-f]{64}$') IS NOT TRUE THEN
        PERFORM ndrs_optout.raise_error('22023', 'this is not a pseudo-id',
            detail => 'A pseudo-id has 64 hexadecimal digits in lower case, as ndrs_pseudo_id() returns them.');
    END IF;
    RETURN left(encode(sha256(convert_to('pseudoid_' || pseudo_id || ndrs_optout.checked_salt(salt), 'UTF8')), 'hex'),
                16);
END
$$;
COMMENT ON FUNCTION release_pseudo_id(text, text) IS
    'the id of a patient in one release, from the pseudo-id: SHA-256 of pseudoid_, the pseudo-id and the release''s '
    'salt, its first 16 hexadecimal digits; errors 22004, 22023 (not a pseudo-id)';

-- The values in the order of their fields' names, which is that of .NET: capitals
-- count as small letters.
CREATE FUNCTION openpseudonymiser_digest(number nhs_number, salt text, fields jsonb DEFAULT '{}') RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    digits text := ndrs_optout.checked_patient(number)::text;
    joined text;
BEGIN
    IF (jsonb_typeof(fields) = 'object') IS NOT TRUE
        OR EXISTS (SELECT FROM jsonb_each(fields) AS f
                   WHERE lower(f.key) = 'nhsnumber' OR jsonb_typeof(f.value) <> 'string') THEN
        PERFORM ndrs_optout.raise_error('22023', 'the other fields must be an object of texts, without "NHSNumber"',
            hint => 'For example ''{"DOB": "29.11.1973"}''.');
    END IF;
    SELECT string_agg(f.value, '' ORDER BY lower(f.key COLLATE "C"), f.key COLLATE "C" DESC) INTO joined
        FROM jsonb_each_text(fields || jsonb_build_object('NHSNumber', digits)) AS f;
    RETURN upper(encode(sha256(convert_to(translate(joined, E' \t\r\n', '') || btrim(ndrs_optout.checked_salt(salt)),
                                          'UTF8')), 'hex'));
END
$$;
COMMENT ON FUNCTION openpseudonymiser_digest(nhs_number, text, jsonb) IS
    'OpenPseudonymiser''s digest of a patient: SHA-256 of the values of all fields in the order of their names, '
    'without blanks, and the salt, as 64 hexadecimal digits in capitals. fields: the others besides NHSNumber, for '
    'example {"DOB": "29.11.1973"}; errors ND004, 22004, 22023';
