//! Downloading a file over HTTP: it goes on where a connection was cut, tries again a few times, and is bounded in size.
//!
//! Proxies come from the environment (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`), trusted certificates from the system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::DataError;

/// What happens while a dataset is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchEvent<'a> {
    /// A step, in a line.
    Line(&'a str),
    /// How far a long step is.
    Progress {
        /// What is done, as "downloading cifar-10-binary.tar.gz".
        step: &'a str,
        /// Bytes that are done.
        done: u64,
        /// All bytes, where that is known.
        total: Option<u64>,
    },
}

/// Told what happens.
pub(crate) type Tell<'a> = dyn FnMut(FetchEvent<'_>) + 'a;

/// No dataset of ours is larger, packed or unpacked; what goes on beyond that is not what was asked for.
pub(crate) const MOST_BYTES: u64 = 8 << 30;

/// So many new bytes mean that the connection works, and the tries are counted from the start.
const GAIN: u64 = 1 << 20;

/// Finding the host, and connecting.
const CONNECT: Duration = Duration::from_secs(20);
/// Waiting for the next bytes.
const SILENCE: Duration = Duration::from_secs(60);

/// Downloads files.
pub(crate) struct Client {
    agent: Agent,
    /// Stands for the folder of every official address; without a slash at its end.
    mirror: Option<String>,
    /// The pause before each new try.
    pauses: Vec<Duration>,
    most_bytes: u64,
}

impl Client {
    /// # Errors
    /// If the mirror is not an address.
    pub(crate) fn new(mirror: Option<&str>) -> Result<Self, DataError> {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .accept_encoding("identity")
            .user_agent(concat!("thinet/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE));
        Ok(Self {
            agent: config.build().into(),
            mirror: mirror.map(checked_mirror).transpose()?,
            pauses: [1, 2, 4, 8].map(Duration::from_secs).to_vec(),
            most_bytes: MOST_BYTES,
        })
    }

    /// The address that is used for a folder's official one.
    pub(crate) fn folder<'a>(&'a self, official: &'a str) -> &'a str {
        self.mirror.as_deref().unwrap_or(official)
    }

    /// The address that is used for a file's official one.
    pub(crate) fn address(&self, official: &str) -> String {
        match official.rsplit_once('/') {
            Some((folder, name)) => format!("{}/{name}", self.folder(folder)),
            None => official.to_owned(),
        }
    }

    /// Downloads what has this official address into the file at `path`. What is in the file already is taken for its
    /// beginning; after an error it holds what came so far, and is removed if nothing did.
    ///
    /// # Errors
    /// Says what happened; the address is left to the caller.
    pub(crate) fn download(
        &self,
        official: &str,
        path: &Path,
        tell: &mut Tell<'_>,
    ) -> Result<Downloaded, String> {
        let mut partial = Partial::open(path)?;
        let resumed = partial.len > 0;
        let outcome = self.try_until_done(&self.address(official), &mut partial, tell);
        match outcome {
            Ok(()) => match partial.file {
                Some(file) => Ok(Downloaded { file, resumed }),
                None => Err("the server sent nothing".to_owned()),
            },
            Err(problem) => {
                if partial.file.is_some() && partial.len == 0 {
                    // What cannot be removed does no harm: the next call starts from it.
                    let _ = fs::remove_file(path);
                }
                Err(problem)
            }
        }
    }

    fn try_until_done(
        &self,
        address: &str,
        partial: &mut Partial,
        tell: &mut Tell<'_>,
    ) -> Result<(), String> {
        let mut version = Version::default();
        let (mut tries, mut best) = (0, partial.len);
        loop {
            let problem = match self.attempt(address, partial, &mut version, tell) {
                Ok(()) => return Ok(()),
                Err(Failure::Final(problem)) => return Err(problem),
                Err(Failure::Again(problem)) => problem,
            };
            if partial.len >= best + GAIN {
                (tries, best) = (0, partial.len);
            }
            let Some(pause) = self.pauses.get(tries) else {
                return Err(format!("{problem}, after {} tries", tries + 1));
            };
            tries += 1;
            tell(FetchEvent::Line(&format!("{address}: {problem}; trying again in {} s", pause.as_secs())));
            thread::sleep(*pause);
        }
    }

    /// One request, for what is missing.
    fn attempt(
        &self,
        address: &str,
        partial: &mut Partial,
        version: &mut Version,
        tell: &mut Tell<'_>,
    ) -> Result<(), Failure> {
        let have = partial.len;
        let mut request = self.agent.get(address);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
            if let Some(validator) = &version.validator {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let response = request.call().map_err(Failure::of_request)?;
        let found = Version::of(&response);
        match response.status() {
            StatusCode::OK => {
                if have > 0 {
                    tell(FetchEvent::Line(&format!("{address}: the server starts from the beginning")));
                }
                partial.create().and_then(|()| partial.restart()).map_err(Failure::Final)?;
            }
            StatusCode::PARTIAL_CONTENT if have > 0 => {
                if !version.agrees_with(&found) || found.range_start != Some(have) {
                    partial.restart().map_err(Failure::Final)?;
                    *version = Version::default();
                    return Err(Failure::Again("the file on the server has changed".to_owned()));
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
                if found.total == Some(have) && version.agrees_with(&found) {
                    return Ok(());
                }
                partial.restart().map_err(Failure::Final)?;
                *version = Version::default();
                return Err(Failure::Again("the file on the server is another one".to_owned()));
            }
            status => return Err(Failure::of_status(status)),
        }
        *version = found;
        let too_much = || Failure::Final(format!("more than {} bytes, too many", self.most_bytes));
        if version.total.is_some_and(|total| total > self.most_bytes) {
            return Err(too_much());
        }
        let step = format!("downloading {}", file_name(address));
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 64 << 10];
        loop {
            tell(FetchEvent::Progress { step: &step, done: partial.len, total: version.total });
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => return Err(Failure::Again(format!("the connection was cut: {error}"))),
            };
            if partial.len + read as u64 > self.most_bytes {
                return Err(too_much());
            }
            partial.write(&buffer[..read]).map_err(Failure::Final)?;
        }
        match version.total {
            Some(total) if total != partial.len => {
                Err(Failure::Again(format!("{} of {total} bytes came", partial.len)))
            }
            _ => Ok(()),
        }
    }

    /// For tests: no proxy, no pauses.
    #[cfg(test)]
    pub(crate) fn of_tests(mirror: Option<&str>, most_bytes: u64) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_recv_response(Some(Duration::from_secs(1)))
            .timeout_per_read(Some(Duration::from_secs(1)));
        let mirror = mirror.map(|mirror| checked_mirror(mirror).unwrap());
        Self { agent: config.build().into(), mirror, pauses: vec![Duration::ZERO; 4], most_bytes }
    }
}

/// The last part of an address.
pub(crate) fn file_name(address: &str) -> &str {
    address.rsplit('/').next().unwrap_or(address)
}

fn checked_mirror(mirror: &str) -> Result<String, DataError> {
    let bad = |problem: &str| {
        // Not printed: it may hold a password.
        DataError::Value { key: "mirror", problem: problem.to_owned() }
    };
    let host = ["http://", "https://"].iter().find_map(|scheme| mirror.strip_prefix(scheme));
    let host = host.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    if host.is_empty() || mirror.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(bad(
            "is not an address such as https://example.org/datasets, the folder that holds the archive",
        ));
    }
    if host.contains('@') {
        return Err(bad("a mirror with a user or a password in its address is not supported"));
    }
    if mirror.contains(['?', '#']) {
        return Err(bad("is the address of a folder and has no ? or #"));
    }
    Ok(mirror.trim_end_matches('/').to_owned())
}

