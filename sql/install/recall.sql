-- recall: the request to a recipient to delete one patient's data.
--
-- A notice names case and release; the patient is named in the recall letter only,
-- by the id under which the recipient knows the patient.

CREATE TABLE recall_notice (
    notice_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id         bigint NOT NULL,
    release_id      bigint NOT NULL,
    raised_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    due_on          date NOT NULL,
    asked_at        timestamptz,    -- when the letter was first written
    chased_on       date,
    acknowledged_at timestamptz,
    outcome         recall_outcome,
    outcome_reason  text,
    deleted_on      date,
    by_destruction  boolean NOT NULL DEFAULT false,  -- answered by the destruction of the whole release
    sealed_id       bytea,  -- the patient's id, for the recipient alone
    UNIQUE (case_id, release_id),
    CHECK ((acknowledged_at IS NULL) = (outcome IS NULL)),
    CHECK ((deleted_on IS NOT NULL) = coalesce(outcome IN ('deleted', 'already_deleted'), false)),
    CHECK ((outcome_reason IS NOT NULL) = coalesce(outcome = 'exempt', false)),
    CHECK (NOT by_destruction OR acknowledged_at IS NOT NULL)
);
COMMENT ON TABLE recall_notice IS
    'requests to recipients to delete the data of one patient, one for each case and release, and their answers. '
    'sealed_id: the patient''s id for the recipient, which only the recipient can open';
SELECT pg_catalog.pg_extension_config_dump('recall_notice', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.recall_notice', 'notice_id')::regclass, '');

-- One notice for each release that held the patient's data of the case's registers,
-- is not destroyed and was not for care; what was raised before stays.  Returns how many there are.
-- The caller has waited for transactions that were recording releases.
CREATE FUNCTION raise_recalls(this optout_case, number nhs_number) RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    raised integer;
    notices integer;
BEGIN
    -- The lock comes before the question whether the release still counts: it waits for who says otherwise.
    WITH held AS (
        SELECT r.release_id, r.destroyed_on IS NULL AND r.retracted_at IS NULL AS open FROM ndrs_optout.release r
            WHERE r.registers && this.registers AND NOT ndrs_optout.release_for_care(r)
                AND r.patients OPERATOR(ndrs_optout.@>) this.encoded_nhs_number
            FOR SHARE)
    INSERT INTO ndrs_optout.recall_notice (case_id, release_id, due_on)
        SELECT this.case_id, h.release_id, ndrs_optout.today() + p.recall_days
            FROM held h CROSS JOIN ndrs_optout.policy p
            WHERE h.open
            ORDER BY h.release_id
        ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS raised = ROW_COUNT;
    UPDATE ndrs_optout.recall_notice n
        SET sealed_id = ndrs_optout.sealed_recipient_id(p, n.release_id, number)
        FROM ndrs_optout.release r JOIN ndrs_optout.recipient p USING (recipient)
        WHERE n.case_id = this.case_id AND n.release_id = r.release_id AND p.public_key IS NOT NULL
            AND n.sealed_id IS NULL AND n.acknowledged_at IS NULL;
    SELECT count(*) INTO notices FROM ndrs_optout.recall_notice n WHERE n.case_id = this.case_id;
    IF raised > 0 THEN
        PERFORM ndrs_optout.audit('recall_notices_raised', jsonb_build_object('case', this.case_id, 'notices', raised));
        PERFORM ndrs_optout.raise_notice(false, format('recall notices raised for case %s: %s', this.case_id, raised),
            'View ndrs_optout.recall_progress lists them, and says how each recipient is asked.');
    END IF;
    RETURN notices;
END
$$;
COMMENT ON FUNCTION raise_recalls(optout_case, nhs_number) IS
    'internal: raises the recall notices of a case that are not there yet, and seals the patient''s ids; returns how '
    'many there are';

-- Which releases these were is for a request for subject access to tell.
CREATE FUNCTION releases_not_told(this optout_case) RETURNS integer
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*)::integer FROM ndrs_optout.release r
        WHERE r.registers && this.registers AND ndrs_optout.release_for_care(r)
            AND r.destroyed_on IS NULL AND r.retracted_at IS NULL
            AND r.patients OPERATOR(ndrs_optout.@>) this.encoded_nhs_number
