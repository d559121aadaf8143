-- Recalls by file: what it names, answers line by line, and who is late.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;
SET client_min_messages = warning;
SET datestyle = ISO;
ALTER TABLE optout_case ALTER case_id RESTART;
ALTER TABLE release ALTER release_id RESTART;
ALTER TABLE recall_notice ALTER notice_id RESTART;
\getenv inputdir PG_ABS_SRCDIR
\set public_file :inputdir /keys/guardian.public.asc
\set private_file :inputdir /keys/guardian.private.asc
\set public_key `cat :'public_file'`
\set private_key `cat :'private_file'`
CREATE TABLE patient (nhs_number text);
SELECT guard_table('patient', 'nhs_number', '{cancer}') AS guarded;
SELECT add_recipient('biobank', 'Biobank', 'ndrs_pseudo_id', 'safe 3'),
       add_recipient('fund', 'Fund', 'nhs_number'),
       add_agreement('biobank', 'consent', 'agreement 1', '2000-01-01', '2099-12-31'), add_agreement('fund', 'consent', 'agreement 1', '2000-01-01', '2099-12-31') \g /dev/null

-- The key
SELECT set_recipient_key('fund', :'private_key');
\echo :SQLSTATE
SELECT set_recipient_key('nobody', :'public_key');
\echo :SQLSTATE
SELECT set_recipient_key('fund', NULL);
SELECT set_recipient_key('fund', :'public_key') AS key \gset
SELECT detail ->> 'recipient' AS recipient, detail ->> 'key' = :'key' AS audited FROM audit_event WHERE event = 'recipient_key_set';

SELECT record_release(ARRAY['9990000018', '9990000026', '9990000034']::nhs_number[], 'explicit_consent', r.registers, r.recipient, today() - 10, r.reference)
    FROM (VALUES ('fund', 'order 1', '{cancer,rare_disease}'::text[]), ('biobank', 'order, 2', '{cancer}')) AS r (recipient, reference, registers) \g /dev/null
SELECT open_case('9990000018', '{cancer}') AS first_case, open_case('9990000026', '{cancer}') AS second_case \gset
SELECT record_identity(c, p.proof, p.document) FROM unnest(ARRAY[:first_case, :second_case]) AS c
    CROSS JOIN (VALUES ('identity', 'passport'), ('address', 'utility_bill')) AS p (proof, document) \g /dev/null
CALL carry_out(:first_case, '9990000018');
CALL carry_out(:second_case, '9990000026');
SELECT notice_id, case_id, recipient, stage, by_file, next_action FROM recall_progress ORDER BY notice_id;
SELECT recipient, open, to_ask, without_id, overdue, escalated, next_action FROM recall_recipient_progress;

-- The file; only the recipient opens what it says.
SELECT notice_id, reference, registers, reply_by - today() AS days, reminder,
       convert_from(pgp_pub_decrypt_bytea(decode(sealed_id, 'base64'), dearmor(:'private_key')), 'UTF8') AS opened,
       sealed_id ~ '^[A-Za-z0-9+/=]+$' AS one_line
    FROM recall_file('fund');
SELECT count(*) AS told FROM recall_notice n WHERE to_jsonb(n)::text ~ '999.?000' OR position('999 000 0018'::bytea IN n.sealed_id) > 0;
SELECT count(DISTINCT sealed_id) FROM recall_notice;
SELECT stage, asked_at IS NOT NULL AS asked, chased_on, next_action FROM recall_progress WHERE recipient = 'fund' ORDER BY notice_id;
-- Without a key, and without a salt, nothing is named.
SELECT * FROM recall_file('biobank');
SELECT seal_recall(2, '9990000018', 'a salt');
\echo :SQLSTATE
SELECT length(set_recipient_key('biobank', :'public_key')) AS key_id_digits;
SELECT seal_recall(2, '9990000018');
\echo :SQLSTATE
SELECT seal_recall(2, '9990000026', 'a salt');
\echo :SQLSTATE
SELECT seal_recall(99, '9990000018', 'a salt');
SELECT seal_recall(2, '9990000018', 'a salt');
SELECT seal_recall(4, '9990000026', 'a salt');
SELECT notice_id, reference, convert_from(pgp_pub_decrypt_bytea(decode(sealed_id, 'base64'), dearmor(:'private_key')), 'UTF8')
           = ndrs_pseudo_id(CASE notice_id WHEN 2 THEN '9990000018' ELSE '9990000026' END::nhs_number, 'a salt') AS its_id
    FROM recall_file('biobank');
