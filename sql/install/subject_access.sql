-- subject_access: a copy of all that is held about one patient.

-- The rows of a walk, each once, with the rights of their table's owner: to read a
-- row as a whole is to call what its types' owners made.
--
-- Whose rows they are was seen in other statements, whose snapshots were older.  A
-- version of a row that is still there was there all the time, and its children
-- were looked for; one that is not may be elsewhere, and is an error.
CREATE FUNCTION subject_access_rows(number nhs_number, batches erasure_batch[])
RETURNS TABLE (source text, record jsonb, shared boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part record;
    held text[];
BEGIN
    FOR part IN
        SELECT r.leaf, c.relowner::regrole AS owner,
               array_agg(DISTINCT r.row_id) AS row_ids,
               array_agg(r.row_id) FILTER (WHERE r.action IN ('redact', 'share')) AS of_others,
               ARRAY(SELECT DISTINCT format('to_json(t.%I)::text', g.nhs_number_column)
                         FROM ndrs_optout.erasure_lineage(r.leaf) l
                         JOIN ndrs_optout.guard g ON g.target = l.ancestor) AS guarded
            FROM ndrs_optout.erasure_rows(batches) AS r
            LEFT JOIN pg_class c ON c.oid = r.leaf
            GROUP BY r.leaf, c.relowner
            ORDER BY r.leaf::text
    LOOP
        held := ndrs_optout.search_as_owner(part.owner, format(
            'SELECT array_agg(ARRAY[%s] ORDER BY t.ctid) FROM ONLY %s t WHERE t.ctid = ANY ($2::tid[])',
            array_to_string('{t.ctid::text,to_json(t.*)::text}'::text[] || part.guarded, ', '), part.leaf),
            NULL, part.row_ids::text[]);
        IF ARRAY(SELECT held[i][1]::tid FROM generate_subscripts(held, 1) AS i ORDER BY i) <> part.row_ids THEN
            PERFORM ndrs_optout.raise_error('40001',
                format('rows of table %s changed while they were read', part.leaf),
                hint => 'Try again, or after SET default_transaction_isolation = ''repeatable read''.');
        END IF;

        source := part.leaf;
        FOR i IN 1 .. array_length(held, 1) LOOP
            record := ndrs_optout.subject_access_record(held[i][2]);
            shared := coalesce(held[i][1]::tid = ANY (part.of_others), false)
                OR EXISTS (SELECT FROM generate_series(3, array_length(held, 2)) AS g (place)
                           WHERE ndrs_optout.subject_access_other(held[i][g.place]::jsonb, number));
            RETURN NEXT;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION subject_access_rows(nhs_number, erasure_batch[]) IS
    'internal: the rows of a walk, each once; shared: found by a guard that redacts, or belongs to other rows as well, '
    'or another patient''s too by a guarded number, or by one that cannot be read; error 40001 when one changed in '
    'between';

-- A row as its owner's rights have read it.  A column of type json can hold what jsonb
-- cannot, such as \u0000, half of a surrogate pair, or a number without bounds: then the
-- whole row is text, just as it was read, and no error tells what is in it.
CREATE FUNCTION subject_access_record(row_text text) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN row_text::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN to_jsonb(row_text);
END
$$;
COMMENT ON FUNCTION subject_access_record(text) IS
    'internal: a row in JSON as jsonb; as a string of this JSON when jsonb cannot hold it';

-- Whether the value of a guarded column is another patient's number, or may be.
CREATE FUNCTION subject_access_other(value jsonb, number nhs_number) RETURNS boolean
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE jsonb_typeof(value)
               WHEN 'number' THEN ndrs_optout.guard_number(value::numeric) OPERATOR(ndrs_optout.<>) number
                   OR ndrs_optout.guard_unreadable(value::numeric)
               ELSE ndrs_optout.guard_number(value #>> '{}') OPERATOR(ndrs_optout.<>) number
                   OR ndrs_optout.guard_unreadable(value #>> '{}')
           END
$$;
COMMENT ON FUNCTION subject_access_other(jsonb, nhs_number) IS
    'internal: whether the value of a guarded column is another NHS number than this, or cannot be read';

-- Everything: whatever an erasure from all registers would find, and whatever
-- would become of it.  The settings are those of erasure_preview().
CREATE FUNCTION subject_access_records(number nhs_number)
RETURNS TABLE (source text, record jsonb, shared boolean)
LANGUAGE sql
SET datestyle = 'ISO, YMD'
SET intervalstyle = postgres
SET extra_float_digits = 3
SET array_nulls = on
SET jit = off
SET row_security = off
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.* FROM (SELECT ARRAY(SELECT DISTINCT code FROM ndrs_optout.guard g
                                  CROSS JOIN LATERAL unnest(g.registers) AS code)) AS a (codes)
        CROSS JOIN LATERAL ndrs_optout.erasure_groups(ARRAY[number], a.codes, false) AS g
        CROSS JOIN LATERAL ndrs_optout.subject_access_rows(number,
            ndrs_optout.erasure_found(g.patients, a.codes, g.excluded_registers)) AS r
    UNION ALL
    SELECT 'exclusion_list', to_jsonb(l), false
        FROM (SELECT r.code AS register, r.name, e.register IS NOT NULL AS excluded, e.excluded_at
                  FROM ndrs_optout.register r
                  LEFT JOIN ndrs_optout.exclusion e ON e.register = r.code
                      AND e.encoded_nhs_number OPERATOR(ndrs_optout.=) ndrs_optout.encode_nhs_number(number)
                  ORDER BY r.code) AS l
    UNION ALL
    SELECT 'optout_case', to_jsonb(l), false
        FROM (SELECT c.case_id, c.kind, c.state, c.registers, c.applicant, c.channel, c.received_on,
                     c.clock_started_on, c.due_on, c.date_of_birth, c.guardian_call, c.excluded_at, c.carried_out_at,
                     c.ended_at, c.proofs_destroyed, c.refusal_reason, ndrs_optout.case_hold(c) AS hold_reason,
                     (SELECT jsonb_agg(jsonb_build_object('proof', i.proof, 'document', i.document,
                                                          'proof_of', i.proof_of, 'received_on', i.received_on)
                                       ORDER BY i.proof DESC)
                          FROM ndrs_optout.identity_evidence i WHERE i.case_id = c.case_id) AS proofs,
                     (SELECT jsonb_agg(jsonb_build_object('kind', m.kind, 'received_on', m.received_on)
                                       ORDER BY m.correspondence_id)
                          FROM ndrs_optout.case_correspondence m WHERE m.case_id = c.case_id) AS correspondence
                  FROM ndrs_optout.optout_case c
                  WHERE c.encoded_nhs_number OPERATOR(ndrs_optout.=) ndrs_optout.encode_nhs_number(number)
                  ORDER BY c.case_id) AS l
    UNION ALL
    SELECT 'hold', to_jsonb(l), false
        FROM (SELECT h.hold_id, h.reason, h.placed_at
                  FROM ndrs_optout.hold h
                  WHERE h.encoded_nhs_number OPERATOR(ndrs_optout.=) ndrs_optout.encode_nhs_number(number)
                  ORDER BY h.hold_id) AS l
    UNION ALL
    SELECT 'release', to_jsonb(l), false
        FROM (SELECT r.release_id, p.name AS recipient, r.purpose, r.legal_basis, r.registers, r.released_on,
              r.reference,
                     r.destroyed_on, r.retracted_at
                  FROM ndrs_optout.release r JOIN ndrs_optout.recipient p USING (recipient)
                  WHERE r.patients OPERATOR(ndrs_optout.@>) ndrs_optout.encode_nhs_number(number)
                  ORDER BY r.release_id) AS l
    UNION ALL
    SELECT 'recall_notice', to_jsonb(l), false
        FROM (SELECT n.notice_id, n.case_id, n.release_id, p.name AS recipient, n.raised_at, n.due_on, n.asked_at,
              n.chased_on,
                     n.acknowledged_at, n.outcome, n.outcome_reason, n.deleted_on
                  FROM ndrs_optout.recall_notice n
                  JOIN ndrs_optout.optout_case c USING (case_id)
                  JOIN ndrs_optout.release r USING (release_id)
                  JOIN ndrs_optout.recipient p USING (recipient)
                  WHERE c.encoded_nhs_number OPERATOR(ndrs_optout.=) ndrs_optout.encode_nhs_number(number)
                  ORDER BY n.notice_id) AS l
    UNION ALL
    SELECT 'subject_access_request', to_jsonb(l), false
        FROM (SELECT q.request_id, q.applicant, q.competence, q.received_on, q.clock_started_on, q.due_on,
                     q.answered_at, q.refused_at, q.refusal_reason, q.extension_reason
                  FROM ndrs_optout.subject_access_request q
                  WHERE q.encoded_nhs_number OPERATOR(ndrs_optout.=) ndrs_optout.encode_nhs_number(number)
                  ORDER BY q.request_id) AS l
    UNION ALL
    SELECT 'complaint', to_jsonb(l), false
        FROM (SELECT m.complaint_id, m.case_id, m.request_id, m.summary, m.channel, m.received_on, m.acknowledged_on,
                     m.outcome, m.outcome_note, m.ended_on
                  FROM ndrs_optout.complaint m
                  LEFT JOIN ndrs_optout.optout_case c USING (case_id)
                  LEFT JOIN ndrs_optout.subject_access_request q USING (request_id)
                  WHERE coalesce(c.encoded_nhs_number, q.encoded_nhs_number)
                      OPERATOR(ndrs_optout.=) ndrs_optout.encode_nhs_number(number)
                  ORDER BY m.complaint_id) AS l
    UNION ALL
    SELECT 'national_check', to_jsonb(l), false
        FROM (SELECT n.check_id, n.started_at, n.loaded_at, n.expires_at,
                     ndrs_optout.encode_nhs_number(number) OPERATOR(ndrs_optout.<@) n.allowed AS allowed
                  FROM ndrs_optout.national_check n
                  WHERE ndrs_optout.encode_nhs_number(number) OPERATOR(ndrs_optout.<@) n.asked
                  ORDER BY n.check_id) AS l
$$;
COMMENT ON FUNCTION subject_access_records(nhs_number) IS 'internal: everything that is held about a patient';

CREATE FUNCTION disclose_records(number nhs_number)
RETURNS TABLE (source text, record jsonb, shared boolean)
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    records bigint;
BEGIN
    PERFORM ndrs_optout.checked_patient(number);
    PERFORM ndrs_optout.require_whole_walk('disclose');
    RETURN QUERY SELECT * FROM ndrs_optout.subject_access_records(number);
    GET DIAGNOSTICS records = ROW_COUNT;
    PERFORM ndrs_optout.audit_at_once('subject_access', jsonb_build_object('records', records));
END
$$;
COMMENT ON FUNCTION disclose_records(nhs_number) IS
    'everything that is held about a patient, and an event in the audit: every row that an erasure from all registers '
    'would find, also those that it would redact, unlink or stop at, under the name of the table that holds it (what '
    'refers to those three is not looked for); the state of each exclusion list; cases (without content), releases '
    'that held the patient''s data, recall notices, requests for subject access, and national checks that asked about '
    'the patient (allowed is NULL until the reply is there). shared: the row is, or may be, about another patient too, '
    'by a guarded number, because a guard redacts it or because rows that stay refer to it (declare_owned): look at it '
    'before it goes out. A row with a column of type json that jsonb cannot hold is returned as one string, in JSON. '
    'The event is committed before anything is returned, and no rollback undoes it. Errors ND004, ND010, ND011, 22004, '
    '25006 and 53000 (the event cannot be written), 40001 (rows changed while they were read), 42501 (a policy hides '
    'rows), 55000 (a damaged guard)';

CREATE FUNCTION answer_subject_access(request_id bigint, number nhs_number)
RETURNS TABLE (source text, record jsonb, shared boolean)
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.subject_access_request;
    records bigint;
BEGIN
    this := ndrs_optout.locked_subject_access(request_id);
    IF this.encoded_nhs_number OPERATOR(ndrs_optout.<>)
        ndrs_optout.encode_nhs_number(ndrs_optout.checked_patient(number)) THEN
        PERFORM ndrs_optout.raise_error('ND031',
            format('the NHS number is not that of subject access request %s', request_id));
    END IF;
    IF this.refused_at IS NOT NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('subject access request %s was refused', request_id));
    END IF;
    IF this.clock_started_on IS NULL THEN
        PERFORM ndrs_optout.raise_error('ND020',
            format('cannot answer subject access request %s: proof of %s is missing', request_id,
                   array_to_string(ndrs_optout.subject_access_missing(this), ' and ')),
            hint => format('Record it with ndrs_optout.record_subject_access_proof(%s, ...).', request_id));
    END IF;
    PERFORM ndrs_optout.require_whole_walk('disclose');
    RETURN QUERY SELECT * FROM ndrs_optout.subject_access_records(number);
    GET DIAGNOSTICS records = ROW_COUNT;
    UPDATE ndrs_optout.subject_access_request q SET answered_at = clock_timestamp()
        WHERE q.request_id = this.request_id AND q.answered_at IS NULL;
    PERFORM ndrs_optout.audit_at_once('subject_access_answered',
                                      jsonb_build_object('request', this.request_id, 'records', records));
END
$$;
COMMENT ON FUNCTION answer_subject_access(bigint, nhs_number) IS
    'answers a request for subject access: returns everything that is held about its patient, in the columns of '
    'disclose_records(), and records that it was answered, with an event in the audit before anything is returned. '
    'After a rollback the request is still to be answered. Errors P0002 (no such request), ND020 (a proof is missing), '
    'ND021 (refused), ND031 (another patient''s '
    'number), ND004, ND010, ND011, 22004, 25006 and 53000 (the event cannot be written), 40001 (rows changed while '
    'they were read), 42501 (a policy hides rows), 55000 (a damaged guard), ND032 (an edge of the walk is lost)';
