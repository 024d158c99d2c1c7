//! Getting Fashion-MNIST from Debian's package or its official address.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thinet_files::{FileError, write_atomically_with};

use super::{INSTALLED, NAME, files};
use crate::DataError;
use crate::addresses::FASHION_MNIST;
use crate::client::{Client, FetchEvent, Report};
use crate::command::{Programs, run};
use crate::idx::IdxFile;

const PACKAGE: &str = "dataset-fashion-mnist";
/// Time limit in seconds for the package (30 MB).
const SECONDS: u64 = 600;

/// Files that are there already are checked and kept; missing ones come from the first source that has them.
pub(super) fn fetch(folder: &Path, client: &Client, report: &mut Report<'_>) -> Result<(), DataError> {
    let sources = [
        Source::Installed(PathBuf::from(INSTALLED)),
        Source::DebianPackage(Programs::default()),
        Source::Address(client),
    ];
    fetch_from(folder, &files(), &sources, report)
}

/// A place to get Fashion-MNIST's files from.
enum Source<'a> {
    /// The folder of the installed Debian package.
    Installed(PathBuf),
    /// The Debian package, downloaded and unpacked.
    DebianPackage(Programs),
    /// The official address, or the client's mirror of it.
    Address(&'a Client),
}

impl Source<'_> {
    fn describe(&self) -> String {
        match self {
            Self::Installed(folder) => format!("the installed package's folder {}", folder.display()),
            Self::DebianPackage(_) => format!("Debian's package {PACKAGE}"),
            Self::Address(client) => client.folder(FASHION_MNIST).to_owned(),
        }
    }

    /// Returns a folder with the files; files are written below `temporary` only.
    fn get(&self, files: &[&IdxFile], temporary: &Path, report: &mut Report<'_>) -> Result<PathBuf, String> {
        match self {
            Self::Installed(folder) if folder.is_dir() => Ok(folder.clone()),
            Self::Installed(_) => Err("not there".to_owned()),
            Self::DebianPackage(programs) => unpack_package(programs, temporary),
            Self::Address(client) => {
                for file in files {
                    let name = file.gz_name();
                    client
                        .download(&format!("{FASHION_MNIST}/{name}"), &temporary.join(&name), report)
                        .map_err(|problem| format!("{name}: {problem}"))?;
                }
                Ok(temporary.to_owned())
            }
        }
    }
}

fn unpack_package(programs: &Programs, temporary: &Path) -> Result<PathBuf, String> {
    let hint = |problem: String| match programs.apt_get.is_installed() {
        true => format!("{problem} (where package lists are old, \"apt-get update\" as root helps)"),
        false => problem,
    };
    run(&programs.apt_get, &["download".as_ref(), PACKAGE.as_ref()], temporary, SECONDS).map_err(hint)?;
    let entries = fs::read_dir(temporary).map_err(|error| error.to_string())?;
    let mut archives = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let archive = archives.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let archive = archive.ok_or("apt-get left no .deb file")?;
    run(&programs.dpkg, &["-x".as_ref(), archive.as_ref(), "unpacked".as_ref()], temporary, SECONDS)?;
    Ok(temporary.join("unpacked").join(INSTALLED.trim_start_matches('/')))
}

