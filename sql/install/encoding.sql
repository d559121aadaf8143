-- encoding: encoded NHS numbers, and which key they are encoded with.

CREATE TYPE encoded_nhs_number;

CREATE FUNCTION encoded_nhs_number_in(cstring) RETURNS encoded_nhs_number
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_nhs_number_in'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION encoded_nhs_number_in(cstring) IS
    'internal: text input of encoded_nhs_number: 32 hexadecimal digits';
CREATE FUNCTION encoded_nhs_number_out(encoded_nhs_number) RETURNS cstring
    AS 'MODULE_PATHNAME', 'ndrs_optout_encoded_nhs_number_out'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION encoded_nhs_number_out(encoded_nhs_number) IS
    'internal: text output of encoded_nhs_number: 32 hexadecimal digits';
CREATE FUNCTION encoded_nhs_number_recv(internal) RETURNS encoded_nhs_number
    AS 'uuid_recv' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION encoded_nhs_number_recv(internal) IS 'internal: binary input of encoded_nhs_number: 16 bytes';
CREATE FUNCTION encoded_nhs_number_send(encoded_nhs_number) RETURNS bytea
    AS 'uuid_send' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION encoded_nhs_number_send(encoded_nhs_number) IS
    'internal: binary output of encoded_nhs_number: 16 bytes';

-- Sixteen bytes compared as bytes: uuid's representation, order and hash.
CREATE TYPE encoded_nhs_number (
    INPUT = encoded_nhs_number_in,
    OUTPUT = encoded_nhs_number_out,
    RECEIVE = encoded_nhs_number_recv,
    SEND = encoded_nhs_number_send,
    LIKE = pg_catalog.uuid
);
COMMENT ON TYPE encoded_nhs_number IS
    'encoded NHS number: the first 16 bytes of HMAC-SHA-256 of the ten digits with the key of ndrs_optout.key_file; '
    'written as 32 hexadecimal digits';

CREATE FUNCTION encoded_nhs_number_eq(encoded_nhs_number, encoded_nhs_number) RETURNS boolean
    AS 'uuid_eq' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION encoded_nhs_number_eq(encoded_nhs_number, encoded_nhs_number) IS
    'internal: implementation of = operator';
CREATE FUNCTION encoded_nhs_number_ne(encoded_nhs_number, encoded_nhs_number) RETURNS boolean
    AS 'uuid_ne' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION encoded_nhs_number_ne(encoded_nhs_number, encoded_nhs_number) IS
    'internal: implementation of <> operator';
CREATE FUNCTION encoded_nhs_number_lt(encoded_nhs_number, encoded_nhs_number) RETURNS boolean
    AS 'uuid_lt' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION encoded_nhs_number_lt(encoded_nhs_number, encoded_nhs_number) IS
    'internal: implementation of < operator';
CREATE FUNCTION encoded_nhs_number_le(encoded_nhs_number, encoded_nhs_number) RETURNS boolean
    AS 'uuid_le' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION encoded_nhs_number_le(encoded_nhs_number, encoded_nhs_number) IS
    'internal: implementation of <= operator';
CREATE FUNCTION encoded_nhs_number_ge(encoded_nhs_number, encoded_nhs_number) RETURNS boolean
    AS 'uuid_ge' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION encoded_nhs_number_ge(encoded_nhs_number, encoded_nhs_number) IS
    'internal: implementation of >= operator';
CREATE FUNCTION encoded_nhs_number_gt(encoded_nhs_number, encoded_nhs_number) RETURNS boolean
    AS 'uuid_gt' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION encoded_nhs_number_gt(encoded_nhs_number, encoded_nhs_number) IS
    'internal: implementation of > operator';
CREATE FUNCTION encoded_nhs_number_cmp(encoded_nhs_number, encoded_nhs_number) RETURNS integer
    AS 'uuid_cmp' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION encoded_nhs_number_cmp(encoded_nhs_number, encoded_nhs_number) IS
    'internal: less-equal-greater of two encoded NHS numbers';
CREATE FUNCTION encoded_nhs_number_sortsupport(internal) RETURNS void
    AS 'uuid_sortsupport' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION encoded_nhs_number_sortsupport(internal) IS 'internal: sort support of encoded_nhs_number';
CREATE FUNCTION encoded_nhs_number_hash(encoded_nhs_number) RETURNS integer
    AS 'uuid_hash' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION encoded_nhs_number_hash(encoded_nhs_number) IS 'internal: hash of an encoded NHS number';
