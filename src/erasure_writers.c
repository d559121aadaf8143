/*
 * erasure_writers.c
 *		Waits for the writers that may have passed the guard.
 *
 * A writer checks the exclusion list after it has locked the table and keeps
 * the lock until its end.  So once an exclusion is committed and announced,
 * every transaction that may still bring in a row of the patient holds such a lock
 * now.  Waiting for these, as CREATE INDEX CONCURRENTLY does, is enough, and stops
 * no writer: one that comes later sees the exclusion.
 */
#include "postgres.h"

#include "catalog.h"
#include "catalog/pg_type.h"
#include "compat_lock.h"
#include "erasure_locks.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "privacy.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(ndrs_optout_wait_for_writers);

/*
 * Under which locks can rows have come into a table, or tables under it?
 *
 * A writer of rows holds ROW EXCLUSIVE, also besides a stronger lock.  Stronger ones
 * than SHARE are those of commands that can make numbers anew (ALTER TYPE USING), let
 * another table take this one's place, or add a foreign key.  SHARE UPDATE EXCLUSIVE is
 * what ANALYZE, VACUUM, VALIDATE CONSTRAINT, and CREATE INDEX and REPACK CONCURRENTLY
 * hold, for hours maybe, and bring nothing.  But ATTACH PARTITION, INHERIT and CREATE
 * TABLE PARTITION OF hold it as well, on the parent, and ACCESS EXCLUSIVE on the table
 * that comes under it.
 */
#define WRITERS_CONFLICT	ShareLock	/* with all of these */
#define STRONG_LOCKS \
	(LOCKBIT_ON(ShareRowExclusiveLock) | LOCKBIT_ON(ExclusiveLock) | \
	 LOCKBIT_ON(AccessExclusiveLock))

typedef struct Writer
{
	VirtualTransactionId vxid;
	const char *table;			/* one of those that it is writing to */
	bool		writes;			/* or else changes what the table is */
} Writer;

/*
 * The locks that a transaction has on a table.  Does it have ACCESS EXCLUSIVE on
 * another one, and is it an erasure?
 */
static LOCKMASK
locks_of(const LockData *all, VirtualTransactionId vxid, Oid relid, bool *takes_in,
		 bool *erases)
{
	LOCKMASK	result = 0;
	LOCKTAG		erasure;

	ndrs_set_erasure_lock_tag(&erasure);
	*takes_in = false;
	*erases = false;
	for (int i = 0; i < all->nelements; i++)
	{
		const LockInstanceData *lock = &all->locks[i];
		VirtualTransactionId holder = ndrs_lock_holder(lock);

		if (!VirtualTransactionIdEquals(holder, vxid))
			continue;
		if (memcmp(&lock->locktag, &erasure, sizeof(LOCKTAG)) == 0)
			*erases = lock->holdMask != 0;
		if (lock->locktag.locktag_type != LOCKTAG_RELATION ||
			lock->locktag.locktag_field1 != MyDatabaseId)
			continue;
		if (lock->locktag.locktag_field2 == relid)
			result |= lock->holdMask;
		else if (lock->holdMask & LOCKBIT_ON(AccessExclusiveLock))
			*takes_in = true;
	}
	return result;
}

/*
 * Add the transactions that are writing to a table.  When there is such a
 * transaction, all locks are looked at, once for all tables: what begins after that
 * meets the exclusion.
 */
static List *
add_writers(List *writers, Oid relid, bool erasing, LockData **all)
{
	VirtualTransactionId *vxid;
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	vxid = GetLockConflicts(&tag, WRITERS_CONFLICT, NULL);
	for (; VirtualTransactionIdIsValid(*vxid); vxid++)
	{
		PGPROC	   *proc = ndrs_vxid_proc(*vxid);
		Writer	   *writer;
		LOCKMASK	locks;
		bool		takes_in;
		bool		erases;

		if (proc != NULL && ((proc->statusFlags & PROC_IN_VACUUM) != 0 ||
							 ndrs_is_repacking(proc, relid)))
			continue;
		if (*all == NULL)
			*all = GetLockStatusData();
		locks = locks_of(*all, *vxid, relid, &takes_in, &erases);
		if (erasing && erases)
			continue;
		if ((locks & (LOCKBIT_ON(RowExclusiveLock) | STRONG_LOCKS)) == 0 &&
			!((locks & LOCKBIT_ON(ShareUpdateExclusiveLock)) && takes_in))
			continue;
		writer = palloc(sizeof(Writer));
		writer->vxid = *vxid;
		writer->table = ndrs_table_name(relid);
		writer->writes = (locks & LOCKBIT_ON(RowExclusiveLock)) != 0;
		writers = lappend(writers, writer);
	}
	return writers;
}

