-- optout_case: one request, from receipt to completion.

CREATE TABLE optout_case (
    case_id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind               text NOT NULL DEFAULT 'opt_out' CHECK (kind IN ('opt_out', 'opt_in')),
    encoded_nhs_number encoded_nhs_number,
    registers          text[] NOT NULL,
    applicant          applicant NOT NULL,
    channel            channel NOT NULL,
    received_on        date NOT NULL,
    recorded_at        timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    state              text NOT NULL DEFAULT 'awaiting_identity' CHECK (state IN
        ('awaiting_identity', 'ready', 'excluded', 'carried_out', 'completed', 'withdrawn', 'refused')),
    clock_started_on   date,
    due_on             date,
    date_of_birth      date,  -- until the case ends
    identity_confirmed boolean NOT NULL DEFAULT false,
    guardian_call      guardian_call,
    excluded_at        timestamptz,  -- by this case
    listed_since       timestamptz,  -- on the list of each of its registers, by whatever case
    carried_out_at     timestamptz,
    erased_from        pg_lsn,
    erased_to          pg_lsn,
    erased_by          xid8,
    ended_at           timestamptz,
    copy_until         date,  -- promised when the case ended
    refusal_reason     text,
    proofs_destroyed   integer,
    holds_overridden_at timestamptz,
    extension_reason   text,
    extended_at        timestamptz,
    expired            boolean NOT NULL DEFAULT false,  -- withdrawn by the purge, since proofs never came
    letter_language    text COLLATE "C" NOT NULL DEFAULT 'en',
    letter_format      letter_format NOT NULL DEFAULT 'standard',
    recalls            integer,  -- notices raised, whether they are still on record or not
    not_told           integer,  -- releases for care, whose recipients are not told
    CHECK (encoded_nhs_number IS NOT NULL OR state IN ('withdrawn', 'refused'))
);
COMMENT ON TABLE optout_case IS
    'cases of opting out, and of opting in again: one request each, from receipt to completion; the patient is known '
    'by the encoded NHS number only, which a refused or withdrawn case loses with its copy';
