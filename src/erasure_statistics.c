/*
 * erasure_statistics.c
 *		The planner's statistics of a table from which rows were erased.
 *
 * Statistics hold values of the rows that they were made from, and pg_stats shows
 * them to every role that may read the column.  ANALYZE alone leaves them where it finds
 * no rows, where a column's target is 0, and for a kind of extended statistics that it
 * cannot make any more.  So they are removed first, and made anew in the same
 * transaction, so that the planner never goes without.
 *
 * Both are done under the lock of ANALYZE: one that read the rows before they were
 * erased has ended, and one that begins later does not read them.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/xact.h"
#include "catalog/heap.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "commands/vacuum.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "privacy.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(ndrs_optout_remove_statistics);
PG_FUNCTION_INFO_V1(ndrs_optout_make_statistics);

/*
 * Remove all statistics of a table: of its columns, with those of its partitions and
 * children, of the expressions of its indexes, and extended ones.  Tells what became
 * of it: "removed", "locked" when another session has a lock that excludes ANALYZE, or
 * "gone" when there is no such table.  "wait": for that lock, as long as lock_timeout permits,
 * which makes an autovacuum give way.
 */
Datum
ndrs_optout_remove_statistics(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	bool		wait = PG_GETARG_BOOL(1);
	Relation	rel;
	ListCell   *cell;

	if (wait)
		LockRelationOid(relid, ShareUpdateExclusiveLock);
	else if (!ConditionalLockRelationOid(relid, ShareUpdateExclusiveLock))
		PG_RETURN_TEXT_P(cstring_to_text("locked"));
	rel = try_relation_open(relid, NoLock);
	if (rel == NULL)
		PG_RETURN_TEXT_P(cstring_to_text("gone"));
	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE &&
		rel->rd_rel->relkind != RELKIND_FOREIGN_TABLE)
	{
		/* The number went to something else since. */
		relation_close(rel, NoLock);
		PG_RETURN_TEXT_P(cstring_to_text("gone"));
	}

	RemoveStatistics(relid, 0);
	foreach(cell, RelationGetIndexList(rel))
		RemoveStatistics(lfirst_oid(cell), 0);
	foreach(cell, RelationGetStatExtList(rel))
	{
		RemoveStatisticsDataById(lfirst_oid(cell), false);
		RemoveStatisticsDataById(lfirst_oid(cell), true);
	}
	relation_close(rel, NoLock);
	CommandCounterIncrement();
	PG_RETURN_TEXT_P(cstring_to_text("removed"));
}

/*
 * ANALYZE of this table alone: the command would go on to all of a table's partitions.
 * The server calls functions of indexes with the rights of the table's owner, and
 * wants the rights to analyze.
 */
Datum
ndrs_optout_make_statistics(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	Relation	rel = try_relation_open(relid, ShareUpdateExclusiveLock);
	VacuumParams params = {0};
	BufferAccessStrategy strategy;
	Oid			owner;
	Oid			saved_role;
	int			saved_context;

	if (rel == NULL)
		PG_RETURN_VOID();
	owner = rel->rd_rel->relowner;
	relation_close(rel, NoLock);

	params.options = VACOPT_ANALYZE;
	strategy = GetAccessStrategy(BAS_VACUUM);
	GetUserIdAndSecContext(&saved_role, &saved_context);
	SetUserIdAndSecContext(owner, saved_context | SECURITY_RESTRICTED_OPERATION);
	analyze_rel(relid, NULL, &params, NIL, true, strategy);
	SetUserIdAndSecContext(saved_role, saved_context);
	FreeAccessStrategy(strategy);
	CommandCounterIncrement();
	PG_RETURN_VOID();
}