$$;
COMMENT ON FUNCTION releases_not_told(optout_case) IS
    'internal: how many releases for care hold the patient of a case, and raise no recall notice';

-- Of a recipient that turns out to be a care provider: what it was not asked yet, it is not asked.
CREATE FUNCTION recalls_not_for_care() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    dropped bigint;
BEGIN
    WITH gone AS (
        DELETE FROM ndrs_optout.recall_notice n USING ndrs_optout.release r
            WHERE r.release_id = n.release_id AND r.recipient = NEW.recipient
                AND n.asked_at IS NULL AND n.acknowledged_at IS NULL
            RETURNING n.case_id),
    told AS (
        UPDATE ndrs_optout.optout_case c SET recalls = c.recalls - g.notices, not_told = c.not_told + g.notices
            FROM (SELECT case_id, count(*)::integer AS notices FROM gone GROUP BY case_id) AS g
            WHERE c.case_id = g.case_id)
    SELECT count(*) INTO dropped FROM gone;
    IF dropped > 0 THEN
        PERFORM ndrs_optout.audit('recalls_dropped', jsonb_build_object('recipient', NEW.recipient,
                                                                        'notices', dropped));
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION recalls_not_for_care() IS
    'internal: trigger function: takes back the recall notices that a recipient was not asked by yet';
CREATE TRIGGER not_for_care AFTER UPDATE OF kind ON recipient
    FOR EACH ROW WHEN (NEW.kind = 'care_provider' AND OLD.kind <> 'care_provider')
    EXECUTE FUNCTION recalls_not_for_care();
COMMENT ON TRIGGER not_for_care ON recipient IS 'care providers are not told that a patient opted out';

-- The id is not repeated: it may be a number that was put in the wrong place.
CREATE FUNCTION no_such_notice() RETURNS void
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.raise_error('P0002', 'there is no such recall notice',
        hint => 'View ndrs_optout.recall_progress lists the notices.')
$$;
COMMENT ON FUNCTION no_such_notice() IS 'internal: error P0002';

-- A notice that is not answered yet, locked.
CREATE FUNCTION locked_notice(notice_id bigint) RETURNS recall_notice
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result ndrs_optout.recall_notice;
BEGIN
    SELECT * INTO result FROM ndrs_optout.recall_notice n WHERE n.notice_id = locked_notice.notice_id FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.no_such_notice();
    END IF;
    IF result.acknowledged_at IS NOT NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('recall notice %s is answered already', notice_id),
            hint => 'View ndrs_optout.recall_progress says when the data was deleted.');
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION locked_notice(bigint) IS 'internal: a notice, locked; errors P0002, ND021 (answered already)';

-- The day on which a recipient deleted data of a release: not before it had them.
CREATE FUNCTION checked_deletion(day date, release_id bigint) RETURNS date
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM ndrs_optout.checked_day(day, 'the data was deleted');
    IF day < (SELECT r.released_on FROM ndrs_optout.release r WHERE r.release_id = checked_deletion.release_id) THEN
        PERFORM ndrs_optout.raise_error('22023', 'the data cannot have been deleted before it was released',
            hint => 'View ndrs_optout.release_progress says when that was.');
    END IF;
    RETURN day;
END
$$;
COMMENT ON FUNCTION checked_deletion(date, bigint) IS
    'internal: the day itself; error 22023 when it is not between the release and today';

