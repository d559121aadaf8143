/*
 * ndrs_optout.c
 *		Loading and settings, only.
 */
#include "postgres.h"

#include "audit.h"
#include "catalog.h"
#include "encoded_set.h"
#include "encoding.h"
#include "erasure_as_owner.h"
#include "fmgr.h"
#include "guard_tally.h"
#include "privacy.h"
#include "recall_id.h"
#include "sentry.h"
#include "utils/builtins.h"
#include "utils/guc.h"

/* Came with a minor release: a worker may load the library, and with it this. */
#ifndef GUC_ALLOW_IN_PARALLEL
#define GUC_ALLOW_IN_PARALLEL 0
#endif

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(ndrs_optout_library_build);

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	/*
	 * SIGHUP, so that neither a session nor ALTER ROLE or ALTER DATABASE can
	 * point the server at another key; a value that a session set before the
	 * library was loaded is thrown away by the server for the same reason.
	 */
	DefineCustomStringVariable("ndrs_optout.key_file",
							   "File with the key that encodes NHS numbers (64 hexadecimal digits).",
							   "It must belong to the server's user or root and be closed to all other users.",
							   &ndrs_key_file,
							   "",
							   PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY | GUC_ALLOW_IN_PARALLEL,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("ndrs_optout.salt_directory",
							   "Directory of the files with the salts of recipients' ids, RECIPIENT.salt and RECIPIENT-RELEASE.salt.",
							   "Each file must belong to the server's user or root and be closed to all other users.",
							   &ndrs_salt_directory,
							   "",
							   PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY | GUC_ALLOW_IN_PARALLEL,
							   NULL, NULL, NULL);
	DefineCustomBoolVariable("ndrs_optout.allow_unguarded",
							 "Lets commands weaken the guard of a table.",
							 "Each goes into the audit. To take a guard away, call ndrs_optout.unguard_table().",
							 &ndrs_allow_unguarded,
							 false,
							 PGC_SUSET,
							 GUC_ALLOW_IN_PARALLEL,
							 NULL, NULL, NULL);
	MarkGUCPrefixReserved("ndrs_optout");

	ndrs_audit_init();
	ndrs_privacy_init();
	ndrs_catalog_init();
	ndrs_encoded_set_init();
	ndrs_guard_tally_init();
	ndrs_erasure_as_owner_init();
	ndrs_sentry_init();
}

/*
 * The build that this library is of: the Makefile makes it from the pieces of the
 * installation script.
 */
Datum
ndrs_optout_library_build(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(NDRS_BUILD));
}
