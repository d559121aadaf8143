/*
 * audit.c
 *		Events get their place in the audit, and some a transaction of their own.
 *
 * All other transactions with events wait at COMMIT for the end of the chain.  So it is
 * taken when all that is not ours is over: after deferred triggers have fired and
 * cursors WITH HOLD are filled, both of which run what a user has made, for as long as
 * it takes.
 *
 * What a function tells of a patient is out when its rows are sent, and they are sent
 * before the transaction commits: an error in the same statement, a cancel or a broken
 * connection would undo the event, and the answer would stay.  So a background worker
 * writes the event and commits it before the answer is returned.  What is told has an
 * event, whatever becomes of the statement; where no event can be written, nothing is
 * told.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "audit.h"
#include "catalog.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "privacy.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

PG_FUNCTION_INFO_V1(ndrs_optout_audit_chain);
PG_FUNCTION_INFO_V1(ndrs_optout_audit_apart);

PGDLLEXPORT void ndrs_optout_audit_worker(Datum main_arg);

/* How long a free place for a worker is waited for, in tenths of a second */
#define MAX_TRIES	100

typedef struct AuditRequest
{
	Oid			database;
	NameData	session_role;
	NameData	acting_role;
	int			lock_timeout;	/* milliseconds, of who waits */
	bool		committed;
	Size		event_size;		/* with its zero, as the next */
	Size		detail_size;
	char		texts[FLEXIBLE_ARRAY_MEMBER];	/* event, detail */
} AuditRequest;

/* What this transaction has added and has no place in the chain */
static ArrayBuildState *added = NULL;

/*
 * AFTER trigger of each row of table audit_event.  A row of a dump has its place.
 */
Datum
ndrs_optout_audit_chain(PG_FUNCTION_ARGS)
{
	static const NdrsColumn columns[] = {
		{1, "entry_id", "int8", true},
		{9, "link", "bytea", false}
	};
	TriggerData *data = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_BY_INSERT(data->tg_event) ||
		!TRIGGER_FIRED_AFTER(data->tg_event) || !TRIGGER_FIRED_FOR_ROW(data->tg_event))
		ndrs_ereport(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
					 errmsg("function \"%s\" must be called by an AFTER ROW trigger for INSERT",
							"audit_chain"));
	desc = RelationGetDescr(data->tg_relation);
	ndrs_check_columns(data->tg_relation, columns, lengthof(columns));
	(void) heap_getattr(data->tg_trigtuple, 9, desc, &isnull);
	if (isnull)
		added = accumArrayResult(added, heap_getattr(data->tg_trigtuple, 1, desc, &isnull),
								 false, INT8OID, TopTransactionContext);
	return PointerGetDatum(NULL);
}

/*
 * Put what was added at the end of the chain.  The statement that fails here, or waits
 * and gives up, may be any statement, and may name a patient.
 */
static void
link_added(void)
{
	Oid			types[] = {INT8ARRAYOID};
	Datum		values[1];
	ErrorContextCallback hider;
	Oid			user;
	int			context;

	values[0] = makeArrayResult(added, CurrentMemoryContext);
	added = NULL;
	/* The extension may have been dropped since. */
	if (!OidIsValid(ndrs_relation("audit_event", true)))
		return;

	ndrs_begin_hiding(&hider);
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(ndrs_extension_owner(), context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	if (SPI_execute_with_args("SELECT ndrs_optout.audit_link_events($1)", 1, types, values, NULL,
							  false, 0) != SPI_OK_SELECT)
		ndrs_elog("could not link events of the audit");
	SPI_finish();
	SetUserIdAndSecContext(user, context);
	PopActiveSnapshot();
	ndrs_end_hiding(&hider);
}

static void
audit_transaction_callback(XactEvent event, void *arg)
{
	/*
	 * A prepared transaction would hold the end until another session ends
	 * it.
	 */
	if (event == XACT_EVENT_PRE_PREPARE && added != NULL && !superuser_arg(GetSessionUserId()))
		ndrs_ereport(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot prepare a transaction that has added events to the audit"),
					 errhint("Commit the transaction instead."));
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
		case XACT_EVENT_PRE_COMMIT:
			if (added != NULL)
				link_added();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			added = NULL;
			break;
		default:
			break;
	}
}

/*
 * The server calls the callback that was registered first last: others of ours add events.
 */
