//! The cost of stages: multiply-adds from the graphs, bytes on disk, and the rate assumed while nothing is measured.

use std::sync::Arc;

use thinet_graph::Graph;
use thinet_report::records::Size;

use super::plan::Plan;
use super::recipe::Recipe;
use super::resolved::{CellDesign, ResolvedStudy, size_of};
use super::spec::Spec;
use super::variants::Variant;

/// Multiply-adds per second and thread assumed while nothing is stored: a CPU core on narrow 32×32 nets.
const ASSUMED_RATE: f64 = 2.0e10;
/// Multiply-adds per second assumed of a current GPU in bfloat16 and channels-last: a fifteenth of its data sheet's peak, as narrow
/// layers and the decoding of photographs leave most of it idle.
const ASSUMED_GPU_RATE: f64 = 3.0e13;
/// A training step costs about three forward passes: forward, gradient of inputs, gradient of weights.
const TRAINING_FACTOR: f64 = 3.0;
/// Bytes of a value in a weight file.
const BYTES: f64 = 4.0;

/// Multiply-adds per second and job assumed while no stage of a study is stored.
pub(crate) fn assumed_rate(spec: &Spec, is_gpu: bool) -> f64 {
    if is_gpu { ASSUMED_GPU_RATE } else { ASSUMED_RATE * spec.compute.threads as f64 }
}

/// The parts of a study that decide its cost.
pub(crate) struct Work<'a> {
    spec: &'a Spec,
    variants: &'a [Arc<Variant>],
    dense: &'a Graph,
    /// Multiply-adds of the dense net for an image, counted once for all cells.
    dense_macs: f64,
    /// Numbers of training and test images.
    images: [usize; 2],
    classes: usize,
    /// Bytes of a calibration image, where those are kept on disk.
    image_bytes: Option<f64>,
}

impl<'a> Work<'a> {
    /// The stages of a plan.
    pub(crate) fn of_plan(plan: &'a Plan) -> Self {
        let calibration = &plan.data.calibration;
        Self {
            spec: &plan.spec,
            variants: &plan.variants,
            dense: &plan.graph,
            dense_macs: macs(&plan.graph),
            images: [plan.data.train.len(), plan.data.test.len()],
            classes: plan.data.train.classes(),
            image_bytes: calibration.is_decoded_each_time().then(|| bytes(calibration.shape())),
        }
    }

    /// The stages of a study whose data is absent; `images` are the numbers of training and test images.
    pub(crate) fn without_data(resolved: &'a ResolvedStudy, images: [usize; 2]) -> Self {
        let dataset = &resolved.spec.dataset;
        Self {
            spec: &resolved.spec,
            variants: &resolved.variants,
            dense: &resolved.graph,
            dense_macs: macs(&resolved.graph),
            images,
            classes: resolved.graph.classes(),
            image_bytes: dataset.protocol().map(|_| bytes(dataset.shape())),
        }
    }

    pub(crate) fn assumed_rate(&self, is_gpu: bool) -> f64 {
        assumed_rate(self.spec, is_gpu)
    }

    fn training(&self, recipe: Option<&Recipe>, macs: f64) -> f64 {
        let images = |recipe: &Recipe| recipe.total_steps(self.images[0]) as f64 * recipe.batch as f64;
        TRAINING_FACTOR * macs * recipe.map_or(0.0, images)
    }

    pub(crate) fn dense_macs(&self) -> f64 {
        let dense = self.dense_macs;
        self.training(self.spec.dense.train.as_ref(), dense) + dense * self.images[1] as f64
    }

    /// Multiply-adds of a cell. Tuning between layers is counted at the mean of the dense and the pruned net's cost.
    pub(crate) fn cell_macs(&self, cell: &CellDesign) -> f64 {
        let spec = &cell.variant.spec;
        let prune = &spec.prune;
        let test = self.images[1] as f64;
        let (dense, pruned) = (self.dense_macs, cell.size.paper.macs as f64);
        if cell.is_from_scratch {
            return self.training(spec.from_scratch.as_ref(), pruned) + pruned * test;
        }
        let between = (dense + pruned) / 2.0;
        let but_last = cell.keep.iter().rev().skip(1);
        let short: f64 =
            but_last.map(|(layer, _)| self.training(prune.recipe_after(layer, false), between)).sum();
        let passes = if spec.is_one_shot() { 0 } else { cell.keep.len() };
        let calibration = between * self.sample(spec) * passes as f64;
        short + self.training(prune.after_last.as_ref(), pruned) + calibration + 3.0 * pruned * test
    }

    /// Images of one calibration pass of a variant.
    fn sample(&self, variant: &Spec) -> f64 {
        variant.calibration.images_per_class as f64 * self.classes as f64
    }

    /// Bytes on disk of nets, calibration images, and the checkpoints of `jobs` running jobs.
    pub(crate) fn disk(&self, cells: impl Iterator<Item = Size>, seeds: usize, jobs: usize) -> f64 {
        let file = |size: &Size| BYTES * size.all_parameters.params as f64;
        let dense = file(&size_of(self.dense));
        let nets = dense * seeds as f64 + cells.map(|size| file(&size)).sum::<f64>();
        // A running job stores a net after its last layer, and net and velocities of the long training.
        let checkpoints = 3.0 * dense * jobs as f64;
        let of_variant = |variant: &Arc<Variant>| {
            let spec = &variant.spec;
            let passes = if spec.is_one_shot() { 1 } else { spec.prune.layers.len() };
            self.sample(spec) * passes as f64
        };
        let sampled: f64 = self.variants.iter().map(of_variant).sum();
        let images = self.image_bytes.map_or(0.0, |bytes| bytes * sampled * seeds as f64);
        nets + checkpoints + images
    }
}

