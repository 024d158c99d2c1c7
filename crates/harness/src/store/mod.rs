//! The results folder: finished stages, claims on unfinished ones, the folders of runs, and the environment. Independent of specs and
//! plans.

mod claim;
mod environment;
mod manifest;
pub mod paths;
mod processor;
pub(crate) mod run_folder;
mod stage_id;
mod stage_record;
mod stage_store;

pub use claim::{Activity, Holder};
pub(crate) use claim::{Claim, ClaimTiming, GUARD, holder};
pub use environment::{cpu_model, environment_here, host_name, machine};
pub use manifest::{Manifest, ManifestEntry, StageKind};
pub(crate) use processor::has_bf16_kernels;
pub use processor::{cpu_identity, instruction_set};
pub use run_folder::{list_runs, run_environment, run_spec};
pub use stage_id::StageId;
pub use stage_record::StageResult;
pub(crate) use stage_record::{Brief, StageInputs};
pub use stage_store::Store;
pub(crate) use stage_store::{Depth, leftovers};
