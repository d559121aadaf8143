-- Who can do what.
SET search_path = public, ndrs_optout;
\set SHOW_CONTEXT never

-- Everything that anybody but the owner may do.
SELECT 'schema' AS kind, nspname AS object, nspacl::text AS acl FROM pg_namespace
    WHERE nspname = 'ndrs_optout' AND EXISTS (SELECT FROM aclexplode(nspacl) WHERE grantee <> nspowner)
UNION ALL
SELECT 'relation', c.relname, a.privilege_type FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
    WHERE relnamespace = 'ndrs_optout'::regnamespace AND a.grantee <> c.relowner
UNION ALL
SELECT 'routine', p.oid::regprocedure::text, a.privilege_type || ' to ' || CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
    FROM pg_proc p CROSS JOIN aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
    WHERE pronamespace = 'ndrs_optout'::regnamespace AND a.grantee <> p.proowner
ORDER BY 1, 2;

-- What runs with the owner's rights, and that it pins its search_path.
SELECT oid::regprocedure AS security_definer, proconfig FROM pg_proc
    WHERE pronamespace = 'ndrs_optout'::regnamespace AND prosecdef ORDER BY oid::regprocedure::text;

-- A loader: inserts into a guarded table, and can do nothing else here.
CREATE TABLE patient (id int, nhs_number text);
SELECT exclude('9990000018', '{cancer}');
SELECT guard_table('patient', 'nhs_number', '{cancer}', 'skip');
CREATE TABLE rejecting (nhs_number nhs_number);
SELECT guard_table('rejecting', 'nhs_number', '{cancer}');
CREATE ROLE regress_loader;
GRANT INSERT, SELECT ON patient, rejecting TO regress_loader;
SET ROLE regress_loader;
INSERT INTO patient VALUES (1, '9990000018'), (2, '9990000026');
SELECT * FROM patient;
INSERT INTO rejecting VALUES ('9990000018');
INSERT INTO rejecting VALUES ('9990000026');
SELECT ndrs_optout.is_excluded('9999999999', 'cancer');
SELECT ndrs_optout.guard_admits('9999999999'::text, '{cancer}', 'allow', 'allow');
SELECT ndrs_optout.encode_nhs_number('9999999999');
TABLE ndrs_optout.exclusion;
TABLE ndrs_optout.guard_tally;
SELECT ndrs_optout.readmit('9999999999', '{cancer}');
\set VERBOSITY sqlstate
SHOW ndrs_optout.key_file;
\set VERBOSITY default
-- An index and a column of the type work for those who use the table.
RESET ROLE;
CREATE INDEX ON patient (nhs_number_or_null(nhs_number));
SET ROLE regress_loader;
INSERT INTO patient VALUES (7, '999 000 0069');
SELECT nhs_number, count(*) FROM rejecting GROUP BY nhs_number ORDER BY nhs_number;
-- Even one who may name what is in the schema.
RESET ROLE;
GRANT USAGE ON SCHEMA ndrs_optout TO regress_loader;
SET ROLE regress_loader;
SELECT ndrs_optout.is_excluded('9999999999', 'cancer');
SELECT ndrs_optout.encode_nhs_number('9999999999');
SELECT ndrs_optout.open_case('9999999999', '{cancer}');
CALL ndrs_optout.carry_out(1, '9999999999');
SELECT ndrs_optout.case_certify(1, '9999999999');
SELECT * FROM ndrs_optout.erase('9999999999', '{cancer}');
SELECT ndrs_optout.disclose_records('9999999999');
SELECT ndrs_optout.request_subject_access('9999999999');
SELECT ndrs_optout.erasure_certificate(1);
SELECT ndrs_optout.verify_certificate('{}');
TABLE ndrs_optout.subject_access_progress;
TABLE ndrs_optout.case_certificate;
SELECT ndrs_optout.adopt_key();
SELECT ndrs_optout.guard_table('patient', 'nhs_number', '{rare_disease}');
SELECT ndrs_optout.unguard_table('patient');
TABLE ndrs_optout.exclusion;
RESET ROLE;

