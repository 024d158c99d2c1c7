//! Runs the binary in a temporary folder and captures what it prints.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use image::DynamicImage;

pub(crate) struct Fixture {
    folder: tempfile::TempDir,
}

/// What a command printed and how it ended.
pub(crate) struct RunOutput {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl RunOutput {
    /// Standard output as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// With images, and [`SPEC`] as `small.toml`.
    pub(crate) fn with_study() -> Self {
        let fixture = Self::new();
        fixture.images(3, 16, 8);
        fixture.write("small.toml", SPEC);
        fixture
    }

    /// The same with the results of an unbroken run in `unbroken`, and its tables.
    pub(crate) fn with_unbroken_run() -> (Self, BTreeMap<String, Vec<u8>>) {
        let fixture = Self::with_study();
        let unbroken = fixture.run(&["run", "small.toml", "--data", "images", "--results", "unbroken"]);
        assert_eq!(unbroken.code, 0, "{}", unbroken.err);
        let expected = tables(&fixture.path("unbroken"));
        (fixture, expected)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The program with these arguments, in the fixture's folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thinet"));
        command.current_dir(self.folder.path()).args(arguments).env_remove("RUST_BACKTRACE");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> RunOutput {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).unwrap().replace(&self.folder.path().display().to_string(), "DIR")
        };
        RunOutput { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
    }

    /// Runs a shell script in the fixture's folder, through a command such as `sh -c`; the program is `$thinet` there.
    pub(crate) fn script(&self, through: &[&str], script: &str) -> Output {
        let mut command = Command::new(through[0]);
        command.args(&through[1..]).arg(script).current_dir(self.folder.path());
        command.env("thinet", env!("CARGO_BIN_EXE_thinet")).output().unwrap()
    }

    /// The first entry of a folder, by name, whose name begins with `start`.
    pub(crate) fn entry(&self, folder: &str, start: &str) -> PathBuf {
        let entries = fs::read_dir(self.path(folder)).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(start)).min().unwrap()
    }

    /// A folder of generated grey images: `classes` classes of `train` and `test` images each.
    pub(crate) fn images(&self, classes: u32, train: u32, test: u32) {
        self.draw_images(classes, [train, test], |class, i| {
            let pixel = |x, y| image::Luma([(x * (class + 1) * 16 + y * (i + 3) * 7) as u8]);
            image::GrayImage::from_fn(16, 16, pixel).into()
        });
    }

    /// A folder of images that `draw` gives for a class and the image's number in it.
    pub(crate) fn draw_images(
        &self,
        classes: u32,
        [train, test]: [u32; 2],
        draw: impl Fn(u32, u32) -> DynamicImage,
    ) {
        for (split, images) in [("train", train), ("test", test)] {
            for class in 0..classes {
                let folder = self.path("images").join(split).join(format!("class{class}"));
                fs::create_dir_all(&folder).unwrap();
                for i in 0..images {
                    draw(class, i).save(folder.join(format!("{i:03}.png"))).unwrap();
                }
            }
        }
    }
}

/// Every table below a results folder with its bytes, except for what differs from run to run.
pub(crate) fn tables(results: &Path) -> BTreeMap<String, Vec<u8>> {
    files(&results.join("tables"))
        .into_iter()
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .filter(|(name, _)| !name.ends_with("env.json") && !name.ends_with("seconds.csv"))
        .collect()
}

/// All files below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Waits until the condition holds, a minute at most; returns whether it does.
pub(crate) fn wait_until(holds: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while !holds() {
        if started.elapsed() > Duration::from_secs(60) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// A study on [`Fixture::images`] that takes about a second.
pub(crate) const SPEC: &str = r#"
name = "small"
table = "small"
dataset = { kind = "image-folder", name = "Waves", size = 16, channels = 1 }
net = { arch = "tiny" }
dense.train = { epochs = 1, batch = 8, lr = 0.05 }
dense.allow-chance = true
prune.keep-rates = [0.5]
prune.after-last = { steps = 4, batch = 8, lr = 0.01 }
calibration = { images-per-class = 2, positions-per-image = 2 }
methods = [{ selector = "thinet", reconstruction = "channel-scale" }, { selector = "random" }]
"#;

/// [`SPEC`] under another name and with another second method; the dense net and the first cell are the same.
pub(crate) fn other_spec() -> String {
    let other = SPEC.replace("name = \"small\"\ntable = \"small\"", "name = \"other\"\ntable = \"other\"");
    other.replace("\"random\"", "\"apoz\"")
}

/// [`SPEC`] with a training that no test waits for.
pub(crate) fn long_spec() -> String {
    SPEC.replace("dense.train = { epochs = 1", "dense.train = { epochs = 100000")
}