void
ndrs_audit_init(void)
{
	RegisterXactCallback(audit_transaction_callback, NULL);
}

static void
write_event(AuditRequest *request)
{
	Oid			types[] = {TEXTOID, TEXTOID, NAMEOID, NAMEOID};
	Datum		values[4];

	values[0] = CStringGetTextDatum(request->texts);
	values[1] = CStringGetTextDatum(request->texts + request->event_size);
	values[2] = NameGetDatum(&request->session_role);
	values[3] = NameGetDatum(&request->acting_role);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute_with_args("SELECT ndrs_optout.audit_add($1, $2::pg_catalog.jsonb, $3, $4)",
							  4, types, values, NULL, false, 0) != SPI_OK_SELECT)
		ndrs_elog("could not write an event of the audit");
	PopActiveSnapshot();
	SPI_finish();
}

/*
 * The worker: as the superuser that the cluster was made with, since the extension's
 * owner need not be able to log in.
 */
void
ndrs_optout_audit_worker(Datum main_arg)
{
	dsm_segment *segment;
	AuditRequest *request;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	CurrentResourceOwner = ResourceOwnerCreate(NULL, "ndrs_optout audit");
	segment = dsm_attach(DatumGetUInt32(main_arg));
	if (segment == NULL)
		proc_exit(0);			/* who asked for it was cancelled */
	dsm_pin_mapping(segment);
	request = dsm_segment_address(segment);
	BackgroundWorkerInitializeConnectionByOid(request->database, InvalidOid, 0);

	SetConfigOption("lock_timeout", psprintf("%d", request->lock_timeout), PGC_SUSET, PGC_S_OVERRIDE);
	/* Whatever the database's defaults are */
	SetConfigOption("role", "none", PGC_USERSET, PGC_S_OVERRIDE);
	StartTransactionCommand();
	XactReadOnly = false;
	XactIsoLevel = XACT_READ_COMMITTED;
	pgstat_report_activity(STATE_RUNNING, "writing an event of the audit");
	write_event(request);
	ForceSyncCommit();
	CommitTransactionCommand();
	request->committed = true;
	dsm_detach(segment);
	proc_exit(0);
}

static BackgroundWorkerHandle *
start_worker(dsm_segment *segment)
{
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(segment));
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, "ndrs_optout", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "ndrs_optout_audit_worker", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "ndrs_optout audit", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "ndrs_optout audit", BGW_MAXLEN);

	for (int i = 0; i < MAX_TRIES; i++)
	{
		if (RegisterDynamicBackgroundWorker(&worker, &handle))
			return handle;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 100,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	ndrs_ereport(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no background worker is free to write the audit"),
				 errdetail("What is not in the audit is not told."),
				 errhint("Try again, or ask the database owner to set max_worker_processes higher."));
}

/*
 * Write an event, and return when it is committed.
 */
Datum
ndrs_optout_audit_apart(PG_FUNCTION_ARGS)
{
	char	   *event = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *detail = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Size		event_size = strlen(event) + 1;
	Size		detail_size = strlen(detail) + 1;
	dsm_segment *segment;
	AuditRequest *request;
	BackgroundWorkerHandle *handle;
	bool		committed;

	PreventCommandIfReadOnly("an event of the audit");
	segment = dsm_create(offsetof(AuditRequest, texts) + event_size + detail_size, 0);
	request = dsm_segment_address(segment);
	request->database = MyDatabaseId;
	request->session_role = *PG_GETARG_NAME(2);
	request->acting_role = *PG_GETARG_NAME(3);
	request->lock_timeout = LockTimeout;
	request->committed = false;
	request->event_size = event_size;
	request->detail_size = detail_size;
	memcpy(request->texts, event, event_size);
	memcpy(request->texts + event_size, detail, detail_size);

	handle = start_worker(segment);
	PG_TRY();
	{
		if (WaitForBackgroundWorkerShutdown(handle) == BGWH_POSTMASTER_DIED)
			proc_exit(1);
	}
	PG_CATCH();
	{
		/* Cancelled: nothing is told, so nothing has to be written. */
		TerminateBackgroundWorker(handle);
		PG_RE_THROW();
	}
	PG_END_TRY();
	committed = request->committed;
	dsm_detach(segment);
	if (!committed)
		ndrs_ereport(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the event could not be written to the audit"),
					 errdetail("What is not in the audit is not told."),
					 errhint("The server log says why."));
	PG_RETURN_VOID();
}
