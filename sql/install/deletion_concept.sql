-- deletion_concept: what is deleted, from when on, after how long, with which exceptions and by whom.
--
-- What the policy and the purge do, in the terms of ISO/IEC 27555 and DIN 66398.

CREATE TABLE deletion_rule (
    what           text COLLATE "C" PRIMARY KEY,
    place          integer NOT NULL UNIQUE,
    starts         text NOT NULL,
    policy_column  name,       -- NULL: period says it
    unit           text,
    period         text,
    exceptions     text,
    done_by        text NOT NULL,
    CHECK (pg_catalog.num_nonnulls(policy_column, period) = 1),
    CHECK ((policy_column IS NULL) = (unit IS NULL))
);
-- not dumped: it comes with the extension.
COMMENT ON TABLE deletion_rule IS
    'internal: the rules of deletion_concept(): what each kind of data is kept for, with the column of the policy that '
    'says for how long';

INSERT INTO deletion_rule (place, what, starts, policy_column, unit, period, exceptions, done_by) VALUES
    (1, 'registry_rows', 'the patient opts out, and all proofs are there', 'deadline_days', 'days', NULL,
     'a hold; rows that also serve a register that the patient has not left; rows about another person are redacted',
     'officer: carry_out'),
    (2, 'recipients_data', 'the erasure is certified', 'recall_days', 'days', NULL,
     'care providers are not asked; a recipient may be exempt, with a reason', 'recipient, asked by the officer'),
    (3, 'proofs', 'the case ends', NULL, NULL, 'at once', 'a hold', 'the call that ends the case'),
    (4, 'unproven_cases', 'the last of request and proofs was recorded', 'evidence_days', 'days', NULL, 'a hold',
     'purge'),
    (5, 'correspondence', 'the case ends, or a copy comes later', 'copy_years', 'years', NULL,
     'a hold; the day that a letter promised stays', 'purge'),
    (6, 'case_numbers', 'a case is refused or withdrawn', 'copy_years', 'years', NULL, 'a hold', 'purge'),
    (7, 'complaints', 'the complainant was told of the outcome', 'copy_years', 'years', NULL, 'its hold', 'purge'),
    (8, 'subject_access_requests', 'the request is answered or refused', 'subject_access_years', 'years', NULL,
     'a hold on the patient', 'purge'),
    (9, 'recall_notices', 'the last answer of a case that ended', 'recall_years', 'years', NULL,
     'a hold; open ones stay', 'purge'),
    (10, 'release_sets', 'the recipient has destroyed the data, or the release is retracted', 'release_years', 'years',
     NULL, 'a hold', 'purge'),
    (11, 'national_checks', 'the check is started', 'national_check_days', 'days', NULL,
     'one that would bring back an older one stays with it', 'purge'),
    (12, 'guard_counts', 'the day is over', NULL, NULL, 'summed up at once, then without end',
     NULL, 'purge'),
    (13, 'sweeps', 'a later sweep of each of its columns is finished', NULL, NULL, 'at once', 'the latest', 'purge'),
    (14, 'audit_events', 'the month is over', 'audit_years', 'years', NULL, 'any hold', 'purge'),
    (15, 'exclusion_list', 'the patient opts out', NULL, NULL, 'without end: it keeps new data out',
     'the patient opts in again', 'officer: opt_in'),
    (16, 'cases', 'the case is opened', NULL, NULL, 'without end: they say why a patient is on the list',
     'refused and withdrawn ones lose the encoded number', 'nothing'),
    (17, 'wal_and_backups', 'the erasure', NULL, NULL, 'until they expire', 'not known to the database', 'DBA');

CREATE FUNCTION deletion_concept()
RETURNS TABLE (what text, starts text, kept_for text, exceptions text, done_by text, next_due date)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT d.what, d.starts, coalesce(d.period, format('%s %s', to_jsonb(p) ->> d.policy_column::text,
               CASE WHEN d.policy_column = 'deadline_days' THEN replace(p.deadline_counts, '_', ' ') ELSE d.unit END)),
           d.exceptions, d.done_by, ndrs_optout.local_date(s.due_at)
        FROM ndrs_optout.deletion_rule d CROSS JOIN ndrs_optout.policy p
        LEFT JOIN (SELECT r.what, min(r.due_at) AS due_at FROM ndrs_optout.retention_schedule r
                       WHERE NOT r.held GROUP BY r.what) AS s USING (what)
        ORDER BY d.place
$$;
COMMENT ON FUNCTION deletion_concept() IS
    'the deletion concept, in the terms of ISO/IEC 27555 and DIN 66398: for each kind of data from when on its time '
    'counts, how long it is kept by the policy as it is now, the exceptions, who or what deletes it, and the next '
    'day on which some is due';
