/*
 * guard.c
 *		What stops a row of an excluded patient from entering a registry table.
 *
 * Two enforcers take the same decision.
 *
 * The trigger (BEFORE ROW, ENABLE ALWAYS) rejects, skips or redacts the row.
 * The CHECK constraint runs after every BEFORE trigger, on every path
 * into the table and its partitions and children, and cannot be disabled; it
 * can only reject.  PUBLIC may execute its function, because the inserting role's rights
 * are checked when the constraint runs.  Without USAGE on the schema the function cannot be
 * called by name.  But CREATE TABLE ... LIKE copies the constraint for any role that may
 * read the table, so for another table it answers only roles that may insert into the
 * guarded one, where they get the answer as well.
 *
 * Both carry their policy in their own arguments, so they need no look-up and
 * survive a dump; table guard says what ought to be there.
 *
 * The decision uses the newest committed list, not the transaction's snapshot
 * (exclusion_list.c).  The lock that the writer took on the table before its
 * first row is what carry_out waits for, so a row is either refused here or
 * deleted there.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "compat.h"
#include "compat_acl.h"
#include "encoded_nhs_number.h"
#include "encoding.h"
#include "exclusion_list.h"
#include "fmgr.h"
#include "guard.h"
#include "guard_policy.h"
#include "guard_tally.h"
#include "miscadmin.h"
#include "nhs_number_type.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"
#include "privacy.h"
#include "sqlstates.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(ndrs_optout_guard_row);
PG_FUNCTION_INFO_V1(ndrs_optout_guard_admits);
PG_FUNCTION_INFO_V1(ndrs_optout_guard_matches);
PG_FUNCTION_INFO_V1(ndrs_optout_guard_misencoded);
PG_FUNCTION_INFO_V1(ndrs_optout_guard_number);
PG_FUNCTION_INFO_V1(ndrs_optout_guard_unreadable);
PG_FUNCTION_INFO_V1(ndrs_optout_guard_reads);

typedef struct Guard
{
	GuardAction action[GUARD_UNREADABLE + 1];	/* by finding */
	NhsNumberReader read;
	int			nregisters;
	ExclusionList **registers;

	/* Of the trigger only: */
	AttrNumber	attnum;
	bool		skips;			/* one of the findings, at least */
	Oid			target;			/* what rows are counted for */
	int			nredacted;		/* columns that become NULL in a redaction, */
	int			nchanged;		/* and the encoded column, if there is one */
	int		   *changed;

	/* Of the constraint only: */
	Oid			trusted_table;	/* may be answered for */
} Guard;

/* Tables in which the erasure is changing rows */
static const Oid *spared = NULL;
static int	nspared = 0;

/* Values of rows that the trigger has spared and the constraint has not seen yet */
typedef struct SparedValue
{
	Oid			relid;
	AttrNumber	attnum;
	Oid			type;
	int16		length;
	bool		byval;
	bool		isnull;
	Datum		value;
} SparedValue;

static List *spared_values = NIL;
static MemoryContext spared_context = NULL; /* holds them */

/* The last row that a guard that skips has seen an UPDATE of */
static struct
{
	Oid			target;
	Oid			relid;
	ItemPointerData tid;
}			updated = {InvalidOid};

static GuardAction
parse_action(const char *word)
{
	for (int i = 0; i < lengthof(ndrs_action_words); i++)
	{
		if (strcmp(word, ndrs_action_words[i]) == 0)
			return (GuardAction) i;
	}
	ndrs_ereport(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid guard action \"%s\"", word));
}

static void
set_type(Guard *guard, Oid type)
{
	guard->read = ndrs_number_reader(type);
	if (guard->read == NULL)
		ndrs_ereport(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("type %s cannot hold NHS numbers for a guard",
							format_type_be(type)),
					 errhint("Use nhs_number, text, varchar, char, bigint or numeric."));
}

static inline GuardFinding
examine(Guard *guard, Datum value, bool isnull, NhsNumber *number, NhsNumberForm *form)
{
	*form = isnull ? NHS_NUMBER_EMPTY : guard->read(value, number);

	if (*form == NHS_NUMBER_VALID)
	{
		if (ndrs_excluded_from_all(guard->registers, guard->nregisters, *number))
			return GUARD_EXCLUDED;
		return nhs_number_is_placeholder(*number) ? GUARD_MISSING : GUARD_NOT_EXCLUDED;
	}
	return *form == NHS_NUMBER_EMPTY ? GUARD_MISSING : GUARD_UNREADABLE;
}

