-- case_progress: where each case stands, and what comes next.

CREATE VIEW case_progress AS
    SELECT c.case_id, c.kind, c.state, c.registers,
           c.due_on,
           CASE WHEN f.ended THEN NULL ELSE c.due_on - today() END AS days_left,
           coalesce(NOT f.ended AND c.due_on < today(), false) AS overdue,
           m.missing,
           CASE WHEN h.reason IS NOT NULL AND c.state IN ('excluded', 'carried_out') THEN 'hold' ELSE CASE c.state
               WHEN 'awaiting_identity' THEN 'applicant'
               WHEN 'ready' THEN 'officer'
               WHEN 'excluded' THEN 'officer'
               WHEN 'carried_out' THEN 'officer'
           END END AS waiting_for,
           w.letter,
           NULLIF(pg_catalog.concat_ws('; ',
               CASE WHEN c.guardian_call IS NULL AND c.kind = 'opt_out' AND NOT f.ended THEN
                   CASE WHEN w.letter = 'acknowledgement'
                       THEN pg_catalog.format('SELECT ndrs_optout.write_letter(%s), which offers the Guardian''s call',
                                              c.case_id)
                       ELSE pg_catalog.format('offer the Guardian''s call, and SELECT '
                                              'ndrs_optout.record_guardian_call(%s, ''offered'')', c.case_id) END
                    WHEN w.letter NOT IN ('completion', 'opt_in')
                       THEN pg_catalog.format('SELECT ndrs_optout.write_letter(%s)', c.case_id) END,
               CASE WHEN h.reason IS NOT NULL AND c.state IN ('excluded', 'carried_out')
                        THEN 'wait until the hold is lifted: see hold_progress'
                    ELSE CASE c.state
                        WHEN 'awaiting_identity' THEN 'ask for proof of ' || pg_catalog.regexp_replace(
                            pg_catalog.array_to_string(m.missing, ', '), ', ([a-z]+)$', ' and \1')
                        WHEN 'ready' THEN pg_catalog.format('CALL ndrs_optout.carry_out(%s, ...)', c.case_id)
                        WHEN 'excluded' THEN pg_catalog.format('CALL ndrs_optout.carry_out(%s, ...) again', c.case_id)
                        WHEN 'carried_out' THEN pg_catalog.concat_ws('; ',
                            CASE WHEN EXISTS (SELECT FROM statistics_renewal s
                                                  WHERE s.case_id = c.case_id AND s.renewed_at IS NULL)
                                THEN 'CALL ndrs_optout.renew_statistics()' END,
                            pg_catalog.format('SELECT ndrs_optout.complete_case(%s)', c.case_id))
                        END
               END), '') AS next_action,
           c.guardian_call,
           h.reason AS hold_reason
        FROM optout_case c
        LEFT JOIN held_cases() AS h USING (case_id)
        LEFT JOIN letters_owed() AS w USING (case_id)
        CROSS JOIN LATERAL (SELECT c.ended_at IS NOT NULL AS ended) AS f
        CROSS JOIN LATERAL (
            SELECT CASE WHEN c.state <> 'awaiting_identity' THEN '{}' ELSE ARRAY(
                SELECT w.proof FROM (VALUES (1, 'identity'), (2, 'address'), (3, 'authority')) AS w (position, proof)
                    WHERE (w.proof <> 'authority' OR c.applicant = 'representative'
                           OR c.applicant = 'parent' AND (SELECT p.parent_authority FROM policy p))
                        AND NOT EXISTS (SELECT FROM identity_evidence e
                                        WHERE e.case_id = c.case_id AND e.proof = w.proof)
                    ORDER BY w.position) END AS missing) AS m
        ORDER BY f.ended, c.due_on NULLS LAST, c.case_id;
COMMENT ON VIEW case_progress IS
    'the cases, the most urgent first: state, due date, days left, what is missing, whose move it is, which letter is '
    'owed to the applicant, and what comes next';
