/*
 * guard_search.c
 *		What a search for the rows of excluded patients asks of each value.
 */
#include "postgres.h"

#include "encoding.h"
#include "fmgr.h"
#include "guard_decision.h"
#include "nhs_number_type.h"
#include "privacy.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(ndrs_optout_guard_matches);
PG_FUNCTION_INFO_V1(ndrs_optout_guard_misencoded);
PG_FUNCTION_INFO_V1(ndrs_optout_guard_number);
PG_FUNCTION_INFO_V1(ndrs_optout_guard_unreadable);
PG_FUNCTION_INFO_V1(ndrs_optout_guard_reads);

/*
 * Tables are searched with the rights of their owners, hence PUBLIC may execute
 * what a search calls.  It answers only a command of ours, which has the token
 * (encoding.c).
 */
static void
check_token(FunctionCallInfo fcinfo, int argument)
{
	if (PG_ARGISNULL(argument) || !ndrs_token_is_good(PG_GETARG_BYTEA_PP(argument)))
		ndrs_ereport(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied for function %s",
							get_func_name(fcinfo->flinfo->fn_oid)));
}

/*
 * Whether this is the number of a patient who is excluded from all of the
 * registers, in any type that a guard can read.  Without a token for those who may
 * execute it by a right of their own.
 */
Datum
ndrs_optout_guard_matches(PG_FUNCTION_ARGS)
{
	Guard	   *guard = fcinfo->flinfo->fn_extra;
	NhsNumber	number;
	NhsNumberForm form;

	if (guard == NULL)
	{
		if (PG_NARGS() > 2)
			check_token(fcinfo, 2);
		guard = ndrs_guard_of_arguments(fcinfo, 0, false, sizeof(Guard));
	}
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_BOOL(ndrs_guard_examine(guard, PG_GETARG_DATUM(0), false, &number, &form) == GUARD_EXCLUDED);
}

/*
 * Read a number of any type that a guard can read.
 */
static NhsNumberForm
read_any(FunctionCallInfo fcinfo, NhsNumber *number)
{
	Guard	   *guard = fcinfo->flinfo->fn_extra;

	if (guard == NULL)
	{
		guard = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(Guard));
		ndrs_guard_set_type(guard, get_fn_expr_argtype(fcinfo->flinfo, 0));
		fcinfo->flinfo->fn_extra = guard;
	}
	return guard->read(PG_GETARG_DATUM(0), number);
}

/* Does an encoded column hold something else than the number's encoding? */
Datum
ndrs_optout_guard_misencoded(PG_FUNCTION_ARGS)
{
	NhsNumber	number;
	bool		has_number;

	if (fcinfo->flinfo->fn_extra == NULL)
		check_token(fcinfo, 2);
	ndrs_encoding_ready();
	has_number = !PG_ARGISNULL(0) && read_any(fcinfo, &number) == NHS_NUMBER_VALID &&
		!nhs_number_is_placeholder(number);
	PG_RETURN_BOOL(!ndrs_guard_encoded_agrees(has_number ? &number : NULL,
											  PG_ARGISNULL(1) ? NULL : (EncodedNhsNumber *) PG_GETARG_POINTER(1)));
}

/* The NHS number of a patient, or NULL */
Datum
ndrs_optout_guard_number(PG_FUNCTION_ARGS)
{
	NhsNumber	number;

	if (read_any(fcinfo, &number) != NHS_NUMBER_VALID ||
		nhs_number_is_placeholder(number))
		PG_RETURN_NULL();
	PG_RETURN_INT64(number);
}

/* Something that is meant for a number and is none */
Datum
ndrs_optout_guard_unreadable(PG_FUNCTION_ARGS)
{
	NhsNumber	number;
	NhsNumberForm form = read_any(fcinfo, &number);

	PG_RETURN_BOOL(form != NHS_NUMBER_VALID && form != NHS_NUMBER_EMPTY);
}

Datum
ndrs_optout_guard_reads(PG_FUNCTION_ARGS)
{
	Oid			type = PG_GETARG_OID(0);

	/* The sentry asks for a type that its command may have dropped. */
	PG_RETURN_BOOL(SearchSysCacheExists1(TYPEOID, ObjectIdGetDatum(type)) &&
				   ndrs_number_reader(type) != NULL);
}
