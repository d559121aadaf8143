/*
 * guard_policy.c
 *		Table guard, which says what ought to be, and whether what enforces it says the same.
 *
 * A trigger and a constraint carry their policy in their own arguments, and others
 * than guard_table() can make some: TRIGGER is a right that a table's owner may give
 * away, and CREATE TABLE ... LIKE copies constraints.  What is not as table guard says
 * would tell its maker who is on the list, so it is not obeyed.  It is compared once for
 * a statement.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "fmgr.h"
#include "guard_policy.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"


PG_FUNCTION_INFO_V1(ndrs_optout_guard_is_constraint);

/* Columns of table guard */
enum
{
	ANUM_TARGET = 1,
	ANUM_COLUMN,
	ANUM_REGISTERS,
	ANUM_ON_MATCH,
	ANUM_ON_MISSING,
	ANUM_ON_UNREADABLE,
	ANUM_REDACT_COLUMNS,
	ANUM_MECHANISM,
	ANUM_ENCODED_COLUMN
};

static const NdrsColumn guard_columns[] = {
	{ANUM_TARGET, "target", "regclass", true},
	{ANUM_COLUMN, "nhs_number_column", "name", true},
	{ANUM_REGISTERS, "registers", "_text", true},
	{ANUM_ON_MATCH, "on_match", "text", true},
	{ANUM_ON_MISSING, "on_missing", "text", true},
	{ANUM_ON_UNREADABLE, "on_unreadable", "text", true},
	{ANUM_REDACT_COLUMNS, "redact_columns", "_name", true},
	{ANUM_MECHANISM, "mechanism", "text", true},
	{ANUM_ENCODED_COLUMN, "encoded_column", "name", false},
};

/* The elements of an array of texts or names; none of ours has nulls. */
static List *
strings(ArrayType *array)
{
	bool		is_name = ARR_ELEMTYPE(array) == NAMEOID;
	List	   *result = NIL;
	Datum	   *elements;
	int			nelements;

	deconstruct_array(array, ARR_ELEMTYPE(array), is_name ? NAMEDATALEN : -1, false,
					  is_name ? TYPALIGN_CHAR : TYPALIGN_INT, &elements, NULL, &nelements);
	for (int i = 0; i < nelements; i++)
		result = lappend(result, is_name ? pstrdup(NameStr(*DatumGetName(elements[i])))
						 : TextDatumGetCString(elements[i]));
	return result;
}

static bool
same_strings(List *a, List *b)
{
	ListCell   *ca;
	ListCell   *cb;

	if (list_length(a) != list_length(b))
		return false;
	forboth(ca, a, cb, b)
	{
		if (strcmp(lfirst(ca), lfirst(cb)) != 0)
			return false;
	}
	return true;
}

/*
 * The guards of this very table (GuardPolicy).  The catalogue snapshot sees what is
 * committed now, and what the transaction itself has done.
 */
