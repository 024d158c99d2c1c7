//! Selection by programs: one process for each program of a study, kept for the cells that follow; its answers, and the check that it
//! keeps no state.

mod messages;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;
use thinet_files::hash_file;
use thinet_graph::{ChannelSet, channel_group};
use thinet_sampling::{check_needs, gathered};
use thinet_seed::Seed;
use thinet_selectors::{Evidence, Needs};

use super::evidence_file;
use crate::error::HarnessError;
use crate::stop::Stop;
use crate::study::{CommandSpec, Plan, SelectorCommand, SelectorSpec, check};
pub(crate) use messages::Hello;
use messages::{Answer, NoAnswer, Question};
use process::{Failure, Process, Start, Starting};

/// The Python side of the protocol, which programs can import.
pub(crate) const PYTHON_MODULE: &str = include_str!("../../../../python/thinet_selector.py");
/// The name of its file.
pub(crate) const PYTHON_FILE: &str = "thinet_selector.py";
/// Questions that are asked again: each in a new process, followed there by those before it.
const ASKED_AGAIN: usize = 2;

/// The programs of a study in this process.
pub(crate) struct Programs {
    /// Whether programs may be run.
    is_allowed: bool,
    /// Threads that each may use.
    threads: usize,
    stop: Stop,
    sessions: Mutex<Vec<Session>>,
}

/// A question about a layer of a cell.
pub(crate) struct LayerQuestion<'a> {
    pub(crate) command: &'a Arc<SelectorCommand>,
    /// With the kinds that the program's hello names.
    pub(crate) evidence: &'a Evidence,
    /// Channels that this cell keeps.
    pub(crate) keep: usize,
    /// Channels that cells of this method and seed keep.
    pub(crate) all_keep: BTreeSet<usize>,
    /// Whether layers are compared, so that the answer must be scores.
    pub(crate) is_global: bool,
    pub(crate) seed: Seed,
    /// The folder of the cell or the allocation, for the file of evidence.
    pub(crate) folder: &'a Path,
    /// Receives what the program prints on standard error.
    pub(crate) note: &'a dyn Fn(String),
}

/// A program: its process, if there is one, and its answers.
struct Session {
    command: Arc<SelectorCommand>,
    /// Holds the Python module.
    python: TempDir,
    process: Option<Process>,
    /// The process that will check the next answer. It starts beside the work until then, but after an answer: a program that seeds itself
    /// with the time or leaves something in a file would not show otherwise.
    next_check: Option<Starting>,
    /// Answers by evidence, layer, seed and whether layers are compared: cells that differ in their keep rate can share them.
    answers: BTreeMap<(String, String, u64, bool), Answer>,
    /// Questions that a second process was asked.
    checked: Vec<(Question, Answer)>,
}

impl Programs {
    pub(crate) fn new(is_allowed: bool, threads: usize, stop: Stop) -> Self {
        Self { is_allowed, threads, stop, sessions: Mutex::default() }
    }

    /// What a program says about itself; starts it if it is not running.
    ///
    /// # Errors
    /// If programs are not allowed, it fails, or it needs evidence that the spec does not name.
    pub(crate) fn hello(&self, command: &Arc<SelectorCommand>) -> Result<Hello, HarnessError> {
        self.with(command, |session| {
            let python = session.python.path().to_owned();
            let hello = session.running(&self.start(command, &python)).map(|process| process.hello.clone());
            hello.map_err(|failure| session.error(failure, None))
        })
    }

    /// The channels that stay.
    ///
    /// # Errors
    /// If programs are not allowed, the program fails or gives no valid answer, keeps a state, or one of its files has changed.
    pub(crate) fn select(&self, asked: &LayerQuestion<'_>) -> Result<ChannelSet, HarnessError> {
        let evidence = asked.evidence;
        let order = self.ask(asked)?.order;
        let mut stays = vec![true; evidence.channels];
        order[..evidence.channels - asked.keep].iter().for_each(|&channel| stays[channel] = false);
        let kept = (0..evidence.channels).filter(|&channel| stays[channel]).collect();
        Ok(ChannelSet::new(evidence.channels, kept)?)
    }

