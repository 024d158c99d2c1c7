//! A study: its spec, the plan, the ids of its stages, and the records gathered for it.

pub(crate) mod check;
pub(crate) mod cost;
mod estimate;
mod gather;
pub(crate) mod identity;
pub mod keys;
mod layer_list;
mod options;
mod plan;
mod plan_manifest;
mod recipe;
mod resolved;
mod selector_command;
mod selector_spec;
mod spec;
pub(crate) mod spec_text;
pub(crate) mod unfit;
mod variants;
mod work;

pub use cost::KINDS_OF_WORK;
pub use estimate::{Basis, Estimate, KindCost, estimate, estimate_without_data};
pub use gather::{gather, not_run};
pub use options::Options;
pub use plan::{Cell, DensePlan, EvidencePlan, Plan};
pub use plan_manifest::manifest;
pub use recipe::Recipe;
pub(crate) use resolved::tuning_steps;
pub use resolved::{CellDesign, ResolvedStudy};
pub(crate) use selector_command::PROTOCOL;
pub use selector_command::SelectorCommand;
pub use selector_spec::{CommandSpec, SelectorSpec};
pub use spec::*;
pub use spec_text::spec_files;
pub use variants::{Variant, VariantSpec};
pub(crate) use work::assumed_rate;
