-- access: what a role may do, by its duty.

-- What a duty may do here, and it is the whole of it: a loader, for one, needs
-- nothing.  A routine's name stands for every routine of that name.  What is needed_by
-- another routine, or by a type, is internal: that one runs with its caller's rights,
-- because it commits or runs the caller's query, or the server asks for the right.
CREATE TABLE duty_privilege (
    duty        duty,
    object_kind text CHECK (object_kind IN ('schema', 'table', 'routine')),
    name        name,
    privilege   text,
    needed_by   name,
    PRIMARY KEY (duty, object_kind, name, privilege)
);
COMMENT ON TABLE duty_privilege IS
    'what each duty may do here: officer (works cases and national checks), loader (nothing: a guard needs no right '
    'of who loads), analyst (asks whether patients'' data may be shared; reads nothing of the list), reader (reads '
    'views that share_view() made, and can name nothing here), auditor (reads the audit and how things stand, '
    'changes nothing), steward (watches over the guards). needed_by: the routine or type that calls an internal '
    'routine with the rights of its caller. What is in no row is for the owner of the extension';
-- not dumped: it comes with the extension.

INSERT INTO duty_privilege (duty, object_kind, name, privilege)
    SELECT d.duty, 'schema', 'ndrs_optout', 'USAGE'
        FROM pg_catalog.unnest('{officer,analyst,auditor,steward}'::text[]) AS d (duty);

INSERT INTO duty_privilege (duty, object_kind, name, privilege)
    SELECT d.duty, 'table', t.name, 'SELECT'
        FROM (VALUES
            ('officer', '{case_progress,code,guard_count,register,subject_access_progress}'::name[]),
            ('officer', '{recipient,release_progress,recall_progress,recall_recipient_progress}'),
            ('officer', '{agreement_progress,release_allowance,complaint_progress,complaint_count}'),
            ('analyst', '{code,recipient,agreement_progress}'),
            ('auditor', '{code,recipient,release_progress,recall_progress,recall_recipient_progress}'),
            ('auditor', '{agreement_progress,release_allowance,complaint_progress,complaint_count}'),
            ('officer', '{purpose,exemption,national_check_progress}'),
            ('analyst', '{register,purpose,exemption,national_check_progress}'),
            ('auditor', '{audit_event,audit_segment,case_progress,subject_access_progress,purge_due,purge_run}'),
            ('auditor', '{guard,guard_count,reference,owned_parent,accepted_gap,sweep_progress}'),
            ('auditor', '{register,policy,bank_holiday,duty_privilege,granted_access}'),
            ('auditor', '{purpose,exemption,national_check_progress}'),
            ('steward', '{code,guard,guard_count,reference,owned_parent,accepted_gap,sweep_progress}'),
            ('steward', '{register,policy,bank_holiday,duty_privilege,granted_access,purge_due,purge_run}'),
            ('steward', '{purpose,exemption,national_check_progress}'),
            ('officer', '{hold_progress}'),
            ('auditor', '{hold_progress}'),
            ('officer', '{letter_kind,letter_fact,letter_template}'),
            ('auditor', '{letter_kind,letter_fact,letter_template}'),
            ('steward', '{letter_kind,letter_fact,letter_template}')) AS d (duty, names)
        CROSS JOIN LATERAL pg_catalog.unnest(d.names) AS t (name);

