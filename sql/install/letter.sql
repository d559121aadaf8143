-- letter: what applicants are told.  Every statement comes from what is stored of the case, in the
-- words of the template in use; the registry adds name and address, which are not held here.

-- Which letters were written, from which version of a template.  What they said is with the
-- case's correspondence, where there is a confidential key.
CREATE TABLE case_letter (
    letter_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id    bigint NOT NULL,
    kind       text NOT NULL,
    language   text NOT NULL,
    format     letter_format NOT NULL,
    version    integer NOT NULL,
    written_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE case_letter IS 'which letters were written for a case, when, and from which template';
CREATE INDEX case_letter_case_id ON case_letter (case_id);
SELECT pg_catalog.pg_extension_config_dump('case_letter', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.case_letter', 'letter_id')::regclass, '');

-- A number of things, as a letter says it; NULL for none.
CREATE FUNCTION letter_count(things bigint, one text, many text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN things = 1 THEN '1 ' || one WHEN things > 1 THEN things || ' ' || many END
$$;
COMMENT ON FUNCTION letter_count(bigint, text, text) IS 'internal: 1 entry, or 2 entries; NULL for none';

-- What the erasures of a case did.
CREATE FUNCTION letter_erasure(this optout_case) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'deleted', (SELECT string_agg(format('- %s: %s', ndrs_optout.register_names(d.registers),
                                             ndrs_optout.letter_count(d.rows, 'entry', 'entries')),
                                      E'\n' ORDER BY d.registers)
                        FROM (SELECT ce.registers, sum(ce.row_count)::bigint AS rows
                                  FROM ndrs_optout.case_erasure ce
                                  WHERE ce.case_id = this.case_id AND ce.action = 'deleted'
                                  GROUP BY ce.registers HAVING sum(ce.row_count) > 0) AS d),
        'deleted_none', coalesce(sum(e.row_count) FILTER (WHERE e.action NOT IN ('shared', 'kept')), 0) = 0,
        'redacted', ndrs_optout.letter_count(sum(e.row_count) FILTER (WHERE e.action = 'redacted')::bigint, 'entry',
                                             'entries'),
        'unlinked', ndrs_optout.letter_count(sum(e.row_count) FILTER (WHERE e.action = 'unlinked')::bigint, 'entry',
                                             'entries'),
        'shared', ndrs_optout.letter_count(sum(e.row_count) FILTER (WHERE e.action = 'shared')::bigint, 'entry',
                                           'entries'),
        'kept', ndrs_optout.letter_count(sum(e.row_count) FILTER (WHERE e.action = 'kept')::bigint, 'entry', 'entries'),
        'kept_registers', ndrs_optout.register_names((
            SELECT array_agg(DISTINCT o.code)
                FROM ndrs_optout.case_erasure k CROSS JOIN LATERAL unnest(k.registers) AS o (code)
                WHERE k.case_id = this.case_id AND k.action = 'kept' AND o.code <> ALL (this.registers))))
        FROM ndrs_optout.case_erasure e WHERE e.case_id = this.case_id
$$;
COMMENT ON FUNCTION letter_erasure(optout_case) IS 'internal: the facts of a letter about what was deleted and kept';

-- Whom data was given to, and what came of asking to delete it.  Answers are purged after some
-- years; the case still knows how many notices there were.
CREATE FUNCTION letter_recalls(this optout_case) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'recipients_none', coalesce(this.recalls, 0) = 0,
        'not_told', this.not_told > 0,
        'recipients', nullif(concat_ws(E'\n', n.lines,
            CASE WHEN this.recalls > n.notices THEN
                format('- requests that were answered, whose answers we do not keep any more: %s',
                       this.recalls - n.notices) END), ''))
        FROM (SELECT count(*) AS notices,
                     string_agg(format('- %s, data of %s given on %s. %s', p.name,
                                       ndrs_optout.recalled_names(r.registers, this),
                                       ndrs_optout.english_date(r.released_on),
                                       CASE WHEN n.outcome = 'not_found' THEN 'It told us that it found nothing.'
                                            WHEN n.outcome = 'exempt'
                                                THEN format('It told us that it must keep this. The reason is: %s.',
                                                            rtrim(n.outcome_reason, '. '))
                                            WHEN n.acknowledged_at IS NOT NULL
                                                THEN format('It told us that this was deleted on %s.',
                                                            ndrs_optout.english_date(n.deleted_on))
                                            WHEN n.asked_at IS NULL THEN 'We will ask for this to be deleted.'
                                            ELSE format('On %s we asked for this to be deleted by %s. We have no '
                                                        'answer yet.',
                                                        ndrs_optout.english_date(ndrs_optout.local_date(n.asked_at)),
                                                        ndrs_optout.english_date(n.due_on)) END),
                                E'\n' ORDER BY n.notice_id) AS lines
                  FROM ndrs_optout.recall_notice n
                  JOIN ndrs_optout.release r USING (release_id)
                  JOIN ndrs_optout.recipient p USING (recipient)
                  WHERE n.case_id = this.case_id) AS n
$$;
COMMENT ON FUNCTION letter_recalls(optout_case) IS
    'internal: the facts of a letter about whom data was given to, and whether they have deleted it';

-- letter_kept: this letter will be kept with the copy.
CREATE FUNCTION case_letter_facts(this optout_case, letter_kept boolean) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.letter_erasure(this) || ndrs_optout.letter_recalls(this) || jsonb_build_object(
        'reference', format('%s case %s', CASE this.kind WHEN 'opt_out' THEN 'opt-out' ELSE 'opt-in' END, this.case_id),
        'today', ndrs_optout.english_date(ndrs_optout.today()),
        'self', this.applicant = 'self',
        'parent', this.applicant = 'parent',
        'representative', this.applicant = 'representative',
        'whom', CASE this.applicant WHEN 'self' THEN 'you' WHEN 'parent' THEN 'your child'
                    ELSE 'the person you act for' END,
        'whose', CASE this.applicant WHEN 'self' THEN 'your' WHEN 'parent' THEN 'your child''s' ELSE 'their' END,
        'registers', ndrs_optout.register_names(this.registers),
        'these', CASE cardinality(this.registers) WHEN 1 THEN 'this register' ELSE 'these registers' END,
        'received_on', ndrs_optout.english_date(this.received_on),
        'complete_on', ndrs_optout.english_date(this.clock_started_on),
        'due_on', ndrs_optout.english_date(this.due_on),
        'missing', CASE WHEN this.state = 'awaiting_identity' THEN ndrs_optout.english_list(m.missing) END,
        'missing_identity', this.state = 'awaiting_identity' AND 'identity' = ANY (m.missing),
        'missing_address', this.state = 'awaiting_identity' AND 'address' = ANY (m.missing),
        'missing_authority', this.state = 'awaiting_identity' AND 'authority' = ANY (m.missing),
        'guardian_call', coalesce(this.guardian_call, 'offered') = 'offered',
        'excluded_on', ndrs_optout.english_date(ndrs_optout.local_date(this.listed_since)),
        'carried_out_on', CASE WHEN this.kind = 'opt_out'
                              THEN ndrs_optout.english_date(ndrs_optout.local_date(this.carried_out_at)) END,
        'opted_in_on', CASE WHEN this.kind = 'opt_in'
                           THEN ndrs_optout.english_date(ndrs_optout.local_date(this.carried_out_at)) END,
        'proofs_destroyed', ndrs_optout.letter_count(this.proofs_destroyed, 'document', 'documents'),
        'copy', k.kinds,
        'copy_until', CASE WHEN k.kinds IS NOT NULL THEN ndrs_optout.english_date(this.copy_until) END,
        'held', ndrs_optout.case_hold(this) IS NOT NULL,
        'reason', rtrim(this.refusal_reason, '. '),
        'expired', this.expired,
        'extension_reason', rtrim(this.extension_reason, '. '),
        'contact', p.contact,
        'regulator', 'ico.org.uk or 0303 123 1113')
        FROM ndrs_optout.policy p
        CROSS JOIN LATERAL (SELECT ndrs_optout.missing_proofs(this)) AS m (missing)
        CROSS JOIN LATERAL (
            SELECT ndrs_optout.english_list(array_agg(DISTINCT CASE c.kind WHEN 'email' THEN 'e-mails'
                                                          WHEN 'letter' THEN 'letters' ELSE 'form' END))
                FROM (SELECT c.kind FROM ndrs_optout.case_correspondence c
                          WHERE c.case_id = this.case_id AND c.kept_until IS NULL
                      UNION SELECT 'letter' WHERE letter_kept) AS c) AS k (kinds)
$$;
COMMENT ON FUNCTION case_letter_facts(optout_case, boolean) IS
    'internal: the facts that a letter about a case can state, as they are stored; table letter_fact says what they '
    'are';

-- A letter that was written before is in the words of then.
CREATE FUNCTION case_letter_text(this optout_case, kind text, letter_kept boolean) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.letter_from_template(
        coalesce((SELECT t.body FROM ndrs_optout.case_letter l
                      JOIN ndrs_optout.letter_template t USING (kind, language, format, version)
                      WHERE l.case_id = this.case_id AND l.kind = case_letter_text.kind
                      ORDER BY l.letter_id DESC LIMIT 1),
                 (ndrs_optout.current_letter_template(kind, this.letter_language, this.letter_format)).body),
        ndrs_optout.case_letter_facts(this, letter_kept))
$$;
COMMENT ON FUNCTION case_letter_text(optout_case, text, boolean) IS
    'internal: a letter about a case, from what is stored of it, in the words in which it was last written; error '
    '42704 (no template)';

-- One letter at a time: the most urgent that the applicant has not had.
CREATE FUNCTION letter_owed(this optout_case) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN this.state = 'refused' THEN CASE WHEN l.refusal IS NULL THEN 'refusal' END
        WHEN this.state = 'withdrawn' THEN CASE WHEN l.withdrawal IS NULL THEN 'withdrawal' END
        WHEN this.ended_at IS NOT NULL THEN NULL
        WHEN h.since > coalesce(l.hold, '-infinity') THEN 'hold'
        WHEN this.extended_at > coalesce(l.extension, '-infinity') THEN 'extension'
        WHEN this.state IN ('awaiting_identity', 'ready', 'excluded') AND l.acknowledgement IS NULL
            THEN 'acknowledgement'
        WHEN this.state = 'awaiting_identity'
            AND greatest(l.acknowledgement, l.missing_proof)
                < greatest(now() - interval '28 days',
                           (SELECT max(e.recorded_at) FROM ndrs_optout.identity_evidence e
                                WHERE e.case_id = this.case_id)) THEN 'missing_proof'
        WHEN this.state = 'carried_out' AND h.since IS NULL
            THEN CASE this.kind WHEN 'opt_out' THEN 'completion' ELSE 'opt_in' END
        END
        FROM (SELECT max(w.written_at) FILTER (WHERE w.kind = 'refusal') AS refusal,
                     max(w.written_at) FILTER (WHERE w.kind = 'withdrawal') AS withdrawal,
                     max(w.written_at) FILTER (WHERE w.kind = 'hold') AS hold,
                     max(w.written_at) FILTER (WHERE w.kind = 'extension') AS extension,
                     max(w.written_at) FILTER (WHERE w.kind = 'acknowledgement') AS acknowledgement,
                     max(w.written_at) FILTER (WHERE w.kind = 'missing_proof') AS missing_proof
                  FROM ndrs_optout.case_letter w WHERE w.case_id = this.case_id) AS l
        CROSS JOIN LATERAL (SELECT ndrs_optout.held_since(this.case_id, this.encoded_nhs_number, this.registers,
                                                          this.holds_overridden_at)) AS h (since)
$$;
COMMENT ON FUNCTION letter_owed(optout_case) IS
    'internal: the kind of letter that the applicant of a case is to get next; NULL when none is owed';

CREATE FUNCTION letters_owed() RETURNS TABLE (case_id bigint, letter text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.case_id, ndrs_optout.letter_owed(c) FROM ndrs_optout.optout_case c
$$;
COMMENT ON FUNCTION letters_owed() IS
    'the letter that is owed to the applicant of each case; NULL when none is: see case_progress';

-- Writes the letter down as written, and returns it; with the copy of the case where there is a key.
CREATE FUNCTION issue_letter(this optout_case, kind text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    template ndrs_optout.letter_template := ndrs_optout.current_letter_template(kind, this.letter_language,
                                                                                this.letter_format);
BEGIN
    INSERT INTO ndrs_optout.case_letter (case_id, kind, language, format, version)
        VALUES (this.case_id, kind, template.language, template.format, template.version);
    -- Every applicant is offered the call, at the latest by the last letter.
    IF kind IN ('acknowledgement', 'completion') AND this.guardian_call IS NULL THEN
        PERFORM ndrs_optout.record_guardian_call(this.case_id, 'offered');
    END IF;
    IF (ndrs_optout.current_confidential_key()).key_id IS NOT NULL THEN
        PERFORM ndrs_optout.record_correspondence(this.case_id, 'letter',
            convert_to(ndrs_optout.case_letter_text(this, kind, true), 'UTF8'));
    END IF;
    PERFORM ndrs_optout.audit_at_once('letter_written', jsonb_build_object('case', this.case_id, 'letter', kind,
        'language', template.language, 'format', template.format, 'version', template.version));
    RETURN ndrs_optout.case_letter_text(this, kind, false);
END
$$;
COMMENT ON FUNCTION issue_letter(optout_case, text) IS
    'internal: writes a letter about a case, keeps it with the copy and in the audit, and returns it; errors 25006 and '
    '53000 (the event cannot be written), 42704 (no template)';

CREATE FUNCTION write_letter(case_id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, 'record_correspondence');
    owed text := ndrs_optout.letter_owed(this);
BEGIN
    IF owed IN ('completion', 'opt_in') THEN
        PERFORM ndrs_optout.raise_error('ND021', format('the letter of case %s is written by complete_case()', case_id),
            hint => format('SELECT ndrs_optout.complete_case(%s).', case_id));
    ELSIF owed IS NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('no letter is owed for case %s', case_id),
            hint => 'View ndrs_optout.case_progress says which letter is owed for which case.');
    END IF;
    RETURN ndrs_optout.issue_letter(this, owed);
END
$$;
COMMENT ON FUNCTION write_letter(bigint) IS
    'writes the letter that is owed to the applicant of a case, as case_progress names it, and returns it: '
    'acknowledgement (which offers a call with the Caldicott Guardian), missing_proof, hold, extension, refusal or '
    'withdrawal. That it was written is in the audit before it is returned; a copy is kept where there is a '
    'confidential key; errors P0002, ND021 (none is owed), 25006 and 53000 (the event cannot be written), 42704 (no '
    'template)';

-- The last step: the proofs go, the certificate is issued, and the letter is
-- written and kept.
CREATE FUNCTION complete_case(case_id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, 'complete');
BEGIN
    IF this.kind = 'opt_out' AND NOT ndrs_optout.case_is_excluded(this) THEN
        PERFORM ndrs_optout.raise_error('ND021', format('the patient of case %s is not excluded any more', case_id),
            hint => format('CALL ndrs_optout.carry_out(%s, ...) again.', case_id));
    END IF;
    PERFORM ndrs_optout.end_case(this, 'completed', NULL);
    IF this.kind = 'opt_out' THEN
        PERFORM ndrs_optout.issue_certificate(case_id);
    END IF;
    RETURN ndrs_optout.issue_letter(ndrs_optout.locked_case(case_id, 'write_letter'),
                                    CASE this.kind WHEN 'opt_out' THEN 'completion' ELSE 'opt_in' END);
END
$$;
COMMENT ON FUNCTION complete_case(bigint) IS
    'completes a case that was carried out: destroys the proofs, issues the certificate of an erasure and returns the '
    'letter to the applicant. That the letter was written is in the audit before it is returned; after a rollback the '
    'case is still to be completed. completion_letter() reads the letter again. Errors P0002, ND020, ND021, ND022 (the '
    'case is held), 25000, 25006 and 53000 (the event cannot be written), 42704 (no template)';

-- The letter of a case that is completed already: nothing is changed.
CREATE FUNCTION completion_letter(case_id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, 'write_letter');
BEGIN
    RETURN ndrs_optout.case_letter_text(this, CASE this.kind WHEN 'opt_out' THEN 'completion' ELSE 'opt_in' END, false);
END
$$;
COMMENT ON FUNCTION completion_letter(bigint) IS
    'the letter to the applicant of a completed case, as complete_case() returned it and as what is stored says now; '
    'changes nothing; errors P0002, ND020, ND021 (not completed)';

CREATE FUNCTION withdraw_case(case_id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.end_case(ndrs_optout.locked_case(case_id, 'withdraw'), 'withdrawn', NULL);
    RETURN ndrs_optout.issue_letter(ndrs_optout.locked_case(case_id, 'hold'), 'withdrawal');
END
$$;
COMMENT ON FUNCTION withdraw_case(bigint) IS
    'ends a case whose applicant withdrew the request before it was carried out, destroys the proofs, and returns the '
    'letter to the applicant; errors P0002, ND021, ND022 (the case is held), 25000, 25006, 42704 (no template), 53000';

CREATE FUNCTION refuse_case(case_id bigint, reason text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.end_case(ndrs_optout.locked_case(case_id, 'refuse'), 'refused',
                                 ndrs_optout.checked_reason(reason));
    RETURN ndrs_optout.issue_letter(ndrs_optout.locked_case(case_id, 'hold'), 'refusal');
END
$$;
COMMENT ON FUNCTION refuse_case(bigint, text) IS
    'ends a case that is refused, for a reason, destroys the proofs, and returns the letter to the applicant, which '
    'states the reason and the right to complain and to go to court; errors P0002, ND021, ND022 (the case is held), '
    '22004, 22023 (the reason holds an NHS number), 25000, 25006, 42704 (no template), 53000';

-- Article 12(3): up to two months more than the first.
CREATE FUNCTION extend_deadline(case_id bigint, due_on date, reason text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, 'extend');
BEGIN
    IF (due_on > this.due_on AND due_on <= this.clock_started_on + interval '3 months') IS NOT TRUE THEN
        PERFORM ndrs_optout.raise_error('22023', 'the new deadline must be after the old one, and at most three months '
                                                 'after the request was complete');
    END IF;
    UPDATE ndrs_optout.optout_case c
        SET due_on = extend_deadline.due_on, extension_reason = ndrs_optout.checked_reason(reason),
            extended_at = clock_timestamp()
        WHERE c.case_id = this.case_id RETURNING c.* INTO this;
    PERFORM ndrs_optout.audit('deadline_extended', jsonb_build_object('case', this.case_id, 'due_on', this.due_on,
                                                                      'reason', reason));
    RETURN ndrs_optout.issue_letter(this, 'extension');
END
$$;
COMMENT ON FUNCTION extend_deadline(bigint, date, text) IS
    'gives a case more time, for a reason, and returns the letter to the applicant, which states both: until at most '
    'three months after form and proofs were there; errors P0002, ND020, ND021, 22004, 22023, 25006, 42704 (no '
    'template), 53000';

-- A form that lacks a template for some letter would leave the applicant without it.
CREATE FUNCTION choose_letter_form(case_id bigint, language text DEFAULT 'en', format text DEFAULT 'standard')
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, 'hold');
BEGIN
    PERFORM ndrs_optout.checked_word(format, 'letter_format', 'format');
    PERFORM ndrs_optout.current_letter_template(k.kind, language, format)
        FROM ndrs_optout.letter_kind k WHERE k.about = 'case';
    UPDATE ndrs_optout.optout_case c
        SET letter_language = choose_letter_form.language, letter_format = choose_letter_form.format
        WHERE c.case_id = this.case_id;
END
$$;
COMMENT ON FUNCTION choose_letter_form(bigint, text, text) IS
    'the language and format (standard, large_print or easy_read) in which the applicant of a case gets letters from '
    'now on; errors P0002, 22023, 42704 (there is no template in this form for some letter)';
