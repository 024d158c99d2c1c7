//! Runs the binary in a folder of its own and takes what it prints apart.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

pub(crate) struct Fixture {
    folder: tempfile::TempDir,
}

/// What a command printed and how it ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
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

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes).unwrap().replace(&self.folder.path().display().to_string(), "DIR")
        };
        Ran { code: status.code().unwrap_or(-1), out: text(stdout), err: text(stderr) }
    }

    /// A folder of generated images: `classes` classes of `train` and `test` images each.
    pub(crate) fn images(&self, classes: u32, train: u32, test: u32) {
        for (split, images) in [("train", train), ("test", test)] {
            for class in 0..classes {
                let folder = self.path("images").join(split).join(format!("class{class}"));
                fs::create_dir_all(&folder).unwrap();
                for i in 0..images {
                    let image = image::GrayImage::from_fn(16, 16, |x, y| {
                        image::Luma([(x * (class + 1) * 16 + y * (i + 3) * 7) as u8])
                    });
                    image.save(folder.join(format!("{i:03}.png"))).unwrap();
                }
            }
        }
    }
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
