//! Gathers the records of a study from the store; missing stages are marked as not run.

use std::collections::BTreeMap;
use std::sync::Arc;

use thinet_data::Protocol;
use thinet_models::Precision;
use thinet_report::records::{CellRecord, DenseRecord, SampleRecord, Status, StudyRecord, VariantRecord};
use thinet_report::tables::{self, PaperStudy};
use thinet_sampling::SamplingSpec;

use super::unfit;
use crate::error::HarnessError;
use crate::store::{Depth, StageId, StageResult, Store};
use crate::study::{AllocatedNet, Plan, ResolvedStudy, Spec, Variant, VariantSpec, tuning_steps};

/// Gathers the stored records of a plan. A damaged record counts as not run, and so do the cells of an unfit dense net.
///
/// # Errors
/// If the store cannot be read.
pub fn gather(plan: &Plan) -> Result<StudyRecord, HarnessError> {
    let store = Store::at(&plan.results);
    let mut unreadable = Vec::new();
    let mut stored = |id: &StageId, label: &str| -> Result<StageResult, HarnessError> {
        let mut damaged = |problem| unreadable.push(format!("{label} ({id}): {problem}"));
        Ok(store.intact(id, Depth::Sizes, &mut damaged)?.unwrap_or_else(|| missing(id)))
    };
    let mut dense = Vec::new();
    for stage in &plan.dense {
        let result = stored(&stage.id, &stage.label())?;
        dense.push(DenseRecord {
            id: stage.id.to_string(),
            seed: stage.seed,
            status: result.status,
            unfit: unfit::of_record(plan, &result),
            size: plan.size,
            rows: result.rows,
            loss_curve: result.loss_curve,
            test_images: result.test_images,
        });
    }
    let mut allocated: BTreeMap<&str, AllocatedNet> = BTreeMap::new();
    for stage in &plan.allocations {
        let result = stored(&stage.id, &stage.label)?;
        if result.status == Status::Done {
            allocated.insert(stage.id.as_str(), AllocatedNet::of(stage, &result, &plan.graph)?);
        }
    }
    let mut cells = Vec::new();
    for cell in &plan.cells {
        let is_left_out = dense[cell.dense].unfit.is_some();
        let allocated = cell.allocation.as_ref().and_then(|stage| allocated.get(stage.id.as_str()));
        let is_planned = cell.allocation.is_none();
        let result = if is_left_out { missing(&cell.id) } else { stored(&cell.id, &cell.design.label())? };
        cells.push(CellRecord {
            id: cell.id.to_string(),
            variant: cell.design.variant.name.clone(),
            method: cell.design.method.label(),
            selector: cell.design.method.selector.name(),
            reconstruction: cell.design.method.reconstruction.clone(),
            keep_rate: cell.design.keep_rate,
            flops_target: cell.design.flops_target,
            seed: cell.design.seed,
            status: result.status,
            size: allocated.map(|net| net.size).or(is_planned.then_some(cell.design.size)),
            channels_fraction: allocated.map(|net| net.channels_fraction),
            rows: result.rows,
            loss_curve: result.loss_curve,
            tuning_steps: Some(tuning_steps(&cell.design, plan.data.train.len())),
            kept: result.kept,
            test_images: result.test_images,
        });
    }
    Ok(StudyRecord {
        name: plan.spec.name.clone(),
        table: plan.table.clone(),
        run: plan.run.clone(),
        dataset: plan.data.train.name().to_owned(),
        net: plan.net_label(),
        is_bf16: plan.spec.compute.precision == Precision::Bf16,
        mode: plan.spec.prune.mode,
        uncut_rates: uncut_rates(&plan.spec),
        variants: variant_records(&plan.spec, &plan.variants),
        dense,
        cells,
        unreadable,
    })
}

