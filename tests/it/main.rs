//! The integration tests, one binary: everything here goes through the command line of `outpour`, and is compared with
//! `expected.json` of the bundled stores, with the naive twin, or with a table of cases. The library's own tests live
//! beside its code.
//!
//! Knobs, all by environment variable: `OUTPOUR_TEST_SEED` (printed by every random test), `OUTPOUR_TEST_CASES`
//! (generated stores), `OUTPOUR_TEST_CHAINS` (random histories), `OUTPOUR_TEST_KILLS`, `OUTPOUR_TEST_CUTS`,
//! `OUTPOUR_TEST_FULL=1` (full sizes of the memory tests).

mod ask;
mod cases;
mod chain;
mod commands;
mod conformance;
mod crash;
mod disk;
mod errors;
mod fixture;
mod forge;
mod forms;
mod generated;
mod golden;
mod hostile;
mod http;
mod irregular;
mod matrix;
mod memory;
mod naive;
mod pack;
mod packed_memory;
mod random;
mod readme;
mod rivals;
mod run;
mod synth;
mod truncate;
mod verify;