-- An officer, with what a case needs and nothing else.
CREATE ROLE regress_officer;
SELECT grant_access('regress_officer', 'officer');
SET ROLE regress_officer;
-- What everybody may execute answers nobody who asks: only a search of ours, which has a token.
SELECT guard_matches('9990000018'::text, '{cancer}');
SELECT guard_finds('9990000018'::text, '{cancer}', NULL);
SELECT guard_finds('9990000018'::text, '{cancer}', '');
SELECT guard_finds('9990000018'::text, '{cancer}', decode(repeat('00', 32), 'hex'));
\echo :SQLSTATE
SELECT guard_misencoded('9990000018'::text, '00000000000000000000000000000000', decode(repeat('00', 32), 'hex'));
\echo :SQLSTATE
SELECT open_case('9990000077', '{cancer}') AS case_id \gset
SELECT letter, missing FROM case_progress;
SELECT record_identity(:case_id, 'identity', 'passport'), record_identity(:case_id, 'address', 'utility_bill');
SELECT sum(row_count) FROM erasure_preview('9990000077', '{cancer}');
BEGIN;
CALL carry_out(:case_id, '9990000077');
\echo :SQLSTATE
ROLLBACK;
CALL carry_out(:case_id, '9990000077');
SELECT complete_case(:case_id) LIKE 'Our reference%' AS letter;
SELECT verify_certificate(erasure_certificate(:case_id)) AS certified;
SELECT request_subject_access('9990000077') AS request \gset
SELECT record_subject_access_proof(:request, 'identity', 'passport') \g /dev/null
SELECT count(*) FILTER (WHERE source = 'optout_case') AS cases FROM answer_subject_access(:request, '9990000077');
SELECT answered_at IS NOT NULL AS answered FROM subject_access_progress WHERE request_id = :request;
SELECT disclose_records('9990000026');
SELECT * FROM patient;
TABLE exclusion;
TABLE optout_case;
SELECT erase('9999999999', '{cancer}');
SELECT erase_patients('{9999999999}', '{cancer}');
SELECT exclude('9999999999', '{cancer}');
SELECT readmit('9999999999', '{cancer}');
RESET ROLE;
DELETE FROM case_erasure; DELETE FROM case_guard; DELETE FROM case_certificate; DELETE FROM optout_case; DELETE FROM subject_access_request;
SELECT revoke_access('regress_officer', 'officer');
DROP ROLE regress_officer;

-- CREATE TABLE ... LIKE copies the constraint; whoever may not insert into the
-- guarded table learns nothing from the copy.
CREATE ROLE regress_analyst;
GRANT SELECT ON patient TO regress_analyst;
SET ROLE regress_analyst;
CREATE TEMP TABLE probe (LIKE patient INCLUDING CONSTRAINTS);
INSERT INTO probe VALUES (1, '9990000018');
INSERT INTO probe VALUES (1, '9990000026');
DROP TABLE probe;
RESET ROLE;
CREATE TABLE staging (LIKE patient INCLUDING CONSTRAINTS);
INSERT INTO staging VALUES (1, '9990000018');
INSERT INTO staging VALUES (1, '9990000026');
-- Through a view, with rights on the view only.
CREATE VIEW patient_view AS SELECT * FROM patient;
GRANT INSERT, SELECT ON patient_view TO regress_analyst;
SET ROLE regress_analyst;
INSERT INTO patient_view VALUES (3, '9990000018'), (4, '9990000034');
SELECT id FROM patient_view ORDER BY id;
RESET ROLE;

