-- complaint: complaints about how data was handled, and their time.
--
-- Section 164A of the Data Protection Act 2018, which section 103 of the Data (Use and Access)
-- Act 2025 brought: a complaint is acknowledged within 30 days beginning when it is received, looked
-- into, and the complainant is told of progress and outcome without undue delay.

CREATE TABLE complaint (
    complaint_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id         bigint,
    request_id      bigint,
    summary         text NOT NULL,
    channel         channel NOT NULL,
    received_on     date NOT NULL,
    recorded_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    acknowledged_on date,
    informed_on     date,   -- of progress, last
    outcome         complaint_outcome,
    outcome_note    text,
    ended_on        date,   -- the complainant was told of the outcome
    kept_until      date,
    hold_id         bigint,
    CHECK (pg_catalog.num_nonnulls(case_id, request_id) <= 1),
    CHECK (pg_catalog.num_nonnulls(outcome, outcome_note, ended_on, kept_until) IN (0, 4))
);
COMMENT ON TABLE complaint IS
    'complaints about how data was handled: about a case, a request for subject access or neither; who complained is '
    'not here';
SELECT pg_catalog.pg_extension_config_dump('complaint', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.complaint', 'complaint_id')::regclass, '');

-- Nothing that the complaint is about is destroyed until it is over: the case is held, or the patient of the request.
CREATE FUNCTION record_complaint(summary text, case_id bigint DEFAULT NULL, request_id bigint DEFAULT NULL,
    received_on date DEFAULT today(), channel text DEFAULT 'email')
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    its_request ndrs_optout.subject_access_request;
    result bigint;
    hold bigint;
BEGIN
    PERFORM ndrs_optout.checked_reason(summary, 'summary');
    PERFORM ndrs_optout.checked_word(channel, 'channel', 'channel');
    PERFORM ndrs_optout.checked_receipt(received_on, 'the complaint');
    IF num_nonnulls(case_id, request_id) = 2 THEN
        PERFORM ndrs_optout.raise_error('22023', 'a complaint is about a case or about a request, not both',
            hint => 'Record two complaints.');
    END IF;
    IF request_id IS NOT NULL THEN
        its_request := ndrs_optout.locked_subject_access(request_id);
    END IF;
    INSERT INTO ndrs_optout.complaint AS c (case_id, request_id, summary, channel, received_on)
        VALUES (case_id, request_id, summary, channel, received_on)
        RETURNING c.complaint_id INTO STRICT result;
    IF case_id IS NOT NULL THEN
        hold := ndrs_optout.place_hold(case_id, format('complaint %s', result));
    ELSIF request_id IS NOT NULL THEN
        hold := ndrs_optout.hold_patient(its_request.encoded_nhs_number, format('complaint %s', result));
    END IF;
    UPDATE ndrs_optout.complaint c SET hold_id = hold WHERE c.complaint_id = result;
    PERFORM ndrs_optout.audit('complaint_recorded', jsonb_strip_nulls(jsonb_build_object('complaint', result,
        'case', case_id, 'request', request_id, 'hold', hold)));
    RETURN result;
END
$$;
COMMENT ON FUNCTION record_complaint(text, bigint, bigint, date, text) IS
    'records a complaint about how data was handled, and returns its id. summary: what it is about, without '
    'identifiers; case_id or request_id: which case or request for subject access, if any: that is held, so that '
    'nothing of it is destroyed. Errors P0002 (no such case or request), 22004, 22023, 25000';

CREATE FUNCTION locked_complaint(complaint_id bigint) RETURNS complaint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.complaint;
BEGIN
    SELECT * INTO this FROM ndrs_optout.complaint c WHERE c.complaint_id = locked_complaint.complaint_id FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('P0002', 'there is no such complaint',
            hint => 'View ndrs_optout.complaint_progress lists the complaints.');
    END IF;
    IF this.outcome IS NOT NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('complaint %s has its outcome already', complaint_id));
    END IF;
    RETURN this;
END
$$;
COMMENT ON FUNCTION locked_complaint(bigint) IS 'internal: a complaint without an outcome, locked; errors P0002, ND021';

