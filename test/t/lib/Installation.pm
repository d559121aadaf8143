# Installations of their own, whose extension files a test may change, and what an
# extension looks like in the catalogues.
package Installation;

use strict;
use warnings;

use Exporter qw(import);
use File::Basename qw(dirname);
use File::Path qw(make_path);
use File::Temp qw(tempdir);
use Test::More;

our @EXPORT = qw(configured major_version older_pg_config copy_installation build_extension catalogue_of);

# What a pg_config says: configured('/usr/bin/pg_config', 'bindir')
sub configured
{
	my ($pg_config, $what) = @_;
	my $answer = `"$pg_config" --$what`;
	die "$pg_config --$what failed" if $? != 0;
	chomp $answer;
	return $answer;
}

sub major_version
{
	my ($pg_config) = @_;
	my ($major) = configured($pg_config, 'version') =~ /(\d+)/;
	return $major;
}

# The oldest server from 15 on that is installed beside that of a pg_config, is older,
# and can be built for; or nothing
sub older_pg_config
{
	my ($pg_config) = @_;
	my ($place) = configured($pg_config, 'bindir') =~ m{^(.*/)\d+/bin$} or return;

	foreach my $major (15 .. major_version($pg_config) - 1)
	{
		my $other = "$place$major/bin/pg_config";
		return $other
		  if -x $other && -x "$place$major/bin/postgres" && -e configured($other, 'pgxs')
		  && -e configured($other, 'includedir-server') . '/postgres.h';
	}
	return;
}

# Build the extension for a server, and install it into the copy of that; a sub may
# change the sources before.
sub build_extension
{
	my ($pg_config, $directory, $source, $change) = @_;
	my $build = tempdir(CLEANUP => 1);
	my @make = ('make', '-s', '-C', $build, 'with_llvm=no', "PG_CONFIG=$pg_config");

	run_or_die('cp', '-r', (map { "$source/$_" } qw(Makefile ndrs_optout.control src sql)), $build);
	# What tests are started with is of the server at hand.
	local @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS PG_CONFIG)};
	delete @ENV{qw(MAKEFLAGS MAKELEVEL MFLAGS PG_CONFIG)};
	run_or_die(@make, 'clean');
	$change->($build) if $change;
	run_or_die(@make, '-j2');
	run_or_die(@make, 'install', "DESTDIR=$directory");
	return;
}

# Copy the installation of a pg_config below a directory, without what only builds
# need.  The server finds its files by the way from its own program to them, which
# stays the same.  Returns what Cluster->new wants as install_path.
sub copy_installation
{
	my ($pg_config, $directory) = @_;
	my ($bin, $lib, $share) = map { configured($pg_config, $_) } qw(bindir pkglibdir sharedir);

	make_path(map { "$directory$_" } $bin, $lib, $share);
	foreach my $part ($bin, $lib, $share)
	{
		run_or_die('cp', '-rL', '--no-preserve=mode,ownership', (grep { !m{/(?:bitcode|pgxs|man|man1)$} } glob "$part/*"), "$directory$part/");
	}
	chmod 0755, glob "$directory$bin/*";
	return $directory . dirname($bin);
}

sub run_or_die
{
	my @command = @_;
	system(@command) == 0 or die "failed: @command";
	return;
}

