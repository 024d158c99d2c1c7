//! Downloads of files over HTTP: they continue where a connection was cut, are tried again a few times, and are bounded in size.
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

/// What happens while a dataset is fetched or prepared.
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

/// Called with each event.
pub(crate) type Report<'a> = dyn FnMut(FetchEvent<'_>) + 'a;

/// Limit of a download, and of an archive's contents; every dataset of this crate is smaller.
pub(crate) const MOST_BYTES: u64 = 8 << 30;

/// After this many new bytes the connection counts as working, and the count of tries starts again.
const GAIN: u64 = 1 << 20;

/// Time limit for resolving and connecting to the host.
const CONNECT: Duration = Duration::from_secs(20);
/// Time limit for the next bytes.
const SILENCE: Duration = Duration::from_secs(60);

/// Downloads files.
pub(crate) struct Client {
    agent: Agent,
    /// Replaces the folder of every official address; without a slash at its end.
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

    /// Downloads the file of this official address to `path`. Bytes that are there already count as its beginning. After an
    /// error the file holds what was received so far, and is removed if nothing was.
    ///
    /// # Errors
    /// Says what happened; the address is left to the caller.
    pub(crate) fn download(
        &self,
        official: &str,
        path: &Path,
        report: &mut Report<'_>,
    ) -> Result<Download, String> {
        let mut partial = Partial::open(path)?;
        let resumed = partial.len > 0;
        let outcome = self.try_until_done(&self.address(official), &mut partial, report);
        match outcome {
            Ok(()) => match partial.file {
                Some(file) => Ok(Download { file, resumed }),
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
        report: &mut Report<'_>,
    ) -> Result<(), String> {
        let mut version = Version::default();
        let (mut tries, mut best) = (0, partial.len);
        loop {
            let problem = match self.attempt(address, partial, &mut version, report) {
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
            report(FetchEvent::Line(&format!("{address}: {problem}; trying again in {} s", pause.as_secs())));
            thread::sleep(*pause);
        }
    }

    /// One request, for what is missing.
    fn attempt(
        &self,
        address: &str,
        partial: &mut Partial,
        version: &mut Version,
        report: &mut Report<'_>,
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
                    report(FetchEvent::Line(&format!("{address}: the server starts from the beginning")));
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
            report(FetchEvent::Progress { step: &step, done: partial.len, total: version.total });
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

/// A download that is complete as far as lengths show; the file is locked until it is dropped.
#[derive(Debug)]
pub(crate) struct Download {
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
        // On a file system without locks, two processes that write the same file end with a wrong checksum.
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
            // A part of it may have been written.
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
mod tests;
