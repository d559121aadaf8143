-- release_record: a release is recorded before the data is sent, or refused.

-- What is for the patient's own care rests on no agreement, and recalls nothing.  The row stays
-- locked, so that an agreement that is ended at the same moment is ended before or after.
CREATE FUNCTION release_agreement(purpose text, recipient text, released_on date, agreement bigint) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    today date := ndrs_optout.today();
    found_ids bigint[];
    overdue bigint;
BEGIN
    IF ndrs_optout.is_for_care(purpose, recipient) THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(f.agreement_id) INTO found_ids
        FROM (SELECT a.agreement_id FROM ndrs_optout.agreement a
                  WHERE a.recipient = release_agreement.recipient AND a.ended_at IS NULL
                      AND today BETWEEN a.starts_on AND a.ends_on AND released_on BETWEEN a.starts_on AND a.ends_on
                      AND a.agreement_id = coalesce(release_agreement.agreement, a.agreement_id)
                  FOR SHARE) AS f;
    IF found_ids IS NULL THEN
        PERFORM ndrs_optout.raise_error('ND042',
            CASE WHEN agreement IS NULL THEN format('recipient "%s" has no agreement in force', recipient)
                 ELSE format('recipient "%s" has no such agreement in force', recipient) END,
            detail => 'A release needs one on its day and today, unless it is for individual care.',
            hint => 'Ask an officer to record it with ndrs_optout.add_agreement(). View '
                    'ndrs_optout.agreement_progress lists the agreements.');
    END IF;
    IF cardinality(found_ids) > 1 THEN
        PERFORM ndrs_optout.raise_error('ND042', format('recipient "%s" has %s agreements in force', recipient,
                                                        cardinality(found_ids)),
            hint => 'Name the one that the release is under, by argument agreement.');
    END IF;
    SELECT count(*) INTO overdue
        FROM ndrs_optout.recall_notice n JOIN ndrs_optout.release r USING (release_id)
        WHERE r.recipient = release_agreement.recipient AND n.acknowledged_at IS NULL AND n.due_on < today;
    IF overdue > 0 AND NOT EXISTS (SELECT FROM ndrs_optout.release_allowance w
                                   WHERE w.recipient = release_agreement.recipient AND w.until >= today) THEN
        PERFORM ndrs_optout.raise_error('ND042', format('recipient "%s" is late with %s recall notices', recipient,
                                                        overdue),
            detail => 'It has not said that it deleted the data of patients who opted out.',
            hint => 'Wait for its answers. If the release cannot wait, ask an officer for '
                    'ndrs_optout.allow_releases().');
    END IF;
    RETURN found_ids[1];
END
$$;
COMMENT ON FUNCTION release_agreement(text, text, date, bigint) IS
    'internal: the agreement in force that a release is under, locked; NULL for one for care; error ND042 when there '
    'is none, or several and none is named, or the recipient is late with recalls and releases were not allowed';

