/*
 * nhs_number.c
 *		NHS numbers without a server: parsing, check digit, printing.
 *
 * The check digit is the one of the NHS Data Dictionary: weights 10 to 2 on
 * the first nine digits, 11 minus the remainder of their sum by 11, where 11
 * counts as 0 and 10 is never issued.
 *
 * Real feeds write the same number as 9434765919, 943 476 5919, 943-476-5919,
 * with no-break spaces out of spreadsheets, with full-width digits out of
 * input methods, and with invisible characters, out of web pages and NHS
 * software.  A patient must not slip past the exclusion list by any of these,
 * so they are folded away.  Everything else is refused rather than guessed:
 * cutting thirteen digits to ten would make one patient of another.
 *
 * Text is read as UTF-8.
 */
#include "nhs_number.h"

#include <string.h>

/* Blanks that count around the number, but would join two numbers inside it */
static bool
is_outer_blank(unsigned char c)
{
	return c == '\t' || c == '\n' || c == '\v' || c == '\f' || c == '\r';
}

/*
 * Bytes of the separator at the start of s, or 0.  Spaces: U+0020, and the
 * no-break ones U+00A0, U+2007, U+202F.  Hyphens: U+002D, U+2010, U+2011.  What is
 * not seen at all, as copied text has it: U+00AD, U+200B to U+200F, U+202A to
 * U+202E, U+2060, U+FEFF.
 */
static size_t
separator_length(const unsigned char *s, const unsigned char *end)
{
	if (*s == ' ' || *s == '-')
		return 1;
	if (end - s >= 2 && s[0] == 0xC2 && (s[1] == 0xA0 || s[1] == 0xAD))
		return 2;
	if (end - s < 3)
		return 0;
	if (s[0] == 0xE2 && s[1] == 0x80 &&
		(s[2] == 0x87 || (s[2] >= 0x8B && s[2] <= 0x91) || (s[2] >= 0xAA && s[2] <= 0xAF)))
		return 3;
	if ((s[0] == 0xE2 && s[1] == 0x81 && s[2] == 0xA0) ||
		(s[0] == 0xEF && s[1] == 0xBB && s[2] == 0xBF))
		return 3;
	return 0;
}

/* Bytes of the digit at the start of s, or 0.  Full-width: U+FF10 to U+FF19. */
static size_t
digit_length(const unsigned char *s, const unsigned char *end, int *digit)
{
	if (*s >= '0' && *s <= '9')
	{
		*digit = *s - '0';
		return 1;
	}
	if (end - s >= 3 && s[0] == 0xEF && s[1] == 0xBC &&
		s[2] >= 0x90 && s[2] <= 0x99)
	{
		*digit = s[2] - 0x90;
		return 3;
	}
	return 0;
}

/*
 * Digits come off one after the other, each waiting for the last: two halves go
 * side by side.
 */
#define HALF_DIGITS			(NHS_NUMBER_DIGITS / 2)
#define HALF_LIMIT			100000

static inline void
halve(NhsNumber number, uint32_t *upper, uint32_t *lower)
{
	*upper = (uint32_t) (number / HALF_LIMIT);
	*lower = (uint32_t) (number % HALF_LIMIT);
}

/*
 * Weight 1 on the check digit, up to 10 on the first, makes the sum of a valid
 * number a multiple of 11, and no digit fits where the check digit would have
 * been 10.
 */
static NhsNumberForm
agree(int64_t value, int weighted_sum, NhsNumber *number)
{
	if (weighted_sum % 11 != 0)
		return NHS_NUMBER_BAD_CHECK_DIGIT;
	*number = value;
	return NHS_NUMBER_VALID;
}

/*
 * Read what nearly every text is, ten ASCII digits and nothing else.  False when it
 * is something else.
 */
static inline bool
read_plain(const unsigned char *s, size_t length, int64_t *value, int *weighted_sum)
{
	int			sum = 0;

	if (length != NHS_NUMBER_DIGITS)
		return false;
	*value = 0;
	*weighted_sum = 0;
	for (int i = 0; i < NHS_NUMBER_DIGITS; i++)
	{
		unsigned int digit = s[i] - (unsigned int) '0';

		if (digit > 9)
			return false;
		*value = *value * 10 + digit;
		sum += digit;
		*weighted_sum += sum;
	}
	return true;
}