/*
 * Refuse a row.  No value of it may appear: see privacy.c.
 */
static void
reject(GuardFinding finding, NhsNumberForm form, Oid relid)
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

/*
 * The erasure changes rows that stay: it redacts a number, or a foreign key sets
 * its columns to NULL.  That brings nothing in, and must not fail because the row has
 * another number, of a patient who is excluded and not yet erased, or one that cannot be
 * read.  But triggers of the tables' owners run at that time, and what these write meets
 * the guard.  So the trigger spares an UPDATE that keeps the number or makes it NULL,
 * and nothing else; and as a later trigger may still write another number, and the
 * constraint cannot tell an UPDATE from an INSERT, it spares the one value that the
 * trigger spared last.  Without the trigger (mechanism "constraint", children by
 * INHERITS) nothing is spared.
 */
static bool
is_spared(Oid relid)
{
	for (int i = 0; i < nspared; i++)
	{
		if (spared[i] == relid)
			return true;
	}
	return false;
}

/*
 * Spare these tables from now on; the caller puts the old ones back, also after
 * an error.
 */
void
ndrs_guard_spare(const Oid **relids, int *nrelids)
{
	const Oid  *old = spared;
	int			nold = nspared;

	spared = *relids;
	nspared = *nrelids;
	*relids = old;
	*nrelids = nold;

	spared_values = NIL;
	if (spared_context != NULL)
		MemoryContextReset(spared_context);
}

/*
 * Does this UPDATE bring nothing in?  If so, the constraint is to learn of it.
 */
static pg_noinline bool
spare(TriggerData *trigdata, AttrNumber attnum, Datum value, bool isnull)
{
	Relation	rel = trigdata->tg_relation;
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), attnum - 1);
	Datum		old;
	bool		oldisnull;
	SparedValue *spared_value;
	ListCell   *lc;
	MemoryContext outer;

	/* What it said of an earlier row is over. */
	foreach(lc, spared_values)
	{
		spared_value = lfirst(lc);
		if (spared_value->relid == RelationGetRelid(rel) && spared_value->attnum == attnum)
			spared_values = foreach_delete_current(spared_values, lc);
	}

	if (!TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) || !is_spared(RelationGetRelid(rel)))
		return false;
	old = slot_getattr(trigdata->tg_trigslot, attnum, &oldisnull);
	if (!isnull && (oldisnull ||
					!datum_image_eq(old, value, attribute->attbyval, attribute->attlen)))
		return false;

	if (spared_context == NULL)
		spared_context = AllocSetContextCreate(TopMemoryContext,
											   "ndrs_optout spared values",
											   ALLOCSET_SMALL_SIZES);
	outer = MemoryContextSwitchTo(spared_context);
	spared_value = palloc0(sizeof(SparedValue));
	spared_value->relid = RelationGetRelid(rel);
	spared_value->attnum = attnum;
	spared_value->type = attribute->atttypid;
	spared_value->byval = attribute->attbyval;
	spared_value->length = attribute->attlen;
	spared_value->isnull = isnull;
	if (!isnull)
		spared_value->value = datumCopy(value, attribute->attbyval, attribute->attlen);
	spared_values = lappend(spared_values, spared_value);
	MemoryContextSwitchTo(outer);
	return true;
}

/* Has the trigger just spared this value? */
static pg_noinline bool
was_spared(FunctionCallInfo fcinfo, Oid relid)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 2);
	ListCell   *lc;

	foreach(lc, spared_values)
	{
		SparedValue *spared_value = lfirst(lc);

		if (spared_value->relid == relid && spared_value->type == type &&
			spared_value->isnull == PG_ARGISNULL(2) &&
			(spared_value->isnull ||
			 datum_image_eq(spared_value->value, PG_GETARG_DATUM(2),
							spared_value->byval, spared_value->length)))
		{
			spared_values = foreach_delete_current(spared_values, lc);
			return true;
		}
	}
	return false;
}

