//! Claims: exclusive work on a run or a stage, on one machine or on several that share a file system.
//!
//! A claim is a file that is created atomically. Its holder rewrites it every few seconds; a claim that does not change for the
//! expiry time has lost its holder, and a waiting process takes it over. The waiting process measures that time on its own monotonic
//! clock, so clocks that differ between machines or are set back have no effect. If the holder ran on this machine, the operating
//! system is asked instead, so that a restart after a crash does not wait.
//!
//! A process that was frozen for longer than the expiry time loses its claim. It checks the claim before it writes anything under a
//! final name ([`Claim::check`]) and stops if it is lost. Claims save work, they do not protect results: results are written under
//! unique temporary names and renamed, with checksums in a record that comes last.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thinet_files::read_if_exists;

use super::environment::host_name;
use crate::error::HarnessError;
use crate::stop::Stop;

/// How often a holder rewrites its claim, and how long a claim may stay unchanged before it is free.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClaimTiming {
    pub(crate) beat: Duration,
    pub(crate) expiry: Duration,
}

impl ClaimTiming {
    /// Claims that expire after this time, rewritten every three seconds or more often.
    pub(crate) fn expiring_after(expiry: Duration) -> Self {
        Self { beat: Duration::from_secs(3).min(expiry / 10).max(Duration::from_millis(1)), expiry }
    }
}

/// Lock file for the removal of claims. It is never removed: a new file in its place would not be the one that others have locked.
pub(crate) const GUARD: &str = ".guard";

/// How often a waiting process looks at a claim.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Progress of the work under a claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Activity {
    /// The step, such as `conv2_1: tune`.
    pub step: String,
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// Running training loss, if the step has one.
    pub loss: Option<f64>,
}

/// The process that holds a claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Holder {
    /// Name of the machine.
    pub host: String,
    /// The machine's boot and the process's namespace: process ids are unique only within both.
    boot: String,
    pub pid: u32,
    /// Start time of the process, in clock ticks since boot.
    start: u64,
    /// Distinguishes the claims of one process.
    serial: u64,
    /// Counts the rewrites of the claim.
    beat: u64,
    pub doing: Activity,
}

impl Holder {
    fn here() -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let pid = std::process::id();
        Self {
            host: host_name(),
            boot: boot(),
            pid,
            start: start_of(pid).unwrap_or(0),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            beat: 0,
            doing: Activity::default(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.host, &self.boot, self.pid, self.start, self.serial)
            == (&other.host, &other.boot, other.pid, other.start, other.serial)
    }

    /// Whether the process runs; `None` if it ran on another machine, or the system does not say.
    fn is_alive(&self) -> Option<bool> {
        let is_here = self.host == host_name() && self.boot == boot() && self.start > 0;
        is_here.then(|| start_of(self.pid) == Some(self.start))
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

fn boot() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), namespace.display())
}

/// The start time of a process: field 22 of `/proc/<pid>/stat`; the second, a name in parentheses, may hold spaces. `None` if it does
/// not exist or is a zombie.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Called at each look at another process's claim with its holder, if readable, and its bytes.
type Look<'a> = dyn FnMut(Option<&Holder>, &[u8]) -> Result<(), HarnessError> + 'a;

/// A claim of this process, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    holder: Arc<Mutex<Holder>>,
    /// Dropped to end the thread that rewrites the claim.
    end: Option<Sender<()>>,
    beating: Option<JoinHandle<()>>,
}

impl Claim {
    /// Takes the claim; an error if it is in use, which is known at once for holders on this machine, else after the next rewrite.
    pub(crate) fn try_take(path: &Path, held: &Path, timing: ClaimTiming) -> Result<Self, HarnessError> {
        let first = read_if_exists(path)?;
        Self::wait(path, timing, &mut |holder, content| {
            let shows_itself = holder.and_then(Holder::is_alive) == Some(true)
                || first.as_deref().is_none_or(|first| first != content);
            if shows_itself {
                let holder = holder.map_or_else(|| "unknown".to_owned(), ToString::to_string);
                return Err(HarnessError::Busy { path: held.to_owned(), holder });
            }
            Ok(())
        })
    }

    /// Waits for the claim until asked to stop; calls `waiting` once for each holder.
    pub(crate) fn take(
        path: &Path,
        stop: &Stop,
        timing: ClaimTiming,
        waiting: &dyn Fn(&Holder),
    ) -> Result<Self, HarnessError> {
        let mut reported = None;
        Self::wait(path, timing, &mut |holder, _| {
            stop.check()?;
            if let Some(holder) = holder
                && reported.as_ref().is_none_or(|reported: &Holder| !reported.is_same(holder))
            {
                waiting(holder);
                reported = Some(holder.clone());
            }
            Ok(())
        })
    }