CREATE FUNCTION acknowledge_recall(notice_id bigint, deleted_on date DEFAULT today(),
    outcome text DEFAULT 'deleted', reason text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.recall_notice := ndrs_optout.locked_notice(notice_id);
    day date;
BEGIN
    IF ndrs_optout.checked_word(outcome, 'recall_outcome', 'outcome') IN ('deleted', 'already_deleted') THEN
        day := ndrs_optout.checked_deletion(acknowledge_recall.deleted_on, this.release_id);
    END IF;
    IF outcome = 'exempt' THEN
        PERFORM ndrs_optout.checked_reason(reason);
    ELSIF reason IS NOT NULL THEN
        PERFORM ndrs_optout.raise_error('22023', 'only outcome "exempt" has a reason');
    END IF;
    UPDATE ndrs_optout.recall_notice n
        SET acknowledged_at = clock_timestamp(), outcome = acknowledge_recall.outcome, outcome_reason = reason,
            deleted_on = day
        WHERE n.notice_id = this.notice_id;
    PERFORM ndrs_optout.audit('recall_acknowledged', jsonb_strip_nulls(jsonb_build_object('notice', this.notice_id,
        'case', this.case_id, 'release', this.release_id, 'outcome', outcome, 'deleted_on', day, 'reason', reason)));
END
$$;
COMMENT ON FUNCTION acknowledge_recall(bigint, date, text, text) IS
    'records what the recipient answered. outcome: deleted, now, or already_deleted, with the day deleted_on; '
    'not_found; or exempt, with the reason why it must keep the patient''s data. Errors P0002, ND021 (answered '
    'already), 22004 (no reason), 22023';

-- The notice stays overdue: what the recipient was given is still there.
CREATE FUNCTION chase_recall(notice_id bigint, chased_on date DEFAULT today()) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.recall_notice := ndrs_optout.locked_notice(notice_id);
BEGIN
    IF this.asked_at IS NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('recall notice %s was not sent yet', notice_id),
            hint => format('Write the letter with ndrs_optout.issue_recall_letter(%s, ...), and send it.', notice_id));
    END IF;
    PERFORM ndrs_optout.checked_day(chased_on, 'the recipient was reminded');
    IF chased_on < ndrs_optout.local_date(this.asked_at) THEN
        PERFORM ndrs_optout.raise_error('22023', 'the recipient cannot have been reminded before it was asked',
            hint => 'View ndrs_optout.recall_progress says when that was.');
    END IF;
    UPDATE ndrs_optout.recall_notice n SET chased_on = chase_recall.chased_on WHERE n.notice_id = this.notice_id;
    PERFORM ndrs_optout.audit('recall_chased', jsonb_build_object('notice', this.notice_id, 'case', this.case_id));
END
$$;
COMMENT ON FUNCTION chase_recall(bigint, date) IS
    'records that the recipient was reminded, and when; the notice is as overdue as before; errors P0002, ND021 '
    '(answered already, or no letter was written), 22023';

CREATE FUNCTION check_notice_patient(this recall_notice, number nhs_number) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (SELECT c.encoded_nhs_number FROM ndrs_optout.optout_case c WHERE c.case_id = this.case_id)
        OPERATOR(ndrs_optout.<>) ndrs_optout.encode_nhs_number(ndrs_optout.checked_patient(number)) THEN
        PERFORM ndrs_optout.raise_error('ND031', format('the NHS number is not that of case %s', this.case_id));
    END IF;
END
$$;
COMMENT ON FUNCTION check_notice_patient(recall_notice, nhs_number) IS
    'internal: errors ND004, ND010, ND011, 22004, and ND031 when the number is not that of the notice''s case';

-- What asks a recipient to delete a patient's data.
CREATE FUNCTION recall_letter_text(this recall_notice, number nhs_number, salt text, release_salt text, fields jsonb)
RETURNS text
LANGUAGE plpgsql
SET timezone = 'UTC'
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    its_case ndrs_optout.optout_case;
    its_release record;
    its_recipient ndrs_optout.recipient;