SELECT pg_catalog.pg_extension_config_dump('optout_case', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.optout_case', 'case_id')::regclass, '');

-- What is lawful in which state, and which states may follow; the whole of it.
CREATE TABLE case_action (
    action     text,
    state      text,
    next_state text,
    PRIMARY KEY (action, state, next_state)
);
COMMENT ON TABLE case_action IS 'internal: what is lawful in which state of a case, and which states may follow';
INSERT INTO case_action (action, state, next_state) VALUES
    ('record_identity', 'awaiting_identity', 'awaiting_identity'),
    ('record_identity', 'awaiting_identity', 'ready'),
    ('record_guardian_call', 'awaiting_identity', 'awaiting_identity'),
    ('record_guardian_call', 'ready', 'ready'),
    ('record_guardian_call', 'excluded', 'excluded'),
    ('record_guardian_call', 'carried_out', 'carried_out'),
    ('record_guardian_call', 'completed', 'completed'),
    ('record_correspondence', 'awaiting_identity', 'awaiting_identity'),
    ('record_correspondence', 'ready', 'ready'),
    ('record_correspondence', 'excluded', 'excluded'),
    ('record_correspondence', 'carried_out', 'carried_out'),
    ('record_correspondence', 'completed', 'completed'),
    ('record_correspondence', 'withdrawn', 'withdrawn'),
    ('record_correspondence', 'refused', 'refused'),
    ('withdraw', 'awaiting_identity', 'withdrawn'),
    ('withdraw', 'ready', 'withdrawn'),
    ('refuse', 'awaiting_identity', 'refused'),
    ('refuse', 'ready', 'refused'),
    ('expire', 'awaiting_identity', 'withdrawn'),
    ('confirm_identity', 'ready', 'ready'),
    ('confirm_identity', 'excluded', 'excluded'),
    ('confirm_identity', 'carried_out', 'carried_out'),
    ('exclude', 'ready', 'excluded'),
    ('exclude', 'excluded', 'excluded'),
    ('exclude', 'carried_out', 'excluded'),
    ('certify', 'excluded', 'carried_out'),
    ('certify', 'carried_out', 'carried_out'),
    ('complete', 'carried_out', 'completed'),
    ('write_letter', 'completed', 'completed'),
    ('extend', 'ready', 'ready'),
    ('extend', 'excluded', 'excluded'),
    ('extend', 'carried_out', 'carried_out'),
    ('hold', 'awaiting_identity', 'awaiting_identity'),
    ('hold', 'ready', 'ready'),
    ('hold', 'excluded', 'excluded'),
    ('hold', 'carried_out', 'carried_out'),
    ('hold', 'completed', 'completed'),
    ('hold', 'withdrawn', 'withdrawn'),
    ('hold', 'refused', 'refused'),
    ('certificate', 'carried_out', 'carried_out'),
    ('certificate', 'completed', 'completed');
-- not dumped: it comes with the extension.

-- That a proof was seen, and its content as ciphertext where that was given;
-- destroyed when the case ends.
CREATE TABLE identity_evidence (
    case_id     bigint,
    proof       proof,
    document    document NOT NULL,
    proof_of    proof_of NOT NULL DEFAULT 'applicant',
    received_on date NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    content     bytea,
    PRIMARY KEY (case_id, proof),
    CHECK (document = ANY (words(proof)))
);
COMMENT ON TABLE identity_evidence IS
    'which proofs of identity, address and authority have been seen for a case, and whose they are, with their content '
    'as ciphertext if it was given; destroyed when the case ends';
SELECT pg_catalog.pg_extension_config_dump('identity_evidence', '');

-- Every move of every case, however it comes about: lawful, or an error; and an
-- event in the audit.
CREATE FUNCTION case_moves() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ndrs_optout.case_action a WHERE a.state = OLD.state AND a.next_state = NEW.state) THEN
        PERFORM ndrs_optout.raise_error('ND021', format('case %s cannot become %s', NEW.case_id,
                                                        replace(NEW.state, '_', ' ')));
    END IF;
    IF NEW.state <> OLD.state THEN
        PERFORM ndrs_optout.audit('case_' || NEW.state, jsonb_build_object('case', NEW.case_id));
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION case_moves() IS
    'internal: trigger function: error ND021 for a move that case_action does not have; audits the others';
CREATE TRIGGER case_moves BEFORE UPDATE OF state ON optout_case FOR EACH ROW EXECUTE FUNCTION case_moves();
COMMENT ON TRIGGER case_moves ON optout_case IS 'moves are lawful, and audited';

-- Not a trigger's: a restore brings cases too.
CREATE FUNCTION audit_opened(case_id bigint) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.audit('case_opened', jsonb_build_object('case', c.case_id, 'kind', c.kind, 'registers',
                                                               c.registers,
                                                               'applicant', c.applicant, 'channel', c.channel))
        FROM ndrs_optout.optout_case c WHERE c.case_id = audit_opened.case_id
$$;
COMMENT ON FUNCTION audit_opened(bigint) IS 'internal: audits that a case was opened';

-- Who asks, and a parent only for a child.
CREATE FUNCTION check_applicant(applicant text, date_of_birth date, received_on date) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    age_limit integer;
BEGIN
    PERFORM ndrs_optout.checked_word(applicant, 'applicant', 'applicant');
    IF date_of_birth > received_on OR NOT isfinite(date_of_birth) THEN
        PERFORM ndrs_optout.raise_error('22023',
            'the date of birth must not be after the day on which the request was received');
    END IF;
    IF applicant = 'parent' THEN
        IF date_of_birth IS NULL THEN
            PERFORM ndrs_optout.raise_error('22004',
                'a parent''s request needs the child''s date of birth');
        END IF;
        SELECT child_age INTO STRICT age_limit FROM ndrs_optout.policy;
        IF date_of_birth + make_interval(years => age_limit) <= received_on THEN
            PERFORM ndrs_optout.raise_error('22023',
                format('a parent can act for a child only under the age of %s', age_limit),
                detail => 'The age counts on the day on which the request was received.',
                hint => 'The patient can apply in person, or a representative where competency is in question.');
        END IF;
    END IF;
