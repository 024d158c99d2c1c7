//! Downloads from a server on loopback: cut connections, redirects, errors, resumed files.

use super::*;
use crate::test_server::{Request, Server, cut, ranged, response};

const TAG: &str = "\"one\"";

fn file() -> Vec<u8> {
    (0..100_000_u32).map(|i| (i / 7) as u8).collect()
}

/// Downloads `server/a/file.gz` into a file that holds `start`; returns the outcome, what the file holds then and the
/// reported lines.
struct Attempt {
    outcome: Result<bool, String>,
    holds: Option<Vec<u8>>,
    lines: Vec<String>,
}

fn run(server: &Server, start: Option<&[u8]>, most_bytes: u64) -> Attempt {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/file.gz.partial");
    if let Some(start) = start {
        fs::create_dir(folder.path().join("new")).unwrap();
        fs::write(&path, start).unwrap();
    }
    let mut lines = Vec::new();
    let outcome = Client::of_tests(None, most_bytes).download(
        &format!("{}/a/file.gz", server.address),
        &path,
        &mut |event| {
            if let FetchEvent::Line(line) = event {
                lines.push(line.replace(&server.address, "SERVER"));
            }
        },
    );
    let outcome = outcome
        .map(|downloaded| downloaded.resumed)
        .map_err(|problem| problem.replace(&path.display().to_string(), "FILE"));
    Attempt { outcome, holds: fs::read(&path).ok(), lines }
}

fn assert_whole(ran: &Attempt, resumed: bool) {
    assert_eq!(ran.outcome, Ok(resumed));
    assert!(ran.holds.as_ref() == Some(&file()), "another file of {:?}", ran.holds.as_ref().map(Vec::len));
}

#[test]
fn a_file_is_downloaded_with_and_without_a_known_length() {
    let server = Server::new(|_, request| ranged(request, &file(), TAG));
    assert_whole(&run(&server, None, MOST_BYTES), false);
    assert_eq!(server.requests()[0].path(), "/a/file.gz");
    let unknown = Server::new(|_, _| [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", &file()[..]].concat());
    assert_whole(&run(&unknown, None, MOST_BYTES), false);
}

#[test]
fn progress_ends_at_the_whole_size() {
    let server = Server::new(|_, request| ranged(request, &file(), TAG));
    let folder = tempfile::tempdir().unwrap();
    let mut last = None;
    let client = Client::of_tests(Some(&format!("{}/m/", server.address)), MOST_BYTES);
    let report = &mut |event: FetchEvent<'_>| {
        if let FetchEvent::Progress { step, done, total } = event {
            last = Some((step.to_owned(), done, total));
        }
    };
    client.download("https://official.invalid/x/file.gz", &folder.path().join("file"), report).unwrap();
    assert_eq!(last, Some(("downloading file.gz".to_owned(), 100_000, Some(100_000))));
    assert_eq!(server.requests()[0].path(), "/m/file.gz");
}

#[test]
fn a_cut_connection_goes_on_where_it_was_cut() {
    let server = Server::new(|number, request| {
        cut(ranged(request, &file(), TAG), if number < 3 { 10_000 >> number } else { 0 })
    });
    let ran = run(&server, None, MOST_BYTES);
    assert_whole(&ran, false);
    let asked: Vec<_> = server.requests().iter().map(Request::start).collect();
    assert_eq!(asked, [None, Some(90_000), Some(95_000), Some(97_500)]);
    assert!(server.requests()[1..].iter().all(|request| request.header("if-range") == Some(TAG)));
    assert!(ran.lines[0].starts_with("SERVER/a/file.gz: the connection was cut: "), "{:?}", ran.lines);
    assert!(ran.lines[0].ends_with("; trying again in 0 s"), "{:?}", ran.lines);
}

#[test]
fn what_a_server_that_gives_up_has_sent_is_kept_and_used_by_the_next_call() {
    let server = Server::new(|_, request| match request.start() {
        None => cut(ranged(request, &file(), TAG), 40_000),
        Some(_) => response("503 Service Unavailable", "", b"later"),
    });
    let ran = run(&server, None, MOST_BYTES);
    assert_eq!(ran.outcome, Err("the server answered 503 Service Unavailable, after 5 tries".to_owned()));
    assert_eq!(ran.holds, Some(file()[..60_000].to_vec()));
    let server = Server::new(|_, request| ranged(request, &file(), TAG));
    assert_whole(&run(&server, ran.holds.as_deref(), MOST_BYTES), true);
    assert_eq!(server.requests().len(), 1);
    assert_eq!(server.requests()[0].start(), Some(60_000));
}

#[test]
fn a_server_without_ranges_starts_again() {
    let server = Server::new(|_, _| response("200 OK", "", &file()));
    let ran = run(&server, Some(b"beginning"), MOST_BYTES);
    assert_whole(&ran, true);
    assert_eq!(ran.lines, ["SERVER/a/file.gz: the server starts from the beginning"]);
    let longer = vec![1; 200_000];
    assert_whole(&run(&server, Some(&longer), MOST_BYTES), true);
}

#[test]
fn a_file_that_changes_on_the_server_is_downloaded_from_its_start() {
    // Noticed by its tag, which the server compares or only reports; by its size; by a part that was not asked for.
    let other = || vec![3; 99_999];
    let answer = |tag: &'static str, start: usize, total: usize| {
        move |request: &Request| match request.start() {
            None => ranged(request, &file(), TAG),
            Some(_) => response(
                "206 Partial Content",
                &format!("etag: {tag}\r\ncontent-range: bytes {start}-{}/{total}\r\n", total - 1),
                &file()[start..],
            ),
        }
    };
    let changed = Server::new(move |number, request| match number {
        0 => cut(ranged(request, &other(), "\"old\""), 50_000),
        _ => ranged(request, &file(), TAG),
    });
    assert_whole(&run(&changed, None, MOST_BYTES), false);
    assert_eq!(changed.requests().len(), 2);
    for wrong in
        [answer("\"two\"", 50_000, 100_000), answer(TAG, 50_000, 100_001), answer(TAG, 49_999, 100_000)]
    {
        let server = Server::new(move |number, request| match number {
            0 => cut(ranged(request, &file(), TAG), 50_000),
            _ => wrong(request),
        });
        let ran = run(&server, None, MOST_BYTES);
        assert_whole(&ran, false);
        let asked: Vec<_> = server.requests().iter().map(Request::start).collect();
        assert_eq!(asked, [None, Some(50_000), None]);
    }
}

