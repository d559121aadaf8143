/*
 * erasure.c
 *		Waiting for the writers that may have passed the guard.
 *
 * A writer checks the exclusion list after it has locked the table and keeps
 * the lock until its end.  So once an exclusion is committed and announced,
 * whoever may still bring in a row of the patient holds such a lock now.
 * Waiting for these, as CREATE INDEX CONCURRENTLY does, is enough, and stops
 * nobody: a writer that comes later sees the exclusion.
 */
#include "ndrs_optout.h"

#include "catalog/pg_type.h"
#include "compat.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(ndrs_optout_wait_for_writers);

/* Conflicts with every lock under which rows are written */
#define WRITERS_CONFLICT	ShareLock

/* Names are looked up before the wait: not in a transaction that failed */
typedef struct WrittenTable
{
	LOCKTAG		tag;
	char	   *name;
} WrittenTable;

/*
 * A sentence for each table and transaction that is being waited for.
 */
static char *
describe_writers(WrittenTable *tables, int ntables)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < ntables; i++)
	{
		VirtualTransactionId *holder;

		holder = GetLockConflicts(&tables[i].tag, WRITERS_CONFLICT, NULL);
		for (; VirtualTransactionIdIsValid(*holder); holder++)
		{
			PGPROC	   *proc;

			if (buf.len > 0)
				appendStringInfoChar(&buf, '\n');
			if (VirtualTransactionIdIsRecoveredPreparedXact(*holder))
				appendStringInfo(&buf, "Prepared transaction %u is writing to table \"%s\".",
								 holder->localTransactionId, tables[i].name);
			else if ((proc = ndrs_vxid_proc(*holder)) != NULL && proc->pid != 0)
				appendStringInfo(&buf, "Process %d is writing to table \"%s\".",
								 proc->pid, tables[i].name);
			else
				appendStringInfo(&buf, "A prepared transaction is writing to table \"%s\".",
								 tables[i].name);
		}
	}
	return buf.data;
}

/*
 * Wait until every transaction that is writing to one of these tables, or is
 * prepared and will, has ended.
 *
 * First for the writers of the exclusion list itself: the backend that
 * committed the exclusion announces it after the commit is visible and before
 * it gives up its locks.  When another backend carries the case on, a writer
 * could begin between the two and pass the guard with the old list.
 */
Datum
ndrs_optout_wait_for_writers(PG_FUNCTION_ARGS)
{
	ArrayType  *relations = PG_GETARG_ARRAYTYPE_P(0);
	MemoryContext outer = CurrentMemoryContext;
	WrittenTable *tables;
	List	   *tags = NIL;
	LOCKTAG		list_tag;
	Datum	   *relids;
	bool	   *nulls;
	int			nrelids;
	int			ntables = 0;
	char	   *writers;

	deconstruct_array(relations, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT,
					  &relids, &nulls, &nrelids);
	tables = palloc(nrelids * sizeof(WrittenTable));
	for (int i = 0; i < nrelids; i++)
	{
		char	   *name = nulls[i] ? NULL : get_rel_name(DatumGetObjectId(relids[i]));

		/* A table that was dropped meanwhile has no writers. */
		if (name == NULL)
			continue;
		tables[ntables].name = name;
		SET_LOCKTAG_RELATION(tables[ntables].tag, MyDatabaseId,
							 DatumGetObjectId(relids[i]));
		tags = lappend(tags, &tables[ntables].tag);
		ntables++;
	}
	SET_LOCKTAG_RELATION(list_tag, MyDatabaseId, ndrs_relation("exclusion"));

	PG_TRY();
	{
		WaitForLockers(list_tag, WRITERS_CONFLICT, false);

		writers = describe_writers(tables, ntables);
		if (writers[0] != '\0')
			ereport(NOTICE,
					(errmsg("waiting for transactions that began to write before the patient was excluded"),
					 errdetail_internal("%s", writers)));
		WaitForLockersMultiple(tags, WRITERS_CONFLICT, false);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(outer);
		error = CopyErrorData();
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("lock timeout while waiting for transactions that began to write before the patient was excluded"),
				 errdetail_internal("%s", describe_writers(tables, ntables)),
				 errhint("The patient stays excluded. Call ndrs_optout.carry_out() for the case again when these transactions have ended.")));
	}
	PG_END_TRY();

	PG_RETURN_VOID();
}
