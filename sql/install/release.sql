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
    agreement_id  bigint,  -- NULL: for care
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

-- The service promises not to tell those who look after the patient: it would tell them
-- of a choice that is none of theirs.
CREATE FUNCTION is_for_care(purpose text, recipient text) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT purpose = 'direct_care'
        OR (SELECT p.kind = 'care_provider' FROM ndrs_optout.recipient p WHERE p.recipient = is_for_care.recipient)
$$;
COMMENT ON FUNCTION is_for_care(text, text) IS
    'internal: whether data for this purpose and recipient is for individual care';

CREATE FUNCTION release_for_care(this release) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.is_for_care(this.purpose, this.recipient)
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
           r.recorded_at, r.agreement_id, r.destroyed_on, r.patients IS NOT NULL AS patients_on_record, r.retracted_at
        FROM release r
        ORDER BY r.release_id;
COMMENT ON VIEW release_progress IS
    'the releases, without their sets of patients; patients_on_record: the set is not purged yet; retracted_at: when '
    'the release was found to have been recorded by mistake';

CREATE VIEW agreement_progress AS
    SELECT a.agreement_id, a.recipient, a.legal_basis, a.approval_reference, a.starts_on, a.ends_on,
           a.ended_at IS NULL AND today() BETWEEN a.starts_on AND a.ends_on AS in_force,
           CASE WHEN a.ended_at IS NULL AND today() <= a.ends_on THEN a.ends_on - today() END AS days_left,
           a.review_on, a.destruction_due_on, a.ended_at, r.held AS releases_held,
           r.held > 0 AND a.destruction_due_on < today() AS destruction_overdue,
           CASE WHEN r.held > 0 AND a.destruction_due_on < today()
                    THEN 'ask for the destruction, and SELECT ndrs_optout.record_destruction(...)'  -- told, not called
                WHEN a.ended_at IS NULL AND today() BETWEEN a.review_on AND a.ends_on
                    THEN pg_catalog.format('review it, and SELECT ndrs_optout.change_agreement(%s, ...)',
                                           a.agreement_id)
                WHEN a.ended_at IS NULL AND today() BETWEEN a.ends_on - 30 AND a.ends_on
                    THEN pg_catalog.format('renew it with SELECT ndrs_optout.change_agreement(%s, ...), or let it end',
                                           a.agreement_id)
                END AS next_action
        FROM agreement a
        CROSS JOIN LATERAL (SELECT count(*) AS held FROM release l
                            WHERE l.agreement_id = a.agreement_id AND l.destroyed_on IS NULL
                                AND l.retracted_at IS NULL) AS r
        ORDER BY a.recipient, a.agreement_id;
COMMENT ON VIEW agreement_progress IS
    'agreements with recipients: whether in force, days left, how many releases the recipient has not destroyed, '
    'whether it should have, and what comes next';

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
    'names the recipient. Recall notices that a care provider was not asked by yet are taken back. Audited, without '
    'the values; errors 22004, 22023, 23503 (releases name it), 25000, 42704 (no such recipient)';

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
        OR EXISTS (SELECT FROM ndrs_optout.exemption e WHERE e.recipient = remove_recipient.recipient)
        OR EXISTS (SELECT FROM ndrs_optout.agreement a WHERE a.recipient = remove_recipient.recipient) THEN
        PERFORM ndrs_optout.raise_error('23503',
            format('cannot remove recipient "%s" because releases, exemptions or agreements name it', recipient),
            hint => 'Keep it. Recall letters and answers to patients name the recipients of releases.');
    END IF;
    DELETE FROM ndrs_optout.release_allowance w WHERE w.recipient = remove_recipient.recipient;
    DELETE FROM ndrs_optout.recipient r WHERE r.recipient = remove_recipient.recipient;
    PERFORM ndrs_optout.audit('recipient_removed', jsonb_build_object('recipient', recipient));
END
$$;
COMMENT ON FUNCTION remove_recipient(text) IS
    'removes a recipient that no release, exemption or agreement names: the opposite of add_recipient(). Audited; '
    'errors 23503 (something names it), 25000, 42704 (no such recipient)';
