-- exclusion_list: who must never be registered again.

-- The library reads the columns of these tables by number: see exclusion_list.c.
CREATE TABLE register (
    code text COLLATE "C" PRIMARY KEY CHECK (pg_catalog.octet_length(code) BETWEEN 1 AND 63),
    name text NOT NULL,
    changed_at timestamptz  -- NULL: as shipped
);
COMMENT ON TABLE register IS 'the disease registers that a patient may opt out of; a site can add its own';
INSERT INTO register (code, name) VALUES
    ('cancer', 'National Cancer Register'),
    ('rare_disease', 'National Rare Disease Register'),
    ('congenital_anomaly', 'National Congenital Anomaly Register');
-- What a site added or changed; the rest comes with the extension.
SELECT pg_catalog.pg_extension_config_dump('register', 'WHERE changed_at IS NOT NULL');

CREATE TABLE exclusion (
    register           text COLLATE "C",
    encoded_nhs_number encoded_nhs_number,
    excluded_at        timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (register, encoded_nhs_number)
);
COMMENT ON TABLE exclusion IS
    'the exclusion list: who must never be registered again, by register and encoded NHS number';
SELECT pg_catalog.pg_extension_config_dump('exclusion', '');

CREATE TRIGGER invalidate_caches AFTER INSERT OR UPDATE OR DELETE ON register
    FOR EACH ROW EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches ON register IS 'backends read the exclusion list again';
CREATE TRIGGER invalidate_caches_truncate AFTER TRUNCATE ON register
    FOR EACH STATEMENT EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches_truncate ON register IS 'backends read the exclusion list again';
ALTER TABLE register ENABLE ALWAYS TRIGGER invalidate_caches;
ALTER TABLE register ENABLE ALWAYS TRIGGER invalidate_caches_truncate;

CREATE TRIGGER invalidate_caches AFTER INSERT OR UPDATE OR DELETE ON exclusion
    FOR EACH ROW EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches ON exclusion IS 'backends read the exclusion list again';
CREATE TRIGGER invalidate_caches_truncate AFTER TRUNCATE ON exclusion
    FOR EACH STATEMENT EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches_truncate ON exclusion IS 'backends read the exclusion list again';
ALTER TABLE exclusion ENABLE ALWAYS TRIGGER invalidate_caches;
ALTER TABLE exclusion ENABLE ALWAYS TRIGGER invalidate_caches_truncate;
CREATE TRIGGER site_row BEFORE INSERT OR UPDATE OR DELETE ON register
    FOR EACH ROW EXECUTE FUNCTION site_row_change('register', 'code');
COMMENT ON TRIGGER site_row ON register IS 'marks the site''s own registers, and audits their changes';
CREATE TRIGGER site_row_truncate BEFORE TRUNCATE ON register
    FOR EACH STATEMENT EXECUTE FUNCTION site_row_change('register', 'code');
COMMENT ON TRIGGER site_row_truncate ON register IS 'registers are deleted one by one';

-- Every change of the list is audited, by whatever way it came: how many patients, and
-- of which registers.
CREATE FUNCTION exclusion_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.audit_exclusions(TG_ARGV[0],
        (SELECT jsonb_object_agg(c.register, c.patients)
            FROM (SELECT t.register, count(*) AS patients FROM changed t GROUP BY t.register) AS c));
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION exclusion_change() IS
    'internal: trigger function ("added" or "removed"): audits how many rows of each register the statement has added '
    'or removed';
CREATE FUNCTION exclusion_truncation() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.audit_exclusions('removed',
        (SELECT jsonb_object_agg(c.register, c.patients)
            FROM (SELECT e.register, count(*) AS patients FROM ndrs_optout.exclusion e GROUP BY e.register) AS c));
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION exclusion_truncation() IS
    'internal: trigger function: audits how many rows of each register TRUNCATE removes';
CREATE FUNCTION exclusion_replicated() RETURNS trigger
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_replicated'
    LANGUAGE C;
COMMENT ON FUNCTION exclusion_replicated() IS
    'internal: trigger function: audits a row that a replication worker applies';

CREATE TRIGGER audit_added AFTER INSERT ON exclusion REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION exclusion_change('added');
COMMENT ON TRIGGER audit_added ON exclusion IS 'audits who was added: how many';
CREATE TRIGGER audit_removed AFTER DELETE ON exclusion REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION exclusion_change('removed');
COMMENT ON TRIGGER audit_removed ON exclusion IS 'audits who was removed: how many';
CREATE TRIGGER audit_updated_removed AFTER UPDATE ON exclusion REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION exclusion_change('removed');
COMMENT ON TRIGGER audit_updated_removed ON exclusion IS 'audits an UPDATE: the rows as they were';
CREATE TRIGGER audit_updated_added AFTER UPDATE ON exclusion REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION exclusion_change('added');
COMMENT ON TRIGGER audit_updated_added ON exclusion IS 'audits an UPDATE: the rows as they are';
CREATE TRIGGER audit_truncated BEFORE TRUNCATE ON exclusion
    FOR EACH STATEMENT EXECUTE FUNCTION exclusion_truncation();
