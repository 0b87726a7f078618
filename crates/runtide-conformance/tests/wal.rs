//! The laws of the log, on the log.

runtide_conformance::wal_suite!(runtide_conformance::wal::RealLog);
