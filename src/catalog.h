/*
 * catalog.h
 *		The extension's own objects, and the news that they have changed.
 */
#ifndef NDRS_CATALOG_H
#define NDRS_CATALOG_H

#include "postgres.h"

#include "compat.h"
#include "utils/relcache.h"

#define NDRS_SCHEMA "ndrs_optout"

/* A column of a table of ours that the library reads or writes by number */
typedef struct NdrsColumn
{
	AttrNumber	number;
	const char *name;
	const char *type;			/* of schema pg_catalog or ndrs_optout */
	bool		not_null;		/* is read without a look whether it is NULL */
} NdrsColumn;

/* Called for each message on a relation; may not fail */
extern void (*ndrs_relation_hook) (Oid relid);

/* What a backend keeps of our tables: each is good for one generation of its own. */
typedef enum NdrsCache
{
	NDRS_CACHE_KEY,
	NDRS_CACHE_EXCLUSION_LIST,
	NDRS_CACHE_NATIONAL_CHECK,
	NDRS_CACHE_SHARING
} NdrsCache;

#define NDRS_NCACHES	(NDRS_CACHE_SHARING + 1)

extern void ndrs_catalog_init(void);
extern uint64 ndrs_generation(NdrsCache cache);
extern uint64 ndrs_schema_generation(void);
extern Oid	ndrs_relation(const char *name, bool missing_ok);
extern Oid	ndrs_type(const char *name);
extern Oid	ndrs_extension_owner(void);
extern Relation ndrs_open_table(const char *name, const NdrsColumn *columns, int ncolumns);
extern const NdrsColumn *ndrs_unfit_column(Relation rel, const NdrsColumn *columns, int ncolumns);
extern void ndrs_check_columns(Relation rel, const NdrsColumn *columns, int ncolumns);
pg_noreturn extern void ndrs_refuse_column(Relation rel, const char *detail);

#endif							/* NDRS_CATALOG_H */
