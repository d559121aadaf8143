-- The deletion concept says what the purge does, with the policy's periods.
SET search_path = public, ndrs_optout;
SELECT what, starts, kept_for, exceptions, done_by FROM deletion_concept();
-- Each kind that the purge knows has its rule, and each rule of the purge is one of its kinds.
SELECT coalesce(k.what, d.what) AS only_one FROM purge_kind k FULL JOIN (SELECT * FROM deletion_rule WHERE done_by = 'purge') AS d ON d.what = k.what
    WHERE k.what IS NULL OR d.what IS NULL;
-- Each period is one of the policy's, and each period of the policy that says how long something is kept is in a rule.
SELECT d.policy_column FROM deletion_rule d WHERE policy_column IS NOT NULL AND NOT (SELECT to_jsonb(p) ? d.policy_column::text FROM policy p);
SELECT a.attname FROM pg_attribute a WHERE a.attrelid = 'policy'::regclass AND a.attnum > 0 AND a.attname ~ '_(years|days)$' AND a.attname <> 'recall_escalation_days'
    AND NOT EXISTS (SELECT FROM deletion_rule d WHERE d.policy_column = a.attname);
BEGIN;
UPDATE policy SET copy_years = 7;
SELECT what, kept_for FROM deletion_concept() WHERE kept_for LIKE '7%';
ROLLBACK;
