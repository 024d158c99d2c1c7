//! Queue of the stages to run: in the plan's order, each after those that it needs.

use std::ops::Deref;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::HarnessError;
use crate::stop::Stop;

/// A stage that is not stored.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) label: String,
    /// Positions of tasks before this one that must be done first.
    pub(crate) needs: Vec<usize>,
}

#[derive(Debug)]
enum State {
    Waiting,
    Running,
    Done,
    Failed(HarnessError),
}

/// Shared by the workers' threads.
#[derive(Debug)]
pub(crate) struct Queue {
    tasks: Vec<Task>,
    states: Mutex<Vec<State>>,
    changed: Condvar,
    /// Whether no task starts after one has failed.
    fail_fast: bool,
}

impl Queue {
    pub(crate) fn new(tasks: Vec<Task>) -> Self {
        let states = tasks.iter().map(|_| State::Waiting).collect();
        Self { tasks, states: Mutex::new(states), changed: Condvar::new(), fail_fast: false }
    }

    /// The same queue, in which no task starts after one has failed, if `fail_fast` is set.
    pub(crate) fn failing_fast(self, fail_fast: bool) -> Self {
        Self { fail_fast, ..self }
    }

    /// Whether a failure has ended the queue, so that running tasks should stop as well.
    pub(crate) fn is_halted(&self) -> bool {
        self.fail_fast && has_failed(&self.states())
    }

    /// Waits for a task that is ready and hands it out; `None` when no more can become ready, or `stop` is set.
    pub(crate) fn next(&self, stop: &Stop) -> Option<Turn<'_>> {
        /// Maximum delay until a set stop flag is noticed.
        const LOOK_EVERY: Duration = Duration::from_millis(100);
        let mut states = self.states();
        loop {
            if stop.is_set() || (self.fail_fast && has_failed(&states)) {
                return None;
            }
            let is_done = |needed: usize| matches!(states.get(needed), Some(State::Done));
            let is_ready = |index: usize| {
                matches!(states[index], State::Waiting)
                    && self.tasks[index].needs.iter().all(|&needed| is_done(needed))
            };
            if let Some(index) = (0..self.tasks.len()).find(|&index| is_ready(index)) {
                states[index] = State::Running;
                return Some(Turn { queue: self, index, is_over: false });
            }
            // Only the end of a running task can make another one ready.
            if !states.iter().any(|state| matches!(state, State::Running)) {
                return None;
            }
            let waited = self.changed.wait_timeout(states, LOOK_EVERY);
            states = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Records how a task ended; tasks that need a failed one fail as well.
    fn ended(&self, index: usize, result: Result<(), HarnessError>) {
        let mut states = self.states();
        states[index] = match result {
            Ok(()) => State::Done,
            Err(HarnessError::Stopped) => State::Waiting,
            Err(error) => State::Failed(error),
        };
        for index in 0..self.tasks.len() {
            let failed = |&&needed: &&usize| matches!(states.get(needed), Some(State::Failed(_)));
            if let (State::Waiting, Some(&needed)) =
                (&states[index], self.tasks[index].needs.iter().find(failed))
            {
                states[index] =
                    State::Failed(HarnessError::Needs { needed: self.tasks[needed].label.clone() });
            }
        }
        self.changed.notify_all();
    }

    /// The number of finished tasks, and the error: the root error if all other failures follow from it, else a summary. Tasks
    /// that never became ready are an error, too, unless a failure has ended the queue. Not for a run that was stopped.
    pub(crate) fn outcome(self) -> (usize, Option<HarnessError>) {
        let states = self.states.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (total, mut done, mut blocked) = (self.tasks.len(), 0, 0);
        let (mut causes, mut waiting) = (Vec::new(), Vec::new());
        for (task, state) in self.tasks.iter().zip(states) {
            match state {
                State::Done => done += 1,
                State::Failed(HarnessError::Needs { .. }) => blocked += 1,
                State::Failed(error) => causes.push((&task.label, error)),
                State::Waiting | State::Running => waiting.push(task.label.as_str()),
            }
        }
        let failed = causes.len();
        let left = if self.fail_fast { waiting.len() } else { 0 };
        let only_cause = failed == 1 && blocked == total - 1;
        let mut causes = causes.into_iter();
        let failure = causes.next().map(|(label, error)| {
            // The error itself, as its kind decides the exit code.
            if only_cause {
                return error;
            }
            HarnessError::StagesFailed { failed, blocked, left, total, first: format!("{label}: {error}") }
        });
        let stuck = (!waiting.is_empty()).then(|| HarnessError::NeverReady { stages: waiting.join(", ") });
        (done, failure.or(stuck))
    }

    fn states(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a task has failed.
fn has_failed(states: &[State]) -> bool {
    states.iter().any(|state| matches!(state, State::Failed(_)))
}

/// A task that was handed out. If it is dropped before its end is recorded, as when a thread panics, it counts as failed, so that no
/// other task waits for it.
pub(crate) struct Turn<'a> {
    queue: &'a Queue,
    index: usize,
    is_over: bool,
}

impl Turn<'_> {
    /// Records how the task ended.
    pub(crate) fn end(mut self, result: Result<(), HarnessError>) {
        self.is_over = true;
        self.queue.ended(self.index, result);
    }
}

impl Deref for Turn<'_> {
    type Target = Task;

