/*
 * compat.h
 *		What differs between PostgreSQL 15 and 19, in one place.
 */
#ifndef NDRS_COMPAT_H
#define NDRS_COMPAT_H

#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "nodes/nodes.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/sinvaladt.h"
#include "utils/acl.h"
#include "utils/backend_progress.h"
#include "utils/backend_status.h"
#include "utils/array.h"
#include "utils/arrayaccess.h"
#include "utils/guc.h"

/* Soft errors came with 16: before, an input function can only throw. */
#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#else
#define ereturn(context, dummy_value, ...) \
	do { \
		(void) (context); \
		ereport(ERROR, __VA_ARGS__); \
		return dummy_value; \
	} while (0)
#endif

/* Came with a minor release: a worker may load the library, and with it this. */
#ifndef GUC_ALLOW_IN_PARALLEL
#define GUC_ALLOW_IN_PARALLEL 0
#endif

/* varatt.h split off from postgres.h in 16. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* What a hook gets is not its to change from 19 on. */
#if PG_VERSION_NUM >= 190000
#define NDRS_JUMBLE_STATE	const JumbleState
#else
#define NDRS_JUMBLE_STATE	JumbleState
#endif

/* Does the caller of an input function want errors saved, not thrown? */
static inline bool
ndrs_soft_error_wanted(Node *context)
{
#if PG_VERSION_NUM >= 160000
	return context != NULL && IsA(context, ErrorSaveContext);
#else
	return false;
#endif
}

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

/* 16 has one function for the owner of anything, and one for rights. */
static inline bool
ndrs_owns_schema(Oid schema)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(NamespaceRelationId, schema, GetUserId());
#else
	return pg_namespace_ownercheck(schema, GetUserId());
#endif
}

static inline bool
ndrs_may_use_schema(Oid schema)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(NamespaceRelationId, schema, GetUserId(), ACL_USAGE) == ACLCHECK_OK;
#else
	return pg_namespace_aclcheck(schema, GetUserId(), ACL_USAGE) == ACLCHECK_OK;
#endif
}

/* 19 takes what kind of elements an array has once, not with each element. */
static inline void
ndrs_text_array_iter_setup(array_iter *iterator, AnyArrayType *array)
{
#if PG_VERSION_NUM >= 190000
	array_iter_setup(iterator, array, -1, false, TYPALIGN_INT);
#else
	array_iter_setup(iterator, array);
#endif
}

static inline Datum
ndrs_text_array_iter_next(array_iter *iterator, bool *isnull, int i)
{
#if PG_VERSION_NUM >= 190000
	return array_iter_next(iterator, isnull, i);
#else
	return array_iter_next(iterator, isnull, i, -1, false, TYPALIGN_INT);
#endif
}

static inline bool
ndrs_owns_relation(Oid relation)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relation, GetUserId());
#else
	return pg_class_ownercheck(relation, GetUserId());
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

#endif							/* NDRS_COMPAT_H */
