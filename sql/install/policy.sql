-- policy: the periods that a site may set, and how days are counted.

CREATE TABLE policy (
    only_row             boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    deadline_days        integer NOT NULL DEFAULT 20 CHECK (deadline_days > 0),
    deadline_counts      text NOT NULL DEFAULT 'calendar_days'
                        CHECK (deadline_counts IN ('calendar_days', 'working_days')),
    time_zone            text NOT NULL DEFAULT 'Europe/London',
    child_age            integer NOT NULL DEFAULT 14 CHECK (child_age > 0),
    parent_authority     boolean NOT NULL DEFAULT false,
    contact              text,
    copy_years           integer NOT NULL DEFAULT 3 CHECK (copy_years >= 0),
    subject_access_years integer NOT NULL DEFAULT 3 CHECK (subject_access_years >= 0),
    recall_years         integer NOT NULL DEFAULT 3 CHECK (recall_years >= 0),
    release_years        integer NOT NULL DEFAULT 3 CHECK (release_years >= 0),
    evidence_days        integer NOT NULL DEFAULT 180 CHECK (evidence_days > 0),
    audit_years          integer NOT NULL DEFAULT 10 CHECK (audit_years > 0),
    national_check_days  integer NOT NULL DEFAULT 7 CHECK (national_check_days > 0),
    recall_days          integer NOT NULL DEFAULT 30 CHECK (recall_days > 0),
    recall_escalation_days integer NOT NULL DEFAULT 14 CHECK (recall_escalation_days > 0),
    smallest_count       integer NOT NULL DEFAULT 10 CHECK (smallest_count > 0),
    changed_at           timestamptz
);
COMMENT ON TABLE policy IS
    'one row, to be changed with UPDATE: deadline (days, calendar or working), the time zone of all days, age below '
    'which a parent can act for a child, whether a parent proves authority, how patients reach the registry, years '
    'for which the copy of a request, answered requests for subject access, answered recall notices and the patients '
    'of destroyed releases are kept, days after which proofs of a case that got no further are destroyed, years of '
    'audit, days for which a national check is good, days that a recipient has to delete a patient''s data, days '
    'until an overdue recall notice is escalated, smallest number that statistics show. What was promised for a case '
    'stays as it was. Changes are audited';
COMMENT ON COLUMN policy.child_age IS
    'a parent can act for a child who is younger on the day on which the request came: 13 for "under 13", 14 for "13 '
    'or younger", as the published rule of the national service says';
COMMENT ON COLUMN policy.time_zone IS
    'a day begins here: on it something came, is due, or is named in a letter, whatever the time zone of a session';
COMMENT ON COLUMN policy.parent_authority IS
    'true: a parent proves parental responsibility, as a representative always proves authority';
COMMENT ON COLUMN policy.contact IS
    'how patients reach the registry, as letters say it after "Contact us": for example "on 0300 000 0000 or at '
    'optout@registry.example"';
INSERT INTO policy DEFAULT VALUES;
SELECT pg_catalog.pg_extension_config_dump('policy', 'WHERE changed_at IS NOT NULL');