    fn deref(&self) -> &Task {
        &self.queue.tasks[self.index]
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let problem = "its thread ended without a result".to_owned();
            let stage = self.id.clone();
            self.queue.ended(self.index, Err(HarnessError::Worker { stage, problem }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(needs: &[&[usize]]) -> Queue {
        let task = |(i, needs): (usize, &&[usize])| Task {
            id: i.to_string(),
            label: format!("task {i}"),
            needs: needs.to_vec(),
        };
        Queue::new(needs.iter().enumerate().map(task).collect())
    }

    fn failed() -> Result<(), HarnessError> {
        Err(HarnessError::Worker { stage: "x".into(), problem: "no luck".into() })
    }

    #[test]
    fn tasks_are_handed_out_in_order_after_those_they_need() {
        let queue = tasks(&[&[], &[], &[0], &[1], &[0]]);
        let stop = Stop::default();
        let first = queue.next(&stop).unwrap();
        let second = queue.next(&stop).unwrap();
        assert_eq!((first.id.as_str(), second.id.as_str()), ("0", "1"));
        second.end(Ok(()));
        let third = queue.next(&stop).unwrap();
        assert_eq!(third.id, "3");
        first.end(Ok(()));
        let fourth = queue.next(&stop).unwrap();
        assert_eq!(fourth.id, "2");
        stop.set();
        assert!(queue.next(&stop).is_none());
        third.end(Err(HarnessError::Stopped));
        fourth.end(Err(HarnessError::Stopped));
        assert_eq!(queue.outcome().0, 2);
    }

    #[test]
    fn a_failure_fails_the_tasks_that_need_it_and_no_others() {
        let queue = tasks(&[&[], &[], &[0], &[1], &[2]]);
        let stop = Stop::default();
        let mut run = Vec::new();
        while let Some(task) = queue.next(&stop) {
            run.push(task.id.clone());
            let result = if task.id == "0" { failed() } else { Ok(()) };
            task.end(result);
        }
        assert_eq!(run, ["0", "1", "3"]);
        let (done, failure) = queue.outcome();
        assert_eq!(done, 2);
        let text = failure.unwrap().to_string();
        let expected =
            "1 of 5 stages failed, 2 were not run as they need one that failed, the others are stored; ";
        assert!(text.starts_with(expected) && text.contains("task 0: "), "{text}");
    }

    #[test]
    fn a_task_waits_for_all_that_it_needs_and_fails_with_any_of_it() {
        let queue = tasks(&[&[], &[0], &[0], &[0, 1, 2], &[1]]);
        let stop = Stop::default();
        let next = || queue.next(&stop).unwrap();
        next().end(Ok(()));
        let (zeros, moments) = (next(), next());
        assert_eq!((zeros.id.as_str(), moments.id.as_str()), ("1", "2"));
        zeros.end(Ok(()));
        let other = next();
        assert_eq!(other.id, "4", "what needs one kind of evidence does not wait for another");
        moments.end(failed());
        other.end(Err(HarnessError::Stopped));
        let (done, failure) = queue.outcome();
        let text = failure.unwrap().to_string();
        let expected = "1 of 5 stages failed, 1 was not run as it needs one that failed";
        assert!(done == 2 && text.starts_with(expected), "{done}: {text}");
    }

    #[test]
    fn nothing_starts_after_a_failure_if_it_is_to_fail_fast() {
        let queue = tasks(&[&[], &[], &[0], &[1]]).failing_fast(true);
        let stop = Stop::default();
        let (first, second) = (queue.next(&stop).unwrap(), queue.next(&stop).unwrap());
        assert!(!queue.is_halted());
        second.end(failed());
        assert!(queue.is_halted() && queue.next(&stop).is_none());
        // The one that ran is asked to stop, but was nearly done.
        first.end(Ok(()));
        assert!(queue.next(&stop).is_none());
        let (done, failure) = queue.outcome();
        let text = failure.unwrap().to_string();
        let expected = "1 of 4 stages failed, 1 was not run as it needs one that failed, 1 was not run as the run \
                        fails fast, the others are stored; ";
        assert!(done == 1 && text.starts_with(expected), "{text}");

        let without = tasks(&[&[], &[]]);
        without.next(&stop).unwrap().end(failed());
        assert!(!without.is_halted() && without.next(&stop).is_some());
    }

    #[test]
    fn a_cause_of_everything_stays_itself() {
        let queue = tasks(&[&[], &[0]]);
        queue.next(&Stop::default()).unwrap().end(failed());
        assert!(queue.next(&Stop::default()).is_none());
        assert!(matches!(queue.outcome(), (0, Some(HarnessError::Worker { .. }))));
    }

    #[test]
    fn several_causes_are_counted_apart_from_what_needs_them() {
        let queue = tasks(&[&[], &[], &[0], &[1]]);
        for _ in 0..2 {
            queue.next(&Stop::default()).unwrap().end(failed());
        }
        let text = queue.outcome().1.unwrap().to_string();
        let expected =
            "2 of 4 stages failed, 2 were not run as they need one that failed; the first failure: task 0: ";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn a_stopped_task_is_neither_done_nor_failed() {
        let queue = tasks(&[&[]]);
        queue.next(&Stop::default()).unwrap().end(Err(HarnessError::Stopped));
        assert!(queue.next(&Stop::default()).is_some(), "it can run again");
    }

    #[test]
    fn tasks_that_can_never_start_end_the_queue_and_are_named() {
        // The first is ready, the next two need each other, the fourth needs a task that does not exist.
        let queue = tasks(&[&[], &[2], &[1], &[9]]);
        queue.next(&Stop::default()).unwrap().end(Ok(()));
        assert!(queue.next(&Stop::default()).is_none());
        let (done, failure) = queue.outcome();
        let text = failure.unwrap().to_string();
        assert!(done == 1 && text.ends_with(": task 1, task 2, task 3"), "{text}");
    }

    #[test]
    fn a_task_whose_thread_panicked_counts_as_failed() {
        let queue = tasks(&[&[], &[0], &[]]);
        let stop = Stop::default();
        std::thread::scope(|scope| {
            let panicked = scope.spawn(|| {
                let _task = queue.next(&stop).unwrap();
                std::panic::panic_any("no luck");
            });
            assert!(panicked.join().is_err());
        });
        let other = queue.next(&stop).unwrap();
        assert_eq!(other.id, "2");
        other.end(Ok(()));
        assert!(queue.next(&stop).is_none());
        let (done, failure) = queue.outcome();
        assert!(done == 1 && failure.unwrap().to_string().contains("task 0: "));
    }
}
