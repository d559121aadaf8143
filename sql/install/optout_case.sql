-- optout_case: one request, from receipt to completion.

CREATE TABLE policy (
    only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    deadline_days integer NOT NULL DEFAULT 20 CHECK (deadline_days > 0),
    child_age     integer NOT NULL DEFAULT 13 CHECK (child_age > 0)
);
INSERT INTO policy DEFAULT VALUES;
-- not dumped: a row comes with the extension; until a site can change it through
-- a function, what it changed by hand it has to change again.

CREATE TABLE optout_case (
    case_id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    encoded_nhs_number encoded_nhs_number NOT NULL,
    registers          text[] NOT NULL,
    applicant          text NOT NULL CHECK (applicant IN ('self', 'parent', 'representative')),
    channel            text NOT NULL CHECK (channel IN ('email', 'online', 'post')),
    form_received_on   date NOT NULL,
    state              text NOT NULL DEFAULT 'awaiting_identity' CHECK (state IN
        ('awaiting_identity', 'ready', 'excluded', 'carried_out', 'completed', 'withdrawn', 'refused')),
    clock_started_on   date,
    date_of_birth      date,  -- until completion
    identity_confirmed boolean NOT NULL DEFAULT false,
    excluded_at        timestamptz,
    carried_out_at     timestamptz,
    completed_at       timestamptz,
    proofs_destroyed   integer
);
SELECT pg_catalog.pg_extension_config_dump('optout_case', '');
SELECT pg_catalog.pg_extension_config_dump(pg_catalog.pg_get_serial_sequence('ndrs_optout.optout_case', 'case_id')::regclass, '');

-- That a proof was seen; destroyed at completion.
CREATE TABLE identity_evidence (
    case_id     bigint,
    proof       text CHECK (proof IN ('identity', 'address')),
    document    text NOT NULL,
    received_on date NOT NULL,
    PRIMARY KEY (case_id, proof),
    CHECK (document IN ('passport', 'driving_licence') AND proof = 'identity'
           OR document IN ('utility_bill', 'bank_statement') AND proof = 'address')
);
SELECT pg_catalog.pg_extension_config_dump('identity_evidence', '');

-- For what must see everything that was committed before each of its statements.
CREATE FUNCTION require_read_committed() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM ndrs_optout.refuse('25000',
            'this works only at isolation level READ COMMITTED',
            detail => 'Otherwise what was committed meanwhile would not be seen.');
    END IF;
END
$$;

-- What an officer or a patient is told must survive a crash from then on, whatever
-- synchronous_commit says.
CREATE FUNCTION commit_durably() RETURNS void
    AS 'MODULE_PATHNAME', 'ndrs_optout_commit_durably'
    LANGUAGE C VOLATILE;

