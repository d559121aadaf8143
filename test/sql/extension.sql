\set SHOW_CONTEXT never
-- Installing, and the key before it is adopted.

-- Somebody else's schema, or one with something in it, is not installed into.
CREATE ROLE regress_squatter;
CREATE EXTENSION pgcrypto;
CREATE SCHEMA ndrs_optout AUTHORIZATION regress_squatter;
CREATE EXTENSION ndrs_optout;
ALTER SCHEMA ndrs_optout OWNER TO CURRENT_USER;
CREATE FUNCTION ndrs_optout.nhs_number_or_null(text) RETURNS text LANGUAGE sql RETURN $1;
CREATE EXTENSION ndrs_optout;
DROP FUNCTION ndrs_optout.nhs_number_or_null;
CREATE EXTENSION ndrs_optout;
DROP ROLE regress_squatter;

-- Nothing works on an encoded number until a key is adopted.
SELECT ndrs_optout.encode_nhs_number('9990000018');
\echo :SQLSTATE
SELECT ndrs_optout.is_excluded('9990000018', 'cancer');
SELECT ndrs_optout.exclude('9990000018', '{cancer}');
SELECT ndrs_optout.open_case('9990000018', '{cancer}');
CREATE TABLE patient (nhs_number text);
SELECT ndrs_optout.guard_table('patient', 'nhs_number', '{cancer}');
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'patient'::regclass;
DROP TABLE patient;

SELECT length(ndrs_optout.adopt_key());
SELECT ndrs_optout.adopt_key() = k.key_id AS adopted_again FROM ndrs_optout.encoding_key k;
SELECT ndrs_optout.is_excluded('9990000018', 'cancer');

-- Another key than the adopted one: everything fails closed.
BEGIN;
UPDATE ndrs_optout.encoding_key SET fingerprint = '00000000000000000000000000000000', key_id = '00000000';
SAVEPOINT s;
SELECT ndrs_optout.encode_nhs_number('9990000018');
\echo :SQLSTATE
ROLLBACK TO s;
SELECT ndrs_optout.is_excluded('9990000018', 'cancer');
ROLLBACK TO s;
SELECT ndrs_optout.adopt_key();
\echo :SQLSTATE
ROLLBACK;
SELECT ndrs_optout.is_excluded('9990000018', 'cancer');

-- Losing the recorded key does not open the constraint of a guarded table.
CREATE TABLE guarded (nhs_number text);
SELECT ndrs_optout.guard_table('guarded', 'nhs_number', '{cancer}', mechanism => 'constraint');
BEGIN;
DELETE FROM ndrs_optout.encoding_key;
INSERT INTO guarded VALUES ('9990000018');
\echo :SQLSTATE
ROLLBACK;
SELECT ndrs_optout.unguard_table('guarded');
DROP TABLE guarded;

-- The extension can be dropped and made again in one session, which has plans of the old one.
CREATE TABLE erased (nhs_number text);
INSERT INTO erased VALUES ('9990000018'), ('9990000026');
SELECT ndrs_optout.guard_table('erased', 'nhs_number', '{cancer}');
SELECT relation, row_count FROM ndrs_optout.erase('9990000018', '{cancer}');
SELECT ndrs_optout.unguard_table('erased');
DROP EXTENSION ndrs_optout;
CREATE EXTENSION ndrs_optout;
SELECT ndrs_optout.is_excluded('9990000018', 'cancer');
SELECT length(ndrs_optout.adopt_key());
SELECT ndrs_optout.guard_table('erased', 'nhs_number', '{cancer}');
SELECT relation, row_count FROM ndrs_optout.erase('9990000026', '{cancer}');
SELECT ndrs_optout.unguard_table('erased');
DROP TABLE erased;
SELECT ndrs_optout.exclude('9990000018', '{cancer}');
SELECT ndrs_optout.is_excluded('9990000018', 'cancer');
DROP EXTENSION ndrs_optout;
CREATE EXTENSION ndrs_optout;
SELECT length(ndrs_optout.adopt_key());
SELECT ndrs_optout.is_excluded('9990000018', 'cancer');

-- Dropping it does not stop a transaction in which a guard has skipped a row.
SELECT ndrs_optout.exclude('9990000018', '{cancer}');
CREATE TABLE patient (nhs_number text);
SELECT ndrs_optout.guard_table('patient', 'nhs_number', '{cancer}', 'skip');
SET client_min_messages = warning;
BEGIN;
INSERT INTO patient VALUES ('9990000018');
DROP EXTENSION ndrs_optout CASCADE;
COMMIT;
RESET client_min_messages;
DROP TABLE patient;
CREATE EXTENSION ndrs_optout;
SELECT length(ndrs_optout.adopt_key());