-- What somebody else has put on a table does not run with the owner's rights:
-- neither a trigger nor a cast nor the check of a domain.
CREATE ROLE regress_mallory;
CREATE SCHEMA mallory AUTHORIZATION regress_mallory;
CREATE TABLE patient_of_all (id int PRIMARY KEY, nhs bigint);
INSERT INTO patient_of_all VALUES (1, 9990000042);
SELECT guard_table('patient_of_all', 'nhs', '{cancer}');
GRANT SELECT, REFERENCES ON patient_of_all TO regress_mallory;
SET ROLE regress_mallory;
CREATE TABLE mallory.seen (who text);
CREATE FUNCTION mallory.look() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO mallory.seen VALUES (current_user); RETURN OLD; END $$;
CREATE TABLE mallory.child (id int PRIMARY KEY, patient_id int REFERENCES public.patient_of_all ON DELETE CASCADE);
CREATE TRIGGER look BEFORE DELETE ON mallory.child FOR EACH ROW EXECUTE FUNCTION mallory.look();
CREATE CONSTRAINT TRIGGER look_late AFTER DELETE ON mallory.child DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION mallory.look();
INSERT INTO mallory.child VALUES (1, 1);
CREATE FUNCTION mallory.checked(text) RETURNS boolean LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO mallory.seen VALUES ('domain ' || current_user); RETURN true; END $$;
CREATE DOMAIN mallory.number AS text CHECK (mallory.checked(VALUE));
CREATE TABLE mallory.domain_child (id int PRIMARY KEY, nhs mallory.number NOT NULL);
-- Her cast on the way, and the predicate of her index.
CREATE FUNCTION mallory.look_who(text) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO mallory.seen VALUES ($1 || ' ' || current_user); RETURN NULL; END $$;
CREATE TYPE mallory.colour AS ENUM ('1', '2');
CREATE FUNCTION mallory.to_int(mallory.colour) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN PERFORM mallory.look_who('cast'); RETURN $1::text::int; END $$;
CREATE CAST (mallory.colour AS int) WITH FUNCTION mallory.to_int AS IMPLICIT;
CREATE TABLE mallory.coloured (patient_id mallory.colour REFERENCES public.patient_of_all);
INSERT INTO mallory.coloured VALUES ('1');
CREATE FUNCTION mallory.lie(int) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS
    $$ BEGIN PERFORM mallory.look_who('predicate'); RETURN true; END $$;
CREATE TABLE mallory.indexed (patient_id int REFERENCES public.patient_of_all);
CREATE INDEX ON mallory.indexed (patient_id) WHERE mallory.lie(1);
INSERT INTO mallory.indexed VALUES (1);
-- Her domain as a key on the way.
CREATE TABLE mallory.keyed (key mallory.number PRIMARY KEY, patient_id int REFERENCES public.patient_of_all);
CREATE TABLE mallory.below (key mallory.number REFERENCES mallory.keyed);
INSERT INTO mallory.keyed VALUES ('k', 1);
INSERT INTO mallory.below VALUES ('k');
DELETE FROM mallory.seen;
CREATE TYPE mallory.pair AS (a text);
CREATE FUNCTION mallory.to_text(mallory.pair) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO mallory.seen VALUES ('cast ' || current_user); RETURN '9990000042'; END $$;
CREATE CAST (mallory.pair AS text) WITH FUNCTION mallory.to_text AS IMPLICIT;
RESET ROLE;
SELECT guard_table('mallory.domain_child', 'nhs', '{cancer}');
-- Nor does the predicate of an index run with them when the owner of the extension guards
-- the table, or declares a reference.
SET ROLE regress_mallory;
CREATE TABLE mallory.referral (nhs text, patient_id int);
CREATE INDEX ON mallory.referral (nhs) WHERE mallory.lie(1);
CREATE INDEX ON mallory.referral (patient_id) WHERE mallory.lie(2);
DELETE FROM mallory.seen;
RESET ROLE;
SELECT guard_table('mallory.referral', 'nhs', '{cancer}');
SELECT DISTINCT who FROM mallory.seen ORDER BY who;
DELETE FROM mallory.seen;
ALTER TABLE mallory.referral ADD note text;
SELECT declare_reference('mallory.referral', '{patient_id}', 'patient_of_all', '{id}');
SELECT DISTINCT who FROM mallory.seen ORDER BY who;
DELETE FROM mallory.seen;
DELETE FROM reference; DELETE FROM expected_edge;
SELECT unguard_table('mallory.referral');
DROP TABLE mallory.referral;
SET ROLE regress_mallory;
CREATE TABLE mallory.cast_child (nhs mallory.pair);
INSERT INTO mallory.cast_child VALUES (ROW('x'));
RESET ROLE;
SELECT guard_table('mallory.cast_child', 'nhs', '{cancer}');
SELECT relation, action, row_count FROM erase('9990000042', '{cancer}') WHERE row_count > 0;
SELECT DISTINCT who FROM mallory.seen ORDER BY who;
SET client_min_messages = warning;
SELECT unguard_table('mallory.domain_child'), unguard_table('patient_of_all');
DROP SCHEMA mallory CASCADE;
DROP TABLE patient_of_all, staging;
DROP VIEW patient_view;
DROP ROLE regress_mallory;
REVOKE ALL ON patient FROM regress_analyst;
DROP ROLE regress_analyst;
RESET client_min_messages;

