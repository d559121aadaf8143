# ndrs_optout: patient opt-out for disease registries, a PostgreSQL extension
#
# make help     what there is to do

EXTENSION = ndrs_optout
EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(EXTENSION).control)
MODULE_big = ndrs_optout

OBJS = \
	src/ndrs_optout.o \
	src/audit.o \
	src/catalog.o \
	src/own_tables.o \
	src/privacy.o \
	src/nhs_number.o \
	src/nhs_number_type.o \
	src/encoded_nhs_number.o \
	src/encoding_core.o \
	src/encoding.o \
	src/encoded_set_core.o \
	src/encoded_set.o \
	src/exclusion_list.o \
	src/secret_file.o \
	src/recall_id.o \
	src/national_check.o \
	src/national_check_reply.o \
	src/sharing.o \
	src/guard_decision.o \
	src/guard_erasure.o \
	src/guard_trigger.o \
	src/guard_constraint.o \
	src/guard_search.o \
	src/guard_policy.o \
	src/guard_tally.o \
	src/sentry.o \
	src/erasure_locks.o \
	src/erasure_writers.o \
	src/erasure_as_owner.o \
	src/erasure_cache.o \
	src/erasure_statistics.o \
	src/guard_coverage.o

# In order of dependency.  privileges.sql comes last: who can do what is one page.
PIECES = $(addprefix sql/install/, \
	extension.sql \
	privacy.sql \
	word.sql \
	version.sql \
	code.sql \
	audit.sql \
	own_tables.sql \
	nhs_number.sql \
	argument.sql \
	encoding.sql \
	verify_audit.sql \
	encoded_set.sql \
	exclusion_list.sql \
	extension_function.sql \
	policy.sql \
	letter_template.sql \
	letter_wording.sql \
	confidential.sql \
	hold.sql \
	optout_case.sql \
	correspondence.sql \
	hold_case.sql \
	table_tree.sql \
	search_as_owner.sql \
	expected_edge.sql \
	guard.sql \
	guard_part.sql \
	reference.sql \
	erasure_graph.sql \
	declare_reference.sql \
	edge_state.sql \
	lost_edge.sql \
	erasure_order.sql \
	recipient.sql \
	purpose.sql \
	agreement.sql \
	national_check.sql \
	erasure_walk.sql \
	erasure_in_flight.sql \
	erasure_owned.sql \
	declare_owned.sql \
	erasure_preview.sql \
	erasure_statistics.sql \
	erasure.sql \
	sharing.sql \
	share_view.sql \
	release.sql \
	register_use.sql \
	pseudo_id.sql \
	recall_id.sql \
	recall_wording.sql \
	recall.sql \
	release_record.sql \
	recall_file.sql \
	carry_out.sql \
	guard_copies.sql \
	guard_coverage.sql \
	certificate.sql \
	letter.sql \
	case_progress.sql \
	subject_access_request.sql \
	complaint.sql \
	subject_access.sql \
	sweep.sql \
	sentry_part.sql \
	sentry.sql \
	retention.sql \
	completeness.sql \
	deletion_concept.sql \
	access.sql \
	health.sql \
	health_proofs.sql \
	refresh_guards.sql \
	privileges.sql)

SCRIPT = sql/$(EXTENSION)--$(EXTVERSION).sql
DATA_built = $(SCRIPT)
# Written by hand, one for each version that can be updated
DATA = $(wildcard sql/upgrade/$(EXTENSION)--*--*.sql)

# What tells one build from another of the same version: all that the script says.
# The library has it and the catalogue has it, and health() compares them.
BUILD := $(shell cat $(sort $(PIECES)) | sha256sum | cut -c 1-16)

# A test of one capability begins with the capability's name (git ls-files | grep NAME).
# extension comes first, because it makes the extension.
REGRESS = extension nhs_number encoding encoded_set exclusion_list own_tables pseudo_id \
	guard guard_paths guard_tally erasure erasure_graph declare_reference lost_edge erasure_owned erasure_history \
	erasure_in_flight optout_case correspondence certificate subject_access audit \
	guard_copies guard_coverage sentry sweep retention deletion_concept \
	purpose national_check national_check_sets sharing share_view release recall_file \
	privileges access access_text_parameters health erasure_statistics letter version
REGRESS_OPTS = --inputdir=test
ISOLATION = setup \
	audit_in_two_sessions audit_while_locked \
	carry_out_after_insert_opened carry_out_against_unguard carry_out_before_insert_opens \
	carry_out_in_long_copy carry_out_locks_without_rows carry_out_prepared_transaction \
	carry_out_savepoint_rolled_back carry_out_while_attaching carry_out_while_reloaded \
	confidential_key_while_recorded \
	erasure_child_in_flight erasure_graph_while_changing erasure_owned_twice erasure_owned_while_reloaded \
	erasure_together_twice erasure_while_detached \
	erasure_statistics_while_locked erasure_while_readmitted \
	exclusion_list_old_snapshot exclusion_list_readmit_against_insert exclusion_list_rebuild_while_invalidated \
	guard_coverage_while_locked guard_table_while_inserting \
	health_while_locked \
	hold_case_while_erased \
	lost_edge_while_carried_out \
	national_check_started_while_erased national_check_started_while_opted_out national_check_while_asked \
	optout_case_proof_while_withdrawn optout_case_two_at_once \
	register_use_while_deleted \
	release_while_opted_out \
	retention_purge_twice \
	search_as_owner_replanned \
	sentry_detach_while_writing sentry_drop_while_carried_out sentry_guard_changed sentry_names_exchanged \
	subject_access_while_changing \
	sweep_one_at_a_time sweep_while_dropped
