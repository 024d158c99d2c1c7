//! The harness: spec → plan → stages → records. The only crate that reads specs and knows the folder of results; a room for each
//! question that a study raises.

mod error;
pub mod events;
pub mod inspect;
pub mod run;
pub mod stages;
mod stop;
pub mod store;
pub mod study;

pub use error::{HarnessError, SpecError};
pub use stop::Stop;
