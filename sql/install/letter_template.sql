-- letter_template: what letters say, in words that the registry's own people have approved.
--
-- A template is text with facts in it, and knows three things:
--   {fact}           the fact, as it is stored.  A line with a fact that is not known does not print.
--   {?fact} {!fact}  at the beginning of a line: it prints only if the fact is known, or is not.
--   # text           a heading, which prints if something below it does.
-- Lines follow each other in a paragraph; a blank line ends it, and a line that begins with "- " is
-- one of a list.  So nothing is stated without its fact.

CREATE TABLE letter_kind (
    kind        text COLLATE "C" PRIMARY KEY,
    about       text NOT NULL,
    required    text[] NOT NULL DEFAULT '{}',
    description text NOT NULL
);
-- not dumped: it comes with the extension.
COMMENT ON TABLE letter_kind IS
    'the kinds of letters: what each is about (letter_fact lists the facts that it can state), the facts that a '
    'template of it must state, and when it is written';

CREATE TABLE letter_fact (
    about       text COLLATE "C",
    fact        text COLLATE "C" CHECK (fact ~ '^[a-z][a-z_]*$'),
    description text NOT NULL,
    PRIMARY KEY (about, fact)
);
-- not dumped: it comes with the extension.
COMMENT ON TABLE letter_fact IS 'the facts that a letter about a case, a recall notice, ... can state';