List *
ndrs_guard_policies(Oid relid)
{
	Relation	rel = ndrs_open_table("guard", guard_columns, lengthof(guard_columns));
	List	   *policies = NIL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, ANUM_TARGET, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	/* By the primary key: a site may have thousands of guards. */
	list_free(RelationGetIndexList(rel));
	scan = systable_beginscan(rel, rel->rd_pkindex, OidIsValid(rel->rd_pkindex), NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		int			natts = RelationGetNumberOfAttributes(rel);
		Datum	   *values = palloc(natts * sizeof(Datum));
		bool	   *nulls = palloc(natts * sizeof(bool));
		GuardPolicy *policy = palloc(sizeof(GuardPolicy));

		heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
		policy->column = pstrdup(NameStr(*DatumGetName(values[ANUM_COLUMN - 1])));
		policy->registers = strings(DatumGetArrayTypeP(values[ANUM_REGISTERS - 1]));
		policy->on_match = TextDatumGetCString(values[ANUM_ON_MATCH - 1]);
		policy->on_missing = TextDatumGetCString(values[ANUM_ON_MISSING - 1]);
		policy->on_unreadable = TextDatumGetCString(values[ANUM_ON_UNREADABLE - 1]);
		policy->redact_columns = strings(DatumGetArrayTypeP(values[ANUM_REDACT_COLUMNS - 1]));
		policy->has_trigger = strcmp(TextDatumGetCString(values[ANUM_MECHANISM - 1]), "both") == 0;
		policy->encoded_column = nulls[ANUM_ENCODED_COLUMN - 1] ? ""
			: pstrdup(NameStr(*DatumGetName(values[ANUM_ENCODED_COLUMN - 1])));
		policies = lappend(policies, policy);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return policies;
}

/*
 * Are these the arguments that guard_arguments() gives the guard's trigger, or gave in
 * an earlier version of the extension?
 */
bool
ndrs_guard_has_trigger(const GuardPolicy *policy, int nargs, char **args)
{
	List	   *expected;
	List	   *found = NIL;

	if (!policy->has_trigger || nargs < 1)
		return false;
	expected = list_make5(args[0], policy->column, policy->encoded_column, policy->on_match,
						  policy->on_missing);
	expected = lappend(expected, policy->on_unreadable);
	expected = lappend(expected, psprintf("%d", list_length(policy->registers)));
	expected = list_concat(expected, policy->registers);
	expected = lappend(expected, psprintf("%d", list_length(policy->redact_columns)));
	expected = list_concat(expected, policy->redact_columns);
	for (int i = 0; i < nargs; i++)
		found = lappend(found, args[i]);
	return same_strings(expected, found);
}

/*
 * Is this what the guard's constraint asks for?
 */
bool
ndrs_guard_has_constraint(const GuardPolicy *policy, ArrayType *registers,
						  const char *on_missing, const char *on_unreadable, bool encoded)
{
	return same_strings(policy->registers, strings(registers)) &&
		strcmp(policy->on_missing, on_missing) == 0 &&
		strcmp(policy->on_unreadable, on_unreadable) == 0 &&
		(policy->encoded_column[0] != '\0') == encoded;
}

static bool
is_column(Node *node, AttrNumber attnum)
{
	node = strip_implicit_coercions(node);
	return IsA(node, Var) && ((Var *) node)->varattno == attnum;
}

static bool
is_text(Node *node, text *value)
{
	Const	   *constant = (Const *) node;

	return IsA(node, Const) && !constant->constisnull &&
		strcmp(TextDatumGetCString(constant->constvalue), text_to_cstring(value)) == 0;
}

/*
 * Is the expression of a CHECK constraint a guard's constraint, and nothing but
 * that?  Arguments: the expression as it is stored, and target, column, registers,
 * on_missing and on_unreadable of the guard, whether it has an encoded column, and
 * that.
 */
Datum
ndrs_optout_guard_is_constraint(PG_FUNCTION_ARGS)
{
	bool		has_encoded;
	Node	   *node;
	FuncExpr   *call;
	char	   *name;
	Const	   *target;
	Const	   *registers;
	bool		result;

	for (int i = 0; i < 7; i++)
	{
		if (PG_ARGISNULL(i))
			PG_RETURN_BOOL(false);
	}
	has_encoded = PG_GETARG_BOOL(6);
	if (has_encoded && PG_ARGISNULL(7))
		PG_RETURN_BOOL(false);

	node = stringToNode(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (node == NULL || !IsA(node, FuncExpr))
		PG_RETURN_BOOL(false);
	call = (FuncExpr *) node;
	name = get_func_name(call->funcid);
	if (name == NULL || strcmp(name, "guard_admits") != 0 ||
		get_func_namespace(call->funcid) != get_namespace_oid(NDRS_SCHEMA, true) ||
		list_length(call->args) != (has_encoded ? 7 : 6))
		PG_RETURN_BOOL(false);

	target = list_nth(call->args, 1);
	registers = list_nth(call->args, 3);
	result = IsA(linitial(call->args), Var) &&
		((Var *) linitial(call->args))->varattno == TableOidAttributeNumber &&
		IsA(target, Const) && DatumGetObjectId(target->constvalue) == PG_GETARG_OID(1) &&
		is_column(list_nth(call->args, 2), PG_GETARG_INT16(2)) &&
		IsA(registers, Const) && !registers->constisnull &&
		DatumGetBool(OidFunctionCall2Coll(F_ARRAY_EQ, C_COLLATION_OID,
										  registers->constvalue, PG_GETARG_DATUM(3))) &&
		is_text(list_nth(call->args, 4), PG_GETARG_TEXT_PP(4)) &&
		is_text(list_nth(call->args, 5), PG_GETARG_TEXT_PP(5)) &&
		(!has_encoded || is_column(list_nth(call->args, 6), PG_GETARG_INT16(7)));
	PG_RETURN_BOOL(result);
}