CREATE FUNCTION acknowledge_complaint(complaint_id bigint, acknowledged_on date DEFAULT today()) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.complaint := ndrs_optout.locked_complaint(complaint_id);
BEGIN
    PERFORM ndrs_optout.checked_day(acknowledged_on, 'the complaint was acknowledged');
    IF acknowledged_on < this.received_on THEN
        PERFORM ndrs_optout.raise_error('22023', 'the complaint cannot have been acknowledged before it was received');
    END IF;
    IF this.acknowledged_on IS NULL THEN
        UPDATE ndrs_optout.complaint c SET acknowledged_on = acknowledge_complaint.acknowledged_on
            WHERE c.complaint_id = this.complaint_id;
        PERFORM ndrs_optout.audit('complaint_acknowledged', jsonb_build_object('complaint', this.complaint_id));
    END IF;
    RETURN ndrs_optout.letter_from_template(
        (ndrs_optout.current_letter_template('complaint_acknowledgement', 'en', 'standard')).body,
        jsonb_build_object('complaint', this.complaint_id, 'received', ndrs_optout.english_date(this.received_on),
            'held', EXISTS (SELECT FROM ndrs_optout.hold h
                                LEFT JOIN ndrs_optout.optout_case c ON c.case_id = h.case_id
                                WHERE h.hold_id = this.hold_id
                                    AND (h.placed_at <= c.holds_overridden_at) IS NOT TRUE),
            'contact', (SELECT p.contact FROM ndrs_optout.policy p)));
END
$$;
COMMENT ON FUNCTION acknowledge_complaint(bigint, date) IS
    'acknowledges a complaint and returns the letter; called again, it returns the letter and changes nothing. Errors '
    'P0002, ND021 (it has its outcome), 22023';

CREATE FUNCTION inform_complainant(complaint_id bigint, informed_on date DEFAULT today()) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.complaint := ndrs_optout.locked_complaint(complaint_id);
BEGIN
    PERFORM ndrs_optout.checked_day(informed_on, 'the complainant was informed');
    UPDATE ndrs_optout.complaint c SET informed_on = inform_complainant.informed_on
        WHERE c.complaint_id = this.complaint_id;
    PERFORM ndrs_optout.audit('complainant_informed', jsonb_build_object('complaint', this.complaint_id));
END
$$;
COMMENT ON FUNCTION inform_complainant(bigint, date) IS
    'records that the complainant was told of the progress of a complaint; errors P0002, ND021 (it has its outcome), '
    '22023';

CREATE FUNCTION end_complaint(complaint_id bigint, outcome text, note text, ended_on date DEFAULT today()) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.complaint := ndrs_optout.locked_complaint(complaint_id);
BEGIN
    PERFORM ndrs_optout.checked_word(outcome, 'complaint_outcome', 'outcome');
    PERFORM ndrs_optout.checked_reason(note, 'note');
    PERFORM ndrs_optout.checked_day(ended_on, 'the complainant was told of the outcome');
    IF this.acknowledged_on IS NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('complaint %s is not acknowledged', complaint_id),
            hint => format('Write the letter with ndrs_optout.acknowledge_complaint(%s), and send it.', complaint_id));
    END IF;
    IF ended_on < this.acknowledged_on THEN
        PERFORM ndrs_optout.raise_error('22023', 'the complaint cannot have ended before it was acknowledged');
    END IF;
    UPDATE ndrs_optout.complaint c
        SET outcome = end_complaint.outcome, outcome_note = note, ended_on = end_complaint.ended_on,
            kept_until = ndrs_optout.copy_until()
        WHERE c.complaint_id = this.complaint_id;
    PERFORM ndrs_optout.audit('complaint_ended', jsonb_build_object('complaint', this.complaint_id,
                                                                    'outcome', outcome));
END
$$;
COMMENT ON FUNCTION end_complaint(bigint, text, text, date) IS
    'records the outcome of a complaint, upheld, partly_upheld, not_upheld or withdrawn, with a note on what was '
    'found and done, and the day on which the complainant was told. Its hold stays until lift_hold(), for the '
    'complainant may go to the Information Commissioner or a court. Errors P0002, ND021 (it has its outcome, or is '
    'not acknowledged), 22004, 22023';

