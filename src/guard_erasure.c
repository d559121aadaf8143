/*
 * guard_erasure.c
 *		What guards let pass while an erasure changes rows.
 *
 * The erasure changes rows that stay: it redacts a number, or a foreign key sets
 * its columns to NULL.  That brings nothing in, and must not fail because the
 * row has another number, of a patient who is excluded and not yet erased, or one
 * that cannot be read.  But triggers of the tables' owners run at the same time, and what
 * these bring in is brought in.  So the trigger lets an UPDATE pass that keeps the number
 * or makes it NULL, and nothing else; and as a later trigger may still write another
 * number, and the constraint cannot tell an UPDATE from an INSERT, it lets pass the one
 * value that the trigger let pass last.  Without the trigger (mechanism "constraint",
 * children by INHERITS) nothing passes.
 */
#include "postgres.h"

#include "executor/tuptable.h"
#include "guard_erasure.h"
#include "nodes/pg_list.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"

ErasedTables ndrs_erased_tables = {false, NULL, 0};

/* Values of rows that the trigger has let pass and the constraint has not seen yet */
typedef struct PassedValue
{
	Oid			relid;
	AttrNumber	attnum;
	Oid			type;
	int16		length;
	bool		byval;
	bool		isnull;
	Datum		value;
} PassedValue;

static List *passed_values = NIL;
static MemoryContext passed_context = NULL; /* holds them */

static bool
is_erased(Oid relid)
{
	for (int i = 0; i < ndrs_erased_tables.nrelids; i++)
	{
		if (ndrs_erased_tables.relids[i] == relid)
			return true;
	}
	return false;
}

/*
 * What the erasure does in these tables passes from now on.  Returns those of before,
 * which the caller puts back, also after an error.
 */
ErasedTables
ndrs_guard_let_pass(ErasedTables tables)
{
	ErasedTables before = ndrs_erased_tables;

	ndrs_erased_tables = tables;
	passed_values = NIL;
	if (passed_context != NULL)
		MemoryContextReset(passed_context);
	return before;
}

/*
 * Does this UPDATE bring nothing in?  If so, the constraint is to learn of it.
 */
bool
ndrs_guard_update_passes(TriggerData *trigdata, AttrNumber attnum, Datum value,
						 bool isnull)
{
	Relation	rel = trigdata->tg_relation;
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	Datum		old;
	bool		oldisnull;
	PassedValue *passed_value;
	ListCell   *lc;
	MemoryContext outer;

	/* What it said of an earlier row is over. */
	foreach(lc, passed_values)
	{
		passed_value = lfirst(lc);
		if (passed_value->relid == RelationGetRelid(rel) && passed_value->attnum == attnum)
			passed_values = foreach_delete_current(passed_values, lc);
	}

	if (!TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) || !is_erased(RelationGetRelid(rel)))
		return false;
	old = slot_getattr(trigdata->tg_trigslot, attnum, &oldisnull);
	if (!isnull && (oldisnull ||
					!datum_image_eq(old, value, attribute->attbyval, attribute->attlen)))
		return false;

	if (passed_context == NULL)
		passed_context = AllocSetContextCreate(TopMemoryContext,
											   "ndrs_optout passed values",
											   ALLOCSET_SMALL_SIZES);
	outer = MemoryContextSwitchTo(passed_context);
	passed_value = palloc0(sizeof(PassedValue));
	passed_value->relid = RelationGetRelid(rel);
	passed_value->attnum = attnum;
	passed_value->type = attribute->atttypid;
	passed_value->byval = attribute->attbyval;
	passed_value->length = attribute->attlen;
	passed_value->isnull = isnull;
	if (!isnull)
		passed_value->value = datumCopy(value, attribute->attbyval, attribute->attlen);
	passed_values = lappend(passed_values, passed_value);
	MemoryContextSwitchTo(outer);
	return true;
}

/* Has the trigger just let pass the value that is this argument? */
bool
ndrs_guard_value_passed(FunctionCallInfo fcinfo, int value, Oid relid)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, value);
	ListCell   *lc;

	foreach(lc, passed_values)
	{
		PassedValue *passed_value = lfirst(lc);

		if (passed_value->relid == relid && passed_value->type == type &&
			passed_value->isnull == PG_ARGISNULL(value) &&
			(passed_value->isnull ||
			 datum_image_eq(passed_value->value, PG_GETARG_DATUM(value),
							passed_value->byval, passed_value->length)))
		{
			passed_values = foreach_delete_current(passed_values, lc);
			return true;
		}
	}
	return false;
}
