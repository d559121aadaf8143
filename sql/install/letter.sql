-- letter: what the applicant is told.  Every statement comes from what is stored
-- of the case; the registry adds name and address, which are not held here.  Days are
-- those of UTC, as in the certificate, whatever the session's time zone.

-- What every letter ends with.
CREATE FUNCTION letter_rights(this optout_case, letter_kept boolean) RETURNS text
LANGUAGE sql STABLE
SET timezone = 'UTC'
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT concat_ws(E'\n\n',
        (SELECT format('We keep a confidential copy of the request (%s), without the proofs, until %s. Then it is '
                       'destroyed%s.',
                       ndrs_optout.english_list(array_agg(DISTINCT CASE c.kind
                           WHEN 'email' THEN 'e-mails' WHEN 'letter' THEN 'letters' ELSE 'form' END)),
                       ndrs_optout.english_date(coalesce(this.copy_until, ndrs_optout.copy_until())),
                       CASE WHEN ndrs_optout.case_hold(this) IS NOT NULL
                           THEN ', unless it is still needed for a complaint or by a court' END)
             FROM (SELECT c.kind FROM ndrs_optout.case_correspondence c
                       WHERE c.case_id = this.case_id AND c.kept_until IS NULL
                   UNION SELECT 'letter' WHERE letter_kept) AS c HAVING count(*) > 0),
        CASE this.kind WHEN 'opt_out' THEN 'You may change your mind at any time: write to us as you did before. From '
                                           'then on new records are registered again; what was deleted does not come '
                                           'back.'
            ELSE 'You may opt out again at any time: write to us as you did before.' END,
        'If you are not content with what we did, please tell us. You also have the right to complain to the '
        'Information Commissioner''s Office: ico.org.uk, telephone 0303 123 1113.')
$$;
COMMENT ON FUNCTION letter_rights(optout_case, boolean) IS
    'internal: what every letter ends with: the copy that is kept, a change of mind, the right to complain';

-- Whom data was given to, and what came of asking to delete it.  Answers are purged
-- after some years; the case still knows how many notices there were.
CREATE FUNCTION letter_recalls(this optout_case, whose text) RETURNS text
LANGUAGE sql STABLE
SET timezone = 'UTC'
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN this.recalls > 0 THEN
               format(E'We had given data about %s to other organisations, which have to delete it:\n%s', whose,
                      concat_ws(E'\n', n.lines,
                                CASE WHEN this.recalls > n.notices THEN
                                    format('  - requests with a deletion confirmed, which are not kept any more: %s',
                                           this.recalls - n.notices) END))
           ELSE format('Our records show no %sorganisation that still holds data about %s from %s, so '
                       'there was none to ask to delete it.',
                       CASE WHEN this.not_told > 0 THEN 'other ' ELSE '' END, whose,
                       ndrs_optout.register_names(this.registers)) END
        || CASE WHEN this.not_told > 0 THEN
               E'\n\nWe had shared data with care providers. As we promise, we did not tell them.' ELSE '' END
        FROM (SELECT count(*) AS notices,
                     string_agg(format('  - %s, data of %s given on %s: %s', p.name,
                                       ndrs_optout.recalled_names(r.registers, this),
                                       ndrs_optout.english_date(r.released_on),
                                       CASE WHEN n.deleted_on IS NOT NULL
                                                THEN 'has confirmed that it was deleted on '
                                                    || ndrs_optout.english_date(n.deleted_on)
                                            WHEN n.outcome = 'not_found' THEN 'has answered that it found no such data'
                                            WHEN n.outcome = 'exempt'
                                                THEN 'has answered that it must keep it: ' || n.outcome_reason
                                            WHEN n.asked_at IS NULL THEN 'will be asked by us'
                                            ELSE format('was asked on %s to delete it by %s, and has not confirmed yet',
                                                        ndrs_optout.english_date(n.asked_at::date),
                                                            ndrs_optout.english_date(n.due_on)) END),
                                E'\n' ORDER BY n.notice_id) AS lines
                  FROM ndrs_optout.recall_notice n
                  JOIN ndrs_optout.release r USING (release_id)
                  JOIN ndrs_optout.recipient p USING (recipient)
                  WHERE n.case_id = this.case_id) AS n
