-- The ids under which recipients know patients.
\set SHOW_CONTEXT never
SET search_path = public, ndrs_optout;

-- NDRS's published pair of salts; 1234567881 is a valid number.
SELECT nhs_number_or_null('1234567881');
SELECT ndrs_pseudo_id('1234567881', '1234567890abcdef1234567890abcdef') AS pseudo_id \gset
SELECT :'pseudo_id' ~ '^[0-9a-f]{64}$' AS digits;
SELECT release_pseudo_id(:'pseudo_id', '0123456789abcdef1234567890abcdef');
-- By hand; a number that begins with a zero keeps it.
SELECT ndrs_pseudo_id('123 456 7881', 'salt') = encode(sha256('nhsnumber_1234567881salt'), 'hex');
SELECT ndrs_pseudo_id('0607230002', 'salt') = encode(sha256('nhsnumber_0607230002salt'), 'hex');
SELECT release_pseudo_id(repeat('0a', 32), 'salt') = left(encode(sha256(convert_to('pseudoid_' || repeat('0a', 32) || 'salt', 'UTF8')), 'hex'), 16);

-- OpenPseudonymiser's own test: number and date of birth, however the number is
-- spaced, whatever comes first.
SELECT openpseudonymiser_digest(number::nhs_number, 'mackerel', '{"DOB": "29.11.1973"}')
    FROM (VALUES ('943 476 5919'), ('9434765919')) AS v (number);
SELECT openpseudonymiser_digest('9434765919', ' mackerel ', E'{"dob": "29.11. 19\\t7\\r\\n3"}');
-- Names are in alphabetical order, capitals or not; without others it is the number.
SELECT openpseudonymiser_digest('9434765919', 'mackerel', '{"postcode": "LS1 4AP", "DOB": "29.11.1973"}')
    = upper(encode(sha256('29.11.19739434765919LS14APmackerel'), 'hex'));
SELECT openpseudonymiser_digest('9434765919', 'mackerel') = upper(encode(sha256('9434765919mackerel'), 'hex'));

-- Not a patient, not a salt, not a pseudo-id, not fields.
SELECT ndrs_pseudo_id('1111111111', 'salt');
\echo :SQLSTATE
SELECT ndrs_pseudo_id(NULL, 'salt');
SELECT ndrs_pseudo_id('9434765919', NULL);
\echo :SQLSTATE
SELECT ndrs_pseudo_id('9434765919', ' ');
SELECT release_pseudo_id(:'pseudo_id', '');
SELECT release_pseudo_id(upper(:'pseudo_id'), 'salt');
\echo :SQLSTATE
SELECT release_pseudo_id('9434765919', 'salt');
SELECT release_pseudo_id(NULL, 'salt');
SELECT openpseudonymiser_digest('0000000000', 'salt');
SELECT openpseudonymiser_digest('9434765919', '');
SELECT openpseudonymiser_digest('9434765919', 'salt', '[]');
SELECT openpseudonymiser_digest('9434765919', 'salt', NULL);
SELECT openpseudonymiser_digest('9434765919', 'salt', '{"nhsnumber": "9434765919"}');
SELECT openpseudonymiser_digest('9434765919', 'salt', '{"DOB": null}');
\echo :SQLSTATE
