/*
 * own_tables.c
 *		Who may change the extension's own tables.
 *
 * A privilege on them can come from anywhere: a GRANT, or membership of a
 * predefined role such as pg_write_all_data, which loaders are often given.  What
 * the list, the cases and the audit hold would then change, or go, past every
 * function that checks and audits.  So a privilege is not enough: a trigger lets
 * only the owner of the table change it, which every SECURITY DEFINER function of
 * the extension is, and so is a role that restores a dump, and a logical
 * replication worker, which runs as its owner or as a superuser.
 *
 * Officers act on what they are told is done: the letter goes out, the paper is
 * destroyed.  So what is in these tables survives a crash from its commit on,
 * whatever synchronous_commit says.  Each table has the trigger, hence it is the
 * place for this.  The counts of guards, which a loader's commit writes, come here
 * another way (guard_tally.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog.h"
#include "commands/trigger.h"
#include "compat_acl.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "privacy.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(ndrs_optout_owner_only);
PG_FUNCTION_INFO_V1(ndrs_optout_exclusion_replicated);

static TriggerData *
trigger_data(FunctionCallInfo fcinfo, const char *name)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ndrs_ereport(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
					 errmsg("function \"%s\" was not called by trigger manager", name));
	return (TriggerData *) fcinfo->context;
}

/*
 * BEFORE trigger of each row, since a replication worker fires no others, and of
 * TRUNCATE.
 */
Datum
ndrs_optout_owner_only(PG_FUNCTION_ARGS)
{
	TriggerData *data = trigger_data(fcinfo, "owner_only");
	Relation	rel = data->tg_relation;

	if (!ndrs_owns_relation(RelationGetRelid(rel)))
		ndrs_ereport(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("table \"%s.%s\" is changed by the extension's functions only",
							get_namespace_name(RelationGetNamespace(rel)),
							RelationGetRelationName(rel)),
					 errdetail("Besides them, only the table's owner can change it, whatever was granted."),
					 errhint("Call the function for it, or ask the database owner to do so."));
	ForceSyncCommit();
	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(data->tg_event) ?
						   data->tg_newtuple : data->tg_trigtuple);
}

/*
 * AFTER trigger of each row of table exclusion: audits what a replication worker
 * applies.  Anything else has transition tables, from which a statement trigger
 * counts.
 */
Datum
ndrs_optout_exclusion_replicated(PG_FUNCTION_ARGS)
{
	static const NdrsColumn columns[] = {{1, "register", "text", true}};
	static Oid	types[] = {TEXTOID, TEXTOID};
	TriggerData *data = trigger_data(fcinfo, "exclusion_replicated");
	int			result;

	if (data->tg_oldtable != NULL || data->tg_newtable != NULL)
		return PointerGetDatum(NULL);

	ndrs_check_columns(data->tg_relation, columns, lengthof(columns));
	SPI_connect();
	for (int i = 0; i < 2; i++)
	{
		bool		added = i == 1;
		HeapTuple	tuple = data->tg_trigtuple;
		Datum		values[2];
		bool		isnull;

		if (added ? TRIGGER_FIRED_BY_DELETE(data->tg_event) : TRIGGER_FIRED_BY_INSERT(data->tg_event))
			continue;
		if (added && TRIGGER_FIRED_BY_UPDATE(data->tg_event))
			tuple = data->tg_newtuple;
		values[0] = CStringGetTextDatum(added ? "added" : "removed");
		values[1] = SPI_getbinval(tuple, RelationGetDescr(data->tg_relation), 1, &isnull);
		result = SPI_execute_with_args("SELECT ndrs_optout.audit_exclusions($1, pg_catalog.jsonb_build_object($2, 1))",
									   2, types, values, NULL, false, 0);
		if (result != SPI_OK_SELECT)
			ndrs_ereport(errcode(ERRCODE_INTERNAL_ERROR),
						 errmsg("could not audit a change of the exclusion list"));
	}
	SPI_finish();
	return PointerGetDatum(NULL);
}
