-- purpose: what data may be shared for, and when the national data opt-out counts.
--
-- Where it applies is the law's to say, and the sources differ: so this is data.  For
-- regulation 2 of the COPI Regulations, NHS England says that it does and the Health
-- Research Authority that it does not; what is shipped is the stricter.

-- The library reads the columns of this table by number: see sharing.c.
CREATE TABLE purpose (
    code                    text COLLATE "C" PRIMARY KEY CHECK (pg_catalog.octet_length(code) BETWEEN 1 AND 63),
    permitted               boolean NOT NULL,
    national_optout_applies boolean NOT NULL,
    name                    text NOT NULL,
    basis                   text NOT NULL,
    changed_at              timestamptz,
    CONSTRAINT never_sold CHECK (code <> 'sale' OR NOT permitted)
);
COMMENT ON TABLE purpose IS
    'what data may be shared for: whether at all (permitted; "sale" never can be), and whether the national data '
    'opt-out counts. A site can add purposes and change them with INSERT and UPDATE; each change is an event in the '
    'audit. A purpose that is not wanted any more is not permitted';
INSERT INTO purpose (code, permitted, national_optout_applies, name, basis) VALUES
    ('direct_care', true, false, 'Individual care',
     'the patient''s own care; not research, teaching, financial audit, service management or risk stratification'),
    ('patient_notification', true, false, 'Telling the patient',
     'the patient is told what concerns the patient'),
    ('explicit_consent', true, false, 'Use that the patient has agreed to',
     'the patient''s consent to this very use, whether given before or after the opt-out'),
    ('communicable_disease', true, false, 'Communicable disease and other risks to public health',
     'regulation 3 of the Health Service (Control of Patient Information) Regulations 2002'),
    ('legal_requirement', true, false, 'Required by law',
     'an Act, a court order or a statutory power'),
    ('public_interest', true, false, 'Overriding public interest',
     'a documented public-interest test'),
    ('anonymised', true, false, 'Anonymised data',
     'anonymised in line with the Information Commissioner''s code: not confidential patient information'),
    ('research', true, true, 'Research',
     'section 251 of the NHS Act 2006: regulation 2 or 5 of the Health Service (Control of Patient Information) '
     'Regulations 2002'),
    ('commercial_research', true, true, 'Research by or for companies',
     'section 251 of the NHS Act 2006: regulation 2 or 5 of the Health Service (Control of Patient Information) '
     'Regulations 2002'),
    ('planning', true, true, 'Planning and management of services',
     'section 251 of the NHS Act 2006: regulation 2 or 5 of the Health Service (Control of Patient Information) '
     'Regulations 2002'),
    ('clinical_audit', true, true, 'National clinical audit',
     'section 251 of the NHS Act 2006: regulation 2 or 5 of the Health Service (Control of Patient Information) '
     'Regulations 2002; audits have exemptions of their own'),
    ('risk_stratification', true, true, 'Risk stratification',
     'section 251 of the NHS Act 2006: regulation 2 or 5 of the Health Service (Control of Patient Information) '
     'Regulations 2002'),
    ('sale', false, true, 'Sale',
     'never');
-- What a site added or changed; the rest comes with the extension.
SELECT pg_catalog.pg_extension_config_dump('purpose', 'WHERE changed_at IS NOT NULL');

-- A purpose stays for ever, for what was shared names it.  A row that a restore brings
-- with the time of its change takes the place of the shipped one, by the
-- UPDATE in here, and the audit comes from the dump too.
CREATE FUNCTION purpose_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    subject text := 'all purposes';
BEGIN
    IF TG_OP IN ('DELETE', 'TRUNCATE') THEN
        IF TG_OP = 'DELETE' THEN
            subject := format('purpose "%s"', OLD.code);
        END IF;
        PERFORM ndrs_optout.raise_error('23503', format('cannot delete %s', subject),
            detail => 'Past releases may refer to it.',
            hint => 'To share nothing for it, UPDATE ndrs_optout.purpose SET permitted = false WHERE code = ...');
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF NEW.changed_at IS NULL OR NOT ndrs_optout.being_restored() THEN
            NEW.changed_at := clock_timestamp();
            PERFORM ndrs_optout.audit('purpose_added', jsonb_build_object('purpose', NEW.code,
                'permitted', NEW.permitted, 'national_optout_applies', NEW.national_optout_applies));
            RETURN NEW;
        END IF;
        UPDATE ndrs_optout.purpose p
            SET permitted = NEW.permitted, national_optout_applies = NEW.national_optout_applies,
                name = NEW.name, basis = NEW.basis, changed_at = NEW.changed_at
            WHERE p.code = NEW.code AND p.changed_at IS NULL;
        RETURN CASE WHEN FOUND THEN NULL ELSE NEW END;
    END IF;
    IF NEW.code <> OLD.code THEN
        PERFORM ndrs_optout.raise_error('23503', format('cannot change the code of purpose "%s"', OLD.code),
            detail => 'Past releases may refer to it.');
    END IF;
    IF pg_trigger_depth() = 1 OR OLD.changed_at IS NOT NULL OR NEW.changed_at IS NULL
        OR NOT ndrs_optout.being_restored() THEN
        NEW.changed_at := clock_timestamp();
        PERFORM ndrs_optout.audit('purpose_changed', jsonb_build_object('purpose', NEW.code)
            || coalesce(ndrs_optout.changed_columns(to_jsonb(OLD), to_jsonb(NEW)), '{}'));
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION purpose_change() IS
    'internal: trigger function: audits changes of purposes, keeps their codes (error 23503), and lets a dump''s row '
    'take the place of the shipped one';
