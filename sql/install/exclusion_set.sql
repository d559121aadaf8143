-- exclusion_set: compact immutable sets of encoded NHS numbers.

CREATE TYPE exclusion_set;

CREATE FUNCTION exclusion_set_in(cstring) RETURNS exclusion_set
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_in'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION exclusion_set_out(exclusion_set) RETURNS cstring
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_out'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION exclusion_set_recv(internal) RETURNS exclusion_set
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_recv'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION exclusion_set_send(exclusion_set) RETURNS bytea
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_send'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

-- What HMAC made cannot be compressed, and parts of it are fetched at times.
CREATE TYPE exclusion_set (
    INPUT = exclusion_set_in,
    OUTPUT = exclusion_set_out,
    RECEIVE = exclusion_set_recv,
    SEND = exclusion_set_send,
    INTERNALLENGTH = VARIABLE,
    ALIGNMENT = double,
    STORAGE = external
);

CREATE FUNCTION exclusion_set(members encoded_nhs_number[]) RETURNS exclusion_set
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_from_array'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

-- What the planner knows of constant sets.
CREATE FUNCTION exclusion_set_support(internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_support'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE FUNCTION exclusion_set_contains(exclusion_set, encoded_nhs_number) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_contains'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE SUPPORT exclusion_set_support;
CREATE FUNCTION exclusion_set_contained(encoded_nhs_number, exclusion_set) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_contained'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE SUPPORT exclusion_set_support;
CREATE FUNCTION exclusion_set_union(exclusion_set, exclusion_set) RETURNS exclusion_set
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_union'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
CREATE FUNCTION exclusion_set_intersection(exclusion_set, exclusion_set) RETURNS exclusion_set
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_intersection'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
CREATE FUNCTION exclusion_set_difference(exclusion_set, exclusion_set) RETURNS exclusion_set
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_difference'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
CREATE FUNCTION exclusion_set_eq(exclusion_set, exclusion_set) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_eq'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
CREATE FUNCTION exclusion_set_ne(exclusion_set, exclusion_set) RETURNS boolean
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_ne'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;

-- The estimators try the set on the column's statistics, where it is a constant.
CREATE OPERATOR @> (
    LEFTARG = exclusion_set, RIGHTARG = encoded_nhs_number, FUNCTION = exclusion_set_contains,
    COMMUTATOR = <@, RESTRICT = matchingsel, JOIN = matchingjoinsel);
CREATE OPERATOR <@ (
    LEFTARG = encoded_nhs_number, RIGHTARG = exclusion_set, FUNCTION = exclusion_set_contained,
    COMMUTATOR = @>, RESTRICT = matchingsel, JOIN = matchingjoinsel);
CREATE OPERATOR | (
    LEFTARG = exclusion_set, RIGHTARG = exclusion_set, FUNCTION = exclusion_set_union, COMMUTATOR = |);
CREATE OPERATOR & (
    LEFTARG = exclusion_set, RIGHTARG = exclusion_set, FUNCTION = exclusion_set_intersection, COMMUTATOR = &);
CREATE OPERATOR - (
    LEFTARG = exclusion_set, RIGHTARG = exclusion_set, FUNCTION = exclusion_set_difference);
CREATE OPERATOR = (
    LEFTARG = exclusion_set, RIGHTARG = exclusion_set, FUNCTION = exclusion_set_eq,
    COMMUTATOR = =, NEGATOR = <>, RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE OPERATOR <> (
    LEFTARG = exclusion_set, RIGHTARG = exclusion_set, FUNCTION = exclusion_set_ne,
    COMMUTATOR = <>, NEGATOR = =, RESTRICT = neqsel, JOIN = neqjoinsel);

CREATE FUNCTION cardinality(exclusion_set) RETURNS bigint
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_cardinality'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION unnest(exclusion_set) RETURNS SETOF encoded_nhs_number
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_unnest'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 1000 SUPPORT exclusion_set_support;

CREATE FUNCTION exclusion_set_agg_add(internal, encoded_nhs_number) RETURNS internal
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_agg_add'
    LANGUAGE C IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION exclusion_set_agg_combine(internal, internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_agg_combine'
    LANGUAGE C IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION exclusion_set_agg_serialize(internal) RETURNS bytea
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_agg_serialize'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION exclusion_set_agg_deserialize(bytea, internal) RETURNS internal
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_agg_deserialize'
    LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION exclusion_set_agg_result(internal) RETURNS exclusion_set
    AS 'MODULE_PATHNAME', 'ndrs_optout_exclusion_set_agg_result'
    LANGUAGE C IMMUTABLE PARALLEL SAFE;

CREATE AGGREGATE exclusion_set_agg(encoded_nhs_number) (
    SFUNC = exclusion_set_agg_add,
    STYPE = internal,
    COMBINEFUNC = exclusion_set_agg_combine,
    SERIALFUNC = exclusion_set_agg_serialize,
    DESERIALFUNC = exclusion_set_agg_deserialize,
    FINALFUNC = exclusion_set_agg_result,
    PARALLEL = SAFE
);

COMMENT ON TYPE exclusion_set IS
    'compact immutable set of up to 60 million encoded NHS numbers; written as {hex,hex,...}; errors 22P02 and 22P03 for what is none, 54000 for more';
COMMENT ON FUNCTION exclusion_set_in(cstring) IS 'text input of exclusion_set: {hex,hex,...} in any order; errors 22P02, 54000';
COMMENT ON FUNCTION exclusion_set_out(exclusion_set) IS 'text output of exclusion_set: {hex,hex,...}, ascending; error 54000 above 32 million members';
COMMENT ON FUNCTION exclusion_set_recv(internal) IS
    'binary input of exclusion_set: version, flags (one byte each), number of members (four bytes), members ascending; error 22P03';
COMMENT ON FUNCTION exclusion_set_send(exclusion_set) IS
    'binary output of exclusion_set: version, flags (one byte each), number of members (four bytes), members ascending';
COMMENT ON FUNCTION exclusion_set(encoded_nhs_number[]) IS 'the set of an array''s elements; error 22004 when one is NULL';
COMMENT ON FUNCTION exclusion_set_support(internal) IS 'planner support: an empty set has no members, unnest() as many rows as its set has members';
COMMENT ON FUNCTION exclusion_set_contains(exclusion_set, encoded_nhs_number) IS 'implementation of @> operator';
COMMENT ON FUNCTION exclusion_set_contained(encoded_nhs_number, exclusion_set) IS 'implementation of <@ operator';
COMMENT ON FUNCTION exclusion_set_union(exclusion_set, exclusion_set) IS 'implementation of | operator';
COMMENT ON FUNCTION exclusion_set_intersection(exclusion_set, exclusion_set) IS 'implementation of & operator';
COMMENT ON FUNCTION exclusion_set_difference(exclusion_set, exclusion_set) IS 'implementation of - operator';
COMMENT ON FUNCTION exclusion_set_eq(exclusion_set, exclusion_set) IS 'implementation of = operator';
COMMENT ON FUNCTION exclusion_set_ne(exclusion_set, exclusion_set) IS 'implementation of <> operator';
COMMENT ON OPERATOR @> (exclusion_set, encoded_nhs_number) IS 'contains';
COMMENT ON OPERATOR <@ (encoded_nhs_number, exclusion_set) IS 'is contained by';
COMMENT ON OPERATOR | (exclusion_set, exclusion_set) IS 'union';
COMMENT ON OPERATOR & (exclusion_set, exclusion_set) IS 'intersection';
COMMENT ON OPERATOR - (exclusion_set, exclusion_set) IS 'difference';
COMMENT ON OPERATOR = (exclusion_set, exclusion_set) IS 'equal';
COMMENT ON OPERATOR <> (exclusion_set, exclusion_set) IS 'not equal';
COMMENT ON FUNCTION cardinality(exclusion_set) IS 'number of members';
COMMENT ON FUNCTION unnest(exclusion_set) IS 'the members, ascending';
COMMENT ON FUNCTION exclusion_set_agg_add(internal, encoded_nhs_number) IS 'transition function of exclusion_set_agg';
COMMENT ON FUNCTION exclusion_set_agg_combine(internal, internal) IS 'combine function of exclusion_set_agg';
COMMENT ON FUNCTION exclusion_set_agg_serialize(internal) IS 'serialization function of exclusion_set_agg';
COMMENT ON FUNCTION exclusion_set_agg_deserialize(bytea, internal) IS 'deserialization function of exclusion_set_agg';
COMMENT ON FUNCTION exclusion_set_agg_result(internal) IS 'final function of exclusion_set_agg';
COMMENT ON AGGREGATE exclusion_set_agg(encoded_nhs_number) IS
    'the set of all values but NULLs; of no rows, the empty set; error 54000 for more than 60 million members';
