-- word: the words that an argument or a column may have, each list in one place.

CREATE FUNCTION words(list text) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE list
        WHEN 'duty' THEN '{officer,loader,analyst,reader,auditor,steward}'
        WHEN 'duty_with_numbers' THEN '{officer,analyst}'
        WHEN 'applicant' THEN '{self,parent,representative}'
        WHEN 'competence' THEN '{not_competent,child_agrees}'
        WHEN 'channel' THEN '{email,online,post}'
        WHEN 'correspondence' THEN '{form,email,letter}'
        WHEN 'guardian_call' THEN '{offered,declined,held}'
        WHEN 'identity' THEN '{passport,driving_licence}'
        WHEN 'address' THEN '{utility_bill,bank_statement}'
        WHEN 'authority' THEN '{power_of_attorney,deputyship,court_order,parental_responsibility}'
        WHEN 'proof' THEN '{identity,address,authority}'
        WHEN 'proof_of' THEN '{applicant,patient}'
        WHEN 'document' THEN '{passport,driving_licence,utility_bill,bank_statement,power_of_attorney,deputyship,'
                             'court_order,parental_responsibility}'
        WHEN 'id_scheme' THEN '{nhs_number,ndrs_pseudo_id,release_pseudo_id,openpseudonymiser}'
        WHEN 'recall_outcome' THEN '{deleted,already_deleted,not_found,exempt}'
        WHEN 'complaint_outcome' THEN '{upheld,partly_upheld,not_upheld,withdrawn}'
        WHEN 'recipient_kind' THEN '{care_provider,other}'
        WHEN 'letter_format' THEN '{standard,large_print,easy_read}'
        WHEN 'on_match' THEN '{reject,skip,redact}'
        WHEN 'on_missing' THEN '{allow,reject,skip}'
        WHEN 'mechanism' THEN '{both,constraint}'
        WHEN 'edge_kind' THEN '{guard,foreign_key,reference}'
    END::text[]
$$;
COMMENT ON FUNCTION words(text) IS
    'internal: the words of a list, such as duty or applicant; of "identity", "address" and "authority", the documents '
    'that prove it. NULL for a list that is none';

-- An argument is text, since a domain's own error does not say which words there are.
CREATE FUNCTION checked_word(value text, list text, argument text, hint text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    words text[] := ndrs_optout.words(list);
BEGIN
    IF (value = ANY (words)) IS NOT TRUE THEN
        PERFORM ndrs_optout.raise_error('22023',
            format('%s must be "%s" or "%s"', argument, array_to_string(words[:cardinality(words) - 1], '", "'),
                   words[cardinality(words)]),
            hint => hint);
    END IF;
    RETURN value;
END
$$;
COMMENT ON FUNCTION checked_word(text, text, text, text) IS
    'internal: the value of the named argument itself, which must be a word of the list; error 22023';

CREATE DOMAIN duty AS text CHECK (VALUE = ANY (words('duty')));
COMMENT ON DOMAIN duty IS 'what a role is there for; table duty_privilege says what each may do';
CREATE DOMAIN applicant AS text CHECK (VALUE = ANY (words('applicant')));
COMMENT ON DOMAIN applicant IS 'who asks: the patient, a parent or a representative';
CREATE DOMAIN competence AS text CHECK (VALUE = ANY (words('competence')));
COMMENT ON DOMAIN competence IS
    'what the officer found of a child whose parent asks for a copy of the child''s data: not_competent to ask in '
    'person, or competent and content that the parent asks: child_agrees';
CREATE DOMAIN channel AS text CHECK (VALUE = ANY (words('channel')));
COMMENT ON DOMAIN channel IS 'how a request came: email, online or post';
CREATE DOMAIN correspondence AS text CHECK (VALUE = ANY (words('correspondence')));
COMMENT ON DOMAIN correspondence IS 'what a copy is of: form, email or letter';
CREATE DOMAIN guardian_call AS text CHECK (VALUE = ANY (words('guardian_call')));
COMMENT ON DOMAIN guardian_call IS 'what became of the call with the Caldicott Guardian: offered, declined or held';
CREATE DOMAIN proof AS text CHECK (VALUE = ANY (words('proof')));
COMMENT ON DOMAIN proof IS
    'what a document proves: identity, address, or the authority to act for the patient';
CREATE DOMAIN proof_of AS text CHECK (VALUE = ANY (words('proof_of')));
COMMENT ON DOMAIN proof_of IS 'whose document a proof is: the applicant''s or the patient''s';
CREATE DOMAIN document AS text CHECK (VALUE = ANY (words('document')));
COMMENT ON DOMAIN document IS
    'a proof: of identity, passport or driving_licence; of address, utility_bill or bank_statement; of authority, '
    'power_of_attorney, deputyship, court_order or parental_responsibility';
CREATE DOMAIN id_scheme AS text CHECK (VALUE = ANY (words('id_scheme')));
COMMENT ON DOMAIN id_scheme IS
    'the id under which a recipient knows a patient: nhs_number, ndrs_pseudo_id, release_pseudo_id or '
    'openpseudonymiser';
CREATE DOMAIN recipient_kind AS text CHECK (VALUE = ANY (words('recipient_kind')));
COMMENT ON DOMAIN recipient_kind IS
    'what a recipient is: care_provider, which looks after patients and is never told of an opt-out, or other';
CREATE DOMAIN complaint_outcome AS text CHECK (VALUE = ANY (words('complaint_outcome')));
COMMENT ON DOMAIN complaint_outcome IS
    'what came of a complaint: upheld, partly_upheld, not_upheld or withdrawn';
CREATE DOMAIN recall_outcome AS text CHECK (VALUE = ANY (words('recall_outcome')));
COMMENT ON DOMAIN recall_outcome IS
    'what a recipient answered to a recall notice: deleted, already_deleted, not_found or exempt';
CREATE DOMAIN letter_format AS text CHECK (VALUE = ANY (words('letter_format')));
COMMENT ON DOMAIN letter_format IS 'what a letter is made for: standard, large_print or easy_read';
