//! The cost of stages: the work of each kind from the graphs, and bytes on disk.

use std::sync::Arc;

use thinet_graph::Graph;
use thinet_reconstruction::RefitInput;
use thinet_report::records::Size;
use thinet_sampling::{Pass, gathered};
use thinet_selectors::Needs;

use super::cost::{Amounts, Reading, StageWork, TRAINING_FACTOR};
use super::plan::Plan;
use super::recipe::Recipe;
use super::resolved::{CellDesign, ResolvedStudy, size_of};
use super::spec::Spec;
use super::variants::Variant;

/// Bytes of a value in a weight file.
const BYTES: f64 = 4.0;

/// A net's cost: the work of one image, and its number of nodes.
#[derive(Clone, Copy, Debug)]
struct NetCost {
    image: Amounts,
    nodes: usize,
}

impl NetCost {
    fn of(graph: &Graph) -> Self {
        Self { image: Amounts::of_net(graph), nodes: graph.nodes().len() }
    }

    /// Half-way between two nets with the same nodes.
    fn between(self, other: Self) -> Self {
        Self { image: (self.image + other.image) * 0.5, nodes: self.nodes }
    }
}

/// The parts of a study that decide its cost.
pub(crate) struct Work<'a> {
    spec: &'a Spec,
    variants: &'a [Arc<Variant>],
    dense: &'a Graph,
    /// The dense net's cost, counted once for all cells.
    dense_cost: NetCost,
    /// Numbers of training and test images.
    images: [usize; 2],
    classes: usize,
    reading: Reading,
    /// Bytes of an image that are copied to the device each time; 0 where it is there already.
    copied: f64,
    /// Bytes of a calibration image, where those are kept on disk.
    image_bytes: Option<f64>,
}

impl<'a> Work<'a> {
    /// The stages of a plan.
    pub(crate) fn of_plan(plan: &'a Plan) -> Self {
        let (train, calibration) = (&plan.data.train, &plan.data.calibration);
        let reading = match (train.is_decoded_each_time(), train.prepared_file()) {
            (true, _) => Reading::Decoding,
            (false, Some(_)) => Reading::Prepared,
            (false, None) => Reading::Memory,
        };
        Self {
            spec: &plan.spec,
            variants: &plan.variants,
            dense: &plan.graph,
            dense_cost: NetCost::of(&plan.graph),
            images: [train.len(), plan.data.test.len()],
            classes: train.classes(),
            reading,
            copied: copied(reading, train.shape()),
            image_bytes: calibration.is_decoded_each_time().then(|| bytes(calibration.shape())),
        }
    }

    /// The stages of a study whose data is absent; `images` are the numbers of training and test images.
    pub(crate) fn without_data(resolved: &'a ResolvedStudy, images: [usize; 2]) -> Self {
        let dataset = &resolved.spec.dataset;
        let reading = dataset.protocol().map_or(Reading::Memory, |_| Reading::Decoding);
        Self {
            spec: &resolved.spec,
            variants: &resolved.variants,
            dense: &resolved.graph,
            dense_cost: NetCost::of(&resolved.graph),
            images,
            classes: resolved.graph.classes(),
            reading,
            copied: copied(reading, dataset.shape()),
            image_bytes: dataset.protocol().map(|_| bytes(dataset.shape())),
        }
    }

    fn training(&self, recipe: Option<&Recipe>, net: NetCost) -> Amounts {
        let Some(recipe) = recipe else { return Amounts::default() };
        let images = recipe.total_steps(self.images[0]) as f64 * recipe.batch as f64;
        net.image.trained(images, recipe.batch as f64, net.nodes) + self.reading.of(images, self.copied)
    }

    fn tests(&self, times: f64, net: NetCost) -> Amounts {
        let images = self.images[1] as f64;
        (net.image.passed(images, net.nodes) + self.reading.of(images, self.copied)) * times
    }

    pub(crate) fn dense(&self) -> StageWork {
        let net = self.dense_cost;
        StageWork {
            trainings: self.training(self.spec.dense.train.as_ref(), net),
            passes: self.tests(1.0, net),
        }
    }