    /// The score of each channel; the one with the smallest matters least.
    ///
    /// # Errors
    /// As [`Programs::select`], and if the program answers with an order.
    pub(crate) fn scores(&self, asked: &LayerQuestion<'_>) -> Result<Vec<f64>, HarnessError> {
        self.ask(asked)?.scores.ok_or_else(|| HarnessError::Program {
            command: asked.command.words(),
            layer: Some(asked.evidence.layer.clone()),
            problem: "it answered with an order, and prune.allocation = \"global\" compares the channels of all layers: it \
                      needs scores"
                .to_owned(),
        })
    }

    fn ask(&self, asked: &LayerQuestion<'_>) -> Result<Answer, HarnessError> {
        self.with(asked.command, |session| {
            let python = session.python.path().to_owned();
            let answer = session.checked_answer(asked, &self.start(asked.command, &python));
            if let Some(process) = &session.process {
                process.take_errors().into_iter().for_each(asked.note);
            }
            answer
        })
    }

    fn start<'a>(&'a self, command: &'a SelectorCommand, python: &'a Path) -> Start<'a> {
        Start { command, python, threads: self.threads, stop: &self.stop }
    }

    /// Calls `work` with the session of a program. A failure ends it: the next call starts another one, without its answers.
    fn with<T>(
        &self,
        command: &Arc<SelectorCommand>,
        work: impl FnOnce(&mut Session) -> Result<T, HarnessError>,
    ) -> Result<T, HarnessError> {
        if !self.is_allowed {
            return Err(HarnessError::CommandsNotAllowed { commands: command.words() });
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let at = match sessions.iter().position(|session| session.command == *command) {
            Some(at) => at,
            None => {
                sessions.push(Session::new(command)?);
                sessions.len() - 1
            }
        };
        let done = work(&mut sessions[at]);
        if done.is_err() {
            sessions.remove(at);
        }
        done
    }
}

impl Session {
    fn new(command: &Arc<SelectorCommand>) -> Result<Self, HarnessError> {
        let python = tempfile::Builder::new().prefix("thinet-python-").tempdir();
        let python = python.map_err(HarnessError::io("create a folder in", std::env::temp_dir()))?;
        let module = python.path().join(PYTHON_FILE);
        fs::write(&module, PYTHON_MODULE).map_err(HarnessError::io("write", &module))?;
        Ok(Self {
            command: command.clone(),
            python,
            process: None,
            next_check: None,
            answers: BTreeMap::new(),
            checked: Vec::new(),
        })
    }

    /// The running process, started if there is none.
    fn running(&mut self, start: &Start<'_>) -> Result<&mut Process, Failure> {
        let process = match self.process.take() {
            Some(process) => process,
            None => ready(Starting::spawn(start)?, start)?,
        };
        Ok(self.process.insert(process))
    }

    /// The answer about a layer of a program whose files are those of the plan.
    fn checked_answer(
        &mut self,
        asked: &LayerQuestion<'_>,
        start: &Start<'_>,
    ) -> Result<Answer, HarnessError> {
        let layer = asked.evidence.layer.as_str();
        self.check_files(layer)?;
        let result = self.answer(asked, start);
        // A program that fails because its files have changed is one whose files have changed.
        self.check_files(layer)?;
        result
    }