$$;
COMMENT ON FUNCTION letter_recalls(optout_case, text) IS
    'internal: whom data about the patient was given to, and whether they have deleted it; or that no recipient on '
    'record still holds any';

-- letter_kept: this letter will be kept with the copy.
CREATE FUNCTION completion_letter_text(case_id bigint, letter_kept boolean) RETURNS text
LANGUAGE plpgsql STABLE
SET timezone = 'UTC'
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case;
    heading text;
    whose text;
    deleted text;
    redacted bigint;
    unlinked bigint;
    kept bigint;
    kept_for text;
BEGIN
    SELECT * INTO STRICT this FROM ndrs_optout.optout_case c WHERE c.case_id = completion_letter_text.case_id;
    whose := CASE this.applicant WHEN 'self' THEN 'you' WHEN 'parent' THEN 'your child'
                 ELSE 'the person you act for' END;
    heading := concat_ws(E'\n\n',
        format('Our reference: %s case %s', CASE this.kind WHEN 'opt_out' THEN 'opt-out' ELSE 'opt-in' END,
               this.case_id),
        CASE this.applicant WHEN 'self' THEN 'To the applicant'
            WHEN 'parent' THEN 'To the applicant, as the parent of the child'
            ELSE 'To the applicant, as the representative of the patient' END);
    IF this.kind = 'opt_in' THEN
        RETURN concat_ws(E'\n\n', heading,
            format('We received the request to opt in again to %s on %s.',
                   ndrs_optout.register_names(this.registers), ndrs_optout.english_date(this.received_on)),
            format('On %s we took the encoded form of the NHS number off the exclusion list. Records that reach us '
                   'from then on are registered again. What was deleted before does not come back.',
                   ndrs_optout.english_date(this.carried_out_at::date)),
            ndrs_optout.letter_rights(this, letter_kept));
    END IF;

    SELECT string_agg(format('  - from %s: %s', ndrs_optout.register_names(e.registers),
                             CASE coalesce(e.rows, 0) WHEN 0 THEN 'nothing was held' WHEN 1 THEN '1 record'
                                 ELSE e.rows || ' records' END), E'\n' ORDER BY e.registers)
        INTO deleted
        FROM (SELECT registers, sum(row_count) FILTER (WHERE ce.action = 'deleted') AS rows
                  FROM ndrs_optout.case_erasure ce WHERE ce.case_id = this.case_id AND ce.action <> 'kept'
                  GROUP BY registers) AS e;
    SELECT coalesce(sum(row_count) FILTER (WHERE ce.action = 'redacted'), 0),
           coalesce(sum(row_count) FILTER (WHERE ce.action = 'unlinked'), 0),
           sum(row_count) FILTER (WHERE ce.action = 'kept'),
           ndrs_optout.register_names((SELECT array_agg(DISTINCT other) FROM ndrs_optout.case_erasure k
               CROSS JOIN LATERAL unnest(k.registers) AS other
               WHERE k.case_id = this.case_id AND k.action = 'kept' AND other <> ALL (this.registers)))
        INTO redacted, unlinked, kept, kept_for
        FROM ndrs_optout.case_erasure ce WHERE ce.case_id = this.case_id;

    RETURN concat_ws(E'\n\n', heading,
        format('We received the request that %s should be opted out of %s on %s. With the proofs of identity and '
               'address it was complete on %s. This is what we have done.',
               whose, ndrs_optout.register_names(this.registers),
               ndrs_optout.english_date(this.received_on),
               ndrs_optout.english_date(this.clock_started_on)),
        format('On %s we put an encoded form of the NHS number on the exclusion list. From then on, records about %s '
               'that reach us for %s are stopped before they are registered.',
               ndrs_optout.english_date(this.listed_since::date), whose,
               CASE cardinality(this.registers) WHEN 1 THEN 'this register' ELSE 'these registers' END),
        format(E'We deleted the records that were held about %s:\n%s', whose, coalesce(deleted, '  - none')),
        CASE WHEN kept_for IS NOT NULL THEN
            format('Some of our tables serve %s as well, which the request does not name. There %s about %s, and new '
                   'ones will still be registered.',
                   kept_for, CASE kept WHEN 0 THEN 'we hold no record' WHEN 1 THEN 'we kept one record'
                       ELSE 'we kept ' || kept || ' records' END, whose) END,
        CASE WHEN redacted > 0 THEN
            format('%s kept, since it is about another person too, without the NHS number and what went with it.',
                   CASE redacted WHEN 1 THEN 'One record was' ELSE redacted || ' records were' END) END,
        CASE WHEN unlinked > 0 THEN
            format('%s kept that referred to a deleted one: the reference was removed.',
                   CASE unlinked WHEN 1 THEN 'One other record was' ELSE unlinked || ' other records were' END) END,
        format('On %s, after every transfer of data that was under way had ended, we looked again in every table that '
               'we know to hold such records: %s was left.',
               ndrs_optout.english_date(this.carried_out_at::date),
               CASE WHEN kept > 1 THEN 'none but these' WHEN kept = 1 THEN 'none but this one' ELSE 'none' END),
        ndrs_optout.letter_recalls(this, whose),
        CASE WHEN this.proofs_destroyed > 0 THEN
            format('We have destroyed what we held of the %s documents that proved identity and address.',
                   this.proofs_destroyed) END,
        format('We do not hold %s in %s any more. So if patients of %s are written to one day, for example about the '
               'late effects of a treatment, we cannot write to %s; and if a relative asks for advice about a disease '
               'that runs in the family, we cannot confirm a diagnosis.',
               CASE this.applicant WHEN 'self' THEN 'your records' WHEN 'parent' THEN 'your child''s records'
                   ELSE 'the person''s records' END,
               CASE cardinality(this.registers) WHEN 1 THEN 'this register' ELSE 'these registers' END,
               CASE cardinality(this.registers) WHEN 1 THEN 'the register' ELSE 'the registers' END, whose),
        ndrs_optout.letter_rights(this, letter_kept),
        'This letter does not speak of backup copies of the database, nor of data that other organisations did not '
        'have from us.');
