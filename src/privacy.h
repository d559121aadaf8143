/*
 * privacy.h
 *		Errors without the row, or the statement, that was in hand.
 */
#ifndef NDRS_PRIVACY_H
#define NDRS_PRIVACY_H

#include "postgres.h"
#include "nodes/nodes.h"

/*
 * Every error of ours is one of these two: a row, or a statement with a number in it,
 * may be in hand wherever it is raised (test/static/privacy).
 */
#define ndrs_ereport(...) \
	ereport(ERROR, __VA_ARGS__, ndrs_errhidevalues())
#define ndrs_elog(...) \
	ndrs_ereport(errcode(ERRCODE_INTERNAL_ERROR), errmsg_internal(__VA_ARGS__))

extern void ndrs_privacy_init(void);
extern int	ndrs_errhidevalues(void);
extern int	ndrs_errhidevalues_unless_soft(Node *escontext);
extern const char *ndrs_table_name(Oid relid);
extern int	ndrs_errtable(Oid relid);
extern void ndrs_begin_hiding(ErrorContextCallback *hider);
extern void ndrs_end_hiding(ErrorContextCallback *hider);

#endif							/* NDRS_PRIVACY_H */
