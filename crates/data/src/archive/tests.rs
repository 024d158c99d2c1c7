//! Archives packed for the tests: unsafe paths, links, damage, bounds.

use std::process::Command;

use super::*;
use crate::test_server::{Server, cut, ranged, response};
use crate::unpack::tests::{FILE, archive, tree};

const OFFICIAL: &str = "https://official.invalid/~kriz/set.tar.gz";
const TAG: &str = "\"one\"";

/// An archive of these files below `set/`, and what is published about it.
fn published(files: &[(&str, &[u8])]) -> (Vec<u8>, Archive) {
    let names: Vec<String> = files.iter().map(|(name, _)| format!("set/{name}")).collect();
    let entries: Vec<_> = names.iter().zip(files).map(|(name, file)| (FILE, &**name, file.1)).collect();
    let bytes = archive(&entries);
    let md5: String = Md5::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let md5 = Box::leak(md5.into_boxed_str());
    (bytes, Archive { address: OFFICIAL, md5, folder: "set", files: &["a.bin", "b.bin"] })
}

/// Bytes that do not shrink when they are packed.
fn noise(len: usize) -> Vec<u8> {
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        Some((*state >> 56) as u8)
    };
    std::iter::repeat_n((), len).scan(1, |state, ()| next(state)).collect()
}

/// The set has both files.
fn read(folder: &Path) -> Result<(), DataError> {
    for name in ["a.bin", "b.bin"] {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(DataError::Missing { path, hint: "a file of the set".to_owned() });
        }
    }
    Ok(())
}

fn get(archive: &Archive, folder: &Path, server: &Server) -> (Result<(), String>, Vec<String>) {
    let client = Client::of_tests(Some(&format!("{}/mirror", server.address)), MOST_BYTES);
    let mut lines = Vec::new();
    let outcome = archive.get("The Set", folder, &client, &read, &mut |event| {
        if let FetchEvent::Line(line) = event {
            lines.push(line.to_owned());
        }
    });
    (outcome.map_err(|error| error.to_string()), lines)
}

fn entry(name: &str, contents: &[u8]) -> (String, Vec<u8>) {
    (name.to_owned(), contents.to_vec())
}

#[test]
fn a_folder_that_is_not_there_becomes_the_dataset_and_one_that_is_gets_it() {
    let (bytes, archive) = published(&[("a.bin", b"A"), ("b.bin", b"B")]);
    let server = Server::new(move |_, request| ranged(request, &bytes, TAG));
    let parent = tempfile::tempdir().unwrap();
    let (outcome, lines) = get(&archive, &parent.path().join("new/x"), &server);
    outcome.unwrap();
    assert_eq!(tree(parent.path()), [entry("new/x/a.bin", b"A"), entry("new/x/b.bin", b"B")]);
    assert_eq!(server.requests()[0].path(), "/mirror/set.tar.gz");
    assert_eq!(lines[0], format!("downloading {}/mirror/set.tar.gz", server.address));
    assert!(lines[1].starts_with("unpacking ") && lines.len() == 2, "{lines:?}");

    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("mine.txt"), "mine").unwrap();
    get(&archive, other.path(), &server).0.unwrap();
    let expected = [entry("mine.txt", b"mine"), entry("set/a.bin", b"A"), entry("set/b.bin", b"B")];
    assert_eq!(tree(other.path()), expected);
    assert_eq!(archive.place(other.path()), other.path().join("set"));
    assert_eq!(archive.place(&other.path().join("set")), other.path().join("set"));
}

#[test]
fn the_progress_of_each_step_ends_at_the_size_of_the_archive() {
    // Several reads of each step.
    let (bytes, archive) = published(&[("a.bin", &noise(600_000)), ("b.bin", b"B")]);
    let size = bytes.len() as u64;
    let server = Server::new(move |_, request| ranged(request, &bytes, TAG));
    let client = Client::of_tests(Some(&server.address), MOST_BYTES);
    let folder = tempfile::tempdir().unwrap();
    let mut steps = Vec::new();
    let mut report = |event: FetchEvent<'_>| {
        if let FetchEvent::Progress { step, done, total } = event {
            steps.push((step.to_owned(), done, total));
        }
    };
    archive.get("The Set", &folder.path().join("set"), &client, &read, &mut report).unwrap();
    for step in ["downloading", "checking", "unpacking"] {
        let step = format!("{step} set.tar.gz");
        let of_step: Vec<u64> =
            steps.iter().filter(|(name, ..)| *name == step).map(|(_, done, _)| *done).collect();
        assert!(of_step.len() > 1 && of_step.is_sorted(), "{step}: {of_step:?}");
        assert_eq!(of_step.last(), Some(&size), "{step}");
    }
    assert!(steps.iter().all(|(_, _, total)| *total == Some(size)), "{steps:?}");
}

