//! Whole studies on a small generated image folder: resume, independence of order and company, bad specs, shipped specs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod allocation;
mod bad_specs;
mod batch_norm;
mod criteria;
mod estimates;
mod fixture;
mod flops;
mod full_kernel;
mod golden_ids;
mod groups;
mod panics;
mod paper_tables;
mod photographs;
mod photos;
mod plan_ids;
mod programs;
mod published_cifar;
mod resume;
mod schema;
mod shipped_specs;
mod small;
mod studies;
mod takeover;
mod unfit;
mod variants;
