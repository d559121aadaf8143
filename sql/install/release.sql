-- release: what data was given to whom, with the set of patients that it held.

-- patients goes some time after the recipient has destroyed the data, or the release was retracted; see
-- retention_schedule.
CREATE TABLE release (
    release_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recipient     text COLLATE "C" NOT NULL,
    purpose       text NOT NULL,
    legal_basis   text,
    registers     text[] NOT NULL,
    released_on   date NOT NULL,
    reference     text NOT NULL,
    patients      encoded_set,
    patient_count bigint NOT NULL,
    recorded_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    destroyed_on  date,
    retracted_at  timestamptz,  -- the data was never given
    CHECK (patients IS NOT NULL OR destroyed_on IS NOT NULL OR retracted_at IS NOT NULL)
);
COMMENT ON TABLE release IS
    'releases of data to recipients, each with the set of the patients that it held; the set is purged some years '
    'after the recipient has destroyed the data';
SELECT pg_catalog.pg_extension_config_dump('release', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.release', 'release_id')::regclass, '');

-- Refuses a set of patients unless each of them may be in this release now.
CREATE FUNCTION release_check(patients encoded_set, purpose text, registers text[], recipient text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    refused bigint;
    reasons text;
BEGIN
    SELECT sum(d.patients), string_agg(format('%s: %s', d.decision, d.patients), ', ' ORDER BY d.decision) INTO refused,
        reasons
        FROM (SELECT ndrs_optout.share_decision(member, purpose, registers, recipient) AS decision, count(*) AS patients
                  FROM ndrs_optout.unnest(release_check.patients) AS member
                  GROUP BY 1) AS d
        WHERE d.decision IS DISTINCT FROM 'eligible';
    IF refused > 0 THEN
        PERFORM ndrs_optout.raise_error('ND041',
            format('%s of %s patients must not be in this release', refused, ndrs_optout.cardinality(patients)),
            detail => format('By reason: %s.', reasons),
            hint => 'Nothing was recorded. Leave them out of the data, and record the release of the others before it '
                    'is sent.');
    END IF;
END
$$;
COMMENT ON FUNCTION release_check(encoded_set, text, text[], text) IS
    'internal: error ND041 unless every member may be released to the recipient for the purpose now';

-- The lock comes before the decision.  An opt-out that is carried out at the same
-- time waits for the transaction that holds the lock, after its exclusion is
-- committed and before it looks for releases; a transaction that locks later
-- decides with the new list.  So no patient is in a release that was not found.
CREATE FUNCTION record_release(patients encoded_set, purpose text, registers text[], recipient text,
    released_on date, reference text, legal_basis text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    codes text[];
    result bigint;
BEGIN
    LOCK TABLE ndrs_optout.release IN ROW EXCLUSIVE MODE;
    PERFORM ndrs_optout.checked_recipient(recipient);
    PERFORM ndrs_optout.checked_day(released_on, 'the data is released');
    PERFORM ndrs_optout.checked_reason(reference, 'reference');
    IF legal_basis IS NOT NULL THEN
        PERFORM ndrs_optout.checked_reason(legal_basis, 'legal basis');
    END IF;
    codes := ndrs_optout.checked_registers(coalesce(registers, ARRAY(SELECT r.code FROM ndrs_optout.register r)));
    IF coalesce(ndrs_optout.cardinality(patients), 0) = 0 THEN
        PERFORM ndrs_optout.raise_error('22004', 'a release needs its patients',
            hint => 'Data that is about no particular patient is no release.');
    END IF;
    PERFORM ndrs_optout.release_check(patients, purpose, codes, recipient);
    INSERT INTO ndrs_optout.release (recipient, purpose, legal_basis, registers, released_on, reference, patients,
                                     patient_count)
        VALUES (recipient, purpose, legal_basis, codes, released_on, reference, patients,
                ndrs_optout.cardinality(patients))
        RETURNING release_id INTO STRICT result;
    PERFORM ndrs_optout.audit('release_recorded', jsonb_build_object('release', result, 'recipient', recipient,
        'purpose', purpose, 'registers', codes, 'patients', ndrs_optout.cardinality(patients)));
    RETURN result;
END
$$;
COMMENT ON FUNCTION record_release(encoded_set, text, text[], text, date, text, text) IS
    'records a release of data before it is sent: to whom, for which purpose, from which registers (NULL: all), '
    'and whose data it holds; returns its id. Refused, with counts by reason and nothing recorded, when a patient may '
    'not be in it now; errors ND010, ND011, ND041, 22004, 22023, 42704 (no such recipient, register or purpose)';

CREATE FUNCTION record_release(patients nhs_number[], purpose text, registers text[], recipient text,
    released_on date, reference text, legal_basis text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unusable bigint := (SELECT count(*) FROM unnest(patients) AS number
                        WHERE number IS NULL OR ndrs_optout.nhs_number_is_placeholder(number));
BEGIN
    IF unusable > 0 THEN
        PERFORM ndrs_optout.raise_error('22004', format('%s of %s patients have no NHS number', unusable,
                                                        cardinality(patients)),
            detail => 'It is missing, a placeholder, or cannot be read.',
            hint => 'Who cannot be identified could not be recalled: leave them out.');
    END IF;
    RETURN ndrs_optout.record_release(
        (SELECT ndrs_optout.encoded_set_agg(ndrs_optout.encode_nhs_number(number)) FROM unnest(patients) AS number),
        purpose, registers, recipient, released_on, reference, legal_basis);
END
$$;
COMMENT ON FUNCTION record_release(nhs_number[], text, text[], text, date, text, text) IS
    'records a release of data before it is sent, with the NHS numbers of the patients whose data it holds; returns '
    'its id. Refused, with counts by reason and nothing recorded, when a patient may not be in it now; errors ND010, '
    'ND011, ND041, 22004 (a number is missing or a placeholder), 22023, 42704 (no such recipient, register or purpose)';

-- The query runs with the caller's rights.
CREATE FUNCTION record_release(query text, purpose text, registers text[], recipient text,
    released_on date, reference text, legal_basis text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    numbers ndrs_optout.nhs_number[];
BEGIN
    EXECUTE format('SELECT array_agg(ndrs_optout.guard_number(q.value)) FROM %s', ndrs_optout.query_source(query))
        INTO numbers;
    RETURN ndrs_optout.record_release(numbers, purpose, registers, recipient, released_on, reference, legal_basis);
END
$$;
COMMENT ON FUNCTION record_release(text, text, text[], text, date, text, text) IS
    'records a release of data before it is sent, with a query whose only column holds the NHS numbers of the '
    'patients, of any type that a guard reads; the query runs with the caller''s rights. Returns the release''s id. '
    'Refused, with counts by reason and nothing recorded, when a patient may not be in it now; errors ND010, ND011, '
    'ND041, 22004 (a number is missing or a placeholder), 22023 (also: not a query, an NHS number in the query), '
    '42601 (more columns), 42704 (no such recipient, register or purpose), and the query''s';

-- The service promises not to tell those who look after the patient: it would tell them
-- of a choice that is none of theirs.
CREATE FUNCTION release_for_care(this release) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT this.purpose = 'direct_care'
        OR (SELECT p.kind = 'care_provider' FROM ndrs_optout.recipient p WHERE p.recipient = this.recipient)
$$;
COMMENT ON FUNCTION release_for_care(release) IS
    'internal: whether a release was for individual care or went to a care provider: then its recipient is not told '
    'of an opt-out';

-- The id is not repeated: it may be a number that was put in the wrong place.
CREATE FUNCTION no_such_release() RETURNS void
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.raise_error('P0002', 'there is no such release',
        hint => 'View ndrs_optout.release_progress lists the releases.')
$$;
COMMENT ON FUNCTION no_such_release() IS 'internal: error P0002';

CREATE FUNCTION release_contains(release_id bigint, number nhs_number) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    encoded ndrs_optout.encoded_nhs_number := ndrs_optout.encode_nhs_number(ndrs_optout.checked_patient(number));
    result boolean;
BEGIN
    SELECT r.patients OPERATOR(ndrs_optout.@>) encoded INTO result
        FROM ndrs_optout.release r WHERE r.release_id = release_contains.release_id;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.no_such_release();
    END IF;
    IF result IS NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('the patient list of release %s has been purged', release_id),
            detail => 'The data was destroyed or never given, and the retention period has ended.');
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION release_contains(bigint, nhs_number) IS
    'whether a release held a patient''s data; errors ND004, ND010, ND011, P0002, ND021 (the patients are not on '
    'record any more), 22004';

CREATE VIEW release_progress AS
    SELECT r.release_id, r.recipient, r.purpose, r.legal_basis, r.registers, r.released_on, r.reference,
        r.patient_count,
           r.recorded_at, r.destroyed_on, r.patients IS NOT NULL AS patients_on_record, r.retracted_at
        FROM release r
        ORDER BY r.release_id;
COMMENT ON VIEW release_progress IS
    'the releases, without their sets of patients; patients_on_record: the set is not purged yet; retracted_at: when '
    'the release was found to have been recorded by mistake';

-- The id under which a recipient knows a patient must stay what it was when data was released: a recall letter names
-- the patient by it.
CREATE FUNCTION change_recipient(recipient text, name text DEFAULT NULL, id_scheme text DEFAULT NULL,
    salt_reference text DEFAULT NULL, contact text DEFAULT NULL, kind text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before ndrs_optout.recipient;
    after ndrs_optout.recipient;
BEGIN
    -- To see the releases of whom the lock has waited for.
    PERFORM ndrs_optout.require_read_committed();
    SELECT r.* INTO before FROM ndrs_optout.recipient r WHERE r.recipient = change_recipient.recipient FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.checked_recipient(recipient);
    END IF;
    PERFORM ndrs_optout.check_recipient(coalesce(name, before.name), coalesce(id_scheme, before.id_scheme),
        coalesce(salt_reference, before.salt_reference), coalesce(contact, before.contact),
        coalesce(kind, before.kind));
    after := before;
    after.name := coalesce(name, before.name);
    after.id_scheme := coalesce(id_scheme, before.id_scheme);
    after.salt_reference := coalesce(salt_reference, before.salt_reference);
    after.contact := coalesce(contact, before.contact);
    after.kind := coalesce(kind, before.kind);
    IF after.id_scheme <> before.id_scheme
        AND EXISTS (SELECT FROM ndrs_optout.release l WHERE l.recipient = change_recipient.recipient) THEN
        PERFORM ndrs_optout.raise_error('23503',
            format('cannot change id_scheme of recipient "%s" because releases name it', recipient),
            hint => 'Add another recipient: the patients of the releases are recalled by the ids that they had.');
    END IF;
    UPDATE ndrs_optout.recipient r
        SET name = after.name, id_scheme = after.id_scheme, salt_reference = after.salt_reference,
            contact = after.contact, kind = after.kind
        WHERE r.recipient = change_recipient.recipient;
    PERFORM ndrs_optout.audit('recipient_changed', jsonb_build_object('recipient', recipient, 'changed',
        ARRAY(SELECT c.key FROM jsonb_each(ndrs_optout.changed_columns(to_jsonb(before), to_jsonb(after))) AS c
                  ORDER BY c.key)));
END
$$;
COMMENT ON FUNCTION change_recipient(text, text, text, text, text, text) IS
    'changes what is known of a recipient; what is NULL stays as it is. id_scheme can be changed as long as no release '
    'names the recipient. Audited, without the values; errors 22004, 22023, 23503 (releases name it), 25000, 42704 (no '
    'such recipient)';

CREATE FUNCTION remove_recipient(recipient text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- To see what names it after the lock has waited for record_release() and grant_exemption().
    PERFORM ndrs_optout.require_read_committed();
    PERFORM FROM ndrs_optout.recipient r WHERE r.recipient = remove_recipient.recipient FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.checked_recipient(recipient);
    END IF;
    IF EXISTS (SELECT FROM ndrs_optout.release l WHERE l.recipient = remove_recipient.recipient)
        OR EXISTS (SELECT FROM ndrs_optout.exemption e WHERE e.recipient = remove_recipient.recipient) THEN
        PERFORM ndrs_optout.raise_error('23503',
            format('cannot remove recipient "%s" because releases or exemptions name it', recipient),
            hint => 'Keep it. Recall letters and answers to patients name the recipients of releases.');
    END IF;
    DELETE FROM ndrs_optout.recipient r WHERE r.recipient = remove_recipient.recipient;
    PERFORM ndrs_optout.audit('recipient_removed', jsonb_build_object('recipient', recipient));
END
$$;
COMMENT ON FUNCTION remove_recipient(text) IS
    'removes a recipient that no release and no exemption names: the opposite of add_recipient(). Audited; errors '
    '23503 (something names it), 25000, 42704 (no such recipient)';