CREATE FUNCTION open_case(number nhs_number, registers text[], applicant text DEFAULT 'self',
    channel text DEFAULT 'email', form_received_on date DEFAULT current_date, date_of_birth date DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    encoded ndrs_optout.encoded_nhs_number := ndrs_optout.encode_nhs_number(ndrs_optout.checked_patient(number));
    codes text[] := ndrs_optout.checked_registers(registers);
    age_limit integer;
    other bigint;
    result bigint;
BEGIN
    IF applicant IS NULL OR applicant NOT IN ('self', 'parent', 'representative') THEN
        PERFORM ndrs_optout.refuse('22023',
            'applicant must be "self", "parent" or "representative"');
    END IF;
    IF channel IS NULL OR channel NOT IN ('email', 'online', 'post') THEN
        PERFORM ndrs_optout.refuse('22023',
            'channel must be "email", "online" or "post"');
    END IF;
    IF (form_received_on <= current_date AND isfinite(form_received_on)) IS NOT TRUE THEN
        PERFORM ndrs_optout.refuse('22023',
            'the day on which the form was received must be today or before');
    END IF;
    IF date_of_birth > form_received_on OR NOT isfinite(date_of_birth) THEN
        PERFORM ndrs_optout.refuse('22023',
            'the date of birth must not be after the day on which the form was received');
    END IF;
    IF applicant = 'parent' THEN
        IF date_of_birth IS NULL THEN
            PERFORM ndrs_optout.refuse('22004',
                'a parent''s request needs the child''s date of birth');
        END IF;
        SELECT child_age INTO STRICT age_limit FROM ndrs_optout.policy;
        IF date_of_birth + make_interval(years => age_limit) <= form_received_on THEN
            PERFORM ndrs_optout.refuse('22023',
                format('a parent can opt a child out only under the age of %s', age_limit),
                detail => 'The age counts on the day on which the form was received.',
                hint => 'The patient can apply in person, or a representative where competency is in question.');
        END IF;
    END IF;

    -- One open case for a patient and register; the lock keeps two requests
    -- that come at once from missing each other.
    PERFORM ndrs_optout.require_read_committed();
    PERFORM pg_advisory_xact_lock(hashtextextended('ndrs_optout.open_case ' || encoded::text, 0));
    SELECT c.case_id INTO other FROM ndrs_optout.optout_case c
        WHERE c.encoded_nhs_number OPERATOR(ndrs_optout.=) encoded AND c.registers && codes
            AND c.state NOT IN ('completed', 'withdrawn', 'refused')
        ORDER BY c.case_id LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.refuse('23505',
            'the patient has an open case for one of these registers',
            detail => format('It is case %s.', other),
            hint => 'Go on with that case, or name only the other registers.');
    END IF;

    INSERT INTO ndrs_optout.optout_case
            (encoded_nhs_number, registers, applicant, channel, form_received_on, date_of_birth)
        VALUES (encoded, codes, applicant, channel, form_received_on, date_of_birth)
        RETURNING case_id INTO STRICT result;
    RETURN result;
END
$$;

-- A case, locked against other officers until the end of the transaction, if it
-- is in one of these states.
CREATE FUNCTION locked_case(case_id bigint, states text[]) RETURNS optout_case
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result ndrs_optout.optout_case;
BEGIN
    SELECT * INTO result FROM ndrs_optout.optout_case c WHERE c.case_id = locked_case.case_id FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.refuse('P0002',
            format('case %s does not exist', coalesce(case_id::text, 'NULL')),
            hint => 'View ndrs_optout.case_progress lists the cases.');
    END IF;
    IF result.state <> ALL (states) THEN
        PERFORM ndrs_optout.refuse(CASE result.state WHEN 'awaiting_identity' THEN 'ND020' ELSE 'ND021' END,
            format('case %s is %s', case_id, replace(result.state, '_', ' ')),
            detail => format('This needs a case that is %s.', replace(array_to_string(states, ' or '), '_', ' ')),
            hint => 'View ndrs_optout.case_progress says what comes next.');
    END IF;
    RETURN result;
END
$$;

CREATE FUNCTION record_identity(case_id bigint, proof text, document text, received_on date DEFAULT current_date)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, '{awaiting_identity}');
BEGIN
    IF (proof = 'identity' AND document IN ('passport', 'driving_licence')
        OR proof = 'address' AND document IN ('utility_bill', 'bank_statement')) IS NOT TRUE THEN
        PERFORM ndrs_optout.refuse('22023',
            'this document does not prove that',
            hint => 'Proof of "identity": "passport" or "driving_licence". Proof of "address": "utility_bill" or "bank_statement".');
    END IF;
    IF (received_on <= current_date AND isfinite(received_on)) IS NOT TRUE THEN
        PERFORM ndrs_optout.refuse('22023',
            'the day on which the proof was received must be today or before');
    END IF;

    -- To see the other proof, whoever has recorded it.
    PERFORM ndrs_optout.require_read_committed();
    INSERT INTO ndrs_optout.identity_evidence AS e (case_id, proof, document, received_on)
        VALUES (case_id, proof, document, received_on)
        ON CONFLICT ON CONSTRAINT identity_evidence_pkey
            DO UPDATE SET document = excluded.document, received_on = excluded.received_on;

    -- The clock runs from the day on which the form and both proofs are there.
    UPDATE ndrs_optout.optout_case c
        SET state = 'ready', clock_started_on = greatest(this.form_received_on, e.last_received_on)
        FROM (SELECT count(*) AS proofs, max(e.received_on) AS last_received_on
                  FROM ndrs_optout.identity_evidence e WHERE e.case_id = record_identity.case_id) AS e
        WHERE c.case_id = record_identity.case_id AND e.proofs = 2;