-- There is always one row.  A row that is inserted takes its place: one that a dump
-- brings was audited when it was written.
CREATE FUNCTION policy_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    replaced ndrs_optout.policy;
BEGIN
    IF TG_OP IN ('DELETE', 'TRUNCATE') THEN
        PERFORM ndrs_optout.raise_error('23514', 'cannot delete the policy row',
            hint => 'Change it with UPDATE ndrs_optout.policy SET ...');
    END IF;
    IF NOT EXISTS (SELECT FROM pg_timezone_names z WHERE z.name = NEW.time_zone) THEN
        PERFORM ndrs_optout.raise_error('22023', 'the time zone of the policy is not known',
            hint => 'View pg_timezone_names lists the time zones.');
    END IF;
    IF NEW.contact IS NOT NULL THEN
        PERFORM ndrs_optout.checked_reason(NEW.contact, 'contact');
    END IF;
    IF TG_OP = 'INSERT' THEN
        DELETE FROM ndrs_optout.policy p RETURNING p.* INTO replaced;
        IF NOT ndrs_optout.being_restored() THEN
            NEW.changed_at := clock_timestamp();
            PERFORM ndrs_optout.audit('policy_changed',
                coalesce(ndrs_optout.changed_columns(to_jsonb(replaced), to_jsonb(NEW)), '{}'));
        END IF;
    ELSIF NEW IS DISTINCT FROM OLD THEN
        NEW.changed_at := clock_timestamp();
        PERFORM ndrs_optout.audit('policy_changed', ndrs_optout.changed_columns(to_jsonb(OLD), to_jsonb(NEW)));
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION policy_change() IS
    'internal: trigger function: keeps the policy one row (error 23514), checks time zone and contact (error 22023) '
    'and audits its changes';
CREATE TRIGGER policy_change BEFORE INSERT OR UPDATE ON policy FOR EACH ROW EXECUTE FUNCTION policy_change();
COMMENT ON TRIGGER policy_change ON policy IS 'one row, audited';
-- Not for the one that takes the place of another.
CREATE TRIGGER policy_stays BEFORE DELETE OR TRUNCATE ON policy FOR EACH STATEMENT
    WHEN (pg_catalog.pg_trigger_depth() = 0) EXECUTE FUNCTION policy_change();
COMMENT ON TRIGGER policy_stays ON policy IS 'one row, not none';

-- Days are those of the policy's time zone: a session elsewhere is not in another day.
CREATE FUNCTION local_date(at timestamptz) RETURNS date
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (at AT TIME ZONE p.time_zone)::date FROM ndrs_optout.policy p
$$;
COMMENT ON FUNCTION local_date(timestamptz) IS 'internal: the day of a moment, in the policy''s time zone';

CREATE FUNCTION local_midnight(day date) RETURNS timestamptz
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT day::timestamp AT TIME ZONE p.time_zone FROM ndrs_optout.policy p
$$;
COMMENT ON FUNCTION local_midnight(date) IS 'internal: when a day begins, in the policy''s time zone';

CREATE FUNCTION today() RETURNS date
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.local_date(now())
$$;
COMMENT ON FUNCTION today() IS
    'today, in the policy''s time zone, whatever the session''s; of the start of the transaction';

-- A day on which something happened.
CREATE FUNCTION checked_day(day date, what text) RETURNS date
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (day <= ndrs_optout.today() AND isfinite(day)) IS NOT TRUE THEN
        PERFORM ndrs_optout.raise_error('22023', format('the day on which %s must be today or before', what));
    END IF;
    RETURN day;
END
$$;
COMMENT ON FUNCTION checked_day(date, text) IS 'internal: the day itself; error 22023 when it is not today or before';

CREATE FUNCTION checked_receipt(day date, what text) RETURNS date
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.checked_day(day, what || ' was received')
$$;
COMMENT ON FUNCTION checked_receipt(date, text) IS
    'internal: the day itself, on which something was received; error 22023 when it is not today or before';

-- England and Wales: by the standing rules, with substitute days.  Days that are
-- proclaimed are for the site to add.
CREATE TABLE bank_holiday (
    day        date PRIMARY KEY,
    name       text NOT NULL,
    observed   boolean NOT NULL DEFAULT true,
    changed_at timestamptz  -- NULL: as shipped
);
COMMENT ON TABLE bank_holiday IS
    'bank holidays of England and Wales until 2035, for deadlines in working days; add those that are proclaimed. '
    'Changes are audited';
