/*
 * erasure_locks.c
 *		Locks that erasures and sweeps take, and no table has.
 *
 * Any role may take any advisory lock; these are the locks of an object, such as
 * commands on it take, with numbers that no command uses.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog.h"
#include "common/hashfn.h"
#include "compat_lock.h"
#include "encoded_nhs_number.h"
#include "erasure_locks.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "privacy.h"
#include "storage/lock.h"

PG_FUNCTION_INFO_V1(ndrs_optout_erasure_begin);
PG_FUNCTION_INFO_V1(ndrs_optout_sweep_lock);
PG_FUNCTION_INFO_V1(ndrs_optout_sweep_unlock);
PG_FUNCTION_INFO_V1(ndrs_optout_lock_patient);

typedef enum OwnLock
{
	LOCK_SWEEP = 1,
	LOCK_PATIENT,
	LOCK_ERASURE
} OwnLock;

static void
set_lock_tag(LOCKTAG *tag, OwnLock what, uint32 which)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, ndrs_relation("exclusion", false), which, what);
}

/*
 * One sweep at a time.  A sweep is many transactions, so the session holds the lock
 * until it is given back, or the server takes it back: at any error, as it does with that of
 * CREATE INDEX CONCURRENTLY.  False when another session has it.
 */
Datum
ndrs_optout_sweep_lock(PG_FUNCTION_ARGS)
{
	LOCKTAG		tag;

	set_lock_tag(&tag, LOCK_SWEEP, 0);
	if (ndrs_lock_held(&tag, ExclusiveLock))
		PG_RETURN_BOOL(true);
	PG_RETURN_BOOL(LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL);
}

Datum
ndrs_optout_sweep_unlock(PG_FUNCTION_ARGS)
{
	LOCKTAG		tag;

	set_lock_tag(&tag, LOCK_SWEEP, 0);
	if (ndrs_lock_held(&tag, ExclusiveLock))
		LockRelease(&tag, ExclusiveLock, true);
	PG_RETURN_VOID();
}

/*
 * Until the end of the transaction, others can tell that it is an erasure, and nothing
 * but that: it has written nothing before.
 */
Datum
ndrs_optout_erasure_begin(PG_FUNCTION_ARGS)
{
	LOCKTAG		tag;

	set_lock_tag(&tag, LOCK_ERASURE, 0);
	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()))
		(void) LockAcquire(&tag, AccessShareLock, false, false);
	PG_RETURN_VOID();
}

/*
 * Until the end of the transaction, no other session gets so far for this
 * patient.
 */
Datum
ndrs_optout_lock_patient(PG_FUNCTION_ARGS)
{
	EncodedNhsNumber *encoded = (EncodedNhsNumber *) PG_GETARG_POINTER(0);
	ErrorContextCallback hider;
	LOCKTAG		tag;

	set_lock_tag(&tag, LOCK_PATIENT,
				 hash_bytes((const unsigned char *) encoded, sizeof(*encoded)));
	ndrs_begin_hiding(&hider);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	ndrs_end_hiding(&hider);
	PG_RETURN_VOID();
}

/*
 * The tag of the lock that tells erasures from other transactions
 */
void
ndrs_set_erasure_lock_tag(LOCKTAG *tag)
{
	set_lock_tag(tag, LOCK_ERASURE, 0);
}
