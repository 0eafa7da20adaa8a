//! Growth: what an index and an export of stores that are hard in one way cost, from a thousand to a million, with the
//! exponents that fit. The names of tables may be given; `OUTPOUR_GROWTH_MAX` bounds the sizes.
//!
//! Speed of light: an exponent of 1.

mod appends;
mod costs;
mod harness;
mod provenance;

fn main() {
    let tables: Vec<harness::GrowthTable> =
        provenance::TABLES.into_iter().chain(costs::TABLES).chain(appends::TABLES).collect();
    harness::run(&tables);
}
