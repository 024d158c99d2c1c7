//! Integration tests of the models crate, in one binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod checkpoints;
mod cuts;
mod files;
mod golden;
mod nets;
mod starting_weights;
mod training;
mod wild;