-- What runs DDL on a registry's table (guard_table, unguard_table, declare_reference, drop_reference),
-- decides what is a patient's (declare_owned, retract_owned), chooses a
-- key or erases without a case is for the owner of the extension alone: each of
-- these runs what others put on tables, or gives away what the list hides.
INSERT INTO duty_privilege (duty, object_kind, name, privilege)
    SELECT d.duty, 'routine', r.name, 'EXECUTE'
        FROM (VALUES
            ('officer', '{open_case,record_identity,record_correspondence,record_guardian_call}'::name[]),
            ('officer', '{withdraw_case,refuse_case,confirm_identity,erasure_preview}'),
            ('officer', '{carry_out,complete_case,completion_letter,renew_statistics}'),
            ('officer', '{today,write_letter,letters_owed,extend_deadline,choose_letter_form}'),
            ('auditor', '{letters_owed}'),
            ('officer', '{opt_in,supersede_nhs_number,place_hold,lift_hold}'),
            ('officer', '{place_patient_hold,place_register_hold,held_cases}'),
            ('auditor', '{held_cases,held_records}'),
            ('steward', '{held_records}'),
            ('officer', '{erasure_certificate,verify_certificate}'),
            ('officer', '{request_subject_access,answer_subject_access,disclose_records}'),
            ('officer', '{record_subject_access_proof,pause_subject_access,resume_subject_access}'),
            ('officer', '{extend_subject_access,refuse_subject_access,withhold_from_subject_access}'),
            ('officer', '{subject_access_letter}'),
            ('officer', '{record_complaint,acknowledge_complaint,inform_complainant,end_complaint}'),
            ('officer', '{add_recipient,change_recipient,remove_recipient}'),
            ('officer', '{record_release,release_contains,record_destruction}'),
            ('officer', '{retract_release,retract_destruction,retract_acknowledgement}'),
            ('officer', '{issue_recall_letter,recall_letter,acknowledge_recall,chase_recall}'),
            ('officer', '{add_agreement,change_agreement,end_agreement,allow_releases,disallow_releases}'),
            ('officer', '{set_recipient_key,seal_recall,recall_file,load_recall_replies}'),
            ('analyst', '{today,record_release,ndrs_pseudo_id,release_pseudo_id,openpseudonymiser_digest}'),
            ('officer', '{start_national_check,national_check_request,load_national_check,cancel_national_check}'),
            ('officer', '{grant_exemption,end_exemption}'),
            ('analyst', '{share_eligible,share_decision,share_summary,record_release_loss,completeness_effect}'),
            ('officer', '{completeness_effect,deletion_concept}'),
            ('auditor', '{completeness_effect,deletion_concept}'),
            ('steward', '{completeness_effect,deletion_concept}'),
            -- Without USAGE on the schema: only what names it already, such as a view, can call it.
            ('reader', '{share_eligible}'),
            ('auditor', '{today,verify_audit,verify_certificate,guard_coverage,guard_definition,health}'),
            ('steward', '{guard_coverage,guard_definition,accept_gap,reopen_gap,health}'),
            ('steward', '{renew_statistics}'),
            ('steward', '{purge,schedule_purge,unschedule_purge,add_letter_template}')) AS d (duty, names)
        CROSS JOIN LATERAL pg_catalog.unnest(d.names) AS r (name);

INSERT INTO duty_privilege (duty, object_kind, name, privilege, needed_by)
    SELECT d.duty, 'routine', r.name, 'EXECUTE', d.needed_by
        FROM (VALUES
            ('officer', 'carry_out', '{case_exclude,case_certify}'::name[]),
            ('officer', 'renew_statistics', '{renew_next_statistics}'),
            ('steward', 'renew_statistics', '{renew_next_statistics}'),
            ('officer', 'start_national_check', '{begin_national_check,query_source}'),
            ('officer', 'encoded_set', '{encoded_set_in,encoded_set_out}'),
            ('analyst', 'share_summary', '{query_source}'),
            ('analyst', 'record_release_loss', '{release_terms,release_loss_add}'),
            ('analyst', 'encoded_set', '{encoded_set_in,encoded_set_out}'),
            ('analyst', 'encoded_nhs_number', '{encoded_nhs_number_in,encoded_nhs_number_out}'),
            ('analyst', 'encoded_nhs_number', '{encoded_nhs_number_eq,encoded_nhs_number_ne,encoded_nhs_number_lt}'),
            ('analyst', 'encoded_nhs_number', '{encoded_nhs_number_le,encoded_nhs_number_ge,encoded_nhs_number_gt}'),
            ('analyst', 'encoded_nhs_number', '{encoded_nhs_number_cmp,encoded_nhs_number_hash}'),
            ('analyst', 'encoded_nhs_number', '{encoded_nhs_number_hash_extended}')) AS d (duty, needed_by, names)
        CROSS JOIN LATERAL pg_catalog.unnest(d.names) AS r (name);

