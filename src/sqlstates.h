/*
 * sqlstates.h
 *		The SQLSTATEs of the extension.
 */
#ifndef NDRS_SQLSTATES_H
#define NDRS_SQLSTATES_H

#include "postgres.h"

/*
 * The table for users is in doc/sqlstates.md.  What refuses a row is in class 23, in a
 * subclass of ours: loaders act on classes, and take it for a bad row.
 */
#define ERRCODE_NDRS_EXCLUDED_PATIENT	MAKE_SQLSTATE('2','3','N','0','1')
#define ERRCODE_NDRS_UNREADABLE_NUMBER	MAKE_SQLSTATE('2','3','N','0','2')
#define ERRCODE_NDRS_MISSING_NUMBER		MAKE_SQLSTATE('2','3','N','0','3')

/* All else is in a class of ours. */
#define ERRCODE_NDRS_PLACEHOLDER		MAKE_SQLSTATE('N','D','0','0','4')
#define ERRCODE_NDRS_KEY_MISSING		MAKE_SQLSTATE('N','D','0','1','0')
#define ERRCODE_NDRS_KEY_MISMATCH		MAKE_SQLSTATE('N','D','0','1','1')
#define ERRCODE_NDRS_CASE_NOT_READY		MAKE_SQLSTATE('N','D','0','2','0')
#define ERRCODE_NDRS_ROWS_REMAIN		MAKE_SQLSTATE('N','D','0','3','0')
#define ERRCODE_NDRS_WRONG_TABLE		MAKE_SQLSTATE('N','D','0','3','3')
#define ERRCODE_NDRS_CHECK_REFUSED		MAKE_SQLSTATE('N','D','0','4','0')

#endif							/* NDRS_SQLSTATES_H */
