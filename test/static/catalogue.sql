-- catalogue: what must hold for every object of the extension, as the server's
-- catalogues show it.
--
-- Run by test/run in a database with ndrs_optout and plpgsql_check.  Each check
-- prints "check: NAME"; its query returns what is wrong, so no row when all is well.

SET search_path = public, pg_catalog;

CREATE TEMPORARY VIEW member AS
SELECT d.classid, d.objid, i.type, i.identity
FROM pg_depend d
    JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i
WHERE e.extname = 'ndrs_optout' AND d.deptype = 'e';

CREATE TEMPORARY VIEW member_function AS
SELECT m.identity, p.*, l.lanname
FROM member m
    JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
    JOIN pg_language l ON l.oid = p.prolang;

\echo check: the extension has objects
SELECT 'none' WHERE NOT EXISTS (SELECT FROM member);

-- What comes with another object needs no comment of its own: an array type with
-- its element's, a row type with its table, an identity column's sequence.  Casts
-- are read through their types.
\echo check: every object has a comment
SELECT m.type, m.identity
FROM member m
    LEFT JOIN pg_type t ON m.classid = 'pg_type'::regclass AND m.objid = t.oid
    LEFT JOIN pg_class r ON r.oid = t.typrelid
WHERE NOT EXISTS (
        SELECT FROM pg_description c
        WHERE c.classoid = m.classid AND c.objoid = m.objid AND c.objsubid = 0)
    AND m.type NOT IN ('cast', 'default acl')
    AND NOT EXISTS (SELECT FROM pg_type element WHERE element.typarray = t.oid)
    AND (r.relkind IS NULL OR r.relkind = 'c')
    AND NOT EXISTS (
        SELECT FROM pg_depend owned
        WHERE m.classid = 'pg_class'::regclass AND m.type = 'sequence'
            AND owned.classid = m.classid AND owned.objid = m.objid
            AND owned.refclassid = 'pg_class'::regclass AND owned.deptype IN ('a', 'i'))
ORDER BY 1, 2;

-- A procedure that controls transactions may not pin it, and qualifies instead.
\echo check: every SQL and PL/pgSQL function pins search_path
SELECT identity
FROM member_function
WHERE lanname IN ('sql', 'plpgsql') AND prokind <> 'p'
    AND NOT EXISTS (SELECT FROM unnest(proconfig) setting WHERE setting LIKE 'search_path=%')
ORDER BY 1;