SELECT recall_file('nobody');
\echo :SQLSTATE
SELECT (health_salts()).*;

-- Answers: all lines are looked at, the good ones count.
SELECT load_recall_replies('nobody', '{}');
SELECT load_recall_replies('fund', NULL);
SELECT * FROM load_recall_replies('fund', ARRAY[
    'notice_id,status,day,reason',
    '',
    ',,,',
    '9990000018,deleted,' || today(),
    'the patient 999 000 0018',
    '2,deleted,' || today(),
    '1',
    '1,gone,' || today(),
    '1,deleted',
    '1,deleted,2026-02-30',
    '1,deleted,2026-13-01',
    '1,deleted,-infinity',
    '1,deleted,5 July 2026',
    '1,deleted,' || today() + 1,
    '1,already_deleted,' || today() - 11,
    '1,not_found,' || today(),
    '1,exempt',
    '1,exempt,,"the law, for 999 000 0018"',
    '1,exempt,,' || repeat('x', 501),
    '1,deleted,' || today() || ',because',
    '3,exempt,,"the trial''s ""sponsor"", by law"']);
SELECT notice_id, outcome, outcome_reason, deleted_on FROM recall_notice WHERE release_id = 1 ORDER BY notice_id;
SELECT * FROM load_recall_replies('fund', ARRAY['1,deleted,' || today(), '1,not_found']);
SELECT * FROM load_recall_replies('fund', ARRAY[' "1" , "Deleted" , ' || today() || E' \r', '3,exempt,,"the trial''s ""sponsor"", by law"']);
SELECT * FROM load_recall_replies('fund', ARRAY['1,deleted,' || today(), '3,not_found']);
SELECT notice_id, stage, outcome, outcome_reason, deleted_on = today() AS today FROM recall_progress WHERE recipient = 'fund' ORDER BY notice_id;
SELECT detail FROM audit_event WHERE event = 'recall_replies_loaded' ORDER BY event_id;
SELECT count(*) FROM audit_event WHERE holds_nhs_number(detail::text);
-- by hand
SELECT acknowledge_recall(2, outcome => 'exempt');
\echo :SQLSTATE
SELECT acknowledge_recall(2, outcome => 'kept');
SELECT acknowledge_recall(2, outcome => 'not_found', reason => 'none');
SELECT acknowledge_recall(2, outcome => 'not_found');
SELECT outcome, deleted_on FROM recall_notice WHERE notice_id = 2;
SELECT retract_acknowledgement(2, 'looked in the wrong place');
SELECT outcome, acknowledged_at FROM recall_notice WHERE notice_id = 2;

-- Who is late: a reminder, then what is more than a reminder.
UPDATE recall_notice SET due_on = today() - 1, asked_at = asked_at - interval '31 days' WHERE notice_id = 2;
SELECT notice_id, stage, next_action FROM recall_progress WHERE recipient = 'biobank' ORDER BY notice_id;
SELECT (health_recalls()).*;
SELECT notice_id, reminder FROM recall_file('biobank');
SELECT notice_id, chased_on IS NOT NULL AS chased FROM recall_progress WHERE recipient = 'biobank' ORDER BY notice_id;
UPDATE recall_notice SET due_on = today() - 15 WHERE notice_id = 2;
SELECT recipient, open, overdue, escalated, next_action FROM recall_recipient_progress;
SELECT next_action FROM recall_progress WHERE notice_id = 2;
SELECT (health_recalls()).*;

DELETE FROM recall_notice;
DELETE FROM release;
DELETE FROM identity_evidence;
DELETE FROM case_erasure;
DELETE FROM optout_case;
DELETE FROM agreement;
DELETE FROM recipient WHERE recipient IN ('biobank', 'fund');
SELECT readmit(n, '{cancer}') FROM unnest('{9990000018,9990000026}'::nhs_number[]) AS n \g /dev/null
SELECT unguard_table('patient');
DROP TABLE patient;