END
$$;
COMMENT ON FUNCTION check_applicant(text, date, date) IS
    'internal: errors 22004 and 22023 unless applicant is self, parent or representative, and a parent''s child is '
    'under the policy''s age on the day on which the request was received';

-- Until the end of the transaction, for one at a time.
CREATE FUNCTION lock_patient(encoded encoded_nhs_number) RETURNS void
    AS 'MODULE_PATHNAME', 'ndrs_optout_lock_patient'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION lock_patient(encoded_nhs_number) IS
    'internal: lets one transaction at a time go on for a patient; error 55P03 after lock_timeout';

-- One open case for a patient and register; the lock keeps two requests that
-- come at once from missing each other.
CREATE FUNCTION case_must_be_only_one(encoded encoded_nhs_number, registers text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    other bigint;
BEGIN
    PERFORM ndrs_optout.require_read_committed();
    PERFORM ndrs_optout.lock_patient(encoded);
    SELECT c.case_id INTO other FROM ndrs_optout.optout_case c
        WHERE c.encoded_nhs_number OPERATOR(ndrs_optout.=) encoded AND c.registers && case_must_be_only_one.registers
            AND c.ended_at IS NULL
        ORDER BY c.case_id LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.raise_error('23505',
            'the patient has an open case for one of these registers',
            detail => format('It is case %s.', other),
            hint => 'Go on with that case, or name only the other registers.');
    END IF;
END
$$;
COMMENT ON FUNCTION case_must_be_only_one(encoded_nhs_number, text[]) IS
    'internal: error 23505 when the patient has an open case for one of the registers; no other can be opened until '
    'the transaction ends';

-- What opting out and opting in again ask of a request.
CREATE FUNCTION check_request(encoded encoded_nhs_number, registers text[], applicant text, channel text,
    received_on date, what text, date_of_birth date) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.checked_word(channel, 'channel', 'channel');
    PERFORM ndrs_optout.checked_receipt(received_on, what);
    PERFORM ndrs_optout.check_applicant(applicant, date_of_birth, received_on);
    PERFORM ndrs_optout.case_must_be_only_one(encoded, registers);
END
$$;
COMMENT ON FUNCTION check_request(encoded_nhs_number, text[], text, text, date, text, date) IS
    'internal: errors 22004, 22023, 23505 and 25000 unless a request that came by this channel on this day, from this '
    'applicant, can be taken';

CREATE FUNCTION open_case(number nhs_number, registers text[], applicant text DEFAULT 'self',
    channel text DEFAULT 'email', received_on date DEFAULT today(), date_of_birth date DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    encoded ndrs_optout.encoded_nhs_number := ndrs_optout.encode_nhs_number(ndrs_optout.checked_patient(number));
    codes text[] := ndrs_optout.checked_registers(registers);
    result bigint;
BEGIN
    PERFORM ndrs_optout.check_request(encoded, codes, applicant, channel, received_on, 'the form', date_of_birth);
    INSERT INTO ndrs_optout.optout_case
            (encoded_nhs_number, registers, applicant, channel, received_on, date_of_birth)
        VALUES (encoded, codes, applicant, channel, received_on, date_of_birth)
        RETURNING case_id INTO STRICT result;
    PERFORM ndrs_optout.audit_opened(result);
    RETURN result;
END
$$;
COMMENT ON FUNCTION open_case(nhs_number, text[], text, text, date, date) IS
    'opens a case for a request to opt out of registers and returns its id. applicant: self, parent (needs '
    'date_of_birth, child under the policy''s age when the form came) or representative; channel: email, online or '
    'post; errors ND004, ND010, ND011, 22004, 22023, 23505 (the patient has an open case), 25000, 42704';

-- A representative shows what lets them act for the patient; a parent does where the policy
-- says so.
CREATE FUNCTION required_proofs(applicant text) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN applicant = 'representative' OR applicant = 'parent' AND p.parent_authority
                THEN '{identity,address,authority}' ELSE '{identity,address}' END::text[]
        FROM ndrs_optout.policy p
$$;
COMMENT ON FUNCTION required_proofs(text) IS 'internal: what an applicant has to prove';

CREATE FUNCTION missing_proofs(this optout_case) RETURNS text[]
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY(
        SELECT w.proof FROM unnest(ndrs_optout.required_proofs(this.applicant)) WITH ORDINALITY AS w (proof, position)
            WHERE NOT EXISTS (SELECT FROM ndrs_optout.identity_evidence e
                              WHERE e.case_id = this.case_id AND e.proof = w.proof)
            ORDER BY w.position)
$$;
COMMENT ON FUNCTION missing_proofs(optout_case) IS 'internal: the proofs that are still missing for a case';

-- An error that says why an action is not lawful for a case now.
CREATE FUNCTION refuse_case_action(this optout_case, action text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    states CONSTANT text[] := ARRAY['awaiting_identity', 'ready', 'excluded', 'carried_out', 'completed', 'withdrawn',
                                    'refused'];
    missing text[] := ndrs_optout.missing_proofs(this);
    unproven boolean := this.state = 'awaiting_identity' AND missing <> '{}';
BEGIN
    PERFORM ndrs_optout.raise_error(CASE this.state WHEN 'awaiting_identity' THEN 'ND020' ELSE 'ND021' END,
        format('cannot %s case %s: %s',
            CASE action
                WHEN 'exclude' THEN 'carry out'
                WHEN 'certify' THEN 'carry out'
                WHEN 'confirm_identity' THEN 'confirm the identity of'
                WHEN 'certificate' THEN 'write the certificate of'
                WHEN 'write_letter' THEN 'write the letter of'
                WHEN 'record_identity' THEN 'record a proof for'
                WHEN 'record_guardian_call' THEN 'record a guardian call for'
                WHEN 'extend' THEN 'extend the deadline of'
                WHEN 'record_correspondence' THEN 'record correspondence for'
                ELSE action
            END, this.case_id,
            CASE WHEN unproven THEN format('proof of %s is missing', ndrs_optout.english_list(missing))
                 ELSE 'it is ' || replace(this.state, '_', ' ') END),
        detail => format('The case must be %s.', replace(
            (SELECT string_agg(s.state, ' or ' ORDER BY array_position(states, s.state))
                 FROM (SELECT DISTINCT a.state FROM ndrs_optout.case_action a
                           WHERE a.action = refuse_case_action.action) AS s), '_', ' ')),
        hint => CASE WHEN unproven
                         THEN format('Record it with ndrs_optout.record_identity(%s, ''%s'', ...).', this.case_id,
                                     missing[1])
                     ELSE 'View ndrs_optout.case_progress says what comes next.' END);
END
$$;
COMMENT ON FUNCTION refuse_case_action(optout_case, text) IS
    'internal: error ND020 (a proof is missing) or ND021: the action is not lawful in the state of the case';

-- A case, locked against other officers until the end of the transaction, if
-- this is lawful in its state.
CREATE FUNCTION locked_case(case_id bigint, action text) RETURNS optout_case
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result ndrs_optout.optout_case;
BEGIN
    SELECT * INTO result FROM ndrs_optout.optout_case c WHERE c.case_id = locked_case.case_id FOR UPDATE;
    IF NOT FOUND THEN
        -- The id is not repeated: it may be a number that was put in the wrong place.
        PERFORM ndrs_optout.raise_error('P0002', 'there is no such case',
            hint => 'View ndrs_optout.case_progress lists the cases.');
    END IF;
    IF NOT EXISTS (SELECT FROM ndrs_optout.case_action a
                   WHERE a.action = locked_case.action AND a.state = result.state) THEN
        PERFORM ndrs_optout.refuse_case_action(result, action);
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION locked_case(bigint, text) IS
    'internal: a case, locked, if the action is lawful in its state; errors P0002 (no such case), ND020 (not ready), '
    'ND021 (not lawful now)';

CREATE FUNCTION record_identity(case_id bigint, proof text, document text, received_on date DEFAULT today(),
    content bytea DEFAULT NULL, proof_of text DEFAULT 'applicant')
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, 'record_identity');
BEGIN
    IF (proof = ANY (ndrs_optout.words('proof')) AND document = ANY (ndrs_optout.words(proof))) IS NOT TRUE THEN
        PERFORM ndrs_optout.raise_error('22023',
            CASE WHEN proof = ANY (ndrs_optout.words('proof')) AND document = ANY (ndrs_optout.words('document'))
                THEN format('a %s is not accepted as proof of %s', replace(document, '_', ' '), proof)
                ELSE 'the document is not accepted as proof' END,
            hint => 'Proof of "identity": "passport" or "driving_licence". Proof of "address": "utility_bill" or '
                    '"bank_statement". Proof of "authority": "power_of_attorney", "deputyship", "court_order" or '
                    '"parental_responsibility".');
    END IF;
    PERFORM ndrs_optout.checked_word(proof_of, 'proof_of', 'proof_of');
    IF proof = 'authority' AND (proof_of <> 'applicant' OR this.applicant = 'self') THEN
        PERFORM ndrs_optout.raise_error('22023', 'authority is proved by who acts for the patient',
            hint => 'It is the applicant''s, and the applicant a parent or a representative.');
    END IF;
    PERFORM ndrs_optout.checked_receipt(received_on, 'the proof');

    -- To see the other proofs, whichever session has recorded them.
    PERFORM ndrs_optout.require_read_committed();
    IF EXISTS (SELECT FROM ndrs_optout.identity_evidence e
               WHERE e.case_id = this.case_id AND e.proof = record_identity.proof) THEN
        PERFORM ndrs_optout.case_must_not_be_held(this, 'replace a proof of', 'The proof that is there would be '
                                                                              'destroyed.');
    END IF;
    INSERT INTO ndrs_optout.identity_evidence AS e (case_id, proof, document, proof_of, received_on, content)
        VALUES (case_id, proof, document, proof_of, received_on, ndrs_optout.confidential(content))
        ON CONFLICT ON CONSTRAINT identity_evidence_pkey
            DO UPDATE SET document = excluded.document, proof_of = excluded.proof_of,
                received_on = excluded.received_on, recorded_at = excluded.recorded_at, content = excluded.content;

    -- The clock runs from the day on which the form and all proofs are there.
    UPDATE ndrs_optout.optout_case c
        SET state = 'ready', clock_started_on = greatest(this.received_on, e.last_received_on),
            due_on = ndrs_optout.policy_deadline(greatest(this.received_on, e.last_received_on))
        FROM (SELECT max(e.received_on) AS last_received_on
                  FROM ndrs_optout.identity_evidence e WHERE e.case_id = record_identity.case_id) AS e
        WHERE c.case_id = record_identity.case_id AND ndrs_optout.missing_proofs(this) = '{}';
END
$$;
COMMENT ON FUNCTION record_identity(bigint, text, text, date, bytea, text) IS
    'records that a proof was received: proof identity (passport, driving_licence), address (utility_bill, '
    'bank_statement), or authority to act for the patient (power_of_attorney, deputyship, court_order, '
    'parental_responsibility), which a representative needs, and a parent where the policy says so. With all of them '
    'the case is ready and its clock starts. proof_of: applicant or patient, whose document it is. content is stored '
    'only as ciphertext for the confidential key; errors P0002, ND021, 22023, 25000, 55000 (content, but no '
    'confidential key)';

-- Offered to every applicant; what comes of it changes nothing for the case.
CREATE FUNCTION record_guardian_call(case_id bigint, outcome text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, 'record_guardian_call');
BEGIN
    PERFORM ndrs_optout.checked_word(outcome, 'guardian_call', 'outcome');
    UPDATE ndrs_optout.optout_case c SET guardian_call = outcome WHERE c.case_id = this.case_id;
    PERFORM ndrs_optout.audit('guardian_call_' || outcome, jsonb_build_object('case', this.case_id));
END
$$;
COMMENT ON FUNCTION record_guardian_call(bigint, text) IS
    'records that a call with the Caldicott Guardian was offered, declined or held; changes nothing else; errors '
    'P0002, ND021, 22023';

CREATE FUNCTION case_hold(this optout_case) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.hold_reason(this.case_id, this.encoded_nhs_number, this.registers, this.holds_overridden_at)
$$;
COMMENT ON FUNCTION case_hold(optout_case) IS 'internal: why a case is held; NULL when it is not';

-- A caller that waits for other sessions afterwards asks without the lock, and once more with
-- it, since a hold may have been placed while it waited.
CREATE FUNCTION case_must_not_be_held(this optout_case, action text, detail text, lock boolean DEFAULT true)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF lock THEN
        PERFORM ndrs_optout.lock_holds();
    END IF;
    IF ndrs_optout.case_hold(this) IS NOT NULL THEN
        PERFORM ndrs_optout.raise_error('ND022', format('cannot %s case %s: it is held', action, this.case_id),
            detail => case_must_not_be_held.detail,
            hint => 'View ndrs_optout.hold_progress lists the holds. Go on when they are lifted.');
    END IF;
END
$$;
COMMENT ON FUNCTION case_must_not_be_held(optout_case, text, text, boolean) IS
    'internal: error ND022 when a case is held, or its patient or one of its registers; with lock, no hold is placed '
    'until the transaction ends';

-- The day until which what is kept of something that ends today is kept.
CREATE FUNCTION copy_until() RETURNS date
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (ndrs_optout.today() + make_interval(years => p.copy_years))::date FROM ndrs_optout.policy p
$$;
COMMENT ON FUNCTION copy_until() IS 'internal: the day until which the copy of what ends today is kept';

-- The end of a case: the proofs go, and what else is not needed any more.  How long the
-- copy is kept is promised now, whatever the policy will say.
CREATE FUNCTION end_case(this optout_case, end_state text, reason text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    destroyed integer;
BEGIN
    -- To see every proof: one that was recorded since an older snapshot would stay.
    PERFORM ndrs_optout.require_read_committed();
    PERFORM ndrs_optout.case_must_not_be_held(this, 'end', 'Its proofs would be destroyed.');
    DELETE FROM ndrs_optout.identity_evidence e WHERE e.case_id = this.case_id;
    GET DIAGNOSTICS destroyed = ROW_COUNT;
    UPDATE ndrs_optout.optout_case c
        SET state = end_state, ended_at = clock_timestamp(), copy_until = ndrs_optout.copy_until(),
            proofs_destroyed = destroyed, date_of_birth = NULL, refusal_reason = reason
        WHERE c.case_id = this.case_id;
END
$$;
COMMENT ON FUNCTION end_case(optout_case, text, text) IS
    'internal: ends a case: destroys the proofs; errors ND022 (the case is held), 25000';

-- A change of mind: new data is registered again, and nothing deleted comes back.
CREATE FUNCTION opt_in(number nhs_number, registers text[], applicant text DEFAULT 'self',
    channel text DEFAULT 'email', received_on date DEFAULT today(), date_of_birth date DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    encoded ndrs_optout.encoded_nhs_number := ndrs_optout.encode_nhs_number(ndrs_optout.checked_patient(number));
    codes text[] := ndrs_optout.checked_registers(registers);
    result bigint;
BEGIN
    PERFORM ndrs_optout.check_request(encoded, codes, applicant, channel, received_on, 'the request', date_of_birth);
    IF EXISTS (SELECT FROM unnest(codes) AS code WHERE NOT ndrs_optout.is_excluded(number, code)) THEN
        PERFORM ndrs_optout.raise_error('ND021', 'the patient is not excluded from each of these registers',
            hint => 'Name only registers that the patient has opted out of.');
    END IF;
    PERFORM ndrs_optout.readmit(number, codes);
    INSERT INTO ndrs_optout.optout_case
            (kind, state, encoded_nhs_number, registers, applicant, channel, received_on, clock_started_on, due_on,
             carried_out_at, date_of_birth)
        VALUES ('opt_in', 'carried_out', encoded, codes, applicant, channel, received_on, received_on,
                ndrs_optout.policy_deadline(received_on), clock_timestamp(), date_of_birth)
        RETURNING case_id INTO STRICT result;
    PERFORM ndrs_optout.audit_opened(result);
    RETURN result;
END
$$;
COMMENT ON FUNCTION opt_in(nhs_number, text[], text, text, date, date) IS
    'opts a patient back in to registers: takes the patient off their exclusion list and returns the id of a case, '
    'which complete_case() ends with a letter; applicant and date_of_birth as for open_case(). Nothing deleted comes '
    'back; errors ND004, ND010, ND011, ND021 (not excluded), 22004, 22023, 23505 (the patient has an open case), '
    '25000, 42704';

-- The old number stays on the list: data may come under either.
CREATE FUNCTION supersede_nhs_number(old nhs_number, new nhs_number) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old_encoded ndrs_optout.encoded_nhs_number := ndrs_optout.encode_nhs_number(ndrs_optout.checked_patient(old));
    new_encoded ndrs_optout.encoded_nhs_number := ndrs_optout.encode_nhs_number(ndrs_optout.checked_patient(new));
    followed text[];
    open_case bigint;
BEGIN
    IF old_encoded OPERATOR(ndrs_optout.=) new_encoded THEN
        PERFORM ndrs_optout.raise_error('22023', 'the old and the new NHS number are the same');
    END IF;
    WITH listed AS (
        SELECT e.register FROM ndrs_optout.exclusion e
            WHERE e.encoded_nhs_number OPERATOR(ndrs_optout.=) old_encoded
            FOR KEY SHARE),
    added AS (
        INSERT INTO ndrs_optout.exclusion (register, encoded_nhs_number)
            SELECT l.register, new_encoded FROM listed l
            ON CONFLICT DO NOTHING)
    SELECT coalesce(array_agg(l.register ORDER BY l.register), '{}') INTO followed FROM listed l;

    INSERT INTO ndrs_optout.hold (encoded_nhs_number, reason, placed_at)
        SELECT new_encoded, h.reason, h.placed_at FROM ndrs_optout.hold h
            WHERE (h.encoded_nhs_number OPERATOR(ndrs_optout.=) old_encoded
                   OR EXISTS (SELECT FROM ndrs_optout.optout_case c
                              WHERE c.case_id = h.case_id
                                  AND c.encoded_nhs_number OPERATOR(ndrs_optout.=) old_encoded))
                AND NOT EXISTS (SELECT FROM ndrs_optout.hold n
                                WHERE n.encoded_nhs_number OPERATOR(ndrs_optout.=) new_encoded
                                    AND n.placed_at = h.placed_at);

    SELECT min(c.case_id) INTO open_case FROM ndrs_optout.optout_case c
        WHERE c.encoded_nhs_number OPERATOR(ndrs_optout.=) old_encoded
            AND c.ended_at IS NULL;
    IF open_case IS NOT NULL THEN
        PERFORM ndrs_optout.raise_notice(false, format('case %s is open for the old number', open_case),
            'It goes on with the old number. Open another case for the new one.');
    END IF;
    PERFORM ndrs_optout.audit('nhs_number_superseded', jsonb_build_object('registers', followed));
    RETURN followed;
END
$$;
COMMENT ON FUNCTION supersede_nhs_number(nhs_number, nhs_number) IS
    'when a patient''s NHS number was merged into another: excludes the new number from every register that the old '
    'one is excluded from, and returns these; the old one stays excluded. Holds on the patient, or on a case, hold the '
    'new number, too. Rows that are held under the new number stay until sweep() or erase(); errors ND004, ND010, '
    'ND011, 22004, 22023';