BEGIN
    SELECT * INTO STRICT its_case FROM ndrs_optout.optout_case c WHERE c.case_id = this.case_id;
    -- Without the set, which may be large.
    SELECT r.recipient, r.released_on, r.registers, r.reference INTO STRICT its_release
        FROM ndrs_optout.release r WHERE r.release_id = this.release_id;
    SELECT * INTO STRICT its_recipient FROM ndrs_optout.recipient r WHERE r.recipient = its_release.recipient;
    PERFORM ndrs_optout.check_notice_patient(this, number);
    RETURN ndrs_optout.letter_from_template((ndrs_optout.current_letter_template(
            CASE WHEN this.chased_on IS NULL THEN 'recall' ELSE 'recall_reminder' END, 'en', 'standard')).body,
        jsonb_build_object(
            'notice', this.notice_id,
            'recipient', concat_ws(', ', its_recipient.name, its_recipient.contact),
            'released_on', ndrs_optout.english_date(its_release.released_on),
            'registers', ndrs_optout.register_names(its_release.registers),
            'reference', its_release.reference,
            'recalled', ndrs_optout.recalled_names(its_release.registers, its_case),
            'due_on', ndrs_optout.english_date(this.due_on),
            'chased_on', ndrs_optout.english_date(this.chased_on),
            'id_name', CASE its_recipient.id_scheme
                WHEN 'nhs_number' THEN 'NHS number'
                WHEN 'openpseudonymiser' THEN 'OpenPseudonymiser digest'
                ELSE 'pseudo-id in your data' END,
            'id', ndrs_optout.recipient_id(its_recipient, number, salt, release_salt, fields),
            'contact', (SELECT p.contact FROM ndrs_optout.policy p)));
END
$$;
COMMENT ON FUNCTION recall_letter_text(recall_notice, nhs_number, text, text, jsonb) IS
    'internal: the letter of a recall notice; errors ND004, ND010, ND011, ND031 (another patient''s number), 22004 (a '
    'salt is missing), 22023';

CREATE FUNCTION issue_recall_letter(notice_id bigint, number nhs_number, salt text DEFAULT NULL,
    release_salt text DEFAULT NULL, fields jsonb DEFAULT '{}')
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.recall_notice := ndrs_optout.locked_notice(notice_id);
    letter text := ndrs_optout.recall_letter_text(this, number, salt, release_salt, fields);
BEGIN
    UPDATE ndrs_optout.recall_notice n SET asked_at = coalesce(n.asked_at, clock_timestamp())
        WHERE n.notice_id = this.notice_id;
    PERFORM ndrs_optout.audit_at_once('recall_letter_written',
        jsonb_build_object('notice', this.notice_id, 'case', this.case_id));
    RETURN letter;
END
$$;
COMMENT ON FUNCTION issue_recall_letter(bigint, nhs_number, text, text, jsonb) IS
    'issues the letter to a recipient that asks it to delete a patient''s data: returns it, and the recipient counts '
    'as asked from the first letter on. The patient is named by the id under which the recipient knows the patient. '
    'salt: of pseudo-ids or digests; release_salt: of the ids of one release; fields: what else OpenPseudonymiser''s '
    'digests are made of. Nothing of it is stored. That the letter was written is in the audit before it is returned; '
    'after a rollback the recipient does not count as asked, and the letter is issued again. recall_letter() only '
    'reads it. Errors P0002, ND004, ND010, ND011, ND021 (answered already), ND031 (another patient''s number), 22004 '
    '(a salt is missing), 22023, 25006 and 53000 (the event cannot be written)';

-- It names a patient, so that reading it is an event, too.
CREATE FUNCTION recall_letter(notice_id bigint, number nhs_number, salt text DEFAULT NULL,
    release_salt text DEFAULT NULL, fields jsonb DEFAULT '{}')
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.recall_notice;
    letter text;
BEGIN
    SELECT * INTO this FROM ndrs_optout.recall_notice n WHERE n.notice_id = recall_letter.notice_id;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.no_such_notice();
    END IF;
    letter := ndrs_optout.recall_letter_text(this, number, salt, release_salt, fields);
    PERFORM ndrs_optout.audit_at_once('recall_letter_read',
        jsonb_build_object('notice', this.notice_id, 'case', this.case_id));
    RETURN letter;
END
$$;
COMMENT ON FUNCTION recall_letter(bigint, nhs_number, text, text, jsonb) IS
    'the letter of a recall notice, answered or not, as issue_recall_letter() writes it, with the same arguments; '
    'changes nothing of the notice, and leaves an event in the audit. Errors P0002, ND004, ND010, ND011, ND031 '
    '(another patient''s number), 22004 (a salt is missing), 22023, 25006 and 53000 (the event cannot be written)';

