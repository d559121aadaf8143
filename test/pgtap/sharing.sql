-- Every decision on sharing, against a plain statement of the rule: each purpose, each
-- state of the patient, each age of the check, with and without an exemption, for no,
-- one and several registers, and for each type of number.
\set QUIET on
\set ON_ERROR_STOP on
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS sharing CASCADE;
CREATE SCHEMA sharing;
SET search_path = sharing, public;
BEGIN;

-- One patient for each state, written in one of the ways.
CREATE TABLE patient (number text PRIMARY KEY, readable boolean, own boolean, excluded_from text[], asked text, answer text);
INSERT INTO patient (number, readable, own, excluded_from, asked, answer)
    SELECT n.number, true, true, s.excluded_from, s.asked, s.answer
        FROM (SELECT row_number() OVER (ORDER BY e.excluded_from, c.asked, c.answer) AS id, e.*, c.*
                  FROM (VALUES ('{}'::text[]), ('{cancer}'), ('{rare_disease}'), ('{cancer,rare_disease}')) AS e (excluded_from)
                  -- Which checks asked about the patient, oldest first, and what each answered: allowed (a), opted out (o).
                  CROSS JOIN (VALUES ('none', ''),
                      ('first', 'a'), ('first', 'o'),
                      ('both', 'aa'), ('both', 'ao'), ('both', 'oa'), ('both', 'oo'),
                      ('waiting', ''), ('first, waiting', 'a'), ('first, waiting', 'o')) AS c (asked, answer)) AS s
        JOIN (SELECT row_number() OVER (ORDER BY i) AS id, '99901' || lpad(i::text, 5, '0') AS number
                  FROM generate_series(0, 99999) AS i
                  WHERE ndrs_optout.nhs_number_or_null('99901' || lpad(i::text, 5, '0')) IS NOT NULL LIMIT 100) AS n USING (id);
INSERT INTO patient (number, readable, own, excluded_from, asked, answer) VALUES
    ('', false, false, '{}', 'none', ''), ('unknown', false, false, '{}', 'none', ''), ('1111111111', true, false, '{}', 'none', '');

SELECT ndrs_optout.exclude(number::ndrs_optout.nhs_number, excluded_from) FROM patient WHERE excluded_from <> '{}' \g /dev/null

-- The checks, each with its reply but the last, which is younger than any and waits.
CREATE TABLE started AS
    SELECT c.nth, ndrs_optout.start_national_check(ARRAY(
               SELECT number::ndrs_optout.nhs_number FROM patient WHERE own AND asked ~ c.pattern ORDER BY number)) AS check_id
        FROM (VALUES (1, 'first|both'), (2, 'both'), (3, 'waiting')) AS c (nth, pattern)
        ORDER BY c.nth;
SELECT ndrs_optout.load_national_check(check_id, ARRAY(SELECT number || ',' FROM patient WHERE substr(answer, 1, 1) = 'a'))
    FROM started WHERE nth = 1 \g /dev/null
SELECT ndrs_optout.load_national_check(check_id, ARRAY(SELECT number || ',' FROM patient WHERE substr(answer, 2, 1) = 'a'))
    FROM started WHERE nth = 2 \g /dev/null

-- A site's own purpose where the opt-out does not apply and which is not permitted is
-- the one combination that is not shipped.
INSERT INTO ndrs_optout.purpose (code, permitted, national_optout_applies, name, basis) VALUES ('forbidden', false, false, 'x', 'x');

SELECT ndrs_optout.add_recipient(code, code, 'nhs_number') FROM unnest('{exempted,too_late,too_early,ended}'::text[]) AS code \g /dev/null
SELECT ndrs_optout.grant_exemption(code, 'exempted', 'CAG', '2000-01-01') FROM ndrs_optout.purpose WHERE permitted \g /dev/null
SELECT ndrs_optout.grant_exemption(code, 'too_late', 'CAG', '2000-01-01', '2000-12-31') FROM ndrs_optout.purpose WHERE permitted \g /dev/null
SELECT ndrs_optout.grant_exemption(code, 'too_early', 'CAG', '2900-01-01') FROM ndrs_optout.purpose WHERE permitted \g /dev/null
SELECT ndrs_optout.end_exemption(ndrs_optout.grant_exemption(code, 'ended', 'CAG', '2000-01-01')) FROM ndrs_optout.purpose WHERE permitted \g /dev/null