CREATE TABLE letter_template (
    kind        text COLLATE "C",
    language    text COLLATE "C" DEFAULT 'en' CHECK (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$'),
    format      letter_format DEFAULT 'standard',
    version     integer CHECK (version >= 0),
    body        text NOT NULL,
    approved_by text,
    approved_on date,
    added_at    timestamptz,  -- NULL: as shipped
    PRIMARY KEY (kind, language, format, version),
    CHECK ((version = 0) = (added_at IS NULL)),
    CHECK (version = 0 OR approved_by IS NOT NULL AND approved_on IS NOT NULL)
);
COMMENT ON TABLE letter_template IS
    'the templates of letters: of each kind, language and format the latest version is in use. Version 0 comes with '
    'the extension; a site adds others with add_letter_template(). No version is ever changed';
-- What a site added; the rest comes with the extension.
SELECT pg_catalog.pg_extension_config_dump('letter_template', 'WHERE version > 0');

-- The marks of a template: whether it is a fact, or a condition on one.
CREATE FUNCTION letter_marks(body text) RETURNS TABLE (mark text, condition text, fact text)
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT '{' || m[1] || '}', nullif(substring(m[1] FROM '^[?!]'), ''), ltrim(m[1], '?!')
        FROM regexp_matches(body, '[{]([^{}]*)[}]', 'g') AS m
$$;
COMMENT ON FUNCTION letter_marks(text) IS 'internal: the facts and conditions of a template, as they stand in it';

-- A template that states something unknown, or hides what a patient has to be told, is not saved.
CREATE FUNCTION check_letter_template(kind text, body text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this ndrs_optout.letter_kind;
    wrong text;
BEGIN
    SELECT * INTO this FROM ndrs_optout.letter_kind k WHERE k.kind = check_letter_template.kind;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('42704', 'there is no such kind of letter',
            hint => 'Table ndrs_optout.letter_kind lists the kinds.');
    END IF;
    IF (body ~ '[^[:space:]]') IS NOT TRUE THEN
        PERFORM ndrs_optout.raise_error('22004', 'a letter template needs its text');
    END IF;
    IF ndrs_optout.holds_nhs_number(body) THEN
        PERFORM ndrs_optout.raise_error('22023', 'a letter template must not hold an NHS number');
    END IF;
    SELECT m.mark INTO wrong FROM ndrs_optout.letter_marks(body) AS m
        WHERE NOT EXISTS (SELECT FROM ndrs_optout.letter_fact f WHERE f.about = this.about AND f.fact = m.fact)
        LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.raise_error('22023', format('a letter of kind "%s" has no fact %s', kind, left(wrong, 60)),
            hint => format('SELECT * FROM ndrs_optout.letter_fact WHERE about = %L lists its facts.', this.about));
    END IF;
    IF regexp_replace(body, '[{][^{}]*[}]', '', 'g') ~ '[{}]' THEN
        PERFORM ndrs_optout.raise_error('22023', 'a brace of the letter template belongs to no fact');
    END IF;
    IF regexp_replace(body, '^([{][?!][^{}]*[}])+', '', 'gn') ~ '[{][?!]' THEN
        PERFORM ndrs_optout.raise_error('22023', 'a condition of the letter template is not at the beginning of its '
                                                 'line');
    END IF;
    SELECT r.fact INTO wrong FROM unnest(this.required) WITH ORDINALITY AS r (fact, place)
        -- A line that hides when something is known does not count.
        WHERE NOT EXISTS (SELECT FROM unnest(string_to_array(body, E'\n')) AS line
                          WHERE line !~ '[{]!'
                              AND EXISTS (SELECT FROM ndrs_optout.letter_marks(line) AS m WHERE m.fact = r.fact))
        ORDER BY r.place LIMIT 1;
    IF FOUND THEN
        PERFORM ndrs_optout.raise_error('22023', format('a letter of kind "%s" must state {%s}', kind, wrong),
            detail => (SELECT f.description FROM ndrs_optout.letter_fact f
                           WHERE f.about = this.about AND f.fact = wrong));
    END IF;
END
$$;
COMMENT ON FUNCTION check_letter_template(text, text) IS
    'internal: errors 22004, 22023 and 42704 unless this can be the template of such a letter';

-- However a template comes in, it is checked and audited; a dump brings what was.
CREATE FUNCTION letter_template_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM ndrs_optout.raise_error('23514', 'a letter template cannot be changed or deleted',
            detail => 'Letters that were sent name their version.',
            hint => 'Add another version with ndrs_optout.add_letter_template().');
    END IF;
    IF NEW.version > 0 AND ndrs_optout.being_restored() THEN
        RETURN NEW;
    END IF;
    PERFORM ndrs_optout.check_letter_template(NEW.kind, NEW.body);
    IF NEW.version > 0 THEN
        PERFORM ndrs_optout.audit('letter_template_added', jsonb_build_object('kind', NEW.kind, 'language',
            NEW.language, 'format', NEW.format, 'version', NEW.version, 'approved_by', NEW.approved_by, 'approved_on',
            NEW.approved_on, 'sha256', encode(sha256(convert_to(NEW.body, 'UTF8')), 'hex')));
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION letter_template_change() IS
    'internal: trigger function: checks a template and audits that it was added; error 23514 for any other change';
CREATE TRIGGER template_change BEFORE INSERT OR UPDATE OR DELETE ON letter_template
    FOR EACH ROW EXECUTE FUNCTION letter_template_change();
COMMENT ON TRIGGER template_change ON letter_template IS 'templates are checked, audited, and never changed';
CREATE TRIGGER template_stays BEFORE TRUNCATE ON letter_template
    FOR EACH STATEMENT EXECUTE FUNCTION letter_template_change();
COMMENT ON TRIGGER template_stays ON letter_template IS 'templates are never removed';

-- The template in use.
CREATE FUNCTION current_letter_template(kind text, language text, format text) RETURNS letter_template
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result ndrs_optout.letter_template;
BEGIN
    SELECT * INTO result FROM ndrs_optout.letter_template t
        WHERE t.kind = current_letter_template.kind AND t.language = current_letter_template.language
            AND t.format = current_letter_template.format
        ORDER BY t.version DESC LIMIT 1;
    IF NOT FOUND THEN
        PERFORM ndrs_optout.raise_error('42704', 'there is no template for such a letter in this language and format',
            hint => 'Table ndrs_optout.letter_template lists them; ndrs_optout.add_letter_template() adds one.');
    END IF;
    RETURN result;
END
$$;
COMMENT ON FUNCTION current_letter_template(text, text, text) IS
    'internal: the latest template of this kind, language and format; error 42704 when there is none';

CREATE FUNCTION add_letter_template(kind text, approved_by text, approved_on date, body text DEFAULT NULL,
    language text DEFAULT 'en', format text DEFAULT 'standard')
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    result integer;
BEGIN
    PERFORM ndrs_optout.checked_word(format, 'letter_format', 'format');
    IF (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$') IS NOT TRUE THEN
        PERFORM ndrs_optout.raise_error('22023', 'language must be a language tag, such as "en" or "cy"');
    END IF;
    PERFORM ndrs_optout.checked_reason(approved_by, 'name of who approved it');
    PERFORM ndrs_optout.checked_day(approved_on, 'it was approved');
    -- One at a time, for the next version.
    LOCK TABLE ndrs_optout.letter_template IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO ndrs_optout.letter_template (kind, language, format, version, body, approved_by, approved_on, added_at)
        SELECT add_letter_template.kind, add_letter_template.language, add_letter_template.format,
               (SELECT coalesce(max(t.version), 0) + 1 FROM ndrs_optout.letter_template t
                    WHERE (t.kind, t.language, t.format)
                        = (add_letter_template.kind, add_letter_template.language, add_letter_template.format)),
               coalesce(body, (ndrs_optout.current_letter_template(kind, language, format)).body),
               approved_by, approved_on, clock_timestamp()
        RETURNING version INTO STRICT result;
    RETURN result;
END
$$;
COMMENT ON FUNCTION add_letter_template(text, text, date, text, text, text) IS
    'adds a version of a letter''s template, with the name of who approved it and the day, and returns its number; it '
    'is in use from now on. body: the text (NULL: the text in use is approved as it is); format: standard, '
    'large_print or easy_read. Table letter_kind lists the kinds, letter_fact the facts. Audited; errors 22004, 22023 '
    '(also: a fact that there is not, or one that must be stated and is not), 42704 (no such kind, or no text in use)';

-- The line with its facts; NULL when one of them is not known.
CREATE FUNCTION letter_line(line text, facts jsonb) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN bool_and(p.value IS NOT NULL) THEN btrim(string_agg(p.value, '' ORDER BY p.place)) END
        FROM (SELECT m.place, CASE WHEN m.part[1] ~ '^[{]' THEN facts ->> btrim(m.part[1], '{}') ELSE m.part[1] END
                  FROM regexp_matches(line, '[{][a-z_]+[}]|[^{}]+', 'g') WITH ORDINALITY AS m (part, place))
             AS p (place, value)
$$;
COMMENT ON FUNCTION letter_line(text, jsonb) IS
    'internal: a line of a letter with its facts; NULL when one of them is not known';

-- A fact that is null, false or empty is not known.
CREATE FUNCTION letter_from_template(template text, facts jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known jsonb := (SELECT coalesce(jsonb_object_agg(f.key, f.value), '{}') FROM jsonb_each(facts) AS f
                        WHERE f.value NOT IN ('null', 'false', '""'));
    line text;
    printed text;
    result text := '';
    heading text := '';
    after_heading boolean := false;
    gap text := '';    -- what goes between what is printed and the next line
BEGIN
    FOREACH line IN ARRAY string_to_array(replace(template, E'\r', ''), E'\n') LOOP
        IF EXISTS (SELECT FROM ndrs_optout.letter_marks(line) AS m
                   WHERE m.condition IS NOT NULL AND (known ? m.fact) <> (m.condition = '?')) THEN
            after_heading := false;
            CONTINUE;
        END IF;
        IF line ~ '^[[:space:]]*$' THEN
            IF after_heading THEN
                heading := heading || E'\n';
            END IF;
            after_heading := false;
            gap := E'\n\n';
            CONTINUE;
        END IF;
        printed := ndrs_optout.letter_line(regexp_replace(line, '[{][?!][^{}]*[}]', '', 'g'), known);
        after_heading := printed ~ '^# ' IS TRUE;
        CONTINUE WHEN printed IS NULL;
        IF after_heading THEN
            heading := substr(printed, 3) || E'\n';
            gap := E'\n\n';
            CONTINUE;
        END IF;
        -- Lines of a paragraph follow each other, and those of a list do not.
        IF gap = ' ' AND (printed ~ '^- ' OR substring(result FROM E'[^\n]*$') ~ '^- ') THEN
            gap := E'\n';
        END IF;
        result := result || CASE WHEN result = '' THEN '' ELSE gap END || heading || printed;
        heading := '';
        gap := ' ';
    END LOOP;
    RETURN result;
END
$$;
COMMENT ON FUNCTION letter_from_template(text, jsonb) IS
    'internal: the text of a letter: a template with facts, which are texts, or true';
