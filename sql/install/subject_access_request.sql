-- subject_access_request: requests for a copy of all that is held about a patient, and their time.

-- Requests that must be answered in time.
CREATE TABLE subject_access_request (
    request_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    encoded_nhs_number encoded_nhs_number NOT NULL,
    applicant          applicant NOT NULL,
    competence         competence,  -- of a child whose parent asks
    received_on        date NOT NULL,
    identity_document  document,
    identity_on        date,
    authority_document document,  -- of who asks for the patient
    authority_on       date,
    clock_started_on   date,      -- when all proofs were there
    due_on             date,
    paused_on          date,      -- the applicant was asked something, and has not answered
    pause_reason       text,
    paused_days        integer NOT NULL DEFAULT 0,  -- of pauses that are over
    resumed_on         date,      -- after the last of them
    extension_reason   text,
    answered_at        timestamptz,
    refused_at         timestamptz,
    refusal_reason     text,
    CHECK ((due_on IS NULL) = (clock_started_on IS NULL)),
    CHECK ((paused_on IS NULL) = (pause_reason IS NULL)),
    CHECK ((refused_at IS NULL) = (refusal_reason IS NULL)),
    CHECK (answered_at IS NULL OR refused_at IS NULL)
);
COMMENT ON TABLE subject_access_request IS
    'requests for a copy of all that is held about a patient, who is known by the encoded NHS number only';