#[test]
fn what_a_killed_process_unpacked_is_removed_and_nothing_else() {
    let (bytes, archive) = published(&[("a.bin", b"A"), ("b.bin", b"B")]);
    let server = Server::new(move |_, request| ranged(request, &bytes, TAG));
    let parent = tempfile::tempdir().unwrap();
    for name in [".unpacking-set-1x", ".unpacking-other-1x"] {
        fs::create_dir(parent.path().join(name)).unwrap();
        fs::write(parent.path().join(name).join("a.bin"), "old").unwrap();
    }
    get(&archive, &parent.path().join("x"), &server).0.unwrap();
    let expected =
        [entry(".unpacking-other-1x/a.bin", b"old"), entry("x/a.bin", b"A"), entry("x/b.bin", b"B")];
    assert_eq!(tree(parent.path()), expected);
}

#[test]
fn folders_follow_the_umask() {
    use std::os::unix::fs::PermissionsExt as _;
    let (bytes, archive) = published(&[("a.bin", b"A"), ("b.bin", b"B")]);
    let server = Server::new(move |_, request| ranged(request, &bytes, TAG));
    let parent = tempfile::tempdir().unwrap();
    fs::create_dir(parent.path().join("plain")).unwrap();
    get(&archive, &parent.path().join("set"), &server).0.unwrap();
    let mode = |name: &str| fs::metadata(parent.path().join(name)).unwrap().permissions().mode();
    assert_eq!(mode("set"), mode("plain"));
}

#[test]
fn a_wrong_checksum_is_refused_with_everything_that_helps_and_leaves_nothing() {
    let (bytes, archive) = published(&[("a.bin", b"A"), ("b.bin", b"B")]);
    let (other, of_other) = published(&[("a.bin", b"A"), ("b.bin", b"C")]);
    let size = other.len();
    let server = Server::new(move |number, _| match number {
        0 => response("200 OK", "", &other),
        1 => response("200 OK", "content-type: text/html\r\n", b"<html>Please log in</html>"),
        _ => response("200 OK", "", &bytes),
    });
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("x");
    let (outcome, _) = get(&archive, &folder, &server);
    let beside = parent.path().display();
    assert_eq!(
        outcome.unwrap_err(),
        format!(
            "cannot get The Set into {beside}/x: {}/mirror/set.tar.gz: md5 of {beside}/set.tar.gz.partial \
             ({size} bytes) is {}, expected {}; it was removed; to get it by hand: download {OFFICIAL} (md5 {}) to \
             {beside}/set.tar.gz and run the same command again; a copy of it elsewhere: --mirror URL, or \
             THINET_MIRROR=URL",
            server.address, of_other.md5, archive.md5, archive.md5
        )
    );
    assert_eq!(tree(parent.path()), []);
    let page = get(&archive, &folder, &server).0.unwrap_err();
    assert!(page.contains("and is no gzip archive at all (the page of a login"), "{page}");
    assert_eq!(tree(parent.path()), []);
    get(&archive, &folder, &server).0.unwrap();
    read(&folder).unwrap();
}

#[test]
fn a_beginning_of_another_file_is_found_by_the_checksum_and_thrown_away() {
    let (bytes, archive) = published(&[("a.bin", &noise(900)), ("b.bin", b"B")]);
    let server = Server::new(move |_, request| ranged(request, &bytes, TAG));
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join("set.tar.gz.partial"), [0; 100]).unwrap();
    let (outcome, lines) = get(&archive, &parent.path().join("x"), &server);
    outcome.unwrap();
    assert_eq!(
        server.requests().iter().map(|request| request.start()).collect::<Vec<_>>(),
        [Some(100), None]
    );
    assert!(lines.iter().any(|line| line.contains("starting again")), "{lines:?}");
    assert_eq!(tree(parent.path()), [entry("x/a.bin", &noise(900)), entry("x/b.bin", b"B")]);
}

#[test]
fn a_cut_download_is_kept_and_the_next_one_goes_on() {
    let (bytes, archive) = published(&[("a.bin", &noise(900)), ("b.bin", b"B")]);
    let half = bytes.len() / 2;
    let server = Server::new(move |number, request| match number {
        0 => cut(ranged(request, &bytes, TAG), bytes.len() - half),
        1 => response("404 Not Found", "", b""),
        _ => ranged(request, &bytes, TAG),
    });
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("x");
    let problem = get(&archive, &folder, &server).0.unwrap_err();
    let kept = format!(
        "the server answered 404 Not Found ({half} bytes in {}/set.tar.gz.partial are kept for the next try)",
        parent.path().display()
    );
    assert!(problem.contains(&kept), "{problem}");
    assert!(!folder.exists());
    get(&archive, &folder, &server).0.unwrap();
    assert_eq!(server.requests()[2].start(), Some(half));
    assert_eq!(tree(parent.path()).len(), 2);
}