static AttrNumber
guarded_column(Relation rel, const char *name)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(rel), name);

	if (attnum <= 0)
		ndrs_ereport(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("guarded column \"%s\" of table %s does not exist",
							name, ndrs_table_name(RelationGetRelid(rel))),
					 errhint("If it was renamed, ask the database owner to call ndrs_optout.unguard_table() and ndrs_optout.guard_table()."),
					 ndrs_errtable(RelationGetRelid(rel)));
	return attnum;
}

/*
 * The guarded table that a table is, or is a partition of, of whose guard this is the
 * trigger.
 *
 * PUBLIC may make a trigger with our function, because the owner of a partitioned table
 * does so with each partition.  One that is not of a guard would tell its maker which
 * patients are on the list, or weaken a guard that is there.
 */
static Oid
find_guarded(Relation table, const Trigger *trigger)
{
	List	   *relids = list_make1_oid(RelationGetRelid(table));
	bool		guarded = false;
	ListCell   *lc;

	if (table->rd_rel->relispartition)
		relids = list_concat(relids, get_partition_ancestors(RelationGetRelid(table)));
	foreach(lc, relids)
	{
		ListCell   *policy;

		foreach(policy, ndrs_guard_policies(lfirst_oid(lc)))
		{
			guarded = true;
			if (ndrs_guard_has_trigger(lfirst(policy), trigger->tgnargs, trigger->tgargs))
				return lfirst_oid(lc);
		}
	}
	ndrs_ereport(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 guarded ? errmsg("trigger \"%s\" of table %s does not do what the guard of the table says",
								  trigger->tgname, ndrs_table_name(RelationGetRelid(table)))
				 : errmsg("trigger \"%s\" belongs to a guard, and table %s has none",
						  trigger->tgname, ndrs_table_name(RelationGetRelid(table))),
				 errhint("Drop the trigger, or ask the database owner to call ndrs_optout.guard_table()."),
				 ndrs_errtable(RelationGetRelid(table)));
}

/*
 * Arguments of the trigger.  Behind them are the registers, the number of columns to
 * redact, and these; a later version appends more.
 */
enum
{
	TRIGGER_VERSION,
	TRIGGER_COLUMN,
	TRIGGER_ENCODED_COLUMN,		/* or an empty string */
	TRIGGER_ON_MATCH,
	TRIGGER_ON_MISSING,
	TRIGGER_ON_UNREADABLE,
	TRIGGER_NREGISTERS,
	TRIGGER_REGISTERS
};

/*
 * The trigger's policy, from its arguments.
 *
 * It lives as long as the trigger's fn_extra, which is one statement and one
 * result relation.  Columns are named, not numbered, because partitions may
 * number theirs otherwise.
 */
