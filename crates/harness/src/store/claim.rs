//! Claims: who works on a run or a stage, on one machine or on several that share a file system.
//!
//! A claim is a file made by an atomic create. Its holder rewrites it every few seconds; a claim that does not change for a while
//! has lost its holder, and whoever waits for it takes it over. How long "a while" is, the waiting process measures on its own
//! monotonic clock: clocks that differ between machines, or are set back, mean nothing here. Where the holder ran on
//! this machine, the system is asked instead, so that a restart after a crash does not wait.
//!
//! A process that was frozen for longer than claims last finds its claim taken over when it wakes. It asks before it writes
//! anything under a final name ([`Claim::check`]) and then stops: what lies there is the new holder's. Claims save work, they do
//! not protect results: those are written under unique temporary names and renamed, with checksums in a record that comes last.

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

/// How often a holder shows that it is there, and how long nobody may see it before its claim is free.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) beat: Duration,
    pub(crate) expiry: Duration,
}

impl Patience {
    /// Claims that expire after so long show themselves every three seconds, or more often.
    pub(crate) fn expiring_after(expiry: Duration) -> Self {
        Self { beat: Duration::from_secs(3).min(expiry / 10).max(Duration::from_millis(1)), expiry }
    }
}

/// Locked while a claim is removed. It stays: a new file in its place would not be the one that others have locked.
pub(crate) const GUARD: &str = ".guard";

/// How often a waiting process looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is being done under a claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Doing {
    /// The step, such as `conv2_1: tune`.
    pub step: String,
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// Running training loss, if the step has one.
    pub loss: Option<f64>,
}

/// Who holds a claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Holder {
    /// Name of the machine.
    pub host: String,
    /// Its boot and the process's namespace: numbers of processes mean something only within both.
    boot: String,
    /// Number of the process.
    pub pid: u32,
    /// When the process started, in the system's own count.
    start: u64,
    /// Distinguishes the claims of one process.
    serial: u64,
    /// Rises while the holder is there.
    beat: u64,
    /// What it is doing.
    pub doing: Doing,
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
            doing: Doing::default(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.host, &self.boot, self.pid, self.start, self.serial)
            == (&other.host, &other.boot, other.pid, other.start, other.serial)
    }

    /// Whether the process is there; `None` if it ran on another machine, or the system does not tell.
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

/// Field 22 of `/proc/<pid>/stat`; the second, a name in parentheses, may hold spaces. A process that has ended and waits
/// for its parent to notice is not there.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Told of each look at another's claim: its holder, if that can be read, and its bytes.
type Look<'a> = dyn FnMut(Option<&Holder>, &[u8]) -> Result<(), HarnessError> + 'a;

/// Held until dropped, or until the process ends and somebody notices.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    holder: Arc<Mutex<Holder>>,
    /// Dropped to end the beating.
    end: Option<Sender<()>>,
    beating: Option<JoinHandle<()>>,
}

impl Claim {
    /// Takes the claim, or says that it is in use: at once where the holder can be asked, else when it shows itself.
    pub(crate) fn try_take(path: &Path, held: &Path, patience: Patience) -> Result<Self, HarnessError> {
        let first = read_if_exists(path)?;
        Self::wait(path, patience, &mut |holder, content| {
            let shows_itself = holder.and_then(Holder::is_alive) == Some(true)
                || first.as_deref().is_none_or(|first| first != content);
            if shows_itself {
                let holder = holder.map_or_else(|| "unknown".to_owned(), ToString::to_string);
                return Err(HarnessError::Busy { path: held.to_owned(), holder });
            }
            Ok(())
        })
    }

    /// Waits for the claim until told to stop; `waiting` learns once for whom.
    pub(crate) fn take(
        path: &Path,
        stop: &Stop,
        patience: Patience,
        waiting: &dyn Fn(&Holder),
    ) -> Result<Self, HarnessError> {
        let mut told = None;
        Self::wait(path, patience, &mut |holder, _| {
            stop.check()?;
            if let Some(holder) = holder
                && told.as_ref().is_none_or(|told: &Holder| !told.is_same(holder))
            {
                waiting(holder);
                told = Some(holder.clone());
            }
            Ok(())
        })
    }