    /// Retries until the claim is free. Calls `held` after each failed try and returns its error.
    fn wait(path: &Path, timing: ClaimTiming, held: &mut Look<'_>) -> Result<Self, HarnessError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(HarnessError::io("create", folder))?;
        }
        let mut seen: Option<(Vec<u8>, Instant)> = None;
        loop {
            if let Some(holder) = create(path)? {
                return Ok(Self::beat(path, holder, timing.beat));
            }
            let Some(content) = read_if_exists(path)? else { continue };
            let holder: Option<Holder> = serde_json::from_slice(&content).ok();
            let is_unchanged_for = match &seen {
                Some((before, since)) if *before == content => since.elapsed(),
                _ => {
                    seen = Some((content.clone(), Instant::now()));
                    Duration::ZERO
                }
            };
            let is_gone = match holder.as_ref().and_then(Holder::is_alive) {
                Some(is_alive) => !is_alive,
                None => is_unchanged_for >= timing.expiry,
            };
            if is_gone {
                remove_stale(path, &content)?;
                continue;
            }
            held(holder.as_ref(), &content)?;
            std::thread::sleep(LOOK_EVERY.min(timing.beat));
        }
    }

    fn beat(path: &Path, holder: Holder, every: Duration) -> Self {
        let holder = Arc::new(Mutex::new(holder));
        let (end, ended) = channel();
        let (file, shown) = (path.to_owned(), holder.clone());
        let beating = std::thread::Builder::new().name("claim".into()).spawn(move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let mut holder = shown.lock().unwrap_or_else(PoisonError::into_inner);
                holder.beat += 1;
                // A failed write is tolerated: the next one follows.
                let _ = rewrite(&file, &holder);
            }
        });
        Self { path: path.to_owned(), holder, end: Some(end), beating: beating.ok() }
    }

    /// Sets the progress that the next rewrite of the claim shows.
    pub(crate) fn show(&self, doing: Activity) {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner).doing = doing;
    }

    /// Checks that the claim is still this process's: a process that was frozen for longer than the expiry time loses it. Called
    /// before anything gets its final name.
    ///
    /// # Errors
    /// If another process took it over, or the file cannot be read.
    pub(crate) fn check(&self) -> Result<(), HarnessError> {
        let ours = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        let found =
            read_if_exists(&self.path)?.and_then(|bytes| serde_json::from_slice::<Holder>(&bytes).ok());
        match found {
            Some(found) if found.is_same(&ours) => Ok(()),
            other => Err(HarnessError::LostClaim {
                path: self.path.clone(),
                holder: other.map_or_else(|| "which has since ended".to_owned(), |other| other.to_string()),
            }),
        }
    }

    /// Whether another process took the claim over; false if the file cannot be read.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.check(), Err(HarnessError::LostClaim { .. }))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.beating.take() {
            // The thread only panics if memory runs out; the claim is released anyway.
            let _ = thread.join();
        }
        let _guard = Guard::take(&self.path);
        if self.check().is_ok() {
            // A claim that stays becomes stale when this process ends.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The holder of a claim file, unless the file is unreadable or the process has ended.
pub(crate) fn holder(path: &Path) -> Option<Holder> {
    let read = || serde_json::from_slice::<Holder>(&fs::read(path).ok()?).ok();
    // Twice, as the file may be in the middle of a rewrite.
    let holder = read().or_else(read)?;
    (holder.is_alive() != Some(false)).then_some(holder)
}

/// Creates the claim file; `None` if it exists.
fn create(path: &Path) -> Result<Option<Holder>, HarnessError> {
    let mut file = match File::create_new(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(e) => return Err(HarnessError::io("create", path)(e)),
    };
    let holder = Holder::here();
    let bytes = serde_json::to_vec(&holder).map_err(HarnessError::Json)?;
    if let Err(e) = file.write_all(&bytes).and_then(|()| file.sync_all()) {
        let _ = fs::remove_file(path);
        return Err(HarnessError::io("write", path)(e));
    }
    Ok(Some(holder))
}

/// Rewrites the claim, if it is still the holder's. In place: a rename would replace the file of a process that has just taken the
/// claim over, while a takeover creates a new file, which is not the one that is open here.
fn rewrite(path: &Path, holder: &Holder) -> std::io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let mut before = Vec::new();
    file.read_to_end(&mut before)?;
    if serde_json::from_slice(&before).is_ok_and(|before: Holder| before.is_same(holder)) {
        let bytes = serde_json::to_vec(holder)?;
        file.rewind()?;
        file.write_all(&bytes)?;
        file.set_len(bytes.len() as u64)?;
    }
    Ok(())
}

/// Removes a stale claim, unless it has changed from `content`.
fn remove_stale(path: &Path, content: &[u8]) -> Result<(), HarnessError> {
    let _guard = Guard::take(path);
    match read_if_exists(path)? {
        Some(found) if found == content => fs::remove_file(path).map_err(HarnessError::io("remove", path)),
        _ => Ok(()),
    }
}

/// Held between reading a claim and removing it, so that no process removes a new claim in place of an old one.
struct Guard {
    _file: Option<File>,
}