/*
 * Read a number.  *number is set only when the result is NHS_NUMBER_VALID.
 */
NhsNumberForm
nhs_number_parse(const char *text, size_t length, NhsNumber *number)
{
	const unsigned char *s = (const unsigned char *) text;
	const unsigned char *end = s + length;
	int64_t		value;
	int			digits = 0;
	int			sum = 0;
	int			weighted_sum;

	if (read_plain(s, length, &value, &weighted_sum))
		return agree(value, weighted_sum, number);

	value = 0;
	weighted_sum = 0;
	while (s < end && is_outer_blank(end[-1]))
		end--;
	while (s < end && is_outer_blank(*s))
		s++;

	while (s < end)
	{
		int			digit;
		size_t		n = digit_length(s, end, &digit);

		if (n > 0)
		{
			/*
			 * A sum of sums counts each of ten digits as often as its weight.
			 * Go on to the end: a bad character says more than "too long".
			 */
			if (digits < NHS_NUMBER_DIGITS)
			{
				value = value * 10 + digit;
				sum += digit;
				weighted_sum += sum;
			}
			digits++;
		}
		else
		{
			n = separator_length(s, end);
			if (n == 0)
				return NHS_NUMBER_BAD_CHARACTER;
		}
		s += n;
	}

	if (digits == 0)
		return NHS_NUMBER_EMPTY;
	if (digits < NHS_NUMBER_DIGITS)
		return NHS_NUMBER_TOO_SHORT;
	if (digits > NHS_NUMBER_DIGITS)
		return NHS_NUMBER_TOO_LONG;
	return agree(value, weighted_sum, number);
}

/*
 * Take an integer for a number.  A number column of an integer type has lost
 * its leading zeros, so a short value is not a mistake by itself: the check
 * digit decides.
 */
NhsNumberForm
nhs_number_check(int64_t value, NhsNumber *number)
{
	uint32_t	upper;
	uint32_t	lower;
	int			weighted_sum = 0;

	if (value < 0)
		return NHS_NUMBER_BAD_CHARACTER;
	if (value >= NHS_NUMBER_LIMIT)
		return NHS_NUMBER_TOO_LONG;

	halve(value, &upper, &lower);
	for (int weight = 1; weight <= HALF_DIGITS; weight++)
	{
		weighted_sum += (int) (lower % 10) * weight + (int) (upper % 10) * (weight + HALF_DIGITS);
		lower /= 10;
		upper /= 10;
	}
	return agree(value, weighted_sum, number);
}

/*
 * What is wrong, as a sentence without the value.
 */
const char *
nhs_number_form_detail(NhsNumberForm form)
{
	switch (form)
	{
		case NHS_NUMBER_VALID:
			break;
		case NHS_NUMBER_EMPTY:
			return "The value is empty.";
		case NHS_NUMBER_BAD_CHARACTER:
			return "The value holds something other than digits, spaces and hyphens.";
		case NHS_NUMBER_TOO_SHORT:
			return "The value has fewer than ten digits.";
		case NHS_NUMBER_TOO_LONG:
			return "The value has more than ten digits.";
		case NHS_NUMBER_BAD_CHECK_DIGIT:
			return "The check digit does not agree with the other nine digits.";
	}
	return "The value is an NHS number.";
}

/*
 * Write ten digits, without a terminator.
 */
void
nhs_number_digits(NhsNumber number, char *digits)
{
	uint32_t	upper;
	uint32_t	lower;

	halve(number, &upper, &lower);
	for (int i = HALF_DIGITS - 1; i >= 0; i--)
	{
		digits[i] = (char) ('0' + upper % 10);
		digits[HALF_DIGITS + i] = (char) ('0' + lower % 10);
		upper /= 10;
		lower /= 10;
	}
}