static pg_noinline Guard *
trigger_guard(FunctionCallInfo fcinfo, TriggerData *trigdata)
{
	Trigger    *trigger = trigdata->tg_trigger;
	Relation	rel = trigdata->tg_relation;
	int			nlisted = trigger->tgnargs - TRIGGER_REGISTERS;
	int			version = nlisted > 0 ? atoi(trigger->tgargs[TRIGGER_VERSION]) : 0;
	int			nregisters = nlisted > 0 ? atoi(trigger->tgargs[TRIGGER_NREGISTERS]) : 0;
	int			nredacted;
	MemoryContext outer;
	Guard	   *guard;
	char	  **args = trigger->tgargs;
	ErrorContextCallback hider;

	ndrs_begin_hiding(&hider);

	/* What it appends may forbid what the rest allows. */
	if (version > GUARD_VERSION)
		ndrs_ereport(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the guard of table %s is of a later version of the extension than this session's library",
							ndrs_table_name(RelationGetRelid(rel))),
					 errhint("Connect again. If the server preloads the library, ask the database owner to restart it."),
					 ndrs_errtable(RelationGetRelid(rel)));
	nredacted = nregisters >= 1 && nregisters < nlisted ?
		atoi(args[TRIGGER_REGISTERS + nregisters]) : -1;
	if (version < 1 || nredacted < 0 || nredacted > nlisted - nregisters - 1)
		ndrs_ereport(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
					 errmsg("trigger \"%s\" was not made by guard_table()", trigger->tgname));

	outer = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	guard = palloc0(sizeof(Guard));
	guard->target = find_guarded(rel, trigger);
	guard->attnum = guarded_column(rel, args[TRIGGER_COLUMN]);
	set_type(guard, TupleDescAttr(RelationGetDescr(rel), guard->attnum - 1)->atttypid);
	guard->action[GUARD_EXCLUDED] = parse_action(args[TRIGGER_ON_MATCH]);
	guard->action[GUARD_MISSING] = parse_action(args[TRIGGER_ON_MISSING]);
	guard->action[GUARD_UNREADABLE] = parse_action(args[TRIGGER_ON_UNREADABLE]);

	/*
	 * A row that is moved here by an UPDATE has been deleted where it was.
	 * Where the parent has no guard to stop it there, leaving it out would
	 * lose it.
	 */
	if (get_rel_relispartition(guard->target))
	{
		for (int i = 0; i < lengthof(guard->action); i++)
		{
			if (guard->action[i] == GUARD_SKIP)
				guard->action[i] = GUARD_REJECT;
		}
	}

	for (int i = 0; i < lengthof(guard->action); i++)
		guard->skips = guard->skips || guard->action[i] == GUARD_SKIP;

	guard->nregisters = nregisters;
	guard->registers = palloc(nregisters * sizeof(ExclusionList *));
	for (int i = 0; i < nregisters; i++)
		guard->registers[i] = ndrs_exclusion_list(args[TRIGGER_REGISTERS + i]);

	/* The number itself and the columns named for it, then the encoded one */
	guard->nredacted = nredacted + 1;
	guard->changed = palloc((guard->nredacted + 1) * sizeof(int));
	guard->changed[0] = guard->attnum;
	for (int i = 1; i < guard->nredacted; i++)
		guard->changed[i] = guarded_column(rel, args[TRIGGER_REGISTERS + nregisters + i]);
	guard->nchanged = guard->nredacted;
	if (args[TRIGGER_ENCODED_COLUMN][0] != '\0')
		guard->changed[guard->nchanged++] = guarded_column(rel, args[TRIGGER_ENCODED_COLUMN]);
	MemoryContextSwitchTo(outer);

	ndrs_end_hiding(&hider);

	/* Only now: an error above must not leave half a policy behind. */
	fcinfo->flinfo->fn_extra = guard;
	return guard;
}

/*
 * The row as it enters: without the patient when it is redacted, the number and
 * what goes with it being NULL, and with the encoded number where it has a column.
 */
static HeapTuple
change(Guard *guard, HeapTuple tuple, TupleDesc desc, bool redacting,
	   const NhsNumber *number)
{
	EncodedNhsNumber encoded;
	int			first = redacting ? 0 : guard->nredacted;
	int			count = guard->nchanged - first;
	Datum	   *values;
	bool	   *nulls;

	if (count == 0)
		return tuple;
	values = palloc0(count * sizeof(Datum));
	nulls = palloc(count * sizeof(bool));
	memset(nulls, true, count * sizeof(bool));
	if (guard->nchanged > guard->nredacted && number != NULL)
	{
		ndrs_encode(*number, &encoded);
		values[count - 1] = PointerGetDatum(&encoded);
		nulls[count - 1] = false;
	}
	return heap_modify_tuple_by_cols(tuple, desc, count, guard->changed + first,
									 values, nulls);
}

/*
 * Is the row that enters this partition one that an UPDATE moves here?  It has been
 * deleted where it was.  The guard has seen it there, and let it go on; but a later
 * trigger of the table has changed its number.
 */
static pg_noinline bool
is_moved_here(Relation rel, Oid target)
{
	Relation	source;
	bool		result = false;

	if (updated.target != target || !rel->rd_rel->relispartition)
		return false;
	source = try_relation_open(updated.relid, AccessShareLock);
	if (source == NULL)
		return false;
	if (source->rd_rel->relkind == RELKIND_RELATION &&
		ItemPointerGetBlockNumber(&updated.tid) < RelationGetNumberOfBlocks(source))
	{
		TupleTableSlot *slot = table_slot_create(source, NULL);

		if (table_tuple_fetch_row_version(source, &updated.tid, SnapshotAny, slot) &&
			TTS_IS_BUFFERTUPLE(slot))
		{
			HeapTupleHeader header = ((HeapTupleTableSlot *) slot)->tuple->t_data;

			result = (header->t_infomask & HEAP_XMAX_INVALID) == 0 &&
				HeapTupleHeaderIndicatesMovedPartitions(header) &&
				TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(header));
		}
		ExecDropSingleTupleTableSlot(slot);
	}
	relation_close(source, NoLock);
	return result;
}