-- Which role has which duty: roles are not of this database, hence by name.  A
-- version that brings more to a duty leaves it to grant_access() to be called
-- again, since what its script granted, pg_dump would take for the extension's.
CREATE TABLE granted_access (
    role       name,
    duty       duty,
    granted_by name NOT NULL DEFAULT session_user,
    granted_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (role, duty)
);
COMMENT ON TABLE granted_access IS 'which role has which duty, as grant_access() gave it';
SELECT pg_catalog.pg_extension_config_dump('granted_access', '');

-- Everything here that a privilege can be had on.
CREATE FUNCTION access_objects()
RETURNS TABLE (object_kind text, name name, object_id oid, object text, privilege text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'schema', n.nspname, n.oid, n.oid::regnamespace::text, p.privilege
        FROM pg_namespace n CROSS JOIN unnest('{USAGE,CREATE}'::text[]) AS p (privilege)
        WHERE n.oid = 'ndrs_optout'::regnamespace
    UNION ALL
    SELECT 'table', c.relname, c.oid, c.oid::regclass::text, p.privilege
        FROM pg_class c
        CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) AS p (privilege)
        WHERE c.relnamespace = 'ndrs_optout'::regnamespace AND c.relkind IN ('r', 'v')
    UNION ALL
    SELECT 'sequence', c.relname, c.oid, c.oid::regclass::text, p.privilege
        FROM pg_class c CROSS JOIN unnest('{USAGE,SELECT,UPDATE}'::text[]) AS p (privilege)
        WHERE c.relnamespace = 'ndrs_optout'::regnamespace AND c.relkind = 'S'
    UNION ALL
    SELECT 'routine', r.proname, r.oid, r.oid::regprocedure::text, 'EXECUTE'
        FROM pg_proc r WHERE r.pronamespace = 'ndrs_optout'::regnamespace
$$;
COMMENT ON FUNCTION access_objects() IS 'internal: every privilege that can be had on an object of the extension';