-- The rule, said plainly.
CREATE FUNCTION rule(permitted boolean, applies boolean, number text, readable boolean, own boolean, excluded_from text[],
    registers text[], exempted boolean, latest_answer text, latest_expired boolean) RETURNS text LANGUAGE sql AS $$
    SELECT CASE
        WHEN NOT permitted THEN 'purpose_not_permitted'
        WHEN number = '' THEN 'number_missing'
        WHEN NOT readable THEN 'number_unreadable'
        WHEN NOT own THEN 'placeholder'
        WHEN registers IS NULL AND excluded_from <> '{}' THEN 'excluded_from_register'
        WHEN registers && excluded_from THEN 'excluded_from_register'
        WHEN NOT applies OR exempted THEN 'eligible'
        WHEN latest_answer = '' THEN 'not_checked'
        WHEN latest_expired THEN 'check_expired'
        WHEN latest_answer = 'o' THEN 'national_opt_out'
        ELSE 'eligible' END
$$;

-- Every combination, as the checks are now: those that the registry has kept.
CREATE VIEW combination AS
    SELECT u.code, p.number, r.registers, x.recipient,
           rule(u.permitted, u.national_optout_applies, p.number, p.readable, p.own, p.excluded_from, r.registers,
                x.recipient IS NOT DISTINCT FROM 'exempted', coalesce(latest.answer, ''), latest.state = 'expired') AS rule
        FROM ndrs_optout.purpose u
        CROSS JOIN (VALUES (NULL::text[]), ('{cancer}'), ('{rare_disease}'), ('{congenital_anomaly}'), ('{cancer,rare_disease}')) AS r (registers)
        CROSS JOIN (VALUES (NULL), ('exempted'), ('too_late'), ('too_early'), ('ended'), ('somebody')) AS x (recipient)
        CROSS JOIN patient p
        LEFT JOIN LATERAL (
            SELECT substr(p.answer, s.nth, 1) AS answer, c.state
                FROM started s JOIN ndrs_optout.national_check_progress c USING (check_id)
                WHERE substr(p.answer, s.nth, 1) <> '' ORDER BY s.nth DESC LIMIT 1) AS latest ON true;
CREATE VIEW wrong AS
    SELECT c.*, d.type, d.decision, d.eligible
        FROM combination c
        CROSS JOIN LATERAL (SELECT ndrs_optout.nhs_number_or_null(c.number) OFFSET 0) AS n (number)
        CROSS JOIN LATERAL (VALUES
            ('text', ndrs_optout.share_decision(c.number, c.code, c.registers, c.recipient),
                     ndrs_optout.share_eligible(c.number, c.code, c.registers, c.recipient)),
            ('nhs_number', ndrs_optout.share_decision(n.number, c.code, c.registers, c.recipient),
                     ndrs_optout.share_eligible(n.number, c.code, c.registers, c.recipient)),
            ('bigint', ndrs_optout.share_decision(n.number::bigint, c.code, c.registers, c.recipient),
                     ndrs_optout.share_eligible(n.number::bigint, c.code, c.registers, c.recipient)),
            ('encoded', ndrs_optout.share_decision(ndrs_optout.encode_nhs_number(n.number), c.code, c.registers, c.recipient),
                     ndrs_optout.share_eligible(ndrs_optout.encode_nhs_number(n.number), c.code, c.registers, c.recipient))
            ) AS d (type, decision, eligible)
        -- What is unreadable has no other type than text.
        WHERE (d.type = 'text' OR c.number <> 'unknown')
            AND (d.decision IS DISTINCT FROM c.rule OR d.eligible IS DISTINCT FROM (c.rule = 'eligible'))
        LIMIT 5;

SELECT plan(9);
SELECT is((SELECT count(*) FROM combination), (14 * 43 * 5 * 6)::bigint, 'every combination is asked about');

SELECT is_empty('TABLE wrong', 'both checks are in force');
UPDATE ndrs_optout.national_check SET expires_at = now() WHERE check_id = (SELECT check_id FROM started WHERE nth = 2);
SELECT is_empty('TABLE wrong', 'the later one has expired, before the older one');
SELECT is((SELECT count(DISTINCT rule) FROM combination), 9::bigint, 'each reason occurs');
UPDATE ndrs_optout.national_check SET expires_at = now() WHERE check_id = (SELECT check_id FROM started WHERE nth = 1);
SELECT is_empty('TABLE wrong', 'both have expired');
UPDATE ndrs_optout.national_check SET expires_at = 'infinity' WHERE check_id = (SELECT check_id FROM started WHERE nth = 2);
SELECT is_empty('TABLE wrong', 'the older one has expired');
UPDATE ndrs_optout.national_check SET expires_at = 'infinity' WHERE check_id = (SELECT check_id FROM started WHERE nth = 1);
SELECT is_empty('TABLE wrong', 'neither ever does');
SELECT ndrs_optout.cancel_national_check(check_id) FROM started WHERE nth = 2 \g /dev/null
SELECT is_empty('TABLE wrong', 'there is just the older one');
SELECT ndrs_optout.cancel_national_check(check_id) FROM started WHERE nth = 1 \g /dev/null
SELECT is_empty('TABLE wrong', 'there is none');

SELECT * FROM finish();
ROLLBACK;
DROP SCHEMA sharing CASCADE;