/// A file that came completely, as far as lengths tell, and is locked until it is dropped.
#[derive(Debug)]
pub(crate) struct Downloaded {
    pub(crate) file: File,
    /// Whether its beginning is from an earlier call.
    pub(crate) resumed: bool,
}

/// Why an attempt failed.
enum Failure {
    /// Worth another try.
    Again(String),
    Final(String),
}

impl Failure {
    fn of_request(error: ureq::Error) -> Self {
        let text = error.to_string();
        let untrusted = |text| {
            Self::Final(format!(
                "{text} (the certificates of this system are trusted; SSL_CERT_FILE names others)"
            ))
        };
        match error {
            // What rustls refuses during a handshake.
            ureq::Error::Io(error) if error.kind() == ErrorKind::InvalidData => untrusted(text),
            ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Protocol(_) => Self::Again(text),
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => untrusted(text),
            _ => Self::Final(text),
        }
    }

    fn of_status(status: StatusCode) -> Self {
        let text = format!("the server answered {status}");
        match status.as_u16() {
            408 | 425 | 429 | 500 | 502 | 503 | 504 => Self::Again(text),
            _ => Self::Final(text),
        }
    }
}

/// What a response says about the file as it lies on the server.
#[derive(Default)]
struct Version {
    /// All bytes of the file.
    total: Option<u64>,
    /// The first byte of the part that was sent.
    range_start: Option<u64>,
    /// A strong entity tag, else the time of the last change.
    validator: Option<String>,
}