#[test]
fn a_file_that_is_there_completely_is_not_sent_again_and_one_too_long_is() {
    let server = Server::new(|_, request| ranged(request, &file(), TAG));
    assert_whole(&run(&server, Some(&file()), MOST_BYTES), true);
    assert_eq!(server.requests().len(), 1);
    assert_whole(&run(&server, Some(&vec![0; 100_001]), MOST_BYTES), true);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn redirects_are_followed_with_the_range_and_not_in_circles() {
    let server = Server::new(|_, request| match request.path() {
        "/a/file.gz" => response("302 Found", "location: /b/elsewhere?signed=1\r\n", b""),
        _ => ranged(request, &file(), TAG),
    });
    assert_whole(&run(&server, None, MOST_BYTES), false);
    assert_whole(&run(&server, Some(&file()[..70_000]), MOST_BYTES), true);
    let last = server.requests().pop().unwrap();
    assert_eq!((last.path(), last.start()), ("/b/elsewhere?signed=1", Some(70_000)));
    let circle = Server::new(|_, _| response("302 Found", "location: /a/file.gz\r\n", b""));
    let ran = run(&circle, None, MOST_BYTES);
    assert_eq!((ran.outcome, ran.holds), (Err("too many redirects".to_owned()), None));
}

#[test]
fn what_is_not_there_is_asked_for_once_and_leaves_nothing() {
    let server = Server::new(|_, _| response("404 Not Found", "", b"<html>no</html>"));
    let ran = run(&server, None, MOST_BYTES);
    assert_eq!((ran.outcome, ran.holds), (Err("the server answered 404 Not Found".to_owned()), None));
    assert_eq!(server.requests().len(), 1);
    // What was downloaded earlier is not lost.
    let ran = run(&server, Some(b"beginning"), MOST_BYTES);
    assert_eq!(ran.holds, Some(b"beginning".to_vec()));
}

#[test]
fn a_server_that_is_busy_or_says_nothing_is_asked_again() {
    let server = Server::new(|number, request| match number {
        0 => response("503 Service Unavailable", "", b""),
        1 => Vec::new(),
        2 => {
            // Longer than the client waits for an answer.
            thread::sleep(Duration::from_millis(1500));
            Vec::new()
        }
        _ => ranged(request, &file(), TAG),
    });
    let ran = run(&server, None, MOST_BYTES);
    assert_whole(&ran, false);
    assert_eq!(ran.lines.len(), 3, "{:?}", ran.lines);
    let nobody = run(&Server::gone(), None, MOST_BYTES);
    assert!(nobody.outcome.unwrap_err().ends_with(", after 5 tries"));
}

#[test]
fn more_bytes_than_any_dataset_has_are_refused_before_or_while_they_come() {
    let server = Server::new(|_, request| ranged(request, &file(), TAG));
    let ran = run(&server, None, 99_999);
    assert_eq!((ran.outcome, ran.holds), (Err("more than 99999 bytes, too many".to_owned()), None));
    let unknown = Server::new(|_, _| [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", &file()[..]].concat());
    let ran = run(&unknown, None, 99_999);
    assert_eq!(ran.outcome, Err("more than 99999 bytes, too many".to_owned()));
    assert!(ran.holds.unwrap().len() <= 99_999);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_the_download_and_says_so() {
    let server = Server::new(|_, request| ranged(request, &file(), TAG));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let client = Client::of_tests(Some(&server.address), MOST_BYTES);
    let problem = client.download("http://x/file", &path, &mut |_| ()).unwrap_err();
    assert_eq!(problem, format!("cannot write {}: No space left on device (os error 28)", path.display()));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn two_processes_do_not_write_one_file() {
    let server = Server::new(|_, request| ranged(request, &file(), TAG));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let client = Client::of_tests(Some(&server.address), MOST_BYTES);
    let first = client.download("http://x/file", &path, &mut |_| ()).unwrap();
    let problem = client.download("http://x/file", &path, &mut |_| ()).unwrap_err();
    assert_eq!(problem, format!("another process is downloading {}", path.display()));
    assert_eq!(fs::read(&path).unwrap(), file());
    drop(first);
    client.download("http://x/file", &path, &mut |_| ()).unwrap();
}

#[test]
fn a_mirror_stands_for_the_folder_of_a_file() {
    let official = "https://official.invalid/a/b/file.gz";
    for mirror in ["https://example.org/x", "https://example.org/x/"] {
        let client = Client::new(Some(mirror)).unwrap();
        assert_eq!(client.address(official), "https://example.org/x/file.gz");
    }
    assert_eq!(Client::new(None).unwrap().address(official), official);
    for (mirror, says) in [
        ("", "is not an address"),
        ("/data/mirror", "is not an address"),
        ("ftp://example.org", "is not an address"),
        ("https://", "is not an address"),
        ("https://exa mple.org", "is not an address"),
        ("https://me:secret@example.org", "password"),
        ("https://example.org/?file=", "no ? or #"),
    ] {
        let error = Client::new(Some(mirror)).err().unwrap().to_string();
        assert!(error.starts_with("key \"mirror\": ") && error.contains(says), "{mirror}: {error}");
        assert!(!error.contains("secret"));
    }
}

#[test]
fn as_many_bytes_as_are_allowed_are_taken() {
    let server = Server::new(|_, request| ranged(request, &file(), TAG));
    assert_whole(&run(&server, None, 100_000), false);
    let unknown = Server::new(|_, _| [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", &file()[..]].concat());
    assert_whole(&run(&unknown, None, 100_000), false);
}

#[test]
fn a_part_that_nobody_asked_for_is_refused() {
    for status in ["206 Partial Content", "416 Range Not Satisfiable"] {
        let server = Server::new(move |_, _| response(status, "content-range: bytes 0-3/8\r\n", b"part"));
        let ran = run(&server, None, MOST_BYTES);
        assert_eq!((ran.outcome, ran.holds), (Err(format!("the server answered {status}")), None));
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn a_part_that_is_shorter_than_promised_is_completed() {
    let server = Server::new(|number, request| match number {
        0 => {
            let headers = format!("etag: {TAG}\r\ncontent-range: bytes 50000-99999/100000\r\n");
            response("206 Partial Content", &headers, &file()[50_000..50_010])
        }
        _ => ranged(request, &file(), TAG),
    });
    let ran = run(&server, Some(&file()[..50_000]), MOST_BYTES);
    assert_whole(&ran, true);
    assert!(ran.lines[0].contains("50010 of 100000 bytes came"), "{:?}", ran.lines);
    assert_eq!(server.requests()[1].start(), Some(50_010));
}

#[test]
fn a_certificate_that_is_not_trusted_is_final_and_names_the_variable() {
    let refused = std::io::Error::new(ErrorKind::InvalidData, "invalid peer certificate");
    for error in [ureq::Error::Io(refused), ureq::Error::Tls("no roots")] {
        let Failure::Final(problem) = Failure::of_request(error) else { panic!("tried again") };
        assert!(problem.contains("SSL_CERT_FILE"), "{problem}");
    }
    let cut = std::io::Error::new(ErrorKind::ConnectionReset, "reset");
    assert!(matches!(Failure::of_request(ureq::Error::Io(cut)), Failure::Again(_)));
}
