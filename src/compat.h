/*
 * compat.h
 *		What differs between PostgreSQL 15 and 19 and takes no more of the server's
 *		headers than this; the rest is in compat_*.h.
 */
#ifndef NDRS_COMPAT_H
#define NDRS_COMPAT_H

#include "postgres.h"

#include "nodes/nodes.h"
#include "nodes/parsenodes.h"

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

/* Before 18 it was an attribute, to be written behind the declaration or before it. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
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

/* Does this action of ALTER TABLE compute a column anew?  SET EXPRESSION came with 17. */
static inline bool
ndrs_computes_column(AlterTableType subtype)
{
#if PG_VERSION_NUM >= 170000
	if (subtype == AT_SetExpression)
		return true;
#endif
	return subtype == AT_AlterColumnType;
}

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

#endif							/* NDRS_COMPAT_H */