fn fetch_from(
    folder: &Path,
    files: &[IdxFile; 4],
    sources: &[Source<'_>],
    report: &mut Report<'_>,
) -> Result<(), DataError> {
    let mut missing = Vec::new();
    for file in files {
        match file.find(folder) {
            Some(path) => drop(file.read(&path)?),
            None => missing.push(file),
        }
    }
    if missing.is_empty() {
        report(FetchEvent::Line(&format!("{} is in {}", NAME, folder.display())));
        return Ok(());
    }
    let mut tried = Vec::new();
    for source in sources {
        report(FetchEvent::Line(&format!("{}: trying {}", NAME, source.describe())));
        match take_from(source, &missing, folder, report) {
            Ok(()) => {
                report(FetchEvent::Line(&format!("{} is in {}", NAME, folder.display())));
                return Ok(());
            }
            Err(Refusal::Source(problem)) => tried.push(format!("{}: {problem}", source.describe())),
            Err(Refusal::Folder(error)) => return Err(error),
        }
    }
    let names: Vec<String> = files.iter().map(IdxFile::gz_name).collect();
    Err(DataError::Fetch {
        dataset: NAME.to_owned(),
        folder: folder.to_owned(),
        tried: tried.join("; "),
        by_hand: format!(
            "install Debian's package {PACKAGE}, or download {} from {FASHION_MNIST} into that folder",
            names.join(", ")
        ),
    })
}

/// Why files could not be copied: an error of the source, or of the target folder.
enum Refusal {
    Source(String),
    Folder(DataError),
}

/// Gets the files, checks all of them, and only then copies them into the folder.
fn take_from(
    source: &Source<'_>,
    files: &[&IdxFile],
    folder: &Path,
    report: &mut Report<'_>,
) -> Result<(), Refusal> {
    let temporary = tempfile::Builder::new().prefix("thinet-fetch-").tempdir();
    let temporary = temporary.map_err(|error| Refusal::Source(format!("no temporary folder: {error}")))?;
    let from = source.get(files, temporary.path(), report).map_err(Refusal::Source)?;
    let mut checked = Vec::new();
    for file in files {
        let missing = || Refusal::Source(format!("has no {}", file.gz_name()));
        let path = file.find(&from).ok_or_else(missing)?;
        file.read(&path).map_err(|error| Refusal::Source(error.to_string()))?;
        checked.push(path);
    }
    fs::create_dir_all(folder).map_err(DataError::io(folder, "create")).map_err(Refusal::Folder)?;
    for path in checked {
        let Some(name) = path.file_name() else { continue };
        let target = folder.join(name);
        copy_in_place(&path, &target)
            .map_err(|e| DataError::io(&target, "write")(e.source))
            .map_err(Refusal::Folder)?;
    }
    Ok(())
}

/// Copies a file atomically: under its name there is never a part of it.
fn copy_in_place(from: &Path, target: &Path) -> Result<(), FileError> {
    let mut from = fs::File::open(from).map_err(FileError::at("read", from))?;
    write_atomically_with(target, |file| {
        io::copy(&mut from, file).map(drop).map_err(FileError::at("write", target))
    })
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::MOST_BYTES;
    use crate::command::Program;
    use crate::fashion_mnist::tests::{assert_reads, examples};
    use crate::idx::tests::gzipped;
    use crate::test_server::{Server, response};

    /// A folder with the four small files.
    fn good() -> (tempfile::TempDir, [IdxFile; 4]) {
        let (files, contents) = examples([0, 1, 2, 3]);
        let folder = tempfile::tempdir().unwrap();
        for (file, contents) in files.iter().zip(&contents) {
            fs::write(folder.path().join(file.gz_name()), gzipped(contents)).unwrap();
        }
        (folder, files)
    }

    /// Programs that are shell scripts: `$@` are the arguments.
    fn scripts(apt_get: &str, dpkg: &str) -> Programs {
        Programs { apt_get: Program::script(apt_get), dpkg: Program::script(dpkg) }
    }

    fn try_fetch(
        folder: &Path,
        files: &[IdxFile; 4],
        sources: &[Source<'_>],
    ) -> (Result<(), DataError>, Vec<String>) {
        let mut lines = Vec::new();
        let result = fetch_from(folder, files, sources, &mut |event| {
            if let FetchEvent::Line(line) = event {
                lines.push(line.to_owned());
            }
        });
        (result, lines)
    }

    fn entries(folder: &Path) -> Vec<String> {
        let names =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn whole_files_are_kept_and_damaged_ones_are_named_and_left_alone() {
        let (folder, files) = good();
        let (result, lines) = try_fetch(folder.path(), &files, &[]);
        result.unwrap();
        assert_eq!(lines, [format!("Fashion-MNIST is in {}", folder.path().display())]);
        let path = folder.path().join("t10k-labels-idx1-ubyte.gz");
        fs::write(&path, "short").unwrap();
        let (source, _) = good();
        let sources = [Source::Installed(source.path().to_owned())];
        let (result, _) = try_fetch(folder.path(), &files, &sources);
        assert!(
            matches!(result, Err(DataError::Size { path: named, expected: 10, found: 5 }) if named == path)
        );
        assert_eq!(fs::read(&path).unwrap(), b"short");
        let official = fetch(folder.path(), &Client::new(None).unwrap(), &mut |_| ()).unwrap_err();
        assert!(official.to_string().contains("-ubyte.gz: "), "{official}");
    }

    #[test]
    fn missing_files_come_from_the_first_source_that_has_them() {
        let (source, files) = good();
        let (folder, _) = good();
        fs::remove_file(folder.path().join("train-images-idx3-ubyte.gz")).unwrap();
        let absent = Source::Installed(source.path().join("absent"));
        let sources = [absent, Source::Installed(source.path().to_owned())];
        let (result, lines) = try_fetch(folder.path(), &files, &sources);
        result.unwrap();
        let installed =
            format!("Fashion-MNIST: trying the installed package's folder {}", source.path().display());
        let here = format!("Fashion-MNIST is in {}", folder.path().display());
        assert_eq!(lines, [format!("{installed}/absent"), installed, here]);
        assert_eq!(entries(folder.path()), entries(source.path()));
        assert_reads(folder.path(), &files);
    }

    #[test]
    fn the_package_is_downloaded_and_unpacked() {
        let (source, files) = good();
        let unpack = format!(
            "mkdir -p \"$3/usr/share/datasets\" && test -s \"$2\" && cp -r '{}' \"$3/usr/share/datasets/fashion-mnist\"",
            source.path().display()
        );
        let apt_get =
            "test \"$*\" = 'download dataset-fashion-mnist' && echo deb > dataset-fashion-mnist_0_all.deb";
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("new/fashion-mnist");
        let (result, _) = try_fetch(&target, &files, &[Source::DebianPackage(scripts(apt_get, &unpack))]);
        result.unwrap();
        assert_eq!(entries(&target), entries(source.path()));
    }

    #[test]
    fn files_are_downloaded_from_the_official_address() {
        let (source, files) = good();
        let published = source.path().to_owned();
        let server = Server::new(move |_, request| {
            let name = request.path().strip_prefix("/m/").unwrap();
            response("200 OK", "", &fs::read(published.join(name)).unwrap())
        });
        let client = Client::of_tests(Some(&format!("{}/m", server.address)), MOST_BYTES);
        assert_eq!(Client::new(None).unwrap().folder(FASHION_MNIST), FASHION_MNIST);
        let folder = tempfile::tempdir().unwrap();
        let (result, _) = try_fetch(folder.path(), &files, &[Source::Address(&client)]);
        result.unwrap();
        assert_eq!(entries(folder.path()), entries(source.path()));
    }

    #[test]
    fn when_all_fails_the_error_says_what_was_tried_and_nothing_is_written() {
        let (source, files) = good();
        fs::write(source.path().join("t10k-labels-idx1-ubyte.gz"), "altered").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("new");
        let programs = scripts("echo first >&2; echo 'E: Unable to locate' >&2; exit 100", "exit 1");
        let server = Server::new(|_, _| response("403 Forbidden", "", b""));
        let client = Client::of_tests(Some(&server.address), MOST_BYTES);
        let sources = [
            Source::Installed(source.path().join("absent")),
            Source::Installed(source.path().to_owned()),
            Source::DebianPackage(programs),
            Source::Address(&client),
        ];
        let (result, _) = try_fetch(&target, &files, &sources);
        let error = result.unwrap_err().to_string();
        for part in [
            "cannot get Fashion-MNIST into ",
            "the installed package's folder",
            "absent: not there; ",
            "t10k-labels-idx1-ubyte.gz: expected 10 bytes, found 7",
            "; Debian's package dataset-fashion-mnist: ",
            "E: Unable to locate (where package lists are old, \"apt-get update\" as root helps)",
            &format!("; {}: train-images-idx3-ubyte.gz: the server answered 403 Forbidden", server.address),
            "to get it by hand: install Debian's package dataset-fashion-mnist, or download train-images-idx3-ubyte.gz, ",
        ] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        assert!(!target.exists());
    }
}
