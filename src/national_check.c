/*
 * national_check.c
 *		Reading the service's reply to a national check.
 *
 * Four things come back from the service: the list that was sent without those who
 * opted out; one line of text, when it refuses the whole list; a receipt in JSON;
 * and an empty file.  A line is ten digits, a comma and a line end, LF or CRLF.
 * The last comma and the last line end may be missing, since files are cut and
 * pasted; anything else that is not such a line means that this is no reply, and
 * none of it is believed.
 */
#include "ndrs_optout.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"

PG_FUNCTION_INFO_V1(ndrs_optout_national_check_allowed);

typedef struct Reply
{
	ExclusionSet asked;
	uint8	   *is_allowed;		/* a bit for each member of asked */
	uint64		allowed;		/* bits that are set */
	uint64		strangers;		/* numbers that were not asked about */
	uint64		line;			/* number of the line at hand */
	bool		ended;			/* a blank line came: only such may follow */
} Reply;

/*
 * The reply is none.  No line is repeated: it may hold a patient's number.
 */
static void
refuse_line(const Reply *reply, const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_NDRS_CHECK_REFUSED),
			 errmsg_internal("%s", message),
			 errdetail("Line " UINT64_FORMAT " of the reply says so.", reply->line),
			 errhint("%s", hint),
			 ndrs_errhidevalues()));
}

static void
refuse_bad_line(const Reply *reply, const char *line, size_t length)
{
	size_t		ndigits = 0;
	bool		letters = false;

	for (size_t i = 0; i < length; i++)
	{
		letters |= (line[i] >= 'A' && line[i] <= 'Z') || (line[i] >= 'a' && line[i] <= 'z');
		ndigits += line[i] >= '0' && line[i] <= '9';
	}
	if (length > 0 && line[0] == '{')
		refuse_line(reply, "this is the receipt of the service and not its reply",
					"The reply comes later, as another message.");
	if (letters && ndigits == 0)
		refuse_line(reply, "the service has refused the request",
					"It answers with a line of text, which says why. Cancel the check and start another.");
	if (ndigits == length && length < NHS_NUMBER_DIGITS)
		refuse_line(reply, "the reply is cut off",
					"Fetch it again: a line has fewer than ten digits.");
	refuse_line(reply, "the reply has a line that is not an NHS number and a comma",
				"It is not a reply of the service, or it was damaged on the way.");
}

static void
read_line(Reply *reply, const char *line, size_t length)
{
	NhsNumber	number;
	EncodedNhsNumber encoded;
	size_t		position;
	uint8		bit;

	reply->line++;
	if (length > 0 && line[length - 1] == '\r')
		length--;
	if (length == 0)
	{
		reply->ended = true;
		return;
	}
	if (reply->ended)
		refuse_line(reply, "the reply goes on after a blank line",
					"It was put together from several, or damaged on the way.");
	if (line[length - 1] == ',')
		length--;
	if (length != NHS_NUMBER_DIGITS ||
		nhs_number_parse(line, length, &number) != NHS_NUMBER_VALID)
		refuse_bad_line(reply, line, length);

	ndrs_encode(number, &encoded);
	position = exclusion_set_position(&reply->asked, &encoded);
	if (position == reply->asked.count)
	{
		reply->strangers++;
		return;
	}
	bit = 1 << position % 8;
	if (reply->is_allowed[position / 8] & bit)
		refuse_line(reply, "the reply has a number twice",
					"The request had it once: it is not a reply of the service, or was put together from several.");
	reply->is_allowed[position / 8] |= bit;
	reply->allowed++;
}

static void
read_lines(Reply *reply, const char *at, size_t size)
{
	const char *end = at + size;

	do
	{
		const char *line_end = memchr(at, '\n', end - at);

		CHECK_FOR_INTERRUPTS();
		if (line_end == NULL)
			line_end = end;
		read_line(reply, at, line_end - at);
		at = line_end + 1;
	} while (at < end);
}

/*
 * Whom a reply allows; NULL when it has numbers that were not asked about.
 */
Datum
ndrs_optout_national_check_allowed(PG_FUNCTION_ARGS)
{
	ArrayType  *lines = PG_GETARG_ARRAYTYPE_P(1);
	ArrayIterator iterator = array_create_iterator(lines, 0, NULL);
	Datum		element;
	bool		isnull;
	Reply		reply = {0};
	ExclusionSetBuilder builder;

	ndrs_encoding_ready();
	ndrs_open_set(&reply.asked, PG_GETARG_DATUM(0));
	reply.is_allowed = palloc0(reply.asked.count / 8 + 1);

	while (array_iterate(iterator, &element, &isnull))
	{
		struct varlena *text = isnull ? NULL : PG_DETOAST_DATUM_PACKED(element);

		read_lines(&reply, isnull ? "" : VARDATA_ANY(text),
				   isnull ? 0 : VARSIZE_ANY_EXHDR(text));
	}
	if (reply.strangers > 0)
		PG_RETURN_NULL();
	if (reply.allowed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NDRS_CHECK_REFUSED),
				 errmsg("the reply is empty"),
				 errhint("Fetch it again. If everybody has opted out, cancel the check: whoever is not checked is not shared."),
				 ndrs_errhidevalues()));

	ndrs_set_begin(&builder, CurrentMemoryContext, reply.allowed);
	for (uint32 i = 0; i < reply.asked.count; i++)
	{
		if (reply.is_allowed[i / 8] & 1 << i % 8)
			ndrs_set_add(&builder, &reply.asked.members[i], 1);
	}
	PG_RETURN_POINTER(ndrs_set_end(&builder));
}