COMMENT ON COLUMN bank_holiday.observed IS 'false: a working day for this site';
INSERT INTO bank_holiday (day, name) VALUES
    ('2025-01-01', 'New Year''s Day'),
    ('2025-04-18', 'Good Friday'),
    ('2025-04-21', 'Easter Monday'),
    ('2025-05-05', 'Early May bank holiday'),
    ('2025-05-26', 'Spring bank holiday'),
    ('2025-08-25', 'Summer bank holiday'),
    ('2025-12-25', 'Christmas Day'),
    ('2025-12-26', 'Boxing Day'),
    ('2026-01-01', 'New Year''s Day'),
    ('2026-04-03', 'Good Friday'),
    ('2026-04-06', 'Easter Monday'),
    ('2026-05-04', 'Early May bank holiday'),
    ('2026-05-25', 'Spring bank holiday'),
    ('2026-08-31', 'Summer bank holiday'),
    ('2026-12-25', 'Christmas Day'),
    ('2026-12-28', 'Boxing Day'),
    ('2027-01-01', 'New Year''s Day'),
    ('2027-03-26', 'Good Friday'),
    ('2027-03-29', 'Easter Monday'),
    ('2027-05-03', 'Early May bank holiday'),
    ('2027-05-31', 'Spring bank holiday'),
    ('2027-08-30', 'Summer bank holiday'),
    ('2027-12-27', 'Christmas Day'),
    ('2027-12-28', 'Boxing Day'),
    ('2028-01-03', 'New Year''s Day'),
    ('2028-04-14', 'Good Friday'),
    ('2028-04-17', 'Easter Monday'),
    ('2028-05-01', 'Early May bank holiday'),
    ('2028-05-29', 'Spring bank holiday'),
    ('2028-08-28', 'Summer bank holiday'),
    ('2028-12-25', 'Christmas Day'),
    ('2028-12-26', 'Boxing Day'),
    ('2029-01-01', 'New Year''s Day'),
    ('2029-03-30', 'Good Friday'),
    ('2029-04-02', 'Easter Monday'),
    ('2029-05-07', 'Early May bank holiday'),
    ('2029-05-28', 'Spring bank holiday'),
    ('2029-08-27', 'Summer bank holiday'),
    ('2029-12-25', 'Christmas Day'),
    ('2029-12-26', 'Boxing Day'),
    ('2030-01-01', 'New Year''s Day'),
    ('2030-04-19', 'Good Friday'),
    ('2030-04-22', 'Easter Monday'),
    ('2030-05-06', 'Early May bank holiday'),
    ('2030-05-27', 'Spring bank holiday'),
    ('2030-08-26', 'Summer bank holiday'),
    ('2030-12-25', 'Christmas Day'),
    ('2030-12-26', 'Boxing Day'),
    ('2031-01-01', 'New Year''s Day'),
    ('2031-04-11', 'Good Friday'),
    ('2031-04-14', 'Easter Monday'),
    ('2031-05-05', 'Early May bank holiday'),
    ('2031-05-26', 'Spring bank holiday'),
    ('2031-08-25', 'Summer bank holiday'),
    ('2031-12-25', 'Christmas Day'),
    ('2031-12-26', 'Boxing Day'),
    ('2032-01-01', 'New Year''s Day'),
    ('2032-03-26', 'Good Friday'),
    ('2032-03-29', 'Easter Monday'),
    ('2032-05-03', 'Early May bank holiday'),
    ('2032-05-31', 'Spring bank holiday'),
    ('2032-08-30', 'Summer bank holiday'),
    ('2032-12-27', 'Christmas Day'),
    ('2032-12-28', 'Boxing Day'),
    ('2033-01-03', 'New Year''s Day'),
    ('2033-04-15', 'Good Friday'),
    ('2033-04-18', 'Easter Monday'),
    ('2033-05-02', 'Early May bank holiday'),
    ('2033-05-30', 'Spring bank holiday'),
    ('2033-08-29', 'Summer bank holiday'),
    ('2033-12-26', 'Boxing Day'),
    ('2033-12-27', 'Christmas Day'),
    ('2034-01-02', 'New Year''s Day'),
    ('2034-04-07', 'Good Friday'),
    ('2034-04-10', 'Easter Monday'),
    ('2034-05-01', 'Early May bank holiday'),
    ('2034-05-29', 'Spring bank holiday'),
    ('2034-08-28', 'Summer bank holiday'),
    ('2034-12-25', 'Christmas Day'),
    ('2034-12-26', 'Boxing Day'),
    ('2035-01-01', 'New Year''s Day'),
    ('2035-03-23', 'Good Friday'),
    ('2035-03-26', 'Easter Monday'),
    ('2035-05-07', 'Early May bank holiday'),
    ('2035-05-28', 'Spring bank holiday'),
    ('2035-08-27', 'Summer bank holiday'),
    ('2035-12-25', 'Christmas Day'),
    ('2035-12-26', 'Boxing Day');