impl Guard {
    /// Tries to lock for a second only, as locks of a shared file system can outlive their machine. Without the lock two processes
    /// can in rare cases hold one claim, which only duplicates work.
    fn take(path: &Path) -> Self {
        const TRIES: u32 = 100;
        let file =
            File::options().create(true).truncate(false).write(true).open(path.with_file_name(GUARD)).ok();
        if let Some(file) = &file {
            for _ in 0..TRIES {
                if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Self { _file: file }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: ClaimTiming =
        ClaimTiming { beat: Duration::from_millis(20), expiry: Duration::from_millis(400) };

    fn foreign(beat: u64) -> Vec<u8> {
        let holder = Holder { host: "elsewhere".into(), beat, ..Holder::here() };
        serde_json::to_vec(&holder).unwrap()
    }

    #[test]
    fn a_claim_in_use_is_an_error_that_names_the_holder_until_it_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("claims/run");
        let first = Claim::try_take(&path, dir.path(), QUICK).unwrap();
        let error = Claim::try_take(&path, dir.path(), QUICK).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        assert!(!path.exists());
        assert!(Claim::try_take(&path, dir.path(), QUICK).is_ok());
    }

    #[test]
    fn a_process_of_this_machine_that_has_ended_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let dead = Holder { pid, ..Holder::here() };
        fs::write(&path, serde_json::to_vec(&dead).unwrap()).unwrap();
        assert_eq!(holder(&path), None);
        let never = ClaimTiming { expiry: Duration::from_secs(3600), ..QUICK };
        let claim = Claim::try_take(&path, dir.path(), never).unwrap();
        claim.check().unwrap();
        // The same number, but another process has it now.
        drop(claim);
        let reused = Holder { start: 1, ..Holder::here() };
        fs::write(&path, serde_json::to_vec(&reused).unwrap()).unwrap();
        assert!(Claim::try_take(&path, dir.path(), never).is_ok());
    }

    #[test]
    fn a_claim_from_elsewhere_is_respected_while_it_changes_and_expires_when_it_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        fs::write(&path, foreign(0)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for beat in 1..20 {
                    std::thread::sleep(Duration::from_millis(20));
                    // Renamed into place, so that a reader never finds an empty file, which has no holder.
                    let next = dir.path().join("next");
                    fs::write(&next, foreign(beat)).unwrap();
                    fs::rename(&next, &path).unwrap();
                }
            });
            let error = Claim::try_take(&path, dir.path(), QUICK).unwrap_err().to_string();
            assert!(error.contains("elsewhere"), "{error}");
        });
        let started = Instant::now();
        let _claim = Claim::try_take(&path, dir.path(), QUICK).unwrap();
        assert!(started.elapsed() >= QUICK.expiry);
    }

    #[test]
    fn clocks_have_no_effect_on_a_claim() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        // Left in the future by a clock that was set back since, and cut off while it was written.
        fs::write(&path, &foreign(0)[..10]).unwrap();
        let future = std::time::SystemTime::now() + Duration::from_secs(1_000_000);
        File::options().write(true).open(&path).unwrap().set_modified(future).unwrap();
        assert!(Claim::try_take(&path, dir.path(), QUICK).is_ok());
    }

    #[test]
    fn of_many_that_find_a_stale_claim_one_gets_it_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        fs::write(&path, foreign(0)).unwrap();
        let holders = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let claim = Claim::take(&path, &Stop::default(), QUICK, &|_| ()).unwrap();
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::sleep(Duration::from_millis(2));
                        holders.fetch_sub(1, Ordering::SeqCst);
                        drop(claim);
                    }
                });
            }
        });
        assert!(!path.exists());
    }

    #[test]
    fn waiting_ends_when_asked_to_stop_and_a_lost_claim_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let claim = Claim::try_take(&path, dir.path(), QUICK).unwrap();
        claim.show(Activity { step: "train".into(), done: 3, total: 9, loss: Some(0.5) });
        let stop = Stop::default();
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                stop.set();
            });
            Claim::take(&path, &stop, QUICK, &|_| ()).unwrap_err()
        });
        assert!(matches!(error, HarnessError::Stopped), "{error}");
        while holder(&path).unwrap().doing.done != 3 {
            std::thread::sleep(QUICK.beat);
        }
        let other = foreign(0);
        // A beat that found its own claim just before this writes it once more.
        let error = loop {
            let next = dir.path().join("next");
            fs::write(&next, &other).unwrap();
            fs::rename(&next, &path).unwrap();
            std::thread::sleep(3 * QUICK.beat);
            if let Err(error) = claim.check() {
                break error;
            }
        };
        assert!(matches!(&error, HarnessError::LostClaim { holder, .. } if holder.ends_with("elsewhere")));
        std::thread::sleep(3 * QUICK.beat);
        drop(claim);
        assert_eq!(fs::read(&path).unwrap(), other, "the file belongs to the other process");
    }
}