impl Version {
    fn of(response: &Response<Body>) -> Self {
        let headers = response.headers();
        let tag = text(headers, &header::ETAG).filter(|tag| tag.starts_with('"'));
        let validator = tag.or_else(|| text(headers, &header::LAST_MODIFIED)).map(str::to_owned);
        // bytes 100-199/200, bytes 100-199/*, bytes */200
        let range = text(headers, &header::CONTENT_RANGE).and_then(|range| range.strip_prefix("bytes "));
        let [part, total] = match range.and_then(|range| range.split_once('/')) {
            Some((part, total)) => [part, total],
            None => [""; 2],
        };
        let is_part = response.status() != StatusCode::OK;
        Self {
            total: if is_part { total.parse().ok() } else { response.body().content_length() },
            range_start: part.split('-').next().and_then(|start| start.parse().ok()),
            validator,
        }
    }

    /// Whether nothing that both know differs.
    fn agrees_with(&self, other: &Self) -> bool {
        fn same<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        same(self.total.as_ref(), other.total.as_ref())
            && same(self.validator.as_ref(), other.validator.as_ref())
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The file that is written, which need not be there yet.
struct Partial {
    path: PathBuf,
    file: Option<File>,
    len: u64,
}

impl Partial {
    fn open(path: &Path) -> Result<Self, String> {
        let mut partial = Self { path: path.to_owned(), file: None, len: 0 };
        if path.exists() {
            partial.create()?;
        }
        Ok(partial)
    }

    /// Opens the file at its end, so that no other process writes it.
    fn create(&mut self) -> Result<(), String> {
        if self.file.is_some() {
            return Ok(());
        }
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)
                .map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&self.path).map_err(self.failed("open"))?;
        // Where a file system knows no locks, two processes cost each other their checksum.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(format!("another process is downloading {}", self.path.display()));
        }
        self.len = file.seek(SeekFrom::End(0)).map_err(self.failed("read"))?;
        self.file = Some(file);
        Ok(())
    }

    fn restart(&mut self) -> Result<(), String> {
        let Some(file) = self.file.as_mut().filter(|_| self.len > 0) else { return Ok(()) };
        let emptied = file.set_len(0).and_then(|()| file.rewind());
        emptied.map_err(self.failed("empty"))?;
        self.len = 0;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let written = file.write_all(bytes);
        if written.is_err() {
            // Part of it may be there.
            self.len = file.metadata().map_or(self.len, |metadata| metadata.len());
        }
        written.map_err(self.failed("write"))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(std::io::Error) -> String + use<> {
        let path = self.path.display().to_string();
        move |error| format!("cannot {action} {path}: {error}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_server::{Request, Server, cut, ranged, response};

    const TAG: &str = "\"one\"";

    fn file() -> Vec<u8> {
        (0..100_000_u32).map(|i| (i / 7) as u8).collect()
    }

    /// Downloads `server/a/file.gz` into a file that holds `start`; returns the outcome, what the file holds then and the
    /// lines that were told.
    struct Ran {
        outcome: Result<bool, String>,
        holds: Option<Vec<u8>>,
        lines: Vec<String>,
    }

    fn run(server: &Server, start: Option<&[u8]>, most_bytes: u64) -> Ran {
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
        Ran { outcome, holds: fs::read(&path).ok(), lines }
    }

    fn assert_whole(ran: &Ran, resumed: bool) {
        assert_eq!(ran.outcome, Ok(resumed));
        assert!(
            ran.holds.as_ref() == Some(&file()),
            "another file of {:?}",
            ran.holds.as_ref().map(Vec::len)
        );
    }

    #[test]
    fn a_file_is_downloaded_with_and_without_a_known_length() {
        let server = Server::new(|_, request| ranged(request, &file(), TAG));
        assert_whole(&run(&server, None, MOST_BYTES), false);
        assert_eq!(server.requests()[0].path(), "/a/file.gz");
        let unknown =
            Server::new(|_, _| [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", &file()[..]].concat());
        assert_whole(&run(&unknown, None, MOST_BYTES), false);
    }

    #[test]
    fn progress_ends_at_the_whole_size() {
        let server = Server::new(|_, request| ranged(request, &file(), TAG));
        let folder = tempfile::tempdir().unwrap();
        let mut last = None;
        let client = Client::of_tests(Some(&format!("{}/m/", server.address)), MOST_BYTES);
        let tell = &mut |event: FetchEvent<'_>| {
            if let FetchEvent::Progress { step, done, total } = event {
                last = Some((step.to_owned(), done, total));
            }
        };
        client.download("https://official.invalid/x/file.gz", &folder.path().join("file"), tell).unwrap();
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
        // By its tag, which the server compares or only tells; by its size; by a part that was not asked for.
        let other = || vec![3; 99_999];
        let told = |tag: &'static str, start: usize, total: usize| {
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
            [told("\"two\"", 50_000, 100_000), told(TAG, 50_000, 100_001), told(TAG, 49_999, 100_000)]
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
                // Longer than the client waits, shorter than anybody minds.
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
        let unknown =
            Server::new(|_, _| [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", &file()[..]].concat());
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
        assert_eq!(
            problem,
            format!("cannot write {}: No space left on device (os error 28)", path.display())
        );
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
}
