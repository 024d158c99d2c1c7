//! What was measured, for people: records of a study, the published numbers beside them, and the tables made from both. Takes
//! records only: no spec, no store, no tensor. The only crate that uses Polars.

pub mod published;
pub mod records;
pub mod tables;
