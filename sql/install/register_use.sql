-- register_use: what uses a register keeps it.

-- No foreign key: a parallel restore fills the tables in any order.  A dump's row that
-- takes the place of a shipped one removes no register.
CREATE FUNCTION register_is_used() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    use record;
BEGIN
    IF (TG_OP = 'UPDATE' AND NEW.code = OLD.code) OR ndrs_optout.being_restored() THEN
        RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    END IF;
    -- Another session may be naming the register: a transaction that has added a
    -- row there is waited for, and its row seen below.
    LOCK TABLE ndrs_optout.exclusion, ndrs_optout.guard, ndrs_optout.optout_case, ndrs_optout.release IN SHARE MODE;
    SELECT u.why, u.what_to_do INTO use
        FROM (VALUES
            (EXISTS (SELECT FROM ndrs_optout.exclusion e WHERE e.register = OLD.code),
             'patients have opted out of it',
             'Keep the register. Removing patients from its exclusion list would undo their opt-outs.'),
            (EXISTS (SELECT FROM ndrs_optout.guard g WHERE OLD.code = ANY (g.registers)),
             'tables are guarded for it',
             'Keep the register as long as a table holds its data.'),
            (EXISTS (SELECT FROM ndrs_optout.optout_case c WHERE OLD.code = ANY (c.registers) AND c.ended_at IS NULL),
             'open cases name it',
             'Complete the cases first. View ndrs_optout.case_progress lists them.'),
            (EXISTS (SELECT FROM ndrs_optout.release r WHERE OLD.code = ANY (r.registers)
                         AND r.destroyed_on IS NULL AND r.retracted_at IS NULL),
             'data released from it has not been destroyed',
             'Keep the register. A patient who opts out of it is recalled from these releases.')
        ) AS u (used, why, what_to_do)
        WHERE u.used LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.raise_error('23503',
            format('cannot delete or rename register "%s" because %s', OLD.code, use.why), hint => use.what_to_do);
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;
COMMENT ON FUNCTION register_is_used() IS
    'internal: trigger function: error 23503 when a register is deleted or gets another code that patients are '
    'excluded from, or that guards, open cases or releases name';
CREATE TRIGGER is_used BEFORE UPDATE OR DELETE ON register FOR EACH ROW EXECUTE FUNCTION register_is_used();
COMMENT ON TRIGGER is_used ON register IS 'a register that is used stays';
