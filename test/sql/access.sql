-- What a role may do, by its duty.
\set SHOW_CONTEXT never
\set home :DBNAME
CREATE DATABASE regress_access;
\c regress_access
SET client_min_messages = warning;
CREATE EXTENSION ndrs_optout CASCADE;
RESET client_min_messages;
SET search_path = public, ndrs_optout;
SELECT length(adopt_key());

CREATE ROLE regress_officer;
CREATE ROLE regress_loader;
CREATE ROLE regress_analyst;
CREATE ROLE regress_auditor;
CREATE ROLE regress_steward;
CREATE TEMP TABLE duty AS
    SELECT d.duty, 'regress_' || d.duty AS role FROM unnest('{officer,loader,analyst,auditor,steward}'::text[]) AS d (duty);

-- What the table names is there.
SELECT * FROM duty_privilege d
    WHERE NOT EXISTS (SELECT FROM access_objects() AS o
                      WHERE (o.object_kind, o.name, o.privilege) = (d.object_kind, d.name, d.privilege));

-- Wrong calls.
SELECT grant_access('regress_officer', 'clerk');
SELECT grant_access('regress_officer', NULL);
SELECT grant_access(NULL, 'officer');
SELECT grant_access(0::regrole, 'officer');
SELECT grant_access('regress_nobody', 'officer');
SELECT revoke_access('regress_officer', 'officer');
\echo :SQLSTATE

SELECT grant_access(role::regrole, duty) FROM duty;
SELECT role, duty FROM granted_access ORDER BY role, duty;
SELECT event, detail FROM audit_event WHERE event ~ '^access_' ORDER BY entry_id;
SELECT * FROM access_differences();

-- Who can do what, besides the owner.
CREATE TEMP VIEW matrix AS
    SELECT o.object_kind, o.object_id, o.object, o.privilege, d.duty, d.role, h.privilege IS NOT NULL AS held
        FROM access_objects() AS o CROSS JOIN duty d
        LEFT JOIN LATERAL access_held(d.role) AS h USING (object_kind, object_id, privilege);
SELECT object, privilege,
       max('x') FILTER (WHERE duty = 'officer' AND held) AS officer,
       max('x') FILTER (WHERE duty = 'loader' AND held) AS loader,
       max('x') FILTER (WHERE duty = 'analyst' AND held) AS analyst,
       max('x') FILTER (WHERE duty = 'auditor' AND held) AS auditor,
       max('x') FILTER (WHERE duty = 'steward' AND held) AS steward
    FROM matrix WHERE held GROUP BY object_kind, object, privilege
    ORDER BY object_kind DESC, object COLLATE "C", privilege;

-- Each duty's role tries each table, view, sequence and routine of the extension;
-- what it tried is taken back.  Nothing is listed, so nothing can be forgotten.
CREATE FUNCTION pg_temp.try(role text, statement text) RETURNS text LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    EXECUTE statement;
    RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = 'done';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END
$$;
-- Arguments come from a row, for a strict function with constants is not called.
CREATE FUNCTION pg_temp.call(routine oid) RETURNS text LANGUAGE sql
    SET search_path = pg_catalog AS $$
    SELECT CASE p.prokind WHEN 'p' THEN format('CALL %s(%s)', p.oid::regproc, n.nulls)
               ELSE format('SELECT %s(%s) FROM (SELECT %s OFFSET 0) AS v', p.oid::regproc, n.names, coalesce(n.columns, '1')) END
        FROM pg_proc p CROSS JOIN LATERAL (
            SELECT string_agg('NULL::' || t.type, ', ' ORDER BY t.position) AS nulls,
                   string_agg('v.a' || t.position, ', ' ORDER BY t.position) AS names,
                   string_agg(format('NULL::%s AS a%s', t.type, t.position), ', ' ORDER BY t.position) AS columns
                FROM (SELECT a.position, CASE a.type WHEN 'anyelement'::regtype THEN 'text' ELSE a.type::regtype::text END AS type
                          FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type, position)) AS t) AS n
        WHERE p.oid = routine
