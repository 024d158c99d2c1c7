//! Reports of results: records of a study, published numbers, and tables of both. Independent of specs, the store and tensors. The
//! only crate that uses Polars.

pub mod figures;
pub mod html;
pub mod published;
pub mod records;
pub mod tables;
