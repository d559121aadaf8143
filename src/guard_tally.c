/*
 * guard_tally.c
 *		Counts what guards reject, skip, redact, or let in without a readable number.
 *
 * What is skipped, redacted or let in is counted in the transaction that does it, and goes
 * with it.  A rejection ends its transaction, so it is counted in the session's memory.  The
 * next transaction that writes takes the count along, or a transaction of its own at the
 * end of the session.  A crash loses it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/parallel.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog.h"
#include "catalog/indexing.h"
#include "guard_tally.h"
#include "privacy.h"
#include "replication/logicalworker.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

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

/* Rows rejected in this session and not yet in guard_tally, by any transaction */
typedef struct Refusal
{
	Oid			target;
	GuardFinding finding;
	DateADT		day;
	int64		rows;
	int64		written;		/* of these, by this transaction */
} Refusal;

/* More kinds between two transactions that write are not counted. */
#define MAX_REFUSALS	256

static Refusal refusals[MAX_REFUSALS];
static int	nrefusals = 0;

static void write_refusals_at_exit(int code, Datum arg);

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
 * Remember a row that is about to be an error.  Nothing here may fail.
 *
 * An apply worker tries a refused change again every few seconds, as long as it is not
 * skipped or the subscription disabled, so its refusals count nothing but time.
 */
void
ndrs_count_refusal(Oid target, GuardFinding finding)
{
	static bool registered = false;
	DateADT		day = GetSQLCurrentDate();
	Refusal    *refusal = NULL;

	if (IsLogicalWorker() || IsParallelWorker())
		return;
	for (int i = 0; i < nrefusals && refusal == NULL; i++)
	{
		if (refusals[i].target == target && refusals[i].finding == finding &&
			refusals[i].day == day)
			refusal = &refusals[i];
	}
	if (refusal == NULL)
	{
		if (nrefusals == MAX_REFUSALS)
			return;
		refusal = &refusals[nrefusals++];
		refusal->target = target;
		refusal->finding = finding;
		refusal->day = day;
		refusal->rows = 0;
		refusal->written = 0;
	}
	refusal->rows++;

	/* Not in _PG_init(): a backend keeps none of the postmaster's callbacks. */
	if (!registered)
	{
		registered = true;
		before_shmem_exit(write_refusals_at_exit, (Datum) 0);
	}
}

/*
 * The first column of a later version that has no NULL.  Ours are NULL in all of these.
 */
static Form_pg_attribute
unknown_column(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	for (int i = TALLY_COLUMNS; i < desc->natts; i++)
	{
		if (!TupleDescAttr(desc, i)->attisdropped && TupleDescAttr(desc, i)->attnotnull)
			return TupleDescAttr(desc, i);
	}
	return NULL;
}

static void
check_table(Relation rel)
{
	Form_pg_attribute unknown;

	ndrs_check_columns(rel, tally_columns, lengthof(tally_columns));
	unknown = unknown_column(rel);
	if (unknown != NULL)
		ndrs_refuse_column(rel, psprintf("Column \"%s\" must not be NOT NULL.",
										 NameStr(unknown->attname)));
}

/*
 * Append a count to guard_tally.  Rows are only ever added there (view
 * guard_count sums them), so no loader waits for another.  Not through SPI: the
 * inserting role has no rights on the table.  The insertion does what is needed
 * for a table without constraints, expression indexes and triggers.
 */
static void
write_row(Relation rel, Oid target, DateADT day, GuardFinding finding, GuardAction action,
		  int64 rows)
{
	int			natts = RelationGetDescr(rel)->natts;
	Datum	   *values = palloc0(natts * sizeof(Datum));
	bool	   *nulls = palloc(natts * sizeof(bool));
	HeapTuple	tuple;

	memset(nulls, true, natts * sizeof(bool));
	memset(nulls, false, TALLY_COLUMNS * sizeof(bool));
	values[TALLY_TARGET] = ObjectIdGetDatum(target);
	values[TALLY_DAY] = DateADTGetDatum(day);
	values[TALLY_FINDING] = CStringGetTextDatum(finding_words[finding]);
	values[TALLY_ACTION] = CStringGetTextDatum(ndrs_action_words[action]);
	values[TALLY_ROWS] = Int64GetDatum(rows);
	values[TALLY_ID] = DirectFunctionCall1(gen_random_uuid, (Datum) 0);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	/* No statement's snapshot is active any more, and a text may need one. */
	PushActiveSnapshot(GetTransactionSnapshot());
	CatalogTupleInsert(rel, tuple);
	PopActiveSnapshot();
	heap_freetuple(tuple);
}

