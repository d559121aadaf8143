/*
 * nhs_number.c
 *		NHS numbers without a server: parsing, check digit, printing.
 *
 * The check digit is the one of the NHS Data Dictionary: weights 10 to 2 on
 * the first nine digits, 11 minus the remainder of their sum by 11, where 11
 * counts as 0 and 10 is never issued.
 *
 * Real feeds write the same number as 9434765919, 943 476 5919, 943-476-5919,
 * with no-break spaces out of spreadsheets and with full-width digits out of
 * input methods.  A patient must not slip past the exclusion list by any of
 * these, so they are folded away.  Everything else is refused rather than
 * guessed: cutting thirteen digits to ten would make one patient of another.
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
 * no-break ones U+00A0, U+2007, U+202F.  Hyphens: U+002D, U+2010, U+2011.
 */
static size_t
separator_length(const unsigned char *s, const unsigned char *end)
{
	if (*s == ' ' || *s == '-')
		return 1;
	if (end - s >= 2 && s[0] == 0xC2 && s[1] == 0xA0)
		return 2;
	if (end - s >= 3 && s[0] == 0xE2 && s[1] == 0x80 &&
		(s[2] == 0x87 || s[2] == 0xAF || s[2] == 0x90 || s[2] == 0x91))
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