CREATE FUNCTION encoded_nhs_number_hash_extended(encoded_nhs_number, bigint) RETURNS bigint
    AS 'uuid_hash_extended' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION encoded_nhs_number_hash_extended(encoded_nhs_number, bigint) IS
    'internal: hash of an encoded NHS number with a seed';

CREATE OPERATOR = (
    LEFTARG = encoded_nhs_number, RIGHTARG = encoded_nhs_number, FUNCTION = encoded_nhs_number_eq,
    COMMUTATOR = =, NEGATOR = <>, RESTRICT = eqsel, JOIN = eqjoinsel, HASHES, MERGES);
COMMENT ON OPERATOR = (encoded_nhs_number, encoded_nhs_number) IS 'equal';
CREATE OPERATOR <> (
    LEFTARG = encoded_nhs_number, RIGHTARG = encoded_nhs_number, FUNCTION = encoded_nhs_number_ne,
    COMMUTATOR = <>, NEGATOR = =, RESTRICT = neqsel, JOIN = neqjoinsel);
COMMENT ON OPERATOR <> (encoded_nhs_number, encoded_nhs_number) IS 'not equal';
CREATE OPERATOR < (
    LEFTARG = encoded_nhs_number, RIGHTARG = encoded_nhs_number, FUNCTION = encoded_nhs_number_lt,
    COMMUTATOR = >, NEGATOR = >=, RESTRICT = scalarltsel, JOIN = scalarltjoinsel);
COMMENT ON OPERATOR < (encoded_nhs_number, encoded_nhs_number) IS 'less than';
CREATE OPERATOR <= (
    LEFTARG = encoded_nhs_number, RIGHTARG = encoded_nhs_number, FUNCTION = encoded_nhs_number_le,
    COMMUTATOR = >=, NEGATOR = >, RESTRICT = scalarlesel, JOIN = scalarlejoinsel);
COMMENT ON OPERATOR <= (encoded_nhs_number, encoded_nhs_number) IS 'less than or equal';
CREATE OPERATOR >= (
    LEFTARG = encoded_nhs_number, RIGHTARG = encoded_nhs_number, FUNCTION = encoded_nhs_number_ge,
    COMMUTATOR = <=, NEGATOR = <, RESTRICT = scalargesel, JOIN = scalargejoinsel);
COMMENT ON OPERATOR >= (encoded_nhs_number, encoded_nhs_number) IS 'greater than or equal';
CREATE OPERATOR > (
    LEFTARG = encoded_nhs_number, RIGHTARG = encoded_nhs_number, FUNCTION = encoded_nhs_number_gt,
    COMMUTATOR = <, NEGATOR = <=, RESTRICT = scalargtsel, JOIN = scalargtjoinsel);
COMMENT ON OPERATOR > (encoded_nhs_number, encoded_nhs_number) IS 'greater than';

CREATE OPERATOR CLASS encoded_nhs_number_ops DEFAULT FOR TYPE encoded_nhs_number USING btree AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
    FUNCTION 1 encoded_nhs_number_cmp(encoded_nhs_number, encoded_nhs_number),
    FUNCTION 2 encoded_nhs_number_sortsupport(internal),
    FUNCTION 4 pg_catalog.btequalimage(oid);
COMMENT ON OPERATOR CLASS encoded_nhs_number_ops USING btree IS 'order of encoded NHS numbers: that of their bytes';
COMMENT ON OPERATOR FAMILY encoded_nhs_number_ops USING btree IS 'order of encoded NHS numbers';
CREATE OPERATOR CLASS encoded_nhs_number_hash_ops DEFAULT FOR TYPE encoded_nhs_number USING hash AS
    OPERATOR 1 =,
    FUNCTION 1 encoded_nhs_number_hash(encoded_nhs_number),
    FUNCTION 2 encoded_nhs_number_hash_extended(encoded_nhs_number, bigint);
COMMENT ON OPERATOR CLASS encoded_nhs_number_hash_ops USING hash IS 'hashing of encoded NHS numbers';
COMMENT ON OPERATOR FAMILY encoded_nhs_number_hash_ops USING hash IS 'hashing of encoded NHS numbers';

-- STABLE, not IMMUTABLE: it depends on the key file.
CREATE FUNCTION encode_nhs_number(number nhs_number) RETURNS encoded_nhs_number
    AS 'MODULE_PATHNAME', 'ndrs_optout_encode_nhs_number'
    LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10;
COMMENT ON FUNCTION encode_nhs_number(nhs_number) IS
    'the encoded NHS number; equals pgcrypto''s substring(hmac(digits, key, ''sha256'') for 16); errors ND010 (no '
    'key), ND011 (not the adopted key)';