    /// Tries until the claim is ours or `held` (told of each look at another's) ends it.
    fn wait(path: &Path, patience: Patience, held: &mut Look<'_>) -> Result<Self, HarnessError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(HarnessError::io("create", folder))?;
        }
        let mut seen: Option<(Vec<u8>, Instant)> = None;
        loop {
            if let Some(holder) = create(path)? {
                return Ok(Self::beat(path, holder, patience.beat));
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
                None => is_unchanged_for >= patience.expiry,
            };
            if is_gone {
                remove_stale(path, &content)?;
                continue;
            }
            held(holder.as_ref(), &content)?;
            std::thread::sleep(LOOK_EVERY.min(patience.beat));
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
                // A beat that cannot be written is made up for by the next one.
                let _ = rewrite(&file, &holder);
            }
        });
        Self { path: path.to_owned(), holder, end: Some(end), beating: beating.ok() }
    }

    /// What the next beat tells.
    pub(crate) fn tell(&self, doing: Doing) {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner).doing = doing;
    }

    /// Asks whether the claim is still ours: a process that was frozen for longer than claims last loses it. Called before
    /// anything gets its final name.
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
                holder: other.map_or_else(|| "which has ended since".to_owned(), |other| other.to_string()),
            }),
        }
    }

    /// Whether another process took the claim over; a file that cannot be read says nothing.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.check(), Err(HarnessError::LostClaim { .. }))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.beating.take() {
            // It only panics if memory runs out; the claim is given back all the same.
            let _ = thread.join();
        }
        let _guard = Guard::take(&self.path);
        if self.check().is_ok() {
            // What stays is taken for stale as soon as this process has ended.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The holder of a claim file, if there is one that can be read and may still be there.
pub(crate) fn holder(path: &Path) -> Option<Holder> {
    let read = || serde_json::from_slice::<Holder>(&fs::read(path).ok()?).ok();
    // The second look is for a file that was being rewritten at the first.
    let holder = read().or_else(read)?;
    (holder.is_alive() != Some(false)).then_some(holder)
}

/// Makes the file, unless it exists.
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

/// Shows a new beat, if the claim is still the holder's. In place: a rename would put the file back that somebody else has just
/// taken over. Who takes a claim over makes a new file, which is not the one that is open here.
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

/// Removes a claim that was seen as `content` and judged stale, unless it has changed since.
fn remove_stale(path: &Path, content: &[u8]) -> Result<(), HarnessError> {
    let _guard = Guard::take(path);
    match read_if_exists(path)? {
        Some(found) if found == content => fs::remove_file(path).map_err(HarnessError::io("remove", path)),
        _ => Ok(()),
    }
}

/// Held for the moment between reading a claim and removing it, so that nobody removes a new claim for an old one.
struct Guard {
    _file: Option<File>,
}

impl Guard {
    /// A lock of the file system, which may die with another machine, is tried for a second only: without it two may in rare
    /// cases hold one claim, which costs work and nothing else.
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

    const QUICK: Patience = Patience { beat: Duration::from_millis(20), expiry: Duration::from_millis(400) };

    fn foreign(beat: u64) -> Vec<u8> {
        let holder = Holder { host: "elsewhere".into(), beat, ..Holder::here() };
        serde_json::to_vec(&holder).unwrap()
    }

    #[test]
    fn a_second_taker_is_told_who_holds_it_and_gets_it_after_the_first_is_gone() {
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
        let never = Patience { expiry: Duration::from_secs(3600), ..QUICK };
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
                    fs::write(&path, foreign(beat)).unwrap();
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
    fn clocks_say_nothing_about_a_claim() {
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
    fn waiting_ends_when_told_to_stop_and_a_holder_that_lost_its_claim_knows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let claim = Claim::try_take(&path, dir.path(), QUICK).unwrap();
        claim.tell(Doing { step: "train".into(), done: 3, total: 9, loss: Some(0.5) });
        let stop = Stop::default();
        let told = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                stop.set();
            });
            Claim::take(&path, &stop, QUICK, &|_| ()).unwrap_err()
        });
        assert!(matches!(told, HarnessError::Stopped), "{told}");
        assert_eq!(holder(&path).unwrap().doing.done, 3);
        let other = foreign(0);
        fs::write(&path, &other).unwrap();
        let error = claim.check().unwrap_err();
        assert!(matches!(&error, HarnessError::LostClaim { holder, .. } if holder.ends_with("elsewhere")));
        std::thread::sleep(3 * QUICK.beat);
        drop(claim);
        assert_eq!(fs::read(&path).unwrap(), other, "it is not ours any more");
    }
}