-- Refuses a set of patients unless each of them may be in this release now.
CREATE FUNCTION release_check(patients encoded_set, purpose text, registers text[], recipient text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    refused bigint;
    reasons text;
BEGIN
    SELECT sum(d.patients), string_agg(format('%s: %s', d.decision, d.patients), ', ' ORDER BY d.decision) INTO refused,
        reasons
        FROM (SELECT ndrs_optout.share_decision(member, purpose, registers, recipient) AS decision, count(*) AS patients
                  FROM ndrs_optout.unnest(release_check.patients) AS member
                  GROUP BY 1) AS d
        WHERE d.decision IS DISTINCT FROM 'eligible';
    IF refused > 0 THEN
        PERFORM ndrs_optout.raise_error('ND041',
            format('%s of %s patients must not be in this release', refused, ndrs_optout.cardinality(patients)),
            detail => format('By reason: %s.', reasons),
            hint => 'Nothing was recorded. Leave them out of the data, and record the release of the others before it '
                    'is sent.');
    END IF;
END
$$;
COMMENT ON FUNCTION release_check(encoded_set, text, text[], text) IS
    'internal: error ND041 unless every member may be released to the recipient for the purpose now';

-- The lock comes before the decision.  An opt-out that is carried out at the same
-- time waits for the transaction that holds the lock, after its exclusion is
-- committed and before it looks for releases; a transaction that locks later
-- decides with the new list.  So no patient is in a release that was not found.
CREATE FUNCTION record_release(patients encoded_set, purpose text, registers text[], recipient text,
    released_on date, reference text, legal_basis text DEFAULT NULL, agreement bigint DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    codes text[];
    its_agreement bigint;
    result bigint;
BEGIN
    LOCK TABLE ndrs_optout.release IN ROW EXCLUSIVE MODE;
    PERFORM ndrs_optout.checked_recipient(recipient);
    PERFORM ndrs_optout.checked_day(released_on, 'the data is released');
    PERFORM ndrs_optout.checked_reason(reference, 'reference');
    IF legal_basis IS NOT NULL THEN
        PERFORM ndrs_optout.checked_reason(legal_basis, 'legal basis');
    END IF;
    codes := ndrs_optout.checked_registers(coalesce(registers, ARRAY(SELECT r.code FROM ndrs_optout.register r)));
    IF coalesce(ndrs_optout.cardinality(patients), 0) = 0 THEN
        PERFORM ndrs_optout.raise_error('22004', 'a release needs its patients',
            hint => 'Data that is about no particular patient is no release.');
    END IF;
    its_agreement := ndrs_optout.release_agreement(purpose, recipient, released_on, agreement);
    PERFORM ndrs_optout.release_check(patients, purpose, codes, recipient);
    INSERT INTO ndrs_optout.release (recipient, purpose, legal_basis, registers, released_on, reference, agreement_id,
                                     patients, patient_count)
        VALUES (recipient, purpose, legal_basis, codes, released_on, reference, its_agreement,
                patients, ndrs_optout.cardinality(patients))
        RETURNING release_id INTO STRICT result;
    PERFORM ndrs_optout.audit('release_recorded', jsonb_strip_nulls(jsonb_build_object('release', result,
        'recipient', recipient, 'purpose', purpose, 'registers', codes, 'agreement', its_agreement,
        'patients', ndrs_optout.cardinality(patients))));
    RETURN result;
END
$$;
COMMENT ON FUNCTION record_release(encoded_set, text, text[], text, date, text, text, bigint) IS
    'records a release of data before it is sent: to whom, for which purpose, from which registers (NULL: all), '
    'and whose data it holds; returns its id. Refused, with counts by reason and nothing recorded, when a patient may '
    'not be in it now, or the recipient has no agreement in force (agreement: which, if there are several), or is late '
    'with recalls, unless it is for care; errors ND010, ND011, ND041, ND042, 22004, 22023, 42704 (no such recipient, '
    'register or purpose)';

CREATE FUNCTION record_release(patients nhs_number[], purpose text, registers text[], recipient text,
    released_on date, reference text, legal_basis text DEFAULT NULL, agreement bigint DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET log_min_error_statement = panic
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unusable bigint := (SELECT count(*) FROM unnest(patients) AS number
                        WHERE number IS NULL OR ndrs_optout.nhs_number_is_placeholder(number));
BEGIN
    IF unusable > 0 THEN
        PERFORM ndrs_optout.raise_error('22004', format('%s of %s patients have no NHS number', unusable,
                                                        cardinality(patients)),
            detail => 'It is missing, a placeholder, or cannot be read.',
            hint => 'Who cannot be identified could not be recalled: leave them out.');
    END IF;
    RETURN ndrs_optout.record_release(
        (SELECT ndrs_optout.encoded_set_agg(ndrs_optout.encode_nhs_number(number)) FROM unnest(patients) AS number),
        purpose, registers, recipient, released_on, reference, legal_basis,
        agreement);
END
$$;
COMMENT ON FUNCTION record_release(nhs_number[], text, text[], text, date, text, text, bigint) IS
    'records a release of data before it is sent, with the NHS numbers of the patients whose data it holds; returns '
    'its id. Refused, with counts by reason and nothing recorded, when a patient may not be in it now; errors ND010, '
    'ND011, ND041, ND042 (no agreement in force, or overdue recalls), 22004 (a number is missing or a placeholder), '
    '22023, 42704 (no such recipient, register or purpose)';

-- The query runs with the caller's rights.
CREATE FUNCTION record_release(query text, purpose text, registers text[], recipient text,
    released_on date, reference text, legal_basis text DEFAULT NULL, agreement bigint DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    numbers ndrs_optout.nhs_number[];
BEGIN
    EXECUTE format('SELECT array_agg(ndrs_optout.guard_number(q.value)) FROM %s', ndrs_optout.query_source(query))
        INTO numbers;
    RETURN ndrs_optout.record_release(numbers, purpose, registers, recipient, released_on, reference, legal_basis,
        agreement);
END
$$;
COMMENT ON FUNCTION record_release(text, text, text[], text, date, text, text, bigint) IS
    'records a release of data before it is sent, with a query whose only column holds the NHS numbers of the '
    'patients, of any type that a guard reads; the query runs with the caller''s rights. Returns the release''s id. '
    'Refused, with counts by reason and nothing recorded, when a patient may not be in it now; errors ND010, ND011, '
    'ND041, ND042 (no agreement in force, or overdue recalls), 22004 (a number is missing or a placeholder), 22023 '
    '(also: not a query, an NHS number in the query), 42601 (more columns), 42704 (no such recipient, register or '
    'purpose), and the query''s';