SELECT pg_catalog.pg_extension_config_dump('subject_access_request', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.subject_access_request', 'request_id')::regclass, '');

-- What an answer leaves out, and why: the applicant is told.
CREATE TABLE subject_access_withheld (
    entry_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request_id bigint NOT NULL,
    what       text NOT NULL,
    reason     text NOT NULL
);
COMMENT ON TABLE subject_access_withheld IS
    'what was withheld from the answer to a request for subject access, and why';
CREATE INDEX subject_access_withheld_request_id ON subject_access_withheld (request_id);
SELECT pg_catalog.pg_extension_config_dump('subject_access_withheld', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.subject_access_withheld', 'entry_id')::regclass, '');

-- The Information Commissioner's rule: the clock starts when who asks has proved who it is, and
-- does not run while they have not answered what they were asked.  Due is the same date in the next month, or in
-- the third when the request is complex; that month's last when it has no such date; on a weekend or a bank
-- holiday, the next working day.
CREATE FUNCTION subject_access_due(start date, months integer DEFAULT 1, paused_days integer DEFAULT 0) RETURNS date
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT min(d.day)
        FROM (SELECT (start + make_interval(months => months))::date + paused_days + n
                  FROM generate_series(0, 30) AS n) AS d (day)
        WHERE ndrs_optout.is_working_day(d.day)
$$;
COMMENT ON FUNCTION subject_access_due(date, integer, integer) IS
    'internal: the day by which a request must be answered whose clock started on the given day: the same date so many '
    'months later, or that month''s last day, and the days of pauses; or the next working day after it';

CREATE FUNCTION request_subject_access(number nhs_number, applicant text DEFAULT 'self',
    received_on date DEFAULT today(), competence text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    encoded ndrs_optout.encoded_nhs_number := ndrs_optout.encode_nhs_number(ndrs_optout.checked_patient(number));
    result bigint;
BEGIN
    PERFORM ndrs_optout.checked_receipt(received_on, 'the request');
    PERFORM ndrs_optout.checked_word(applicant, 'applicant', 'applicant');
    -- There is no age at which a child can ask in person: what counts is whether the child understands it.
    IF applicant = 'parent' THEN
        PERFORM ndrs_optout.checked_word(competence, 'competence', 'competence',
            hint => 'A child who is competent and does not agree asks in person.');
    ELSIF competence IS NOT NULL THEN
        PERFORM ndrs_optout.raise_error('22023', 'competence is that of a child whose parent asks');
    END IF;
    INSERT INTO ndrs_optout.subject_access_request (encoded_nhs_number, applicant, competence, received_on)
        VALUES (encoded, applicant, competence, received_on)
        RETURNING request_id INTO STRICT result;
    PERFORM ndrs_optout.audit('subject_access_requested', jsonb_strip_nulls(jsonb_build_object(
        'request', result, 'applicant', applicant, 'competence', competence)));
    RETURN result;
END
$$;
COMMENT ON FUNCTION request_subject_access(nhs_number, text, date, text) IS
    'records a request for subject access and returns its id. Its time runs from the day on which the proofs are '
    'there: record_subject_access_proof(). applicant: self, parent or representative. competence, of a child whose '
    'parent asks, at whatever age: not_competent or child_agrees, as the officer found; errors ND004, ND010, ND011, '
    '22004, 22023';

CREATE FUNCTION subject_access_missing(this subject_access_request) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY(SELECT m.proof FROM (VALUES (1, 'identity', this.identity_on),
                                             (2, 'authority', CASE this.applicant WHEN 'self' THEN this.received_on
                                                                   ELSE this.authority_on END)) AS m (place, proof, day)
                     WHERE m.day IS NULL ORDER BY m.place)
$$;
COMMENT ON FUNCTION subject_access_missing(subject_access_request) IS
    'internal: the proofs that a request still waits for: identity, and authority of who asks for the patient';

-- The id is not repeated: it may be a number that was put in the wrong place.
CREATE FUNCTION locked_subject_access(request_id bigint, open boolean DEFAULT false) RETURNS subject_access_request
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.subject_access_request;
BEGIN
    SELECT * INTO this FROM ndrs_optout.subject_access_request q
        WHERE q.request_id = locked_subject_access.request_id FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('P0002', 'there is no such subject access request',
            hint => 'View ndrs_optout.subject_access_progress lists the requests.');
    END IF;
    IF open AND (this.answered_at IS NOT NULL OR this.refused_at IS NOT NULL) THEN
        PERFORM ndrs_optout.raise_error('ND021', format('subject access request %s was %s already', request_id,
            CASE WHEN this.answered_at IS NULL THEN 'refused' ELSE 'answered' END));
    END IF;
    RETURN this;
END
$$;
COMMENT ON FUNCTION locked_subject_access(bigint, boolean) IS
    'internal: a request, locked; open: neither answered nor refused; errors P0002, ND021';

CREATE FUNCTION record_subject_access_proof(request_id bigint, proof text, document text,
    received_on date DEFAULT today())
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.subject_access_request := ndrs_optout.locked_subject_access(request_id, open => true);
BEGIN
    IF (proof IN ('identity', 'authority') AND document = ANY (ndrs_optout.words(proof))
            AND (proof = 'identity' OR this.applicant <> 'self')) IS NOT TRUE THEN
        PERFORM ndrs_optout.raise_error('22023', 'the document is not accepted as proof',
            hint => 'Proof of "identity": "passport" or "driving_licence". Proof of "authority" of who asks for the '
                    'patient: "power_of_attorney", "deputyship", "court_order" or "parental_responsibility".');
    END IF;
    PERFORM ndrs_optout.checked_receipt(received_on, 'the proof');
    IF proof = 'identity' THEN
        this.identity_document := document;
        this.identity_on := received_on;
    ELSE
        this.authority_document := document;
        this.authority_on := received_on;
    END IF;
    -- What runs already is not begun anew by another proof.
    IF ndrs_optout.subject_access_missing(this) = '{}' THEN
        this.clock_started_on := least(this.clock_started_on,
                                       greatest(this.received_on, this.identity_on, this.authority_on));
        this.due_on := ndrs_optout.subject_access_due(this.clock_started_on,
            CASE WHEN this.extension_reason IS NULL THEN 1 ELSE 3 END, this.paused_days);
    END IF;
    UPDATE ndrs_optout.subject_access_request q
        SET identity_document = this.identity_document, identity_on = this.identity_on,
            authority_document = this.authority_document, authority_on = this.authority_on,
            clock_started_on = this.clock_started_on, due_on = this.due_on
        WHERE q.request_id = this.request_id;
    PERFORM ndrs_optout.audit('subject_access_proved', jsonb_build_object('request', this.request_id, 'proof', proof));
END
$$;
COMMENT ON FUNCTION record_subject_access_proof(bigint, text, text, date) IS
    'records that who asks for subject access has proved identity (passport, driving_licence), or authority, where '
    'they ask for the patient (power_of_attorney, deputyship, court_order, parental_responsibility). The time runs '
    'from the day on which all are there; only kind and day are kept. Errors P0002, ND021 (answered or refused), '
    '22023';

CREATE FUNCTION pause_subject_access(request_id bigint, reason text, paused_on date DEFAULT today()) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.subject_access_request := ndrs_optout.locked_subject_access(request_id, open => true);
BEGIN
    PERFORM ndrs_optout.checked_reason(reason);
    PERFORM ndrs_optout.checked_day(paused_on, 'the applicant was asked');
    IF this.clock_started_on IS NULL OR this.paused_on IS NOT NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('the time of subject access request %s is not running',
                                                        request_id));
    END IF;
    IF paused_on < greatest(this.clock_started_on, this.resumed_on) THEN
        PERFORM ndrs_optout.raise_error('22023', 'the time cannot have been paused before it began, or went on');
    END IF;
    UPDATE ndrs_optout.subject_access_request q SET paused_on = pause_subject_access.paused_on, pause_reason = reason
        WHERE q.request_id = this.request_id;
    PERFORM ndrs_optout.audit('subject_access_paused',
        jsonb_build_object('request', this.request_id, 'reason', reason));
END
$$;
COMMENT ON FUNCTION pause_subject_access(bigint, text, date) IS
    'pauses the time of a request because the applicant was asked which data is meant, until resume_subject_access(). '
    'Audited with the reason; errors P0002, ND021 (answered, refused, paused or not proved yet), 22004, 22023';

CREATE FUNCTION resume_subject_access(request_id bigint, resumed_on date DEFAULT today()) RETURNS date
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.subject_access_request := ndrs_optout.locked_subject_access(request_id, open => true);
BEGIN
    PERFORM ndrs_optout.checked_receipt(resumed_on, 'the applicant''s answer');
    IF this.paused_on IS NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('the time of subject access request %s is not paused',
                                                        request_id));
    END IF;
    IF resumed_on < this.paused_on THEN
        PERFORM ndrs_optout.raise_error('22023', 'the time cannot go on before it was paused');
    END IF;
    this.paused_days := this.paused_days + (resumed_on - this.paused_on);
    this.due_on := ndrs_optout.subject_access_due(this.clock_started_on,
        CASE WHEN this.extension_reason IS NULL THEN 1 ELSE 3 END, this.paused_days);
    UPDATE ndrs_optout.subject_access_request q
        SET paused_on = NULL, pause_reason = NULL, paused_days = this.paused_days, due_on = this.due_on,
            resumed_on = resume_subject_access.resumed_on
        WHERE q.request_id = this.request_id;
    PERFORM ndrs_optout.audit('subject_access_resumed', jsonb_build_object('request', this.request_id,
                                                                           'due_on', this.due_on));
    RETURN this.due_on;
END
$$;
COMMENT ON FUNCTION resume_subject_access(bigint, date) IS
    'lets the time of a request go on, from the day on which the applicant answered; returns the day by which it is '
    'due. Errors P0002, ND021 (answered, refused or not paused), 22023';

-- The applicant must be told, with the reason, before the first month is over.
CREATE FUNCTION extend_subject_access(request_id bigint, reason text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.subject_access_request := ndrs_optout.locked_subject_access(request_id, open => true);
BEGIN
    PERFORM ndrs_optout.checked_reason(reason);
    IF this.clock_started_on IS NULL OR this.extension_reason IS NOT NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('the time of subject access request %s cannot be extended',
                                                        request_id),
            detail => CASE WHEN this.clock_started_on IS NULL THEN 'It has not begun: proofs are missing.'
                           ELSE 'It was extended before.' END);
    END IF;
    IF this.due_on < coalesce(this.paused_on, ndrs_optout.today()) THEN
        PERFORM ndrs_optout.raise_error('ND021', format('the time of subject access request %s is over', request_id),
            detail => 'It can be extended within the first month only.');
    END IF;
    this.extension_reason := reason;
    this.due_on := ndrs_optout.subject_access_due(this.clock_started_on, 3, this.paused_days);
    UPDATE ndrs_optout.subject_access_request q SET extension_reason = reason, due_on = this.due_on
        WHERE q.request_id = this.request_id;
    PERFORM ndrs_optout.audit('subject_access_extended', jsonb_build_object('request', this.request_id,
        'reason', reason, 'due_on', this.due_on));
    RETURN ndrs_optout.subject_access_letter_text(this, 'subject_access_extension');
END
$$;
COMMENT ON FUNCTION extend_subject_access(bigint, text) IS
    'extends the time of a request to three months, because it is complex, and returns the letter to the applicant, '
    'which gives the reason. Errors P0002, ND021 (answered, refused, not proved yet, extended before, or too late), '
    '22004, 22023';

CREATE FUNCTION refuse_subject_access(request_id bigint, reason text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.subject_access_request := ndrs_optout.locked_subject_access(request_id, open => true);
BEGIN
    this.refusal_reason := ndrs_optout.checked_reason(reason);
    UPDATE ndrs_optout.subject_access_request q SET refused_at = clock_timestamp(), refusal_reason = reason
        WHERE q.request_id = this.request_id;
    PERFORM ndrs_optout.audit('subject_access_refused', jsonb_build_object('request', this.request_id,
                                                                           'reason', reason));
    RETURN ndrs_optout.subject_access_letter_text(this, 'subject_access_refusal');
END
$$;
COMMENT ON FUNCTION refuse_subject_access(bigint, text) IS
    'refuses a request for subject access and returns the letter to the applicant, with the reason and the right to '
    'complain. Errors P0002, ND021 (answered or refused), 22004, 22023';

CREATE FUNCTION withhold_from_subject_access(request_id bigint, what text, reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.subject_access_request := ndrs_optout.locked_subject_access(request_id);
BEGIN
    INSERT INTO ndrs_optout.subject_access_withheld (request_id, what, reason)
        VALUES (this.request_id, ndrs_optout.checked_reason(what, 'description'), ndrs_optout.checked_reason(reason));
    PERFORM ndrs_optout.audit('subject_access_withheld', jsonb_build_object('request', this.request_id, 'what', what,
                                                                            'reason', reason));
END
$$;
COMMENT ON FUNCTION withhold_from_subject_access(bigint, text, text) IS
    'records what is left out of the answer to a request, such as rows that are about another person, and why; the '
    'cover letter says it. No identifier goes into either. Audited; errors P0002, 22004, 22023';

CREATE FUNCTION subject_access_letter_text(this subject_access_request, kind text) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.letter_from_template((ndrs_optout.current_letter_template(kind, 'en', 'standard')).body,
        jsonb_build_object(
            'request', this.request_id,
            'received', ndrs_optout.english_date(this.received_on),
            'whose', CASE this.applicant WHEN 'self' THEN 'you' WHEN 'parent' THEN 'your child'
                         ELSE 'the person you act for' END,
            'due', ndrs_optout.english_date(this.due_on),
            'extension_reason', this.extension_reason,
            'refusal_reason', this.refusal_reason,
            'withheld', (SELECT string_agg(format('- %s: %s', w.what, w.reason), E'\n' ORDER BY w.entry_id)
                             FROM ndrs_optout.subject_access_withheld w WHERE w.request_id = this.request_id),
            'audit_years', p.audit_years, 'subject_access_years', p.subject_access_years,
            'contact', p.contact))
        FROM ndrs_optout.policy p
$$;
COMMENT ON FUNCTION subject_access_letter_text(subject_access_request, text) IS
    'internal: a letter about a request for subject access, by its template';

CREATE FUNCTION subject_access_letter(request_id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.subject_access_request := ndrs_optout.locked_subject_access(request_id);
BEGIN
    IF this.answered_at IS NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('subject access request %s is not answered', request_id));
    END IF;
    RETURN ndrs_optout.subject_access_letter_text(this, 'subject_access_cover');
END
$$;
COMMENT ON FUNCTION subject_access_letter(bigint) IS
    'the letter that goes with the answer to a request for subject access: why the data is held, who gets it, how '
    'long it is kept, where it is from, the patient''s rights, and what was withheld and why. Errors P0002, ND021 '
    '(not answered)';

CREATE VIEW subject_access_progress AS
    SELECT q.request_id, q.applicant, q.received_on, m.missing, q.due_on,
           CASE WHEN f.running THEN q.due_on - today() END AS days_left,
           coalesce(f.running AND q.due_on < today(), false) AS overdue,
           q.paused_on, q.pause_reason, q.extension_reason, q.answered_at, q.refused_at,
           CASE WHEN NOT f.open THEN NULL
                WHEN q.clock_started_on IS NULL
                    THEN 'ask for proof of ' || pg_catalog.array_to_string(m.missing, ' and ')
                WHEN q.paused_on IS NOT NULL
                    THEN pg_catalog.format('on an answer, SELECT ndrs_optout.resume_subject_access(%s)', q.request_id)
                ELSE pg_catalog.format('SELECT * FROM ndrs_optout.answer_subject_access(%s, ...)',  -- told, not called
                                       q.request_id) END AS next_action
        FROM subject_access_request q
        CROSS JOIN LATERAL (
            SELECT pg_catalog.array_remove(ARRAY[CASE WHEN q.identity_on IS NULL THEN 'identity' END,
                CASE WHEN q.applicant <> 'self' AND q.authority_on IS NULL THEN 'authority' END], NULL) AS missing) AS m
        CROSS JOIN LATERAL (SELECT pg_catalog.num_nonnulls(q.answered_at, q.refused_at) = 0 AS open,
                                   pg_catalog.num_nonnulls(q.answered_at, q.refused_at, q.paused_on) = 0 AS running)
            AS f
        ORDER BY f.open DESC, q.due_on, q.request_id;
COMMENT ON VIEW subject_access_progress IS
    'requests for subject access, the most urgent first: missing proofs, due date, days left unless paused, and what '
    'comes next';

-- The letters.
INSERT INTO letter_kind (kind, about, required, description) VALUES
    ('subject_access_cover', 'subject_access', '{request,withheld}', 'with the answer to a request for subject access'),
    ('subject_access_extension', 'subject_access', '{due,extension_reason}',
     'when the time of a request for subject access is extended'),
    ('subject_access_refusal', 'subject_access', '{refusal_reason}', 'when a request for subject access is refused');
INSERT INTO letter_fact (about, fact, description) VALUES
    ('subject_access', 'request', 'the number of the request'),
    ('subject_access', 'received', 'the day on which the request was received'),
    ('subject_access', 'whose', 'whom the data is about: you, your child, or the person you act for'),
    ('subject_access', 'due', 'the day by which we must answer'),
    ('subject_access', 'extension_reason', 'why it takes longer'),
    ('subject_access', 'refusal_reason', 'why the request is refused'),
    ('subject_access', 'withheld', 'what was left out, and why: a list'),
    ('subject_access', 'audit_years', 'for how many years the record of what was done is kept'),
    ('subject_access', 'subject_access_years', 'for how many years the request is kept'),
    ('subject_access', 'contact', 'how to reach the registry, as the policy has it');
INSERT INTO letter_template (kind, version, body) VALUES
('subject_access_cover', 0, $letter$Our reference: subject access request {request}

# The data that we hold about {whose}

You asked us for a copy on {received}. It is with this letter.

# Why we hold it
We collect data about diseases to learn how to prevent and treat them.
The law lets us do this as a public task.

# What it is
Each page says which table of our database it is from.
There are details of the person, the disease and its treatment.

# Where it is from
Hospitals, laboratories and other parts of the NHS send it to us.

# Who we share it with
The copy names each organisation that we gave the data to, and why.

# How long we keep it
We keep it as long as the register needs it. We keep your request for {subject_access_years} years after our answer.

# What we left out
{!withheld}We left nothing out.
{?withheld}We did not send you these parts:

{withheld}

# Your rights
You can ask us to correct the data, or to limit how we use it. You can opt out of the register. Then we delete the data.
We make no decision about anyone by computer alone.

# If you are not happy with our answer
{?contact}Please contact us {contact}.
{!contact}Please contact us as you did before.
You can also complain to the Information Commissioner's Office. Go to ico.org.uk or call 0303 123 1113.
You can also ask a court to decide.$letter$),
('subject_access_extension', 0, $letter$Our reference: subject access request {request}

# We need more time

You asked us on {received} for a copy of the data about {whose}. We will answer by {due}.

This is why we need more time: {extension_reason}

# If you are not happy with this
{?contact}Please contact us {contact}.
{!contact}Please contact us as you did before.
You can also complain to the Information Commissioner's Office. Go to ico.org.uk or call 0303 123 1113.$letter$),
('subject_access_refusal', 0, $letter$Our reference: subject access request {request}

# We cannot send you a copy

You asked us on {received} for a copy of the data about {whose}. We will not send it.

This is why: {refusal_reason}

# If you are not happy with this
{?contact}Please contact us {contact}.
{!contact}Please contact us as you did before.
You can also complain to the Information Commissioner's Office. Go to ico.org.uk or call 0303 123 1113.
You can also ask a court to decide.$letter$);
