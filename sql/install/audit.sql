-- audit: who did what, in a chain that shows every later change.
--
-- Each event's link is the SHA-256 of the link before it and of the event itself.
-- Months are segments, each with its first and last link, so that an old one can
-- be purged and the rest still verifies.

CREATE TABLE audit_segment (
    segment        date PRIMARY KEY,
    first_event_id bigint NOT NULL,
    opening_link   bytea NOT NULL,
    last_event_id  bigint NOT NULL,
    closing_link   bytea NOT NULL,
    purged_at      timestamptz
);
COMMENT ON TABLE audit_segment IS 'months of the audit: where each begins and ends, and when its events were purged';
SELECT pg_catalog.pg_extension_config_dump('audit_segment', '');

-- Has this database written an event of its own?  Then what comes into its tables is not a
-- dump that is restored into an empty one, whatever the sequence says (being_restored).
CREATE TABLE audit_begun (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    begun_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE audit_begun IS
    'internal: one row as soon as this database has written an event of its own; none while a dump is restored into it';
-- not dumped: a restored database begins anew.

-- There are no foreign keys between tables that are dumped, here and elsewhere: a
-- parallel restore fills them in any order.
--
-- event_id, segment and link are NULL from the insertion to the end of the
-- transaction: the chain has one end, which is taken only to commit.
CREATE TABLE audit_event (
    entry_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id     bigint UNIQUE,
    segment      date,
    happened_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    event        text NOT NULL,
    detail       jsonb NOT NULL,
    session_role name NOT NULL DEFAULT session_user,
    acting_role  name NOT NULL,
    link         bytea
);
COMMENT ON TABLE audit_event IS
    'what was done, when and by whom, without any patient''s identifier; append-only, each event linked to the one '
    'before';
CREATE INDEX audit_event_segment ON audit_event (segment);
SELECT pg_catalog.pg_extension_config_dump('audit_event', '');
SELECT pg_catalog.pg_extension_config_dump(
    pg_catalog.pg_get_serial_sequence('ndrs_optout.audit_event', 'entry_id')::regclass, '');

-- Of a row that was updated, what it says otherwise; NULL for nothing.
CREATE FUNCTION changed_columns(before jsonb, after jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_object_agg(n.key, jsonb_build_array(o.value, n.value))
        FROM jsonb_each(after) n JOIN jsonb_each(before) o USING (key)
        WHERE n.value <> o.value AND n.key <> 'changed_at'
$$;
COMMENT ON FUNCTION changed_columns(jsonb, jsonb) IS
    'internal: the columns of a row whose values differ, but for changed_at, each with the value before and after; '
    'NULL when there is none';

-- Inside a SECURITY DEFINER function current_user says nothing.
CREATE FUNCTION acting_role() RETURNS name
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(nullif(current_setting('role'), 'none'), session_user)::name
$$;
COMMENT ON FUNCTION acting_role() IS 'internal: the role that acts: the one that was set, or else the session''s';

-- The sequence may be behind: a restore over what is there sets it back, and so may a role
-- that may write to all tables.  Nothing that is audited fails because of that.
CREATE FUNCTION audit_add(event text, detail jsonb, session_role name, acting_role name) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    LOOP
        INSERT INTO ndrs_optout.audit_event (event, detail, session_role, acting_role)
            VALUES (event, detail, session_role, acting_role)
            ON CONFLICT (entry_id) DO NOTHING;
        EXIT WHEN FOUND;
    END LOOP;
END
$$;
COMMENT ON FUNCTION audit_add(text, jsonb, name, name) IS
    'internal: adds an event of a session and an acting role to the audit';

CREATE FUNCTION audit(event text, detail jsonb DEFAULT '{}') RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.audit_add(event, detail, session_user, ndrs_optout.acting_role())
$$;
COMMENT ON FUNCTION audit(text, jsonb) IS
    'internal: adds an event to the audit; it gets its place in the chain when the transaction commits';

CREATE FUNCTION audit_apart(event text, detail text, session_role name, acting_role name) RETURNS void
    AS 'MODULE_PATHNAME', 'ndrs_optout_audit_apart'
    LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION audit_apart(text, text, name, name) IS
    'internal: writes an event of the audit in a transaction of its own; errors 25006 (on a standby, or in a '
    'read-only transaction), 53000 (no background worker is free), 55000 (the event could not be written)';

-- Before a function returns what it tells of a patient: the event is committed, whatever
-- becomes of the statement.
CREATE FUNCTION audit_at_once(event text, detail jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ndrs_optout.audit_apart(event, detail::text, session_user, ndrs_optout.acting_role())
$$;
COMMENT ON FUNCTION audit_at_once(text, jsonb) IS
    'internal: writes an event, and returns when it is committed; errors as audit_apart()';

CREATE FUNCTION audit_link(previous bytea, this audit_event) RETURNS bytea
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT sha256(previous || convert_to(jsonb_build_array(
        this.event_id, this.segment - date '2000-01-01', extract(epoch FROM this.happened_at), this.event, this.detail,
        this.session_role, this.acting_role)::text, 'UTF8'))
$$;
COMMENT ON FUNCTION audit_link(bytea, audit_event) IS 'internal: what an event''s link must be, after the given one';

-- The library calls it at the very end of a transaction, with what that has added.  Under
-- REPEATABLE READ and SERIALIZABLE the update fails with 40001 when another transaction has
-- put an event there since the snapshot.
CREATE FUNCTION audit_link_events(entries bigint[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.audit_event;
    last record;    -- not of the table's type, which would be locked before LOCK
BEGIN
    FOR this IN
        SELECT e.* FROM unnest(entries) WITH ORDINALITY AS n (entry_id, place)
            JOIN ndrs_optout.audit_event e ON e.entry_id = n.entry_id
            WHERE e.link IS NULL
            ORDER BY n.place
    LOOP
        LOCK TABLE ndrs_optout.audit_segment IN SHARE ROW EXCLUSIVE MODE;
        IF NOT EXISTS (SELECT FROM ndrs_optout.audit_begun) THEN
            INSERT INTO ndrs_optout.audit_begun DEFAULT VALUES ON CONFLICT DO NOTHING;
        END IF;
        SELECT * INTO last FROM ndrs_optout.audit_segment ORDER BY segment DESC LIMIT 1;

        -- Time does not go back, whatever the clock does.
        this.event_id := coalesce(last.last_event_id, 0) + 1;
        this.segment := greatest(date_trunc('month', this.happened_at AT TIME ZONE 'UTC')::date, last.segment);
        this.link := ndrs_optout.audit_link(coalesce(last.closing_link, ''), this);
        IF this.segment = last.segment THEN
            UPDATE ndrs_optout.audit_segment s SET last_event_id = this.event_id, closing_link = this.link
                WHERE s.segment = this.segment;
        ELSE
            UPDATE ndrs_optout.audit_segment s SET last_event_id = s.last_event_id
                WHERE s.segment = last.segment;  -- 40001
            INSERT INTO ndrs_optout.audit_segment AS s (segment, first_event_id, opening_link, last_event_id,
                                                        closing_link)
                VALUES (this.segment, this.event_id, coalesce(last.closing_link, ''), this.event_id, this.link)
                ON CONFLICT (segment) DO UPDATE SET last_event_id = s.last_event_id;  -- 40001
        END IF;
        UPDATE ndrs_optout.audit_event e SET event_id = this.event_id, segment = this.segment, link = this.link
            WHERE e.entry_id = this.entry_id;
    END LOOP;
END
$$;
COMMENT ON FUNCTION audit_link_events(bigint[]) IS
    'internal: puts events of this transaction at the end of the chain, by their entry_id and in this order; error '
    '40001 when another transaction did so since the snapshot of this one';

CREATE FUNCTION audit_chain() RETURNS trigger
    AS 'MODULE_PATHNAME', 'ndrs_optout_audit_chain'
    LANGUAGE C;
COMMENT ON FUNCTION audit_chain() IS
    'internal: trigger function: leaves an event to audit_link_events(), which the library calls before the '
    'transaction commits; error 55000 when a role that is no superuser prepares the transaction instead';

CREATE TRIGGER audit_chain AFTER INSERT ON audit_event
    FOR EACH ROW EXECUTE FUNCTION audit_chain();
COMMENT ON TRIGGER audit_chain ON audit_event IS 'links the event to the one before';
ALTER TABLE audit_event ENABLE ALWAYS TRIGGER audit_chain;

CREATE FUNCTION audit_append_only() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.link IS NULL THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE' AND EXISTS (SELECT FROM ndrs_optout.audit_segment s
                                    WHERE s.segment = OLD.segment AND s.purged_at IS NOT NULL) THEN
        RETURN OLD;
    END IF;
    PERFORM ndrs_optout.raise_error('ND050', 'the audit is append-only');
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION audit_append_only() IS 'internal: trigger function: error ND050, unless the purge deletes';

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_event
    FOR EACH ROW EXECUTE FUNCTION audit_append_only();
COMMENT ON TRIGGER append_only ON audit_event IS 'events are not changed';
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON audit_event
    FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();
COMMENT ON TRIGGER append_only_truncate ON audit_event IS 'events are not removed';
ALTER TABLE audit_event ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit_event ENABLE ALWAYS TRIGGER append_only_truncate;