-- With standard_conforming_strings = off, any session may have it, they would be read
-- otherwise; E'...' is not.
\echo check: no string in a function has a backslash, unless it is marked with E
SELECT identity
FROM member_function
WHERE lanname IN ('sql', 'plpgsql')
    AND position('\' IN regexp_replace(prosrc, $re$E'(?:[^']|'')*'$re$, '', 'g')) > 0
ORDER BY 1;

-- It keeps others from changing rows, and commits durable.  31: BEFORE each row, for
-- every change; 34: BEFORE TRUNCATE.
\echo check: every table has the trigger owner_only for every change, enabled ALWAYS
SELECT m.identity, w.type
FROM member m
    JOIN pg_class r ON m.classid = 'pg_class'::regclass AND m.objid = r.oid AND r.relkind IN ('r', 'p')
    CROSS JOIN (VALUES (31), (34)) w (type)
WHERE NOT EXISTS (
        SELECT FROM pg_trigger t
        WHERE t.tgrelid = r.oid AND t.tgfoid = 'ndrs_optout.owner_only'::regproc
            AND t.tgtype = w.type AND t.tgenabled = 'A' AND t.tgqual IS NULL AND t.tgattr = '')
ORDER BY 1, 2;

-- A CHECK constraint runs its function with the rights of the role that inserts, and
-- tables are searched with their owners'; test/sql/privileges.sql tries what others get
-- of these.
\echo check: PUBLIC may execute nothing but what guards need and what knows no list
SELECT DISTINCT identity
FROM member_function
    CROSS JOIN LATERAL aclexplode(coalesce(proacl, acldefault('f', proowner))) acl
WHERE acl.grantee = 0 AND proname NOT IN
        ('guard_admits', 'guard_row', 'guard_finds', 'guard_misencoded', 'guard_number', 'guard_unreadable', 'begin_procedure',
         'words')
    AND NOT (proname LIKE 'nhs_number%' AND provolatile = 'i')
ORDER BY 1;

\echo check: PUBLIC may neither use the schema nor create in it
SELECT acl.privilege_type
FROM pg_namespace
    CROSS JOIN LATERAL aclexplode(nspacl) acl
WHERE nspname = 'ndrs_optout' AND acl.grantee = 0
ORDER BY 1;

\echo check: PUBLIC has no right on a table, view, sequence or column
SELECT m.identity, acl.privilege_type
FROM member m
    JOIN pg_class r ON m.classid = 'pg_class'::regclass AND m.objid = r.oid
    CROSS JOIN LATERAL aclexplode(r.relacl) acl
WHERE acl.grantee = 0
UNION ALL
SELECT m.identity || '.' || a.attname, acl.privilege_type
FROM member m
    JOIN pg_attribute a ON m.classid = 'pg_class'::regclass AND m.objid = a.attrelid
    CROSS JOIN LATERAL aclexplode(a.attacl) acl
WHERE acl.grantee = 0
ORDER BY 1, 2;

-- A trigger function is checked against each table that uses it: without one,
-- NEW and OLD have no columns.
\echo check: plpgsql_check finds neither error nor warning
WITH target AS (
    SELECT f.identity, f.oid, t.tgrelid AS relid, t.tgoldtable AS oldtable, t.tgnewtable AS newtable
    FROM member_function f
        LEFT JOIN pg_trigger t ON t.tgfoid = f.oid
    WHERE f.lanname = 'plpgsql'
        AND (f.prorettype <> 'trigger'::regtype OR t.tgrelid IS NOT NULL)
)
SELECT DISTINCT t.identity, c.lineno, c.level, c.sqlstate, c.message, c.detail, c.hint
FROM target t
    CROSS JOIN LATERAL plpgsql_check_function_tb(
        t.oid::regprocedure, coalesce(t.relid, 0::oid)::regclass, fatal_errors => false,
        oldtable => t.oldtable, newtable => t.newtable) c
WHERE c.level LIKE 'error%' OR c.level LIKE 'warning%'
ORDER BY 1, 2;

-- Else grant_access() gives less than it says.
\echo check: duties name privileges that there are
SELECT d.*
FROM ndrs_optout.duty_privilege d
WHERE NOT EXISTS (
        SELECT FROM ndrs_optout.access_objects() o
        WHERE (o.object_kind, o.name, o.privilege) = (d.object_kind, d.name, d.privilege))
ORDER BY 1, 2, 3;

-- A duty is about what is public; what runs with its caller's rights needs the rest.
\echo check: duties name what is public, and what is internal only where something public needs it
SELECT d.duty, d.name, d.needed_by
FROM ndrs_optout.duty_privilege d
    JOIN pg_proc p ON p.pronamespace = 'ndrs_optout'::regnamespace AND p.proname = d.name
WHERE d.object_kind = 'routine'
    AND (obj_description(p.oid, 'pg_proc') LIKE 'internal: %') <> (d.needed_by IS NOT NULL)
UNION ALL
SELECT d.duty, d.name, d.needed_by
FROM ndrs_optout.duty_privilege d
WHERE d.needed_by IS NOT NULL
    AND to_regtype('ndrs_optout.' || quote_ident(d.needed_by)) IS NULL
    AND NOT EXISTS (
        SELECT FROM ndrs_optout.duty_privilege n
        WHERE (n.duty, n.object_kind, n.name) = (d.duty, d.object_kind, d.needed_by) AND n.needed_by IS NULL)
UNION ALL
SELECT d.duty, d.name, d.needed_by
FROM ndrs_optout.duty_privilege d
    JOIN pg_class c ON c.relnamespace = 'ndrs_optout'::regnamespace AND c.relname = d.name
WHERE d.object_kind = 'table' AND obj_description(c.oid, 'pg_class') LIKE 'internal: %'
ORDER BY 1, 2;

-- Only a trigger, a constraint, a type or the planner can call these.
\echo check: what no statement can call is marked as internal
SELECT p.identity
FROM member_function p
WHERE obj_description(p.oid, 'pg_proc') NOT LIKE 'internal: %'
    AND (p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype, 'internal'::regtype, 'cstring'::regtype)
         OR p.proargtypes::oid[] && '{internal,cstring}'::regtype[]::oid[]
         OR EXISTS (SELECT FROM pg_operator o WHERE o.oprcode = p.oid))
ORDER BY 1;

-- In \df+ it stands alone.
\echo check: a comment speaks for itself
SELECT m.identity, c.description
FROM member m JOIN pg_description c ON c.classoid = m.classid AND c.objoid = m.objid
WHERE c.description ~ '^(internal: )?(the same\y|ditto|as above|see )'
ORDER BY 1;

-- A duty's function either has the owner's rights or needs none of them: those in C
-- read what is ours without any, and those that take a query run it as their caller.
\echo check: the function of a duty is SECURITY DEFINER, in C, or runs a query of the caller, or is the procedure that commits
SELECT d.duty, p.oid::regprocedure
FROM ndrs_optout.duty_privilege d
    JOIN pg_proc p ON p.pronamespace = 'ndrs_optout'::regnamespace AND p.proname = d.name
WHERE d.object_kind = 'routine' AND NOT p.prosecdef AND p.prokind <> 'p'
    AND p.prolang NOT IN (SELECT oid FROM pg_language WHERE lanname IN ('c', 'internal'))
    AND NOT 'query' = ANY (coalesce(p.proargnames, '{}'))
ORDER BY 1, 2;

