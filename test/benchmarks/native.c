/*
 * native.c
 *		What test/bench measures everything against: functions and a trigger
 *		that do nothing, and a clock that knows of processor time.
 */
#include "postgres.h"

#include <sys/resource.h>

#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "portability/instr_time.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(bench_same);
PG_FUNCTION_INFO_V1(bench_false);
PG_FUNCTION_INFO_V1(bench_true);
PG_FUNCTION_INFO_V1(bench_empty_trigger);
PG_FUNCTION_INFO_V1(bench_mark);
PG_FUNCTION_INFO_V1(bench_start_clock);
PG_FUNCTION_INFO_V1(bench_read_clock);

Datum
bench_same(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(PG_GETARG_DATUM(0));
}

Datum
bench_false(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(false);
}

Datum
bench_true(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(true);
}

Datum
bench_empty_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	return PointerGetDatum(TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) ?
						   trigdata->tg_newtuple : trigdata->tg_trigtuple);
}

/* Where test/cost cuts its counts: callgrind writes them down before it runs. */
Datum
bench_mark(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(true);
}

static instr_time wall_start;
static double cpu_start;

static double
cpu_microseconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
		usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

Datum
bench_start_clock(PG_FUNCTION_ARGS)
{
	cpu_start = cpu_microseconds();
	INSTR_TIME_SET_CURRENT(wall_start);
	PG_RETURN_VOID();
}

Datum
bench_read_clock(PG_FUNCTION_ARGS)
{
	instr_time	wall;
	double		cpu = cpu_microseconds() - cpu_start;
	TupleDesc	desc;
	Datum		values[2];
	bool		nulls[2] = {0};

	INSTR_TIME_SET_CURRENT(wall);
	INSTR_TIME_SUBTRACT(wall, wall_start);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = Float8GetDatum(INSTR_TIME_GET_MICROSEC(wall));
	values[1] = Float8GetDatum(cpu);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
