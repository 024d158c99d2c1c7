//! Timings of the paper's eight models on this machine (Luo et al. 2017, tables 1 and 3, "f./b."): random weights and images, forward
//! and forward + backward, in rounds over all models.

use std::path::Path;

use rand::RngExt as _;
use tch::{TchError, Tensor};
use thinet_graph::Graph;
use thinet_models::{
    Device, Mode, ModelError, Precision, Weights, forward, is_tf32_allowed, loss_and_gradients, seed_torch,
    set_compute_threads, set_tf32, timed,
};
use thinet_nets::{PaperModel, ResNetStride, paper_models};
use thinet_report::records::{Environment, Program};
use thinet_report::tables::{LatencyRecord, ModelTimes};
use thinet_seed::Seed;
use thiserror::Error;

use crate::store::{cpu_identity, environment_here};

/// Seed of images and weights; times do not depend on their values.
const SEED: u64 = 0;
/// Input of all eight models (ImageNet): channels, height and width.
const IMAGE: [usize; 3] = [3, 224, 224];
const CLASSES: i64 = 1000;

/// The models to time, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyOptions {
    pub device: Device,
    /// Images in a batch, 1 or more.
    pub batch: usize,
    /// Measured timings of each model, 1 or more.
    pub repeats: usize,
    pub threads: usize,
    /// Names of [`paper_models`]; empty for all eight.
    pub models: Vec<String>,
    /// Build of the program; stored beside the table.
    pub program: Program,
}

impl LatencyOptions {
    /// Timings to discard at the start. A CPU is ready after one; a GPU raises its clock, and libtorch grows its memory pool.
    #[must_use]
    pub fn warm_up(&self) -> usize {
        if self.device.is_gpu() { 5 } else { 1 }
    }
}

/// Errors of timing models.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LatencyError {
    /// No model of the paper has this name.
    #[error("there is no model {name:?} to time; allowed: {allowed}")]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// The names that exist, comma separated.
        allowed: String,
    },
    /// The batch does not fit.
    #[error("{model}: a batch of {batch} does not fit into the memory of {device}; try a smaller batch")]
    OutOfMemory {
        model: String,
        /// Images in a batch.
        batch: usize,
        /// The device.
        device: Device,
        #[source]
        source: Box<ModelError>,
    },
    /// A model cannot be run.
    #[error("{model}: {source}")]
    Model { model: String, source: Box<ModelError> },
    /// The images cannot be created.
    #[error("a batch of {batch} images cannot be put on {device}: {message}")]
    Images {
        /// Images in a batch.
        batch: usize,
        /// The device.
        device: Device,
        /// First line of libtorch's message.
        message: String,
    },
    /// A model cannot be built.
    #[error(transparent)]
    Net(#[from] thinet_nets::NetError),
    /// The threads cannot be set.
    #[error(transparent)]
    Setup(#[from] ModelError),
}

/// Progress of the timing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LatencyStep<'a> {
    /// A model was built and warmed up.
    Ready {
        model: &'a str,
        /// Models that are ready.
        done: usize,
        /// Models that will be timed.
        of: usize,
        /// Its last warm-up, forward and backward together, milliseconds.
        ms: f64,
    },
    /// A round over all models was timed.
    Round {
        /// Finished rounds.
        done: usize,
        /// All rounds.
        of: usize,
        /// Duration of the round, milliseconds.
        ms: f64,
    },
}

