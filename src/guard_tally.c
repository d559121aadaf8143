/*
 * guard_tally.c
 *		Counts what guards skip, redact, or let in without a readable number.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog.h"
#include "catalog/indexing.h"
#include "guard_tally.h"
#include "privacy.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

static const char *const finding_words[] = {
	[GUARD_NOT_EXCLUDED] = "not_excluded",
	[GUARD_EXCLUDED] = "excluded",
	[GUARD_MISSING] = "missing",
	[GUARD_UNREADABLE] = "unreadable",
};

/* Rows counted in this transaction and not yet written to guard_tally */
typedef struct Tally
{
	Oid			target;
	GuardFinding finding;
	GuardAction action;
	int			nest_level;		/* subtransaction that did it */
	int64		rows;
} Tally;

static List *tallies = NIL;		/* in TopTransactionContext */

/* Columns of table guard_tally */
enum
{
	TALLY_TARGET,
	TALLY_DAY,
	TALLY_FINDING,
	TALLY_ACTION,
	TALLY_ROWS,
	TALLY_ID,
	TALLY_COLUMNS
};

static const NdrsColumn tally_columns[] = {
	{TALLY_TARGET + 1, "target", "regclass", false},
	{TALLY_DAY + 1, "day", "date", false},
	{TALLY_FINDING + 1, "finding", "text", false},
	{TALLY_ACTION + 1, "action", "text", false},
	{TALLY_ROWS + 1, "rows", "int8", false},
	{TALLY_ID + 1, "tally_id", "uuid", false}
};

static Tally *
find_tally(Oid target, GuardFinding finding, GuardAction action, int nest_level)
{
	ListCell   *lc;

	foreach(lc, tallies)
	{
		Tally	   *tally = lfirst(lc);

		if (tally->target == target && tally->finding == finding &&
			tally->action == action && tally->nest_level == nest_level)
			return tally;
	}
	return NULL;
}

/*
 * Count a row that was skipped or redacted, or allowed without a readable
 * number.  Written at commit: a counter row that is updated per
 * statement would make loaders wait for each other, and a logical replication
 * worker fires no statement triggers to do it in.
 */
void
ndrs_count_row(Oid target, GuardFinding finding, GuardAction action)
{
	int			nest_level = GetCurrentTransactionNestLevel();
	Tally	   *tally = find_tally(target, finding, action, nest_level);

	if (tally == NULL)
	{
		MemoryContext outer = MemoryContextSwitchTo(TopTransactionContext);

		tally = palloc(sizeof(Tally));
		tally->target = target;
		tally->finding = finding;
		tally->action = action;
		tally->nest_level = nest_level;
		tally->rows = 0;
		tallies = lappend(tallies, tally);
		MemoryContextSwitchTo(outer);
	}
	tally->rows++;
}

/*
 * The table may have columns of a later version, which are NULL in our rows.
 */
static void
check_table(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	ndrs_check_columns(rel, tally_columns, lengthof(tally_columns));
	for (int i = TALLY_COLUMNS; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped && TupleDescAttr(desc, i)->attnotnull)
			ndrs_refuse_column(rel, psprintf("Column \"%s\" must not be NOT NULL.",
											 NameStr(TupleDescAttr(desc, i)->attname)));
	}
}

/*
 * Append the counts to guard_tally.  Rows are only ever added there (view
 * guard_count sums them), so no loader waits for another.  Not through SPI: the
 * inserting role has no rights on the table.  The insertion does what is needed
 * for a table without constraints, expression indexes and triggers.
 */
static void
write_tallies(void)
{
	Oid			relid;
	Relation	rel;
	Datum	   *values;
	bool	   *nulls;
	ListCell   *lc;

	/* The extension may have been dropped since; that must not stop a commit. */
	relid = ndrs_relation("guard_tally", true);
	rel = OidIsValid(relid) ? try_table_open(relid, RowExclusiveLock) : NULL;
	if (rel == NULL)
	{
		tallies = NIL;
		return;
	}

	check_table(rel);
	values = palloc0(RelationGetDescr(rel)->natts * sizeof(Datum));
	nulls = palloc(RelationGetDescr(rel)->natts * sizeof(bool));
	memset(nulls, true, RelationGetDescr(rel)->natts * sizeof(bool));
	memset(nulls, false, TALLY_COLUMNS * sizeof(bool));

	/* No statement's snapshot is active any more, and a text may need one. */
	PushActiveSnapshot(GetTransactionSnapshot());
	foreach(lc, tallies)
	{
		Tally	   *tally = lfirst(lc);
		HeapTuple	tuple;

		values[TALLY_TARGET] = ObjectIdGetDatum(tally->target);
		values[TALLY_DAY] = DateADTGetDatum(GetSQLCurrentDate());
		values[TALLY_FINDING] = CStringGetTextDatum(finding_words[tally->finding]);
		values[TALLY_ACTION] = CStringGetTextDatum(ndrs_action_words[tally->action]);
		values[TALLY_ROWS] = Int64GetDatum(tally->rows);
		values[TALLY_ID] = DirectFunctionCall1(gen_random_uuid, (Datum) 0);
		tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
		CatalogTupleInsert(rel, tuple);
		heap_freetuple(tuple);
	}
	PopActiveSnapshot();
	table_close(rel, RowExclusiveLock);
	tallies = NIL;
}

static void
guard_tally_transaction_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			if (tallies != NIL)
			{
				ErrorContextCallback hider;

				/*
				 * The statement that brought the rows may be the one that
				 * commits.
				 */
				ndrs_begin_hiding(&hider);
				write_tallies();
				ndrs_end_hiding(&hider);
			}
			break;
		case XACT_EVENT_ABORT:
			tallies = NIL;
			break;
		default:
			break;
	}
}

/*
 * Rows skipped in a subtransaction that aborts were not skipped by anything
 * that stays; those of one that commits are its parent's.
 */
static void
guard_tally_subtransaction_callback(SubXactEvent event, SubTransactionId my_subid,
									SubTransactionId parent_subid, void *arg)
{
	int			nest_level = GetCurrentTransactionNestLevel();
	ListCell   *lc;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;

	foreach(lc, tallies)
	{
		Tally	   *tally = lfirst(lc);
		Tally	   *parents;

		if (tally->nest_level < nest_level)
			continue;
		if (event == SUBXACT_EVENT_COMMIT_SUB)
		{
			parents = find_tally(tally->target, tally->finding, tally->action,
								 nest_level - 1);
			if (parents == NULL)
			{
				tally->nest_level = nest_level - 1;
				continue;
			}
			parents->rows += tally->rows;
		}
		tallies = foreach_delete_current(tallies, lc);
		pfree(tally);
	}
}

void
ndrs_guard_tally_init(void)
{
	RegisterXactCallback(guard_tally_transaction_callback, NULL);
	RegisterSubXactCallback(guard_tally_subtransaction_callback, NULL);
}
