-- Ada opts out of the cancer register by e-mail.  The officer works the case with
-- the rights of an officer and nothing else.
\ir lib/begin.psql
SELECT plan(34);

SELECT is(story.held('9990000018'), 'patient 1, tumour 2, rare_patient 1, baby 1, demographics 1', 'the registry knows Ada');

-- Her e-mail comes with the form.
SET ROLE story_officer;
SELECT ndrs_optout.open_case('9990000018', '{cancer}') AS ada \gset
SELECT ndrs_optout.record_correspondence(:ada, 'email', 'Dear registry, I am Ada Seeded'),
       ndrs_optout.record_correspondence(:ada, 'form', 'Ada Seeded, 999 000 0018') \g /dev/null
RESET ROLE;
SELECT is((SELECT (state, waiting_for, missing, due_on)::text FROM ndrs_optout.case_progress WHERE case_id = :ada),
          '(awaiting_identity,applicant,"{identity,address}",)', 'the officer sees that both proofs are missing, and no due date yet');
SELECT is((SELECT next_action FROM ndrs_optout.case_progress WHERE case_id = :ada),
          format('SELECT ndrs_optout.write_letter(%s), which offers the Guardian''s call; ask for proof of identity and address', :ada), 'and what to do');
SET ROLE story_officer;
SELECT alike(ndrs_optout.write_letter(:ada), '%Please send us a copy of each:%You can have a call with our Caldicott Guardian%', 'the letter that acknowledges the request asks for both, and offers the call');
RESET ROLE;
SELECT is((SELECT (letter, next_action, guardian_call)::text FROM ndrs_optout.case_progress WHERE case_id = :ada),
          '(,"ask for proof of identity and address",offered)', 'which is on record');

-- Her passport.
SET ROLE story_officer;
SELECT ndrs_optout.record_identity(:ada, 'identity', 'passport', current_date, 'picture of Ada Seeded') \g /dev/null
RESET ROLE;
SELECT is((SELECT missing FROM ndrs_optout.case_progress WHERE case_id = :ada), '{address}', 'one proof is missing');
SELECT alike(story.refusal(format('SELECT ndrs_optout.case_exclude(%s, ''9990000018'')', :ada)), 'ND020 | cannot carry out case %: proof of % is missing | %',
             'nothing is carried out without it');
SELECT is(story.held('9990000018'), 'patient 1, tumour 2, rare_patient 1, baby 1, demographics 1', 'and nothing is gone');

-- The call with the Guardian is held: it changes nothing.
SET ROLE story_officer;
SELECT ndrs_optout.record_guardian_call(:ada, 'held') \g /dev/null
RESET ROLE;
SELECT is((SELECT (state, due_on, guardian_call)::text FROM ndrs_optout.case_progress WHERE case_id = :ada),
          '(awaiting_identity,,held)', 'the call with the Guardian is noted and gates nothing');

-- Her bill.
SET ROLE story_officer;
SELECT ndrs_optout.record_identity(:ada, 'address', 'utility_bill', current_date, 'bill of Ada Seeded') \g /dev/null
RESET ROLE;
SELECT is((SELECT (state, waiting_for, missing, due_on - current_date, days_left, overdue)::text FROM ndrs_optout.case_progress WHERE case_id = :ada),
          '(ready,officer,{},20,20,f)', 'the case is ready, and due in 20 days');
SELECT is((SELECT next_action FROM ndrs_optout.case_progress WHERE case_id = :ada), format('CALL ndrs_optout.carry_out(%s, ...)', :ada), 'and says what comes next');

-- What is kept is ciphertext, that the Guardian can read.
SELECT is((SELECT count(*)::int FROM ndrs_optout.identity_evidence e WHERE case_id = :ada AND content IS NOT NULL), 2, 'both proofs are kept for now');
SELECT is((SELECT string_agg(convert_from(pgp_pub_decrypt_bytea(content, dearmor(:'private_key')), 'UTF8'), ', ' ORDER BY proof DESC)
               FROM ndrs_optout.identity_evidence WHERE case_id = :ada),
          'picture of Ada Seeded, bill of Ada Seeded', 'the Guardian''s private key opens them');
SELECT is(story.tells('9990000018'), 'nowhere', 'and without it nothing tells who she is');

-- Carried out.
SET ROLE story_officer;
SELECT sum(row_count) AS previewed FROM ndrs_optout.erasure_preview('9990000018', '{cancer}') WHERE action = 'delete' \gset
CALL ndrs_optout.carry_out(:ada, '9990000018');
RESET ROLE;
SELECT is(:previewed, 3, 'the preview has found her and two tumours');
SELECT is(story.held('9990000018'), 'patient 0, tumour 0, rare_patient 1, baby 1, demographics 1', 'she is gone from the cancer register only');
SELECT is(story.held('9990000026'), 'patient 1, tumour 1, rare_patient 1, baby 0, demographics 1', 'and nobody else from anywhere');
SELECT ok(ndrs_optout.is_excluded('9990000018', 'cancer') AND NOT ndrs_optout.is_excluded('9990000018', 'rare_disease'), 'she is on that list alone');
SELECT is((SELECT (state, waiting_for, next_action)::text FROM ndrs_optout.case_progress WHERE case_id = :ada),
          format('(carried_out,officer,"SELECT ndrs_optout.complete_case(%s)")', :ada), 'the letter comes next');