    fn answer(&mut self, asked: &LayerQuestion<'_>, start: &Start<'_>) -> Result<Answer, HarnessError> {
        let evidence = asked.evidence;
        let failed = |session: &Self, failure| session.error(failure, Some(&evidence.layer));
        let needs = match self.running(start) {
            Ok(process) => process.hello.needs,
            Err(failure) => return Err(failed(self, failure)),
        };
        let file = evidence_path(asked)?;
        let tensors = evidence_file::tensors(&[evidence.only(needs)], needs)?;
        evidence_file::save(&file, &tensors, &BTreeMap::new())?;
        let question = Question {
            evidence: file.display().to_string(),
            layer: evidence.layer.clone(),
            channels: evidence.channels,
            keep: asked.all_keep.iter().copied().collect(),
            seed: asked.seed.to_i64() as u64 & ((1 << 53) - 1),
        };
        let hash = hash_file(&file).map_err(HarnessError::io("read", &file))?;
        let key = (hash, question.layer.clone(), question.seed, asked.is_global);
        let enough = evidence.channels - asked.keep;
        let answer = match self.answers.get(&key).filter(|answer| answer.order.len() >= enough) {
            Some(answer) => answer.clone(),
            None => {
                let answer = self.running(start).and_then(|process| ask(process, &question));
                let answer = answer.map_err(|failure| failed(self, failure))?;
                let checked = self.check_state(&question, &answer, asked, start);
                checked.map_err(|failure| failed(self, failure))?;
                self.answers.insert(key, answer.clone());
                answer
            }
        };
        if self.checked.iter().all(|(question, _)| Path::new(&question.evidence) != file) {
            fs::remove_file(&file).map_err(HarnessError::io("remove", &file))?;
        }
        Ok(answer)
    }

    /// Asks a second process the same questions, the last one first, until [`ASKED_AGAIN`] questions were asked again: a program that
    /// keeps a state, draws at random or depends on the numbers of channels to keep gives other answers.
    fn check_state(
        &mut self,
        question: &Question,
        answer: &Answer,
        asked: &LayerQuestion<'_>,
        start: &Start<'_>,
    ) -> Result<(), Failure> {
        if self.checked.len() >= ASKED_AGAIN {
            return Ok(());
        }
        // Files of finished cells are gone.
        self.checked.retain(|(question, _)| Path::new(&question.evidence).is_file());
        let other = self.next_check.take().map_or_else(|| Starting::spawn(start), Ok)?;
        let mut other = ready(other, start)?;
        let before = self.checked.iter().rev().cloned();
        let again = Question { keep: vec![asked.keep], ..question.clone() };
        for (question, expected) in [(again, answer.clone())].into_iter().chain(before) {
            let found = ask(&mut other, &question)?;
            let both = found.order.len().min(expected.order.len());
            let is_same_order = found.order[..both] == expected.order[..both];
            if !is_same_order || (asked.is_global && found.scores != expected.scores) {
                return Err(other.failed(&format!(
                    "a second process, asked in another order, gave another answer for layer {:?}: an answer may depend on \
                     nothing but the evidence, the layer and the seed of its question",
                    question.layer
                )));
            }
        }
        self.checked.push((question.clone(), answer.clone()));
        if self.checked.len() < ASKED_AGAIN {
            self.next_check = Some(Starting::spawn(start)?);
        }
        Ok(())
    }

    /// Checks that the program's files are those of the plan.
    fn check_files(&mut self, layer: &str) -> Result<(), HarnessError> {
        let Some(name) = self.command.changed_file() else { return Ok(()) };
        let problem = format!("{name} has changed since the study was planned; start the run again");
        Err(self.error(Failure::Program(problem), Some(layer)))
    }

    fn error(&self, failure: Failure, layer: Option<&str>) -> HarnessError {
        match failure {
            Failure::Stopped => HarnessError::Stopped,
            Failure::Program(problem) => HarnessError::Program {
                command: self.command.words(),
                layer: layer.map(str::to_owned),
                problem,
            },
        }
    }
}

/// Waits for the hello of a program and checks it.
fn ready(starting: Starting, start: &Start<'_>) -> Result<Process, Failure> {
    let mut process = starting.hello()?;
    let needs = process.hello.needs;
    if let Some(declared) = start.command.needs
        && let Some(kind) = needs.kinds().find(|kind| !declared.contains(*kind))
    {
        return Err(process
            .failed(&format!("it needs {:?}, which the key needs of the spec does not name", kind.key())));
    }
    Ok(process)
}