#[test]
fn an_archive_that_was_brought_by_hand_is_used_and_kept() {
    let (bytes, archive) = published(&[("a.bin", b"A"), ("b.bin", b"B")]);
    let server = Server::new(|_, _| response("404 Not Found", "", b""));
    let parent = tempfile::tempdir().unwrap();
    let by_hand = parent.path().join("set.tar.gz");
    fs::write(&by_hand, &bytes[1..]).unwrap();
    let folder = parent.path().join("x");
    let problem = get(&archive, &folder, &server).0.unwrap_err();
    assert!(problem.contains(&format!("md5 of {} ", by_hand.display())), "{problem}");
    assert!(by_hand.exists() && !folder.exists());
    fs::write(&by_hand, &bytes).unwrap();
    get(&archive, &folder, &server).0.unwrap();
    read(&folder).unwrap();
    assert_eq!(fs::read(&by_hand).unwrap(), bytes);
    assert!(server.requests().is_empty());
}

#[test]
fn a_part_of_the_dataset_is_not_touched() {
    let (_, archive) = published(&[("a.bin", b"A"), ("b.bin", b"B")]);
    let server = Server::new(|_, _| response("404 Not Found", "", b""));
    for part in ["b.bin", "set/b.bin", "set/other"] {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join(part);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        let problem = get(&archive, parent.path(), &server).0.unwrap_err();
        let expected = "/a.bin: not found; a file of the set; move it away to start again";
        assert!(
            problem.contains("a part of it that is not touched: ") && problem.contains(expected),
            "{problem}"
        );
        assert_eq!(tree(parent.path()), [entry(part, b"mine")]);
    }
    assert!(server.requests().is_empty());
}

#[test]
fn an_archive_that_is_not_the_dataset_is_not_put_in_place() {
    let (bytes, archive) = published(&[("a.bin", b"A")]);
    let size = bytes.len();
    let server = Server::new(move |_, request| ranged(request, &bytes, TAG));
    let parent = tempfile::tempdir().unwrap();
    let problem = get(&archive, &parent.path().join("x"), &server).0.unwrap_err();
    assert!(
        problem.contains("the archive is not the dataset: ") && problem.contains("b.bin: not found"),
        "{problem}"
    );
    let left = tree(parent.path());
    assert_eq!((left.len(), &*left[0].0, left[0].1.len()), (1, "set.tar.gz.partial", size));
}

const NAME: &str =
    "archive::tests::a_disk_that_fills_up_while_unpacking_leaves_nothing_that_passes_for_a_dataset";

/// In a process of its own that may write files of at most 64 KiB, which the archive is below and its contents above.
#[test]
fn a_disk_that_fills_up_while_unpacking_leaves_nothing_that_passes_for_a_dataset() {
    let parent = |path: &str| PathBuf::from(path);
    let (bytes, archive) = published(&[("a.bin", b"A"), ("b.bin", &[0; 200_000])]);
    if let Ok(path) = std::env::var("THINET_TEST_FULL") {
        let server = Server::new(move |_, request| ranged(request, &bytes, TAG));
        let problem = get(&archive, &parent(&path).join("x"), &server).0.unwrap_err();
        assert!(problem.contains("b.bin: File too large"), "{problem}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    // Blocks of 512 or 1024 bytes; a write beyond is an error instead of a signal.
    let limited = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "sh"])
        .arg(program)
        .args(["--exact", NAME, "--test-threads=1"])
        .env("THINET_TEST_FULL", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&limited.stdout);
    assert!(limited.status.success() && said.contains("1 passed"), "{said}");
    // The archive is whole, so that nothing is downloaded again once there is room.
    let left = tree(folder.path());
    assert_eq!((left.len(), &*left[0].0), (1, "set.tar.gz.partial"));
    let server = Server::new(move |_, request| ranged(request, &bytes, TAG));
    get(&archive, &folder.path().join("x"), &server).0.unwrap();
    read(&folder.path().join("x")).unwrap();
    assert_eq!(server.requests()[0].start(), Some(left[0].1.len()));
}

#[test]
fn a_place_that_cannot_be_listed_is_an_error_and_an_absent_one_is_free() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(is_occupied(&dir.path().join("no")), Ok(false));
    assert_eq!(is_occupied(dir.path()), Ok(false));
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(is_occupied(dir.path()), Ok(true));
    let error = is_occupied(&file).unwrap_err();
    assert!(error.starts_with(&format!("cannot list {}: ", file.display())), "{error}");
}