$$;
-- Even a loader who may name what is in the schema.
GRANT USAGE ON SCHEMA ndrs_optout TO regress_loader;
CREATE SCHEMA regress_access;
GRANT ALL ON SCHEMA regress_access TO PUBLIC;
CREATE TEMP TABLE attempt AS
    SELECT m.*, s.statement, pg_temp.try(m.role, s.statement) AS result
        FROM matrix m
        CROSS JOIN LATERAL (SELECT CASE
            WHEN m.object_kind = 'routine' THEN pg_temp.call(m.object_id)
            WHEN m.object_kind = 'sequence' THEN format(CASE m.privilege WHEN 'USAGE' THEN 'SELECT nextval(%L)'
                WHEN 'SELECT' THEN 'TABLE %s' ELSE 'SELECT setval(%L, 1)' END, m.object)
            ELSE CASE m.privilege
                WHEN 'SELECT' THEN format('SELECT * FROM %s', m.object)  -- with what its columns call
                WHEN 'INSERT' THEN format('INSERT INTO %s DEFAULT VALUES', m.object)
                WHEN 'UPDATE' THEN (SELECT format('UPDATE %s SET %I = %2$I', m.object, a.attname) FROM pg_attribute a
                    WHERE a.attrelid = m.object_id AND a.attnum > 0 AND a.attidentity = '' ORDER BY a.attnum LIMIT 1)
                WHEN 'DELETE' THEN format('DELETE FROM %s', m.object)
                WHEN 'TRUNCATE' THEN format('TRUNCATE %s', m.object)
                WHEN 'REFERENCES' THEN (SELECT format('CREATE TABLE regress_access.r (c %s REFERENCES %s)', format_type(a.atttypid, NULL), m.object)
                    FROM pg_attribute a WHERE a.attrelid = m.object_id AND a.attnum = 1)
                WHEN 'TRIGGER' THEN format('CREATE TRIGGER t BEFORE INSERT ON %s EXECUTE FUNCTION suppress_redundant_updates_trigger()', m.object)
                END
            END AS statement) AS s
        WHERE m.object_kind <> 'schema' AND m.object NOT LIKE '%internal%' AND m.object NOT LIKE '%cstring%';