/// Times forward and forward + backward of each model. Sets libtorch's threads, switches TF32 off and seeds libtorch's
/// generator, which dropout draws from.
///
/// All models stay in memory and take turns, so that other load on the machine affects all of them.
///
/// # Errors
/// If a name is not a model of the paper, a number of threads cannot be set, or a batch does not fit the device.
pub fn latency(
    options: &LatencyOptions,
    progress: &mut dyn FnMut(LatencyStep<'_>),
) -> Result<LatencyRecord, LatencyError> {
    let chosen = choose_models(&options.models)?;
    set_compute_threads(options.threads)?;
    // By default libtorch lets cuDNN's convolutions round to TF32; the table is for 32-bit floats.
    set_tf32(false)?;
    let seed = Seed::root(SEED).child("latency");
    seed_torch(seed.child("dropout"));
    let batch = Batch::new(options, seed)?;
    let mut subjects = Vec::with_capacity(chosen.len());
    for model in &chosen {
        let named = |source| options.name_error(model.name, source);
        let subject = Subject::new(model, model.build()?, options, seed).map_err(named)?;
        let mut ms = 0.0;
        for _ in 0..options.warm_up() {
            let (forward, both) = subject.time(&batch, options.device).map_err(named)?;
            ms = forward + both;
        }
        subjects.push(subject);
        progress(LatencyStep::Ready { model: model.name, done: subjects.len(), of: chosen.len(), ms });
    }
    for done in 1..=options.repeats {
        let mut ms = 0.0;
        for subject in &mut subjects {
            let named = |source| options.name_error(&subject.times.model, source);
            let (forward, both) = subject.time(&batch, options.device).map_err(named)?;
            subject.times.forward_ms.push(forward);
            subject.times.both_ms.push(both);
            ms += forward + both;
        }
        progress(LatencyStep::Round { done, of: options.repeats, ms });
    }
    Ok(LatencyRecord {
        environment: options.environment(),
        cpu: cpu_identity(),
        tf32: is_tf32_allowed(),
        batch: options.batch,
        warm_up: options.warm_up(),
        repeats: options.repeats,
        models: subjects.into_iter().map(|subject| subject.times).collect(),
    })
}

/// Checks the names of models without building one.
///
/// # Errors
/// If one does not exist; the message lists the names.
pub fn check_latency_models(names: &[String]) -> Result<(), LatencyError> {
    choose_models(names).map(drop)
}

/// The models of these names in the order of the paper; all of them for an empty list.
fn choose_models(names: &[String]) -> Result<Vec<PaperModel>, LatencyError> {
    let mut models = paper_models(ResNetStride::First1x1)?;
    if let Some(unknown) = names.iter().find(|name| models.iter().all(|model| model.name != **name)) {
        let allowed: Vec<&str> = models.iter().map(|model| model.name).collect();
        return Err(LatencyError::UnknownModel { name: unknown.clone(), allowed: allowed.join(", ") });
    }
    models.retain(|model| names.is_empty() || names.iter().any(|name| name == model.name));
    Ok(models)
}

impl LatencyOptions {
    fn environment(&self) -> Environment {
        let here = Environment {
            jobs: Some(1),
            host: None,
            ..environment_here(&self.program, self.device, self.threads, Path::new("."))
        };
        Environment { device: self.device.to_string(), ..here }
    }

    fn name_error(&self, model: &str, source: ModelError) -> LatencyError {
        let (model, source) = (model.to_owned(), Box::new(source));
        // libtorch has no error type for memory: messages of CUDA, and of the CPU on two systems.
        let says_so = ["out of memory", "can't allocate memory", "not enough memory"];
        let is_memory = matches!(&*source, ModelError::Torch { message, .. }
            if says_so.iter().any(|text| message.contains(text)));
        if is_memory {
            let (batch, device) = (self.batch, self.device);
            return LatencyError::OutOfMemory { model, batch, device, source };
        }
        LatencyError::Model { model, source }
    }
}

/// The batch of all models: values from [0, 1) and labels, from seeded streams.
struct Batch {
    images: Tensor,
    labels: Tensor,
}

impl Batch {
    fn new(options: &LatencyOptions, seed: Seed) -> Result<Self, LatencyError> {
        let batch = options.batch;
        let mut rng = seed.child("images").rng();
        let images: Vec<f32> = (0..batch * IMAGE.iter().product::<usize>()).map(|_| rng.random()).collect();
        let mut rng = seed.child("labels").rng();
        let labels: Vec<i64> = (0..batch).map(|_| rng.random_range(0..CLASSES)).collect();
        let [c, h, w] = IMAGE.map(|n| n as i64);
        let on_device = || {
            let images = Tensor::f_from_slice(&images)?.f_view([batch as i64, c, h, w])?;
            let labels = Tensor::f_from_slice(&labels)?.f_to_device(options.device.into())?;
            Ok(Self { images: images.f_to_device(options.device.into())?, labels })
        };
        on_device().map_err(|error: TchError| LatencyError::Images {
            batch,
            device: options.device,
            message: error.to_string().lines().next().unwrap_or_default().to_owned(),
        })
    }
}

/// A model with its weights and timings.
struct Subject {
    graph: Graph,
    weights: Weights,
    trainable: Vec<String>,
    times: ModelTimes,
}

impl Subject {
    fn new(
        model: &PaperModel,
        graph: Graph,
        options: &LatencyOptions,
        seed: Seed,
    ) -> Result<Self, ModelError> {
        let weights = Weights::init(&graph, seed.child("weights"), options.device.into())?;
        let trainable = graph.tensors().into_iter().filter(|t| t.trainable).map(|t| t.name).collect();
        let times = ModelTimes { model: model.name.to_owned(), forward_ms: Vec::new(), both_ms: Vec::new() };
        Ok(Self { graph, weights, trainable, times })
    }

    /// Milliseconds of one forward pass, and of one forward and backward pass.
    fn time(&self, batch: &Batch, device: Device) -> Result<(f64, f64), ModelError> {
        let Self { graph, weights, .. } = self;
        let Batch { images, labels } = batch;
        let evaluate = || tch::no_grad(|| forward(graph, weights, images, Mode::Eval));
        let (logits, forward_ms) = timed(device, evaluate);
        drop(logits?);
        let names = self.trainable.iter().map(String::as_str);
        let learn = || loss_and_gradients(graph, weights, names, images, labels, Mode::Train, Precision::F32);
        let (gradients, both_ms) = timed(device, learn);
        drop(gradients?);
        Ok((forward_ms, both_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(models: &[&str]) -> LatencyOptions {
        let models = models.iter().map(|&name| name.to_owned()).collect();
        LatencyOptions {
            device: Device::Cpu,
            batch: 1,
            repeats: 2,
            threads: 1,
            models,
            program: Program::default(),
        }
    }

    #[test]
    fn every_repeat_of_every_chosen_model_is_recorded() {
        set_tf32(true).unwrap();
        let mut steps = Vec::new();
        let record = latency(&options(&["thinet-tiny"]), &mut |step| match step {
            LatencyStep::Ready { model, done, of, .. } => steps.push(format!("{model} {done}/{of}")),
            LatencyStep::Round { done, of, .. } => steps.push(format!("round {done}/{of}")),
        });
        let record = record.unwrap();
        assert_eq!(steps, ["thinet-tiny 1/1", "round 1/2", "round 2/2"]);
        assert_eq!((record.batch, record.warm_up, record.repeats), (1, 1, 2));
        assert_eq!((record.environment.device.as_str(), record.environment.threads), ("cpu", 1));
        assert!(!record.tf32, "the table is for 32-bit floats");
        let [times] = &record.models[..] else { panic!("one model") };
        assert_eq!(
            (times.model.as_str(), times.forward_ms.len(), times.both_ms.len()),
            ("thinet-tiny", 2, 2)
        );
    }

    #[test]
    fn models_are_timed_in_the_order_of_the_paper_and_unknown_names_are_refused() {
        let names = |chosen: &[&str]| -> Vec<&str> {
            let chosen: Vec<String> = chosen.iter().map(|&name| name.to_owned()).collect();
            choose_models(&chosen).unwrap().iter().map(|model| model.name).collect()
        };
        assert_eq!(names(&["resnet50", "vgg16", "resnet50"]), ["vgg16", "resnet50"]);
        assert_eq!(names(&[]).len(), 8);
        let error = check_latency_models(&["vgg19".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("\"vgg19\"") && error.contains("vgg16, thinet-conv, "), "{error}");
    }

    #[test]
    fn running_out_of_memory_names_model_batch_and_device() {
        let options = LatencyOptions { device: Device::Cuda(1), batch: 4096, ..options(&[]) };
        let torch = |message: &str| ModelError::Torch {
            context: "layer \"conv1_1\"".to_owned(),
            message: message.to_owned(),
        };
        for message in
            ["CUDA out of memory. Tried to allocate 48 GiB.", "DefaultCPUAllocator: not enough memory"]
        {
            let error = options.name_error("vgg16", torch(message));
            assert!(matches!(error, LatencyError::OutOfMemory { .. }));
            let text = error.to_string();
            assert_eq!(
                text,
                "vgg16: a batch of 4096 does not fit into the memory of cuda:1; try a smaller batch"
            );
        }
        let other = options.name_error("vgg16", torch("no kernel"));
        assert_eq!(other.to_string(), "vgg16: layer \"conv1_1\": no kernel");
    }
}
