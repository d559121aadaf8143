/*
 * ndrs_optout.h
 *		SQLSTATEs, settings and the prototypes that cross a file.
 */
#ifndef NDRS_OPTOUT_H
#define NDRS_OPTOUT_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/nodes.h"
#include "utils/relcache.h"

#include "encoded_set.h"
#include "nhs_number.h"

#define NDRS_SCHEMA "ndrs_optout"

/*
 * SQLSTATEs; the table for users is in doc/sqlstates.md.  What refuses a row is in class
 * 23, in a subclass of ours: loaders act on classes, and take it for a bad row.
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
#define ERRCODE_NDRS_CHECK_REFUSED		MAKE_SQLSTATE('N','D','0','4','0')

/* ndrs_optout.c */
extern char *ndrs_key_file;
extern bool ndrs_allow_unguarded;

/*
 * privacy.c
 *
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

/* nhs_number_type.c */
typedef NhsNumberForm (*NhsNumberReader) (Datum value, NhsNumber *number);
extern NhsNumberReader ndrs_number_reader(Oid type);

/* audit.c */
extern void ndrs_audit_init(void);

/* catalog.c */
extern void ndrs_catalog_init(void);
extern uint64 ndrs_generation(void);
extern uint64 ndrs_schema_generation(void);
extern Oid	ndrs_relation(const char *name, bool missing_ok);
extern Oid	ndrs_type(const char *name);
extern Oid	ndrs_extension_owner(void);

/* A column of a table of ours that the library reads or writes by number */
typedef struct NdrsColumn
{
	AttrNumber	number;
	const char *name;
	const char *type;			/* of schema pg_catalog or ndrs_optout */
	bool		not_null;		/* is read without a look whether it is NULL */
} NdrsColumn;

extern Relation ndrs_open_table(const char *name, const NdrsColumn *columns, int ncolumns);
extern void ndrs_check_columns(Relation rel, const NdrsColumn *columns, int ncolumns);
extern void ndrs_refuse_column(Relation rel, const char *detail);

/* encoding.c */
extern bool ndrs_before_restore(void);
extern void ndrs_encoding_ready(void);
extern void ndrs_encode(NhsNumber number, EncodedNhsNumber *encoded);
extern bool ndrs_is_encoded_placeholder(const EncodedNhsNumber *encoded);
extern bytea *ndrs_begin_token(void);
extern void ndrs_restore_token(const bytea *token);
extern bool ndrs_token_is_good(const bytea *token);
extern bool ndrs_decode_hex(const char *digits, size_t size, uint8 *bytes);

/* encoded_set.c */
typedef struct EncodedSetBuilder
{
	char	   *base;			/* the set to be, its members in place */
	size_t		count;
	size_t		capacity;
} EncodedSetBuilder;

extern void ndrs_encoded_set_init(void);
extern void *ndrs_alloc_to_search(MemoryContext context, Size size);
extern void ndrs_set_begin(EncodedSetBuilder *builder, MemoryContext context,
						   size_t expected);
extern void ndrs_set_add(EncodedSetBuilder *builder,
						 const EncodedNhsNumber *members, size_t count);
extern struct varlena *ndrs_set_end(EncodedSetBuilder *builder);
extern void ndrs_open_set(EncodedSet *set, Datum datum);

/* exclusion_list.c */
typedef struct ExclusionList ExclusionList;
extern ExclusionList *ndrs_exclusion_list(const char *code);
extern ExclusionList *ndrs_every_exclusion_list(void);
extern void ndrs_make_lists_current(ExclusionList **lists, int nlists);
extern bool ndrs_is_listed(const ExclusionList *list,
						   const EncodedNhsNumber *encoded);
extern bool ndrs_excluded_from_all(ExclusionList **lists, int nlists,
								   NhsNumber number);

/* national_check.c */
typedef enum NationalChoice
{
	NATIONAL_NOT_CHECKED,
	NATIONAL_CHECK_EXPIRED,
	NATIONAL_ALLOWED,
	NATIONAL_NOT_ALLOWED,		/* and nobody asked why */
	NATIONAL_OPTED_OUT
} NationalChoice;

extern void ndrs_make_national_checks_current(void);
extern NationalChoice ndrs_national_choice(const EncodedNhsNumber *encoded,
										   TimestampTz now, bool why);

/* guard.c */
extern void ndrs_guard_spare(const Oid **relids, int *nrelids);

/* guard_tally.c */
extern void ndrs_guard_tally_init(void);

/* erasure.c */
extern void ndrs_erasure_init(void);

/* sentry.c */
extern void ndrs_sentry_init(void);
extern void ndrs_sentry_tell(Oid relid);

#endif							/* NDRS_OPTOUT_H */
