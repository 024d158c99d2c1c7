//! Plain records of measurements. Tables are built from these alone.

mod difference;
mod environment;
pub mod number;
mod processor;
mod study;

pub use difference::{Difference, differences, leaves};
pub use environment::{Environment, Gpu, Program};
pub use processor::CpuIdentity;
pub use study::{
    CellRecord, DenseRecord, FROM_SCRATCH, LossCurve, Metric, Mode, Phase, Row, SampleRecord, Size, Status,
    StudyRecord, Unfit, VariantRecord, find,
};