DROP SCHEMA regress_access;
REVOKE USAGE ON SCHEMA ndrs_optout FROM regress_loader;
-- All were tried,
SELECT duty, count(*) > 300 AS many, bool_and(statement IS NOT NULL) AS each FROM attempt GROUP BY duty ORDER BY duty;
-- and what is not theirs is refused.  (A view cannot be written to or referred to by
-- anybody, and a table only with a key that fits.)
SELECT duty, object, privilege, result FROM attempt
    WHERE NOT held AND result NOT IN ('42501')
        AND NOT (privilege IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER') AND result IN ('55000', '42809', '42830', '42704', '428C9'))
    ORDER BY duty, object, privilege;
-- What is theirs is not refused by what it calls: a wrong argument is.
SELECT duty, object, privilege, result FROM attempt
    WHERE held AND result = '42501' ORDER BY duty, object, privilege;
-- What an auditor may do, a transaction that can change nothing can do.
BEGIN READ ONLY;
SELECT object FROM attempt
    WHERE duty = 'auditor' AND held AND pg_temp.try(role, statement) = '25006';
SELECT pg_temp.try(current_user, 'SELECT ndrs_optout.audit(''nothing'')');
COMMIT;

-- The loader does its work, guarded, without any right here; and sees nothing.
CREATE TABLE patient (id int, nhs_number text);
SELECT exclude('9990000018', '{cancer}');
SELECT guard_table('patient', 'nhs_number', '{cancer}', 'skip');
GRANT SELECT, INSERT ON patient TO regress_loader;
GRANT SELECT ON patient TO regress_analyst, regress_auditor, regress_steward;
SET ROLE regress_loader;
INSERT INTO patient VALUES (1, '9990000018'), (2, '9990000026');
SELECT * FROM patient;
SELECT ndrs_optout.is_excluded('9999999999', 'cancer');
RESET ROLE;

-- Neither by a copy of the constraint, nor in a schema of one's own, nor by statistics.
ANALYZE exclusion;
SELECT count(*) > 0 AS statistics FROM pg_stats WHERE schemaname = 'ndrs_optout' AND tablename = 'exclusion';
SET ROLE regress_analyst;
CREATE TEMP TABLE probe (LIKE patient INCLUDING CONSTRAINTS);
INSERT INTO probe VALUES (1, '9990000018');
INSERT INTO probe VALUES (1, '9990000026');
DROP TABLE probe;
SELECT ndrs_optout.is_excluded('9999999999', 'cancer');
CREATE TEMP TABLE probe (nhs_number text CHECK (ndrs_optout.guard_matches(nhs_number, '{cancer}')));
INSERT INTO probe VALUES ('9990000018');
DROP TABLE probe;
-- Nor by the constraint's function, whatever table it is told to speak for, and wherever.
CREATE TEMP TABLE probe (nhs_number text, CHECK (ndrs_optout.guard_admits(tableoid, 'patient', nhs_number, '{cancer}', 'allow', 'reject')));
INSERT INTO probe VALUES ('9990000018');
INSERT INTO probe VALUES ('9990000026');
DROP TABLE probe;
CREATE TEMP TABLE probe (nhs_number text, CHECK (ndrs_optout.guard_admits(tableoid, tableoid, nhs_number, '{cancer}', 'allow', 'reject')));
INSERT INTO probe VALUES ('9990000018');
INSERT INTO probe VALUES ('9990000026');
DROP TABLE probe;
SELECT ndrs_optout.guard_admits('patient'::regclass, 'patient', '9990000018'::text, '{cancer}', 'allow', 'reject');
SELECT ndrs_optout.guard_admits('patient'::regclass, 'patient', '9990000026'::text, '{cancer}', 'allow', 'reject');
SELECT ndrs_optout.guard_admits(tableoid, 'patient', '9990000018'::text, '{cancer}', 'allow', 'reject') FROM patient;
SELECT ndrs_optout.guard_admits(0, 'patient', '9990000018'::text, '{cancer}', 'allow', 'reject');
SELECT count(*) FROM pg_stats WHERE schemaname = 'ndrs_optout' AND tablename = 'exclusion';
-- What an analyst has it for:
SELECT nhs_number_format(nhs_number_or_null('9990000026')), nhs_number_is_placeholder('9999999999'),
       '9990000026'::nhs_number < '9990000034'::nhs_number AS less;
RESET ROLE;

-- An officer works a case to its end and the applicant changes her mind.
GRANT SELECT ON patient TO regress_officer;
SET ROLE regress_officer;
SELECT open_case('9990000026', '{cancer}') AS case_id \gset
SELECT record_identity(:case_id, 'identity', 'passport'), record_identity(:case_id, 'address', 'utility_bill');
SELECT record_guardian_call(:case_id, 'declined');
SELECT sum(row_count) FROM erasure_preview('9990000026', '{cancer}');
CALL carry_out(:case_id, '9990000026');
SELECT complete_case(:case_id) LIKE 'Our reference%' AS letter;
SELECT state FROM case_progress WHERE case_id = :case_id;
SELECT supersede_nhs_number('9990000026', '9990000034');
SELECT opt_in('9990000026', '{cancer}') AS case_id \gset
SELECT complete_case(:case_id) LIKE 'Our reference%' AS letter;
SELECT open_case('9990000042', '{cancer}') AS case_id \gset
SELECT withdraw_case(:case_id) \g /dev/null
SELECT open_case('9990000042', '{cancer}') AS case_id \gset
SELECT refuse_case(:case_id, 'not the patient') \g /dev/null
TABLE exclusion;
TABLE audit_event;
RESET ROLE;

-- An auditor reads, a DBA accepts a gap.
SET ROLE regress_auditor;
SELECT count(*) AS problems FROM verify_audit();
SELECT count(*) > 5 AS events FROM audit_event;
SELECT target, registers FROM guard;
SELECT count(*) AS checks_done FROM health() WHERE detail LIKE 'could not%';
SELECT accept_gap('missing_index', 'patient', 'nhs_number', 'small');
RESET ROLE;
SET ROLE regress_steward;
SELECT severity, gap, relation, object FROM guard_coverage() WHERE relation = 'patient'::regclass;
SELECT accept_gap('missing_index', 'patient', 'nhs_number', 'small');
SELECT gap, relation, reason FROM accepted_gap;
SELECT count(*) AS gaps FROM guard_coverage() WHERE relation = 'patient'::regclass;
SELECT guard_table('patient', 'nhs_number', '{rare_disease}');
RESET ROLE;
SELECT event, acting_role FROM audit_event WHERE event = 'gap_accepted';

-- A duty is taken away, and what another one needs stays.
SELECT grant_access('regress_auditor', 'steward');
SELECT revoke_access('regress_auditor', 'auditor');
SELECT object, privilege FROM access_held('regress_auditor') EXCEPT SELECT object, privilege FROM access_held('regress_steward');
SELECT object, privilege FROM access_held('regress_steward') EXCEPT SELECT object, privilege FROM access_held('regress_auditor');
SELECT revoke_access('regress_auditor', 'auditor');
SELECT revoke_access('regress_auditor', 'steward');
SELECT object, privilege FROM access_held('regress_auditor') EXCEPT SELECT object, privilege FROM access_held('public');
SELECT event, detail FROM audit_event WHERE event = 'access_revoked' ORDER BY entry_id;
-- What was never a duty's stays too.
GRANT SELECT ON case_action TO regress_steward;
SELECT revoke_access('regress_steward', 'steward');
SELECT object, privilege FROM access_held('regress_steward') EXCEPT SELECT object, privilege FROM access_held('public');
REVOKE SELECT ON case_action FROM regress_steward;

-- Where a role can do less or more than its duty says.
REVOKE EXECUTE ON PROCEDURE carry_out FROM regress_officer;
GRANT SELECT (register) ON exclusion TO regress_analyst;
GRANT pg_read_all_data TO regress_loader;
CREATE ROLE regress_member IN ROLE regress_officer;
SELECT grant_access('regress_member', 'loader');
SELECT * FROM access_differences() WHERE role <> 'regress_loader';
SELECT object FROM access_differences() WHERE role = 'regress_loader' AND object IN ('ndrs_optout', 'ndrs_optout.exclusion') ORDER BY object;
REVOKE pg_read_all_data FROM regress_loader;
REVOKE SELECT (register) ON exclusion FROM regress_analyst;
SELECT grant_access('regress_officer', 'officer');
SELECT * FROM access_differences();
SELECT revoke_access('regress_member', 'loader');
DROP ROLE regress_member;

-- A role whose name needs quotes; one that is gone.
CREATE ROLE "Regress ""Officer""";
SELECT grant_access('"Regress ""Officer"""', 'officer');
SELECT count(*) FROM access_given('{officer}') AS g
    WHERE (g.object, g.privilege) NOT IN (SELECT h.object, h.privilege FROM access_held('Regress "Officer"') AS h);
DROP OWNED BY "Regress ""Officer""";
DROP ROLE "Regress ""Officer""";
SELECT * FROM access_differences();
DELETE FROM granted_access WHERE role LIKE 'Regress%';

-- Whoever has a duty cannot give it.
SET ROLE regress_officer;
SELECT grant_access('regress_loader', 'officer');
RESET ROLE;

\c :home
DROP DATABASE regress_access;
DROP ROLE regress_officer, regress_loader, regress_analyst, regress_auditor, regress_steward;