END
$$;

CREATE VIEW case_progress AS
    SELECT c.case_id, c.state, c.registers,
           d.due_on,
           CASE WHEN f.finished THEN NULL ELSE d.due_on - current_date END AS days_left,
           coalesce(NOT f.finished AND d.due_on < current_date, false) AS overdue,
           m.missing,
           CASE c.state
               WHEN 'awaiting_identity' THEN 'ask the applicant for ' || pg_catalog.array_to_string(m.missing, ' and ')
               WHEN 'ready' THEN pg_catalog.format('CALL ndrs_optout.carry_out(%s, ...)', c.case_id)
               WHEN 'excluded' THEN pg_catalog.format('CALL ndrs_optout.carry_out(%s, ...) again', c.case_id)
               WHEN 'carried_out' THEN pg_catalog.format('SELECT ndrs_optout.complete_case(%s)', c.case_id)
           END AS next_action
        FROM optout_case c
        CROSS JOIN policy p
        CROSS JOIN LATERAL (SELECT c.clock_started_on + p.deadline_days AS due_on) AS d
        CROSS JOIN LATERAL (SELECT c.state IN ('completed', 'withdrawn', 'refused') AS finished) AS f
        CROSS JOIN LATERAL (
            SELECT CASE WHEN c.state <> 'awaiting_identity' THEN '{}' ELSE ARRAY(
                SELECT 'proof of ' || w.proof FROM (VALUES (1, 'identity'), (2, 'address')) AS w (position, proof)
                    WHERE NOT EXISTS (SELECT FROM identity_evidence e
                                      WHERE e.case_id = c.case_id AND e.proof = w.proof)
                    ORDER BY w.position) END AS missing) AS m
        ORDER BY f.finished, d.due_on NULLS LAST, c.case_id;

COMMENT ON TABLE policy IS 'one row: deadline in days, age below which a parent can opt a child out';
COMMENT ON TABLE optout_case IS 'opt-out cases: one request each, from receipt to completion; the patient is known by the encoded NHS number only';
COMMENT ON TABLE identity_evidence IS 'which proofs of identity and address have been seen for a case; destroyed when the case is completed';
COMMENT ON FUNCTION require_read_committed() IS 'error 25000 at another isolation level than READ COMMITTED';
COMMENT ON FUNCTION commit_durably() IS 'makes the commit of this transaction wait for its WAL to be on disk';
COMMENT ON FUNCTION open_case(nhs_number, text[], text, text, date, date) IS
    'opens a case for a request to opt out of registers and returns its id. applicant: self, parent (needs date_of_birth, child under the policy''s age when the form came) or representative; channel: email, online or post; errors ND004, ND010, ND011, 22004, 22023, 23505 (the patient has an open case), 25000, 42704';
COMMENT ON FUNCTION locked_case(bigint, text[]) IS 'a case, locked, if it is in one of these states; errors P0002 (no such case), ND020 (not ready), ND021 (not lawful now)';
COMMENT ON FUNCTION record_identity(bigint, text, text, date) IS
    'records that a proof was received: proof identity (passport, driving_licence) or address (utility_bill, bank_statement); with both the case is ready and its clock starts; errors P0002, ND021, 22023, 25000';
COMMENT ON VIEW case_progress IS 'the cases, the most urgent first: state, due date, days left, what is missing and what comes next';