Datum
ndrs_optout_guard_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	bool		updating;
	bool		has_number;
	Guard	   *guard;
	GuardFinding finding;
	GuardAction action;
	NhsNumber	number;
	NhsNumberForm form;
	HeapTuple	tuple;
	Datum		value;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) ||
		!(TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) ||
		  TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event)))
		ndrs_ereport(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
					 errmsg("function \"%s\" must be called by a BEFORE ROW trigger for INSERT or UPDATE",
							"guard_row"));

	guard = fcinfo->flinfo->fn_extra;
	if (guard == NULL)
		guard = trigger_guard(fcinfo, trigdata);

	updating = TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event);
	tuple = updating ? trigdata->tg_newtuple : trigdata->tg_trigtuple;
	value = slot_getattr(updating ? trigdata->tg_newslot : trigdata->tg_trigslot,
						 guard->attnum, &isnull);
	finding = examine(guard, value, isnull, &number, &form);
	action = guard->action[finding];
	if (nspared > 0 && action != GUARD_REDACT &&
		spare(trigdata, guard->attnum, value, isnull))
		action = GUARD_ALLOW;

	if (updating && guard->skips)
	{
		updated.target = guard->target;
		updated.relid = RelationGetRelid(trigdata->tg_relation);
		updated.tid = trigdata->tg_trigtuple->t_self;
	}
	else if (updated.target == guard->target && action != GUARD_SKIP)
		updated.target = InvalidOid;

	switch (action)
	{
		case GUARD_ALLOW:
			has_number = form == NHS_NUMBER_VALID && !nhs_number_is_placeholder(number);
			if (finding != GUARD_NOT_EXCLUDED && !updating)
				ndrs_count_row(guard->target, finding, GUARD_ALLOW);
			tuple = change(guard, tuple, RelationGetDescr(trigdata->tg_relation), false,
						   has_number ? &number : NULL);
			break;
		case GUARD_REDACT:
			ndrs_count_row(guard->target, finding, GUARD_REDACT);
			tuple = change(guard, tuple, RelationGetDescr(trigdata->tg_relation), true, NULL);
			break;
		case GUARD_SKIP:

			/*
			 * Nothing returned for an UPDATE would keep the old row, and for
			 * one that has moved here would lose it.
			 */
			if (updating || is_moved_here(trigdata->tg_relation, guard->target))
				reject(finding, form, RelationGetRelid(trigdata->tg_relation));
			ndrs_count_row(guard->target, finding, GUARD_SKIP);
			return PointerGetDatum(NULL);
		case GUARD_REJECT:
			reject(finding, form, RelationGetRelid(trigdata->tg_relation));
			break;
	}
	return PointerGetDatum(tuple);
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
 * not a constant of the expression.
 */
static pg_noinline Guard *
make_expression_guard(FunctionCallInfo fcinfo, int value, bool acts)
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
	guard = palloc0(sizeof(Guard));
	set_type(guard, get_fn_expr_argtype(fcinfo->flinfo, value));
	set_registers(guard, PG_GETARG_ARRAYTYPE_P(value + 1));
	if (acts)
	{
		guard->action[GUARD_EXCLUDED] = GUARD_REJECT;
		guard->action[GUARD_MISSING] =
			parse_action(text_to_cstring(PG_GETARG_TEXT_PP(value + 2)));
		guard->action[GUARD_UNREADABLE] =
			parse_action(text_to_cstring(PG_GETARG_TEXT_PP(value + 3)));
	}
	MemoryContextSwitchTo(outer);
	ndrs_end_hiding(&hider);

	if (stable)
		fcinfo->flinfo->fn_extra = guard;
	return guard;
}

static inline Guard *
expression_guard(FunctionCallInfo fcinfo, int value, bool acts)
{
	Guard	   *guard = fcinfo->flinfo->fn_extra;

	return guard != NULL ? guard : make_expression_guard(fcinfo, value, acts);
}

