//! A study: its spec, the plan, the ids of its stages, and the records gathered for it.

pub(crate) mod check;
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
mod schema;
mod spec;
pub(crate) mod spec_text;
mod stored_run;
pub(crate) mod unfit;
mod variants;
mod work;

pub use estimate::{Estimate, estimate, estimate_without_data};
pub use gather::{gather, not_run};
pub use options::Options;
pub use plan::{Cell, DensePlan, EvidencePlan, Plan};
pub use plan_manifest::manifest;
pub use recipe::Recipe;
pub(crate) use resolved::tuning_steps;
pub use resolved::{CellDesign, ResolvedStudy};
pub use schema::{schema, schema_text};
pub use spec::*;
pub use spec_text::spec_files;
pub use variants::{Variant, VariantSpec};
pub(crate) use work::assumed_rate;