/* Where the ten digits 0 to 9 of the scripts of Unicode begin; ASCII's are first */
static const uint32_t digit_zeros[] = {
	0x0030, 0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66,
	0x0CE6, 0x0D66, 0x0DE6, 0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946,
	0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0,
	0xA9F0, 0xAA50, 0xABF0, 0xFF10, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6
};

/* The code point at the start of s, or 0 for bytes that are no UTF-8 */
static uint32_t
code_point(const unsigned char *s, const unsigned char *end, size_t *length)
{
	static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
	size_t		more;
	uint32_t	result;

	*length = 1;
	if (*s < 0x80)
		return *s;
	if (*s < 0xC0 || *s >= 0xF8)
		return 0;
	more = *s >= 0xF0 ? 3 : *s >= 0xE0 ? 2 : 1;
	if ((size_t) (end - s) <= more)
		return 0;
	result = *s & (0x3F >> more);
	for (size_t i = 1; i <= more; i++)
	{
		if ((s[i] & 0xC0) != 0x80)
			return 0;
		result = result << 6 | (s[i] & 0x3F);
	}
	if (result < least[more])
		return 0;
	*length = more + 1;
	return result;
}

/*
 * What people put between the digits of a number: marks, blanks and dashes of any
 * kind, invisible characters.  Letters are none.
 */
