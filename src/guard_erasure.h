/*
 * guard_erasure.h
 *		What guards let pass while an erasure changes rows.
 */
#ifndef NDRS_GUARD_ERASURE_H
#define NDRS_GUARD_ERASURE_H

#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"

/* Tables in which the erasure is changing rows, while it is changing some */
typedef struct ErasedTables
{
	bool		changing;
	const Oid  *relids;
	int			nrelids;
} ErasedTables;

extern ErasedTables ndrs_erased_tables;

extern ErasedTables ndrs_guard_let_pass(ErasedTables tables);
extern bool ndrs_guard_update_passes(TriggerData *trigdata, AttrNumber attnum, Datum value,
									 bool isnull);
extern bool ndrs_guard_value_passed(FunctionCallInfo fcinfo, int value, Oid relid);

#endif							/* NDRS_GUARD_ERASURE_H */