/* Is the table the guarded one, a partition of it, or an inheritance child? */
static bool
is_part_of(Oid relid, Oid target)
{
	if (relid == target)
		return true;
	if (get_rel_relispartition(relid))
		return list_member_oid(get_partition_ancestors(relid), target);
	return OidIsValid(relid) && has_superclass(relid) &&
		list_member_oid(find_all_inheritors(target, NoLock, NULL), relid);
}

/*
 * May the role bring numbers into this column of the table, by a right of its own; or,
 * without a column, bring rows into the table or change some?
 */
static bool
may_write(Oid relid, const char *column)
{
	AttrNumber	attnum;

	if (pg_class_aclmask(relid, GetUserId(), ACL_INSERT | ACL_UPDATE, ACLMASK_ANY) != 0)
		return true;
	if (column == NULL)
		return pg_attribute_aclcheck_all(relid, GetUserId(), ACL_INSERT | ACL_UPDATE,
										 ACLMASK_ANY) == ACLCHECK_OK;
	attnum = get_attnum(relid, column);
	return attnum > 0 &&
		pg_attribute_aclcheck(relid, attnum, GetUserId(), ACL_INSERT | ACL_UPDATE) == ACLCHECK_OK;
}

/* The column that an argument of a constraint's function is, or NULL */
static Var *
argument_column(FmgrInfo *flinfo, int i)
{
	Node	   *node = NULL;

	if (flinfo->fn_expr != NULL && IsA(flinfo->fn_expr, FuncExpr))
		node = strip_implicit_coercions(list_nth(((FuncExpr *) flinfo->fn_expr)->args, i));
	return node != NULL && IsA(node, Var) ? (Var *) node : NULL;
}

/*
 * Are table and number those of one row, as in the constraint?  A caller that chooses
 * the number cannot take both from one scan of the table.
 */
static bool
asks_of_row(FmgrInfo *flinfo, Oid relid, const char *column)
{
	Var		   *table = argument_column(flinfo, 0);
	Var		   *number = argument_column(flinfo, 2);

	return table != NULL && number != NULL && table->varno == number->varno &&
		table->varattno == TableOidAttributeNumber &&
		number->varattno == get_attnum(relid, column);
}

/*
 * May the constraint answer for this table?  PUBLIC may execute it, and a role with a
 * duty can name it and choose the arguments.  So they must be those of a guard of the
 * table that is named, and the role must be one that may write to the guarded column of
 * it, or of the partition or a parent: it gets the same answer there.  A right to other
 * columns is enough for a row's own number.
 *
 * Through a view or a rule others write to it as well, with the rights of its owner.  A
 * role that cannot name the function has not called it, so the row is where it says
 * that it is.
 *
 * For the owner of the extension the guard need not be there: a restore may bring
 * partitions' rows before ours.
 */
static bool
may_answer(FunctionCallInfo fcinfo, Oid relid, Oid target)
{
	bool		is_part;
	List	   *columns = NIL;
	List	   *relids;
	ListCell   *lc;
	ListCell   *lcolumn;

	if (ndrs_owns_schema(get_namespace_oid(NDRS_SCHEMA, false)))
		return true;

	foreach(lc, ndrs_guard_policies(target))
	{
		GuardPolicy *policy = lfirst(lc);

		if (ndrs_guard_has_constraint(policy, PG_GETARG_ARRAYTYPE_P(3),
									  text_to_cstring(PG_GETARG_TEXT_PP(4)),
									  text_to_cstring(PG_GETARG_TEXT_PP(5)), PG_NARGS() > 6))
			columns = lappend(columns, policy->column);
	}
	if (columns == NIL)
		return false;

	is_part = is_part_of(relid, target);
	relids = list_make1_oid(target);
	if (is_part && relid != target)
		relids = lappend_oid(relids, relid);
	if (get_rel_relispartition(llast_oid(relids)))
		relids = list_concat(relids, get_partition_ancestors(llast_oid(relids)));
	foreach(lcolumn, columns)
	{
		const char *column = lfirst(lcolumn);

		if (is_part && asks_of_row(fcinfo->flinfo, relid, column))
			column = NULL;
		foreach(lc, relids)
		{
			if (may_write(lfirst_oid(lc), column))
				return true;
		}
	}
	return is_part && !ndrs_may_use_schema(get_namespace_oid(NDRS_SCHEMA, false));
}

