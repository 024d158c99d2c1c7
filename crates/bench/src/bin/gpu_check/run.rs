//! The parent: starts one child after the other, pairs ours with PyTorch's, keeps to its time and writes the report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tch::Device;
use thinet_bench::{Pairs, Ratio};
use thinet_harness::cpu_model;
use thinet_models::{LIBTORCH_VERSION, parse_device};

use crate::child::{Block, Child, Message, Ready};
use crate::nets::Scale;
use crate::report::{Report, Row};
use crate::{latency, parity, speed};

/// Of the whole time, what parity may take: the CPU's side of it depends on the host.
const PARITY_SHARE: f64 = 0.4;
const TRAINING: &str = "training";
const CALIBRATION: &str = "calibration";

/// Work that both sides do.
#[derive(Clone, Copy)]
enum Work {
    Training { net: &'static str, precision: &'static str },
    Calibration { net: &'static str },
}

const WORK: [Work; 6] = [
    Work::Training { net: "vgg16", precision: "f32" },
    Work::Training { net: "vgg16", precision: "bf16" },
    Work::Training { net: "resnet50", precision: "f32" },
    Work::Training { net: "resnet50", precision: "bf16" },
    Work::Calibration { net: "vgg16" },
    Work::Calibration { net: "resnet50" },
];

/// Paragraphs of the report.
fn about(scale: Scale) -> Vec<(&'static str, String)> {
    let (size, parity, batch) = (scale.size(), scale.parity_batch(), scale.speed_batch());
    let tiny =
        if scale.tiny { " **Tiny settings: these numbers say that the folder works, no more.**" } else { "" };
    let tolerance = parity::TOLERANCE;
    vec![
        (
            parity::NETS,
            format!(
                "The device against the CPU: {parity} images of {size}×{size}, seeded random weights, 32-bit floats without TF32, \
                 deterministic algorithms. Largest difference over largest value (loss: relative difference); required: \
                 at most {tolerance}, and the same bits when the device does it twice. Logits in evaluation mode; loss and \
                 gradient in training mode, dropout at 0.{tiny}"
            ),
        ),
        (
            parity::LAYERS,
            format!(
                "Under the same conditions. Moments XᵀX, of the same images and positions: required at most {tolerance}. \
                 Then for each selector how many of the channels that it keeps it would not have kept with the CPU's evidence; nothing is \
                 required, for a tie within rounding may fall either way."
            ),
        ),
        (
            TRAINING,
            format!(
                "Batch of {batch}, SGD with momentum and weight decay, the loss read after each step. f32: without TF32; bf16: autocast, channels \
                 last and TF32. Both programs with the same switches (cuDNN's search for the fastest kernel is off) on the \
                 same device, in turn; medians, the first turn left out. The last ratio is the median of the turns' ratios: above 1, \
                 ours is faster. Peak: most bytes that tensors held.{tiny}"
            ),
        ),
        (
            CALIBRATION,
            format!(
                "Batch of {batch}, f32 without TF32. Ours: inference up to the layer and all its evidence (filters, zeros, moments of the \
                 paper's 10 positions an image). PyTorch: inference up to the same activation and nothing else. In turn, as above.{tiny}"
            ),
        ),
        (
            latency::SECTION,
            format!("As `thinet latency`; its full table with the published times is in latency.md.{tiny}"),
        ),
    ]
}

impl Work {
    fn section(self) -> &'static str {
        match self {
            Self::Training { .. } => TRAINING,
            Self::Calibration { .. } => CALIBRATION,
        }
    }

    fn name(self) -> Result<String> {
        Ok(match self {
            Self::Training { net, precision } => format!("{net}, {precision}"),
            Self::Calibration { net } => format!("{net}, {}", speed::calibrated(net)?),
        })
    }

    fn ours(self, device: &str) -> Vec<String> {
        let words = match self {
            Self::Training { net, precision } => vec!["train", net, precision, device],
            Self::Calibration { net } => vec!["calibrate", net, device],
        };
        words.into_iter().map(str::to_owned).collect()
    }

    fn reference(self, device: &str, scale: Scale) -> Vec<String> {
        let (work, net, precision) = match self {
            Self::Training { net, precision } => ("train", net, precision),
            Self::Calibration { net } => ("forward", net, "f32"),
        };
        let settings = [
            ("--net", net.to_owned()),
            ("--precision", precision.to_owned()),
            ("--device", device.to_owned()),
            ("--batch", scale.speed_batch().to_string()),
            ("--size", scale.size().to_string()),
            ("--width", scale.width().to_string()),
            ("--warm-up", if scale.tiny { "1" } else { "5" }.to_owned()),
            ("--threads", threads().to_string()),
        ];
        let settings = settings.into_iter().flat_map(|(key, value)| [key.to_owned(), value]);
        std::iter::once(work.to_owned()).chain(settings).collect()
    }
}

/// Threads of libtorch, on both sides: as many as the process may use.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