-- Tables of several owners: children go first, whoever owns them.
CREATE ROLE regress_a;
CREATE ROLE regress_b;
CREATE TABLE owned_patient (id int PRIMARY KEY, nhs bigint);
CREATE TABLE owned_tumour (id int PRIMARY KEY, patient_id int REFERENCES owned_patient);
CREATE TABLE owned_regimen (id int PRIMARY KEY, tumour_id int REFERENCES owned_tumour ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE an_admission (id int, nhs bigint, patient_id int REFERENCES owned_patient);
CREATE TABLE owned_relative (id int, patient_id int REFERENCES owned_patient ON DELETE SET NULL);
INSERT INTO owned_patient VALUES (1, 9990000042);
INSERT INTO owned_tumour VALUES (1, 1);
INSERT INTO owned_regimen VALUES (1, 1);
INSERT INTO an_admission VALUES (1, 9990000042, 1);
INSERT INTO owned_relative VALUES (1, 1);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON owned_relative DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION nothing();
GRANT CREATE ON SCHEMA public TO regress_a, regress_b;
ALTER TABLE owned_patient OWNER TO regress_a;
ALTER TABLE owned_regimen OWNER TO regress_a;
ALTER TABLE owned_tumour OWNER TO regress_b;
ALTER TABLE an_admission OWNER TO regress_b;
ALTER TABLE owned_relative OWNER TO regress_b;
GRANT REFERENCES, SELECT ON owned_patient TO regress_b;
SELECT guard_table('owned_patient', 'nhs', '{cancer}'), guard_table('an_admission', 'nhs', '{cancer}');
SELECT relation, action, row_count FROM erase('9990000042', '{cancer}') WHERE row_count > 0;
-- A cycle of one owner's, with another owner's table below it.
ALTER TABLE owned_patient ADD index_regimen int REFERENCES owned_regimen;
ALTER TABLE owned_tumour OWNER TO regress_a;
CREATE TABLE a_sample (id int, patient_id int REFERENCES owned_patient, tumour_id int REFERENCES owned_tumour);
ALTER TABLE a_sample OWNER TO regress_b;
INSERT INTO owned_patient VALUES (2, 9990000050);
INSERT INTO owned_tumour VALUES (2, 2);
INSERT INTO owned_regimen VALUES (2, 2);
UPDATE owned_patient SET index_regimen = 2;
INSERT INTO a_sample VALUES (1, 2, 2);
SELECT relation, action, row_count FROM erase('9990000050', '{cancer}') WHERE row_count > 0;
SELECT unguard_table('owned_patient'), unguard_table('an_admission');
-- What runs with others' rights takes no nonsense.
SELECT search_as_owner(NULL, NULL, NULL, NULL);
SELECT search_as_owner(current_user::regrole, 'SELECT 1', NULL, NULL);
SELECT search_as_owner(0::regrole, 'SELECT 1', NULL, NULL);
SELECT change_as_owner(current_user::regrole, 'SELECT 7', '{}');
ALTER TABLE owned_patient DROP COLUMN index_regimen;
DROP TABLE a_sample, owned_relative, an_admission, owned_regimen, owned_tumour, owned_patient;
DROP FUNCTION nothing;
REVOKE ALL ON SCHEMA public FROM regress_a, regress_b;
DROP ROLE regress_a, regress_b;

-- Temporary objects of a caller's do not stand before ours.
CREATE TEMP TABLE exclusion (register text, encoded_nhs_number text);
CREATE TEMP TABLE register (code text, name text);
SELECT is_excluded('9990000018', 'cancer'), exclude('9990000034', '{cancer}');
SELECT is_excluded('9990000034', 'cancer');
DROP TABLE pg_temp.exclusion, pg_temp.register;

SELECT unguard_table(target) FROM guard;
DELETE FROM ndrs_optout.exclusion; DELETE FROM guard_tally;
DROP TABLE patient, rejecting;
REVOKE ALL ON SCHEMA ndrs_optout FROM regress_loader;
DROP ROLE regress_loader;
