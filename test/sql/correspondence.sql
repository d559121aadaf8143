-- The confidential copy: ciphertext for somebody else's key, or nothing.
SET search_path = public, ndrs_optout;
SET timezone = 'Europe/London';
SET client_min_messages = warning;
ALTER TABLE optout_case ALTER case_id RESTART WITH 1;
\getenv inputdir PG_ABS_SRCDIR
\set public_file :inputdir /keys/guardian.public.asc
\set private_file :inputdir /keys/guardian.private.asc
\set short_file :inputdir /keys/short.public.asc
\set mixed_file :inputdir /keys/mixed.asc
\set public_key `cat :'public_file'`
\set short_key `cat :'short_file'`
\set mixed_key `cat :'mixed_file'`
\set private_key `cat :'private_file'`
SELECT coalesce(max(event_id), 0) AS last_event FROM audit_event \gset
SELECT open_case('9990000018', '{cancer}');

-- Without a key nothing is stored, least of all in clear.
SELECT record_correspondence(1, 'form', 'seeded form');
\echo :SQLSTATE
SELECT record_identity(1, 'identity', 'passport', content => 'seeded passport');
\echo :SQLSTATE
SELECT count(*) FROM identity_evidence;
SELECT record_identity(1, 'identity', 'passport');

-- The wrong key
SELECT set_confidential_key(:'private_key');
\echo :SQLSTATE
SELECT set_confidential_key(:'mixed_key');
SELECT set_confidential_key(:'short_key');
SELECT set_confidential_key('-----BEGIN PGP PUBLIC KEY BLOCK-----');
SELECT set_confidential_key('no key');
SELECT set_confidential_key('');
SELECT set_confidential_key(armor('no key'));
SELECT set_confidential_key(NULL);
SELECT count(*) FROM confidential_key;

SELECT length(set_confidential_key(:'public_key')) AS key_id_digits;
SELECT record_correspondence(1, 'form', 'seeded form', current_date - 3),
       record_correspondence(1, 'email', 'seeded e-mail') > 0 AS email;
SELECT record_identity(1, 'identity', 'driving_licence', content => 'seeded licence'),
       record_identity(1, 'address', 'bank_statement', content => 'seeded statement');

-- What is stored is unreadable without the private key, and the very bytes with it.
SELECT kind, position('seeded'::bytea IN content) > 0 AS in_clear, key_id = pgp_key_id(content) AS for_the_key,
       convert_from(pgp_pub_decrypt_bytea(content, dearmor(:'private_key')), 'UTF8') AS content
    FROM (SELECT kind, key_id, content FROM case_correspondence
          UNION ALL SELECT proof, (current_confidential_key()).key_id, content FROM identity_evidence) AS c
    ORDER BY kind;

-- The proofs go at the end, the copy stays, and the letter joins it.
CREATE TABLE patient (nhs_number text);
SELECT guard_table('patient', 'nhs_number', '{cancer}');
CALL carry_out(1, '9990000018');
SELECT complete_case(1) AS letter \gset
SELECT count(*) FROM identity_evidence;
SELECT kind, convert_from(pgp_pub_decrypt_bytea(content, dearmor(:'private_key')), 'UTF8') = :'letter' AS as_sent
    FROM case_correspondence WHERE kind = 'letter';
SELECT regexp_replace(substring(:'letter' FROM 'We keep a locked[^\n]*'), '\d+ \w+ (\d{4})', 'DAY ', 'g') AS kept;
SELECT completion_letter(1) = :'letter' AS the_same_letter;
SELECT count(*) FROM case_correspondence WHERE kind = 'letter';
-- A complaint comes later.
SELECT record_correspondence(1, 'email', 'seeded complaint') > 0 AS recorded;

-- A request that is withdrawn: the proofs go, the copy stays.
SELECT open_case('9990000026', '{cancer}', 'representative', 'post');
SELECT record_correspondence(2, 'form', 'seeded form') > 0 AS recorded, record_identity(2, 'identity', 'passport', content => 'seeded');
SELECT withdraw_case(2) \g /dev/null
SELECT state, proofs_destroyed FROM optout_case WHERE case_id = 2;
SELECT (SELECT count(*) FROM identity_evidence) AS proofs, (SELECT count(*) FROM case_correspondence WHERE case_id = 2) AS copies;

-- Each copy says which key it needs.
SELECT count(DISTINCT key_id) FROM case_correspondence;

-- Mistakes
SELECT record_correspondence(1, 'passport', 'seeded');
SELECT record_correspondence(1, NULL, 'seeded');
SELECT record_correspondence(1, 'email', NULL);
SELECT record_correspondence(1, 'email', 'seeded', current_date + 1);
SELECT record_correspondence(1, 'email', 'seeded', NULL);
SELECT record_correspondence(99, 'email', 'seeded');
\echo :SQLSTATE
SELECT record_correspondence(NULL, 'email', 'seeded');

-- Nothing of it in the audit.
SELECT event, detail - '{key,sha256}'::text[] AS detail FROM audit_event WHERE event_id > :last_event ORDER BY event_id;

-- Functions that others have put beside pgcrypto's, in its schema, with types that fit
-- an untyped call better or take more arguments: none is called.
CREATE FUNCTION planted() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'planted, called as %', current_user; END $$;
CREATE FUNCTION dearmor(varchar) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea WHERE public.planted()';
CREATE FUNCTION pgp_key_id(anyelement) RETURNS text LANGUAGE sql AS 'SELECT NULL::text WHERE public.planted()';
CREATE FUNCTION pgp_pub_encrypt_bytea(text, bytea) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea WHERE public.planted()';
CREATE FUNCTION pgp_pub_encrypt_bytea(bytea, text) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea WHERE public.planted()';
CREATE FUNCTION pgp_pub_encrypt_bytea(text, bytea, text) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea WHERE public.planted()';
CREATE FUNCTION pgp_pub_encrypt_bytea(bytea, bytea, VARIADIC text[]) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea WHERE public.planted()';
SELECT length(set_confidential_key(:'public_key')) AS key_id_digits;
SELECT record_correspondence(1, 'email', 'seeded') > 0 AS recorded;
-- The owner of an extension can make a function a member of it; only a superuser can write one in C.
CREATE SCHEMA planted;
CREATE FUNCTION planted.armor(text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text WHERE public.planted()';
ALTER EXTENSION pgcrypto ADD FUNCTION planted.armor(text);
SELECT extension_function('pgcrypto', 'armor', '{text}');
\echo :SQLSTATE
ALTER EXTENSION pgcrypto DROP FUNCTION planted.armor(text);
SELECT extension_function('pgcrypto', 'armor', '{bytea}');
SELECT extension_function('pgcrypto', 'pgp_pub_encrypt_bytea', '{text,bytea}');
SELECT extension_function('no_such', 'armor', '{bytea}');
DROP SCHEMA planted CASCADE;
DROP FUNCTION dearmor(varchar), pgp_key_id(anyelement), pgp_pub_encrypt_bytea(text, bytea),
    pgp_pub_encrypt_bytea(bytea, text), pgp_pub_encrypt_bytea(text, bytea, text),
    pgp_pub_encrypt_bytea(bytea, bytea, VARIADIC text[]), planted();

SELECT unguard_table('patient');
DELETE FROM case_erasure; DELETE FROM case_correspondence; DELETE FROM identity_evidence; DELETE FROM case_certificate; DELETE FROM optout_case; DELETE FROM confidential_key; DELETE FROM exclusion;
DROP TABLE patient;