    /// Work of these kinds of one-shot evidence of a variant, gathered together: a pass over its sample.
    pub(crate) fn evidence(&self, variant: &Spec, needs: Needs) -> StageWork {
        let (net, images) = (self.dense_cost, self.sample(variant));
        let passes = net.image.passed(images, net.nodes) * forward_passes(needs)
            + self.reading.of(images, self.copied);
        StageWork { passes, ..StageWork::default() }
    }

    /// Work of a cell. Tuning between layers is counted at the mean of the dense and the pruned net's cost. Calibration images were
    /// decoded for an earlier cell.
    pub(crate) fn cell(&self, cell: &CellDesign) -> StageWork {
        let spec = &cell.variant.spec;
        let prune = &spec.prune;
        let pruned = NetCost::of(&cell.graph);
        if cell.is_from_scratch {
            let trainings = self.training(spec.from_scratch.as_ref(), pruned);
            return StageWork { trainings, passes: self.tests(1.0, pruned) };
        }
        let between = self.dense_cost.between(pruned);
        let but_last = cell.keep.iter().rev().skip(1);
        let short: Amounts =
            but_last.map(|(layer, _)| self.training(prune.recipe_after(layer, false), between)).sum();
        let refits_kernels = thinet_reconstruction::find(&cell.method.reconstruction)
            .is_ok_and(|reconstructor| reconstructor.reads() == RefitInput::Patches);
        // One pass for each layer in turn, and one more for its patches.
        let passes = usize::from(!spec.is_one_shot()) + usize::from(refits_kernels);
        let calibrations = passes * cell.keep.len();
        let images = self.sample(spec);
        let needs = cell.method.selector.needs().unwrap_or_default() | Needs::MOMENTS;
        let calibration =
            between.image.passed(images, between.nodes) * forward_passes(needs) * calibrations as f64;
        StageWork {
            trainings: short + self.training(prune.after_last.as_ref(), pruned),
            passes: calibration + self.tests(3.0, pruned),
        }
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

/// Forward passes that take as long as gathering these kinds of evidence: those from gradients have a pass forward and back of their own.
fn forward_passes(needs: Needs) -> f64 {
    let has = |pass: Pass| gathered(needs).any(|kind| kind.pass() == pass);
    f64::from(has(Pass::Forward)) + if has(Pass::Backward) { TRAINING_FACTOR } else { 0.0 }
}

/// Bytes of an image that are copied to a GPU each time: sets in memory stay there.
fn copied(reading: Reading, shape: [usize; 3]) -> f64 {
    if reading == Reading::Memory { 0.0 } else { bytes(shape) }
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
            assert!(is_close(work.dense().macs(), 620.0 * dense));
            assert!(is_close(work.cell(scratch).macs(), 320.0 * pruned));
            // Tuned on 10 images after the last layer, tested three times; before it tuned on 8 images, and three passes over
            // the 20 images of the sample, at the mean cost of both nets.
            let tuned_and_tested = 90.0 * pruned;
            let between = if between_layers { 84.0 * (dense + pruned) / 2.0 } else { 0.0 };
            assert!(is_close(work.cell(thinet).macs(), tuned_and_tested + between));
            // One pass over the sample of 20 images; of gradients one forward and back.
            for (needs, passes) in [(Needs::MOMENTS, 1.0), (Needs::GRADIENTS, 3.0)] {
                assert!(is_close(work.evidence(&study.spec, needs).macs(), passes * 20.0 * dense));
            }
        }
    }

    #[test]
    fn a_criterion_by_gradients_calibrates_each_layer_by_a_pass_forward_and_one_forward_and_back() {
        let (by_moments, by_gradients) = (layer_by_layer(), resolved(&SPEC.replace("thinet\"", "taylor\"")));
        let macs = |study: &ResolvedStudy| Work::without_data(study, [100, 20]).cell(&study.cells[0]).macs();
        let sizes = [by_moments.size, by_moments.cells[0].size].map(|size| size.paper.macs as f64);
        // Three layers of 20 images each, at the mean cost of both nets.
        let three_more = 3.0 * 3.0 * 20.0 * (sizes[0] + sizes[1]) / 2.0;
        assert!(is_close(macs(&by_gradients) - macs(&by_moments), three_more));
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
}