CREATE TRIGGER purpose_change BEFORE INSERT OR UPDATE OR DELETE ON purpose
    FOR EACH ROW EXECUTE FUNCTION purpose_change();
COMMENT ON TRIGGER purpose_change ON purpose IS 'purposes stay, and their changes are audited';
CREATE TRIGGER purpose_change_truncate BEFORE TRUNCATE ON purpose FOR EACH STATEMENT EXECUTE FUNCTION purpose_change();
COMMENT ON TRIGGER purpose_change_truncate ON purpose IS 'purposes stay';

-- An approval that one recipient need not respect the national opt-out for one
-- purpose.  Days are those of UTC, so that no session's time zone makes them longer.
-- The library reads the columns of this table by number: see sharing.c.
CREATE TABLE exemption (
    exemption_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recipient          text COLLATE "C" NOT NULL,
    purpose            text COLLATE "C" NOT NULL,
    valid_from         date NOT NULL,
    valid_to           date,
    ended_at           timestamptz,
    approval_reference text NOT NULL,
    CHECK (valid_to >= valid_from)
);
COMMENT ON TABLE exemption IS
    'approvals that a recipient need not respect the national opt-out for a purpose, from the first to the last day '
    '(in UTC; no last day: until it is ended); granted by grant_exemption()';
SELECT pg_catalog.pg_extension_config_dump('exemption', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.exemption', 'exemption_id')::regclass, '');

CREATE TRIGGER invalidate_caches AFTER INSERT OR UPDATE OR DELETE ON purpose
    FOR EACH ROW EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches ON purpose IS 'backends read the purposes again';
ALTER TABLE purpose ENABLE ALWAYS TRIGGER invalidate_caches;
CREATE TRIGGER invalidate_caches AFTER INSERT OR UPDATE OR DELETE ON exemption
    FOR EACH ROW EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches ON exemption IS 'backends read the exemptions again';
CREATE TRIGGER invalidate_caches_truncate AFTER TRUNCATE ON exemption
    FOR EACH STATEMENT EXECUTE FUNCTION invalidate_caches();
COMMENT ON TRIGGER invalidate_caches_truncate ON exemption IS 'backends read the exemptions again';
ALTER TABLE exemption ENABLE ALWAYS TRIGGER invalidate_caches;
ALTER TABLE exemption ENABLE ALWAYS TRIGGER invalidate_caches_truncate;

-- Whose approval it was, and for what, goes to the audit, which holds no identifiers.
CREATE FUNCTION grant_exemption(purpose text, recipient text, approval_reference text,
    valid_from date DEFAULT (now() AT TIME ZONE 'UTC')::date, valid_to date DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    permitted boolean;
    result bigint;
BEGIN
    PERFORM ndrs_optout.checked_recipient(recipient);
    PERFORM ndrs_optout.checked_reason(approval_reference, 'reference');
    IF valid_from IS NULL THEN
        PERFORM ndrs_optout.raise_error('22004', 'an exemption needs a first day');
    END IF;
    IF valid_to < valid_from THEN
        PERFORM ndrs_optout.raise_error('22023', 'the exemption would end before it begins');
    END IF;
    SELECT p.permitted INTO permitted FROM ndrs_optout.purpose p WHERE p.code = purpose;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('42704', 'there is no such purpose',
            hint => 'Table ndrs_optout.purpose lists the purposes.');
    END IF;
    IF NOT permitted THEN
        PERFORM ndrs_optout.raise_error('22023', format('nothing is shared for purpose "%s"', purpose),
            detail => 'An exemption lifts the national opt-out and nothing else.');
    END IF;
    INSERT INTO ndrs_optout.exemption (recipient, purpose, approval_reference, valid_from, valid_to)
        VALUES (recipient, purpose, approval_reference, valid_from, valid_to)
        RETURNING exemption_id INTO STRICT result;
    PERFORM ndrs_optout.audit('exemption_granted', jsonb_build_object('exemption', result, 'recipient', recipient,
        'purpose', purpose, 'approval_reference', approval_reference, 'valid_from', valid_from, 'valid_to', valid_to));
    RETURN result;
END
$$;
COMMENT ON FUNCTION grant_exemption(text, text, text, date, date) IS
    'records that a recipient need not respect the national opt-out for a purpose from one day to another (in UTC), '
    'by an approval that was seen; the exclusion from a register counts all the same. Returns the '
    'exemption''s id; audited; errors 22004, 22023 (the days, an NHS number, a purpose that is not permitted), 42704 '
    '(no such recipient or purpose)';

CREATE FUNCTION end_exemption(exemption_id bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE ndrs_optout.exemption e SET ended_at = clock_timestamp()
        WHERE e.exemption_id = end_exemption.exemption_id AND e.ended_at IS NULL;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('P0002', 'there is no such exemption to end',
            hint => 'Table ndrs_optout.exemption lists them.');
    END IF;
    PERFORM ndrs_optout.audit('exemption_ended', jsonb_build_object('exemption', exemption_id));
END
$$;
COMMENT ON FUNCTION end_exemption(bigint) IS 'ends an exemption at once; audited; error P0002';