fn ask(process: &mut Process, question: &Question) -> Result<Answer, Failure> {
    let answer = process.ask(&question.line())?;
    question.read_answer(&answer).map_err(|problem| match problem {
        NoAnswer::Said(why) => process.gave_up(&why),
        NoAnswer::Wrong(problem) => process.failed(&problem),
    })
}

/// The file of evidence of a layer in its cell's folder; an absolute path, as programs run elsewhere.
fn evidence_path(asked: &LayerQuestion<'_>) -> Result<PathBuf, HarnessError> {
    let folder = asked.folder.canonicalize().map_err(HarnessError::io("open", asked.folder))?;
    Ok(folder.join(format!(".selector-{}.safetensors", asked.evidence.layer)))
}

/// Starts every program that a run of the plan needs, once, and checks what it says about itself.
///
/// # Errors
/// If programs are not allowed. If one cannot be started, says no hello, or needs evidence that a layer cannot give; the message names
/// the key of the spec.
pub(crate) fn check_programs(plan: &Plan, is_allowed: bool, stop: &Stop) -> Result<(), HarnessError> {
    let commands = plan.commands_to_run();
    if !is_allowed && !commands.is_empty() {
        let words: Vec<String> = commands.iter().map(|command| command.words()).collect();
        return Err(HarnessError::CommandsNotAllowed { commands: words.join(", ") });
    }
    let programs = Programs::new(is_allowed, plan.spec.compute.threads, stop.clone());
    for command in &commands {
        let is_it = |cell: &&crate::study::Cell| cell.design.command.as_ref() == Some(command);
        let Some(cell) = plan.cells.iter().find(is_it) else { continue };
        let method = plan.spec.methods.iter().position(|method| *method == *cell.design.method);
        let key = format!("methods[{}].selector", method.unwrap_or_default());
        let hello = match programs.hello(command) {
            Err(error @ HarnessError::Program { .. }) => return Err(check::value(&plan.path, &key, &error)),
            hello => hello?,
        };
        check_layers(plan, hello.needs).map_err(|e| check::value(&plan.path, &key, &e))?;
        let planned = cell.allocation.as_ref().map_or(cell.needs, |stage| stage.needs);
        if let Some(kind) = gathered(hello.needs).find(|kind| !planned.contains(kind.kind())) {
            let name = kind.kind().key();
            let problem =
                format!("the program needs {name:?}, which is gathered only where the key `needs` names it");
            return Err(check::value(&plan.path, &key, &problem));
        }
    }
    Ok(())
}

/// What a program that is no part of the plan says about itself.
///
/// # Errors
/// If it cannot be started, says no hello, or needs evidence that a layer of the plan cannot give; the message names the program.
pub(crate) fn hello_of(command: &CommandSpec, plan: &Plan, stop: &Stop) -> Result<Hello, HarnessError> {
    let selector = SelectorSpec::Command(command.clone());
    let wrong = |problem: &dyn std::fmt::Display| check::value(&plan.path, "methods", problem);
    let command = SelectorCommand::of(&selector, &plan.path).map_err(|problem| wrong(&problem))?;
    let Some(command) = command else { unreachable!("a command is given") };
    let programs = Programs::new(true, plan.spec.compute.threads, stop.clone());
    let hello = match programs.hello(&Arc::new(command)) {
        Err(error @ HarnessError::Program { .. }) => return Err(wrong(&error)),
        hello => hello?,
    };
    check_layers(plan, hello.needs).map_err(|e| wrong(&e))?;
    Ok(hello)
}

/// Checks that every layer that is pruned can give this evidence.
fn check_layers(plan: &Plan, needs: Needs) -> Result<(), HarnessError> {
    for layer in plan.variants.iter().flat_map(|variant| &variant.spec.prune.layers) {
        check_needs(needs, &channel_group(&plan.graph, layer)?)?;
    }
    Ok(())
}