END
$$;
COMMENT ON FUNCTION completion_letter_text(bigint, boolean) IS
    'internal: the letter about a case that was carried out, from what is stored of it; error P0002';

-- The last step: the proofs go, the certificate is issued, and the letter is
-- written and kept.
CREATE FUNCTION complete_case(case_id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.optout_case := ndrs_optout.locked_case(case_id, 'complete');
    letter text;
BEGIN
    IF this.kind = 'opt_out' AND NOT ndrs_optout.case_is_excluded(this) THEN
        PERFORM ndrs_optout.raise_error('ND021', format('the patient of case %s is not excluded any more', case_id),
            hint => format('CALL ndrs_optout.carry_out(%s, ...) again.', case_id));
    END IF;
    PERFORM ndrs_optout.end_case(this, 'completed', NULL);
    IF this.kind = 'opt_out' THEN
        PERFORM ndrs_optout.issue_certificate(case_id);
    END IF;
    IF (ndrs_optout.current_confidential_key()).key_id IS NOT NULL THEN
        PERFORM ndrs_optout.record_correspondence(case_id, 'letter',
            convert_to(ndrs_optout.completion_letter_text(case_id, true), 'UTF8'));
    END IF;
    letter := ndrs_optout.completion_letter_text(case_id, false);
    PERFORM ndrs_optout.audit_at_once('completion_letter_written', jsonb_build_object('case', case_id));
    RETURN letter;
END
$$;
COMMENT ON FUNCTION complete_case(bigint) IS
    'completes a case that was carried out: destroys the proofs, issues the certificate of an erasure and returns the '
    'letter to the applicant. That the letter was written is in the audit before it is returned; after a rollback the '
    'case is still to be completed. completion_letter() reads the letter again. Errors P0002, ND020, ND021, 25000, '
    '25006 and 53000 (the event cannot be written)';

-- The letter of a case that is completed already: nothing is changed.
CREATE FUNCTION completion_letter(case_id bigint) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.locked_case(case_id, 'write_letter');
    RETURN ndrs_optout.completion_letter_text(case_id, false);
END
$$;
COMMENT ON FUNCTION completion_letter(bigint) IS
    'the letter to the applicant of a completed case, as complete_case() returned it and as what is stored says now; '
    'changes nothing; errors P0002, ND020, ND021 (not completed)';