-- The last of 30 days, of which the first is the day of receipt.
CREATE VIEW complaint_progress AS
    SELECT c.complaint_id, c.case_id, c.request_id, c.summary, c.received_on, f.due_on,
           CASE WHEN c.acknowledged_on IS NULL THEN f.due_on - today() END AS days_left,
           c.acknowledged_on IS NULL AND f.due_on < today() AS overdue,
           c.acknowledged_on, c.informed_on, c.outcome, c.outcome_note, c.ended_on,
           CASE WHEN c.outcome IS NULL THEN today() - c.received_on END AS days_open,
           h.hold_id,
           CASE WHEN c.acknowledged_on IS NULL
                    THEN pg_catalog.format('send SELECT ndrs_optout.acknowledge_complaint(%s)', c.complaint_id)
                WHEN c.outcome IS NULL
                    THEN pg_catalog.format('look into it, tell the complainant, and '
                                           'SELECT ndrs_optout.end_complaint(%s, ...)', c.complaint_id)
                WHEN h.hold_id IS NOT NULL
                    THEN pg_catalog.format('when nothing is to come, SELECT ndrs_optout.lift_hold(%s)', h.hold_id)
                END AS next_action
        FROM complaint c LEFT JOIN hold h USING (hold_id)
        CROSS JOIN LATERAL (SELECT c.received_on + 29 AS due_on) AS f
        ORDER BY c.outcome IS NOT NULL, c.acknowledged_on IS NOT NULL, f.due_on, c.complaint_id;
COMMENT ON VIEW complaint_progress IS
    'complaints, the most urgent first: the day by which each must be acknowledged, days left, how long it has been '
    'open, outcome, the hold that it has placed and what comes next';

CREATE VIEW complaint_count AS
    SELECT extract(year FROM c.received_on)::integer AS year, count(*) AS received,
           count(*) FILTER (WHERE c.acknowledged_on <= c.received_on + 29) AS acknowledged_in_time,
           count(*) FILTER (WHERE coalesce(c.acknowledged_on, today()) > c.received_on + 29) AS acknowledged_late,
           count(*) FILTER (WHERE c.outcome = 'upheld') AS upheld,
           count(*) FILTER (WHERE c.outcome = 'partly_upheld') AS partly_upheld,
           count(*) FILTER (WHERE c.outcome = 'not_upheld') AS not_upheld,
           count(*) FILTER (WHERE c.outcome = 'withdrawn') AS withdrawn,
           count(*) FILTER (WHERE c.outcome IS NULL) AS open
        FROM complaint c
        GROUP BY 1
        ORDER BY 1;
COMMENT ON VIEW complaint_count IS
    'complaints by the year in which they were received, as the Information Commissioner may ask for: acknowledged '
    'in time or late, outcomes, and open ones; of the years that are still kept';

INSERT INTO letter_kind (kind, about, required, description) VALUES
    ('complaint_acknowledgement', 'complaint', '{complaint,received}', 'when a complaint was received');
INSERT INTO letter_fact (about, fact, description) VALUES
    ('complaint', 'complaint', 'the number of the complaint'),
    ('complaint', 'received', 'the day on which the complaint was received'),
    ('complaint', 'held', 'what the complaint is about is held: nothing of it is destroyed'),
    ('complaint', 'contact', 'how to reach the registry, as the policy has it');
INSERT INTO letter_template (kind, version, body) VALUES
('complaint_acknowledgement', 0, $letter$Our reference: complaint {complaint}

# We have your complaint

We received it on {received}. Thank you for telling us.

# What happens next
We will look into what went wrong. We will tell you how it goes, and what we find.
{?held}Until then we destroy nothing that your complaint is about.

# If you want to tell us more
{?contact}Please contact us {contact}.
{!contact}Please write to us as you did before.

# If you are not happy with our answer
You can complain to the Information Commissioner's Office. Go to ico.org.uk or call 0303 123 1113.
You can also ask a court to decide.$letter$);