-- An answer that the data cannot be deleted, or was not found, is one all the same: what to make of it is said there.
CREATE VIEW recall_progress AS
    SELECT n.notice_id, n.case_id, n.release_id, r.recipient, r.reference, n.raised_at, n.due_on,
           CASE WHEN f.open THEN n.due_on - today() END AS days_left,
           f.open AND n.due_on < today() AS overdue,
           CASE WHEN NOT f.open THEN 'answered'
                WHEN n.due_on + p.recall_escalation_days < today() THEN 'escalated'
                WHEN n.due_on < today() THEN 'overdue'
                WHEN n.asked_at IS NULL THEN 'to_ask'
                ELSE 'asked' END AS stage,
           n.sealed_id IS NOT NULL AS by_file,
           n.asked_at, n.chased_on, n.acknowledged_at, n.outcome, n.outcome_reason, n.deleted_on,
           CASE WHEN f.open THEN
               CASE WHEN n.due_on + p.recall_escalation_days < today()
                   THEN 'write to the head of the organisation; ' ELSE '' END
               || pg_catalog.format(CASE
                   WHEN n.sealed_id IS NOT NULL AND (n.asked_at IS NULL OR n.due_on < today())
                       THEN 'send SELECT * FROM ndrs_optout.recall_file(%2$L)'  -- told, not called
                   WHEN n.sealed_id IS NOT NULL
                       THEN 'on an answer, SELECT * FROM '
                           'ndrs_optout.load_recall_replies(%2$L, ...)'  -- told, not called
                   WHEN n.asked_at IS NULL THEN 'send SELECT ndrs_optout.issue_recall_letter(%1$s, ...)'
                   WHEN n.due_on < today() THEN 'remind the recipient, and SELECT ndrs_optout.chase_recall(%1$s)'
                   ELSE 'on an answer, SELECT ndrs_optout.acknowledge_recall(%1$s, ...)' END, n.notice_id, r.recipient)
               END AS next_action
        FROM recall_notice n JOIN release r USING (release_id)
        CROSS JOIN policy p
        CROSS JOIN LATERAL (SELECT n.acknowledged_at IS NULL AS open) AS f
        ORDER BY f.open DESC, n.due_on, n.notice_id;
COMMENT ON VIEW recall_progress IS
    'recall notices, open ones first, the most urgent first: due date, days left, stage (to_ask, asked, overdue, '
    'escalated, answered), whether a file names the patient, when the letter or file and the last reminder went, the '
    'answer, and what comes next';

-- The recipient has destroyed the data of a release: that answers what it was asked
-- to delete of it, and it will be asked for nothing more.  The lock keeps out a recall
-- that another session would raise.  Who was in it stays on record for a time, since
-- patients may ask to whom their data was given.
CREATE FUNCTION record_destruction(release_id bigint, destroyed_on date DEFAULT today()) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    destroyed boolean;
    retracted boolean;
    answered bigint;
BEGIN
    -- To see the notices of the transaction that held the lock.
    PERFORM ndrs_optout.require_read_committed();
    SELECT r.destroyed_on IS NOT NULL, r.retracted_at IS NOT NULL INTO destroyed, retracted
        FROM ndrs_optout.release r WHERE r.release_id = record_destruction.release_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.no_such_release();
    END IF;
    IF destroyed THEN
        PERFORM ndrs_optout.raise_error('ND021', format('the data of release %s is destroyed already', release_id));
    END IF;
    IF retracted THEN
        PERFORM ndrs_optout.raise_error('ND021', format('release %s is retracted', release_id));
    END IF;
    PERFORM ndrs_optout.checked_deletion(destroyed_on, release_id);
    UPDATE ndrs_optout.release r SET destroyed_on = record_destruction.destroyed_on
        WHERE r.release_id = record_destruction.release_id;
    UPDATE ndrs_optout.recall_notice n
        SET acknowledged_at = clock_timestamp(), outcome = 'deleted', deleted_on = destroyed_on, by_destruction = true
        WHERE n.release_id = record_destruction.release_id AND n.acknowledged_at IS NULL;
    GET DIAGNOSTICS answered = ROW_COUNT;
    PERFORM ndrs_optout.audit('release_destroyed',
        jsonb_build_object('release', release_id, 'destroyed_on', destroyed_on, 'notices', answered));