struct Run<'a> {
    out: &'a Path,
    device: &'a str,
    is_gpu: bool,
    scale: Scale,
    /// When everything must be over.
    deadline: Instant,
    ours: PathBuf,
    python: PathBuf,
    /// The folder that was brought here.
    folder: PathBuf,
    report: Report,
    facts: BTreeMap<String, String>,
}

/// Measures all and writes the report, again after each part.
///
/// # Errors
/// If the device is not there, the report cannot be written, or a required figure does not hold.
pub(crate) fn run(out: &Path, device: &str, time: Duration, scale: Scale) -> Result<()> {
    let start = Instant::now();
    let is_gpu = parse_device(device)? != Device::Cpu;
    let ours = std::env::current_exe().context("this program's own path")?;
    let folder = ours.parent().context("this program's own folder")?.to_owned();
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let python = std::env::var_os("PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let (report, facts) = (Report::default(), BTreeMap::new());
    let deadline = start + time;
    let mut run = Run { out, device, is_gpu, scale, deadline, ours, python, folder, report, facts };

    run.device();
    run.finish_part(start)?;
    run.parity(time)?;
    run.finish_part(start)?;
    for work in WORK {
        run.beside_pytorch(work)?;
        run.finish_part(start)?;
    }
    run.latency()?;
    run.finish_part(start)?;

    let failures = run.report.failures();
    println!("{} rows in {}, {:.0} s", run.report.rows.len(), out.display(), start.elapsed().as_secs_f64());
    ensure!(failures.is_empty(), "{} required figures do not hold: {}", failures.len(), failures.join("; "));
    Ok(())
}

impl Run<'_> {
    fn finish_part(&self, start: Instant) -> Result<()> {
        let about = about(self.scale);
        let about: Vec<(&str, &str)> =
            about.iter().map(|(section, text)| (*section, text.as_str())).collect();
        self.report.write(self.out, self.device, &about)?;
        let environment = json!({
            "device": self.device,
            "facts": self.facts,
            "libtorch": LIBTORCH_VERSION,
            "built": std::fs::read_to_string(self.folder.join("built.txt")).ok(),
            "threads": threads(),
            "tiny": self.scale.tiny,
            "cublas-workspace-config": std::env::var("CUBLAS_WORKSPACE_CONFIG").ok(),
            "seconds": start.elapsed().as_secs(),
        });
        let path = self.out.join("env.json");
        let text = serde_json::to_string_pretty(&environment)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        if let Some(row) = self.report.rows.last() {
            println!("{:4} s: {}, {}", start.elapsed().as_secs(), row.section, row.name);
        }
        Ok(())
    }

    fn start_ours(&self, arguments: &[String]) -> Result<Child> {
        Child::start(&self.ours, arguments)
    }

    fn start_python(&self, arguments: &[String]) -> Result<Child> {
        let script = self.folder.join("eager.py").to_string_lossy().into_owned();
        let arguments: Vec<String> = std::iter::once(script).chain(arguments.iter().cloned()).collect();
        Child::start(&self.python, &arguments)
    }

    /// What the machine is.
    fn device(&mut self) {
        let section = "device";
        let mut facts = BTreeMap::new();
        match self.python_facts() {
            Ok(found) => facts.extend(found),
            Err(error) => {
                let row = Row::not_run(section, "PyTorch", "value", &format!("{error:#}"));
                self.report.rows.push(row);
            }
        }
        facts.insert("processor".to_owned(), cpu_model().unwrap_or_else(|| "unknown".to_owned()));
        facts.insert("cores".to_owned(), threads().to_string());
        facts.insert("libtorch, built for".to_owned(), LIBTORCH_VERSION.to_owned());
        let rows = facts.iter().map(|(name, value)| Row::text(section, name, "value", value.as_str()));
        self.report.rows.extend(rows);
        match self.smi() {
            Ok(text) => {
                self.report.rows.push(Row::text(section, "nvidia-smi", "value", text.as_str()));
                facts.insert("nvidia-smi".to_owned(), text);
            }
            Err(error) => {
                let row = Row::not_run(section, "nvidia-smi", "value", &format!("{error:#}"));
                self.report.rows.push(row);
            }
        }
        self.facts = facts;
    }

    fn python_facts(&self) -> Result<BTreeMap<String, String>> {
        let mut child =
            self.start_python(&["facts".to_owned(), "--device".to_owned(), self.device.to_owned()])?;
        match child.next(self.deadline)? {
            Some(Message::Facts(facts)) => Ok(facts),
            other => bail!("eager.py says {other:?}"),
        }
    }

    /// Name, driver and memory of all GPUs, as the driver tells.
    fn smi(&self) -> Result<String> {
        ensure!(self.is_gpu, "the device is the CPU");
        let output = Command::new("nvidia-smi")
            .args(["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"])
            .output()
            .context("nvidia-smi cannot be run")?;
        ensure!(output.status.success(), "nvidia-smi ended with {}", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(str::trim).collect::<Vec<_>>().join("; "))
    }

    fn parity(&mut self, time: Duration) -> Result<()> {
        let subjects = parity::subjects()?;
        let mut reason = "needs a CUDA device".to_owned();
        // On the CPU it only shows, at tiny size, that the check works.
        if self.is_gpu || self.scale.tiny {
            let deadline = self.deadline.min(Instant::now() + time.mul_f64(PARITY_SHARE));
            if let Err(error) = self.rows_of(&["parity".to_owned(), self.device.to_owned()], deadline) {
                reason = format!("{error:#}");
            }
        }
        for (section, name) in subjects {
            if !self.report.has(section, &name) {
                self.report.rows.push(Row::not_run(section, &name, "all", &reason));
            }
        }
        if !self.is_gpu && self.scale.tiny {
            for row in self.report.rows.iter_mut().filter(|row| row.section.starts_with("parity")) {
                row.note = "self-test: the CPU against itself".to_owned();
            }
        }
        Ok(())
    }

    fn latency(&mut self) -> Result<()> {
        let out = self.out.to_string_lossy().into_owned();
        let arguments = ["latency".to_owned(), out, self.device.to_owned()];
        let found = self.rows_of(&arguments, self.deadline);
        let reason =
            found.err().map_or_else(|| "nothing was said of it".to_owned(), |error| format!("{error:#}"));
        for name in latency::models(self.scale)? {
            if !self.report.has(latency::SECTION, &name) {
                self.report.rows.push(Row::not_run(latency::SECTION, &name, "forward", &reason));
            }
        }
        Ok(())
    }

    /// Takes the rows of one of our own children.
    fn rows_of(&mut self, arguments: &[String], deadline: Instant) -> Result<()> {
        let mut child = self.start_ours(arguments)?;
        while let Some(message) = child.next(deadline)? {
            match message {
                Message::Row(row) => self.report.rows.push(row),
                other => bail!("unexpected: {other:?}"),
            }
        }
        Ok(())
    }

    fn beside_pytorch(&mut self, work: Work) -> Result<()> {
        let (section, name) = (work.section(), work.name()?);
        let found = match self.turns(work) {
            Ok(found) => found,
            Err(error) => {
                let row = Row::not_run(section, &name, "ours", &format!("{error:#}"));
                self.report.rows.push(row);
                return Ok(());
            }
        };
        let Turns { pairs, peaks } = found;
        let rows = &mut self.report.rows;
        let mut number = |metric, value, unit| rows.push(Row::number(section, &name, metric, value, unit));
        number("ours", 1.0 / pairs.ours(), "images/s");
        number("PyTorch", 1.0 / pairs.reference(), "images/s");
        number("ours over PyTorch", pairs.ratio(Ratio::Speedup), "");
        if let Some(row) = rows.last_mut() {
            row.note = pairs.spread(Ratio::Speedup);
        }
        if section == TRAINING {
            for (metric, peak) in [("peak, ours", peaks[0]), ("peak, PyTorch", peaks[1])] {
                rows.push(match peak {
                    Some(bytes) => Row::number(section, &name, metric, (bytes >> 20) as f64, "MiB"),
                    None => Row::not_run(section, &name, metric, "libtorch tells it of a GPU alone"),
                });
            }
        }
        Ok(())
    }

    /// Both sides in turn, on one device, so that a change of the machine's speed meets both.
    fn turns(&self, work: Work) -> Result<Turns> {
        let (rounds, seconds) = if self.scale.tiny { (2, 0.2) } else { (6, 1.5) };
        // Both get ready side by side; nothing is timed until both stand.
        let mut sides = [
            self.start_ours(&work.ours(self.device))?,
            self.start_python(&work.reference(self.device, self.scale))?,
        ];
        let [ours, theirs] = &mut sides;
        let (ours_ready, theirs_ready) = (self.ready(ours)?, self.ready(theirs)?);
        ensure!(
            ours_ready == theirs_ready,
            "not the same work: ours {ours_ready:?}, eager.py {theirs_ready:?}"
        );
        let mut pairs = Pairs::default();
        let mut peaks = [None, None];
        for _ in 0..rounds {
            let mut seconds_per_image = [f64::NAN; 2];
            for (side, child) in sides.iter_mut().enumerate() {
                child.tell(&format!("go {seconds}"))?;
                let Some(Message::Block(Block { images, seconds, peak })) = child.next(self.deadline)? else {
                    bail!("a side ended before its work was done");
                };
                seconds_per_image[side] = seconds / images as f64;
                peaks[side] = peak;
            }
            let [ours, reference] = seconds_per_image;
            pairs.push(ours, reference);
        }
        Ok(Turns { pairs: pairs.warm(), peaks })
    }

    fn ready(&self, child: &mut Child) -> Result<Ready> {
        match child.next(self.deadline)? {
            Some(Message::Ready(ready)) => Ok(ready),
            other => bail!("unexpected: {other:?}"),
        }
    }
}

struct Turns {
    /// Seconds for an image.
    pairs: Pairs,
    peaks: [Option<u64>; 2],
}
