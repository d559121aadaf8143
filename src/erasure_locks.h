/*
 * erasure_locks.h
 *		Locks that erasures and sweeps take, and no table has.
 */
#ifndef NDRS_ERASURE_LOCKS_H
#define NDRS_ERASURE_LOCKS_H

#include "postgres.h"

#include "storage/lock.h"

extern void ndrs_set_erasure_lock_tag(LOCKTAG *tag);

#endif							/* NDRS_ERASURE_LOCKS_H */
