-- What data may be shared for, and exemptions from the national opt-out.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
SET TimeZone = 'UTC';
CREATE VIEW pg_temp.told AS SELECT event, detail FROM audit_event WHERE event ~ '^(purpose|exemption)_' ORDER BY entry_id;

-- What is shipped.
SELECT code, permitted, national_optout_applies, name FROM purpose ORDER BY code;

-- A site's own, and a change: each an event.
BEGIN;
INSERT INTO purpose (code, permitted, national_optout_applies, name, basis) VALUES ('invoices', true, false, 'Invoices', 'exempted');
UPDATE purpose SET national_optout_applies = false WHERE code = 'research';
UPDATE purpose SET permitted = false WHERE code = 'invoices';
UPDATE purpose SET changed_at = '2020-01-01', name = 'Bills' WHERE code = 'invoices';
UPDATE purpose SET changed_at = NULL, name = 'Accounts' WHERE code = 'invoices';
UPDATE purpose SET changed_at = '2020-01-01', permitted = false WHERE code = 'clinical_audit';
SELECT * FROM pg_temp.told;
SELECT code, changed_at > now() - interval '1 minute' AS changed FROM purpose WHERE changed_at IS NOT NULL ORDER BY code;

-- Nor does a time that is given with a new row keep it out of the audit.
INSERT INTO purpose VALUES ('their_own', true, true, 'Their own', 'added elsewhere', '2025-01-02Z');
SELECT count(*) AS events FROM pg_temp.told;
SELECT code, changed_at > now() - interval '1 minute' AS changed FROM purpose WHERE code = 'their_own';
ROLLBACK;

-- Nothing is ever sold, and no purpose goes or gets another name.
\set VERBOSITY terse
UPDATE purpose SET permitted = true WHERE code = 'sale';
INSERT INTO purpose (code, permitted, national_optout_applies, name, basis) VALUES ('', true, true, '', '');
\set VERBOSITY default
UPDATE purpose SET code = 'sales' WHERE code = 'sale';
DELETE FROM purpose WHERE code = 'sale';
TRUNCATE purpose;
SELECT count(*) FROM pg_temp.told;

-- Exemptions.
SELECT add_recipient('university', 'University', 'nhs_number');
SELECT grant_exemption('research', NULL, 'CAG 1');
SELECT grant_exemption('research', '', 'CAG 1');
SELECT grant_exemption('research', 'University', 'CAG 1');
\echo :SQLSTATE
SELECT grant_exemption('research', 'university', ' ');
SELECT grant_exemption('research', 'university', 'CAG 1', NULL);
SELECT grant_exemption(NULL, 'university', 'CAG 1');
SELECT grant_exemption('profit', 'university', 'CAG 1');
SELECT grant_exemption('sale', 'university', 'CAG 1');
SELECT grant_exemption('research', 'university', 'CAG 1', '2026-02-02', '2026-02-01');
SELECT grant_exemption('research', 'Patient 999 000 0018', 'CAG 1');
SELECT grant_exemption('research', 'university', 'letter about 9990000018');
SELECT end_exemption(NULL);
SELECT count(*) FROM exemption;
BEGIN;
ALTER TABLE exemption ALTER exemption_id RESTART WITH 1;
SELECT grant_exemption('research', 'university', '21/CAG/0001', '2026-01-01', '2026-12-31');
SELECT grant_exemption('planning', 'university', '21/CAG/0002', '2026-01-01');
SELECT end_exemption(1);
SELECT exemption_id, recipient, purpose, valid_from, valid_to, ended_at IS NOT NULL AS ended, approval_reference FROM exemption ORDER BY 1;
SELECT * FROM pg_temp.told;
-- It begins today, which is UTC's day wherever the session is.
SET LOCAL TimeZone = 'Etc/GMT+12';
SELECT grant_exemption('research', 'university', 'CAG 3');
SET LOCAL TimeZone = 'Pacific/Kiritimati';
SELECT grant_exemption('research', 'university', 'CAG 3');
SELECT bool_and(valid_from = (now() AT TIME ZONE 'UTC')::date) FROM exemption WHERE approval_reference = 'CAG 3';
SELECT end_exemption(1);
ROLLBACK;
DELETE FROM recipient;
