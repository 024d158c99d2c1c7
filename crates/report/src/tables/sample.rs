//! A small invented study for tests: two seeds, two keep rates, a diverged cell and cells that were not run.

use std::collections::BTreeMap;

use thinet_graph::{ChannelSet, Counts};

use crate::records::{
    CellRecord, DenseRecord, LossCurve, Metric, Mode, Phase, Row, SampleRecord, Size, Status, StudyRecord,
    VariantRecord,
};

const METHODS: [(&str, &str, &str); 5] = [
    ("thinet + channel-scale", "thinet", "channel-scale"),
    ("thinet", "thinet", "none"),
    ("thinet-omp + channel-scale", "thinet-omp", "channel-scale"),
    ("apoz", "apoz", "none"),
    ("random", "random", "none"),
];

pub(super) fn size(params: u64, macs: u64) -> Size {
    let paper = Counts { params, macs, flops: 2 * macs };
    Size { paper, all_parameters: Counts { params: params + 10, ..paper } }
}

fn whole_net(phase: Phase, top1: f64) -> Vec<Row> {
    let row = |metric, value| Row { layer: String::new(), phase, metric, value };
    let loss = (100.0 - top1) / 32.0;
    vec![row(Metric::Top1, top1), row(Metric::Top5, (top1 + 100.0) / 2.0), row(Metric::Loss, loss)]
}

/// Top-1 after fine-tuning; `None`: not reached.
fn outcome(method: usize, keep_rate: f64, seed: u64) -> (Status, Option<f64>) {
    match (METHODS[method].0, keep_rate < 0.4, seed) {
        ("apoz", false, 1) => (Status::Diverged, None),
        ("apoz", true, _) | ("random", true, 1) => (Status::NotRun, None),
        ("apoz", ..) => (Status::Done, Some(89.0)),
        ("thinet", false, seed) => (Status::Done, Some(88.0 + seed as f64)),
        ("thinet + channel-scale", false, seed) => (Status::Done, Some(90.0 + seed as f64)),
        (_, low, seed) => {
            let top1 = if low { 80.0 } else { 87.0 };
            (Status::Done, Some(top1 - method as f64 + 0.25 * seed as f64))
        }
    }
}

/// A training of seven steps that ends at `last`.
fn loss_curve(last: f64) -> LossCurve {
    LossCurve { steps: 7, window: 2, losses: vec![2.0, 1.0, 0.75, last] }
}

fn cell(method: usize, keep_rate: f64, seed: u64) -> CellRecord {
    let (label, selector, reconstruction) = METHODS[method];
    let (status, tuned) = outcome(method, keep_rate, seed);
    let kept_channels = (8.0 * keep_rate) as usize;
    let (mut rows, mut kept) = (Vec::new(), BTreeMap::new());
    if status != Status::NotRun {
        rows.extend(whole_net(Phase::AfterCut, 40.0 - 2.0 * method as f64 + seed as f64));
        rows.extend(whole_net(Phase::AfterReconstruction, 45.0 - 2.0 * method as f64 + seed as f64));
        for (layer, shift) in [("conv1", 0), ("conv2", 1)] {
            let phase = Phase::AfterCut;
            let value = 0.125 * (shift + 1) as f64;
            rows.push(Row { layer: layer.to_owned(), phase, metric: Metric::ReconstructionError, value });
            let channels = ChannelSet::new(8, (shift..shift + kept_channels).collect()).unwrap();
            kept.insert(layer.to_owned(), channels);
        }
    }
    rows.extend(tuned.map(|top1| whole_net(Phase::AfterFineTune, top1)).into_iter().flatten());
    CellRecord {
        id: format!("cell-{selector}-{reconstruction}-{keep_rate}-{seed}"),
        variant: None,
        method: label.to_owned(),
        selector: selector.to_owned(),
        reconstruction: reconstruction.to_owned(),
        keep_rate,
        flops_target: None,
        seed,
        status,
        size: Some(if keep_rate < 0.4 { size(60_000, 700_000) } else { size(120_000, 1_600_000) }),
        channels_fraction: None,
        rows,
        tuning_steps: (status != Status::NotRun).then_some(120),
        kept,
        loss_curve: (status != Status::NotRun).then(|| loss_curve(0.5 + 0.125 * seed as f64)),
        test_images: Some(1000),
    }
}