-- Without a replica identity, a publication of all tables stops UPDATE and DELETE.
\echo check: every table has a primary key
SELECT m.identity
FROM member m
    JOIN pg_class r ON m.classid = 'pg_class'::regclass AND m.objid = r.oid
WHERE r.relkind IN ('r', 'p')
    AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = r.oid AND i.indisprimary)
ORDER BY 1;

-- Table code describes the codes that the extension answers with, and no others.  Those of
-- the library are compared by test/static/codes.
\echo check: every code has a description, and every description a code
WITH column_set (relation, column_name, code_set) AS (
    VALUES ('optout_case', 'kind', 'case_kind'), ('optout_case', 'state', 'case_state'),
           ('policy', 'deadline_counts', 'deadline_counts'), ('case_erasure', 'action', 'erasure_action'),
           ('sweep_leaf', 'state', 'sweep_state')),
used (code_set, code) AS (
    -- "document = ANY (ARRAY['passport'::text, ...])", also within a longer condition
    SELECT s.code_set, w[1]
    FROM column_set s
        JOIN pg_constraint k ON k.conrelid = ('ndrs_optout.' || s.relation)::regclass AND k.contype = 'c'
        CROSS JOIN LATERAL regexp_matches(pg_get_constraintdef(k.oid),
            format('\(%s = ANY \(ARRAY\[([^]]*)\]', s.column_name), 'g') AS l
        CROSS JOIN LATERAL regexp_matches(l[1], '''([^'']*)''', 'g') AS w
    UNION
    SELECT 'case_action', action FROM ndrs_optout.case_action
    UNION
    SELECT 'case_state', s FROM ndrs_optout.case_action CROSS JOIN LATERAL (VALUES (state), (next_state)) AS v (s)
    UNION
    SELECT 'retention', what FROM ndrs_optout.purge_due
    UNION
    SELECT 'audit_event', e.event
    FROM member_function f
        CROSS JOIN LATERAL regexp_matches(f.prosrc, 'ndrs_optout\.audit(?:_at_once)?\(''([^'']+)''( \|\|)?', 'g') AS m
        CROSS JOIN LATERAL (
            SELECT m[1] WHERE m[2] IS NULL
            UNION ALL
            -- No case becomes "awaiting_identity": it begins there.
            SELECT m[1] || c.code FROM ndrs_optout.code c
            WHERE m[1] = 'case_' AND m[2] IS NOT NULL AND c.code_set = 'case_state' AND c.code <> 'awaiting_identity'
            UNION ALL
            SELECT m[1] || g.word FROM unnest(ndrs_optout.words('guardian_call')) AS g (word)
            WHERE m[1] = 'guardian_call_' AND m[2] IS NOT NULL) AS e (event)
    UNION
    SELECT 'audit_event', split_part(encode(t.tgargs, 'escape'), E'\\000', 1) || e.suffix
    FROM pg_trigger t CROSS JOIN (VALUES ('_added'), ('_changed'), ('_deleted')) AS e (suffix)
    WHERE t.tgfoid = 'ndrs_optout.site_row_change'::regproc
    UNION
    -- Words with an underscore that are no gap: what they are compared with
    SELECT 'gap', m[1]
    FROM member_function f
        CROSS JOIN LATERAL regexp_matches(f.prosrc, '''(published|[a-z]+(?:_[a-z]+)+)''', 'g') AS m
    WHERE f.proname IN ('guard_gaps', 'guard_copies', 'guard_owned', 'edge_gap', 'share_view_gaps') AND m[1] !~ '^pg_'
        AND m[1] NOT IN ('event_triggers', 'not_enforced', 'not_nullable', 'row_level_security', 'ndrs_optout',
                             'lo_manage', 'repack_trigger', 'share_eligible')
    UNION
    SELECT 'gap', format('guard_%s_%s', p.part, m[1])
    FROM member_function f
        CROSS JOIN LATERAL (
            SELECT 'trigger', split_part(f.prosrc, 'SELECT ''constraint''', 1)
            UNION ALL
            SELECT 'constraint', split_part(split_part(f.prosrc, 'SELECT ''constraint''', 2), 'SELECT ''columns''', 1)
            UNION ALL
            SELECT w.part, 'THEN' || split_part(split_part(f.prosrc, format('SELECT %L,', w.part), 2), 'UNION ALL', 1)
                FROM unnest('{columns,redaction}'::text[]) AS w (part)) AS p (part, source)
        CROSS JOIN LATERAL regexp_matches(p.source, 'THEN ''([a-z_]+)''', 'g') AS m
    WHERE f.proname = 'guard_parts'),
described AS (
    SELECT c.code_set, c.code FROM ndrs_optout.code c WHERE c.code_set IN (SELECT u.code_set FROM used u))
(SELECT 'no description', * FROM used EXCEPT SELECT 'no description', * FROM described)
UNION ALL
(SELECT 'not used', * FROM described EXCEPT SELECT 'not used', * FROM used)
ORDER BY 1, 2, 3;
