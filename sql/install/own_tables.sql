-- own_tables: who may change the tables of the extension, and what of it is audited.

-- A privilege on a table is not enough to change it: see own_tables.c.
CREATE FUNCTION owner_only() RETURNS trigger
    AS 'MODULE_PATHNAME', 'ndrs_optout_owner_only'
    LANGUAGE C;
COMMENT ON FUNCTION owner_only() IS
    'internal: trigger function: error 42501 when another role than the table''s owner, or one with its rights, '
    'changes a row; makes the commit wait for its WAL to be on disk';

-- The installation script calls this last, and so does the script of an upgrade that
-- brings a table.
CREATE FUNCTION protect_tables() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own_table regclass;
BEGIN
    FOR own_table IN
        SELECT c.oid FROM pg_class c
            WHERE c.relnamespace = 'ndrs_optout'::regnamespace AND c.relkind IN ('r', 'p')
                AND NOT EXISTS (SELECT FROM pg_trigger t
                                WHERE t.tgrelid = c.oid AND t.tgfoid = 'ndrs_optout.owner_only'::regproc)
            ORDER BY c.oid
    LOOP
        EXECUTE format('CREATE TRIGGER owner_only BEFORE INSERT OR UPDATE OR DELETE ON %s
                            FOR EACH ROW EXECUTE FUNCTION ndrs_optout.owner_only()', own_table);
        EXECUTE format('CREATE TRIGGER owner_only_truncate BEFORE TRUNCATE ON %s
                            FOR EACH STATEMENT EXECUTE FUNCTION ndrs_optout.owner_only()', own_table);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER owner_only, ENABLE ALWAYS TRIGGER owner_only_truncate',
                       own_table);
        EXECUTE format('COMMENT ON TRIGGER owner_only ON %s IS
                            ''a privilege is not enough to change a row, and changes are durable''', own_table);
        EXECUTE format('COMMENT ON TRIGGER owner_only_truncate ON %s IS ''a privilege is not enough to empty the '
                       'table''',
                       own_table);
    END LOOP;
END
$$;
COMMENT ON FUNCTION protect_tables() IS
    'internal: puts the triggers that call owner_only() on each table of the extension that lacks them';

-- Do the rows come from a dump?  What they say was audited when it happened, and the
-- audit comes from the dump, too: an event of now would take the number of one of
-- those.  A dump sets its sequences after all tables are filled.
--
-- Members of pg_write_all_data can set sequences, and no trigger sees it; so once there
-- is an event of this database's own, nothing is restored any more.
CREATE FUNCTION being_restored() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT NOT s.is_called AND NOT EXISTS (SELECT FROM ndrs_optout.audit_begun)
        FROM ndrs_optout.audit_event_entry_id_seq s
$$;
COMMENT ON FUNCTION being_restored() IS
    'internal: whether a dump is being restored into this database: the audit''s sequence was never used, and no '
    'event was written here';

-- A worker that replicates the audit as well brings the event with the change.
CREATE FUNCTION audit_exclusions(change text, registers jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.audit('exclusion_list_changed', jsonb_build_object(change, registers))
        WHERE registers IS NOT NULL AND NOT ndrs_optout.being_restored()
            AND NOT EXISTS (
                SELECT FROM pg_stat_get_activity(pg_backend_pid()) a
                    JOIN pg_subscription_rel s ON s.srrelid = 'ndrs_optout.audit_event'::regclass
                    WHERE a.backend_type LIKE 'logical replication%')
$$;
COMMENT ON FUNCTION audit_exclusions(text, jsonb) IS
    'internal: audits how many patients a change ("added" or "removed") has put on the lists of registers, or taken '
    'off: an object with a number for each register; NULL for no change';

-- Site rows beside shipped ones.  A shipped row has no changed_at and is not dumped;
-- what a site adds or changes gets one.  A row of a dump takes the place of the shipped
-- row with its key, also where a later version ships it.
CREATE FUNCTION site_row_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    noun CONSTANT text := TG_ARGV[0];
    key_column CONSTANT text := TG_ARGV[1];
    subject jsonb;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM ndrs_optout.raise_error('23503', format('cannot truncate table "ndrs_optout.%s"', TG_TABLE_NAME),
            hint => 'Delete the rows that nothing uses.');
    ELSIF TG_OP = 'INSERT' THEN
        IF NEW.changed_at IS NOT NULL AND ndrs_optout.being_restored() THEN
            EXECUTE format('DELETE FROM %s t WHERE t.%I = ($1).%2$I AND t.changed_at IS NULL',
                           TG_RELID::regclass, key_column)
                USING NEW;
            RETURN NEW;
        END IF;
        NEW.changed_at := clock_timestamp();
        PERFORM ndrs_optout.audit(noun || '_added', to_jsonb(NEW) - 'changed_at');
        RETURN NEW;
    END IF;
    subject := jsonb_build_object(noun, to_jsonb(OLD) -> key_column);
    IF TG_OP = 'UPDATE' THEN
        NEW.changed_at := clock_timestamp();
        PERFORM ndrs_optout.audit(noun || '_changed',
            subject || coalesce(ndrs_optout.changed_columns(to_jsonb(OLD), to_jsonb(NEW)), '{}'));
        RETURN NEW;
    END IF;
    IF NOT ndrs_optout.being_restored() THEN
        PERFORM ndrs_optout.audit(noun || '_deleted', subject);
    END IF;
    RETURN OLD;
END
$$;
COMMENT ON FUNCTION site_row_change() IS
    'internal: trigger function (the noun, the key column) of a table with shipped rows and a site''s own: marks '
    'those that the site added or changed, and audits each change; error 23503 for TRUNCATE';
