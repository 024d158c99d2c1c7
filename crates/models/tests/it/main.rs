//! Integration tests of the models crate, in one binary.

mod counts;
mod cuts;
mod files;
mod golden;
mod nets;
mod training;
