-- verify_audit: where the audit is not what was written.

-- A change shows as a wrong link, a removal as a gap or as a segment that ends
-- elsewhere, another order as both.  Of a purged segment the ends are left, between
-- which its neighbours must fit, and the event of a purge that says so.  A role that
-- may write here and computes all links anew, or makes the chain end earlier, is found
-- out by a link that was noted elsewhere.
CREATE FUNCTION verify_audit(known_event bigint DEFAULT NULL, known_link bytea DEFAULT NULL)
RETURNS TABLE (event_id bigint, problem text)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    part ndrs_optout.audit_segment;
    this ndrs_optout.audit_event;
    expected_id bigint := 1;
    expected_link bytea := ''::bytea;
    purged_until text := (SELECT max(e.detail ->> 'audit_until' COLLATE "C") FROM ndrs_optout.audit_event e
                          WHERE e.event = 'purged');
BEGIN
    FOR part IN SELECT * FROM ndrs_optout.audit_segment ORDER BY segment LOOP
        IF part.first_event_id <> expected_id OR part.opening_link <> expected_link THEN
            RETURN QUERY SELECT part.first_event_id, format('segment %s does not begin where the one before it ends',
                                                            part.segment);
        END IF;
        IF part.purged_at IS NOT NULL AND (to_char(part.segment, 'YYYY-MM-DD') <= purged_until) IS NOT TRUE THEN
            RETURN QUERY SELECT part.first_event_id, format('segment %s was removed, but not by a purge', part.segment);
        END IF;
        expected_id := part.first_event_id;
        expected_link := part.opening_link;
        FOR this IN SELECT * FROM ndrs_optout.audit_event e WHERE e.segment = part.segment ORDER BY e.event_id LOOP
            IF this.event_id <> expected_id THEN
                RETURN QUERY SELECT expected_id, format('events %s to %s are missing', expected_id, this.event_id - 1);
            ELSIF this.link IS DISTINCT FROM ndrs_optout.audit_link(expected_link, this) THEN
                RETURN QUERY SELECT this.event_id, 'was changed, or the event before it';
            END IF;
            expected_id := this.event_id + 1;
            expected_link := this.link;
        END LOOP;
        IF NOT (part.purged_at IS NOT NULL AND expected_id = part.first_event_id)
            AND (expected_id <> part.last_event_id + 1 OR expected_link IS DISTINCT FROM part.closing_link) THEN
            RETURN QUERY SELECT part.last_event_id, format('segment %s does not end as it did', part.segment);
        END IF;
        expected_id := part.last_event_id + 1;
        expected_link := part.closing_link;
    END LOOP;
    -- The adoption of a key is the first event of a database, if nothing else is.
    IF expected_id = 1 AND EXISTS (SELECT FROM ndrs_optout.encoding_key) THEN
        RETURN QUERY SELECT 1::bigint, 'is missing, and so are all events';
    END IF;
    RETURN QUERY SELECT e.event_id, 'is in no segment' FROM ndrs_optout.audit_event e
        WHERE e.link IS NULL OR NOT EXISTS (SELECT FROM ndrs_optout.audit_segment s WHERE s.segment = e.segment);
    IF (known_event IS NOT NULL OR known_link IS NOT NULL)
        AND NOT EXISTS (SELECT FROM ndrs_optout.audit_event e
                        WHERE e.event_id = known_event AND e.link = known_link) THEN
        RETURN QUERY SELECT known_event, CASE
            WHEN EXISTS (SELECT FROM ndrs_optout.audit_segment s
                         WHERE known_event BETWEEN s.first_event_id AND s.last_event_id AND s.purged_at IS NOT NULL)
                THEN 'was purged, so it cannot be compared with the event that it was'
            ELSE 'is not the event that it was' END;
    END IF;
END
$$;
COMMENT ON FUNCTION verify_audit(bigint, bytea) IS
    'one row for each place where the audit is not what was written; none when it is intact. With the id and link of '
    'an event that were noted elsewhere, also when the whole chain was computed anew, or its end taken off; '
    'one that was purged since cannot be compared, and a row says so';
