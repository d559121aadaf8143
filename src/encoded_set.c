/*
 * encoded_set.c
 *		The SQL type encoded_set.
 *
 * What a stored value is made of is believed only as far as the core needs for
 * its safety, header and size, until its checksum is right.  That is computed
 * once for each value that is opened; a caller that searches the same value
 * again and again (SetArgument) opens it once.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "encoded_set.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/supportnodes.h"
#include "parser/scansup.h"
#include "privacy.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_in);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_out);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_recv);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_send);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_from_array);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_contains);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_contained);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_union);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_intersection);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_difference);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_eq);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_ne);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_cardinality);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_checksum);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_unnest);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_support);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_agg_add);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_agg_combine);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_agg_serialize);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_agg_deserialize);
PG_FUNCTION_INFO_V1(ndrs_optout_encoded_set_agg_result);

#define HEX_DIGITS (2 * ENCODED_NHS_NUMBER_SIZE)

/* What the core does now and then: see encoded_set_core.h */
static void
check_for_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
}

void
ndrs_encoded_set_init(void)
{
	encoded_set_pause = check_for_interrupts;
}

/* ---------------------------------------------------------------- building */

static void
check_count(size_t count)
{
	if (count > ENCODED_SET_MAX_MEMBERS)
		ndrs_ereport(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("encoded set is too large"),
					 errdetail("It can have at most %d members.",
							   ENCODED_SET_MAX_MEMBERS));
}

/*
 * Begin a set in a memory context.  More members than are expected may come.
 */
void
ndrs_set_begin(EncodedSetBuilder *builder, MemoryContext context,
			   size_t expected)
{
	builder->count = 0;
	builder->capacity = Max(expected, 16);
	builder->base = MemoryContextAllocHuge(context, ENCODED_SET_FILTER_OFFSET(builder->capacity));
}

/*
 * Add members, in any order and as often as one likes: memory is needed for
 * those that differ, and at most as much again.
 */
void
ndrs_set_add(EncodedSetBuilder *builder, const EncodedNhsNumber *members,
			 size_t count)
{
	if (builder->capacity - builder->count < count)
	{
		builder->count = encoded_set_sort(encoded_set_members(builder->base),
										  builder->count);
		check_count(builder->count);
		while (builder->capacity - builder->count < Max(count, builder->capacity / 2))
			builder->capacity *= 2;
		builder->base = repalloc_huge(builder->base,
									  ENCODED_SET_FILTER_OFFSET(builder->capacity));
	}
	memcpy(encoded_set_members(builder->base) + builder->count, members,
		   count * sizeof(EncodedNhsNumber));
	builder->count += count;
}

static struct varlena *
seal(void *base, size_t count)
{
	encoded_set_seal(base, count);
	SET_VARSIZE(base, encoded_set_size(count));
	return base;
}

struct varlena *
ndrs_set_end(EncodedSetBuilder *builder)
{
	size_t		count = encoded_set_sort(encoded_set_members(builder->base),
										 builder->count);

	check_count(count);
	return seal(repalloc_huge(builder->base, encoded_set_size(count)), count);
}

/* ----------------------------------------------------------------- opening */

pg_noreturn static void
damaged(void)
{
	ndrs_ereport(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("invalid encoded set"),
				 errdetail("The stored value is damaged, or a later version wrote it."));
}

/*
 * Open a set whose checksum is right.  It lies where the value does, or in the
 * current memory context.
 */
void
ndrs_open_set(EncodedSet *set, Datum datum)
{
	struct varlena *value = PG_DETOAST_DATUM(datum);

	if (!encoded_set_open(set, value, VARSIZE(value)) ||
		!encoded_set_intact(set))
		damaged();
}

/* The set that a function was last called with, in its fn_extra */
typedef struct SetArgument
{
	EncodedSet	set;			/* base is NULL: none */
	bool		toasted;		/* the set is a copy of a toasted value: */
	struct varatt_external pointer;
} SetArgument;