/// The records of a study whose data is absent: every stage is marked as not run.
#[must_use]
pub fn not_run(resolved: &ResolvedStudy) -> StudyRecord {
    let images = resolved.spec.dataset.images().map(|[train, _]| train);
    let dense = (0..resolved.spec.seeds).map(|seed| DenseRecord {
        id: String::new(),
        seed,
        status: Status::NotRun,
        unfit: None,
        size: resolved.size,
        rows: Vec::new(),
        loss_curve: None,
        test_images: None,
    });
    let cells = resolved.cells.iter().map(|cell| CellRecord {
        id: String::new(),
        variant: cell.variant.name.clone(),
        method: cell.method.label(),
        selector: cell.method.selector.name(),
        reconstruction: cell.method.reconstruction.clone(),
        keep_rate: cell.keep_rate,
        flops_target: cell.flops_target,
        seed: cell.seed,
        status: Status::NotRun,
        size: cell.scorer.is_none().then_some(cell.size),
        channels_fraction: None,
        rows: Vec::new(),
        loss_curve: None,
        tuning_steps: images.map(|images| tuning_steps(cell, images)),
        kept: BTreeMap::new(),
        test_images: None,
    });
    StudyRecord {
        name: resolved.spec.name.clone(),
        table: resolved.table.clone(),
        run: tables::NOT_RUN.to_owned(),
        dataset: resolved.spec.dataset.name().to_owned(),
        net: resolved.net_label(),
        is_bf16: resolved.spec.compute.precision == Precision::Bf16,
        mode: resolved.spec.prune.mode,
        uncut_rates: uncut_rates(&resolved.spec),
        variants: variant_records(&resolved.spec, &resolved.variants),
        dense: dense.collect(),
        cells: cells.collect(),
        unreadable: Vec::new(),
    }
}

impl ResolvedStudy {
    /// The study with its records, for a paper table.
    #[must_use]
    pub fn paper_study<'a>(&'a self, study: &'a StudyRecord, is_run: bool) -> PaperStudy<'a> {
        let Spec { dataset, net, dense, seeds, .. } = &self.spec;
        PaperStudy {
            study,
            is_run,
            dense_inputs: serde_json::json!([dataset, net, dense, seeds]).to_string(),
            protocol: dataset.protocol().map_or("", Protocol::name),
            stride: net.stride.unwrap_or_default(),
            graph: &self.graph,
            cell_graphs: self.cells.iter().map(|cell| &*cell.graph).collect(),
        }
    }
}

/// Empty in a study without variants.
fn variant_records(spec: &Spec, variants: &[Arc<Variant>]) -> Vec<VariantRecord> {
    let record = |(written, variant): (&VariantSpec, &Arc<Variant>)| VariantRecord {
        name: written.name.clone(),
        overrides: written.words(),
        others: if is_the_spec_but_for_its_sample(spec, variant) {
            String::new()
        } else {
            written.words_without_sample()
        },
        sample: sample_record(&variant.spec.calibration),
        mode: variant.spec.prune.mode,
        uncut_rates: uncut_rates(&variant.spec),
    };
    spec.variants.iter().zip(variants).map(record).collect()
}

/// Whether a variant's overrides change nothing but its calibration sample.
fn is_the_spec_but_for_its_sample(spec: &Spec, variant: &Variant) -> bool {
    let same = Spec { calibration: spec.calibration, ..variant.spec.clone() };
    same == Spec { variants: Vec::new(), ..spec.clone() }
}

fn sample_record(sample: &SamplingSpec) -> SampleRecord {
    SampleRecord {
        images_per_class: sample.images_per_class as u64,
        positions_per_image: sample.positions_per_image as u64,
        draw: sample.draw,
    }
}

fn uncut_rates(spec: &Spec) -> Vec<f64> {
    let Spec { prune, .. } = spec;
    prune.keep_rates.iter().copied().filter(|&rate| prune.is_uncut(&prune.layers, rate)).collect()
}

