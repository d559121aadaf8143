/*
 * guard.h
 *		What a guard finds in a row, and what it does with it.
 */
#ifndef NDRS_GUARD_H
#define NDRS_GUARD_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "utils/array.h"

typedef enum GuardAction
{
	GUARD_ALLOW,
	GUARD_REJECT,
	GUARD_SKIP,
	GUARD_REDACT
} GuardAction;

typedef enum GuardFinding
{
	GUARD_NOT_EXCLUDED,
	GUARD_EXCLUDED,
	GUARD_MISSING,
	GUARD_UNREADABLE
} GuardFinding;

extern const char *const ndrs_action_words[GUARD_REDACT + 1];

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

/* guard_policy.c */
extern List *ndrs_guard_policies(Oid relid);

/*
 * The version of a guard's trigger's arguments, which is their first word.  A later one
 * appends to them; whoever reads them knows all up to this one.
 */
#define GUARD_VERSION 1

extern bool ndrs_guard_has_trigger(const GuardPolicy *policy, int nargs, char **args);
extern bool ndrs_guard_has_constraint(const GuardPolicy *policy, ArrayType *registers,
									  const char *on_missing, const char *on_unreadable,
									  bool encoded);

/* guard_tally.c */
extern void ndrs_count_row(Oid target, GuardFinding finding, GuardAction action);

#endif							/* NDRS_GUARD_H */
