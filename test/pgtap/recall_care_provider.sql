-- Those who look after a patient are not told that the patient opted out: the service
-- promises that.  All others who were given the data are asked to delete it.
\ir lib/begin.psql
SELECT plan(19);

SELECT ndrs_optout.add_recipient('trust', 'Some Trust', 'nhs_number', kind => 'care_provider'),
       ndrs_optout.add_recipient('laboratory', 'Some Laboratory', 'nhs_number'),
       ndrs_optout.add_recipient('charity', 'Some Charity', 'nhs_number'),
       ndrs_optout.add_agreement('charity', 'consent', 'agreement 1', '2000-01-01', '2099-12-31') \g /dev/null
SELECT ndrs_optout.record_release(ARRAY['9990000018', '9990000026']::ndrs_optout.nhs_number[], p.purpose, '{cancer}', p.recipient, current_date, 'order')
    FROM (VALUES ('trust', 'direct_care'), ('trust', 'explicit_consent'), ('laboratory', 'direct_care'), ('charity', 'explicit_consent'))
        AS p (recipient, purpose) \g /dev/null

SELECT ndrs_optout.open_case('9990000018', '{cancer}') AS ada \gset
SELECT story.prove(:ada) \g /dev/null
CALL ndrs_optout.carry_out(:ada, '9990000018');
SELECT is((SELECT array_agg(recipient) FROM ndrs_optout.recall_progress), '{charity}', 'the charity is asked to delete; no care provider, and nobody who treats her, is told');
SELECT is((SELECT (recalls, not_told)::text FROM ndrs_optout.optout_case WHERE case_id = :ada), '(1,3)', 'the case knows of how many releases nobody was told');
SELECT is_empty('SELECT * FROM ndrs_optout.releases_without_notice()', 'which is as it should be');
SELECT is((SELECT status FROM ndrs_optout.health() WHERE check_name = 'releases'), 'ok', 'health says so too');
SELECT is(ndrs_optout.erasure_certificate(:ada) #>> '{not_told,releases}', '3', 'the certificate has it');
-- What the charity answers is what the letter says.
CREATE FUNCTION story.told(outcome text, reason text DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    PERFORM ndrs_optout.acknowledge_recall(n.notice_id, outcome => told.outcome, reason => told.reason) FROM ndrs_optout.recall_notice n;
    SELECT substring(ndrs_optout.letter_recalls(c) ->> 'recipients' FROM 'It told us.*') INTO result FROM ndrs_optout.optout_case c WHERE c.recalls = 1;
    PERFORM ndrs_optout.retract_acknowledgement(n.notice_id, 'only tried') FROM ndrs_optout.recall_notice n;
    RETURN result;
END
$$;
SELECT is(story.told('exempt', 'a trial has to keep its data.'), 'It told us that it must keep this. The reason is: a trial has to keep its data.', 'what is kept is not said to be deleted');
SELECT is(story.told('not_found'), 'It told us that it found nothing.', 'nor what was not found');
SELECT is(story.told('already_deleted'), format('It told us that this was deleted on %s.', ndrs_optout.english_date(ndrs_optout.today())), 'what was deleted is');
SELECT alike(ndrs_optout.complete_case(:ada), '%we did not tell them%', 'and so has the letter');
SELECT is((SELECT count(*)::int FROM ndrs_optout.disclose_records('9990000018') WHERE source = 'release'), 4, 'who asks is told of all releases');

-- A release to a care provider that was not destroyed after all: nobody is told either.
SELECT ndrs_optout.record_destruction(r.release_id) FROM ndrs_optout.release r \g /dev/null
SELECT is((SELECT sum(ndrs_optout.retract_destruction(r.release_id, 'another release'))::int FROM ndrs_optout.release r), 1, 'one recall is open again');
SELECT is((SELECT count(*)::int FROM ndrs_optout.recall_notice), 1, 'and none is new');

-- The kind can be corrected, and so can the contact.
SELECT ndrs_optout.change_recipient('laboratory', contact => 'data@laboratory.example', kind => 'care_provider') \g /dev/null
SELECT is((SELECT (kind, contact)::text FROM ndrs_optout.recipient WHERE recipient = 'laboratory'), '(care_provider,data@laboratory.example)', 'kind and contact are changed');
SELECT is((SELECT detail -> 'changed' FROM ndrs_optout.audit_event WHERE event = 'recipient_changed' ORDER BY entry_id DESC LIMIT 1), '["contact", "kind"]',
          'which the audit knows, without the values');
-- A notice that was raised before is not sent.
SELECT ndrs_optout.record_release(ARRAY['9990000026']::ndrs_optout.nhs_number[], 'explicit_consent', '{cancer}', 'charity', current_date, 'another order') \g /dev/null
SELECT ndrs_optout.open_case('9990000026', '{cancer}') AS ben \gset
SELECT story.prove(:ben) \g /dev/null
CALL ndrs_optout.carry_out(:ben, '9990000026');
SELECT ndrs_optout.issue_recall_letter(n.notice_id, '9990000018') FROM ndrs_optout.recall_notice n WHERE n.case_id = :ada \g /dev/null
SELECT is((SELECT array_agg(stage ORDER BY stage) FROM ndrs_optout.recall_progress), '{asked,to_ask,to_ask}', 'the charity is to be asked');
SELECT ndrs_optout.change_recipient('charity', kind => 'care_provider') \g /dev/null
SELECT is((SELECT array_agg(stage) FROM ndrs_optout.recall_progress), '{asked}', 'a care provider is not; what was asked, was');
SELECT is((SELECT array_agg((recalls, not_told)::text ORDER BY case_id) FROM ndrs_optout.optout_case), '{"(1,3)","(0,5)"}', 'and the cases know');
SELECT is(story.refusal($$ SELECT ndrs_optout.change_recipient('laboratory', kind => 'hospital') $$), '22023 | kind must be "care_provider" or "other"', 'a recipient is of one of two kinds');
SELECT is(story.tells('9990000018'), 'nowhere', 'nothing tells who she is');

SELECT * FROM finish();
\ir lib/end.psql