-- What duties give.
CREATE FUNCTION access_given(duties text[])
RETURNS TABLE (object_kind text, object_id oid, object text, privilege text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT DISTINCT o.object_kind, o.object_id, o.object, o.privilege
        FROM ndrs_optout.duty_privilege d JOIN ndrs_optout.access_objects() AS o USING (object_kind, name, privilege)
        WHERE d.duty = ANY (duties)
$$;
COMMENT ON FUNCTION access_given(text[]) IS 'internal: the privileges that duties give';

-- What a role, or "public", can do here, on whatever ground.
CREATE FUNCTION access_held(role name)
RETURNS TABLE (object_kind text, object_id oid, object text, privilege text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT o.object_kind, o.object_id, o.object, o.privilege
        FROM ndrs_optout.access_objects() AS o
        WHERE CASE
            WHEN o.object_kind = 'schema' THEN has_schema_privilege(role, o.object_id, o.privilege)
            WHEN o.object_kind = 'routine' THEN has_function_privilege(role, o.object_id, o.privilege)
            WHEN o.object_kind = 'sequence' THEN has_sequence_privilege(role, o.object_id, o.privilege)
            WHEN o.privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
                THEN has_any_column_privilege(role, o.object_id, o.privilege)
            ELSE has_table_privilege(role, o.object_id, o.privilege)
        END
$$;
COMMENT ON FUNCTION access_held(name) IS
    'internal: the privileges that a role has here, or PUBLIC ("public"), on whatever ground';

-- Where a role with a duty can do less or more than its duties say.  A role has
-- the duties of those that it inherits from; what PUBLIC may do is no excess.
CREATE FUNCTION access_differences()
RETURNS TABLE (role name, difference text, object_kind text, object text, privilege text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH holder AS (
        SELECT r.rolname, array_agg(DISTINCT i.duty) AS duties
            FROM (SELECT DISTINCT g.role FROM ndrs_optout.granted_access g) AS g
            JOIN pg_roles r ON r.rolname = g.role
            JOIN (SELECT a.duty, o.oid FROM ndrs_optout.granted_access a JOIN pg_roles o ON o.rolname = a.role) AS i
                ON pg_has_role(r.oid, i.oid, 'USAGE')
            GROUP BY r.rolname)
    SELECT h.rolname, d.difference, d.object_kind, d.object, d.privilege
        FROM holder h
        CROSS JOIN LATERAL (
            (SELECT 'missing' AS difference, g.* FROM ndrs_optout.access_given(h.duties) AS g
             EXCEPT ALL SELECT 'missing', e.* FROM ndrs_optout.access_held(h.rolname) AS e)
            UNION ALL
            (SELECT 'excess', e.* FROM ndrs_optout.access_held(h.rolname) AS e
             EXCEPT ALL (SELECT 'excess', g.* FROM ndrs_optout.access_given(h.duties) AS g
                         UNION SELECT 'excess', p.* FROM ndrs_optout.access_held('public') AS p))) AS d
    UNION ALL
    SELECT g.role, 'no_such_role', NULL, NULL, NULL
        FROM (SELECT DISTINCT a.role FROM ndrs_optout.granted_access a) AS g
        WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = g.role)
$$;
COMMENT ON FUNCTION access_differences() IS
    'where a role with a duty lacks a privilege of its duties (missing) or has one that is in none of them (excess), '
    'and duties of roles that do not exist';

-- Every role that can read or change tables of the extension otherwise than by its
-- duties, by whatever way: a grant, a predefined role, a role attribute, the rights of
-- the owner or a superuser; also one that only may become such a role (SET ROLE, or an
-- admin option).  That a change is refused all the same (owner_only) counts for nothing
-- here.
CREATE FUNCTION access_ways() RETURNS TABLE (role name, way text, reads boolean, changes boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE granted AS (
        SELECT a.grantee, a.privilege_type, c.oid AS object_id
            FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
            WHERE c.relnamespace = 'ndrs_optout'::regnamespace AND a.grantee <> c.relowner
        UNION
        SELECT a.grantee, a.privilege_type, c.oid
            FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid CROSS JOIN LATERAL aclexplode(t.attacl) AS a
            WHERE c.relnamespace = 'ndrs_optout'::regnamespace AND a.grantee <> c.relowner),
    way AS (
        SELECT g.grantee AS role_id, coalesce(r.rolname, 'public') AS granted_to,
               format('%s on %s', g.privilege_type, g.object_id::regclass) AS way,
               g.privilege_type = 'SELECT' AS reads, g.privilege_type NOT IN ('SELECT', 'USAGE', 'MAINTAIN') AS changes
            FROM granted g LEFT JOIN pg_roles r ON r.oid = g.grantee
            WHERE NOT EXISTS (
                SELECT FROM ndrs_optout.granted_access h JOIN ndrs_optout.access_given(ARRAY[h.duty]) AS d
                    ON h.role = r.rolname AND d.object_id = g.object_id AND d.privilege = g.privilege_type)
        UNION ALL
        SELECT r.oid, r.rolname, r.rolname, p.reads, p.changes
            FROM (VALUES ('pg_read_all_data', true, false), ('pg_write_all_data', false, true),
                         ('pg_maintain', false, false), ('pg_read_server_files', true, false),
                         ('pg_write_server_files', false, true),
                         ('pg_execute_server_program', true, true)) AS p (predefined, reads, changes)
            JOIN pg_roles r ON r.rolname = p.predefined
        UNION ALL
        SELECT r.oid, r.rolname,
               CASE WHEN r.rolsuper THEN 'superuser ' ELSE 'owner ' END || quote_ident(r.rolname), true, true
            FROM pg_roles r
            WHERE r.rolsuper OR EXISTS (SELECT FROM pg_class c
                                        WHERE c.relnamespace = 'ndrs_optout'::regnamespace AND c.relowner = r.oid)
        UNION ALL
        SELECT r.oid, r.rolname, 'REPLICATION', true, false FROM pg_roles r WHERE r.rolreplication AND NOT r.rolsuper
        UNION ALL
        -- Before version 16, it can give itself any role but a superuser.
        SELECT r.oid, r.rolname, 'CREATEROLE', true, true
            FROM pg_roles r
            WHERE r.rolcreaterole AND NOT r.rolsuper AND current_setting('server_version_num')::integer < 160000),
    holder AS (
        SELECT w.role_id, w.granted_to, w.way, w.reads, w.changes FROM way w
        UNION
        SELECT m.member, h.granted_to, h.way, h.reads, h.changes
            FROM holder h JOIN pg_auth_members m ON m.roleid = h.role_id
            WHERE coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true)
                OR coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)
                OR m.admin_option)
    SELECT coalesce(r.rolname, 'public'), h.way || CASE WHEN h.granted_to <> coalesce(r.rolname, 'public')
                                                             AND h.way NOT LIKE '%' || h.granted_to
                                                        THEN ' through ' || quote_ident(h.granted_to) ELSE '' END,
           bool_or(h.reads), bool_or(h.changes)
        FROM holder h LEFT JOIN pg_roles r ON r.oid = h.role_id
        -- No session is a predefined role, and superusers and owners can do anything.
        WHERE (h.role_id = 0 OR r.oid >= 16384) AND r.rolsuper IS NOT TRUE
            AND NOT EXISTS (SELECT FROM pg_class c
                            WHERE c.relnamespace = 'ndrs_optout'::regnamespace AND c.relowner = r.oid)
        GROUP BY 1, 2
        ORDER BY 1, 2
$$;
COMMENT ON FUNCTION access_ways() IS
    'every role besides superusers and the owner that can read or change tables of the extension, and by which way, '
    'duties left out: grants, predefined roles (pg_read_all_data, pg_write_all_data, pg_maintain, server files and '
    'programs), REPLICATION, CREATEROLE before version 16, membership in a superuser or the owner, also where a role '
    'must SET ROLE or grant it to itself first';

CREATE FUNCTION checked_role(role regrole, duty text) RETURNS name
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result name;
BEGIN
    PERFORM ndrs_optout.checked_word(duty, 'duty', 'duty',
        hint => 'Table ndrs_optout.duty_privilege says what each may do.');
    SELECT r.rolname INTO result FROM pg_roles r WHERE r.oid = role;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('42704', 'a role must be named');
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION checked_role(regrole, text) IS
    'internal: the name of the role; errors 42704 (no such role), 22023 (no such duty)';

CREATE FUNCTION grant_access(role regrole, duty text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    role_name name := ndrs_optout.checked_role(role, duty);
    command text;
BEGIN
    INSERT INTO ndrs_optout.granted_access (role, duty) VALUES (role_name, duty) ON CONFLICT DO NOTHING;
    FOR command IN
        SELECT format('GRANT %s ON %s %s TO %I', g.privilege, g.object_kind, g.object, role_name)
            FROM ndrs_optout.access_given(ARRAY[duty]) AS g
    LOOP
        EXECUTE command;
    END LOOP;
    PERFORM ndrs_optout.audit('access_granted', jsonb_build_object('role', role_name, 'duty', duty));
END
$$;
COMMENT ON FUNCTION grant_access(regrole, text) IS
    'gives a role what a duty needs: officer, loader, analyst, reader, auditor or steward (table duty_privilege); '
    'can be repeated, and must be after an upgrade that brings more. Audited; errors 42704 (no such role), 22023 (no '
    'such duty)';

CREATE FUNCTION revoke_access(role regrole, duty text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    role_name name := ndrs_optout.checked_role(role, duty);
    command text;
BEGIN
    DELETE FROM ndrs_optout.granted_access g WHERE g.role = role_name AND g.duty = revoke_access.duty;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('42704', format('role "%s" does not have duty "%s"', role_name, duty),
            hint => 'Table ndrs_optout.granted_access lists who has which.');
    END IF;
    FOR command IN
        SELECT format('REVOKE %s ON %s %s FROM %I', g.privilege, g.object_kind, g.object, role_name)
            FROM (SELECT * FROM ndrs_optout.access_given(ARRAY[duty])
                  EXCEPT
                  SELECT * FROM ndrs_optout.access_given(ARRAY(
                      SELECT o.duty FROM ndrs_optout.granted_access o WHERE o.role = role_name))) AS g
    LOOP
        EXECUTE command;
    END LOOP;
    PERFORM ndrs_optout.audit('access_revoked', jsonb_build_object('role', role_name, 'duty', duty));
END
$$;
COMMENT ON FUNCTION revoke_access(regrole, text) IS
    'takes from a role what a duty gave, except what another of its duties needs. Audited; errors 42704 (no such '
    'role, or it does not have the duty), 22023 (no such duty)';
