//! The integration tests, in one binary. They run the binary `outpour` and compare its output with `expected.json` of
//! the bundled stores, with the naive oracle, or with a table of cases. Unit tests are beside the library's code.
//!
//! Settings by environment variable: `OUTPOUR_TEST_SEED` (printed by every random test), `OUTPOUR_TEST_CASES`
//! (generated stores), `OUTPOUR_TEST_CHAINS` (random histories), `OUTPOUR_TEST_KILLS`, `OUTPOUR_TEST_CUTS`,
//! `OUTPOUR_TEST_FULL=1` (full sizes of the memory tests).

mod attachments;
mod cases;
mod chains;
mod clock;
mod cold;
mod commands;
mod comparison;
mod compat;
mod conformance;
mod consuming;
mod context;
mod costs;
mod crash;
mod disk;
mod edits;
mod elements;
mod engine_cases;
mod errors;
mod file_forms;
mod fixture;
mod generated;
mod generator;
mod golden;
mod hostile;
mod http;
mod import;
mod increments;
mod index_memory;
mod index_tasks;
mod integrity;
mod irregular;
mod joined_gzip;
mod line_rules;
mod manners;
mod many_files;
mod matrix;
mod member_filters;
mod memory;
mod messages;
mod naive;
mod nights;
mod pack;
mod packed_memory;
mod processing_order;
mod random;
mod readme;
mod receipts;
mod rivals;
mod run;
mod search_at_random;
mod search_columns;
mod search_parameters;
mod spark;
mod store_forms;
mod store_names;
mod synth;
mod tasks;
mod truncate;
mod type_filters;
mod unproven;
mod vanished;
mod verify;
mod wording;