fn missing(id: &StageId) -> StageResult {
    StageResult {
        checksum: None,
        id: id.to_string(),
        inputs: serde_json::Value::Null,
        status: Status::NotRun,
        rows: Vec::new(),
        loss_curve: None,
        kept: BTreeMap::new(),
        test_images: None,
        files: BTreeMap::new(),
        sizes: BTreeMap::new(),
        seconds: 0.0,
        busy_seconds: None,
        waited_seconds: None,
        environment: None,
    }
}

#[cfg(test)]
mod tests {
    use thinet_report::records::Mode;

    use super::*;
    use crate::study::spec::MINIMAL;
    use crate::study::work::tests::resolved;

    #[test]
    fn a_rate_at_which_every_layer_keeps_all_channels_cuts_nothing() {
        let uncut = |rates: &str, layers: &str| {
            let text =
                MINIMAL.replace("prune.keep-rates = [0.5]", &format!("prune.keep-rates = {rates}\n{layers}"));
            not_run(&resolved(&text)).uncut_rates
        };
        assert_eq!(uncut("[0.25, 1.0, 0.5]", ""), [1.0]);
        assert_eq!(uncut("[0.25, 0.5]", ""), [0.0; 0]);
        assert_eq!(uncut("[1.0, 0.5]", "prune.layer-rates = { conv2 = 0.5 }"), [0.0; 0]);
        assert_eq!(
            uncut("[1.0, 0.5]", "prune.layer-rates = { conv1 = 1, conv2 = 1, conv3 = 1 }"),
            [1.0, 0.5]
        );
    }

    #[test]
    fn the_record_names_trainings_in_bfloat16() {
        let of = |compute: &str| not_run(&resolved(&format!("{MINIMAL}\n{compute}"))).is_bf16;
        assert!(of("compute.precision = \"bf16\"") && !of("compute.precision = \"f32\"") && !of(""));
    }

    #[test]
    fn the_record_of_a_variant_has_its_overrides_mode_and_uncut_rates() {
        assert_eq!(not_run(&resolved(MINIMAL)).variants, []);
        let variants = "[[variants]]\nname = \"plain\"\n[[variants]]\nname = \"at once\"\n\
                        \"prune.mode\" = \"one-shot\"\n\"prune.keep-rates\" = [1.0, 0.5]";
        let record = |name: &str, overrides: &str, others: &str, mode, uncut_rates| VariantRecord {
            name: name.to_owned(),
            overrides: overrides.to_owned(),
            others: others.to_owned(),
            sample: SampleRecord { images_per_class: 10, positions_per_image: 10, draw: 0 },
            mode,
            uncut_rates,
        };
        let found = not_run(&resolved(&format!("{MINIMAL}\n{variants}"))).variants;
        let overrides = "prune.keep-rates = [1.0, 0.5], prune.mode = \"one-shot\"";
        assert_eq!(
            found,
            [
                record("plain", "", "", Mode::LayerByLayer, Vec::new()),
                record("at once", overrides, overrides, Mode::OneShot, vec![1.0])
            ]
        );
    }

    #[test]
    fn the_record_of_a_variant_has_its_calibration_sample() {
        let variants = "calibration.images-per-class = 3\n[[variants]]\nname = \"first\"\n\"prune.mode\" = \"one-shot\"\n\
                        [[variants]]\nname = \"second\"\n\"calibration.draw\" = 1\n\
                        \"calibration.positions-per-image\" = 5\n\"prune.mode\" = \"one-shot\"\n[[variants]]\nname = \"redundant\"\n\
                        \"prune.mode\" = \"layer-by-layer\"";
        let found = not_run(&resolved(&format!("{MINIMAL}\n{variants}"))).variants;
        let sample =
            |positions_per_image, draw| SampleRecord { images_per_class: 3, positions_per_image, draw };
        assert_eq!([found[0].sample, found[1].sample], [sample(10, 0), sample(5, 1)]);
        let others: Vec<&str> = found.iter().map(|variant| variant.others.as_str()).collect();
        assert_eq!(others, ["prune.mode = \"one-shot\"", "prune.mode = \"one-shot\"", ""]);
    }
}