COMMENT ON TRIGGER audit_truncated ON exclusion IS 'audits TRUNCATE';
CREATE TRIGGER replicated_added AFTER INSERT ON exclusion REFERENCING NEW TABLE AS changed
    FOR EACH ROW EXECUTE FUNCTION exclusion_replicated();
COMMENT ON TRIGGER replicated_added ON exclusion IS 'audits what a replication worker inserts';
CREATE TRIGGER replicated_removed AFTER DELETE ON exclusion REFERENCING OLD TABLE AS changed
    FOR EACH ROW EXECUTE FUNCTION exclusion_replicated();
COMMENT ON TRIGGER replicated_removed ON exclusion IS 'audits what a replication worker deletes';
CREATE TRIGGER replicated_updated AFTER UPDATE ON exclusion REFERENCING NEW TABLE AS changed
    FOR EACH ROW EXECUTE FUNCTION exclusion_replicated();
COMMENT ON TRIGGER replicated_updated ON exclusion IS 'audits what a replication worker updates';
ALTER TABLE exclusion
    ENABLE ALWAYS TRIGGER audit_added, ENABLE ALWAYS TRIGGER audit_removed,
    ENABLE ALWAYS TRIGGER audit_updated_removed, ENABLE ALWAYS TRIGGER audit_updated_added,
    ENABLE ALWAYS TRIGGER audit_truncated,
    ENABLE ALWAYS TRIGGER replicated_added, ENABLE ALWAYS TRIGGER replicated_removed,
    ENABLE ALWAYS TRIGGER replicated_updated;

-- The list of registers as it should have been given: known, distinct, sorted.
CREATE FUNCTION checked_registers(registers text[]) RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result text[];
BEGIN
    IF coalesce(cardinality(registers), 0) = 0 OR
        EXISTS (SELECT FROM unnest(registers) AS wanted (code) WHERE wanted.code IS NULL) THEN
        PERFORM ndrs_optout.raise_error('22023',
            'at least one register must be named',
            hint => 'For example ''{cancer}'' or ''{cancer,rare_disease}''.');
    END IF;
    -- The code is not repeated: it may be a number that was put in the wrong place.
    IF EXISTS (SELECT FROM unnest(registers) AS wanted (code)
               WHERE NOT EXISTS (SELECT FROM ndrs_optout.register r WHERE r.code = wanted.code)) THEN
        PERFORM ndrs_optout.raise_error('42704',
            'there is no such register',
            hint => 'Table ndrs_optout.register lists the registers.');
    END IF;
    SELECT array_agg(DISTINCT wanted.code COLLATE "C" ORDER BY wanted.code COLLATE "C") INTO result
        FROM unnest(registers) AS wanted (code);
    RETURN result;
END
$$;
COMMENT ON FUNCTION checked_registers(text[]) IS
    'internal: the register codes, sorted and without repetitions; error 42704 for one that does not exist, 22023 for '
    'none';