fn macs(graph: &Graph) -> f64 {
    thinet_graph::count(graph, thinet_graph::Convention::Paper).macs as f64
}

fn bytes(shape: [usize; 3]) -> f64 {
    shape.iter().product::<usize>() as f64
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;
    use crate::study::tuning_steps;
    use crate::study::variants::variants;

    /// A tuning of its own after the first of three layers, one for the second, and the long one after the last.
    const SPEC: &str = r#"
name = "x"
seeds = 2
dataset = { kind = "cifar10" }
compute = { threads = 3 }
net = { arch = "tiny" }
calibration = { images-per-class = 2, positions-per-image = 1 }
from-scratch = { epochs = 1, batch = 10, lr = 0.1 }
[dense.train]
epochs = 2
batch = 10
lr = 0.1
[prune]
keep-rates = [0.5]
after-last = { steps = 2, batch = 5, lr = 0.1 }
after-layer = { steps = 1, batch = 2, lr = 0.1 }
exceptions = [{ layers = ["conv1"], recipe = { steps = 3, batch = 2, lr = 0.1 } }]
[[methods]]
selector = "thinet"
"#;

    pub(crate) fn resolved(text: &str) -> ResolvedStudy {
        let path = Path::new("x.toml");
        let spec = Spec::parse(text, path).unwrap();
        let classes = spec.dataset.classes().unwrap();
        let variants = variants(&spec, path).unwrap();
        ResolvedStudy::new(spec, variants, path, classes).unwrap()
    }

    pub(crate) fn layer_by_layer() -> ResolvedStudy {
        resolved(SPEC)
    }

    pub(crate) fn one_shot() -> ResolvedStudy {
        let lines =
            SPEC.lines().filter(|line| !line.starts_with("after-layer") && !line.starts_with("exceptions"));
        let text: Vec<&str> = lines.collect();
        resolved(&text.join("\n").replace("[prune]", "[prune]\nmode = \"one-shot\""))
    }

    fn is_close(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= 1e-9 * expected
    }

    #[test]
    fn multiply_adds_are_those_of_the_images_that_pass_through_each_net() {
        for (study, between_layers) in [(layer_by_layer(), true), (one_shot(), false)] {
            assert_eq!(study.spec.prune.layers.len(), 3);
            let work = Work::without_data(&study, [100, 20]);
            let dense = study.size.paper.macs as f64;
            let [thinet, _, scratch, _] = &study.cells[..] else { panic!("{} cells", study.cells.len()) };
            let pruned = thinet.size.paper.macs as f64;
            assert!(scratch.is_from_scratch && !thinet.is_from_scratch && pruned < dense);
            // Trained on 200 images, at three forward passes each, and tested on 20.
            assert!(is_close(work.dense_macs(), 620.0 * dense));
            assert!(is_close(work.cell_macs(scratch), 320.0 * pruned));
            // Tuned on 10 images after the last layer, tested three times; before it tuned on 8 images, and three passes over
            // the 20 images of the sample, at the mean cost of both nets.
            let tuned_and_tested = 90.0 * pruned;
            let between = if between_layers { 84.0 * (dense + pruned) / 2.0 } else { 0.0 };
            assert!(is_close(work.cell_macs(thinet), tuned_and_tested + between));
        }
    }

    #[test]
    fn disk_space_is_that_of_all_nets_of_running_jobs_and_of_images_kept_for_calibration() {
        for (study, passes) in [(layer_by_layer(), 3.0), (one_shot(), 1.0)] {
            let work = Work::without_data(&study, [100, 20]);
            let sizes = || study.cells.iter().map(|cell| cell.size);
            let [dense, pruned] =
                [study.size, study.cells[0].size].map(|size| 4.0 * size.all_parameters.params as f64);
            let nets = 2.0 * dense + 4.0 * pruned + 3.0 * 5.0 * dense;
            assert!(is_close(work.disk(sizes(), 2, 5), nets));
            let decoded = Work { image_bytes: Some(100.0), ..work };
            assert!(is_close(decoded.disk(sizes(), 2, 5), nets + 100.0 * 20.0 * passes * 2.0));
        }
        assert_eq!(Work::without_data(&layer_by_layer(), [100, 20]).image_bytes, None);
        let photos = resolved(&SPEC.replace("cifar10", "cub200"));
        assert_eq!(Work::without_data(&photos, [100, 20]).image_bytes, Some(3.0 * 224.0 * 224.0));
    }

    #[test]
    fn a_cell_is_tuned_by_the_batches_of_its_recipes_after_each_cut() {
        // 3 after the first layer, 1 after the second, 2 after the last; the control trains one pass over 100 images.
        for (study, expected) in [(layer_by_layer(), 6), (one_shot(), 2)] {
            let [thinet, scratch] = [0, 2].map(|cell| tuning_steps(&study.cells[cell], 100));
            assert_eq!((thinet, scratch), (expected, 10));
        }
    }

    #[test]
    fn the_assumed_rate_is_that_of_all_threads_or_of_a_gpu() {
        let study = layer_by_layer();
        let work = Work::without_data(&study, [100, 20]);
        assert_eq!((work.assumed_rate(false), work.assumed_rate(true)), (6.0e10, 3.0e13));
    }
}