SELECT is(ndrs_optout.erasure_certificate(:ada) ->> 'status', 'draft', 'the certificate is a draft until then');

-- The letter.
SET ROLE story_officer;
SELECT ndrs_optout.complete_case(:ada) AS letter \gset
RESET ROLE;
SELECT is(story.undated(:'letter'), format($letter$Our reference: opt-out case %s

To the applicant

We have removed you from the National Cancer Register

You asked us to do this on DAY. We had all that we needed from you on DAY. We finished on DAY.

What we did
We deleted what we held about you:
- the National Cancer Register: 3 entries

Some of our tables also serve the National Congenital Anomaly Register and the National Rare Disease Register, which you did not ask to leave. We kept 1 entry there. New ones can still come in.

We then searched every table that we know can hold such data. We found nothing else.

On DAY we put a coded form of your NHS number on our exclusion list. If new data for this register arrives with that number, we do not add it.

We destroyed our copies of what you sent us to show who you are: 2 documents.

Other organisations
We looked for your NHS number in our records of data that we have shared. By these records, no organisation still holds data under that number.

What we keep
We keep the coded number and the dates of your request for good. We need them to keep new data out. We keep a locked copy of the e-mails, form and letters until DAY, and then destroy it. Only our Caldicott Guardian can open it.

What this does not change
Care from hospitals and GPs does not change. They keep their own records. Backup copies may hold the data until they are too old and we delete them. We cannot spot data that comes to us without the NHS number, or with a wrong one. This is not the national data opt-out. You can find out more at www.nhs.uk/your-nhs-data-matters.

What this can mean later
If we write to people on this register one day, we cannot write to you. If a relative asks about an illness in the family, we have no records to help with.

If you change your mind
Write to us at any time. We will then add new data that comes in. We cannot bring back what we deleted.

If you are not happy with what we did
Write to us as you did before. You can also complain to the Information Commissioner's Office: ico.org.uk or 0303 123 1113.$letter$, :ada), 'the letter says all of it');
SELECT is((SELECT state FROM ndrs_optout.case_progress WHERE case_id = :ada), 'completed', 'the case is completed');
SELECT is((SELECT count(*)::int FROM ndrs_optout.identity_evidence WHERE case_id = :ada), 0, 'her proofs are gone');
SELECT is((SELECT string_agg(kind, ', ' ORDER BY correspondence_id) FROM ndrs_optout.case_correspondence WHERE case_id = :ada), 'email, form, letter, letter',
          'the copy is kept, and the letter with it');
SELECT is((SELECT convert_from(pgp_pub_decrypt_bytea(content, dearmor(:'private_key')), 'UTF8') FROM ndrs_optout.case_correspondence
               WHERE case_id = :ada AND kind = 'letter' ORDER BY correspondence_id DESC LIMIT 1), :'letter', 'as it was sent');

-- The certificate.
SELECT ndrs_optout.erasure_certificate(:ada) AS certificate \gset
SELECT is((SELECT string_agg(format('%s %s %s', t ->> 'table', t ->> 'action', t ->> 'rows'), ', ' ORDER BY t ->> 'table', t ->> 'action')
               FROM jsonb_array_elements(:'certificate'::jsonb -> 'tables') AS t WHERE t ->> 'rows' <> '0'),
          'registry.demographics kept 1, registry.patient deleted 1, registry.tumour deleted 2', 'the certificate has the same counts');
SELECT is(concat_ws(' ', :'certificate'::jsonb #>> '{recount,rows_left}', :'certificate'::jsonb ->> 'proofs_destroyed', :'certificate'::jsonb ->> 'guardian_call'),
          '0 2 held', 'and that nothing was left');
SELECT ok(ndrs_optout.verify_certificate(:'certificate'), 'it verifies');
SELECT ok(NOT ndrs_optout.verify_certificate(jsonb_set(:'certificate', '{recount,rows_left}', '1')), 'and does not when it was changed');
SELECT unalike(:'certificate'::text, '%999%', 'it names nobody');

-- The audit.
SELECT is(story.audited(:ada), 'case_opened, correspondence_recorded, correspondence_recorded, letter_written, guardian_call_offered, correspondence_recorded, guardian_call_held, '
          'case_ready, case_excluded, case_carried_out, letter_written, case_completed, certificate_issued, correspondence_recorded', 'the audit has each step');
SELECT is((SELECT string_agg(DISTINCT e.acting_role::text, ', ') FROM ndrs_optout.audit_event e, story.began b
               WHERE e.event_id > b.event_id AND e.event ~ '^case_'), 'story_officer', 'and who took it');
SELECT is_empty('SELECT * FROM ndrs_optout.verify_audit()', 'it verifies');
SELECT is(story.tells('9990000018'), 'nowhere', 'when all is done nothing tells who she was');

SELECT * FROM finish();
\ir lib/end.psql
