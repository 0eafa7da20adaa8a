//! The only home of `unsafe`.