/// The rows of a cell that was refitted and tuned to this top-1.
pub(super) fn tuned_rows(top1: f64) -> Vec<Row> {
    [whole_net(Phase::AfterReconstruction, top1 - 30.0), whole_net(Phase::AfterFineTune, top1)].concat()
}

/// Sets the tuned top-1 of a cell.
pub(super) fn set_tuned(cell: &mut CellRecord, top1: f64) {
    for row in &mut cell.rows {
        if (row.phase, row.metric) == (Phase::AfterFineTune, Metric::Top1) {
            row.value = top1;
        }
    }
}

/// The study: five methods at keep rates 0.5 and 0.25 with seeds 0 and 1.
pub(crate) fn study() -> StudyRecord {
    let dense = |seed: u64| DenseRecord {
        id: format!("dense-{seed}"),
        seed,
        status: Status::Done,
        unfit: None,
        size: size(300_000, 5_000_000),
        rows: whole_net(Phase::Dense, 91.5 + 0.25 * seed as f64),
        loss_curve: Some(loss_curve(0.25)),
        test_images: Some(1000),
    };
    let mut cells = Vec::new();
    for method in 0..METHODS.len() {
        for keep_rate in [0.5, 0.25] {
            cells.extend((0..2).map(|seed| cell(method, keep_rate, seed)));
        }
    }
    StudyRecord {
        name: "invented".to_owned(),
        table: "selectors-invented".to_owned(),
        run: "0123abcd".to_owned(),
        dataset: "Invented-10".to_owned(),
        net: "tiny, 1×8×8".to_owned(),
        is_bf16: false,
        mode: Mode::LayerByLayer,
        uncut_rates: Vec::new(),
        variants: Vec::new(),
        dense: (0..2).map(dense).collect(),
        cells,
        unreadable: Vec::new(),
    }
}

/// The invented study in two variants: as it is, and with more top-1 after tuning.
pub(crate) fn with_variants() -> StudyRecord {
    let mut study = study();
    let variant = |name: &str, overrides: &str, mode| VariantRecord {
        name: name.to_owned(),
        overrides: overrides.to_owned(),
        others: overrides.to_owned(),
        sample: SampleRecord { images_per_class: 10, positions_per_image: 10, draw: 0 },
        mode,
        uncut_rates: Vec::new(),
    };
    study.variants = vec![
        variant("plain", "", Mode::LayerByLayer),
        variant("at once", "prune.mode = \"one-shot\"", Mode::OneShot),
    ];
    let mut cells = Vec::new();
    for (name, more) in [("plain", 0.0), ("at once", 0.5)] {
        for cell in &study.cells {
            let mut cell = CellRecord { variant: Some(name.to_owned()), ..cell.clone() };
            cell.id = format!("{}-{}", cell.id, name.len());
            let is_tuned_top1 =
                |row: &&mut Row| (row.phase, row.metric) == (Phase::AfterFineTune, Metric::Top1);
            for row in cell.rows.iter_mut().filter(is_tuned_top1) {
                row.value += more * (1.0 + cell.seed as f64 / 8.0);
            }
            cells.push(cell);
        }
    }
    StudyRecord { cells, ..study }
}

/// The invented study with three draws of a sample and one of a smaller one. Tuned top-1 grows with each draw by one point more than the
/// seed.
pub(crate) fn with_draws() -> StudyRecord {
    let study = study();
    let draws =
        [("10 images", 10, 0), ("10 images, draw 1", 10, 1), ("10 images, draw 2", 10, 2), ("1 image", 1, 0)];
    let variant = |(name, images, draw): (&str, u64, u64)| VariantRecord {
        name: name.to_owned(),
        overrides: format!("calibration.draw = {draw}, calibration.images-per-class = {images}"),
        others: String::new(),
        sample: SampleRecord { images_per_class: images, positions_per_image: 10, draw },
        mode: Mode::OneShot,
        uncut_rates: Vec::new(),
    };
    let mut cells = Vec::new();
    for (at, (name, images, draw)) in draws.into_iter().enumerate() {
        for cell in &study.cells {
            let mut cell = CellRecord { variant: Some(name.to_owned()), ..cell.clone() };
            cell.id = format!("{}-{at}", cell.id);
            for row in cell.rows.iter_mut().filter(|row| row.metric == Metric::Top1) {
                row.value += if images == 1 { -5.0 } else { (draw * (1 + cell.seed)) as f64 };
            }
            cells.push(cell);
        }
    }
    let variants = draws.map(variant).to_vec();
    StudyRecord { variants, cells, mode: Mode::OneShot, ..study }
}