CREATE FUNCTION exclude(number nhs_number, registers text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO ndrs_optout.exclusion (register, encoded_nhs_number)
        SELECT code, ndrs_optout.encode_nhs_number(ndrs_optout.checked_patient(number))
            FROM unnest(ndrs_optout.checked_registers(registers)) AS code
        ON CONFLICT DO NOTHING;
END
$$;
COMMENT ON FUNCTION exclude(nhs_number, text[]) IS
    'puts a patient on the exclusion list of the given registers; nothing happens where the patient is on it; deletes '
    'nothing. Audited; errors ND004, ND010, ND011, 42704';

CREATE FUNCTION readmit(number nhs_number, registers text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM ndrs_optout.exclusion
        WHERE register = ANY (ndrs_optout.checked_registers(registers))
            AND encoded_nhs_number OPERATOR(ndrs_optout.=)
                ndrs_optout.encode_nhs_number(ndrs_optout.checked_patient(number));
END
$$;
COMMENT ON FUNCTION readmit(nhs_number, text[]) IS
    'takes a patient off the exclusion list of the given registers. Audited; errors ND004, ND010, ND011, 42704';

CREATE FUNCTION exclusion_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_support'
    LANGUAGE C STRICT;
COMMENT ON FUNCTION exclusion_support(internal) IS 'internal: planner support: few patients are excluded';

-- STABLE, although what is committed while a statement runs counts from the next call on:
-- a plan may keep an answer for the statement (Memoize), which is then as old as the
-- statement at most.  Who needs a newer one takes a lock and asks in a new statement.
-- VOLATILE would keep EXISTS from becoming a join, and subqueries from being merged.
CREATE FUNCTION is_excluded(number nhs_number, register text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_is_excluded'
    LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10 SUPPORT exclusion_support;
COMMENT ON FUNCTION is_excluded(nhs_number, text) IS
    'whether the patient is on the register''s exclusion list, as committed when the statement began or later; errors '
    'ND010, ND011, 42704';
CREATE FUNCTION is_excluded(number text, register text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_is_excluded_text'
    LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10 SUPPORT exclusion_support;
COMMENT ON FUNCTION is_excluded(text, text) IS
    'whether the patient is on the register''s exclusion list, as committed when the statement began or later; NULL '
    'when the text is not an NHS number; errors ND010, ND011, 42704';
CREATE FUNCTION is_excluded(number bigint, register text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_is_excluded_bigint'
    LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10 SUPPORT exclusion_support;
COMMENT ON FUNCTION is_excluded(bigint, text) IS
    'whether the patient is on the register''s exclusion list, as committed when the statement began or later; NULL '
    'when the integer is not an NHS number; errors ND010, ND011, 42704';

CREATE FUNCTION is_excluded(encoded encoded_nhs_number, register text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_is_excluded_encoded'
    LANGUAGE C STABLE STRICT PARALLEL SAFE SUPPORT exclusion_support;
COMMENT ON FUNCTION is_excluded(encoded_nhs_number, text) IS
    'whether the patient with this encoded NHS number is on the register''s exclusion list, as committed when the '
    'statement began or later: needs no HMAC; errors ND010, ND011, 42704';

-- The list of a register, for queries.
CREATE FUNCTION exclusion_list(register text) RETURNS encoded_set
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.checked_registers(ARRAY[exclusion_list.register]);
    RETURN (SELECT ndrs_optout.encoded_set_agg(e.encoded_nhs_number)
            FROM ndrs_optout.exclusion e WHERE e.register = exclusion_list.register);
END
$$;
COMMENT ON FUNCTION exclusion_list(text) IS
    'the exclusion list of a register as a set; in a WHERE clause, (SELECT exclusion_list(...)) computes it once '
    'instead of for each row; errors 22023, 42704';

-- All lists, with the key that they are encoded with: to carry them to another database
-- or past a restore.
CREATE FUNCTION export_exclusion_lists() RETURNS TABLE (register text, key_id text, members encoded_set)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.code, k.key_id, ndrs_optout.exclusion_list(r.code)
        FROM ndrs_optout.register r CROSS JOIN ndrs_optout.encoding_key k
        ORDER BY r.code
$$;
COMMENT ON FUNCTION export_exclusion_lists() IS
    'the exclusion list of each register as a set, with the id of the key that it is encoded with, for '
    'import_exclusion_list(); no row before a key is adopted';

-- With another key, each member would stand for another patient, or for none.
CREATE FUNCTION import_exclusion_list(register text, key_id text, members encoded_set) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    added bigint;
    adopted text;
BEGIN
    PERFORM ndrs_optout.checked_registers(ARRAY[register]);
    IF members IS NULL THEN
        PERFORM ndrs_optout.raise_error('22004', 'an encoded set is needed');
    END IF;
    -- What is none is not repeated: it may be a number that was put in the wrong place.
    IF (key_id ~ '^[0-9a-f]{8}$') IS NOT TRUE THEN
        PERFORM ndrs_optout.raise_error('22023', 'the id of a key has eight hexadecimal digits',
            hint => 'Column key_id of ndrs_optout.export_exclusion_lists() names the key of an exported list.');
    END IF;
    -- Also makes sure that the adopted key is the one that is loaded.
    -- The ten placeholders, as only the holder of the key can know them.
    IF EXISTS (SELECT FROM generate_series(0, 9) AS digit
               WHERE ndrs_optout.encode_nhs_number(repeat(digit::text, 10)::ndrs_optout.nhs_number)
                   OPERATOR(ndrs_optout.<@) members) THEN
        PERFORM ndrs_optout.raise_error('ND004',
            'a placeholder is not a patient''s NHS number',
            detail => 'The encoded set holds a number of ten equal digits, which stands for a missing number in many '
                      'patients'' records.');
    END IF;
    SELECT k.key_id INTO STRICT adopted FROM ndrs_optout.encoding_key k;
    IF key_id <> adopted THEN
        PERFORM ndrs_optout.raise_error('ND011', format('the exclusion list was encoded with key %s', key_id),
            detail => format('This database has adopted key %s.', adopted),
            hint => 'Import the list into a database that has adopted its key.');
    END IF;
    INSERT INTO ndrs_optout.exclusion (register, encoded_nhs_number)
        SELECT register, member FROM ndrs_optout.unnest(members) AS member
        ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS added = ROW_COUNT;
    RETURN added;
END
$$;
COMMENT ON FUNCTION import_exclusion_list(text, text, encoded_set) IS
    'puts the members of a set that export_exclusion_lists() returned, with its key, on the exclusion list of a '
    'register, and returns how many were not on it. Audited; errors 22004, 22023 (not the id of a key), 42704, ND004 '
    '(a placeholder is among them), ND010, ND011 (the set is of another key)';

CREATE FUNCTION register_names(registers text[]) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.english_list(array_agg('the ' || r.name ORDER BY w.position))
        FROM unnest(registers) WITH ORDINALITY AS w (code, position)
        JOIN ndrs_optout.register r ON r.code = w.code
$$;
COMMENT ON FUNCTION register_names(text[]) IS 'internal: the names of registers, as they are written in a letter';