-- What a site added or changed; the rest comes with the extension.
SELECT pg_catalog.pg_extension_config_dump('bank_holiday', 'WHERE changed_at IS NOT NULL');

-- A shipped day that was deleted, or moved, would be back after a restore.
CREATE FUNCTION shipped_holiday_stays() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    shipped text := to_char(OLD.day, 'YYYY-MM-DD');
BEGIN
    IF OLD.changed_at IS NULL AND NOT ndrs_optout.being_restored() THEN
        PERFORM ndrs_optout.raise_error('23503', format('cannot delete or move the shipped bank holiday %s', shipped),
            hint => format('To make it a working day, UPDATE ndrs_optout.bank_holiday SET observed = false WHERE day = '
                           '''%s''.',
                           shipped));
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;
COMMENT ON FUNCTION shipped_holiday_stays() IS
    'internal: trigger function: error 23503 when a shipped bank holiday is deleted or moved, for a restore would '
    'bring it back';
CREATE TRIGGER shipped_stays_delete BEFORE DELETE ON bank_holiday
    FOR EACH ROW EXECUTE FUNCTION shipped_holiday_stays();
COMMENT ON TRIGGER shipped_stays_delete ON bank_holiday IS 'a shipped bank holiday stays';
CREATE TRIGGER shipped_stays_update BEFORE UPDATE ON bank_holiday
    FOR EACH ROW WHEN (NEW.day <> OLD.day) EXECUTE FUNCTION shipped_holiday_stays();
COMMENT ON TRIGGER shipped_stays_update ON bank_holiday IS 'a shipped bank holiday keeps its day';
CREATE TRIGGER site_row BEFORE INSERT OR UPDATE OR DELETE ON bank_holiday
    FOR EACH ROW EXECUTE FUNCTION site_row_change('bank_holiday', 'day');
COMMENT ON TRIGGER site_row ON bank_holiday IS 'marks the site''s own days, and audits their changes';
CREATE TRIGGER site_row_truncate BEFORE TRUNCATE ON bank_holiday
    FOR EACH STATEMENT EXECUTE FUNCTION site_row_change('bank_holiday', 'day');
COMMENT ON TRIGGER site_row_truncate ON bank_holiday IS 'days are deleted one by one';

CREATE FUNCTION is_working_day(day date) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT extract(isodow FROM day) < 6 AND NOT EXISTS (
        SELECT FROM ndrs_optout.bank_holiday h WHERE h.day = is_working_day.day AND h.observed)
$$;
COMMENT ON FUNCTION is_working_day(date) IS 'whether a day is neither of a weekend nor a bank holiday';

-- The day on which a period ends that began on the given one.
CREATE FUNCTION policy_deadline(start date) RETURNS date
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE p.deadline_counts
               WHEN 'calendar_days' THEN start + p.deadline_days
               ELSE (SELECT d.day::date
                         FROM generate_series(start + 1, start + 3 * p.deadline_days + 30, interval '1 day') AS d (day)
                         WHERE ndrs_optout.is_working_day(d.day::date)
                         ORDER BY d.day OFFSET p.deadline_days - 1 LIMIT 1)
           END
        FROM ndrs_optout.policy p
$$;
COMMENT ON FUNCTION policy_deadline(date) IS
    'internal: the day on which the deadline falls of what began on the given day';