# All that the extension is in a database, one line for each thing.  Numbers of objects,
# columns that were dropped and the order of creation do not show.
sub catalogue_of
{
	my ($server, $database) = @_;
	return [ split /\n/, $server->safe_psql($database, q{
		SET search_path = pg_catalog;
		SET client_min_messages = warning;
		CREATE TEMPORARY VIEW member AS
			SELECT d.classid, d.objid, i.type, i.identity, e.extowner
				FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
				CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i
				WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'ndrs_optout';
		CREATE TEMPORARY VIEW relation AS
			SELECT m.identity, m.extowner, c.* FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid;
		SELECT regexp_replace(s.line, '\s+', ' ', 'g') FROM (
			SELECT concat_ws(' ', m.type, m.identity, obj_description(m.objid, m.classid::regclass::name)) FROM member m
			UNION ALL
			SELECT concat_ws(' ', 'extension', extversion, extrelocatable,
					(SELECT string_agg(concat_ws(' ', t.config::regclass, quote_nullable(t.condition)), ', ' ORDER BY t.config::regclass::text)
						FROM unnest(extconfig, extcondition) AS t (config, condition)))
				FROM pg_extension WHERE extname = 'ndrs_optout'
			UNION ALL
			SELECT concat_ws(' ', m.identity, pg_get_functiondef(p.oid), 'owned', p.proowner = m.extowner, p.proacl)
				FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid WHERE p.prokind <> 'a'
			UNION ALL
			SELECT concat_ws(' ', 'aggregate', m.identity, p.proparallel, p.proacl, a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn,
					a.aggdeserialfn, a.aggmtransfn, a.aggtranstype::regtype, a.aggtransspace, a.agginitval)
				FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid JOIN pg_aggregate a ON a.aggfnoid = p.oid
			UNION ALL
			SELECT concat_ws(' ', 'relation', identity, relkind, relpersistence, relrowsecurity, relreplident, reloptions, relacl,
					'owned', relowner = extowner) FROM relation
			UNION ALL
			SELECT concat_ws(' ', 'view', identity, pg_get_viewdef(oid)) FROM relation WHERE relkind = 'v'
			UNION ALL
			SELECT concat_ws(' ', 'column', r.identity, row_number() OVER (PARTITION BY r.oid ORDER BY a.attnum), a.attname,
					format_type(a.atttypid, a.atttypmod), 'NOT NULL', a.attnotnull, a.attidentity, a.attgenerated, c.collname,
					pg_get_expr(d.adbin, d.adrelid), a.attacl, col_description(r.oid, a.attnum))
				FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
				LEFT JOIN pg_collation c ON c.oid = a.attcollation
				LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
			UNION ALL
			SELECT concat_ws(' ', 'constraint', r.identity, k.conname, pg_get_constraintdef(k.oid), k.convalidated)
				FROM relation r JOIN pg_constraint k ON k.conrelid = r.oid
			UNION ALL
			SELECT concat_ws(' ', 'index', r.identity, pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisreplident)
				FROM relation r JOIN pg_index i ON i.indrelid = r.oid
			UNION ALL
			SELECT concat_ws(' ', 'trigger', r.identity, pg_get_triggerdef(t.oid), t.tgenabled, obj_description(t.oid, 'pg_trigger'))
				FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
			UNION ALL
			SELECT concat_ws(' ', 'rule', r.identity, pg_get_ruledef(w.oid), w.ev_enabled)
				FROM relation r JOIN pg_rewrite w ON w.ev_class = r.oid WHERE r.relkind <> 'v'
			UNION ALL
			SELECT concat_ws(' ', 'type', m.identity, t.typtype, t.typlen, t.typbyval, t.typalign, t.typstorage, t.typinput, t.typoutput,
					t.typreceive, t.typsend, t.typnotnull, t.typdefault, t.typcategory, t.typacl)
				FROM member m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid
			UNION ALL
			SELECT concat_ws(' ', 'operator', m.identity, o.oprcode, o.oprrest, o.oprjoin, o.oprcanmerge, o.oprcanhash,
					o.oprcom::regoperator, o.oprnegate::regoperator)
				FROM member m JOIN pg_operator o ON m.classid = 'pg_operator'::regclass AND o.oid = m.objid
			UNION ALL
			SELECT concat_ws(' ', 'operator of a family', f.opfname, a.amopstrategy, a.amopopr::regoperator)
				FROM member m JOIN pg_opfamily f ON m.classid = 'pg_opfamily'::regclass AND f.oid = m.objid JOIN pg_amop a ON a.amopfamily = f.oid
			UNION ALL
			SELECT concat_ws(' ', 'function of a family', f.opfname, a.amprocnum, a.amproc::regprocedure)
				FROM member m JOIN pg_opfamily f ON m.classid = 'pg_opfamily'::regclass AND f.oid = m.objid JOIN pg_amproc a ON a.amprocfamily = f.oid
			UNION ALL
			SELECT concat_ws(' ', 'cast', m.identity, c.castfunc::regprocedure, c.castcontext, c.castmethod)
				FROM member m JOIN pg_cast c ON m.classid = 'pg_cast'::regclass AND c.oid = m.objid
			UNION ALL
			SELECT concat_ws(' ', 'event trigger', t.evtname, t.evtevent, t.evtenabled, t.evttags, t.evtfoid::regprocedure)
				FROM member m JOIN pg_event_trigger t ON m.classid = 'pg_event_trigger'::regclass AND t.oid = m.objid
			UNION ALL
			SELECT concat_ws(' ', 'schema', n.nspname, n.nspacl) FROM pg_namespace n WHERE n.nspname = 'ndrs_optout'
			UNION ALL
			SELECT concat_ws(' ', 'initial privileges', i.type, i.identity, p.privtype, p.initprivs)
				FROM pg_init_privs p CROSS JOIN LATERAL pg_identify_object(p.classoid, p.objoid, p.objsubid) i WHERE i.schema = 'ndrs_optout'
			UNION ALL
			SELECT concat_ws(' ', 'duty', d.*) FROM ndrs_optout.duty_privilege d
			UNION ALL
			SELECT concat_ws(' ', 'register', d.*) FROM ndrs_optout.register d
			UNION ALL
			SELECT concat_ws(' ', 'purpose', d.*) FROM ndrs_optout.purpose d
			UNION ALL
			SELECT concat_ws(' ', 'holiday', d.*) FROM ndrs_optout.bank_holiday d) AS s (line)
		ORDER BY s.line COLLATE "C"}) ];
}

1;
