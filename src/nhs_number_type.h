/*
 * nhs_number_type.h
 *		Reading NHS numbers out of values of any type that can hold them.
 */
#ifndef NDRS_NHS_NUMBER_TYPE_H
#define NDRS_NHS_NUMBER_TYPE_H

#include "postgres.h"
#include "nhs_number.h"

typedef NhsNumberForm (*NhsNumberReader) (Datum value, NhsNumber *number);

extern NhsNumberReader ndrs_number_reader(Oid type);

#endif							/* NDRS_NHS_NUMBER_TYPE_H */
