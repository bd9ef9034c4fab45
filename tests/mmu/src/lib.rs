//! Tests of page-table formats against MMUs that were not written here; see `ORACLE.md`.