static bool
is_loose_separator(uint32_t c)
{
	if (c < 0x80)
		return c != 0 && !(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z');
	return (c >= 0x80 && c <= 0xBF && c != 0xAA && c != 0xB5 && c != 0xBA) || c == 0x034F || c == 0x061C ||
		c == 0x058A || c == 0x05BE || (c >= 0x066A && c <= 0x066D) || c == 0x060C || c == 0x06D4 ||
		c == 0x180E || (c >= 0x2000 && c <= 0x206F) || c == 0x2212 || c == 0x2219 || c == 0x22C5 ||
		(c >= 0x2500 && c <= 0x25FF) || (c >= 0x3000 && c <= 0x3003) || c == 0x30FB || c == 0x30FC ||
		(c >= 0xFE00 && c <= 0xFE0F) || (c >= 0xFE50 && c <= 0xFE6F) || c == 0xFEFF ||
		(c >= 0xFF01 && c <= 0xFF0F) || (c >= 0xFF1A && c <= 0xFF20) || (c >= 0xFF3B && c <= 0xFF40) ||
		(c >= 0xFF5B && c <= 0xFF65);
}

/* Bytes of the digit at the start of s, or 0; loosely: of any script */
static size_t
text_digit_length(const unsigned char *s, const unsigned char *end, bool loosely, int *digit)
{
	size_t		length = digit_length(s, end, digit);

	if (length == 0 && loosely && *s >= 0x80)
	{
		uint32_t	c = code_point(s, end, &length);

		for (size_t i = 0; i < sizeof(digit_zeros) / sizeof(digit_zeros[0]); i++)
		{
			if (c >= digit_zeros[i] && c < digit_zeros[i] + 10)
			{
				*digit = (int) (c - digit_zeros[i]);
				return length;
			}
		}
		length = 0;
	}
	return length;
}

/*
 * The last ten digits that were read, the latest last, and before which of them a
 * group begins: the mark before it, or 1 for several or another character.
 */
typedef struct LastDigits
{
	int			digits[NHS_NUMBER_DIGITS];
	unsigned char before[NHS_NUMBER_DIGITS];
	int			count;			/* not more than there is room for */
} LastDigits;

static int
value_of(const LastDigits *last, int start, int length)
{
	int			value = 0;

	for (int i = start; i < start + length; i++)
		value = value * 10 + last->digits[i];
	return value;
}

/* Does a group of so many digits begin there, behind this mark (0: behind any)? */
static bool
is_group(const LastDigits *last, int start, int length, unsigned char mark)
{
	for (int i = start + 1; i < start + length; i++)
	{
		if (last->before[i] != 0)
			return false;
	}
	return last->before[start] != 0 && (mark == 0 || last->before[start] == mark) &&
		(start + length == NHS_NUMBER_DIGITS || last->before[start + length] != 0);
}

/* Do the digits end in a date, such as 2026-11-29 or 29/11/2026? */
static bool
ends_in_date(const LastDigits *last)
{
	const int	start = NHS_NUMBER_DIGITS - 8;
	bool		year_first = is_group(last, start, 4, 0);
	int			middle = start + (year_first ? 4 : 2);
	unsigned char mark = last->before[middle];
	int			year = value_of(last, year_first ? start : middle + 2, 4);

	return last->count >= 8 && (mark == '-' || mark == '/' || mark == '.') &&
		is_group(last, start, year_first ? 4 : 2, 0) && is_group(last, middle, 2, mark) &&
		is_group(last, middle + 2, year_first ? 2 : 4, mark) &&
		year >= 1850 && year < 2150 && value_of(last, middle, 2) <= 31 &&
		value_of(last, year_first ? middle + 2 : start, 2) <= 31;
}

/* Do they end in a time, such as 12:30:15? */
static bool
ends_in_time(const LastDigits *last)
{
	const int	start = NHS_NUMBER_DIGITS - 6;

	return last->count >= 6 && is_group(last, start, 2, 0) && is_group(last, start + 2, 2, ':') &&
		is_group(last, start + 4, 2, ':') && value_of(last, start, 2) < 24 &&
		value_of(last, start + 2, 2) < 60 && value_of(last, start + 4, 2) <= 60;
}

/*
 * Are the last ten digits an NHS number?  It begins and ends where groups do: a longer
 * run of digits is something else.  Lists of short numbers, which are many groups, are
 * something else, too, but digits one by one are not.
 */
static bool
ends_in_number(const LastDigits *last, bool loosely)
{
	int			groups = 0;
	int			sum = 0;
	int			weighted_sum = 0;

	if (last->count < NHS_NUMBER_DIGITS || last->before[0] == 0)
		return false;
	for (int i = 0; i < NHS_NUMBER_DIGITS; i++)
	{
		groups += last->before[i] != 0;
		sum += last->digits[i];
		weighted_sum += sum;
	}
	return weighted_sum % 11 == 0 &&
		(!loosely || groups <= 5 || groups == NHS_NUMBER_DIGITS);
}

/*
 * A group of digits has ended: of a number?  What is a date or a time is none, and no
 * part of one.
 */
static bool
group_ends_number(LastDigits *last, bool loosely)
{
	if (ends_in_date(last) || ends_in_time(last))
		last->count = 0;
	return ends_in_number(last, loosely);
}

/*
 * Does a text hold an NHS number?  As the type itself reads them, or loosely: with
 * marks between the digits, and digits of any script.  In one pass, since texts can be
 * long.
 */
bool
nhs_number_in_text(const char *text, size_t length, bool loosely)
{
	const unsigned char *s = (const unsigned char *) text;
	const unsigned char *end = s + length;
	const int	most_between = loosely ? 3 : 20;
	LastDigits	last = {.count = 0};
	unsigned char mark = 1;		/* before the next digit; 0: a digit */
	int			between = 0;

	while (s < end)
	{
		int			digit;
		size_t		n = text_digit_length(s, end, loosely, &digit);

		if (n > 0)
		{
			memmove(last.digits, last.digits + 1, (NHS_NUMBER_DIGITS - 1) * sizeof(last.digits[0]));
			memmove(last.before, last.before + 1, NHS_NUMBER_DIGITS - 1);
			last.digits[NHS_NUMBER_DIGITS - 1] = digit;
			last.before[NHS_NUMBER_DIGITS - 1] = mark;
			if (last.count < NHS_NUMBER_DIGITS)
				last.count++;
			mark = 0;
			between = 0;
			s += n;
			continue;
		}
		if (mark == 0 && group_ends_number(&last, loosely))
			return true;
		n = separator_length(s, end);
		if (n == 0 && loosely && !is_loose_separator(code_point(s, end, &n)))
			n = 0;
		mark = between == 0 && n == 1 ? *s : 1;
		if (n == 0 || ++between > most_between)
			last.count = 0;
		s += n == 0 ? 1 : n;
	}
	return mark == 0 && group_ends_number(&last, loosely);
}