static void
write_tallies(void)
{
	/* The extension may have been dropped since; that must not stop a commit. */
	Oid			relid = ndrs_relation("guard_tally", true);
	Relation	rel = OidIsValid(relid) ? try_table_open(relid, RowExclusiveLock) : NULL;
	ListCell   *lc;

	if (rel != NULL)
	{
		check_table(rel);
		foreach(lc, tallies)
		{
			Tally	   *tally = lfirst(lc);

			write_row(rel, tally->target, GetSQLCurrentDate(), tally->finding, tally->action,
					  tally->rows);
		}
		table_close(rel, RowExclusiveLock);
	}
	tallies = NIL;
}

/*
 * Append the refusals to guard_tally.  The transaction is another one than theirs, so it
 * must neither fail for them nor wait.  Where the table is locked, they are kept for the next one.
 */
static void
write_refusals(void)
{
	Oid			relid = ndrs_relation("guard_tally", true);
	Relation	rel;

	if (!OidIsValid(relid))
	{
		nrefusals = 0;
		return;
	}
	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
		return;
	rel = try_table_open(relid, NoLock);
	if (rel == NULL)
		return;
	if (ndrs_unfit_column(rel, tally_columns, lengthof(tally_columns)) == NULL &&
		unknown_column(rel) == NULL)
	{
		for (int i = 0; i < nrefusals; i++)
		{
			Refusal    *refusal = &refusals[i];

			/*
			 * The end of the session has written all when its commit comes
			 * here.  The table may be gone, or never have been committed.
			 */
			if (refusal->written < refusal->rows &&
				SearchSysCacheExists1(RELOID, ObjectIdGetDatum(refusal->target)))
				write_row(rel, refusal->target, refusal->day, refusal->finding, GUARD_REJECT,
						  refusal->rows - refusal->written);
			refusal->written = refusal->rows;
		}
	}
	table_close(rel, NoLock);
}

/*
 * The transaction that wrote the refusals is over.  If it failed, they are still to be
 * written.
 */
static void
forget_refusals(bool committed)
{
	int			kept = 0;

	for (int i = 0; i < nrefusals; i++)
	{
		if (committed)
			refusals[i].rows -= refusals[i].written;
		refusals[i].written = 0;
		if (refusals[i].rows > 0)
			refusals[kept++] = refusals[i];
	}
	nrefusals = kept;
}

/*
 * May this transaction take the refusals along?  It is theirs to do only where it has an
 * xid: another one would get one by it, and wait for a synchronous standby.  One with
 * flags, such as VACUUM's, is not in the snapshots of others, so it may not write rows.
 */
static bool
carries_refusals(void)
{
	return nrefusals > 0 && TransactionIdIsValid(GetTopTransactionIdIfAny()) &&
		!XactReadOnly && MyProc->statusFlags == 0;
}

/*
 * The end of a session whose last word was a refusal, as of most loads that fail: as the
 * server removes a session's temporary tables (RemoveTempRelationsCallback()).
 *
 * An error would be FATAL here, whatever would catch it, and only one more entry in the
 * log of a session that ends.  Nothing that could be a matter of course is one: a standby and a read-only
 * database are left alone, a lock is not waited for.  Nor is a standby or the disk, for
 * nothing could interrupt that.
 */
static void
write_refusals_at_exit(int code, Datum arg)
{
	if (nrefusals == 0)
		return;
	AbortOutOfAnyTransaction();
	StartTransactionCommand();
	if (!XactReadOnly)
	{
		XactIsoLevel = XACT_READ_COMMITTED;
		synchronous_commit = SYNCHRONOUS_COMMIT_OFF;
		write_refusals();
	}
	CommitTransactionCommand();
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
			/* A prepared transaction may be rolled back long afterwards. */
			if (event == XACT_EVENT_PRE_COMMIT && carries_refusals())
			{
				ErrorContextCallback hider;

				ndrs_begin_hiding(&hider);
				write_refusals();
				ndrs_end_hiding(&hider);
			}
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			tallies = NIL;
			forget_refusals(event == XACT_EVENT_COMMIT);
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