/*
 * Open an argument for which the function is likely to be called again.
 *
 * A toasted value is fetched once, and known again by its toast pointer, since
 * what that points to never changes.  Any other may be a new one where the last
 * was, since memory is used again, so it is opened anew; only what has the
 * address and the checksum of one that was right is not looked through again.
 */
static const EncodedSet *
set_argument(FunctionCallInfo fcinfo, int i)
{
	struct varlena *value = (struct varlena *) PG_GETARG_POINTER(i);
	SetArgument *argument = fcinfo->flinfo->fn_extra;
	EncodedSet	set;

	if (argument == NULL)
	{
		argument = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(SetArgument));
		fcinfo->flinfo->fn_extra = argument;
	}

	if (VARATT_IS_EXTERNAL_ONDISK(value))
	{
		struct varatt_external pointer;
		MemoryContext outer;

		VARATT_EXTERNAL_GET_POINTER(pointer, value);
		if (argument->toasted &&
			memcmp(&argument->pointer, &pointer, sizeof(pointer)) == 0)
			return &argument->set;

		/* Not two large values at a time */
		if (argument->toasted)
			pfree((void *) argument->set.base);
		argument->toasted = false;
		argument->set.base = NULL;

		outer = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
		ndrs_open_set(&set, PointerGetDatum(value));
		MemoryContextSwitchTo(outer);
		argument->set = set;
		argument->pointer = pointer;
		argument->toasted = true;
		return &argument->set;
	}

	if (argument->toasted || VARATT_IS_EXTENDED(value) ||
		(char *) value != argument->set.base ||
		!encoded_set_open(&set, value, VARSIZE(value)) ||
		set.checksum != argument->set.checksum)
	{
		ndrs_open_set(&set, PointerGetDatum(value));
		if (argument->toasted)
			pfree((void *) argument->set.base);
		argument->toasted = false;
	}
	argument->set = set;
	return &argument->set;
}

/* ---------------------------------------------------------- text and binary */

/*
 * Read "{hex,hex,...}", in any order; false when it is something else.
 */
static bool
encoded_set_parse(const char *at, EncodedSetBuilder *builder)
{
	bool		first = true;

	while (scanner_isspace(*at))
		at++;
	if (*at++ != '{')
		return false;
	for (;;)
	{
		EncodedNhsNumber member;

		while (scanner_isspace(*at))
			at++;
		if (*at == '}')
			break;
		if (!first)
		{
			if (*at++ != ',')
				return false;
			while (scanner_isspace(*at))
				at++;
		}
		if (!ndrs_decode_hex(at, ENCODED_NHS_NUMBER_SIZE, member.bytes))
			return false;
		CHECK_FOR_INTERRUPTS();
		ndrs_set_add(builder, &member, 1);
		at += HEX_DIGITS;
		first = false;
	}
	at++;
	while (scanner_isspace(*at))
		at++;
	return *at == '\0';
}

Datum
ndrs_optout_encoded_set_in(PG_FUNCTION_ARGS)
{
	char	   *text = PG_GETARG_CSTRING(0);
	EncodedSetBuilder builder;

	ndrs_set_begin(&builder, CurrentMemoryContext, strlen(text) / HEX_DIGITS);
	if (!encoded_set_parse(text, &builder))
		ereturn(fcinfo->context, (Datum) 0,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid encoded set"),
				 errdetail("An encoded set is written as encoded NHS numbers, 32 hexadecimal digits each, in braces and with commas between them."),
				 ndrs_errhidevalues_unless_soft(fcinfo->context)));
	PG_RETURN_POINTER(ndrs_set_end(&builder));
}

