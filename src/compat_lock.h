/*
 * compat_lock.h
 *		What differs between PostgreSQL 15 and 19 in locks, and in who holds them.
 */
#ifndef NDRS_COMPAT_LOCK_H
#define NDRS_COMPAT_LOCK_H

#include "postgres.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/sinvaladt.h"
#include "utils/backend_progress.h"
#include "utils/backend_status.h"

/* 17 replaced backend ids by proc numbers and moved the look-up. */
#if PG_VERSION_NUM >= 170000
#include "storage/procarray.h"
#endif

/*
 * The process that runs this transaction, or NULL.  A prepared transaction is
 * still known by the virtual id of the backend that prepared it, which goes on
 * to other transactions, or ends and leaves its place to another process.
 */
static inline PGPROC *
ndrs_vxid_proc(VirtualTransactionId vxid)
{
	PGPROC	   *proc;

	if (VirtualTransactionIdIsRecoveredPreparedXact(vxid))
		return NULL;
#if PG_VERSION_NUM >= 170000
	proc = ProcNumberGetProc(vxid.procNumber);
	return proc != NULL && proc->vxid.lxid == vxid.localTransactionId ? proc : NULL;
#else
	proc = BackendIdGetProc(vxid.backendId);
	return proc != NULL && proc->lxid == vxid.localTransactionId ? proc : NULL;
#endif
}

/* Who has a lock, from the list of all */
static inline VirtualTransactionId
ndrs_lock_holder(const LockInstanceData *lock)
{
#if PG_VERSION_NUM >= 170000
	return lock->vxid;
#else
	VirtualTransactionId vxid = {lock->backend, lock->lxid};

	return vxid;
#endif
}

static inline bool
ndrs_lock_held(const LOCKTAG *tag, LOCKMODE mode)
{
#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(tag, mode, false);
#else
	return LockHeldByMe(tag, mode);
#endif
}

/*
 * REPACK CONCURRENTLY, of 19, makes a new table to take the place of the old one.  It is
 * never a part of a transaction with other commands.
 */
static inline bool
ndrs_is_repacking(PGPROC *proc, Oid relid)
{
#if PG_VERSION_NUM >= 190000
	PgBackendStatus *status;

	pgstat_clear_backend_activity_snapshot();
	status = pgstat_get_beentry_by_proc_number(GetNumberFromPGProc(proc));
	return status != NULL && status->st_progress_command == PROGRESS_COMMAND_REPACK &&
		status->st_progress_command_target == relid;
#else
	return false;
#endif
}

/*
 * Does this transaction hold a lock on a table under which no other one can change
 * it?  17 can ask for a mode or a stronger one.
 */
static inline bool
ndrs_keeps_others_from_changing(Oid relid)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(&tag, ShareUpdateExclusiveLock, true);
#else
	for (LOCKMODE mode = ShareUpdateExclusiveLock; mode <= AccessExclusiveLock; mode++)
	{
		if (LockHeldByMe(&tag, mode))
			return true;
	}
	return false;
#endif
}

#endif							/* NDRS_COMPAT_LOCK_H */
