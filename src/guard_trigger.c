/*
 * guard_trigger.c
 *		The trigger of a guard.
 *
 * It (BEFORE ROW, ENABLE ALWAYS) rejects, skips or redacts the row of a patient who is
 * excluded from the guard's registers.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "commands/trigger.h"
#include "encoding.h"
#include "fmgr.h"
#include "guard_decision.h"
#include "guard_erasure.h"
#include "guard_policy.h"
#include "guard_tally.h"
#include "nodes/pg_list.h"
#include "privacy.h"
#include "storage/bufmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(ndrs_optout_guard_row);

typedef struct TriggerGuard
{
	Guard		decision;
	AttrNumber	attnum;
	bool		skips;			/* one of the findings, at least */
	Oid			target;			/* what rows are counted for */
	int			nredacted;		/* columns that become NULL in a redaction, */
	int			nchanged;		/* and the encoded column, if there is one */
	int		   *changed;
} TriggerGuard;

/* The last row that a guard that skips has seen an UPDATE of */
static struct
{
	Oid			target;
	Oid			relid;
	ItemPointerData tid;
}			updated;

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
static pg_noinline TriggerGuard *
trigger_guard(FunctionCallInfo fcinfo, TriggerData *trigdata)
{
	Trigger    *trigger = trigdata->tg_trigger;
	Relation	rel = trigdata->tg_relation;
	int			nlisted = trigger->tgnargs - TRIGGER_REGISTERS;
	int			version = nlisted > 0 ? atoi(trigger->tgargs[TRIGGER_VERSION]) : 0;
	int			nregisters = nlisted > 0 ? atoi(trigger->tgargs[TRIGGER_NREGISTERS]) : 0;
	int			nredacted;
	MemoryContext outer;
	TriggerGuard *guard;
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
					 errmsg("trigger \"%s\" of table %s was not made by guard_table()",
							trigger->tgname, ndrs_table_name(RelationGetRelid(rel))));

	outer = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	guard = palloc0(sizeof(TriggerGuard));
	guard->target = find_guarded(rel, trigger);
	guard->attnum = guarded_column(rel, args[TRIGGER_COLUMN]);
	ndrs_guard_set_type(&guard->decision, TupleDescAttr(RelationGetDescr(rel), guard->attnum - 1)->atttypid);
	guard->decision.action[GUARD_EXCLUDED] = ndrs_guard_parse_action(args[TRIGGER_ON_MATCH]);
	guard->decision.action[GUARD_MISSING] = ndrs_guard_parse_action(args[TRIGGER_ON_MISSING]);
	guard->decision.action[GUARD_UNREADABLE] = ndrs_guard_parse_action(args[TRIGGER_ON_UNREADABLE]);

	/*
	 * A row that is moved here by an UPDATE has been deleted where it was.
	 * Where the parent has no guard to stop it there, leaving it out would
	 * lose it.
	 */
	if (get_rel_relispartition(guard->target))
	{
		for (int i = 0; i < lengthof(guard->decision.action); i++)
		{
			if (guard->decision.action[i] == GUARD_SKIP)
				guard->decision.action[i] = GUARD_REJECT;
		}
	}

	for (int i = 0; i < lengthof(guard->decision.action); i++)
		guard->skips = guard->skips || guard->decision.action[i] == GUARD_SKIP;

	guard->decision.nregisters = nregisters;
	guard->decision.registers = palloc(nregisters * sizeof(ExclusionList *));
	for (int i = 0; i < nregisters; i++)
		guard->decision.registers[i] = ndrs_exclusion_list(args[TRIGGER_REGISTERS + i]);

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
changed_row(TriggerGuard *guard, HeapTuple tuple, TupleDesc desc, bool redacting,
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

pg_noreturn static void reject(TriggerGuard *guard, GuardFinding finding, NhsNumberForm form,
							   Relation rel);

static void
reject(TriggerGuard *guard, GuardFinding finding, NhsNumberForm form, Relation rel)
{
	ndrs_count_refusal(guard->target, finding);
	ndrs_guard_reject(finding, form, RelationGetRelid(rel));
}

Datum
ndrs_optout_guard_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	bool		updating;
	bool		has_number;
	TriggerGuard *guard;
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
	finding = ndrs_guard_examine(&guard->decision, value, isnull, &number, &form);
	action = guard->decision.action[finding];
	if (ndrs_erased_tables.nrelids > 0 && action != GUARD_REDACT &&
		ndrs_guard_update_passes(trigdata, guard->attnum, value, isnull))
		action = GUARD_ALLOW;

	if (updating && (guard->skips || ndrs_erased_tables.changing))
	{
		updated.target = guard->target;
		updated.relid = RelationGetRelid(trigdata->tg_relation);
		updated.tid = trigdata->tg_trigtuple->t_self;
	}
	else if (updated.target == guard->target && action != GUARD_SKIP && action != GUARD_REJECT)
		updated.target = InvalidOid;

	switch (action)
	{
		case GUARD_ALLOW:
			has_number = form == NHS_NUMBER_VALID && !nhs_number_is_placeholder(number);
			if (finding != GUARD_NOT_EXCLUDED && !updating)
				ndrs_count_row(guard->target, finding, GUARD_ALLOW);
			tuple = changed_row(guard, tuple, RelationGetDescr(trigdata->tg_relation), false,
								has_number ? &number : NULL);
			break;
		case GUARD_REDACT:
			ndrs_count_row(guard->target, finding, GUARD_REDACT);
			tuple = changed_row(guard, tuple, RelationGetDescr(trigdata->tg_relation), true, NULL);
			break;
		case GUARD_SKIP:

			/*
			 * Nothing returned for an UPDATE would keep the old row, and for
			 * one that has moved here would lose it.
			 */
			if (updating || is_moved_here(trigdata->tg_relation, guard->target))
				reject(guard, finding, form, trigdata->tg_relation);
			ndrs_count_row(guard->target, finding, GUARD_SKIP);
			return PointerGetDatum(NULL);
		case GUARD_REJECT:

			/*
			 * A trigger that copies a row while it is erased does not keep
			 * the erasure from it: the copy is left out.  A partition that is
			 * guarded alone cannot leave out a row that moves here.
			 */
			if (ndrs_erased_tables.changing && finding == GUARD_EXCLUDED && !updating &&
				!get_rel_relispartition(guard->target) &&
				!is_moved_here(trigdata->tg_relation, guard->target))
			{
				ndrs_count_row(guard->target, finding, GUARD_SKIP);
				return PointerGetDatum(NULL);
			}
			reject(guard, finding, form, trigdata->tg_relation);
			break;
	}
	return PointerGetDatum(tuple);
}