Datum
ndrs_optout_encoded_set_out(PG_FUNCTION_ARGS)
{
	EncodedSet	set;
	Size		size;
	char	   *result;
	char	   *at;

	ndrs_open_set(&set, PG_GETARG_DATUM(0));

	/* Braces, commas and the terminator */
	size = (Size) set.count * (HEX_DIGITS + 1) + (set.count > 0 ? 2 : 3);
	if (!AllocSizeIsValid(size))
		ndrs_ereport(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("encoded set is too large for its text form"),
					 errhint("Use the binary format, or unnest() the set."));
	at = result = palloc(size);
	*at++ = '{';
	for (uint32 i = 0; i < set.count; i++)
	{
		encoded_set_pause_at(i);
		if (i > 0)
			*at++ = ',';
		at += hex_encode((const char *) set.members[i].bytes,
						 ENCODED_NHS_NUMBER_SIZE, at);
	}
	*at++ = '}';
	*at = '\0';
	PG_RETURN_CSTRING(result);
}

static bytea *
write_message(const EncodedNhsNumber *members, size_t count)
{
	bytea	   *message = palloc(VARHDRSZ + ENCODED_SET_MESSAGE_SIZE(count));

	SET_VARSIZE(message, VARHDRSZ + ENCODED_SET_MESSAGE_SIZE(count));
	encoded_set_write_message(members, count, VARDATA(message));
	return message;
}

/*
 * Begin a set with the members in a message.
 */
static void
read_message(EncodedSetBuilder *builder, const void *message, size_t size)
{
	size_t		count;
	const EncodedNhsNumber *members = encoded_set_read_message(message, size, &count);

	if (members == NULL)
		ndrs_ereport(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
					 errmsg("invalid binary form of an encoded set"));
	ndrs_set_begin(builder, CurrentMemoryContext, count);
	ndrs_set_add(builder, members, count);
}

Datum
ndrs_optout_encoded_set_recv(PG_FUNCTION_ARGS)
{
	StringInfo	message = (StringInfo) PG_GETARG_POINTER(0);
	int			size = message->len - message->cursor;
	EncodedSetBuilder builder;

	read_message(&builder, pq_getmsgbytes(message, size), size);
	PG_RETURN_POINTER(ndrs_set_end(&builder));
}

Datum
ndrs_optout_encoded_set_send(PG_FUNCTION_ARGS)
{
	EncodedSet	set;

	ndrs_open_set(&set, PG_GETARG_DATUM(0));
	PG_RETURN_BYTEA_P(write_message(set.members, set.count));
}

Datum
ndrs_optout_encoded_set_from_array(PG_FUNCTION_ARGS)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(0);
	int			count = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	EncodedSetBuilder builder;

	if (array_contains_nulls(array))
		ndrs_ereport(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("an encoded set has no null members"));

	/* Elements of such a type lie one behind the other. */
	ndrs_set_begin(&builder, CurrentMemoryContext, count);
	ndrs_set_add(&builder, (EncodedNhsNumber *) ARR_DATA_PTR(array), count);
	PG_RETURN_POINTER(ndrs_set_end(&builder));
}

/* --------------------------------------------------------------- operators */

/* set @> element */
Datum
ndrs_optout_encoded_set_contains(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(encoded_set_contains(set_argument(fcinfo, 0),
										(EncodedNhsNumber *) PG_GETARG_POINTER(1)));
}

/* element <@ set */
Datum
ndrs_optout_encoded_set_contained(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(encoded_set_contains(set_argument(fcinfo, 1),
										(EncodedNhsNumber *) PG_GETARG_POINTER(0)));
}

static Datum
merge(FunctionCallInfo fcinfo, EncodedSetOperation operation)
{
	EncodedSet	a;
	EncodedSet	b;
	size_t		count;
	void	   *base;

	ndrs_open_set(&a, PG_GETARG_DATUM(0));
	ndrs_open_set(&b, PG_GETARG_DATUM(1));

	/* Twice, so as not to take the memory for what is not there */
	count = encoded_set_merge(operation, &a, &b, NULL);
	check_count(count);
	base = MemoryContextAllocHuge(CurrentMemoryContext, encoded_set_size(count));
	encoded_set_merge(operation, &a, &b, encoded_set_members(base));
	PG_RETURN_POINTER(seal(base, count));
}

