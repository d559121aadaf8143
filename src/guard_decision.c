/*
 * guard_decision.c
 *		What a guard finds in a row, and what it does with it.
 *
 * The trigger (guard_trigger.c) and the constraint (guard_constraint.c) take the same
 * decision.  Both carry their policy in their own arguments, so they need no look-up and
 * survive a dump; table guard says what ought to be there (guard_policy.c).
 *
 * The decision uses the newest committed list, not the transaction's snapshot
 * (exclusion_list.c).  The lock that the writer took on the table before its
 * first row is what carry_out waits for, so a row is either refused here or
 * deleted there.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "compat.h"
#include "encoded_nhs_number.h"
#include "encoding.h"
#include "guard_decision.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"
#include "privacy.h"
#include "sqlstates.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

const char *const ndrs_action_words[] = {
	[GUARD_ALLOW] = "allow",
	[GUARD_REJECT] = "reject",
	[GUARD_SKIP] = "skip",
	[GUARD_REDACT] = "redact",
};

GuardAction
ndrs_guard_parse_action(const char *word)
{
	for (int i = 0; i < lengthof(ndrs_action_words); i++)
	{
		if (strcmp(word, ndrs_action_words[i]) == 0)
			return (GuardAction) i;
	}
	ndrs_ereport(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid guard action \"%s\"", word));
}

void
ndrs_guard_set_type(Guard *guard, Oid type)
{
	guard->read = ndrs_number_reader(type);
	if (guard->read == NULL)
		ndrs_ereport(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("type %s cannot hold NHS numbers for a guard",
							format_type_be(type)),
					 errhint("Use nhs_number, text, varchar, char, bigint or numeric."));
}

/*
 * Refuse a row.  No value of it may appear: see privacy.c.
 */
void
ndrs_guard_reject(GuardFinding finding, NhsNumberForm form, Oid relid)
{
	const char *table = ndrs_table_name(relid);

	switch (finding)
	{
		case GUARD_NOT_EXCLUDED:
			break;
		case GUARD_EXCLUDED:
			ndrs_ereport(errcode(ERRCODE_NDRS_EXCLUDED_PATIENT),
						 errmsg("row of an excluded patient may not enter table %s", table),
						 errhint("Leave the patient's rows out. A guard with on_match \"skip\" does so by itself on INSERT and COPY."),
						 ndrs_errtable(relid));
			break;
		case GUARD_MISSING:
			ndrs_ereport(errcode(ERRCODE_NDRS_MISSING_NUMBER),
						 errmsg("row without an NHS number may not enter table %s", table),
						 errdetail("The NHS number is empty, or a placeholder with ten equal digits."),
						 errhint("Correct the row, or ask the database owner to set on_missing to \"skip\" or \"allow\"."),
						 ndrs_errtable(relid));
			break;
		case GUARD_UNREADABLE:
			ndrs_ereport(errcode(ERRCODE_NDRS_UNREADABLE_NUMBER),
						 errmsg("row with an unreadable NHS number may not enter table %s", table),
						 errdetail_internal("%s", nhs_number_form_detail(form)),
						 errhint("Correct the row, or ask the database owner to set on_unreadable to \"skip\" or \"allow\"."),
						 ndrs_errtable(relid));
			break;
	}
	ndrs_elog("guard refused a row for no reason");
}

static void
set_registers(Guard *guard, ArrayType *registers)
{
	Datum	   *codes;
	bool	   *nulls;

	deconstruct_array(registers, TEXTOID, -1, false, TYPALIGN_INT,
					  &codes, &nulls, &guard->nregisters);
	guard->registers = palloc(guard->nregisters * sizeof(ExclusionList *));
	for (int i = 0; i < guard->nregisters; i++)
	{
		if (nulls[i])
			ndrs_ereport(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						 errmsg("a register code must not be null"));
		guard->registers[i] = ndrs_exclusion_list(TextDatumGetCString(codes[i]));
	}
	if (guard->nregisters == 0)
		ndrs_ereport(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("a guard needs at least one register"));
}

/*
 * Is the argument a constant?  get_fn_expr_arg_stable() also says so of a
 * parameter, but PL/pgSQL keeps an expression's state while those change.
 */
static bool
is_constant(FmgrInfo *flinfo, int i)
{
	return flinfo->fn_expr != NULL && IsA(flinfo->fn_expr, FuncExpr) &&
		IsA(list_nth(((FuncExpr *) flinfo->fn_expr)->args, i), Const);
}

/*
 * The policy of an expression, from the type of argument "value" and from the
 * registers and actions in those behind it.  Made once, unless one of these is
 * not a constant of the expression.  "size": a Guard, or a structure that begins with
 * one.
 */
Guard *
ndrs_guard_make_of_arguments(FunctionCallInfo fcinfo, int value, bool acts, Size size)
{
	Guard	   *guard;
	MemoryContext outer;
	int			end = value + (acts ? 4 : 2);
	bool		stable = true;
	ErrorContextCallback hider;

	ndrs_begin_hiding(&hider);
	for (int i = value + 1; i < end; i++)
	{
		if (PG_ARGISNULL(i))
			ndrs_ereport(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						 errmsg("a guard's policy must not be null"));
		stable = stable && is_constant(fcinfo->flinfo, i);
	}

	outer = CurrentMemoryContext;
	if (stable)
		MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	guard = palloc0(size);
	ndrs_guard_set_type(guard, get_fn_expr_argtype(fcinfo->flinfo, value));
	set_registers(guard, PG_GETARG_ARRAYTYPE_P(value + 1));
	if (acts)
	{
		guard->action[GUARD_EXCLUDED] = GUARD_REJECT;
		guard->action[GUARD_MISSING] =
			ndrs_guard_parse_action(text_to_cstring(PG_GETARG_TEXT_PP(value + 2)));
		guard->action[GUARD_UNREADABLE] =
			ndrs_guard_parse_action(text_to_cstring(PG_GETARG_TEXT_PP(value + 3)));
	}
	MemoryContextSwitchTo(outer);
	ndrs_end_hiding(&hider);

	if (stable)
		fcinfo->flinfo->fn_extra = guard;
	return guard;
}

/* Is an encoded column what it must be for this number, or for none? */
bool
ndrs_guard_encoded_agrees(const NhsNumber *number, const EncodedNhsNumber *encoded)
{
	EncodedNhsNumber expected;

	if (number == NULL || encoded == NULL)
		return number == NULL && encoded == NULL;
	ndrs_encode(*number, &expected);
	return encoded_nhs_number_compare(&expected, encoded) == 0;
}