CREATE FUNCTION key_fingerprint() RETURNS encoded_nhs_number
    AS 'MODULE_PATHNAME', 'ndrs_optout_key_fingerprint'
    LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION key_fingerprint() IS
    'fingerprint of the key in ndrs_optout.key_file, whether adopted or not; error ND010';

-- The library reads the columns by number: see encoding.c.
CREATE TABLE encoding_key (
    key_id      text PRIMARY KEY,
    fingerprint encoded_nhs_number NOT NULL,
    adopted_at  timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE encoding_key IS 'the key that this database adopted: its fingerprint, never the key; one row';
SELECT pg_catalog.pg_extension_config_dump('encoding_key', '');
CREATE UNIQUE INDEX encoding_key_only_one ON encoding_key ((true));

-- What a backend keeps of a table is dropped through this; see catalog.c.
CREATE FUNCTION invalidate_caches() RETURNS trigger
    AS 'MODULE_PATHNAME', 'ndrs_optout_invalidate_caches'
    LANGUAGE C;
COMMENT ON FUNCTION invalidate_caches() IS
    'internal: trigger function: makes every backend drop what it keeps of the table';

CREATE TRIGGER invalidate_caches AFTER INSERT OR UPDATE OR DELETE ON encoding_key
    FOR EACH ROW EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches ON encoding_key IS 'backends check their key again';
CREATE TRIGGER invalidate_caches_truncate AFTER TRUNCATE ON encoding_key
    FOR EACH STATEMENT EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches_truncate ON encoding_key IS 'backends check their key again';
ALTER TABLE encoding_key ENABLE ALWAYS TRIGGER invalidate_caches;
ALTER TABLE encoding_key ENABLE ALWAYS TRIGGER invalidate_caches_truncate;

-- Not for a row that a dump brings; adopt_key() audits the first of a new database.
CREATE FUNCTION encoding_key_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP IN ('INSERT', 'UPDATE') AND NOT ndrs_optout.being_restored() THEN
        PERFORM ndrs_optout.audit('key_adopted', jsonb_build_object('key', NEW.key_id));
    END IF;
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        PERFORM ndrs_optout.audit('key_removed', jsonb_build_object('key', OLD.key_id));
    ELSIF TG_OP = 'TRUNCATE' THEN
        PERFORM ndrs_optout.audit('key_removed', jsonb_build_object('key', k.key_id)) FROM ndrs_optout.encoding_key k;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION encoding_key_change() IS
    'internal: trigger function: audits a change of the adopted key, by its id';
CREATE TRIGGER audit_change AFTER INSERT OR UPDATE OR DELETE ON encoding_key
    FOR EACH ROW EXECUTE FUNCTION encoding_key_change();
COMMENT ON TRIGGER audit_change ON encoding_key IS 'audits which key is adopted or removed';
CREATE TRIGGER audit_change_truncate BEFORE TRUNCATE ON encoding_key
    FOR EACH STATEMENT EXECUTE FUNCTION encoding_key_change();
COMMENT ON TRIGGER audit_change_truncate ON encoding_key IS 'audits that the key is removed';
ALTER TABLE encoding_key ENABLE ALWAYS TRIGGER audit_change, ENABLE ALWAYS TRIGGER audit_change_truncate;

CREATE FUNCTION adopt_key() RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    loaded ndrs_optout.encoded_nhs_number := ndrs_optout.key_fingerprint();
    adopted ndrs_optout.encoding_key;
    first_event boolean := ndrs_optout.being_restored();
BEGIN
    INSERT INTO ndrs_optout.encoding_key (key_id, fingerprint)
        VALUES (left(loaded::text, 8), loaded)
        ON CONFLICT DO NOTHING;
    -- Otherwise the trigger does.
    IF FOUND AND first_event THEN
        PERFORM ndrs_optout.audit('key_adopted', jsonb_build_object('key', left(loaded::text, 8)));
    END IF;
    SELECT * INTO STRICT adopted FROM ndrs_optout.encoding_key;
    IF adopted.fingerprint OPERATOR(ndrs_optout.<>) loaded THEN
        PERFORM ndrs_optout.raise_error('ND011',
            'the key in the key file is not the one that this database adopted',
            detail => format('The adopted key has id %s.', adopted.key_id),
            hint => 'Set "ndrs_optout.key_file" to the file with the adopted key and reload the configuration. What '
                    'was encoded with it cannot be read with another.');
    END IF;
    RETURN adopted.key_id;
END
$$;
COMMENT ON FUNCTION adopt_key() IS
    'records the fingerprint of the key in ndrs_optout.key_file and returns the key''s id; from then on no other key '
    'is accepted. Audited; errors ND010 (no key), ND011 (another key was adopted)';