Datum
ndrs_optout_encoded_set_union(PG_FUNCTION_ARGS)
{
	return merge(fcinfo, ENCODED_SET_UNION);
}

Datum
ndrs_optout_encoded_set_intersection(PG_FUNCTION_ARGS)
{
	return merge(fcinfo, ENCODED_SET_INTERSECTION);
}

Datum
ndrs_optout_encoded_set_difference(PG_FUNCTION_ARGS)
{
	return merge(fcinfo, ENCODED_SET_DIFFERENCE);
}

static bool
equal_arguments(FunctionCallInfo fcinfo)
{
	EncodedSet	a;
	EncodedSet	b;

	ndrs_open_set(&a, PG_GETARG_DATUM(0));
	ndrs_open_set(&b, PG_GETARG_DATUM(1));
	return encoded_set_equal(&a, &b);
}

Datum
ndrs_optout_encoded_set_eq(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(equal_arguments(fcinfo));
}

Datum
ndrs_optout_encoded_set_ne(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(!equal_arguments(fcinfo));
}

/*
 * The number of members, from the header alone.
 */
static uint32
count_members(Datum datum)
{
	EncodedSet	set;
	struct varlena *header = PG_DETOAST_DATUM_SLICE(datum, 0, sizeof(EncodedSetHeader) - VARHDRSZ);

	if (VARSIZE(header) < sizeof(EncodedSetHeader) ||
		!encoded_set_open(&set, header, toast_raw_datum_size(datum)))
		damaged();
	return set.count;
}

Datum
ndrs_optout_encoded_set_cardinality(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(count_members(PG_GETARG_DATUM(0)));
}

/* It is right, or else the set is not opened. */
Datum
ndrs_optout_encoded_set_checksum(PG_FUNCTION_ARGS)
{
	EncodedSet	set;

	ndrs_open_set(&set, PG_GETARG_DATUM(0));
	PG_RETURN_INT64((int64) set.checksum);
}

Datum
ndrs_optout_encoded_set_unnest(PG_FUNCTION_ARGS)
{
	FuncCallContext *calls;
	EncodedSet *set;
	const EncodedNhsNumber *member;

	if (SRF_IS_FIRSTCALL())
	{
		MemoryContext outer;

		calls = SRF_FIRSTCALL_INIT();
		outer = MemoryContextSwitchTo(calls->multi_call_memory_ctx);
		set = palloc(sizeof(EncodedSet));
		ndrs_open_set(set, PointerGetDatum(PG_GETARG_VARLENA_P(0)));
		calls->user_fctx = set;
		calls->max_calls = set->count;
		MemoryContextSwitchTo(outer);
	}

	calls = SRF_PERCALL_SETUP();
	set = calls->user_fctx;
	if (calls->call_cntr >= calls->max_calls)
		SRF_RETURN_DONE(calls);
	member = &set->members[calls->call_cntr];
	SRF_RETURN_NEXT(calls, PointerGetDatum(member));
}

/*
 * What the planner can know of a set that is a constant: how many rows come out
 * of it, and that nothing is in an empty one.  The latter is null for null, so
 * it becomes (element IS NULL AND NULL), which is false in a WHERE clause.
 */
Datum
ndrs_optout_encoded_set_support(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);

	if (IsA(request, SupportRequestRows))
	{
		SupportRequestRows *rows = (SupportRequestRows *) request;

		if (is_funcclause(rows->node))
		{
			Node	   *set = linitial(((FuncExpr *) rows->node)->args);

			if (IsA(set, Const) && !((Const *) set)->constisnull)
			{
				rows->rows = count_members(((Const *) set)->constvalue);
				PG_RETURN_POINTER(request);
			}
		}
	}
	else if (IsA(request, SupportRequestSimplify))
	{
		List	   *args = ((SupportRequestSimplify *) request)->fcall->args;

		/*
		 * unnest() has one argument; of the two types, the set's has no
		 * length.
		 */
		for (int i = 0; i < 2 && list_length(args) == 2; i++)
		{
			Const	   *set = list_nth(args, i);

			if (IsA(set, Const) && set->constlen == -1 && !set->constisnull &&
				count_members(set->constvalue) == 0)
			{
				NullTest   *test = makeNode(NullTest);

				test->arg = list_nth(args, 1 - i);
				test->nulltesttype = IS_NULL;
				test->location = -1;
				PG_RETURN_POINTER(makeBoolExpr(AND_EXPR,
											   list_make2(test, makeBoolConst(false, true)), -1));
			}
		}
	}
	PG_RETURN_POINTER(NULL);
}