END
$$;
COMMENT ON FUNCTION record_destruction(bigint, date) IS
    'records that the recipient has destroyed the data of a release: open recall notices of it are answered with '
    'that, and no more are raised. Its set of patients, which subject access needs, is purged when the policy''s '
    'years are over; errors P0002, ND021 (destroyed already, or retracted), 22023, 25000';

-- Of the registers that a release had data of, those that the case is about.
CREATE FUNCTION recalled_names(released text[], this optout_case) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.register_names(ARRAY(SELECT code FROM unnest(released) AS code
                                            WHERE code = ANY (this.registers)))
$$;
COMMENT ON FUNCTION recalled_names(text[], optout_case) IS
    'internal: the names of the registers of a release that a case is about';

-- Mistakes are corrected by events of their own: what the audit has stays there.

-- The set of patients stays, since the release may turn out to have been given after all.
CREATE FUNCTION retract_release(release_id bigint, reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    destroyed boolean;
    retracted boolean;
BEGIN
    PERFORM ndrs_optout.checked_reason(reason);
    -- To see the notices of whom the lock has waited for.
    PERFORM ndrs_optout.require_read_committed();
    SELECT r.destroyed_on IS NOT NULL, r.retracted_at IS NOT NULL INTO destroyed, retracted
        FROM ndrs_optout.release r WHERE r.release_id = retract_release.release_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.no_such_release();
    END IF;
    IF retracted THEN
        PERFORM ndrs_optout.raise_error('ND021', format('release %s is retracted already', release_id));
    END IF;
    IF destroyed THEN
        PERFORM ndrs_optout.raise_error('ND021',
            format('cannot retract release %s: its data is destroyed', release_id));
    END IF;
    IF EXISTS (SELECT FROM ndrs_optout.recall_notice n WHERE n.release_id = retract_release.release_id) THEN
        PERFORM ndrs_optout.raise_error('ND021',
            format('cannot retract release %s: recall notices name it', release_id),
            hint => 'Ask the recipient, and record what it answers with ndrs_optout.acknowledge_recall().');
    END IF;
    UPDATE ndrs_optout.release r SET retracted_at = clock_timestamp() WHERE r.release_id = retract_release.release_id;
    PERFORM ndrs_optout.audit('release_retracted', jsonb_build_object('release', release_id, 'reason', reason));
END
$$;
COMMENT ON FUNCTION retract_release(bigint, text) IS
    'says that a release was recorded by mistake and its data never given: no recall is raised for it. Possible until '
    'a recall notice names the release. The record stays; its set of patients is purged like that of a destroyed '
    'release. Audited with the reason; errors P0002, ND021 (retracted, destroyed or recalled already), 22004, 22023, '
    '25000';

-- Cases that were carried out in between have raised no notice for this release.
CREATE FUNCTION retract_destruction(release_id bigint, reason text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this record;
    reopened bigint;
    raised bigint;
BEGIN
    PERFORM ndrs_optout.checked_reason(reason);
    -- To see the cases of whom the lock has waited for.
    PERFORM ndrs_optout.require_read_committed();
    SELECT r.destroyed_on, r.recorded_at, r.patients IS NOT NULL AS on_record INTO this
        FROM ndrs_optout.release r WHERE r.release_id = retract_destruction.release_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.no_such_release();
    END IF;
    IF this.destroyed_on IS NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('the data of release %s is not destroyed', release_id));
    END IF;
    IF NOT this.on_record THEN
        PERFORM ndrs_optout.raise_error('ND021', format('the patient list of release %s has been purged', release_id),
            detail => 'No patient could be recalled from it.');
    END IF;
    UPDATE ndrs_optout.release r SET destroyed_on = NULL WHERE r.release_id = retract_destruction.release_id;
    UPDATE ndrs_optout.recall_notice n
        SET acknowledged_at = NULL, outcome = NULL, deleted_on = NULL, by_destruction = false
        WHERE n.release_id = retract_destruction.release_id AND n.by_destruction;
    GET DIAGNOSTICS reopened = ROW_COUNT;
    WITH added AS (
        INSERT INTO ndrs_optout.recall_notice (case_id, release_id, due_on)
            SELECT c.case_id, r.release_id, ndrs_optout.today() + p.recall_days
                FROM ndrs_optout.optout_case c
                JOIN ndrs_optout.release r ON r.registers && c.registers
                    AND r.patients OPERATOR(ndrs_optout.@>) c.encoded_nhs_number
                CROSS JOIN ndrs_optout.policy p
                WHERE r.release_id = retract_destruction.release_id AND c.kind = 'opt_out'
                    AND NOT ndrs_optout.release_for_care(r)
                    AND c.state IN ('carried_out', 'completed') AND c.carried_out_at >= r.recorded_at
                ORDER BY c.case_id
            ON CONFLICT DO NOTHING
            RETURNING recall_notice.case_id),
    counted AS (
        UPDATE ndrs_optout.optout_case c SET recalls = coalesce(c.recalls, 0) + 1
            FROM added a WHERE c.case_id = a.case_id
            RETURNING 1)
    SELECT count(*) INTO raised FROM counted;
    PERFORM ndrs_optout.audit('destruction_retracted', jsonb_build_object('release', release_id,
        'destroyed_on', this.destroyed_on, 'reopened', reopened, 'raised', raised, 'reason', reason));
    RETURN reopened + raised;
END
$$;
COMMENT ON FUNCTION retract_destruction(bigint, text) IS
    'says that a recipient has not destroyed the data of a release after all: the recall notices that the destruction '
    'answered are open again, and a notice is raised for each patient of it whose case was carried out in between. '
    'Returns how many notices these are. Audited with the reason; errors P0002, ND021 (not destroyed, or the patients '
    'are not on record any more), 22004, 22023, 25000';

CREATE FUNCTION retract_acknowledgement(notice_id bigint, reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.recall_notice;
    destroyed boolean;
BEGIN
    PERFORM ndrs_optout.checked_reason(reason);
    -- The release first, in the order in which record_destruction() locks.
    PERFORM ndrs_optout.require_read_committed();
    SELECT r.destroyed_on IS NOT NULL INTO destroyed FROM ndrs_optout.release r
        WHERE r.release_id = (SELECT n.release_id FROM ndrs_optout.recall_notice n
                                  WHERE n.notice_id = retract_acknowledgement.notice_id)
        FOR SHARE;
    SELECT * INTO this FROM ndrs_optout.recall_notice n
        WHERE n.notice_id = retract_acknowledgement.notice_id FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.no_such_notice();
    END IF;
    IF this.acknowledged_at IS NULL THEN
        PERFORM ndrs_optout.raise_error('ND021', format('recall notice %s is not answered', notice_id));
    END IF;
    IF destroyed THEN
        PERFORM ndrs_optout.raise_error('ND021', format('the data of release %s is destroyed', this.release_id),
            hint => format('If that is a mistake, call ndrs_optout.retract_destruction(%s, ...).', this.release_id));
    END IF;
    UPDATE ndrs_optout.recall_notice n
        SET acknowledged_at = NULL, outcome = NULL, outcome_reason = NULL, deleted_on = NULL
        WHERE n.notice_id = this.notice_id;
    PERFORM ndrs_optout.audit('acknowledgement_retracted', jsonb_build_object('notice', this.notice_id,
        'case', this.case_id, 'release', this.release_id, 'outcome', this.outcome, 'deleted_on', this.deleted_on,
        'reason', reason));
END
$$;
COMMENT ON FUNCTION retract_acknowledgement(bigint, text) IS
    'says that what a recipient answered was wrong: the recall notice is open again, and as '
    'overdue as it was. Audited with the day that was recorded and the reason; errors P0002, ND021 (not answered, or '
    'the whole release is destroyed), 22004, 22023, 25000';
