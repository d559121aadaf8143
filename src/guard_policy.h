/*
 * guard_policy.h
 *		Table guard: what each guard ought to do.
 */
#ifndef NDRS_GUARD_POLICY_H
#define NDRS_GUARD_POLICY_H

#include "postgres.h"
#include "nodes/pg_list.h"
#include "utils/array.h"

/* A row of table guard */
typedef struct GuardPolicy
{
	char	   *column;
	char	   *encoded_column; /* or an empty string */
	char	   *on_match;
	char	   *on_missing;
	char	   *on_unreadable;
	List	   *registers;		/* of strings */
	List	   *redact_columns;
	bool		has_trigger;
} GuardPolicy;

/*
 * The version of a guard's trigger's arguments, which is their first word.  A later one
 * appends to them; code that reads them knows all versions up to this one.
 */
#define GUARD_VERSION 1

extern List *ndrs_guard_policies(Oid relid);
extern bool ndrs_guard_has_trigger(const GuardPolicy *policy, int nargs, char **args);
extern bool ndrs_guard_has_constraint(const GuardPolicy *policy, ArrayType *registers,
									  const char *on_missing, const char *on_unreadable,
									  bool encoded);

#endif							/* NDRS_GUARD_POLICY_H */