/*
 * Sentences on the writers from this one on.
 */
static char *
describe_writers(List *writers, int first)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = first; i < list_length(writers); i++)
	{
		Writer	   *writer = list_nth(writers, i);
		PGPROC	   *proc = ndrs_vxid_proc(writer->vxid);

		if (buf.len > 0)
			appendStringInfoChar(&buf, '\n');
		if (proc != NULL && proc->pid != 0)
			appendStringInfo(&buf,
							 writer->writes ? "Process %d is writing to table %s." :
							 "Process %d is changing what belongs to table %s.",
							 proc->pid, writer->table);
		else
			appendStringInfo(&buf,
							 writer->writes ? "A prepared transaction is writing to table %s; see pg_prepared_xacts." :
							 "A prepared transaction is changing what belongs to table %s; see pg_prepared_xacts.",
							 writer->table);
	}
	return buf.data;
}

/*
 * Wait for each of the writers to end.
 */
static void
wait_for(List *writers, bool erasing)
{
	MemoryContext outer = CurrentMemoryContext;

	for (volatile int i = 0; i < list_length(writers); i++)
	{
		Writer	   *writer = list_nth(writers, i);

		PG_TRY();
		{
			VirtualXactLock(writer->vxid, true);
		}
		PG_CATCH();
		{
			ErrorData  *error;

			MemoryContextSwitchTo(outer);
			error = CopyErrorData();
			if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
				PG_RE_THROW();
			FlushErrorState();
			ndrs_ereport(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
						 erasing ? errmsg("lock timeout while waiting for transactions that may refer to erased rows without an enforced foreign key") :
						 errmsg("lock timeout while waiting for transactions that began to write before the patient was excluded"),
						 errdetail_internal("%s", describe_writers(writers, i)),
						 erasing ? errhint("Nothing was erased. Erase again, or call ndrs_optout.carry_out() for the case again, when these transactions have ended.") :
						 errhint("The patient stays excluded. Call ndrs_optout.carry_out() for the case again when these transactions have ended."));
		}
		PG_END_TRY();
	}
}

/*
 * Wait until every transaction that is writing to one of these tables, or is
 * prepared and will, has ended.
 *
 * First for the writers of the exclusion list itself: the backend that
 * committed the exclusion announces it after the commit is visible and before
 * it gives up its locks.  When another backend carries the case on, a writer
 * could begin between the two and pass the guard with the old list.
 *
 * "erasing": for an erasure that has deleted rows and counts again.  Another erasure
 * brings nothing in, and would wait for this one.
 */
Datum
ndrs_optout_wait_for_writers(PG_FUNCTION_ARGS)
{
	ArrayType  *relations = PG_GETARG_ARRAYTYPE_P(0);
	bool		erasing = PG_GETARG_BOOL(1);
	List	   *writers = NIL;
	LockData   *all = NULL;
	Datum	   *relids;
	bool	   *nulls;
	int			nrelids;

	if (!erasing)
		wait_for(add_writers(NIL, ndrs_relation("exclusion", false), false, &all), false);
	all = NULL;

	deconstruct_array(relations, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT,
					  &relids, &nulls, &nrelids);
	for (int i = 0; i < nrelids; i++)
	{
		/* A table that was dropped since has none. */
		if (!nulls[i])
			writers = add_writers(writers, DatumGetObjectId(relids[i]), erasing, &all);
	}

	if (writers != NIL)
		ereport(NOTICE,
				(erasing ? errmsg("waiting for transactions that may refer to erased rows without an enforced foreign key") :
				 errmsg("waiting for transactions that began to write before the patient was excluded"),
				 errdetail_internal("%s", describe_writers(writers, 0)),
				 errhidestmt(true),
				 errhidecontext(true)));
	wait_for(writers, erasing);

	PG_RETURN_VOID();
}