/* --------------------------------------------------------------- aggregate */

/*
 * The state of encoded_set_agg is a builder in the aggregate's own context.
 */
static EncodedSetBuilder *
new_state(FunctionCallInfo fcinfo)
{
	MemoryContext context;
	EncodedSetBuilder *state;

	if (!AggCheckCallContext(fcinfo, &context))
		ndrs_elog("aggregate function called in non-aggregate context");
	state = MemoryContextAlloc(context, sizeof(EncodedSetBuilder));
	ndrs_set_begin(state, context, 0);
	return state;
}

static EncodedSetBuilder *
state_argument(FunctionCallInfo fcinfo, int i)
{
	return PG_ARGISNULL(i) ? NULL : (EncodedSetBuilder *) PG_GETARG_POINTER(i);
}

Datum
ndrs_optout_encoded_set_agg_add(PG_FUNCTION_ARGS)
{
	EncodedSetBuilder *state = state_argument(fcinfo, 0);

	if (state == NULL)
		state = new_state(fcinfo);
	if (!PG_ARGISNULL(1))
		ndrs_set_add(state, (EncodedNhsNumber *) PG_GETARG_POINTER(1), 1);
	PG_RETURN_POINTER(state);
}

Datum
ndrs_optout_encoded_set_agg_combine(PG_FUNCTION_ARGS)
{
	EncodedSetBuilder *state = state_argument(fcinfo, 0);
	EncodedSetBuilder *other = state_argument(fcinfo, 1);

	if (state == NULL)
		state = new_state(fcinfo);
	if (other != NULL)
		ndrs_set_add(state, encoded_set_members(other->base), other->count);
	PG_RETURN_POINTER(state);
}

/*
 * Sorting changes nothing that could be seen in a state, so it is done in place.
 */
static void
sort_state(EncodedSetBuilder *state)
{
	state->count = encoded_set_sort(encoded_set_members(state->base),
									state->count);
	check_count(state->count);
}

Datum
ndrs_optout_encoded_set_agg_serialize(PG_FUNCTION_ARGS)
{
	EncodedSetBuilder *state = state_argument(fcinfo, 0);

	sort_state(state);
	PG_RETURN_BYTEA_P(write_message(encoded_set_members(state->base), state->count));
}

Datum
ndrs_optout_encoded_set_agg_deserialize(PG_FUNCTION_ARGS)
{
	bytea	   *message = PG_GETARG_BYTEA_PP(0);
	EncodedSetBuilder *state = palloc(sizeof(EncodedSetBuilder));

	if (!AggCheckCallContext(fcinfo, NULL))
		ndrs_elog("aggregate function called in non-aggregate context");
	read_message(state, VARDATA_ANY(message), VARSIZE_ANY_EXHDR(message));
	PG_RETURN_POINTER(state);
}

/*
 * No rows make the empty set.
 */
Datum
ndrs_optout_encoded_set_agg_result(PG_FUNCTION_ARGS)
{
	EncodedSetBuilder *state = state_argument(fcinfo, 0);
	size_t		count = 0;
	void	   *base;

	if (state != NULL)
	{
		sort_state(state);
		count = state->count;
	}
	base = palloc(encoded_set_size(count));
	if (count > 0)
		memcpy(encoded_set_members(base), encoded_set_members(state->base),
			   count * sizeof(EncodedNhsNumber));
	PG_RETURN_POINTER(seal(base, count));
}