static pg_noinline void
trust(FunctionCallInfo fcinfo, Guard *guard, Oid relid, Oid target)
{
	ErrorContextCallback hider;

	ndrs_begin_hiding(&hider);
	if (!may_answer(fcinfo, relid, target))
		ndrs_ereport(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied to ask the guard of table %s", ndrs_table_name(target)),
					 errdetail("The table has no such guard, or role \"%s\" may neither insert into the table nor update it.",
							   GetUserNameFromId(GetUserId(), false)),
					 errhint("Drop the constraint if CREATE TABLE ... LIKE has copied it."));
	ndrs_end_hiding(&hider);
	guard->trusted_table = relid;
}

/* Is an encoded column what it must be for this number, or for none? */
static bool
agrees(const NhsNumber *number, const EncodedNhsNumber *encoded)
{
	EncodedNhsNumber expected;

	if (number == NULL || encoded == NULL)
		return number == NULL && encoded == NULL;
	ndrs_encode(*number, &expected);
	return encoded_nhs_number_compare(&expected, encoded) == 0;
}

static const char *
argument_column_name(FmgrInfo *flinfo, int i, Oid relid)
{
	Var		   *column = argument_column(flinfo, i);

	return column == NULL ? "?" : get_attname(relid, column->varattno, false);
}

/*
 * Later screening by the encoded column trusts that it is the number's: not what a
 * loader wrote there, nor empty because a trigger was off.
 */
static void
misencoded(FmgrInfo *flinfo, Oid relid)
{
	const char *encoded_column = argument_column_name(flinfo, 6, relid);

	ndrs_ereport(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("column \"%s\" of table %s does not match the NHS number in column \"%s\"",
						encoded_column, ndrs_table_name(relid), argument_column_name(flinfo, 2, relid)),
				 errhint("Leave \"%s\" out of the row: the guard's trigger fills it, as long as it is enabled.",
						 encoded_column),
				 ndrs_errtable(relid));
}

/*
 * The constraint: true, or an error.  False would make the server print the row.
 *
 * A logical replication worker does not say which table it writes to; it has the
 * right to insert.
 */
Datum
ndrs_optout_guard_admits(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	Oid			target = PG_GETARG_OID(1);
	Guard	   *guard;
	GuardFinding finding;
	NhsNumber	number;
	NhsNumberForm form;

	/*
	 * A partition that was made after its parent was guarded has a validated
	 * constraint, which pg_dump brings before the data and our tables. Others
	 * than who restores are told that there is no key.
	 */
	if (ndrs_before_restore())
	{
		if (ndrs_owns_schema(get_namespace_oid(NDRS_SCHEMA, false)))
			PG_RETURN_BOOL(true);
		ndrs_encoding_ready();
	}

	guard = expression_guard(fcinfo, 2, true);
	if (relid != guard->trusted_table || !OidIsValid(relid))
		trust(fcinfo, guard, relid, target);

	finding = examine(guard, PG_GETARG_DATUM(2), PG_ARGISNULL(2), &number, &form);
	if (guard->action[finding] != GUARD_ALLOW && !was_spared(fcinfo, relid))
		reject(finding, form, OidIsValid(relid) ? relid : target);
	if (PG_NARGS() > 6 &&
		!agrees(form == NHS_NUMBER_VALID && !nhs_number_is_placeholder(number) ? &number : NULL,
				PG_ARGISNULL(6) ? NULL : (EncodedNhsNumber *) PG_GETARG_POINTER(6)))
		misencoded(fcinfo->flinfo, OidIsValid(relid) ? relid : target);
	PG_RETURN_BOOL(true);
}

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
		guard = expression_guard(fcinfo, 0, false);
	}
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_BOOL(examine(guard, PG_GETARG_DATUM(0), false, &number, &form) == GUARD_EXCLUDED);
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
		set_type(guard, get_fn_expr_argtype(fcinfo->flinfo, 0));
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
	PG_RETURN_BOOL(!agrees(has_number ? &number : NULL,
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
