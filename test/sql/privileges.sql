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
    WHERE pronamespace = 'ndrs_optout'::regnamespace AND a.grantee <> p.proowner;

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
SELECT ndrs_optout.is_excluded('9990000018', 'cancer');
SELECT ndrs_optout.guard_admits('9990000018'::text, '{cancer}', 'allow', 'allow');
SELECT ndrs_optout.encode_nhs_number('9990000018');
TABLE ndrs_optout.exclusion;
TABLE ndrs_optout.guard_tally;
SELECT ndrs_optout.readmit('9990000018', '{cancer}');
SHOW ndrs_optout.key_file;
-- Even one who may name what is in the schema.
RESET ROLE;
GRANT USAGE ON SCHEMA ndrs_optout TO regress_loader;
SET ROLE regress_loader;
SELECT ndrs_optout.is_excluded('9990000018', 'cancer');
SELECT ndrs_optout.encode_nhs_number('9990000018');
SELECT ndrs_optout.open_case('9990000018', '{cancer}');
CALL ndrs_optout.carry_out(1, '9990000018');
SELECT ndrs_optout.case_certify(1, '9990000018');
SELECT * FROM ndrs_optout.erase('9990000018', '{cancer}');
SELECT ndrs_optout.adopt_key();
SELECT ndrs_optout.guard_table('patient', 'nhs_number', '{rare_disease}');
SELECT ndrs_optout.unguard_table('patient');
TABLE ndrs_optout.exclusion;
RESET ROLE;

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
