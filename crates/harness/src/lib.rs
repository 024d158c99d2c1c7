//! The harness: spec → plan → stages → records. The only crate that reads specs and knows the results folder.
//!
//! [`study`] turns a spec into a plan, [`store`] holds finished stages, [`stages`] computes them, [`run`] distributes them over
//! processes, [`events`] reports progress, and [`inspect`] reads results back.

mod error;
pub mod events;
pub mod inspect;
pub mod run;
pub mod stages;
mod stop;
pub mod store;
pub mod study;

pub use error::{BatchSize, HarnessError, SpecError};
pub use stop::Stop;
