-- agreement: on what ground and until when a recipient gets data.

CREATE TABLE agreement (
    agreement_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recipient          text COLLATE "C" NOT NULL,
    legal_basis        text NOT NULL,
    approval_reference text NOT NULL,
    starts_on          date NOT NULL,
    ends_on            date NOT NULL,
    review_on          date NOT NULL,
    destruction_due_on date NOT NULL,
    ended_at           timestamptz,  -- before its last day
    recorded_at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CHECK (ends_on >= starts_on AND review_on >= starts_on AND destruction_due_on >= starts_on)
);
COMMENT ON TABLE agreement IS
    'agreements with recipients: legal basis, reference of the approval, first and last day, day of the review, and '
    'day by which the recipient must have destroyed what it was given; a release needs one in force';
CREATE INDEX agreement_recipient ON agreement (recipient);
SELECT pg_catalog.pg_extension_config_dump('agreement', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.agreement', 'agreement_id')::regclass, '');

-- That a recipient with overdue recalls gets data all the same.
CREATE TABLE release_allowance (
    recipient  text COLLATE "C" PRIMARY KEY,
    until      date NOT NULL,
    reason     text NOT NULL,
    allowed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE release_allowance IS
    'recipients that get data although they are late with deleting what a patient recalled: until which day, and why; '
    'made by allow_releases()';
SELECT pg_catalog.pg_extension_config_dump('release_allowance', '');

CREATE FUNCTION check_agreement_days(this agreement) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF this.starts_on IS NULL OR this.ends_on IS NULL THEN
        PERFORM ndrs_optout.raise_error('22004', 'an agreement needs its first and its last day');
    END IF;
    IF NOT (isfinite(this.starts_on) AND isfinite(this.ends_on) AND isfinite(this.review_on)
            AND isfinite(this.destruction_due_on))
        OR least(this.ends_on, this.review_on, this.destruction_due_on) < this.starts_on THEN
        PERFORM ndrs_optout.raise_error('22023',
            'the days of the agreement must be real ones, and none before its first');
    END IF;
END
$$;
COMMENT ON FUNCTION check_agreement_days(agreement) IS
    'internal: errors 22004 and 22023 unless an agreement can have these days';

CREATE FUNCTION add_agreement(recipient text, legal_basis text, approval_reference text, starts_on date, ends_on date,
    review_on date DEFAULT NULL, destruction_due_on date DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.agreement;
BEGIN
    this.recipient := ndrs_optout.checked_recipient(recipient);
    this.legal_basis := ndrs_optout.checked_reason(legal_basis, 'legal basis');
    this.approval_reference := ndrs_optout.checked_reason(approval_reference, 'reference');
    this.starts_on := starts_on;
    this.ends_on := ends_on;
    this.review_on := coalesce(review_on, ends_on);
    this.destruction_due_on := coalesce(destruction_due_on, ends_on);
    PERFORM ndrs_optout.check_agreement_days(this);
    INSERT INTO ndrs_optout.agreement AS a (recipient, legal_basis, approval_reference, starts_on, ends_on, review_on,
                                            destruction_due_on)
        VALUES (this.recipient, this.legal_basis, this.approval_reference, this.starts_on, this.ends_on,
                this.review_on, this.destruction_due_on)
        RETURNING a.agreement_id INTO STRICT this.agreement_id;
    PERFORM ndrs_optout.audit('agreement_added', jsonb_strip_nulls(to_jsonb(this)));
    RETURN this.agreement_id;
END
$$;
COMMENT ON FUNCTION add_agreement(text, text, text, date, date, date, date) IS
    'records an agreement with a recipient, by which data may be released to it from its first to its last day, and '
    'returns its id. review_on: when it is to be looked at; destruction_due_on: when the recipient must have destroyed '
    'the data; both by default on its last day. Audited; errors 22004, 22023, 42704 (no such recipient)';

CREATE FUNCTION locked_agreement(agreement_id bigint) RETURNS agreement
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.agreement;
BEGIN
    SELECT a.* INTO this FROM ndrs_optout.agreement a
        WHERE a.agreement_id = locked_agreement.agreement_id AND a.ended_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('P0002', 'there is no such agreement, or it was ended',
            hint => 'View ndrs_optout.agreement_progress lists the agreements.');
    END IF;
    RETURN this;
END
$$;
COMMENT ON FUNCTION locked_agreement(bigint) IS 'internal: an agreement that was not ended, locked; error P0002';

CREATE FUNCTION change_agreement(agreement_id bigint, reason text, ends_on date DEFAULT NULL,
    review_on date DEFAULT NULL, destruction_due_on date DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    before ndrs_optout.agreement := ndrs_optout.locked_agreement(agreement_id);
    after ndrs_optout.agreement := before;
BEGIN
    PERFORM ndrs_optout.checked_reason(reason);
    after.ends_on := coalesce(ends_on, before.ends_on);
    after.review_on := coalesce(review_on, before.review_on);
    after.destruction_due_on := coalesce(destruction_due_on, before.destruction_due_on);
    PERFORM ndrs_optout.check_agreement_days(after);
    UPDATE ndrs_optout.agreement a
        SET ends_on = after.ends_on, review_on = after.review_on, destruction_due_on = after.destruction_due_on
        WHERE a.agreement_id = before.agreement_id;
    PERFORM ndrs_optout.audit('agreement_changed', jsonb_build_object('agreement', agreement_id, 'reason', reason)
        || coalesce(ndrs_optout.changed_columns(to_jsonb(before), to_jsonb(after)), '{}'));
END
$$;
COMMENT ON FUNCTION change_agreement(bigint, text, date, date, date) IS
    'changes days of an agreement, such as after its review; what is NULL stays. Audited with the reason; errors P0002 '
    '(no such agreement, or it was ended), 22004, 22023';

CREATE FUNCTION end_agreement(agreement_id bigint, reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.agreement := ndrs_optout.locked_agreement(agreement_id);
BEGIN
    PERFORM ndrs_optout.checked_reason(reason);
    UPDATE ndrs_optout.agreement a SET ended_at = clock_timestamp() WHERE a.agreement_id = this.agreement_id;
    PERFORM ndrs_optout.audit('agreement_ended', jsonb_build_object('agreement', agreement_id, 'reason', reason));
END
$$;
COMMENT ON FUNCTION end_agreement(bigint, text) IS
    'ends an agreement at once: no release is recorded under it any more. Audited with the reason; errors P0002, '
    '22004, 22023';

CREATE FUNCTION allow_releases(recipient text, until date, reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.checked_recipient(recipient);
    PERFORM ndrs_optout.checked_reason(reason);
    IF (until >= ndrs_optout.today() AND isfinite(until)) IS NOT TRUE THEN
        PERFORM ndrs_optout.raise_error('22023', 'the last day must be today or later');
    END IF;
    INSERT INTO ndrs_optout.release_allowance AS w (recipient, until, reason)
        VALUES (recipient, until, reason)
        ON CONFLICT ON CONSTRAINT release_allowance_pkey
            DO UPDATE SET until = excluded.until, reason = excluded.reason, allowed_at = clock_timestamp();
    PERFORM ndrs_optout.audit('releases_allowed', jsonb_build_object('recipient', recipient, 'until', until,
                                                                     'reason', reason));
END
$$;
COMMENT ON FUNCTION allow_releases(text, date, text) IS
    'allows releases to a recipient until a day although it is late with deleting what patients recalled. Audited with '
    'the reason; errors 22004, 22023, 42704 (no such recipient)';

CREATE FUNCTION disallow_releases(recipient text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.checked_recipient(recipient);
    DELETE FROM ndrs_optout.release_allowance w WHERE w.recipient = disallow_releases.recipient;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('P0002', format('releases to recipient "%s" are not allowed specially',
                                                        recipient));
    END IF;
    PERFORM ndrs_optout.audit('releases_disallowed', jsonb_build_object('recipient', recipient));
END
$$;
COMMENT ON FUNCTION disallow_releases(text) IS
    'takes back what allow_releases() has allowed. Audited; errors P0002 (nothing was allowed), 42704 (no such '
    'recipient)';