ISOLATION_OPTS = --inputdir=test --outputdir=.
TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

UNIT_TESTS = nhs_number_test encoding_test encoding_evp_test encoded_set_test
FUZZ_TESTS = encoded_set_fuzz
FUZZ_SECONDS = 10

SHLIB_LINK = -lcrypto -Wl,--version-script=$(srcdir)/src/exports.map
EXTRA_CLEAN = sql/$(EXTENSION)--*.sql $(addprefix test/unit/, $(UNIT_TESTS)) \
	$(addprefix test/fuzz/, $(FUZZ_TESTS)) test/benchmarks/encoded_set_bench

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS tracks no headers here: each object is built anew when any changes.
$(OBJS): $(wildcard src/*.h)
ndrs_optout.so: src/exports.map

# The Makefile too, since it holds the order of the pieces.
$(SCRIPT): $(PIECES) $(EXTENSION).control Makefile
	cat $(PIECES) | sed 's/@BUILD@/$(BUILD)/' > $@

src/ndrs_optout.o: $(PIECES)
src/ndrs_optout.o: CPPFLAGS += -DNDRS_BUILD='"$(BUILD)"'

# For an upgrade script, which has to set it
.PHONY: build-id
build-id:
	@echo $(BUILD)

# Tests of what needs no server; each program prints TAP.
.PHONY: unit
unit: $(addprefix test/unit/, $(UNIT_TESTS))
	$(PROVE) --exec '' $^

test/unit/nhs_number_test: test/unit/nhs_number_test.c src/nhs_number.c
test/unit/encoded_set_test: test/unit/encoded_set_test.c src/encoded_set_core.c
# Once more as with an OpenSSL that has no deprecated functions
test/unit/encoding_test test/unit/encoding_evp_test: test/unit/encoding_test.c src/encoding_core.c
test/unit/encoding_test test/unit/encoding_evp_test: UNIT_FLAGS = -lcrypto
test/unit/encoding_evp_test: UNIT_FLAGS += -DOPENSSL_API_COMPAT=30000 -DOPENSSL_NO_DEPRECATED
$(addprefix test/unit/, $(UNIT_TESTS)): test/unit/tap.h $(wildcard src/*.h)
	$(CC) -std=gnu99 -g -O1 -Wall -Wextra -Werror -fsanitize=address,undefined \
		-fno-sanitize-recover=all -Isrc $(filter %.c, $^) $(UNIT_FLAGS) -o $@

# Hostile bytes, for a bounded time; what breaks a program is left in test/fuzz.
.PHONY: fuzz
fuzz: $(addprefix test/fuzz/, $(FUZZ_TESTS))
	for program in $^; do \
		$$program -max_total_time=$(FUZZ_SECONDS) -max_len=8192 -artifact_prefix=$$program. \
			-verbosity=0 -print_final_stats=1 || exit; \
	done

test/fuzz/encoded_set_fuzz: test/fuzz/encoded_set_fuzz.c src/encoded_set_core.c
$(addprefix test/fuzz/, $(FUZZ_TESTS)): $(wildcard src/*.h)
	clang -std=gnu99 -g -O1 -Wall -Wextra -Werror -fsanitize=fuzzer,address,undefined \
		-fno-sanitize-recover=all -Isrc $(filter %.c, $^) -o $@

.PHONY: bench
bench: test/benchmarks/encoded_set_bench
	$<

test/benchmarks/encoded_set_bench: test/benchmarks/encoded_set_bench.c src/encoded_set_core.c $(wildcard src/*.h)
	$(CC) -std=gnu99 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -Isrc $(filter %.c, $^) -o $@

.PHONY: help
help:
	@echo 'demo/run            everything from nothing: an opt-out in front of your eyes'
	@echo 'test/run            everything from nothing: all tests'
	@echo 'make                build (PG_CONFIG=... picks the server)'
	@echo 'make install        install into that server'
	@echo 'make installcheck   tests against a running server, where the extension is installed'
	@echo 'make unit           tests that need no server'
	@echo 'make fuzz           hostile bytes, for FUZZ_SECONDS (by default 10)'
	@echo 'make bench          what look-ups in an encoded set cost'
	@echo 'make build-id       what an upgrade script must let catalogue_build() return'
	@echo 'make clean          remove what was built'
