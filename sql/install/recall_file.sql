-- recall_file: all recalls of one recipient in one file, and its answers from another.
--
-- A line of the file is a work item.  It names the patient by the recipient's own id, sealed
-- with the recipient's key (recall_id).

-- Nothing is lost when a file does not reach the recipient: each holds every notice that is open.
CREATE FUNCTION recall_file(recipient text)
RETURNS TABLE (notice_id bigint, reference text, registers text, reply_by date, reminder boolean, sealed_id text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    notices bigint[];
    left_out bigint;
BEGIN
    PERFORM ndrs_optout.checked_recipient(recipient);
    WITH asked AS (
        UPDATE ndrs_optout.recall_notice n
            SET asked_at = coalesce(n.asked_at, clock_timestamp()),
                chased_on = CASE WHEN ndrs_optout.local_date(n.asked_at) < ndrs_optout.today() THEN ndrs_optout.today()
                                 ELSE n.chased_on END
            FROM ndrs_optout.release r
            WHERE r.release_id = n.release_id AND r.recipient = recall_file.recipient
                AND n.acknowledged_at IS NULL AND n.sealed_id IS NOT NULL
            RETURNING n.notice_id)
    SELECT array_agg(a.notice_id) INTO notices FROM asked a;
    SELECT count(*) INTO left_out
        FROM ndrs_optout.recall_notice n JOIN ndrs_optout.release r USING (release_id)
        WHERE r.recipient = recall_file.recipient AND n.acknowledged_at IS NULL AND n.sealed_id IS NULL;
    IF left_out > 0 THEN
        PERFORM ndrs_optout.raise_notice(true, format('recall notices that the file leaves out, for want of the '
                                                      'patient''s id: %s', left_out),
            'Seal the ids with ndrs_optout.seal_recall(), or write letters: view ndrs_optout.recall_progress lists the '
            'notices.');
    END IF;
    PERFORM ndrs_optout.audit_at_once('recall_file_written',
        jsonb_build_object('recipient', recipient, 'notices', coalesce(cardinality(notices), 0), 'left_out', left_out));
    RETURN QUERY
        SELECT n.notice_id, r.reference,
               (SELECT string_agg(code, ' ' ORDER BY code) FROM unnest(r.registers) AS code
                    WHERE code = ANY (c.registers)),
               n.due_on, n.chased_on IS NOT NULL, translate(encode(n.sealed_id, 'base64'), E'\n', '')
            FROM ndrs_optout.recall_notice n
            JOIN ndrs_optout.release r USING (release_id)
            JOIN ndrs_optout.optout_case c USING (case_id)
            WHERE n.notice_id = ANY (notices)
            ORDER BY n.notice_id;
END
$$;
COMMENT ON FUNCTION recall_file(text) IS
    'every open recall notice of a recipient, for a file: one a row, with the reference of the release, the codes of '
    'the registers whose data is to be deleted, the day by which an answer is due, whether it was asked for before, '
    'and the patient''s id, which the recipient''s private key opens (base64 of a PGP message). The recipient counts '
    'as asked, and as reminded of what it was asked for on an earlier day. That the file was written is in the audit '
    'before it is returned. Notices without a sealed id are left out, with a warning; errors 25006 and 53000 (the '
    'event cannot be written), 42704 (no such recipient)';

-- For notices that were raised when the recipient had no key, a salt was in no file, or the
-- digest is made of other fields, too.
CREATE FUNCTION seal_recall(notice_id bigint, number nhs_number, salt text DEFAULT NULL,
    release_salt text DEFAULT NULL, fields jsonb DEFAULT '{}')
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.recall_notice := ndrs_optout.locked_notice(notice_id);
    its_recipient ndrs_optout.recipient;
    id bytea;
BEGIN
    PERFORM ndrs_optout.check_notice_patient(this, number);
    SELECT p.* INTO STRICT its_recipient
        FROM ndrs_optout.release r JOIN ndrs_optout.recipient p USING (recipient)
        WHERE r.release_id = this.release_id;
    IF its_recipient.public_key IS NULL THEN
        PERFORM ndrs_optout.raise_error('55000', format('recipient "%s" has no public key', its_recipient.recipient),
            hint => 'Set it with ndrs_optout.set_recipient_key(), or write a letter.');
    END IF;
    id := ndrs_optout.sealed_recipient_id(its_recipient, this.release_id, number, salt, release_salt, fields);
    IF id IS NULL THEN
        PERFORM ndrs_optout.raise_error('22004', format('the ids of recipient "%s" need a salt',
                                                        its_recipient.recipient),
            detail => format('It is kept here: %s.', its_recipient.salt_reference));
    END IF;
    UPDATE ndrs_optout.recall_notice n SET sealed_id = id WHERE n.notice_id = this.notice_id;
    PERFORM ndrs_optout.audit('recall_sealed', jsonb_build_object('notice', this.notice_id, 'case', this.case_id));
END
$$;
COMMENT ON FUNCTION seal_recall(bigint, nhs_number, text, text, jsonb) IS
    'names the patient of a recall notice in the recipient''s recall files: seals the recipient''s id with its '
    'public key. Arguments as of issue_recall_letter(); a salt that is not given is read from its file. Errors '
    'P0002, ND004, ND010, ND011, ND021 (answered already), ND031 (another patient''s number), 22004 (a salt is '
    'missing), 22023, 55000 (the recipient has no key)';

-- A field of a line of comma separated values.
CREATE FUNCTION recall_reply_field(value text) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nullif(CASE WHEN trimmed ~ '^".*"$' THEN btrim(replace(substr(trimmed, 2, length(trimmed) - 2), '""', '"'))
                       ELSE trimmed END, '')
        FROM btrim(value, E' \t\r') AS trimmed
$$;
COMMENT ON FUNCTION recall_reply_field(text) IS 'internal: a field of a line, without quotes; NULL when it is empty';

-- A text that is a day of the calendar; the server's own conversion would be an error for one that is not.
CREATE FUNCTION recall_reply_day(value text) RETURNS date
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN d.part[2]::integer BETWEEN 1 AND 12
                    AND d.part[3]::integer BETWEEN 1 AND extract(day FROM
                        make_date(d.part[1]::integer, 1, 1) + make_interval(months => d.part[2]::integer)
                            - interval '1 day')
                THEN make_date(d.part[1]::integer, d.part[2]::integer, d.part[3]::integer) END
        FROM regexp_match(value, '^([12][0-9]{3})-([0-9]{2})-([0-9]{2})$') AS d (part)
$$;
COMMENT ON FUNCTION recall_reply_day(text) IS 'internal: the day that a text such as 2026-07-05 says; NULL for none';

-- All lines are looked at; the good ones count, the others are returned.  What a line says is
-- not repeated: it may hold anything.
CREATE FUNCTION load_recall_replies(recipient text, lines text[])
RETURNS TABLE (line integer, notice_id bigint, problem text)
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET jit = off
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    looked jsonb;
    answered jsonb;
BEGIN
    PERFORM ndrs_optout.checked_recipient(recipient);
    IF lines IS NULL THEN
        PERFORM ndrs_optout.raise_error('22004', 'the lines of the reply are needed');
    END IF;
    PERFORM ndrs_optout.require_read_committed();
    -- The releases first, in the order in which record_destruction() locks.
    PERFORM FROM ndrs_optout.release r
        WHERE r.recipient = load_recall_replies.recipient ORDER BY r.release_id FOR SHARE;
    PERFORM FROM ndrs_optout.recall_notice n JOIN ndrs_optout.release r USING (release_id)
        WHERE r.recipient = load_recall_replies.recipient ORDER BY n.notice_id FOR UPDATE OF n;

    WITH said AS MATERIALIZED (
        SELECT l.place::integer AS line,
               CASE WHEN f.notice ~ '^[0-9]{1,18}$' THEN f.notice::bigint END AS notice_id,
               lower(ndrs_optout.recall_reply_field(split_part(l.text, ',', 2))) AS outcome,
               ndrs_optout.recall_reply_field(split_part(l.text, ',', 3)) AS day_text,
               ndrs_optout.recall_reply_field(regexp_replace(l.text, '^[^,]*,?[^,]*,?[^,]*,?', '')) AS reason
            FROM unnest(lines) WITH ORDINALITY AS l (text, place)
            CROSS JOIN LATERAL (SELECT ndrs_optout.recall_reply_field(split_part(l.text, ',', 1))) AS f (notice)
            WHERE l.text ~ '[^[:space:],]' AND NOT (l.place = 1 AND f.notice = 'notice_id')),
    checked AS MATERIALIZED (
        SELECT s.line, s.outcome, s.reason, n.notice_id, n.acknowledged_at, d.day,
               CASE WHEN s.notice_id IS NULL THEN 'the line does not begin with the number of a recall notice'
                    WHEN n.notice_id IS NULL THEN 'the recipient has no such recall notice'
                    WHEN (s.outcome = ANY (ndrs_optout.words('recall_outcome'))) IS NOT TRUE
                        THEN 'the status is not deleted, already_deleted, not_found or exempt'
                    WHEN s.outcome IN ('deleted', 'already_deleted') AND s.day_text IS NULL
                        THEN 'the day of the deletion is missing'
                    WHEN s.day_text IS NOT NULL AND d.day IS NULL THEN 'the day is not a date such as 2026-07-05'
                    WHEN s.outcome IN ('deleted', 'already_deleted')
                        AND NOT d.day BETWEEN n.released_on AND ndrs_optout.today()
                        THEN 'the day is not between the release and today'
                    WHEN s.outcome IN ('not_found', 'exempt') AND d.day IS NOT NULL
                        THEN 'a day goes with deleted and already_deleted only'
                    WHEN s.outcome = 'exempt' AND s.reason IS NULL THEN 'the reason is missing'
                    WHEN s.outcome <> 'exempt' AND s.reason IS NOT NULL THEN 'a reason goes with exempt only'
                    WHEN length(s.reason) > 500 THEN 'the reason has more than 500 characters'
                    WHEN ndrs_optout.holds_nhs_number(s.reason) THEN 'the reason must not hold an NHS number'
                    WHEN count(*) OVER (PARTITION BY s.notice_id) > 1 THEN 'the notice is answered more than once'
                    WHEN n.acknowledged_at IS NOT NULL
                        AND (n.outcome, n.deleted_on, n.outcome_reason) IS DISTINCT FROM (s.outcome, d.day, s.reason)
                        THEN 'the notice is answered already, otherwise'
               END AS problem
            FROM said s
            CROSS JOIN LATERAL (SELECT ndrs_optout.recall_reply_day(s.day_text)) AS d (day)
            LEFT JOIN (SELECT o.*, r.released_on
                           FROM ndrs_optout.recall_notice o JOIN ndrs_optout.release r USING (release_id)
                           WHERE r.recipient = load_recall_replies.recipient) AS n USING (notice_id)),
    answer AS (
        UPDATE ndrs_optout.recall_notice n
            SET acknowledged_at = clock_timestamp(), outcome = c.outcome, outcome_reason = c.reason, deleted_on = c.day
            FROM checked c
            WHERE n.notice_id = c.notice_id AND c.problem IS NULL AND c.acknowledged_at IS NULL
            RETURNING n.notice_id, n.outcome)
    SELECT (SELECT jsonb_agg(jsonb_build_array(c.line, c.notice_id, c.problem) ORDER BY c.line)
                FROM checked c WHERE c.problem IS NOT NULL),
           (SELECT jsonb_object_agg(o.outcome, o.notices)
                FROM (SELECT a.outcome, jsonb_agg(a.notice_id ORDER BY a.notice_id) AS notices
                          FROM answer a GROUP BY a.outcome) AS o)
        INTO looked, answered;
    PERFORM ndrs_optout.audit('recall_replies_loaded', jsonb_build_object('recipient', recipient,
        'lines', cardinality(lines), 'problems', coalesce(jsonb_array_length(looked), 0),
        'notices', coalesce(answered, '{}')));
    RETURN QUERY SELECT (p.value ->> 0)::integer, (p.value ->> 1)::bigint, p.value ->> 2
        FROM jsonb_array_elements(looked) WITH ORDINALITY AS p (value, place) ORDER BY p.place;
END
$$;
COMMENT ON FUNCTION load_recall_replies(text, text[]) IS
    'loads a recipient''s answers to its recall notices: lines of notice_id,status,day,reason, with or without a '
    'heading. status: deleted or already_deleted, with the day as 2026-07-05; not_found; or exempt, with the reason. '
    'All lines are checked. Good ones are recorded, also what was loaded before; the others are returned: line, '
    'notice (NULL when it is none of the recipient''s) and problem. Audited; errors 22004, 25000, 42704 (no such '
    'recipient)';

CREATE VIEW recall_recipient_progress AS
    SELECT n.recipient, n.open, n.to_ask, n.without_id, n.overdue, n.escalated, n.oldest_due_on, n.last_asked_at,
           n.last_chased_on,
           CASE WHEN n.open = 0 THEN NULL
                WHEN n.escalated > 0 THEN 'write to the head of the organisation'
                WHEN n.without_id > 0 AND n.without_id = n.open THEN 'see ndrs_optout.recall_progress'
                WHEN n.to_ask + n.overdue > 0
                    THEN pg_catalog.format('send SELECT * FROM ndrs_optout.recall_file(%L)', n.recipient)
                ELSE pg_catalog.format('on an answer, SELECT * FROM ndrs_optout.load_recall_replies(%L, ...)',
                                       n.recipient)
           END AS next_action
        FROM (SELECT p.recipient, count(*) FILTER (WHERE p.stage <> 'answered') AS open,
                     count(*) FILTER (WHERE p.stage = 'to_ask') AS to_ask,
                     count(*) FILTER (WHERE p.stage <> 'answered' AND NOT p.by_file) AS without_id,
                     count(*) FILTER (WHERE p.overdue) AS overdue,
                     count(*) FILTER (WHERE p.stage = 'escalated') AS escalated,
                     min(p.due_on) FILTER (WHERE p.stage <> 'answered') AS oldest_due_on,
                     max(p.asked_at) AS last_asked_at, max(p.chased_on) AS last_chased_on
                  FROM recall_progress p GROUP BY p.recipient) AS n
        ORDER BY n.escalated DESC, n.overdue DESC, n.open DESC, n.recipient;
COMMENT ON VIEW recall_recipient_progress IS
    'the recall notices of each recipient, the worst first: how many are open, not asked yet, without a sealed id '
    '(so in no file), overdue, and escalated (overdue for longer than the policy''s recall_escalation_days), and '
    'what comes next';
